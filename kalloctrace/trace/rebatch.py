# SPDX-License-Identifier: MIT
"""Small batches made larger: a quiet recording has thousands of some rows each."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

_ROWS = 1 << 16


def rebatched(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield the rows of batches as tables of a size that is quick to group, in order.

    Args:
        batches: a trace's rows; each batch has dictionaries of its own.

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
