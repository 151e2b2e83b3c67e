# SPDX-License-Identifier: MIT
"""Slow-path events are assembled to calls and written; missing events are counted."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.kernel.memory_layout import MemoryLayout
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.decode import slowpath
from kalloctrace.probe.decode.rows import RowMaker
from kalloctrace.probe.decode.slowpath import CallAssembler, SlowCall, SlowPathConsumer, matches_filter
from kalloctrace.probe.layout import struct_dtype
from kalloctrace.trace.slow_split import PARTS
from kalloctrace.trace.slowpath import SLOW

# As the program numbers the steps of a call.
BEGINS, ATTEMPT, RETURNS, RECLAIM, COMPACTION, OOM = range(6)

LENGTHS = {"NODEMASK_WORDS": 1, "BY_WORDS": 0, "ALLOC_CONTEXT_WORDS": 5, "ZONE_WORDS": 184}
EVENT = struct_dtype("slow_event", LENGTHS)


def event(kind: int, task: int = 1, **fields: int) -> Any:  # noqa: ANN401  a record of numpy's
    """Return an event of a task."""
    made = np.zeros(1, EVENT)[0]
    made["kind"], made["r"]["task"] = kind, task
    for name, value in fields.items():
        made[name] = value
    return made


def call(task: int, frame: int, *steps: int) -> list[Any]:
    """Return the events of a whole call, whose ac lies 8 bytes above its frame."""
    ac = frame + 8
    between = [event(kind, task, ac=ac) if kind == ATTEMPT else event(kind, task) for kind in steps]
    return [event(BEGINS, task, frame=frame, ac=ac), *between, event(RETURNS, task, frame=frame)]


def take(assembler: CallAssembler, events: list[Any]) -> list[SlowCall]:
    """Have events taken over."""
    return assembler.take(np.array(events, EVENT))


def test_call_has_its_attempts_and_the_events_between_them() -> None:
    """In the order of time."""
    (whole,) = take(CallAssembler(), call(1, 0x100, ATTEMPT, COMPACTION, ATTEMPT, RECLAIM, OOM, ATTEMPT, RECLAIM))
    assert len(whole.attempts) == 3
    assert whole.events_before == [[], ["compaction"], ["direct_reclaim", "oom"], ["direct_reclaim"]]
    assert whole.complete
    assert whole.returns is not None


def test_calls_of_tasks_and_interrupts_are_distinguished() -> None:
    """By task and ac: an interrupt's call lies in another frame of the same task."""
    one, other, inner = call(1, 0x100, ATTEMPT), call(2, 0x900, RECLAIM, ATTEMPT), call(1, 0x80, ATTEMPT)
    mixed = [one[0], other[0], other[1], *inner, one[1], other[2], one[2], other[3]]
    calls = take(CallAssembler(), mixed)
    assert [len(each.attempts) for each in calls] == [1, 1, 1]
    assert [each.events_before[0] for each in calls] == [[], [], ["direct_reclaim"]]


def test_event_belongs_to_the_innermost_open_call() -> None:
    """An interrupt's call runs inside another call that the same task has open."""
    outer, inner = call(1, 0x100, ATTEMPT), call(1, 0x80, ATTEMPT)
    events = [*outer[:2], *inner[:2], event(RECLAIM), inner[2], event(OOM), outer[2]]
    first, second = take(CallAssembler(), events)
    assert (first.ac, first.events_before) == (0x88, [[], ["direct_reclaim"]])
    assert (second.ac, second.events_before) == (0x108, [[], ["oom"]])


def test_attempt_belongs_to_the_call_of_its_ac() -> None:
    """Also to an outer call of the task; an attempt with another ac belongs to none."""
    outer, inner = call(1, 0x100, ATTEMPT), call(1, 0x80)
    assembler = CallAssembler()
    first, second = take(assembler, [outer[0], inner[0], outer[1], event(ATTEMPT, ac=0x999), inner[1], outer[2]])
    assert (len(first.attempts), len(second.attempts)) == (0, 1)
    assert assembler.unpaired == 1


def test_event_of_another_task_belongs_to_no_call() -> None:
    """Its steps and attempts are separate, even with the same ac."""
    assembler = CallAssembler()
    begins, returns = call(1, 0x100)
    (only,) = take(assembler, [begins, event(RECLAIM, 2), event(ATTEMPT, 2, ac=0x108), returns])
    assert (only.attempts, only.events_before) == ([], [[]])
    assert assembler.unpaired == 1


def test_call_may_span_two_drains() -> None:
    """An open call waits for its return."""
    assembler, events = CallAssembler(), call(1, 0x100, ATTEMPT, ATTEMPT)
    assert take(assembler, events[:2]) == []
    assert [len(each.attempts) for each in assembler.still_open()] == [1]
    assert [len(each.attempts) for each in take(assembler, events[2:])] == [2]
    assert assembler.still_open() == []


def test_events_without_a_begin_are_counted() -> None:
    """Attempts and returns count; events outside the slow path do not."""
    assembler = CallAssembler()
    assert take(assembler, [*call(1, 0x100, ATTEMPT)[1:], event(RECLAIM), event(OOM)]) == []
    assert assembler.unpaired == 2


def test_loss_makes_running_calls_incomplete() -> None:
    """And only those: one that begins afterwards is whole."""
    events = [*call(1, 0x100, ATTEMPT), *call(1, 0x100, ATTEMPT)]
    for late in events[1:]:
        late["lost"] = 3
    assembler = CallAssembler()
    assert [each.complete for each in take(assembler, events)] == [False, True]
    assert assembler.lost == 3


def test_call_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that may not fail repeats its steps; the reader must not refuse it, and it is not whole."""
    monkeypatch.setattr("kalloctrace.probe.decode.slowpath._MOST_STEPS", 3)
    whole, cut = call(1, 0x100, ATTEMPT, RECLAIM, ATTEMPT), call(1, 0x100, ATTEMPT, RECLAIM, ATTEMPT, OOM, ATTEMPT)
    calls = take(CallAssembler(), [*whole, *cut])
    assert [len(each.attempts) for each in calls] == [2, 2]
    assert [each.complete for each in calls] == [True, False]
    assert calls[1].returns is not None


def test_frame_in_use_again_ends_a_call() -> None:
    """Its return was missed, so its result is unknown."""
    events = call(1, 0x100, ATTEMPT)
    first, second = take(CallAssembler(), [*events[:-1], *events])
    assert first.returns is None
    assert second.returns is not None


ROW = {
    "pid": 7,
    "comm": "cc1",
    "page": True,
    "given": {"gfp_mask": 0xCC0, "order": 3, "zonelist_nid": 1, "preferred_zone": 2},
}


@pytest.mark.parametrize(
    ("fits", "fits_not"),
    [
        (Filters(pid=7), Filters(pid=8)),
        (Filters(comm="cc1"), Filters(comm="cc")),
        (Filters(order=3), Filters(order=0)),
        (Filters(gfp_any=0x840), Filters(gfp_any=0x100)),
        (Filters(gfp_all=0xC0), Filters(gfp_all=0x1C0)),
        (Filters(gfp_none=0x100), Filters(gfp_none=0x40)),
        (Filters(nid=1), Filters(nid=0)),
        (Filters(zone=2), Filters(zone=1)),
        (Filters(), Filters(failed=True)),
    ],
)
def test_filters_hold_for_the_slow_path_too(fits: Filters, fits_not: Filters) -> None:
    """By its arguments and its result."""
    assert matches_filter(fits, ROW)
    assert not matches_filter(fits_not, ROW)


def test_condition_of_several_filters_is_that_of_all() -> None:
    """One that does not match is enough to leave a call out."""
    assert matches_filter(Filters(pid=7, order=3, failed=True), {**ROW, "page": False})
    assert matches_filter(Filters(failed=True), {**ROW, "page": None})
    assert not matches_filter(Filters(pid=7, order=3, zone=1), ROW)


ZONE = struct_dtype("slow_zone", LENGTHS)
TASK, MEMS_ALLOWED = 0xFFFF888000100000, 3184
ZONE_ADDRESS = 0xFFFF888000001000


class FakeBtf:
    """The offsets of a kernel whose `struct alloc_context` has alloc_flags."""

    OFFSETS = {  # noqa: RUF012 not modified
        "zonelist": 0,
        "nodemask": 8,
        "preferred_zoneref": 16,
        "migratetype": 24,
        "highest_zoneidx": 28,
        "spread_dirty_pages": 32,
        "alloc_flags": 36,
        "mems_allowed": MEMS_ALLOWED,
    }

    def has_member(self, _: str, member: str) -> bool:
        """Return whether a structure has a member."""
        return member in self.OFFSETS

    def offset(self, _: str, member: str) -> int:
        """Return a member's offset in bytes."""
        return self.OFFSETS[member]


class FakeRing:
    """A ring buffer that holds what the test puts in."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self.dtype = dtype
        self.records: list[Any] = []

    def drain(self) -> npt.NDArray[np.void]:
        """Return the records, once."""
        records, self.records = self.records, []
        return np.array(records, self.dtype)


class FakeCopies:
    """Decodes one word of a zone; the address 0 is no zone's."""

    def zones(self, addresses: npt.NDArray[np.uint64], words: npt.NDArray[np.uint64]) -> list[dict[str, Any] | None]:
        """Return the zones."""
        rows = zip(addresses.tolist(), words[:, 0].tolist(), strict=True)
        return [{"node": 0, "zone": 1, "free": free} if address else None for address, free in rows]


class FakeWriter:
    """Keeps the calls of each batch."""

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []

    def write_slow(self, calls: list[dict[str, Any]]) -> None:
        """Keep a batch, which a trace can hold."""
        pa.Table.from_pylist(calls, SLOW)
        self.batches.append(calls)


class Recording:
    """A consumer with fake maps around it."""

    def __init__(self, filters: Filters | None = None, hidden: tuple[str, ...] = ()) -> None:
        layout = MemoryLayout(
            nodes=(),
            zonelists={},
            zone_addresses={ZONE_ADDRESS: ZoneRef(0, 1)},
            zonelist_addresses={0x7000: ("FALLBACK", 0)},
        )
        rows = RowMaker(layout, FakeBtf(), builtin_features("7.3"), 0b11, str)  # type: ignore[arg-type] # the methods it needs
        self.events, self.zones, self.writer = FakeRing(EVENT), FakeRing(ZONE), FakeWriter()
        self.consumer = SlowPathConsumer(
            (self.events, self.zones),  # type: ignore[arg-type] # likewise
            rows,
            FakeCopies(),  # type: ignore[arg-type] # likewise
            lambda addresses: ";".join(hex(address) for address in addresses),
            filters=filters or Filters(),
            writer=self.writer,  # type: ignore[arg-type] # likewise
            hidden=hidden,
        )

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Return all calls that were written."""
        return [row for batch in self.writer.batches for row in batch]


def captured(kind: int, time: int, *, nodemask: int = 0, preempt_count: int = 0, **fields: Any) -> Any:  # noqa: ANN401 fields have types of their own
    """Return a step of a call by thread 8 of process 7, with what the program captures at each step."""
    made = event(kind, TASK, frame=0x100, ac=0x108, **{n: v for n, v in fields.items() if n in (EVENT.names or ())})
    usual = {
        "time": time,
        "pid_tgid": 7 << 32 | 8,
        "cpu": 3,
        "comm": b"cc1",
        "freelist_calls": 1,
        "freelist_gfp_mask": 0xCC0,
        "freelist_order": 2,
        "alloc_flags": 0x40,
        "ac": [0x7000, nodemask, 0x7010, 1 | 3 << 32, 1 | 0x55 << 32],
        "ac_nodemask_nodes": [0b10],
        "mems_allowed": [0b11],
        "preferred_zone": ZONE_ADDRESS,
        "preferred_zone_idx": 1,
        "preempt_count": preempt_count,
        "stack": -1,
    }
    for name, value in {**usual, **{n: v for n, v in fields.items() if n not in (EVENT.names or ())}}.items():
        made["r"][name] = value
    return made


def zone(time: int, free: int, address: int = ZONE_ADDRESS, frame: int = 0x100) -> Any:  # noqa: ANN401 a record of numpy's
    """Return a copy of a zone."""
    made = np.zeros(1, ZONE)[0]
    made["time"], made["frame"], made["zone"], made["words"][0] = time, frame, address, free
    return made


CONTEXT = {
    "gfp_mask": 0xCC0,
    "order": 2,
    "zonelist_kind": "FALLBACK",
    "zonelist_nid": 0,
    "ac_nodemask": "caller",
    "ac_nodemask_nodes": "1",
    "preferred_node": 0,
    "preferred_zone": 1,
    "migratetype": 1,
    "highest_zoneidx": 3,
    "spread_dirty_pages": True,
    "ac_alloc_flags": 0x55,
    "task_flags": 0,
    "preempt_count": 0x200,
    "softirq_disable_cnt": None,
    "mems_allowed": "0-1",
    "cpusets_enabled": 0,
    "gfp_allowed_mask": 0,
    "defrag_mode": False,
    "prio": 120,
    "oom_victim": False,
}


def test_call_is_written_with_its_context_and_zones() -> None:
    """As a trace holds it: the arguments, each attempt, what the kernel did, and the zones at both ends."""
    recording = Recording()
    stack = [0x30, 0x20, 0x10, *([0] * 21)]
    recording.events.records = [
        captured(BEGINS, 1000, nodemask=0xBEEF, preempt_count=0x10200, prio=120, stack=stack),
        captured(ATTEMPT, 1010, nodemask=0xBEEF, preempt_count=0x200, prio=120),
        captured(RECLAIM, 1020),
        captured(
            ATTEMPT, 1050, nodemask=TASK + MEMS_ALLOWED, preempt_count=0x201, prio=100, oom_mm=5, alloc_flags=0x44
        ),
        captured(OOM, 1060),
        captured(RETURNS, 1090, page=0, parts=[1, 2, 4, 8, 16, 59, 0, 0]),
    ]
    recording.zones.records = [
        zone(1000, 50),
        zone(1000, 60),
        zone(1000, 70, address=0),
        zone(1090, 5),
        zone(1000, 1, frame=1),
    ]
    recording.consumer.finish()
    assert recording.calls == [
        {
            "time": 1000,
            "cpu": 3,
            "pid": 7,
            "tid": 8,
            "comm": "cc1",
            "cgroup": None,
            "stack": "0x30;0x20;0x10",
            "given": CONTEXT,
            "attempts": [
                {**CONTEXT, "after": 10, "alloc_flags": 0x40, "between": []},
                {
                    **CONTEXT,
                    "ac_nodemask": "mems_allowed",
                    "preempt_count": 0x201,
                    "prio": 100,
                    "oom_victim": True,
                    "after": 50,
                    "alloc_flags": 0x44,
                    "between": ["direct_reclaim"],
                },
            ],
            "after_last": ["oom"],
            "page": False,
            "duration": 90,
            "complete": True,
            "zones": [
                {"at": "begins", "node": 0, "zone": 1, "free": 50},
                {"at": "begins", "node": 0, "zone": 1, "free": 60},
                {"at": "returns", "node": 0, "zone": 1, "free": 5},
            ],
            "reclaim": 2,
            "compaction": 4,
            "oom": 8,
            "throttle": 16,
            "lock": 59,
            "rest": 1,
        }
    ]
    consumer = recording.consumer
    assert (consumer.consumed, consumer.failed, consumer.running) == (1, 1, 0)


def test_parts_are_there_only_if_they_add_up() -> None:
    """A call whose clock was not started has none; what the kernel does not show is null."""
    recording = Recording(hidden=("lock",))
    for parts in ([3, 7, 0, 0, 0, 0, 0, 0], [0] * 8):
        recording.events.records += [captured(BEGINS, 10), captured(RETURNS, 20, page=1, parts=parts)]
    recording.consumer.finish()
    assert [[row[name] for name in PARTS] for row in recording.calls] == [[7, 0, 0, 0, None, 3], [None] * 6]
    split = recording.consumer.split
    assert (split.calls, split.parts["reclaim"], split.parts["lock"], split.log2) == (1, 7, None, {3: 1})


def test_nodemask_is_that_of_the_same_call() -> None:
    """Two calls in one batch: an attempt with the other call's nodemask does not have its caller's."""
    recording = Recording()
    for nodemask in (0xA000, 0xB000):
        recording.events.records += [
            captured(BEGINS, 1, nodemask=nodemask),
            captured(ATTEMPT, 2, nodemask=0xB000),
            captured(RETURNS, 3, page=1),
        ]
    recording.consumer.finish()
    assert [row["given"]["ac_nodemask"] for row in recording.calls] == ["caller", "caller"]
    assert [row["attempts"][0]["ac_nodemask"] for row in recording.calls] == ["other", "caller"]
    assert [row["page"] for row in recording.calls] == [True, True]
    assert recording.consumer.failed == 0


def test_call_that_still_runs_is_written_at_the_end() -> None:
    """Without a result, and without the preempt_count of an attempt if there was none."""
    recording = Recording()
    recording.events.records = [captured(BEGINS, 1000, preempt_count=7), captured(COMPACTION, 900)]
    recording.consumer.finish()
    (row,) = recording.calls
    assert (row["page"], row["duration"], row["attempts"], row["after_last"]) == (None, None, [], ["compaction"])
    assert row["given"]["preempt_count"] is None
    assert (recording.consumer.consumed, recording.consumer.failed, recording.consumer.running) == (1, 0, 1)


def test_clocks_of_two_cpus_give_no_negative_time() -> None:
    """An event may seem to be earlier than the one before it."""
    recording = Recording()
    recording.events.records = [captured(BEGINS, 1000), captured(ATTEMPT, 999), captured(RETURNS, 998, page=1)]
    recording.consumer.finish()
    (row,) = recording.calls
    assert (row["attempts"][0]["after"], row["duration"]) == (0, 0)


def test_filtered_calls_are_not_written() -> None:
    """They are not counted either."""
    recording = Recording(Filters(order=1))
    recording.events.records = [captured(BEGINS, 1), captured(RETURNS, 2, page=0)]
    recording.events.records += [captured(BEGINS, 3, freelist_order=1), captured(RETURNS, 4, page=0)]
    recording.consumer.finish()
    assert [row["time"] for row in recording.calls] == [3]
    assert (recording.consumer.consumed, recording.consumer.failed) == (1, 1)


def test_calls_are_written_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """When enough have ended, or after some time."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(slowpath, "_BATCH_CALLS", 2)
    recording = Recording()

    def one_more() -> int:
        recording.events.records = [captured(BEGINS, 1), captured(RETURNS, 2, page=1)]
        recording.consumer.drain()
        return len(recording.writer.batches)

    assert [one_more() for _ in range(5)] == [0, 1, 1, 2, 2]
    now[0] += slowpath._BATCH_SECONDS - 0.5  # noqa: SLF001 the limit itself
    recording.consumer.drain()
    assert len(recording.writer.batches) == 2
    now[0] += 0.5
    recording.consumer.drain()
    assert len(recording.writer.batches) == 3
    now[0] += 10
    recording.consumer.drain()
    assert len(recording.writer.batches) == 3


def test_calls_whose_return_is_missed_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest counts as a call that did not return, and as incomplete; the newest stay open."""
    monkeypatch.setattr(slowpath, "_MOST_OPEN", 3)
    assembler = CallAssembler()
    ended = take(assembler, [event(BEGINS, task, frame=task, ac=task + 8) for task in range(1, 8)])
    assert [(each.task, each.complete, each.returns) for each in ended] == [(task, False, None) for task in range(1, 5)]
    assert [each.task for each in assembler.still_open()] == [5, 6, 7]


def test_time_of_an_event_does_not_depend_on_the_open_calls() -> None:
    """Ten thousand tasks wait in the slow path; each event meets those of its own task only."""
    assembler = CallAssembler()
    many = np.zeros(10_000, EVENT)
    many["kind"], many["frame"], many["ac"] = BEGINS, np.arange(10_000), np.arange(10_000) + 8
    many["r"]["task"] = np.arange(10_000)
    assembler.take(many)
    many["kind"], many["lost"] = ATTEMPT, np.arange(10_000)
    began = time.process_time()
    assembler.take(many)
    assert time.process_time() - began < 2
    assert [len(each.attempts) for each in assembler.still_open()] == [1] * 10_000


def test_zones_without_a_call_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their event was lost. Those of an open call are kept, however old."""
    monkeypatch.setattr(slowpath, "_MOST_COPIED", 10)
    recording = Recording()
    recording.events.records = [captured(BEGINS, 50)]
    recording.zones.records = [zone(50, 77), *(zone(time, 1) for time in range(100, 200))]
    recording.consumer.drain()
    recording.consumer.finish()
    assert [[each["free"] for each in row["zones"]] for row in recording.calls] == [[77]]
    recording = Recording()
    recording.events.records = [captured(BEGINS, 50)]
    recording.zones.records = [zone(50, 77), *(zone(time, 1) for time in range(100, 200))]
    recording.consumer.drain()
    recording.consumer._write()  # noqa: SLF001 as after a second
    recording.zones.records = [zone(time, 1) for time in range(200, 300)]
    recording.consumer.drain()
    recording.consumer._write()  # noqa: SLF001
    assert len(recording.consumer._copied) <= 6  # noqa: SLF001
    recording.consumer.finish()
    assert [[each["free"] for each in row["zones"]] for row in recording.calls] == [[77]]
