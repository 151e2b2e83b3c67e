# SPDX-License-Identifier: MIT
"""System calls that Python's library lacks."""

import ctypes
import os
import struct
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)

# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4


# include/uapi/linux/perf_event.h; arch/x86/entry/syscalls/syscall_64.tbl
PERF_TYPE_HARDWARE = 0
PERF_TYPE_SOFTWARE = 1
PERF_TYPE_TRACEPOINT = 2
_SYS_PERF_EVENT_OPEN = 298
_PERF_FLAG_FD_CLOEXEC = 8
_PERF_EVENT_ATTR = "IIQQQQQIIQ"
"""The first published version of the structure, the smallest that the kernel accepts: type, size, config,
sample_period, …, wakeup_events, …"""


def prctl(option: int, value: int = 0) -> int:
    """Change or read an attribute of this process or thread.

    Raises:
        OSError: the kernel refused.
    """
    arguments = (ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    return _checked(_LIBC.prctl(ctypes.c_int(option), *arguments), "prctl")


def system_call(name: str, number: int, *arguments: Any) -> int:  # noqa: ANN401 what ctypes accepts
    """Make a system call by its number.

    Args:
        name: of the call, for the error.
        number: of the call on x86_64.
        arguments: as ctypes takes them; an int is passed as a long.

    Raises:
        OSError: the kernel refused.
    """
    passed = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return _checked(_LIBC.syscall(ctypes.c_long(number), *passed), name)


def perf_event_open(kind: int, config: int, *, pid: int, cpu: int, wakes: bool = False) -> int:
    """Open a perf event, and return its file.

    Args:
        kind: PERF_TYPE_*.
        config: which event of that type.
        pid: a thread; 0 for this one, -1 for all.
        cpu: a CPU; -1 for all.
        wakes: each occurrence is a sample that wakes whoever polls the file.

    Raises:
        OSError: the kernel refused.
    """
    size, each = struct.calcsize(_PERF_EVENT_ATTR), int(wakes)
    attr = struct.pack(_PERF_EVENT_ATTR, kind, size, config, each, 0, 0, 0, each, 0, 0)
    return system_call("perf_event_open", _SYS_PERF_EVENT_OPEN, attr, pid, cpu, -1, _PERF_FLAG_FD_CLOEXEC)


def _checked(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
