# SPDX-License-Identifier: MIT
"""What preempt_count says about the running context: include/linux/preempt.h."""

from typing import Literal

from kalloctrace.kernel.features import Features
from kalloctrace.model.compiled import Kernel
from kalloctrace.model.types import Context

ContextName = Literal["task", "bh_disabled", "softirq", "hardirq", "nmi"]

SOFTIRQ_OFFSET = 0x100
SOFTIRQ_DISABLE_OFFSET = 2 * SOFTIRQ_OFFSET
HARDIRQ_OFFSET = 0x10000
"""Where the hardirq count began on every kernel before 7.3."""


def in_task_context(kernel: Kernel, context: Context) -> bool:
    """Tell whether the cpuset branch takes the running context for a task's.

    in_interrupt() counts disabled bottom halves as interrupt, in_task() does not, and 5.8 asks neither; the
    difference is all in the mask.
    Source: include/linux/preempt.h of linux-source-5.10 5.10.262-1 and 6.1.192-2; the new layout in
    7.3.4-1~bpo13+1:33.
    """
    return kernel.features.context_test == "none" or not context.preempt_count & kernel.features.interrupt_mask


def preempt_count_bits(features: Features) -> int:
    """Return the width of the variable: 64 bits where the NMI count fills bits 28 to 31, 32 before.

    Source: include/linux/preempt.h:33 of linux-source-7.3 7.3.4-1~bpo13+1.
    """
    return 64 if features.interrupt_mask >> 28 else 32


def preempt_count(features: Features, context: ContextName) -> int:
    """Return the preempt_count of a context, laid out as that kernel does.

    Args:
        features: of the kernel.
        context: its name; "nmi" holds the NMI count alone, which both tests look at.

    Returns:
        The low 32 bits, `unsigned int`.
    """
    # The hardirq count is the lowest of the mask's upper bits; the NMI count lies four bits above it.
    upper = features.interrupt_mask & ~0xFFFF
    hardirq = upper & -upper or HARDIRQ_OFFSET
    return {
        "task": 0,
        "bh_disabled": SOFTIRQ_DISABLE_OFFSET,
        "softirq": SOFTIRQ_OFFSET,
        "hardirq": hardirq,
        "nmi": hardirq << 4,
    }[context]
