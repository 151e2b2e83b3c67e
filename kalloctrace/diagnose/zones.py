# SPDX-License-Identifier: MIT
"""Why no zone served a request: the kernel's own check judges each zone of the zonelist."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

from kalloctrace.model.slowpath.flags import Condition, ConditionFact
from kalloctrace.model.watermark import WatermarkCheck, Watermarks, ZoneState, zone_watermark_fast

Kind = Literal["excluded", "watermark", "block", "passes", "unknown"]
"""The zone was not tried; too few pages; enough pages but no block; it could serve the request; not decided."""

ExcludedBy = Literal["highest_zoneidx", "nodemask", "cpuset", "THISNODE"]

Doubt = (
    ConditionFact
    | Literal["cpuset_ancestors", "other_node", "zone_not_allowed", "zone_layout", "page_size", "not_counted"]
)
"""What is unknown and would change a verdict; also: the cpuset's ancestors exclude the node, __GFP_THISNODE requires
another node, the mask excludes the zone, the kernel has other zones, its pages have another size, or too few of them
are free."""

Conclusion = Literal["no_zone", "watermark", "block", "mixed", "passes", "unknown"]
"""What is true of all zones that were tried; `mixed` is watermark in some and block in others."""

Change = Literal[
    "smaller_order",
    "direct_reclaim",
    "gfp_high",
    "gfp_atomic",
    "gfp_memalloc",
    "gfp_movable",
    "min_free_kbytes",
    "watermark_boost",
    "lowmem_reserve",
    "zone_modifier",
    "nodemask",
    "cpuset",
    "THISNODE",
]


@dataclass(frozen=True, slots=True)
class AllocationAttempt:
    """One call of `get_page_from_freelist`: what it requests.

    Attributes:
        order: 2**order pages.
        alloc_flags: ALLOC_* bits, the watermark in the two low ones.
        highest_zoneidx: `enum zone_type`; None if unknown.
        gfp_mask: `gfp_t`; 0 if its bits are unknown.
        direct_reclaim: the request may reclaim; None if unknown.
        nodemask: bit n is node n; None for NULL.
        mems_allowed: nodes of the task's cpuset; None if they are unknown or cpusets are off.
        hardwall: __GFP_HARDWALL is set, so that the cpuset's ancestors do not count.
        thisnode: __GFP_THISNODE is set.
        nomemalloc: __GFP_NOMEMALLOC is set, so that __GFP_MEMALLOC does nothing and GFP_ATOMIC opens less.
        preferred_nid: the preferred node; None if unknown.
        oom: the OOM killer was called, so reclaim had found nothing more.
        conditions: unknown facts of the task or the kernel that would change the flags.
    """

    order: int
    alloc_flags: int
    highest_zoneidx: int | None
    gfp_mask: int = 0
    direct_reclaim: bool | None = None
    nodemask: int | None = None
    mems_allowed: int | None = None
    hardwall: bool = False
    thisnode: bool = False
    nomemalloc: bool = False
    preferred_nid: int | None = None
    oom: bool = False
    conditions: tuple[Condition, ...] = ()


class ZoneVerdict(NamedTuple):
    """The verdict on one zone.

    Attributes:
        state: the zone.
        kind: the verdict.
        excluded_by: why the zone was not tried.
        check: the numbers; None if the zone was not tried.
        certain: no unknown condition would change the verdict.
        unless: the conditions that would change it.
        passes_if: the conditions under which the zone would have served; as it did not, they are unlikely.
    """

    state: ZoneState
    kind: Kind
    excluded_by: ExcludedBy | None = None
    check: WatermarkCheck | None = None
    certain: bool = True
    unless: tuple[Doubt, ...] = ()
    passes_if: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change that would have let the request succeed, found by judging again.

    Attributes:
        change: the kind of change.
        node: the node of the zone that would have served.
        zone: the name of that zone.
        value: the order for `smaller_order`, pages to free for `direct_reclaim`, the highest min watermark in pages
            that would be low enough for `min_free_kbytes`; None for changes without a number.
        needs_block: reclaim would have to make a block of the order as well, by compaction.
    """

    change: Change
    node: int
    zone: str
    value: int | None = None
    needs_block: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis of one failed request.

    Attributes:
        conclusion: what is true of the zones that were tried.
        certain: every zone refused the request, and no unknown condition would change that.
        zones: the verdicts, in the order given.
        find_remedies: finds the remedies.
    """

    conclusion: Conclusion
    certain: bool
    zones: tuple[ZoneVerdict, ...]
    find_remedies: Callable[[], Iterable[Remedy]] = field(repr=False, compare=False)

    @cached_property
    def remedies(self) -> tuple[Remedy, ...]:
        """Changes that would have let the request succeed; of alike failures only one is asked for them."""
        return tuple(self.find_remedies())


def judge_zone(kernel: Watermarks, attempt: AllocationAttempt, state: ZoneState) -> ZoneVerdict:
    """Return the verdict on one zone."""
    excluded = excluded_by(kernel, attempt, state)
    if excluded is not None:
        return ZoneVerdict(state, "excluded", excluded)
    check = _check(kernel, attempt, state, attempt.alloc_flags)
    kind = _kind(check)
    others = [(other.fact, _kind(_check(kernel, attempt, state, other.alloc_flags))) for other in attempt.conditions]
    refused = kind in ("watermark", "block")
    # A task is hardly ever in such a state; but many a mask that the log does not show is movable.
    passes_if = tuple(fact for fact, other in others if other == "passes" != kind and fact != "movable_mask")
    unless: list[Doubt] = [
        fact
        for fact, other in others
        if other == "unknown" != kind or (other != kind and (not refused or other == "passes"))
    ]
    unless = [doubt for doubt in unless if doubt not in passes_if]
    if not state.counted:
        unless.append("not_counted")
    # A zone that refused did not serve, whether it was tried or not.
    if not refused and _outside_cpuset(kernel, attempt, state):
        unless.append("cpuset_ancestors")
    if not refused and attempt.thisnode and attempt.preferred_nid is None:
        unless.append("other_node")
    if not refused and (attempt.highest_zoneidx is None or state.index is None):
        unless.append("zone_not_allowed")
    return ZoneVerdict(state, kind, None, check, kind != "unknown" and not unless, tuple(unless), passes_if)


def excluded_by(kernel: Watermarks, attempt: AllocationAttempt, state: ZoneState) -> ExcludedBy | None:
    """Return why the request does not try a zone; None if it tries it.

    Source: `for_next_zone_zonelist_nodemask` and `__cpuset_zone_allowed` in `get_page_from_freelist`, mm/page_alloc.c
    of linux-source-5.10 5.10.262-1:3797 to 7.3.4-1~bpo13+1:3810; a node outside the cpuset may still be one of an
    ancestor's unless __GFP_HARDWALL is set, kernel/cgroup/cpuset.c.
    """
    if attempt.highest_zoneidx is not None and state.index is not None and state.index > attempt.highest_zoneidx:
        return "highest_zoneidx"
    node = 1 << state.node
    if attempt.thisnode and attempt.preferred_nid is not None and attempt.preferred_nid != state.node:
        return "THISNODE"
    if attempt.nodemask is not None and not attempt.nodemask & node:
        return "nodemask"
    if attempt.hardwall and _outside_cpuset(kernel, attempt, state):
        return "cpuset"
    return None


def _outside_cpuset(kernel: Watermarks, attempt: AllocationAttempt, state: ZoneState) -> bool:
    confined = attempt.mems_allowed is not None and bool(attempt.alloc_flags & kernel.bits.alloc_cpuset)
    return confined and not (attempt.mems_allowed or 0) >> state.node & 1


def _check(kernel: Watermarks, attempt: AllocationAttempt, state: ZoneState, alloc_flags: int) -> WatermarkCheck:
    check = zone_watermark_fast(
        kernel, state, attempt.order, attempt.highest_zoneidx, alloc_flags, gfp_mask=attempt.gfp_mask
    )
    # Without a free block the request is refused, whatever the watermark.
    return check if state.counted or check.outcome == "block" else check._replace(outcome="unknown")


def _kind(check: WatermarkCheck) -> Kind:
    return "passes" if check.outcome == "ok" else check.outcome
