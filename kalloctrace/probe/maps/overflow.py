# SPDX-License-Identifier: MIT
"""Reads the overflow hash of aggregate mode, which takes a system call."""

import ctypes
import errno
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

_AT_ONCE = 4096

Seen = tuple[npt.NDArray[np.void], npt.NDArray[np.uint64]]
"""Different `struct allocation`s, and how often each was seen."""


class OverflowHash:
    """The hash of counts that found the ring buffer full.

    Args:
        fd: the map's file descriptor.
        dtype: numpy's description of its keys, `struct allocation`.
        libbcc: bcc's C library.
        used: returns how often something was added.
    """

    def __init__(self, fd: int, dtype: np.dtype[np.void], libbcc: Any, used: Callable[[], int]) -> None:  # noqa: ANN401 bcc has no types
        self._fd = fd
        self._dtype = dtype
        self._libbcc = libbcc
        self._used = used

    def read(self) -> Seen:
        """Return its keys and values; without a system call where nothing was added.

        Raises:
            OSError: it cannot be read.
        """
        keys: list[npt.NDArray[np.void]] = []
        values: list[npt.NDArray[np.uint64]] = []
        position = (ctypes.c_uint32 * 2)()
        start: Any = None
        while self._used():
            some_keys = np.zeros(_AT_ONCE, self._dtype)
            some_values = np.zeros(_AT_ONCE, np.uint64)
            found = ctypes.c_uint32(_AT_ONCE)
            code = self._libbcc.bpf_lookup_batch(
                self._fd,
                start,
                ctypes.cast(position, ctypes.POINTER(ctypes.c_uint32)),
                some_keys.ctypes.data_as(ctypes.c_void_p),
                some_values.ctypes.data_as(ctypes.c_void_p),
                ctypes.byref(found),
            )
            keys.append(some_keys[: found.value])
            values.append(some_values[: found.value])
            if code < 0:
                if ctypes.get_errno() != errno.ENOENT:
                    raise OSError(ctypes.get_errno(), "the overflow hash of the counters cannot be read")
                break
            start = ctypes.cast(position, ctypes.POINTER(ctypes.c_uint32))
        return np.concatenate([np.zeros(0, self._dtype), *keys]), np.concatenate([np.zeros(0, np.uint64), *values])
