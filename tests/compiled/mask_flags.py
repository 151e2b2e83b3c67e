# SPDX-License-Identifier: MIT
"""Checks `mask_alloc_flags`, which reads a gfp mask without any facts, against what a compiled kernel did."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from kalloctrace.model.slowpath.flags import MAX_RT_PRIO, mask_alloc_flags
from kalloctrace.model.slowpath.types import Facts, SlowKernel
from kalloctrace.verify.slowpath.judge import CallVerdict
from tests.compiled.rows import Called

_STATES = {
    "real_time": replace(Facts(), prio=0),
    "oom_victim": replace(Facts(), oom_victim=True),
    "pf_memalloc": replace(Facts(), task_flags=0x800),
}
"""The conditions of `mask_alloc_flags`; PF_MEMALLOC is 0x800 in every kernel."""

_CLOSED = frozenset({"first_try", "after_waking_kswapd", "restart", "retry"})
"""Kinds of attempts with the flags of `gfp_to_alloc_flags`."""

_OPEN = frozenset({"with_reserves"})
"""Kinds of attempts with the flags of `__gfp_pfmemalloc_flags`. From 7.0 on a retry may come before it is called."""


class MaskFlags(NamedTuple):
    """The flags of one attempt.

    Attributes:
        expected: ALLOC_* bits that the mask and the state of the task give.
        actual: the flags of the compiled kernel's attempt, without those of `ac->alloc_flags`.
    """

    expected: int
    actual: int


def mask_flags(kernel: SlowKernel, called: Called, verdict: CallVerdict) -> Iterator[MaskFlags]:
    """Yield the attempts of a call whose task is ordinary, or is so but for one condition.

    Args:
        kernel: the kernel.
        called: the call.
        verdict: its attempts' kinds.
    """
    call = called.call
    flags, conditions = mask_alloc_flags(kernel, call.gfp_mask, call.order)
    by_condition: dict[str, int] = {condition.fact: condition.alloc_flags for condition in conditions}
    for attempt, judged in zip(call.attempts, verdict.attempts, strict=True):
        state = _state(kernel, attempt.facts)
        if state is None or not judged.kinds:
            continue
        expected = flags if state == "" else by_condition.get(state, flags)
        opened = bool(expected & (kernel.bits.alloc_no_watermarks | kernel.bits.alloc_oom))
        kinds = frozenset(judged.kinds)
        if kinds <= (_OPEN if opened else _CLOSED):
            yield MaskFlags(expected, attempt.alloc_flags & ~call.context.alloc_flags)


def _state(kernel: SlowKernel, facts: Facts) -> str | None:
    """Return the condition that holds, "" for an ordinary task, None where several hold or the context is no task's."""
    prio = 0 if (facts.prio or 0) < MAX_RT_PRIO else 120
    task_flags = (facts.task_flags or 0) & kernel.bits.pf_memalloc
    plain = Facts(task_flags=task_flags, prio=prio, oom_victim=facts.oom_victim)
    if facts.preempt_count or (facts.defrag_mode and kernel.kernel.features.defrag_mode):
        return None
    if plain == Facts():
        return ""
    return next((when for when, state in _STATES.items() if state == plain), None)
