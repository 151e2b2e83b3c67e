# SPDX-License-Identifier: MIT
"""Many logs: finds them in folders, and reads them on all processors, in the order in which they were named."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from kalloctrace.commands.kernel_source import is_trace
from kalloctrace.errors import KalloctraceError
from kalloctrace.system_calls import PR_SET_PDEATHSIG, prctl
from kalloctrace.text import file_name

_T = TypeVar("_T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class LogFile(NamedTuple):
    """A file to read as a log.

    Attributes:
        name: a path, or "-" for standard input.
        error: why it cannot be read, if that is known already.
    """

    name: str
    error: KalloctraceError | None = None


class LogResult(NamedTuple, Generic[_T]):
    """What was made of a log.

    Attributes:
        log: its name.
        made: what was made; None if it could not be read.
        error: why it could not be read.
    """

    log: str
    made: _T | None
    error: KalloctraceError | None


def find_logs(names: Sequence[str]) -> list[LogFile]:
    """Return the named files, and the regular files in named folders and below, by name; each file once.

    Args:
        names: files, folders, and "-".
    """
    found: list[LogFile] = []
    seen: set[tuple[int, int] | str] = set()
    for name in names:
        for log in _files_in(name) if name != "-" and Path(name).is_dir() else [LogFile(name)]:
            key = _identity(log.name)
            if key not in seen:
                seen.add(key)
                found.append(log)
    return found


def _files_in(folder: str) -> Iterator[LogFile]:
    refused: list[OSError] = []
    for path, folders, files in os.walk(folder, onerror=refused.append):
        folders.sort()
        while refused:
            yield _refused(refused.pop())
        yield from (LogFile(str(file)) for file in sorted(Path(path, name) for name in files) if _may_be_log(file))
    while refused:
        yield _refused(refused.pop())


def _may_be_log(file: Path) -> bool:
    """Return whether a file of a folder is worth reading: no trace, and no pipe or device, which may never end."""
    try:
        return file.is_file() and not is_trace(str(file))
    except OSError:
        # Reading it says why.
        return True


def _refused(error: OSError) -> LogFile:
    return LogFile(error.filename, cannot_read(error.filename, error))


def _identity(name: str) -> tuple[int, int] | str:
    if name == "-":
        return name
    try:
        there = Path(name).stat()
    except OSError:
        return name
    return there.st_dev, there.st_ino


def cannot_read(name: str, error: OSError) -> KalloctraceError:
    """Return the error about a file that cannot be read."""
    why = error.strerror or str(error)
    return KalloctraceError(f"cannot read {file_name(name)}", why, "check the path and its permissions")


def read_logs(logs: Sequence[LogFile], make: Callable[[str], _T]) -> Iterator[LogResult[_T]]:
    """Make something of each log, and yield the results in the order of the logs.

    Args:
        logs: of `find_logs`.
        make: makes it of the log with this name; runs in another process if there are several logs and processors.
    """
    # A process of a pool has no standard input.
    apart = [log for log in logs if log.name != "-"]
    processes = min(len(os.sched_getaffinity(0)), len(apart))
    if processes < 2:
        for log in logs:
            yield _result(log, make)
        return
    yield from _on_all_processors(logs, apart, processes, make)


def _on_all_processors(
    logs: Sequence[LogFile], apart: Sequence[LogFile], processes: int, make: Callable[[str], _T]
) -> Iterator[LogResult[_T]]:
    # They take long to import, and one log needs none of them.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # Forked, so that the kernel to judge by is there already.
    executor = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _begin, (make, os.getpid()))
    try:
        # A signal between a fork and `_begin` would find the handlers of this process.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            others: Iterator[LogResult[Any]] = executor.map(_made, apart)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        for log in logs:
            yield _result(log, make) if log.name == "-" else next(others)
    except BrokenProcessPool:
        what = "a process that read logs was ended"
        raise KalloctraceError(what, "perhaps the system had no memory left", "explain fewer logs at a time") from None
    finally:
        for child in multiprocessing.active_children():
            child.kill()
        executor.shutdown(cancel_futures=True)


_make: Callable[[str], object]


def _begin(make: Callable[[str], object], parent: int) -> None:
    """Prepare a process of the pool: it ends when the program does, which handles the signals."""
    global _make  # noqa: PLW0603 a process of the pool makes one thing
    _make = make
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _made(log: LogFile) -> LogResult[object]:
    return _result(log, _make)


def _result(log: LogFile, make: Callable[[str], _T]) -> LogResult[_T]:
    if log.error is not None:
        return LogResult(log.name, None, log.error)
    try:
        return LogResult(log.name, make(log.name), None)
    except KalloctraceError as error:
        return LogResult(log.name, None, error)
    except OSError as error:
        return LogResult(log.name, None, cannot_read(log.name, error))
