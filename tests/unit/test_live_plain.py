# SPDX-License-Identifier: MIT
"""The loop behind the text of a live recording."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kalloctrace.live.plain import recorded


class FakeObserver:
    """Takes note of what is asked of it."""

    pause = 0.01

    def __init__(self) -> None:
        self.log: list[str] = []

    def drain(self) -> None:
        """Take note."""
        self.log.append("drain")

    def observe(self) -> str:
        """Return a moment."""
        self.log.append("observe")
        return "a moment"

    def finish(self, reason: str) -> str:
        """Return the last one."""
        self.log.append("finish")
        return f"the end: {reason}"


@pytest.fixture
def wakeup() -> Iterator[tuple[int, int]]:
    """Yield both ends of a pipe."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def moments(observer: FakeObserver, interval: float, count: int | None, wakeup: int) -> Iterator[Any]:
    """Return the moments."""
    return recorded(observer, interval, count, wakeup)  # type: ignore[arg-type] # what it asks of it


def test_last_interval_ends_it(wakeup: tuple[int, int]) -> None:
    """So many moments as asked for, of which the last holds everything; what comes in is taken over meanwhile."""
    observer = FakeObserver()
    assert list(moments(observer, 0.05, 3, wakeup[0])) == ["a moment"] * 2 + ["the end: the intervals were over"]
    assert observer.log.count("drain") > 6
    assert observer.log[-1] == "finish"


def test_signal_ends_it_at_once(wakeup: tuple[int, int]) -> None:
    """In the middle of a long interval."""
    os.write(wakeup[1], bytes([signal.SIGTERM]))
    begin = time.monotonic()
    assert list(moments(FakeObserver(), 3600.0, None, wakeup[0])) == ["the end: signal SIGTERM"]
    assert time.monotonic() - begin < 60


def test_slow_reader_does_not_shorten_the_next_interval(wakeup: tuple[int, int]) -> None:
    """A rate over an instant would mean nothing."""
    seen = moments(FakeObserver(), 0.1, 3, wakeup[0])
    next(seen)
    time.sleep(0.3)
    begin = time.monotonic()
    next(seen)
    assert time.monotonic() - begin >= 0.09
