# SPDX-License-Identifier: MIT
"""Every call is written exactly once, whenever the maps are read."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from kalloctrace.probe.decode import comm
from kalloctrace.probe.drain import AggregateConsumer, StreamConsumer, comm_text
from kalloctrace.probe.layout import struct_dtype
from kalloctrace.trace.writer import StreamColumns

CALL = struct_dtype("call", {"NODEMASK_WORDS": 1, "BY_WORDS": 0})
ALLOCATION = CALL["e"]["a"]
COUNTED_BY_COMM = struct_dtype("allocation", {"NODEMASK_WORDS": 1, "BY_WORDS": 2})


class FakeCounters:
    """Counters that a test sets."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.new = 0
        self.added = 0

    def totals(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.void]]:
        """Return the counts, and as many new allocations as the test set."""
        new, self.new = self.new, 0
        return np.array(self.counts, np.uint64), np.zeros(new, ALLOCATION)

    def drain(self) -> None:
        """Do nothing: no count was sent."""

    def settled(self) -> bool:
        """Return True: no count is moving."""
        return True

    def add(self, allocations: npt.NDArray[np.void]) -> None:
        """Count calls that the program did not count."""
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

    def write_aggregate(
        self, counts: npt.NDArray[np.uint64], indices: npt.NDArray[np.int32], by: pa.DictionaryArray | None = None
    ) -> None:
        """Take in counts of known allocations, which nothing else is counted by."""
        assert by is None
        for index, count in zip(indices.tolist(), counts.tolist(), strict=True):
            assert index < self.known
            self.sums[index] = self.sums.get(index, 0) + count


def test_counts_are_written_as_they_grow() -> None:
    """A count that is missing for a while, because it moves to another map, is not subtracted or written twice."""
    counters, writer = FakeCounters(), FakeWriter()
    consumer = AggregateConsumer(counters, FakeMaker(), writer)  # type: ignore[arg-type] # the methods it calls
    for counts, new in (([5], 1), ([5, 2], 1), ([1, 9], 0), ([6, 9], 0)):
        counters.counts, counters.new = counts, new
        consumer.write()
    assert writer.sums == {0: 6, 1: 9}
    assert consumer.consumed == 15


def test_others_may_add_allocations_in_between() -> None:
    """As calls of the bulk allocator do, which another consumer writes: each count stays with its own allocation."""
    counters, writer = FakeCounters(), FakeWriter()
    consumer = AggregateConsumer(counters, FakeMaker(), writer)  # type: ignore[arg-type] # the methods it calls
    counters.counts, counters.new = [5], 1
    consumer.write()
    writer.add(pa.array([{}, {}], pa.struct([])))
    counters.counts, counters.new = [6, 3], 1
    consumer.write()
    assert writer.sums == {0: 6, 3: 3}


def test_rejected_calls_are_counted_at_the_end() -> None:
    """Calls that ended without a later call in the same slot."""
    counters, writer = FakeCounters(), FakeWriter()
    consumer = AggregateConsumer(counters, FakeMaker(), writer)  # type: ignore[arg-type] # the methods it calls
    consumer.finish(np.zeros(3, CALL))
    assert counters.added == 3


class CountersByComm(FakeCounters):
    """Counters of requests by the name of a task."""

    dtype = COUNTED_BY_COMM

    def __init__(self, *counted: tuple[int, bytes, int]) -> None:
        super().__init__()
        self._allocations = np.zeros(len(counted), COUNTED_BY_COMM)
        for allocation, (gfp_mask, name, _) in zip(self._allocations, counted, strict=True):
            allocation["gfp_mask"] = gfp_mask
            allocation["by"] = np.frombuffer(name.ljust(16, b"\0"), np.uint64)
        self.counts = [count for _, _, count in counted]

    def totals(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.void]]:
        """Return all at the first call."""
        new, self._allocations = self._allocations, self._allocations[:0]
        return np.array(self.counts, np.uint64), new


def test_counts_by_a_name_share_their_allocations() -> None:
    """One allocation of two tasks is written once, with a count for each; what is behind the end of a name is none."""
    counters = CountersByComm((1, b"sh", 5), (1, b"cat", 2), (2, b"sh\0old", 3), (1, b"sh\0old", 4))
    written: list[tuple[int, int, str]] = []

    class Writer(FakeWriter):
        def write_aggregate(
            self, counts: npt.NDArray[np.uint64], indices: npt.NDArray[np.int32], by: pa.DictionaryArray | None = None
        ) -> None:
            assert by is not None
            written.extend(zip(indices.tolist(), counts.tolist(), by.to_pylist(), strict=True))

    writer = Writer()
    consumer = AggregateConsumer(counters, FakeMaker(), writer, by_text=comm_text)  # type: ignore[arg-type] # likewise
    consumer.write()
    counters.counts = [5, 3, 3, 4]
    consumer.write()
    assert writer.known == 2
    assert written == [(0, 5, "sh"), (0, 2, "cat"), (1, 3, "sh"), (0, 4, "sh"), (0, 1, "cat")]
    assert consumer.consumed == 15


class FakeEvents:
    """Spans of events; each is overwritten when the next one is requested."""

    dtype = CALL["e"]

    def __init__(self, *spans: list[tuple[int, int, int]]) -> None:
        self.spans = list(spans)

    def drain(self) -> Iterator[npt.NDArray[np.void]]:
        """Yield each span once; its events are (time, thread, gfp mask)."""
        for span in self.spans:
            yield from self._passing(span)
        self.spans = []

    def _passing(self, span: list[tuple[int, int, int]]) -> Iterator[npt.NDArray[np.void]]:
        events = made(span)
        yield events
        events.view(np.uint8)[:] = 0xFF


def made(calls: list[tuple[int, int, int]]) -> npt.NDArray[np.void]:
    """Return events."""
    events = np.zeros(len(calls), FakeEvents.dtype)
    for event, (time, thread, gfp_mask) in zip(events, calls, strict=True):
        event["time"], event["pid_tgid"], event["cpu"], event["stack"] = time, 70 << 32 | thread, thread % 2, -1
        event["a"]["gfp_mask"] = gfp_mask
    return events


class FakeNames:
    """No name changes."""

    def drain(self) -> npt.NDArray[np.void]:
        """Return no change."""
        return np.zeros(0, struct_dtype("task_comm", {}))


class FakeRows:
    """There are no stacks."""

    def stacks(self, ids: npt.NDArray[np.int32]) -> int:
        """Return how many calls there were."""
        return len(ids)


class StreamWriter(FakeWriter):
    """Keeps the columns."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, int, int, int, str, int]] = []

    def write_stream(self, calls: StreamColumns) -> None:
        """Take in rows."""
        assert calls.stack == len(calls.comm)
        parts = (column.tolist() for column in (calls.time, calls.cpu, calls.pid, calls.tid))
        self.rows += zip(*parts, calls.comm.to_pylist(), calls.indices.tolist(), strict=True)


def test_events_keep_their_allocation_when_others_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """As calls of the bulk allocator are added."""
    monkeypatch.setattr(comm, "running_tasks", lambda: iter([(71, "one")]))
    events = FakeEvents([(10, 71, 5)])
    writer = StreamWriter()
    consumer = StreamConsumer(events, FakeNames(), FakeMaker(), FakeRows(), writer)  # type: ignore[arg-type] # as above
    consumer.drain()
    writer.add(pa.array([{}, {}], pa.struct([])))
    events.spans = [[(11, 71, 6), (12, 71, 5)]]
    consumer.finish(np.zeros(0, CALL))
    assert [row[-1] for row in writer.rows] == [0, 3, 0]


def test_each_event_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each allocation is added once, events are copied before the buffer is reused, rejected calls come last."""
    monkeypatch.setattr(comm, "running_tasks", lambda: iter([(71, "one"), (72, "two")]))
    events = FakeEvents([(10, 71, 5), (11, 71, 5), (12, 72, 6)], [(9, 72, 5)])
    writer = StreamWriter()
    consumer = StreamConsumer(events, FakeNames(), FakeMaker(), FakeRows(), writer)  # type: ignore[arg-type] # as above
    rejected = np.zeros(1, CALL)
    rejected["e"] = made([(13, 71, 7)])
    consumer.finish(rejected)
    assert writer.rows == [
        (10, 1, 70, 71, "one", 0),
        (11, 1, 70, 71, "one", 0),
        (12, 0, 70, 72, "two", 1),
        (9, 0, 70, 72, "two", 0),
        (13, 1, 70, 71, "one", 2),
    ]
    assert (writer.known, consumer.consumed) == (3, 5)
