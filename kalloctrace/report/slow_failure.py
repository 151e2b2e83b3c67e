# SPDX-License-Identifier: MIT
"""Why a call of the slow path that a trace has returned no page: judged as a failure that a log shows is."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kalloctrace.flags.decode import decode_gfp
from kalloctrace.flags.releases import is_backporting_vendor, parse_release
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.nodelist import parse_nodelist
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.kernel.watermark_rules import watermark_rules
from kalloctrace.model.watermark import WMARK_MASK, WMARK_MIN, FreeBlocks, Watermarks, ZoneState
from kalloctrace.model.why import Attempt, slow_path_flags, why
from kalloctrace.report.failure import PAGE_KB, Failure
from kalloctrace.report.failure_log import LoggedFailure

Row = Mapping[str, Any]
"""A call with the columns of trace/slow.py."""


def slow_failure(snapshot: Snapshot, call: Row) -> Failure:
    """Answer why a call found no page, by its zones as they were when it returned.

    The decisive attempt is the last one at the min watermark, whose flags are known; a call without any was let into no
    zone at all.

    Args:
        snapshot: the kernel and machine that were recorded.
        call: a call that returned no page.
    """
    tables, given = snapshot.tables, call["given"]
    rules = watermark_rules(
        parse_release(snapshot.release, snapshot.version), patched=is_backporting_vendor(snapshot.release)
    )
    zones = [zone for zone in call["zones"] if zone["at"] == "returns"]
    if any(zone["free_highatomic"] is not None for zone in zones):
        rules = replace(rules, highatomic="free")
    check = Watermarks.of(tables, rules)
    attempt = _attempt(tables, check, call)
    states = [_state(tables, zone) for zone in zones]
    return Failure(
        logged=LoggedFailure("failure", 0, call["comm"], given["order"]),
        kernel=snapshot.release,
        tables=tables,
        rules=rules,
        gfp_text=decode_gfp(given["gfp_mask"], tables).text or "no flags",
        highest_zone=tables.zone_name(given["highest_zoneidx"]),
        attempt=attempt,
        why=why(check, attempt, states) if states else None,
        missing=() if states else ("the zones: there was no room for them",),
        page_kb=PAGE_KB,
    )


def _attempt(tables: FlagTables, check: Watermarks, call: Row) -> Attempt:
    given = call["given"]
    at_min = [each for each in call["attempts"] if each["alloc_flags"] & WMARK_MASK == WMARK_MIN]
    last = at_min[-1] if at_min else given
    gfp = last["gfp_mask"]
    flags = at_min[-1]["alloc_flags"] if at_min else slow_path_flags(tables, check, gfp, given["order"])[0]
    return Attempt(
        order=given["order"],
        alloc_flags=flags,
        highest_zoneidx=last["highest_zoneidx"],
        gfp_mask=gfp,
        direct_reclaim=bool(gfp & tables.gfp("__GFP_DIRECT_RECLAIM")),
        nodemask=_nodes(last["ac_nodemask_nodes"]),
        mems_allowed=_nodes(last["mems_allowed"]) if last["cpusets_enabled"] > 0 else None,
        hardwall=bool(gfp & tables.gfp("__GFP_HARDWALL")),
        thisnode=last["zonelist_kind"] == "NOFALLBACK",
        preferred_nid=last["zonelist_nid"],
    )


def _nodes(text: str | None) -> int | None:
    return None if text is None else parse_nodelist(text)


def _state(tables: FlagTables, zone: Row) -> ZoneState:
    boost = zone["boost"]
    return ZoneState(
        node=zone["node"],
        zone=tables.zone_name(zone["zone"]),
        index=zone["zone"],
        free=zone["free"],
        watermarks=(zone["min"] + boost, zone["low"] + boost, zone["high"] + boost),
        boost=boost,
        reserved_highatomic=zone["reserved_highatomic"],
        free_highatomic=zone["free_highatomic"],
        free_cma=zone["free_cma"],
        lowmem_reserve=tuple(zone["lowmem_reserve"]),
        managed=zone["managed"],
        blocks=tuple(
            FreeBlocks(
                count, frozenset(tables.migratetype_name(bit) for bit in range(kinds.bit_length()) if kinds >> bit & 1)
            )
            for count, kinds in zip(zone["free_blocks"], zone["free_types"], strict=True)
        ),
    )
