# SPDX-License-Identifier: MIT
"""A trace contains calls of the slow path next to its rows."""

import base64
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import COLUMNS
from kalloctrace.trace.slow_split import PARTS
from kalloctrace.trace.slowpath import SLOW, encode_slow_calls
from kalloctrace.trace.slowpath_reader import decode_slow_calls
from kalloctrace.trace.writer import TraceWriter
from tests.traces import source

Row = dict[str, Any]

CALL: Row = {
    "time": 5,
    "cpu": 1,
    "pid": 7,
    "tid": 8,
    "comm": "cc1",
    "stack": "a;b",
    "given": {
        column.name: False if pa.types.is_boolean(column.type) else 0 if pa.types.is_integer(column.type) else None
        for column in SLOW.field("given").type
    },
    "attempts": [],
    "after_last": ["oom"],
    "page": None,
    "duration": None,
    "complete": True,
    "zones": [],
    "cgroup": "/init.scope",
    **dict.fromkeys(PARTS),
}
SPLIT = {**CALL, "duration": 21, "reclaim": 1, "compaction": 2, "oom": 3, "throttle": 4, "lock": 5, "rest": 6}


def test_calls_come_back_as_they_were() -> None:
    """With all their columns."""
    calls = [CALL, {**CALL, "page": False}, SPLIT, {**SPLIT, "duration": 16, "lock": None}]
    assert decode_slow_calls(next(encode_slow_calls(calls)).encode()) == calls


@pytest.mark.parametrize("missing", [["cgroup", *PARTS], [*PARTS]], ids=["first", "before the parts"])
def test_calls_of_an_earlier_version(missing: list[str]) -> None:
    """Later columns are null."""
    table = pa.Table.from_pylist([SPLIT], SLOW).drop_columns(missing)
    assert decode_slow_calls(encoded(table)) == [{**SPLIT, **dict.fromkeys(missing)}]


def test_large_calls_are_written_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part can be read, also on a machine where one call has many zones."""
    zone: Row = {
        column.name: [] if pa.types.is_list(column.type) else 0 for column in SLOW.field("zones").type.value_type
    }
    calls = [{**CALL, "time": time, "zones": [{**zone, "at": "begins"}] * 300 * time} for time in range(1, 8)]
    monkeypatch.setattr("kalloctrace.trace.slowpath.MOST_UNPACKED", 1 << 18)
    texts = list(encode_slow_calls(calls))
    assert len(texts) > 2
    assert [call["time"] for text in texts for call in decode_slow_calls(text.encode())] == list(range(1, 8))


@pytest.mark.parametrize("text", [b"", b"!", b"AAAA"])
def test_damage_is_no_call(text: bytes) -> None:
    """Whatever is damaged is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        decode_slow_calls(text)


def encoded(table: pa.Table) -> bytes:
    """Return a table as a trace stores calls, compressed."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return base64.b64encode(sink.getvalue())


def given(**change: Any) -> Row:  # noqa: ANN401
    """Return the call with other arguments."""
    return {**CALL, "given": {**CALL["given"], **change}}


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (given(order=1 << 31), "an order above 30"),
        (given(gfp_mask=None), "gfp_mask must not have a null"),
        (given(zonelist_kind="x"), "none of FALLBACK, NOFALLBACK"),
        (given(preferred_node=1024), "preferred_node has a value outside"),
        (given(mems_allowed="0," * 3000), "mems_allowed has a text of 6,000 bytes"),
        ({**CALL, "given": None}, "given must not have a null"),
        ({**CALL, "attempts": None}, "attempts must not have a null"),
        ({**CALL, "attempts": [None]}, "attempts must not have a null"),
        ({**CALL, "after_last": ["oom", None]}, "after_last must not have a null"),
        ({**CALL, "after_last": ["\x1b"]}, "after_last has a text"),
        ({**CALL, "time": 1 << 63}, "time has a value outside"),
        ({**CALL, "duration": (1 << 64) - 1}, "duration has a value outside"),
        ({**SPLIT, "duration": 22}, "do not add up to its duration"),
        ({**SPLIT, "duration": None}, "do not add up to its duration"),
        ({**SPLIT, "oom": (1 << 64) - 1}, "oom has a value outside"),
    ],
    ids=str,
)
def test_value_that_no_recorder_writes(call: Row, why: str) -> None:
    """The error names the column."""
    with pytest.raises(ValueError, match=why):
        decode_slow_calls(next(encode_slow_calls([CALL, call])).encode())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda table: table.drop_columns(["given"]), "column given is missing"),
        (lambda table: table.append_column("cpu", table["cpu"]), "a column twice"),
        (lambda table: table.set_column(1, "cpu", table["cpu"].cast(pa.int64())), "column cpu is of another type"),
        (lambda table: table.set_column(7, "attempts", table["given"]), "column attempts is of another type"),
        (lambda table: table.append_column("x", pa.array([decimal.Decimal(1)])), "a type that no column has"),
    ],
    ids=["missing", "twice", "number", "structure", "decimal"],
)
def test_columns_that_no_recorder_writes(change: Callable[[pa.Table], pa.Table], why: str) -> None:
    """Columns are checked before values."""
    with pytest.raises(ValueError, match=why):
        decode_slow_calls(encoded(change(pa.Table.from_pylist([CALL], SLOW))))


def test_column_of_a_newer_recorder() -> None:
    """It is read with the others."""
    table = pa.Table.from_pylist([CALL], SLOW).append_column("added", pa.array([1]))
    assert decode_slow_calls(encoded(table)) == [{**CALL, "added": 1}]


def test_calls_that_unpack_to_too_much() -> None:
    """The length is read before anything is unpacked."""
    table = pa.Table.from_pylist([{**CALL, "stack": "a" * 16_000}] * 2_400, SLOW)
    text = encoded(table)
    assert len(text) < 70_000
    with pytest.raises(ValueError, match="unpacks to"):
        decode_slow_calls(text)


def test_offsets_outside_their_buffer() -> None:
    """Arrow ends the program when such a value is looked at, so all is validated first."""
    offsets = pa.array([0, 1 << 20, 4], pa.int32())
    column = pa.StringArray.from_buffers(2, offsets.buffers()[1], pa.py_buffer(b"make"))
    table = pa.Table.from_pylist([CALL, CALL], SLOW).set_column(4, SLOW.field("comm"), column)
    with pytest.raises(ValueError, match=r"[Oo]ffset"):
        decode_slow_calls(encoded(table))


@pytest.mark.parametrize("mode", ["stream", "aggregate"])
def test_rows_and_calls_lie_side_by_side(tmp_path: Path, mode: str) -> None:
    """Neither is taken for the other, and whoever reads rows alone gets what was there without."""
    snapshot, totals, row = source()
    path = tmp_path / "t.arrows"
    batch = pa.RecordBatch.from_pylist([row], schema=COLUMNS)
    with TraceWriter(path, snapshot, {"mode": mode}) as writer:
        writer.write_slow([CALL])
        writer.write(batch)
        writer.write_slow([{**CALL, "pid": 9}])
        writer.close(totals)
    with TraceReader(path) as trace:
        calls, counted = trace.slow_calls(), trace.counted()
        assert [call["pid"] for call in calls] == [7, 9]
        assert sum(count for _, count in counted) == 1
        assert calls.finish().totals == counted.finish().totals == totals
