# SPDX-License-Identifier: MIT
"""The rows of a trace for other programs: Parquet, CSV and JSON lines, with the columns of ROWS."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from kalloctrace.console import json_text
from kalloctrace.text import printable
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import begins_with
from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.trace.schema import ALLOCATION, CGROUP, COUNT, ROWS, TASK_COLUMNS

Format = Literal["parquet", "csv", "jsonl"]

_GROUP_ROWS = 1 << 18
_LINES = 1 << 14
"""Lines of text to build at once; kernel stacks may be long, and an array of texts holds 2 GiB."""
_KEPT_TEXTS = 1 << 15
"""Texts of allocations to keep; a text has up to 2 KB."""


def write_rows(trace: TraceReader, form: Format, stream: IO[bytes]) -> Ending:
    """Write all rows of a trace, up to its end or to where it is truncated; memory does not grow with the rows.

    Args:
        trace: the trace.
        form: the format. In CSV texts are quoted, escaped as for a terminal, and begin with "'" where a spreadsheet
            would take them for a formula; null is an empty field without quotes. Each JSON object has
            `"type": "allocation"` in addition to the columns.
        stream: where to write.

    Returns:
        How the trace ends.
    """
    if form == "parquet":
        return _write_parquet(trace, stream)
    lines = _Lines(_JSON if form == "jsonl" else _CSV)
    stream.write(lines.head)
    reading = trace.row_batches()
    for rows in reading:
        for first in range(0, len(rows.indices), _LINES):
            stream.write(lines.of(_part(rows, first)))
    return reading.finish()


def _write_parquet(trace: TraceReader, stream: IO[bytes]) -> Ending:
    reading = trace.batches()
    with parquet.ParquetWriter(stream, ROWS, compression="zstd") as writer:
        waiting: list[pa.RecordBatch] = []
        for batch in reading:
            waiting.append(batch)
            if sum(part.num_rows for part in waiting) >= _GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting.clear()
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))
    return reading.finish()


def _part(rows: RowBatch, first: int) -> RowBatch:
    end = first + _LINES
    counts = None if rows.counts is None else rows.counts[first:end]
    who = {name: column.slice(first, _LINES) for name, column in rows.task_columns.items()}
    return RowBatch(rows.allocations, rows.indices[first:end], counts, who)


@dataclass(frozen=True)
class _Syntax:
    """The syntax of a format.

    Attributes:
        head: text before the first line.
        label: returns the text before a column's value.
        value: returns the text of a value.
        end: text at the end of a line.
    """

    head: str
    label: Callable[[str], str]
    value: Callable[[Any], str]
    end: str


class _Lines:
    """Builds lines of text; a distinct allocation, name or stack is formatted once, and then copied."""

    def __init__(self, syntax: _Syntax) -> None:
        self.head = syntax.head.encode()
        self._value = syntax.value
        self._label = syntax.label
        self._labels = {field.name: _text(syntax.label(field.name)) for field in ROWS}
        self._null, self._one, self._end, self._nothing = map(_text, (syntax.value(None), "1", syntax.end, ""))
        self._allocations = pa.array([], ALLOCATION)
        self._texts: dict[int, str] = {}

    def of(self, rows: RowBatch) -> memoryview:
        """Return the lines of rows."""
        if rows.allocations is not self._allocations:
            if not begins_with(rows.allocations, self._allocations):
                self._texts.clear()
            self._allocations = rows.allocations
        if len(self._texts) > _KEPT_TEXTS:
            self._texts.clear()
        used, indices = np.unique(rows.indices, return_inverse=True)
        new = [index for index in used.tolist() if index not in self._texts]
        taken = rows.allocations.take(pa.array(new, pa.int64())).to_pylist()
        self._texts.update(zip(new, map(self._allocation, taken), strict=True))
        texts = pa.array([self._texts[index] for index in used.tolist()], pa.utf8())
        parts: list[Any] = []
        for field in TASK_COLUMNS:
            parts += [self._labels[field.name], self._column(rows.task_columns.get(field.name))]
        counts = self._one if rows.counts is None else pa.array(rows.counts).cast(pa.utf8())
        parts += [texts.take(pa.array(indices)), self._labels[COUNT.name], counts]
        parts += [self._labels[CGROUP.name], self._column(rows.task_columns.get(CGROUP.name)), self._end]
        lines = pc.binary_join_element_wise(*parts, self._nothing)
        # The lines are adjacent in the array's memory.
        _, offsets, data = lines.buffers()
        ends = np.frombuffer(offsets, np.int32)
        return memoryview(data)[ends[0] : ends[len(lines)]]

    def _allocation(self, allocation: dict[str, Any]) -> str:
        return "".join(self._label(name) + self._value(value) for name, value in allocation.items())

    def _column(self, column: pa.Array | None) -> pa.Array:
        if column is None:
            return self._null
        if isinstance(column, pa.DictionaryArray):
            texts = pa.array(map(self._value, column.dictionary.to_pylist()), pa.utf8())
            return texts.take(column.indices).fill_null(self._null)
        return column.cast(pa.utf8()).fill_null(self._null)


def _text(value: str) -> pa.Scalar:
    # The explicit type matters: inferring it takes longer than a thousand lines.
    return pa.scalar(value, pa.utf8())


_FIRST = ROWS.names[0]


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def _csv_value(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        # https://owasp.org/www-community/attacks/CSV_Injection; tabs and line ends are escaped anyway.
        guard = "'" if value.lstrip(" ").startswith(_FORMULA) else ""
        return '"' + guard + printable(value).replace('"', '""') + '"'
    return str(value).lower() if isinstance(value, bool) else str(value)


_CSV = _Syntax(
    head=",".join(ROWS.names) + "\n",
    label=lambda name: "" if name == _FIRST else ",",
    value=_csv_value,
    end="\n",
)
_JSON = _Syntax(
    head="",
    label=lambda name: f'{{"type":"allocation","{name}":' if name == _FIRST else f',"{name}":',
    value=json_text,
    end="}\n",
)
