# SPDX-License-Identifier: MIT
"""The ALLOC_* flags of the slow path's attempts: the functions of mm/page_alloc.c that compute them.

`gfp_to_alloc_flags` and the functions it calls need every fact. `mask_alloc_flags` runs them on facts that nobody
captured, and lists the conditions under which the result would differ.
Sources: linux-source-5.10 5.10.262-1, 6.1 6.1.192-2, 6.12 6.12.118-1, 7.2 7.2.12-1~bpo13+1, 7.3 7.3.4-1~bpo13+1.
"""

from dataclasses import dataclass, replace
from typing import Literal

from kalloctrace.model import gfp, preempt
from kalloctrace.model.page_alloc import alloc_flags_cma
from kalloctrace.model.slowpath.types import Facts, SlowKernel, require
from kalloctrace.model.types import Context, Step

MAX_RT_PRIO = 100
"""include/linux/sched/prio.h: the priorities of real-time tasks are below, those of SCHED_DEADLINE tasks below 0."""

HARDIRQ_AND_NMI = 0x00FF_0000
"""The hardirq and NMI counts, on kernels whose preparation stage does not test them."""

SOFTIRQ_MASK = 0xFF00
"""The softirq count."""


ORDINARY_TASK = Facts()
"""A task in task context: not real-time, no PF_* flag, no OOM victim; cpusets and vm.defrag_mode are off."""


ConditionFact = Literal[
    "real_time",
    "oom_victim",
    "pf_memalloc",
    "highatomic_for_all",
    "highatomic_for_high",
    "atomic_mask",
    "plain_mask",
    "movable_mask",
]
"""The task is real-time, an OOM victim, or has PF_MEMALLOC; the kernel gives ALLOC_HIGHATOMIC to all requests that
cannot block, or only to __GFP_HIGH ones; the mask has the bits of GFP_ATOMIC, or not; it has __GFP_MOVABLE."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A fact that nobody captured and that would change the flags.

    Attributes:
        fact: what would have to be true.
        alloc_flags: ALLOC_* bits in that case.
    """

    fact: ConditionFact
    alloc_flags: int


def mask_alloc_flags(
    kernel: SlowKernel, gfp_mask: int, order: int, *, unsure: frozenset[str] = frozenset()
) -> tuple[int, tuple[Condition, ...]]:
    """Return the flags of the attempts at the min watermark, as far as the request shows them.

    The same functions run again on each other state of the task, so that no rule exists twice.

    Args:
        kernel: the kernel.
        gfp_mask: `gfp_t`, the argument of `__alloc_pages_slowpath`.
        order: `unsigned int`.
        unsure: names of members of `kernel.rules` that the kernel may or may not have, see
            `kalloctrace.kernel.slowpath_rules.unsure_rules`.

    Returns:
        The ALLOC_* bits of an ordinary task, and the conditions under which they would differ.
    """
    flags = attempt_alloc_flags(kernel, gfp_mask, order, ORDINARY_TASK)
    others: list[tuple[ConditionFact, int]] = []
    if "highatomic_for_high" in unsure:
        other_rule = not kernel.rules.highatomic_for_high
        other = replace(kernel, rules=replace(kernel.rules, highatomic_for_high=other_rule))
        others.append((_HIGHATOMIC[other_rule], attempt_alloc_flags(other, gfp_mask, order, ORDINARY_TASK)))
    states: tuple[tuple[ConditionFact, Facts], ...] = (
        ("real_time", replace(ORDINARY_TASK, prio=0)),
        ("oom_victim", replace(ORDINARY_TASK, oom_victim=True)),
        (
            "pf_memalloc",
            replace(ORDINARY_TASK, task_flags=kernel.bits.pf_memalloc),
        ),
    )
    for fact, facts in states:
        others.append((fact, attempt_alloc_flags(kernel, gfp_mask, order, facts)))
    return flags, tuple(Condition(fact, other) for fact, other in others if other != flags)


_HIGHATOMIC: dict[bool, ConditionFact] = {
    False: "highatomic_for_all",
    True: "highatomic_for_high",
}


def attempt_alloc_flags(kernel: SlowKernel, gfp_mask: int, order: int, facts: Facts) -> int:
    """Return the ALLOC_* bits of the attempts at the min watermark, without those of `ac->alloc_flags`.

    Args:
        kernel: the kernel.
        gfp_mask: `gfp_t`, the argument of `__alloc_pages_slowpath`.
        order: `unsigned int`.
        facts: what the slow path reads of the task and the machine.

    Raises:
        UnknownFact: a fact that decides was not captured.
    """
    gfp_mask = slowpath_gfp_mask(kernel, gfp_mask)
    flags, _ = gfp_to_alloc_flags(kernel, gfp_mask, order, facts)
    reserves, _ = gfp_pfmemalloc_flags(kernel, gfp_mask, facts)
    return reserve_flags(kernel, gfp_mask, reserves, flags, facts)[0] if reserves else flags


def slowpath_gfp_mask(kernel: SlowKernel, gfp_mask: int) -> int:
    """Return the mask that the slow path works with.

    A request that may reclaim is not atomic: the slow path warns and clears __GFP_ATOMIC.
    Source: mm/page_alloc.c of 5.10.262-1:4664, 6.1.192-2:5118.

    Args:
        kernel: the kernel.
        gfp_mask: `gfp_t`, the argument of `__alloc_pages_slowpath`.
    """
    bits = kernel.bits
    return gfp_mask & ~bits.gfp_atomic if gfp_mask & bits.gfp_direct_reclaim else gfp_mask


def gfp_to_alloc_flags(kernel: SlowKernel, gfp_mask: int, order: int, facts: Facts) -> tuple[int, tuple[Step, ...]]:
    """Return the flags that the slow path starts with.

    Source: `gfp_to_alloc_flags`, mm/page_alloc.c of 5.10.262-1:4424, 6.1.192-2:4890, 6.12.118-1:4077, 7.2.12-1:4532;
    `alloc_flags_slowpath` of 7.3.4-1~bpo13+1:4549.

    Args:
        kernel: the kernel.
        gfp_mask: `gfp_t`.
        order: `unsigned int`.
        facts: priority, context, task flags, vm.defrag_mode.

    Returns:
        The ALLOC_* bits, without those of `ac->alloc_flags`, and the steps.

    Raises:
        UnknownFact: a fact that decides was not captured.
    """
    bits = kernel.bits
    function = "alloc_flags_slowpath" if kernel.kernel.features.entry_alloc_flags else "gfp_to_alloc_flags"
    flags = bits.alloc_wmark_min | bits.alloc_cpuset
    steps = [Step("slow_watermark", function, "the slow path starts with ALLOC_WMARK_MIN and ALLOC_CPUSET")]
    if gfp_mask & bits.gfp_high:
        reserve = bits.alloc_high | bits.alloc_min_reserve
        flags |= reserve
        steps.append(Step("slow_high", function, f"__GFP_HIGH: {reserve:#x} opens part of the reserve"))
    if gfp_mask & bits.gfp_kswapd_reclaim:
        flags |= bits.alloc_kswapd
        steps.append(Step("slow_kswapd", function, "__GFP_KSWAPD_RECLAIM: ALLOC_KSWAPD"))
    if bits.alloc_harder:
        flags, step = alloc_harder(kernel, gfp_mask, flags, facts)
    else:
        flags, step = alloc_non_block(kernel, gfp_mask, order, flags, facts)
    steps.append(step)
    cma, step = cma_flags(kernel, gfp_mask, facts)
    flags |= cma
    steps.append(step)
    if defrag_mode(kernel, facts):
        flags |= bits.alloc_nofragment
        steps.append(Step("slow_defrag", function, "vm.defrag_mode is on: ALLOC_NOFRAGMENT"))
    return flags, tuple(steps)


def alloc_harder(kernel: SlowKernel, gfp_mask: int, flags: int, facts: Facts) -> tuple[int, Step]:
    """Open reserves to atomic requests and real-time tasks, on kernels where __GFP_ATOMIC marks atomic requests.

    Source: mm/page_alloc.c of linux-source-5.10 5.10.262-1:4446.

    Returns:
        The flags, and the step.
    """
    bits = kernel.bits
    if gfp_mask & bits.gfp_atomic:
        harder = 0 if gfp_mask & bits.gfp_nomemalloc else bits.alloc_harder
        effect = (
            f"__GFP_ATOMIC: {'ALLOC_HARDER' if harder else 'with __GFP_NOMEMALLOC no ALLOC_HARDER'}, no ALLOC_CPUSET"
        )
        return (flags | harder) & ~bits.alloc_cpuset, Step("slow_atomic", "gfp_to_alloc_flags", effect)
    if realtime(facts) and rt_priority_applies(kernel, facts):
        effect = f"prio {facts.prio} is a real-time task's: ALLOC_HARDER"
        return flags | bits.alloc_harder, Step("slow_realtime", "gfp_to_alloc_flags", effect)
    return flags, Step("slow_atomic", "gfp_to_alloc_flags", "neither __GFP_ATOMIC nor a real-time task")


def alloc_non_block(kernel: SlowKernel, gfp_mask: int, order: int, flags: int, facts: Facts) -> tuple[int, Step]:
    """Open reserves to requests that cannot reclaim, and to real-time tasks.

    Source: mm/page_alloc.c of linux-source-6.1 6.1.192-2:4912, 6.12.118-1:4099, 7.2.12-1:4554, and of 7.3
    7.3.4-1~bpo13+1:4527 and :4567; for the rule that ALLOC_HIGHATOMIC does not need __GFP_HIGH, Linux 6.3.

    Returns:
        The flags, and the step.
    """
    bits = kernel.bits
    features = kernel.kernel.features
    function = "alloc_flags_nonblocking" if features.entry_alloc_flags else "gfp_to_alloc_flags"
    high = bool(gfp_mask & bits.gfp_high)
    if gfp_mask & bits.gfp_direct_reclaim:
        if realtime(facts) and rt_priority_applies(kernel, facts):
            effect = f"prio {facts.prio} is a real-time task's: ALLOC_MIN_RESERVE"
            return flags | bits.alloc_min_reserve, Step("slow_realtime", function, effect)
        return flags, Step("slow_non_block", function, "__GFP_DIRECT_RECLAIM, and no real-time task")
    done = ["no __GFP_DIRECT_RECLAIM"]
    if not gfp_mask & bits.gfp_nomemalloc:
        flags |= bits.alloc_non_block
        done.append("ALLOC_NON_BLOCK")
        if order > 0 and (high or not kernel.rules.highatomic_for_high):
            flags |= bits.alloc_highatomic
            done.append("ALLOC_HIGHATOMIC")
    if high:
        flags &= ~bits.alloc_cpuset
        done.append("__GFP_HIGH drops ALLOC_CPUSET")
    return flags, Step("slow_non_block", function, ", ".join(done))


def realtime(facts: Facts) -> bool:
    """Return whether the task has a real-time or SCHED_DEADLINE priority, its own or an inherited one.

    Source: `rt_task` in include/linux/sched/rt.h:16 of 5.10.262-1 and 6.1.192-2; `rt_or_dl_task`, :33 of 6.12.118-1 and
    7.3.4-1~bpo13+1: the same test under another name.

    Raises:
        UnknownFact: the priority was not captured.
    """
    return require(facts.prio, "prio") < MAX_RT_PRIO


def rt_priority_applies(kernel: SlowKernel, facts: Facts) -> bool:
    """Return whether the priority of a real-time task applies here; it does not in interrupts, which run on any task.

    Source: `!in_interrupt()` in mm/page_alloc.c of 5.10.262-1:4458, `in_task()` of 6.1.192-2:4931; 88dc6f208829
    ("mm/page_alloc.c: use in_task()") (in v5.15).

    Raises:
        UnknownFact: preempt_count was not captured.
    """
    if kernel.kernel.features.context_test == "in_task":
        return preempt.in_task_context(kernel.kernel, preempt_context(kernel, facts))
    return not in_interrupt(kernel, facts)


def in_interrupt(kernel: SlowKernel, facts: Facts) -> bool:
    """Return whether the context is an interrupt, or bottom halves are disabled.

    Source: include/linux/preempt.h:101 of 5.10.262-1, :143 of 6.1.192-2, :169 of 7.3.4-1~bpo13+1.

    Raises:
        UnknownFact: preempt_count was not captured.
    """
    counts = (kernel.kernel.features.interrupt_mask or HARDIRQ_AND_NMI) | SOFTIRQ_MASK
    return bool(preempt.context_count(kernel.kernel, preempt_context(kernel, facts)) & counts)


def in_serving_softirq(kernel: SlowKernel, facts: Facts) -> bool:
    """Return whether the context is a softirq.

    Source: include/linux/preempt.h:102 of 5.10.262-1, :128 of 6.1.192-2, :156 of 7.3.4-1~bpo13+1.

    Raises:
        UnknownFact: preempt_count was not captured.
    """
    return bool(preempt.context_count(kernel.kernel, preempt_context(kernel, facts)) & preempt.SOFTIRQ_OFFSET)


def gfp_pfmemalloc_flags(kernel: SlowKernel, gfp_mask: int, facts: Facts) -> tuple[int, Step]:
    """Return the flags that open the reserves, for tasks that free memory and for OOM victims.

    Source: `__gfp_pfmemalloc_flags`, mm/page_alloc.c of 5.10.262-1:4485, 6.1.192-2:4958, 6.12.118-1, 7.3.4-1~bpo13+1,
    the same in all.

    Returns:
        ALLOC_NO_WATERMARKS, ALLOC_OOM or 0, and the step.

    Raises:
        UnknownFact: a fact that decides was not captured.
    """
    bits = kernel.bits
    if gfp_mask & bits.gfp_nomemalloc:
        flags, why = 0, "__GFP_NOMEMALLOC"
    elif gfp_mask & bits.gfp_memalloc:
        flags, why = bits.alloc_no_watermarks, "__GFP_MEMALLOC"
    else:
        flags, why = task_reserves(kernel, facts)
    name = {bits.alloc_no_watermarks: "ALLOC_NO_WATERMARKS", bits.alloc_oom: "ALLOC_OOM"}.get(flags, "no reserves")
    return flags, Step("slow_reserves", "__gfp_pfmemalloc_flags", f"{why}: {name}")


def task_reserves(kernel: SlowKernel, facts: Facts) -> tuple[int, str]:
    """Return the reserves that the running task may use, and why.

    Raises:
        UnknownFact: a fact that decides was not captured.
    """
    bits = kernel.bits
    memalloc = bool(require(facts.task_flags, "task_flags") & bits.pf_memalloc)
    if memalloc and in_serving_softirq(kernel, facts):
        return bits.alloc_no_watermarks, "PF_MEMALLOC in a softirq"
    if not memalloc and not require(facts.oom_victim, "oom_victim"):
        return 0, "neither PF_MEMALLOC nor an OOM victim"
    if in_interrupt(kernel, facts):
        return 0, "an interrupt: the task's state does not apply"
    return (bits.alloc_no_watermarks, "PF_MEMALLOC") if memalloc else (bits.alloc_oom, "an OOM victim")


def reserve_flags(kernel: SlowKernel, gfp_mask: int, reserves: int, alloc_flags: int, facts: Facts) -> tuple[int, Step]:
    """Return the flags that replace all others when the reserves are open.

    Source: mm/page_alloc.c of 5.10.262-1:4802, 6.1.192-2:5256, 6.12.118-1, 7.3.4-1~bpo13+1:4892.

    Args:
        kernel: the kernel.
        gfp_mask: `gfp_t`.
        reserves: what `gfp_pfmemalloc_flags` returned, not 0, with `ac->alloc_flags`.
        alloc_flags: the flags so far.
        facts: task flags, for CMA.

    Returns:
        The ALLOC_* bits, and the step.
    """
    kswapd = alloc_flags & kernel.bits.alloc_kswapd if kernel.rules.reserves_keep_kswapd else 0
    cma, _ = cma_flags(kernel, gfp_mask, facts)
    flags = reserves | cma | kswapd
    effect = f"the reserves are open: alloc_flags {alloc_flags:#x} become {flags:#x}"
    return flags, Step("slow_reserves", "__alloc_pages_slowpath", effect)


def cma_flags(kernel: SlowKernel, gfp_mask: int, facts: Facts) -> tuple[int, Step]:
    """Return ALLOC_CMA for movable pages, as on the fast path.

    Raises:
        UnknownFact: the task's flags decide and were not captured.
    """
    features = kernel.kernel.features
    if not features.config_cma:
        return 0, Step("slow_cma", "gfp_to_alloc_flags_cma", "built without CONFIG_CMA")
    if features.pf_memalloc_nocma:
        require(facts.task_flags, "task_flags")
    context = context_of(kernel, facts)
    migratetype, _ = gfp.gfp_migratetype(kernel.kernel, gfp_mask, context)
    flags, step = alloc_flags_cma(kernel.kernel, migratetype, context)
    return flags, Step("slow_cma", step.function, step.effect)


def defrag_mode(kernel: SlowKernel, facts: Facts) -> bool:
    """Return whether vm.defrag_mode is on; False on kernels without it.

    Raises:
        UnknownFact: the sysctl was not captured.
    """
    return kernel.kernel.features.defrag_mode and require(facts.defrag_mode, "defrag_mode")


def nofail_flags(kernel: SlowKernel) -> int:
    """Return the flags of the last attempt of a __GFP_NOFAIL request in a round.

    Source: mm/page_alloc.c of 5.10.262-1:4936, 6.1.192-2:5392, 6.12.118-1:4582, 7.3.4-1~bpo13+1:5083.
    """
    return kernel.bits.alloc_harder or kernel.bits.alloc_min_reserve


def context_of(kernel: SlowKernel, facts: Facts) -> Context:
    """Return the facts as a `Context` for the rules of the preparation stage."""
    return Context(
        cpusets_enabled=bool(facts.cpusets_enabled),
        gfp_allowed_mask=facts.gfp_allowed_mask or 0,
        task_flags=facts.task_flags or 0,
        preempt_count=facts.preempt_count,
        softirq_disable_cnt=facts.softirq_disable_cnt or 0,
        mems_allowed=facts.mems_allowed,
        page_group_by_mobility_disabled=kernel.kernel.machine.page_group_by_mobility_disabled,
    )


def preempt_context(kernel: SlowKernel, facts: Facts) -> Context:
    """Return the facts as a `Context` for a test of the running context.

    Raises:
        UnknownFact: the softirq part of preempt_count, which PREEMPT_RT keeps elsewhere, was not captured.
    """
    if kernel.kernel.features.config_preempt_rt:
        require(facts.softirq_disable_cnt, "softirq_disable_cnt")
    return context_of(kernel, facts)
