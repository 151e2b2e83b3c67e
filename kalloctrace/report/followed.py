# SPDX-License-Identifier: MIT
"""A trace as it stands, read again when it has grown: also one that is being recorded."""

from pathlib import Path
from threading import Lock

from kalloctrace.report.metrics import Moment, moment_of
from kalloctrace.trace.reader import TraceReader


class FollowedTrace:
    """A file that may still grow, or be replaced by another recording.

    Args:
        path: the trace.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._read: tuple[tuple[int, int, int], Moment] | None = None

    def now(self) -> Moment:
        """Return what the file holds by now.

        Raises:
            KalloctraceError: it is no trace, or cannot be verified.
        """
        # Several may ask at once, each in a thread of its own.
        with self._lock:
            state = self._state()
            if self._read is None or self._read[0] != state:
                self._read = (state, self._moment())
            return self._read[1]

    def _state(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            # Reading it says why.
            return (0, 0, 0)
        return (found.st_ino, found.st_size, found.st_mtime_ns)

    def _moment(self) -> Moment:
        with TraceReader(self._path) as trace:
            rows = list(trace.counted())
            return moment_of(trace, rows, None if trace.totals is None else trace.totals.seconds)
