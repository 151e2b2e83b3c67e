# SPDX-License-Identifier: MIT
"""The terminal of the live screen, which may disappear, stop reading or never answer without stopping the recording.

Textual's own driver writes in a thread, too, but its main thread waits for that thread's queue and end: if a write
fails or blocks, neither keys nor signals have an effect.
"""

import os
import select
import signal
import sys
import termios
import threading
import tty
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

from textual.drivers.linux_driver import LinuxDriver

from kalloctrace.signals import Ending

GONE = "the terminal is gone"

_MOST_BYTES = 1 << 18
"""What may wait for a terminal that does not read: some frames. Later ones are dropped."""
_CHUNK = 4096
_CLOSE_SECONDS = 0.5


class Output:
    """Writes to a terminal in a thread of its own; `write` never waits.

    Args:
        fd: the terminal.
        gone: called when the terminal cannot be written to any more.
        caught_up: called when everything was written after something had been dropped.
    """

    def __init__(self, fd: int, gone: Callable[[], object], caught_up: Callable[[], object]) -> None:
        self._fd = fd
        self._gone = gone
        self._caught_up = caught_up
        # Its lock is reentrant: the handler of SIGTSTP may write in the middle of a write.
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = self._closed = False
        self._thread = threading.Thread(target=self._run, name="terminal", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Write a text soon, or drop it if the terminal does not read."""
        data = text.encode(errors="replace")
        with self._changed:
            if self._closed or self._bytes + len(data) > _MOST_BYTES:
                self._dropped = True
                return
            self._waiting.append(data)
            self._bytes += len(data)
            self._changed.notify()

    def discard(self) -> None:
        """Forget what is not being written yet."""
        with self._changed:
            self._waiting.clear()
            self._bytes = 0

    def close(self) -> None:
        """Write the rest, as far as the terminal takes it."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            # Make room for the last bytes, which restore the screen, by discarding frames that nobody has read.
            with suppress(termios.error):
                termios.tcflush(self._fd, termios.TCOFLUSH)
            self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while data := self._next():
            try:
                # A blocked write ends with the process: os.write() has no lock that the exit would wait for.
                while data:
                    data = data[os.write(self._fd, data[:_CHUNK]) :]
            except BlockingIOError:
                # Somebody else has made the terminal non-blocking.
                select.select([], [self._fd], [])
                with self._changed:
                    self._waiting.appendleft(data)
                    self._bytes += len(data)
            except OSError:
                self.discard()
                self._gone()
                return

    def _next(self) -> bytes:
        """Return the next text; empty when this is closed."""
        with self._changed:
            if not self._waiting and self._dropped and not self._closed:
                self._dropped = False
                self._caught_up()
            while not self._waiting:
                if self._closed:
                    return b""
                self._changed.wait()
            data = self._waiting.popleft()
            self._bytes -= len(data)
            return data


class _Live(Protocol):
    """What the driver needs of the application."""

    ending: Ending

    def redraw(self) -> None:
        """Draw the whole screen again."""


class TerminalDriver(LinuxDriver):
    """Textual's driver, with an output that never waits; it ends the recording when the terminal is gone."""

    _output: Output | None = None
    _watching = False

    @property
    def _live(self) -> _Live:
        return cast("_Live", self._app)

    def write(self, data: str) -> None:
        """Write to the terminal, if it is in application mode."""
        if self._output is not None:
            self._output.write(data)

    def start_application_mode(self) -> None:
        """Start application mode, unless the recording has ended."""
        if self._live.ending.reason or self._output is not None:
            return
        if not self._watching:
            self._watching = True
            threading.Thread(target=self._watch, name="hang-up", daemon=True).start()
        self._output = Output(self._fd, self._gone, self._live.redraw)
        super().start_application_mode()  # type: ignore[no-untyped-call]
        with suppress(termios.error):
            # If another process takes the input after select(), read() must not wait.
            attributes = termios.tcgetattr(self.fileno)
            attributes[tty.CC][termios.VMIN] = attributes[tty.CC][termios.VTIME] = 0
            termios.tcsetattr(self.fileno, termios.TCSANOW, attributes)

    def stop_application_mode(self) -> None:
        """Restore the terminal."""
        if self._output is None:
            return
        # In the background this would stop the process, which then could not end.
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        self._output.discard()
        super().stop_application_mode()
        signal.signal(signal.SIGTTOU, before)

    def close(self) -> None:
        """Write the rest."""
        if self._output is not None:
            self._output.close()
            self._output = None
        super().close()

    def run_input_thread(self) -> None:
        """Read keys until the driver is stopped or the terminal is gone."""
        try:
            super().run_input_thread()
        except OSError:
            self._gone()

    @property
    def _fd(self) -> int:
        # Textual's file is standard error, which is a terminal here.
        return sys.stderr.fileno()  # noqa: TID251 - the terminal itself

    def _gone(self) -> None:
        self._live.ending.end(GONE)

    def _watch(self) -> None:
        """Wait for the terminal's end; reading shows it only as input of no bytes, again and again."""
        hang_ups = select.poll()
        for fd in {self.fileno, self._fd}:
            hang_ups.register(fd, 0)
        hang_ups.poll()
        self._gone()
