# SPDX-License-Identifier: MIT
"""Makes the rows of the tables from a trace, batch by batch."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from kalloctrace.console import json_text
from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.flags.meanings import meaning
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.report.export.tables.columns import NAMES, TABLES, TEXTS
from kalloctrace.text import file_name
from kalloctrace.trace.containers import Containers, describe_group
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import KEYS
from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.trace.results import PAGE_SIZE, pages_of
from kalloctrace.trace.schema import ALLOCATION, CGROUP, TASK_COLUMNS, frames_of
from kalloctrace.trace.slow_split import PARTS
from kalloctrace.trace.slowpath import SLOW

Row: TypeAlias = Mapping[str, Any]

_GIVEN = [field.name for field in SLOW.field("given").type]
_OF_CALL = ("time", "cpu", "pid", "tid", "comm", "cgroup", "page", "duration", *PARTS, "complete", "after_last")
_EVENTS = {"direct_reclaims": "direct_reclaim", "compactions": "compaction", "oom_kills": "oom"}


class Texts:
    """The names of numbers in one kernel; each value is decoded once.

    Args:
        tables: of the recorded kernel.
    """

    def __init__(self, tables: FlagTables) -> None:
        self._known: dict[tuple[str, int], str | None] = {}
        zones = {index for _, index in tables.zone_type}
        self._of: Mapping[str, Callable[[int], str | None]] = {
            "gfp": lambda value: decode_gfp(value, tables).text,
            "alloc_flags": lambda value: decode_alloc(value, tables).text,
            "zone": lambda value: tables.zone_name(value) if value in zones else None,
            "migratetype": tables.migratetype_name,
        }

    def of(self, kind: str, value: int | None) -> str | None:
        """Return the text of a value; null for null."""
        if value is None:
            return None
        if (kind, value) not in self._known:
            self._known[kind, value] = self._of[kind](value)
        return self._known[kind, value]

    def column(self, kind: str, values: pa.Array) -> pa.DictionaryArray:
        """Return the texts of a column of numbers."""
        coded = values.dictionary_encode()
        texts = pa.array([self.of(kind, value) for value in coded.dictionary.to_pylist()], pa.utf8())
        return texts.take(coded.indices).dictionary_encode()


def request_columns(allocations: pa.StructArray, texts: Texts) -> Iterator[tuple[str, pa.Array]]:
    """Yield the columns of the table allocations that distinct allocations have: their fields, texts and bytes.

    Args:
        allocations: of type ALLOCATION.
        texts: the names of numbers.
    """
    schema = TABLES["allocations"]
    flat = allocations.flatten()
    for name, column in zip(KEYS, flat, strict=True):
        kind = schema.field(NAMES.get(name, name)).type
        yield NAMES.get(name, name), column.dictionary_encode() if pa.types.is_dictionary(kind) else column
        if name in TEXTS:
            text, kind_of_text = TEXTS[name]
            yield text, texts.column(kind_of_text, column)
    table = pa.Table.from_arrays(flat, names=KEYS)
    pages = pages_of(table).to_numpy().astype(np.int64)
    yield "bytes_each", pa.array(pages * PAGE_SIZE)


class Stacks:
    """The different stacks of a trace, numbered in the order in which they come."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def id_of(self, stack: str | None) -> int | None:
        """Return the number of a stack; null for null."""
        return None if stack is None else self._ids.setdefault(stack, len(self._ids))

    def column(self, stacks: pa.DictionaryArray) -> pa.Array:
        """Return the numbers of a column of stacks."""
        ids: pa.Array = pa.array(map(self.id_of, stacks.dictionary.to_pylist()), pa.int64()).take(stacks.indices)
        return ids

    def rows(self, entry: str) -> Iterator[Row]:
        """Yield the rows of the table.

        Args:
            entry: the page allocator's entry.
        """
        for stack, number in self._ids.items():
            frames = frames_of(stack)
            outward = frames[frames.index(entry) + 1 :] if entry in frames else []
            caller = outward[0] if outward else None
            yield {"stack_id": number, "folded": stack, "frames": frames, "caller": caller}


class Allocations:
    """Makes batches of the table allocations.

    Args:
        texts: the names of numbers.
        stacks: numbers the stacks.
        groups: gets the paths of control groups.
    """

    def __init__(self, texts: Texts, stacks: Stacks, groups: set[str]) -> None:
        self._texts = texts
        self._stacks = stacks
        self._groups = groups
        self._dictionary = pa.array([], ALLOCATION)
        self._columns: dict[str, pa.Array] = {}
        self._schema = TABLES["allocations"]

    def batch(self, rows: RowBatch) -> pa.RecordBatch:
        """Return rows as a batch."""
        if rows.allocations is not self._dictionary or not self._columns:
            self._dictionary = rows.allocations
            self._columns = dict(request_columns(rows.allocations, self._texts))
        size, indices = len(rows.indices), pa.array(rows.indices)
        counts = np.ones(size, np.uint64) if rows.counts is None else rows.counts
        columns = {name: column.take(indices) for name, column in self._columns.items()}
        columns[NAMES["count"]] = pa.array(counts)
        for field in (*TASK_COLUMNS, CGROUP):
            column = rows.task_columns.get(field.name)
            if column is not None and field.name == "stack":
                column = self._stacks.column(column)
            elif column is not None and field.name == CGROUP.name:
                self._groups.update(column.dictionary.to_pylist())
            kind = self._schema.field(NAMES.get(field.name, field.name)).type
            columns[NAMES.get(field.name, field.name)] = pa.nulls(size, kind) if column is None else column
        return pa.RecordBatch.from_arrays([columns[field.name] for field in self._schema], schema=self._schema)


class SlowCalls:
    """Makes rows of the tables slow_calls, attempts and zones.

    Args:
        texts: the names of numbers.
        stacks: numbers the stacks.
        groups: gets the paths of control groups.
    """

    def __init__(self, texts: Texts, stacks: Stacks, groups: set[str]) -> None:
        self._texts = texts
        self._stacks = stacks
        self._groups = groups
        self._next = 0

    def rows(self, call: Row) -> Iterator[tuple[str, Row]]:
        """Yield the rows of a call, each with the name of its table."""
        number, self._next = self._next, self._next + 1
        if call[CGROUP.name] is not None:
            self._groups.add(call[CGROUP.name])
        events = [event for attempt in call["attempts"] for event in attempt["between"]] + call["after_last"]
        yield (
            "slow_calls",
            {
                "slow_call_id": number,
                **self._named({name: call[name] for name in _OF_CALL}),
                **self._named({name: call["given"][name] for name in _GIVEN}),
                "stack_id": self._stacks.id_of(call["stack"]),
                "attempt_count": len(call["attempts"]),
                **{name: events.count(event) for name, event in _EVENTS.items()},
            },
        )
        for position, attempt in enumerate(call["attempts"], 1):
            yield "attempts", {"slow_call_id": number, "attempt_number": position, **self._named(attempt)}
        for zone in call["zones"]:
            yield "zones", {"slow_call_id": number, **self._named(zone)}

    def _named(self, values: Row) -> dict[str, Any]:
        """Return values under the names of their columns, with the texts of numbers."""
        named = {}
        for name, value in values.items():
            named[NAMES.get(name, name)] = value
            if name in TEXTS:
                text, kind = TEXTS[name]
                named[text] = self._texts.of(kind, value)
        return named


def flag_rows(tables: FlagTables) -> Iterator[Row]:
    """Yield the rows of the table flags."""
    bits = dict(tables.gfp_bits)
    kinds = {
        "gfp": {**bits, **dict(tables.gfp_print)},
        "alloc_flags": dict(tables.alloc),
        "task_flags": dict(tables.pf),
        "migratetype": dict(tables.migratetype),
        "zone": {tables.zone_name(index): index for _, index in tables.zone_type},
    }
    for kind, names in kinds.items():
        for name, value in names.items():
            about = meaning(name) or None
            yield {"flag_kind": kind, "flag_name": name, "flag_value": value, "meaning": about}


def group_rows(groups: set[str], containers: Containers) -> Iterator[Row]:
    """Yield the rows of the table cgroups.

    Args:
        groups: the paths of control groups.
        containers: the names of containers that were recorded.
    """
    for path in sorted(groups):
        yield describe_group(path, containers)


def recording_row(trace: TraceReader, ending: Ending) -> Row:
    """Return the row of the table recording.

    Args:
        trace: the trace.
        ending: how it ends.
    """
    totals, snapshot = ending.totals, trace.snapshot
    return {
        "trace": file_name(trace.path),
        "kernel_release": snapshot.release,
        "kernel_version": snapshot.version,
        "recorded_as": "aggregate" if trace.aggregate else "stream",
        "started_at": trace.recording.get("started"),
        "duration_ns": None if totals is None else round(totals.seconds * 1e9),
        "sampled_every": trace.sample,
        "truncated": ending.truncated,
        "damage": ending.damage or ending.slow_damage or None,
        "lost_calls": None if totals is None else totals.lost,
        "missed_hits": None if totals is None else totals.missed,
        "lost_slow_events": None if totals is None else totals.slow_lost + totals.slow_missed,
        "snapshot_json": snapshot_text(snapshot),
        "recording_json": json_text(trace.recording),
    }


def snapshot_text(snapshot: Snapshot) -> str:
    """Return a kernel and machine as JSON text."""
    return json_text(snapshot.to_json())
