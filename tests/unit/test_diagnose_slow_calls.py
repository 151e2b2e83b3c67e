# SPDX-License-Identifier: MIT
"""Reports of recorded calls of the slow path: groups of them, their objects and their text."""

import io
from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.console import Console
from kalloctrace.diagnose.reports.model import Frame
from kalloctrace.diagnose.slow_calls import (
    AttemptReport,
    SlowCallDescriber,
    SlowCallReport,
    SlowGroup,
    SlowGroups,
    grouped,
    slow_call_json,
)
from kalloctrace.diagnose.slow_calls_text import milliseconds, write_slow_calls
from kalloctrace.diagnose.slow_table import examples, slow_rows
from kalloctrace.diagnose.to_json import failure_json
from kalloctrace.model.kernel import Kernel
from kalloctrace.trace.clock import Clock, clock_of, kernel_seconds
from kalloctrace.verify.compare import Difference
from kalloctrace.verify.slowpath.judge import AttemptVerdict
from kalloctrace.verify.slowpath.trace import SlowJudge
from tests.diagnosed import judged, zone
from tests.unit.test_diagnose_from_trace import ARGUMENTS, ATTEMPT, call, recorded

LOW = judged(zone(100))
DIFFERENCE = Difference("alloc_flags", 1, 2, "a rule", "an effect")
VERDICTS = {
    "matched": AttemptVerdict(("retry",)),
    "mismatched": AttemptVerdict(("retry", "after_oom"), (DIFFERENCE,)),  # type: ignore[arg-type]
    "unknown": AttemptVerdict((), (), "why not"),
}


def attempt(verdict: str = "matched") -> AttemptReport:
    """Return an attempt with a verdict."""
    return AttemptReport({**ATTEMPT, "between": ["woke", "ran"]}, "GFP_KERNEL", "ALLOC_A|ALLOC_B", VERDICTS[verdict])


def report(time: int = 1, duration: int | None = 5, comm: str = "task", **more: Any) -> SlowCallReport:  # noqa: ANN401
    """Return the report of a call."""
    why = judged(zone(100), comm=comm)
    return SlowCallReport(call(time=time, duration=duration, **more), why, tuple(map(attempt, VERDICTS)))


def test_kinds_of_attempts() -> None:
    """Several if the trace does not decide."""
    kinds = {name: attempt(name).kind for name in VERDICTS}
    assert kinds == {"matched": "retry", "mismatched": "retry or after_oom", "unknown": "not classified"}


@pytest.mark.parametrize(
    ("page", "complete", "ended"),
    [
        (True, True, "a page"),
        (False, True, "NULL"),
        (None, True, "nothing yet, or its return was not seen"),
        (False, False, "NULL; events were lost"),
    ],
)
def test_ends(page: bool | None, complete: bool, ended: str) -> None:
    """What the call returned."""
    assert report(page=page, complete=complete).ended == ended


def test_groups() -> None:
    """By cause, the largest first; the slowest call stands for each."""
    calls = [
        report(5, 10, "a"), report(3, 30, "b"), report(9, None, "b"), report(4, 31, "b"), report(7, 31, "b"),
        report(8, 12, "a"), report(1, 1, "c"),
    ]  # fmt: skip
    found = grouped(calls)
    assert [(group.slowest.call["time"], group.calls, group.first, group.last) for group in found.groups] == [
        *((4, 4, 3, 9), (8, 2, 5, 8), (1, 1, 1, 1)),
    ]
    assert found.beyond == 0
    few = grouped(calls, 2)
    assert ([group.calls for group in few.groups], few.beyond) == ([4, 2], 1)
    one = SlowGroup(report(5, None), 1, 5, 5)
    one.add(report(6, 1))
    assert (one.slowest.call["time"], one.calls, one.first, one.last) == (6, 2, 5, 6)


def test_an_object() -> None:
    """The diagnosis, the mask that the slow path was given, the task, and each attempt."""
    made = slow_call_json(report(time=1, given={**ARGUMENTS, "gfp_mask": 0x820}))
    base = failure_json(LOW)
    assert {name: made[name] for name in base if name != "gfp"} == {name: base[name] for name in base if name != "gfp"}
    assert made["gfp"] == 0x820
    names = ("time", "cpu", "pid", "tid", "stack", "page", "duration", "complete")
    assert [made[name] for name in names] == [1, 0, 166, 166, "do_syscall_64;[mine];alloc_pages", False, 5, True]
    assert set(made) == {*base, *names, "attempts"}
    first, second, third = made["attempts"]
    assert first == {
        "number": 1,
        "kinds": ["retry"],
        "after": 5,
        "between": ["woke", "ran"],
        "gfp": 0xCC0,
        "gfp_text": "GFP_KERNEL",
        "alloc_flags": 0x840,
        "alloc_flags_text": "ALLOC_A|ALLOC_B",
        "verdict": "matched",
        "unknown": None,
        "differences": [],
    }
    assert (second["number"], second["verdict"], second["differences"]) == (2, "mismatched", [DIFFERENCE.to_json()])
    assert (third["number"], third["kinds"], third["unknown"]) == (3, [], "why not")


def described(**more: Any) -> SlowCallReport:  # noqa: ANN401
    """Return what is reported of a call."""
    snapshot = recorded()
    kernel = Kernel.of(snapshot)
    return SlowCallDescriber(snapshot, kernel, SlowJudge(snapshot, kernel)).describe(call(**more))


def test_calls_are_described() -> None:
    """One that got a page by what its fast path lacked; one that did not by its last attempt."""
    failed = described()
    assert (failed.why.logged.event, failed.why.why is not None) == ("failure", True)
    got = described(page=True, zone={"at": "begins"})
    assert (got.why.logged.event, got.why.why is not None) == ("stall", True)
    [one] = failed.attempts
    assert (one.gfp, one.alloc_flags, one.row["alloc_flags"]) == ("GFP_KERNEL", one.alloc_flags, 0x840)
    assert set(one.alloc_flags.split("|")) == {"ALLOC_WMARK_MIN", "ALLOC_CPUSET", "ALLOC_KSWAPD"}
    [none] = described(attempt={"gfp_mask": 0}).attempts
    assert none.gfp == "no flags"
    assert described(page=None).why.logged.event == "stall"


def test_times() -> None:
    """Seconds since the recording began, and as in the kernel's log; durations in milliseconds."""
    assert (kernel_seconds(1_234_567_890), milliseconds(1_234_567_890)) == ("1.234568 s", "1,234.568 ms")
    known = clock_of({"started_monotonic": 1.0}, 1_500_000_000, "the first call")
    assert (known.seconds(1_234_567_890), known.event) == ("0.234568 s", "the recording began")
    assert clock_of({"started_monotonic": 1.0}, 900_000_000, "the first call").began == 900_000_000
    assert clock_of({}, 5, "the first call") == Clock(5, "the first call")
    assert clock_of({}, None, "the first call").began == 0


def test_times_of_a_journal() -> None:
    """The wall-clock time of a call in UTC, to the second, where the recording has both clocks."""
    started = {"started": "2026-11-26T10:57:13+01:00", "started_monotonic": 1.0}
    clock = clock_of(started, 500_000_000, "the first call")
    assert clock.wall_time(1_000_000_000) == "2026-11-26T09:57:13+00:00"
    assert clock.wall_time(11_600_000_000) == "2026-11-26T09:57:23+00:00"
    assert clock.wall_time(10**21) is None
    for unknown in ("2026-11-26T10:57:13", "yesterday", "0001-01-01T00:00:00+14:00", None):
        assert clock_of(started | {"started": unknown}, None, "the first call").wall_time(0) is None
    assert clock_of({"started": started["started"]}, 5, "the first call").wall_time(5) is None
    stream = io.StringIO()
    group = SlowGroup(report(1_000_000_000, 5_000_000), 1, 1_000_000_000, 1_000_000_000)
    write_slow_calls(SlowGroups([group], 0), Console(stream), clock, None)
    text = " ".join(stream.getvalue().split())
    assert "(the kernel's log: 1.000000 s, a journal: about 2026-11-26T09:57:13+00:00), pid 166" in text


def test_rows_of_the_table() -> None:
    """By reason, zones and order, most calls first; examples are of different rows before there are two of one."""
    found = grouped([
        *(report(time, 5, comm) for time, comm in enumerate("aab")),
        report(7, 9, "c"),
        SlowCallReport(call(time=8, duration=70), judged(zone(100), order=3), ()),
    ])  # fmt: skip
    low, large = slow_rows(found.groups)
    assert (low.reason, low.zones, low.order, low.calls, low.worst) == ("too few pages", "node 0 Normal", 0, 4, 9)
    assert (large.order, large.calls, large.worst) == (3, 1, 70)
    assert sum(low.callers.values()) in (0, 4)
    shown = examples([low, large], 3)
    assert [(group.slowest.why.logged.order, group.calls) for group in shown] == [(0, 2), (3, 1), (0, 1)]


def test_callers_of_a_group_are_limited() -> None:
    """Beyond fifty they are counted together."""
    why = judged(zone(100))
    frames = [replace(why.logged, trace=(Frame(f"asks_{i}", None, reliable=True),)) for i in range(60)]
    reports = [SlowCallReport(call(), replace(why, logged=logged), ()) for logged in [*frames, frames[0]]]
    (group,) = grouped(reports).groups
    assert (len(group.callers), group.callers["asks_0"], group.callers["(others)"]) == (51, 2, 10)


def printed(*groups: SlowGroup, beyond: int = 0, top: int | None = None) -> str:
    """Return the text of groups."""
    stream = io.StringIO()
    write_slow_calls(SlowGroups(groups, beyond), Console(stream), Clock(500_000_000, "it began"), top)
    return " ".join(stream.getvalue().split())


def test_text() -> None:
    """The slowest call of each group, who called it, and its attempts."""
    group = SlowGroup(report(1_000_000_000, 5_000_000), 1, 1_000_000_000, 1_000_000_000)
    text = printed(group)
    assert "0.500000 s after it began (the kernel's log: 1.000000 s), pid 166, cpu 0; 6.1.100-amd64" in text
    assert "called by alloc_pages ← [mine] ← do_syscall_64" in text
    assert "__alloc_pages_slowpath returned NULL, after 5.000 ms" in text
    assert "of 2 such calls" not in text
    for word in (
        "retry or after_oom",
        "not classified",
        "woke ran",
        "0x840 ALLOC_A | ALLOC_B",
        "mismatched",
        "unknown",
    ):
        assert word in text, word
    many = SlowGroup(group.slowest, 1234, 1_000_000_000, 2_000_000_000)
    assert "the slowest of 1,234 such calls, from 0.500000 s to 1.500000 s (--json has each)" in printed(many)
    bare = SlowCallReport(call(stack="", duration=None, page=True), LOW, ())
    text = printed(SlowGroup(bare, 1, 9, 9))
    assert "called by" not in text
    assert " attempt " not in text
    assert "__alloc_pages_slowpath returned a page " in text
    assert printed(group, group).count("__alloc_pages_slowpath returned") == 2
    six = [group] * 6
    assert "… and 1 more groups and 3 calls of further causes; --top shows more groups" in printed(*six, beyond=3)
    assert "more groups" not in printed(*six, top=6)
    assert printed(*six).count("__alloc_pages_slowpath returned") == 5
    assert text_of_table(printed(group)) == "too few pages node 0 Normal 0 1 5.000 ms"


@pytest.mark.parametrize(("number", "hidden"), [(100, 0), (101, 1), (40_000, 39_900)])
def test_attempts_of_a_call_are_limited(number: int, hidden: int) -> None:
    """The first and the last fifty are shown, with their numbers."""
    one = report(1_000_000_000, 5_000_000)
    text = printed(SlowGroup(replace(one, attempts=one.attempts[:1] * number), 1, 9, 9))
    assert text.count("0x840 ALLOC_A") == number - hidden
    assert (" … " in text) == (hidden > 0)
    assert not hidden or f" … {hidden:,} more " in text
    assert f" 50 {one.attempts[0].kind} " in text
    assert f" {number} {one.attempts[0].kind} " in text


def text_of_table(text: str) -> str:
    """Return the only row of the table, without its callers."""
    return " ".join(text.partition("worst callers ")[2].split()[:10])
