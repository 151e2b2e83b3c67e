# SPDX-License-Identifier: MIT
"""What a process may still do after it has given up its privileges, seen from inside a process of its own."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kalloctrace.probe.privileges import landlock, needed, seccomp
from kalloctrace.probe.privileges.capabilities import Capability
from kalloctrace.probe.privileges.confine import protections

PATHS = {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": ""}
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
SECCOMP = pytest.mark.skipif(not seccomp.available(), reason="this kernel has no seccomp")
LANDLOCK = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

TRY = """
import os, sys
from pathlib import Path
from kalloctrace.probe.privileges import confine as module
from kalloctrace.probe.privileges import landlock
from kalloctrace.probe.privileges.capabilities import Capability
from kalloctrace.probe.privileges.confine import confine
def attempt(what):
    try:
        what()
    except OSError as error:
        print(type(error).__name__)
    else:
        print("done")
"""


def inside(script: str, cwd: Path, *before: str) -> list[str]:
    """Run Python code in a process of its own; return the lines that it prints."""
    done = subprocess.run(
        [*before, sys.executable, "-c", TRY + script],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | PATHS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def status(script: str, cwd: Path, *before: str) -> dict[str, int]:
    """Run Python code; return the lines of its status whose value is a hexadecimal number."""
    lines = inside(f"{script}\nprint(Path('/proc/self/status').read_text())", cwd, *before)
    pairs = (line.split(":\t") for line in lines if line.startswith(("Cap", "NoNewPrivs", "Seccomp:")))
    return {name: int(value, 16) for name, value in pairs}


@ROOT
def test_nothing_is_left(tmp_path: Path) -> None:
    """All five sets are empty, nothing can be gained, and the filter is there where the kernel has one."""
    found = status("confine()", tmp_path)
    assert found == {
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0),
        "NoNewPrivs": 1,
        "Seccomp": 2 if seccomp.available() else 0,
    }


@ROOT
@pytest.mark.parametrize(
    ("arguments", "left"),
    [("kept={Capability.KILL}", 1 << 5), ("maps_readable=lambda: False", 1 << 39), ("maps_readable=lambda: True", 0)],
)
def test_only_what_is_needed_is_left(arguments: str, left: int, tmp_path: Path) -> None:
    """The capability that the work needs, also in the permitted set, and no other."""
    found = status(f"confine({arguments})", tmp_path)
    assert (found["CapEff"], found["CapPrm"], found["CapBnd"], found["CapInh"]) == (left, left, 0, 0)


@ROOT
def test_maps_are_tried_without_capabilities(tmp_path: Path) -> None:
    """Otherwise the attempt would say nothing."""
    script = "from kalloctrace.probe.privileges.capabilities import effective\n"
    assert inside(script + "confine(maps_readable=lambda: print(effective()) or True)", tmp_path) == ["frozenset()"]


@ROOT
def test_folder_of_somebody_else_stays_writable(tmp_path: Path) -> None:
    """Of the capabilities that takes one, kept for that folder; a folder of root's takes none."""
    os.chown(tmp_path, 65534, 65534)
    later = "confine([Path('.').resolve()], files_later=True)"
    assert inside(f"{later}; attempt(lambda: open('new', 'x'))", tmp_path) == ["done"]
    assert status(later, tmp_path)["CapEff"] == 1 << 1
    assert status(f"os.environ['SUDO_UID'] = '65534'; {later}", tmp_path)["CapEff"] == 1 << 1 | 1 << 0
    assert status("confine([Path('.').resolve()])", tmp_path)["CapEff"] == 0
    os.chown(tmp_path, 0, 0)
    assert status(later, tmp_path)["CapEff"] == 0


@ROOT
def test_installation_that_only_its_owner_reads_stays_readable(tmp_path: Path) -> None:
    """As with pipx in a home directory and sudo: a module may be imported later."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "late.py").write_text("print('imported')")
    os.chown(home, 65534, 65534)
    assert inside(f"sys.path.append('{home}'); confine(); import late", tmp_path) == ["imported"]


@LANDLOCK
@pytest.mark.parametrize(
    ("attempt", "result"),
    [
        ("open('inside', 'x')", "done"),
        ("open('old', 'w')", "done"),
        ("os.rename('old', 'other')", "done"),
        ("os.unlink('old')", "done"),
        ("os.mkdir('folder')", "PermissionError"),
        ("os.symlink('old', 'link')", "PermissionError"),
        ("open('../outside', 'x')", "PermissionError"),
        ("open('../existing', 'r+')", "PermissionError"),
        ("open('../existing', 'a')", "PermissionError"),
        ("os.truncate('../existing', 0)", "PermissionError"),
        ("os.unlink('../existing')", "PermissionError"),
        ("os.rename('../existing', 'mine')", "PermissionError"),
        ("os.link('../existing', 'mine')", "PermissionError"),
        ("os.chmod('../existing', 0o666)", "PermissionError"),
        ("open('../existing')", "done"),
        ("open('/proc/self/comm', 'w')", "PermissionError"),
        ("open('/dev/null', 'w')", "done"),
    ],
)
def test_only_the_folder_is_writable(attempt: str, result: str, tmp_path: Path) -> None:
    """New and existing files, inside and outside."""
    (tmp_path / "existing").write_text("keep")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "old").touch()
    script = f"confine([Path('.').resolve()])\nattempt(lambda: {attempt})"
    try:
        (found,) = inside(script, tmp_path / "output")
    except ValueError as error:
        raise AssertionError("one line expected") from error
    assert found in {result, "OSError"} if result != "done" else found == result
    assert (tmp_path / "existing").read_text() == "keep"
    assert not (tmp_path / "outside").exists()


@SECCOMP
@pytest.mark.parametrize(
    ("attempt", "result"),
    [
        ("open('new', 'x')", "done"),
        ("open('old')", "done"),
        ("os.rename('old', 'other')", "done"),
        ("open('old', 'w')", "PermissionError"),
        ("open('old', 'r+')", "PermissionError"),
        ("open('old', 'a')", "PermissionError"),
        ("open('absent', 'w')", "PermissionError"),
        ("os.open('.', os.O_TMPFILE | os.O_RDWR)", "PermissionError"),
        ("os.open('old', os.O_RDONLY | os.O_TRUNC)", "PermissionError"),
    ],
)
def test_without_landlock_no_existing_file_is_writable(attempt: str, result: str, tmp_path: Path) -> None:
    """As on kernels before 5.13; a trace that is open stays so."""
    (tmp_path / "old").write_text("keep")
    script = f"trace = open('trace', 'w'); landlock.version = lambda: 0; confine()\nattempt(lambda: {attempt})\n"
    assert inside(script + "trace.write('more'); trace.close()", tmp_path) == [result]
    assert (tmp_path / "trace").read_text() == "more"
    assert [path for path in tmp_path.iterdir() if path.is_file() and path.read_text() == "keep"]


@SECCOMP
def test_reader_that_is_gone_is_no_failure_without_landlock(tmp_path: Path) -> None:
    """A recorder's `| head` ends quietly although no file can be opened for writing."""
    script = (
        "from kalloctrace.cli import _system_failed\n"
        "landlock.version = lambda: 0; confine(); read_end, write_end = os.pipe(); os.close(read_end)\n"
        "os.dup2(write_end, 1)\ntry:\n    print('lost', flush=True)\n"
        "except BrokenPipeError as error:\n    code = _system_failed(error)\n"
        "os.write(2, b'reached'); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", TRY + script], capture_output=True, check=False, cwd=tmp_path, env=os.environ | PATHS
    )
    assert (done.returncode, done.stderr) == (0, b"reached")


@SECCOMP
@pytest.mark.parametrize(
    "attempt",
    [
        "os.execv('/bin/true', ['true'])",
        "__import__('subprocess').run(['true'])",
        "__import__('socket').create_connection(('127.0.0.1', 1))",
        "os.setuid(0)",
        "os.chroot('.')",
        "module.landlock.system_call('perf_event_open', 298, None, 0, -1, -1, 0)",
        "module.landlock.system_call('bpf', 321, 0, None, 0)",
        "module.landlock.system_call('bpf', 321, 5, None, 0)",
        "module.landlock.system_call('mount', 165, None, None, None, 0, None)",
    ],
)
def test_what_a_recording_never_does_is_refused(attempt: str, tmp_path: Path) -> None:
    """Other programs, connections, identities, new probes and maps."""
    assert inside(f"confine()\nattempt(lambda: {attempt})", tmp_path) == ["PermissionError"]


@SECCOMP
def test_maps_that_are_open_can_be_read(tmp_path: Path) -> None:
    """The filter lets the call through: the kernel itself rejects these arguments."""
    script = "confine()\ntry: module.landlock.system_call('bpf', 321, 1, None, 0)\n"
    (number,) = inside(script + "except OSError as error: print(error.errno)", tmp_path)
    assert number != "1"


def test_threads_and_event_loops_still_work(tmp_path: Path) -> None:
    """The screen and the metrics server use them."""
    script = (
        "confine()\nimport asyncio, socket, threading\n"
        "status = Path('/proc/thread-self/status')\n"
        "thread = threading.Thread(target=lambda: print(status.read_text().count('NoNewPrivs:\\t1')))\n"
        "thread.start(); thread.join()\n"
        "asyncio.run(asyncio.sleep(0))\n"
        "server = socket.socket(); server.bind(('127.0.0.1', 0)); server.listen()\n"
    )
    assert inside(script, tmp_path) == ["1"]


@ROOT
def test_other_threads_are_named_or_follow(tmp_path: Path) -> None:
    """One that can run a function gives up the same; any other is named, and has the filter at least."""
    script = (
        "import threading\nfrom kalloctrace.signals import Ending\n"
        "with Ending() as ending:\n"
        "    thread = threading.Thread(target=threading.Event().wait, daemon=True); thread.start()\n"
        "    strangers = confine(in_other_thread=ending.in_watcher)\n"
        "    print(len(strangers))\n"
        "    for task in os.listdir('/proc/self/task'):\n"
        "        print(','.join(line.split()[1].lstrip('0') for line in open(f'/proc/self/task/{task}/status')\n"
        "                if line.startswith(('CapPrm', 'CapBnd', 'NoNewPrivs', 'Seccomp:'))))\n"
    )
    count, main, watcher, stranger = inside(script, tmp_path)
    assert count == "3"
    filtered = ",1,2" if seccomp.available() else ",1,"
    assert main == watcher == f",{filtered}"
    assert stranger.endswith(filtered)
    assert stranger != main


@ROOT
def test_recorder_s_libraries_start_no_threads(tmp_path: Path) -> None:
    """Importing them leaves one thread, and the environment as it was."""
    script = (
        "before = dict(os.environ)\n"
        "from kalloctrace.probe.privileges.threads import import_libraries_without_threads, thread_names\n"
        "import_libraries_without_threads()\n"
        "import kalloctrace.probe.observer\n"
        "print(len(thread_names()), before == dict(os.environ))"
    )
    assert inside(script, tmp_path) == ["1 True"]


def test_processes_of_the_same_user_cannot_take_the_open_files(tmp_path: Path) -> None:
    """The process cannot be traced: it may hold /proc/kcore open."""
    script = "confine(); print(module.prctl(3))"
    assert inside(script, tmp_path) == ["0"]


def test_protections_are_named() -> None:
    """With the version of Landlock, as doctor prints it."""
    found = protections()
    assert found[0] == "no_new_privs"
    assert ("seccomp" in found) == seccomp.available()
    assert (f"Landlock {landlock.version()}" in found) == (landlock.version() > 0)


@ROOT
def test_unprivileged_caller_can_give_up_too(tmp_path: Path) -> None:
    """Without CAP_SETPCAP the bounding set stays."""
    tmp_path.chmod(0o755)
    before = ("setpriv", "--inh-caps=-all", "--bounding-set=-setpcap")
    found = status("confine()", tmp_path, *before)
    assert (found["CapEff"], found["CapPrm"], found["NoNewPrivs"]) == (0, 0, 1)


class FakeBtf:
    """A kernel of which only one member matters."""

    def __init__(self, counts: bool) -> None:
        self.counts = counts

    def has_member(self, struct: str, member: str) -> bool:
        """Return whether maps count as locked memory."""
        return self.counts and (struct, member) == ("bpf_map", "memory")


@pytest.mark.parametrize(
    ("paranoid", "memory", "expected"),
    [
        ("2", (False, 1 << 20), {"cap_bpf", "cap_perfmon"}),
        ("-1", (False, 1 << 20), {"cap_bpf", "cap_perfmon"}),
        ("3", (False, 1 << 20), {"cap_sys_admin"}),
        ("4", (False, 1 << 20), {"cap_sys_admin"}),
        ("2", (True, 1 << 20), {"cap_bpf", "cap_perfmon", "cap_sys_resource"}),
        ("2", (True, resource.RLIM_INFINITY), {"cap_bpf", "cap_perfmon"}),
    ],
)
def test_sufficient_capabilities(
    paranoid: str, memory: tuple[bool, int], expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the elimination in guests found; root needs no capability for files that belong to it."""
    (tmp_path / "paranoid").write_text(f"{paranoid}\n")
    monkeypatch.setattr(needed, "_PARANOID", tmp_path / "paranoid")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (memory[1], memory[1]))
    kernel: Any = SimpleNamespace(btf=FakeBtf(memory[0]))
    always = {"cap_dac_override", "cap_sys_rawio", "cap_syslog"}
    sufficient = needed.sufficient_capabilities(kernel)
    assert {str(one) for one in sufficient} == always | expected
    assert all(sufficient.values())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not needed.missing_capabilities(kernel, frozenset(sufficient))
    for one in sufficient:
        assert needed.missing_capabilities(kernel, frozenset(sufficient) - {one}) == [one]
    with_admin = (frozenset(sufficient) - {Capability.BPF, Capability.PERFMON}) | {Capability.SYS_ADMIN}
    assert not needed.missing_capabilities(kernel, with_admin)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not needed.missing_capabilities(kernel, frozenset(sufficient) - {Capability.DAC_OVERRIDE})


@ROOT
def test_wider_capability_stays_where_the_narrower_one_is_missing(tmp_path: Path) -> None:
    """As on 5.10 with kernel.perf_event_paranoid=3, where a user records with CAP_SYS_ADMIN in place of CAP_BPF."""
    before = ("setpriv", "--inh-caps=-all", "--bounding-set=-bpf")
    assert status("confine(maps_readable=lambda: False)", tmp_path, *before)["CapEff"] == 1 << 21
