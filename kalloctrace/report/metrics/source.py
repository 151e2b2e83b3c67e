# SPDX-License-Identifier: MIT
"""Where metrics come from: a trace that is read again when it grows, or a capture in this process."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.report.metrics.prometheus import RecordingState, recording_state
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import Tally
from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.trace.totals import Totals


class TraceSource:
    """A trace that may still grow or be replaced by another recording.

    Args:
        path: the trace.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._read: tuple[tuple[int, int, int], RecordingState] | None = None

    def now(self) -> RecordingState:
        """Return the present state of the trace.

        Raises:
            KalloctraceError: the file is not a trace, or cannot be verified.
        """
        # Scrapes may run at the same time, each in its own thread.
        with self._lock:
            state = self._state()
            if self._read is None or self._read[0] != state:
                self._read = (state, self._read_state())
            return self._read[1]

    def _state(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            # Reading the file raises the error.
            return (0, 0, 0)
        return (found.st_ino, found.st_size, found.st_mtime_ns)

    def _read_state(self) -> RecordingState:
        with TraceReader(self._path) as trace:
            rows, ending = trace.distinct()
            return recording_state(trace, rows, ending, None if ending.totals is None else ending.totals.seconds)


class CaptureCounts(Protocol):
    """The counts of a capture since its start."""

    @property
    def seconds(self) -> float:
        """Return the duration so far."""

    @property
    def rows(self) -> RowBatch:
        """Return the rows with their counts; several rows may have the same allocation."""

    @property
    def totals(self) -> Totals:
        """Return the recorder's counts."""


class Capture(Protocol):
    """A capture in progress."""

    @property
    def snapshot(self) -> Snapshot:
        """Return the kernel and machine."""

    @property
    def recording(self) -> Mapping[str, Any]:
        """Return how the recording is made, as a trace describes it."""

    def observe(self) -> CaptureCounts:
        """Return the counts so far; the capture continues."""


class CaptureSource:
    """A capture that other threads read while one thread drains it.

    Args:
        capture: the capture.
        lock: held while the capture is drained or read.
        name: of the recording.
        sample: one call in this many is captured.
    """

    def __init__(self, capture: Capture, lock: Lock, name: str, sample: int = 1) -> None:
        self._capture = capture
        self._lock = lock
        self._name = name
        self._sample = sample

    def now(self) -> RecordingState:
        """Return the present state of the capture.

        Raises:
            KalloctraceError: the capture cannot be verified.
        """
        with self._lock:
            seen = self._capture.observe()
        tally = Tally()
        tally.add(seen.rows.allocations, seen.rows.indices, seen.rows.counts)
        info = _CaptureInfo(Path(self._name), self._capture.snapshot, self._sample, self._capture.recording)
        return recording_state(info, tally.rows(), Ending(seen.totals, truncated=True), seen.seconds)


@dataclass(frozen=True)
class _CaptureInfo:
    """A capture without its rows, as `verify_counted` needs it."""

    path: Path
    snapshot: Snapshot
    sample: int
    recording: Mapping[str, Any]
