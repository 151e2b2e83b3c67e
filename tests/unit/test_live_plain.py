# SPDX-License-Identifier: MIT
"""The loop behind the text of a live recording."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kalloctrace.live.plain import recorded_observations


class FakeObserver:
    """Logs the calls made to it."""

    pause = 0.01

    def __init__(self) -> None:
        self.log: list[str] = []

    def drain(self) -> None:
        """Log the call."""
        self.log.append("drain")

    def observe(self) -> str:
        """Return an observation."""
        self.log.append("observe")
        return "an observation"

    def finish(self, reason: str) -> str:
        """Return the last observation."""
        self.log.append("finish")
        return f"the end: {reason}"


@pytest.fixture
def wakeup() -> Iterator[tuple[int, int]]:
    """Yield both ends of a pipe."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def observations(observer: FakeObserver, interval: float, count: int | None, wakeup: int) -> Iterator[Any]:
    """Return the observations."""
    return recorded_observations(observer, interval, count, wakeup)  # type: ignore[arg-type] # all that it calls


def test_last_interval_ends_it(wakeup: tuple[int, int]) -> None:
    """There is one observation per interval, the last by finish(); the buffers are drained in between."""
    observer = FakeObserver()
    expected = ["an observation", "an observation", "the end: the intervals were over"]
    assert list(observations(observer, 0.05, 3, wakeup[0])) == expected
    assert observer.log.count("drain") > 6
    assert observer.log[-1] == "finish"


def test_signal_ends_it_at_once(wakeup: tuple[int, int]) -> None:
    """A signal ends a long interval at once."""
    os.write(wakeup[1], bytes([signal.SIGTERM]))
    begin = time.monotonic()
    assert list(observations(FakeObserver(), 3600.0, None, wakeup[0])) == ["the end: signal SIGTERM"]
    assert time.monotonic() - begin < 60


def test_slow_reader_does_not_shorten_the_next_interval(wakeup: tuple[int, int]) -> None:
    """A rate over a tiny interval would be meaningless."""
    seen = observations(FakeObserver(), 0.1, 3, wakeup[0])
    next(seen)
    time.sleep(0.3)
    begin = time.monotonic()
    next(seen)
    assert time.monotonic() - begin >= 0.09
