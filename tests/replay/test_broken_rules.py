# SPDX-License-Identifier: MIT
"""The recorded fixtures notice each rule that is broken on purpose, one at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.kernel.features import Features
from kalloctrace.model.kernel import Kernel
from kalloctrace.trace.dedup import count_distinct
from kalloctrace.trace.reader import TraceReader
from kalloctrace.verify.compare import Switches, judge
from tests.broken_rules import BULK_MUTATIONS, MUTATIONS, RT_MUTATIONS

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
SWITCHES = Switches(frozenset(), frozenset(), frozenset())

ALL_MUTATIONS = {**MUTATIONS, **BULK_MUTATIONS, **RT_MUTATIONS}

NOWHERE = {
    "gfp_migratetype ignores the switch": "page_group_by_mobility_disabled is set on machines of some MiB only",
    "order's warning after masking": "the warning goes to the kernel's log, not into a trace",
    "no NORECLAIM": "the task's flags PF_MEMALLOC_NORECLAIM and _NOWARN were read from 6.9 to 6.11 only",
    "NORECLAIM everywhere": "likewise",
    "no NOWARN": "likewise",
    "PREEMPT_RT: softirq part of preempt_count": "none of these is an rt flavour",
    "PREEMPT_RT: locks may be tried anywhere": "likewise",
    "bulk: page_owner ignored": "Debian's kernels are built without CONFIG_PAGE_OWNER",
    "bulk: zones of any index": "a looser rule, which a kernel that obeys the stricter one cannot show",
    "bulk: zones of any node": "likewise",
}
NO_CMA = {
    "no ALLOC_CMA": "Debian's kernel is built without CONFIG_CMA before 7.2",
    "ALLOC_CMA for all": "likewise",
    "ALLOC_CMA for reclaimable": "likewise",
}
NO_NOCMA = {
    "ALLOC_CMA in spite of NOCMA": "PF_MEMALLOC_NOCMA went in 5.13",
    "NOCMA on every kernel": "the same bit is PF_MEMALLOC_PIN since, which makes the request unmovable before that",
}
NO_NOLOCK = {
    "orders without locks as all": "there is no allocation without locks before 6.15",
    "mask without locks not completed": "likewise",
    "one mask without locks for all": "likewise",
    "node of the CPU is 0": "likewise",
    "PREEMPT_RT: locks may be tried nowhere": "likewise",
    "no defrag_mode": "the sysctl came in 6.15",
}
NO_ARGUMENT = {
    "no check of alloc_flags": "the argument came in 7.3",
    "no HIGHATOMIC": "on the fast path since 7.3",
    "HIGHATOMIC of order 0": "likewise",
    "HIGHATOMIC may reclaim": "likewise",
    "HIGHATOMIC without HIGH": "likewise",
}
IN_TASK_ALREADY = {"in_task() of 7.2 everywhere": "this is the kernel's own rule"}

NOT_IN = {
    "5.10": {
        **NOWHERE,
        **NO_CMA,
        **NO_NOLOCK,
        **NO_ARGUMENT,
        "no scopes": "5.10 applies current_gfp_context on the slow path only",
        "no PIN": "likewise; PF_MEMALLOC_PIN came in 5.13",
        "no NOIO": "likewise",
        "no NOFS": "likewise",
        "in_interrupt() for in_task()": "this is the rule of 5.10",
        "ALLOC_CMA in spite of NOCMA": "Debian's 5.10 is built without CONFIG_CMA",
        "NOCMA on every kernel": "likewise",
        "bulk: no single page": "the bulk allocator came in 5.13",
        "bulk: one missing page not counted": "likewise",
        "bulk: no gfp_allowed_mask": "likewise",
        "bulk: in the task's scopes": "likewise",
        "bulk: accounting ignored": "likewise",
        "bulk: accounting whatever the mask": "likewise",
    },
    "6.1": {**NOWHERE, **NO_CMA, **NO_NOCMA, **NO_NOLOCK, **NO_ARGUMENT, **IN_TASK_ALREADY},
    "6.12": {**NOWHERE, **NO_CMA, **NO_NOCMA, **NO_NOLOCK, **NO_ARGUMENT, **IN_TASK_ALREADY},
    "7.2": {
        **NOWHERE,
        **NO_NOCMA,
        **NO_ARGUMENT,
        **IN_TASK_ALREADY,
        "one mask without locks for all": "this is the rule since 6.18",
    },
    "7.3": {
        **NOWHERE,
        **NO_NOCMA,
        "one mask without locks for all": "this is the rule since 6.18",
        "node of the CPU is 0": "the caller of the entry has chosen the node",
    },
}
"""The kernels whose fixtures are made of requests for every rule, and the rules that these cannot show there."""

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
def recorded(folder: str) -> tuple[tuple[Kernel, tuple[dict[str, Any], ...]], ...]:
    """Return the kernel and the distinct rows of each fixture of a folder."""
    found = []
    for path in sorted(FIXTURES.glob(f"{folder}/*.arrows")):
        with TraceReader(path) as trace:
            rows = tuple(row for row, _ in count_distinct(trace.batches()))
            found.append((Kernel.of(trace.snapshot), rows))
    return tuple(found)


def mismatches(folder: str, **wrong: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 features have types of their own
    """Yield the rows that do not fit the model as it is now, with some features of the kernel taken wrongly."""
    for right, rows in recorded(folder):
        features: Features = replace(right.features, **wrong)
        kernel = right.on(right.machine, features)
        yield from (row for row in rows if judge(kernel, row, SWITCHES, may_miss=False).differences)


@pytest.mark.parametrize("folder", NOT_IN)
def test_fixtures_match_unbroken(folder: str) -> None:
    """What is noticed below is the breaking."""
    assert recorded(folder)
    assert next(mismatches(folder), None) is None


@pytest.mark.parametrize(
    ("folder", "mutation"),
    [(folder, name) for folder in NOT_IN for name in ALL_MUTATIONS if name not in NOT_IN[folder]],
)
def test_broken_rule_is_caught(folder: str, mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule that a kernel has is seen at work in some fixture of it."""
    module, name, broken = ALL_MUTATIONS[mutation]
    monkeypatch.setattr(module, name, broken)
    assert next(mismatches(folder), None) is not None


def _rounds(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Divide mutations into as few groups as possible in which none replaces the same function as another."""
    rounds: list[dict[tuple[object, str], str]] = []
    for mutation in names:
        module, name, _ = ALL_MUTATIONS[mutation]
        free = next((one for one in rounds if (module, name) not in one), None)
        if free is None:
            rounds.append(free := {})
        free[module, name] = mutation
    return [tuple(one.values()) for one in rounds]


@pytest.mark.parametrize(
    ("folder", "mutations"), [(folder, names) for folder in NOT_IN for names in _rounds(NOT_IN[folder])]
)
def test_rules_of_other_kernels_play_no_part(
    folder: str, mutations: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of exceptions holds nothing that the fixtures could catch, even with several rules broken at once."""
    for mutation in mutations:
        monkeypatch.setattr(*ALL_MUTATIONS[mutation])
    assert next(mismatches(folder), None) is None


@pytest.mark.parametrize("feature", WRONG_FEATURES)
def test_wrong_feature_is_caught(feature: str) -> None:
    """A kernel taken for one with other rules is noticed."""
    assert next(mismatches("5.10", **WRONG_FEATURES[feature]), None) is not None
