# SPDX-License-Identifier: MIT
"""Rows of recordings with every argument, as a probe at get_page_from_freelist() alone would have left them."""

from typing import Any

Row = dict[str, Any]
HARDWALL = 0x100000
"""__GFP_HARDWALL from 5.10 to 7.3: ___GFP_HARDWALL in include/linux/gfp.h, gfp_types.h from 6.0 on."""


def as_one_probe(row: Row) -> Row:
    """Return a row without the facts that one probe infers, each as the metadata's description of it says.

    A call of the bulk allocator and a rejected request are captured with all their arguments.
    """
    if row["entry"] == "bulk" or not row["freelist_calls"]:
        return row
    # gfp_allowed_mask and the scopes clear bits. What is left of the request is what both masks have.
    gfp_mask = row["gfp_mask"] & row["freelist_gfp_mask"]
    changed = {"preferred_nid": row["zonelist_nid"]}
    if row["cpusets_enabled"] > 0:
        gfp_mask = gfp_mask & ~HARDWALL | row["freelist_gfp_mask"] & HARDWALL
        if row["ac_nodemask"] == "mems_allowed":
            changed["nodemask"] = row["ac_nodemask_nodes"]
    return {**row, **changed, "gfp_mask": gfp_mask}
