# SPDX-License-Identifier: MIT
"""Times of a trace for people: seconds since the recording began, not since the machine booted."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any


@dataclass(frozen=True)
class Clock:
    """Where the times of a trace are counted from.

    Attributes:
        began: that moment, CLOCK_MONOTONIC in ns.
        event: what happened then, for people.
        wall: the wall-clock time of that moment, to about a second; None if it is not known.
    """

    began: int
    event: str
    wall: datetime | None = None

    def seconds(self, time: int) -> str:
        """Return a time (CLOCK_MONOTONIC, ns) as text."""
        return f"{(time - self.began) / 1e9:.6f} s"

    def wall_time(self, time: int) -> str | None:
        """Return a time (CLOCK_MONOTONIC, ns) by the wall clock, as a journal has it; None if that is not known."""
        if self.wall is None:
            return None
        moment = _later(self.wall, time - self.began)
        return None if moment is None else moment.isoformat(timespec="seconds")


def clock_of(recording: Mapping[str, Any], first: int | None, event: str) -> Clock:
    """Return the clock of a trace.

    Args:
        recording: how it was made. Older recorders did not write when they began.
        first: the earliest time in the trace that is known, which then takes its place; None without any.
        event: what `first` is, for people.
    """
    began = recording.get("started_monotonic")
    if isinstance(began, int | float):
        started = round(began * 1e9)
        # A call may be recorded right before the recorder looked at the clock.
        earliest = started if first is None else min(started, first)
        return Clock(earliest, "the recording began", _wall(recording, earliest - started))
    return Clock(first or 0, event)


def _wall(recording: Mapping[str, Any], later: int) -> datetime | None:
    try:
        started = datetime.fromisoformat(str(recording.get("started")))
        # Without a time zone it would be taken for this machine's.
        return None if started.tzinfo is None else _later(started.astimezone(UTC), later)
    except (ValueError, OverflowError):
        return None


def _later(moment: datetime, time: int) -> datetime | None:
    try:
        return moment + timedelta(microseconds=time // 1000)
    except OverflowError:
        return None


def kernel_seconds(time: int) -> str:
    """Return a time (CLOCK_MONOTONIC, ns) in about the form of the kernel's log."""
    return f"{time / 1e9:.6f} s"
