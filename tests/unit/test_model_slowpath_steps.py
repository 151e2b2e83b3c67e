# SPDX-License-Identifier: MIT
"""The single rules of the slow path: what each returns, and the rule and kernel function that its step names."""

from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.model.slowpath import flags as slowflags
from kalloctrace.model.slowpath.types import Facts, Path, SlowAttempt, SlowCall, SlowKernel, State
from kalloctrace.model.types import ALL_NODES, Context, Step, UnknownFact
from tests.slow_scenarios import PLAIN, slow_kernel

OLD, NEW, NEWEST = "gfp_to_alloc_flags", "gfp_to_alloc_flags", "alloc_flags_slowpath"
RT_TASK = Facts(prio=50)
VICTIM, MEMALLOC = Facts(oom_victim=True), Facts(task_flags=0x800)


def built(release: str, **features: Any) -> SlowKernel:  # noqa: ANN401  (members of Features)
    """Return a built-in kernel with some features changed."""
    slow = slow_kernel(release)
    changed = replace(slow.kernel.features, **features)
    return replace(slow, kernel=slow.kernel.on(slow.kernel.machine, changed))


def names(steps: tuple[Step, ...]) -> list[tuple[str, str]]:
    """Return the rule and function of each step."""
    return [(step.rule, step.function) for step in steps]


@pytest.mark.parametrize(
    ("release", "gfp", "facts", "function", "rules"),
    [
        ("5.10", 0xCC0, Facts(), OLD, ["slow_watermark", "slow_kswapd", "slow_atomic"]),
        ("5.10", 0xA20, Facts(), OLD, ["slow_watermark", "slow_high", "slow_kswapd", "slow_atomic"]),
        ("5.10", 0x440, RT_TASK, OLD, ["slow_watermark", "slow_realtime"]),
        ("6.12", 0xCC0, Facts(), NEW, ["slow_watermark", "slow_kswapd", "slow_non_block"]),
        ("6.12", 0x820, Facts(), NEW, ["slow_watermark", "slow_high", "slow_kswapd", "slow_non_block"]),
        ("6.12", 0xCC0, RT_TASK, NEW, ["slow_watermark", "slow_kswapd", "slow_realtime"]),
    ],
)
def test_steps_of_the_first_flags(release: str, gfp: int, facts: Facts, function: str, rules: list[str]) -> None:
    """Each rule is a part of gfp_to_alloc_flags, mm/page_alloc.c of 5.10.262-1:4424 and 6.12.118-1:4077."""
    _, steps = slowflags.gfp_to_alloc_flags(slow_kernel(release), gfp, 1, facts)
    assert names(steps) == [*((rule, function) for rule in rules), ("slow_cma", "gfp_to_alloc_flags_cma")]


def test_steps_of_7_3() -> None:
    """alloc_flags_slowpath, 7.3.4-1~bpo13+1:4549, calls alloc_flags_nonblocking, :4526."""
    flags, steps = slowflags.gfp_to_alloc_flags(slow_kernel("7.3"), 0x820, 1, Facts(defrag_mode=True))
    assert names(steps) == [
        *((rule, "alloc_flags_slowpath") for rule in ("slow_watermark", "slow_high", "slow_kswapd")),
        *(("slow_non_block", "alloc_flags_nonblocking"), ("slow_cma", "gfp_to_alloc_flags_cma")),
        ("slow_defrag", "alloc_flags_slowpath"),
    ]
    # ALLOC_NON_BLOCK, ALLOC_MIN_RESERVE, ALLOC_NOFRAGMENT, ALLOC_HIGHATOMIC, ALLOC_KSWAPD.
    assert flags == 0x10 | 0x20 | 0x100 | 0x200 | 0x800


@pytest.mark.parametrize(
    ("gfp", "order", "done"),
    [
        (0x820, 1, ["ALLOC_NON_BLOCK", "ALLOC_HIGHATOMIC", "__GFP_HIGH drops ALLOC_CPUSET"]),
        (0x820, 0, ["ALLOC_NON_BLOCK", "__GFP_HIGH drops ALLOC_CPUSET"]),
        (0x800, 1, ["ALLOC_NON_BLOCK"]),
        (0x80820, 1, ["__GFP_HIGH drops ALLOC_CPUSET"]),
        (0x80800, 1, []),
    ],
)
def test_a_request_that_cannot_reclaim_names_what_it_gets(gfp: int, order: int, done: list[str]) -> None:
    """`!(gfp_mask & __GFP_DIRECT_RECLAIM)` of mm/page_alloc.c 6.12.118-1:4099."""
    _, step = slowflags.alloc_non_block(slow_kernel("6.12"), gfp, order, 0x40, Facts())
    assert step.effect.split(", ") == ["no __GFP_DIRECT_RECLAIM", *done]


@pytest.mark.parametrize(
    ("release", "gfp", "kept"),
    [
        ("5.10", 0xE20, 0xC20),
        ("5.10", 0xA20, 0xA20),
        ("5.10", 0xCC0, 0xCC0),
        ("6.1", 0x600, 0x400),
        # __GFP_ATOMIC went in 6.3: bit 9 means nothing.
        ("6.12", 0xE20, 0xE20),
    ],
)
def test_the_slow_path_clears_gfp_atomic_of_a_request_that_may_reclaim(release: str, gfp: int, kept: int) -> None:
    """`WARN_ON_ONCE((gfp_mask & (__GFP_ATOMIC|__GFP_DIRECT_RECLAIM)) == ...)` of 5.10.262-1:4664."""
    assert slowflags.slowpath_gfp_mask(slow_kernel(release), gfp) == kept


@pytest.mark.parametrize(
    ("release", "count", "interrupt", "softirq"),
    [
        *((release, 0, False, False) for release in ("5.8", "5.10", "6.12", "7.3")),
        # preempt_disable() alone.
        *((release, count, False, False) for release in ("5.8", "5.10", "6.12", "7.3") for count in (0x1, 0xFF)),
        *((release, 0x200, True, False) for release in ("5.8", "5.10", "6.12", "7.3")),
        *((release, 0x100, True, True) for release in ("5.8", "5.10", "6.12", "7.3")),
        *((release, 0x8000, True, False) for release in ("5.8", "6.12")),
        *((release, count, True, False) for release in ("5.8", "5.10", "6.12") for count in (0x10000, 0x100000)),
        # PREEMPT_NEED_RESCHED.
        *((release, 0x80000000, False, False) for release in ("5.8", "5.10", "6.12")),
        *(("7.3", 0x10000, False, False), ("7.3", 0x1000000, True, False), ("7.3", 0x10000000, True, False)),
    ],
)
def test_contexts(release: str, count: int, interrupt: bool, softirq: bool) -> None:
    """in_interrupt() and in_serving_softirq() of include/linux/preempt.h; the former counts disabled bottom halves."""
    slow, facts = slow_kernel(release), Facts(preempt_count=count)
    assert slowflags.in_interrupt(slow, facts) is interrupt
    assert slowflags.in_serving_softirq(slow, facts) is softirq


@pytest.mark.parametrize(
    ("gfp", "facts", "flags", "effect"),
    [
        (0x80CC0, MEMALLOC, 0, "__GFP_NOMEMALLOC: no reserves"),
        (0xA0CC0, Facts(), 0, "__GFP_NOMEMALLOC: no reserves"),
        (0x20CC0, Facts(), 0x4, "__GFP_MEMALLOC: ALLOC_NO_WATERMARKS"),
        (0xCC0, MEMALLOC, 0x4, "PF_MEMALLOC: ALLOC_NO_WATERMARKS"),
        (0xCC0, replace(MEMALLOC, preempt_count=0x100), 0x4, "PF_MEMALLOC in a softirq: ALLOC_NO_WATERMARKS"),
        (0xCC0, replace(MEMALLOC, preempt_count=0x200), 0, None),
        (0xCC0, replace(MEMALLOC, preempt_count=0x10000), 0, None),
        (0xCC0, VICTIM, 0x8, "an OOM victim: ALLOC_OOM"),
        (0xCC0, replace(VICTIM, preempt_count=0x100), 0, None),
        (0xCC0, Facts(), 0, None),
        # Another flag of the task is not PF_MEMALLOC.
        (0xCC0, Facts(task_flags=0x400), 0, None),
    ],
)
@pytest.mark.parametrize("release", ["5.10", "6.12", "7.2"])
def test_who_may_use_the_reserves(release: str, gfp: int, facts: Facts, flags: int, effect: str | None) -> None:
    """`__gfp_pfmemalloc_flags` of 5.10.262-1:4485, the same in all; only OOM victims get ALLOC_OOM."""
    found, step = slowflags.gfp_pfmemalloc_flags(slow_kernel(release), gfp, facts)
    assert found == flags
    assert (step.rule, step.function) == ("slow_reserves", "__gfp_pfmemalloc_flags")
    assert step.effect == effect if effect else step.effect.endswith(": no reserves")


@pytest.mark.parametrize(
    ("release", "gfp", "reserves", "before", "flags"),
    [
        ("5.10", 0xCC0, 0x4, 0x840, 0x4),
        ("6.12", 0xCC0, 0x4, 0x840, 0x804),
        ("6.12", 0xCC0, 0x8, 0x40, 0x8),
        ("7.3", 0x100CCA, 0x8, 0x8C0, 0x888),
        ("7.3", 0x100CCA, 0x1004, 0xC0, 0x1084),
    ],
)
def test_the_reserves_replace_the_other_flags(release: str, gfp: int, reserves: int, before: int, flags: int) -> None:
    """`gfp_to_alloc_flags_cma(gfp_mask, reserve_flags) | (alloc_flags & ALLOC_KSWAPD)` of 6.1.192-2:5256."""
    found, step = slowflags.reserve_flags(slow_kernel(release), gfp, reserves, before, Facts())
    assert found == flags
    assert (step.rule, step.function) == ("slow_reserves", "__alloc_pages_slowpath")


NOCMA = 0x10000000


@pytest.mark.parametrize(
    ("release", "task_flags", "gfp", "flags", "function"),
    [
        ("6.12", 0, 0x100CCA, 0x80, "gfp_to_alloc_flags_cma"),
        ("6.12", 0, 0xCC0, 0, "gfp_to_alloc_flags_cma"),
        ("6.12", None, 0x100CCA, 0x80, "gfp_to_alloc_flags_cma"),
        ("5.10", 0, 0x100CCA, 0x80, "current_alloc_flags"),
        ("5.10", NOCMA, 0x100CCA, 0, "current_alloc_flags"),
    ],
)
def test_cma(release: str, task_flags: int | None, gfp: int, flags: int, function: str) -> None:
    """As on the fast path: current_alloc_flags of 5.10.262-1:3778, gfp_to_alloc_flags_cma from 5.13 on."""
    slow = built(release, config_cma=True)
    found, step = slowflags.cma_flags(slow, gfp, Facts(task_flags=task_flags))
    assert (found, step.rule, step.function) == (flags, "slow_cma", function)


def test_without_config_cma_there_are_no_cma_areas() -> None:
    """`#ifdef CONFIG_CMA` in gfp_to_alloc_flags_cma."""
    found, step = slowflags.cma_flags(built("6.12", config_cma=False), 0x100CCA, Facts())
    assert (found, step.rule, step.function) == (0, "slow_cma", "gfp_to_alloc_flags_cma")


def test_cma_needs_pages_grouped_by_mobility() -> None:
    """gfp_migratetype() returns MIGRATE_UNMOVABLE while page_group_by_mobility_disabled is set."""
    slow = built("6.12", config_cma=True)
    machine = replace(slow.kernel.machine, page_group_by_mobility_disabled=True)
    assert slowflags.cma_flags(replace(slow, kernel=slow.kernel.on(machine)), 0x100CCA, Facts())[0] == 0


def test_pf_memalloc_nocma_must_be_known() -> None:
    """5.9 to 5.12 test the flag, so that CMA depends on the task's flags."""
    with pytest.raises(UnknownFact, match=r"not known: task_flags$"):
        slowflags.cma_flags(built("5.10", config_cma=True), 0x100CCA, Facts(task_flags=None))


@pytest.mark.parametrize(("release", "on"), [("6.12", False), ("6.16", True)])
def test_defrag_mode_came_with_6_15(release: str, on: bool) -> None:
    """vm.defrag_mode: e3aa7df331bc ("mm: page_alloc: defrag_mode") (in v6.15)."""
    assert slowflags.defrag_mode(slow_kernel(release), Facts(defrag_mode=True)) is on
    assert slowflags.defrag_mode(slow_kernel(release), Facts(defrag_mode=False)) is False


@pytest.mark.parametrize(
    ("fact", "release", "function"),
    [
        ("prio", "6.12", lambda _slow, facts: slowflags.realtime(facts)),
        ("defrag_mode", "6.16", slowflags.defrag_mode),
        ("task_flags", "6.12", slowflags.task_reserves),
        ("oom_victim", "6.12", slowflags.task_reserves),
    ],
)
def test_a_fact_that_decides_is_named(fact: str, release: str, function: Any) -> None:  # noqa: ANN401  (a rule)
    """The message names the fact as the trace does."""
    missing: dict[str, Any] = {fact: None}
    with pytest.raises(UnknownFact, match=f"not known: {fact}$"):
        function(slow_kernel(release), Facts(**missing))


@pytest.mark.parametrize(("prio", "realtime"), [(-1, True), (0, True), (99, True), (100, False), (120, False)])
def test_priorities_of_real_time_tasks(prio: int, realtime: bool) -> None:
    """MAX_RT_PRIO is 100: include/linux/sched/prio.h of 5.10.262-1."""
    assert slowflags.realtime(Facts(prio=prio)) is realtime


@pytest.mark.parametrize(
    ("release", "count", "applies"),
    [
        # !in_interrupt() counts disabled bottom halves, in_task() does not.
        *(("5.10", 0, True), ("5.10", 0x200, False), ("5.10", 0x10000, False)),
        *(("6.12", 0, True), ("6.12", 0x200, True), ("6.12", 0x100, False), ("6.12", 0x10000, False)),
    ],
)
def test_where_a_real_time_priority_applies(release: str, count: int, applies: bool) -> None:
    """5.10.262-1:4458 and 6.1.192-2:4931."""
    assert slowflags.rt_priority_applies(slow_kernel(release), Facts(preempt_count=count)) is applies


@pytest.mark.parametrize(("release", "flags"), [("5.10", 0x10), ("6.1", 0x20), ("6.12", 0x20), ("7.3", 0x20)])
def test_flags_of_nofail(release: str, flags: int) -> None:
    """ALLOC_HARDER of 5.10.262-1:4936, ALLOC_MIN_RESERVE of 6.1.192-2:5392."""
    assert slowflags.nofail_flags(slow_kernel(release)) == flags


def test_facts_become_a_context() -> None:
    """Each fact is the member of its name; what was not captured is as if nothing were set, but for two."""
    slow = slow_kernel("6.12")
    facts = Facts(
        task_flags=0x800,
        preempt_count=0x100,
        softirq_disable_cnt=0x200,
        cpusets_enabled=True,
        gfp_allowed_mask=0x1234,
        mems_allowed=0b10,
    )
    assert slowflags.context_of(slow, facts) == Context(
        cpusets_enabled=True,
        gfp_allowed_mask=0x1234,
        task_flags=0x800,
        preempt_count=0x100,
        softirq_disable_cnt=0x200,
        mems_allowed=0b10,
    )
    assert slowflags.context_of(slow, Facts(None, None, None, None, None, None, None, None, None)) == Context(
        cpusets_enabled=False, gfp_allowed_mask=0, preempt_count=None, mems_allowed=None
    )


def test_an_ordinary_task() -> None:
    """Priority of nice 0 (DEFAULT_PRIO, 120), outside of interrupts, all nodes, every gfp bit allowed, no switches."""
    facts = Facts()
    assert (facts.task_flags, facts.preempt_count, facts.softirq_disable_cnt, facts.prio) == (0, 0, 0, 120)
    assert (facts.oom_victim, facts.cpusets_enabled, facts.defrag_mode) == (False,) * 3
    assert (facts.gfp_allowed_mask, facts.mems_allowed) == (0xFFFFFF, ALL_NODES)


def test_what_was_not_captured_of_an_attempt() -> None:
    """Its caller, what happened before it, and the pages that reclaim freed."""
    attempt = SlowAttempt(1, 0xCC0, 0, 0x840, PLAIN, Facts())
    assert (attempt.caller, attempt.events, attempt.reclaimed) == ("", None, None)


def test_a_path_begins_at_an_attempt() -> None:
    """Without steps, events or a restart; since 7.0 reserves may be tried once, and compaction is not first."""
    state = State("entry", 0xCC0, 0, None, None)
    assert (state.can_retry_reserves, state.compact_first) == (True, False)
    path = Path(slow_kernel("6.12"), SlowCall(0xCC0, 0, PLAIN), Facts(), state)
    assert (path.steps, path.events, path.restarted) == ((), frozenset(), "no")
    both = path.with_event("direct_reclaim").with_event("compaction")
    assert both.events == {"direct_reclaim", "compaction"}
    assert (path.gfp(0x400), path.gfp(0x100), path.gfp(0x500)) == (True, False, True)
