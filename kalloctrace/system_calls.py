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
PR_SET_IO_FLUSHER = 57
PR_GET_IO_FLUSHER = 58
PR_CAP_AMBIENT_CLEAR_ALL = 4


# include/uapi/linux/perf_event.h; arch/x86/entry/syscalls/syscall_64.tbl
PERF_TYPE_HARDWARE = 0
PERF_TYPE_SOFTWARE = 1
PERF_TYPE_TRACEPOINT = 2
_SYS_PERF_EVENT_OPEN = 298
_PERF_FLAG_FD_CLOEXEC = 8
_PERF_EVENT_ATTR = "IIQQQQQIIQQ"
"""PERF_ATTR_SIZE_VER1: type, size, config, sample_period, …, wakeup_events, bp_type, config1, config2."""

# include/uapi/linux/bpf.h
_SYS_BPF = 321
_BPF_ATTR = 144
"""Bytes of `union bpf_attr` that are passed; older kernels accept more than they know if the rest is 0."""


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


def bpf(command: int, layout: str, *values: int | bytes) -> int:
    """Make the system call for BPF, and return what it returns: mostly a file.

    Args:
        command: of `enum bpf_cmd`.
        layout: of the first members of `union bpf_attr`, as `struct` takes it.
        values: of these members.

    Raises:
        OSError: the kernel refused.
    """
    return bpf_in_place(command, bpf_attr(layout, *values))


def bpf_attr(layout: str, *values: int | bytes) -> "ctypes.Array[ctypes.c_char]":
    """Return `union bpf_attr` with the first members as in `bpf`."""
    return ctypes.create_string_buffer(struct.pack(layout, *values), _BPF_ATTR)


def bpf_in_place(command: int, attr: "ctypes.Array[ctypes.c_char]") -> int:
    """Make the system call for BPF with an attr of `bpf_attr`, in which the kernel may return values.

    Raises:
        OSError: the kernel refused.
    """
    return system_call("bpf", _SYS_BPF, command, attr, _BPF_ATTR)


def perf_event_open(kind: int, config: int, *, pid: int, cpu: int, wakes: bool = False, address: int = 0) -> int:
    """Open a perf event, and return its file.

    Args:
        kind: PERF_TYPE_*.
        config: which event of that type.
        pid: a thread; 0 for this one, -1 for all.
        cpu: a CPU; -1 for all.
        wakes: each occurrence is a sample that wakes whoever polls the file.
        address: `kprobe_addr`, for an event of the type kprobe.

    Raises:
        OSError: the kernel refused.
    """
    size, each = struct.calcsize(_PERF_EVENT_ATTR), int(wakes)
    attr = struct.pack(_PERF_EVENT_ATTR, kind, size, config, each, 0, 0, 0, each, 0, 0, address)
    return system_call("perf_event_open", _SYS_PERF_EVENT_OPEN, attr, pid, cpu, -1, _PERF_FLAG_FD_CLOEXEC)


def _checked(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
