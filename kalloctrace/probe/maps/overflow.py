# SPDX-License-Identifier: MIT
"""Reads the overflow hash of aggregate mode, which takes a system call."""

import ctypes
import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from kalloctrace.system_calls import bpf_attr, bpf_in_place

_LOOKUP_BATCH = 24
"""include/uapi/linux/bpf.h: enum bpf_cmd"""
_LAYOUT = "<QQQQ II QQ"
"""in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags"""
_COUNT_OFFSET = 32

_AT_ONCE = 4096

Seen = tuple[npt.NDArray[np.void], npt.NDArray[np.uint64]]
"""Different `struct allocation`s, and how often each was seen."""


class OverflowHash:
    """The hash of counts that found the ring buffer full.

    Args:
        fd: the map's file descriptor.
        dtype: numpy's description of its keys, `struct allocation`.
        used: returns how often something was added.
    """

    def __init__(self, fd: int, dtype: np.dtype[np.void], used: Callable[[], int]) -> None:
        self._fd = fd
        self._dtype = dtype
        self._used = used

    def read(self) -> Seen:
        """Return its keys and values; without a system call where nothing was added.

        Raises:
            OSError: it cannot be read.
        """
        keys: list[npt.NDArray[np.void]] = []
        values: list[npt.NDArray[np.uint64]] = []
        position = ctypes.create_string_buffer(8)
        start, over = 0, False
        while self._used() and not over:
            some_keys = np.zeros(_AT_ONCE, self._dtype)
            some_values = np.zeros(_AT_ONCE, np.uint64)
            pointers = (start, ctypes.addressof(position), some_keys.ctypes.data, some_values.ctypes.data)
            attr = bpf_attr(_LAYOUT, *pointers, _AT_ONCE, self._fd, 0, 0)
            try:
                bpf_in_place(_LOOKUP_BATCH, attr)
            except FileNotFoundError:
                over = True
            (found,) = struct.unpack_from("<I", attr, _COUNT_OFFSET)
            keys.append(some_keys[:found])
            values.append(some_values[:found])
            start = ctypes.addressof(position)
        return np.concatenate([np.zeros(0, self._dtype), *keys]), np.concatenate([np.zeros(0, np.uint64), *values])
