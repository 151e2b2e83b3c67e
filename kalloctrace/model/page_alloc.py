# SPDX-License-Identifier: MIT
"""The preparation stage: from the entry of the page allocator to its first `get_page_from_freelist` call.

Each function has the name and the order of operations of its original in mm/page_alloc.c. `Features` selects what
differs between kernels. Fault injection is not modelled: the built-in kernels are configured without it, and a
kernel that injects a failure never makes the call that is predicted here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kalloctrace.flags.decode import U32_MAX
from kalloctrace.kernel.machine import ZonelistKind, ZoneRef
from kalloctrace.model import cpuset, gfp, mmzone, preempt, sched_mm
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import (
    NUMA_NO_NODE,
    Context,
    ImpossibleRequestError,
    NodemaskOrigin,
    Preparation,
    Request,
    Step,
    UnknownFact,
)

SIGN32 = 0x8000_0000
MIGRATE_MOVABLE = 1


class _RejectedError(Exception):
    """The entry returns NULL before it looks at any zone."""

    def __init__(self, rule: str, function: str, reason: str, *, warns: bool = False) -> None:
        super().__init__(reason)
        self.step = Step(rule, function, f"{reason}: NULL is returned" + (", with a warning" if warns else ""))
        self.reason = reason
        self.warns = warns


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the stage prepares: the gfp mask, alloc_flags, and `struct alloc_context`.

    Attributes:
        alloc_flags: the ALLOC_* bits that are set so far.
        prepare_alloc_flags: as `prepare_alloc_pages` left them.
    """

    gfp: int
    alloc_flags: int
    highest_zoneidx: int
    migratetype: int
    zonelist_kind: ZonelistKind
    zonelist_nid: int
    nodemask: NodemaskOrigin
    nodemask_value: int | None
    preferred_zone: ZoneRef | None
    spread_dirty_pages: bool
    prepare_alloc_flags: int


def alloc_pages(kernel: Kernel, request: Request, context: Context) -> Preparation:
    """Predict how a kernel prepares a request, for every entry.

    Args:
        kernel: the kernel and its machine.
        request: the arguments.
        context: what else the stage reads.

    Returns:
        What the first `get_page_from_freelist` call receives, or why it is never made, and the steps that lead there.

    Raises:
        ImpossibleRequestError: this kernel has no such entry, or no such argument.
        UnknownFact: the machine's description lacks a fact that the answer depends on.
    """
    request = _registers(request)
    features = kernel.features
    if request.alloc_flags and not features.entry_alloc_flags:
        raise ImpossibleRequestError(
            f"{features.entry} has no argument alloc_flags, but it is {request.alloc_flags:#x}"
        )
    if request.entry == "nolock" and features.nolock == "none":
        raise ImpossibleRequestError("this kernel has no entry without locks")

    steps: list[Step] = []
    try:
        if request.entry == "nolock" and features.nolock != "alloc_flags":
            done = alloc_pages_nolock(kernel, request, context, steps)
        else:
            done = alloc_frozen_pages(kernel, request, context, steps)
    except _RejectedError as rejected:
        steps.append(rejected.step)
        return Preparation("rejected", tuple(steps), reason=rejected.reason, warns=rejected.warns)
    return prepared(done, steps)


def prepared(done: Prepared, steps: Sequence[Step]) -> Preparation:
    """Return the answer for what was prepared, with the steps that lead there."""
    return Preparation(
        outcome="prepared",
        steps=tuple(steps),
        gfp=done.gfp,
        alloc_flags=done.alloc_flags,
        highest_zoneidx=done.highest_zoneidx,
        migratetype=done.migratetype,
        zonelist_kind=done.zonelist_kind,
        zonelist_nid=done.zonelist_nid,
        nodemask=done.nodemask,
        nodemask_value=done.nodemask_value,
        preferred_zone=done.preferred_zone,
        spread_dirty_pages=done.spread_dirty_pages,
        prepare_alloc_flags=done.prepare_alloc_flags,
    )


def alloc_frozen_pages(kernel: Kernel, request: Request, context: Context, steps: list[Step]) -> Prepared:
    """Follow the normal entry, `Features.entry`; since 7.3 it also allocates without locks.

    Source: mm/page_alloc.c of linux-source-5.10 5.10.262-1:5000, 6.1.192-2:5622, 6.12.117-1:4820,
    7.2.13-1:5324, 7.3.4-1~bpo13+1:5406.

    Args:
        kernel: the kernel and its machine.
        request: the arguments, as registers hold them.
        context: what else the stage reads.
        steps: the list to append the steps to.

    Returns:
        What was prepared.
    """
    bits, features = kernel.bits, kernel.features
    arguments = request.alloc_flags
    if features.nolock == "alloc_flags" and request.entry == "nolock":
        arguments |= bits.alloc_nolock
    if features.entry_alloc_flags:
        steps.append(check_alloc_flags(kernel, arguments))
    nolock = bool(arguments & bits.alloc_nolock)
    steps.append(check_order(kernel, request, nolock=nolock))

    gfp_mask, nid = request.gfp_mask, request.preferred_nid
    if request.entry == "nolock":
        nid = nolock_nid(kernel, nid, context)
    if nolock:
        steps.append(check_trylock(kernel, context))
        gfp_mask, step = gfp_nolock(kernel, gfp_mask)
        steps.append(step)
        alloc_flags = arguments | bits.alloc_wmark_min
    else:
        alloc_flags = arguments | bits.alloc_wmark_low

    gfp_mask, step = apply_gfp_allowed_mask(kernel, gfp_mask, context)
    steps.append(step)
    if features.gfp_context_on_fast_path:
        gfp_mask, step = sched_mm.current_gfp_context(kernel, gfp_mask, context)
        steps.append(step)

    filtered = replace(request, gfp_mask=gfp_mask, preferred_nid=nid)
    done = prepare_alloc_pages(kernel, filtered, context, alloc_flags, steps)

    if not nolock:
        added, step = alloc_flags_nofragment(kernel, done.preferred_zone, gfp_mask, context)
        steps.append(step)
        done = replace(done, alloc_flags=done.alloc_flags | added)
    if features.highatomic_on_fast_path:
        added, step = alloc_flags_highatomic(kernel, gfp_mask, request.order)
        steps.append(step)
        done = replace(done, alloc_flags=done.alloc_flags | added)
    return done


def alloc_pages_nolock(kernel: Kernel, request: Request, context: Context, steps: list[Step]) -> Prepared:
    """Follow the entry without locks of 6.15 to 7.2, where it is a separate function.

    It has no argument for a nodemask, and up to 6.17 none for a gfp mask: the request's values are ignored.
    Two rejections are not modelled: while struct pages are still initialised, which ends before user space starts
    (page_alloc_init_late), and in an NMI without CONFIG_SMP, which every built-in kernel has.
    Source: mm/page_alloc.c of Linux 6.17:7496, of linux-source-7.2 7.2.13-1:7922.

    Args:
        kernel: the kernel and its machine.
        request: the arguments, as registers hold them.
        context: what else the stage reads.
        steps: the list to append the steps to.

    Returns:
        What was prepared.
    """
    steps.append(check_trylock(kernel, context))
    steps.append(check_order(kernel, request, nolock=True))
    nid = nolock_nid(kernel, request.preferred_nid, context)
    gfp_mask, step = gfp_nolock(kernel, request.gfp_mask)
    steps.append(step)
    if request.nodemask is not None:
        effect = "this entry takes no nodemask: NULL is used"
        steps.append(Step("nolock_nodemask", nolock_function(kernel), effect))
    filtered = replace(request, gfp_mask=gfp_mask, preferred_nid=nid, nodemask=None)
    alloc_flags = kernel.bits.alloc_nolock | kernel.bits.alloc_wmark_min
    return prepare_alloc_pages(kernel, filtered, context, alloc_flags, steps)


def check_alloc_flags(kernel: Kernel, alloc_flags: int) -> Step:
    """Reject alloc_flags that callers may not pass.

    Source: mm/page_alloc.c of linux-source-7.3 7.3.4-1~bpo13+1:5417.

    Raises:
        _RejectedError: a flag is not allowed; the kernel warns once.
    """
    foreign = alloc_flags & ~(kernel.bits.alloc_nolock | kernel.bits.alloc_no_codetag)
    if foreign:
        reason = f"alloc_flags {alloc_flags:#x} has bits {foreign:#x} that callers may not set"
        raise _RejectedError("alloc_flags_check", kernel.features.entry, reason, warns=True)
    return Step("alloc_flags_check", kernel.features.entry, f"alloc_flags argument {alloc_flags:#x} is allowed")


def check_order(kernel: Kernel, request: Request, *, nolock: bool) -> Step:
    """Reject orders that no free list has, and without locks orders that the per-CPU lists do not keep.

    The caller's unfiltered mask decides whether the kernel warns.
    Source: mm/page_alloc.c of linux-source-5.10 5.10.262-1:5012, 6.1.192-2:5634, 7.2.13-1:5336,
    7.3.4-1~bpo13+1:5353.

    Raises:
        _RejectedError: the order is out of range.
    """
    features, order = kernel.features, request.order
    if nolock:
        if order not in features.nolock_orders:
            reason = f"order {order} cannot be allocated without locks"
            raise _RejectedError("order", "pcp_allowed_order", reason)
        return Step("order", "pcp_allowed_order", f"order {order} can be allocated without locks")
    if order > features.max_order:
        reason = f"order {order} exceeds the largest, {features.max_order}"
        raise _RejectedError("order", features.entry, reason, warns=not request.gfp_mask & kernel.bits.gfp_nowarn)
    return Step("order", features.entry, f"order {order} is at most {features.max_order}")


def check_trylock(kernel: Kernel, context: Context) -> Step:
    """Reject a request without locks where a trylock is not safe.

    Raises:
        _RejectedError: it is not safe.
    """
    function = nolock_function(kernel)
    if preempt.trylock_unsafe(kernel, context):
        reason = f"preempt_count {context.preempt_count:#x} is hardirq or NMI, where PREEMPT_RT may not try a lock"
        raise _RejectedError("trylock", function, reason)
    return Step("trylock", function, "trying for a lock is safe")


def nolock_nid(kernel: Kernel, nid: int, context: Context) -> int:
    """Return the node that an allocation without locks prefers.

    Raises:
        UnknownFact: the CPU's node is needed and was not captured, on a machine with more than one.
    """
    if nid != NUMA_NO_NODE:
        return nid
    if context.numa_node_id is not None:
        return context.numa_node_id
    if len(kernel.machine.nodes) == 1:
        return kernel.machine.nodes[0].nid
    raise UnknownFact("numa_node_id")


def gfp_nolock(kernel: Kernel, gfp_mask: int) -> tuple[int, Step]:
    """Return the mask of an allocation without locks: it does not reclaim, wait or warn.

    Source: mm/page_alloc.c of Linux 6.17:7496 (a fixed mask), of linux-source-7.2 7.2.13-1:7922 and
    7.3.4-1~bpo13+1:5406 (bits added to the caller's).

    Returns:
        `gfp_t`, and the step.
    """
    bits = kernel.bits
    common = bits.gfp_nowarn | bits.gfp_zero | bits.gfp_nomemalloc
    if kernel.features.nolock == "fixed":
        gfp_mask = common | bits.gfp_account
        effect = f"this entry takes no mask and uses gfp {gfp_mask:#x}"
    else:
        added = common | bits.gfp_comp
        gfp_mask |= added
        effect = f"{added:#x} (NOWARN, ZERO, NOMEMALLOC, COMP) makes gfp {gfp_mask:#x}"
    return gfp_mask, Step("nolock_gfp", nolock_function(kernel), effect)


def nolock_function(kernel: Kernel) -> str:
    """Return the name of the kernel function that prepares an allocation without locks."""
    names = {"fixed": "alloc_pages_nolock_noprof", "gfp_flags": "alloc_frozen_pages_nolock_noprof"}
    return names.get(kernel.features.nolock, kernel.features.entry)


def apply_gfp_allowed_mask(kernel: Kernel, gfp_mask: int, context: Context) -> tuple[int, Step]:
    """Clear the bits that early boot and suspend forbid, and bits that this kernel does not know.

    Source: mm/page_alloc.c of linux-source-5.10 5.10.262-1:5017, 6.1.192-2:5637, 7.2.13-1:5339.

    Returns:
        `gfp_t`, and the step.
    """
    kept = gfp_mask & context.gfp_allowed_mask
    lost = gfp_mask & ~kept
    effect = f"gfp_allowed_mask {context.gfp_allowed_mask:#x} " + (
        f"takes {lost:#x} out: gfp {kept:#x}" if lost else f"leaves gfp {kept:#x} as it is"
    )
    return kept, Step("gfp_allowed_mask", kernel.features.entry, effect)


def prepare_alloc_pages(
    kernel: Kernel, request: Request, context: Context, alloc_flags: int, steps: list[Step]
) -> Prepared:
    """Fill `struct alloc_context` for a request.

    Only the cpuset rule uses the mask with the __GFP_HARDWALL that the cpuset branch may add.
    Source: mm/page_alloc.c of linux-source-5.10 5.10.262-1:4950, 6.1.192-2:5406, 6.12.117-1:4593,
    7.2.13-1:5082, 7.3.4-1~bpo13+1:5114.

    Args:
        kernel: the kernel and its machine.
        request: with its mask already filtered and its node resolved.
        context: what else the stage reads.
        alloc_flags: the ALLOC_* bits set so far.
        steps: the list to append the steps to.

    Returns:
        What was prepared.
    """
    gfp_mask, nid = request.gfp_mask, request.preferred_nid
    highest_zoneidx, step = gfp.gfp_zone(kernel, gfp_mask)
    steps.append(step)
    kind, step = mmzone.node_zonelist(kernel, nid, gfp_mask)
    steps.append(step)
    migratetype, step = gfp.gfp_migratetype(kernel, gfp_mask, context)
    steps.append(step)
    alloc_gfp, added, origin, nodemask, step = cpuset.cpuset_restriction(kernel, gfp_mask, request, context)
    steps.append(step)
    alloc_flags |= added
    if kernel.features.config_cma:
        added, step = alloc_flags_cma(kernel, migratetype, context)
        steps.append(step)
        alloc_flags |= added
    spread_dirty_pages, step = spread_dirty(kernel, gfp_mask)
    steps.append(step)
    preferred_zone, step = mmzone.first_zones_zonelist(kernel, kind, nid, highest_zoneidx, nodemask)
    steps.append(step)
    return Prepared(
        gfp=alloc_gfp,
        alloc_flags=alloc_flags,
        highest_zoneidx=highest_zoneidx,
        migratetype=migratetype,
        zonelist_kind=kind,
        zonelist_nid=nid,
        nodemask=origin,
        nodemask_value=nodemask,
        preferred_zone=preferred_zone,
        spread_dirty_pages=spread_dirty_pages,
        prepare_alloc_flags=alloc_flags,
    )


def alloc_flags_cma(kernel: Kernel, migratetype: int, context: Context) -> tuple[int, Step]:
    """Allow movable pages from CMA areas; called only with CONFIG_CMA.

    Source: mm/page_alloc.c, `current_alloc_flags` of linux-source-5.10 5.10.262-1:3778,
    `gfp_to_alloc_flags_cma` from 5.13 on.

    Returns:
        The ALLOC_* bits to add, and the step.
    """
    bits, features = kernel.bits, kernel.features
    function = "current_alloc_flags" if features.pf_memalloc_nocma else "gfp_to_alloc_flags_cma"
    if features.pf_memalloc_nocma and context.task_flags & bits.pf_memalloc_nocma:
        return 0, Step("cma", function, "the task has PF_MEMALLOC_NOCMA: no ALLOC_CMA")
    if migratetype == MIGRATE_MOVABLE:
        return bits.alloc_cma, Step("cma", function, "MIGRATE_MOVABLE may come from CMA areas: ALLOC_CMA")
    return 0, Step("cma", function, f"migratetype {migratetype} is not MIGRATE_MOVABLE: no ALLOC_CMA")


def spread_dirty(kernel: Kernel, gfp_mask: int) -> tuple[bool, Step]:
    """Return whether pages that will be dirtied are spread over the zones: `ac->spread_dirty_pages`."""
    write = bool(gfp_mask & kernel.bits.gfp_write)
    why = "__GFP_WRITE is set" if write else "no __GFP_WRITE"
    return write, Step("spread_dirty_pages", "prepare_alloc_pages", f"{why}: spread_dirty_pages {str(write).lower()}")


def alloc_flags_nofragment(
    kernel: Kernel, preferred_zone: ZoneRef | None, gfp_mask: int, context: Context
) -> tuple[int, Step]:
    """Avoid fragmentation of ZONE_NORMAL while ZONE_DMA32 below it can serve; pass on the kswapd bit.

    Source: mm/page_alloc.c of linux-source-5.10 5.10.262-1:3747, 6.1.192-2:4194, 6.12.117-1:3370,
    7.2.13-1:3742, 7.3.4-1~bpo13+1:3762.

    Args:
        kernel: the kernel and its machine.
        preferred_zone: the first eligible zone.
        gfp_mask: `gfp_t`, filtered, without the cpuset's __GFP_HARDWALL.
        context: for the sysctl vm.defrag_mode.

    Returns:
        The ALLOC_* bits to add, and the step.

    Raises:
        UnknownFact: the machine's description lacks the zone's node.
    """
    bits = kernel.bits
    # The kernel copies the bit: ALLOC_KSWAPD has the value of __GFP_KSWAPD_RECLAIM.
    flags = bits.alloc_kswapd if gfp_mask & bits.gfp_kswapd_reclaim else 0
    kswapd = "ALLOC_KSWAPD" if flags else "no __GFP_KSWAPD_RECLAIM"
    nofragment, why = _nofragment(kernel, preferred_zone, context)
    if nofragment:
        flags |= bits.alloc_nofragment
    effect = f"{kswapd}; {'ALLOC_NOFRAGMENT' if nofragment else 'no ALLOC_NOFRAGMENT'}, {why}"
    return flags, Step("nofragment", "alloc_flags_nofragment", effect)


def _nofragment(kernel: Kernel, preferred_zone: ZoneRef | None, context: Context) -> tuple[bool, str]:
    if kernel.features.defrag_mode and context.defrag_mode:
        return True, "vm.defrag_mode is on"
    if kernel.zone_dma32 is None:
        return False, "this kernel has no ZONE_DMA32"
    if preferred_zone is None:
        return False, "no zone is preferred"
    if preferred_zone.zone != kernel.zone_normal:
        return False, "the preferred zone is not ZONE_NORMAL"
    return _dma32_below(kernel, kernel.zone_dma32, preferred_zone.node)


def _dma32_below(kernel: Kernel, zone_dma32: int, nid: int) -> tuple[bool, str]:
    # The kernel tests the node's own ZONE_DMA32 only if there are several nodes.
    if kernel.machine.nr_online_nodes <= 1:
        return True, "the preferred zone is ZONE_NORMAL on the only node"
    node = kernel.machine.node(nid)
    if node is None:
        raise UnknownFact(f"zones of node {nid}")
    if node.present_pages(zone_dma32) == 0:
        return False, f"node {nid} has no memory in ZONE_DMA32"
    return True, f"node {nid} has ZONE_DMA32 below the preferred ZONE_NORMAL"


def alloc_flags_highatomic(kernel: Kernel, gfp_mask: int, order: int) -> tuple[int, Step]:
    """Open the highatomic reserve on the fast path.

    Source: mm/page_alloc.c of linux-source-7.3 7.3.4-1~bpo13+1:5456 and 4526.

    Returns:
        The ALLOC_* bits to add, and the step.
    """
    bits = kernel.bits
    blocking = gfp_mask & (bits.gfp_direct_reclaim | bits.gfp_nomemalloc)
    if order > 0 and gfp_mask & bits.gfp_high and not blocking:
        effect = f"__GFP_HIGH of order {order} that cannot reclaim: ALLOC_HIGHATOMIC"
        return bits.alloc_highatomic, Step("highatomic", kernel.features.entry, effect)
    effect = f"gfp {gfp_mask:#x} of order {order} is not atomic of higher order: no ALLOC_HIGHATOMIC"
    return 0, Step("highatomic", kernel.features.entry, effect)


def _registers(request: Request) -> Request:
    """Return the arguments as the kernel reads them: 32 bits of each register, the node id signed."""
    return replace(
        request,
        gfp_mask=request.gfp_mask & U32_MAX,
        order=request.order & U32_MAX,
        preferred_nid=((request.preferred_nid & U32_MAX) ^ SIGN32) - SIGN32,
        alloc_flags=request.alloc_flags & U32_MAX,
    )
