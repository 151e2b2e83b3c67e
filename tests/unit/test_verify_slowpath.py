# SPDX-License-Identifier: MIT
"""The verdict on calls of the slow path: what is judged once, and what becomes of calls that are altered."""

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
    monkeypatch.setattr(judge, "_CACHED", 2)
    first, second, third = distinct_calls(3)
    judge_call = SlowpathJudge(kernel)
    verdicts = [judge_call(call) for call in (first, second, first, second)]
    assert judged == [first, second]
    assert verdicts[:2] == verdicts[2:]
    # There is no room for a third: the older ones are forgotten.
    judge_call(third)
    assert [judge_call(first), judge_call(third)] == [verdicts[0], real(kernel, third)]
    assert judged == [first, second, third, first]
