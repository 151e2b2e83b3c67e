# SPDX-License-Identifier: MIT
"""What `__alloc_pages_slowpath` is called with, after the first attempt on the fast path failed."""

from kalloctrace.model import page_alloc, sched_mm
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.page_alloc import MASK32
from kalloctrace.model.slowpath.types import SlowCall, SlowContext
from kalloctrace.model.types import Context, ImpossibleRequestError, Request


def slowpath_call(kernel: Kernel, request: Request, context: Context) -> SlowCall:
    """Predict the arguments of the slow path for a request.

    The task's scopes are applied on every kernel by now, what cpusets added is taken back, and pages about to be
    dirtied are no longer spread. The preferred zone is still that of the fast path.
    Source: mm/page_alloc.c of linux-source-5.10 5.10.262-1:5039, 6.1.192-2:5662, 7.3.4-1~bpo13+1:5463.

    Args:
        kernel: the kernel and its machine.
        request: the arguments of the entry.
        context: what the preparation stage reads besides.

    Returns:
        The call, without attempts.

    Raises:
        ImpossibleRequestError: such a request never enters the slow path.
        UnknownFact: the machine's description lacks a fact that the answer depends on.
    """
    done = page_alloc.alloc_pages(kernel, request, context)
    flags = request.alloc_flags & MASK32
    if done.outcome != "prepared" or request.entry == "nolock" or flags & kernel.bits.alloc_nolock:
        raise ImpossibleRequestError("a request that is rejected, or made without locks, never enters the slow path")
    gfp_mask, _ = page_alloc.apply_gfp_allowed_mask(kernel, request.gfp_mask & MASK32, context)
    gfp_mask, _ = sched_mm.current_gfp_context(kernel, gfp_mask, context)
    return SlowCall(
        gfp_mask=gfp_mask,
        order=request.order & MASK32,
        context=SlowContext(
            zonelist_kind=done.zonelist_kind,
            zonelist_nid=done.zonelist_nid,
            nodemask=request.nodemask,
            preferred_zone=done.preferred_zone,
            highest_zoneidx=done.highest_zoneidx or 0,
            migratetype=done.migratetype or 0,
            alloc_flags=flags,
        ),
    )
