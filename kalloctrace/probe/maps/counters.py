# SPDX-License-Identifier: MIT
"""Reads the counters of aggregate mode in place, while the program keeps counting."""

import ctypes
import errno
from typing import Any

import numpy as np
import numpy.typing as npt

from kalloctrace.probe.maps.grouping import Grouper
from kalloctrace.probe.maps.mmap_array import MmapArray
from kalloctrace.probe.maps.ringbuf import Ring
from kalloctrace.probe.maps.structs import words_of

_AT_ONCE = 4096


class Counters:
    """How often each allocation was made: the sum over the CPU caches, the overflow hash and the ring buffer.

    Args:
        bpf: the loaded program, from bcc.
        libbcc: bcc's C library.
        entries: the number of entries of all caches together.
        entry: numpy's description of `struct count_entry`.
        spilled: the ring buffer of counts that found the hash full.
    """

    def __init__(self, bpf: Any, libbcc: Any, entries: int, entry: np.dtype[np.void], spilled: Ring) -> None:  # noqa: ANN401 bcc has no types
        self._cache = MmapArray(bpf["cache"].map_fd, entries, entry)
        self._overflow = bpf["overflow"].map_fd
        self._libbcc = libbcc
        self._spilled = spilled
        self._grouper = Grouper(entry["a"])
        self._apart = np.zeros(0, np.uint64)
        self._added = np.zeros(0, entry["a"])

    def close(self) -> None:
        """Unmap the memory."""
        self._cache.close()

    def totals(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.void]]:
        """Return the count of each allocation by its number, and the allocations that are new since the last call.

        While the program runs, a count that moves from one map to another may be missing, but no count is included
        twice: an entry is cleared before its count is added to the hash, and the hash is read before the entries.
        """
        spilled = self._spilled.drain()
        keys, values = self._read_overflow()
        entries = self._read_entries()
        once = np.ones(len(self._added), np.uint64)
        numbers, new = self._grouper.numbers(words_of(np.concatenate([spilled["a"], self._added, keys, entries["a"]])))
        counts = np.concatenate([spilled["count"], once, values, entries["count"]])
        size = max(len(self._apart), int(numbers.max(initial=-1)) + 1)
        # These counts are not read again the next time.
        gone = len(spilled) + len(self._added)
        self._added = self._added[:0]
        self._apart = _padded(self._apart, size) + _sums(numbers[:gone], counts[:gone], size)
        return self._apart + _sums(numbers[gone:], counts[gone:], size), new

    def add(self, allocations: npt.NDArray[np.void]) -> None:
        """Add one call of each of these allocations, which the program did not count.

        Args:
            allocations: `struct allocation` of record.h.
        """
        self._added = np.concatenate([self._added, allocations])

    def settled(self) -> bool:
        """Return whether no entry is being given to another allocation."""
        return not (self._cache.items["version"] & 1).any()

    def _read_entries(self) -> npt.NDArray[np.void]:
        before = self._cache.items["version"].copy()
        entries: npt.NDArray[np.void] = self._cache.items.copy()
        whole = (before == self._cache.items["version"]) & (before & 1 == 0)
        return entries[np.flatnonzero(whole & (entries["count"] > 0))]

    def _read_overflow(self) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint64]]:
        keys: list[npt.NDArray[np.void]] = []
        values: list[npt.NDArray[np.uint64]] = []
        position = (ctypes.c_uint32 * 2)()
        start: Any = None
        while True:
            some_keys = np.zeros(_AT_ONCE, self._cache.items.dtype["a"])
            some_values = np.zeros(_AT_ONCE, np.uint64)
            found = ctypes.c_uint32(_AT_ONCE)
            code = self._libbcc.bpf_lookup_batch(
                self._overflow,
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
                return np.concatenate(keys), np.concatenate(values)
            start = ctypes.cast(position, ctypes.POINTER(ctypes.c_uint32))


def _sums(numbers: npt.NDArray[np.int32], counts: npt.NDArray[np.uint64], size: int) -> npt.NDArray[np.uint64]:
    sums = np.zeros(size, np.uint64)
    np.add.at(sums, numbers, counts)
    return sums


def _padded(array: npt.NDArray[np.uint64], size: int) -> npt.NDArray[np.uint64]:
    return np.concatenate([array, np.zeros(size - len(array), np.uint64)])
