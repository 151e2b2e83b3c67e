# SPDX-License-Identifier: MIT
"""Moves captured allocations into the trace: one consumer for each kind of map."""

import time
from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.probe.decode.allocations import AllocationMaker
from kalloctrace.probe.decode.comm import TaskComms
from kalloctrace.probe.decode.groups import TaskGroups
from kalloctrace.probe.decode.rows import Records, RowMaker
from kalloctrace.probe.maps.counters import Counters
from kalloctrace.probe.maps.grouping import Grouper
from kalloctrace.probe.maps.percpu_buffer import PerCpuBuffer
from kalloctrace.probe.maps.ringbuf import Ring
from kalloctrace.probe.maps.structs import first_word, joined, words_of
from kalloctrace.trace.writer import RowWriter, StreamColumns

_BATCH_ROWS = 32768
_BATCH_SECONDS = 0.5
CHECKPOINT_SECONDS = 2.0
"""How often counts are written, so that a crash loses little."""
_SETTLE = 0.01

Calls = npt.NDArray[np.void]


class Consumer(Protocol):
    """Reads the calls that one part of the program captures, and writes them.

    Attributes:
        consumed: how many calls it has written so far.
        unnamed: how many of them have no task name, because it was discarded before.
    """

    consumed: int
    unnamed: int

    def drain(self) -> None:
        """Read what was captured; may write it."""

    def write(self) -> None:
        """Write what was read."""

    def finish(self, rejected: Calls) -> None:
        """Read the rest, and write everything.

        Args:
            rejected: `struct call` of calls that ended without get_page_from_freelist() and that no program sent.
        """


class RecordConsumer:
    """Writes calls that were traced to their return, one row each.

    Args:
        rings: the ring buffers, one for each kind of record.
        rows: makes rows from records.
        writer: the trace.
    """

    def __init__(self, rings: list[Ring], rows: RowMaker, writer: RowWriter) -> None:
        self.consumed = self.unnamed = 0
        self._rings = rings
        self._rows = rows
        self._writer = writer
        self._waiting: list[list[Records]] = [[] for _ in rings]
        self._written_at = time.monotonic()

    def drain(self) -> None:
        """Read what was captured."""
        for waiting, ring in zip(self._waiting, self._rings, strict=True):
            if len(records := ring.drain()):
                waiting.append(records)
        if _full(sum(len(records) for waiting in self._waiting for records in waiting), self._written_at):
            self.write()

    def finish(self, rejected: Calls) -> None:
        """Read the rest, and write everything; this consumer ignores rejected calls."""
        del rejected
        self.drain()
        self.write()

    def write(self) -> None:
        """Write what was read."""
        for waiting in self._waiting:
            if waiting:
                records = joined(waiting)
                waiting.clear()
                self._writer.write(self._rows.rows(records))
                self.consumed += len(records)
        self._written_at = time.monotonic()


class _WrittenAllocations:
    """The allocations that one consumer has added to the trace; other consumers may add some in between.

    Args:
        maker: makes the trace's allocations.
        writer: the trace.
    """

    def __init__(self, maker: AllocationMaker, writer: RowWriter) -> None:
        self._maker = maker
        self._writer = writer
        self._indices = np.zeros(0, np.int32)

    def add(self, new: Calls) -> None:
        """Add allocations, as `struct allocation` of record.h; they get the next numbers."""
        if len(new):
            first = self._writer.add(self._maker.make(new))
            added = np.arange(first, first + len(new), dtype=np.int32)
            self._indices = np.concatenate([self._indices, added])

    def indices(self, numbers: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int32]:
        """Return the trace's indices of the allocations with these numbers."""
        chosen: npt.NDArray[np.int32] = self._indices[numbers]
        return chosen


class _Columns(NamedTuple):
    """Columns of calls: members of `struct event`, and the trace's index of the allocation."""

    time: npt.NDArray[np.uint64]
    pid_tgid: npt.NDArray[np.uint64]
    cpu: npt.NDArray[np.uint32]
    stack: npt.NDArray[np.int32]
    indices: npt.NDArray[np.int32]


class StreamConsumer:
    """Writes calls that were traced to their first get_page_from_freelist(), one row each.

    Args:
        events: the per-CPU buffers.
        task_comms: the ring buffer of `struct task_comm`.
        maker: makes the trace's allocations.
        rows: makes the text of stacks.
        writer: the trace.
        groups: the control groups of processes; None if groups are not recorded.
    """

    def __init__(
        self,
        events: PerCpuBuffer,
        task_comms: Ring,
        maker: AllocationMaker,
        rows: RowMaker,
        writer: RowWriter,
        *,
        groups: TaskGroups | None = None,
    ) -> None:
        self.consumed = self.unnamed = 0
        self._events = events
        self._comm_changes = task_comms
        self._written_allocations = _WrittenAllocations(maker, writer)
        self._rows = rows
        self._writer = writer
        self._grouper = Grouper(events.dtype["a"])
        self._comms = TaskComms()
        self._groups = groups
        self._waiting: list[_Columns] = []
        self._written_at = time.monotonic()

    def drain(self) -> None:
        """Read what was captured."""
        self._take_all()
        if _full(sum(len(columns.time) for columns in self._waiting), self._written_at):
            self.write()

    def finish(self, rejected: Calls) -> None:
        """Read the rest, and write everything."""
        self._take_all()
        self._take(np.ascontiguousarray(rejected["e"]))
        self.write()

    def _take_all(self) -> None:
        for events in self._events.drain():
            self._take(events)

    def _take(self, events: Calls) -> None:
        """Copy the columns that the trace needs; the events themselves may be overwritten afterwards."""
        if not len(events):
            return
        numbers, new = self._grouper.numbers(words_of(events), first_word(events.dtype, "a"))
        self._written_allocations.add(new)
        time_, pid_tgid, cpu, stack = (events[name].copy() for name in ("time", "pid_tgid", "cpu", "stack"))
        self._waiting.append(_Columns(time_, pid_tgid, cpu, stack, self._written_allocations.indices(numbers)))

    def write(self) -> None:
        """Write what was read."""
        self._written_at = time.monotonic()
        # After the events, so that a change that is missing here is later than all of these events.
        changes = self._comm_changes.drain()
        self._comms.update(changes)
        if self._groups is not None:
            self._groups.update(changes)
        if self._waiting:
            self._write_waiting()
        self._comms.discard()
        if self._groups is not None:
            self._groups.discard()
        self.unnamed = self._comms.unknown

    def _write_waiting(self) -> None:
        columns = _Columns(*(np.concatenate(parts) for parts in zip(*self._waiting, strict=True)))
        self._waiting.clear()
        tids = columns.pid_tgid.astype(np.uint32)
        pids = (columns.pid_tgid >> np.uint64(32)).astype(np.uint32)
        self._writer.write_stream(
            StreamColumns(
                time=columns.time,
                cpu=columns.cpu,
                pid=pids.view(np.int32),
                tid=tids.view(np.int32),
                comm=self._comms.column(tids, columns.cpu, columns.time),
                stack=self._rows.stacks(columns.stack),
                indices=columns.indices,
                cgroup=None if self._groups is None else self._groups.column(pids, columns.cpu, columns.time),
            )
        )
        self.consumed += len(columns.time)


def comm_text(words: npt.NDArray[np.uint64]) -> str:
    """Return the name of a task from its bytes.

    strlcpy() left the end of an earlier, longer name behind the zero: __set_task_comm() in fs/exec.c of 5.10.
    """
    return words.tobytes().split(b"\0")[0].decode(errors="replace")


class _CountedBy:
    """What the counters of calls count by: an allocation of the trace, and a text such as the name of a task.

    Args:
        dtype: numpy's description of `struct allocation`.
        written: the allocations of the trace.
        text: returns the text, from the words of `by`.
    """

    def __init__(
        self, dtype: np.dtype[np.void], written: _WrittenAllocations, text: Callable[[npt.NDArray[np.uint64]], str]
    ) -> None:
        self._grouper = Grouper(dtype)
        self._written = written
        self._text = text
        self._allocations = np.zeros(0, np.int32)
        self._codes = np.zeros(0, np.int32)
        self._texts: dict[str, int] = {}
        self._dictionary = pa.array([], pa.utf8())

    def add(self, new: Calls) -> None:
        """Add counted allocations, as `struct allocation` of record.h; they get the next numbers."""
        if not len(new):
            return
        codes = [self._texts.setdefault(self._text(words), len(self._texts)) for words in new["by"]]
        alike = new.copy()
        alike["by"] = 0
        numbers, first = self._grouper.numbers(words_of(alike))
        self._written.add(first)
        self._allocations = np.concatenate([self._allocations, numbers])
        self._codes = np.concatenate([self._codes, np.array(codes, np.int32)])
        added = list(islice(self._texts, len(self._dictionary), None))
        self._dictionary = pa.concat_arrays([self._dictionary, pa.array(added, pa.utf8())])

    def indices(self, numbers: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int32]:
        """Return the trace's indices of the allocations with these numbers."""
        return self._written.indices(self._allocations[numbers])

    def column(self, numbers: npt.NDArray[np.integer[Any]]) -> pa.DictionaryArray:
        """Return the texts of those with these numbers."""
        return pa.DictionaryArray.from_arrays(pa.array(self._codes[numbers]), self._dictionary)


class AggregateConsumer:
    """Writes periodically how often each allocation was made since the last time.

    Args:
        counters: the program's counters.
        maker: makes the trace's allocations.
        writer: the trace.
        by_text: returns the text of what calls are counted by in addition to the request, from its words; None if by
            nothing.
        checkpoint: seconds between two writes.
    """

    def __init__(
        self,
        counters: Counters,
        maker: AllocationMaker,
        writer: RowWriter,
        *,
        by_text: Callable[[npt.NDArray[np.uint64]], str] | None = None,
        checkpoint: float = CHECKPOINT_SECONDS,
    ) -> None:
        self.consumed = self.unnamed = 0
        self._counters = counters
        self._written_allocations = _WrittenAllocations(maker, writer)
        self._by = None if by_text is None else _CountedBy(counters.dtype, self._written_allocations, by_text)
        self._writer = writer
        self._checkpoint = checkpoint
        self._written = np.zeros(0, np.uint64)
        self._written_at = time.monotonic()

    def drain(self) -> None:
        """Make room for evicted counts, and write from time to time."""
        self._counters.drain()
        if time.monotonic() - self._written_at >= self._checkpoint:
            self.write()

    def finish(self, rejected: Calls) -> None:
        """Write everything."""
        while not self._counters.settled():
            time.sleep(_SETTLE)
        self._counters.add(np.ascontiguousarray(rejected["e"]["a"]))
        self.write()

    def write(self) -> None:
        """Write what was read."""
        totals, new = self._counters.totals()
        counted = self._written_allocations if self._by is None else self._by
        counted.add(new)
        before = np.zeros(len(totals), np.uint64)
        before[: len(self._written)] = self._written
        # A count that is moving from one map to another is written the next time.
        more = np.flatnonzero(totals > before)
        counts = totals[more] - before[more]
        if len(more):
            texts = None if self._by is None else self._by.column(more)
            self._writer.write_aggregate(counts, counted.indices(more), texts)
        self._written = np.maximum(totals, before)
        self.consumed += int(counts.sum())
        self._written_at = time.monotonic()


def _full(rows: int, written_at: float) -> bool:
    return rows >= _BATCH_ROWS or time.monotonic() - written_at >= _BATCH_SECONDS
