# SPDX-License-Identifier: MIT
"""How the task's memalloc scopes change a gfp mask: include/linux/sched/mm.h."""

from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Context, Step


def current_gfp_context(kernel: Kernel, gfp_mask: int, context: Context) -> tuple[int, Step]:
    """Apply the memalloc_*_save() scopes of the current task.

    The kernel does not test for interrupt context: an interrupt uses the flags of the interrupted task.
    Source: include/linux/sched/mm.h of linux-source-6.1 6.1.192-2:203, 6.12.117-1:250, 7.3.4-1:248; with
    PF_MEMALLOC_NORECLAIM as in 6.9.

    Returns:
        `gfp_t`, and the step.
    """
    bits, features, flags = kernel.bits, kernel.features, context.task_flags
    done = []
    gfp = gfp_mask
    if features.pf_memalloc_noreclaim and flags & bits.pf_memalloc_noreclaim:
        gfp &= ~bits.gfp_direct_reclaim
        done.append("PF_MEMALLOC_NORECLAIM clears __GFP_DIRECT_RECLAIM")
    elif flags & bits.pf_memalloc_noio:
        gfp &= ~(bits.gfp_io | bits.gfp_fs)
        done.append("PF_MEMALLOC_NOIO clears __GFP_IO and __GFP_FS")
    elif flags & bits.pf_memalloc_nofs:
        gfp &= ~bits.gfp_fs
        done.append("PF_MEMALLOC_NOFS clears __GFP_FS")
    if features.pf_memalloc_noreclaim and flags & bits.pf_memalloc_nowarn:
        gfp |= bits.gfp_nowarn
        done.append("PF_MEMALLOC_NOWARN sets __GFP_NOWARN")
    if features.pf_memalloc_pin and flags & bits.pf_memalloc_pin:
        gfp &= ~bits.gfp_movable
        done.append("PF_MEMALLOC_PIN clears __GFP_MOVABLE")
    scope = ", ".join(done) or f"task flags {flags:#x} hold no scope"
    return gfp, Step("gfp_context", "current_gfp_context", f"{scope}: gfp {gfp:#x}")
