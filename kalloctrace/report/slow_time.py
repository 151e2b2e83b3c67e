# SPDX-License-Identifier: MIT
"""How long the slow path took."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kalloctrace.trace.slow_split import PARTS, added, parts_json, parts_of


@dataclass
class SlowTime:
    """The time that calls spent in the slow path.

    Attributes:
        calls: recorded calls.
        total: time of all calls whose return was captured, ns.
        parts: what this time was spent with, ns; None for what is not known.
        slowest: the call that took longest; None without calls whose return was captured.
    """

    calls: int = 0
    total: int = 0
    parts: Mapping[str, int | None] = field(default_factory=lambda: dict.fromkeys(PARTS))
    slowest: Mapping[str, Any] | None = None

    def add(self, call: Mapping[str, Any]) -> None:
        """Add a call, as `TraceReader.slow_calls` yields it."""
        self.calls += 1
        duration = call["duration"]
        if duration is None:
            return
        self.total += duration
        self.parts = added(self.parts, parts_of(call) or dict.fromkeys(PARTS))
        if self.slowest is None or duration > self.slowest["duration"]:
            self.slowest = call

    def to_json(self) -> dict[str, Any]:
        """Return the slowest call and the time of all; times are in ns."""
        call = self.slowest
        return {
            "slow_ns": self.total,
            "slow_parts": parts_json(self.parts),
            "slowest": call
            and {
                "duration_ns": call["duration"],
                "order": call["given"]["order"],
                "gfp_mask": call["given"]["gfp_mask"],
                "comm": call["comm"],
                "failed": None if call["page"] is None else not call["page"],
            },
        }
