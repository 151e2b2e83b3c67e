# SPDX-License-Identifier: MIT
"""The benchmark's tables and its page: figures, and gaps with their reasons."""

from typing import Any

import pytest

from kalloctrace.bench.tools import numbers, reason
from tests.bench import page, tables
from tests.bench.cost import Cost, costs
from tests.bench.rows import FLOORS, OURS, PEERS


def figure(least: float, gap: str = "", lost: int = 0) -> dict[str, Any]:
    """Return a row's figures."""
    return {"least": least, "mean": least * 2, "captured": 100, "lost": lost, "gap": gap, "drift": 3.0}


@pytest.fixture
def figures() -> dict[str, Any]:
    """Return the figures of one kernel, as in recorded.json."""
    rows = {row.name: figure(1000) for row in (*PEERS, *FLOORS)} | {row.name: figure(400) for row in OURS}
    own = {
        "ours: consumer": {"an event": 401.0, "events": 1000, "lost": 3},
        "ours: start": {"begins": 2_000_000, "compiles": 1_000_000, "VmRSS": 2048, "RssAnon": 1024, "VmHWM": 4096},
    }
    reading = {"command": "kalloctrace verify", "events": 10, "nanoseconds": 10.0, "start": 1.0, "gap": ""}
    return {
        "date": "2026-01-01",
        "tools": ["perf version 6.1"],
        "kernels": {
            "5.10": {
                "date": "2026-01-02",
                "release": "5.10.0",
                "untraced": figure(3000),
                "rows": rows,
                "own": own,
                "own_date": "2026-01-02",
            }
        },
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


def test_only_verify_has_a_required_rate(figures: dict[str, Any]) -> None:
    """Sixty nanoseconds per event are too slow for verify; other rates are only printed."""
    verify, report = tables.large_table(figures["large"]).splitlines()[-2:]
    assert "| 16,666,667, **not met** |" in verify
    assert "| 16,666,667 |" in report


def test_missing_row_is_a_gap(figures: dict[str, Any]) -> None:
    """A missing peer and a failed one have no figure, and say why."""
    rows = figures["kernels"]["5.10"]["rows"]
    rows["perf record"] = figure(0, gap="perf is not installed")
    del rows["trace-cmd record"]
    costs = tables.cost_table(figures)
    assert "| perf record | gfp, order, migratetype, pfn | perf is not installed |" in costs
    assert "| trace-cmd record | gfp, order, migratetype, pfn | not measured |" in costs


def test_page_says_how_far_the_untraced_figure_moved(figures: dict[str, Any]) -> None:
    """The page has the method, when each kernel was measured, and the largest difference of two untraced runs."""
    figures["kernels"]["5.10"]["rows"]["perf stat"]["drift"] = 61.0
    text = page.page(figures)
    assert "5.10: 5.10.0 (2026-01-02)" in text
    assert "differed by at most 61, " in text
    assert "right before and right after each tool" in text


def test_earlier_figure_has_its_date(figures: dict[str, Any]) -> None:
    """A row of another day is marked, and the page says when and how it was measured; it does not count as drift."""
    assert tables.EARLIER not in page.page(figures)
    figures["kernels"]["5.10"]["rows"]["perf record"] |= {"date": "2025-12-24", "drift": 900.0}
    for text in (page.page(figures), page.summary(figures)):
        assert f"| perf record | gfp, order, migratetype, pfn | 1,000 (2,000){tables.EARLIER} |" in text
        assert f"{tables.EARLIER} Measured on 2025-12-24 in another boot" in text
    assert "differed by at most 3, " in page.page(figures)
    del figures["kernels"]["5.10"]["rows"]["perf record"]["date"]
    figures["kernels"]["5.10"]["rows"]["trace-cmd record"]["date"] = "2025-12-24"
    assert tables.EARLIER not in page.summary(figures)


def test_readme_has_a_small_table(figures: dict[str, Any]) -> None:
    """It has the rows that most readers look for, and no floors."""
    text = page.summary(figures)
    assert "| perf stat |" in text
    assert "| **kalloctrace aggregate** |" in text
    assert "empty" not in text
    assert len(text.splitlines()) <= 12


def test_loss_is_printed_with_the_cost(figures: dict[str, Any]) -> None:
    """A tool saves the cost of events that it loses, so the loss is printed."""
    figures["kernels"]["5.10"]["rows"]["perf record"] = figure(1000, lost=100)
    assert "1,000 (2,000, lost 50.0%)" in tables.cost_table(figures)


def test_processors_must_have_equal_counts() -> None:
    """A difference is printed with its sign; memory is in MiB."""
    one = {"counted": 100, "captured": 100, "lost": 0, "missed": 0, "maps": 3 << 19, "VmRSS": 2048, "RssAnon": 1024}
    two = {**one, "captured": 98, "missed": 2}
    _, _, first, second = tables.processors_table([{"cpus": 64, "aggregate": one, "stream": two}]).splitlines()
    assert first == "| 64 | aggregate | 100 | 100, equal | 0 | 0 | 1.5 | 2 | 1 |"
    assert second == "| 64 | stream | 100 | 98, **-2** | 0 | 2 | 1.5 | 2 | 1 |"


def test_own_reading_and_starting_are_judged(figures: dict[str, Any]) -> None:
    """Each figure has its own limit."""
    assert "401, **not met**" in tables.own_table(figures)
    reading = tables.reading_table(figures)
    assert "1.00 s | 100, met |" in reading
    assert "1.00 s | 100, **not met** |" in reading
    assert "| `perf kmem` | not here |" in reading
    assert "2.50, met" in tables.starting_table(figures)
    figures["starting"]["decode"] = 0.26
    assert "2.60, **not met**" in tables.starting_table(figures)


def test_costs_are_relative_to_the_runs_right_before_and_after() -> None:
    """The untraced figure moves within a boot, so that of another time does not count; a gap stays a gap."""
    result = {
        "boot": "3f2e",
        "untraced": [{"min": 40.0, "mean": 50.0}],
        "rows": {
            "a": {
                "min": 150.0,
                "mean": 200.0,
                "captured": 7,
                "lost": 0,
                "before": {"min": 100.0, "mean": 110.0},
                "after": {"min": 104.0, "mean": 130.0},
            },
            "b": {"gap": "not installed"},
        },
    }
    assert costs(result) == {
        "a": Cost(48.0, 80.0, 7, 0, drift=4.0, boot="3f2e"),
        "b": Cost(gap="not installed", boot="3f2e"),
    }


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
        ("empty jump, both", "each program ran 2058 times for 2048 allocations\n", 2058),
        ("kalloctrace stream", "69,787 allocations in 8.5 s (the command ended); lost 0, missed 0\n", 69787),
    ],
)
def test_captured_events_are_counted_for_each_tool(name: str, text: str, count: int) -> None:
    """The patterns match each tool's output."""
    (row,) = [row for row in (*PEERS, *FLOORS, *OURS) if row.name == name]
    assert numbers(row.captured, text) == count


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "FATAL: Invalid probe type made it to attachpoint parser\n",
            "Invalid probe type made it to attachpoint parser",
        ),
        (
            "/x/equal-fentry.bt:1-6: ERROR: kfunc/kretfunc not available for your kernel version.\n",
            "kfunc/kretfunc not available for your kernel version.",
        ),
        (
            "/virtual/main.c:3:10: fatal error: 'linux/sched.h' file not found\n",
            "'linux/sched.h' file not found",
        ),
        (
            "error: Invalid value for '--attach': 'one' is not one of 'auto'\n  why: x\n",
            "Invalid value for '--attach': 'one' is not one of 'auto'",
        ),
        ("error:\n", "error:"),
        ("first\nlast\n", "last"),
        ("", "it printed nothing"),
    ],
)
def test_reason_is_plain(text: str, why: str) -> None:
    """What a tool prints before its reason is left out."""
    assert reason(text) == why
