# SPDX-License-Identifier: MIT
"""A program on its own terminal."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

LEFT_SCREEN = b"\x1b[?1049l"
"""The escape sequence that leaves the alternate screen."""


class Terminal:
    """A running program and what it has printed.

    Attributes:
        process: the program.
        printed: its output so far.

    Args:
        process: the program.
        end: our end of its terminal.
        settings: the attributes of the terminal before the program started.
        theirs: the program's end of the terminal.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", end: int, settings: list[Any], theirs: int) -> None:
        self.process = process
        self.printed = b""
        self._end = end
        self._settings = settings
        self._theirs = theirs

    def wait_for(self, text: bytes, seconds: float) -> None:
        """Read until the program has printed a text."""
        deadline = time.monotonic() + seconds
        while text not in self.printed:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.printed[-2000:]!r}"
            self._read(0.1)

    def send(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._end, keys)

    def end(self, seconds: float) -> int:
        """Wait for the program's end, and return its exit code."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running: {self.printed[-2000:]!r}"
            self._read(0.1)
        while self._read(0.2):
            pass
        return self.process.returncode

    @property
    def restored(self) -> bool:
        """Whether the terminal has its former attributes and screen."""
        return termios.tcgetattr(self._theirs) == self._settings and LEFT_SCREEN in self.printed

    def _read(self, seconds: float) -> bool:
        if not select.select([self._end], [], [], seconds)[0]:
            return False
        self.printed += os.read(self._end, 1 << 16)
        return True


@contextmanager
def on_terminal(
    command: Sequence[str], rows: int = 24, columns: int = 80, pager: str | None = "cat"
) -> Iterator[Terminal]:
    """Run a program on a terminal of a given size; end it in any case.

    Args:
        command: the program and its arguments.
        rows: of the terminal.
        columns: of the terminal.
        pager: for $PAGER, as nobody would leave one that waits; None for the inherited one.
    """
    end, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    settings = termios.tcgetattr(theirs)
    environment = {**os.environ, **({} if pager is None else {"PAGER": pager}), "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        try:
            yield Terminal(process, end, settings, theirs)
        finally:
            process.kill()
            os.close(end)
            os.close(theirs)
