# SPDX-License-Identifier: MIT
"""Decodes rows: an index into the distinct allocations, and the task columns."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kalloctrace.trace.checks import MOST_CALLS, check_orders, check_values
from kalloctrace.trace.dedup import MOST_ALLOCATIONS, Indices, dictionary_encode
from kalloctrace.trace.rebatch import rebatched
from kalloctrace.trace.schema import ALLOCATION, CGROUP, COLUMNS, COUNT, LATER, ROWS, TASK_COLUMNS

_TASKS = {field.name: field for field in (*TASK_COLUMNS, CGROUP)}


@dataclass(frozen=True)
class RowBatch:
    """A batch of rows.

    Attributes:
        allocations: of type ALLOCATION; the same object as in the previous batch if nothing changed.
        indices: for each row, its allocation.
        counts: for each row, how many calls it represents; None if each represents one.
        task_columns: those columns of TASK_COLUMNS, and CGROUP, that were requested and that the trace has.
    """

    allocations: pa.StructArray
    indices: Indices
    counts: npt.NDArray[np.uint64] | None
    task_columns: Mapping[str, pa.Array]

    def slices(self, rows: int) -> Iterator["RowBatch"]:
        """Yield the rows as batches of at most this many."""
        for start in range(0, len(self.indices), rows):
            part = slice(start, start + rows)
            yield RowBatch(
                self.allocations,
                self.indices[part],
                None if self.counts is None else self.counts[part],
                {name: column.slice(start, rows) for name, column in self.task_columns.items()},
            )


class Decoder:
    """Decodes the batches of one pass over a file of format 2.

    Its results are safe to use: each dictionary is validated once, each index is checked against its dictionary, and
    all values are those that a recorder writes.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._checked: dict[str, tuple[tuple[int, int], pa.Array]] = {}
        self._allocations = pa.array([], ALLOCATION)

    def decode(self, batch: pa.RecordBatch) -> RowBatch:
        """Return the rows of a batch.

        Args:
            batch: `allocation` and any other columns of a stream or an aggregate.

        Raises:
            pyarrow.ArrowInvalid: the batch is damaged.
        """
        batch.validate()
        task_columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        for name, column in task_columns.items():
            if pa.types.is_dictionary(column.type):
                self._check(name, column)
            else:
                column.validate(full=True)
                check_values(name, column, nullable=False)
        allocation, counts = task_columns.pop("allocation"), task_columns.pop(COUNT.name, None)
        # Each count was checked to be small enough for this sum.
        self._calls += batch.num_rows if counts is None else sum(counts.to_pylist())
        if self._calls > MOST_CALLS:
            raise pa.ArrowInvalid(f"the counts of its rows add up to more than {MOST_CALLS:,}")
        return RowBatch(
            self._allocations, _dense(allocation.indices), None if counts is None else _dense(counts), task_columns
        )

    def _check(self, name: str, column: pa.DictionaryArray) -> None:
        dictionary = column.dictionary
        identity = (len(dictionary), _address(dictionary))
        # The checked dictionary is kept alive, so its address cannot be reused.
        if name not in self._checked or self._checked[name][0] != identity:
            dictionary.validate(full=True)
            if name == "allocation":
                self._allocations = _complete(dictionary)
                _check_allocations(self._allocations)
            else:
                check_values(name, dictionary, nullable=False)
            self._checked[name] = (identity, dictionary)
        if column.indices.null_count and not (name in _TASKS and _TASKS[name].nullable):
            raise pa.ArrowInvalid(f"column {name} must not have a null")
        bounds = pc.min_max(column.indices).as_py()
        if bounds["max"] is not None and not 0 <= bounds["min"] <= bounds["max"] < len(dictionary):
            raise pa.ArrowInvalid(f"column {name} has an index outside its dictionary")


def check_calls(batch: pa.RecordBatch) -> None:
    """Check a batch of format 1.

    Args:
        batch: calls with the columns of COLUMNS.

    Raises:
        pyarrow.ArrowInvalid: the batch is damaged.
    """
    batch.validate(full=True)
    columns = {}
    for field in COLUMNS:
        column = batch.column(field.name)
        if pa.types.is_dictionary(column.type):
            check_values(field.name, column.dictionary, nullable=False)
            if column.null_count and not field.nullable:
                raise pa.ArrowInvalid(f"column {field.name} must not have a null")
        else:
            check_values(field.name, column, nullable=field.nullable)
            columns[field.name] = column
    _check_accepted(columns)


def _check_allocations(allocations: pa.StructArray) -> None:
    if len(allocations) > MOST_ALLOCATIONS:
        raise pa.ArrowInvalid(f"it has more than {MOST_ALLOCATIONS:,} distinct allocations")
    columns = dict(zip((field.name for field in ALLOCATION), allocations.flatten(), strict=True))
    for field in ALLOCATION:
        check_values(field.name, columns[field.name], nullable=field.nullable)
    _check_accepted(columns)


def _check_accepted(columns: Mapping[str, pa.Array]) -> None:
    """Check the orders of the calls that were not rejected."""
    accepted = pc.or_kleene(pc.greater(columns["freelist_calls"], 0), columns["page"])
    check_orders(columns["order"].filter(accepted))
    check_orders(columns["freelist_order"])


def from_format_1(batches: Iterable[pa.RecordBatch]) -> Iterator[RowBatch]:
    """Yield rows of format 1 as batches of today's form."""
    for table in rebatched(batches):
        allocations, indices = dictionary_encode(table)
        yield RowBatch(
            allocations, indices, None, {field.name: table[field.name].combine_chunks() for field in TASK_COLUMNS}
        )


class Flattener:
    """Turns the batches of one pass into record batches with a column for each field."""

    def __init__(self) -> None:
        self._allocations = pa.array([], ALLOCATION)
        self._fields: dict[str, pa.Array] = {}

    def flatten(self, rows: RowBatch) -> pa.RecordBatch:
        """Return rows with the columns of ROWS; columns that an aggregate does not have are null."""
        if rows.allocations is not self._allocations or not self._fields:
            self._allocations = rows.allocations
            self._fields = {
                field.name: column.cast(ROWS.field(field.name).type)
                for field, column in zip(ALLOCATION, rows.allocations.flatten(), strict=True)
            }
        indices = pa.array(rows.indices)
        counts = np.ones(len(indices), np.uint64) if rows.counts is None else rows.counts
        columns = {
            **{name: pa.nulls(len(indices), field.type) for name, field in _TASKS.items()},
            **rows.task_columns,
            **{name: _take(column, indices) for name, column in self._fields.items()},
            COUNT.name: pa.array(counts),
        }
        return pa.RecordBatch.from_arrays([columns[field.name] for field in ROWS], schema=ROWS)


def _take(column: pa.Array, indices: pa.Array) -> pa.Array:
    """Return the values at these indices; texts share their dictionary."""
    if not isinstance(column, pa.DictionaryArray):
        return column.take(indices)
    return pa.DictionaryArray.from_arrays(column.indices.take(indices), column.dictionary)


def _dense(column: pa.Array) -> npt.NDArray[Any]:
    if column.null_count:
        raise pa.ArrowInvalid("a column that must not be null has a null")
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=True)
    return values


def _address(array: pa.Array) -> int:
    """Return the address of the first values."""
    plain = array.field(0) if isinstance(array, pa.StructArray) else array
    buffer = plain.buffers()[1]
    return 0 if buffer is None else int(buffer.address)


def _complete(allocations: pa.StructArray) -> pa.StructArray:
    """Return the allocations with today's fields, in today's order; missing fields have their default."""
    if allocations.null_count:
        raise pa.ArrowInvalid("the dictionary of allocations has a null")
    have = dict(zip((field.name for field in allocations.type), allocations.flatten(), strict=True))
    columns = [
        have.get(field.name, pa.repeat(pa.scalar(LATER.get(field.name), field.type), len(allocations)))
        for field in ALLOCATION
    ]
    return pa.StructArray.from_arrays(columns, fields=list(ALLOCATION))
