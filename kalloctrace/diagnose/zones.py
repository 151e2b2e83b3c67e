# SPDX-License-Identifier: MIT
"""Why no zone served a request, and what would have let one: each zone on its list is judged by the kernel's own check.

What would have helped is never guessed: the same functions judge the same zones again, with that one thing changed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kalloctrace.model.slowpath.flags import Condition
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
"""The zone was not asked; it had too few pages; enough pages but no block; its state would do; not enough is known."""

ExcludedBy = Literal["highest_zoneidx", "nodemask", "cpuset", "THISNODE"]

Conclusion = Literal["no_zone", "watermark", "block", "mixed", "passes", "unknown"]
"""What holds for all zones that were asked; `mixed` is watermark in some and block in others."""

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
    """What one look through the zonelist asks for.

    Attributes:
        order: 2**order pages.
        alloc_flags: ALLOC_* bits, the watermark in the two low ones.
        highest_zoneidx: `enum zone_type`; None where it is not known.
        gfp_mask: `gfp_t`; 0 where its bits are not known.
        direct_reclaim: it may reclaim by itself; None where that is not known.
        nodemask: the one in force, bit n is node n; None for NULL.
        mems_allowed: nodes of the task's cpuset; None where they are not known or cpusets are off.
        hardwall: __GFP_HARDWALL is set: the cpuset's own nodes and no others.
        thisnode: __GFP_THISNODE is set.
        nomemalloc: __GFP_NOMEMALLOC is set, so that __GFP_MEMALLOC does nothing and GFP_ATOMIC opens less.
        preferred_nid: the node asked for; None where it is not known.
        conditions: what is not known of the task or the kernel and would change the flags.
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
    """What the request found in one zone.

    Attributes:
        state: the zone.
        kind: what came of it.
        excluded_by: why it was not asked.
        check: the numbers; None when it was not asked.
        certain: whether it was refused or not does not hang on a condition that is not known.
        unless: the conditions on which it hangs.
        passes_if: the conditions that would have let it pass; that it did not speaks against them.
    """

    state: ZoneState
    kind: Kind
    excluded_by: ExcludedBy | None = None
    check: WatermarkCheck | None = None
    certain: bool = True
    unless: tuple[str, ...] = ()
    passes_if: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change that would have let the request pass, found by judging again.

    Attributes:
        change: what is changed.
        node: of the zone that would have served.
        zone: its name.
        value: the order for `smaller_order`, pages to free for `direct_reclaim`, the highest min watermark in pages
            that would do for `min_free_kbytes`; None for changes without a number.
        needs_block: reclaim would have to make a block of the order as well, by compaction.
    """

    change: Change
    node: int
    zone: str
    value: int | None = None
    needs_block: bool = False


@dataclass(frozen=True, slots=True)
class Why:
    """The answer.

    Attributes:
        conclusion: what holds for the zones that were asked.
        certain: every zone refused it, and for certain.
        zones: a verdict for each, in the order given.
        remedies: what would have let it pass.
    """

    conclusion: Conclusion
    certain: bool
    zones: tuple[ZoneVerdict, ...]
    remedies: tuple[Remedy, ...]


def why(kernel: Watermarks, attempt: AllocationAttempt, zones: Sequence[ZoneState]) -> Why:
    """Judge each zone, and find what would have let the request pass.

    Args:
        kernel: the kernel's watermark check.
        attempt: what was asked for.
        zones: their states at that moment, in the order of the zonelist where that is known.

    Returns:
        The verdicts in the same order, and the remedies.
    """
    verdicts = tuple(judge(kernel, attempt, state) for state in zones)
    # A zone that would serve if it may be asked at all is as good as not known.
    asked: list[Kind] = [
        "unknown" if verdict.kind == "passes" and not verdict.certain else verdict.kind
        for verdict in verdicts
        if verdict.kind != "excluded"
    ]
    conclusion = _conclusion(asked)
    # That the printed state would do does not say why the state before it did not.
    refused = conclusion not in ("passes", "unknown")
    certain = refused and all(verdict.certain for verdict in verdicts)
    remedies = () if conclusion == "passes" else tuple(_remedies(kernel, attempt, zones, verdicts))
    return Why(conclusion, certain, verdicts, remedies)


def _conclusion(asked: Sequence[Kind]) -> Conclusion:
    kinds = set(asked)
    if not kinds:
        return "no_zone"
    if "passes" in kinds:
        return "passes"
    if "unknown" in kinds:
        return "unknown"
    return "mixed" if len(kinds) > 1 else "watermark" if "watermark" in kinds else "block"


def judge(kernel: Watermarks, attempt: AllocationAttempt, state: ZoneState) -> ZoneVerdict:
    """Say what the request found in one zone."""
    excluded = excluded_by(kernel, attempt, state)
    if excluded is not None:
        return ZoneVerdict(state, "excluded", excluded)
    check = _check(kernel, attempt, state, attempt.alloc_flags)
    kind = _kind(check)
    others = [(other.when, _kind(_check(kernel, attempt, state, other.alloc_flags))) for other in attempt.conditions]
    refused = kind in ("watermark", "block")
    passes_if = tuple(when for when, other in others if other == "passes" != kind)
    unless = [when for when, other in others if other == "unknown" != kind or (other != kind and not refused)]
    unless = [when for when in unless if when not in passes_if]
    # A zone that refused is one more that did not serve, whether it was asked or not.
    if not refused and _doubtful_node(kernel, attempt, state):
        unless.append("the cpuset's ancestors did not allow this node either")
    if not refused and attempt.thisnode and attempt.preferred_nid is None:
        unless.append("__GFP_THISNODE asked for another node")
    if not refused and (attempt.highest_zoneidx is None or state.index is None):
        unless.append("the request could not use this zone at all")
    return ZoneVerdict(state, kind, None, check, kind != "unknown" and not unless, tuple(unless), passes_if)


def excluded_by(kernel: Watermarks, attempt: AllocationAttempt, state: ZoneState) -> ExcludedBy | None:
    """Return what keeps the request from asking a zone, None when it asks.

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
    return judge(kernel, attempt, state).kind == "passes"


def _remedies(
    kernel: Watermarks, attempt: AllocationAttempt, zones: Sequence[ZoneState], verdicts: Sequence[ZoneVerdict]
) -> Iterator[Remedy]:
    asked = [verdict for verdict in verdicts if verdict.kind != "excluded"]
    yield from _smaller_order(kernel, attempt, zones)
    if attempt.direct_reclaim is False:
        yield from _direct_reclaim(kernel, attempt, asked)
    yield from _other_flags(kernel, attempt, zones)
    yield from _lower_min(kernel, attempt, asked)
    yield from _changed_state(kernel, attempt, asked, "watermark_boost", without_boost)
    yield from _changed_state(kernel, attempt, asked, "lowmem_reserve", _without_lowmem_reserve)
    yield from _fewer_limits(kernel, attempt, zones)


def _first(
    kernel: Watermarks, attempt: AllocationAttempt, zones: Sequence[ZoneState], change: Change
) -> Iterator[Remedy]:
    served = next((state for state in zones if _passes(kernel, attempt, state)), None)
    if served is not None:
        yield Remedy(change, served.node, served.zone)


def _smaller_order(kernel: Watermarks, attempt: AllocationAttempt, zones: Sequence[ZoneState]) -> Iterator[Remedy]:
    for order in range(attempt.order - 1, -1, -1):
        smaller = replace(attempt, order=order)
        for remedy in _first(kernel, smaller, zones, "smaller_order"):
            yield replace(remedy, value=order)
            return


def _direct_reclaim(kernel: Watermarks, attempt: AllocationAttempt, asked: Sequence[ZoneVerdict]) -> Iterator[Remedy]:
    """Say how much reclaim would have to free, in the zone where that is least."""
    waiting = _waiting(kernel, attempt)
    found, broken = [], []
    for state in (verdict.state for verdict in asked):
        refused = judge(kernel, waiting, state)
        if refused.kind == "block":
            broken.append(Remedy("direct_reclaim", state.node, state.zone, 0, needs_block=True))
        if refused.kind != "watermark" or refused.check is None:
            continue
        pages = refused.check.needed.high - refused.check.usable.low + 1
        freed = judge(kernel, waiting, replace(state, free=state.free + pages)).kind
        if freed in ("passes", "block"):
            found.append(Remedy("direct_reclaim", state.node, state.zone, pages, needs_block=freed == "block"))
    if found:
        yield min(found, key=lambda remedy: remedy.value or 0)
    elif attempt.order > 0:
        yield from broken[:1]


def _waiting(kernel: Watermarks, attempt: AllocationAttempt) -> AllocationAttempt:
    """Return the attempt of the same request with __GFP_DIRECT_RECLAIM.

    It has less of the reserves then. Until 6.2 `gfp_to_alloc_flags` gives ALLOC_HARDER to __GFP_ATOMIC, which the slow
    path takes from those that can wait; since 6.3 ALLOC_NON_BLOCK and ALLOC_HIGHATOMIC go to those alone that cannot. A
    real-time task keeps ALLOC_HARDER until 6.2, so that less would do for it.
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
        # ALLOC_NO_WATERMARKS stands in place of what the mask gives: `__alloc_pages_slowpath` takes one or the other.
        # And the fast path, which asks for the low watermark, opens none of the reserves.
        changes = changes[:1]
    tried = {flags}
    for change, changed in changes:
        if changed in tried:
            continue
        tried.add(changed)
        yield from _first(kernel, replace(attempt, alloc_flags=changed), zones, change)


def _lower_min(kernel: Watermarks, attempt: AllocationAttempt, asked: Sequence[ZoneVerdict]) -> Iterator[Remedy]:
    """Find the highest min watermark, without its boost, that would do: in the zone where least has to change."""
    found: list[tuple[float, Remedy]] = []
    for verdict in asked:
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
    """Return the zone with another min watermark below its boost; low and high keep their distance from it."""
    change = pages + (state.boost or 0) - state.watermarks[0]
    low, middle, high = state.watermarks
    return replace(state, watermarks=(low + change, middle + change, high + change))


def _changed_state(
    kernel: Watermarks,
    attempt: AllocationAttempt,
    asked: Sequence[ZoneVerdict],
    change: Change,
    changed: Callable[[ZoneState], ZoneState],
) -> Iterator[Remedy]:
    states = [changed(verdict.state) for verdict in asked if verdict.kind == "watermark"]
    yield from _first(kernel, attempt, states, change)


def _without_lowmem_reserve(state: ZoneState) -> ZoneState:
    return state if state.lowmem_reserve is None else replace(state, lowmem_reserve=(0,) * len(state.lowmem_reserve))


def _fewer_limits(kernel: Watermarks, attempt: AllocationAttempt, zones: Sequence[ZoneState]) -> Iterator[Remedy]:
    """Lift one limit at a time, and ask the zones that it kept out."""
    highest = max((state.index for state in zones if state.index is not None), default=None)
    limits: tuple[tuple[Change, AllocationAttempt], ...] = (
        ("zone_modifier", replace(attempt, highest_zoneidx=highest)),
        ("nodemask", replace(attempt, nodemask=None)),
        ("cpuset", replace(attempt, mems_allowed=None)),
        ("THISNODE", replace(attempt, thisnode=False)),
    )
    # Another node may not be on the list of __GFP_THISNODE at all.
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
