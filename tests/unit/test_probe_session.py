# SPDX-License-Identifier: MIT
"""The loop between program and trace, with a fake program."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kalloctrace.probe import recorder
from kalloctrace.probe.attach.counts import Counts
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.layout import struct_dtype
from kalloctrace.probe.recorder import DRAIN_INTERVAL, Session

CALL = struct_dtype("call", {"NODEMASK_WORDS": 1, "BY_WORDS": 0})
MAX_ORDER = 10


class FakeProbe:
    """Has counted ten calls, dropped one, and holds two unfinished ones; one of these requests too high an order."""

    utilization = 0.0

    def __init__(self) -> None:
        self.log: list[str] = []

    def start(self) -> None:
        """Log the call."""
        self.log.append("start")

    def stop(self) -> None:
        """Log the call."""
        self.log.append("stop")

    def unfinished(self) -> Any:  # noqa: ANN401 numpy's
        """Return two calls."""
        calls = np.zeros(2, CALL)
        calls["e"]["a"]["order"] = [0, MAX_ORDER + 1]
        return calls

    def running(self) -> int:
        """Return none."""
        return 0

    def counts(self) -> Counts:
        """Return the counts."""
        return Counts(10, 1, *(0 for _ in range(13)))


class FakeConsumer:
    """Consumes as many calls as the test sets."""

    def __init__(self, log: list[str]) -> None:
        self.consumed = self.unnamed = 0
        self.waiting = 0
        self.log = log

    def drain(self) -> None:
        """Log the call."""
        self.log.append("drain")

    def write(self) -> None:
        """Take over what waits."""
        self.consumed, self.waiting = self.consumed + self.waiting, 0

    def finish(self, rejected: np.ndarray[Any, Any]) -> None:
        """Take over the rest."""
        self.waiting += len(rejected)
        self.write()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> tuple[Session, FakeProbe, FakeConsumer]:
    """Return a session with its fakes."""
    probe = FakeProbe()
    consumer = FakeConsumer(probe.log)
    monkeypatch.setattr(recorder, "_consumers", lambda *_: ([consumer], None))
    kernel = SimpleNamespace(features=SimpleNamespace(max_order=MAX_ORDER))
    capture: Any = SimpleNamespace(
        probe=probe, kernel=kernel, filters=Filters(), plan=SimpleNamespace(one=None, hierarchy=None, mode="stream")
    )
    return Session(capture, None), probe, consumer  # type: ignore[arg-type] # no consumer writes


def test_calls_in_a_buffer_count_as_running(played: tuple[Session, FakeProbe, FakeConsumer]) -> None:
    """At the end it is known what they were. All calls are accounted for at any time."""
    session, _, consumer = played
    session.begin()
    consumer.waiting = 5
    for submitted, running in ((0, 9), (5, 4)):
        totals = session.totals((), "still recording", 1.0)
        assert (totals.submitted, totals.running) == (submitted, running)
        assert totals.opened == totals.submitted + totals.lost + totals.replaced + totals.running
        session.write()
    consumer.waiting = 2
    session.stop()
    session.finish()
    totals = session.totals((), "over", 2.0)
    assert (totals.submitted, totals.running) == (8, 1)
    assert totals.opened == totals.submitted + totals.lost + totals.replaced + totals.running


def test_everything_is_drained_before_it_is_written(played: tuple[Session, FakeProbe, FakeConsumer]) -> None:
    """An observation includes all calls up to it."""
    session, probe, _ = played
    session.begin()
    session.write()
    assert probe.log == ["start", "drain"]


def test_full_buffer_is_drained_without_a_pause(played: tuple[Session, FakeProbe, FakeConsumer]) -> None:
    """Otherwise there is an interval between two drains."""
    session, probe, _ = played
    assert session.pause == DRAIN_INTERVAL
    probe.utilization = 0.5
    assert session.pause == 0.0


@pytest.mark.parametrize(("max_rate", "full", "idles"), [(None, 0.0, True), (None, 0.01, False), (1000, 0.0, False)])
def test_counting_needs_fewer_drains(
    monkeypatch: pytest.MonkeyPatch, max_rate: int | None, full: float, idles: bool
) -> None:
    """Unless something is sent, or a rate is to be limited in each interval."""
    probe = FakeProbe()
    probe.utilization = full
    monkeypatch.setattr(recorder, "_consumers", lambda *_: ([], None))
    kernel = SimpleNamespace(features=SimpleNamespace(max_order=MAX_ORDER))
    plan = SimpleNamespace(one=None, hierarchy=None, mode="aggregate")
    capture: Any = SimpleNamespace(probe=probe, kernel=kernel, filters=Filters(max_rate=max_rate), plan=plan)
    assert (Session(capture, None).pause > DRAIN_INTERVAL) is idles  # type: ignore[arg-type] # no consumer writes


def test_one_probe_has_counted_the_calls_in_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program counts them apart: they are opened besides those that other programs opened, such as bulk calls."""
    probe = FakeProbe()
    records, counts = FakeConsumer(probe.log), FakeConsumer(probe.log)
    monkeypatch.setattr(recorder, "_consumers", lambda *_: ([records, counts], None))
    kernel = SimpleNamespace(features=SimpleNamespace(max_order=MAX_ORDER))
    plan = SimpleNamespace(one=SimpleNamespace(), hierarchy=None, mode="aggregate")
    capture: Any = SimpleNamespace(probe=probe, kernel=kernel, filters=Filters(), plan=plan)
    session = Session(capture, None)  # type: ignore[arg-type] # no consumer writes
    session.begin()
    records.waiting, counts.waiting = 9, 700
    session.write()
    totals = session.totals((), "still recording", 1.0)
    assert (totals.opened, totals.submitted, totals.dropped, totals.running) == (710, 709, 1, 0)
    assert totals.dropped_by_flags == 0
