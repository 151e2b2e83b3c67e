# SPDX-License-Identifier: MIT
"""Adds traces to a dataset: `fleet add`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kalloctrace.errors import KalloctraceError
from kalloctrace.fleet.dataset import Dataset, writing
from kalloctrace.fleet.tables import FLEET_TABLES, PARTITIONED, SHARED, key_of
from kalloctrace.fleet.trace_rows import MOST_ROWS, TraceRows, file_key, recording_id, rows_of, table_of
from kalloctrace.trace.pseudonyms import Pseudonyms, new_key
from kalloctrace.trace.reader import TraceReader


@dataclass
class Added:
    """What became of the traces.

    Attributes:
        added: recordings that were not there before.
        replaced: recordings of which a shorter version was there.
        unchanged: recordings that were there already.
        refused: what is wrong with each file that is not in the dataset.
        calls: those of the first two.
    """

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    refused: list[KalloctraceError] = field(default_factory=list)
    calls: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return {
            "type": "fleet_add",
            "added": self.added,
            "replaced": self.replaced,
            "unchanged": self.unchanged,
            "refused": [{"what": error.what, "why": error.why, "fix": error.fix} for error in self.refused],
            "calls": self.calls,
        }


class Adding:
    """Adds traces to a dataset, commit by commit.

    Attributes:
        done: what became of the traces so far.

    Args:
        dataset: where to.
        host: the name of the host of all traces; None for the name that each has.
        hidden: what is stored in place of names; None to store them.
    """

    def __init__(self, dataset: Dataset, *, host: str | None = None, hidden: Pseudonyms | None = None) -> None:
        self.done = Added()
        self._dataset = dataset
        self._host = host
        self._hidden = hidden
        self._extents = dataset.extents()
        self._files = dataset.files_added()
        self._known = {
            "machines": dataset.keys("machines", "machine_key"),
            "requests": dataset.keys("requests", "request_key"),
        }
        self._pending: dict[str, TraceRows] = {}
        self._rows = 0

    def is_there(self, trace: TraceReader) -> bool:
        """Return whether this very file was added before, without reading it; then it counts as unchanged."""
        there = (recording_id(trace), file_key(trace.path)) in self._files
        self.done.unchanged += there
        return there

    def read(self, trace: TraceReader) -> TraceRows:
        """Return what a trace becomes.

        Raises:
            KalloctraceError: it cannot be read.
        """
        return rows_of(trace, self._host, self._hidden)

    def add(self, read: TraceRows) -> None:
        """Add what was read; it counts after the next commit.

        Raises:
            KalloctraceError: a commit cannot be written.
        """
        name, extent = read.recording["recording_id"], read.recording["extent"]
        before = self._extents.get(name, -1)
        if extent <= before:
            self.done.unchanged += 1
            return
        if before < 0:
            self.done.added += 1
        elif name not in self._pending:
            self.done.replaced += 1
        else:
            self.done.calls -= self._pending[name].recording["calls"]
        self.done.calls += read.recording["calls"]
        self._extents[name] = extent
        self._pending[name] = read
        self._rows += sum(map(len, read.rows.values()))
        if self._rows > MOST_ROWS:
            self.commit()

    def commit(self) -> None:
        """Make everything count that was added since the last commit.

        Raises:
            KalloctraceError: it cannot be written; then none of it counts.
        """
        if not self._pending:
            return
        with writing(self._dataset) as files:
            tables: dict[tuple[str, str, str], list[pa.Table]] = defaultdict(list)
            for read in self._pending.values():
                key = key_of(read.recording["recording_id"], files.token)
                for table, rows in (*read.rows.items(), ("recordings", table_of("recordings", [read.recording]))):
                    place = (read.day, read.kernel) if table in PARTITIONED else ("", "")
                    keyed = self._new(table, rows) if table in SHARED else _keyed(table, rows, key)
                    tables[table, *place].append(keyed)
            for (table, day, kernel), parts in tables.items():
                files.write(table, pa.concat_tables(parts), day=day, kernel=kernel)
            files.commit()
        self._pending.clear()
        self._rows = 0

    def _new(self, table: str, rows: pa.Table) -> pa.Table:
        """Return the rows that are not there yet."""
        known, keys = self._known[table], rows.column(0).to_pylist()
        new = [index for index, key in enumerate(keys) if key not in known]
        known.update(keys)
        return rows.take(pa.array(new, pa.int64()))


def _keyed(table: str, rows: pa.Table, key: int) -> pa.Table:
    schema = FLEET_TABLES[table].remove_metadata()
    column = pa.array(np.full(len(rows), key, np.int64))
    return pa.table([column if f.name == "recording_key" else rows[f.name].cast(f.type) for f in schema], schema=schema)


def pseudonyms(dataset: Dataset) -> Pseudonyms:
    """Return pseudonyms that have the dataset's own key, so that equal names stay equal in it.

    The key is a file of the dataset that only its owner can read. Without it nobody can try names until one fits.

    Raises:
        KalloctraceError: the key cannot be written or read.
    """
    return Pseudonyms(dataset.secret(new_key))


def traces_of(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield files; of a folder those below it whose name ends in .arrows."""
    for path in paths:
        if path.is_dir():
            yield from sorted(found for found in path.rglob("*.arrows") if found.is_file())
        else:
            yield path
