# SPDX-License-Identifier: MIT
"""Joins small batches: a quiet recording has thousands of batches with a few rows each."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

_ROWS = 1 << 16


def rebatched(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield the rows of batches, in order, as tables large enough to be grouped quickly.

    Args:
        batches: rows of a trace; each batch has its own dictionaries.

    Returns:
        Tables in which a dictionary column has one dictionary.
    """
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= _ROWS:
            yield pa.Table.from_batches(waiting).unify_dictionaries()
            waiting, rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting).unify_dictionaries()
