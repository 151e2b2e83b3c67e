# SPDX-License-Identifier: MIT
"""A recording as it stands: a trace that is read again when it has grown, or a capture under way in this program."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Protocol

from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.report.metrics.prometheus import RecordingState, recording_state
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import Tally
from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.trace.totals import Totals


class TraceSource:
    """A file that may still grow, or be replaced by another recording.

    Args:
        path: the trace.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._read: tuple[tuple[int, int, int], RecordingState] | None = None

    def now(self) -> RecordingState:
        """Return what the file holds by now.

        Raises:
            KalloctraceError: it is no trace, or cannot be verified.
        """
        # Several may ask at once, each in a thread of its own.
        with self._lock:
            state = self._state()
            if self._read is None or self._read[0] != state:
                self._read = (state, self._read_state())
            return self._read[1]

    def _state(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            # Reading it says why.
            return (0, 0, 0)
        return (found.st_ino, found.st_size, found.st_mtime_ns)

    def _read_state(self) -> RecordingState:
        with TraceReader(self._path) as trace:
            counted = trace.counted()
            rows = list(counted)
            ending = counted.finish()
            return recording_state(trace, rows, ending, None if ending.totals is None else ending.totals.seconds)


class CaptureCounts(Protocol):
    """What a capture has counted since its beginning."""

    @property
    def seconds(self) -> float:
        """Return how long that is."""

    @property
    def rows(self) -> RowBatch:
        """Return the rows with their counts; an allocation may be in several."""

    @property
    def totals(self) -> Totals:
        """Return what was counted besides."""


class Capture(Protocol):
    """A capture under way."""

    @property
    def snapshot(self) -> Snapshot:
        """Return the kernel and machine."""

    def observe(self) -> CaptureCounts:
        """Return what was counted so far, and go on."""


class CaptureSource:
    """A capture whose numbers are asked for by other threads than the one that drains it.

    Args:
        capture: what is captured.
        lock: whoever drains the capture must hold it meanwhile.
        name: what the recording is called.
        sample: one call in so many is captured.
    """

    def __init__(self, capture: Capture, lock: Lock, name: str, sample: int = 1) -> None:
        self._capture = capture
        self._lock = lock
        self._name = name
        self._sample = sample

    def now(self) -> RecordingState:
        """Return what was captured by now.

        Raises:
            KalloctraceError: it cannot be verified.
        """
        with self._lock:
            seen = self._capture.observe()
        tally = Tally()
        tally.add(seen.rows.allocations, seen.rows.indices, seen.rows.counts)
        info = _CaptureInfo(Path(self._name), self._capture.snapshot, self._sample)
        return recording_state(info, list(tally.rows()), Ending(seen.totals, truncated=True), seen.seconds)


@dataclass(frozen=True)
class _CaptureInfo:
    """What is known of a capture besides its rows."""

    path: Path
    snapshot: Snapshot
    sample: int
