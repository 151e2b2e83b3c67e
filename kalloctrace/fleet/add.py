# SPDX-License-Identifier: MIT
"""Adds traces to a dataset: `fleet add`."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.console import json_text
from kalloctrace.errors import KalloctraceError
from kalloctrace.fleet.circumstances import circumstances_json, facts_json, machine_kind
from kalloctrace.fleet.dataset import Dataset, writing
from kalloctrace.fleet.tables import FLEET_TABLES, PARTITIONED, SHARED, key_of, keys_of
from kalloctrace.model.kernel import Kernel
from kalloctrace.report.export.tables.rows import (
    SlowCalls,
    Stacks,
    Texts,
    recording_row,
    request_columns,
    snapshot_text,
)
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import begins_with, digests, python_rows, refuse_more
from kalloctrace.trace.inferred import inferred_of
from kalloctrace.trace.pseudonyms import Pseudonyms, new_key
from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.trace.schema import ALLOCATION
from kalloctrace.verify.verification import Judge, Shown

Rename = Callable[[str], str]
"""Returns what is stored in place of a name."""
Row = dict[str, Any]

_UNKNOWN = "?"
_HOUR_SECONDS = 3600
_HOUR_NS = _HOUR_SECONDS * 10**9
_COMMIT_ROWS = 1 << 20
"""Rows of one commit, about: so many are kept in memory, and lost if the program is killed."""
_END_BYTES = 1 << 16
"""Bytes of the beginning and of the end of a file that tell it apart from an older version."""
_GROUPED = ["request_key", "comm", "cgroup", "hour"]


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


def recording_id(trace: TraceReader) -> str:
    """Return what names a recording: its own id, or a hash of how it was made.

    An older recording has no id: its start, command and machine stand for it. What another tool recorded has no start
    either; then all bytes of the file do, so that no longer version of it can be found.
    """
    own = trace.recording.get("id")
    if isinstance(own, str) and own:
        return own
    parts = [snapshot_text(trace.snapshot), json_text(trace.recording)]
    if "started" not in trace.recording:
        with trace.path.open("rb") as file:
            parts.append(file_digest(file, "blake2b").hexdigest())
    return blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=16).hexdigest()


def file_key(path: Path) -> int | None:
    """Return a hash of a file's size, beginning and end: a trace only grows, and its end has the totals.

    Returns:
        None if it is no plain file.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        begin = file.read(_END_BYTES)
        file.seek(max(0, size - _END_BYTES))
        return key_of(str(size), begin, file.read(_END_BYTES))


class _Keys:
    """The keys of the allocations of a trace that occur, whose dictionaries grow or change."""

    def __init__(self, tables: str) -> None:
        self._tables = tables
        self._dictionary = pa.array([], ALLOCATION)
        self._values: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._requests: dict[int, tuple[pa.StructArray, int]] = {}

    def of(self, rows: RowBatch) -> npt.NDArray[np.int64]:
        """Return the keys of rows."""
        self._use(rows.allocations)
        used = np.unique(rows.indices)
        new = used[self._values[used] < 0]
        if len(new):
            part = self._dictionary.take(pa.array(new))
            keys = list(keys_of([self._tables], digests(part)))
            for index, key in enumerate(keys):
                self._requests.setdefault(key, (part, index))
            refuse_more(len(self._requests))
            self._values[new] = keys
        return self._values[rows.indices]

    def _use(self, allocations: pa.StructArray) -> None:
        """Take the dictionary of a batch; what was known of its beginning stays."""
        if allocations is self._dictionary:
            return
        have = len(self._dictionary) if begins_with(allocations, self._dictionary) else 0
        unknown = np.full(len(allocations) - have, -1, np.int64)
        self._values = np.concatenate([self._values[:have], unknown])
        self._dictionary = allocations

    def allocations(self) -> tuple[list[int], pa.StructArray]:
        """Return the keys of the allocations that occurred, and these."""
        by_part: dict[int, tuple[pa.StructArray, list[int], list[int]]] = {}
        for key, (part, index) in sorted(self._requests.items(), key=lambda item: item[0]):
            _, keys, indices = by_part.setdefault(id(part), (part, [], []))
            keys.append(key)
            indices.append(index)
        keys = [key for _, some, _ in by_part.values() for key in some]
        parts = [part.take(pa.array(indices, pa.int64())) for part, _, indices in by_part.values()]
        return keys, pa.concat_arrays(parts) if parts else pa.array([], ALLOCATION)


class _Calls:
    """The calls of a trace by request, task, control group and hour."""

    def __init__(self, trace: TraceReader, keys: _Keys, rename: Rename) -> None:
        self._keys = keys
        self._rename = rename
        self._parts: list[pa.Table] = []
        self._rows = 0
        started = _started(trace)
        # Any year that a clock may show, in whole hours: in nanoseconds most do not fit into 64 bits.
        self._start = None if started is None else divmod(int(started.timestamp()), _HOUR_SECONDS)
        clock = trace.recording.get("started_monotonic")
        self._clock = round(clock * 1e9) if isinstance(clock, int | float) else None
        self._only_hour = None if self._start is None else _only_hour(trace, *self._start)

    def add(self, rows: RowBatch) -> None:
        """Count rows."""
        counts = np.ones(len(rows.indices), np.int64) if rows.counts is None else rows.counts.astype(np.int64)
        columns = [
            self._keys.of(rows),
            self._names(rows, "comm"),
            self._names(rows, "cgroup"),
            self._hours(rows),
            counts,
        ]
        self._parts.append(pa.table([pa.array(column) for column in columns], [*_GROUPED, "calls"]))
        self._rows += len(counts)
        if self._rows > _COMMIT_ROWS:
            self._parts = [self.table()]
            self._rows = len(self._parts[0])

    def table(self) -> pa.Table:
        """Return the rows of the table allocations, without the recording's key."""
        schema = pa.schema([FLEET_TABLES["allocations"].field(name) for name in (*_GROUPED, "calls")]).remove_metadata()
        whole = pa.concat_tables([schema.empty_table(), *(part.cast(schema) for part in self._parts)])
        grouped = whole.group_by(_GROUPED, use_threads=False).aggregate([("calls", "sum")])
        return grouped.select([*_GROUPED, "calls_sum"]).rename_columns([*_GROUPED, "calls"])

    def _names(self, rows: RowBatch, name: str) -> pa.Array:
        column = rows.task_columns.get(name)
        if column is None:
            return pa.nulls(len(rows.indices), pa.utf8())
        names = [None if value is None else self._rename(value) for value in column.dictionary.to_pylist()]
        return pa.array(names, pa.utf8()).take(column.indices)

    def _hours(self, rows: RowBatch) -> pa.Array:
        times = rows.task_columns.get("time")
        if self._start is None:
            return pa.nulls(len(rows.indices), pa.int64())
        hour, seconds = self._start
        if times is None:
            return pa.array(np.full(len(rows.indices), hour, np.int64))
        if self._clock is None:
            return pa.array([self._only_hour] * len(rows.indices), pa.int64())
        values = times.to_numpy().astype(np.int64)
        return pa.array(hour + (seconds * 10**9 + values - self._clock) // _HOUR_NS)


def _same(name: str) -> str:
    return name


@dataclass
class TraceRows:
    """What a trace becomes.

    Attributes:
        day: of its start.
        kernel: its kernel's release.
        rows: by table.
        recording: its row of the table recordings, without keys of its own.
    """

    day: str
    kernel: str
    rows: dict[str, pa.Table]
    recording: Row


def _only_hour(trace: TraceReader, hour: int, seconds: int) -> int | None:
    """Return the hour in which a whole recording was made; None if it is not known that it was made in one.

    Older recorders did not write at which CLOCK_MONOTONIC they began, so that the times of calls are not known in UTC.

    Args:
        trace: the recording.
        hour: of its start.
        seconds: of its start, after that hour.
    """
    totals = trace.ending().totals
    return hour if totals is not None and seconds + totals.seconds < _HOUR_SECONDS else None


def _started(trace: TraceReader) -> datetime | None:
    try:
        started = datetime.fromisoformat(str(trace.recording.get("started")))
    except ValueError:
        return None
    return started if started.tzinfo is not None else started.replace(tzinfo=UTC)


def _day(trace: TraceReader) -> str:
    try:
        started = _started(trace)
        return "unknown" if started is None else started.astimezone(UTC).date().isoformat()
    except OverflowError:
        return "unknown"


def _read(trace: TraceReader, host: str | None, hidden: Pseudonyms | None) -> TraceRows:
    # Before it is read, as it may grow meanwhile.
    file = file_key(trace.path)
    rename = _same if hidden is None else hidden.of
    snapshot = trace.snapshot
    texts, stacks, groups = Texts(snapshot.tables), Stacks(), set[str]()
    keys = _Keys(json_text(snapshot.tables.to_json()))
    calls, slow_calls = _Calls(trace, keys, rename), SlowCalls(texts, stacks, groups)
    slow: dict[str, list[Row]] = defaultdict(list)

    def add_slow(call: Mapping[str, Any]) -> None:
        for table, row in slow_calls.rows(call):
            slow[table].append(dict(row))

    ending = trace.read(calls.add, add_slow)
    used, allocations = keys.allocations()
    counted = calls.table()
    callers = {row["stack_id"]: row["caller"] for row in stacks.rows(snapshot.features.entry)}
    for row in slow["slow_calls"]:
        row["caller"] = callers.get(row.pop("stack_id"))
        for name in ("comm", "cgroup"):
            row[name] = None if row[name] is None else rename(row[name])
    facts = facts_json(snapshot)
    machine = {
        "machine_key": key_of(json_text({**snapshot.to_json(), "evidence": {}})),
        "facts_key": key_of(facts),
        "kernel_release": snapshot.release,
        "kernel_version": snapshot.version,
        "machine_kind": machine_kind(snapshot),
        "snapshot_json": snapshot_text(snapshot),
    }
    judge = Judge.of(Kernel.of(snapshot), Shown(python_rows(allocations)), ending.totals, inferred_of(trace.recording))
    recording = _recording(trace, ending, judge, calls=sum(counted["calls"].to_pylist()), slow=len(slow["slow_calls"]))
    recording |= {"file_key": file, "machine_key": machine["machine_key"], "facts_key": machine["facts_key"]}
    named = host if host is not None else trace.recording.get("host")
    recording["host"] = rename(named) if isinstance(named, str) else _UNKNOWN
    if hidden is not None:
        recording["trace"] = rename(recording["trace"])
        recording["recording_json"] = json_text(hidden.recording(trace.recording))
    requests = {"request_key": pa.array(used, pa.int64()), **dict(request_columns(allocations, texts))}
    return TraceRows(
        recording["recording_day"],
        snapshot.release,
        {
            "machines": _table("machines", [machine]),
            "requests": _cast("requests", requests),
            "allocations": counted,
            **{name: _table(name, slow[name]) for name in ("slow_calls", "attempts", "zones")},
        },
        recording,
    )


def _recording(trace: TraceReader, ending: Ending, judge: Judge, *, calls: int, slow: int) -> Row:
    row = dict(recording_row(trace, ending))
    del row["snapshot_json"]
    circumstances = circumstances_json(judge)
    totals = ending.totals
    return row | {
        "recording_id": recording_id(trace),
        "extent": 2 * (calls + slow) + (not ending.truncated),
        "recording_day": _day(trace),
        "calls": calls,
        "slow_call_count": slow,
        "follows_slow_path": bool(trace.recording.get("slow")),
        "missing_rows": None if totals is None else max(0, totals.submitted - calls),
        "circumstances_key": key_of(circumstances),
        "circumstances_json": circumstances,
    }


def _table(name: str, rows: list[Row]) -> pa.Table:
    schema = FLEET_TABLES[name].remove_metadata()
    keyless = pa.schema([f for f in schema if f.name != "recording_key"])
    return pa.Table.from_pylist(rows, keyless)


def _cast(name: str, columns: Mapping[str, pa.Array]) -> pa.Table:
    schema = FLEET_TABLES[name].remove_metadata()
    plain = {n: c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for n, c in columns.items()}
    return pa.table([plain[f.name].cast(f.type) for f in schema], schema=schema)


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
        return _read(trace, self._host, self._hidden)

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
        if self._rows > _COMMIT_ROWS:
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
                for table, rows in (*read.rows.items(), ("recordings", _table("recordings", [read.recording]))):
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
