# SPDX-License-Identifier: MIT
"""`kalloctrace bench`: the intervals, the table, and measuring tools that need no kernel."""

import io
import itertools
import math
import stat
from pathlib import Path

import pytest

from kalloctrace.bench import measure as measuring
from kalloctrace.bench.interval import FEWEST, Interval, interval
from kalloctrace.bench.machine import Machine, this_machine
from kalloctrace.bench.measure import Added, Result, measure
from kalloctrace.bench.text import result_json, write_result
from kalloctrace.bench.tools import PERF_STAT, Row, ours
from kalloctrace.bench.work import PAGES, WARM
from kalloctrace.console import Console
from tests.schemas import hold

MACHINE = Machine("6.12.0", "A Processor", 8, "performance", virtual=False)


@pytest.mark.parametrize("count", range(FEWEST, 40))
def test_an_interval_holds_the_median_with_95_percent(count: int) -> None:
    """Of all ways in which values lie around the true median, at most 5 % leave it outside; a narrower one, more."""
    found = interval(list(range(count)), 0)
    below = int(found.low)
    outside = 2 * sum(math.comb(count, heads) for heads in range(below + 1)) / 2**count
    narrower = outside + 2 * math.comb(count, below + 1) / 2**count
    assert found.high == count - 1 - below
    assert outside <= 0.05 < narrower


def test_fewer_repetitions_have_no_interval() -> None:
    """Five values leave the median outside in 6 %."""
    assert 2 / 2 ** (FEWEST - 1) > 0.05 >= 2 / 2**FEWEST


def script(folder: Path, name: str, text: str) -> str:
    """Write an executable script, and return its path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def row(*command: str) -> Row:
    """Return a row of a command that runs the work."""
    return Row("a tool", "a count", "count", command, r"^captured (\d+)", lost=r"lost (\d+)")


def test_tools_run_beside_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that captures is measured; what fails, is missing or captures nothing is a gap with its reason."""
    monkeypatch.setattr(measuring, "ROUNDS", 2)
    made = PAGES * (2 + WARM)
    counts = script(tmp_path, "counts", f'"$@"\necho captured {made}, lost 3')
    fails = script(tmp_path, "fails", "echo error: no such kernel; exit 3")
    nothing = script(tmp_path, "nothing", '"$@"; echo captured 0')
    rows = [row(counts, "{work}"), row(fails, "{work}"), row(nothing, "{work}"), row(str(tmp_path / "absent"))]
    shares: list[float] = []
    result = measure(rows, FEWEST, tmp_path, shares.append)
    captures, *gaps = result.added
    assert captures.ns is not None
    assert captures.ns.low <= captures.ns.median <= captures.ns.high
    assert (captures.captured, captures.lost) == (made * FEWEST, 3 * FEWEST)
    assert [gap.ns for gap in gaps] == [None] * 3
    assert gaps[0].gap.endswith("ended with 3: no such kernel")
    assert "captured nothing" in gaps[1].gap
    assert gaps[2].gap.endswith("is not installed")
    assert result.ns.median > 0
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_slow_machine_gets_fewer_repetitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is over, the fewest that have an interval suffice; without a limit there are all."""
    monkeypatch.setattr(measuring, "ROUNDS", 2)
    counts = script(tmp_path, "counts", '"$@"\necho captured 1')
    for enough, repeated in ((0.0, FEWEST), (None, FEWEST + 1)):
        result = measure([row(counts, "{work}")], FEWEST + 1, tmp_path, lambda _: None, enough)
        assert result.repeated == repeated


def test_a_tool_that_never_starts_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a gap, and no process is left."""
    monkeypatch.setattr(measuring, "ROUNDS", 2)
    monkeypatch.setattr(measuring, "_START_POLLS", 3)
    (hangs,) = measure([row(script(tmp_path, "hangs", "exec sleep 1000"))], FEWEST, tmp_path, lambda _: None).added
    assert "ended with -9" in hangs.gap


@pytest.fixture
def result() -> Result:
    """Return a measurement with a figure of ours, one of a peer, and a gap."""
    figures = itertools.count(100, 50)
    measured = [
        Added(one, Interval(next(figures), 90, 120, 80), None, 1000, 0)
        for one in (ours("aggregate", "auto"), PERF_STAT)
    ]
    return Result(Interval(900, 880, 930, 870), None, [*measured, Added(row("gone"), gap="gone is not installed")], 9)


def test_the_answer_comes_first(result: Result) -> None:
    """Our cheapest mode, the cheapest peer, the table, and what the machine is."""
    stream = io.StringIO()
    write_result(result, MACHINE, "fentry", Console(stream))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "kalloctrace aggregate adds 100 ns to an allocation (everything)"
    assert lines[1] == "perf stat adds 150 ns to an allocation (a count)"
    assert any("+100 [90, 120]" in line for line in lines)
    assert any("gone is not installed" in line for line in lines)
    assert any("real hardware" in line for line in lines)
    assert lines[-1] == "This machine does not count cycles."
    assert max(map(len, lines)) <= 100


def test_json_follows_its_schema(result: Result) -> None:
    """Closed, so that each key is declared; a gap has its reason and no figure."""
    found = result_json(result, MACHINE, "fentry")
    hold("bench", found)
    assert found["added"][2]["gap"] == "gone is not installed"
    assert found["added"][0]["ns"]["least"] == 80


def test_this_machine_has_facts() -> None:
    """They come from the running system."""
    found = this_machine()
    assert found.release
    assert found.cpus >= 1
