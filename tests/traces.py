# SPDX-License-Identifier: MIT
"""Traces for tests: of calls that a real kernel prepared, in any layout."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.trace.containers import Containers
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import ALLOCATION, COLUMNS
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import TraceWriter

RECORDED = Path(__file__).parents[1] / "fixtures" / "5.10" / "two-nodes.arrows"
UNDER_PRESSURE = RECORDED.parents[1] / "7.3" / "slow.arrows"
Row = dict[str, Any]


@cache
def source() -> tuple[Snapshot, Totals, Row]:
    """Return the kernel and the totals of a recording, and a call of it that got its page at once."""
    with TraceReader(RECORDED) as trace:
        row = next(
            row for batch in trace.batches() for row in batch.to_pylist() if row["freelist_calls"] and row["page"]
        )
        totals = trace.ending().totals
        assert totals is not None
        return trace.snapshot, totals, row


def stream(
    path: Path,
    *changes: Mapping[str, Any],
    recording: Mapping[str, Any] | None = None,
    containers: Containers | None = None,
) -> Path:
    """Write a stream with one call for each set of changed columns."""
    snapshot, totals, row = source()
    with TraceWriter(path, snapshot, {"mode": "stream", **(recording or {})}) as writer:
        writer.write(pa.RecordBatch.from_pylist([{**row, **change} for change in changes], schema=COLUMNS))
        if containers is not None:
            writer.write_containers(containers)
        writer.close(replace(totals, opened=len(changes), submitted=len(changes)))
    return path


@cache
def slow_calls() -> tuple[Row, ...]:
    """Return the calls of the slow path of a recording under pressure."""
    with TraceReader(UNDER_PRESSURE) as trace:
        return tuple(trace.slow_calls())


def slow(path: Path, *calls: Mapping[str, Any], lost: int = 0) -> Path:
    """Write a stream of the kernel under pressure, with one row and these calls of the slow path."""
    with TraceReader(UNDER_PRESSURE) as trace:
        row = next(row for batch in trace.batches() for row in batch.to_pylist())
        snapshot, totals = trace.snapshot, trace.ending().totals
    assert totals is not None
    who = {"time": 1, "cpu": 0, "pid": 1, "tid": 1, "comm": "a"}
    with TraceWriter(path, snapshot, {"mode": "stream", "slow": True}) as writer:
        writer.write(pa.RecordBatch.from_pylist([{**row, **who}], COLUMNS))
        if calls:
            writer.write_slow(calls)
        writer.close(replace(totals, opened=1, submitted=1, slow=len(calls), slow_lost=lost))
    return path


def varied(path: Path, number: int) -> Path:
    """Write a stream of that many distinct allocations: those of the recording, and again with more attempts each."""
    snapshot, totals, call = source()
    with TraceReader(RECORDED) as trace:
        recorded = [{**call, **row} for row, _ in trace.counted() if row["freelist_calls"]]
    row = np.arange(number)
    changed = {
        "freelist_calls": 1 + row // len(recorded),
        "time": call["time"] + 100_000 * row,
        "comm": [f"task-{i % 50}" for i in row],
        "stack": [f"outermost;caller_{i % 7};caller_{i % 500};{snapshot.features.entry}" for i in row],
    }
    batch = pa.RecordBatch.from_pylist(recorded, COLUMNS).take(pa.array(row % len(recorded)))
    columns = [
        pa.array(changed[field.name], field.type) if field.name in changed else batch[field.name] for field in COLUMNS
    ]
    with TraceWriter(path, snapshot, {"mode": "stream", "stacks": True}) as writer:
        writer.write(pa.RecordBatch.from_arrays(columns, schema=COLUMNS))
        writer.close(replace(totals, opened=number, submitted=number))
    return path


def aggregate(path: Path, *counted: tuple[Mapping[str, Any], int], recording: Mapping[str, Any] | None = None) -> Path:
    """Write an aggregate with a count for each set of changed columns.

    Args:
        path: the file.
        counted: columns and their count; also the column that `recording["by"]` names.
        recording: how the trace was made.
    """
    snapshot, totals, row = source()
    calls = sum(count for _, count in counted)
    how = {"mode": "aggregate", **(recording or {})}
    by = None if how.get("by") is None else pa.array([change[how["by"]] for change, _ in counted]).dictionary_encode()
    with TraceWriter(path, snapshot, how) as writer:
        rows = [{field.name: {**row, **change}[field.name] for field in ALLOCATION} for change, _ in counted]
        first = writer.add(pa.array(rows, ALLOCATION))
        counts = np.array([count for _, count in counted], np.uint64)
        writer.write_aggregate(counts, np.arange(first, first + len(counted), dtype=np.int32), by)
        writer.close(replace(totals, opened=calls, submitted=calls))
    return path
