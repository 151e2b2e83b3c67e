# SPDX-License-Identifier: MIT
"""A recording that is observed while it runs, with a fake kernel."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.probe import observer
from kalloctrace.probe.attach.choice import NOTHING_ASKED
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.attach.plan import By
from kalloctrace.probe.observer import Observer
from kalloctrace.trace.observation import Observation
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import ALLOCATION
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import RowWriter
from kalloctrace.verify.verification import verify_trace
from tests.traces import source


class FakeSession:
    """Counts calls of two allocations; a third one shows only at the end, as a rejected call does."""

    pause = 0.1

    def __init__(self, writer: RowWriter, log: list[str]) -> None:
        self.log = log
        self.calls = [0, 0, 0]
        self.fails = False
        self.by_name = False
        self._writer = writer
        self._written = [0, 0, 0]
        _, _, row = source()
        rows = [{f.name: {**row, "order": order}[f.name] for f in ALLOCATION} for order in range(3)]
        writer.add(pa.array(rows, ALLOCATION))

    def begin(self) -> None:
        """Log the call."""
        self.log.append("begin")

    def names(self, calls: int) -> pa.DictionaryArray | None:
        """Return the name of each call's task; None where calls are not counted by it."""
        return pa.array(["sh"] * calls).dictionary_encode() if self.by_name else None

    def drain(self) -> None:
        """Log the call, or fail."""
        if self.fails:
            raise OSError("the buffer is gone")
        self.log.append("drain")

    def write(self) -> None:
        """Write what is more than before."""
        more = [now - before for now, before in zip(self.calls, self._written, strict=True)]
        present = [i for i, count in enumerate(more) if count]
        counts = np.array([more[i] for i in present], np.uint64)
        self._writer.write_aggregate(counts, np.array(present, np.int32), self.names(len(present)))
        self._written = list(self.calls)

    def stop(self) -> None:
        """Log the call."""
        self.log.append("stop")

    def finish(self) -> None:
        """Write the rest, and one more."""
        self.calls[2] += 1
        self.write()

    def totals(self, changed: tuple[str, ...], reason: str, seconds: float) -> Totals:
        """Return totals that go with what was written."""
        calls = sum(self._written)
        return Totals(calls, calls, 0, 0, 0, 0, 0, 0, 0, changed, reason, seconds)


class Machine:
    """What a test has of the fake kernel."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.session: FakeSession
        self.changed: tuple[str, ...] = ()

    @contextmanager
    def attached(self, *_: object, **__: object) -> Iterator[Any]:
        """Log attaching and detaching."""
        self.log.append("attach")
        try:
            yield SimpleNamespace(description={"mode": "aggregate"}, machine_changed=lambda: self.changed)
        finally:
            self.log.append("detach")

    def make_session(self, _: object, writer: RowWriter) -> FakeSession:
        """Return the session."""
        self.session = FakeSession(writer, self.log)
        return self.session


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Put a fake kernel below the observer."""
    made = Machine()
    monkeypatch.setattr(observer, "attached", made.attached)
    monkeypatch.setattr(observer, "Session", made.make_session)
    return made


def observing(output: Path | None = None, *, overwrite: bool = False, by: By | None = None) -> Observer:
    """Return an observer in aggregate mode."""
    kernel: Any = SimpleNamespace(snapshot=source()[0])
    how: Any = {"mode": "aggregate", "asked": NOTHING_ASKED, "stacks": False, "by": by}
    return Observer(kernel, Filters(), output=output, overwrite=overwrite, **how)


def counts(seen: Observation) -> list[int]:
    """Return the counts of the rows."""
    assert seen.rows.counts is not None
    found: list[int] = seen.rows.counts.tolist()
    return found


def test_moments_add_up(machine: Machine) -> None:
    """Each observation counts from the beginning, and earlier ones do not change."""
    with observing() as watched:
        machine.session.calls = [5, 0, 0]
        first = watched.observe()
        machine.session.calls = [7, 4, 0]
        second = watched.observe()
        last = watched.finish("over")
        assert watched.observe() == last
    assert [counts(seen) for seen in (first, second, last)] == [[5], [7, 4], [7, 4, 1]]
    assert (last.totals.reason, last.totals.submitted) == ("over", 12)
    assert machine.log == ["attach", "begin", "stop", "detach"]


def test_names_of_tasks_are_counted(machine: Machine) -> None:
    """Where an aggregate has them."""
    with observing(by="comm") as watched:
        machine.session.calls, machine.session.by_name = [5, 4, 0], True
        seen = watched.observe()
    assert counts(seen) == [5, 4]
    assert seen.rows.task_columns["comm"].to_pylist() == ["sh", "sh"]
    assert seen.rows.task_columns["pid"].to_pylist() == [None, None]


def test_failure_detaches_and_leaves_a_whole_trace(machine: Machine, tmp_path: Path) -> None:
    """Whatever happened in between."""
    path = tmp_path / "t.arrows"

    def watch() -> None:
        with observing(path) as watched:
            machine.session.calls = [2, 0, 0]
            machine.session.fails = True
            watched.drain()

    with pytest.raises(OSError, match="buffer is gone"):
        watch()
    assert machine.log[-2:] == ["stop", "detach"]
    with TraceReader(path) as reader:
        assert verify_trace(reader).allocations == 3
        assert not reader.ending().truncated


def test_session_is_written_as_it_goes_on(machine: Machine, tmp_path: Path) -> None:
    """A trace of the counts so far, in addition to the one that is being recorded."""
    recorded, so_far = tmp_path / "recorded.arrows", tmp_path / "so-far.arrows"
    with observing(recorded) as watched:
        machine.session.calls = [3, 1, 0]
        watched.write(so_far)
        machine.session.calls = [9, 1, 0]
    for path, allocations in ((so_far, 4), (recorded, 11)):
        with TraceReader(path) as reader:
            assert reader.aggregate
            assert verify_trace(reader).allocations == allocations


def test_machine_that_changed_is_reported(machine: Machine) -> None:
    """At the end in any case."""
    machine.changed = ("nodes",)
    with observing() as watched:
        assert watched.finish("over").totals.machine_changed == ("nodes",)


def test_existing_file_is_not_replaced(machine: Machine, tmp_path: Path) -> None:
    """Everything is detached, and the file is unchanged."""
    path = tmp_path / "t.arrows"
    path.write_text("mine")
    with pytest.raises(KalloctraceError, match="will not overwrite"), observing(path):
        pass
    assert path.read_text() == "mine"
    assert machine.log == ["attach", "detach"]
