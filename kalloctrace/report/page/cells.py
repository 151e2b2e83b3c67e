# SPDX-License-Identifier: MIT
"""The calls of a trace in cells: by allocation and task over time, and by allocation, task and stack or cgroup."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kalloctrace.report.callers import MOST_CALLERS
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import digests, refuse_more
from kalloctrace.trace.schema import ALLOCATION, CGROUP
from kalloctrace.trace.slow_tally import OTHERS

Numbers = npt.NDArray[np.int64]

BUCKETS = 240
"""Parts of the time of a recording."""
NOBODY = ""
"""Replaces the task in an aggregate, which has none."""

_MERGE_ROWS = 1 << 18
"""Cells to collect before merging them, at least: keeps memory flat for long traces."""
_AXES = ("row", "comm", "x")


@dataclass(frozen=True)
class Cells:
    """Numbers of calls with the same allocation, comm and position on an axis.

    Attributes:
        row: index of the allocation.
        comm: index of the comm.
        x: part of the time, or index of the stack or of the control group.
        count: number of calls, at least 1.
    """

    row: Numbers
    comm: Numbers
    x: Numbers
    count: Numbers

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.row)

    def where(self, chosen: npt.NDArray[Any]) -> "Cells":
        """Return some of the cells.

        Args:
            chosen: a mask, or indices in the desired order.
        """
        return Cells(self.row[chosen], self.comm[chosen], self.x[chosen], self.count[chosen])

    def with_all(self, other: "Cells") -> "Cells":
        """Return these cells and others; equal ones are added up."""
        return _grouped([_table(cells.row, cells.comm, cells.x, cells.count) for cells in (self, other)])

    def at(self, x: int) -> "Cells":
        """Return the cells merged at one position of the axis."""
        return _grouped([_table(self.row, self.comm, np.full(len(self), x), self.count)])

    def halved(self) -> "Cells":
        """Return the cells with every two neighbours on the axis merged."""
        return _grouped([_table(self.row, self.comm, self.x // 2, self.count)])


@dataclass
class Counted:
    """All calls of a trace.

    Attributes:
        allocations: each distinct allocation.
        comms: names of tasks.
        stacks: texts of stacks, outermost;…;innermost; None for calls without one.
        paths: paths of control groups; None for calls whose group was not recorded.
        time: calls by part of the time; all in part 0 for an aggregate.
        callers: calls by stack; empty for an aggregate.
        groups: calls by control group; empty where none was recorded.
        buckets: number of parts of the time.
    """

    allocations: pa.StructArray
    comms: list[str]
    stacks: list[str | None]
    paths: list[str | None]
    time: Cells
    callers: Cells
    groups: Cells
    buckets: int

    def counts(self) -> Numbers:
        """Return the number of calls of each distinct allocation."""
        counts = np.zeros(len(self.allocations), np.int64)
        np.add.at(counts, self.time.row, self.time.count)
        return counts


class CellCounter:
    """Counts the calls of a trace in cells, batch by batch.

    Args:
        first: time of the first call in ns; None without calls, and for an aggregate.
        last: time of the last call in ns.
    """

    def __init__(self, first: int | None, last: int) -> None:
        self._first = first
        self._span = 0 if first is None else last - first + 1
        self._rows = _NumberedAllocations()
        self._comms, self._stacks, self._paths = _Numbered(), _Numbered(), _Numbered()
        self._time, self._callers, self._groups = _Gathering(), _Gathering(), _Gathering()

    def add(self, batch: RowBatch) -> None:
        """Count a batch."""
        row = self._rows.numbers(batch.allocations)[batch.indices]
        counts = np.ones(len(row), np.int64) if batch.counts is None else batch.counts.astype(np.int64)
        if self._first is None:
            nobody = np.full(len(row), self._comms.number(NOBODY))
            self._time.add(row, nobody, np.zeros(len(row), np.int64), counts)
            return
        comm = _taken(self._comms, batch, "comm")
        since = batch.task_columns["time"].to_numpy() - np.uint64(self._first)
        self._time.add(row, comm, (since * np.uint64(BUCKETS) // np.uint64(self._span)).astype(np.int64), counts)
        self._callers.add(row, comm, _taken(self._stacks, batch, "stack"), counts)
        if CGROUP.name in batch.task_columns:
            self._groups.add(row, comm, _taken(self._paths, batch, CGROUP.name), counts)

    def counted(self) -> Counted:
        """Return what was counted."""
        buckets = 1 if self._first is None else BUCKETS
        return Counted(
            self._rows.allocations(),
            self._comms.values,
            self._stacks.values,
            self._paths.values,
            self._time.cells(),
            self._callers.cells(),
            self._groups.cells(),
            buckets,
        )


def _taken(numbered: "_Numbered", batch: RowBatch, name: str) -> Numbers:
    """Return the index of each row's text."""
    column: pa.DictionaryArray = batch.task_columns[name]
    numbers = numbered.numbers(column.dictionary)
    if column.null_count:
        numbers = np.append(numbers, numbered.number(None))
    taken: Numbers = numbers[column.indices.fill_null(len(numbers) - 1).to_numpy()]
    return taken


class _NumberedByEntry:
    """Numbers the entries of dictionaries in the order in which they first occur."""

    def __init__(self) -> None:
        self._dictionary: pa.Array | None = None
        self._numbers: Numbers = np.zeros(0, np.int64)

    def _new(self, entries: pa.Array) -> list[int]:
        raise NotImplementedError

    def numbers(self, dictionary: pa.Array) -> Numbers:
        """Return the number of each entry; a dictionary is usually the previous one, or extends it."""
        if dictionary is not self._dictionary:
            have = len(self._numbers)
            if self._dictionary is None or not dictionary.slice(0, have).equals(self._dictionary):
                have = 0
            new = np.array(self._new(dictionary.slice(have)), np.int64)
            self._numbers = np.concatenate([self._numbers[:have], new])
            self._dictionary = dictionary
        return self._numbers


class _Numbered(_NumberedByEntry):
    """Numbers texts.

    Attributes:
        values: the texts, in the order of their numbers; None for none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Any] = []
        self._known: dict[str | None, int] = {}

    def number(self, value: str | None) -> int:
        """Return the number of a text; those for which there is no room have one together."""
        if value not in self._known and len(self.values) >= MOST_CALLERS:
            value = OTHERS
        number = self._known.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number

    def _new(self, entries: pa.Array) -> list[int]:
        return [self.number(value) for value in entries.to_pylist()]


class _NumberedAllocations(_NumberedByEntry):
    """Numbers allocations, which stay in Arrow: as Python values one takes 3 KB."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[bytes, int] = {}
        self._parts: list[pa.StructArray] = []

    def allocations(self) -> pa.StructArray:
        """Return the allocations, in the order of their numbers."""
        return pa.concat_arrays([pa.array([], ALLOCATION), *self._parts])

    def _new(self, entries: pa.Array) -> list[int]:
        have = len(self._known)
        numbers: list[int] = []
        first: list[int] = []
        for position, key in enumerate(digests(entries)):
            number = self._known.setdefault(key, len(self._known))
            if number == have + len(first):
                first.append(position)
            numbers.append(number)
        refuse_more(len(self._known))
        self._parts.append(entries.take(pa.array(first, pa.int64())))
        return numbers


class _Gathering:
    """Adds up calls in cells; memory grows with the cells, not with the calls."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._room = _MERGE_ROWS

    def add(self, row: Numbers, comm: Numbers, x: Numbers, count: Numbers) -> None:
        self._tables.append(_summed([_table(row, comm, x, count)]))
        self._room -= self._tables[-1].num_rows
        if self._room < 0:
            self._tables = [_summed(self._tables)]
            # Wait for as many new cells as there are, so that old ones are not merged for each batch.
            self._room = max(_MERGE_ROWS, self._tables[0].num_rows)

    def cells(self) -> Cells:
        nothing = np.zeros(0, np.int64)
        return _grouped([_table(nothing, nothing, nothing, nothing), *self._tables])


def _table(row: Numbers, comm: Numbers, x: Numbers, count: Numbers) -> pa.Table:
    return pa.table({"row": row, "comm": comm, "x": x, "count": count})


def _summed(tables: Sequence[pa.Table]) -> pa.Table:
    sums = pa.concat_tables(tables).group_by(_AXES, use_threads=False).aggregate([("count", "sum")])
    return sums.select([*_AXES, "count_sum"]).rename_columns([*_AXES, "count"])


def _grouped(tables: Sequence[pa.Table]) -> Cells:
    table = _summed(tables)
    order = pc.sort_indices(table, [(name, "ascending") for name in _AXES])
    return Cells(*(table[name].take(order).to_numpy() for name in (*_AXES, "count")))
