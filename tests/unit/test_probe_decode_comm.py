# SPDX-License-Identifier: MIT
"""The name of a thread is its name at the time of the call."""

import gc
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from kalloctrace.probe.decode import comm as names
from kalloctrace.probe.decode.comm import UNKNOWN, TaskComms, running_tasks
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
    return np.array([(time, 0, tid, 0, comm)], NAME)


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


def test_changes_count_in_the_order_of_time(tasks: TaskComms) -> None:
    """Whatever their order in one batch; a call before the first known name of a thread has that name."""
    tasks.update(np.concatenate([change(30, 9, b"third"), change(10, 9, b"first"), change(20, 9, b"second")]))
    calls = [(9, 0, time) for time in (5, 10, 19, 20, 29, 30, 99)]
    assert named(tasks, *calls) == ["first", "first", "first", "second", "second", "third", "third"]


def test_name_that_changes_inside_the_batch_is_found_for_each_call(tasks: TaskComms) -> None:
    """Also if calls of several threads alternate, and for a thread whose name does not change in between."""
    tasks.update(np.concatenate([change(20, 7, b"make"), change(20, 8, b"cc")]))
    calls = [(7, 0, 19), (8, 1, 20), (0, 1, 20), (7, 0, 20), (0, 0, 21), (7, 1, 30), (8, 0, 19)]
    assert named(tasks, *calls) == ["sh", "cc", "swapper/1", "make", "swapper/0", "make", "cc"]


def test_change_after_the_last_call_is_not_used(tasks: TaskComms) -> None:
    """A change before the first call is kept."""
    tasks.update(np.concatenate([change(10, 7, b"make"), change(40, 7, b"late")]))
    assert named(tasks, (7, 0, 11), (7, 0, 39)) == ["make", "make"]


def test_no_calls_have_no_names(tasks: TaskComms) -> None:
    """An empty batch is a column without rows."""
    empty = np.zeros(0, np.uint32)
    assert len(tasks.column(empty, empty, np.zeros(0, np.uint64))) == 0


def test_names_that_are_not_text_are_replaced(tasks: TaskComms) -> None:
    """A task may choose any bytes."""
    tasks.update(change(1, 7, b"a\xff"))
    assert named(tasks, (7, 0, 2)) == ["a\ufffd"]


def test_running_tasks_are_those_of_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread with its name; one that has ended meanwhile is left out."""
    for pid, tid, comm in (("7", "7", b"sh\n"), ("7", "9", b"a\xff\n"), ("7", "8", None), ("self", "7", b"no\n")):
        folder = tmp_path / pid / "task" / tid
        folder.mkdir(parents=True)
        if comm is None:
            (folder / "comm").symlink_to(tmp_path / "ended")
        else:
            (folder / "comm").write_bytes(comm)
    monkeypatch.setattr(names, "_PROC", tmp_path)
    assert sorted(running_tasks()) == [(7, "sh"), (9, "a\ufffd")]


def test_an_unknown_name_is_a_question_mark(tasks: TaskComms) -> None:
    """The value that the trace's readers know."""
    assert named(tasks, (8, 0, 5)) == ["?"]


def test_columns_are_text_also_without_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dictionary of an empty batch has the type that the trace's schema declares."""
    monkeypatch.setattr(names, "running_tasks", lambda: iter(()))
    empty = np.zeros(0, np.uint32)
    assert TaskComms().column(empty, empty, np.zeros(0, np.uint64)).type.value_type == pa.utf8()


def test_changes_at_one_time_count_in_the_order_in_which_they_came(tasks: TaskComms) -> None:
    """Many threads get their names in one tick of a coarse clock; the last name of one thread holds."""
    tasks.update(np.concatenate([change(5, 7, f"n{number}".encode()) for number in range(100)]))
    assert named(tasks, (7, 0, 6)) == ["n99"]


def test_a_thread_that_ended_hides_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The threads after it in /proc have their names."""
    present = tmp_path / "present"
    present.write_bytes(b"sh\n")
    ended = tmp_path / "7" / "ended"

    class Proc:
        """A /proc that lists a thread that has ended first."""

        def glob(self, _: str) -> list[Path]:
            directory = tmp_path / "9"
            directory.mkdir()
            present.rename(directory / "comm")
            return [ended, directory / "comm"]

    monkeypatch.setattr(names, "_PROC", Proc())
    assert list(running_tasks()) == [(9, "sh")]


def forks(first: int, last: int, comm: bytes = b"child") -> npt.NDArray[np.void]:
    """Return the changes of new threads with ids and times from the first to before the last."""
    return np.array([(time, 0, time, 0, comm) for time in range(first, last)], NAME)


def test_threads_that_ended_are_discarded_and_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that runs keeps its name, however old; what is unknown is not guessed, but counted."""
    monkeypatch.setattr(names, "running_tasks", lambda: iter([(7, "init"), (150, "child")]))
    tasks = TaskComms(kept=100)
    tasks.update(forks(100, 300))
    assert named(tasks, (101, 0, 101), (299, 0, 299)) == ["child", "child"]
    tasks.discard()
    # The threads that ended before the list was made may have rows in the next batch.
    assert named(tasks, (101, 0, 102)) == ["child"]
    tasks.discard()
    assert named(tasks, (7, 0, 400), (150, 0, 400), (299, 0, 400)) == ["init", "child", "child"]
    assert tasks.unknown == 0
    assert named(tasks, (101, 0, 103), (7, 0, 400), (101, 0, 104), (150, 0, 400)) == [UNKNOWN, "init", UNKNOWN, "child"]
    assert tasks.unknown == 2


def test_a_new_thread_does_not_lend_its_name_to_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id is used again; a late call of the thread that had it has no name any more."""
    monkeypatch.setattr(names, "running_tasks", lambda: iter(()))
    tasks = TaskComms(kept=100)
    tasks.update(forks(100, 300))
    tasks.discard()
    tasks.discard()
    tasks.update(change(500, 101, b"second"))
    assert named(tasks, (101, 0, 200), (101, 0, 501), (101, 0, 499)) == [UNKNOWN, "second", "second"]
    assert tasks.unknown == 1


def test_a_thread_that_began_after_the_list_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not in the list of running threads, but it has not ended."""
    monkeypatch.setattr(names, "running_tasks", lambda: iter(()))
    tasks = TaskComms(kept=10)
    tasks.update(forks(100, 120))
    tasks.discard()
    tasks.update(forks(120, 160))
    tasks.discard()
    assert named(tasks, (119, 0, 200), (120, 0, 200)) == [UNKNOWN, "child"]


def test_old_names_of_a_thread_are_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread that changes its name for ever takes no memory; the names in use keep their order."""
    monkeypatch.setattr(names, "running_tasks", lambda: iter([(7, "n0")]))
    tasks = TaskComms(kept=100)
    for time in range(100, 5000, 10):
        tasks.update(np.concatenate([change(at, 7, f"n{at}".encode()) for at in range(time, time + 10)]))
        assert named(tasks, (7, 0, time), (7, 0, time + 3), (7, 0, time + 99)) == [
            f"n{time}",
            f"n{time + 3}",
            f"n{time + 9}",
        ]
        tasks.discard()
    assert tasks.unknown == 0
    thread, cpu, at = np.array([7], np.uint32), np.array([0], np.uint32), np.array([9999], np.uint64)
    assert len(tasks.column(thread, cpu, at).dictionary) < 250


def entries(tasks: TaskComms) -> int:
    """Return how many objects it keeps; bytes would also change with the size of tables and with spare tuples."""
    seen: dict[int, object] = {}
    found: list[object] = [tasks]
    while found:
        new = {id(each): each for each in found if not isinstance(each, type | ModuleType)}
        found = gc.get_referents(*(new[key] for key in new.keys() - seen.keys()))
        seen |= new
    return len(seen)


def test_memory_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifteen thousand forks, each with a name of its own, take no more at the end than after the first thousands."""
    monkeypatch.setattr(names, "running_tasks", lambda: iter([(1, "init")]))
    tasks = TaskComms(kept=500)
    kept = []
    for start in range(1000, 16_000, 50):
        new = np.array([(time, 0, time % 32768, 0, f"t{time}".encode()) for time in range(start, start + 50)], NAME)
        tasks.update(new)
        column = tasks.column(new["tid"], np.zeros(50, np.uint32), new["time"])
        assert column.take([0, 49]).to_pylist() == [f"t{start}", f"t{start + 49}"]
        kept.append(entries(tasks))
        tasks.discard()
    assert max(kept[30:]) <= 1.05 * max(kept[:30])
    assert max(kept) > 2500
    assert tasks.unknown == 0


def test_changes_of_two_cpus_count_in_the_order_of_time(tasks: TaskComms) -> None:
    """A change may be read after a later one."""
    tasks.update(change(30, 7, b"third"))
    tasks.update(change(20, 7, b"second"))
    assert named(tasks, (7, 0, 10), (7, 0, 25), (7, 0, 30)) == ["sh", "second", "third"]
