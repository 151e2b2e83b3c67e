# SPDX-License-Identifier: MIT
"""How many allocations were judged by each field of the preparation."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

FieldVerdict: TypeAlias = Literal["equal", "different", "unknown"]


@dataclass
class FieldCount:
    """How many allocations were judged by one field; where that field does not show, they are not in it.

    Attributes:
        equal: the kernel's value is the model's.
        different: it is not.
        unknown: it shows, but the model needs a fact that was not captured.
    """

    equal: int = 0
    different: int = 0
    unknown: int = 0

    def add(self, verdict: FieldVerdict, count: int) -> None:
        """Count allocations."""
        setattr(self, verdict, getattr(self, verdict) + count)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {"equal": self.equal, "different": self.different, "unknown": self.unknown}
