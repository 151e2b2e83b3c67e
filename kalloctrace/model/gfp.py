# SPDX-License-Identifier: MIT
"""What a gfp mask selects by itself: include/linux/gfp.h."""

from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Context, Step

GFP_ZONEMASK = 0xF
"""The zone modifiers: __GFP_DMA, __GFP_HIGHMEM, __GFP_DMA32 and __GFP_MOVABLE are bits 0 to 3 everywhere."""

GFP_MOVABLE_SHIFT = 3
GFP_MOVABLE_MASK = 0x3
"""After the shift: __GFP_MOVABLE is 1 and __GFP_RECLAIMABLE is 2."""


def gfp_zone(kernel: Kernel, gfp_mask: int) -> tuple[int, Step]:
    """Return the highest zone that may serve the mask.

    Source: include/linux/gfp.h of linux-source-5.10 5.10.262-1:407 to linux-source-7.3 7.3.4-1:141.

    Returns:
        `enum zone_type`, and the step.
    """
    zone = kernel.gfp_zone_table[gfp_mask & GFP_ZONEMASK]
    return zone, Step(
        "gfp_zone",
        "gfp_zone",
        f"zone modifiers {gfp_mask & GFP_ZONEMASK:#x} select highest_zoneidx {zone} ({kernel.tables.zone_name(zone)})",
    )


def gfp_migratetype(kernel: Kernel, gfp_mask: int, context: Context) -> tuple[int, Step]:
    """Return the migratetype of the pageblocks that the pages should come from.

    __GFP_MOVABLE with __GFP_RECLAIMABLE is not allowed; without CONFIG_DEBUG_VM it gives 3.
    Source: include/linux/gfp.h, and mm/page_alloc.h from 7.3 on.

    Returns:
        `enum migratetype`, and the step.
    """
    if context.page_group_by_mobility_disabled:
        migratetype, why = 0, "page_group_by_mobility_disabled is set"
    else:
        migratetype = gfp_mask >> GFP_MOVABLE_SHIFT & GFP_MOVABLE_MASK
        why = f"mobility bits of gfp {gfp_mask:#x}"
    name = kernel.tables.migratetype_name(migratetype)
    return migratetype, Step("gfp_migratetype", "gfp_migratetype", f"{why}: migratetype {migratetype} ({name})")
