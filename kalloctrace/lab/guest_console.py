# SPDX-License-Identifier: MIT
"""A guest's console: what it says, since when it is silent, and how a person follows a boot."""

import logging
import os
import time
from pathlib import Path

from kalloctrace.console import Console, stderr
from kalloctrace.text import printable

_TAIL = 1 << 20
_LAST_LINE = 4096
# Longer lines than a kernel's are cut.
_LONGEST = 1024
_EVERY = 10.0


class GuestConsole:
    """The file to which a guest's console is written."""

    def __init__(self, path: Path) -> None:
        """Watch a file.

        Args:
            path: the file; it exists.
        """
        self.path = path
        self._size = 0
        self._heard = time.monotonic()

    def silence(self) -> float:
        """Return for how many seconds the guest has said nothing, as far as the calls of this method show."""
        now = time.monotonic()
        size = self.path.stat().st_size
        if size != self._size:
            self._size, self._heard = size, now
        return now - self._heard

    def lines(self, size: int = _TAIL) -> list[str]:
        """Return the last lines that are not empty, escaped.

        Args:
            size: how many bytes to read at most.
        """
        with self.path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            text = file.read(size).decode("utf-8", "replace")
        return [printable(line.strip()[:_LONGEST]) for line in text.splitlines() if line.strip()]

    def last_line(self) -> str:
        """Return the last line that is not empty, escaped, or a text that says that there is none."""
        return next(reversed(self.lines(_LAST_LINE)), "nothing on its console yet")


class BootProgress:
    """Shows which kernel boots, for how long, and its last words: one line of a terminal, else a line in 10 seconds."""

    def __init__(self, kernel: str, guest: GuestConsole, console: Console) -> None:
        """Begin.

        Args:
            kernel: its release or name.
            guest: what it says.
            console: where to show it.
        """
        self._kernel = kernel
        self._guest = guest
        self._console = console
        self._start = time.monotonic()
        self._next = self._start

    def show(self) -> None:
        """Show the state, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        line = f"{self._kernel} boots, {now - self._start:.0f} s: {self._guest.last_line()}"
        if self._console.is_terminal:
            self._next += 1
            self._console.rewrite(line)
        else:
            self._next += _EVERY
            self._console.line(line)

    def end(self) -> None:
        """Remove the line from a terminal."""
        if self._console.is_terminal:
            self._console.rewrite("")


class LogOnConsole(logging.Handler):
    """Prints messages of a logger on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message; it may quote anything."""
        stderr().line(self.format(record))
