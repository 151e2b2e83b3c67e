# SPDX-License-Identifier: MIT
"""The state of a recording at one moment, whether it is running or replayed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.output.files import complete_output
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import Indices
from kalloctrace.trace.slow_tally import SlowCounts
from kalloctrace.trace.tally import RunningTally, counts_of
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import TraceWriter


@dataclass(frozen=True)
class Observation:
    """The counts since the beginning.

    Attributes:
        seconds: since the beginning.
        rows: a row with its count for each allocation; in a stream, for each allocation with its task and stack.
        totals: the totals so far.
        generation: row positions are stable within a generation.
        moves: for recent generations, the position of each of their rows in the next generation.
        slow: the calls of the slow path.
    """

    seconds: float
    rows: RowBatch
    totals: Totals
    generation: int = 0
    moves: Mapping[int, Indices] = field(default_factory=dict)
    slow: SlowCounts = field(default_factory=SlowCounts)

    @property
    def counts(self) -> npt.NDArray[np.uint64]:
        """Return the number of calls of each row."""
        counts = self.rows.counts
        return np.ones(len(self.rows.indices), np.uint64) if counts is None else counts

    def follows(self, earlier: "Observation") -> bool:
        """Return whether the current positions of an earlier observation's rows are known."""
        return all(generation in self.moves for generation in range(earlier.generation, self.generation))

    def counts_at(self, earlier: "Observation") -> npt.NDArray[np.uint64]:
        """Return the number of calls that each row had in an earlier observation, which this one follows."""
        counts = earlier.counts
        for generation in range(earlier.generation, self.generation):
            move = self.moves[generation]
            moved = np.zeros(int(move.max(initial=-1)) + 1, np.uint64)
            np.add.at(moved, move[: len(counts)], counts)
            counts = moved
        return np.pad(counts, (0, len(self.rows.indices) - len(counts)))


class Source(Protocol):
    """A running recording.

    Attributes:
        snapshot: the kernel and machine.
        recording: how it is made, as in a trace's metadata.
        ended: why it ended; empty while it runs.
    """

    snapshot: Snapshot
    recording: Mapping[str, Any]
    ended: str

    def drain(self) -> None:
        """Consume the pending events; called several times a second."""

    def observe(self) -> Observation:
        """Return the counts so far; does not reset them."""

    def finish(self, reason: str) -> Observation:
        """End the recording if it runs, and return the final counts."""

    def write(self, path: Path) -> None:
        """Write the counts so far as a trace, an aggregate.

        Raises:
            KalloctraceError: the file exists, or cannot be made.
        """


def observation(seconds: float, tally: RunningTally, totals: Totals) -> Observation:
    """Return the current counts of a tally."""
    return Observation(seconds, tally.rows(), totals, tally.generation, dict(tally.moves), tally.slow.counts())


def write_observation(
    path: Path, snapshot: Snapshot, recording: Mapping[str, Any], seen: Observation, *, whole: bool = True
) -> None:
    """Write an observation as an aggregate trace.

    Args:
        path: the file to make.
        snapshot: the kernel and machine.
        recording: how the recording was made.
        seen: the observation.
        whole: the losses are known; otherwise the trace is truncated, like the trace that it comes from.

    Raises:
        KalloctraceError: the file exists, or cannot be made.
    """
    counts = counts_of(seen.rows)
    present = np.flatnonzero(counts).astype(np.int32)
    with (
        complete_output(path, overwrite=False, private=True) as file,
        TraceWriter(file, snapshot, {**recording, "mode": "aggregate", "by": None, "stacks": False}) as writer,
    ):
        writer.add(seen.rows.allocations)
        writer.write_aggregate(counts[present], present)
        if whole:
            writer.close(replace(seen.totals, submitted=int(counts.sum())))
