# SPDX-License-Identifier: MIT
"""Makes calls of the slow path out of the events that the program sends of them."""

import time
from collections.abc import Callable, Mapping
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
from kalloctrace.trace.slowpath import SLOW
from kalloctrace.trace.writer import RowWriter

Event = Any
"""`struct slow_event`, one record of numpy's."""
Events = npt.NDArray[np.void]

BEGINS, ATTEMPT, RETURNS, RECLAIM, COMPACTION, OOM = enum_values(
    "slow_kind", "SLOW_BEGINS", "SLOW_ATTEMPT", "SLOW_RETURNS", "SLOW_RECLAIM", "SLOW_COMPACTION", "SLOW_OOM"
)
_EVENT_TEXTS = {RECLAIM: "direct_reclaim", COMPACTION: "compaction", OOM: "oom"}

_ARGS = [column.name for column in SLOW.field("given").type]
# To name and to write takes most of its time however few they are.
_BATCH_CALLS = 4096
_BATCH_SECONDS = 1.0

_TASK_COLUMNS = ("time", "cpu", "pid", "tid", "comm")
_ASIDE = ("gfp_mask", "order", "prio", "oom_victim", "ac_alloc_flags")
_NAMED = [*_TASK_COLUMNS, "freelist_gfp_mask", "freelist_order", "alloc_flags", *(n for n in _ARGS if n not in _ASIDE)]
"""The columns that a recorder names for other calls too; those aside are taken from elsewhere."""


@dataclass
class SlowCall:
    """One call of __alloc_pages_slowpath().

    Attributes:
        begins: its first event.
        task: current.
        ac: the address of ac.
        attempts: the events of its attempts.
        events_before: before each attempt, and last after them all, what the kernel did.
        returns: its last event; None while it runs, or where its return was missed.
        complete: no event was lost while it ran.
    """

    begins: Event
    task: int
    ac: int
    attempts: list[Event] = field(default_factory=list)
    events_before: list[list[str]] = field(default_factory=lambda: [[]])
    returns: Event | None = None
    complete: bool = True


@dataclass
class CallAssembler:
    """Puts events, in the order of time, together to calls.

    Attributes:
        unpaired: attempts and returns of calls whose begin was not seen.
        lost: events that the program had no room for.
    """

    unpaired: int = 0
    lost: int = 0
    _open: dict[int, SlowCall] = field(default_factory=dict)

    def take(self, events: Events) -> list[SlowCall]:
        """Take events over; return the calls that are over."""
        over = []
        # As lists: to ask each record of numpy's for its members would take most of the time.
        columns = (events["kind"], events["frame"], events["ac"], events["lost"], events["r"]["task"])
        for event, kind, frame, ac, lost, task in zip(events, *(column.tolist() for column in columns), strict=True):
            if lost != self.lost:
                self.lost = lost
                for call in self._open.values():
                    call.complete = False
            if kind == BEGINS:
                if frame in self._open:
                    over.append(self._open.pop(frame))
                self._open[frame] = SlowCall(event, task, ac)
            elif kind == RETURNS:
                call_over = self._open.pop(frame, None)
                if call_over is None:
                    self.unpaired += 1
                else:
                    call_over.returns = event
                    over.append(call_over)
            else:
                self._step(kind, event, task, ac)
        return over

    def still_open(self) -> list[SlowCall]:
        """Return the calls whose return was not seen."""
        return list(self._open.values())

    def _step(self, kind: int, event: Event, task: int, ac: int) -> None:
        """Add what happened to the innermost call of its task that it can belong to."""
        for call in reversed(self._open.values()):
            if call.task == task and (kind != ATTEMPT or call.ac == ac):
                if kind == ATTEMPT:
                    call.attempts.append(event)
                    call.events_before.append([])
                else:
                    call.events_before[-1].append(_EVENT_TEXTS[kind])
                return
        # The kernel reclaims and compacts for others than the slow path too.
        if kind == ATTEMPT:
            self.unpaired += 1


class SlowPathConsumer:
    """Writes calls of the slow path.

    Args:
        rings: the ring buffers with `struct slow_event` and with `struct slow_zone`.
        rows: names what was captured.
        copies: reads what was copied of zones.
        stack_text: returns the text of a stack of addresses, innermost first.
        filters: which calls are wanted.
        writer: the trace.

    Attributes:
        consumed: calls that were written.
        failed: those among them that returned no page.
        running: those among them that had not returned when the recording ended.
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
    ) -> None:
        self.consumed = self.failed = self.running = 0
        self.assembler = CallAssembler()
        self._events, self._zones = rings
        self._rows = rows
        self._copies = copies
        self._stack_text = stack_text
        self._filters = filters
        self._writer = writer
        self._over: list[SlowCall] = []
        self._written_at = time.monotonic()
        self._copied: dict[tuple[int, int], list[dict[str, Any]]] = {}

    def drain(self) -> None:
        """Take over what there is; may write the calls that are over."""
        # Events first: a call's zones are sent after the event that they belong to, and may just be coming.
        self._over += self.assembler.take(self._events.drain())
        self._take_zones()
        if len(self._over) >= _BATCH_CALLS or time.monotonic() - self._written_at >= _BATCH_SECONDS:
            self._write()

    def finish(self) -> None:
        """Take over what is left, and write everything."""
        self.drain()
        self._write()
        returned = self.consumed
        self._over = self.assembler.still_open()
        self._write()
        self.running = self.consumed - returned

    def _take_zones(self) -> None:
        copies = self._zones.drain()
        belongs = zip(copies["time"].tolist(), copies["frame"].tolist(), strict=True)
        for key, zone in zip(belongs, self._copies.zones(copies["zone"], copies["words"]), strict=True):
            if zone is not None:
                self._copied.setdefault(key, []).append(zone)

    def _write(self) -> None:
        calls, self._over = self._over, []
        self._written_at = time.monotonic()
        rows = [row for row in self._named(calls) if matches_filter(self._filters, row)] if calls else []
        if rows:
            self._writer.write_slow(rows)
            self.consumed += len(rows)
            self.failed += sum(row["page"] is False for row in rows)

    def _named(self, calls: list[SlowCall]) -> list[dict[str, Any]]:
        events = [event for call in calls for event in (call.begins, *call.attempts)]
        records = np.array([event.tobytes() for event in events]).view(self._events.dtype)["r"].copy()
        # The caller's nodemask, if any, is what the slow path was given.
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
        # A kprobe that is a breakpoint runs as an NMI does, and raises the CPU's counter itself.
        args["preempt_count"] = attempts[0]["preempt_count"] if attempts else None
        frame, begun = int(call.begins["frame"]), args["time"]
        zones = [{"at": "begins", **zone} for zone in self._copied.pop((begun, frame), [])]
        over = None if call.returns is None else int(call.returns["r"]["time"])
        if over is not None:
            zones += [{"at": "returns", **zone} for zone in self._copied.pop((over, frame), [])]
        return {
            **{name: args[name] for name in _TASK_COLUMNS},
            "stack": self._stack_text(tuple(int(address) for address in call.begins["stack"] if address)),
            "given": {name: args[name] for name in _ARGS},
            "attempts": [
                {
                    "after": _elapsed(begun, attempt["time"]),
                    "alloc_flags": attempt["alloc_flags"],
                    "between": events_before,
                    **{name: attempt[name] for name in _ARGS},
                }
                for attempt, events_before in zip(attempts, call.events_before, strict=False)
            ],
            "after_last": call.events_before[-1],
            "page": None if call.returns is None else bool(call.returns["r"]["page"]),
            "duration": None if over is None else _elapsed(begun, over),
            "complete": call.complete,
            "zones": zones,
        }


def _elapsed(earlier: int, later: int) -> int:
    """Return the time between two events, in ns.

    The clock of programs, ktime_get_mono_fast_ns() in kernel/time/timekeeping.c, may differ a little between CPUs.
    """
    return max(0, later - earlier)


def matches_filter(filters: Filters, call: Mapping[str, Any]) -> bool:
    """Tell whether a call is one of those that are recorded.

    Args:
        filters: as for every allocation; a sample is taken of other calls only.
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
