# SPDX-License-Identifier: MIT
"""Reads the counters of aggregate mode in place, while the program keeps counting."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from kalloctrace.probe.maps.grouping import Grouper
from kalloctrace.probe.maps.mmap_array import MmapArray
from kalloctrace.probe.maps.ringbuf import Ring
from kalloctrace.probe.maps.structs import words_of

Overflow = Callable[[], tuple[npt.NDArray[np.void], npt.NDArray[np.uint64]]]


class Counters:
    """How often each allocation was made: the sum over the CPU caches, the overflow hash and the ring buffer.

    Attributes:
        dtype: numpy's description of an allocation, `struct allocation`.

    Args:
        cache: the entries of all caches, `struct count_entry`.
        spilled: the ring buffer of evicted counts.
        overflow: returns what the overflow hash has: allocations and their counts.
    """

    def __init__(self, cache: MmapArray, spilled: Ring, overflow: Overflow) -> None:
        entry = cache.items.dtype
        self.dtype = entry["a"]
        self._cache = cache
        self._overflow = overflow
        self._spilled = spilled
        self._grouper = Grouper(entry["a"])
        self._apart = np.zeros(0, np.uint64)
        self._new: list[npt.NDArray[np.void]] = []
        self._added = np.zeros(0, entry["a"])

    def close(self) -> None:
        """Unmap the memory."""
        self._cache.close()

    def totals(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.void]]:
        """Return the count of each allocation by its number, and the allocations that are new since the last call.

        While the program runs, a count that moves from one map to another may be missing, but no count is included
        twice: an entry is cleared before its count is sent or added to the hash, and these are read before the entries.
        """
        self.drain()
        keys, values = self._overflow()
        entries = self._read_entries()
        numbers = self._numbers(np.concatenate([keys, entries["a"]]))
        size = max(len(self._apart), int(numbers.max(initial=-1)) + 1)
        self._apart = _padded(self._apart, size)
        new = np.concatenate([self._added[:0], *self._new])
        self._new.clear()
        return self._apart + _sums(numbers, np.concatenate([values, entries["count"]]), size), new

    def drain(self) -> None:
        """Read the ring buffer, and free its space."""
        spilled = self._spilled.drain()
        # Mostly there are none, and this is done many times per second.
        if len(spilled):
            self._keep(spilled["a"], spilled["count"])
        if len(self._added):
            self._keep(self._added, np.ones(len(self._added), np.uint64))
            self._added = self._added[:0]

    @property
    def utilization(self) -> float:
        """Return how full the ring buffer is, from 0 to 1."""
        return self._spilled.utilization

    def _keep(self, allocations: npt.NDArray[np.void], counts: npt.NDArray[np.uint64]) -> None:
        """Add counts that are not read again."""
        numbers = self._numbers(allocations)
        size = max(len(self._apart), int(numbers.max(initial=-1)) + 1)
        self._apart = _padded(self._apart, size) + _sums(numbers, counts, size)

    def _numbers(self, allocations: npt.NDArray[np.void]) -> npt.NDArray[np.int32]:
        numbers, new = self._grouper.numbers(words_of(np.ascontiguousarray(allocations)))
        self._new.append(new)
        return numbers

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


def _sums(numbers: npt.NDArray[np.int32], counts: npt.NDArray[np.uint64], size: int) -> npt.NDArray[np.uint64]:
    sums = np.zeros(size, np.uint64)
    np.add.at(sums, numbers, counts)
    return sums


def _padded(array: npt.NDArray[np.uint64], size: int) -> npt.NDArray[np.uint64]:
    return np.concatenate([array, np.zeros(size - len(array), np.uint64)])
