# SPDX-License-Identifier: MIT
"""The slow path against scenarios written from the kernel's source; and each rule broken on purpose."""

import pytest

from kalloctrace.verify.slowpath.judge import CallVerdict, judge_slowpath
from tests.broken_slow_rules import SLOW_MUTATIONS
from tests.slow_scenarios import SCENARIOS, WRONG, Scenario, call_of, slow_kernel

CASES = [(release, scenario) for scenario in (*SCENARIOS, *WRONG) for release in scenario.releases]


def _judged(release: str, scenario: Scenario) -> CallVerdict:
    return judge_slowpath(slow_kernel(release, scenario.machine), call_of(scenario))


def _wrong(release: str, scenario: Scenario) -> list[object]:
    """Return what is not as the scenario says."""
    verdict = _judged(release, scenario)
    *before, last = (*verdict.attempts, verdict.end) if scenario.wrong in {"", "end"} else verdict.attempts
    fields = [each.field for each in last.differences]
    expected = {"": [], "unknown": [], "end": ["sequence"]}.get(scenario.wrong, [scenario.wrong])
    right = fields == expected and bool(last.unknown) == (scenario.wrong == "unknown")
    wrong: list[object] = [] if right else [last]
    for line, attempt in zip(scenario.lines, before, strict=False):
        if attempt.differences or attempt.unknown or line.kind not in attempt.kinds:
            wrong.append((line, attempt))
    return wrong


@pytest.mark.parametrize(
    ("release", "scenario"), CASES, ids=[f"{release}: {scenario.what}" for release, scenario in CASES]
)
def test_scenario(release: str, scenario: Scenario) -> None:
    """Each attempt may come where the source has it come, with its flags, and is taken for what it is; no other may."""
    assert _wrong(release, scenario) == []


@pytest.mark.parametrize("mutation", SLOW_MUTATIONS)
def test_a_broken_rule_is_noticed(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rule can be broken in this way without a scenario that comes out otherwise."""
    module, name, broken = SLOW_MUTATIONS[mutation]
    monkeypatch.setattr(module, name, broken)
    assert any(_wrong(release, scenario) for release, scenario in CASES)
