# SPDX-License-Identifier: MIT
"""Counts that are in a cache, on their way in the ring buffer, or in the overflow hash add up."""

import ctypes
import errno
import os
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kalloctrace.probe.layout import struct_dtype
from kalloctrace.probe.maps import overflow
from kalloctrace.probe.maps.counters import Counters
from kalloctrace.probe.maps.overflow import OverflowHash

ENTRY = struct_dtype("count_entry", {"NODEMASK_WORDS": 1, "BY_WORDS": 0})
Allocations = npt.NDArray[np.void]


def entries(*counts: tuple[int, int]) -> Allocations:
    """Return entries, each an order and its count."""
    made = np.zeros(len(counts), ENTRY)
    made["a"]["order"] = [order for order, _ in counts]
    made["count"] = [count for _, count in counts]
    return made


class Maps:
    """The maps of a recording, which a test fills."""

    def __init__(self) -> None:
        self.items = entries((0, 0), (0, 0))
        self.sent = entries()
        self.hash = entries()
        self.utilization = 0.25

    def drain(self) -> Allocations:
        """Return what was sent, once."""
        sent, self.sent = self.sent, entries()
        return sent

    def overflow(self) -> tuple[Allocations, npt.NDArray[np.uint64]]:
        """Return what the hash has."""
        return self.hash["a"], self.hash["count"]


class Seen:
    """Adds up the totals by order."""

    def __init__(self, maps: Maps) -> None:
        given: Any = maps
        self.counters = Counters(given, given, maps.overflow)
        self.known: list[int] = []

    def totals(self) -> dict[int, int]:
        """Return the count of each order."""
        counts, new = self.counters.totals()
        self.known += new["order"].tolist()
        return dict(zip(self.known, counts.tolist(), strict=True))


def test_counts_of_all_maps_add_up() -> None:
    """Of the caches and the hash as they are now, of the ring buffer whenever it was read."""
    maps = Maps()
    seen = Seen(maps)
    maps.items, maps.sent, maps.hash = entries((1, 10), (2, 20)), entries((1, 3), (3, 4)), entries((2, 5))
    # The caches are mapped memory, which the counters keep.
    seen = Seen(maps)
    assert seen.totals() == {1: 13, 2: 25, 3: 4}
    assert seen.totals() == {1: 13, 2: 25, 3: 4}
    maps.items["count"] = [11, 21]
    assert seen.totals() == {1: 14, 2: 26, 3: 4}


def test_ring_buffer_is_read_between_totals() -> None:
    """So that it does not fill up; what it had is known the next time, also if it is new."""
    maps = Maps()
    seen = Seen(maps)
    maps.sent = entries((7, 2))
    seen.counters.drain()
    assert not len(maps.sent)
    maps.sent = entries((7, 1), (8, 1))
    seen.counters.drain()
    assert seen.totals() == {7: 3, 8: 1}
    assert seen.counters.utilization == maps.utilization


def test_calls_that_no_program_counted_are_added_once() -> None:
    """Those that the kernel rejected."""
    maps = Maps()
    seen = Seen(maps)
    seen.counters.add(entries((11, 0), (11, 0))["a"])
    assert seen.totals() == {11: 2}
    assert seen.totals() == {11: 2}


class Batches:
    """Stands for the kernel: a hash that is read in batches.

    Args:
        batches: how many elements each has.
        error: what ends the last one.
    """

    def __init__(self, *batches: int, error: int = errno.ENOENT) -> None:
        self.batches = list(batches)
        self.error = error

    def __call__(self, command: int, attr: "ctypes.Array[ctypes.c_char]") -> int:
        """Count the elements of a batch: BPF_MAP_LOOKUP_BATCH, with in_batch at 0, count at 32, map_fd at 36."""
        (start,), (most, fd) = struct.unpack_from("<Q", attr, 0), struct.unpack_from("<II", attr, 32)
        assert (command, fd, most, start == 0) == (24, 5, 4096, len(self.batches) == 2)
        struct.pack_into("<I", attr, 32, self.batches.pop(0))
        if not self.batches:
            raise OSError(self.error, os.strerror(self.error))
        return 0


def test_overflow_hash_is_read_only_if_something_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """To read it is a system call, during which the kernel skips programs."""
    monkeypatch.setattr(overflow, "bpf_in_place", Batches())
    keys, counts = OverflowHash(5, ENTRY["a"], lambda: 0).read()
    assert (len(keys), len(counts)) == (0, 0)


def test_overflow_hash_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches; the last one ends with an error that says so."""
    monkeypatch.setattr(overflow, "bpf_in_place", Batches(4096, 3))
    keys, counts = OverflowHash(5, ENTRY["a"], lambda: 1).read()
    assert (len(keys), len(counts)) == (4099, 4099)
    monkeypatch.setattr(overflow, "bpf_in_place", Batches(4096, 3, error=errno.EPERM))
    with pytest.raises(PermissionError):
        OverflowHash(5, ENTRY["a"], lambda: 1).read()
