# SPDX-License-Identifier: MIT
"""Amounts: calls and pages."""

from dataclasses import dataclass
from typing import Any


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
