# SPDX-License-Identifier: MIT
"""Times of a trace for people: seconds since the recording began, not since the machine booted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Clock:
    """Where the times of a trace are counted from.

    Attributes:
        began: that moment, CLOCK_MONOTONIC in ns.
        event: what happened then, for people.
    """

    began: int
    event: str

    def seconds(self, time: int) -> str:
        """Return a time (CLOCK_MONOTONIC, ns) as text."""
        return f"{(time - self.began) / 1e9:.6f} s"


def clock_of(recording: Mapping[str, Any], first: int | None, event: str) -> Clock:
    """Return the clock of a trace.

    Args:
        recording: how it was made. Older recorders did not write when they began.
        first: the earliest time in the trace that is known, which then takes its place; None without any.
        event: what `first` is, for people.
    """
    began = recording.get("started_monotonic")
    if isinstance(began, int | float):
        began = round(began * 1e9)
        # A call may be recorded right before the recorder looked at the clock.
        return Clock(began if first is None else min(began, first), "the recording began")
    return Clock(first or 0, event)


def kernel_seconds(time: int) -> str:
    """Return a time (CLOCK_MONOTONIC, ns) in about the form of the kernel's log."""
    return f"{time / 1e9:.6f} s"
