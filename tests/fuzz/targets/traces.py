# SPDX-License-Identifier: MIT
"""A trace, its snapshot, and the calls of the slow path inside it.

The first byte of an input says whether the rest is the foreign bytes themselves, or choices that change a well-formed
fixture; the latter reach what lies behind the checks of the format.
"""

import base64
import contextlib
import io
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pyarrow as pa

from kalloctrace.console import Console
from kalloctrace.diagnose.slow_calls import SlowCallDescriber, grouped, slow_call_json
from kalloctrace.diagnose.slow_calls_text import write_slow_calls
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.kernel import Kernel
from kalloctrace.report.export.perfetto import write_perfetto
from kalloctrace.report.export.rows import write_rows
from kalloctrace.report.export.stacks import stacks_of, write_folded
from kalloctrace.report.summary import summarize
from kalloctrace.report.summary_text import write_summary
from kalloctrace.trace.clock import Clock
from kalloctrace.trace.inferred import INFERRED, NOTHING_INFERRED
from kalloctrace.trace.metadata import snapshot_of
from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.trace.schema import (
    COLUMNS,
    FORMAT_KEY,
    RECORDING_KEY,
    SNAPSHOT_KEY,
    STREAM,
    TASK_COLUMNS,
    TOTALS_KEY,
)
from kalloctrace.trace.slowpath import SLOW, SLOW_KEY
from kalloctrace.trace.slowpath_reader import decode_slow_calls
from kalloctrace.verify.slowpath.trace import SlowJudge, SlowVerification, verify_slow_call
from kalloctrace.verify.verification import Judge, Shown, verify_trace
from kalloctrace.verify.zonelists import verify_zonelists
from tests import traces
from tests.fuzz.choices import Choices, change, flip
from tests.fuzz.surface import MemoryFile, answers, surface

_FILE = MemoryFile()
_ROWS = 3
Row = dict[str, Any]


def _console() -> Console:
    """Return a console that nobody reads; it must be able to encode each text all the same."""
    return Console(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))


def _length(call: Mapping[str, Any]) -> int:
    return len(repr(call))


@cache
def _fixture() -> tuple[Snapshot, pa.RecordBatch, tuple[Row, ...], bytes]:
    """Return a snapshot, some rows of its trace, calls of the slow path, and the JSON of the totals."""
    with TraceReader(traces.UNDER_PRESSURE) as trace:
        reader = pa.ipc.open_stream(traces.UNDER_PRESSURE.read_bytes())
        batch = next(batch for batch in reader if batch.num_rows)
        totals = trace.ending().totals
        calls = sorted((call for call in traces.slow_calls() if len(call["attempts"]) > 1), key=_length)[:2]
    assert totals is not None
    allocation = batch["allocation"]
    few = allocation.dictionary_decode().take(pa.array(range(_ROWS)))
    indices = pa.DictionaryArray.from_arrays(pa.array(range(_ROWS), pa.int32()), few)
    rows = pa.RecordBatch.from_arrays([batch["count"].slice(0, _ROWS), indices], schema=batch.schema)
    return trace.snapshot, rows, tuple(map(dict, calls)), json.dumps(totals.to_json()).encode()


def _json(data: Any, choices: Choices) -> bytes:  # noqa: ANN401
    for _ in range(1 + choices.below(3)):
        data = change(data, choices)
    return json.dumps(data).encode()


@surface(max_len=1 << 14, covers=("kernel/snapshot.py", "kernel/shapes.py", "kernel/machine.py", "verify/zonelists.py"))
def fuzz_snapshots(data: bytes) -> None:
    """A snapshot is damaged, or the model and the texts can work with it."""
    _, rows, calls, _ = _fixture()
    choices = Choices(data)
    raw = choices.below(2)
    try:
        changed = snapshot_of(choices.rest() if raw else _json(_snapshot_json(), choices))
    except ValueError:
        return
    assert Snapshot.from_json(json.loads(json.dumps(changed.to_json()))) == changed
    verify_zonelists(changed)
    kernel = Kernel.of(changed)
    for inferred in (NOTHING_INFERRED, frozenset(INFERRED)):
        verdicts = Judge.of(kernel, Shown(rows["allocation"].dictionary.to_pylist()), None, inferred)
        for row in rows["allocation"].dictionary.to_pylist():
            verdicts(row)
    _slow(changed, calls[0])


@cache
def _snapshot_json() -> Row:
    return _fixture()[0].to_json()


@cache
def _snapshot_text() -> bytes:
    return json.dumps(_snapshot_json()).encode()


@surface(max_len=1 << 14, covers=("trace/slowpath.py", "trace/checks.py", "trace/messages.py"))
def fuzz_slow(data: bytes) -> None:
    """The calls of a batch are damaged, or each can be judged and told."""
    choices = Choices(data)
    payload = choices.rest() if choices.below(2) else _payload(choices)
    if payload is None:
        return
    try:
        calls = decode_slow_calls(base64.b64encode(payload))
    except ValueError:
        return
    for call in calls[:3]:
        # Most inputs leave a call as it was, and judging it takes longer than all that is before.
        text = hash(repr(call))
        if text not in _JUDGED:
            _JUDGED.add(text)
            _slow(_fixture()[0], call)


_JUDGED: set[int] = set()
"""The calls of the slow path that were judged, as hashes."""


def _slow(snapshot: Snapshot, call: Mapping[str, Any]) -> None:
    kernel = Kernel.of(snapshot)
    slow_judge = SlowJudge(snapshot, kernel)
    verify_slow_call(SlowVerification(), slow_judge, call)
    report = SlowCallDescriber(snapshot, kernel, slow_judge).describe(call)
    json.dumps(slow_call_json(report), allow_nan=False)


@cache
def _slow_table() -> pa.Table:
    return pa.Table.from_pylist(list(_fixture()[2]), SLOW)


def _payload(choices: Choices) -> bytes | None:
    """Return calls as a stream, with other values, columns, types or bytes; None where pyarrow makes no such table."""
    real: Any = _fixture()[2]
    calls = real
    while choices.below(3) == 1:
        calls = change(list(calls) if calls is real else calls, choices)
    with contextlib.suppress(pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError):
        table = _slow_table() if calls is real else pa.Table.from_pylist(calls, SLOW)
        while choices.below(4) == 1:
            table = _other_columns(table, choices)
        return flip(_stream(table, choices), choices)
    return None


def _other_columns(table: pa.Table, choices: Choices) -> pa.Table:
    if not table.num_columns:
        return table
    at, other = choices.below(table.num_columns), choices.below(table.num_columns)
    match choices.below(5):
        case 0:
            return table.remove_column(at)
        case 1:
            return table.append_column(table.field(other).name, table.column(at))
        case 2:
            return table.set_column(at, table.field(at).name, table.column(other))
        case 3:
            kind = choices.of((pa.int64(), pa.utf8(), pa.float64(), pa.binary(), pa.null(), pa.large_utf8()))
            return table.set_column(at, table.field(at).name, table.column(at).cast(kind))
        case _:
            kind = choices.of((pa.int64(), pa.utf8(), pa.timestamp("ns"), pa.decimal128(9), pa.list_(pa.int8())))
            return table.append_column("added", pa.nulls(table.num_rows, kind))


def _stream(table: pa.Table, choices: Choices, metadata: Mapping[bytes, bytes] | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    # Compression is rare, because it takes longer than all other parts.
    options = pa.ipc.IpcWriteOptions(
        compression={1: "zstd", 2: "lz4"}.get(choices.below(16)), emit_dictionary_deltas=True, use_threads=False
    )
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch, custom_metadata=metadata)
    return bytes(sink.getvalue())


@surface(
    max_len=1 << 15, covers=("trace/reader.py", "trace/decode.py", "trace/checks.py", "trace/messages.py"), seconds=5
)
def fuzz_traces(data: bytes) -> None:
    """A trace is refused or read, up to where it is damaged; whoever reads it gets the same rows."""
    choices = Choices(data)
    trace = choices.rest() if choices.below(2) else _trace(choices)
    if trace is None:
        return
    path = _FILE.fill(trace)
    with answers(), TraceReader(path) as reader:
        _read(reader, choices)


def _read(reader: TraceReader, choices: Choices) -> None:
    counted = reader.counted()
    total = sum(count for _, count in counted)
    ending = counted.finish()
    # What a program does with rows that were accepted is a choice, because all of it takes long.
    match choices.below(6):
        case 0:
            verdict = verify_trace(reader)
            assert verdict.allocations == total
            json.dumps(verdict.to_json(), allow_nan=False)
        case 1:
            summary, verdict = summarize(reader)
            write_summary(summary, verdict, _console(), top=5)
            json.dumps(summary.to_json(verdict, 5), allow_nan=False)
        case 2:
            _same(write_rows(reader, "jsonl", io.BytesIO()), ending)
        case 3:
            _same(write_rows(reader, "csv", io.BytesIO()), ending)
        case 4:
            write_folded(stacks_of(reader), io.BytesIO())
        case _:
            if reader.aggregate:
                _told(reader)
            else:
                write_perfetto(reader, io.BytesIO())


def _told(reader: TraceReader) -> None:
    kernel = Kernel.of(reader.snapshot)
    calls = reader.slow_calls()
    describer = SlowCallDescriber(reader.snapshot, kernel, SlowJudge(reader.snapshot, kernel))
    write_slow_calls(grouped(map(describer.describe, list(calls)[:3])), _console(), Clock(0, "the machine booted"))


def _same(one: Ending, other: Ending) -> None:
    assert (one.totals, one.truncated) == (other.totals, other.truncated)


def _trace(choices: Choices) -> bytes | None:
    """Return a trace with other rows, columns, metadata or bytes; None where pyarrow makes no such table."""
    _, rows, _, totals = _fixture()
    layout = choices.of(("aggregate", "aggregate", "stream", "calls"))
    recording: Any = {"mode": "aggregate" if layout == "aggregate" else "stream", "slow": True}
    parts = {
        FORMAT_KEY: b"1" if layout == "calls" else b"2",
        SNAPSHOT_KEY: _snapshot_text(),
        RECORDING_KEY: json.dumps(recording).encode(),
    }
    match choices.below(8):
        case 1:
            parts[SNAPSHOT_KEY] = _json(_snapshot_json(), choices)
        case 2:
            parts[RECORDING_KEY] = _json(recording, choices)
        case 3:
            parts.pop(choices.of(list(parts)))
    with contextlib.suppress(pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError):
        if layout == "calls":
            batches = [_other_calls(choices) for _ in range(1 + choices.below(2))]
        else:
            batches = _other_rows(rows, choices)
        if layout == "stream":
            batches = [_with_task(batch, choices) for batch in batches]
        table = pa.Table.from_batches(batches)
        while choices.below(4) == 1:
            table = _other_columns(table, choices)
        closing = {TOTALS_KEY: _json(json.loads(totals), choices) if choices.below(4) == 1 else totals}
        if choices.below(4) == 1:
            closing[SLOW_KEY] = base64.b64encode(_payload(choices) or b"")
        return flip(_stream(table.replace_schema_metadata(parts), choices, closing), choices)
    return None


def _other_rows(rows: pa.RecordBatch, choices: Choices) -> list[pa.RecordBatch]:
    """Return up to three batches; the dictionary of each later one is a delta, a replacement, or the same."""
    counts, allocation = rows.columns
    dictionary = allocation.dictionary
    batches = []
    for _ in range(1 + choices.of((0, 1, 0, 2))):
        indices: list[Any] = allocation.indices.to_pylist()
        values: Any = counts.to_pylist()
        while choices.below(3) == 1:
            match choices.below(4):
                case 0:
                    indices[choices.below(len(indices))] = choices.of((None, -1, _ROWS, _ROWS + 1, 1 << 30))
                case 1:
                    values[choices.below(len(values))] = choices.value()
                case 2:
                    dictionary = pa.array(change(dictionary.to_pylist(), choices), dictionary.type)
                case _:
                    added = allocation.dictionary.slice(0, choices.below(_ROWS + 1))
                    dictionary = pa.concat_arrays([dictionary, added])
        encoded = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), dictionary, safe=False)
        batches.append(pa.RecordBatch.from_arrays([pa.array(values, counts.type), encoded], names=rows.schema.names))
    return batches


_TASK: Row = {"time": 1, "cpu": 0, "pid": 1, "tid": 2, "comm": "a", "stack": "outermost;innermost"}


def _other_calls(choices: Choices) -> pa.RecordBatch:
    """Return calls with the columns of format 1."""
    calls: Any = [{**_TASK, **row} for row in _fixture()[1]["allocation"].dictionary.to_pylist()]
    while choices.below(3) == 1:
        calls = change(calls, choices)
    return pa.RecordBatch.from_pylist(calls, COLUMNS)


def _with_task(rows: pa.RecordBatch, choices: Choices) -> pa.RecordBatch:
    """Return the rows of a stream, each with a time and a task."""
    tasks: Any = [dict(_TASK) for _ in range(rows.num_rows)]
    while choices.below(3) == 1:
        tasks = change(tasks, choices)
    return pa.RecordBatch.from_arrays(
        [*pa.RecordBatch.from_pylist(tasks, pa.schema(TASK_COLUMNS)).columns, rows["allocation"]], schema=STREAM
    )
