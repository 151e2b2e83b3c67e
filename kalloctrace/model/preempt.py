# SPDX-License-Identifier: MIT
"""What preempt_count shows about the running context: include/linux/preempt.h."""

from collections.abc import Mapping
from typing import Literal

from kalloctrace.kernel.features import Features
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Context, UnknownFact

ContextName = Literal["task", "bh_disabled", "softirq", "hardirq", "nmi"]

SOFTIRQ_OFFSET = 0x100
SOFTIRQ_DISABLE_OFFSET = 2 * SOFTIRQ_OFFSET
_SOFTIRQ_COUNTS: Mapping[ContextName, int] = {"bh_disabled": SOFTIRQ_DISABLE_OFFSET, "softirq": SOFTIRQ_OFFSET}
_SOFTIRQ_MASK = 0xFF00
_COUNTER = 0xF
"""The hardirq count and the NMI count have four bits each."""
_SOFTIRQ_PART = 0xFFFF
"""The softirq count, and below it the preemption count, which no test of the context uses."""
HARDIRQ_OFFSET = 0x10000
"""The lowest bit of the hardirq count on every kernel before 7.3."""


def in_task_context(kernel: Kernel, context: Context) -> bool:
    """Return whether the cpuset branch treats the running context as a task's.

    in_interrupt() counts disabled bottom halves as interrupt, in_task() does not, and 5.8 calls neither. Only the
    mask differs.
    Source: include/linux/preempt.h of linux-source-5.10 5.10.262-1 and 6.1.192-2; the new layout in
    7.3.4-1~bpo13+1:33.

    Raises:
        UnknownFact: the count is needed and was not captured.
    """
    if kernel.features.context_test == "none":
        return True
    return not context_count(kernel, context) & kernel.features.interrupt_mask


def trylock_unsafe(kernel: Kernel, context: Context) -> bool:
    """Return whether a trylock is not allowed: in NMI and hardirq context on PREEMPT_RT, where locks sleep.

    Source: mm/page_alloc.c of Linux 6.17:7496, of linux-source-7.2 7.2.13-1:7922, 7.3.4-1~bpo13+1:5406.

    Raises:
        UnknownFact: the count is needed and was not captured.
    """
    return kernel.features.config_preempt_rt and bool(
        _captured(context) & kernel.features.interrupt_mask & ~_SOFTIRQ_PART
    )


def context_count(kernel: Kernel, context: Context) -> int:
    """Return the count that the context tests use, with its parts put together.

    Source: softirq_count() in include/linux/preempt.h of 6.12.117-1 and 7.3.4-1~bpo13+1.

    Raises:
        UnknownFact: the count was not captured.
    """
    if not kernel.features.config_preempt_rt:
        return _captured(context)
    return _captured(context) & ~_SOFTIRQ_PART | context.softirq_disable_cnt & _SOFTIRQ_PART


def _captured(context: Context) -> int:
    if context.preempt_count is None:
        raise UnknownFact("preempt_count")
    return context.preempt_count


def preempt_count_bits(features: Features) -> int:
    """Return the width of the variable: 64 bits where the NMI count fills bits 28 to 31, 32 before.

    Source: include/linux/preempt.h:33 of linux-source-7.3 7.3.4-1~bpo13+1.
    """
    return 64 if features.interrupt_mask >> 28 else 32


def preempt_count(features: Features, context: ContextName) -> int:
    """Return the preempt_count of a context in that kernel's layout.

    Args:
        features: of the kernel.
        context: its name; "nmi" has the NMI count only, which both tests use.

    Returns:
        The low 32 bits, `unsigned int`. On PREEMPT_RT the softirq part is missing here: it is in
        `softirq_disable_cnt`.
    """
    # The hardirq count is the lowest of the mask's upper bits; the NMI count lies four bits above it.
    upper = features.interrupt_mask & ~0xFFFF
    hardirq = upper & -upper or HARDIRQ_OFFSET
    return {
        "task": 0,
        **(dict.fromkeys(_SOFTIRQ_COUNTS, 0) if features.config_preempt_rt else _SOFTIRQ_COUNTS),
        "hardirq": hardirq,
        "nmi": hardirq << 4,
    }[context]


def softirq_disable_cnt(features: Features, context: ContextName) -> int:
    """Return the `current->softirq_disable_cnt` of a context; 0 if the kernel has no such member."""
    return _SOFTIRQ_COUNTS.get(context, 0) if features.config_preempt_rt else 0


def context_name(features: Features, count: int, softirq_disable_cnt: int | None = None) -> ContextName:
    """Return the context that a raw preempt_count stands for, the innermost one.

    An odd softirq count means that a softirq is being served; disabling bottom halves adds two.

    Args:
        features: of the kernel.
        count: the raw preempt_count.
        softirq_disable_cnt: on PREEMPT_RT, the softirq part, which preempt_count lacks; None where not captured.
    """
    count |= (softirq_disable_cnt or 0) & _SOFTIRQ_MASK
    hardirq = preempt_count(features, "hardirq")
    if count & _COUNTER * preempt_count(features, "nmi"):
        return "nmi"
    if count & _COUNTER * hardirq:
        return "hardirq"
    if count & SOFTIRQ_OFFSET:
        return "softirq"
    return "bh_disabled" if count & _SOFTIRQ_MASK else "task"
