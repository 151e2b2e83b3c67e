# SPDX-License-Identifier: MIT
"""What a trace becomes in a dataset: the rows of each table, and the row of its recording."""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.console import json_text
from kalloctrace.fleet.circumstances import circumstances_json, facts_json, machine_kind
from kalloctrace.fleet.tables import FLEET_TABLES, key_of, keys_of
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
from kalloctrace.trace.pseudonyms import Pseudonyms
from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.trace.schema import ALLOCATION
from kalloctrace.verify.verification import Judge, Shown

Rename = Callable[[str], str]
"""Returns what is stored in place of a name."""
Row = dict[str, Any]

_UNKNOWN = "?"
_HOUR_SECONDS = 3600
_HOUR_NS = _HOUR_SECONDS * 10**9
MOST_ROWS = 1 << 20
"""Rows that are kept in memory, about."""
_END_BYTES = 1 << 16
"""Bytes of the beginning and of the end of a file that tell it apart from an older version."""
_GROUPED = ["request_key", "comm", "cgroup", "hour"]


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
        if self._rows > MOST_ROWS:
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


def rows_of(trace: TraceReader, host: str | None, hidden: Pseudonyms | None) -> TraceRows:
    """Return what a trace becomes.

    Args:
        trace: at its beginning.
        host: the name of its host; None for the name that it has.
        hidden: what is stored in place of names; None to store them.

    Raises:
        KalloctraceError: it cannot be read.
    """
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
            "machines": table_of("machines", [machine]),
            "requests": _cast("requests", requests),
            "allocations": counted,
            **{name: table_of(name, slow[name]) for name in ("slow_calls", "attempts", "zones")},
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
        "build_id": trace.recording.get("build_id"),
        "recording_day": _day(trace),
        "calls": calls,
        "slow_call_count": slow,
        "follows_slow_path": bool(trace.recording.get("slow")),
        "missing_rows": None if totals is None else max(0, totals.submitted - calls),
        "circumstances_key": key_of(circumstances),
        "circumstances_json": circumstances,
    }


def table_of(name: str, rows: list[Row]) -> pa.Table:
    """Return rows of a table, without the recording's key."""
    schema = FLEET_TABLES[name].remove_metadata()
    keyless = pa.schema([f for f in schema if f.name != "recording_key"])
    return pa.Table.from_pylist(rows, keyless)


def _cast(name: str, columns: Mapping[str, pa.Array]) -> pa.Table:
    schema = FLEET_TABLES[name].remove_metadata()
    plain = {n: c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for n, c in columns.items()}
    return pa.table([plain[f.name].cast(f.type) for f in schema], schema=schema)
