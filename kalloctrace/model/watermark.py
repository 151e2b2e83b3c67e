# SPDX-License-Identifier: MIT
"""Whether a zone has enough free pages for a request: `__zone_watermark_ok` and its parts.

Numbers are pages. An unknown number is a range. The answer is `unknown` if the range does not decide.
Source: mm/page_alloc.c of linux-source-5.10 5.10.262-1:3569, 6.1.192-2:4001, 6.12.118-1:3180, 7.2.12-1~bpo13+1:3561,
7.3.4-1~bpo13+1:3581.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from kalloctrace.flags.bits import FlagBits
from kalloctrace.kernel.watermark_rules import WatermarkRules

WMARK_MASK = 0x3
WMARK_MIN, WMARK_LOW, WMARK_HIGH = range(3)
WMARK_NAMES = ("min", "low", "high")

PCP_TYPES = frozenset(("MIGRATE_UNMOVABLE", "MIGRATE_MOVABLE", "MIGRATE_RECLAIMABLE"))
"""The types below MIGRATE_PCPTYPES; every request may take each of them."""

HIGHATOMIC, CMA = "MIGRATE_HIGHATOMIC", "MIGRATE_CMA"

Outcome = Literal["ok", "watermark", "block", "unknown"]
"""The check passes; too few pages; no block of the order and type; not enough is known."""


class Range(NamedTuple):
    """A number of pages between `low` and `high`, both included."""

    low: int
    high: int


NONE = Range(0, 0)


@dataclass(frozen=True, slots=True)
class Watermarks:
    """One kernel's watermark check.

    Attributes:
        rules: which of the known checks it uses.
        bits: the values of the flags, which show whether ALLOC_HARDER or ALLOC_NON_BLOCK is in force.
    """

    rules: WatermarkRules
    bits: FlagBits


@dataclass(frozen=True, slots=True)
class FreeBlocks:
    """The free blocks of one order.

    Attributes:
        count: how many, of all types together.
        types: the MIGRATE_* names that have one; None where that is not known.
    """

    count: int
    types: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class ZoneState:
    """One zone at the moment of the request.

    Attributes:
        node: its node id.
        zone: its name as in /proc/zoneinfo, "Normal".
        index: `enum zone_type`; None where the kernel's zones are not known.
        free: NR_FREE_PAGES.
        watermarks: `wmark_pages()` of min, low and high, the boost included.
        boost: `watermark_boost`; None where it is not known.
        reserved_highatomic: `nr_reserved_highatomic`; None where it is not known.
        free_highatomic: `nr_free_highatomic`; None where it is not known or the kernel does not count it.
        free_cma: NR_FREE_CMA_PAGES; None where it is not known.
        lowmem_reserve: by `enum zone_type`; None where it is not known.
        managed: `managed_pages`; None where it is not known.
        blocks: by order, ascending; None where they are not known.
        reclaimable: file pages on the zone's lists, which reclaim could free; None where they are not known.
        swappable: other pages that reclaim could free, as far as they are known: anonymous ones that the free swap can
            hold.
        counted: the free pages and the watermarks are known; otherwise `free` is the sum of the blocks, and the
            watermarks are 0.
    """

    node: int
    zone: str
    index: int | None
    free: int
    watermarks: tuple[int, int, int]
    boost: int | None = None
    reserved_highatomic: int | None = None
    free_highatomic: int | None = None
    free_cma: int | None = None
    lowmem_reserve: tuple[int, ...] | None = None
    managed: int | None = None
    blocks: tuple[FreeBlocks, ...] | None = None
    reclaimable: int | None = None
    swappable: int = 0
    counted: bool = True


class WatermarkCheck(NamedTuple):
    """The numbers and the result of one check.

    Attributes:
        outcome: the result.
        watermark: "min", "low" or "high".
        mark: that watermark.
        lowered: the watermark after the reserves that the request may use.
        lowmem_reserve: what the zone keeps for requests that can only use lower zones.
        order_pages: pages not counted because a block of the order needs them together: 2**order - 1.
        highatomic: pages kept for high-order atomic requests.
        cma: free pages in CMA areas, which the request may not use.
        usable: free pages minus these three; unknown numbers count as 0 to all of the free pages.
        largest: the largest order of a free block whose type the request may take or that is not known; None when
            there is none.
        types_there: types of free blocks of the order or larger, if the request may take none of these types.
    """

    outcome: Outcome
    watermark: str
    mark: int
    lowered: int
    lowmem_reserve: Range
    order_pages: int
    highatomic: Range
    cma: Range
    usable: Range
    largest: int | None = None
    types_there: frozenset[str] = frozenset()

    @property
    def needed(self) -> Range:
        """How many usable pages there must be more than."""
        return Range(self.lowered + self.lowmem_reserve.low, self.lowered + self.lowmem_reserve.high)


def has_reserves(kernel: Watermarks, alloc_flags: int) -> bool:
    """Return whether the request may use pages kept for high-order atomic requests.

    5.10 tests ALLOC_HARDER and ALLOC_OOM. ALLOC_RESERVES of 6.3 and later has ALLOC_NON_BLOCK, ALLOC_OOM,
    ALLOC_MIN_RESERVE and ALLOC_HIGHATOMIC.
    """
    bits = kernel.bits
    flags = bits.alloc_harder | bits.alloc_oom | bits.alloc_non_block | bits.alloc_min_reserve | bits.alloc_highatomic
    return bool(alloc_flags & flags)


def highatomic_pages(kernel: Watermarks, state: ZoneState, alloc_flags: int) -> Range:
    """Return the pages that this request may not use because they are for high-order atomic requests."""
    if has_reserves(kernel, alloc_flags):
        return NONE
    reserved = _known(state.reserved_highatomic, state.free)
    if kernel.rules.highatomic == "reserved":
        return reserved
    free = _free_highatomic(state, reserved.high)
    if kernel.rules.highatomic == "free":
        return free
    return Range(min(free.low, reserved.low), max(free.high, reserved.high))


def _free_highatomic(state: ZoneState, at_most: int) -> Range:
    if state.free_highatomic is not None:
        return Range(state.free_highatomic, state.free_highatomic)
    if state.blocks is not None and all(_lacks(blocks, HIGHATOMIC) for blocks in state.blocks):
        return NONE
    return Range(0, at_most)


def _lacks(blocks: FreeBlocks, migratetype: str) -> bool:
    return blocks.count == 0 or (blocks.types is not None and migratetype not in blocks.types)


def _known(value: int | None, at_most: int) -> Range:
    return Range(0, at_most) if value is None else Range(value, value)


def lowered_mark(kernel: Watermarks, mark: int, alloc_flags: int) -> int:
    """Return a watermark after the reserves that the flags open.

    Until 6.2: half for ALLOC_HIGH, then half for ALLOC_OOM or a quarter for ALLOC_HARDER. Since 6.3: half for
    ALLOC_MIN_RESERVE and then a quarter for ALLOC_NON_BLOCK with it; then half for ALLOC_OOM.
    """
    bits = kernel.bits
    if alloc_flags & bits.alloc_high:
        mark -= mark // 2
    if bits.alloc_harder:
        if alloc_flags & bits.alloc_oom:
            return mark - mark // 2
        return mark - mark // 4 if alloc_flags & bits.alloc_harder else mark
    if alloc_flags & bits.alloc_min_reserve:
        mark -= mark // 2
        if alloc_flags & bits.alloc_non_block:
            mark -= mark // 4
    return mark - mark // 2 if alloc_flags & bits.alloc_oom else mark


def zone_watermark_ok(
    kernel: Watermarks,
    state: ZoneState,
    order: int,
    highest_zoneidx: int | None,
    alloc_flags: int,
    *,
    watermark: int = WMARK_MIN,
) -> WatermarkCheck:
    """Check a zone as `__zone_watermark_ok` does, and for order 0 the page types as `rmqueue` does.

    Args:
        kernel: the kernel's own check.
        state: the zone.
        order: of the request.
        highest_zoneidx: `enum zone_type`; None where it is not known.
        alloc_flags: ALLOC_* bits; the two bits of the watermark are ignored.
        watermark: index into `state.watermarks`.

    Returns:
        The outcome and the numbers that led to it.
    """
    order_pages = (1 << order) - 1
    highatomic = highatomic_pages(kernel, state, alloc_flags)
    cma = NONE if alloc_flags & kernel.bits.alloc_cma else free_cma_pages(state)
    mark = state.watermarks[watermark]
    lowered, reserve = lowered_mark(kernel, mark, alloc_flags), lowmem_reserve_pages(state, highest_zoneidx)
    most = state.free - order_pages - highatomic.low - cma.low
    least = state.free - order_pages - min(highatomic.high + cma.high, max(state.free, highatomic.low + cma.low))
    if most <= lowered + reserve.low:
        found = Found("watermark", None, frozenset())
    else:
        found = suitable_block(kernel, state, order, alloc_flags)
        # Without a free block the request is refused, whatever the watermark.
        if found.outcome != "block" and least <= lowered + reserve.high:
            found = found._replace(outcome="unknown")
    return WatermarkCheck(
        outcome=found.outcome,
        watermark=WMARK_NAMES[watermark],
        mark=mark,
        lowered=lowered,
        lowmem_reserve=reserve,
        order_pages=order_pages,
        highatomic=highatomic,
        cma=cma,
        usable=Range(least, most),
        largest=found.largest,
        types_there=found.types_there,
    )


def zone_watermark_fast(
    kernel: Watermarks,
    state: ZoneState,
    order: int,
    highest_zoneidx: int | None,
    alloc_flags: int,
    *,
    gfp_mask: int = 0,
) -> WatermarkCheck:
    """Check a zone as `get_page_from_freelist` does, against the watermark in the flags.

    At the min watermark the boost does not apply to an order-0 request that may use the reserves.
    Source: mm/page_alloc.c of linux-source-5.10 5.10.262-1:3669, which tests __GFP_ATOMIC, as 6.1.192-2 does; of
    6.12.118-1, which tests ALLOC_MIN_RESERVE.

    Args:
        kernel: the kernel's own check.
        state: the zone.
        order: of the request.
        highest_zoneidx: `enum zone_type`; None where it is not known.
        alloc_flags: ALLOC_* bits; with ALLOC_NO_WATERMARKS only the blocks count.
        gfp_mask: `gfp_t`; only __GFP_ATOMIC is tested, on kernels that have it.

    Returns:
        As `zone_watermark_ok` does; "block" if the check passes, but `rmqueue` then gives no block.
    """
    watermark = alloc_flags & WMARK_MASK
    check = zone_watermark_ok(kernel, state, order, highest_zoneidx, alloc_flags, watermark=watermark)
    if alloc_flags & kernel.bits.alloc_no_watermarks:
        return check._replace(**suitable_block(kernel, state, order, alloc_flags)._asdict())
    bits = kernel.bits
    skips = bool(gfp_mask & bits.gfp_atomic if bits.gfp_atomic else alloc_flags & bits.alloc_min_reserve)
    if check.outcome != "ok" and order == 0 and watermark == WMARK_MIN and skips:
        if not state.boost:
            return check
        return zone_watermark_ok(kernel, without_boost(state), order, highest_zoneidx, alloc_flags)
    if check.outcome not in ("ok", "unknown") or _given_all_checked(kernel, alloc_flags):
        return check
    given = suitable_block(kernel, state, order, alloc_flags & ~bits.alloc_oom)
    return check._replace(**given._asdict()) if given.outcome == "block" else check


def _given_all_checked(kernel: Watermarks, alloc_flags: int) -> bool:
    """Return whether `rmqueue` gives every block that `__zone_watermark_ok` counts.

    On kernels with ALLOC_HARDER the check counts MIGRATE_HIGHATOMIC blocks for ALLOC_OOM as well, but `rmqueue` takes
    them for ALLOC_HARDER alone: an OOM victim then passes the check and gets nothing. Since eb2e2b425c69
    ("mm/page_alloc: explicitly record high-order atomic allocations in alloc_flags") (in v6.3) it gets them.
    Source: `rmqueue`, mm/page_alloc.c of Linux 5.10, and `rmqueue_buddy` of 5.19; both test ALLOC_HARDER.
    """
    return not (kernel.bits.alloc_harder and alloc_flags & kernel.bits.alloc_oom)


def without_boost(state: ZoneState) -> ZoneState:
    """Return the zone without its watermark boost."""
    boost = state.boost or 0
    low, middle, high = state.watermarks
    return replace(state, watermarks=(low - boost, middle - boost, high - boost), boost=0)


def free_cma_pages(state: ZoneState) -> Range:
    """Return the free pages in CMA areas."""
    if state.free_cma is None and state.blocks is not None and all(_lacks(blocks, CMA) for blocks in state.blocks):
        return NONE
    return _known(state.free_cma, state.free)


def lowmem_reserve_pages(state: ZoneState, highest_zoneidx: int | None) -> Range:
    """Return the pages that the zone keeps from requests that can use higher zones, up to that one.

    It keeps none from a request whose highest zone it is: `setup_per_zone_lowmem_reserve` sets the entries of higher
    zones only, mm/page_alloc.c of linux-source-5.10 5.10.262-1 to 7.3.4-1~bpo13+1, and all before.
    """
    reserve = state.lowmem_reserve
    if reserve is None and _is_own(state, highest_zoneidx):
        return NONE
    if reserve is None:
        return Range(0, state.managed if state.managed is not None else state.free)
    if highest_zoneidx is None or not 0 <= highest_zoneidx < len(reserve):
        return Range(min(reserve, default=0), max(reserve, default=0))
    return Range(reserve[highest_zoneidx], reserve[highest_zoneidx])


def _is_own(state: ZoneState, highest_zoneidx: int | None) -> bool:
    return highest_zoneidx is not None and state.index is not None and state.index >= highest_zoneidx


class Found(NamedTuple):
    """Whether a free block serves a request.

    Attributes:
        outcome: "ok", "block" (there is none), "unknown", or "watermark" (no block was looked for).
        largest: the largest order of a block whose type it may take or that is unknown; None if there is no such block.
        types_there: types of the blocks that are large enough, if none of them serves.
    """

    outcome: Outcome
    largest: int | None
    types_there: frozenset[str]


def suitable_block(kernel: Watermarks, state: ZoneState, order: int, alloc_flags: int) -> Found:
    """Look for a free block of the order or larger, of a type that the request may take."""
    if state.blocks is None:
        served = order == 0 and kernel.rules.known and state.free > _not_for_all(kernel, state, alloc_flags)
        return Found("ok" if served else "unknown", None, frozenset())
    sure, perhaps = types_for(kernel, order, alloc_flags)
    listed = [(block_order, blocks.types) for block_order, blocks in enumerate(state.blocks) if blocks.count]
    large = [types for block_order, types in listed if block_order >= order]
    served = any(types is not None and types & sure for types in large)
    doubtful = any(types is None or types & perhaps for types in large)
    largest = max((block_order for block_order, types in listed if types is None or types & sure), default=None)
    if not served:
        there = frozenset[str]().union(*(types for types in large if types is not None))
        return Found("unknown" if doubtful else "block", largest, there)
    # Before 4.4 the check also compared the pages in blocks of each order with a part of the watermark.
    certain = order == 0 or kernel.rules.block_of_any_type
    return Found("ok" if certain else "unknown", largest, frozenset())


def _not_for_all(kernel: Watermarks, state: ZoneState, alloc_flags: int) -> int:
    """Return how many free pages are, at most, of types that a request may not take; isolated ones are not counted."""
    cma = NONE if alloc_flags & kernel.bits.alloc_cma else free_cma_pages(state)
    reserved = state.free if state.reserved_highatomic is None else state.reserved_highatomic
    return cma.high + (reserved if state.free_highatomic is None else state.free_highatomic)


def types_for(kernel: Watermarks, order: int, alloc_flags: int) -> tuple[frozenset[str], frozenset[str]]:
    """Return the types that the request may certainly take, and those that it may perhaps take."""
    sure, perhaps = set(PCP_TYPES), set[str]()
    if alloc_flags & kernel.bits.alloc_cma:
        sure.add(CMA)
    highatomic = _takes_highatomic(kernel, order, alloc_flags)
    if highatomic is None:
        perhaps.add(HIGHATOMIC)
    elif highatomic:
        sure.add(HIGHATOMIC)
    if not kernel.rules.known:
        # 4.4 removed MIGRATE_RESERVE. Who takes from it, or from MIGRATE_HIGHATOMIC, is not modelled before 5.9.
        perhaps = {"MIGRATE_RESERVE", HIGHATOMIC}
    return frozenset(sure), frozenset(perhaps - sure)


def _takes_highatomic(kernel: Watermarks, order: int, alloc_flags: int) -> bool | None:
    rules, bits = kernel.rules, kernel.bits
    if bits.alloc_harder:
        return order > 0 and bool(alloc_flags & (bits.alloc_harder | bits.alloc_oom))
    if alloc_flags & bits.alloc_oom:
        return True
    if order > 0:
        return bool(alloc_flags & bits.alloc_highatomic)
    return rules.order0_highatomic if alloc_flags & bits.alloc_non_block else False
