# SPDX-License-Identifier: MIT
"""Merges the small files of a dataset: `fleet compact`."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalloctrace.fleet.dataset import DataFile, Dataset, writing
from kalloctrace.fleet.tables import JUDGED, SHARED, key_of


@dataclass(frozen=True)
class Compacted:
    """What was done.

    Attributes:
        before: files that counted before.
        after: files that count now.
        removed: files that were removed; None if somebody is using the dataset, so that they stay for the next time.
    """

    before: int
    after: int
    removed: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return {"type": "fleet_compact", "before": self.before, "after": self.after, "removed": self.removed}


def compact(path: Path | str) -> Compacted:
    """Write one file for each table, day and kernel, without what does not count, and remove the old ones.

    Others may add meanwhile. Recordings get new keys, so that two who compact at once count nothing twice.

    Args:
        path: the dataset's folder.

    Raises:
        KalloctraceError: it is no dataset, or a file cannot be read or written.
    """
    with Dataset.opened(path) as dataset:
        before = sum(1 for _ in dataset.files())
        if len(dataset.commits) > 1 or dataset.stale:
            _merge(dataset)
    removed = dataset.remove_unused()
    dataset.read()
    return Compacted(before, sum(1 for _ in dataset.files()), removed)


def _merge(dataset: Dataset) -> None:
    groups: dict[tuple[str, str], list[DataFile]] = defaultdict(list)
    for data in dataset.files():
        groups[data.table, data.path.rpartition("/")[0]].append(data)
    ids = dataset.table("recordings", ["recording_key", "recording_id"])
    names = dict(zip(ids["recording_key"].to_pylist(), ids["recording_id"].to_pylist(), strict=True))
    with writing(dataset) as files:
        for (table, folder), parts in groups.items():
            rows = dataset.read_files(table, parts)
            if table in SHARED:
                rows = _first_of(rows, rows.column_names[:1])
            elif table in JUDGED:
                rows = _first_of(rows, rows.column_names)
            else:
                rows = _renewed(rows, names, dataset.stale, files.token)
            files.write_into(table, folder, rows)
        files.commit(replaces=[commit.name for commit in dataset.commits])


def _first_of(rows: pa.Table, columns: list[str]) -> pa.Table:
    """Return the first of the rows that are equal in these columns."""
    numbered = rows.append_column("row", pa.array(np.arange(len(rows))))
    first = numbered.group_by(columns, use_threads=False).aggregate([("row", "min")])["row_min"]
    return rows.take(first)


def _renewed(rows: pa.Table, names: dict[int, str], stale: frozenset[int], token: str) -> pa.Table:
    """Return the rows of recordings that count, with new keys."""
    if stale:
        rows = rows.filter(pc.invert(pc.is_in(rows["recording_key"], pa.array(sorted(stale), pa.int64()))))
    coded = rows["recording_key"].combine_chunks().dictionary_encode()
    keys = [key_of(names[key], token) for key in coded.dictionary.to_pylist()]
    at = rows.schema.get_field_index("recording_key")
    return rows.set_column(at, "recording_key", pa.array(keys, pa.int64()).take(coded.indices))
