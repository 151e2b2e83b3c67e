# SPDX-License-Identifier: MIT
"""Rows as a file of format 2 holds them: which allocation each is, and who called."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kalloctrace.trace.dedup import Indices, encode
from kalloctrace.trace.rebatch import gathered
from kalloctrace.trace.schema import ALLOCATION, COUNT, LATER, ROWS, WHO


@dataclass(frozen=True)
class Encoded:
    """A batch of rows.

    Attributes:
        allocations: of type ALLOCATION; the same object as in the batch before where nothing has changed.
        indices: one of them a row.
        counts: how many calls each row stands for; None where each is one.
        who: the columns of WHO that were asked for and are there.
    """

    allocations: pa.StructArray
    indices: Indices
    counts: npt.NDArray[np.uint64] | None
    who: Mapping[str, pa.Array]


class Decoder:
    """Makes sense of the batches of one pass over a file of format 2.

    What it returns is safe to use: each dictionary is checked once, and every index against it.
    """

    def __init__(self) -> None:
        self._checked: dict[str, tuple[tuple[int, int], pa.Array]] = {}
        self._allocations = pa.array([], ALLOCATION)

    def decode(self, batch: pa.RecordBatch) -> Encoded:
        """Return the rows of a batch.

        Args:
            batch: any columns of a stream or an aggregate, `allocation` among them.

        Raises:
            pyarrow.ArrowInvalid: it is damaged.
        """
        batch.validate()
        who = dict(zip(batch.schema.names, batch.columns, strict=True))
        for name, column in who.items():
            if pa.types.is_dictionary(column.type):
                self._check(name, column)
            else:
                column.validate(full=True)
        allocation, counts = who.pop("allocation"), who.pop(COUNT.name, None)
        return Encoded(self._allocations, _dense(allocation.indices), None if counts is None else _dense(counts), who)

    def _check(self, name: str, column: pa.DictionaryArray) -> None:
        dictionary = column.dictionary
        identity = (len(dictionary), _address(dictionary))
        # What was checked is kept: its memory cannot have become another's.
        if name not in self._checked or self._checked[name][0] != identity:
            dictionary.validate(full=True)
            self._checked[name] = (identity, dictionary)
            if name == "allocation":
                self._allocations = _complete(dictionary)
        bounds = pc.min_max(column.indices).as_py()
        if bounds["max"] is not None and not 0 <= bounds["min"] <= bounds["max"] < len(dictionary):
            raise pa.ArrowInvalid(f"column {name} refers to what is not there")


def encoded(batches: Iterable[pa.RecordBatch]) -> Iterator[Encoded]:
    """Yield rows of format 1 as they are held today."""
    for table in gathered(batches):
        allocations, indices = encode(table)
        yield Encoded(allocations, indices, None, {field.name: table[field.name].combine_chunks() for field in WHO})


class Flattener:
    """Turns batches of one pass back into one column for each field."""

    def __init__(self) -> None:
        self._allocations = pa.array([], ALLOCATION)
        self._fields: dict[str, pa.Array] = {}

    def flat(self, rows: Encoded) -> pa.RecordBatch:
        """Return rows with the columns of ROWS; null for what an aggregate does not know."""
        if rows.allocations is not self._allocations or not self._fields:
            self._allocations = rows.allocations
            self._fields = {
                field.name: column.cast(ROWS.field(field.name).type)
                for field, column in zip(ALLOCATION, rows.allocations.flatten(), strict=True)
            }
        indices = pa.array(rows.indices)
        counts = np.ones(len(indices), np.uint64) if rows.counts is None else rows.counts
        columns = {
            **{field.name: pa.nulls(len(indices), field.type) for field in WHO if field.name not in rows.who},
            **rows.who,
            **{name: _taken(column, indices) for name, column in self._fields.items()},
            COUNT.name: pa.array(counts),
        }
        return pa.RecordBatch.from_arrays([columns[field.name] for field in ROWS], schema=ROWS)


def _taken(column: pa.Array, indices: pa.Array) -> pa.Array:
    """Return the values that indices choose; texts share their dictionary."""
    if not isinstance(column, pa.DictionaryArray):
        return column.take(indices)
    return pa.DictionaryArray.from_arrays(column.indices.take(indices), column.dictionary)


def _dense(column: pa.Array) -> npt.NDArray[Any]:
    if column.null_count:
        raise pa.ArrowInvalid("a value is missing that every row has")
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=True)
    return values


def _address(array: pa.Array) -> int:
    """Return where the first values are."""
    plain = array.field(0) if isinstance(array, pa.StructArray) else array
    buffer = plain.buffers()[1]
    return 0 if buffer is None else int(buffer.address)


def _complete(allocations: pa.StructArray) -> pa.StructArray:
    """Return the fields of today: in their order, with those that came later."""
    if allocations.null_count:
        raise pa.ArrowInvalid("an allocation is missing")
    have = dict(zip((field.name for field in allocations.type), allocations.flatten(), strict=True))
    columns = [
        have.get(field.name, pa.repeat(pa.scalar(LATER.get(field.name), field.type), len(allocations)))
        for field in ALLOCATION
    ]
    return pa.StructArray.from_arrays(columns, fields=list(ALLOCATION))
