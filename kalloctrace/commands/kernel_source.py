# SPDX-License-Identifier: MIT
"""What `--kernel` names: a release, this machine's kernel ("live"), or the kernel of a trace.

A trace is recognised by its content. A name that ends in ".arrows" always means a file; any other name that is a
release means the release, unless a trace has that name. The functions import what they need, because decoding a number
needs the flags alone.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.flags.builtin import builtin_tables, is_older_release
from kalloctrace.flags.releases import parse_release
from kalloctrace.flags.rows import FIRST, LAST
from kalloctrace.flags.tables import FlagTables

if TYPE_CHECKING:
    from kalloctrace.diagnose.from_log import NamedKernel
    from kalloctrace.kernel.snapshot import Snapshot

_T = TypeVar("_T")

LIVE = "live"
TRACE_SUFFIX = ".arrows"
_FIX = f"name a release from {FIRST.series} to {LAST.series}, 'live', or a trace file"

# The continuation marker that begins each message of an Arrow IPC stream since Arrow 0.15,
# https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format.
_STREAM_MAGIC = b"\xff\xff\xff\xff"


def kernel_tables(name: str) -> FlagTables:
    """Return the flags of the kernel that `--kernel` names.

    Raises:
        KalloctraceError: no such kernel is known (exit code 2), or its trace cannot be read.
    """
    return _read(name, live=_live_tables, trace=lambda snapshot: snapshot.tables, release=_release_tables)


def kernel_snapshot(name: str) -> "Snapshot":
    """Return the kernel that `--kernel` names, with its machine; a release has the usual one.

    Raises:
        KalloctraceError: as `kernel_tables`.
    """
    return _read(name, live=_live_snapshot, trace=lambda snapshot: snapshot, release=_release_snapshot)


def named_kernel(name: str) -> "NamedKernel":
    """Return the kernel that `--kernel` names, to judge a log by; releases before 5.8 have no flag tables.

    Raises:
        KalloctraceError: as `kernel_tables`.
    """
    return _read(name, live=_live_kernel, trace=_traced_kernel, release=_release_kernel)


def trace_snapshot(path: str) -> "Snapshot":
    """Return the kernel and machine that a trace was recorded on.

    Raises:
        KalloctraceError: the file is not a trace (exit code 2), or cannot be read.
    """
    if not is_trace(path):
        raise _no_trace(path, f"cannot take the machine of {path!r}", "name a trace file")
    return _recorded(path)


def _read(name: str, *, live: Callable[[], _T], trace: Callable[["Snapshot"], _T], release: Callable[[str], _T]) -> _T:
    if name == LIVE:
        return live()
    if is_trace(name):
        return trace(_recorded(name))
    if name.endswith(TRACE_SUFFIX) or (parse_release(name) is None and Path(name).exists()):
        raise _no_trace(name, f"cannot use {name!r} as a kernel", _FIX)
    return release(name)


def is_trace(name: str) -> bool:
    """Return whether a regular file of this name begins as a trace does; the reader checks the rest.

    Of a file that may not be read the name decides.
    """
    path = Path(name)
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(_STREAM_MAGIC)) == _STREAM_MAGIC
    except PermissionError:
        return path.suffix == TRACE_SUFFIX


def _no_trace(name: str, what: str, fix: str) -> KalloctraceError:
    path = Path(name)
    if path.is_file():
        why = "it is not a trace: it does not begin as an Arrow stream"
    elif path.is_dir():
        why = "it is a folder, not a trace"
    elif path.exists():
        why = "it is not a regular file"
    else:
        why = "there is no such file"
    return KalloctraceError(what, why, fix, Exit.USAGE)


def _recorded(path: str) -> "Snapshot":
    from kalloctrace.trace.reader import read_snapshot

    return read_snapshot(Path(path))


def _release_tables(name: str) -> FlagTables:
    try:
        return builtin_tables(name)
    except KalloctraceError as error:
        why = "it is neither a kernel release nor a file" if parse_release(name) is None else error.why
        raise KalloctraceError(f"cannot use {name!r} as a kernel", why, _FIX, Exit.USAGE) from None


def _release_snapshot(name: str) -> "Snapshot":
    from kalloctrace.kernel.builtin import builtin_snapshot

    _release_tables(name)
    return builtin_snapshot(name)


def _release_kernel(name: str) -> "NamedKernel":
    from kalloctrace.diagnose.from_log import NamedKernel

    return NamedKernel(name, "", None if is_older_release(name) else _release_tables(name))


def _live_tables() -> FlagTables:
    from kalloctrace.kernel.live import live_tables

    return live_tables()


def _live_snapshot() -> "Snapshot":
    from kalloctrace.kernel.live import live_snapshot

    return live_snapshot()


def _live_kernel() -> "NamedKernel":
    from kalloctrace.diagnose.from_log import NamedKernel

    running = os.uname()
    return NamedKernel(running.release, running.version, _live_tables())


def _traced_kernel(snapshot: "Snapshot") -> "NamedKernel":
    from kalloctrace.diagnose.from_log import NamedKernel

    return NamedKernel(snapshot.release, snapshot.version, snapshot.tables)
