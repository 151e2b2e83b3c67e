# SPDX-License-Identifier: MIT
"""What a person sees while a command takes longer than a second: on standard error, and only on a terminal."""

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
"""Seconds without an answer that need no explanation."""

_REFRESH = 0.2


@contextmanager
def shown(what: str, done: Callable[[], float]) -> Iterator[None]:
    """Show how far a piece of work has come, if it takes long; nothing is left of that when it ends.

    Args:
        what: what is done, for people.
        done: tells how much of it is done, from 0 to 1; it is called from another thread.
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
    """Open a trace, and show how far it is read if that takes long.

    Raises:
        KalloctraceError: as of `TraceReader`.
    """
    from kalloctrace.trace.reader import TraceReader

    done = [0.0]
    with TraceReader(path, done.append) as reader, shown(f"reading {path}", lambda: done[-1]):
        yield reader
