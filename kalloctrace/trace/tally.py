# SPDX-License-Identifier: MIT
"""Counts rows while they are captured or replayed: by allocation, and in a stream also by task and stack."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.trace.containers import Containers
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import Indices, allocations_of, dictionary_encode, digests, refuse_more
from kalloctrace.trace.schema import ALLOCATION
from kalloctrace.trace.slow_tally import OTHERS, SlowTally
from kalloctrace.trace.writer import Column, StreamColumns

MOST_KEYS = 20_000
"""How many combinations of allocation, task and stack are counted separately; beyond it, the idle ones are merged."""
_KEPT_MOVES = 64
_NO_PID, _NO_STACK = -1, -1
_NAMES = pa.dictionary(pa.int32(), pa.utf8())
_KEY = ("allocation", "comm", "pid", "stack")
_Key = tuple[int, int, int, int]


class RunningTally:
    """How often each allocation was made so far. Row positions are stable within a generation.

    Attributes:
        generation: incremented when combinations are merged, which changes row positions.
        moves: for recent generations, the position of each of their rows in the next generation.
        slow: the calls of the slow path.

    Args:
        tasks: count tasks and stacks separately too; only rows of a stream have them.
        most: about how many combinations with tasks and stacks to keep, which limits the memory. Beyond it, only the
            names of the tasks that were idle longest are kept.
        longer_than: calls that are longer than this in the slow path are counted separately, ns.
    """

    def __init__(self, *, tasks: bool, most: int = MOST_KEYS, longer_than: int = 0) -> None:
        self.generation = 0
        self.moves: dict[int, Indices] = {}
        self.slow = SlowTally(tasks=tasks, most=most, longer_than=longer_than)
        self._tasks = tasks
        self._most = self._limit = most
        self._added: list[pa.StructArray] = []
        self._allocations = pa.array([], ALLOCATION)
        self._size = 0
        self._known: dict[bytes, int] = {}
        self._comms: dict[str, int] = {}
        self._stacks: dict[str, int] = {}
        self._places: dict[_Key, int] = {}
        self._counts: list[int] = []
        self._touched: list[int] = []
        self._now = 0

    def add(self, allocations: pa.RecordBatch | pa.StructArray) -> int:
        """Add distinct allocations that were not added before; return the index of the first."""
        if not isinstance(allocations, pa.StructArray):
            allocations = allocations_of(allocations)
        first = self._size
        self._added.append(allocations)
        self._size += len(allocations)
        return first

    def intern(self, allocations: pa.StructArray) -> Indices:
        """Return the indices of allocations; adds those that were not interned before.

        Raises:
            KalloctraceError: they are too many.
        """
        keys = list(digests(allocations))
        new = [position for position, key in enumerate(keys) if key not in self._known]
        first = self.add(allocations.take(pa.array(new, pa.int64())))
        self._known |= {keys[position]: first + number for number, position in enumerate(new)}
        refuse_more(len(self._known))
        return np.array([self._known[key] for key in keys], np.int32)

    def write(self, batch: pa.RecordBatch) -> None:
        """Count calls that are not grouped yet: a row is a call, with all COLUMNS."""
        if not batch.num_rows:
            return
        table = pa.Table.from_batches([batch])
        allocations, local = dictionary_encode(table)
        indices = self.intern(allocations)[local]
        comm, stack = (table[name].combine_chunks() for name in ("comm", "stack"))
        self.count(indices, comm=comm, pid=table["pid"].combine_chunks(), stack=stack)

    def write_slow(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Count calls of the slow path, each of which is counted by its first attempt, too."""
        for call in calls:
            self.slow.add(call)

    def write_containers(self, containers: Containers) -> None:
        """Ignore names of containers: calls are not counted by group."""

    def write_stream(self, calls: StreamColumns) -> None:
        """Count calls of added allocations."""
        self.count(np.asarray(calls.indices, np.int32), comm=calls.comm, pid=pa.array(calls.pid), stack=calls.stack)

    def write_aggregate(self, counts: Column, indices: Column, by: pa.DictionaryArray | None = None) -> None:
        """Add counts of added allocations; `by` is the names of their tasks, if tasks are counted."""
        comms = itertools.repeat(0) if by is None or not self._tasks else _codes(by, self._comms).tolist()
        for index, comm, count in zip(np.asarray(indices).tolist(), comms, np.asarray(counts).tolist(), strict=False):
            self._add((index, comm, _NO_PID, _NO_STACK), count)

    def count(
        self, indices: Indices, *, comm: pa.DictionaryArray, pid: pa.Array, stack: pa.DictionaryArray | None
    ) -> None:
        """Count one call for each row.

        Args:
            indices: for each row, the index of its allocation.
            comm: names of tasks.
            pid: process ids, int32.
            stack: kernel stacks; None if they are not recorded.
        """
        if not self._tasks:
            for index, count in enumerate(np.bincount(indices, minlength=0).tolist()):
                if count:
                    self._add((index, 0, _NO_PID, _NO_STACK), count)
            return
        none = np.full(len(indices), _NO_STACK, np.int32)
        columns = [
            indices,
            _codes(comm, self._comms),
            pid.to_numpy(zero_copy_only=False).astype(np.int32),
            none if stack is None or not len(stack.dictionary) else _codes(stack, self._stacks),
        ]
        table = pa.table([pa.array(column) for column in columns], list(_KEY))
        groups = table.group_by(list(_KEY), use_threads=False).aggregate([([], "count_all")])
        keys = zip(*(groups[name].to_pylist() for name in _KEY), strict=True)
        self._now += 1
        for key, count in zip(keys, groups["count_all"].to_pylist(), strict=True):
            self._add(key, count)
        if len(self._places) > self._limit:
            self._fold()

    def _add(self, key: _Key, count: int) -> None:
        place = self._places.setdefault(key, len(self._counts))
        if place == len(self._counts):
            self._counts.append(0)
            self._touched.append(0)
        self._counts[place] += count
        self._touched[place] = self._now

    def _fold(self) -> None:
        """Take the quiet combinations together: those of one name, or all where that does not help."""
        quiet = sorted(self._places, key=lambda key: self._touched[self._places[key]])[: -self._most // 2]
        places, counts, touched = self._places, self._counts, self._touched
        named = {key: (key[0], key[1], _NO_PID, _NO_STACK) for key in quiet}
        if len({named.get(key, key) for key in places}) > self._most:
            others = self._comms.setdefault(OTHERS, len(self._comms))
            named = {key: (key[0], others, _NO_PID, _NO_STACK) for key in quiet}
        self._places, self._counts, self._touched = {}, [], []
        move = np.zeros(len(places), np.int32)
        for key, place in places.items():
            self._add(named.get(key, key), counts[place])
            move[place] = self._places[named.get(key, key)]
            self._touched[move[place]] = touched[place]
        self._comms, comms = _used(self._comms, (key[1] for key in self._places))
        self._stacks, stacks = _used(self._stacks, (key[3] for key in self._places))
        self._places = {
            (allocation, comms[comm], pid, stacks[stack]): place
            for (allocation, comm, pid, stack), place in self._places.items()
        }
        self.moves[self.generation] = move
        self.moves.pop(self.generation - _KEPT_MOVES, None)
        self.generation += 1
        self._limit = max(self._most, 2 * len(self._places))

    def rows(self) -> RowBatch:
        """Return a row for each combination that occurred, in the order of first occurrence."""
        if self._added:
            self._allocations = pa.concat_arrays([self._allocations, *self._added])
            self._added.clear()
        keys = np.array(list(self._places), np.int64).reshape(-1, len(_KEY)).astype(np.int32)
        task_columns = dict(self._task_columns(keys)) if self._tasks else {}
        return RowBatch(self._allocations, keys[:, 0].copy(), np.array(self._counts, np.uint64), task_columns)

    def _task_columns(self, keys: npt.NDArray[np.int32]) -> Iterator[tuple[str, pa.Array]]:
        for name, column, texts in (("comm", 1, self._comms), ("stack", 3, self._stacks)):
            indices = pa.array(keys[:, column], mask=keys[:, column] < 0)
            yield name, pa.DictionaryArray.from_arrays(indices, pa.array(list(texts), pa.utf8())).cast(_NAMES)
        yield "pid", pa.array(keys[:, 2], mask=keys[:, 2] == _NO_PID)


def counts_of(rows: RowBatch) -> npt.NDArray[np.uint64]:
    """Return how many calls each allocation of a tally has, over all tasks."""
    sums = np.zeros(len(rows.allocations), np.uint64)
    if rows.counts is not None:
        np.add.at(sums, rows.indices, rows.counts)
    return sums


def _used(texts: Mapping[str, int], numbers: Iterable[int]) -> tuple[dict[str, int], dict[int, int]]:
    """Return only the texts with these numbers, numbered again, and the new number of each; a negative one stays."""
    used = set(numbers)
    moved = {number: number for number in used if number < 0}
    kept: dict[str, int] = {}
    for text, number in texts.items():
        if number in used:
            moved[number] = kept.setdefault(text, len(kept))
    return kept, moved


def _codes(column: pa.DictionaryArray, texts: dict[str, int]) -> npt.NDArray[np.int32]:
    """Return the number of each text, numbering new ones; -1 for null."""
    indices = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    used = np.unique(indices)
    numbers = np.full(len(column.dictionary) + 1, -1, np.int32)
    for index in used[used >= 0].tolist():
        numbers[index] = texts.setdefault(column.dictionary[index].as_py(), len(texts))
    codes: npt.NDArray[np.int32] = numbers[indices]
    return codes
