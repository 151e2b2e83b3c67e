# SPDX-License-Identifier: MIT
"""Traces that older versions wrote hold the same values as when the version of commit 615d23c read them.

Of the fixtures 23 are of format 1 and 11 of format 2. `old_traces.json` was written with the reader of that commit, by
`values` below: it must never be written with a later one.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import FORMAT_KEY
from kalloctrace.trace.slow_split import PARTS

FIXTURES = Path(__file__).parents[2] / "fixtures"
EXPECTED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("old_traces.json").read_text())
TASK_COLUMNS = ("time", "cpu", "pid", "tid", "comm", "stack", "count")
FIRST_ROWS = 200
ADDED = ["cgroup"]
"""Columns of rows that the reader of that commit did not know."""
ADDED_TO_CALLS = (*ADDED, *PARTS)
"""Columns of calls of the slow path that it did not know."""
NEWER = {"slow-parts.arrows"}
"""Fixtures that were recorded later."""


def digest(value: object) -> str:
    """Return a digest of JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def digests(snapshot: dict[str, Any]) -> dict[str, str]:
    """Return a digest for each member of each part of a snapshot."""
    return {
        f"{name}.{key}": digest(value)
        for name, part in snapshot.items()
        for key, value in (part.items() if isinstance(part, dict) else [("", part)])
    }


def values(path: Path) -> dict[str, Any]:
    """Return what a trace holds: plain values where they are few, digests where they are many."""
    with TraceReader(path) as trace:
        table = pa.Table.from_batches(list(trace.batches())).drop_columns(ADDED).unify_dictionaries()
        calls = [{key: call[key] for key in call if key not in ADDED_TO_CALLS} for call in trace.slow_calls()]
        counted = sorted(json.dumps([row, count], sort_keys=True) for row, count in trace.counted())
        totals = trace.ending().totals
        assert totals is not None
        return {
            "format": pa.ipc.open_stream(str(path)).schema.metadata[FORMAT_KEY].decode(),
            "release": trace.snapshot.release,
            "snapshot": digests(trace.snapshot.to_json()),
            "recording": trace.recording,
            "aggregate": trace.aggregate,
            "totals": totals.to_json(),
            "rows": table.num_rows,
            "columns": {name: digest(table[name].to_pylist()) for name in TASK_COLUMNS},
            "first_rows": digest(table.slice(0, FIRST_ROWS).to_pylist()),
            "allocations": {"distinct": len(counted), "digest": digest(counted)},
            "slow_calls": {"calls": len(calls), "digest": digest(calls)},
        }


def test_both_formats_are_among_them() -> None:
    """Every fixture that is as old is compared, of either format, with calls of the slow path and without."""
    older = [path for path in FIXTURES.glob("*/*.arrows") if path.name not in NEWER]
    assert sorted(EXPECTED) == sorted(str(path.relative_to(FIXTURES)) for path in older)
    assert {expected["format"] for expected in EXPECTED.values()} == {"1", "2"}
    assert {expected["aggregate"] for expected in EXPECTED.values()} == {False, True}
    assert any(expected["slow_calls"]["calls"] for expected in EXPECTED.values())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_old_trace_has_the_same_values(name: str) -> None:
    """Rows, counts, tasks, calls of the slow path, snapshot and totals are read as they were then."""
    found = json.loads(json.dumps(values(FIXTURES / name)))
    expected = EXPECTED[name]
    for part in ("snapshot", "totals"):
        # A later version may add to these.
        found[part] = {key: found[part][key] for key in expected[part]}
    assert found == expected
