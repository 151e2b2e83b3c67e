# SPDX-License-Identifier: MIT
"""What was counted is written once, whenever it is read."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.probe.layout import record_dtype
from kalloctrace.probe.sinks import AggregateSink

CALL = record_dtype("call", {"NODEMASK_WORDS": 1})
ALLOCATION = CALL["e"]["a"]


class FakeCounters:
    """Counters that a test sets."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.new = 0
        self.added = 0

    def totals(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.void]]:
        """Return the counts, and as many new allocations as the test said."""
        new, self.new = self.new, 0
        return np.array(self.counts, np.uint64), np.zeros(new, ALLOCATION)

    def settled(self) -> bool:
        """Nothing is on its way."""
        return True

    def add(self, allocations: npt.NDArray[np.void]) -> None:
        """Take note of calls that the program did not count."""
        self.added += len(allocations)


class FakeMaker:
    """Names nothing."""

    def make(self, captured: npt.NDArray[np.void]) -> pa.StructArray:
        """Return as many as there are."""
        return pa.array([{}] * len(captured), pa.struct([]))


class FakeWriter:
    """Adds up what is written."""

    def __init__(self) -> None:
        self.known = 0
        self.sums: dict[int, int] = {}

    def add(self, allocations: pa.StructArray) -> int:
        """Make allocations known."""
        self.known += len(allocations)
        return self.known - len(allocations)

    def write_aggregate(self, counts: npt.NDArray[np.uint64], indices: npt.NDArray[np.int32]) -> None:
        """Take in counts of known allocations."""
        for index, count in zip(indices.tolist(), counts.tolist(), strict=True):
            assert index < self.known
            self.sums[index] = self.sums.get(index, 0) + count


def test_counts_are_written_as_they_grow() -> None:
    """What is missing in between, as it is on its way, is neither taken back nor written twice."""
    counters, writer = FakeCounters(), FakeWriter()
    sink = AggregateSink(counters, FakeMaker(), writer)  # type: ignore[arg-type] # what it asks of them
    for counts, new in (([5], 1), ([5, 2], 1), ([1, 9], 0), ([6, 9], 0)):
        counters.counts, counters.new = counts, new
        sink.write()
    assert writer.sums == {0: 6, 1: 9}
    assert sink.taken == 15


def test_rejected_calls_are_counted_at_the_end() -> None:
    """Those that no other call showed to be over."""
    counters, writer = FakeCounters(), FakeWriter()
    sink = AggregateSink(counters, FakeMaker(), writer)  # type: ignore[arg-type] # what it asks of them
    sink.finish(np.zeros(3, CALL))
    assert counters.added == 3
