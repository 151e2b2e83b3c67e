# SPDX-License-Identifier: MIT
"""The synthetic trace of the reading benchmark."""

from pathlib import Path

import pytest

from kalloctrace.trace.reader import TraceReader
from kalloctrace.verify.verification import verify_trace
from tests.bench.reading import BATCH_ROWS, PROCESSES, make_trace


@pytest.mark.parametrize("events", [0, 1000, BATCH_ROWS + 1])
def test_synthetic_trace_is_complete(tmp_path: Path, events: int) -> None:
    """It has every call, at increasing times and from several processes, and all match."""
    path = tmp_path / "t.arrows"
    make_trace(path, events)
    with TraceReader(path) as trace:
        verdict = verify_trace(trace)
        assert (verdict.allocations, verdict.matched, verdict.lost, verdict.truncated) == (events, events, 0, False)
        times = [time for batch in trace.batches() for time in batch["time"].to_pylist()]
        pids = {pid for batch in trace.batches() for pid in batch["pid"].unique().to_pylist()}
    assert times == sorted(set(times))
    assert len(pids) == PROCESSES or events <= 1000
