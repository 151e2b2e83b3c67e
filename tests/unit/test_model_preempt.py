# SPDX-License-Identifier: MIT
"""The context that a preempt_count stands for."""

from dataclasses import replace

import pytest

from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.features import Features
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.preempt import (
    ContextName,
    context_count,
    context_name,
    in_task_context,
    preempt_count,
    preempt_count_bits,
    softirq_disable_cnt,
    trylock_unsafe,
)
from kalloctrace.model.types import Context, UnknownFact


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.3"])
@pytest.mark.parametrize("context", ["task", "bh_disabled", "softirq", "hardirq", "nmi"])
def test_context_by_the_kernels_layout(kernel: str, context: ContextName) -> None:
    """A preempt_count is read in that kernel's layout, also with preemption disabled."""
    features = builtin_snapshot(kernel).features
    preempt_disabled = 2
    assert context_name(features, preempt_count(features, context) | preempt_disabled) == context


@pytest.mark.parametrize(
    ("outer", "inner"), [("bh_disabled", "softirq"), ("softirq", "hardirq"), ("bh_disabled", "hardirq")]
)
def test_innermost_context_counts(outer: ContextName, inner: ContextName) -> None:
    """An interrupt that interrupted another context is the one that allocates."""
    features = builtin_snapshot("5.10").features
    assert context_name(features, preempt_count(features, outer) + preempt_count(features, inner)) == inner


# include/linux/preempt.h of 5.10.262-1: 8 bits for preemption, 8 for softirqs, 4 for hardirqs, 4 for NMIs; :33 of
# 7.3.4-1~bpo13+1: the hardirqs from bit 24, the NMIs from bit 28. SOFTIRQ_DISABLE_OFFSET is 2 * SOFTIRQ_OFFSET.
LAYOUT_5_10: dict[ContextName, int] = {
    "task": 0,
    "softirq": 0x100,
    "bh_disabled": 0x200,
    "hardirq": 0x10000,
    "nmi": 0x100000,
}
LAYOUT_7_3: dict[ContextName, int] = {**LAYOUT_5_10, "hardirq": 0x1000000, "nmi": 0x10000000}


def features_of(release: str, *, rt: bool = False) -> Features:
    """Return the features of a built-in kernel, or of its rt flavour."""
    return replace(builtin_snapshot(release).features, config_preempt_rt=rt)


def kernel_of(release: str, *, rt: bool = False) -> Kernel:
    """Return a built-in kernel, or its rt flavour."""
    return Kernel.of(replace(builtin_snapshot(release), features=features_of(release, rt=rt)))


@pytest.mark.parametrize(
    ("release", "layout", "bits"),
    [("5.8", LAYOUT_5_10, 32), ("5.10", LAYOUT_5_10, 32), ("6.12", LAYOUT_5_10, 32), ("7.3", LAYOUT_7_3, 64)],
)
def test_layout(release: str, layout: dict[ContextName, int], bits: int) -> None:
    """Each count starts at the bit that the header gives it; task context is 0."""
    assert {context: preempt_count(features_of(release), context) for context in layout} == layout
    assert preempt_count_bits(features_of(release)) == bits
    assert not any(softirq_disable_cnt(features_of(release), context) for context in layout)


@pytest.mark.parametrize(("release", "layout"), [("6.12", LAYOUT_5_10), ("7.3", LAYOUT_7_3)])
def test_layout_of_preempt_rt(release: str, layout: dict[ContextName, int]) -> None:
    """softirq_count() is `current->softirq_disable_cnt & SOFTIRQ_MASK` there: include/linux/preempt.h of 6.12.117-1."""
    rt = features_of(release, rt=True)
    softirq = {context: value if value < 0x10000 else 0 for context, value in layout.items()}
    assert {context: softirq_disable_cnt(rt, context) for context in layout} == softirq
    rest = {context: value if value >= 0x10000 else 0 for context, value in layout.items()}
    assert {context: preempt_count(rt, context) for context in layout} == rest


@pytest.mark.parametrize(
    ("release", "count", "softirq", "name"),
    [
        # PREEMPT_MASK, 0xff, is the number of preempt_disable() calls.
        *((release, 0xFF, None, "task") for release in ("5.10", "7.3")),
        ("5.10", 0x1, 0, "task"),
        ("5.10", 0xFE00, None, "bh_disabled"),
        # A count of more than one: nested.
        *(("5.10", 0x80000, None, "hardirq"), ("5.10", 0x800000, None, "nmi"), ("5.10", 0x880302, None, "nmi")),
        *(("7.3", 0x8000000, None, "hardirq"), ("7.3", 0x80000000, None, "nmi"), ("7.3", 0x10000, None, "task")),
        # PREEMPT_NEED_RESCHED of x86 is bit 31, which is no count before 7.3.
        ("6.12", 0x80000000, None, "task"),
        # PREEMPT_RT.
        *(("6.12", 0, 0x100, "softirq"), ("6.12", 0, 0x200, "bh_disabled"), ("6.12", 0x10000, 0x200, "hardirq")),
        # Only SOFTIRQ_MASK, 0xff00, of the task's count is used.
        *(("6.12", 0, 0x10000, "task"), ("6.12", 0, 0x1, "task")),
    ],
)
def test_name_of_a_count(release: str, count: int, softirq: int | None, name: ContextName) -> None:
    """in_nmi(), in_hardirq() and in_serving_softirq() of include/linux/preempt.h, the innermost first."""
    assert context_name(features_of(release), count, softirq) == name


def _context(count: int | None, softirq: int = 0) -> Context:
    return Context(cpusets_enabled=True, gfp_allowed_mask=0, preempt_count=count, softirq_disable_cnt=softirq)


def test_preempt_rt_takes_the_softirq_part_from_the_task() -> None:
    """The lower 16 bits come from the task and the upper ones from preempt_count; elsewhere it is preempt_count."""
    context = _context(0x0012_3456, 0x0055_0300)
    assert context_count(kernel_of("6.12", rt=True), context) == 0x0012_0300
    assert context_count(kernel_of("6.12"), context) == 0x0012_3456


@pytest.mark.parametrize(
    ("release", "rt", "count", "unsafe"),
    [
        ("6.18", True, 0x10000, True),
        ("6.18", True, 0x100000, True),
        ("6.18", False, 0x110000, False),
        # On PREEMPT_RT bits below 16 count preempt_disable() only, and bit 31 is PREEMPT_NEED_RESCHED.
        ("6.18", True, 0x1FF, False),
        ("6.18", True, 0x80000000, False),
        ("7.3", True, 0x1000000, True),
        ("7.3", True, 0x10000, False),
    ],
)
def test_where_a_trylock_is_unsafe(release: str, rt: bool, count: int, unsafe: bool) -> None:
    """`IS_ENABLED(CONFIG_PREEMPT_RT) && (in_nmi() || in_hardirq())`, mm/page_alloc.c of Linux 6.17:7496."""
    assert trylock_unsafe(kernel_of(release, rt=rt), _context(count)) is unsafe


def test_a_count_that_was_not_captured_is_named() -> None:
    """5.8 does not test it, and a trylock is safe anywhere without PREEMPT_RT."""
    for release, rt in (("6.12", False), ("6.12", True)):
        with pytest.raises(UnknownFact, match=r"not known: preempt_count$"):
            in_task_context(kernel_of(release, rt=rt), _context(None))
    with pytest.raises(UnknownFact, match=r"not known: preempt_count$"):
        trylock_unsafe(kernel_of("6.18", rt=True), _context(None))
    assert in_task_context(kernel_of("5.8"), _context(None))
    assert not trylock_unsafe(kernel_of("6.18"), _context(None))
