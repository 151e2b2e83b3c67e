# SPDX-License-Identifier: MIT
"""What the preparation stage hands to `get_page_from_freelist`: one table for text, comparisons and pages."""

from collections.abc import Mapping
from typing import NamedTuple

from kalloctrace.explain.request import Answer
from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.kernel.nodelist import format_nodelist
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import ALL_NODES, Preparation


class Argument(NamedTuple):
    """One argument of `get_page_from_freelist`.

    Attributes:
        value: what decides whether two arguments are equal: the bits of a mask, whose names differ from kernel to
            kernel; the text of all others.
        text: the argument for people.
    """

    value: object
    text: str


def received(answer: Answer) -> Mapping[str, Argument]:
    """Return the arguments of a prepared request by name: "gfp_mask", "ac.nodemask"; empty if it was rejected."""
    done, tables = answer.preparation, answer.kernel.tables
    if done.outcome == "rejected":
        return {}
    gfp, flags = done.gfp or 0, done.alloc_flags or 0
    migratetype, zone = done.migratetype or 0, done.highest_zoneidx or 0
    masks = {
        "gfp_mask": Argument(gfp, f"{gfp:#x} {decode_gfp(gfp, tables).text}".rstrip()),
        "alloc_flags": Argument(flags, f"{flags:#x} {decode_alloc(flags, tables).text}"),
    }
    texts = {
        "ac.zonelist": f"{done.zonelist_kind} of node {done.zonelist_nid}",
        "ac.nodemask": nodemask_text(done),
        "ac.preferred_zoneref": _zoneref(answer.kernel, done.preferred_zone),
        "ac.migratetype": f"{migratetype} {tables.migratetype_name(migratetype)}",
        "ac.highest_zoneidx": f"{zone} {tables.zone_name(zone)}",
        "ac.spread_dirty_pages": str(bool(done.spread_dirty_pages)).lower(),
    }
    return {**masks, **{name: Argument(text, text) for name, text in texts.items()}}


def outcome_text(answer: Answer) -> str:
    """Return "prepared", or that the request is rejected and why."""
    done = answer.preparation
    if done.outcome == "prepared":
        return "prepared"
    return f"rejected{', with a warning' if done.warns else ''}: {done.reason}"


def nodemask_text(done: Preparation) -> str:
    """Return where `ac->nodemask` points, and the nodes there."""
    if done.nodemask_value is None:
        return "NULL"
    owner = {"caller": "the caller's", "mems_allowed": "current->mems_allowed"}.get(done.nodemask or "", "")
    return f"{owner}: {nodes_text(done.nodemask_value)}"


def nodes_text(nodes: int) -> str:
    """Return a set of nodes (bit n is node n) as text."""
    if nodes == ALL_NODES:
        return "all nodes"
    return f"nodes {format_nodelist(nodes)}" if nodes else "no node"


def zone_text(kernel: Kernel, ref: ZoneRef) -> str:
    """Return a zone and its node as text."""
    return f"{kernel.tables.zone_name(ref.zone)} of node {ref.node}"


def _zoneref(kernel: Kernel, ref: ZoneRef | None) -> str:
    return "the terminating entry: no zone is eligible" if ref is None else zone_text(kernel, ref)
