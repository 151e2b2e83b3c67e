# SPDX-License-Identifier: MIT
"""A trace contains calls of the slow path next to its rows."""

from pathlib import Path

import pyarrow as pa
import pytest

from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import COLUMNS
from kalloctrace.trace.slowpath import SLOW, decode_slow_calls, encode_slow_calls
from kalloctrace.trace.writer import TraceWriter
from tests.traces import source

CALL = {
    "time": 5,
    "cpu": 1,
    "pid": 7,
    "tid": 8,
    "comm": "cc1",
    "stack": "a;b",
    "given": dict.fromkeys(column.name for column in SLOW.field("given").type),
    "attempts": [],
    "after_last": ["oom"],
    "page": None,
    "duration": None,
    "complete": True,
    "zones": [],
}


def test_calls_come_back_as_they_were() -> None:
    """With all their columns."""
    assert decode_slow_calls(encode_slow_calls([CALL, {**CALL, "page": False}]).encode()) == [
        CALL,
        {**CALL, "page": False},
    ]


@pytest.mark.parametrize("text", [b"", b"!", b"AAAA"])
def test_damage_is_no_call(text: bytes) -> None:
    """Whatever is damaged is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        decode_slow_calls(text)


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
