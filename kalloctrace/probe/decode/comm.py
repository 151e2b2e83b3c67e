# SPDX-License-Identifier: MIT
"""The names of tasks (comm) at any time of a recording: the names at its start, and each change since."""

from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_PROC = Path("/proc")
UNKNOWN = "?"
_IDLE = 0
_NEVER = (1 << 64) - 1
_LATER = 0
"""A placeholder for a name that is filled in later."""


class TaskComms:
    """The history of the name of each thread.

    A name is stored as its position in a growing list, which is the dictionary of the trace's column.
    """

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}
        self._history: dict[int, list[tuple[int, int]]] = {}
        for tid, comm in running_tasks():
            self._history[tid] = [(0, self._position(comm))]

    def update(self, changes: npt.NDArray[np.void]) -> None:
        """Add changes.

        Args:
            changes: `struct task_comm` of record.h, in any order.
        """
        for change in changes[np.argsort(changes["time"], kind="stable")]:
            comm = change["comm"].decode(errors="replace")
            self._history.setdefault(int(change["tid"]), []).append((int(change["time"]), self._position(comm)))

    def column(
        self, tids: npt.NDArray[np.uint32], cpus: npt.NDArray[np.uint32], times: npt.NDArray[np.uint64]
    ) -> pa.DictionaryArray:
        """Return the name of the thread of each call, at the time of the call.

        Args:
            tids: thread ids; 0 for every idle task.
            cpus: the CPU of each call, which is part of the name of an idle task.
            times: CLOCK_MONOTONIC, ns.
        """
        # A task usually makes many calls in a row.
        starts = np.flatnonzero(np.concatenate([[True], tids[1:] != tids[:-1]])) if len(tids) else np.zeros(0, np.int64)
        runs = pa.array(tids[starts]).dictionary_encode()
        lengths = np.diff(starts, append=len(tids))
        span = (int(times.min(initial=_NEVER)), int(times.max(initial=0)))
        known = [self._throughout(tid, span) for tid in runs.dictionary.to_pylist()]
        codes = runs.indices.to_numpy()
        positions = np.repeat(np.array([_LATER if name is None else name for name in known], np.int32)[codes], lengths)
        for code, tid in enumerate(runs.dictionary.to_pylist()):
            if known[code] is None:
                rows = np.flatnonzero(np.repeat(codes == code, lengths))
                positions[rows] = self._idle(cpus[rows]) if tid == _IDLE else self._at(tid, times[rows])
        return pa.DictionaryArray.from_arrays(pa.array(positions), pa.array(list(self._texts), pa.utf8()))

    def _throughout(self, tid: int, span: tuple[int, int]) -> int | None:
        """Return the name that a thread has during the whole span; None if it changes, or depends on the CPU."""
        if tid == _IDLE:
            return None
        history = self._history.get(tid, [(0, self._position(UNKNOWN))])
        first, last = (max(bisect_right(history, time, key=itemgetter(0)) - 1, 0) for time in span)
        return history[first][1] if first == last else None

    def _at(self, tid: int, times: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
        since, names = (np.array(part) for part in zip(*self._history[tid], strict=True))
        at = np.searchsorted(since.astype(np.uint64), times, side="right")
        chosen: npt.NDArray[np.int32] = names.astype(np.int32)[np.maximum(at - 1, 0)]
        return chosen

    def _idle(self, cpus: npt.NDArray[np.uint32]) -> npt.NDArray[np.int32]:
        names = np.zeros(int(cpus.max()) + 1, np.int32)
        for cpu in np.flatnonzero(np.bincount(cpus)):
            names[cpu] = self._position(f"swapper/{cpu}")
        return names[cpus]

    def _position(self, comm: str) -> int:
        return self._texts.setdefault(comm, len(self._texts))


def running_tasks() -> Iterator[tuple[int, str]]:
    """Yield the id and the name of each existing thread."""
    for path in _PROC.glob("[0-9]*/task/[0-9]*/comm"):
        try:
            comm = path.read_bytes()
        except OSError:
            # The thread has ended.
            continue
        yield int(path.parent.name), comm.removesuffix(b"\n").decode(errors="replace")
