# SPDX-License-Identifier: MIT
"""Judges a call of the bulk allocator by its pages, and by the mask of its call for a single page.

The bulk allocator takes all its pages from one zone: the first zone of the prepared zonelist that has enough, on the
preferred zone's node. The check is that the pages are from one of these zones. It proves less than a comparison of the
prepared context, which cannot be captured here.
"""

from collections.abc import Iterator
from typing import Any

from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.kernel.nodelist import node_ids
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Preparation
from kalloctrace.verify.rows import DAMAGED, DamagedRowError, Row, node_mask


def unobserved_bulk(row: Row, *, may_miss: bool) -> str:
    """Return why a row cannot be judged; empty if it can."""
    if row["nr_populated"] is None or row["nr_pages"] is None or row["bulk_seen"] is None:
        return "how many pages were in the array before was not captured"
    if row["bulk_returned"] is None:
        return DAMAGED
    if row["bulk_seen"] or row["bulk_single_gfp_mask"] is not None:
        return ""
    if may_miss:
        return "nothing of the bulk call was seen, and probe hits were missed"
    if row["bulk_returned"] > row["nr_populated"]:
        return "pages of the bulk call that go on a list are not looked at" if row["bulk_list"] else "no page was read"
    return ""


def bulk_comparisons(kernel: Kernel, expected: Preparation, row: Row) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield each field with the model's value, the kernel's value, and the rule that sets it."""
    single = row["bulk_single_gfp_mask"]
    seen = _seen(row)
    if expected.outcome == "prepared":
        # A prepared call takes pages, or calls the normal entry for one page.
        yield "bulk_outcome", True, bool(seen) or single is not None, "bulk"
        if single is not None:
            yield "bulk_single_gfp_mask", expected.gfp, single, "cpuset"
        if seen:
            allowed = eligible(kernel, expected)
            yield "bulk_zone", allowed if seen not in [[ref] for ref in allowed] else seen, seen, "preferred_zone"
        return
    yield "bulk_zone", [], seen, "bulk"
    yield "bulk_single_gfp_mask", row["gfp_mask"] if expected.outcome == "single" else None, single, "bulk"


def eligible(kernel: Kernel, expected: Preparation) -> list[ZoneRef]:
    """Return the zones that the pages of a bulk call may come from, in the order in which the kernel tries them.

    Source: mm/page_alloc.c of linux-source-6.1 6.1.192-2:5469, 7.3.4-1~bpo13+1:5183.
    """
    preferred, highest_zoneidx = expected.preferred_zone, expected.highest_zoneidx
    if preferred is None or highest_zoneidx is None or expected.zonelist_kind is None or expected.zonelist_nid is None:
        return []
    return [
        ref
        for ref in kernel.machine.zonelist(expected.zonelist_kind, expected.zonelist_nid) or ()
        if ref.zone <= highest_zoneidx and ref.node == preferred.node
    ]


def _seen(row: Row) -> list[ZoneRef]:
    """Return the zones of the captured pages; a call takes pages from one zone only."""
    if not row["bulk_seen"]:
        return []
    nodes, zones = node_mask(row, "bulk_nodes"), node_mask(row, "bulk_zones")
    if nodes is None or zones is None:
        raise DamagedRowError("pages without their nodes or zones")
    return [ZoneRef(node, zone) for node in node_ids(nodes) for zone in node_ids(zones)]
