# SPDX-License-Identifier: MIT
"""System calls that Python's library lacks."""

import ctypes
import os
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)

# include/uapi/linux/prctl.h
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4


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


def _checked(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
