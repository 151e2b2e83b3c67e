# SPDX-License-Identifier: MIT
"""The loop behind the text of a live recording."""

import signal
import threading
import time
from typing import Any

from kalloctrace.live.plain import watch
from kalloctrace.signals import Ending


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


def watched(observer: FakeObserver, interval: float, count: int | None, ending: Ending) -> tuple[list[Any], str]:
    """Return the observations, and why they ended."""
    seen: list[Any] = []
    reason = watch(observer, interval, count, ending, seen.append)  # type: ignore[arg-type] # all that it calls
    return seen, reason


def test_last_interval_ends_it() -> None:
    """There is one observation per interval, but the last is the caller's; the buffers are drained in between."""
    observer = FakeObserver()
    expected = ["an observation", "an observation"], "the intervals were over"
    assert watched(observer, 0.05, 3, Ending()) == expected
    assert observer.log.count("drain") > 6
    assert observer.log[-1] == "drain"


def test_signal_ends_it_at_once() -> None:
    """A signal ends a long interval at once."""
    with Ending() as ending:
        ending.running()
        begin = time.monotonic()
        threading.Timer(0.1, signal.raise_signal, [signal.SIGTERM]).start()
        assert watched(FakeObserver(), 3600.0, None, ending) == ([], "signal SIGTERM")
        assert time.monotonic() - begin < 60
        ending.noticed()
        ending.reason = ""


def test_slow_reader_does_not_shorten_the_next_interval() -> None:
    """A rate over a tiny interval would be meaningless."""
    times: list[float] = []

    def slow(_: object) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            time.sleep(0.3)

    watch(FakeObserver(), 0.1, 3, Ending(), slow)  # type: ignore[arg-type] # all that it calls
    assert times[1] - times[0] >= 0.39
