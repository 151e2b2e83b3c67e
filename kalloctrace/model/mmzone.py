# SPDX-License-Identifier: MIT
"""Which zones may serve a request, and which one first: include/linux/mmzone.h, mm/mmzone.c."""

from kalloctrace.kernel.machine import ZonelistKind, ZoneRef
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Step, UnknownFact


def gfp_zonelist(kernel: Kernel, gfp_mask: int) -> ZonelistKind:
    """Return which of a node's zonelists the mask selects; without CONFIG_NUMA there is only one."""
    thisnode = kernel.features.config_numa and gfp_mask & kernel.bits.gfp_thisnode
    return "NOFALLBACK" if thisnode else "FALLBACK"


def node_zonelist(kernel: Kernel, nid: int, gfp_mask: int) -> tuple[ZonelistKind, Step]:
    """Select the zonelist of the request.

    Source: include/linux/gfp.h, `node_zonelist` and `gfp_zonelist`, the same from 5.8 to 7.3.

    Returns:
        Which of the zonelists of node `nid`, and the step.
    """
    kind = gfp_zonelist(kernel, gfp_mask)
    why = "__GFP_THISNODE" if kind == "NOFALLBACK" else "no __GFP_THISNODE"
    return kind, Step("zonelist", "node_zonelist", f"{why}: zonelist {kind} of node {nid}")


def first_zones_zonelist(
    kernel: Kernel, kind: ZonelistKind, nid: int, highest_zoneidx: int, nodemask: int | None
) -> tuple[ZoneRef | None, Step]:
    """Return the first entry of the zonelist that the zone index and the nodemask allow.

    Source: `__next_zones_zonelist` in mm/mmzone.c:56, the same from 5.8 to 7.3.

    Args:
        kernel: for the machine's zonelists.
        kind: which zonelist.
        nid: whose zonelist.
        highest_zoneidx: `enum zone_type`.
        nodemask: bit n is node n; None is the NULL pointer.

    Returns:
        The entry, None for the terminating one, and the step.

    Raises:
        UnknownFact: the machine's description lacks this zonelist.
    """
    zonelist = kernel.machine.zonelist(kind, nid)
    if zonelist is None:
        raise UnknownFact(f"zonelist {kind} of node {nid}")
    for ref in zonelist:
        if ref.zone <= highest_zoneidx and (nodemask is None or nodemask >> ref.node & 1):
            effect = f"preferred zone is {kernel.tables.zone_name(ref.zone)} of node {ref.node}"
            return ref, Step("preferred_zone", "first_zones_zonelist", effect)
    effect = "no zone of the zonelist is eligible: preferred_zoneref is the terminating entry"
    return None, Step("preferred_zone", "first_zones_zonelist", effect)
