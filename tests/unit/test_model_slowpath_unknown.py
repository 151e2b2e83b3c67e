# SPDX-License-Identifier: MIT
"""Attempts of the slow path that cannot be judged, and how attempts are distinguished."""

from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.kernel.slowpath_rules import SlowpathRules, slowpath_rules
from kalloctrace.model.slowpath import flags as slowflags
from kalloctrace.model.slowpath import state_machine
from kalloctrace.model.slowpath.types import Facts, SlowAttempt, SlowCall, SlowContext, SlowKernel, State
from kalloctrace.verify.slowpath.judge import AttemptVerdict, SlowpathJudge, judge_slowpath
from tests.slow_scenarios import NORMAL, PLAIN, TWO_NODES, slow_kernel


def _call(*flags: int, gfp: int = 0xCC0, order: int = 0, page: bool | None = True, **changes: Any) -> SlowCall:  # noqa: ANN401  (members of SlowAttempt)
    attempts = (
        replace(SlowAttempt(number, gfp, order, each, PLAIN, Facts()), **changes)
        for number, each in enumerate(flags, 1)
    )
    return SlowCall(gfp, order, PLAIN, tuple(attempts), page)


def _verdicts(call: SlowCall, release: str = "6.12") -> tuple[AttemptVerdict, ...]:
    return judge_slowpath(slow_kernel(release), call).attempts


@pytest.mark.parametrize(
    ("fact", "gfp", "release"),
    [
        ("prio", 0xCC0, "5.10"),
        ("prio", 0xCC0, "7.3"),
        ("defrag_mode", 0xCC0, "7.2"),
        ("task_flags", 0xCC0, "6.12"),
        ("oom_victim", 0xCC0, "6.12"),
        ("cpusets_enabled", 0xCC0, "6.12"),
    ],
)
def test_a_fact_that_was_not_captured_leaves_it_unknown(fact: str, gfp: int, release: str) -> None:
    """Where a missing fact decides, the attempt is unknown, and so is all that follows."""
    missing: dict[str, Any] = {fact: None}
    flags = 0x840
    call = _call(flags, flags, flags, gfp=gfp, facts=Facts(**missing))
    verdicts = _verdicts(call, release)
    assert verdicts[-1].unknown == f"not known: {fact}"
    assert all(not verdict.differences for verdict in verdicts)


@pytest.mark.parametrize(
    ("facts", "gfp", "flags"),
    [
        (Facts(prio=None), 0x820, 0x830),
        (Facts(preempt_count=None), 0xCC0, 0x840),
        (Facts(defrag_mode=None), 0xCC0, 0x840),
        (Facts(mems_allowed=None), 0xCC0, 0x840),
        (Facts(gfp_allowed_mask=None), 0xCC0, 0x840),
        (Facts(softirq_disable_cnt=None), 0xCC0, 0x840),
    ],
)
def test_a_fact_that_does_not_decide_is_not_needed(facts: Facts, gfp: int, flags: int) -> None:
    """A fact that no rule reads may be missing."""
    assert _verdicts(_call(flags, gfp=gfp, facts=facts))[0] == AttemptVerdict(("after_waking_kswapd",))


def test_a_real_time_task_needs_preempt_count() -> None:
    """Whether an interrupt borrows a real-time task is never guessed."""
    assert _verdicts(_call(0x860, facts=Facts(prio=1, preempt_count=None)))[0].unknown == "not known: preempt_count"


def _rt(slow: SlowKernel) -> SlowKernel:
    features = replace(slow.kernel.features, config_preempt_rt=True)
    return replace(slow, kernel=slow.kernel.on(slow.kernel.machine, features))


@pytest.mark.parametrize(
    ("release", "disabled", "in_task"),
    [
        ("5.10", 0x200, False),
        ("6.12", 0x200, True),
        ("6.12", 0x100, False),
    ],
)
def test_preempt_rt_keeps_the_softirq_count_elsewhere(release: str, disabled: int, in_task: bool) -> None:
    """On PREEMPT_RT the softirq part of preempt_count means nothing, and that of the task counts."""
    kernel = _rt(slow_kernel(release))
    facts = Facts(prio=1, preempt_count=0x300, softirq_disable_cnt=disabled)
    assert slowflags.rt_priority_applies(kernel, facts) is in_task
    missing = judge_slowpath(kernel, _call(0x840, facts=replace(facts, softirq_disable_cnt=None)))
    assert missing.attempts[0].unknown == "not known: softirq_disable_cnt"


def test_an_attempt_that_is_missing_ends_the_judgement() -> None:
    """What follows a gap is unknown: the state is not known any more."""
    call = _call(0x840, 0x840, 0x840)
    gap = replace(call, attempts=(call.attempts[0], call.attempts[2]))
    first, second = _verdicts(gap)
    assert not first.unknown
    assert second.unknown == "an attempt before it was not captured"


@pytest.mark.parametrize("member", ["nodemask", "zonelist_kind", "preferred_zone"])
def test_an_entry_that_was_not_captured_leaves_all_unknown(member: str) -> None:
    """Without the arguments of the call nothing is judged."""
    call = replace(_call(0x840), context=replace(PLAIN, unknown=frozenset({member})))
    verdict = judge_slowpath(slow_kernel("6.12"), call)
    assert verdict.attempts[0].unknown == f"not captured at the entry: {member}"
    assert verdict.end.unknown


def test_a_member_of_an_attempt_that_was_not_captured_is_no_match() -> None:
    """The attempt is unknown, and what was captured of it is compared all the same."""
    unseen = replace(PLAIN, preferred_zone=ZoneRef(7, 0), unknown=frozenset({"preferred_zone"}))
    assert _verdicts(_call(0x840, context=unseen))[0] == AttemptVerdict(
        ("after_waking_kswapd",), (), "not captured: preferred_zone"
    )
    assert [each.field for each in _verdicts(_call(0x844, context=unseen))[0].differences] == ["alloc_flags"]


@pytest.mark.parametrize(
    ("before", "after", "flags", "verdict"),
    [
        (False, True, 0x808, ""),
        (False, True, 0x840, ""),
        (False, True, 0x804, "oom_victim changed during the call"),
    ],
)
def test_a_fact_that_changes_between_two_attempts(before: bool, after: bool, flags: int, verdict: str) -> None:
    """The kernel may have read either value; what neither explains is unknown, not a mismatch."""
    call = _call(0x840, flags)
    first, second = call.attempts
    changed = replace(second, facts=Facts(oom_victim=after))
    call = replace(call, attempts=(replace(first, facts=Facts(oom_victim=before)), changed))
    judged = _verdicts(call)[1]
    assert judged.unknown == verdict
    assert not judged.differences


def test_without_evidence_an_attempt_is_of_several_kinds() -> None:
    """Flags alone do not distinguish a retry from the attempt after direct reclaim, so both kinds are listed."""
    verdicts = _verdicts(_call(0x840, 0x840, 0x840))
    assert verdicts[1].kinds == ("retry",)
    assert set(verdicts[2].kinds) == {"after_direct_reclaim", "retry"}


def test_later_attempts_tell_what_an_earlier_one_was() -> None:
    """After reclaim that brought pages two attempts are made: a round of one brought none."""
    call = _call(0x840, 0x840, 0x840, 0x42)
    last = replace(call.attempts[3], gfp_mask=0x1008C0)
    verdicts = _verdicts(replace(call, attempts=(*call.attempts[:3], last)))
    assert verdicts[2].kinds == ("retry",)
    assert verdicts[3].kinds == ("before_oom",)


def test_a_cpuset_that_changed_may_restart_the_slow_path() -> None:
    """The reserves are closed again; where mems_allowed did not change that is unknown, where it did it is a match."""
    atomic = Facts(cpusets_enabled=True, task_flags=0x800)
    call = _call(0x840, 0x804, 0x840, facts=atomic)
    assert _verdicts(call)[2].unknown.startswith("only a change of the cpuset")
    changed = replace(call.attempts[2], facts=replace(atomic, mems_allowed=1))
    judged = _verdicts(replace(call, attempts=(*call.attempts[:2], changed)))[2]
    assert judged == AttemptVerdict(("restart",))
    off = _verdicts(_call(0x840, 0x804, 0x840, facts=replace(atomic, cpusets_enabled=False)))[2]
    assert [each.field for each in off.differences] == ["sequence"]


ANEW = Facts(cpusets_enabled=True, mems_allowed=0b11)
MOVED = replace(ANEW, mems_allowed=0b01)


def _round(*facts: Facts) -> SlowCall:
    """Return a first try, a retry, what may be the next retry or a new start, and what comes after a new start."""
    seen = (("", None), ("", None), ("direct_reclaim", 0), ("", None))
    attempts = tuple(
        SlowAttempt(number, 0xCC0, 0, 0x840, PLAIN, read, "", frozenset(events.split()), reclaimed)  # type: ignore[arg-type]
        for number, ((events, reclaimed), read) in enumerate(zip(seen, facts, strict=True), 1)
    )
    return SlowCall(0xCC0, 0, PLAIN, attempts, page=True, facts=ANEW)


def test_a_new_start_that_only_later_attempts_show_is_no_mismatch() -> None:
    """If a later attempt shows that a retry was none, that attempt is unknown and the earlier one gets another kind."""
    *_, third, fourth = _verdicts(_round(ANEW, ANEW, ANEW, ANEW))
    assert third == AttemptVerdict(("restart", "retry"))
    assert not fourth.differences
    assert "only a change of the cpuset" in fourth.unknown


@pytest.mark.parametrize("facts", [(ANEW, MOVED, MOVED, MOVED), (ANEW, ANEW, MOVED, MOVED)])
def test_a_change_of_the_cpuset_is_remembered_until_it_is_noticed(facts: tuple[Facts, ...]) -> None:
    """The kernel looks for a change at the end of a round, attempts after it happened."""
    verdicts = _verdicts(_round(*facts))
    assert [verdict.unknown for verdict in verdicts] == [""] * 4
    assert [verdict.kinds for verdict in verdicts[2:]] == [("restart",), ("retry",)]


def test_a_change_of_the_cpuset_explains_one_new_start() -> None:
    """Another one takes another change."""
    twice = _round(ANEW, MOVED, MOVED, MOVED)
    more = tuple(replace(each, number=each.number + 2) for each in twice.attempts[2:])
    verdicts = _verdicts(replace(twice, attempts=(*twice.attempts, *more)))
    assert [bool(verdict.unknown) for verdict in verdicts] == [False] * 5 + [True]


def test_null_after_a_change_of_the_cpuset_may_be_right() -> None:
    """A cpuset that changed after the last attempt may have left a strict request no zone; no event shows it."""
    call = _call(0x840, 0x840, gfp=0x100CC0, page=False)
    hardwall = replace(call, facts=ANEW, attempts=tuple(replace(each, facts=ANEW) for each in call.attempts))
    assert judge_slowpath(slow_kernel("6.12"), hardwall).end.unknown == (
        "whether the cpuset changed meanwhile is not known"
    )


@pytest.mark.parametrize(("release", "goes_on"), [("6.12.74", True), ("6.12.75", False), ("6.16", True)])
def test_a_huge_page_of_one_node_is_worth_no_reclaim(release: str, goes_on: bool) -> None:
    """After early compaction a costly __GFP_NORETRY | __GFP_THISNODE gives up, where the kernel has that fix."""
    gfp = 0x210CC0
    tries = _call(0x840, 0x840, 0x840, gfp=gfp, order=9)
    compacted = replace(tries.attempts[1], events=frozenset({"compaction"}))
    call = replace(tries, attempts=(tries.attempts[0], compacted, replace(tries.attempts[2], events=frozenset())))
    assert (not judge_slowpath(slow_kernel(release), call).attempts[2].differences) is goes_on
    given_up = replace(call, attempts=call.attempts[:2], page=False, facts=Facts())
    assert judge_slowpath(slow_kernel(release), given_up).end == AttemptVerdict()


def test_after_an_attempt_that_no_rule_explains_nothing_is_judged() -> None:
    """The first mismatch of the sequence is reported, and what follows is unknown."""
    verdicts = _verdicts(_call(0x830, 0x830, 0x830, 0x830, gfp=0x820))
    assert [bool(each.differences) for each in verdicts] == [False, False, True, False]
    assert verdicts[3].unknown == "it follows an attempt that no rule explains"


def test_a_mismatch_names_its_rule() -> None:
    """The difference carries both values, the rule and what it did."""
    (difference,) = _verdicts(_call(0x840, facts=Facts(prio=5)))[0].differences
    assert (difference.field, difference.expected, difference.observed) == ("alloc_flags", 0x860, 0x840)
    assert difference.rule == "slow_high"
    (difference,) = _verdicts(_call(0x830, 0x870, gfp=0x820))[1].differences
    assert difference.rule == "slow_watermark"
    assert "ALLOC_WMARK_MIN and ALLOC_CPUSET" in difference.effect


def test_a_judge_judges_each_distinct_call_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal calls share one verdict."""
    entered = []
    real = state_machine.enter

    def counted(kernel: SlowKernel, call: SlowCall) -> State:
        entered.append(call)
        return real(kernel, call)

    monkeypatch.setattr(state_machine, "enter", counted)
    judge = SlowpathJudge(slow_kernel("6.12"))
    assert judge(_call(0x840)) is judge(_call(0x840))
    judge(_call(0x840, page=None))
    assert len(entered) == 2


def test_a_long_call_is_judged_in_time_that_grows_with_its_length() -> None:
    """A thousand equal attempts do not multiply the paths that explain them."""
    verdicts = _verdicts(_call(*[0x840] * 1000))
    assert not any(each.differences or each.unknown for each in verdicts)


def test_what_the_call_returned_may_be_unknown() -> None:
    """An end that was not captured is no match."""
    kernel = slow_kernel("6.12")
    assert judge_slowpath(kernel, _call(0x840, page=None)).end.unknown
    assert judge_slowpath(kernel, replace(_call(0x840), complete=False)).end.unknown
    assert judge_slowpath(kernel, SlowCall(0xCC0, 0, PLAIN, (), page=False)).end.unknown == (
        "not known: the facts at the entry"
    )


def test_an_oom_victim_may_have_given_up() -> None:
    """NULL that only a victim gets is unknown where the task was none yet at the last attempt."""
    call = _call(0x840, 0x840, gfp=0x80CC0, page=False)
    assert judge_slowpath(slow_kernel("6.12"), call).end.unknown == (
        "whether the task became an OOM victim meanwhile is not known"
    )


def test_an_unknown_zonelist() -> None:
    """A zonelist that the machine's description lacks is not guessed at."""
    context = SlowContext("FALLBACK", 5, None, ZoneRef(5, NORMAL), NORMAL, 0)
    call = SlowCall(0xCC0, 0, context, (SlowAttempt(1, 0xCC0, 0, 0x840, context, Facts()),), page=True)
    judged = judge_slowpath(slow_kernel("6.12", TWO_NODES), call)
    assert judged.attempts[0].unknown == "not known: zonelist FALLBACK of node 5"


@pytest.mark.parametrize(
    ("kernel", "version", "rules"),
    [
        ("5.8", "", SlowpathRules()),
        ("5.10.251", "", SlowpathRules()),
        ("5.10", "", SlowpathRules(thisnode_compacts_only=True)),
        ("5.15", "", SlowpathRules(True)),
        ("6.1.0-49-amd64", "#1 SMP Debian 6.1.119-1", SlowpathRules(True, True)),
        ("6.1", "", SlowpathRules(True, True, True, thisnode_compacts_only=True)),
        ("6.2", "", SlowpathRules(True, True)),
        ("6.12.53", "", SlowpathRules(True, True)),
        ("6.12", "", SlowpathRules(True, True, True, thisnode_compacts_only=True)),
        ("6.6.112", "", SlowpathRules(True, True)),
        ("6.6.113", "", SlowpathRules(True, True, True)),
        ("6.17.3", "", SlowpathRules(True, True)),
        ("6.17.4", "", SlowpathRules(True, True, True)),
        ("6.19", "", SlowpathRules(True, True, True, thisnode_compacts_only=True)),
        ("7.0", "", SlowpathRules(True, True, True, True, thisnode_compacts_only=True)),
        ("7.3", "", SlowpathRules(True, True, True, True, True, True, True)),
    ],
)
def test_rules_of_a_release(kernel: str, version: str, rules: SlowpathRules) -> None:
    """Fixes of long-term series count from their patch level on."""
    assert slowpath_rules(kernel, version) == rules


@pytest.mark.parametrize("kernel", ["5.7", "7.4", "5.14.0-570.el9.x86_64", "nothing"])
def test_a_release_of_unknown_code_has_no_rules(kernel: str) -> None:
    """A vendor that moves code between releases leaves no rule to go by."""
    assert slowpath_rules(kernel) is None
