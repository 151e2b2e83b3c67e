# SPDX-License-Identifier: MIT
"""A progress bar for work that takes longer than a second: on standard error, and only on a terminal."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kalloctrace.console import stderr

if TYPE_CHECKING:
    from kalloctrace.trace.reader import TraceReader

PATIENCE = 1.0
"""Seconds before the bar appears."""

_REFRESH = 0.2


@contextmanager
def show_progress(what: str, done: Callable[[], float]) -> Iterator[None]:
    """Show a progress bar while the block runs, if it runs long; the bar disappears at the end.

    Args:
        what: the work, for people.
        done: returns the finished share, from 0 to 1; it is called from another thread.
    """
    if not stderr().is_terminal:
        yield
        return
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(what, done, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch(what: str, done: Callable[[], float], ended: threading.Event) -> None:
    if ended.wait(PATIENCE):
        return
    from kalloctrace.styled import progress_bar

    with progress_bar(stderr(), what) as show:
        while not ended.wait(_REFRESH):
            show(done())


@contextmanager
def reading(path: Path) -> Iterator["TraceReader"]:
    """Open a trace, and show a progress bar if reading it takes long.

    Raises:
        KalloctraceError: as of `TraceReader`.
    """
    from kalloctrace.trace.reader import TraceReader

    done = [0.0]
    with TraceReader(path, done.append) as reader, show_progress(f"reading {path}", lambda: done[-1]):
        yield reader
