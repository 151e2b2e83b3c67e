# SPDX-License-Identifier: MIT
"""Groups a trace's rows by everything that decides or shows their preparation."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from kalloctrace.trace.gather import gathered
from kalloctrace.trace.schema import BULK, CONTEXT, OBSERVED, REQUEST

KEYS = [field.name for field in (*REQUEST, *CONTEXT, *OBSERVED, *BULK)]
_COUNT = "count"
_MERGE_ROWS = 1 << 18
"""Grouped rows to gather before they are grouped again: keeps memory flat however long the trace is."""


def distinct_rows(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each distinct combination of request, context and observation, with how often it occurred.

    Args:
        batches: a trace's rows.

    Returns:
        Mappings from column to Python value, and counts of at least 1.
    """
    groups: list[pa.Table] = []
    for table in gathered(batches):
        groups.append(_plain(_group(table.select(KEYS).append_column(_COUNT, _ones(table)))))
        if sum(group.num_rows for group in groups) > _MERGE_ROWS:
            groups = [_group(pa.concat_tables(groups))]
    if groups:
        for row in _group(pa.concat_tables(groups)).to_pylist():
            yield row, row.pop(_COUNT)


def _ones(table: pa.Table) -> pa.Array:
    return pa.repeat(pa.scalar(1, pa.int64()), table.num_rows)


def _group(table: pa.Table) -> pa.Table:
    grouped = table.group_by(KEYS, use_threads=False).aggregate([(_COUNT, "sum")])
    return grouped.rename_columns([_COUNT if name == f"{_COUNT}_sum" else name for name in grouped.column_names])


def _plain(table: pa.Table) -> pa.Table:
    """Replace dictionaries, which differ from table to table, by their texts; grouped tables are small."""
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(field.type.value_type))
    return table
