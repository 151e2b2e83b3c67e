# SPDX-License-Identifier: MIT
"""Replays a recorded stream in its own time."""

import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.text import shell_word
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import begins_with
from kalloctrace.trace.observation import Observation, observation, write_observation
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.results import slow_call_ns
from kalloctrace.trace.schema import ALLOCATION
from kalloctrace.trace.slow_split import PARTS, SlowSplit, parts_of, power_of
from kalloctrace.trace.slow_tally import SlowTally
from kalloctrace.trace.tally import MOST_KEYS, RunningTally
from kalloctrace.trace.totals import Totals

_OVER = "the trace is over"
_CUT_OFF = "the trace's end is missing: losses are not known"
_NEVER = (1 << 64) - 1


class Choice(Protocol):
    """Which calls are replayed."""

    def rows(self, batch: RowBatch) -> npt.NDArray[np.bool_]:
        """Return for each row whether it is."""

    def slow_call(self, call: Mapping[str, Any]) -> bool:
        """Return whether a call of the slow path is."""


class Replay:
    """A trace as a running recording.

    Calls, and among them those of the slow path that have returned and those that failed, are as of the replay's time.
    All other counts, such as lost and missed, are of the whole trace, which does not say when they happened.

    Attributes:
        snapshot: the kernel and machine that were recorded.
        recording: how the trace was made.
        ended: why the replay ended; empty while it runs.
        cut_off: the text for `ended` if the end of the trace is missing, from the start; otherwise empty.

    Args:
        path: a stream.
        clock: returns seconds since any fixed moment.
        most: how many combinations of tasks and stacks are kept apart; see `RunningTally`.
        longer_than: calls that are longer than this in the slow path are counted separately, ns.
        choice: makes of the snapshot which calls are replayed; None for all.

    Raises:
        KalloctraceError: the file cannot be read, or has no times.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.monotonic,
        *,
        most: int = MOST_KEYS,
        longer_than: int = 0,
        choice: Callable[[Snapshot], Choice] | None = None,
    ) -> None:
        self.ended = ""
        self._clock = clock
        self._reader = TraceReader(path)
        if self._reader.aggregate:
            self._reader.__exit__()
            raise KalloctraceError(
                f"cannot play {path} back",
                "it is an aggregate, which has no times",
                "play one back that was recorded with --mode stream; see this one with: "
                f"kalloctrace report {shell_word(path)}",
            )
        self.snapshot = self._reader.snapshot
        self.recording: Mapping[str, Any] = self._reader.recording
        self._choice = None if choice is None else choice(self.snapshot)
        self._tally = RunningTally(tasks=True, most=most, longer_than=longer_than)
        self._slow = _SlowReturns(self._tally.slow)
        self._begin, self._last, self._totals, self.cut_off = self._survey()
        self._batches = self._reader.row_batches()
        self._allocations = pa.array([], ALLOCATION)
        self._interned = np.zeros(0, np.int32)
        self._pending: list[_PendingBatch] = []
        self._seconds = 0.0
        self._submitted = 0
        self._looked_at = clock()

    def __enter__(self) -> Self:
        """Start the clock at the trace's first call."""
        self._looked_at = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._reader.__exit__()

    def drain(self) -> None:
        """Replay the time since the previous call of this method."""
        now = self._clock()
        self.advance(now - self._looked_at)
        self._looked_at = now

    def advance(self, seconds: float) -> None:
        """Replay so many seconds of the trace."""
        self._seconds = min(self._seconds + seconds, self._length)
        over = self._seconds >= self._length
        # At the end all calls are replayed, whatever times a damaged file has.
        self._play(_NEVER if over else self._begin + int(self._seconds * 1e9))
        if over:
            self.ended = self.cut_off or _OVER

    def observe(self) -> Observation:
        """Return the counts so far."""
        until = _NEVER if self.ended else self._begin + int(self._seconds * 1e9)
        self._slow.count(until)
        slow, failed = self._slow.numbers()
        totals = replace(
            self._totals,
            submitted=self._submitted,
            seconds=round(self._seconds, 6),
            slow=slow,
            slow_failed=failed,
            slow_split=self._slow.split(until),
        )
        return observation(self._seconds, self._tally, totals)

    def finish(self, reason: str) -> Observation:
        """Stop the replay."""
        self.ended = self.ended or reason
        return self.observe()

    def write(self, path: Path) -> None:
        """Write the counts so far as a trace, an aggregate."""
        write_observation(path, self.snapshot, self.recording, self.observe(), whole=not self.cut_off)

    @property
    def _length(self) -> float:
        """Return the length of the trace in seconds: of its recording, or up to its last call if that is not known."""
        return self._totals.seconds or (self._last - self._begin) / 1e9

    def _survey(self) -> tuple[int, int, Totals, str]:
        """Return the time of the first and the last call, what the recording counted, and `cut_off`."""
        first, last, rows = _NEVER, 0, 0

        def see(batch: RowBatch) -> None:
            nonlocal first, last, rows
            times = batch.task_columns["time"].to_numpy()
            first, last = min(first, int(times.min())), max(last, int(times.max()))
            rows += len(times)

        totals = self._reader.read(see, self._see_slow_call).totals
        first = first if rows else 0
        if totals is None:
            totals = Totals(rows, rows, 0, 0, 0, 0, 0, 0, 0, (), "the end of the trace is missing", 0.0)
            return first, last, totals, _CUT_OFF
        self._slow.recorded |= totals.slow is not None
        return first, last, totals, ""

    def _see_slow_call(self, call: Mapping[str, Any]) -> None:
        self._slow.recorded = True
        if self._choice is None or self._choice.slow_call(call):
            self._slow.add(call)

    def _play(self, until: int) -> None:
        """Count the calls up to a time, in ns."""
        # Calls of one CPU are in order, calls of several are not. A batch may have a later call than the first of the
        # next batch, but is written within a second.
        while not self._pending or self._pending[-1].first <= until + _SLACK:
            batch = next(self._batches, None)
            if batch is None:
                break
            indices = self._indices(batch)
            rows = np.arange(len(indices)) if self._choice is None else np.flatnonzero(self._choice.rows(batch))
            if len(rows):
                self._pending.append(_PendingBatch(batch, indices, rows))
        still = []
        for pending in self._pending:
            due = pending.rows(until)
            if len(due):
                self._count(pending, due)
            if pending.left:
                still.append(pending)
        self._pending = still

    def _count(self, pending: "_PendingBatch", due: npt.NDArray[np.intp]) -> None:
        task_columns = {name: column.take(pa.array(due)) for name, column in pending.task_columns.items()}
        self._tally.count(
            pending.indices[due], comm=task_columns["comm"], pid=task_columns["pid"], stack=task_columns["stack"]
        )
        self._submitted += len(due)

    def _indices(self, batch: RowBatch) -> npt.NDArray[np.int32]:
        if batch.allocations is not self._allocations:
            have = len(self._allocations) if begins_with(batch.allocations, self._allocations) else 0
            new = self._tally.intern(batch.allocations.slice(have))
            self._interned = np.concatenate([self._interned[:have], new])
            self._allocations = batch.allocations
        indices: npt.NDArray[np.int32] = self._interned[batch.indices]
        return indices


class _SlowReturns:
    """The calls of the slow path, which count once they have returned.

    Attributes:
        recorded: the slow path was recorded.

    Args:
        tally: counts them.
    """

    def __init__(self, tally: SlowTally) -> None:
        self.recorded = False
        self._tally = tally
        self._times = array("Q")
        self._numbers = array("L")
        self._ns = array("Q")
        self._order: list[int] | None = None
        self._done = 0
        # For each call whose parts are known: when it returned, its duration, and the parts.
        self._spent = array("Q")
        self._shown: set[str] = set()

    def add(self, call: Mapping[str, Any]) -> None:
        """Take in a call, which has the columns of SLOW."""
        self.recorded = True
        ns = slow_call_ns(call)
        # A call whose return was not captured counts from its begin.
        returned = min(call["time"] + ns, _NEVER)
        self._times.append(returned)
        self._numbers.append(self._tally.number(call))
        self._ns.append(ns)
        spent = parts_of(call)
        if spent is not None:
            self._shown |= {name for name, part in spent.items() if part is not None}
            self._spent.extend((returned, ns, *(part or 0 for part in spent.values())))

    def count(self, until: int) -> None:
        """Count those that returned up to a time, in ns, which never goes back."""
        if self._order is None:
            self._order = np.argsort(np.asarray(self._times), kind="stable").tolist()
        while self._done < len(self._order) and self._times[at := self._order[self._done]] <= until:
            self._tally.count(self._numbers[at], self._ns[at])
            self._done += 1

    def numbers(self) -> tuple[int | None, int | None]:
        """Return how many were counted, and how many of them failed: None if the slow path was not recorded."""
        if not self.recorded:
            return None, None
        counts = self._tally.counts()
        failed = np.array([key.failed for key in counts.keys], np.bool_)
        return int(counts.calls.sum()), int(counts.calls[failed].sum())

    def split(self, until: int) -> SlowSplit | None:
        """Return what those that returned up to a time, in ns, spent their time with; None if that is not recorded."""
        if not self._spent:
            return None
        returned, durations, *parts = np.asarray(self._spent).reshape(-1, 2 + len(PARTS)).T
        done = returned <= np.uint64(until)
        powers = Counter(map(power_of, durations[done].tolist()))
        sums = {
            name: int(ns[done].sum()) if name in self._shown else None for name, ns in zip(PARTS, parts, strict=True)
        }
        return SlowSplit(int(done.sum()), sums, powers)


_SLACK = 2_000_000_000
"""How many ns a batch may be ahead of earlier calls: the recorder writes twice a second."""


class _PendingBatch:
    """A batch with calls that are not due yet.

    Args:
        batch: the batch.
        indices: the allocations of its rows.
        rows: those of its rows that are replayed.
    """

    def __init__(self, batch: RowBatch, indices: npt.NDArray[np.int32], rows: npt.NDArray[np.intp]) -> None:
        self.task_columns = {name: batch.task_columns[name] for name in ("comm", "pid", "stack")}
        self.indices = indices
        times = batch.task_columns["time"].to_numpy()[rows]
        order = np.argsort(times, kind="stable")
        self._order = rows[order]
        self._times = times[order]
        self._done = 0
        self.first = int(self._times[0])

    @property
    def left(self) -> bool:
        return self._done < len(self._times)

    def rows(self, until: int) -> npt.NDArray[np.intp]:
        """Return the rows that became due since the previous call of this method."""
        end = int(np.searchsorted(self._times, until, side="right"))
        due = self._order[self._done : max(end, self._done)]
        self._done = max(end, self._done)
        return due
