# SPDX-License-Identifier: MIT
"""Counts of calls of the slow path, by request and task."""

from kalloctrace.trace.slow_tally import OTHERS, SlowTally
from tests.traces import slow_calls


def test_tasks_beyond_the_limit_are_counted_together() -> None:
    """No call and no time is lost, and a task that is known keeps its count."""
    call = next(call for call in slow_calls() if call["duration"])
    tally = SlowTally(tasks=True, most=2)
    for pid in (1, 2, 3, 4, 1):
        tally.add({**call, "pid": pid, "comm": f"task-{pid}"})
    counts = tally.counts()
    assert [(key.comm, key.pid) for key in counts.keys] == [("task-1", 1), ("task-2", 2), (OTHERS, None)]
    assert counts.calls.tolist() == [2, 1, 2]
    assert counts.ns.tolist() == [n * call["duration"] for n in (2, 1, 2)]


def test_tasks_are_not_kept_apart_where_rows_have_none() -> None:
    """In an aggregate, calls are counted by their arguments."""
    call = slow_calls()[0]
    tally = SlowTally(tasks=False, most=2)
    for pid in range(5):
        tally.add({**call, "pid": pid})
    (key,) = tally.counts().keys
    assert (key.comm, key.pid, key.stack) == (None, None, None)
    assert tally.counts().calls.tolist() == [5]


def test_the_limit_is_not_longer_than_itself() -> None:
    """As in `report --slower-than`; a call whose return was not captured has no time."""
    call = next(call for call in slow_calls() if call["duration"])
    tally = SlowTally(tasks=False, most=9, longer_than=1000)
    for duration in (1000, 1001, None):
        tally.add({**call, "duration": duration})
    assert [
        (key.longer, calls) for key, calls in zip(tally.counts().keys, tally.counts().calls.tolist(), strict=True)
    ] == [
        (False, 2),
        (True, 1),
    ]


def test_priority_of_a_task_is_no_other_request() -> None:
    """What has no effect on the preparation does not divide requests; the order does."""
    call = slow_calls()[0]
    tally = SlowTally(tasks=False, most=9)
    for given in ({"prio": 1}, {"prio": 2}, {"oom_victim": True}, {"order": 9}):
        tally.add({**call, "given": {**call["given"], **given}})
    assert [given["order"] for given in tally.counts().given] == [call["given"]["order"], 9]


def test_counts_are_those_of_their_moment() -> None:
    """Later calls change later counts only, and keys that are in both come first."""
    call = slow_calls()[0]
    tally = SlowTally(tasks=True, most=9)
    tally.add(call)
    before = tally.counts()
    tally.add(call)
    tally.add({**call, "comm": "another"})
    assert before.calls.tolist() == [1]
    assert tally.counts().calls.tolist() == [2, 1]
    assert tally.counts().keys[0].comm == call["comm"]
