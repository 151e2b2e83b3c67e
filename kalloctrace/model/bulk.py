# SPDX-License-Identifier: MIT
"""The bulk allocator: one preparation for many pages of order 0, without `get_page_from_freelist`."""

from dataclasses import dataclass
from typing import Literal

from kalloctrace.flags.decode import U32_MAX
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.page_alloc import apply_gfp_allowed_mask, prepare_alloc_pages, prepared
from kalloctrace.model.types import Context, Preparation, Request, Step

FUNCTION = "alloc_pages_bulk"

_EFFECTS = {"nothing": "nothing is prepared", "single": "the normal entry is called for a single page"}


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """The arguments of the bulk allocator, as its caller passed them.

    Attributes:
        gfp_mask: `gfp_t`.
        preferred_nid: `int`, a node id.
        nodemask: bit n is node n; None is the NULL pointer.
        nr_pages: `int`, how many pages the array should hold at the end.
        nr_populated: leading elements of the caller's array that already hold a page.
    """

    gfp_mask: int
    preferred_nid: int
    nodemask: int | None
    nr_pages: int
    nr_populated: int


def alloc_pages_bulk(kernel: Kernel, request: BulkRequest, context: Context) -> Preparation:
    """Predict what the bulk allocator prepares, or why it prepares nothing.

    It applies neither the task's scopes nor the no-fragment rule.
    Source: mm/page_alloc.c of linux-source-6.1 6.1.192-2:5469, 6.12.117-1:4656, 7.2.13-1:5151,
    7.3.4-1~bpo13+1:5183.

    Args:
        kernel: the kernel and its machine.
        request: the arguments.
        context: what else the stage reads.

    Returns:
        What was prepared. The outcome is "nothing" if there is nothing to do, and "single" if one call of the normal
        entry with the caller's own mask allocates a single page.

    Raises:
        UnknownFact: the machine's description lacks a fact that the answer depends on.
    """
    missing = request.nr_pages - request.nr_populated
    # No element of an array without elements holds a page, so this includes nr_pages <= 0.
    if missing <= 0:
        reason = f"{request.nr_pages} pages are requested and {request.nr_populated} are there"
        return _not_prepared("nothing", reason)
    alone = single_page(kernel, request, context)
    if alone:
        return _not_prepared("single", alone)
    steps = [Step("bulk", FUNCTION, f"{missing} pages are missing: one preparation serves all")]
    gfp_mask, step = apply_gfp_allowed_mask(kernel, request.gfp_mask & U32_MAX, context)
    steps.append(step)
    filtered = Request(gfp_mask, 0, request.preferred_nid, request.nodemask)
    return prepared(prepare_alloc_pages(kernel, filtered, context, kernel.bits.alloc_wmark_low, steps), steps)


def single_page(kernel: Kernel, request: BulkRequest, context: Context) -> str:
    """Return why the normal entry is called instead; empty if it is not."""
    if context.memcg_kmem_online and request.gfp_mask & kernel.bits.gfp_account:
        return "__GFP_ACCOUNT with memcg_kmem_online(): memory is accounted page by page"
    if request.nr_pages - request.nr_populated == 1:
        return "one page alone is missing"
    return "page_owner is on" if context.page_owner_inited else ""


def _not_prepared(outcome: Literal["nothing", "single"], reason: str) -> Preparation:
    return Preparation(outcome, (Step("bulk", FUNCTION, f"{reason}: {_EFFECTS[outcome]}"),), reason=reason)
