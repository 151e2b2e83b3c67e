# SPDX-License-Identifier: MIT
"""Values of vm.min_free_kbytes and vm.watermark_scale_factor that would make kswapd start earlier."""

from collections.abc import Iterator

from kalloctrace.diagnose.answers.facts import LOWMEM, amount, below_mark, kept_for_lower
from kalloctrace.diagnose.answers.types import Advice
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.flags.releases import upstream_release
from kalloctrace.model.watermark import ZoneState

_LARGEST_SHARE = 20
"""vm.min_free_kbytes of more than a twentieth of the memory does more harm than good."""

_SCALE, _LARGEST_SCALE = 10_000, 1_000
"""watermark_scale_factor counts in ten-thousandths; 1,000 is the most that every kernel since 4.6 accepts."""


def larger_min_free(failure: Failure) -> Iterator[Advice]:
    """Yield a larger vm.min_free_kbytes: twice as much, and enough for the pages that were missing.

    The zones' min watermarks add up to vm.min_free_kbytes (`__setup_per_zone_wmarks`, mm/page_alloc.c).
    """
    zones = [zone for zone in failure.logged.zones if zone.zone in LOWMEM and "min" in zone.kilobytes]
    now = sum(zone.kilobytes["min"] - zone.kilobytes.get("boost", 0) for zone in zones)
    managed = sum(zone.kilobytes.get("managed", 0) for zone in zones)
    missing = _missing(failure)
    if now <= 0 or missing is None:
        return
    value = -(-max(2 * now, now + missing) // 1024) * 1024
    if managed and value * _LARGEST_SHARE > managed:
        return
    text = f"keep more memory free, so that kswapd starts earlier (now about {now:,}); if that is not enough, more"
    yield Advice(text, "vm.min_free_kbytes", value, "likely", failure.logged.state_line)


def earlier_kswapd(failure: Failure) -> Iterator[Advice]:
    """Yield a watermark_scale_factor that doubles the distance from the min to the low watermark of the zone.

    The distance is the larger of min / 4 and managed * watermark_scale_factor / 10,000 (`__setup_per_zone_wmarks`).
    """
    release = upstream_release(failure.kernel)
    if release is None or release < (4, 6, 0):
        return
    zones = [each.state for each in below_mark(failure) if each.state.managed]
    if not zones:
        return
    state = max(zones, key=lambda each: each.managed or 0)
    distance, managed = state.watermarks[1] - state.watermarks[0], state.managed or 0
    value = -(-2 * distance * _SCALE // managed)
    if distance <= 0 or value > _LARGEST_SCALE:
        return
    text = f"wake kswapd earlier: {amount(_kb(failure, 2 * distance))} above min in node {state.node} {state.zone}"
    text += f", not {amount(_kb(failure, distance))}"
    yield Advice(text, "vm.watermark_scale_factor", value, "likely", failure.logged.state_line)


def smaller_reserve(failure: Failure) -> Iterator[Advice]:
    """Yield how much larger the zone's vm.lowmem_reserve_ratio must be, where lowmem_reserve alone refused.

    A zone keeps, for requests that can use higher zones, the pages of those zones divided by its ratio
    (`setup_per_zone_lowmem_reserve`, mm/page_alloc.c). DMA is small, and its reserve there for a reason.
    """
    kept = [each for each in kept_for_lower(failure) if each.state.zone != "DMA"]
    for each in sorted(kept, key=lambda one: one.check.usable.low if one.check is not None else 0, reverse=True)[:1]:
        check = each.check
        spare = check.usable.low - check.lowered - 1 if check is not None else 0
        if check is None or spare <= 0 or check.lowmem_reserve.low != check.lowmem_reserve.high:
            continue
        times = -(-check.lowmem_reserve.low // spare)
        place = f"node {each.state.node} {each.state.zone}"
        free = amount(_kb(failure, check.usable.low))
        text = f"let such requests use more of {place}, where {free} are free: a ratio {times:,} times as large for it"
        yield Advice(text, "vm.lowmem_reserve_ratio", None, "likely", failure.logged.state_line)


def _missing(failure: Failure) -> int | None:
    """Return how many kB the zone that was nearest to its watermark lacked; None if no zone was below it."""
    lacking = [
        _kb(failure, each.check.lowered - each.check.usable.low + 1)
        for each in below_mark(failure)
        if each.check is not None and _is_lowmem(each.state)
    ]
    return min(lacking, default=None)


def _is_lowmem(state: ZoneState) -> bool:
    return state.zone in LOWMEM


def _kb(failure: Failure, pages: int) -> int:
    return pages * failure.page_kb
