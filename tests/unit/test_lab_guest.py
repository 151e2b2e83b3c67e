# SPDX-License-Identifier: MIT
"""Starting a guest, and its results."""

import contextlib
import io
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from rich.cells import cell_len

from kalloctrace.console import Console
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.lab import boot, guest_console, run
from kalloctrace.lab.guest import (
    Machine,
    command_script,
    environment,
    initramfs_command,
    virtme_command,
    writable_directories,
    write_job,
)
from kalloctrace.lab.kernels import Kernel

HOST = {"PATH": os.environ["PATH"]}


def run_script(argv: Sequence[str], env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """Run the script as the guest does."""
    script = cwd / "command"
    script.write_bytes(command_script(argv, env, cwd))
    return subprocess.run(["sh", str(script)], check=False, capture_output=True)


def test_any_byte_reaches_the_command(tmp_path: Path) -> None:
    """Every byte that an argument may contain arrives, and so do empty arguments, options and line breaks."""
    words = [os.fsdecode(bytes(range(1, 256))), "", "-n", "--", "a b", "$HOME `id` \\n", "x=y", "*", "\n", "ü"]
    show = "import os, sys; os.write(1, b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
    done = run_script([sys.executable, "-c", show, *words], HOST, tmp_path)
    assert done.stdout.split(b"\0") == [os.fsencode(word) for word in words]


def test_environment_is_exact(tmp_path: Path) -> None:
    """Nothing is inherited, and any value arrives."""
    done = run_script(["env", "-0"], {**HOST, "ODD": "a'b\n=c"}, tmp_path)
    names = {entry.partition(b"=")[0] for entry in done.stdout.split(b"\0") if entry}
    assert b"ODD=a'b\n=c" in done.stdout.split(b"\0")
    assert names - {b"PWD", b"OLDPWD", b"SHLVL", b"_"} == {b"ODD", b"PATH"}


@pytest.mark.parametrize(
    ("argv", "code"), [(["sh", "-c", "exit 7"], 7), (["true"], 0), (["no-such-command"], 127), (["a=b"], 127)]
)
def test_exit_code_is_the_command_s(argv: list[str], code: int, tmp_path: Path) -> None:
    """A missing command has the shell's exit code, even if its name looks like a variable."""
    assert run_script(argv, HOST, tmp_path).returncode == code


def test_command_starts_in_its_directory(tmp_path: Path) -> None:
    """The directory's name may require quoting."""
    odd = tmp_path / "it's here"
    odd.mkdir()
    assert run_script(["pwd"], HOST, odd).stdout.decode().strip() == str(odd)


def test_environment_puts_this_interpreter_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """This program's variables are passed on, others are not, and given ones take precedence."""
    monkeypatch.setenv("KALLOCTRACE_THING", "1")
    monkeypatch.setenv("SECRET_THING", "1")
    env = environment({"LANG": "de_DE.UTF-8"})
    assert env["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert env["KALLOCTRACE_THING"] == "1"
    assert env["LANG"] == "de_DE.UTF-8"
    assert "SECRET_THING" not in env


@pytest.mark.parametrize(
    ("machine", "memory"),
    [
        (Machine(), "3G"),
        (Machine(memory="512M"), "512M"),
        (Machine(numa=("1G,cpus=0", "2G,cpus=1")), "3072M"),
        (Machine(numa=("512M,cpus=0-1", "0,cpus=2", "100")), "612M"),
    ],
)
def test_memory_is_the_sum_of_the_nodes(machine: Machine, memory: str) -> None:
    """An explicit size takes precedence."""
    assert machine.total_memory() == memory


@pytest.mark.parametrize("machine", [Machine(numa=("big",)), Machine(numa_distance=("0-1",))])
def test_bad_nodes_are_wrong_usage(machine: Machine, tmp_path: Path) -> None:
    """The error shows the syntax."""
    with pytest.raises(KalloctraceError) as caught:
        virtme_command(tmp_path / "image", tmp_path, [], machine)
    assert caught.value.code == Exit.USAGE


def test_command_has_the_machine_s_parts(tmp_path: Path) -> None:
    """It has nodes, distances, kernel arguments and QEMU's arguments, and no KVM."""
    machine = Machine(
        cpus=4,
        numa=("1G,cpus=0-1", "1G,cpus=2-3"),
        numa_distance=("0,1=30",),
        append=("movablecore=512M",),
        qemu_options=("-s",),
    )
    share = tmp_path / "a,b"
    command = virtme_command(tmp_path / "image", tmp_path, [tmp_path, share], machine)
    text = " ".join(command)
    assert command[command.index("--cpus") + 1] == "4"
    assert "--numa 1G,cpus=0-1 --numa 1G,cpus=2-3 --numa-distance src=0,dst=1,val=30" in text
    assert "--kopt=movablecore=512M" in command
    assert "--qemu-opt=-s" in command
    assert "--disable-kvm" in command
    assert f"path={tmp_path}/a,,b,security_model=none,multidevs=remap,readonly=off" in text


def test_kvm_replaces_emulation(tmp_path: Path) -> None:
    """KVM is used on request only, without the emulator's settings."""
    command = virtme_command(tmp_path / "image", tmp_path, [], Machine(kvm=True))
    assert "--disable-kvm" not in command
    assert "--qemu-opt=-accel" not in command


def test_instruction_clock_is_the_emulator_s(tmp_path: Path) -> None:
    """It requires one processor, emulated by one thread, in both boot of booting."""
    machine = Machine(icount=True)
    virtme = virtme_command(tmp_path / "image", tmp_path, [], machine)
    memory = initramfs_command(tmp_path / "image", tmp_path / "archive", tmp_path, 4096, machine)
    assert virtme[virtme.index("--cpus") + 1] == "1"
    assert memory[memory.index("-smp") + 1] == "1"
    for command in (virtme, memory):
        words = [word.removeprefix("--qemu-opt=") for word in command]
        assert words[words.index("-icount") + 1] == "shift=0,sleep=off"
        assert words[words.index("-accel") + 1].startswith("tcg,thread=single")
        assert "avx=off" in words[words.index("-cpu") + 1]


@pytest.mark.parametrize("icount", [False, True])
def test_emulated_processor_could_exist(*, icount: bool) -> None:
    """No feature is on without the one it builds on: with FSRM alone, memmove() never ends in kernels before 6.5."""
    words = Machine(icount=icount).emulation()
    off = {word.removesuffix("=off") for word in words[words.index("-cpu") + 1].split(",")}
    for base, built_on_it in {"erms": {"fsrm"}, "avx": {"avx2", "f16c", "fma", "vaes"}}.items():
        assert base in off
        assert built_on_it <= off


@pytest.mark.parametrize("other", [{"kvm": True}, {"cpus": 2}])
def test_instruction_clock_needs_one_emulated_processor(other: dict[str, Any]) -> None:
    """KVM or several processors are wrong usage."""
    with pytest.raises(KalloctraceError) as caught:
        Machine(icount=True, **other)
    assert caught.value.code == Exit.USAGE


def test_directories_are_shared_outer_first(tmp_path: Path) -> None:
    """Each directory is shared once, and none hides another."""
    inner = tmp_path / "in"
    inner.mkdir()
    assert writable_directories([inner, tmp_path, inner]) == [tmp_path, inner]


@pytest.mark.parametrize("path", ["/", "/proc", "/sys/kernel", "/no/such/directory"])
def test_some_directories_cannot_be_shared(path: str) -> None:
    """The error names them, with the reason."""
    with pytest.raises(KalloctraceError, match="cannot be shared") as caught:
        writable_directories([path])
    assert caught.value.code == Exit.USAGE


def test_interpreter_below_a_share_stays_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout's .venv is mounted with a cache."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    write_job(tmp_path, ["true"], [tmp_path], {}, tmp_path)
    assert (tmp_path / "cached").read_text(encoding="utf-8") == f"{tmp_path}/.venv\n"
    assert (tmp_path / "shares").read_text(encoding="utf-8") == f"kalloctrace.1 {tmp_path}\n"


@pytest.fixture
def fake_virtme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a `virtme-run` on PATH that runs a script of the test, and return its path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    fake = programs / "virtme-run"
    fake.touch(mode=0o755)
    monkeypatch.setattr(run, "search_path", lambda: f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(run, "require_lab", lambda: None)
    monkeypatch.setattr(boot, "has_9p", lambda _: True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(work)
    return fake


def write_fake(fake: Path, body: str) -> None:
    """Write the fake guest's script; `$job` is the job's directory."""
    # The last argument is `sh guest.sh JOB`.
    fake.write_text(f"#!/bin/sh\nfor word; do :; done\njob=${{word##* }}\n{body}\n", encoding="utf-8")


def ends(pid_file: Path) -> bool:
    """Return whether a process ends within some seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not is_running(pid_file):
            return True
        time.sleep(0.01)
    return False


def is_running(pid_file: Path) -> bool:
    """Return whether a process is running; a zombie is not."""
    try:
        stat = Path(f"/proc/{int(pid_file.read_text(encoding='ascii'))}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


class Watched(io.BytesIO):
    """A stream that records when its first bytes arrive."""

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()
        self.written = threading.Event()

    def flush(self) -> None:
        """Record the call."""
        self.written.set()


def test_result_is_complete(fake_virtme: Path) -> None:
    """The result has both streams, the exit code and the release."""
    write_fake(
        fake_virtme,
        "echo 6.12.1 >$job/release; echo out >>$job/stdout; echo err >>$job/stderr; echo 3 >$job/exit",
    )
    out, err = io.BytesIO(), io.BytesIO()
    result = run.run_in_guest(["x"], kernel=Kernel("x", Path("/image")), stdout=out, stderr=err)
    assert (result.returncode, result.release) == (3, "6.12.1")
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert (out.getvalue(), err.getvalue()) == (b"out\n", b"err\n")
    assert result.console.exists()


def test_output_arrives_while_the_guest_runs(fake_virtme: Path, tmp_path: Path) -> None:
    """The fake guest continues only after its first line has arrived."""
    go = tmp_path / "go"
    write_fake(
        fake_virtme,
        f"echo 1 >$job/release; echo first >>$job/stdout\nwhile [ ! -e {go} ]; do sleep 0.05; done\n"
        "echo last >>$job/stdout; echo 0 >$job/exit",
    )
    out = Watched()

    def release_guest() -> None:
        if out.written.wait(timeout=20):
            go.touch()

    waiter = threading.Thread(target=release_guest)
    waiter.start()
    result = run.run_in_guest(["x"], kernel=Kernel("x", Path("/image")), stdout=out, timeout=30)
    waiter.join()
    assert result.stdout == b"first\nlast\n"


def test_guest_that_dies_is_an_error(fake_virtme: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The reason is the panic; the end of the console is printed, and its file named."""
    write_fake(fake_virtme, "echo 'Kernel panic - not syncing: no init' >&2; echo bye >&2; exit 255")
    with pytest.raises(KalloctraceError) as caught:
        run.run_in_guest(["x"], kernel=Kernel("x", Path("/image")))
    assert caught.value.why == "Kernel panic - not syncing: no init"
    assert caught.value.fix.endswith("console.log")
    assert "console: bye" in caplog.text


@pytest.mark.parametrize("text", ["", "x", "-1", "99999999999", "\\\\377"])
def test_exit_code_of_garbage_is_an_error(fake_virtme: Path, text: str) -> None:
    """The file comes from the guest."""
    write_fake(fake_virtme, f"printf '\\377' >$job/release; printf '{text}' >$job/exit")
    with pytest.raises(KalloctraceError, match="without an exit code"):
        run.run_in_guest(["x"], kernel=Kernel("x", Path("/image")))


def test_emulation_failure_is_tried_again(fake_virtme: Path, tmp_path: Path) -> None:
    """A kernel that dies of its own breakpoint before the command starts is booted again; no other is."""
    write_fake(
        fake_virtme,
        f"if [ ! -e {tmp_path}/second ]; then\n"
        f"touch {tmp_path}/second; echo '[    1.805986] Oops: int3: 0000 [#1] PREEMPT SMP' >&2; exit 1\nfi\n"
        "echo 1 >$job/release; echo 0 >$job/exit",
    )
    assert run.run_in_guest(["x"], kernel=Kernel("x", Path("/image"))).returncode == 0


def test_silent_guest_is_tried_once_more_with_safer_arguments(
    fake_virtme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A guest whose console falls silent is ended and named; the second boot emulates an old processor."""
    monkeypatch.setattr(run, "_SILENCE", 0.5)
    pid = tmp_path / "pid"
    write_fake(
        fake_virtme,
        'case "$*" in *Nehalem*) echo 1 >$job/release; echo 0 >$job/exit; exit;; esac\n'
        f"printf 'last\\033[2J words' >&2; sleep 300 & echo $! >{pid}; wait",
    )
    start = time.monotonic()
    assert run.run_in_guest(["x"], kernel=Kernel("x", Path("/image"), "5.10.0-46")).returncode == 0
    assert time.monotonic() - start < 20
    assert ends(pid)
    assert r"5.10.0-46 was silent for 0.5 s while it booted (last: last\x1b[2J words)" in caplog.text
    assert "-cpu Nehalem" in caplog.text


def test_guest_that_stays_silent_is_an_error(
    fake_virtme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two boots, also without KVM, and then the error names the kernel and its console."""
    monkeypatch.setattr(run, "_SILENCE", 0.3)
    write_fake(fake_virtme, f"echo x >>{tmp_path}/boots; exec sleep 300")
    with pytest.raises(KalloctraceError, match=r"5\.10\.0-46 does not boot") as caught:
        run.run_in_guest(["x"], kernel=Kernel("x", Path("/image"), "5.10.0-46"), kvm=True)
    assert "silent for 0.3 s" in caught.value.why
    assert "nothing on its console yet" not in caught.value.why
    assert (tmp_path / "boots").read_text(encoding="ascii") == "x\nx\n"


def test_slow_guest_that_speaks_is_not_ended(fake_virtme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A boot may take many times as long as a silence; the command may then be silent."""
    monkeypatch.setattr(run, "_SILENCE", 1.0)
    write_fake(
        fake_virtme,
        "for i in 1 2 3 4 5 6 7 8; do echo line $i >&2; sleep 0.25; done\n"
        "echo 1 >$job/release; sleep 1.5; echo 0 >$job/exit",
    )
    assert run.run_in_guest(["x"], kernel=Kernel("x", Path("/image"))).returncode == 0


def test_crashed_emulator_is_started_once_more(
    fake_virtme: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """QEMU may die of a signal while it boots; the second boot runs the command."""
    once = f"[ -e {tmp_path}/boots ] || {{ touch {tmp_path}/boots; kill -SEGV $$; }}"
    write_fake(fake_virtme, f"{once}\necho 1 >$job/release; echo 0 >$job/exit")
    assert run.run_in_guest(["x"], kernel=Kernel("x", Path("/image"))).returncode == 0
    assert "failed while the guest booted; booting again" in caplog.text


def test_emulator_that_crashes_twice_is_an_error(fake_virtme: Path, tmp_path: Path) -> None:
    """Two boots, and then the error says so."""
    write_fake(fake_virtme, f"echo x >>{tmp_path}/boots; kill -SEGV $$")
    with pytest.raises(KalloctraceError, match="QEMU crashed twice while x booted"):
        run.run_in_guest(["x"], kernel=Kernel("x", Path("/image")))
    assert (tmp_path / "boots").read_text(encoding="ascii") == "x\nx\n"


def test_emulator_that_crashes_under_the_command_is_not_restarted(fake_virtme: Path, tmp_path: Path) -> None:
    """The command may have had effects."""
    write_fake(fake_virtme, f"echo x >>{tmp_path}/boots; echo 1 >$job/release; kill -SEGV $$")
    with pytest.raises(KalloctraceError, match="ended before the command did"):
        run.run_in_guest(["x"], kernel=Kernel("x", Path("/image")))
    assert (tmp_path / "boots").read_text(encoding="ascii") == "x\n"


def test_guest_that_crashes_at_once_is_an_error(fake_virtme: Path, tmp_path: Path) -> None:
    """It is booted once, and the reason is QEMU's."""
    write_fake(fake_virtme, f"echo x >>{tmp_path}/boots; echo 'qemu: no such \033[31mprocessor' >&2; exit 1")
    with pytest.raises(KalloctraceError, match="ended before the command did") as caught:
        run.run_in_guest(["x"], kernel=Kernel("x", Path("/image")))
    assert caught.value.why == r"qemu: no such \x1b[31mprocessor"
    assert (tmp_path / "boots").read_text(encoding="ascii") == "x\n"


def test_console_of_garbage_is_escaped(fake_virtme: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a long line, nor bytes that are no text, nor escape sequences reach a person as they are."""
    write_fake(
        fake_virtme, r"head -c 3000000 /dev/zero | tr '\0' A >&2; printf '\n\377\033[2J\342\200\256\n' >&2; exit 1"
    )
    progress = io.StringIO()
    with pytest.raises(KalloctraceError) as caught:
        run.run_in_guest(["x"], kernel=Kernel("x", Path("/image")), progress=Console(progress))
    for text in (str(caught.value), caplog.text, progress.getvalue()):
        assert all(line.isprintable() for line in text.splitlines())
        assert len(text) < 10_000
    assert r"\x1b[2J\u202e" in caught.value.why


def test_progress_of_a_boot_is_a_line_in_ten_seconds(fake_virtme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal the kernel, the seconds and the last line are shown at once, and then from time to time."""
    monkeypatch.setattr(guest_console, "_EVERY", 0.3)
    write_fake(
        fake_virtme,
        "for i in 1 2 3; do printf '[ 1.0] step\033[2J\r\n' >&2; sleep 0.3; done\n"
        "echo 1 >$job/release; echo 0 >$job/exit",
    )
    progress = io.StringIO()
    run.run_in_guest(["x"], kernel=Kernel("x", Path("/image"), "5.10.0-46"), progress=Console(progress))
    lines = progress.getvalue().splitlines()
    assert lines[0].startswith("5.10.0-46 boots, 0 s: ")
    assert 2 <= len(lines) <= 5
    assert lines[-1].endswith(r" s: [ 1.0] step\x1b[2J")


def test_progress_on_a_terminal_is_one_line(fake_virtme: Path) -> None:
    """The line fits the terminal, is rewritten, and is gone when the command starts."""
    main, other = pty.openpty()
    termios.tcsetwinsize(other, (24, 60))
    write_fake(
        fake_virtme,
        "printf '漢字%.0s' $(seq 200) >&2; echo >&2; sleep 1.5; echo 1 >$job/release; echo 0 >$job/exit",
    )
    with os.fdopen(main, "rb", buffering=0) as terminal:
        with os.fdopen(other, "w", encoding="utf-8") as stream:
            run.run_in_guest(["x"], kernel=Kernel("x", Path("/image"), "5.10.0-46"), progress=Console(stream))
        written = b""
        # Linux ends a terminal whose other end is closed with an error.
        with contextlib.suppress(OSError):
            while part := terminal.read(1 << 16):
                written += part
    shown = written.decode()
    first, *states, last = shown.split("\r")
    assert (first, last) == ("", "\x1b[K")
    assert len(states) >= 2
    assert "\n" not in shown
    assert {cell_len(state.removesuffix("\x1b[K")) for state in states[1:]} <= {58, 59}
    assert "5.10.0-46 boots, 1 s: 漢字" in shown


def test_guest_that_hangs_is_ended(fake_virtme: Path, tmp_path: Path) -> None:
    """At the time limit, the guest and all its processes end."""
    pid = tmp_path / "pid"
    write_fake(fake_virtme, f"sleep 300 & echo $! >{pid}; wait")
    with pytest.raises(KalloctraceError, match="did not end within 1 s") as caught:
        run.run_in_guest(["x"], kernel=Kernel("x", Path("/image")), timeout=1)
    assert caught.value.why.startswith("it was still booting")
    assert ends(pid)


def test_termination_ends_the_guest(fake_virtme: Path, tmp_path: Path) -> None:
    """SIGTERM ends it like Ctrl-C."""
    pid = tmp_path / "pid"
    body = f"sleep 300 & echo $! >{pid}.new; mv {pid}.new {pid}; sleep 1; kill -TERM {os.getpid()}; wait"
    write_fake(fake_virtme, body)
    with pytest.raises(KeyboardInterrupt):
        run.run_in_guest(["x"], kernel=Kernel("x", Path("/image")), timeout=30)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert ends(pid)


def test_time_limit_of_a_test_ends_the_guest(fake_virtme: Path, tmp_path: Path) -> None:
    """At a test's time limit pytest-timeout raises in the main thread, from SIGALRM."""
    pid = tmp_path / "pid"

    def expire(number: int, frame: object) -> NoReturn:
        raise TimeoutError(number, frame)

    body = f"sleep 300 & echo $! >{pid}.new; mv {pid}.new {pid}; sleep 1; kill -ALRM {os.getpid()}; wait"
    write_fake(fake_virtme, body)
    before = signal.signal(signal.SIGALRM, expire)
    try:
        with pytest.raises(TimeoutError):
            run.run_in_guest(["x"], kernel=Kernel("x", Path("/image")), timeout=30)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ends(pid)


def test_guest_does_not_outlive_its_owner(fake_virtme: Path, tmp_path: Path) -> None:
    """A guest started by a thread ends too when the process is killed."""
    pid = tmp_path / "pid"
    write_fake(fake_virtme, f"sleep 300 & echo $! >{pid}.new; mv {pid}.new {pid}; wait")
    owner = os.fork()
    if not owner:
        owned = threading.Thread(target=run.run_in_guest, args=(["x"],), kwargs={"kernel": Kernel("x", Path("/image"))})
        owned.start()
        owned.join()
        os._exit(1)
    deadline = time.monotonic() + 20
    while not pid.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    assert ends(pid)
