# SPDX-License-Identifier: MIT
"""What a recording counted, and how it ended."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Self


@dataclass(frozen=True)
class Totals:
    """The closing record of a trace.

    opened = submitted + lost + replaced + running holds for each recording.

    Attributes:
        opened: calls of the entry that the program saw.
        submitted: those that are rows of the trace.
        dropped: those that found the ring buffer full.
        no_room: those that found the table of running calls full.
        replaced: those whose return was never seen.
        running: those that had not returned when the recording ended.
        freelist_alone: calls of get_page_from_freelist() whose entry was not seen, as those under way at the start.
        return_alone: returns whose entry was not seen, likewise.
        missed: hits that the kernel skipped as the program was already running on that CPU.
        missed_freelist: those of get_page_from_freelist() among them: only these can make a call look rejected. None
            where they were not counted apart.
        slow: calls of the slow path that are in the trace; None where it was not traced.
        slow_failed: those among them that returned no page; None where it was not counted.
        slow_running: those among them that had not returned when the recording ended.
        slow_alone: attempts and returns of calls whose begin was not seen, as those under way at the start.
        slow_lost: events of such calls that found the ring buffer full.
        slow_missed: hits of the slow path that the kernel skipped, or calls beyond those that it can follow at once.
        zones_dropped: how often there was no room for the zones of such a call.
        names_dropped: new names of tasks that were lost, so that rows may have an older one.
        machine_changed: names of the machine's facts that were not the same at the end as at the start.
        reason: what ended the recording.
        seconds: how long it lasted.
    """

    opened: int
    submitted: int
    dropped: int
    no_room: int
    replaced: int
    running: int
    freelist_alone: int
    return_alone: int
    missed: int
    machine_changed: tuple[str, ...]
    reason: str
    seconds: float
    missed_freelist: int | None = None
    names_dropped: int = 0
    slow: int | None = None
    slow_failed: int | None = None
    slow_running: int = 0
    slow_alone: int = 0
    slow_lost: int = 0
    slow_missed: int = 0
    zones_dropped: int = 0

    @property
    def lost(self) -> int:
        """Return how many captured calls did not become rows for want of room."""
        return self.dropped + self.no_room

    def to_json(self) -> dict[str, Any]:
        """Return the totals as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the totals from what `to_json` returned.

        Unknown keys of a newer writer are ignored; an older one wrote none that has a default.
        """
        values = {
            field.name: data[field.name] for field in fields(cls) if field.name in data or field.default is MISSING
        }
        values["machine_changed"] = tuple(values["machine_changed"])
        return cls(**values)
