# SPDX-License-Identifier: MIT
"""The head of a live table, which is always visible, and a row in full."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kalloctrace.live.history import History, sparkline
from kalloctrace.live.table import LiveTable
from kalloctrace.live.text import (
    call_parts,
    loss_parts,
    reason_parts,
    slow_parts,
    time_parts,
    totals_json,
    verdict_parts,
    wrapped,
)
from kalloctrace.trace.observation import Observation
from kalloctrace.trace.slow_split import PARTS, SlowSplit, parts_json
from tests.traces import source


def table(
    *,
    failed_rate: float | None = None,
    slow_rate: float | None = None,
    slow_ns: int | None = 4_000_000,
    **totals: Any,  # noqa: ANN401  (members of the totals)
) -> LiveTable:
    """Return a table with totals."""
    _, recorded, _ = source()
    numbers = dict.fromkeys(("count", "distinct", "matched"), 7) | {"mismatched": 0, "unknown": 0}
    rates = {"rate": 1.0, "failed_rate": failed_rate, "slow_rate": slow_rate, "slow_ns": slow_ns, "slowest_ns": 3_100}
    shown = SimpleNamespace(seconds=2.0, interval=1.0, totals=replace(recorded, **totals), **rates, **numbers)
    return cast("LiveTable", shown)


def test_failures_come_before_the_slow_path() -> None:
    """Both have their rate, and a colour once they are not 0."""
    seen = table(slow=6, slow_failed=5, slow_rate=60.0, failed_rate=0.5)
    assert slow_parts(seen) == [("failed 5 calls (71%), 0.5/s", "bad"), ("slow 6 calls (86%), 60/s", "doubt")]
    assert slow_parts(table(slow=0, slow_failed=0)) == [
        ("failed 0 calls, 0/s", "plain"),
        ("slow 0 calls, 0/s", "plain"),
    ]
    assert totals_json(seen)["slow_failed"] == 5


def test_events_of_the_slow_path_that_were_lost_are_a_loss() -> None:
    """They are named beside lost calls, as in a report; where there were none, nothing is added."""
    seen = table(slow_lost=3, slow_missed=2)
    assert ("slow-path events lost or missed 5", "doubt") in loss_parts(seen.totals, replayed=False)
    assert (totals_json(seen)["slow_lost"], totals_json(seen)["slow_missed"]) == (3, 2)
    assert len(loss_parts(table().totals, replayed=False)) == 3


def test_time_of_slow_calls_has_its_parts() -> None:
    """In a line of its own, where it is recorded and not zero; as JSON in ns."""
    split = SlowSplit(2, {**dict.fromkeys(PARTS, 0), "reclaim": 3, "lock": None, "rest": 1})
    seen = table(slow=2, slow_split=split)
    slowest = ("the slowest 3.1 us", "plain")
    assert time_parts(seen) == [("slow path 4 ms in all: reclaim 75%, rest 25%", "plain"), slowest]
    assert (totals_json(seen)["slow_ns"], totals_json(seen)["slowest_ns"]) == (4_000_000, 3_100)
    assert totals_json(seen)["slow_parts"] == parts_json(split.parts)
    for nothing in (None, SlowSplit()):
        assert time_parts(table(slow=2, slow_split=nothing)) == [("slow path 4 ms in all", "plain"), slowest]
    assert time_parts(table(slow_ns=0)) == time_parts(table(slow_ns=None)) == []
    assert totals_json(table(slow=2))["slow_parts"] is None


def test_slow_path_that_is_not_recorded_has_no_number() -> None:
    """An unknown number is omitted, not shown as 0."""
    assert slow_parts(table(slow=None)) == []
    assert totals_json(table(slow=None))["slow"] is None


def test_older_traces_do_not_say_how_many_failed() -> None:
    """Their recorder did not count failures separately."""
    assert slow_parts(table(slow=9)) == [("slow 9 calls, 0/s", "doubt")]
    assert totals_json(table(slow=9))["slow_failed"] is None


def test_each_colour_has_its_reason() -> None:
    """There is a reason for each count in red or yellow; missed hits have reasons of their own, and green is all."""
    for seen in (
        table(slow=0, slow_failed=0),
        table(slow=3, slow_failed=0),
        table(slow=3, slow_failed=2),
        table(dropped=4),
        cast("LiveTable", SimpleNamespace(**{**vars(table()), "matched": 5, "mismatched": 1, "unknown": 1})),
    ):
        parts = [*slow_parts(seen), *loss_parts(seen.totals, replayed=False), *verdict_parts(seen)]
        coloured = {(text.split()[0], style) for text, style in parts if style in ("bad", "doubt")}
        assert {(text.split(":")[0], style) for text, style in reason_parts(seen)} == coloured
    assert verdict_parts(table())[0] == ("model: matched 7 of 7 calls", "good")


def test_replay_says_what_is_of_the_whole_trace() -> None:
    """A trace does not say when a call was lost."""
    assert loss_parts(table().totals, replayed=True)[0][0] == "of the whole trace:"
    assert len(loss_parts(table().totals, replayed=False)) == 3


@pytest.mark.parametrize(
    ("values", "width", "bars"),
    [
        ([], 5, ""),
        ([0.0, 0.0], 5, "▁▁"),
        ([0.0, 7.0, 3.5], 5, "▁█▅"),
        ([0.001, 1000.0], 5, "▂█"),
        ([9.0, 1.0, 0.0], 2, "█▁"),
    ],
)
def test_bars_show_the_last_values(values: list[float], width: int, bars: str) -> None:
    """The largest one shown is the highest; a tiny one is not drawn as 0."""
    assert sparkline(values, width) == bars


def _seen(seconds: float, calls: int, slow: int | None, failed: int | None) -> Observation:
    counts = SimpleNamespace(sum=lambda: calls)
    return cast(
        "Observation",
        SimpleNamespace(seconds=seconds, counts=counts, totals=SimpleNamespace(slow=slow, slow_failed=failed)),
    )


def test_history_has_the_rate_of_each_interval() -> None:
    """Calls, slow calls and failed calls per second; what is not recorded has none, an empty interval is none."""
    history, seen = History(), [_seen(0.0, 0, 0, 0), _seen(2.0, 10, 4, 0), _seen(3.0, 11, 4, 3)]
    for before, now in zip([None, *seen], seen, strict=False):
        history.add(before, now)
    assert [list(rates) for rates in (history.calls, history.slow, history.failed)] == [
        [5.0, 1.0],
        [2.0, 0.0],
        [0.0, 3.0],
    ]
    bars = call_parts(table(), history=history)[0][0]
    assert bars.endswith(" █▂")
    history.add(None, _seen(1.0, 1, None, None))
    assert len(history.slow) == 2


def test_words_break_where_a_reader_can_join_them() -> None:
    """A mask breaks after a |, a stack after a <; nothing is left out and no line is wider."""
    words = ["calls=1", "gfp=" + "|".join(["__GFP_COMP"] * 12), "stack=" + "<".join(["handle_mm_fault"] * 9)]
    lines = wrapped(words, 79)
    assert max(map(len, lines)) <= 79
    assert "".join(lines).replace("  ", "") == "".join(words)
    assert {line[-1] for line in lines[:-1]} <= {"|", "<", "P"}
