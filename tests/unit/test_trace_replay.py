# SPDX-License-Identifier: MIT
"""A stream that is played back, and the tally behind it."""

from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.trace.encoded import Encoded
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.replay import Replay
from kalloctrace.trace.tally import OTHERS, RunningTally
from kalloctrace.verify.verification import verify_trace
from tests import played
from tests.traces import RECORDED, aggregate


def tasks(rows: Encoded) -> dict[tuple[str, int, str], int]:
    """Return the counts by task and stack."""
    assert rows.counts is not None
    who = (rows.who[name].to_pylist() for name in ("comm", "pid", "stack"))
    return dict(zip(zip(*who, strict=True), rows.counts.tolist(), strict=True))


def test_calls_come_in_their_own_time(tmp_path: Path) -> None:
    """After a second those of the first second are there; at the end all."""
    clock = played.Clock()
    with Replay(played.trace(tmp_path / "t.arrows"), clock) as replay:
        seen = []
        for now in (0.95, 1.95, 2.95):
            clock.now = now
            replay.drain()
            seen.append(tasks(replay.observe().rows))
        assert not replay.ended
        clock.now = 1000.0
        replay.drain()
        assert replay.ended
    python, shell = ("python", 70, played.FAULT), ("sh", 71, played.FORK)
    assert seen == [{python: 10}, {python: 25, shell: 5}, {python: 25, shell: 11}]


def test_real_trace_is_played_to_the_last_call() -> None:
    """In steps of any size, and rows keep their places."""
    with TraceReader(RECORDED) as reader:
        calls = sum(batch.num_rows for batch in reader.batches())
    with Replay(RECORDED) as replay:
        before = replay.observe().rows
        while not replay.ended:
            replay.advance(0.7)
            rows = replay.observe().rows
            assert before.counts is not None
            assert rows.counts is not None
            assert (rows.indices[: len(before.indices)] == before.indices).all()
            assert (rows.counts[: len(before.counts)] >= before.counts).all()
            before = rows
        assert rows.counts is not None
        assert int(rows.counts.sum()) == replay.observe().totals.submitted == calls


def test_aggregate_cannot_be_played_back(tmp_path: Path) -> None:
    """It tells no times."""
    with pytest.raises(KalloctraceError, match="cannot play"):
        Replay(aggregate(tmp_path / "t.arrows", ({}, 3)))


def test_what_was_played_is_a_trace_of_its_own(tmp_path: Path) -> None:
    """It holds the calls up to that moment, verifies, and replaces nothing."""
    path = tmp_path / "session.arrows"
    with Replay(played.trace(tmp_path / "t.arrows", wrong=True)) as replay:
        replay.advance(1.95)
        replay.write(path)
        with pytest.raises(KalloctraceError, match="will not overwrite"):
            replay.write(path)
    with TraceReader(path) as reader:
        verdict = verify_trace(reader)
        assert reader.aggregate
        assert reader.totals is not None
        assert reader.totals.submitted == 30
    assert (verdict.allocations, verdict.matched, verdict.lost) == (30, 30, 0)


def test_tasks_beyond_the_limit_are_counted_together(tmp_path: Path) -> None:
    """No call is left out, and memory stays bounded."""
    tally = RunningTally(tasks=True, most=1)
    with TraceReader(played.trace(tmp_path / "t.arrows")) as reader:
        for batch in reader.encoded("pid", "comm", "stack"):
            indices = tally.intern(batch.allocations)[batch.indices]
            tally.count(indices, comm=batch.who["comm"], pid=batch.who["pid"], stack=batch.who["stack"])
    assert tasks(tally.rows()) == {("python", 70, played.FAULT): 25, (OTHERS, None, None): 11}
