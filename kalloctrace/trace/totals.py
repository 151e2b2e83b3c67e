# SPDX-License-Identifier: MIT
"""The totals of a recording, and why it ended."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, Self

from kalloctrace.trace.audited import Audited, audit_json
from kalloctrace.trace.slow_split import SlowSplit


@dataclass(frozen=True)
class MissedBy:
    """Probe hits that the kernel skipped, by the counter that shows them.

    Attributes:
        kprobe: hits while a kprobe's handler was running on that CPU: nmissed of the kprobe.
        program: hits while a BPF program was running on that CPU, or while somebody's bpf(2) call changed a map.
        memory: hits for which the kernel had no memory.
    """

    kprobe: int
    program: int
    memory: int

    def since(self, earlier: Self | None) -> Self:
        """Return the hits after an earlier moment; None has none."""
        if earlier is None:
            return self
        return replace(self, **{name: count - getattr(earlier, name) for name, count in asdict(self).items()})

    def to_json(self) -> dict[str, int]:
        """Return the counts as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Totals:
    """The closing record of a trace.

    For each recording, opened = submitted + lost + replaced + running.

    Attributes:
        opened: calls of the entry that the BPF program saw.
        submitted: calls that became rows of the trace.
        dropped: calls that were lost because the ring buffer was full.
        no_room: calls that were lost because the table of pending calls was full.
        replaced: calls whose return was never seen.
        running: calls that had not returned when the recording ended.
        freelist_alone: calls of get_page_from_freelist() without a captured entry, such as those running at the start.
        return_alone: returns without a captured entry, such as those of calls running at the start.
        missed: hits that the kernel skipped because the BPF program was already running on that CPU.
        missed_freelist: the part of `missed` at get_page_from_freelist(); only these hits can make a call look
            rejected. None if they were not counted separately.
        slow: calls of the slow path in the trace; None if the slow path was not traced.
        slow_failed: the part of `slow` that returned no page; None if it was not counted.
        slow_split: what the calls of `slow` spent their time with; None if this was not summed up.
        slow_running: the part of `slow` that had not returned when the recording ended.
        slow_alone: attempts and returns without a captured begin, such as those of calls running at the start.
        slow_lost: events of the slow path that were lost because the ring buffer was full.
        slow_missed: hits of the slow path that the kernel skipped, or calls beyond the number that it can follow.
        zones_dropped: how often there was no room for the zones of a call of the slow path.
        names_dropped: changes of task names that were lost, so rows may have an older name; and calls whose task's name
            was not kept any more, whose name is `?`.
        machine_changed: names of facts about the machine that changed during the recording.
        reason: why the recording ended.
        seconds: its length.
        own: calls of the recorder itself, which were left out; None if they were not counted.
        filtered: calls that did not match the filters; None if they were not counted.
        rejected: calls that the entry rejected, so that get_page_from_freelist() was never called, as seen by a probe
            of their own; None if there was no such probe.
        dropped_by_flags: calls of get_page_from_freelist() that were taken for later attempts because of their
            alloc_flags; 0 where the return address decides, None if these were not counted.
        missed_by: `missed` by the kernel's counters; None if these were not kept apart.
        bpf_calls: bpf(2) calls of all processes during the recording; None if they could not be counted.
        audit: what the pair saw beside one probe; None if it was not attached.
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
    slow_split: SlowSplit | None = None
    slow_running: int = 0
    slow_alone: int = 0
    slow_lost: int = 0
    slow_missed: int = 0
    zones_dropped: int = 0
    own: int | None = None
    filtered: int | None = None
    rejected: int | None = None
    dropped_by_flags: int | None = None
    missed_by: MissedBy | None = None
    bpf_calls: int | None = None
    audit: Audited | None = None

    @property
    def lost(self) -> int:
        """Return how many captured calls did not become rows because a buffer was full."""
        return self.dropped + self.no_room

    def since(self, earlier: Self, *, last: bool) -> Self:
        """Return the totals of the part of a recording after an earlier moment.

        A call belongs to the part in which it ended, so that the parts add up to the whole; only the last part has
        calls that are running.

        Args:
            earlier: the totals at that moment; counts that it does not have are 0.
            last: nothing follows this part.
        """
        ended = earlier.submitted + earlier.lost + earlier.replaced
        changed: dict[str, Any] = {
            field.name: now - (getattr(earlier, field.name) or 0)
            for field in fields(self)
            if isinstance(now := getattr(self, field.name), int)
        }
        changed["opened"] = (self.opened if last else self.submitted + self.lost + self.replaced) - ended
        changed["running"], changed["slow_running"] = (self.running, self.slow_running) if last else (0, 0)
        changed["slow_split"] = None if self.slow_split is None else self.slow_split.since(earlier.slow_split)
        changed["missed_by"] = None if self.missed_by is None else self.missed_by.since(earlier.missed_by)
        return replace(self, **changed, seconds=round(self.seconds - earlier.seconds, 6))

    def to_json(self) -> dict[str, Any]:
        """Return the totals as JSON values."""
        split = None if self.slow_split is None else self.slow_split.to_json()
        return {**asdict(self), "slow_split": split, "audit": audit_json(self.audit)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the totals from what `to_json` returned.

        Unknown keys, from a newer writer, are ignored. Keys with a default may be missing, from an older one.
        """
        values = {
            field.name: data[field.name] for field in fields(cls) if field.name in data or field.default is MISSING
        }
        values["machine_changed"] = tuple(values["machine_changed"])
        if values.get("missed_by") is not None:
            values["missed_by"] = MissedBy(
                **{field.name: values["missed_by"][field.name] for field in fields(MissedBy)}
            )
        if values.get("slow_split") is not None:
            values["slow_split"] = SlowSplit.from_json(values["slow_split"])
        if values.get("audit") is not None:
            values["audit"] = Audited.from_json(values["audit"])
        return cls(**values)


def missed_json(totals: Totals | None) -> dict[str, Any]:
    """Return what is known about the cause of missed hits, as JSON values that several commands print.

    Args:
        totals: of the recording; None if its end is missing.
    """
    missed_by = None if totals is None else totals.missed_by
    return {
        "missed_by": None if missed_by is None else missed_by.to_json(),
        "bpf_calls": None if totals is None else totals.bpf_calls,
    }
