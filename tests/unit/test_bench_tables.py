# SPDX-License-Identifier: MIT
"""The benchmark's tables: limits that are met, limits that are not, and gaps."""

from typing import Any

import pytest

from kalloctrace.bench.tools import numbers
from tests.bench import tables
from tests.bench.cost import Cost, costs
from tests.bench.rows import OURS, PEERS, WATCHED


def figure(least: float, gap: str = "", lost: int = 0) -> dict[str, Any]:
    """Return a row's figures."""
    return {"least": least, "mean": least * 2, "captured": 100, "lost": lost, "gap": gap}


@pytest.fixture
def figures() -> dict[str, Any]:
    """Return the figures of one kernel, as in recorded.json."""
    rows = {row.name: figure(1000) for row in PEERS} | {row.name: figure(400) for row in (*OURS, *WATCHED)}
    own = {
        "ours: consumer": {"an event": 401.0, "events": 1000, "lost": 3},
        "ours: start": {"begins": 2_000_000, "compiles": 1_000_000, "VmRSS": 2048, "RssAnon": 1024, "VmHWM": 4096},
    }
    reading = {"command": "kalloctrace verify", "events": 10, "nanoseconds": 10.0, "start": 1.0, "gap": ""}
    return {
        "date": "2026-01-01",
        "tools": ["perf version 6.1"],
        "kernels": {"5.10": {"release": "5.10.0", "untraced": figure(3000), "rows": rows, "own": own}},
        "reading": [
            reading,
            {**reading, "command": "perf script", "nanoseconds": 1000.0},
            {**reading, "command": "slow", "nanoseconds": 999.0},
            {**reading, "command": "perf kmem", "gap": "not here"},
        ],
        "large": {
            "events": 20_000_000,
            "size": 640_000_000,
            "cores": 2,
            "readers": {
                "verify": {"cpu": 60e-9, "one core": 2.0, "all cores": 1.0, "memory": 1 << 27, "written": 0},
                "report": {"cpu": 60e-9, "one core": 2.0, "all cores": 1.0, "memory": 1 << 27, "written": 0},
            },
        },
        "starting": {"click": 0.1, "decode": 0.25},
    }


def judged(text: str, mode: str, limit: str) -> str:
    """Return the first kernel's cell in a row of the limits."""
    (cell,) = [line.split(" | ")[2].rstrip(" |") for line in text.splitlines() if mode in line and limit in line]
    return cell


def test_limits_are_judged_by_the_figures(figures: dict[str, Any]) -> None:
    """A value at the limit meets it, a value above does not, and both are printed."""
    text = tables.limits_table(figures)
    assert judged(text, "aggregate, fentry", "0.40 × perf record") == "0.40, met"
    assert judged(text, "live, fentry", "1.02 × kalloctrace aggregate") == "1.00, met"
    assert judged(text, "aggregate, fentry", "0.30 × bpftrace") == "0.40, **not met**"
    assert judged(text, "stream, kprobe", "0.45 × perf record") == "0.40, met"


def test_only_verify_has_a_required_rate(figures: dict[str, Any]) -> None:
    """Sixty nanoseconds per event are too slow for verify; other rates are only printed."""
    verify, report = tables.large_table(figures["large"]).splitlines()[-2:]
    assert "| 16,666,667, **not met** |" in verify
    assert "| 16,666,667 |" in report


def test_cheapest_of_several_peers_counts(figures: dict[str, Any]) -> None:
    """A limit is not met by comparison with the most expensive peer."""
    figures["kernels"]["5.10"]["rows"]["bpftrace equal information, fentry"] = figure(2000)
    assert judged(tables.limits_table(figures), "aggregate, fentry", "0.30 × bpftrace") == "0.40, **not met**"


def test_missing_row_is_a_gap(figures: dict[str, Any]) -> None:
    """A missing peer, a failed one and a missing row of ours are gaps with reasons, and meet no limit."""
    rows = figures["kernels"]["5.10"]["rows"]
    rows["perf record"] = figure(0, gap="perf is not installed")
    del rows["trace-cmd record"]
    rows["kalloctrace stream, fentry"] = figure(0, gap="no such mode")
    costs, limits = tables.cost_table(figures), tables.limits_table(figures)
    assert "| perf record | gfp, order, migratetype, pfn | gap: perf is not installed |" in costs
    assert "| trace-cmd record | gfp, order, migratetype, pfn | gap: not measured |" in costs
    assert judged(limits, "aggregate, fentry", "× perf record") == "gap: the peer was not measured"
    assert judged(limits, "stream, fentry", "× perf record") == "gap: ours was not measured"


def test_loss_is_printed_with_the_cost(figures: dict[str, Any]) -> None:
    """A tool saves the cost of events that it loses, so the loss is printed."""
    figures["kernels"]["5.10"]["rows"]["perf record"] = figure(1000, lost=100)
    assert "1,000 (2,000, lost 50%)" in tables.cost_table(figures)


def test_own_reading_and_starting_are_judged(figures: dict[str, Any]) -> None:
    """Each figure has its own limit."""
    assert "401, **not met**" in tables.own_table(figures)
    reading = tables.reading_table(figures)
    assert "1.00 s | 100, met |" in reading
    assert "1.00 s | 100, **not met** |" in reading
    assert "| `perf kmem` | gap: not here |" in reading
    assert "2.50, met" in tables.starting_table(figures)
    figures["starting"]["decode"] = 0.26
    assert "2.60, **not met**" in tables.starting_table(figures)


def test_costs_are_relative_to_the_untraced_figure() -> None:
    """Minimum and mean are relative to those of the same boot; a gap stays a gap."""
    result = {
        "untraced": [{"min": 100.0, "mean": 110.0}, {"min": 101.0, "mean": 130.0}],
        "rows": {"a": {"min": 150.0, "mean": 200.0, "captured": 7, "lost": 0}, "b": {"gap": "not installed"}},
    }
    assert costs(result) == {"a": Cost(50.0, 80.0, 7, 0), "b": Cost(gap="not installed")}


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("perf stat", "61674;;kmem:mm_page_alloc;2;100.00;;\n", 61674),
        (
            "trace-cmd record",
            (
                "cpus=1\n"
                "   dd-133   [000]    18.541851: mm_page_alloc:        page=0xffffffff9e084722 pfn=1069474 order=1\n"
                "   mm_page_alloc-134   [001]    18.541855: mm_page_alloc:        page=0xffffffff9e0846fe order=0\n"
            ),
            2,
        ),
        (
            "perf record",
            "Aggregated stats:\n     SAMPLE events:      7\nkmem:mm_page_alloc stats:\n     SAMPLE events:      7\n",
            7,
        ),
        ("bpftrace tracepoint", "Attaching 1 probe...\n\n@[1051850, 0]: 30\n@[3264, 1]: 12\n", 42),
        ("bpftrace rawtracepoint", "@: 42\n", 42),
        ("bcc funccount", "FUNC                 COUNT\nb'get_page_from_freelist'      42\n", 42),
        ("bcc argdist", "\t30         gfp = 1051850\n\t12         gfp = 3264\n", 42),
        ("bcc trace", "1 1 touch get_page_from_freelist 100cca 0\n1 1 touch get_page_from_freelist cc0 1\n", 2),
        ("kalloctrace stream, fentry", "69,787 allocations in 8.5 s (the command ended); lost 0, missed 0\n", 69787),
    ],
)
def test_captured_events_are_counted_for_each_tool(name: str, text: str, count: int) -> None:
    """The patterns match each tool's output."""
    (row,) = [row for row in (*PEERS, *OURS) if row.name == name]
    assert numbers(row.captured, text) == count
