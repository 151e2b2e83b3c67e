# SPDX-License-Identifier: MIT
"""Recorded calls of the slow path become the model's types, are judged, and are counted."""

from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import Machine, ZoneRef
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.slowpath.types import Facts, SlowAttempt, SlowCall, SlowContext
from kalloctrace.model.types import Context, Request
from kalloctrace.verify.compare import Difference
from kalloctrace.verify.rows import DamagedRowError
from kalloctrace.verify.slowpath import trace
from kalloctrace.verify.slowpath.judge import AttemptVerdict
from kalloctrace.verify.slowpath.trace import (
    SlowJudge,
    SlowMismatch,
    SlowVerification,
    args_verdict,
    context_of_call,
    request_of_call,
    slow_call_of,
    slow_context,
    verify_slow,
)
from tests import traces
from tests.slow_scenarios import DMA32, NORMAL, ONE_NODE, TWO_NODES

Row = dict[str, Any]
NOIO = 0x80000
PRE_OOM = 0x1008C0
NO_RULES = AttemptVerdict(unknown="no rules of the slow path are known of this kernel")
CHANGED = AttemptVerdict(unknown="the machine changed during the recording: nodes, zonelists")

STEP: Row = {
    "gfp_mask": 0xCC0,
    "order": 0,
    "zonelist_kind": "FALLBACK",
    "zonelist_nid": 0,
    "ac_nodemask_nodes": None,
    "preferred_node": 0,
    "preferred_zone": NORMAL,
    "migratetype": 0,
    "highest_zoneidx": NORMAL,
    "spread_dirty_pages": False,
    "ac_alloc_flags": 0,
    "task_flags": 0,
    "preempt_count": 0,
    "softirq_disable_cnt": None,
    "mems_allowed": "0-1",
    "cpusets_enabled": 0,
    "gfp_allowed_mask": 0xFFFFFF,
    "defrag_mode": False,
    "prio": 120,
    "oom_victim": False,
}
"""A step of an ordinary GFP_KERNEL request."""

OTHER: Row = {
    "gfp_mask": 0x100CCA,
    "order": 2,
    "zonelist_kind": "NOFALLBACK",
    "zonelist_nid": 1,
    "ac_nodemask_nodes": "0,2",
    "preferred_node": 1,
    "preferred_zone": DMA32,
    "migratetype": 1,
    "highest_zoneidx": 3,
    "spread_dirty_pages": True,
    "ac_alloc_flags": 0x400,
    "task_flags": 0x800,
    "preempt_count": 0x100,
    "softirq_disable_cnt": 0x200,
    "mems_allowed": "1",
    "cpusets_enabled": 1,
    "gfp_allowed_mask": 0xFFFF3F,
    "defrag_mode": True,
    "prio": 99,
    "oom_victim": True,
}
"""A step with another value in each column."""

OTHER_CONTEXT = SlowContext("NOFALLBACK", 1, 0b101, ZoneRef(1, DMA32), 3, 1, spread_dirty_pages=True, alloc_flags=0x400)
OTHER_FACTS = Facts(
    0x800, 0x100, 0x200, 99, oom_victim=True, cpusets_enabled=True, gfp_allowed_mask=0xFFFF3F, defrag_mode=True,
    mems_allowed=0b10,
)  # fmt: skip


def attempt(alloc_flags: int, *between: str, **changes: object) -> Row:
    """Return a recorded attempt."""
    return {**STEP, "alloc_flags": alloc_flags, "between": list(between), **changes}


def recorded(*attempts: Row, page: bool | None = True, complete: bool = True, **given: object) -> Row:
    """Return a recorded call."""
    who = {"time": 5, "comm": "a"}
    return {**who, "given": {**STEP, **given}, "attempts": list(attempts), "page": page, "complete": complete}


def slow_judge(release: str = "6.12", machine: Machine = ONE_NODE, **changes: Any) -> SlowJudge:  # noqa: ANN401  (arguments of SlowJudge)
    """Return the judge of a recording of a built-in kernel."""
    snapshot = builtin_snapshot("6.12", machine)
    return SlowJudge(replace(snapshot, release=release, version=""), Kernel.of(snapshot), **changes)


def kernel(machine: Machine = ONE_NODE) -> Kernel:
    """Return a built-in kernel."""
    return Kernel.of(builtin_snapshot("6.12", machine))


MATCHING = recorded(attempt(0x840), attempt(0x840))
"""GFP_KERNEL of 6.12: kswapd is woken, then a second try."""


def test_every_column_of_a_call_is_read() -> None:
    """The attempts are numbered from 1."""
    call = recorded(attempt(0x840, "oom", "direct_reclaim", **OTHER), attempt(0x42), page=False, **OTHER)
    first = SlowAttempt(1, 0x100CCA, 2, 0x840, OTHER_CONTEXT, OTHER_FACTS, events=frozenset({"oom", "direct_reclaim"}))
    plain = SlowContext("FALLBACK", 0, None, ZoneRef(0, NORMAL), NORMAL, 0)
    second = SlowAttempt(2, 0xCC0, 0, 0x42, plain, Facts(mems_allowed=0b11), events=frozenset())
    assert slow_call_of(call) == SlowCall(
        0x100CCA, 2, OTHER_CONTEXT, (first, second), page=False, complete=True, facts=OTHER_FACTS
    )


def test_events_that_may_be_missing_are_no_evidence() -> None:
    """Then nothing is known of what happened between the attempts."""
    call = recorded(attempt(0x840, "oom"))
    assert [each.events for each in slow_call_of(call, may_miss=True).attempts] == [None]


@pytest.mark.parametrize(
    ("page", "complete", "expected"),
    [(True, True, True), (False, True, True), (None, True, False), (True, False, False)],
)
def test_a_call_is_complete_once_its_return_was_captured(page: bool | None, complete: bool, expected: bool) -> None:
    """NULL is a return value as well."""
    call = slow_call_of(recorded(attempt(0x840), page=page, complete=complete))
    assert (call.page, call.complete) == (page, expected)


@pytest.mark.parametrize(
    ("changes", "unknown"),
    [
        ({}, set()),
        ({"zonelist_kind": None}, {"zonelist_kind"}),
        ({"zonelist_nid": None}, {"zonelist_nid"}),
        ({"preferred_zone": -1}, {"preferred_zone"}),
        ({"preferred_node": None, "preferred_zone": None}, set()),
    ],
    ids=str,
)
def test_members_that_the_snapshot_does_not_have_are_unknown(changes: Row, unknown: set[str]) -> None:
    """A null preferred zone is the terminating entry, which is known."""
    context = slow_context({**STEP, **changes})
    assert context.unknown == unknown
    if "preferred_node" in changes:
        assert context.preferred_zone is None


def test_a_kernel_without_a_member_has_zero() -> None:
    """Before 7.3 struct alloc_context has no alloc_flags, and only PREEMPT_RT has softirq_disable_cnt."""
    call = slow_call_of(recorded(ac_alloc_flags=None, softirq_disable_cnt=None))
    assert call.context.alloc_flags == 0
    assert call.facts is not None
    assert call.facts.softirq_disable_cnt == 0


@pytest.mark.parametrize("column", ["gfp_mask", "order", "task_flags", "cpusets_enabled"])
def test_a_step_without_what_every_step_has_is_damaged(column: str) -> None:
    """The call is unknown, with each of its attempts; the error names the column."""
    with pytest.raises(DamagedRowError, match=f"^no {column}$"):
        slow_context({**STEP, column: None})
    damaged = recorded(attempt(0x840, **{column: None}), attempt(0x840))
    verdict = slow_judge()(damaged)
    unknown = AttemptVerdict(unknown="the call is damaged")
    assert (verdict.attempts, verdict.end) == ((unknown, unknown), unknown)
    assert slow_judge().args({**recorded(), "given": {**STEP, column: None}}) == unknown


def test_every_missing_column_is_named() -> None:
    """The order is that of the columns."""
    with pytest.raises(DamagedRowError, match=r"^no gfp_mask, task_flags$"):
        slow_context({**STEP, "gfp_mask": None, "task_flags": None})


def test_the_entry_is_predicted_from_the_arguments_of_the_slow_path() -> None:
    """The zonelist's node stands for the caller's preferred node."""
    call = recorded(**OTHER)
    assert request_of_call(call) == Request(0x100CCA, 2, 1, 0b101, 0x400)
    grouped = kernel(replace(ONE_NODE, page_group_by_mobility_disabled=True))
    assert context_of_call(grouped, call) == Context(
        cpusets_enabled=True,
        gfp_allowed_mask=0xFFFF3F,
        task_flags=0x800,
        preempt_count=0x100,
        softirq_disable_cnt=0x200,
        mems_allowed=0b10,
        defrag_mode=True,
        page_group_by_mobility_disabled=True,
    )
    assert context_of_call(kernel(), recorded()) == Context(
        cpusets_enabled=False, gfp_allowed_mask=0xFFFFFF, mems_allowed=0b11
    )


@pytest.mark.parametrize(
    ("given", "field", "expected", "observed"),
    [
        ({"migratetype": 1}, "migratetype", 0, 1),
        ({"task_flags": NOIO}, "slow_gfp_mask", 0xC00, 0xCC0),
        ({"gfp_allowed_mask": 0xFFFF3F}, "slow_gfp_mask", 0xC00, 0xCC0),
        ({"cpusets_enabled": 1, "mems_allowed": "1"}, "preferred_zone", ZoneRef(1, NORMAL), ZoneRef(0, NORMAL)),
        ({"ac_nodemask_nodes": "1"}, "preferred_zone", ZoneRef(1, NORMAL), ZoneRef(0, NORMAL)),
    ],
)
def test_wrong_arguments_are_a_mismatch(given: Row, field: str, expected: object, observed: object) -> None:
    """The scopes of the task, gfp_allowed_mask, the cpuset and the nodemask decide what the slow path gets."""
    verdict = args_verdict(kernel(TWO_NODES), recorded(**given))
    (difference,) = verdict.differences
    assert (difference.field, difference.expected, difference.observed) == (field, expected, observed)
    assert (difference.rule, verdict.verdict) == ("slow_entry", "mismatched")


def test_right_arguments_match() -> None:
    """GFP_KERNEL without a nodemask, from node 0."""
    assert args_verdict(kernel(), recorded()) == AttemptVerdict()


def test_a_request_that_is_rejected_has_no_slow_path() -> None:
    """Order 11 is above MAX_PAGE_ORDER: prepare_alloc_pages is never called."""
    (difference,) = args_verdict(kernel(), recorded(order=11)).differences
    assert difference == Difference("sequence", "no slow path", "a slow path", "order", difference.effect)
    assert "rejected" in difference.effect


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"zonelist_kind": None, "zonelist_nid": None}, "not captured: zonelist_kind, zonelist_nid"),
        ({"cpusets_enabled": 1, "preempt_count": None}, "not known: preempt_count"),
    ],
)
def test_arguments_that_cannot_be_judged_are_unknown(given: Row, why: str) -> None:
    """A fact that decides, or a member that was not captured, is never guessed."""
    assert args_verdict(kernel(), recorded(**given)) == AttemptVerdict(unknown=why)
    assert slow_judge().args(recorded(**given)).unknown == why


@pytest.mark.parametrize(
    ("judge", "unknown"),
    [
        (slow_judge("5.14.0-427.el9.x86_64"), NO_RULES),
        (slow_judge(machine_changed=("nodes", "zonelists")), CHANGED),
        (slow_judge("5.14.0-427.el9.x86_64", machine_changed=("nodes", "zonelists")), CHANGED),
    ],
)
def test_without_rules_or_on_another_machine_all_is_unknown(judge: SlowJudge, unknown: AttemptVerdict) -> None:
    """Neither the arguments nor the attempts nor the end can be judged."""
    verdict = judge(MATCHING)
    assert (judge.args(MATCHING), verdict.attempts, verdict.end) == (unknown, (unknown, unknown), unknown)


WITHOUT_RECLAIM = recorded(attempt(0x840), attempt(0x840), attempt(0x42, gfp_mask=PRE_OOM))
"""The attempt before the OOM killer comes after reclaim, which was not recorded."""


@pytest.mark.parametrize(
    ("totals", "verdict"),
    [({"slow_missed": 0}, "mismatched"), ({"slow_missed": 1}, "matched"), (None, "matched")],
)
def test_missed_hits_make_events_no_evidence(totals: Row | None, verdict: str) -> None:
    """Reclaim that is not in the trace is a mismatch only if the trace has all hits, and if its end is there."""
    known = None if totals is None else replace(traces.source()[1], machine_changed=(), **totals)
    judge = SlowJudge.of(builtin_snapshot("6.12", ONE_NODE), kernel(), known)
    assert judge(WITHOUT_RECLAIM).attempts[2].verdict == verdict


def test_the_totals_tell_that_the_machine_changed() -> None:
    """Then there is no verdict."""
    totals = replace(traces.source()[1], machine_changed=("nodes", "zonelists"))
    assert SlowJudge.of(builtin_snapshot("6.12", ONE_NODE), kernel(), totals).args(MATCHING) == CHANGED


def test_calls_and_attempts_are_counted() -> None:
    """Each attempt is matched, mismatched or unknown; so are the arguments and the return value of each call."""
    wrong_flags = recorded(attempt(0x860), page=False)  # NULL needs more attempts, so that differs as well
    nowait = [attempt(0x850, gfp_mask=0x800), attempt(0x850, gfp_mask=0x800)]
    failed = recorded(*nowait, page=False, gfp_mask=0x800)
    running = recorded(attempt(0x840), page=None, complete=False)
    elsewhere = recorded(attempt(0x840), zonelist_kind=None, zonelist_nid=None)
    verdict = verify_slow(slow_judge(), [MATCHING, wrong_flags, failed, running, elsewhere, elsewhere])
    assert verdict.to_json() == {
        "calls": 6,
        "failed": 2,
        "attempts": 8,
        "matched": 5,
        "mismatched": 1,
        "unknown": 2,
        "calls_mismatched": 1,
        "calls_unknown": 3,
        "kinds": {"after_waking_kswapd": 4, "retry": 2, "none": 2},
        "mismatches": [mismatch.to_json() for mismatch in verdict.mismatches],
        "unknown_reasons": {
            "returned: what the call returned, or its last attempts, was not captured": 1,
            "attempt: not captured at the entry: zonelist_kind, zonelist_nid": 2,
            "given: not captured: zonelist_kind, zonelist_nid": 2,
            "returned: not captured at the entry: zonelist_kind, zonelist_nid": 2,
        },
    }
    assert [(each.step, each.number, each.difference.field) for each in verdict.mismatches] == [
        ("attempt", 1, "alloc_flags"),
        ("returned", 0, "sequence"),
    ]
    assert all(each.call is wrong_flags for each in verdict.mismatches)


def test_wrong_arguments_count_for_their_call() -> None:
    """The attempts of such a call are judged all the same."""
    verdict = verify_slow(slow_judge(), [recorded(attempt(0x840), task_flags=NOIO)])
    assert (verdict.matched, verdict.calls_mismatched, verdict.calls_unknown) == (1, 1, 0)
    assert [(each.step, each.difference.field) for each in verdict.mismatches] == [("given", "slow_gfp_mask")]


def test_nothing_is_counted_without_calls() -> None:
    """All numbers are 0."""
    assert verify_slow(slow_judge(), []) == SlowVerification()
    empty: Row = {"kinds": {}, "mismatches": [], "unknown_reasons": {}}
    numbers = ("calls", "failed", "attempts", "matched", "mismatched", "unknown", "calls_mismatched", "calls_unknown")
    assert SlowVerification().to_json() == {**dict.fromkeys(numbers, 0), **empty}


def test_a_mismatch_names_the_call() -> None:
    """The JSON values have the step, the difference, and the request and task of the call."""
    call = recorded(gfp_mask=0x800, order=3)
    mismatch = SlowMismatch("attempt", Difference("alloc_flags", 1, 2, "slow_high", "e"), call, 4)
    assert mismatch.to_json() == {
        "step": "attempt",
        "number": 4,
        "field": "alloc_flags",
        "expected": 1,
        "observed": 2,
        "rule": "slow_high",
        "effect": "e",
        "gfp_mask": 0x800,
        "order": 3,
        "comm": "a",
        "time": 5,
    }
    assert SlowMismatch("given", mismatch.difference, call).number == 0


def test_mismatches_beyond_the_examples_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with them; the numbers stay exact, and the JSON object says how many are not in it."""
    monkeypatch.setattr(trace, "EXAMPLES", 3)
    wrong = recorded(attempt(0x860), page=False)  # differs in its attempt and its return value
    verdict = verify_slow(slow_judge(), [wrong] * 5)
    assert (verdict.calls, verdict.mismatched, verdict.calls_mismatched) == (5, 5, 5)
    assert (len(verdict.mismatches), verdict.not_shown) == (3, 7)
    assert verdict.to_json()["mismatches_not_shown"] == 7
    assert "mismatches_not_shown" not in verify_slow(slow_judge(), [wrong]).to_json()


def test_arguments_are_predicted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each distinct set of arguments; so many are remembered that memory is bounded."""
    predicted: list[Row] = []
    real = trace.args_verdict

    def counting(kernel: Kernel, call: Row) -> AttemptVerdict:
        predicted.append(call)
        return real(kernel, call)

    monkeypatch.setattr(trace, "args_verdict", counting)
    monkeypatch.setattr(trace, "CACHED", 2)
    judge = slow_judge()
    noio = recorded(attempt(0x840), task_flags=NOIO)
    assert [judge.args(call).verdict for call in (MATCHING, noio, MATCHING, noio)] == ["matched", "mismatched"] * 2
    assert len(predicted) == 2
    judge.args(recorded(attempt(0x840), preempt_count=1))
    assert judge.args(MATCHING).verdict == "matched"
    assert len(predicted) == 4
