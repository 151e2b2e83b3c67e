# SPDX-License-Identifier: MIT
"""The names of tasks at any time of a recording: those at its start, and each change since."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_PROC = Path("/proc")
UNKNOWN = "?"
_IDLE = 0


class TaskNames:
    """Knows which name a thread had when.

    Names are kept as positions in a growing list, which is the dictionary of the trace's column.
    """

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}
        self._history: dict[int, list[tuple[int, int]]] = {}
        for tid, comm in running_tasks():
            self._history[tid] = [(0, self._position(comm))]

    def learn(self, changes: npt.NDArray[np.void]) -> None:
        """Take in changes.

        Args:
            changes: `struct name` of record.h, in any order.
        """
        for change in changes[np.argsort(changes["time"], kind="stable")]:
            comm = change["comm"].decode(errors="replace")
            self._history.setdefault(int(change["tid"]), []).append((int(change["time"]), self._position(comm)))

    def column(
        self, tids: npt.NDArray[np.uint32], cpus: npt.NDArray[np.uint32], times: npt.NDArray[np.uint64]
    ) -> pa.DictionaryArray:
        """Return the name of each thread at its time.

        Args:
            tids: thread ids; the idle tasks all have 0.
            cpus: the CPU of each, which is part of an idle task's name.
            times: CLOCK_MONOTONIC, ns.
        """
        encoded = pa.array(tids).dictionary_encode()
        codes = encoded.indices.to_numpy()
        histories = [self._history.get(tid, [(0, self._position(UNKNOWN))]) for tid in encoded.dictionary.to_pylist()]
        positions = np.array([history[0][1] for history in histories], np.int32)[codes]
        for code, (tid, history) in enumerate(zip(encoded.dictionary.to_pylist(), histories, strict=True)):
            if tid != _IDLE and len(history) == 1:
                continue
            rows = np.flatnonzero(codes == code)
            if tid == _IDLE:
                positions[rows] = self._idle(cpus[rows])
            else:
                since, names = (np.array(part, np.int64) for part in zip(*history, strict=True))
                positions[rows] = names[np.maximum(np.searchsorted(since, times[rows], side="right") - 1, 0)]
        return pa.DictionaryArray.from_arrays(pa.array(positions), pa.array(list(self._texts), pa.utf8()))

    def _idle(self, cpus: npt.NDArray[np.uint32]) -> npt.NDArray[np.int32]:
        names = np.zeros(int(cpus.max()) + 1, np.int32)
        for cpu in np.flatnonzero(np.bincount(cpus)):
            names[cpu] = self._position(f"swapper/{cpu}")
        return names[cpus]

    def _position(self, comm: str) -> int:
        return self._texts.setdefault(comm, len(self._texts))


def running_tasks() -> Iterator[tuple[int, str]]:
    """Yield the threads that exist, with their names."""
    for path in _PROC.glob("[0-9]*/task/[0-9]*/comm"):
        try:
            comm = path.read_bytes()
        except OSError:
            # It has ended meanwhile.
            continue
        yield int(path.parent.name), comm.removesuffix(b"\n").decode(errors="replace")
