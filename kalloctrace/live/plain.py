# SPDX-License-Identifier: MIT
"""A recording in progress as text: one block per interval."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from kalloctrace.live.text import clock, count_groups, row_json, row_words, totals_json
from kalloctrace.live.view import View
from kalloctrace.probe.observer import Observer
from kalloctrace.signals import Ending
from kalloctrace.trace.observation import Observation
from kalloctrace.trace.replay import Replay

MAX_ROWS = 20


def text_block(view: View, top: int, *, replayed: bool = False) -> list[str]:
    """Return the last observation as lines for people: each names its time and what it counts; an empty line ends them.

    Args:
        view: of the recording.
        top: maximum number of rows.
        replayed: the recording is a trace that is replayed.
    """
    table = view.table
    if table is None:
        return []
    groups = count_groups(table, replayed=replayed, over=f" in the last {table.interval:.3g} s")
    rows = view.rows()
    hidden = len(rows) - top
    lines = [
        *("  ".join(text for text, _ in group) for group in groups),
        *(f"missed: {cause}" for cause in view.missed_causes),
        *(f"rows: {words}" for words in view.restrictions),
        *("  ".join(row_words(row, view.snapshot.tables)) for row in rows[:top]),
        *([f"… and {hidden:,} more rows"] if hidden > 0 else []),
    ]
    return [*(f"{clock(table.seconds)}  {line}" for line in lines), ""]


def json_block(view: View, top: int | None) -> list[dict[str, Any]]:
    """Return the last observation as JSON objects: the totals, then each row."""
    if view.table is None:
        return []
    rows = [row_json(view.table, row, view.snapshot.tables) for row in view.rows()[:top]]
    return [totals_json(view.table), *rows]


def replayed_observations(replay: Replay, interval: float, count: int | None) -> Iterator[Observation]:
    """Yield the observations of a trace, as fast as it can be read.

    Args:
        replay: the trace.
        interval: seconds of the trace's own time between two observations.
        count: maximum number of observations.
    """
    number = 0
    while not replay.ended and number != count:
        replay.advance(interval)
        number += 1
        yield replay.observe()


def watch(
    observer: Observer, interval: float, count: int | None, ending: Ending, seen: Callable[[Observation], None]
) -> str:
    """Observe a recording; return why it shall end. The observation of the last interval is that of its `finish`.

    Args:
        observer: the recording.
        interval: seconds between two observations.
        count: number of intervals; None for no limit.
        ending: ends it, too.
        seen: called with the observation of each interval but the last.
    """
    number, due = 0, time.monotonic()
    while True:
        number += 1
        # A slow reader does not shorten the next intervals.
        due = max(due, time.monotonic()) + interval
        while (left := due - time.monotonic()) > 0:
            reason = ending.wait(min(left, observer.pause))
            observer.drain()
            if reason:
                return reason
        if number == count:
            return "the intervals were over"
        seen(observer.observe())
