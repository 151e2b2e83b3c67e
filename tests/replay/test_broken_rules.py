# SPDX-License-Identifier: MIT
"""The recorded fixtures notice each rule that is broken on purpose, one at a time."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.kernel.features import Features
from kalloctrace.model.compiled import Kernel
from kalloctrace.trace.reader import TraceReader
from kalloctrace.verify.compare import Switches, judge
from kalloctrace.verify.distinct import distinct_rows
from tests.broken_rules import MUTATIONS

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
SWITCHES = Switches(frozenset(), frozenset(), frozenset())

NOT_IN_5_10 = {
    "gfp_migratetype ignores the switch": "page_group_by_mobility_disabled is set on machines of some MiB only",
    "no scopes": "5.10 applies current_gfp_context on the slow path only",
    "no PIN": "likewise; PF_MEMALLOC_PIN came in 5.13",
    "no NORECLAIM": "likewise",
    "NORECLAIM everywhere": "likewise",
    "no NOWARN": "likewise",
    "no NOIO": "likewise",
    "no NOFS": "likewise",
    "in_interrupt() for in_task()": "this is the rule of 5.10",
    "no ALLOC_CMA": "Debian's 5.10 is built without CONFIG_CMA",
    "ALLOC_CMA for all": "likewise",
    "ALLOC_CMA for reclaimable": "likewise",
    "ALLOC_CMA in spite of NOCMA": "likewise",
    "NOCMA on every kernel": "likewise",
    "order's warning after masking": "the warning goes to the kernel's log, not into a trace",
    "orders without locks as all": "5.10 has no allocation without locks",
    "no check of alloc_flags": "the argument came in 7.3",
    "mask without locks not completed": "5.10 has no allocation without locks",
    "one mask without locks for all": "likewise",
    "node of the CPU is 0": "likewise",
    "no defrag_mode": "the sysctl came in 6.15",
    "no HIGHATOMIC": "on the fast path since 7.3",
    "HIGHATOMIC of order 0": "likewise",
    "HIGHATOMIC may reclaim": "likewise",
    "HIGHATOMIC without HIGH": "likewise",
}

WRONG_FEATURES: dict[str, dict[str, Any]] = {
    "task scopes on the fast path, as from 5.13 on": {"gfp_context_on_fast_path": True},
    "in_task(), as from 5.15 on": {"context_test": "in_task", "interrupt_mask": 0x00FF0100},
    "no test of the context, as in 5.8": {"context_test": "none"},
    "hardirq only": {"interrupt_mask": 0x000F0000},
    "softirq only": {"interrupt_mask": 0x0000FF00},
    "CONFIG_CMA": {"config_cma": True},
    "no CONFIG_CPUSETS": {"config_cpusets": False},
    "no CONFIG_NUMA": {"config_numa": False},
    "largest order 9": {"max_order": 9},
    "largest order 11": {"max_order": 11},
}


@cache
def recorded() -> tuple[tuple[Kernel, tuple[dict[str, Any], ...]], ...]:
    """Return the kernel and the distinct rows of each 5.10 fixture."""
    found = []
    for path in sorted(FIXTURES.glob("5.10/*.arrows")):
        with TraceReader(path) as trace:
            rows = tuple(row for row, _ in distinct_rows(trace.batches()))
            found.append((Kernel.of(trace.snapshot), rows))
    return tuple(found)


def mismatches(**wrong: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 features have types of their own
    """Yield the rows that do not fit the model as it is now, with some features of the kernel taken wrongly."""
    for right, rows in recorded():
        features: Features = replace(right.features, **wrong)
        kernel = right.on(right.machine, features)
        yield from (row for row in rows if judge(kernel, row, SWITCHES, may_miss=False).differences)


def test_fixtures_match_unbroken() -> None:
    """What is noticed below is the breaking."""
    assert recorded()
    assert next(mismatches(), None) is None


@pytest.mark.parametrize("mutation", [name for name in MUTATIONS if name not in NOT_IN_5_10])
def test_broken_rule_is_caught(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule that a 5.10 kernel has is seen at work in some fixture."""
    module, name, broken = MUTATIONS[mutation]
    monkeypatch.setattr(module, name, broken)
    assert next(mismatches(), None) is not None


@pytest.mark.parametrize("mutation", NOT_IN_5_10)
def test_rule_of_other_kernels_plays_no_part(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of exceptions holds nothing that the fixtures could catch."""
    module, name, broken = MUTATIONS[mutation]
    monkeypatch.setattr(module, name, broken)
    assert next(mismatches(), None) is None


@pytest.mark.parametrize("feature", WRONG_FEATURES)
def test_wrong_feature_is_caught(feature: str) -> None:
    """A kernel taken for one with other rules is noticed."""
    assert next(mismatches(**WRONG_FEATURES[feature]), None) is not None
