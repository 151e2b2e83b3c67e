# SPDX-License-Identifier: MIT
"""What slow calls spent their time with; expected numbers come from a plain loop over the calls."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.cli import main
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.report.query import groups
from kalloctrace.report.query.question import Question
from kalloctrace.report.query.slow import SlowAnswer, slow_answer
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.slow_split import PARTS, SlowSplit, parts_json, power_of, spent_with
from kalloctrace.trace.writer import TraceWriter
from tests.traces import RECORDED, source

FIXTURES = RECORDED.parents[1]
SPLIT = sorted(FIXTURES.glob("*/slow-parts.arrows"))
OLDER = FIXTURES / "7.3" / "slow.arrows"


def ask(path: Path, **asked: Any) -> SlowAnswer:  # noqa: ANN401 (attributes of a question)
    """Return the answer for a trace."""
    with TraceReader(path) as trace:
        return slow_answer(trace, Question(**{"by": (), **asked}))


def calls_of(path: Path) -> list[dict[str, Any]]:
    """Return the calls of the slow path of a trace."""
    with TraceReader(path) as trace:
        return list(trace.slow_calls())


def test_there_are_fixtures() -> None:
    """With and without waits for locks."""
    assert [path.parent.name for path in SPLIT] == ["5.10", "7.3"]


@pytest.mark.parametrize("path", SPLIT, ids=lambda path: path.parent.name)
def test_parts_add_up(path: Path) -> None:
    """Of each call exactly, and of all calls; only a kernel without contention events has no waits for locks."""
    calls = calls_of(path)
    assert all(sum(call[name] or 0 for name in PARTS) == call["duration"] for call in calls)
    assert {call["lock"] is None for call in calls} == {path.parent.name == "5.10"}
    found = ask(path).all
    assert found.calls == found.split == len(calls)
    assert sum(ns or 0 for ns in found.parts.values()) == found.time == sum(call["duration"] for call in calls)
    for name in ("reclaim", "compaction", "oom", "throttle", "rest"):
        assert found.parts[name] == sum(call[name] for call in calls) > 0


@pytest.mark.parametrize("path", SPLIT, ids=lambda path: path.parent.name)
def test_parts_agree_with_the_events(path: Path) -> None:
    """A call that did not reclaim or compact itself, or had no victim chosen, spent no time with it."""
    for call in calls_of(path):
        events = {event for attempt in call["attempts"] for event in attempt["between"]} | {*call["after_last"]}
        assert ("direct_reclaim" in events) == (call["reclaim"] > 0), call["time"]
        assert call["compaction"] == 0 or "compaction" in events
        assert "oom" not in events or call["oom"] > 0


@pytest.mark.parametrize("path", SPLIT, ids=lambda path: path.parent.name)
def test_histogram_and_groups(path: Path) -> None:
    """Powers of two with their longest call, for all calls and for each group."""
    calls = calls_of(path)
    found = ask(path, by=("order", "comm"))
    powers = Counter(power_of(call["duration"]) for call in calls)
    assert {power: bucket.calls for power, bucket in found.all.buckets.items()} == powers
    for power, bucket in found.all.buckets.items():
        longest = max(call["duration"] for call in calls if power_of(call["duration"]) == power)
        assert bucket.example["duration"] == longest < 2 << power
    keys = Counter((call["given"]["order"], call["comm"]) for call in calls)
    assert {key: group.calls for key, group in found.groups.items()} == keys
    first, second = (group.time for _, group in found.sorted()[:2])
    assert first >= second


def test_totals_are_the_sums_of_the_calls() -> None:
    """Those at the end of a trace, which `live` and the metrics show too."""
    for path in SPLIT:
        with TraceReader(path) as trace:
            totals = trace.ending().totals
        assert totals is not None
        assert totals.slow_split == SlowSplit().plus(calls_of(path))


def test_later_part_of_a_recording() -> None:
    """The sums of two parts are those of the whole; an example of the first is none of the second."""
    calls = calls_of(SPLIT[0])
    first, whole = SlowSplit().plus(calls[:1000]), SlowSplit().plus(calls)
    second = whole.since(first)
    assert first.calls + second.calls == whole.calls
    assert first.total + second.total == whole.total
    assert Counter(first.log2) + Counter(second.log2) == Counter(whole.log2)
    times = {call["time"] for call in calls[:1000]}
    assert not times & {example["time"] for example in second.examples.values()}
    assert whole.since(None) is whole
    assert SlowSplit.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_part_of_a_newer_recorder() -> None:
    """It is time of which this version knows nothing more."""
    data = SlowSplit(1, {**dict.fromkeys(PARTS, 1), "lock": None}, {2: 1}).to_json()
    data["parts"]["swap"] = 5
    assert SlowSplit.from_json(data).parts == {**dict.fromkeys(PARTS, 1), "lock": None, "rest": 6}


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"reclaim": 3, "lock": None, "rest": 1}, "reclaim 75%, rest 25%"),
        ({"reclaim": 1, "rest": 999}, "rest 100%"),
        ({"reclaim": None}, "not recorded"),
    ],
)
def test_shares_for_people(parts: dict[str, int | None], text: str) -> None:
    """The largest first; the smallest are left out."""
    assert spent_with(parts) == text


@pytest.mark.parametrize(("ns", "power"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (1023, 9), (1024, 10)])
def test_powers(ns: int, power: int) -> None:
    """A call of no time is with those of 1 ns."""
    assert power_of(ns) == power


def test_trace_without_parts() -> None:
    """Times and groups are there; what they were spent with is not known."""
    found = ask(OLDER)
    assert (found.all.split, found.all.parts) == (0, dict.fromkeys(PARTS))
    assert found.all.time == sum(call["duration"] for call in calls_of(OLDER))
    assert found.to_json((), found.all)["parts"] == parts_json(dict.fromkeys(PARTS))


def test_calls_are_selected() -> None:
    """As for other questions."""
    calls = calls_of(SPLIT[0])
    assert ask(SPLIT[0], orders=range(3, 4)).all.calls == sum(call["given"]["order"] == 3 for call in calls)
    assert ask(SPLIT[0], failed=True).all.calls == sum(call["page"] is False for call in calls)
    assert ask(SPLIT[0], slower_than=10**6).all.calls == sum(call["duration"] > 10**6 for call in calls)


def test_too_many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory has a limit."""
    monkeypatch.setattr(groups, "MOST_GROUPS", 2)
    with pytest.raises(KalloctraceError, match="more than 2 groups"):
        ask(SPLIT[0], by=("order", "comm"))


def test_slow_path_that_was_not_recorded() -> None:
    """It is the wrong trace for this question."""
    with pytest.raises(KalloctraceError, match="slow path was not recorded") as error:
        ask(RECORDED)
    assert error.value.code == Exit.USAGE


def test_group_says_which_calls_still_ran(tmp_path: Path) -> None:
    """They have no time, and are in no bucket."""
    snapshot, totals, _ = source()
    call = calls_of(OLDER)[0]
    with TraceWriter(tmp_path / "t.arrows", snapshot, {"mode": "aggregate", "slow": True}) as writer:
        writer.write_slow([{**call, "page": None, "duration": None, **dict.fromkeys(PARTS)}])
        writer.close(replace(totals, slow=1))
    group = ask(tmp_path / "t.arrows").all
    assert (group.calls, group.running, group.buckets, group.slowest) == (1, 1, {}, None)


def test_answer_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    """How much time, with what, and the slowest; then how long calls took, then the groups."""
    assert main(["report", "--slow", "--top", "2", str(SPLIT[1])]) == Exit.OK
    text = capsys.readouterr().out
    first, second, third, *_ = text.splitlines()
    assert first.startswith("4,467 slow calls took 6.75 s in all, 702 failed")
    assert second.startswith("rest 44%, reclaim 41%, compaction 13%")
    assert third == "the slowest took 1.23 s: order 9, khugepaged by alloc_charge_folio"
    assert text.index("took at least") < text.index("gfp  ") < text.index("more groups: --top 279")
    assert main(["report", "--slow", str(OLDER)]) == Exit.OK
    assert "this trace does not show what the time was spent with" in capsys.readouterr().out


def test_no_slow_call(capsys: pytest.CaptureFixture[str]) -> None:
    """That is the answer."""
    assert main(["report", "--slow", "--comm", "nobody", str(SPLIT[1])]) == Exit.OK
    assert capsys.readouterr().out == "no call of the slow path\n"


@pytest.mark.parametrize(
    ("words", "what"),
    [(["--sort", "time"], "--sort does not go with --slow"), (["--failures"], "--slow does not go with --failures")],
)
def test_options_that_do_not_go_together(words: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2."""
    assert main(["report", "--slow", *words, str(SPLIT[1])]) == Exit.USAGE
    assert what in capsys.readouterr().err
