# SPDX-License-Identifier: MIT
"""Runs a command in a guest as if it ran here: forwards its output, exit code and files."""

import dataclasses
import functools
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO, NoReturn

from kalloctrace.console import Console
from kalloctrace.errors import KalloctraceError
from kalloctrace.lab.boot import BootPlan, GuestJob, boot_command, prepared
from kalloctrace.lab.guest import Machine, environment, why_not_shared, writable_directories
from kalloctrace.lab.guest_console import BootProgress, GuestConsole
from kalloctrace.lab.kernels import Kernel, cache_directory, obtain
from kalloctrace.lab.needs import require_lab, search_path
from kalloctrace.probe.attach.program_cache import CACHE_VARIABLE

_LOG = logging.getLogger(__name__)
_POLL = 0.05
_GRACE = 10.0
# A booting kernel prints a line every few seconds, on a busy machine too.
_SILENCE = 60.0
_TAIL_LINES = 15
_INT3 = re.compile(r"^\[ *[\d.]+\] (?:Oops: )?int3: 0000")
# A failed unpacking ends in a panic; the first match is the cause.
_FATAL = re.compile("Initramfs unpacking failed|Kernel panic")
_DAY = 24 * 60 * 60


@dataclass(frozen=True)
class GuestResult:
    """The result of a command in a guest.

    Attributes:
        returncode: its exit code.
        stdout: its standard output.
        stderr: its standard error.
        console: the file with the guest's console output, kept for a day.
        release: the kernel's `uname -r`.
        seconds: the duration, including the boot.
    """

    returncode: int
    stdout: bytes
    stderr: bytes
    console: Path
    release: str
    seconds: float


_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)


class _Ended(Enum):
    """How the wait for a guest ended."""

    BY_ITSELF = auto()
    CRASHED = auto()
    LATE = auto()
    SILENT = auto()


class _Stream:
    """An output file of the guest, copied to a stream of this process while it grows."""

    def __init__(self, path: Path, sink: BinaryIO | None) -> None:
        self._path = path
        self._sink = sink
        self.read = bytearray()
        path.touch()

    def copy(self) -> None:
        """Copy new output, and keep it in `read`."""
        with self._path.open("rb") as file:
            file.seek(len(self.read))
            chunk = file.read()
        self.read += chunk
        if chunk and self._sink is not None:
            self._sink.write(chunk)
            self._sink.flush()


def run_in_guest(
    argv: Sequence[str],
    *,
    kernel: str | Kernel = "5.10",
    memory: str | None = None,
    cpus: int | None = None,
    numa: Sequence[str] = (),
    numa_distance: Sequence[str] = (),
    append: Sequence[str] = (),
    qemu_options: Sequence[str] = (),
    kvm: bool = False,
    icount: bool = False,
    writable: Sequence[str | os.PathLike[str]] = (),
    in_memory: bool = False,
    env: Mapping[str, str] | None = None,
    timeout: float = 600,
    stdout: BinaryIO | None = None,
    stderr: BinaryIO | None = None,
    progress: Console | None = None,
) -> GuestResult:
    """Boot a kernel and run a command in it.

    A guest that falls silent while it boots is ended, and booted once more with `Machine.safe`. Programs that a
    recording compiles are kept here for the next guest of that kernel, unless KALLOCTRACE_PROGRAMS says otherwise.

    The command sees this machine's files read-only, and the current directory and `writable` read-write. A kernel
    without 9p cannot mount them: it gets copies of the files that a recording requires, and changed files of the
    writable directories are copied back.

    Args:
        argv: the command and its arguments, passed unchanged.
        kernel: a name such as `6.12`, the path of an image, or a result of `obtain`.
        memory: see `Machine`, also for the arguments up to `icount`.
        cpus: the number of processors.
        numa: one entry per node.
        numa_distance: the nodes' distances.
        append: further kernel arguments.
        qemu_options: further arguments for QEMU.
        kvm: use the host's KVM.
        icount: the guest's clock counts instructions.
        writable: further directories to share read-write.
        in_memory: use copies even if the kernel has 9p. Programs then start in half the time, but files that were not
            copied are missing.
        env: variables for the command.
        timeout: seconds after which the guest is killed.
        stdout: the stream that receives the command's standard output while it runs.
        stderr: the stream that receives its standard error.
        progress: shows the boot to a person.

    Returns:
        The result of the command.

    Raises:
        KalloctraceError: the guest cannot boot, or ends before the command does.
    """
    require_lab()
    machine = Machine(memory, cpus, numa, numa_distance, append, qemu_options, kvm, icount)
    if not isinstance(kernel, Kernel):
        kernel = obtain(kernel)
    start = time.monotonic()
    programs = {} if CACHE_VARIABLE in {**os.environ, **(env or {})} else _programs()
    boot = functools.partial(
        _boot,
        argv,
        kernel=kernel,
        writable=[*writable, *programs.values()],
        in_memory=in_memory,
        env={**programs, **(env or {})},
        timeout=timeout,
        sinks=(stdout, stderr),
        progress=progress,
    )
    job_dir, ended, streams = boot(machine=machine)
    if ended is _Ended.CRASHED or (ended is _Ended.BY_ITSELF and _failed_in_emulation(job_dir)):
        when = "while the guest booted" if ended is _Ended.CRASHED else "while the kernel patched its own code"
        _LOG.warning("warning: the emulator failed %s; booting again", when)
        job_dir, ended, streams = boot(machine=machine)
    if ended is _Ended.SILENT:
        machine = dataclasses.replace(machine, kvm=False, safe=True)
        _LOG.warning(
            "warning: %s was silent for %g s while it booted (last: %s); booting it once more, with %s",
            _name(kernel),
            _SILENCE,
            GuestConsole(job_dir / "console.log").last_line(),
            " ".join(machine.emulation()),
        )
        job_dir, ended, streams = boot(machine=machine)
    for stream in streams:
        stream.copy()
    output, errors = (bytes(stream.read) for stream in streams)
    if not (job_dir / "exit").exists():
        _give_up(kernel, job_dir, ended, timeout)
    code = _exit_code(job_dir)
    release = (job_dir / "release").read_text(encoding="utf-8", errors="replace").strip()
    for leftover in ("stdout", "stderr", "command", "shares", "cached"):
        (job_dir / leftover).unlink(missing_ok=True)
    return GuestResult(code, output, errors, job_dir / "console.log", release, time.monotonic() - start)


def _programs() -> dict[str, str]:
    """Return the variable with the folder of compiled programs; none if it cannot be shared with a guest."""
    folder = (cache_directory() / "programs").resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {} if why_not_shared(folder) else {CACHE_VARIABLE: str(folder)}


def _exit_code(job_dir: Path) -> int:
    text = (job_dir / "exit").read_bytes().strip()
    if not re.fullmatch(rb"[0-9]{1,3}", text):
        raise KalloctraceError(
            "the guest ended without an exit code",
            f"it wrote {text[:20]!r} instead",
            f"read its console: {job_dir}/console.log",
        )
    return int(text)


def _boot(
    argv: Sequence[str],
    *,
    kernel: Kernel,
    machine: Machine,
    writable: Sequence[str | os.PathLike[str]],
    in_memory: bool,
    env: Mapping[str, str],
    timeout: float,
    sinks: tuple[BinaryIO | None, BinaryIO | None],
    progress: Console | None,
) -> tuple[Path, _Ended, list[_Stream]]:
    """Boot once; return the job's directory, how the guest ended, and its output."""
    job_dir = _new_job_dir()
    job = GuestJob(argv, writable_directories([Path.cwd(), *writable]), environment(env), Path.cwd())
    streams = [_Stream(job_dir / "stdout", sinks[0]), _Stream(job_dir / "stderr", sinks[1])]
    with _interruptible(), prepared(kernel.image, machine, job_dir, job, in_memory=in_memory) as plan:
        with _started(plan.command, job_dir, timeout) as process:
            console = GuestConsole(job_dir / "console.log")
            shown = BootProgress(_name(kernel), console, progress) if progress is not None else None
            deadline = time.monotonic() + timeout
            ended = _wait_for_boot(process, job_dir, plan, console=console, progress=shown, deadline=deadline)
            if ended is None:
                ended = _follow(process, job_dir, plan, streams, deadline)
        plan.poll()
    if ended is _Ended.BY_ITSELF and _crashed(process.returncode) and not (job_dir / "release").exists():
        ended = _Ended.CRASHED
    return job_dir, ended, streams


def _crashed(code: int) -> bool:
    """Return whether QEMU died of a signal of its own, as its multi-threaded emulation occasionally does.

    Args:
        code: the exit code of timeout(1), which runs QEMU; it dies of the same signal, or adds 128 to its number.
    """
    return any(code in {-number, 128 + number} for number in _CRASHES)


def _failed_in_emulation(job_dir: Path) -> bool:
    """Return whether the kernel died of one of its own breakpoints before the command started.

    A booting kernel patches its code behind breakpoints. With QEMU's multi-threaded emulation another processor
    occasionally hits a breakpoint that has already been removed.
    """
    if (job_dir / "release").exists():
        return False
    return any(_INT3.match(line) for line in GuestConsole(job_dir / "console.log").lines())


def dry_run(argv: Sequence[str], kernel: Kernel, machine: Machine, writable: Sequence[str]) -> list[str]:
    """Return the command with which `run_in_guest` boots the guest."""
    del argv  # passed in a file
    return boot_command(kernel.image, machine, _jobs() / "job_dir", writable_directories([Path.cwd(), *writable]))


@contextmanager
def _started(command: Sequence[str], job_dir: Path, timeout: float) -> Iterator[subprocess.Popen[bytes]]:
    """Start a guest in its own process group, and kill the group in the end."""
    # If this process is killed, setpriv and timeout end the guest.
    limit = ["setpriv", "--pdeathsig", "TERM", "timeout", "--kill-after=5", str(int(timeout + _GRACE * 2)), *command]
    with (job_dir / "console.log").open("wb") as console:
        process = subprocess.Popen(
            limit,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=console,
            start_new_session=True,
            env={**os.environ, "PATH": search_path()},
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _name(kernel: Kernel) -> str:
    return kernel.release or kernel.name


def _wait_for_boot(
    process: subprocess.Popen[bytes],
    job_dir: Path,
    plan: BootPlan,
    *,
    console: GuestConsole,
    progress: BootProgress | None,
    deadline: float,
) -> _Ended | None:
    """Wait until the guest starts the command; return how it ended if it does not."""
    try:
        while process.poll() is None:
            plan.poll()
            if (job_dir / "release").exists():
                return None
            if console.silence() > _SILENCE:
                return _Ended.SILENT
            if time.monotonic() > deadline:
                return _Ended.LATE
            if progress is not None:
                progress.show()
            time.sleep(_POLL)
    finally:
        if progress is not None:
            progress.end()
    return None


def _follow(
    process: subprocess.Popen[bytes], job_dir: Path, plan: BootPlan, streams: Sequence[_Stream], deadline: float
) -> _Ended:
    """Forward the guest's output until it ends or the deadline passes."""
    while process.poll() is None:
        if (job_dir / "exit").exists():
            # The command has ended; only the guest's shutdown is left.
            deadline = min(deadline, time.monotonic() + _GRACE)
        if time.monotonic() > deadline:
            return _Ended.LATE
        plan.poll()
        for stream in streams:
            stream.copy()
        time.sleep(_POLL)
    return _Ended.BY_ITSELF


def _give_up(kernel: Kernel, job_dir: Path, ended: _Ended, timeout: float) -> NoReturn:
    """Print the end of the console and raise the error for a guest without an exit code.

    Args:
        kernel: what it booted.
        job_dir: the job's directory.
        ended: how it ended.
        timeout: the time limit in seconds.
    """
    console = job_dir / "console.log"
    lines = GuestConsole(console).lines()
    for line in lines[-_TAIL_LINES:]:
        _LOG.error("console: %s", line)
    last = lines[-1] if lines else "the console is empty"
    why = next((line for line in lines if _FATAL.search(line)), None)
    if ended is _Ended.BY_ITSELF:
        raise KalloctraceError("the guest ended before the command did", why or last, f"read its console: {console}")
    if ended is _Ended.CRASHED:
        raise KalloctraceError(
            f"QEMU crashed twice while {_name(kernel)} booted", f"the console ends with: {last}", "use another QEMU"
        )
    if ended is _Ended.SILENT:
        raise KalloctraceError(
            f"{_name(kernel)} does not boot",
            f"its console was silent for {_SILENCE:g} s, also with safer arguments: {last}",
            f"try another kernel, or read its console: {console}",
        )
    if why is None:
        why = "the command was still running" if (job_dir / "release").exists() else f"it was still booting: {last}"
    raise KalloctraceError(
        f"the guest did not end within {timeout:g} s",
        why,
        f"allow more time with --timeout, or read its console: {console}",
    )


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, so that the guest is ended too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> NoReturn:
        del number, frame
        raise KeyboardInterrupt

    old = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _jobs() -> Path:
    return cache_directory() / "guests"


def _new_job_dir() -> Path:
    """Return a new directory for one guest; remove directories older than a day."""
    jobs = _jobs()
    jobs.mkdir(parents=True, exist_ok=True)
    for old in jobs.iterdir():
        if time.time() - old.stat().st_mtime > _DAY:
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=jobs))
