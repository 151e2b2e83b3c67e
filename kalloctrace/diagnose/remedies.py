# SPDX-License-Identifier: MIT
"""What would have let a request succeed: the same functions judge the same zones again with one thing changed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from kalloctrace.diagnose.zones import AllocationAttempt, Change, Remedy, ZoneVerdict, excluded_by, judge_zone
from kalloctrace.model.watermark import WMARK_MASK, WMARK_MIN, Watermarks, ZoneState, without_boost


def _passes(kernel: Watermarks, attempt: AllocationAttempt, state: ZoneState) -> bool:
    return judge_zone(kernel, attempt, state).kind == "passes"


def remedies_for(
    kernel: Watermarks, attempt: AllocationAttempt, zones: Sequence[ZoneState], verdicts: Sequence[ZoneVerdict]
) -> Iterator[Remedy]:
    """Yield each change that would have let the request succeed.

    If memory is used up, the reserves would only have been used up as well, so no change that opens them is named.
    """
    tried = [verdict for verdict in verdicts if verdict.kind != "excluded"]
    yield from _smaller_order(kernel, attempt, zones)
    if not (attempt.oom and all(map(_used_up, tried))):
        if attempt.direct_reclaim is False:
            yield from _direct_reclaim(kernel, attempt, tried)
        yield from _other_flags(kernel, attempt, zones)
        yield from _lower_min(kernel, attempt, tried)
        yield from _changed_state(kernel, attempt, tried, "watermark_boost", without_boost)
        yield from _changed_state(kernel, attempt, tried, "lowmem_reserve", _without_lowmem_reserve)
    yield from _fewer_limits(kernel, attempt, zones)


def _used_up(verdict: ZoneVerdict) -> bool:
    """Return whether a zone would not reach its high watermark, the target of kswapd, with all that reclaim could free.

    The boost does not count: it is temporary, and may be what is in the way. What the log does not show counts as
    nothing.
    """
    state, check = verdict.state, verdict.check
    kept = check.lowmem_reserve.low if check is not None else 0
    target = state.watermarks[2] - (state.boost or 0) + kept
    return state.free + (state.reclaimable or 0) + state.swappable <= target


def _first(
    kernel: Watermarks, attempt: AllocationAttempt, zones: Sequence[ZoneState], change: Change
) -> Iterator[Remedy]:
    served = next((state for state in zones if _passes(kernel, attempt, state)), None)
    if served is not None:
        yield Remedy(change, served.node, served.zone)


_LOW = ("DMA", "DMA32", "Normal")
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
        if state.reclaimable is not None and state.reclaimable + state.swappable < pages:
            continue
        freed = judge_zone(kernel, with_reclaim, replace(state, free=state.free + pages)).kind
        if freed in ("passes", "block"):
            broken_up = freed == "block" and attempt.order > 0
            found.append(Remedy("direct_reclaim", state.node, state.zone, pages, needs_block=broken_up))
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
    """Lift one limit at a time, and try the zones that it excluded.

    A mask without a zone modifier may use zones up to Normal. What the kernel asks for itself cannot be in HighMem or
    Movable, so these are no alternative.
    """
    lowest = attempt.highest_zoneidx
    highest = max((one.index for one in zones if one.index is not None and one.zone in _LOW), default=lowest)
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
