# SPDX-License-Identifier: MIT
"""Executed calls of the slow path as JSON: `run.py --record` writes them, and the unit tests judge them again."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from kalloctrace.kernel.machine import Machine, ZoneRef, machine_of
from kalloctrace.model.slowpath.types import Facts, SlowAttempt, SlowCall, SlowContext, SlowKernel
from kalloctrace.verify.slowpath.judge import CallVerdict
from tests.compiled.requests import Nodes
from tests.slow_scenarios import slow_kernel


class Called(NamedTuple):
    """One executed call.

    Attributes:
        nodes: the machine.
        call: the call and its attempts.
        unseen: the cpuset was set again to the same nodes, which no trace shows.
    """

    nodes: Nodes
    call: SlowCall
    unseen: bool

    def on(self, release: str) -> SlowKernel:
        """Return the model's kernel for a release, on this machine."""
        return slow_kernel(release, _machine(self.nodes))


def to_row(called: Called) -> dict[str, Any]:
    """Return a call as JSON values; values that no attempt changes occur once."""
    call, context = called.call, called.call.context
    return {
        "nodes": {str(nid): zones for nid, zones in called.nodes.items()},
        "nid": context.zonelist_nid,
        "gfp": call.gfp_mask,
        "order": call.order,
        "nodemask": context.nodemask,
        "zone": context.highest_zoneidx,
        "migratetype": context.migratetype,
        "ac_alloc_flags": context.alloc_flags,
        "null": call.page is False,
        "unseen": called.unseen,
        "facts": {
            name: value for name, value in asdict(call.facts or Facts()).items() if name != "softirq_disable_cnt"
        },
        "attempts": [
            [
                each.gfp_mask,
                each.alloc_flags,
                each.context.nodemask,
                each.context.preferred_zone,
                sorted(each.events or ()),
                each.reclaimed,
                each.caller,
                each.facts.oom_victim,
                each.facts.mems_allowed,
            ]
            for each in call.attempts
        ],
    }


def from_row(row: dict[str, Any]) -> Called:
    """Return the call of a row."""
    nodes = {int(nid): zones for nid, zones in row["nodes"].items()}
    zonelist = _machine(nodes).fallback[row["nid"]]
    context = SlowContext(
        "FALLBACK",
        row["nid"],
        row["nodemask"],
        zonelist[0] if zonelist else None,
        row["zone"],
        row["migratetype"],
        alloc_flags=row["ac_alloc_flags"],
    )
    facts = Facts(**row["facts"])
    attempts = tuple(
        SlowAttempt(
            number,
            gfp_mask,
            row["order"],
            alloc_flags,
            replace(context, nodemask=nodemask, preferred_zone=None if zone is None else ZoneRef(*zone)),
            replace(facts, oom_victim=victim, mems_allowed=mems),
            caller,
            frozenset(events),
            reclaimed,
        )
        for number, (gfp_mask, alloc_flags, nodemask, zone, events, reclaimed, caller, victim, mems) in enumerate(
            row["attempts"], 1
        )
    )
    whole = row["null"]
    call = SlowCall(row["gfp"], row["order"], context, attempts, False if whole else None, whole, facts)
    return Called(nodes, call, row["unseen"])


def worth_recording(judged: Iterable[tuple[Called, CallVerdict]]) -> Iterator[Called]:
    """Yield the first call with each combination of attempt kinds and result."""
    seen = set()
    for called, verdict in judged:
        kinds = frozenset(kind for attempt in verdict.attempts for kind in attempt.kinds)
        way = (kinds, called.call.page)
        if way not in seen:
            seen.add(way)
            yield called


def _machine(nodes: Nodes) -> Machine:
    # The mask is one of the call's facts.
    return machine_of(nodes, gfp_allowed_mask=0)
