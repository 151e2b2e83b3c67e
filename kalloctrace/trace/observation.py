# SPDX-License-Identifier: MIT
"""A recording as it stands at one moment, whether it goes on or is played back."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import Indices
from kalloctrace.trace.tally import RunningTally, counts_of
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import TraceWriter


@dataclass(frozen=True)
class Observation:
    """What was counted since the beginning.

    Attributes:
        seconds: since the beginning.
        rows: a row for each allocation, in a stream for each with its task and stack, and its count.
        totals: what is missing, and what is still running.
        generation: where two moments have the same, rows have the same places in both.
        moves: where each place of an earlier generation went in the next; the oldest ones are forgotten.
    """

    seconds: float
    rows: RowBatch
    totals: Totals
    generation: int = 0
    moves: Mapping[int, Indices] = field(default_factory=dict)

    @property
    def counts(self) -> npt.NDArray[np.uint64]:
        """Return the calls of each row."""
        counts = self.rows.counts
        return np.ones(len(self.rows.indices), np.uint64) if counts is None else counts

    def follows(self, earlier: "Observation") -> bool:
        """Tell whether it is known where the rows of an earlier moment are now."""
        return all(generation in self.moves for generation in range(earlier.generation, self.generation))

    def counts_at(self, earlier: "Observation") -> npt.NDArray[np.uint64]:
        """Return the calls that each row had at an earlier moment, which this one follows."""
        counts = earlier.counts
        for generation in range(earlier.generation, self.generation):
            move = self.moves[generation]
            moved = np.zeros(int(move.max(initial=-1)) + 1, np.uint64)
            np.add.at(moved, move[: len(counts)], counts)
            counts = moved
        return np.pad(counts, (0, len(self.rows.indices) - len(counts)))


class Source(Protocol):
    """A recording under way.

    Attributes:
        snapshot: the kernel and machine.
        recording: how it is made, as a trace has it.
        ended: why nothing more will come; empty while it goes on.
    """

    snapshot: Snapshot
    recording: Mapping[str, Any]
    ended: str

    def drain(self) -> None:
        """Take over what there is; wanted some times a second."""

    def observe(self) -> Observation:
        """Return what was counted so far. It takes nothing away from what is counted."""

    def finish(self, reason: str) -> Observation:
        """End the recording, and return what was counted to the last call; also when it has ended already."""

    def write(self, path: Path) -> None:
        """Write what was counted so far as a trace of its own, an aggregate.

        Raises:
            KalloctraceError: the file exists, or cannot be made.
        """


def observation(seconds: float, tally: RunningTally, totals: Totals) -> Observation:
    """Return what a tally has counted by now."""
    return Observation(seconds, tally.rows(), totals, tally.generation, dict(tally.moves))


def write_observation(
    path: Path, snapshot: Snapshot, recording: Mapping[str, Any], seen: Observation, *, whole: bool = True
) -> None:
    """Write what was counted as an aggregate.

    Args:
        path: the file to make.
        snapshot: the kernel and machine.
        recording: how the recording was made.
        seen: what was counted.
        whole: what is missing is known; else the trace is truncated, as the one that it comes from.

    Raises:
        KalloctraceError: the file exists, or cannot be made.
    """
    counts = counts_of(seen.rows)
    met = np.flatnonzero(counts).astype(np.int32)
    with TraceWriter(path, snapshot, {**recording, "mode": "aggregate", "stacks": False}) as writer:
        writer.add(seen.rows.allocations)
        writer.write_aggregate(counts[met], met)
        if whole:
            writer.close(replace(seen.totals, submitted=int(counts.sum())))
