# SPDX-License-Identifier: MIT
"""How cpusets restrict a request: the cpuset branch of prepare_alloc_pages, and include/linux/cpuset.h."""

from kalloctrace.model import preempt
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Context, NodemaskOrigin, Request, Step, UnknownFact


def cpusets_enabled(kernel: Kernel, context: Context) -> bool:
    """Return whether a cpuset other than the root exists; always False without CONFIG_CPUSETS."""
    return kernel.features.config_cpusets and context.cpusets_enabled


def cpuset_restriction(
    kernel: Kernel, gfp_mask: int, request: Request, context: Context
) -> tuple[int, int, NodemaskOrigin, int | None, Step]:
    """Restrict the request to the task's cpuset, by nodemask if possible and by ALLOC_CPUSET if not.

    The kernel cannot narrow the caller's nodemask, and an interrupt has no cpuset of its own. In both cases
    ALLOC_CPUSET makes `get_page_from_freelist` check each zone.
    Source: mm/page_alloc.c of linux-source-5.10 5.10.262-1:4950, 6.1.192-2:5406, 7.3.4-1:5114.

    Args:
        kernel: the kernel.
        gfp_mask: `gfp_t`, before this rule.
        request: for its nodemask.
        context: cpusets, preempt_count and mems_allowed.

    Returns:
        The gfp mask for `get_page_from_freelist`, the ALLOC_* bits to add, which nodemask, its content, and
        the step.

    Raises:
        UnknownFact: the context lacks what the answer depends on.
    """
    origin: NodemaskOrigin = "null" if request.nodemask is None else "caller"
    flags, value = 0, request.nodemask
    if not cpusets_enabled(kernel, context):
        effect = f"cpusets are off: gfp {gfp_mask:#x} and nodemask ({origin}) stay"
        return gfp_mask, flags, origin, value, Step("cpuset", "prepare_alloc_pages", effect)
    gfp_mask |= kernel.bits.gfp_hardwall
    effect = f"cpusets are on: __GFP_HARDWALL makes gfp {gfp_mask:#x}; "
    if request.nodemask is not None:
        flags = kernel.bits.alloc_cpuset
        effect += "the caller's nodemask stays, so ALLOC_CPUSET"
    elif not preempt.in_task_context(kernel, context):
        flags = kernel.bits.alloc_cpuset
        effect += f"preempt_count {context.preempt_count:#x} is no task's, so ALLOC_CPUSET"
    elif context.mems_allowed is None:
        raise UnknownFact("mems_allowed")
    else:
        origin, value = "mems_allowed", context.mems_allowed
        effect += "nodemask becomes current->mems_allowed"
    return gfp_mask, flags, origin, value, Step("cpuset", "prepare_alloc_pages", effect)
