# SPDX-License-Identifier: MIT
"""Events of the slow path become calls, whatever comes in between, and what is missing is said."""

from typing import Any

import numpy as np
import pytest

from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.decode.slowpath import CallAssembler, SlowCall, matches_filter
from kalloctrace.probe.layout import struct_dtype

# As the program numbers the steps of a call.
BEGINS, ATTEMPT, RETURNS, RECLAIM, COMPACTION, OOM = range(6)

LENGTHS = {"NODEMASK_WORDS": 1, "ALLOC_CONTEXT_WORDS": 5, "ZONE_WORDS": 184}
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


def test_call_has_its_attempts_and_what_came_between() -> None:
    """In the order of time."""
    (whole,) = take(CallAssembler(), call(1, 0x100, ATTEMPT, COMPACTION, ATTEMPT, RECLAIM, OOM, ATTEMPT, RECLAIM))
    assert len(whole.attempts) == 3
    assert whole.events_before == [[], ["compaction"], ["direct_reclaim", "oom"], ["direct_reclaim"]]
    assert whole.complete
    assert whole.returns is not None


def test_calls_of_tasks_and_interrupts_are_told_apart() -> None:
    """By task and ac: an interrupt's call lies in another frame of the same task."""
    one, other, inner = call(1, 0x100, ATTEMPT), call(2, 0x900, RECLAIM, ATTEMPT), call(1, 0x80, ATTEMPT)
    mixed = [one[0], other[0], other[1], *inner, one[1], other[2], one[2], other[3]]
    calls = take(CallAssembler(), mixed)
    assert [len(each.attempts) for each in calls] == [1, 1, 1]
    assert [each.events_before[0] for each in calls] == [[], [], ["direct_reclaim"]]


def test_call_may_be_spread_over_two_looks() -> None:
    """What has begun waits for its return."""
    assembler, events = CallAssembler(), call(1, 0x100, ATTEMPT, ATTEMPT)
    assert take(assembler, events[:2]) == []
    assert [len(each.attempts) for each in assembler.still_open()] == [1]
    assert [len(each.attempts) for each in take(assembler, events[2:])] == [2]
    assert assembler.still_open() == []


def test_what_began_before_is_counted() -> None:
    """Attempts and returns of calls whose begin was not seen; what is no part of a call is not."""
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


def test_frame_in_use_again_ends_a_call() -> None:
    """Its return was missed, so that nobody knows what came of it."""
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
    """By what it was given and what it returned."""
    assert matches_filter(fits, ROW)
    assert not matches_filter(fits_not, ROW)
