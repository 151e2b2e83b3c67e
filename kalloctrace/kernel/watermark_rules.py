# SPDX-License-Identifier: MIT
"""Rules of the watermark check that only a kernel's release shows.

Which flags open the reserves below a watermark is in the flag tables: ALLOC_HIGH and ALLOC_HARDER, or
ALLOC_MIN_RESERVE and ALLOC_NON_BLOCK.

The rules were read in mm/page_alloc.c of linux-source-5.10 5.10.262-1:3569 and 3598, 6.1.192-2:4001 and 4029,
6.12.118-1:3180 and 3207, 7.2.12-1~bpo13+1:3561 and 3588, 7.3.4-1~bpo13+1:3581 and 3608.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from kalloctrace.flags.releases import Release
from kalloctrace.flags.rows import LAST

Highatomic = Literal["reserved", "free", "unknown"]
"""The pages that requests without reserves may not use: nr_reserved_highatomic or nr_free_highatomic."""


@dataclass(frozen=True, slots=True)
class WatermarkRules:
    """The watermark check of one kernel.

    Attributes:
        highatomic: which counter of high-order atomic pages is subtracted.
        order0_highatomic: whether an order-0 request that may not block takes a page of a MIGRATE_HIGHATOMIC
            block if it finds no other; None if the release does not show it.
        block_of_any_type: whether one free block of a type that it may take is enough for a high-order request above
            the watermark; False if another rule holds, which is not modelled.
        known: False if only the rules that all kernels share are known.
    """

    highatomic: Highatomic
    order0_highatomic: bool | None
    block_of_any_type: bool = True
    known: bool = True


class _Row(NamedTuple):
    """The rules of the releases from `since` to before `until`."""

    since: Release
    until: Release
    rules: WatermarkRules
    source: str


_NEVER = Release(1 << 16, 0, 0)

_ROWS = (
    # 5.8 checks order-0 requests without the high-order atomic pages: f27ce0e14088 ("page_alloc: consider highatomic
    # reserve in watermark fast") (in v5.9).
    _Row(
        Release(5, 9, 0),
        Release(6, 1, 116),
        WatermarkRules("reserved", order0_highatomic=False),
        "mm/page_alloc.c of 5.10.262-1; 6.1 as Debian's changelog of 6.1.119-1 says",
    ),
    _Row(
        Release(6, 1, 116),
        Release(6, 2, 0),
        WatermarkRules("reserved", order0_highatomic=True),
        'mm/page_alloc.c of 6.1.192-2, with "mm/page_alloc: let GFP_ATOMIC order-0 allocs access highatomic reserves"',
    ),
    _Row(
        Release(6, 2, 0),
        Release(6, 3, 0),
        WatermarkRules("reserved", order0_highatomic=False),
        'before the series "Discard __GFP_ATOMIC" (in v6.3)',
    ),
    _Row(
        Release(6, 3, 0),
        Release(6, 11, 0),
        WatermarkRules("reserved", order0_highatomic=None),
        'the series "Discard __GFP_ATOMIC" (in v6.3); stable kernels took the order-0 rule at different patch levels',
    ),
    _Row(
        Release(6, 11, 0),
        Release(6, 12, 117),
        WatermarkRules("unknown", order0_highatomic=None),
        'c928807f6f6b ("mm/page_alloc: keep track of free highatomic") (in v6.13) came to stable 6.12 on the way',
    ),
    _Row(
        Release(6, 12, 117),
        _NEVER,
        WatermarkRules("free", order0_highatomic=True),
        "mm/page_alloc.c of 6.12.118-1, 7.2.12-1~bpo13+1 and 7.3.4-1~bpo13+1",
    ),
)

KNOWN_WATERMARK_RULES = f"{_ROWS[0].since.series} to {LAST.series}"
"""The releases whose watermark check is known in every detail, for messages."""

SHARED_RULES = WatermarkRules("unknown", order0_highatomic=None, known=False)
"""What kernels share since 4.4, where 97a16fc82a7c ("mm, page_alloc: only enforce watermarks for order-0
allocations") made one block enough."""

OLDEST_RULES = WatermarkRules("unknown", order0_highatomic=None, block_of_any_type=False, known=False)
"""What all kernels share: free pages above the watermark, lowered by the reserves, and the lowmem reserve."""

_ONE_BLOCK_IS_ENOUGH = Release(4, 4, 0)


def watermark_rules(release: Release | None) -> WatermarkRules:
    """Return the rules of a release.

    Args:
        release: as `kalloctrace.flags.releases.upstream_release` returns it; None when it is not known.
    """
    if release is None or release < _ONE_BLOCK_IS_ENOUGH:
        return OLDEST_RULES
    return next((row.rules for row in _ROWS if row.since <= release < row.until), SHARED_RULES)
