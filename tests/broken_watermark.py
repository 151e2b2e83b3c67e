# SPDX-License-Identifier: MIT
"""Each rule of the watermark check broken on purpose; the written expectations must notice every one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.model import watermark
from kalloctrace.model.watermark import CMA, HIGHATOMIC, NONE, Range, WatermarkCheck, Watermarks, ZoneState

Mutation = tuple[str, Callable[..., Any]]

_LOWERED = watermark.lowered_mark
_HAS_RESERVES = watermark.has_reserves
_HIGHATOMIC_PAGES = watermark.highatomic_pages
_OK = watermark.zone_watermark_ok
_BLOCK = watermark.suitable_block
_TYPES = watermark.types_for
_RESERVE = watermark.lowmem_reserve_pages


def _without(*flags: str) -> Callable[[Watermarks, int, int], int]:
    """Forget what a flag does to a watermark."""

    def broken(kernel: Watermarks, mark: int, alloc_flags: int) -> int:
        lost = sum(getattr(kernel.bits, flag) for flag in flags)
        return _LOWERED(kernel, mark, alloc_flags & ~lost)

    return broken


def _tables(release: str) -> Callable[[Watermarks, int, int], int]:
    """Use another kernel's flags."""

    def broken(kernel: Watermarks, mark: int, alloc_flags: int) -> int:
        return _LOWERED(replace(kernel, bits=builtin_tables(release).bits), mark, alloc_flags)

    return broken


def _quarter_without_high(kernel: Watermarks, mark: int, alloc_flags: int) -> int:
    bits = kernel.bits
    if alloc_flags & bits.alloc_non_block and not alloc_flags & bits.alloc_min_reserve:
        return mark - mark // 4
    return _LOWERED(kernel, mark, alloc_flags)


def _oom_and_harder(kernel: Watermarks, mark: int, alloc_flags: int) -> int:
    bits = kernel.bits
    mark = _LOWERED(kernel, mark, alloc_flags)
    return mark - mark // 4 if alloc_flags & bits.alloc_oom and alloc_flags & bits.alloc_harder else mark


def _high_opens_highatomic_of_5_10(kernel: Watermarks, alloc_flags: int) -> bool:
    return _HAS_RESERVES(kernel, alloc_flags) or bool(alloc_flags & kernel.bits.alloc_high)


def _only_harder_opens_highatomic(kernel: Watermarks, alloc_flags: int) -> bool:
    return bool(alloc_flags & (kernel.bits.alloc_harder | kernel.bits.alloc_non_block | kernel.bits.alloc_oom))


def _oom_does_not_open_highatomic(kernel: Watermarks, alloc_flags: int) -> bool:
    return _HAS_RESERVES(kernel, alloc_flags & ~kernel.bits.alloc_oom)


def _reserved_for_free(kernel: Watermarks, state: ZoneState, alloc_flags: int) -> Range:
    rules = replace(kernel.rules, highatomic="reserved")
    return _HIGHATOMIC_PAGES(replace(kernel, rules=rules), state, alloc_flags)


def _free_for_reserved(kernel: Watermarks, state: ZoneState, alloc_flags: int) -> Range:
    rules = replace(kernel.rules, highatomic="free")
    return _HIGHATOMIC_PAGES(replace(kernel, rules=rules), state, alloc_flags)


def _no_highatomic(_kernel: Watermarks, _state: ZoneState, _alloc_flags: int) -> Range:
    return NONE


def _own_zone_reserve(state: ZoneState, _highest_zoneidx: int | None) -> Range:
    return _RESERVE(state, state.index)


def _no_reserve(_state: ZoneState, _highest_zoneidx: int | None) -> Range:
    return NONE


def _no_cma(_state: ZoneState) -> Range:
    return NONE


def _order_pages(change: Callable[[int], int]) -> Callable[..., WatermarkCheck]:
    def broken(
        kernel: Watermarks, state: ZoneState, order: int, highest: int | None, flags: int, **more: int
    ) -> WatermarkCheck:
        shifted = replace(state, free=state.free + change(order))
        return _OK(kernel, shifted, order, highest, flags, **more)

    return broken


def _low_for_min(
    kernel: Watermarks, state: ZoneState, order: int, highest: int | None, flags: int, **_more: int
) -> WatermarkCheck:
    return _OK(kernel, state, order, highest, flags, watermark=watermark.WMARK_LOW)


def _exact_order_only(kernel: Watermarks, state: ZoneState, order: int, flags: int) -> watermark.Found:
    blocks = state.blocks and tuple(
        one if block_order == order else replace(one, count=0) for block_order, one in enumerate(state.blocks)
    )
    return _BLOCK(kernel, replace(state, blocks=blocks), order, flags)


def _smaller_blocks_too(kernel: Watermarks, state: ZoneState, _order: int, flags: int) -> watermark.Found:
    return _BLOCK(kernel, state, 0, flags)


def _types_with(name: str) -> Callable[..., tuple[frozenset[str], frozenset[str]]]:
    def broken(kernel: Watermarks, order: int, alloc_flags: int) -> tuple[frozenset[str], frozenset[str]]:
        sure, perhaps = _TYPES(kernel, order, alloc_flags)
        return sure | {name}, perhaps

    return broken


def _types_without(name: str) -> Callable[..., tuple[frozenset[str], frozenset[str]]]:
    def broken(kernel: Watermarks, order: int, alloc_flags: int) -> tuple[frozenset[str], frozenset[str]]:
        sure, perhaps = _TYPES(kernel, order, alloc_flags)
        return sure - {name}, perhaps - {name}

    return broken


def _all_checked(_kernel: Watermarks, _alloc_flags: int) -> bool:
    return True


def _keeps_boost(state: ZoneState) -> ZoneState:
    return state


MUTATIONS: dict[str, Mutation] = {
    "ALLOC_HIGH lowers nothing": ("lowered_mark", _without("alloc_high", "alloc_min_reserve")),
    "ALLOC_HARDER lowers nothing": ("lowered_mark", _without("alloc_harder", "alloc_non_block")),
    "ALLOC_OOM lowers nothing": ("lowered_mark", _without("alloc_oom")),
    "ALLOC_NON_BLOCK lowers by itself": ("lowered_mark", _quarter_without_high),
    "ALLOC_OOM and ALLOC_HARDER add up in 5.10": ("lowered_mark", _oom_and_harder),
    "the reserves of 5.10 everywhere": ("lowered_mark", _tables("5.10")),
    "the reserves of 6.3 everywhere": ("lowered_mark", _tables("6.12")),
    "ALLOC_HIGH opens highatomic in 5.10": ("has_reserves", _high_opens_highatomic_of_5_10),
    "ALLOC_MIN_RESERVE does not open highatomic": ("has_reserves", _only_harder_opens_highatomic),
    "ALLOC_OOM does not open highatomic": ("has_reserves", _oom_does_not_open_highatomic),
    "nr_reserved_highatomic everywhere": ("highatomic_pages", _reserved_for_free),
    "nr_free_highatomic everywhere": ("highatomic_pages", _free_for_reserved),
    "highatomic pages for all": ("highatomic_pages", _no_highatomic),
    "lowmem_reserve of the zone itself": ("lowmem_reserve_pages", _own_zone_reserve),
    "no lowmem_reserve": ("lowmem_reserve_pages", _no_reserve),
    "CMA pages for all": ("free_cma_pages", _no_cma),
    "the order's pages count": ("zone_watermark_ok", _order_pages(lambda order: (1 << order) - 1)),
    "equal is enough": ("zone_watermark_ok", _order_pages(lambda _order: 1)),
    "one page more is needed": ("zone_watermark_ok", _order_pages(lambda _order: -1)),
    "the low watermark for min": ("zone_watermark_ok", _low_for_min),
    "larger blocks are not split": ("suitable_block", _exact_order_only),
    "smaller blocks will do": ("suitable_block", _smaller_blocks_too),
    "highatomic blocks for all": ("types_for", _types_with(HIGHATOMIC)),
    "highatomic blocks for none": ("types_for", _types_without(HIGHATOMIC)),
    "CMA blocks for all": ("types_for", _types_with(CMA)),
    "CMA blocks for none": ("types_for", _types_without(CMA)),
    "isolated blocks for all": ("types_for", _types_with("MIGRATE_ISOLATE")),
    "no blocks of other mobility": ("types_for", _types_without("MIGRATE_RECLAIMABLE")),
    "an OOM victim is given highatomic blocks in 5.10": ("_given_all_checked", _all_checked),
    "the boost holds back everybody": ("without_boost", _keeps_boost),
}
