# SPDX-License-Identifier: MIT
"""The names of tasks (comm) at any time of a recording: the names at its start, and each change since."""

from abc import ABC, abstractmethod
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_PROC = Path("/proc")
UNKNOWN = "?"
_IDLE = 0
_NEVER = (1 << 64) - 1
_LATER = 0
"""A placeholder for a name that is filled in later."""
KEPT = 1 << 14
"""How many names, and changes of names, are kept before those that no row needs any more are discarded."""

_Change = tuple[int, int]
"""The time of a change, and the position of the name since then."""
_time_of = itemgetter(0)


class _Running(NamedTuple):
    """The threads that existed after the change of a certain time was read."""

    newest: int
    tids: frozenset[int]


class TaskHistory(ABC):
    """The history of a text of each thread or process.

    A text is stored as its position in a list, which is the dictionary of the trace's column. With many
    texts, a new list begins whenever texts are discarded.

    Attributes:
        unknown: calls whose thread had a text that is not kept any more.

    Args:
        kept: how many changes and texts to keep, apart from those of the threads that still run.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.unknown = 0
        self._kept = self._most = kept
        self._texts: dict[str, int] = {}
        self._dictionary = pa.array([], pa.utf8())
        self._history: dict[int, list[_Change]] = {}
        self._changes = 0
        self._newest = 0
        self._running: _Running | None = None
        self._discarded_until = 0
        for tid, text in self.running():
            self._history[tid] = [(0, self._position(text))]

    @abstractmethod
    def running(self) -> Iterator[tuple[int, str]]:
        """Yield the id and the text of each thread or process that exists."""

    @abstractmethod
    def idle(self, cpu: int) -> str:
        """Return the text of the idle task of a CPU."""

    def add(self, tids: npt.NDArray[Any], times: npt.NDArray[np.uint64], texts: Iterable[str]) -> None:
        """Add changes, in any order.

        Args:
            tids: the threads, or processes.
            times: CLOCK_MONOTONIC, ns.
            texts: what each has from then on.
        """
        for time, tid, text in sorted(zip(times.tolist(), tids.tolist(), texts, strict=True), key=_time_of):
            history = self._history.setdefault(tid, [])
            # Nearly always at the end: only the changes of two CPUs may arrive in another order than they were made.
            insort(history, (time, self._position(text)), key=_time_of)
        self._changes += len(times)
        self._newest = max(self._newest, int(times.max(initial=0)))

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
        distinct = runs.dictionary.to_pylist()
        known = [self._throughout(tid, span) for tid in distinct]
        codes = np.repeat(runs.indices.to_numpy(), lengths)
        positions = np.array([_LATER if name is None else name for name in known], np.int32)[codes]
        changing = np.array([name is None for name in known], np.bool_)[codes]
        idle = changing & (tids == _IDLE)
        if idle.any():
            positions[idle] = self._idle(cpus[idle])
        rows = np.flatnonzero(changing & ~idle)
        if len(rows):
            histories = [
                self._history.get(tid, []) if name is None and tid != _IDLE else []
                for tid, name in zip(distinct, known, strict=True)
            ]
            positions[rows] = self._at(histories, codes[rows], times[rows])
        if len(self._dictionary) < len(self._texts):
            added = pa.array(list(islice(self._texts, len(self._dictionary), None)), pa.utf8())
            self._dictionary = pa.concat_arrays([self._dictionary, added])
        return pa.DictionaryArray.from_arrays(pa.array(positions), self._dictionary)

    def discard(self) -> None:
        """Discard names that no later row needs, if there are many; call this after each batch of rows.

        Threads that have ended before one batch was read are discarded after it, because their last rows are in it.
        What is discarded is older than the newest changes, half as many as are kept.
        """
        if self._running is not None:
            self._discard(self._running)
            self._running = None
        elif self._changes > self._most:
            self._running = _Running(self._newest, frozenset(tid for tid, _ in self.running()))

    def _discard(self, running: _Running) -> None:
        times = np.fromiter(map(_time_of, chain.from_iterable(self._history.values())), np.uint64)
        recent = self._kept // 2
        until = int(np.partition(times, -recent)[-recent]) if len(times) > recent else 0
        until = min(until, running.newest)
        histories = self._history
        self._history = {}
        for tid, history in histories.items():
            # What holds at that time is kept, unless the thread has ended.
            if tid in running.tids or history[-1][0] > until:
                self._history[tid] = history[max(bisect_right(history, until, key=_time_of) - 1, 0) :]
        self._changes = sum(map(len, self._history.values()))
        self._most = max(self._kept, self._changes * 3 // 2)
        self._discarded_until = until
        if len(self._texts) > recent:
            self._renumber()

    def _renumber(self) -> None:
        """Begin a new list with the names that are still needed."""
        texts = list(self._texts)
        self._texts, self._dictionary = {}, self._dictionary[:0]
        self._history = {
            tid: [(time, self._position(texts[position])) for time, position in history]
            for tid, history in self._history.items()
        }

    def _throughout(self, tid: int, span: tuple[int, int]) -> int | None:
        """Return the name that a thread has during the whole span; None if it changes, or is not that simple."""
        history = self._history.get(tid)
        if tid == _IDLE or (self._discarded_until and (history is None or span[0] < history[0][0])):
            return None
        if history is None:
            return self._position(UNKNOWN)
        first, last = (max(bisect_right(history, time, key=_time_of) - 1, 0) for time in span)
        return history[first][1] if first == last else None

    def _at(
        self, histories: list[list[_Change]], codes: npt.NDArray[np.int32], times: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.int32]:
        """Return the name of each call; a call before the first name of its thread has that name.

        Args:
            histories: of the threads.
            codes: for each call, the index of its thread's history.
            times: the time of each call.
        """
        lengths = np.array([len(history) for history in histories])
        changes = np.array(list(chain.from_iterable(histories)), np.uint64).reshape(-1, 2)
        since, names = changes[:, 0], changes[:, 1].astype(np.int32)
        # Times become ranks, so that one sorted array of numbers has the changes of all threads.
        ranks = np.sort(since)
        stride = len(ranks) + 1
        owners = np.repeat(np.arange(len(histories)), lengths) * stride
        keys = owners + np.searchsorted(ranks, since, side="right")
        keys_of_calls = codes.astype(np.int64) * stride + np.searchsorted(ranks, times, side="right")
        begins = np.cumsum(lengths) - lengths
        found = np.searchsorted(keys, keys_of_calls, side="right") - 1
        early = found < begins[codes]
        none = lengths[codes] == 0
        chosen = np.append(names, np.int32(self._position(UNKNOWN)))[
            np.where(none, -1, np.maximum(found, begins[codes]))
        ]
        # Another thread may have had this id, and its name is discarded.
        lost = none | (early & (times < self._discarded_until))
        if self._discarded_until:
            chosen[lost] = self._position(UNKNOWN)
            self.unknown += int(lost.sum())
        return chosen

    def _idle(self, cpus: npt.NDArray[np.uint32]) -> npt.NDArray[np.int32]:
        names = np.zeros(int(cpus.max()) + 1, np.int32)
        for cpu in np.flatnonzero(np.bincount(cpus)):
            names[cpu] = self._position(self.idle(int(cpu)))
        return names[cpus]

    def _position(self, comm: str) -> int:
        return self._texts.setdefault(comm, len(self._texts))


class TaskComms(TaskHistory):
    """The history of the name of each thread."""

    def running(self) -> Iterator[tuple[int, str]]:
        """Yield the id and the name of each existing thread."""
        return running_tasks()

    def idle(self, cpu: int) -> str:
        """Return the name of an idle task."""
        return f"swapper/{cpu}"

    def update(self, changes: npt.NDArray[np.void]) -> None:
        """Add changes.

        Args:
            changes: `struct task_comm` of record.h, in any order.
        """
        comms = (comm.decode(errors="replace") for comm in changes["comm"].tolist())
        self.add(changes["tid"], changes["time"], comms)


def running_tasks() -> Iterator[tuple[int, str]]:
    """Yield the id and the name of each existing thread."""
    for path in _PROC.glob("[0-9]*/task/[0-9]*/comm"):
        try:
            comm = path.read_bytes()
        except OSError:
            # The thread has ended.
            continue
        yield int(path.parent.name), comm.removesuffix(b"\n").decode(errors="replace")
