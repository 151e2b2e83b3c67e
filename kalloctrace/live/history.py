# SPDX-License-Identifier: MIT
"""The rates of the last intervals, and how they look in a line of text."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from kalloctrace.trace.observation import Observation

_KEPT = 60
_BARS = "▁▂▃▄▅▆▇█"


def _rates() -> deque[float]:
    return deque(maxlen=_KEPT)


@dataclass
class History:
    """Rates per second of the last intervals, oldest first.

    Attributes:
        calls: of all calls.
        slow: of calls that took the slow path; empty where it is not recorded.
        failed: of those that got no page; empty where failures are not counted.
    """

    calls: deque[float] = field(default_factory=_rates)
    slow: deque[float] = field(default_factory=_rates)
    failed: deque[float] = field(default_factory=_rates)

    def add(self, before: Observation | None, now: Observation) -> None:
        """Add an interval.

        Args:
            before: the observation at its start; None for the start of the recording.
            now: the observation at its end.
        """
        seconds = now.seconds - (0.0 if before is None else before.seconds)
        if seconds <= 0:
            return
        had = 0 if before is None else int(before.counts.sum())
        self.calls.append(max(0, int(now.counts.sum()) - had) / seconds)
        for name, rates in (("slow", self.slow), ("slow_failed", self.failed)):
            count = getattr(now.totals, name)
            if count is not None:
                earlier = 0 if before is None else getattr(before.totals, name) or 0
                rates.append(max(0, count - earlier) / seconds)


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last values as bars, a character each: the highest is the largest of them, the lowest is 0."""
    shown = list(values)[-width:]
    most = max(shown, default=0.0)
    # What is not 0 never looks like 0.
    steps = (0 if not value else max(1, round(value / most * (len(_BARS) - 1))) for value in shown)
    return "".join(_BARS[step] for step in steps)
