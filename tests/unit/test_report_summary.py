# SPDX-License-Identifier: MIT
"""What a report counts: each allocation once in each table, by the recorded kernel's names."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kalloctrace.console import Console
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import machine_of
from kalloctrace.report.page.data import Limits, page_data
from kalloctrace.report.summary import Breakdown, Summary, summarize
from kalloctrace.report.summary_text import write_summary
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import COLUMNS, OBSERVED
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import TraceWriter
from kalloctrace.verify.verification import Verification
from tests import traces

Row = dict[str, Any]

DMA32, NORMAL = 1, 2
SNAPSHOT = replace(
    builtin_snapshot("5.10"), machine=machine_of({0: [DMA32], 1: [DMA32, NORMAL]}, gfp_allowed_mask=0x7FFFFF)
)
KEYS = {
    *("type", "trace", "kernel", "version", "nodes", "recording", "seconds", "ended", "allocations", "pages"),
    *("bytes", "per_second", "failed", "rejected", "slow_path", "lost", "missed", "running", "truncated"),
    *("damage", "by", "verification", "estimated", "sample", "not_followed", "events"),
    *("slow_calls", "slow_failed", "slow_lost", "slow_ns", "slow_parts", "slowest"),
    *("missed_by", "bpf_calls", "audit", "own", "filtered"),
}
TABLES = [
    *("gfp", "order", "migratetype", "preferred_zone", "alloc_flags", "comm", "zonelist", "context", "entry", "stack"),
]

PREPARED: Row = {
    "time": 10,
    "cpu": 0,
    "pid": 7,
    "tid": 7,
    "comm": "make",
    "entry": "normal",
    "gfp_mask": 0xCC0,
    "order": 0,
    "preferred_nid": 0,
    "task_flags": 0,
    "preempt_count": 0x80000000,
    "mems_allowed": "0-1",
    "cpusets_enabled": 0,
    "gfp_allowed_mask": 0x7FFFFF,
    "defrag_mode": False,
    "freelist_calls": 1,
    "freelist_gfp_mask": 0xCC0,
    "freelist_order": 0,
    "alloc_flags": 0x801,
    "zonelist_kind": "FALLBACK",
    "zonelist_nid": 0,
    "ac_nodemask": "null",
    "preferred_node": 1,
    "preferred_zone": NORMAL,
    "migratetype": 0,
    "highest_zoneidx": NORMAL,
    "spread_dirty_pages": False,
    "page": True,
}
REJECTED: Row = {
    **{name: value for name, value in PREPARED.items() if name not in {field.name for field in OBSERVED}},
    "order": 40,
    "freelist_calls": 0,
    "page": False,
}

Summarise = Callable[..., Summary]


@pytest.fixture
def summary_of(tmp_path: Path) -> Summarise:
    """Return a function that writes rows, a batch for each argument, and summarises them."""

    def summarise(*batches: Sequence[Row], closed: bool = True, **changed: object) -> Summary:
        rows = sum(map(len, batches))
        totals: dict[str, Any] = {
            "opened": rows,
            "submitted": rows,
            "dropped": 0,
            "no_room": 0,
            "replaced": 0,
            "running": 0,
            "freelist_alone": 0,
            "return_alone": 0,
            "missed": 0,
            "machine_changed": (),
            "reason": "the time was over",
            "seconds": 2.0,
            **changed,
        }
        path = tmp_path / "t.arrows"
        with TraceWriter(path, SNAPSHOT, {"mode": "stream"}, overwrite=True) as writer:
            for batch in batches:
                writer.write(pa.RecordBatch.from_pylist(list(batch), schema=COLUMNS))
            if closed:
                writer.close(Totals.from_json(totals))
        with TraceReader(path) as trace:
            return summarize(trace)[0]

    return summarise


def table(summary: Summary, name: str) -> list[tuple[str, int, int]]:
    """Return the rows of a table: label, count, pages."""
    breakdown: Breakdown = next(by for by in summary.by if by.name == name)
    return [(part.label, part.amount.count, part.amount.pages) for part in breakdown.parts]


def test_pages_are_those_that_were_got(summary_of: Summarise) -> None:
    """Each allocation got 2^order pages, and none when it failed."""
    rows = [PREPARED, {**PREPARED, "order": 3}, {**PREPARED, "order": 3, "page": False}, REJECTED]
    summary = summary_of(rows)
    assert (summary.all.count, summary.all.pages) == (4, 9)


def test_failures_are_counted_by_kind(summary_of: Summarise) -> None:
    """Failed, rejected and slow-path allocations are numbers of their own; a rejected one has failed too."""
    slow = {**PREPARED, "freelist_calls": 2}
    summary = summary_of([PREPARED, slow, slow, {**slow, "page": False}, REJECTED])
    assert (summary.failed, summary.rejected, summary.slow_path) == (2, 1, 3)


@pytest.mark.parametrize("name", TABLES)
def test_each_table_holds_all_allocations(summary_of: Summarise, name: str) -> None:
    """No allocation is missing from a table or twice in it, also over batches with dictionaries of their own."""
    rows = [{**PREPARED, "comm": comm, "stack": comm} for comm in ("a", "b", "a")]
    parts = table(summary_of(rows, [*rows[::-1], REJECTED]), name)
    assert sum(count for _, count, _ in parts) == 7
    assert sum(pages for _, _, pages in parts) == 6


def test_most_frequent_comes_first(summary_of: Summarise) -> None:
    """Tables are sorted by allocations, and equal counts by name."""
    rows = [{**PREPARED, "order": order} for order in (2, 5, 5, 1)]
    assert [label for label, _, _ in table(summary_of(rows), "order")] == ["5", "1", "2"]


@pytest.mark.parametrize(
    ("name", "row", "label"),
    [
        ("gfp", {"gfp_mask": 0x100CCA}, "0x100cca GFP_HIGHUSER_MOVABLE"),
        ("gfp", {"gfp_mask": 0}, "0x0"),
        ("migratetype", {"migratetype": 1}, "MIGRATE_MOVABLE"),
        ("migratetype", {"migratetype": None}, "none"),
        ("preferred_zone", {}, "node 1 Normal"),
        ("preferred_zone", {"preferred_zone": -1}, "node 1 unknown"),
        ("preferred_zone", {"preferred_node": None, "preferred_zone": None}, "none"),
        ("alloc_flags", {"alloc_flags": 0x901}, "0x901 ALLOC_WMARK_LOW|ALLOC_NOFRAGMENT|ALLOC_KSWAPD"),
        ("alloc_flags", {"alloc_flags": None}, "none"),
        ("zonelist", {}, "FALLBACK, nodemask NULL"),
        ("zonelist", {"zonelist_kind": None}, "unknown, nodemask NULL"),
        (
            "zonelist",
            {"ac_nodemask": "mems_allowed", "ac_nodemask_nodes": "0-1"},
            "FALLBACK, nodemask mems_allowed 0-1",
        ),
        ("zonelist", {"ac_nodemask": None}, "none"),
        ("stack", {"stack": None}, "not recorded"),
        ("stack", {"stack": "main;do;get"}, "get\ndo\nmain"),
    ],
)
def test_label(summary_of: Summarise, name: str, row: Row, label: str) -> None:
    """A row is named in the words of the recorded kernel."""
    assert table(summary_of([{**PREPARED, **row}]), name) == [(label, 1, 1)]


def test_frames_of_the_probe_are_left_out(summary_of: Summarise) -> None:
    """A stack ends at the allocator's entry: what it called meanwhile is how it was traced."""
    entry = SNAPSHOT.features.entry
    assert table(summary_of([{**PREPARED, "stack": f"main;{entry};tracer"}]), "stack") == [(f"{entry}\nmain", 1, 1)]


def test_processes_of_one_name_are_one_row(summary_of: Summarise) -> None:
    """A name has one row, with the ids of all its processes."""
    summary = summary_of([{**PREPARED, "pid": pid} for pid in (3, 5, 3)])
    (part,) = next(by for by in summary.by if by.name == "comm").parts
    assert (part.label, sorted(part.key["pids"]), part.amount.count) == ("make", [3, 5], 3)


def test_lost_has_rows_that_are_not_there(summary_of: Summarise) -> None:
    """What found no room is lost, and what was submitted and is not in the file too."""
    assert summary_of([PREPARED], submitted=3, dropped=5, no_room=7).lost == 14


def test_truncated_trace_has_no_numbers_of_the_recorder(summary_of: Summarise) -> None:
    """Without the closing record losses are unknown, and the rows give a lower bound of the duration."""
    rows = [{**PREPARED, "time": time} for time in (4_000_000_000, 1_000_000_000, 2_500_000_000)]
    summary = summary_of(rows, closed=False)
    assert (summary.totals, summary.lost, summary.seconds) == (None, None, 3.0)


def test_empty_trace(summary_of: Summarise) -> None:
    """A recording in which nothing happened has zeros and empty tables."""
    summary = summary_of()
    assert (summary.all.count, summary.all.pages, summary.rejected) == (0, 0, 0)
    assert [by.name for by in summary.by if not by.parts] == TABLES


def test_json_has_the_documented_keys(summary_of: Summarise) -> None:
    """The object has each key, also of a truncated and of an empty trace, and can be written as JSON."""
    for summary in (summary_of([PREPARED, REJECTED]), summary_of([PREPARED], closed=False), summary_of()):
        data = json.loads(json.dumps(summary.to_json(Verification("t", "5.10"), 3)))
        assert set(data) == KEYS
        assert list(data["by"]) == TABLES


def test_json_numbers_are_numbers(summary_of: Summarise) -> None:
    """Totals and rates come as numbers, the machine's zones as pages."""
    data = summary_of([PREPARED, {**PREPARED, "order": 1}]).to_json(Verification("t", "5.10", matched=2), 3)
    assert (data["allocations"], data["pages"], data["bytes"], data["per_second"]) == (2, 3, 12288, 1.0)
    assert data["nodes"][1] == {
        "nid": 1,
        "zones": [{"zone": "DMA32", "present_pages": 1}, {"zone": "Normal", "present_pages": 1}],
    }
    assert data["verification"] == {"matched": 2, "mismatched": 0, "unknown": 0, "not_judged": {}}


def test_json_has_the_rest(summary_of: Summarise) -> None:
    """Rows beyond the first are summed up, so that each table has all allocations."""
    orders = summary_of([{**PREPARED, "order": order} for order in (0, 0, 1, 2)]).to_json(Verification("t", "k"), 1)
    assert orders["by"]["order"] == {
        "rows": [{"order": 0, "count": 2, "share": 0.5, "pages": 2}],
        "other": {"rows": 2, "count": 2, "share": 0.5, "pages": 6},
    }


def test_json_has_no_rest_when_all_is_shown(summary_of: Summarise) -> None:
    """A table that is shown whole has null for the rest."""
    assert summary_of([PREPARED]).to_json(Verification("t", "k"), 1)["by"]["order"]["other"] is None


def test_tasks_and_stacks_beyond_a_limit_are_counted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording of days has millions of processes."""
    changes = [{"pid": 100 + number, "comm": f"t{number}", "stack": f"a;b{number}"} for number in range(5)]
    path = traces.stream(tmp_path / "t.arrows", *changes, recording={"stacks": True})
    monkeypatch.setattr("kalloctrace.report.callers.MOST_CALLERS", 2)
    monkeypatch.setattr("kalloctrace.report.page.cells.MOST_CALLERS", 2)
    with TraceReader(path) as trace:
        summary, verdict = summarize(trace)
        page = page_data(trace, Limits())
    parts = {breakdown.name: breakdown.parts for breakdown in summary.by}
    counted = [(part.label, part.key["pids"], part.amount.count) for part in parts["comm"]]
    assert counted == [("(others)", [], 3), ("t0", [100], 1), ("t1", [101], 1)]
    assert (parts["stack"][0].label, parts["stack"][0].amount.count) == ("(others)", 3)
    assert page["values"]["comm"] == ["t0", "t1", "(others)"]
    assert sum(page["time"]["count"]) == sum(page["callers"]["count"]) == 5
    output = io.StringIO()
    write_summary(summary, verdict, Console(output), top=10)
    assert "(others) (processes not listed)" in output.getvalue()
