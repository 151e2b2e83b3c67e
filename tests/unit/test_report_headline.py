# SPDX-License-Identifier: MIT
"""The first lines of a report."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.__main__ import main
from kalloctrace.report.headline import headline, model_line
from kalloctrace.report.slow_time import SlowTime
from kalloctrace.report.summary import Summary, summarize
from kalloctrace.report.summary_text import total_fields
from kalloctrace.text import duration, share
from kalloctrace.trace.audited import Audited
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.slow_split import PARTS
from kalloctrace.verify.verification import Verification
from tests import traces

FIXTURES = Path(__file__).parents[2] / "fixtures"


def summary_of(name: str) -> tuple[Summary, Verification]:
    """Return the summary of a fixture."""
    with TraceReader(FIXTURES / name) as trace:
        return summarize(trace)


def call(duration_ns: int | None, **changed: object) -> dict[str, Any]:
    """Return a call of the slow path, as far as its time needs it."""
    given = {"gfp_mask": 0xCC0, "order": 2}
    return {"duration": duration_ns, "given": given, "comm": "cc1", "page": True, **dict.fromkeys(PARTS), **changed}


def test_failures_come_first() -> None:
    """A recording under memory pressure begins with its failures, and the time in the slow path."""
    summary, verdict = summary_of("7.3/slow.arrows")
    with TraceReader(FIXTURES / "7.3/slow.arrows") as trace:
        calls = list(trace.slow_calls())
    failed = sum(one["page"] is False for one in calls)
    total = sum(one["duration"] or 0 for one in calls)
    slowest = max(one["duration"] or 0 for one in calls)
    lines = [*headline(summary), model_line(verdict)]
    assert lines[0].text.startswith(f"{failed:,} of {summary.all.count:,} allocations failed")
    assert lines[0].tone == "bad"
    assert lines[1].text.startswith(f"{len(calls):,} took the slow path, {duration(total)} in all")
    assert duration(slowest) in lines[1].text
    assert [line.tone for line in lines[1:]] == ["plain", "good", "good"]
    assert summary.to_json(verdict, 1)["slow_ns"] == total


def test_an_ordinary_run_is_said_to_be_one() -> None:
    """Without failures or losses, each line says so."""
    summary, verdict = summary_of("5.10/two-nodes.arrows")
    summary.failed = 0
    texts = [line.text for line in (*headline(summary), model_line(verdict))]
    assert texts == [
        f"none of {summary.all.count:,} allocations failed",
        "the slow path was not recorded",
        "nothing was lost or missed",
        f"as the model predicts: matched {verdict.matched:,}  mismatched 0  unknown 0",
    ]


def test_an_empty_recording_is_not_said_to_be_good(tmp_path: Path) -> None:
    """Nothing failed, and nothing was right either."""
    with TraceReader(traces.aggregate(tmp_path / "t.arrows")) as trace:
        summary, verdict = summarize(trace)
    lines = [next(iter(headline(summary))), model_line(verdict)]
    assert [line.tone for line in lines] == ["plain", "plain"]
    assert lines[0].text == "no allocation was recorded"


def test_one_is_no_plural() -> None:
    """One call is an allocation, not allocations."""
    summary, _ = summary_of("5.10/two-nodes.arrows")
    summary.failed, summary.all.count = 0, 1
    assert next(iter(headline(summary))).text == "none of 1 allocation failed"


def test_an_audit_that_differs_is_the_worst() -> None:
    """One that does not is no line."""
    summary, verdict = summary_of("5.10/two-nodes.arrows")
    assert summary.totals is not None
    agreed = Audited(windows=2, one=10, pair=10)
    summary.totals = replace(summary.totals, audit=agreed)
    assert "nothing was lost or missed" in [line.text for line in headline(summary)]
    assert summary.to_json(verdict, 1)["audit"] == agreed.to_json()
    summary.totals = replace(summary.totals, audit=replace(agreed, one=9, differing=1, fields={"order": 1}))
    (line,) = (line for line in headline(summary) if "audit" in line.text)
    assert line.text.startswith("the audit DIFFERS: 9 calls of one probe, 10 of the pair")
    assert line.tone == "bad"
    (field,) = (field for field in total_fields(summary) if field[0] == "audit")
    assert field[1] == 1


def test_what_was_not_recorded_is_not_said_to_be_good() -> None:
    """Returns that nobody traced, and a recording without its end."""
    summary, _ = summary_of("5.10/two-nodes.arrows")
    summary.failed, summary.not_followed, summary.totals = 0, 5, None
    lines = list(headline(summary))
    assert lines[0].text.endswith("whether some of them failed was not recorded")
    assert [line.tone for line in lines] == ["plain", "plain", "doubt"]
    assert lines[1].text == "the slow path was not recorded"


def test_a_slow_path_without_times() -> None:
    """Calls that searched more than once took it, even if it was not recorded."""
    summary, _ = summary_of("6.1/stimulus-cpusets.arrows")
    assert summary.slow_path
    line = list(headline(summary))[1]
    assert line == (f"at least {summary.slow_path:,} took the slow path; their time was not recorded", "plain")


@pytest.mark.parametrize(
    ("trace", "command"),
    [("6.1/stimulus.arrows", "--by gfp,order --failed"), ("7.3/slow.arrows", "--failures")],
)
def test_the_command_that_says_which_calls_failed(capsys: pytest.CaptureFixture[str], trace: str, command: str) -> None:
    """It is one that works with the trace."""
    path = FIXTURES / trace
    assert main(["report", "--top", "1", str(path)]) == 0
    assert f"kalloctrace report {command} {path}" in capsys.readouterr().out
    assert main(["report", "--top", "1", *command.split(), str(path)]) == 0


@pytest.mark.parametrize(
    ("counts", "text", "tone"),
    [
        ({"mismatched": 2, "unknown": 1}, "not as the model predicts: matched 0  mismatched 2  unknown 1", "bad"),
        (
            {"matched": 7, "unknown": 1},
            "as the model predicts, where it can tell: matched 7  mismatched 0  unknown 1",
            "doubt",
        ),
        ({"matched": 7}, "as the model predicts: matched 7  mismatched 0  unknown 0", "good"),
        ({"unknown": 2}, "the model can judge none of them: matched 0  mismatched 0  unknown 2", "doubt"),
        ({}, "there is nothing to compare with the model", "plain"),
    ],
)
def test_the_verdict_is_the_worst(counts: dict[str, int], text: str, tone: str) -> None:
    """Mismatches come before what cannot be judged."""
    verdict = Verification("t", "5.10")
    for name, number in counts.items():
        setattr(verdict, name, number)
    assert model_line(verdict) == (text, tone)


def test_the_slowest_call_is_one_that_returned() -> None:
    """A call without a captured return counts, but has no time."""
    slow = SlowTime()
    for one in (call(None), call(2_000_000), call(5_000_000, page=False), call(4_000_000)):
        slow.add(one)
    assert (slow.calls, slow.total) == (4, 11_000_000)
    assert slow.to_json()["slowest"] == {
        "duration_ns": 5_000_000,
        "order": 2,
        "gfp_mask": 0xCC0,
        "comm": "cc1",
        "failed": True,
    }


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0 ns"), (999, "999 ns"), (1_000, "1 us"), (1_240_000_000, "1.24 s"), (158_400_000, "158 ms")],
)
def test_durations_have_three_digits(ns: int, text: str) -> None:
    """In the largest unit that leaves a number of at least one."""
    assert duration(ns) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"), [(42, 100, "42%"), (352, 757_402, "0.046%"), (1, 26_662, "0.0038%"), (5, 5, "100%")]
)
def test_shares_keep_what_counts(part: int, whole: int, text: str) -> None:
    """A small share is not rounded to nothing."""
    assert share(part, whole) == text
