# SPDX-License-Identifier: MIT
"""A recording as it stands at one moment, whether it goes on or is played back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.trace.encoded import Encoded
from kalloctrace.trace.tally import counts_of
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import TraceWriter


@dataclass(frozen=True)
class Observation:
    """What was counted since the beginning. Rows keep their places, so that two of these can be subtracted.

    Attributes:
        seconds: since the beginning.
        rows: a row for each allocation, in a stream for each with its task and stack, and its count.
        totals: what is missing, and what is still running.
    """

    seconds: float
    rows: Encoded
    totals: Totals


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


def write_counted(path: Path, snapshot: Snapshot, recording: Mapping[str, Any], seen: Observation) -> None:
    """Write what was counted as an aggregate.

    Args:
        path: the file to make.
        snapshot: the kernel and machine.
        recording: how the recording was made.
        seen: what was counted.

    Raises:
        KalloctraceError: the file exists, or cannot be made.
    """
    counts = counts_of(seen.rows)
    met = np.flatnonzero(counts).astype(np.int32)
    with TraceWriter(path, snapshot, {**recording, "mode": "aggregate", "stacks": False}) as writer:
        writer.add(seen.rows.allocations)
        writer.write_aggregate(counts[met], met)
        writer.close(replace(seen.totals, submitted=int(counts.sum())))
