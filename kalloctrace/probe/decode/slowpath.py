# SPDX-License-Identifier: MIT
"""Assembles slow-path calls from the events that the program sends."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.decode.rows import RowMaker
from kalloctrace.probe.decode.zones import ZoneCopies
from kalloctrace.probe.layout import enum_values
from kalloctrace.probe.maps.ringbuf import Ring
from kalloctrace.trace.slow_split import PARTS, SlowSplit
from kalloctrace.trace.slowpath import SLOW
from kalloctrace.trace.writer import RowWriter

Event = Any
"""`struct slow_event`, one record of numpy's."""
Events = npt.NDArray[np.void]

BEGINS, ATTEMPT, RETURNS, RECLAIM, COMPACTION, OOM = enum_values(
    "slow_kind", "SLOW_BEGINS", "SLOW_ATTEMPT", "SLOW_RETURNS", "SLOW_RECLAIM", "SLOW_COMPACTION", "SLOW_OOM"
)
_PARTS = dict(zip(PARTS, enum_values("slow_part", *(f"PART_{part.upper()}" for part in PARTS)), strict=True))
"""The place of each part in `parts` of `struct slow_event`."""
_EVENT_TEXTS = {RECLAIM: "direct_reclaim", COMPACTION: "compaction", OOM: "oom"}

_ARGS = [column.name for column in SLOW.field("given").type]
# Naming and writing have a high fixed cost, so calls are written in batches.
_BATCH_CALLS = 4096
_BATCH_SECONDS = 1.0
_MOST_OPEN = 1 << 14
_MOST_COPIED = 1 << 15
_MOST_STEPS = 1 << 13
"""Steps of one call; one that may not fail repeats them without an end. A reader refuses a call of 32 MiB."""
_CUT = -1

_TASK_COLUMNS = ("time", "cpu", "pid", "tid", "comm", "cgroup")
_ASIDE = ("gfp_mask", "order", "prio", "oom_victim", "ac_alloc_flags")
_NAMED = [*_TASK_COLUMNS, "freelist_gfp_mask", "freelist_order", "alloc_flags", *(n for n in _ARGS if n not in _ASIDE)]
"""The columns that `RowMaker` makes, as for other calls; `_ASIDE` are taken from the event."""


@dataclass
class SlowCall:
    """One call of __alloc_pages_slowpath().

    Attributes:
        begins: its first event.
        task: the address of current.
        ac: the address of ac.
        attempts: the events of its attempts.
        events_before: what the kernel did before each attempt; the last list is what it did after all of them.
        returns: its last event; None while it runs, or if its return was missed.
        steps: how many events it has, of attempts and between them.
        lost: the number of events that were lost before it began.
        complete: no event was lost while it ran.
    """

    begins: Event
    task: int
    ac: int
    steps: int = 0
    lost: int = 0
    attempts: list[Event] = field(default_factory=list)
    events_before: list[list[str]] = field(default_factory=lambda: [[]])
    returns: Event | None = None
    complete: bool = True


@dataclass
class CallAssembler:
    """Assembles calls from events in the order of time.

    A call whose return is missed stays open until another call has its frame, or until too many are open; then the
    oldest counts as not returned.

    Attributes:
        unpaired: attempts and returns of calls whose begin was not seen.
        lost: events that found the ring buffer full.
    """

    unpaired: int = 0
    lost: int = 0
    _open: dict[int, SlowCall] = field(default_factory=dict)
    _of_task: dict[int, dict[int, SlowCall]] = field(default_factory=dict)

    def take(self, events: Events) -> list[SlowCall]:
        """Add events; return the calls that have ended."""
        ended: list[SlowCall] = []
        if not len(events):
            return ended
        # As lists: reading the members of each numpy record would take most of the time. An event that is kept is
        # copied, so that an open call does not keep all events in memory that came with its own.
        columns = (events["kind"], events["frame"], events["ac"], events["lost"], events["r"]["task"])
        for event, kind, frame, ac, lost, task in zip(events, *(column.tolist() for column in columns), strict=True):
            self.lost = lost
            if kind == BEGINS:
                if frame in self._open:
                    ended.append(self._close(frame))
                self._open[frame] = self._of_task.setdefault(task, {})[frame] = SlowCall(
                    event.copy(), task, ac, lost=lost
                )
                if len(self._open) > _MOST_OPEN:
                    oldest = self._close(next(iter(self._open)))
                    oldest.complete = False
                    ended.append(oldest)
            elif kind == RETURNS:
                if frame not in self._open:
                    self.unpaired += 1
                else:
                    call_ended = self._close(frame)
                    call_ended.returns = event.copy()
                    ended.append(call_ended)
            else:
                self._step(kind, event, task, ac)
        return ended

    def still_open(self) -> list[SlowCall]:
        """Return the calls whose return was not seen."""
        for call in self._open.values():
            call.complete = call.lost == self.lost
        return list(self._open.values())

    def _close(self, frame: int) -> SlowCall:
        call = self._open.pop(frame)
        call.complete = call.lost == self.lost
        of_task = self._of_task[call.task]
        del of_task[frame]
        if not of_task:
            del self._of_task[call.task]
        return call

    def _step(self, kind: int, event: Event, task: int, ac: int) -> None:
        """Add an event to the innermost open call of its task to which it can belong."""
        for call in reversed(self._of_task.get(task, {}).values()):
            if kind != ATTEMPT or call.ac == ac:
                if call.steps >= _MOST_STEPS:
                    # As if its further events were lost: it stays incomplete.
                    call.lost = _CUT
                    return
                call.steps += 1
                if kind == ATTEMPT:
                    call.attempts.append(event.copy())
                    call.events_before.append([])
                else:
                    call.events_before[-1].append(_EVENT_TEXTS[kind])
                return
        # Reclaim and compaction also run outside the slow path.
        if kind == ATTEMPT:
            self.unpaired += 1


class SlowPathConsumer:
    """Writes slow-path calls.

    Args:
        rings: the ring buffers of `struct slow_event` and of `struct slow_zone`.
        rows: makes rows from records.
        copies: decodes copies of zones.
        stack_text: returns the text of a stack of addresses, innermost first.
        filters: which calls to write.
        writer: the trace.
        hidden: the parts of a call's time that this kernel does not show.

    Attributes:
        consumed: how many calls were written.
        split: what they spent their time with.
        failed: how many of these returned no page.
        running: how many of these had not returned when the recording ended.
    """

    def __init__(
        self,
        rings: tuple[Ring, Ring],
        rows: RowMaker,
        copies: ZoneCopies,
        stack_text: Callable[[tuple[int, ...]], str],
        *,
        filters: Filters,
        writer: RowWriter,
        hidden: Collection[str] = (),
    ) -> None:
        self.consumed = self.failed = self.running = 0
        self.split = SlowSplit()
        self.assembler = CallAssembler()
        self._events, self._zones = rings
        self._rows = rows
        self._copies = copies
        self._stack_text = stack_text
        self._filters = filters
        self._writer = writer
        self._hidden = hidden
        self._ended: list[SlowCall] = []
        self._written_at = time.monotonic()
        self._copied: dict[tuple[int, int], list[dict[str, Any]]] = {}

    def drain(self) -> None:
        """Read what was captured; may write the calls that have ended."""
        # Events first: a call's zones are sent after their event, so they may still be arriving.
        self._ended += self.assembler.take(self._events.drain())
        self._take_zones()
        if len(self._ended) >= _BATCH_CALLS or time.monotonic() - self._written_at >= _BATCH_SECONDS:
            self._write()

    def finish(self) -> None:
        """Read the rest, and write everything."""
        self.drain()
        self._write()
        returned = self.consumed
        self._ended = self.assembler.still_open()
        self._write()
        self.running = self.consumed - returned

    def _take_zones(self) -> None:
        copies = self._zones.drain()
        if not len(copies):
            return
        belongs = zip(copies["time"].tolist(), copies["frame"].tolist(), strict=True)
        for key, zone in zip(belongs, self._copies.zones(copies["zone"], copies["words"]), strict=True):
            if zone is not None:
                self._copied.setdefault(key, []).append(zone)

    def _discard_copies(self) -> None:
        """Discard the zones of calls whose event was lost, if they are many; nobody else takes them."""
        if len(self._copied) > _MOST_COPIED:
            recent = len(self._copied) - _MOST_COPIED // 2
            needed = {
                (int(call.begins["r"]["time"]), int(call.begins["frame"])) for call in self.assembler.still_open()
            }
            self._copied = {
                key: zones for at, (key, zones) in enumerate(self._copied.items()) if at >= recent or key in needed
            }

    def _write(self) -> None:
        calls, self._ended = self._ended, []
        self._written_at = time.monotonic()
        rows = [row for row in self._named(calls) if matches_filter(self._filters, row)] if calls else []
        if rows:
            self._writer.write_slow(rows)
            self.consumed += len(rows)
            self.split = self.split.plus(rows)
            self.failed += sum(row["page"] is False for row in rows)
        self._discard_copies()

    def _named(self, calls: list[SlowCall]) -> list[dict[str, Any]]:
        events = [event for call in calls for event in (call.begins, *call.attempts)]
        records = np.array([event.tobytes() for event in events]).view(self._events.dtype)["r"].copy()
        # At the start of the slow path, ac->nodemask is the caller's nodemask, if any.
        at = np.cumsum([0, *(1 + len(call.attempts) for call in calls)])
        nodemasks = self._rows.member(records["ac"], "nodemask")
        for start, end in pairwise(at):
            records["nodemask"][start:end] = nodemasks[start]
        named = self._rows.rows(records).select(_NAMED).to_pylist()
        flags = self._rows.ac_alloc_flags(records["ac"])
        for row, event, ac_alloc_flags in zip(named, events, flags, strict=True):
            row["gfp_mask"], row["order"] = row["freelist_gfp_mask"], row["freelist_order"]
            row |= {"prio": int(event["prio"]), "oom_victim": bool(event["oom_mm"]), "ac_alloc_flags": ac_alloc_flags}
        return [self._row(call, named[start:end]) for call, (start, end) in zip(calls, pairwise(at), strict=True)]

    def _row(self, call: SlowCall, named: list[dict[str, Any]]) -> dict[str, Any]:
        args, *attempts = named
        # A kprobe that is a breakpoint runs in NMI context and raises the counter itself.
        args["preempt_count"] = attempts[0]["preempt_count"] if attempts else None
        frame, begun_at = int(call.begins["frame"]), args["time"]
        zones = [{"at": "begins", **zone} for zone in self._copied.pop((begun_at, frame), [])]
        returned_at = None if call.returns is None else int(call.returns["r"]["time"])
        if returned_at is not None:
            zones += [{"at": "returns", **zone} for zone in self._copied.pop((returned_at, frame), [])]
        return {
            **{name: args[name] for name in _TASK_COLUMNS},
            "stack": self._stack_text(tuple(int(address) for address in call.begins["stack"] if address)),
            "given": {name: args[name] for name in _ARGS},
            "attempts": [
                {
                    "after": _elapsed(begun_at, attempt["time"]),
                    "alloc_flags": attempt["alloc_flags"],
                    "between": events_before,
                    **{name: attempt[name] for name in _ARGS},
                }
                for attempt, events_before in zip(attempts, call.events_before, strict=False)
            ],
            "after_last": call.events_before[-1],
            "page": None if call.returns is None else bool(call.returns["r"]["page"]),
            "duration": None if returned_at is None else _elapsed(begun_at, returned_at),
            "complete": call.complete,
            "zones": zones,
            **self._parts(call, begun_at, returned_at),
        }

    def _parts(self, call: SlowCall, begun_at: int, returned_at: int | None) -> dict[str, int | None]:
        """Return the parts of a call's time; None for all if they were not measured."""
        if call.returns is None or returned_at is None:
            return dict.fromkeys(PARTS)
        spent = call.returns["parts"].tolist()
        if sum(spent) != _elapsed(begun_at, returned_at):
            return dict.fromkeys(PARTS)
        return {name: None if name in self._hidden else spent[place] for name, place in _PARTS.items()}


def _elapsed(earlier: int, later: int) -> int:
    """Return the time between two events in ns, at least 0.

    The clock of BPF programs, ktime_get_mono_fast_ns() in kernel/time/timekeeping.c, may differ a little between CPUs.
    """
    return max(0, later - earlier)


def matches_filter(filters: Filters, call: Mapping[str, Any]) -> bool:
    """Return whether a slow-path call passes the filters.

    Args:
        filters: as for other calls, except that slow-path calls are never sampled.
        call: the columns of SLOW.
    """
    args = call["given"]
    gfp = args["gfp_mask"]
    return (
        filters.pid in (None, call["pid"])
        and filters.comm in (None, call["comm"])
        and filters.order in (None, args["order"])
        and (filters.gfp_any is None or bool(gfp & filters.gfp_any))
        and (filters.gfp_all is None or gfp & filters.gfp_all == filters.gfp_all)
        and (filters.gfp_none is None or not gfp & filters.gfp_none)
        and filters.nid in (None, args["zonelist_nid"])
        and filters.zone in (None, args["preferred_zone"])
        and not (filters.failed and call["page"])
    )
