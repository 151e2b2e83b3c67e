# SPDX-License-Identifier: MIT
"""Why a recorded call of the slow path failed or was slow, judged like a failure in a log."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from kalloctrace.diagnose.answers.caller import asking_frame
from kalloctrace.diagnose.diagnosis import judge_zones
from kalloctrace.diagnose.from_log import NULL, Failure
from kalloctrace.diagnose.reports.model import Event, Frame, LoggedFailure
from kalloctrace.diagnose.zones import AllocationAttempt
from kalloctrace.flags.decode import decode_gfp
from kalloctrace.flags.releases import upstream_release
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.nodelist import parse_nodelist
from kalloctrace.kernel.slowpath_rules import SlowpathRules, slowpath_rules
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.kernel.watermark_rules import watermark_rules
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.page_alloc import alloc_pages
from kalloctrace.model.slowpath.flags import ORDINARY_TASK, attempt_alloc_flags, mask_alloc_flags
from kalloctrace.model.slowpath.types import SlowKernel
from kalloctrace.model.types import ImpossibleRequestError, UnknownFact
from kalloctrace.model.watermark import WMARK_MASK, WMARK_MIN, FreeBlocks, Watermarks, ZoneState
from kalloctrace.trace.schema import frames_of
from kalloctrace.verify.slowpath.trace import context_of_call, request_of_call, slow_call_of

Row = Mapping[str, Any]
"""A call with the columns of trace/slowpath.py."""


def slow_failure(snapshot: Snapshot, call: Row) -> Failure:
    """Diagnose why a call found no page, by the state of its zones when it returned.

    The decisive attempt is the last one at the min watermark, whose flags are known. A call without any could use no
    zone at all.

    Args:
        snapshot: the kernel and machine that were recorded.
        call: a call that returned no page.
    """
    check = _check(snapshot, call)
    at_min = [each for each in call["attempts"] if each["alloc_flags"] & WMARK_MASK == WMARK_MIN]
    arguments = at_min[-1] if at_min else call["given"]
    if not at_min:
        arguments = {**arguments, "alloc_flags": _first_flags(snapshot, call)}
    return _judged(snapshot, call, check, _Search("failure", "returns", arguments))


def slow_start(snapshot: Snapshot, kernel: Kernel, call: Row) -> Failure:
    """Diagnose why the fast path of a call found no page, by the state of its zones when the slow path began.

    Args:
        snapshot: the kernel and machine that were recorded.
        kernel: the same, compiled.
        call: a call that returned.
    """
    check = _check(snapshot, call)
    given = call["given"]
    waited = None if call["duration"] is None else f"{call['duration'] / 1e6:,.1f} ms"
    try:
        prepared = alloc_pages(kernel, request_of_call(call), context_of_call(kernel, call))
    except (UnknownFact, ImpossibleRequestError) as error:
        failure = _judged(snapshot, call, check, _Search("stall", "begins", {**given, "alloc_flags": 0}), waited)
        return replace(failure, why=None, unrecorded=(f"what the fast path asked for ({error})",))
    first = {**given, "gfp_mask": prepared.gfp or 0, "alloc_flags": prepared.alloc_flags or 0}
    return _judged(snapshot, call, check, _Search("stall", "begins", first), waited)


def _first_flags(snapshot: Snapshot, call: Row) -> int:
    """Return the flags that a call without attempts would have tried with."""
    rules = slowpath_rules(snapshot.release, snapshot.version)
    kernel = SlowKernel(Kernel.of(snapshot), rules or SlowpathRules())
    slow = slow_call_of(call)
    try:
        return attempt_alloc_flags(kernel, slow.gfp_mask, slow.order, slow.facts or ORDINARY_TASK)
    except UnknownFact:
        return mask_alloc_flags(kernel, slow.gfp_mask, slow.order)[0]


class _Search(NamedTuple):
    """One search of a call's zonelist.

    Attributes:
        event: what it led to.
        at: when the state of its zones was copied.
        arguments: its arguments.
    """

    event: Event
    at: str
    arguments: Row


def _check(snapshot: Snapshot, call: Row) -> Watermarks:
    rules = watermark_rules(upstream_release(snapshot.release, snapshot.version))
    if any(zone["free_highatomic"] is not None for zone in call["zones"]):
        rules = replace(rules, highatomic="free")
    return Watermarks(rules, snapshot.tables.bits)


def _judged(snapshot: Snapshot, call: Row, check: Watermarks, search: _Search, waited: str | None = None) -> Failure:
    tables, given, arguments = snapshot.tables, call["given"], search.arguments
    states = [_state(tables, zone) for zone in call["zones"] if zone["at"] == search.at]
    attempt = _attempt(tables, arguments, given["order"])
    return Failure(
        logged=LoggedFailure(
            search.event,
            0,
            call["comm"],
            given["order"],
            nodemask=arguments["ac_nodemask_nodes"] or NULL,
            mems_allowed=arguments["mems_allowed"],
            waited=waited,
            trace=_frames(call),
        ),
        kernel=snapshot.release,
        tables=tables,
        rules=check.rules,
        gfp_text=decode_gfp(given["gfp_mask"], tables).text or "no flags",
        highest_zone=tables.zone_name(given["highest_zoneidx"]),
        attempt=attempt,
        why=judge_zones(check, attempt, states) if states else None,
        unrecorded=() if states else ("the zones: there was no room for them",),
        source="trace",
    )


def caller_of_call(call: Row) -> str | None:
    """Return the function that asked for the memory; None if the stack was not captured, or has allocators alone."""
    frame = asking_frame(_frames(call))
    return None if frame is None else frame.function


def _frames(call: Row) -> tuple[Frame, ...]:
    return tuple(map(_frame, frames_of(call["stack"])))


def _frame(function: str) -> Frame:
    """Return a frame of a recorded stack, where a function of a module is the module's name in brackets."""
    return Frame(function, function.strip("[]") if function.startswith("[") else None, reliable=True)


def _attempt(tables: FlagTables, last: Row, order: int) -> AllocationAttempt:
    gfp = last["gfp_mask"]
    return AllocationAttempt(
        order=order,
        alloc_flags=last["alloc_flags"],
        highest_zoneidx=last["highest_zoneidx"],
        gfp_mask=gfp,
        direct_reclaim=bool(gfp & tables.gfp("__GFP_DIRECT_RECLAIM")),
        nodemask=_nodes(last["ac_nodemask_nodes"]),
        mems_allowed=_nodes(last["mems_allowed"]) if last["cpusets_enabled"] > 0 else None,
        hardwall=bool(gfp & tables.gfp("__GFP_HARDWALL")),
        nomemalloc=bool(gfp & tables.gfp("__GFP_NOMEMALLOC")),
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
