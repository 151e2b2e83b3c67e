# SPDX-License-Identifier: MIT
"""Calls of the slow path as the kernel's source says they go, written by hand, with what each attempt is.

A line of a scenario is one attempt: its kind, its alloc_flags, and what differs from the call: the mask, the nodemask,
the preferred zone, events and facts. Between two attempts is what mm/page_alloc.c of that release does.
"""

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import Machine, ZoneRef, machine_of
from kalloctrace.kernel.slowpath_rules import slowpath_rules
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.slowpath.types import Facts, SlowAttempt, SlowCall, SlowContext, SlowKernel

DMA, DMA32, NORMAL, MOVABLE = range(4)
MEMALLOC, DUMPCORE = 0x800, 0x200
SOFTIRQ, BH_DISABLED, HARDIRQ, HARDIRQ_7_3 = 0x100, 0x200, 0x10000, 0x1000000
OLD = ("5.10", "6.1", "6.12", "6.19")
NEW = ("7.0", "7.2", "7.3")
ALL = (*OLD, *NEW)

TWO_NODES = machine_of({0: (DMA, DMA32, NORMAL), 1: (NORMAL,)}, gfp_allowed_mask=0xFFFFFF)
ONE_NODE = machine_of({0: (DMA, DMA32, NORMAL)}, gfp_allowed_mask=0xFFFFFF)


USUAL = Facts()
PLAIN = SlowContext("FALLBACK", 0, None, ZoneRef(0, NORMAL), NORMAL, 0)


@dataclass(frozen=True)
class Line:
    """One attempt."""

    kind: str
    alloc_flags: int
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """One call on some releases.

    Attributes:
        wrong: the field in which the last attempt differs, "unknown" where it cannot be judged, "end" where the end
            differs; empty where all is right.
    """

    what: str
    releases: tuple[str, ...]
    gfp: int
    lines: tuple[Line, ...]
    page: bool = True
    order: int = 0
    facts: Facts = USUAL
    context: SlowContext = PLAIN
    machine: Machine = ONE_NODE
    wrong: str = ""


def at(kind: str, alloc_flags: int, **changes: Any) -> Line:  # noqa: ANN401  (members of three types)
    """Write one attempt."""
    return Line(kind, alloc_flags, changes)


@cache
def _builtin(release: str) -> tuple[Kernel, SlowKernel]:
    kernel = Kernel.of(builtin_snapshot(release))
    rules = slowpath_rules(release)
    assert rules is not None
    return kernel, SlowKernel(kernel, rules)


def slow_kernel(release: str, machine: Machine = ONE_NODE) -> SlowKernel:
    """Return a built-in kernel on a machine."""
    kernel, slow = _builtin(release)
    return replace(slow, kernel=kernel.on(machine))


def call_of(scenario: Scenario) -> SlowCall:
    """Return a scenario as it would have been captured."""
    attempts = []
    for number, line in enumerate(scenario.lines, 1):
        changes = dict(line.changes)
        context = {
            name: changes.pop(name)
            for name in ("nodemask", "preferred_zone", "migratetype", "unknown", "spread_dirty_pages")
            if name in changes
        }
        facts = replace(scenario.facts, **changes.pop("facts", {}))
        attempt = SlowAttempt(
            number, scenario.gfp, scenario.order, line.alloc_flags, replace(scenario.context, **context), facts
        )
        if "gfp" in changes:
            changes["gfp_mask"] = changes.pop("gfp")
        if "events" in changes:
            changes["events"] = frozenset(changes["events"].split())
        attempts.append(replace(attempt, **changes))
    return SlowCall(
        scenario.gfp, scenario.order, scenario.context, tuple(attempts), scenario.page, facts=scenario.facts
    )


def _context(**changes: Any) -> SlowContext:  # noqa: ANN401  (members of SlowContext)
    return replace(PLAIN, **changes)


RECLAIM = "direct_reclaim"
PRE_OOM = 0x1008C0  # GFP_KERNEL with __GFP_HARDWALL, without __GFP_DIRECT_RECLAIM

SCENARIOS = (
    Scenario("GFP_KERNEL, kswapd was enough", ALL, 0xCC0, (at("after_waking_kswapd", 0x840, events=""),)),
    Scenario("GFP_NOIO without kswapd: the first try", ALL, 0x440, (at("first_try", 0x40),)),
    Scenario(
        "GFP_KERNEL up to 6.19: reclaim, drain, one more round",
        OLD,
        0xCC0,
        (
            at("after_waking_kswapd", 0x840, events=""),
            at("retry", 0x840, events=""),
            at("after_direct_reclaim", 0x840, events=RECLAIM, reclaimed=32),
            at("after_draining", 0x840, events=""),
            at("retry", 0x840, events=""),
        ),
    ),
    Scenario(
        "GFP_KERNEL from 7.0 on: no second try before reclaim",
        NEW,
        0xCC0,
        (
            at("after_waking_kswapd", 0x840, events=""),
            at("after_direct_reclaim", 0x840, events=RECLAIM, reclaimed=32),
            at("after_draining", 0x840, events=""),
            at("retry", 0x840, events=""),
        ),
    ),
    Scenario(
        "nothing reclaimed, nobody killed: NULL",
        ALL,
        0xCC0,
        (
            at("after_waking_kswapd", 0x840),
            at("retry", 0x840),
            at("before_oom", 0x42, gfp=PRE_OOM, events=RECLAIM, reclaimed=0),
        ),
        page=False,
    ),
    Scenario(
        "the OOM killer made progress",
        ALL,
        0xCC0,
        (
            at("after_waking_kswapd", 0x840),
            at("retry", 0x840),
            at("before_oom", 0x42, gfp=PRE_OOM, events=RECLAIM),
            at("retry", 0x840, events="oom"),
        ),
    ),
    *(
        Scenario(
            f"GFP_ATOMIC of order 0 on {release}: the reserve, no cpuset, NULL after two tries",
            (release,),
            gfp,
            (
                at("after_waking_kswapd", flags, nodemask=0b10, preferred_zone=ZoneRef(1, NORMAL)),
                at("retry", flags, nodemask=None, preferred_zone=ZoneRef(0, NORMAL)),
            ),
            page=False,
            facts=Facts(preempt_count=HARDIRQ_7_3 if release == "7.3" else HARDIRQ),
            context=_context(nodemask=0b10, preferred_zone=ZoneRef(1, NORMAL)),
            machine=TWO_NODES,
        )
        for release, gfp, flags in (
            *(("5.10", 0xA20, 0x830), ("6.1", 0xA20, 0x830), ("6.12", 0x820, 0x830), ("6.19", 0x820, 0x830)),
            *(("7.0", 0x820, 0x830), ("7.2", 0x820, 0x830), ("7.3", 0x820, 0x830)),
        )
    ),
    Scenario(
        "GFP_ATOMIC of order 1: the highatomic reserve as well",
        ("6.1",),
        0xA20,
        (at("after_waking_kswapd", 0xA30),),
        order=1,
    ),
    Scenario("likewise", ("6.12", "7.2", "7.3"), 0x820, (at("after_waking_kswapd", 0xA30),), order=1),
    Scenario(
        "GFP_ATOMIC of order 1 where there is none", ("5.10",), 0xA20, (at("after_waking_kswapd", 0x830),), order=1
    ),
    Scenario(
        "GFP_NOWAIT of order 1: only the part for those who cannot block",
        ("6.1", "6.12", "7.3"),
        0x800,
        (at("after_waking_kswapd", 0x850),),
        order=1,
    ),
    Scenario(
        "GFP_NOWAIT of order 1 while that opened the highatomic reserve",
        ("6.3", "6.6.112", "6.12.53", "6.16", "6.17.3"),
        0x800,
        (at("after_waking_kswapd", 0xA50),),
        order=1,
    ),
    Scenario("GFP_NOWAIT of order 0", ("6.3", "6.12", "7.3"), 0x800, (at("after_waking_kswapd", 0x850),)),
    Scenario("GFP_NOWAIT is not atomic", ("5.10",), 0x800, (at("after_waking_kswapd", 0x840),)),
    Scenario("atomic with __GFP_NOMEMALLOC", ("5.10",), 0x80A20, (at("after_waking_kswapd", 0x820),)),
    Scenario(
        "atomic with __GFP_NOMEMALLOC later on", ("6.12", "7.3"), 0x80820, (at("after_waking_kswapd", 0x820),), order=1
    ),
    Scenario("__GFP_HIGH that may reclaim keeps the cpuset", ALL, 0xCE0, (at("after_waking_kswapd", 0x860),)),
    Scenario(
        "__GFP_ATOMIC with reclaim is taken out, with a warning",
        ("5.10",),
        0xEE0,
        (at("after_waking_kswapd", 0x860, gfp=0xCE0),),
    ),
    Scenario("a real-time task", ("5.10",), 0xCC0, (at("after_waking_kswapd", 0x850),), facts=Facts(prio=99)),
    Scenario(
        "a real-time task later on",
        ("6.1", "6.12", "7.3"),
        0xCC0,
        (at("after_waking_kswapd", 0x860),),
        facts=Facts(prio=0),
    ),
    Scenario("a SCHED_DEADLINE task", ("5.10",), 0xCC0, (at("after_waking_kswapd", 0x850),), facts=Facts(prio=-1)),
    Scenario(
        "a SCHED_DEADLINE task later on",
        ("6.1", "6.12", "7.3"),
        0xCC0,
        (at("after_waking_kswapd", 0x860),),
        facts=Facts(prio=-1),
    ),
    Scenario(
        "the most favoured normal task is no real-time task",
        ALL,
        0xCC0,
        (at("after_waking_kswapd", 0x840),),
        facts=Facts(prio=100),
    ),
    Scenario(
        "a real-time task with bottom halves disabled is in_interrupt()",
        ("5.10",),
        0xCC0,
        (at("after_waking_kswapd", 0x840),),
        facts=Facts(prio=50, preempt_count=BH_DISABLED),
    ),
    Scenario(
        "a real-time task with bottom halves disabled is in_task()",
        ("6.1", "6.12", "7.3"),
        0xCC0,
        (at("after_waking_kswapd", 0x860),),
        facts=Facts(prio=50, preempt_count=BH_DISABLED),
    ),
    Scenario(
        "a softirq on a real-time task",
        ALL,
        0xCC0,
        (at("after_waking_kswapd", 0x840),),
        facts=Facts(prio=50, preempt_count=SOFTIRQ),
    ),
    Scenario(
        "a real-time task that cannot reclaim gets no more for that",
        ("6.12", "7.3"),
        0x800,
        (at("after_waking_kswapd", 0x850),),
        facts=Facts(prio=50),
    ),
    Scenario(
        "no CMA before Debian has it",
        ("6.12",),
        0x100CCA,
        (at("after_waking_kswapd", 0x840),),
        context=_context(migratetype=1),
    ),
    Scenario(
        "movable pages may use CMA",
        ("7.2", "7.3"),
        0x100CCA,
        (at("after_waking_kswapd", 0x8C0),),
        context=_context(migratetype=1),
    ),
    *(
        Scenario(
            f"PF_MEMALLOC on {release}: all reserves, no policy, no reclaim",
            (release,),
            0x100CCA,
            (
                at("after_waking_kswapd", first, nodemask=0b10, preferred_zone=ZoneRef(1, NORMAL)),
                at("with_reserves", then, nodemask=None, preferred_zone=ZoneRef(0, NORMAL)),
            ),
            page=False,
            facts=Facts(task_flags=MEMALLOC),
            context=_context(nodemask=0b10, preferred_zone=ZoneRef(1, NORMAL), migratetype=1),
            machine=TWO_NODES,
        )
        for release, first, then in (
            *(("5.10", 0x840, 0x4), ("6.0", 0x840, 0x4), ("6.1", 0x840, 0x804), ("6.12", 0x840, 0x804)),
            *(("7.2", 0x8C0, 0x884), ("7.3", 0x8C0, 0x884)),
        )
    ),
    *(
        Scenario(
            f"{what} on {release}",
            (release,),
            gfp,
            (at("after_waking_kswapd", 0x840), at(kind, flags if release != "5.10" else flags & ~0x800 | old)),
            facts=facts,
        )
        for release in ("5.10", "6.12", "7.3")
        for what, gfp, kind, flags, old, facts in (
            ("__GFP_MEMALLOC", 0x20CC0, "with_reserves", 0x804, 0, Facts()),
            ("an OOM victim", 0xCC0, "with_reserves", 0x808, 0, Facts(oom_victim=True)),
            ("PF_MEMALLOC before the victim", 0xCC0, "with_reserves", 0x804, 0, Facts(MEMALLOC, oom_victim=True)),
            ("PF_MEMALLOC in a softirq", 0xCC0, "with_reserves", 0x804, 0, Facts(MEMALLOC, SOFTIRQ)),
        )
    ),
    Scenario(
        "__GFP_NOMEMALLOC closes the reserves to PF_MEMALLOC and victims",
        OLD,
        0x80CC0,
        (at("after_waking_kswapd", 0x840), at("retry", 0x840)),
        page=False,
        facts=Facts(MEMALLOC, oom_victim=True),
    ),
    Scenario(
        "no second try since 7.0 either",
        NEW,
        0x80CC0,
        (at("after_waking_kswapd", 0x840),),
        page=False,
        facts=Facts(MEMALLOC, oom_victim=True),
    ),
    Scenario(
        "a victim does not count with bottom halves disabled",
        OLD,
        0xC80,
        (at("after_waking_kswapd", 0x840), at("retry", 0x840)),
        facts=Facts(preempt_count=BH_DISABLED, oom_victim=True),
    ),
    Scenario(
        "a victim whose reserves did not suffice gives up",
        ("6.12",),
        0xCC0,
        (
            at("after_waking_kswapd", 0x840),
            at("with_reserves", 0x808),
            at("before_oom", 0x42, gfp=PRE_OOM, events=RECLAIM),
        ),
        page=False,
        facts=Facts(oom_victim=True),
    ),
    Scenario(
        "killed while it tries",
        ("6.12",),
        0xCC0,
        (
            at("after_waking_kswapd", 0x840),
            at("retry", 0x840),
            at("before_oom", 0x42, gfp=PRE_OOM, events=RECLAIM),
            at("with_reserves", 0x808, events="oom", facts={"oom_victim": True}),
        ),
    ),
    *(
        Scenario(
            f"__GFP_NOFAIL on {releases[0]}: all reserves after the OOM killer, then from the start",
            releases,
            0x8CC0,
            (
                at("after_waking_kswapd", 0x840),
                at("retry", 0x840),
                at("before_oom", 0x42, gfp=PRE_OOM | 0x8000, events=RECLAIM),
                at("oom_nofail", 0x44, events="oom"),
                at("oom_nofail", 0x4, events=""),
                at("retry", 0x840, events=""),
            ),
        )
        for releases in (("5.10",), ("6.1", "6.12"), ("7.2", "7.3"))
    ),
    *(
        Scenario(
            f"__GFP_NOFAIL that may not kill on {release}: some reserves",
            (release,),
            0x208CC0,
            (
                at("after_waking_kswapd", 0x840),
                at("retry", 0x840),
                at("before_oom", 0x42, gfp=0x3088C0, events=RECLAIM),
                at("nofail", 0x40 | help_, events=""),
                at("nofail", help_, events=""),
                at("retry", 0x840, events=""),
            ),
        )
        for release, help_ in (("5.10", 0x10), ("6.1", 0x20), ("6.12", 0x20), ("7.2", 0x20), ("7.3", 0x20))
    ),
    Scenario(
        "__GFP_NOFAIL of PF_MEMALLOC: some reserves, then all",
        ("6.12",),
        0x8CC0,
        (
            at("after_waking_kswapd", 0x840),
            at("with_reserves", 0x804),
            at("nofail", 0x60),
            at("nofail", 0x20),
            at("with_reserves", 0x804),
        ),
        facts=Facts(MEMALLOC),
    ),
    Scenario(
        "__GFP_NOFAIL that cannot reclaim fails",
        ("6.12", "7.3"),
        0x8820,
        (at("after_waking_kswapd", 0x830), at("retry", 0x830)),
        page=False,
    ),
    *(
        Scenario(
            f"{what}: nobody is killed",
            ("5.10", "6.12", "7.3"),
            gfp,
            (
                at("after_waking_kswapd", 0x840),
                at("retry", 0x840),
                at("before_oom", 0x42, gfp=(gfp | 0x100000) & ~0x400, events=RECLAIM),
            ),
            page=False,
            facts=facts,
            context=_context(highest_zoneidx=zone, preferred_zone=ZoneRef(0, zone)),
        )
        for what, gfp, facts, zone in (
            ("__GFP_THISNODE", 0x200CC0, Facts(), NORMAL),
            ("__GFP_RETRY_MAYFAIL", 0x4CC0, Facts(), NORMAL),
            ("PF_DUMPCORE", 0xCC0, Facts(DUMPCORE), NORMAL),
            ("low memory", 0xCC4, Facts(), DMA32),
            ("suspending", 0xCC0, Facts(gfp_allowed_mask=0xFFFF3F), NORMAL),
            # pm_suspended_storage() is true unless both __GFP_IO and __GFP_FS are allowed.
            ("suspending, no __GFP_FS", 0xCC0, Facts(gfp_allowed_mask=0xFFFF7F), NORMAL),
            ("suspending, no __GFP_IO", 0xCC0, Facts(gfp_allowed_mask=0xFFFFBF), NORMAL),
        )
    ),
    Scenario(
        "__GFP_NORETRY: one round, no OOM killer",
        ("5.10", "6.12"),
        0x10CC0,
        (
            at("after_waking_kswapd", 0x840),
            at("retry", 0x840),
            at("after_direct_reclaim", 0x840),
            at("after_draining", 0x840),
        ),
        page=False,
    ),
    Scenario(
        "an unmovable high order compacts first, up to 6.19",
        OLD,
        0xCC0,
        (
            at("after_waking_kswapd", 0x840, events=""),
            at("after_compaction", 0x840, events="compaction", caller="__alloc_pages_direct_compact"),
            at("retry", 0x840, events=""),
            at("after_direct_reclaim", 0x840, events=RECLAIM, reclaimed=10),
            at("after_draining", 0x840, events=""),
            at("after_compaction", 0x840, events="compaction", caller="__alloc_pages_direct_compact"),
        ),
        order=2,
    ),
    Scenario(
        "an unmovable high order compacts first, from 7.0 on",
        NEW,
        0xCC0,
        (
            at("after_waking_kswapd", 0x840, events=""),
            at("after_compaction", 0x840, events="compaction"),
            at("retry", 0x840, events=""),
            at("after_direct_reclaim", 0x840, events=RECLAIM, reclaimed=10),
            at("after_draining", 0x840, events=""),
            at("after_compaction", 0x840, events="compaction"),
        ),
        order=2,
    ),
    Scenario(
        "a movable high order reclaims first",
        ("5.10", "6.12"),
        0x100CCA,
        (
            at("after_waking_kswapd", 0x840, events=""),
            at("retry", 0x840, events=""),
            at("after_compaction", 0x840, events=f"{RECLAIM} compaction", reclaimed=0),
        ),
        order=2,
        context=_context(migratetype=1),
    ),
    Scenario(
        "compaction without I/O is none: no attempt follows",
        ("6.12",),
        0xC00,
        (
            at("after_waking_kswapd", 0x840, events=""),
            at("retry", 0x840, events=""),
            at("before_oom", 0x42, gfp=0x100800, events=RECLAIM, reclaimed=0),
        ),
        order=1,
    ),
    Scenario(
        "in 5.10 one does",
        ("5.10",),
        0xC00,
        (
            at("after_waking_kswapd", 0x840, events=""),
            at("retry", 0x840, events=""),
            at("after_compaction", 0x840, events=RECLAIM, reclaimed=0, caller="__alloc_pages_direct_compact"),
            at("before_oom", 0x42, gfp=0x100800, events=""),
        ),
        order=1,
    ),
    Scenario(
        "a huge page for a fault on one node: compaction alone, up to 6.19",
        ("5.10", "6.12"),
        0x3D24CA,
        (at("first_try", 0x40), at("after_compaction", 0x40, events="compaction")),
        page=False,
        order=9,
        context=_context(migratetype=1),
    ),
    Scenario(
        "a huge page for a fault on one node: compaction alone, from 7.0 on",
        ("7.2", "7.3"),
        0x3D24CA,
        (at("first_try", 0xC0), at("after_compaction", 0xC0, events="compaction")),
        page=False,
        order=9,
        context=_context(migratetype=1),
    ),
    Scenario(
        "a costly order: one round, and no OOM killer",
        ("6.12",),
        0xCC0,
        (
            at("after_waking_kswapd", 0x840, events=""),
            at("after_compaction", 0x840, events="compaction"),
            at("retry", 0x840, events=""),
            at("after_compaction", 0x840, events=f"{RECLAIM} compaction"),
        ),
        page=False,
        order=4,
    ),
    Scenario(
        "a costly order with __GFP_RETRY_MAYFAIL: more rounds, a last look, nobody killed",
        ("6.12",),
        0x4CC0,
        (
            at("after_waking_kswapd", 0x840, events=""),
            at("after_compaction", 0x840, events="compaction"),
            at("retry", 0x840, events=""),
            at("after_compaction", 0x840, events=f"{RECLAIM} compaction"),
            at("retry", 0x840, events=""),
            at("before_oom", 0x42, gfp=0x1048C0, events=f"{RECLAIM} compaction"),
        ),
        page=False,
        order=4,
    ),
    *(
        Scenario(
            f"vm.defrag_mode on {releases[0]}: given up before the OOM killer",
            releases,
            0xCC0,
            (
                at("after_waking_kswapd", 0x940, events=""),
                *((at("retry", 0x940, events=""),) if releases[0] in OLD else ()),
                at("without_nofragment", 0x840, events=RECLAIM, reclaimed=0),
                at("before_oom", 0x42, gfp=PRE_OOM, events=RECLAIM, reclaimed=0),
            ),
            page=False,
            facts=Facts(defrag_mode=True),
        )
        for releases in (("6.19",), ("7.0",))
    ),
    Scenario(
        "vm.defrag_mode compacts for unmovable pages of order 0",
        ("7.2", "7.3"),
        0xCC0,
        (
            at("after_waking_kswapd", 0x940, events=""),
            at("after_compaction", 0x940, events=f"{RECLAIM} compaction", reclaimed=0),
        ),
        facts=Facts(defrag_mode=True),
    ),
    Scenario(
        "vm.defrag_mode for a request that cannot reclaim",
        ("7.2", "7.3"),
        0x800,
        (at("after_waking_kswapd", 0x950), at("without_nofragment", 0x850)),
        page=False,
        facts=Facts(defrag_mode=True),
    ),
    Scenario(
        "without kswapd it is kept",
        ("7.2", "7.3"),
        0x0,
        (at("first_try", 0x150),),
        page=False,
        facts=Facts(defrag_mode=True),
    ),
    Scenario(
        "vm.defrag_mode is not known before 6.15",
        ("6.12",),
        0xCC0,
        (at("after_waking_kswapd", 0x840),),
        facts=Facts(defrag_mode=True),
    ),
    Scenario(
        "the profiler's flag stays throughout",
        ("7.3",),
        0x208CC0,
        (
            at("after_waking_kswapd", 0x1840),
            at("before_oom", 0x1042, gfp=0x3088C0, events=RECLAIM),
            at("nofail", 0x1060),
            at("nofail", 0x1020),
        ),
        context=_context(alloc_flags=0x1000),
    ),
    Scenario(
        "also with all reserves",
        ("7.3",),
        0x8CC0,
        (
            at("after_waking_kswapd", 0x1840),
            at("before_oom", 0x1042, gfp=PRE_OOM | 0x8000, events=RECLAIM),
            at("oom_nofail", 0x1044, events="oom"),
            at("oom_nofail", 0x1004),
            at("retry", 0x1840),
        ),
        context=_context(alloc_flags=0x1000),
    ),
    Scenario(
        "and with those of PF_MEMALLOC",
        ("7.3",),
        0xCC0,
        (at("after_waking_kswapd", 0x1840), at("with_reserves", 0x1804)),
        facts=Facts(MEMALLOC),
        context=_context(alloc_flags=0x1000),
    ),
    Scenario(
        "no zone of the nodemask: no attempt, NULL",
        ("5.10", "6.12", "7.3"),
        0xCC0,
        (),
        page=False,
        context=_context(nodemask=0b100, preferred_zone=None),
        machine=TWO_NODES,
    ),
    Scenario(
        "no zone for __GFP_NOFAIL: straight to the help",
        ("6.12",),
        0x8CC0,
        (at("nofail", 0x60), at("nofail", 0x20)),
        context=_context(nodemask=0b100, preferred_zone=None),
        machine=TWO_NODES,
    ),
    Scenario(
        "a nodemask outside the cpuset is dropped, and the slow path restarts",
        ("5.10", "6.12"),
        0xCC0,
        (
            at("after_waking_kswapd", 0x840, nodemask=0b10, preferred_zone=ZoneRef(1, NORMAL)),
            at("restart", 0x840, nodemask=None, preferred_zone=ZoneRef(0, NORMAL)),
            at("retry", 0x840, nodemask=None, preferred_zone=ZoneRef(0, NORMAL)),
        ),
        facts=Facts(cpusets_enabled=True, mems_allowed=0b1),
        context=_context(nodemask=0b10, preferred_zone=ZoneRef(1, NORMAL)),
        machine=TWO_NODES,
    ),
    Scenario(
        "the preferred zone is computed again at the start",
        ("5.10", "6.12", "7.3"),
        0xCC0,
        (at("after_waking_kswapd", 0x840, nodemask=0b10, preferred_zone=ZoneRef(1, NORMAL)),),
        context=_context(nodemask=0b10, preferred_zone=ZoneRef(0, NORMAL)),
        machine=TWO_NODES,
    ),
)

WRONG = (
    Scenario(
        "a third try without reclaim",
        ("6.1", "6.12", "6.19"),
        0x800,
        (at("after_waking_kswapd", 0x850), at("retry", 0x850), at("retry", 0x850)),
        wrong="sequence",
    ),
    Scenario(
        "a second try before reclaim from 7.0 on",
        NEW,
        0xCC0,
        (at("after_waking_kswapd", 0x840), at("retry", 0x840, events="")),
        wrong="unknown",
    ),
    Scenario(
        "PF_MEMALLOC reclaims",
        ("6.12",),
        0xCC0,
        (at("after_waking_kswapd", 0x840), at("with_reserves", 0x804), at("after_direct_reclaim", 0x804)),
        facts=Facts(MEMALLOC),
        wrong="sequence",
    ),
    Scenario(
        "reclaim at the start",
        ALL,
        0xCC0,
        (at("after_waking_kswapd", 0x840, events=RECLAIM),),
        wrong="sequence",
    ),
    Scenario(
        "reclaim that brought pages without an attempt",
        ("6.12",),
        0xCC0,
        (
            at("after_waking_kswapd", 0x840),
            at("retry", 0x840, events=""),
            at("before_oom", 0x42, gfp=PRE_OOM, events=RECLAIM, reclaimed=7),
        ),
        wrong="sequence",
    ),
    Scenario(
        "an attempt after compaction of order 0",
        ("6.12",),
        0xCC0,
        (at("after_waking_kswapd", 0x840), at("retry", 0x840, caller="__alloc_pages_direct_compact")),
        wrong="sequence",
    ),
    Scenario(
        "__GFP_NORETRY goes on",
        ("5.10", "6.12"),
        0x10CC0,
        (
            at("after_waking_kswapd", 0x840),
            at("retry", 0x840),
            at("after_direct_reclaim", 0x840),
            at("after_draining", 0x840),
            at("retry", 0x840),
        ),
        wrong="sequence",
    ),
    *(
        Scenario(
            f"{what}: another round after the last look",
            ("5.10", "6.12", "7.3"),
            gfp,
            (
                at("after_waking_kswapd", 0x840),
                at("retry", 0x840),
                at("before_oom", 0x42, gfp=(gfp | 0x100000) & ~0x400),
                at("retry", 0x840),
            ),
            facts=facts,
            context=_context(highest_zoneidx=zone, preferred_zone=ZoneRef(0, zone)),
            wrong="sequence",
        )
        for what, gfp, facts, zone in (
            ("__GFP_THISNODE", 0x200CC0, USUAL, NORMAL),
            ("PF_DUMPCORE", 0xCC0, Facts(DUMPCORE), NORMAL),
            ("low memory", 0xCC4, USUAL, DMA32),
            ("suspending", 0xCC0, Facts(gfp_allowed_mask=0xFFFF3F), NORMAL),
            # pm_suspended_storage() is true unless both __GFP_IO and __GFP_FS are allowed.
            ("suspending, no __GFP_FS", 0xCC0, Facts(gfp_allowed_mask=0xFFFF7F), NORMAL),
            ("suspending, no __GFP_IO", 0xCC0, Facts(gfp_allowed_mask=0xFFFFBF), NORMAL),
        )
    ),
    Scenario(
        "all reserves for a costly __GFP_NOFAIL",
        ("6.12",),
        0xCCC0,
        (
            at("after_waking_kswapd", 0x840),
            at("after_compaction", 0x840),
            at("retry", 0x840),
            at("after_compaction", 0x840),
            at("before_oom", 0x42, gfp=0x10C8C0),
            at("oom_nofail", 0x44),
        ),
        order=4,
        wrong="alloc_flags",
    ),
    Scenario(
        "NULL without a call of the OOM killer",
        ("7.0", "7.3"),
        0xCC0,
        (at("after_waking_kswapd", 0x840), at("after_direct_reclaim", 0x840), at("after_draining", 0x840)),
        page=False,
        wrong="end",
    ),
    Scenario(
        "NULL for __GFP_NOFAIL",
        ("5.10", "6.12", "7.3"),
        0x8CC0,
        (at("after_waking_kswapd", 0x840), at("retry", 0x840), at("before_oom", 0x42, gfp=PRE_OOM | 0x8000)),
        page=False,
        wrong="end",
    ),
    Scenario("a page without an attempt", ALL, 0xCC0, (), wrong="end"),
    *(
        Scenario(
            f"{field} differs", ("5.10", "7.3"), 0xCC0, (at("after_waking_kswapd", 0x840, **changes),), wrong=field
        )
        for field, changes in (
            ("freelist_gfp_mask", {"gfp": 0xCC8}),
            ("freelist_order", {"order": 1}),
            ("ac_nodemask_nodes", {"nodemask": 1}),
            ("preferred_zone", {"preferred_zone": ZoneRef(0, DMA32)}),
            ("migratetype", {"migratetype": 2}),
            ("spread_dirty_pages", {"spread_dirty_pages": True}),
        )
    ),
)
"""Calls that no kernel makes, up to the attempt that it does not make."""
