# SPDX-License-Identifier: MIT
"""Groups calls by their request, context and observed preparation."""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.errors import KalloctraceError
from kalloctrace.trace.rebatch import rebatched
from kalloctrace.trace.schema import ALLOCATION, COUNT

KEYS = [field.name for field in ALLOCATION]
_MERGE_ROWS = 1 << 18
"""Distinct rows to collect before they are grouped again; limits the memory for long traces."""
_MADE_AT_ONCE = 1 << 10
MOST_ALLOCATIONS = 1 << 18
"""Distinct allocations in one dictionary, and those that a command keeps: each takes 1 KB there, and 40 us to judge."""

Indices = npt.NDArray[np.int32]


def python_rows(allocations: pa.StructArray, first: int = 0) -> Iterator[dict[str, Any]]:
    """Yield allocations as mappings from column to Python value. One takes 3 KB, so that a few are made at a time.

    Args:
        allocations: of type ALLOCATION.
        first: the index of the first.
    """
    for begin in range(first, len(allocations), _MADE_AT_ONCE):
        yield from allocations.slice(begin, _MADE_AT_ONCE).to_pylist()


def digests(allocations: pa.StructArray) -> Iterator[bytes]:
    """Yield a number for each allocation that stands for all its values: they would take 2 KB, and it 50 bytes."""
    for row in python_rows(allocations):
        yield blake2b(repr(tuple(row.values())).encode(), digest_size=16).digest()


def refuse_more(allocations: int) -> None:
    """Raise an error where a command would keep more distinct allocations than it can.

    Args:
        allocations: how many it has.

    Raises:
        KalloctraceError: they are too many.
    """
    if allocations > MOST_ALLOCATIONS:
        raise KalloctraceError(
            "the trace has too many different allocations",
            f"they are more than {MOST_ALLOCATIONS:,}, and each is kept and judged",
            "record less at a time, or write the calls with: kalloctrace export",
        )


class Counted:
    """Distinct allocations and their counts. As Python values one takes 3 KB, so that a few are made at a time.

    Args:
        table: a column for each field, and `count`.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        """Return how many there are."""
        rows: int = self._table.num_rows
        return rows

    def __iter__(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield each, as a mapping from column to Python value, and its count of at least 1; always in one order."""
        for batch in self._table.to_batches(max_chunksize=_MADE_AT_ONCE):
            for row in batch.to_pylist():
                yield row, row.pop(COUNT.name)

    def by(self, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield each combination of these columns as a mapping, and the count of the allocations that have it."""
        groups = self._table.group_by(list(names), use_threads=False).aggregate([(COUNT.name, "sum")])
        counts = groups[f"{COUNT.name}_sum"].to_pylist()
        yield from zip(groups.select(list(names)).to_pylist(), counts, strict=True)


class Tally:
    """How often each allocation occurred, over batches whose dictionaries may grow or change."""

    def __init__(self) -> None:
        self._dictionary = pa.array([], ALLOCATION)
        self._counts = np.zeros(0, np.uint64)
        self._groups: list[pa.Table] = []

    def add(self, dictionary: pa.StructArray, indices: Indices, counts: npt.NDArray[np.uint64] | None = None) -> None:
        """Count calls.

        Args:
            dictionary: allocations.
            indices: for each row, its allocation.
            counts: for each row, how many calls it represents; 1 by default.
        """
        if dictionary is not self._dictionary:
            self._change(dictionary)
        if counts is None:
            self._counts += np.bincount(indices, minlength=len(self._counts)).astype(np.uint64)
        else:
            np.add.at(self._counts, indices, counts)

    def table(self) -> pa.Table:
        """Return the allocations that occurred: a column for each field, and `count`.

        Raises:
            KalloctraceError: they are too many.
        """
        table = _group([*self._groups, self._current()])
        refuse_more(table.num_rows)
        return table

    def rows(self) -> "Counted":
        """Return each allocation that occurred, and its count."""
        return Counted(self.table())

    def _change(self, dictionary: pa.StructArray) -> None:
        have = len(self._dictionary)
        if not begins_with(dictionary, self._dictionary):
            self._groups.append(self._current())
            if sum(group.num_rows for group in self._groups) > _MERGE_ROWS:
                self._groups = [_group(self._groups)]
                refuse_more(self._groups[0].num_rows)
            have = 0
        self._counts = np.concatenate([self._counts[:have], np.zeros(len(dictionary) - have, np.uint64)])
        self._dictionary = dictionary

    def _current(self) -> pa.Table:
        present = np.flatnonzero(self._counts)
        table = pa.Table.from_arrays(self._dictionary.take(present).flatten(), names=KEYS)
        return table.append_column(COUNT.name, pa.array(self._counts[present]))


def begins_with(dictionary: pa.StructArray, before: pa.StructArray) -> bool:
    """Return whether a dictionary is an earlier one, perhaps with more at its end."""
    same: bool = dictionary.slice(0, len(before)).equals(before)
    return same


def dictionary_encode(table: pa.Table) -> tuple[pa.StructArray, Indices]:
    """Return the distinct allocations of rows, and for each row the index of its allocation.

    Args:
        table: rows with one column for each field of an allocation; others are ignored.
    """
    keys = table.select(KEYS).append_column("row", pa.array(np.arange(table.num_rows)))
    groups = keys.group_by(KEYS, use_threads=False).aggregate([("row", "list")]).combine_chunks()
    rows = groups["row_list"].combine_chunks()
    indices = np.empty(table.num_rows, np.int32)
    indices[rows.flatten()] = np.repeat(np.arange(len(rows), dtype=np.int32), rows.value_lengths())
    return allocations_of(groups), indices


def allocations_of(table: pa.Table | pa.RecordBatch) -> pa.StructArray:
    """Return the allocation of each row, from one column for each of its fields."""
    columns = [table.column(field.name).cast(field.type) for field in ALLOCATION]
    plain = [column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column for column in columns]
    return pa.StructArray.from_arrays(plain, fields=list(ALLOCATION))


def count_distinct(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each distinct combination of request, context and observation, with how often it occurred.

    Args:
        batches: calls with all COLUMNS.

    Returns:
        Mappings from column to Python value, and counts of at least 1.
    """
    tally = Tally()
    for table in rebatched(batches):
        tally.add(*dictionary_encode(table))
    return iter(tally.rows())


def _group(tables: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables(tables)
    grouped = table.group_by(KEYS, use_threads=False).aggregate([(COUNT.name, "sum")])
    return grouped.select([*KEYS, f"{COUNT.name}_sum"]).rename_columns([*KEYS, COUNT.name])
