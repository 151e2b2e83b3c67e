# SPDX-License-Identifier: MIT
"""What a verdict on an attempt of the slow path says: its kind, both values of a difference, the rule and the doubt."""

from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.model.slowpath.types import Facts, SlowAttempt, SlowCall
from kalloctrace.verify.compare import Difference
from kalloctrace.verify.slowpath.judge import AttemptVerdict, CallVerdict, SlowpathJudge, judge_slowpath
from tests.slow_scenarios import MEMALLOC, PLAIN, PRE_OOM, USUAL, slow_kernel

DIFFERENT = Difference("alloc_flags", 1, 2, "r", "e")
CPUSETS = Facts(cpusets_enabled=True, task_flags=MEMALLOC)
RECLAIMED: frozenset[Any] = frozenset({"direct_reclaim"})


def call(
    *flags: int,
    gfp: int = 0xCC0,
    page: bool = True,
    last: dict[str, Any] | None = None,
    **changes: Any,  # noqa: ANN401  (members of SlowAttempt)
) -> SlowCall:
    """Return a call whose attempts have these flags; `last` are members of the last one."""
    attempts = [
        replace(SlowAttempt(number, gfp, 0, each, PLAIN, USUAL), **changes) for number, each in enumerate(flags, 1)
    ]
    if last:
        attempts[-1] = replace(attempts[-1], **last)
    return SlowCall(gfp, 0, PLAIN, tuple(attempts), page)


def judged(captured: SlowCall, release: str = "6.12") -> CallVerdict:
    """Return the verdict on a call."""
    return judge_slowpath(slow_kernel(release), captured)


def values(difference: Difference) -> tuple[object, ...]:
    """Return what a difference says, without the text for people."""
    return difference.field, difference.expected, difference.observed, difference.rule


@pytest.mark.parametrize(
    ("verdict", "kind", "word"),
    [
        (AttemptVerdict(), "none", "matched"),
        (AttemptVerdict(("retry",)), "retry", "matched"),
        (AttemptVerdict(("retry", "restart")), "several", "matched"),
        (AttemptVerdict(("restart",), (DIFFERENT,)), "restart", "mismatched"),
        (AttemptVerdict(unknown="why"), "none", "unknown"),
        (AttemptVerdict(("retry",), (DIFFERENT,), "why"), "retry", "unknown"),
    ],
)
def test_a_verdict_in_one_word(verdict: AttemptVerdict, kind: str, word: str) -> None:
    """An unknown attempt is never a match or a mismatch; two kinds are not one."""
    assert (verdict.kind, verdict.verdict) == (kind, word)


def test_a_verdict_without_reasons_is_a_match() -> None:
    """Nothing differs, and nothing is unknown."""
    assert AttemptVerdict() == AttemptVerdict((), (), "")


def test_attempts_of_another_place_are_reported_with_their_evidence() -> None:
    """The first attempt comes before any reclaim: __alloc_pages_slowpath wakes kswapd and tries at once."""
    seen = {"events": RECLAIMED, "reclaimed": 7, "caller": "__alloc_pages_slowpath"}
    (difference,) = judged(call(0x840, last=seen)).attempts[0].differences
    assert values(difference) == (
        "sequence",
        {"events": [], "sites": ["initial"]},
        {"events": ["direct_reclaim"], "reclaimed": 7, "caller": "__alloc_pages_slowpath"},
        "slow_sequence",
    )
    (difference,) = judged(call(0x840, last={"caller": "__alloc_pages_may_oom"})).attempts[0].differences
    assert difference.observed == {"events": [], "reclaimed": None, "caller": "__alloc_pages_may_oom"}


def test_events_and_sites_that_were_possible_are_listed() -> None:
    """On 6.12 a second failure leads to reclaim, its attempt, another round, or the OOM killer with its own flags."""
    seen = {"events": frozenset({"oom"}), "reclaimed": None, "caller": ""}
    (difference,) = judged(call(0x840, 0x840, 0x840, last=seen)).attempts[2].differences
    assert difference.expected == {"events": ["direct_reclaim"], "sites": ["reclaim", "retry"]}


def test_an_attempt_too_many_names_the_rule_that_ends_the_call() -> None:
    """GFP_NOWAIT has no __GFP_DIRECT_RECLAIM: after two attempts __alloc_pages_slowpath goes to nopage."""
    (difference,) = judged(call(0x850, 0x850, 0x850, gfp=0x800)).attempts[2].differences
    assert values(difference) == ("sequence", "no further attempt", "attempt 3", "slow_no_reclaim")
    assert "no __GFP_DIRECT_RECLAIM" in difference.effect


def test_a_page_comes_from_an_attempt() -> None:
    """No rule is behind that but the sequence itself."""
    (difference,) = judged(call()).end.differences
    assert difference == Difference("sequence", "an attempt", "a page without one", "slow_sequence", "")


def test_null_too_early_names_the_rule_of_the_next_attempt() -> None:
    """GFP_KERNEL of 6.12 tries a second time; only __gfp_pfmemalloc_flags is called before."""
    (difference,) = judged(call(0x840, page=False)).end.differences
    assert values(difference) == ("sequence", "another attempt", "NULL", "slow_reserves")
    assert difference.effect


def test_null_too_early_may_have_no_rule() -> None:
    """After the attempts for __GFP_NOFAIL, 7.2 starts another round at once."""
    captured = call(0x840, 0x840, 0x42, 0x60, 0x20, gfp=0x208CC0, page=False)
    before_oom = replace(captured.attempts[2], gfp_mask=0x3088C0, events=RECLAIMED)
    captured = replace(captured, attempts=(*captured.attempts[:2], before_oom, *captured.attempts[3:]))
    verdict = judged(captured, "7.2")
    assert not any(each.differences or each.unknown for each in verdict.attempts)
    assert verdict.end.differences == (Difference("sequence", "another attempt", "NULL", "slow_sequence", ""),)


def test_null_needs_the_facts_that_decide() -> None:
    """check_retry_cpuset() reads cpusets_enabled() after the last attempt as well."""
    verdict = judged(call(0x840, page=False, facts=Facts(cpusets_enabled=None)))
    assert verdict.attempts == (AttemptVerdict(("after_waking_kswapd",)),)
    assert verdict.end == AttemptVerdict(unknown="not known: cpusets_enabled")


def test_a_missing_member_comes_before_a_missing_event() -> None:
    """An attempt that only an unobserved event explains, and that was not captured completely, lacks the latter."""
    restarted = call(0x840, 0x804, 0x840, facts=CPUSETS)
    third = judged(restarted).attempts[2]
    assert (third.kind, third.unknown[:28]) == ("restart", "only a change of the cpuset,")
    unseen = replace(PLAIN, unknown=frozenset({"preferred_zone"}))
    captured = call(0x840, 0x804, 0x840, facts=CPUSETS, last={"context": unseen})
    assert judged(captured).attempts[2] == AttemptVerdict(("restart",), unknown="not captured: preferred_zone")


def test_an_unobserved_event_is_reported_once() -> None:
    """The restart makes the third attempt unknown; after it, PF_MEMALLOC uses its reserves again and gives up."""
    verdict = judged(call(0x840, 0x804, 0x840, 0x804, page=False, facts=CPUSETS))
    assert [(each.kind, each.verdict) for each in verdict.attempts] == [
        ("after_waking_kswapd", "matched"),
        ("with_reserves", "matched"),
        ("restart", "unknown"),
        ("with_reserves", "matched"),
    ]
    assert verdict.end.verdict == "matched"


def test_null_after_two_unobserved_events_names_the_last() -> None:
    """cpusets_insane_config() ends a request with __GFP_HARDWALL if its cpuset lost all zones."""
    verdict = judged(call(0x840, 0x804, 0x840, gfp=0x100CC0, page=False, facts=CPUSETS))
    assert verdict.end.unknown == "whether the cpuset changed meanwhile is not known"


def test_differences_are_those_from_an_attempt_that_fits_the_evidence() -> None:
    """The caller shows the attempt before the OOM killer, though the flags are nearer to those of a retry."""
    seen = {"caller": "__alloc_pages_may_oom", "alloc_flags": 0x860}
    verdict = judged(call(0x840, 0x840, 0x860, last=seen)).attempts[2]
    assert [values(each)[:3] for each in verdict.differences] == [
        ("freelist_gfp_mask", PRE_OOM, 0xCC0),
        ("alloc_flags", 0x42, 0x860),
    ]


def test_differences_are_not_those_from_a_restart() -> None:
    """__GFP_NOFAIL gets some reserves next: ALLOC_MIN_RESERVE and ALLOC_CPUSET. A restart would have 0x840."""
    verdict = judged(call(0x840, 0x804, 0x841, gfp=0x8CC0, facts=CPUSETS)).attempts[2]
    assert [values(each)[:3] for each in verdict.differences] == [("alloc_flags", 0x60, 0x841)]


def test_verdicts_on_many_calls_are_remembered() -> None:
    """A second call does not displace the first."""
    judge = SlowpathJudge(slow_kernel("6.12"))
    first = judge(call(0x840))
    judge(call(0x840, 0x840))
    assert judge(call(0x840)) is first
