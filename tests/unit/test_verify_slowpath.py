# SPDX-License-Identifier: MIT
"""The verdict on calls of the slow path: what is judged once, and what becomes of calls that are altered."""

from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.kernel.slowpath_rules import slowpath_rules
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.slowpath.types import SlowCall, SlowKernel
from kalloctrace.trace.reader import TraceReader
from kalloctrace.verify.slowpath import judge
from kalloctrace.verify.slowpath.judge import CallVerdict, SlowpathJudge
from kalloctrace.verify.slowpath.trace import slow_call_of
from tests import traces

Row = dict[str, Any]


@pytest.fixture(scope="module")
def kernel() -> SlowKernel:
    """The kernel of the recording under pressure."""
    with TraceReader(traces.UNDER_PRESSURE) as trace:
        rules = slowpath_rules(trace.snapshot.release, trace.snapshot.version)
        assert rules is not None
        return SlowKernel(Kernel.of(trace.snapshot), rules)


def distinct_calls(number: int) -> list[SlowCall]:
    """Return so many different calls of a recording."""
    return list(dict.fromkeys(slow_call_of(call) for call in traces.slow_calls()))[:number]


def test_each_distinct_call_is_judged_once_while_there_is_room(
    kernel: SlowKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge remembers verdicts, but never more of them than its limit."""
    judged: list[SlowCall] = []
    real = judge.judge_slowpath

    def counting(kernel: SlowKernel, call: SlowCall) -> CallVerdict:
        judged.append(call)
        return real(kernel, call)

    monkeypatch.setattr(judge, "judge_slowpath", counting)
    monkeypatch.setattr(judge, "CACHED", 2)
    first, second, third = distinct_calls(3)
    judge_call = SlowpathJudge(kernel)
    verdicts = [judge_call(call) for call in (first, second, first, second)]
    assert judged == [first, second]
    assert verdicts[:2] == verdicts[2:]
    # There is no room for a third: the older ones are forgotten.
    judge_call(third)
    assert [judge_call(first), judge_call(third)] == [verdicts[0], real(kernel, third)]
    assert judged == [first, second, third, first]


def matching_call(kernel: SlowKernel) -> SlowCall:
    """Return a call of several attempts that got a page, and that the judge explains completely."""
    return next(
        call
        for call in distinct_calls(2_000)
        if len(call.attempts) > 1 and call.page and call.complete and complete_match(judge.judge_slowpath(kernel, call))
    )


def complete_match(verdict: CallVerdict) -> bool:
    """Return whether all attempts and the end match."""
    return {step.verdict for step in (*verdict.attempts, verdict.end)} == {"matched"}


def test_unknown_arguments_make_all_unknown(kernel: SlowKernel) -> None:
    """Without the arguments of a call nothing of it can be judged."""
    call = matching_call(kernel)
    altered = replace(call, context=replace(call.context, unknown=frozenset({"zonelist_nid"})))
    verdict = judge.judge_slowpath(kernel, altered)
    assert {step.unknown for step in (*verdict.attempts, verdict.end)} == {"not captured at the entry: zonelist_nid"}
    assert len(verdict.attempts) == len(call.attempts)


def test_attempts_after_a_gap_are_unknown(kernel: SlowKernel) -> None:
    """The attempts before a missing one are judged, those after it are not."""
    call = matching_call(kernel)
    last = len(call.attempts)
    altered = replace(call, attempts=(*call.attempts[:-1], replace(call.attempts[-1], number=last + 1)))
    verdict = judge.judge_slowpath(kernel, altered)
    assert {step.verdict for step in verdict.attempts[:-1]} == {"matched"}
    assert verdict.attempts[-1].unknown == verdict.end.unknown == "an attempt before it was not captured"


@pytest.mark.parametrize("change", [{"page": None}, {"complete": False}], ids=str)
def test_end_that_was_not_captured_is_unknown(kernel: SlowKernel, change: dict[str, Any]) -> None:
    """The attempts are judged all the same."""
    verdict = judge.judge_slowpath(kernel, replace(matching_call(kernel), **change))
    assert {step.verdict for step in verdict.attempts} == {"matched"}
    assert verdict.end.unknown == "what the call returned, or its last attempts, was not captured"


def test_page_without_an_attempt_is_a_mismatch(kernel: SlowKernel) -> None:
    """Only an attempt can return a page."""
    verdict = judge.judge_slowpath(kernel, replace(matching_call(kernel), attempts=()))
    (difference,) = verdict.end.differences
    assert (difference.field, difference.expected, difference.observed) == (
        "sequence",
        "an attempt",
        "a page without one",
    )


def test_wrong_flags_of_an_attempt_are_a_mismatch(kernel: SlowKernel) -> None:
    """The most similar prediction names the field and both values; later attempts are still judged."""
    call = matching_call(kernel)
    first = call.attempts[0]
    wrong = replace(first, alloc_flags=first.alloc_flags ^ 1 << 20)
    verdict = judge.judge_slowpath(kernel, replace(call, attempts=(wrong, *call.attempts[1:])))
    (difference,) = verdict.attempts[0].differences
    assert (difference.field, difference.expected, difference.observed) == (
        "alloc_flags",
        first.alloc_flags,
        wrong.alloc_flags,
    )
    assert {step.verdict for step in verdict.attempts[1:]} == {"matched"}
