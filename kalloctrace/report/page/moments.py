# SPDX-License-Identifier: MIT
"""When calls of the slow path were made, how long they took, and what happened meanwhile: numbers for charts."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from kalloctrace.report.page.cells import BUCKETS

PER_DECADE = 4
"""Intervals of durations in each power of ten."""
WHAT = ("none", "compaction", "direct_reclaim", "oom")
"""What may happen during a call, the gravest last; `between` in trace/slowpath.py has the events."""


def what_happened(call: Mapping[str, Any]) -> int:
    """Return the gravest event of a call, as an index into WHAT."""
    events = {*call["after_last"], *(event for attempt in call["attempts"] for event in attempt["between"])}
    return max((WHAT.index(event) for event in events if event in WHAT), default=0)


class Moments:
    """Counts calls by time, duration, what happened, and whether they failed.

    Args:
        began: the start of the time axis, in ns.
        ended: its end.
    """

    def __init__(self, began: int, ended: int) -> None:
        self._began = began
        self._span = max(1, ended - began + 1)
        self._counts: Counter[tuple[int, int, int, int]] = Counter()

    def add(self, call: Mapping[str, Any]) -> None:
        """Count a call; one whose return was not captured has no duration and is left out."""
        if call["duration"] is None:
            return
        x = (call["time"] - self._began) * BUCKETS // self._span
        y = math.floor(PER_DECADE * math.log10(max(1, call["duration"])))
        self._counts[x, y, what_happened(call), int(call["page"] is False)] += 1

    def to_json(self) -> dict[str, Any]:
        """Return the counts as columns; `x` is a part of the time, `y` an interval of durations, from 10^(y/4) ns."""
        cells = sorted(self._counts)
        names = ("x", "y", "what", "failed")
        return {
            "span": self._span,
            "buckets": BUCKETS,
            "per_decade": PER_DECADE,
            "kinds": list(WHAT),
            **{name: [cell[i] for cell in cells] for i, name in enumerate(names)},
            "count": [self._counts[cell] for cell in cells],
        }
