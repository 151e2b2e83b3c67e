# SPDX-License-Identifier: MIT
"""Running a command in a guest, as if it ran here: its output as it comes, its exit code, its files."""

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
from pathlib import Path
from typing import BinaryIO, NoReturn

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab.boot import BootPlan, GuestJob, boot_command, prepared
from kalloctrace.lab.guest import Machine, environment, writable_directories
from kalloctrace.lab.kernels import Kernel, cache_directory, obtain
from kalloctrace.lab.needs import require_lab, search_path

_LOG = logging.getLogger(__name__)
_POLL = 0.05
_GRACE = 10.0
_TAIL_LINES = 15
_INT3 = re.compile(r"^\[ *[\d.]+\] (?:Oops: )?int3: 0000", re.MULTILINE)
# The second is what comes of the first.
_FATAL = re.compile("Initramfs unpacking failed|Kernel panic")
_DAY = 24 * 60 * 60


@dataclass(frozen=True)
class GuestResult:
    """What a command did in a guest.

    Attributes:
        returncode: its exit code.
        stdout: what it wrote to its standard output.
        stderr: what it wrote to its standard error.
        console: the guest's console, a file kept for a day.
        release: the kernel's `uname -r`.
        seconds: how long it all took, the boot included.
    """

    returncode: int
    stdout: bytes
    stderr: bytes
    console: Path
    release: str
    seconds: float


class _Stream:
    """One of the guest's output files, copied to a stream of ours as it grows."""

    def __init__(self, path: Path, sink: BinaryIO | None) -> None:
        self._path = path
        self._sink = sink
        self._read = bytearray()
        path.touch()

    def copy(self) -> bytes:
        """Pass on what came since the last time, and return all there was."""
        with self._path.open("rb") as file:
            file.seek(len(self._read))
            chunk = file.read()
        self._read += chunk
        if chunk and self._sink is not None:
            self._sink.write(chunk)
            self._sink.flush()
        return bytes(self._read)


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
) -> GuestResult:
    """Boot a kernel and run a command in it.

    The command sees this machine's files read-only, the current directory and `writable` read-write. A kernel that has
    no 9p to mount them with gets copies of what a recording needs, and what the command changed is copied back.

    Args:
        argv: the command and its arguments, handed on exactly.
        kernel: a name such as `6.12`, the path of an image, or what `obtain` returned.
        memory: see `Machine`, as for all up to `icount`.
        cpus: the number of processors.
        numa: one entry a node.
        numa_distance: the nodes' distances.
        append: arguments for the kernel.
        qemu_options: further words for QEMU.
        kvm: use the host's KVM.
        icount: have the guest's clock count instructions.
        writable: further directories to share read-write.
        in_memory: give it copies of what a recording needs even if it could mount this machine's files. Its programs
            start in half the time, but of files elsewhere it has none.
        env: variables for the command.
        timeout: seconds after which the guest is ended.
        stdout: where the command's standard output goes as it comes.
        stderr: where its standard error goes.

    Returns:
        What the command did.

    Raises:
        KalloctraceError: the guest could not be booted, or ended before the command did.
    """
    require_lab()
    machine = Machine(memory, cpus, numa, numa_distance, append, qemu_options, kvm, icount)
    if not isinstance(kernel, Kernel):
        kernel = obtain(kernel)
    start = time.monotonic()
    boot = functools.partial(
        _boot,
        argv,
        kernel=kernel,
        machine=machine,
        writable=writable,
        in_memory=in_memory,
        env=env or {},
        timeout=timeout,
        sinks=(stdout, stderr),
    )
    job_dir, ended, streams = boot()
    if ended and _died_of_emulation(job_dir):
        _LOG.warning("warning: the emulator tripped over the kernel patching itself; booting once more")
        job_dir, ended, streams = boot()
    output, errors = (stream.copy() for stream in streams)
    if not (job_dir / "exit").exists():
        _give_up(job_dir, None if ended else timeout)
    code = int((job_dir / "exit").read_text(encoding="ascii"))
    release = (job_dir / "release").read_text(encoding="ascii").strip()
    for leftover in ("stdout", "stderr", "command", "shares", "cached"):
        (job_dir / leftover).unlink(missing_ok=True)
    return GuestResult(code, output, errors, job_dir / "console.log", release, time.monotonic() - start)


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
) -> tuple[Path, bool, list[_Stream]]:
    """Boot once; return the job_dir's directory, whether the guest ended in time, and its output."""
    job_dir = _new_job_dir()
    job = GuestJob(argv, writable_directories([Path.cwd(), *writable]), environment(env), Path.cwd())
    streams = [_Stream(job_dir / "stdout", sinks[0]), _Stream(job_dir / "stderr", sinks[1])]
    with _interruptible(), prepared(kernel.image, machine, job_dir, job, in_memory=in_memory) as plan:
        with _started(plan.command, job_dir, timeout) as process:
            ended = _follow(process, job_dir, plan, streams, time.monotonic() + timeout)
        plan.poll()
    return job_dir, ended, streams


def _died_of_emulation(job_dir: Path) -> bool:
    """Whether the kernel died, before the command began, of a breakpoint of its own.

    A kernel patches its code behind breakpoints while it boots, and QEMU's multi-threaded emulation rarely lets
    another processor run into one that is already gone.
    """
    if (job_dir / "release").exists():
        return False
    return _INT3.search((job_dir / "console.log").read_text(encoding="utf-8", errors="replace")) is not None


def dry_run(argv: Sequence[str], kernel: Kernel, machine: Machine, writable: Sequence[str]) -> list[str]:
    """Return the command that `run_in_guest` would start."""
    del argv  # it travels in a file
    return boot_command(kernel.image, machine, _jobs() / "job_dir", writable_directories([Path.cwd(), *writable]))


@contextmanager
def _started(command: Sequence[str], job_dir: Path, timeout: float) -> Iterator[subprocess.Popen[bytes]]:
    """Start a guest in a process group of its own, and end all of that group whatever happens."""
    # Should this process end without a word, as threads do at SIGTERM and all at SIGKILL, the guest ends too.
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


def _follow(
    process: subprocess.Popen[bytes], job_dir: Path, plan: BootPlan, streams: Sequence[_Stream], deadline: float
) -> bool:
    """Pass on the guest's output until it ends; return False when it had not by the deadline."""
    while process.poll() is None:
        if (job_dir / "exit").exists():
            # Nothing is left to come but the guest's own end.
            deadline = min(deadline, time.monotonic() + _GRACE)
        if time.monotonic() > deadline:
            return False
        plan.poll()
        for stream in streams:
            stream.copy()
        time.sleep(_POLL)
    return True


def _give_up(job_dir: Path, timeout: float | None) -> NoReturn:
    """Show the console's end and raise the error for a guest that left no exit code.

    Args:
        job_dir: the job_dir's directory.
        timeout: the time limit, if that was what ended it.
    """
    console = job_dir / "console.log"
    lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines[-_TAIL_LINES:]:
        _LOG.error("console: %s", line)
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
    why = next((line for line in lines if _FATAL.search(line)), None)
    if timeout is None:
        raise KalloctraceError("the guest ended before the command did", why or last, f"read its console: {console}")
    if why is None:
        why = "the command was still running" if (job_dir / "release").exists() else f"it was still booting: {last}"
    raise KalloctraceError(
        f"the guest did not end within {timeout:g} s",
        why,
        f"allow more time with --timeout, or read its console: {console}",
    )


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does, so that the guest is ended too."""
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
    """Return a new directory for one guest; those of before are kept for a day."""
    jobs = _jobs()
    jobs.mkdir(parents=True, exist_ok=True)
    for old in jobs.iterdir():
        if time.time() - old.stat().st_mtime > _DAY:
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=jobs))
