# SPDX-License-Identifier: MIT
"""Each rule of the model broken on purpose: what a kernel that differs, or a mistake in the model, would look like.

The written expectations and the recorded fixtures must each notice them.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.model import bulk, cpuset, gfp, mmzone, page_alloc, preempt, sched_mm
from kalloctrace.model.bulk import BulkRequest
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Context, NodemaskOrigin, Preparation, Request, Step
from kalloctrace.verify import bulk as judge_bulk

NORMAL, MOVABLE = 2, 3
NOFS, NOIO, NORECLAIM, NOWARN, PIN = 0x40000, 0x80000, 0x800000, 0x1000000, 0x10000000
STEP = Step("broken", "broken", "broken")


def _zone_ignores_movable(kernel: Kernel, gfp_mask: int) -> tuple[int, Step]:
    return kernel.gfp_zone_table[gfp_mask & 0x7], STEP


def _zone_of_the_modifier_alone(kernel: Kernel, gfp_mask: int) -> tuple[int, Step]:
    return (NORMAL if gfp_mask & 0x4 else kernel.gfp_zone_table[gfp_mask & 0xF]), STEP


def _migratetype_ignores_reclaimable(_kernel: Kernel, gfp_mask: int, _context: Context) -> tuple[int, Step]:
    return gfp_mask >> 3 & 1, STEP


def _migratetype_ignores_the_switch(_kernel: Kernel, gfp_mask: int, _context: Context) -> tuple[int, Step]:
    return gfp_mask >> 3 & 3, STEP


def _no_scopes(_kernel: Kernel, gfp_mask: int, _context: Context) -> tuple[int, Step]:
    return gfp_mask, STEP


def _without_feature(name: str) -> Callable[..., tuple[int, Step]]:
    real = sched_mm.current_gfp_context

    def broken(kernel: Kernel, gfp_mask: int, context: Context) -> tuple[int, Step]:
        off: dict[str, Any] = {name: False}
        return real(kernel.on(kernel.machine, replace(kernel.features, **off)), gfp_mask, context)

    return broken


def _without_pf(bit: int) -> Callable[..., tuple[int, Step]]:
    real = sched_mm.current_gfp_context

    def broken(kernel: Kernel, gfp_mask: int, context: Context) -> tuple[int, Step]:
        return real(kernel, gfp_mask, replace(context, task_flags=context.task_flags & ~bit))

    return broken


def _always_fallback(_kernel: Kernel, _gfp_mask: int) -> str:
    return "FALLBACK"


_Confined = tuple[int, int, NodemaskOrigin, int | None, Step]


def _cpuset(change: Callable[[Kernel, Request, Context, _Confined], _Confined]) -> Callable[..., _Confined]:
    real = cpuset.cpuset_restriction

    def broken(kernel: Kernel, gfp_mask: int, request: Request, context: Context) -> _Confined:
        return change(kernel, request, context, real(kernel, gfp_mask, request, context))

    return broken


def _cpuset_without_hardwall(kernel: Kernel, _r: Request, _c: Context, done: _Confined) -> _Confined:
    return (done[0] & ~kernel.bits.gfp_hardwall, *done[1:])


def _cpuset_without_flag(_k: Kernel, _r: Request, _c: Context, done: _Confined) -> _Confined:
    return (done[0], 0, *done[2:])


def _cpuset_over_the_caller(_k: Kernel, _r: Request, context: Context, done: _Confined) -> _Confined:
    return (done[0], 0, "mems_allowed", context.mems_allowed, done[4]) if context.cpusets_enabled else done


def _cpuset_without_its_nodes(_k: Kernel, _r: Request, _c: Context, done: _Confined) -> _Confined:
    return (*done[:3], None, done[4])


def _cma_by_mask(change: Callable[[int, Context], int]) -> Callable[..., tuple[int, Step]]:
    def broken(kernel: Kernel, migratetype: int, context: Context) -> tuple[int, Step]:
        del kernel
        return change(migratetype, context), STEP

    return broken


def _order_plus_one(kernel: Kernel, request: Request, *, nolock: bool) -> Step:
    return _REAL_CHECK_ORDER(kernel, replace(request, order=max(request.order - 1, 0)), nolock=nolock)


def _order_of_the_masked_gfp(kernel: Kernel, request: Request, *, nolock: bool) -> Step:
    return _REAL_CHECK_ORDER(kernel, replace(request, gfp_mask=0), nolock=nolock)


def _order_without_nolock(kernel: Kernel, request: Request, *, nolock: bool) -> Step:
    del nolock
    return _REAL_CHECK_ORDER(kernel, request, nolock=False)


_REAL_CHECK_ORDER = page_alloc.check_order
_REAL_NOFRAGMENT = page_alloc.alloc_flags_nofragment


def _nofragment_without_kswapd(
    kernel: Kernel, zone: ZoneRef | None, _gfp_mask: int, context: Context
) -> tuple[int, Step]:
    return _REAL_NOFRAGMENT(kernel, zone, 0, context)


def _nofragment_without_defrag_mode(
    kernel: Kernel, zone: ZoneRef | None, gfp_mask: int, context: Context
) -> tuple[int, Step]:
    return _REAL_NOFRAGMENT(kernel, zone, gfp_mask, replace(context, defrag_mode=False))


def _nofragment_on_any_zone(kernel: Kernel, zone: ZoneRef | None, gfp_mask: int, context: Context) -> tuple[int, Step]:
    anywhere = None if zone is None else ZoneRef(zone.node, NORMAL)
    return _REAL_NOFRAGMENT(kernel, anywhere, gfp_mask, context)


def _nofragment_of_one_node(kernel: Kernel, zone: ZoneRef | None, gfp_mask: int, context: Context) -> tuple[int, Step]:
    alone = kernel.on(replace(kernel.machine, nr_online_nodes=1))
    return _REAL_NOFRAGMENT(alone, zone, gfp_mask, context)


def _nofragment_of_many_nodes(
    kernel: Kernel, zone: ZoneRef | None, gfp_mask: int, context: Context
) -> tuple[int, Step]:
    many = kernel.on(replace(kernel.machine, nr_online_nodes=2))
    return _REAL_NOFRAGMENT(many, zone, gfp_mask, context)


_REAL_FIRST = mmzone.first_zones_zonelist


def _first_without_nodemask(
    kernel: Kernel, kind: str, nid: int, highest: int, _nodemask: int | None
) -> tuple[ZoneRef | None, Step]:
    return _REAL_FIRST(kernel, "NOFALLBACK" if kind == "NOFALLBACK" else "FALLBACK", nid, highest, None)


def _first_without_bound(
    kernel: Kernel, kind: str, nid: int, _highest: int, nodemask: int | None
) -> tuple[ZoneRef | None, Step]:
    return _REAL_FIRST(kernel, "NOFALLBACK" if kind == "NOFALLBACK" else "FALLBACK", nid, MOVABLE, nodemask)


def _first_on_node_0(
    kernel: Kernel, kind: str, _nid: int, highest: int, nodemask: int | None
) -> tuple[ZoneRef | None, Step]:
    return _REAL_FIRST(kernel, "NOFALLBACK" if kind == "NOFALLBACK" else "FALLBACK", 0, highest, nodemask)


MUTATIONS: dict[str, tuple[object, str, object]] = {
    "gfp_zone ignores MOVABLE": (gfp, "gfp_zone", _zone_ignores_movable),
    "gfp_zone ignores DMA32": (gfp, "gfp_zone", _zone_of_the_modifier_alone),
    "gfp_migratetype ignores RECLAIMABLE": (gfp, "gfp_migratetype", _migratetype_ignores_reclaimable),
    "gfp_migratetype ignores the switch": (gfp, "gfp_migratetype", _migratetype_ignores_the_switch),
    "no scopes": (sched_mm, "current_gfp_context", _no_scopes),
    "no PIN": (sched_mm, "current_gfp_context", _without_feature("pf_memalloc_pin")),
    "no NORECLAIM": (sched_mm, "current_gfp_context", _without_feature("pf_memalloc_noreclaim")),
    "NORECLAIM everywhere": (sched_mm, "current_gfp_context", _without_pf(NORECLAIM)),
    "no NOWARN": (sched_mm, "current_gfp_context", _without_pf(NOWARN)),
    "no NOIO": (sched_mm, "current_gfp_context", _without_pf(NOIO)),
    "no NOFS": (sched_mm, "current_gfp_context", _without_pf(NOFS)),
    "always FALLBACK": (mmzone, "gfp_zonelist", _always_fallback),
    "always a task": (preempt, "in_task_context", lambda _kernel, _context: True),
    "never a task": (preempt, "in_task_context", lambda _kernel, _context: False),
    "in_interrupt() for in_task()": (
        preempt,
        "in_task_context",
        lambda _kernel, context: not context.preempt_count & 0x00FFFF00,
    ),
    "in_task() of 7.2 everywhere": (
        preempt,
        "in_task_context",
        lambda _kernel, context: not context.preempt_count & 0x00FF0100,
    ),
    "cpusets always off": (cpuset, "cpusets_enabled", lambda _kernel, _context: False),
    "cpusets always on": (cpuset, "cpusets_enabled", lambda _kernel, _context: True),
    "no HARDWALL": (cpuset, "cpuset_restriction", _cpuset(_cpuset_without_hardwall)),
    "no ALLOC_CPUSET": (cpuset, "cpuset_restriction", _cpuset(_cpuset_without_flag)),
    "cpuset replaces the caller's nodemask": (cpuset, "cpuset_restriction", _cpuset(_cpuset_over_the_caller)),
    "nodemasks filter nothing": (cpuset, "cpuset_restriction", _cpuset(_cpuset_without_its_nodes)),
    "no ALLOC_CMA": (page_alloc, "alloc_flags_cma", _cma_by_mask(lambda _type, _context: 0)),
    "ALLOC_CMA for all": (page_alloc, "alloc_flags_cma", _cma_by_mask(lambda _type, _context: 0x80)),
    "ALLOC_CMA for reclaimable": (
        page_alloc,
        "alloc_flags_cma",
        _cma_by_mask(lambda kind, _context: 0x80 if kind in (1, 2) else 0),
    ),
    "ALLOC_CMA in spite of NOCMA": (
        page_alloc,
        "alloc_flags_cma",
        _cma_by_mask(lambda kind, _context: 0x80 if kind == 1 else 0),
    ),
    "NOCMA on every kernel": (
        page_alloc,
        "alloc_flags_cma",
        _cma_by_mask(lambda kind, context: 0x80 if kind == 1 and not context.task_flags & PIN else 0),
    ),
    "no gfp_allowed_mask": (page_alloc, "apply_gfp_allowed_mask", lambda _k, mask, _c: (mask, STEP)),
    "order one too many": (page_alloc, "check_order", _order_plus_one),
    "order's warning after masking": (page_alloc, "check_order", _order_of_the_masked_gfp),
    "orders without locks as all": (page_alloc, "check_order", _order_without_nolock),
    "no check of alloc_flags": (page_alloc, "check_alloc_flags", lambda _kernel, _flags: STEP),
    "mask without locks not completed": (page_alloc, "gfp_nolock", lambda _kernel, mask: (mask, STEP)),
    "one mask without locks for all": (page_alloc, "gfp_nolock", lambda _kernel, mask: (mask | 0xC2100, STEP)),
    "node of the CPU is 0": (page_alloc, "nolock_nid", lambda _kernel, _nid, _context: 0),
    "no dirty pages": (page_alloc, "spread_dirty", lambda _kernel, _mask: (False, STEP)),
    "all pages dirty": (page_alloc, "spread_dirty", lambda _kernel, _mask: (True, STEP)),
    "no ALLOC_KSWAPD": (page_alloc, "alloc_flags_nofragment", _nofragment_without_kswapd),
    "no defrag_mode": (page_alloc, "alloc_flags_nofragment", _nofragment_without_defrag_mode),
    "NOFRAGMENT on any zone": (page_alloc, "alloc_flags_nofragment", _nofragment_on_any_zone),
    "NOFRAGMENT ignores node count": (page_alloc, "alloc_flags_nofragment", _nofragment_of_one_node),
    "NOFRAGMENT always wants DMA32": (page_alloc, "alloc_flags_nofragment", _nofragment_of_many_nodes),
    "no HIGHATOMIC": (page_alloc, "alloc_flags_highatomic", lambda _k, _mask, _order: (0, STEP)),
    "HIGHATOMIC of order 0": (
        page_alloc,
        "alloc_flags_highatomic",
        lambda _k, mask, _order: (0x200 if mask & 0x80420 == 0x20 else 0, STEP),
    ),
    "HIGHATOMIC may reclaim": (
        page_alloc,
        "alloc_flags_highatomic",
        lambda _k, mask, order: (0x200 if order and mask & 0x20 else 0, STEP),
    ),
    "HIGHATOMIC without HIGH": (
        page_alloc,
        "alloc_flags_highatomic",
        lambda _k, mask, order: (0 if mask & 0x80400 or not order else 0x200, STEP),
    ),
    "preferred zone ignores the nodemask": (mmzone, "first_zones_zonelist", _first_without_nodemask),
    "preferred zone ignores highest_zoneidx": (mmzone, "first_zones_zonelist", _first_without_bound),
    "preferred zone of node 0": (mmzone, "first_zones_zonelist", _first_on_node_0),
}


_REAL_SINGLE = bulk.single_page
_REAL_PREPARE = page_alloc.prepare_alloc_pages
_REAL_ELIGIBLE = judge_bulk.eligible


def _single(**changes: object) -> Callable[[Kernel, BulkRequest, Context], str]:
    """Break the rule by changing its context."""

    def broken(kernel: Kernel, request: BulkRequest, context: Context) -> str:
        told: dict[str, Any] = changes
        return _REAL_SINGLE(kernel, request, replace(context, **told))

    return broken


def _single_of_two(kernel: Kernel, request: BulkRequest, context: Context) -> str:
    return _REAL_SINGLE(kernel, replace(request, nr_pages=request.nr_pages + 1), context)


def _single_ignores_the_mask(kernel: Kernel, request: BulkRequest, context: Context) -> str:
    return _REAL_SINGLE(kernel, replace(request, gfp_mask=kernel.bits.gfp_account), context)


def _bulk_in_scopes(
    kernel: Kernel, request: Request, context: Context, alloc_flags: int, steps: list[Step]
) -> page_alloc.Prepared:
    gfp_mask, _ = sched_mm.current_gfp_context(kernel, request.gfp_mask, context)
    return _REAL_PREPARE(kernel, replace(request, gfp_mask=gfp_mask), context, alloc_flags, steps)


def _eligible(**changes: object) -> Callable[[Kernel, Preparation], list[ZoneRef]]:
    """Break the choice of zones by changing what was prepared."""

    def broken(kernel: Kernel, expected: Preparation) -> list[ZoneRef]:
        told: dict[str, Any] = changes
        return _REAL_ELIGIBLE(kernel, replace(expected, **told))

    return broken


def _eligible_on_any_node(kernel: Kernel, expected: Preparation) -> list[ZoneRef]:
    nodes = {node.nid for node in kernel.machine.nodes}
    return [ref for nid in nodes for ref in _eligible(preferred_zone=ZoneRef(nid, 0))(kernel, expected)]


BULK_MUTATIONS: dict[str, tuple[object, str, object]] = {
    "bulk: no single page": (bulk, "single_page", lambda _kernel, _request, _context: ""),
    "bulk: accounting ignored": (bulk, "single_page", _single(memcg_kmem_online=False)),
    "bulk: accounting whatever the mask": (bulk, "single_page", _single_ignores_the_mask),
    "bulk: page_owner ignored": (bulk, "single_page", _single(page_owner_inited=False)),
    "bulk: one missing page not counted": (bulk, "single_page", _single_of_two),
    "bulk: no gfp_allowed_mask": (bulk, "apply_gfp_allowed_mask", lambda _k, mask, _c: (mask, STEP)),
    "bulk: in the task's scopes": (bulk, "prepare_alloc_pages", _bulk_in_scopes),
    "bulk: zones of any index": (judge_bulk, "eligible", _eligible(highest_zoneidx=MOVABLE)),
    "bulk: zones outside the nodemask": (mmzone, "first_zones_zonelist", _first_without_nodemask),
    "bulk: zones of any node": (judge_bulk, "eligible", _eligible_on_any_node),
    "bulk: cpusets always off": (cpuset, "cpusets_enabled", lambda _kernel, _context: False),
}
"""Of the bulk allocator: only rows of its own notice these."""

RT_MUTATIONS: dict[str, tuple[object, str, object]] = {
    "PREEMPT_RT: softirq part of preempt_count": (
        preempt,
        "context_count",
        lambda _kernel, context: context.preempt_count,
    ),
    "PREEMPT_RT: softirq part alone": (
        preempt,
        "context_count",
        lambda _kernel, context: context.softirq_disable_cnt,
    ),
    "PREEMPT_RT: locks may be tried anywhere": (preempt, "trylock_unsafe", lambda _kernel, _context: False),
    "PREEMPT_RT: locks may be tried nowhere": (preempt, "trylock_unsafe", lambda _kernel, _context: True),
}
"""Of the rt flavours, which are not built in."""
