# SPDX-License-Identifier: MIT
"""A stream that is played back, and the tally behind it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.live.keys import TaskKey
from kalloctrace.live.replay_filter import ReplayFilter
from kalloctrace.live.view import View
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.replay import Replay
from kalloctrace.trace.schema import ALLOCATION, COLUMNS
from kalloctrace.trace.slow_split import PARTS
from kalloctrace.trace.slow_tally import OTHERS
from kalloctrace.trace.tally import RunningTally
from kalloctrace.trace.writer import TraceWriter
from kalloctrace.verify.verification import verify_trace
from tests import played
from tests.traces import RECORDED, aggregate, slow_calls, source, stream


def tasks(rows: RowBatch) -> dict[tuple[str | None, int | None, str | None], int]:
    """Return the counts by task and stack."""
    assert rows.counts is not None
    who = (rows.task_columns[name].to_pylist() for name in ("comm", "pid", "stack"))
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


def test_trace_without_its_end(tmp_path: Path) -> None:
    """The losses of a truncated trace are unknown, and so are those of a trace written from it."""
    path, session = played.trace(tmp_path / "t.arrows"), tmp_path / "session.arrows"
    path.write_bytes(path.read_bytes()[:-200])
    with Replay(path) as replay:
        replay.advance(1000.0)
        assert replay.ended == replay.cut_off != ""
        replay.write(session)
    with TraceReader(session) as reader:
        verdict = verify_trace(reader)
    assert verdict.truncated
    assert verdict.matched == verdict.allocations == 36


def test_aggregate_cannot_be_played_back(tmp_path: Path) -> None:
    """It has no times."""
    with pytest.raises(KalloctraceError, match="cannot play") as error:
        Replay(aggregate(tmp_path / "t.arrows", ({}, 3)))
    assert error.value.fix.endswith(f": kalloctrace report {tmp_path / 't.arrows'}")


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
        totals = reader.ending().totals
    assert totals is not None
    assert totals.submitted == 30
    assert (verdict.allocations, verdict.matched, verdict.lost) == (30, 30, 0)


def many_tasks(path: Path) -> Path:
    """Write a stream of 40 tasks of two names, one after the other, with two calls each; a further one calls always."""
    begin = 5 * played.SECOND
    made: list[dict[str, Any]] = []
    for number in range(40):
        time = begin + number * played.SECOND // 20
        task = {"comm": "cc1" if number % 2 else "as", "pid": 100 + number, "tid": 100 + number, "stack": played.FORK}
        make = {"comm": "make", "pid": 70, "tid": 70, "stack": played.FAULT}
        made += [{**task, "time": time}, {**task, "time": time + 1}, {**make, "time": time + 2}]
    return stream(path, *made, recording={"stacks": True})


def test_tasks_beyond_the_limit_are_taken_together(tmp_path: Path) -> None:
    """Those that are quiet, under their name: no call is left out, and none counts as new that is not."""
    with Replay(many_tasks(tmp_path / "t.arrows"), most=10) as replay:
        view = View(replay.snapshot, "task")
        new = 0
        for _ in range(20):
            replay.advance(0.1)
            view.update(replay.observe())
            assert view.table is not None
            assert all(row.new <= row.count for row in view.table.rows)
            new += sum(row.new for row in view.table.rows)
            assert len(view.table.rows) <= 20
        left = tasks(replay.observe().rows)
    assert new == sum(left.values()) == 120
    assert left["make", 70, played.FAULT] == 40
    assert left["cc1", None, None] > 10
    together = next(row for row in view.rows() if row.task == TaskKey("cc1", None))
    assert sum(count for _, count in view.members(together)) == together.count == left["cc1", None, None]


def test_names_beyond_the_limit_are_taken_together_too(tmp_path: Path) -> None:
    """Memory stays bounded whatever tasks call themselves."""
    tally = RunningTally(tasks=True, most=4)
    with TraceReader(many_tasks(tmp_path / "t.arrows")) as reader:
        (batch,) = reader.row_batches()
    indices = tally.intern(batch.allocations)[batch.indices]
    pids, stacks = batch.task_columns["pid"], batch.task_columns["stack"]
    for number in range(50):
        names = pa.array([f"task {number}"]).dictionary_encode()
        tally.count(indices[:1], comm=names, pid=pids[:1], stack=stacks[:1])
    left = tasks(tally.rows())
    assert sum(left.values()) == 50
    assert left[OTHERS, None, None] > 30
    assert len(left) <= 8


def test_texts_of_merged_tasks_are_discarded() -> None:
    """A tally of ever new names and stacks keeps the texts of its combinations only, each with its own count."""
    tally = RunningTally(tasks=True, most=20)
    tally.add(pa.nulls(1, ALLOCATION))
    for start in range(0, 3000, 10):
        texts = [f"t{number}" for number in range(start, start + 10)]
        column = pa.array(texts).dictionary_encode()
        stack = pa.array([f"f{text}" for text in texts]).dictionary_encode()
        tally.count(np.zeros(10, np.int32), comm=column, pid=pa.array([1] * 10, pa.int32()), stack=stack)
    rows = tally.rows()
    comm, stack = rows.task_columns["comm"], rows.task_columns["stack"]
    assert len(comm.dictionary) < 100
    assert len(stack.dictionary) < 100
    assert rows.counts is not None
    assert int(rows.counts.sum()) == 3000
    named = dict(zip(comm.to_pylist(), stack.to_pylist(), strict=True))
    assert {f"t{number}": f"ft{number}" for number in range(2990, 3000)}.items() <= named.items()


def parts(duration: int, **spent: int) -> dict[str, int | None]:
    """Return the time of a call, with what it was spent in ns; the rest is rest."""
    known = {**dict.fromkeys(PARTS, 0), **spent, "lock": None}
    return {**known, "rest": duration - sum(spent.values()), "duration": duration}


def test_slow_calls_count_once_they_have_returned(tmp_path: Path) -> None:
    """One of half a second counts after it; one that got no page failed; one without a return counts from its begin."""
    begin, second = 5 * played.SECOND, played.SECOND
    call = {**slow_calls()[0], "page": True}
    path = tmp_path / "t.arrows"
    snapshot, totals, _ = source()
    row = {"time": begin, "cpu": 0, "pid": 1, "tid": 1, "comm": "a"}
    with TraceWriter(path, snapshot, {"mode": "stream", "slow": True}) as writer:
        writer.write(pa.RecordBatch.from_pylist([{**source()[2], **row}], COLUMNS))
        writer.write_slow(
            [
                {**call, **parts(second // 2, reclaim=7), "time": begin},
                {**call, **parts(second), "time": begin + second, "page": False},
                {**call, "time": begin + 3 * second, "duration": None, "page": None},
            ]
        )
        writer.close(replace(totals, opened=1, submitted=1, slow=3, slow_failed=1, seconds=4.0))
    with Replay(path) as replay:
        seen = []
        for step in (0.4, 0.2, 1.2, 0.3, 0.8, 0.2, 9.0):
            replay.advance(step)
            now = replay.observe().totals
            split = now.slow_split
            assert split is not None
            seen.append((now.slow, now.slow_failed, split.calls, split.parts["reclaim"]))
        assert replay.ended
        assert split is not None
        assert split.log2 == {28: 1, 29: 1}
        assert split.parts["lock"] is None
    assert seen == [(0, 0, 0, 0), *[(1, 0, 1, 7)] * 2, *[(2, 1, 2, 7)] * 2, *[(3, 1, 2, 7)] * 2]


def test_slow_path_that_was_not_recorded_is_not_zero(tmp_path: Path) -> None:
    """Its numbers stay unknown."""
    with Replay(played.trace(tmp_path / "t.arrows")) as replay:
        replay.advance(1.0)
        assert (replay.observe().totals.slow, replay.observe().totals.slow_failed) == (None, None)


@pytest.mark.parametrize(
    "filters",
    [
        Filters(),
        Filters(order=3),
        Filters(comm="python", order=0),
        Filters(gfp_all=0xCC0, gfp_none=0x100),
        Filters(gfp_any=0x20, nid=0),
        Filters(pid=1),
    ],
    ids=str,
)
def test_filtered_replay_has_the_calls_that_a_capture_would_have(filters: Filters) -> None:
    """Expected numbers come from a plain loop over the rows and the calls of the slow path."""

    def selected(row: dict[str, Any], nid: int) -> bool:
        gfp = row["gfp_mask"]
        return (
            filters.order in (None, row["order"])
            and (filters.gfp_any is None or gfp & filters.gfp_any != 0)
            and (filters.gfp_all is None or gfp & filters.gfp_all == filters.gfp_all)
            and (filters.gfp_none is None or gfp & filters.gfp_none == 0)
            and filters.nid in (None, nid)
        )

    def by_task(row: dict[str, Any]) -> bool:
        return filters.comm in (None, row["comm"]) and filters.pid in (None, row["pid"])

    path = RECORDED.parents[1] / "6.12" / "slow-stream.arrows"
    with TraceReader(path) as trace:
        rows = [row for batch in trace.batches() for row in batch.to_pylist()]
        calls = list(trace.slow_calls())
    with Replay(path, choice=lambda _: ReplayFilter(filters)) as replay:
        replay.advance(1e9)
        seen = replay.observe()
    assert int(seen.counts.sum()) == sum(by_task(row) and selected(row, row["preferred_nid"]) for row in rows)
    chosen = [call for call in calls if by_task(call) and selected(call["given"], call["given"]["zonelist_nid"])]
    assert (seen.totals.slow, seen.totals.slow_failed) == (len(chosen), sum(call["page"] is False for call in chosen))
