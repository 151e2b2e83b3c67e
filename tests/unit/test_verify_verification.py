# SPDX-License-Identifier: MIT
"""The verdict on a whole recording: its counts, its JSON values and its exit code."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.errors import Exit
from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.model.kernel import Kernel
from kalloctrace.trace.reader import Ending, Pass, TraceReader
from kalloctrace.verify.compare import Difference, Switches
from kalloctrace.verify.slowpath.trace import SlowJudge, SlowMismatch, SlowVerification
from kalloctrace.verify.verification import (
    Mismatch,
    Shown,
    SlowPathOfTrace,
    Verification,
    add_slow_verdict,
    verify_trace,
)
from kalloctrace.verify.zonelists import ZonelistMismatch, ZonelistVerdict
from tests import traces

Row = dict[str, Any]
DIFFERENT = Difference("alloc_flags", 1, 2, "nofragment", "e")
CALL: Row = {"given": {"gfp_mask": 0xCC0, "order": 0}, "comm": "a", "time": 1}
BAD_LIST = ZonelistVerdict("", 1, (ZonelistMismatch("FALLBACK", 0, (ZoneRef(0, 2),), None, "r"),))


def test_an_empty_verdict_as_json() -> None:
    """Every key of `verify --json` is there, and every count is 0."""
    verdict = Verification("t", "6.12").to_json()
    counts = ("allocations", "distinct", "matched", "mismatched", "unknown", "bulk", "events", "lost", "missed")
    assert {name: verdict.pop(name) for name in (*counts, "slow_lost")} == dict.fromkeys((*counts, "slow_lost"), 0)
    assert verdict.pop("zonelists")["reason"] == "nothing was compared"
    assert isinstance(verdict.pop("proven"), dict)
    assert verdict == {
        "type": "verification",
        "trace": "t",
        "kernel": "6.12",
        "sample": 1,
        "missed_by": None,
        "bpf_calls": None,
        "audit": None,
        "truncated": False,
        "damage": "",
        "mismatches": [],
        "unknown_reasons": {},
        "not_judged": {},
        "fields": {},
        "slow": None,
    }


def test_a_mismatch_as_json() -> None:
    """It has its count, the request, and the difference."""
    assert Mismatch(3, {"order": 0}, DIFFERENT).to_json() == {
        "count": 3,
        "request": {"order": 0},
        "field": "alloc_flags",
        "expected": 1,
        "observed": 2,
        "rule": "nofragment",
        "effect": "e",
    }


@pytest.mark.parametrize(
    ("changes", "incomplete"),
    [
        ({}, False),
        ({"lost": 1}, True),
        ({"missed": 1}, True),
        ({"unknown": 1}, True),
        ({"slow_lost": 1}, True),
        ({"truncated": True}, True),
        ({"slow": SlowVerification()}, False),
        ({"slow": SlowVerification(unknown=1)}, True),
        ({"slow": SlowVerification(calls_unknown=1)}, True),
    ],
    ids=str,
)
def test_what_makes_a_verdict_incomplete(changes: Row, incomplete: bool) -> None:
    """Loss and doubt matter only with --strict."""
    verdict = Verification("t", "k", **changes)
    assert verdict.incomplete is incomplete
    assert verdict.exit_code(strict=False) == Exit.OK
    assert verdict.exit_code(strict=True) == (Exit.INCOMPLETE if incomplete else Exit.OK)


@pytest.mark.parametrize(
    "changes",
    [
        {"mismatched": 1},
        {"zonelists": BAD_LIST},
        {"slow": SlowVerification(mismatches=[SlowMismatch("attempt", DIFFERENT, CALL)])},
    ],
    ids=["row", "zonelist", "slow path"],
)
def test_a_mismatch_outweighs_loss(changes: Row) -> None:
    """Each kind of mismatch gives the exit code of a mismatch."""
    assert Verification("t", "k", lost=1, **changes).exit_code(strict=True) == Exit.MISMATCH
    assert Verification("t", "k", **changes).exit_code(strict=False) == Exit.MISMATCH


def verified(path: Path) -> Verification:
    """Return the verdict on a trace."""
    with TraceReader(path) as trace:
        return verify_trace(trace)


def test_rows_are_counted_by_their_verdicts(tmp_path: Path) -> None:
    """Equal rows are one distinct row; each count is one of allocations."""
    wrong, unknown = {"migratetype": 99}, {"alloc_flags": None}
    other = {"freelist_order": 9}
    counted: list[tuple[Row, int]] = [({}, 5), (other, 2), (wrong, 3), (unknown, 4), ({**unknown, "order": 1}, 2)]
    verdict = verified(traces.aggregate(tmp_path / "t.arrows", *counted, recording={"sample": 7}))
    numbers = (verdict.allocations, verdict.distinct, verdict.matched, verdict.mismatched, verdict.unknown)
    assert numbers == (16, 5, 5, 5, 6)
    assert (verdict.bulk, verdict.events, verdict.lost, verdict.truncated) == (0, 0, 0, False)
    assert [(each.count, each.difference.field) for each in verdict.mismatches] == [
        (3, "migratetype"),
        (2, "freelist_order"),
    ]
    assert verdict.unknown_reasons == {"the row is damaged": 6}
    assert verdict.fields["migratetype"].to_json() == {"equal": 7, "different": 3, "unknown": 0}
    assert verdict.fields["freelist_order"].to_json() == {"equal": 8, "different": 2, "unknown": 0}
    assert verdict.trace.endswith("t.arrows")
    assert verdict.kernel == traces.source()[0].release
    request = verdict.mismatches[0].request
    assert request["gfp_mask"] == traces.source()[2]["gfp_mask"]
    assert "cpusets_enabled" in request
    assert "migratetype" not in request
    assert verdict.to_json()["mismatches"][0]["count"] == 3
    assert verdict.to_json()["fields"]["migratetype"]["different"] == 3


def test_the_slow_path_is_judged_where_it_was_recorded(tmp_path: Path) -> None:
    """Its lost events are counted; a trace without it has no such verdict."""
    calls = traces.slow_calls()[:3]
    verdict = verified(traces.slow(tmp_path / "slow.arrows", *calls, lost=2))
    assert verdict.slow is not None
    assert (verdict.slow.calls, verdict.slow_lost) == (3, 2)
    assert verdict.to_json()["slow"]["calls"] == 3
    assert verified(traces.stream(tmp_path / "t.arrows", {})).slow is None
    none = verified(traces.slow(tmp_path / "none.arrows"))
    assert none.slow == SlowVerification()


@pytest.mark.parametrize(
    ("rows", "calls", "expected"),
    [
        ((False, ""), (False, ""), (False, "")),
        ((False, ""), (True, "bad call"), (True, "bad call")),
        ((True, "bad row"), (False, ""), (True, "bad row")),
        ((True, "bad row"), (True, "bad call"), (True, "bad row")),
    ],
)
def test_damage_among_the_calls_counts_as_well(
    monkeypatch: pytest.MonkeyPatch, rows: tuple[bool, str], calls: tuple[bool, str], expected: tuple[bool, str]
) -> None:
    """The pass over the rows does not read the calls of the slow path; the damage that comes first is named."""
    snapshot, totals, _ = traces.source()
    judge = SlowJudge(snapshot, Kernel.of(snapshot))
    recorded = SlowPathOfTrace(judge, Pass.empty(Ending(totals, *calls)), 3)
    monkeypatch.setattr("kalloctrace.verify.verification.slow_path_of", lambda *_: recorded)
    verdict = Verification("t", "k", truncated=rows[0], damage=rows[1])
    with TraceReader(traces.RECORDED) as trace:
        add_slow_verdict(verdict, trace, Ending(totals, *rows))
    assert (verdict.truncated, verdict.damage) == expected
    assert (verdict.slow, verdict.slow_lost) == (SlowVerification(), 3)


def test_a_truncated_trace_has_no_totals(tmp_path: Path) -> None:
    """What was lost is not known then, and the slow path is judged as far as it goes."""
    path = traces.slow(tmp_path / "slow.arrows", *traces.slow_calls()[:3], lost=2)
    path.write_bytes(path.read_bytes()[:-200])
    verdict = verified(path)
    assert verdict.truncated
    assert (verdict.lost, verdict.missed, verdict.slow_lost) == (0, 0, 0)
    assert verdict.exit_code(strict=True) == Exit.INCOMPLETE


def test_switches_have_all_values_of_the_recording() -> None:
    """A number of cpusets counts as on; events of other tools and damaged rows have no switches."""
    row: Row = {"entry": "normal", "cpusets_enabled": 0, "gfp_allowed_mask": 1, "task_flags": 0, "defrag_mode": False}
    rows = [
        row,
        {**row, "cpusets_enabled": 1, "gfp_allowed_mask": 2},
        {**row, "cpusets_enabled": 2, "defrag_mode": True},
        {**row, "entry": "tracepoint", "migratetype": 0, "gfp_allowed_mask": 4},
        {**row, "gfp_allowed_mask": 8, "defrag_mode": None},
    ]
    assert Shown(rows).switches() == Switches(frozenset({False, True}), frozenset({1, 2}), frozenset({False, True}))
    assert Shown([{**row, "cpusets_enabled": 1}]).switches().cpusets_enabled == {True}


def test_only_as_many_masks_as_a_kernel_has_are_tried() -> None:
    """A damaged trace may have one in each row; each mismatch would then be compared with all of them."""
    row: Row = {"entry": "normal", "cpusets_enabled": 0, "task_flags": 0, "defrag_mode": False}
    masks = Shown({**row, "gfp_allowed_mask": mask} for mask in range(100)).switches().gfp_allowed_mask
    assert masks == {0, 1, 2, 3}


def test_mismatches_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The most frequent ones are kept; the others are counted, and each is in the sums."""
    changes = [({"alloc_flags": 0x4000 + number}, 1 + number) for number in range(9)]
    path = traces.aggregate(tmp_path / "t.arrows", *changes)
    with TraceReader(path) as trace:
        every = verify_trace(trace)
        monkeypatch.setattr("kalloctrace.verify.verification.MOST_MISMATCHES", 2)
        some = verify_trace(trace)
    assert (len(every.mismatches), every.not_shown) == (9, 0)
    assert "mismatches_not_shown" not in every.to_json()
    assert some.mismatches == every.mismatches[:2]
    assert some.to_json()["mismatches_not_shown"] == 7
    assert some.mismatched == every.mismatched == some.differing["alloc_flags"] == 45


def test_memory_does_not_hold_all_rows(tmp_path: Path) -> None:
    """As Python values a distinct allocation takes 3 KB; a few are made at a time."""
    peaks = []
    for number in (1_200, 3_600):
        with TraceReader(traces.varied(tmp_path / f"{number}.arrows", number)) as trace:
            tracemalloc.start()
            verify_trace(trace)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 2_400 * 500
