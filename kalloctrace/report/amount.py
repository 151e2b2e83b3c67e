# SPDX-License-Identifier: MIT
"""Amounts: calls and pages."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

PAGE_SIZE = 4096
"""Bytes in a page; x86-64 has no other."""
_LARGEST_ORDER = 31
"""Larger orders are capped: only a damaged file has them, and the number of pages must fit into int64."""


@dataclass
class Amount:
    """An amount of calls and pages.

    Attributes:
        count: allocations.
        pages: pages of 4 KiB: 2^order for each allocation, 0 for one that failed, the pages seen for a call of the
            bulk allocator. Where the return was not traced, the requested pages.
    """

    count: int = 0
    pages: int = 0

    def add(self, other: "Amount") -> None:
        """Add another amount to this one."""
        self.count += other.count
        self.pages += other.pages

    def scaled(self, factor: int) -> "Amount":
        """Return this amount multiplied by a factor."""
        return Amount(self.count * factor, self.pages * factor)

    def to_json(self, allocations: int) -> dict[str, Any]:
        """Return the amount and its share of all allocations as JSON values."""
        share = round(self.count / allocations, 6) if allocations else 0.0
        return {"count": self.count, "share": share, "pages": self.pages}


def pages_of(allocations: pa.Table) -> pa.ChunkedArray:
    """Return the pages that one call of each allocation got, as int64.

    Args:
        allocations: with the columns order, page, entry, freelist_calls and bulk_seen.
    """
    zero = pa.scalar(0, pa.int64())
    order = pc.min_element_wise(allocations["order"], pa.scalar(_LARGEST_ORDER, pa.uint32())).cast(pa.int64())
    # Where the return was not traced, assume that a call got its pages unless it was rejected.
    got = pc.coalesce(allocations["page"], pc.greater(allocations["freelist_calls"], 0))
    pages = pc.if_else(got, pc.shift_left(pa.scalar(1, pa.int64()), order), zero)
    taken = pc.coalesce(allocations["bulk_seen"].cast(pa.int64()), zero)
    return pc.if_else(pc.equal(allocations["entry"], "bulk"), taken, pages)
