# SPDX-License-Identifier: MIT
"""What the calls of this process must show before anything is captured."""

import mmap
from collections import Counter
from contextlib import suppress

from kalloctrace.errors import KalloctraceError

CALIBRATION_PAGES = 512
_NEARLY_ALL = 0.9


def touch() -> None:
    """Let this thread allocate pages, each by a call of its own."""
    with mmap.mmap(-1, CALIBRATION_PAGES * mmap.PAGESIZE) as memory:
        # A kernel without huge pages rejects the advice.
        with suppress(OSError):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(0, len(memory), mmap.PAGESIZE):
            memory[page] = 1


def agreed_distance(seen: Counter[int]) -> int:
    """Return the distance on which nearly all measurements agree; interrupts may have disturbed a few.

    Args:
        seen: how often each distance, in bytes, was measured.

    Raises:
        KalloctraceError: they do not agree.
    """
    total = seen.total()
    if total:
        distance, times = seen.most_common(1)[0]
        if times >= _NEARLY_ALL * total and 0 < distance < 4096:
            return distance
    raise KalloctraceError(
        "cannot pair the entry with get_page_from_freelist",
        f"the distance between their frames could not be measured: {dict(seen.most_common(3))}",
        "try again on an idle machine; if it fails again, report the kernel release",
    )


def check_task_context(seen: Counter[int], interrupt_mask: int) -> None:
    """Refuse probes that make every call look as if an interrupt made it.

    Kprobes on ftrace and trampolines change at most the low byte of preempt_count. A breakpoint's handler runs in NMI
    context (exc_int3() in arch/x86/kernel/traps.c), so the interrupt bits would be those of the probe itself.

    Args:
        seen: how often each raw preempt_count was measured in calls of one task.
        interrupt_mask: the bits that mean "not in task context".

    Raises:
        KalloctraceError: more calls have such a bit than interrupts can explain.
    """
    interrupted = sum(times for preempt_count, times in seen.items() if preempt_count & interrupt_mask)
    if interrupted > (1 - _NEARLY_ALL) * seen.total():
        raise KalloctraceError(
            "cannot capture preempt_count",
            f"{interrupted} of {seen.total()} calls of a task seem to be an interrupt's: the probe is a breakpoint",
            "let kprobes use ftrace: sysctl kernel.ftrace_enabled=1; or record with --attach fentry",
        )
