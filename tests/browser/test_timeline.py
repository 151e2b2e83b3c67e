# SPDX-License-Identifier: MIT
"""The timeline that `kalloctrace export` writes, as Perfetto's own trace processor understands it."""

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from playwright.sync_api import Browser

from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.flags.tables import FlagTables
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.results import pages_of
from kalloctrace.trace.schema import COLUMNS
from tests.browser.trace_processor import TraceProcessor
from tests.traces import RECORDED, stream

FIXTURES = RECORDED.parents[1]
STIMULUS = FIXTURES / "6.1" / "stimulus-cpusets.arrows"
UNDER_PRESSURE = FIXTURES / "6.12" / "slow-stream.arrows"
STREAMS = pytest.mark.parametrize("trace", [RECORDED, STIMULUS], ids=["5.10", "6.1"])


@pytest.fixture(scope="module")
def processor(browser: Browser) -> Iterator[TraceProcessor]:
    """Start the trace processor once."""
    started = TraceProcessor(browser)
    yield started
    started.close()


def load(processor: TraceProcessor, trace: Path, output: Path) -> None:
    """Export a trace with the real program, and have it read without an error or a loss."""
    words = ["export", "--format", "perfetto", "-o", str(output), str(trace)]
    subprocess.run([sys.executable, "-m", "kalloctrace", *words], check=True, capture_output=True, timeout=60)
    processor.load(output)
    assert processor.rows("select name, value from stats where severity != 'info' and value != 0") == []


def request_name(request: dict[str, Any], tables: FlagTables) -> str:
    """Return the name of a request."""
    return f"{decode_gfp(request['gfp_mask'], tables).text or '0x0'} order {request['order']}"


def read(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of a trace, and the name of each on a timeline."""
    with TraceReader(path) as trace:
        rows = [row for batch in trace.batches() for row in batch.to_pylist()]
        tables = trace.snapshot.tables
    return rows, ["slow path: " * (row["freelist_calls"] > 1) + request_name(row, tables) for row in rows]


@STREAMS
def test_calls_are_on_their_cpus(tmp_path: Path, processor: TraceProcessor, trace: Path) -> None:
    """SQL finds each call on its CPU's track, at its time, with its task, request and result."""
    load(processor, trace, tmp_path / "t.pftrace")
    found = processor.rows("""
        select
            track.name, ts, dur, slice.name, extract_arg(arg_set_id, 'debug.task'),
            extract_arg(arg_set_id, 'debug.order'), extract_arg(arg_set_id, 'debug.freelist_calls'),
            extract_arg(arg_set_id, 'debug.page')
        from slice join track on track.id = track_id where track.name glob 'CPU [0-9]*'
    """)
    assert Counter(found) == Counter(
        (
            *(f"CPU {row['cpu']}", row["time"], 0, name),
            *(row["comm"], row["order"], row["freelist_calls"], None if row["page"] is None else int(row["page"])),
        )
        for row, name in zip(*read(trace), strict=True)
    )


@STREAMS
def test_calls_are_on_their_tasks(tmp_path: Path, processor: TraceProcessor, trace: Path) -> None:
    """SQL finds each call on its thread's track, with its process; both have their last name."""
    load(processor, trace, tmp_path / "t.pftrace")
    found = processor.rows("""
        select pid, tid, ts, dur, slice.name from slice
        join thread_track on thread_track.id = track_id join thread using (utid) join process using (upid)
    """)
    rows, names = read(trace)
    assert Counter(found) == Counter(
        (row["pid"], row["tid"], row["time"], 0, name) for row, name in zip(rows, names, strict=True)
    )
    last = {row["tid"]: row["comm"] for row in rows}
    assert {tid: name for tid, name in processor.rows("select tid, name from thread") if tid in last} == last
    # Process 0 is the trace processor's own, which has no name.
    mains = {row["pid"]: last[row["pid"]] for row in rows if row["pid"] == row["tid"] != 0}
    assert {pid: name for pid, name in processor.rows("select pid, name from process") if pid in mains} == mains


@STREAMS
def test_counters_add_up(tmp_path: Path, processor: TraceProcessor, trace: Path) -> None:
    """SQL finds counters of each CPU that never decrease, and end at the sum over its calls."""
    load(processor, trace, tmp_path / "t.pftrace")
    found = defaultdict(list)
    for name, value in processor.rows(
        "select name, value from counter join counter_track on counter_track.id = track_id order by ts, counter.id"
    ):
        found[name].append(value)
    assert all(values == sorted(values) for values in found.values())
    rows, _ = read(trace)
    pages = pages_of(pa.Table.from_pylist(rows, COLUMNS)).to_pylist()
    expected: Counter[str] = Counter()
    for row, got in zip(rows, pages, strict=True):
        cpu = f"CPU {row['cpu']}"
        expected[f"{cpu} pages"] += got
        expected[f"{cpu} slow paths"] += row["freelist_calls"] > 1
        expected[f"{cpu} failures"] += row["page"] is False
    assert {name: values[-1] for name, values in found.items()} == expected


def test_slow_paths_last_as_long_as_they_did(tmp_path: Path, processor: TraceProcessor) -> None:
    """SQL finds each call of the slow path on its thread's track with its duration, and its attempts inside it.

    Its row is also there, as an instant like any other.
    """
    with TraceReader(UNDER_PRESSURE) as trace:
        calls, tables = list(trace.slow_calls()), trace.snapshot.tables
    load(processor, UNDER_PRESSURE, tmp_path / "t.pftrace")
    on_threads = """
        select tid, ts, dur, slice.name from slice
        join thread_track on thread_track.id = track_id join thread using (utid)
        where {}
    """
    slow = processor.rows(on_threads.format("extract_arg(arg_set_id, 'debug.attempts') is not null"))
    assert Counter(slow) == Counter(
        (call["tid"], call["time"], call["duration"], f"slow path: {request_name(call['given'], tables)}")
        for call in calls
    )
    found = processor.rows(on_threads.format("extract_arg(arg_set_id, 'debug.freelist_calls') is not null"))
    rows, names = read(UNDER_PRESSURE)
    assert Counter(found) == Counter((row["tid"], row["time"], 0, name) for row, name in zip(rows, names, strict=True))
    attempts = processor.rows("""
        select tid, call.ts, attempt.ts - call.ts, attempt.dur, attempt.name from slice attempt
        join slice call on call.id = attempt.parent_id
        join thread_track on thread_track.id = attempt.track_id join thread using (utid)
        where attempt.name glob 'attempt: *'
    """)
    assert Counter(attempts) == Counter(
        (
            call["tid"],
            call["time"],
            attempt["after"],
            0,
            f"attempt: {decode_alloc(attempt['alloc_flags'], tables).text}",
        )
        for call in calls
        for attempt in call["attempts"]
    )


def test_renamed_task_has_one_name(tmp_path: Path, processor: TraceProcessor) -> None:
    """A task that changes its name, as a shell that execs a program, has its last name everywhere."""
    path = stream(tmp_path / "t.arrows", *({"pid": 7, "tid": 7, "comm": comm} for comm in ("sh", "make")))
    load(processor, path, tmp_path / "t.pftrace")
    sql = "select thread.name, process.name from thread join process using (upid) where tid = 7"
    assert processor.rows(sql) == [("make", "make")]
