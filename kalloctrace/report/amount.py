# SPDX-License-Identifier: MIT
"""How much there is of something: calls and pages."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

PAGE_SIZE = 4096
_LARGEST_ORDER = 31
"""Only a damaged file holds a page of a larger order; its number of pages must still fit."""


@dataclass
class Amount:
    """How much there is of something.

    Attributes:
        count: allocations.
        pages: pages of 4 KiB that they got: 2^order each, 0 for one that failed; for a call of the bulk allocator the
            pages that were seen. Where the return was not traced, those that were asked for.
    """

    count: int = 0
    pages: int = 0

    def add(self, other: "Amount") -> None:
        """Add another amount to this one."""
        self.count += other.count
        self.pages += other.pages

    def scaled(self, factor: int) -> "Amount":
        """Return a multiple of this amount."""
        return Amount(self.count * factor, self.pages * factor)

    def to_json(self, allocations: int) -> dict[str, Any]:
        """Return the amount, and its share of all allocations, as JSON values."""
        share = round(self.count / allocations, 6) if allocations else 0.0
        return {"count": self.count, "share": share, "pages": self.pages}


def pages_of(allocations: pa.Table) -> pa.ChunkedArray:
    """Return the pages that one call of each allocation got, int64.

    Args:
        allocations: with the columns order, page, entry, freelist_calls and bulk_seen.
    """
    zero = pa.scalar(0, pa.int64())
    order = pc.min_element_wise(allocations["order"], pa.scalar(_LARGEST_ORDER, pa.uint32())).cast(pa.int64())
    # Where the return was not traced, a call that was not rejected is taken for one that got its pages.
    got = pc.coalesce(allocations["page"], pc.greater(allocations["freelist_calls"], 0))
    pages = pc.if_else(got, pc.shift_left(pa.scalar(1, pa.int64()), order), zero)
    taken = pc.coalesce(allocations["bulk_seen"].cast(pa.int64()), zero)
    return pc.if_else(pc.equal(allocations["entry"], "bulk"), taken, pages)
