# SPDX-License-Identifier: MIT
"""Why no zone served a request, and what would have: the kernel's own check judges each zone of the zonelist.

Remedies are not guessed: the same functions judge the same zones again with one thing changed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kalloctrace.model.slowpath.flags import Condition, ConditionFact
from kalloctrace.model.watermark import (
    WMARK_MASK,
    WMARK_MIN,
    WatermarkCheck,
    Watermarks,
    ZoneState,
    without_boost,
    zone_watermark_fast,
)

Kind = Literal["excluded", "watermark", "block", "passes", "unknown"]
"""The zone was not tried; too few pages; enough pages but no block; it could serve the request; not decided."""

ExcludedBy = Literal["highest_zoneidx", "nodemask", "cpuset", "THISNODE"]

Doubt = ConditionFact | Literal["cpuset_ancestors", "other_node", "zone_not_allowed"]
"""What is unknown and would change a verdict; also: the cpuset's ancestors exclude the node, __GFP_THISNODE requires
another node, or the mask excludes the zone."""

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
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class ZoneVerdict:
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


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The diagnosis of one failed request.

    Attributes:
        conclusion: what is true of the zones that were tried.
        certain: every zone refused the request, and no unknown condition would change that.
        zones: the verdicts, in the order given.
        remedies: changes that would have let the request succeed.
    """

    conclusion: Conclusion
    certain: bool
    zones: tuple[ZoneVerdict, ...]
    remedies: tuple[Remedy, ...]


def judge_zones(kernel: Watermarks, attempt: AllocationAttempt, zones: Sequence[ZoneState]) -> Diagnosis:
    """Judge each zone, and find what would have let the request succeed.

    Args:
        kernel: the kernel's watermark check.
        attempt: the request.
        zones: their states at that moment, in the order of the zonelist if that is known.

    Returns:
        The verdicts in the same order, and the remedies.
    """
    verdicts = tuple(judge_zone(kernel, attempt, state) for state in zones)
    # A zone that could serve, but perhaps may not be used, decides nothing.
    tried: list[Kind] = [
        "unknown" if verdict.kind == "passes" and not verdict.certain else verdict.kind
        for verdict in verdicts
        if verdict.kind != "excluded"
    ]
    conclusion = _conclusion(tried)
    # The logged state is later than the failure, so a pass now explains nothing.
    refused = conclusion not in ("passes", "unknown")
    certain = refused and all(verdict.certain for verdict in verdicts)
    remedies = () if conclusion == "passes" else tuple(_remedies(kernel, attempt, zones, verdicts))
    return Diagnosis(conclusion, certain, verdicts, remedies)


def _conclusion(tried: Sequence[Kind]) -> Conclusion:
    kinds = set(tried)
    if not kinds:
        return "no_zone"
    if "passes" in kinds:
        return "passes"
    if "unknown" in kinds:
        return "unknown"
    return "mixed" if len(kinds) > 1 else "watermark" if "watermark" in kinds else "block"


def judge_zone(kernel: Watermarks, attempt: AllocationAttempt, state: ZoneState) -> ZoneVerdict:
    """Return the verdict on one zone."""
    excluded = excluded_by(kernel, attempt, state)
    if excluded is not None:
        return ZoneVerdict(state, "excluded", excluded)
    check = _check(kernel, attempt, state, attempt.alloc_flags)
    kind = _kind(check)
    others = [(other.fact, _kind(_check(kernel, attempt, state, other.alloc_flags))) for other in attempt.conditions]
    refused = kind in ("watermark", "block")
    passes_if = tuple(fact for fact, other in others if other == "passes" != kind)
    unless: list[Doubt] = [
        fact for fact, other in others if other == "unknown" != kind or (other != kind and not refused)
    ]
    unless = [doubt for doubt in unless if doubt not in passes_if]
    # A zone that refused did not serve, whether it was tried or not.
    if not refused and _doubtful_node(kernel, attempt, state):
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


def _doubtful_node(kernel: Watermarks, attempt: AllocationAttempt, state: ZoneState) -> bool:
    return not attempt.hardwall and _outside_cpuset(kernel, attempt, state)


def _check(kernel: Watermarks, attempt: AllocationAttempt, state: ZoneState, alloc_flags: int) -> WatermarkCheck:
    return zone_watermark_fast(
        kernel, state, attempt.order, attempt.highest_zoneidx, alloc_flags, gfp_mask=attempt.gfp_mask
    )


def _kind(check: WatermarkCheck) -> Kind:
    return "passes" if check.outcome == "ok" else check.outcome


def _passes(kernel: Watermarks, attempt: AllocationAttempt, state: ZoneState) -> bool:
    return judge_zone(kernel, attempt, state).kind == "passes"


def _remedies(
    kernel: Watermarks, attempt: AllocationAttempt, zones: Sequence[ZoneState], verdicts: Sequence[ZoneVerdict]
) -> Iterator[Remedy]:
    tried = [verdict for verdict in verdicts if verdict.kind != "excluded"]
    yield from _smaller_order(kernel, attempt, zones)
    if attempt.direct_reclaim is False:
        yield from _direct_reclaim(kernel, attempt, tried)
    yield from _other_flags(kernel, attempt, zones)
    yield from _lower_min(kernel, attempt, tried)
    yield from _changed_state(kernel, attempt, tried, "watermark_boost", without_boost)
    yield from _changed_state(kernel, attempt, tried, "lowmem_reserve", _without_lowmem_reserve)
    yield from _fewer_limits(kernel, attempt, zones)


def _first(
    kernel: Watermarks, attempt: AllocationAttempt, zones: Sequence[ZoneState], change: Change
) -> Iterator[Remedy]:
    served = next((state for state in zones if _passes(kernel, attempt, state)), None)
    if served is not None:
        yield Remedy(change, served.node, served.zone)


_ORDERS = 32
"""More orders than any kernel has; a damaged log shows larger ones."""


def _smaller_order(kernel: Watermarks, attempt: AllocationAttempt, zones: Sequence[ZoneState]) -> Iterator[Remedy]:
    for order in range(min(attempt.order, _ORDERS) - 1, -1, -1):
        smaller = replace(attempt, order=order)
        for remedy in _first(kernel, smaller, zones, "smaller_order"):
            yield replace(remedy, value=order)
            return


def _direct_reclaim(kernel: Watermarks, attempt: AllocationAttempt, tried: Sequence[ZoneVerdict]) -> Iterator[Remedy]:
    """Yield how much reclaim would have to free, in the zone that needs least."""
    with_reclaim = _with_direct_reclaim(kernel, attempt)
    found, broken = [], []
    for state in (verdict.state for verdict in tried):
        refused = judge_zone(kernel, with_reclaim, state)
        if refused.kind == "block":
            broken.append(Remedy("direct_reclaim", state.node, state.zone, 0, needs_block=True))
        if refused.kind != "watermark" or refused.check is None:
            continue
        pages = refused.check.needed.high - refused.check.usable.low + 1
        freed = judge_zone(kernel, with_reclaim, replace(state, free=state.free + pages)).kind
        if freed in ("passes", "block"):
            found.append(Remedy("direct_reclaim", state.node, state.zone, pages, needs_block=freed == "block"))
    if found:
        yield min(found, key=lambda remedy: remedy.value or 0)
    elif attempt.order > 0:
        yield from broken[:1]


def _with_direct_reclaim(kernel: Watermarks, attempt: AllocationAttempt) -> AllocationAttempt:
    """Return the attempt of the same request with __GFP_DIRECT_RECLAIM.

    It may then use less of the reserves. Until 6.2 `gfp_to_alloc_flags` gives ALLOC_HARDER to __GFP_ATOMIC, which the
    slow path clears for requests that can wait. Since 6.3 only requests that cannot wait get ALLOC_NON_BLOCK and
    ALLOC_HIGHATOMIC. A real-time task keeps ALLOC_HARDER until 6.2, so it needs less than this says.
    """
    bits = kernel.bits
    lost = bits.alloc_harder | bits.alloc_non_block | bits.alloc_highatomic
    return replace(attempt, alloc_flags=attempt.alloc_flags & ~lost | bits.alloc_cpuset)


def _other_flags(kernel: Watermarks, attempt: AllocationAttempt, zones: Sequence[ZoneState]) -> Iterator[Remedy]:
    bits, flags = kernel.bits, attempt.alloc_flags
    high = flags | bits.alloc_high | bits.alloc_min_reserve
    atomic = high | bits.alloc_harder | bits.alloc_non_block | (bits.alloc_highatomic if attempt.order > 0 else 0)
    changes: tuple[tuple[Change, int], ...] = (
        ("gfp_movable", flags | bits.alloc_cma),
        ("gfp_high", high),
        ("gfp_atomic", atomic),
        ("gfp_memalloc", flags | bits.alloc_no_watermarks),
    )
    if flags & bits.alloc_no_watermarks or flags & WMARK_MASK != WMARK_MIN:
        # ALLOC_NO_WATERMARKS replaces the flags of the mask in `__alloc_pages_slowpath`, and the fast path, which
        # checks the low watermark, opens no reserves.
        changes = changes[:1]
    tried = {flags}
    for change, changed in changes:
        if changed in tried:
            continue
        tried.add(changed)
        yield from _first(kernel, replace(attempt, alloc_flags=changed), zones, change)


def _lower_min(kernel: Watermarks, attempt: AllocationAttempt, tried: Sequence[ZoneVerdict]) -> Iterator[Remedy]:
    """Yield the highest min watermark, without its boost, that is low enough, for the zone nearest to it."""
    found: list[tuple[float, Remedy]] = []
    for verdict in tried:
        state = verdict.state
        plain = state.watermarks[0] - (state.boost or 0)
        if verdict.kind != "watermark" or not _passes(kernel, attempt, _with_min(state, 0)):
            continue
        low, high = 0, plain
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (middle, high) if _passes(kernel, attempt, _with_min(state, middle)) else (low, middle)
        found.append((low / max(plain, 1), Remedy("min_free_kbytes", state.node, state.zone, low)))
    if found:
        yield max(found, key=lambda share: share[0])[1]


def _with_min(state: ZoneState, pages: int) -> ZoneState:
    """Return the zone with another min watermark, without its boost; low and high keep their distance from it."""
    change = pages + (state.boost or 0) - state.watermarks[0]
    low, middle, high = state.watermarks
    return replace(state, watermarks=(low + change, middle + change, high + change))


def _changed_state(
    kernel: Watermarks,
    attempt: AllocationAttempt,
    tried: Sequence[ZoneVerdict],
    change: Change,
    changed: Callable[[ZoneState], ZoneState],
) -> Iterator[Remedy]:
    states = [changed(verdict.state) for verdict in tried if verdict.kind == "watermark"]
    yield from _first(kernel, attempt, states, change)


def _without_lowmem_reserve(state: ZoneState) -> ZoneState:
    return state if state.lowmem_reserve is None else replace(state, lowmem_reserve=(0,) * len(state.lowmem_reserve))


def _fewer_limits(kernel: Watermarks, attempt: AllocationAttempt, zones: Sequence[ZoneState]) -> Iterator[Remedy]:
    """Lift one limit at a time, and try the zones that it excluded."""
    highest = max((state.index for state in zones if state.index is not None), default=None)
    limits: tuple[tuple[Change, AllocationAttempt], ...] = (
        ("zone_modifier", replace(attempt, highest_zoneidx=highest)),
        ("nodemask", replace(attempt, nodemask=None)),
        ("cpuset", replace(attempt, mems_allowed=None)),
        ("THISNODE", replace(attempt, thisnode=False)),
    )
    # The zonelist of __GFP_THISNODE may lack the other node.
    unsure = {"nodemask", "cpuset"} if attempt.thisnode and attempt.preferred_nid is None else set[str]()
    for change, lifted in limits:
        if change in unsure:
            continue
        kept_out = [
            state
            for state in zones
            if excluded_by(kernel, attempt, state) is not None and excluded_by(kernel, lifted, state) is None
        ]
        yield from _first(kernel, lifted, kept_out, change)
