# SPDX-License-Identifier: MIT
"""The name of a thread is its name at the time of the call."""

from collections.abc import Sequence

import numpy as np
import pytest

from kalloctrace.probe.decode import comm as names
from kalloctrace.probe.decode.comm import UNKNOWN, TaskComms
from kalloctrace.probe.layout import struct_dtype

NAME = struct_dtype("task_comm", {})


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> TaskComms:
    """Return the names of a machine where one thread was running at the start."""
    monkeypatch.setattr(names, "running_tasks", lambda: iter([(7, "sh")]))
    return TaskComms()


def named(tasks: TaskComms, *calls: tuple[int, int, int]) -> Sequence[str]:
    """Return the names of calls, each a thread, a CPU and a time."""
    tids, cpus, times = np.array(calls, np.uint64).T
    found: list[str] = tasks.column(tids.astype(np.uint32), cpus.astype(np.uint32), times).to_pylist()
    return found


def change(time: int, tid: int, comm: bytes) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Return one change as the program sends it."""
    return np.array([(time, tid, 0, comm)], NAME)


def test_threads_that_existed_at_the_start_have_names(tasks: TaskComms) -> None:
    """An unknown thread has none."""
    assert named(tasks, (7, 0, 5), (8, 0, 5)) == ["sh", UNKNOWN]


def test_name_changes_with_time(tasks: TaskComms) -> None:
    """Calls before an exec have the old name, whenever the change arrives; a new thread has its parent's name."""
    tasks.update(change(20, 7, b"make"))
    tasks.update(change(30, 9, b"make"))
    assert named(tasks, (7, 0, 19), (7, 0, 20), (9, 0, 31), (7, 0, 5)) == ["sh", "make", "make", "sh"]


def test_idle_tasks_are_those_of_their_cpus(tasks: TaskComms) -> None:
    """They all have the thread id 0."""
    assert named(tasks, (0, 0, 5), (0, 3, 5)) == ["swapper/0", "swapper/3"]


def test_positions_stay(tasks: TaskComms) -> None:
    """Each dictionary begins with the one before, which is what makes writing it cheap."""
    thread, cpu, time = np.array([7], np.uint32), np.array([0], np.uint32), np.array([9], np.uint64)
    first = tasks.column(thread, cpu, time).dictionary
    tasks.update(change(1, 7, b"cc"))
    second = tasks.column(thread, cpu, time).dictionary
    assert second.to_pylist()[: len(first)] == first.to_pylist()
    assert len(second) > len(first)
