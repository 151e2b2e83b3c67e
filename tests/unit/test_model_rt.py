# SPDX-License-Identifier: MIT
"""PREEMPT_RT: the softirq part of preempt_count lies in the task, and locks may not be tried everywhere."""

from dataclasses import replace

import pytest

from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.model import preempt
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.page_alloc import alloc_pages
from kalloctrace.model.types import Context, Request
from tests.broken_rules import RT_MUTATIONS

SOFTIRQ, BH_DISABLED, HARDIRQ, NMI = 0x100, 0x200, 0x10000, 0x100000
CPUSET = 0x40


def rt(release: str) -> Kernel:
    """Return a built-in kernel as its rt flavour."""
    snapshot = builtin_snapshot(release)
    return Kernel.of(replace(snapshot, features=replace(snapshot.features, config_preempt_rt=True)))


def context(preempt_count: int, softirq_disable_cnt: int) -> Context:
    """Return a context with cpusets on, where task and interrupt differ."""
    return Context(
        cpusets_enabled=True,
        gfp_allowed_mask=0x1FFFFFF,
        preempt_count=preempt_count,
        softirq_disable_cnt=softirq_disable_cnt,
    )


CONTEXTS = [
    ("5.10", 0, 0, True),
    ("5.10", 0, BH_DISABLED, False),
    ("5.10", 0, SOFTIRQ, False),
    ("6.12", 0, 0, True),
    ("6.12", 0, BH_DISABLED, True),
    ("6.12", 0, SOFTIRQ, False),
    ("6.12", SOFTIRQ, 0, True),
    ("6.12", HARDIRQ, 0, False),
    ("6.12", NMI, 0, False),
    ("6.12", 0, HARDIRQ, True),
    ("7.3", 0x10000000, 0, False),
    ("7.3", HARDIRQ, 0, True),
    ("7.3", 0, SOFTIRQ, False),
]

NOLOCKS = [
    ("6.18", 0, "prepared"),
    ("6.18", HARDIRQ, "rejected"),
    ("6.18", NMI, "rejected"),
    ("7.3", 0x01000000, "rejected"),
    ("7.3", HARDIRQ, "prepared"),
]


def wrong() -> list[object]:
    """Return the cases that the model does not get right."""
    cases: list[object] = [
        case for case in CONTEXTS if preempt.in_task_context(rt(case[0]), context(*case[1:3])) != case[3]
    ]
    request = Request(0, 0, 0, entry="nolock")
    cases += [case for case in NOLOCKS if alloc_pages(rt(case[0]), request, context(case[1], 0)).outcome != case[2]]
    return cases


def test_contexts_and_refusals() -> None:
    """As include/linux/preempt.h and the entry without locks have it."""
    assert wrong() == []


@pytest.mark.parametrize("mutation", RT_MUTATIONS)
def test_broken_rule_is_noticed(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule, broken alone, changes a case."""
    module, name, broken = RT_MUTATIONS[mutation]
    monkeypatch.setattr(module, name, broken)
    assert wrong()


@pytest.mark.parametrize(
    ("release", "function", "hardirq"),
    [
        ("6.17", "alloc_pages_nolock_noprof", HARDIRQ),
        ("7.2", "alloc_frozen_pages_nolock_noprof", HARDIRQ),
        ("7.3", "__alloc_frozen_pages_noprof", 0x01000000),
    ],
)
def test_the_rejecting_step_names_the_function_that_tests_the_context(
    release: str, function: str, hardirq: int
) -> None:
    """The function without locks returns NULL itself: 6.17:7496, 7.2.13-1:7922; in 7.3 it is the normal entry."""
    answer = alloc_pages(rt(release), Request(0, 0, 0, entry="nolock"), context(hardirq, 0))
    last = answer.steps[-1]
    assert (answer.outcome, answer.warns) == ("rejected", False)
    assert (last.rule, last.function) == ("trylock", function)
    assert f"{hardirq:#x}" in last.effect
    assert last.effect == f"{answer.reason}: NULL is returned"


def test_other_flavours_may_try_locks_anywhere() -> None:
    """The refusal is the rt flavours' alone."""
    kernel = Kernel.of(builtin_snapshot("6.18"))
    assert alloc_pages(kernel, Request(0, 0, 0, entry="nolock"), context(HARDIRQ, 0)).outcome == "prepared"


def test_task_part_of_the_cpuset_flag() -> None:
    """In a softirq the request keeps no mems_allowed, and leaves the check to ALLOC_CPUSET."""
    done = alloc_pages(rt("6.12"), Request(0x820, 0, 0), context(0, SOFTIRQ))
    assert done.alloc_flags is not None
    assert done.alloc_flags & CPUSET


@pytest.mark.parametrize("name", ["task", "bh_disabled", "softirq", "hardirq", "nmi"])
def test_named_contexts_mean_the_same_on_both_flavours(name: preempt.ContextName) -> None:
    """Where the parts lie differs, what they say does not."""
    plain = Kernel.of(builtin_snapshot("6.12"))
    for kernel in (plain, rt("6.12")):
        counts = (
            preempt.preempt_count(kernel.features, name),
            preempt.softirq_disable_cnt(kernel.features, name),
        )
        assert preempt.in_task_context(kernel, context(*counts)) == (name in {"task", "bh_disabled"})
