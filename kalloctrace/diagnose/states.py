# SPDX-License-Identifier: MIT
"""The zones of a log as the watermark check reads them, in each case that the log leaves open."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

from kalloctrace.diagnose.page_size import PAGE_SIZES_KB, PageSize
from kalloctrace.diagnose.reports.model import ZONE_NAMES, Blocks, LoggedFailure, LoggedZone, zone_layouts
from kalloctrace.diagnose.zones import Doubt
from kalloctrace.model.watermark import FreeBlocks, ZoneState

Layout = tuple[str, ...]
"""A kernel's zones, in the order of its `enum zone_type`."""


class Case(NamedTuple):
    """One thing that the log leaves open, decided.

    Attributes:
        layout: the kernel's zones.
        page_kb: its page size in kB.
        doubt: what is different from the first case.
    """

    layout: Layout
    page_kb: int
    doubt: Doubt

    def highest(self, zone: str | None) -> int | None:
        """Return the `enum zone_type` of a request's highest zone; a zone that the kernel lacks means Normal."""
        if zone is None:
            return None
        return self.layout.index(zone if zone in self.layout else "Normal")


def cases(logged: LoggedFailure, highest_zone: str | None, size: PageSize) -> Iterator[Case]:
    """Yield each case that the log leaves open, the likeliest first.

    Args:
        logged: the report.
        highest_zone: the highest zone of the request; None if unknown.
        size: its page size.
    """
    seen: list[tuple[object, ...]] = []
    for layout in _layouts(logged.zones, highest_zone):
        case = Case(layout, size.kilobytes, "zone_layout")
        differs = _difference(logged.zones, case.highest(highest_zone), layout)
        if differs not in seen:
            seen.append(differs)
            yield case
    if size.certainty != "certain" and not logged.in_pages:
        first = next(_layouts(logged.zones, highest_zone))
        yield from (Case(first, other, "page_size") for other in PAGE_SIZES_KB if other != size.kilobytes)


def _layouts(zones: list[LoggedZone], highest_zone: str | None) -> Iterator[Layout]:
    """Yield the possible layouts: those of the length of lowmem_reserve, else those with the zones that are needed."""
    known = list(zone_layouts(zones))
    yield from known
    if known:
        return
    needed = {"Normal", "Movable", *(zone.zone for zone in zones)}
    for extra in ((highest_zone,), ()):
        yield tuple(name for name in ZONE_NAMES if name in needed or name in extra)


def _difference(zones: list[LoggedZone], highest: int | None, layout: Layout) -> tuple[object, ...]:
    """Return what a layout decides: which zones are allowed, and how much each keeps for higher zones."""
    if highest is None:
        return ()
    return tuple(
        None if layout.index(zone.zone) > highest else (zone.lowmem_reserve or ())[highest : highest + 1]
        for zone in zones
    )


def shown_states(logged: LoggedFailure, case: Case, absent: frozenset[str]) -> list[ZoneState]:
    """Return the state of each zone that is shown, in pages.

    Args:
        logged: the report.
        case: the case.
        absent: zone counters that the kernel does not have.
    """
    zones = populated(logged.zones)
    lengths = {len(zone.lowmem_reserve) for zone in zones if zone.lowmem_reserve is not None}
    shared = _Shared(
        case,
        absent,
        _free_cma(logged, zones, case.page_kb),
        (logged.swap[0] if logged.swap is not None else 0) // case.page_kb,
        _contradicted(zones, case.layout) if lengths == {len(case.layout)} else frozenset(map(_key, zones)),
    )
    shown = (zone for zone in zones if is_shown(zone) or zone.blocks)
    return [_state(zone, shared) if is_shown(zone) else _blocks_alone(zone, shared) for zone in shown]


def _key(zone: LoggedZone) -> tuple[int, str]:
    return zone.node, zone.zone


class _Shared(NamedTuple):
    """What the zones of a report have in common.

    Attributes:
        case: the case.
        absent: zone counters that the kernel does not have.
        free_cma: free CMA pages that a zone's line does not show, by node and zone.
        free_swap: in pages.
        without_reserve: node and name of each zone whose lowmem_reserve cannot be used.
    """

    case: Case
    absent: frozenset[str]
    free_cma: dict[tuple[int, str], int]
    free_swap: int
    without_reserve: frozenset[tuple[int, str]]

    def reserve(self, zone: LoggedZone) -> tuple[int, ...] | None:
        """Return a zone's lowmem_reserve; None if it is unknown."""
        return None if _key(zone) in self.without_reserve else zone.lowmem_reserve


def _contradicted(zones: list[LoggedZone], layout: Layout) -> frozenset[tuple[int, str]]:
    """Return the zones whose lowmem_reserve is another zone's, because lines are missing.

    A zone keeps nothing for itself and the zones below it: where it does with every set of zones that the kernel may
    have, the line is not its own; where it does with one of them only, that set is wrong.

    Where a lower zone of the node keeps more for one zone than for the zone below it, that zone has pages, so that each
    zone below it keeps some for it: `setup_per_zone_lowmem_reserve`, mm/page_alloc.c. Division may lose one page.
    """
    layouts = zone_layouts(zones) or (layout,)
    wrong = {_key(zone) for zone in zones if _keeps_for_itself(zone, layouts)}
    for lower, zone in permutations(zones, 2):
        theirs, mine, index = lower.lowmem_reserve, zone.lowmem_reserve, layout.index(zone.zone)
        if lower.node != zone.node or layout.index(lower.zone) >= index or theirs is None or mine is None:
            continue
        if any(theirs[above] - theirs[above - 1] > 1 and not mine[above] for above in range(index + 1, len(layout))):
            wrong.add(_key(zone))
    return frozenset(wrong)


def _keeps_for_itself(zone: LoggedZone, layouts: Iterable[Layout]) -> bool:
    reserve = zone.lowmem_reserve
    return reserve is not None and all(any(reserve[: layout.index(zone.zone) + 1]) for layout in layouts)


_SHOWN = frozenset(("free", "min", "low", "high"))


def is_shown(zone: LoggedZone) -> bool:
    """Return whether the log has the zone's free pages and watermarks."""
    return zone.kilobytes.keys() >= _SHOWN


def populated(zones: Iterable[LoggedZone]) -> list[LoggedZone]:
    """Drop zones without pages: they are on no zonelist, but old kernels print them."""
    return [zone for zone in zones if zone.kilobytes.get("present") != 0]


def unshown_zones(logged: LoggedFailure, case: Case, highest: int | None) -> tuple[tuple[int, str], ...]:
    """Return the zones that have pages and that the request may use, but whose line the log lacks: node and name.

    A zone is known from its free blocks, or from the lowmem_reserve of a lower zone of its node, which is larger for
    it than for the zone below it: `setup_per_zone_lowmem_reserve` in mm/page_alloc.c adds up the zones' pages.

    Args:
        logged: the report.
        case: the likeliest case.
        highest: `enum zone_type` of the highest zone of the request; None if unknown.
    """
    zones = populated(logged.zones)
    shown = {(zone.node, zone.zone) for zone in zones if is_shown(zone)}
    known = [(zone.node, case.layout.index(zone.zone)) for zone in zones]
    known += [
        (zone.node, index)
        for zone in zones
        if zone.lowmem_reserve is not None and len(zone.lowmem_reserve) == len(case.layout)
        for index in range(case.layout.index(zone.zone) + 1, len(case.layout))
        if zone.lowmem_reserve[index] > zone.lowmem_reserve[index - 1]
    ]
    allowed = dict.fromkeys((node, case.layout[index]) for node, index in known if highest is None or index <= highest)
    return tuple(zone for zone in allowed if zone not in shown)


def _free_cma(logged: LoggedFailure, zones: list[LoggedZone], page_kb: int) -> dict[tuple[int, str], int]:
    """Return the free CMA pages that follow from the total, for zones whose line does not have them."""
    total = logged.totals.get("free_cma")
    lacking = [zone for zone in zones if "free_cma" not in zone.kilobytes]
    if total is None or not lacking:
        return {}
    left = total - sum(zone.kilobytes.get("free_cma", 0) for zone in zones) // page_kb
    if left <= 0:
        return {(zone.node, zone.zone): 0 for zone in lacking}
    # The rest is in the only zone that lacks it, if no zone is missing.
    free = sum(zone.kilobytes.get("free", 0) for zone in zones)
    if len(lacking) > 1 or free != logged.totals.get("free", -1) * page_kb:
        return {}
    return {(lacking[0].node, lacking[0].zone): left}


def _blocks_alone(zone: LoggedZone, shared: _Shared) -> ZoneState:
    """Return the state of a zone of which the log has only the free blocks, such as /proc/buddyinfo."""
    blocks = _blocks(zone) or ()
    free = sum(one.count << order for order, one in enumerate(blocks))
    index = shared.case.layout.index(zone.zone)
    reserve = shared.reserve(zone)
    return ZoneState(zone.node, zone.zone, index, free, (0, 0, 0), lowmem_reserve=reserve, blocks=blocks, counted=False)


def _blocks(zone: LoggedZone) -> tuple[FreeBlocks, ...] | None:
    return tuple(map(_free_blocks, zone.blocks)) if zone.blocks else None


@lru_cache(maxsize=4096)
def _free_blocks(blocks: Blocks) -> FreeBlocks:
    return FreeBlocks(blocks.number, blocks.types)


_READ = (
    *("free", "min", "low", "high", "boost", "reserved_highatomic", "free_highatomic", "free_cma", "managed"),
    *("active_anon", "inactive_anon", "active_file", "inactive_file"),
)
"""The amounts of a zone that the check, or what could be reclaimed, depends on."""


def _state(zone: LoggedZone, shared: _Shared) -> ZoneState:
    page_kb, shown = shared.case.page_kb, zone.kilobytes
    pages = {name: shown[name] // page_kb for name in _READ if name in shown}
    if shared.absent:
        pages.update(dict.fromkeys(shared.absent, 0))
    active, inactive, cma = pages.get("active_file"), pages.get("inactive_file"), pages.get("free_cma")
    anonymous = pages.get("active_anon", 0) + pages.get("inactive_anon", 0)
    return ZoneState(
        node=zone.node,
        zone=zone.zone,
        index=shared.case.layout.index(zone.zone),
        free=pages["free"],
        watermarks=(pages["min"], pages["low"], pages["high"]),
        boost=pages.get("boost"),
        reserved_highatomic=pages.get("reserved_highatomic"),
        free_highatomic=pages.get("free_highatomic"),
        free_cma=shared.free_cma.get((zone.node, zone.zone)) if cma is None else cma,
        lowmem_reserve=shared.reserve(zone),
        managed=pages.get("managed"),
        blocks=_blocks(zone),
        reclaimable=None if active is None or inactive is None else active + inactive,
        swappable=min(anonymous, shared.free_swap),
    )
