# SPDX-License-Identifier: MIT
"""A recording under way as text: one block an interval."""

import json
import time
from collections.abc import Callable, Iterable, Iterator

from kalloctrace.live.text import legend_lines, row_json, table_lines, totals_json
from kalloctrace.live.view import View
from kalloctrace.probe.observer import Observer
from kalloctrace.probe.recorder import signalled
from kalloctrace.trace.observation import Observation
from kalloctrace.trace.replay import Replay

WIDTH = 80
MOST_ROWS = 20


class TextBlocks:
    """Makes blocks of lines for people; each short name is explained where it comes for the first time.

    Args:
        view: how the recording is looked at.
        top: so many rows at most.
    """

    def __init__(self, view: View, top: int) -> None:
        self._view = view
        self._top = top
        self._explained: set[tuple[str, str]] = set()

    def __call__(self) -> str:
        """Return the last moment."""
        view = self._view
        if view.table is None:
            return ""
        rows = view.rows()
        lines, legend = table_lines(view.table, rows[: self._top], view.by, view.snapshot.tables, WIDTH)
        hidden = len(rows) - self._top
        more = [f"… and {hidden:,} rows more"] if hidden > 0 else []
        new = [pair for pair in legend if pair not in self._explained]
        self._explained.update(new)
        return "".join(f"{line}\n" for line in (*lines, *more, *legend_lines(new, WIDTH)))


def json_block(view: View, top: int | None) -> str:
    """Return it as an object a line: the numbers of all, then each row."""
    if view.table is None:
        return ""
    rows = [row_json(view.table, row, view.snapshot.tables) for row in view.rows()[:top]]
    return "\n".join(json.dumps(line) for line in (totals_json(view.table), *rows))


def show(moments: Iterable[Observation], block: Callable[[], str], view: View, write: Callable[[str], object]) -> None:
    """Write a block for each moment.

    Args:
        moments: of one recording.
        block: makes the text of the view's last moment.
        view: how it is looked at.
        write: writes a text and a new line, so that its reader has it at once.
    """
    for seen in moments:
        view.update(seen)
        write(block())


def played(replay: Replay, interval: float, count: int | None) -> Iterator[Observation]:
    """Yield the moments of a trace, as fast as it can be read.

    Args:
        replay: the trace.
        interval: seconds of the trace's time between two.
        count: so many at most.
    """
    number = 0
    while not replay.ended and number != count:
        replay.advance(interval)
        number += 1
        yield replay.observe()


def recorded(observer: Observer, interval: float, count: int | None, wakeup: int) -> Iterator[Observation]:
    """Yield the moments of a recording until it has ended; what came since the last interval is one of them.

    Args:
        observer: the recording.
        interval: seconds between two.
        count: so many at most.
        wakeup: a pipe that has a byte when a signal wants it to end.
    """
    number, due = 0, time.monotonic()
    while number != count:
        number += 1
        # A reader that was slow does not make the next intervals shorter.
        due = max(due, time.monotonic()) + interval
        while (left := due - time.monotonic()) > 0:
            reason = signalled(wakeup, min(left, observer.pause))
            observer.drain()
            if reason:
                yield observer.finish(reason)
                return
        yield observer.observe() if number != count else observer.finish("the intervals were over")
