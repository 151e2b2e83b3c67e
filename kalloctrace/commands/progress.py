# SPDX-License-Identifier: MIT
"""A progress bar for work that takes longer than a second: on standard error, and only on a terminal."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

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
    if not sys.stderr.isatty():
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
    with _progress() as progress:
        task = progress.add_task(what, total=1.0)
        while not ended.wait(_REFRESH):
            progress.update(task, completed=done())


def _progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


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
