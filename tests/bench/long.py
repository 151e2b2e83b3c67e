# SPDX-License-Identifier: MIT
"""Replays the forks of a long recording through the consumer, the writer and the tally, without a kernel.

`make long` replays those of two hours with 1,000 forks per second, each with a name of its own, in both modes. It
prints the memory at one tenth and at the end, and fails if the latter is more than 1.05 times the former.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa

from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.probe.decode import comm
from kalloctrace.probe.drain import AggregateConsumer, StreamConsumer
from kalloctrace.probe.layout import struct_dtype
from kalloctrace.probe.maps.grouping import Grouper
from kalloctrace.probe.maps.structs import words_of
from kalloctrace.trace.schema import ALLOCATION, STREAM
from kalloctrace.trace.tally import RunningTally
from kalloctrace.trace.writer import Column, StreamColumns, TraceWriter
from tests.slow_scenarios import ONE_NODE

FORKS = 7_200_000
_AT_ONCE = 2000
_ALLOCATIONS = 3000
_PID_MAX = 1 << 22
_FIRST_TID = 300
_MOST_GROWTH = 1.05

CALL = struct_dtype("call", {"NODEMASK_WORDS": 1, "BY_WORDS": 0})
NAME = struct_dtype("task_comm", {})
Structs = npt.NDArray[np.void]


class Measured(NamedTuple):
    """What a replay took.

    Attributes:
        tenth: the most memory in the first tenth, bytes.
        rest: the most memory after it.
        seconds: CPU time.
        calls: those that were written, or counted.
        unnamed: how many of them have no name, because it was discarded.
        wrong: how many of them have another name than the task had.
    """

    tenth: int
    rest: int
    seconds: float
    calls: int
    unnamed: int
    wrong: int


class _Forks:
    """Plays the program's maps: two seconds of forks at a time, each with a new name and two calls."""

    dtype = CALL["e"]

    def __init__(self) -> None:
        self.done = 0
        self._names = np.zeros(0, NAME)
        self._events = np.zeros(0, self.dtype)

    def next(self) -> None:
        """Fork some threads."""
        numbers = np.arange(self.done, self.done + _AT_ONCE)
        self._names = np.zeros(_AT_ONCE, NAME)
        self._names["time"], self._names["tid"] = 1000 * numbers + 1, _FIRST_TID + numbers % (_PID_MAX - _FIRST_TID)
        self._names["comm"] = [b"t%d" % number for number in numbers]
        self._events = np.zeros(2 * _AT_ONCE, self.dtype)
        self._events["time"] = np.repeat(1000 * numbers, 2) + np.tile([2, 3], _AT_ONCE)
        self._events["pid_tgid"] = np.repeat(self._names["tid"].astype(np.uint64), 2)
        self._events["stack"] = -1
        self._events["a"]["gfp_mask"] = np.arange(2 * _AT_ONCE) % 7 + 7 * (self.done // _AT_ONCE % (_ALLOCATIONS // 7))
        self.done += _AT_ONCE

    def drain(self) -> Iterator[Structs]:
        """Yield the events, once."""
        events, self._events = self._events, self._events[:0]
        yield events

    def names(self) -> Structs:
        """Return the changes of names, once."""
        names, self._names = self._names, self._names[:0]
        return names


class _Counters:
    """Plays the counters of aggregate mode: how often each allocation was made so far."""

    def __init__(self, forks: _Forks) -> None:
        self._forks = forks
        self._grouper = Grouper(forks.dtype["a"])
        self._counts = np.zeros(0, np.uint64)

    def drain(self) -> None:
        """Nothing is evicted here."""

    def totals(self) -> tuple[npt.NDArray[np.uint64], Structs]:
        """Return the counts, with the calls of the latest forks, and the allocations that are new."""
        (events,) = self._forks.drain()
        numbers, new = self._grouper.numbers(words_of(np.ascontiguousarray(events["a"])))
        self._counts = np.concatenate([self._counts, np.zeros(len(new), np.uint64)])
        np.add.at(self._counts, numbers, np.uint64(1))
        return self._counts.copy(), new


class _Names:
    def __init__(self, forks: _Forks) -> None:
        self.drain = forks.names


class _Maker:
    """Makes allocations that differ in their mask."""

    _BLANK: ClassVar = {"entry": "normal", "order": 0, "preferred_nid": 0, "task_flags": 0, "freelist_calls": 1}

    def make(self, captured: Structs) -> pa.StructArray:
        """Return one allocation for each captured one."""
        return pa.array([self._BLANK | {"gfp_mask": int(each["gfp_mask"])} for each in captured], ALLOCATION)


class _Rows:
    def stacks(self, ids: npt.NDArray[np.int32]) -> pa.DictionaryArray:
        """Return no stack for each call."""
        return pa.nulls(len(ids), STREAM.field("stack").type)


class _Both:
    """Writes to a trace and to a tally, as `live --output` does, and checks the names."""

    def __init__(self, trace: TraceWriter, tally: RunningTally) -> None:
        self.calls = self.wrong = 0
        self._trace, self._tally = trace, tally

    def add(self, allocations: pa.StructArray) -> int:
        """Add allocations to both."""
        self._trace.add(allocations)
        return self._tally.add(allocations)

    def write_stream(self, calls: StreamColumns) -> None:
        """Write calls; the first of each batch shows whether the names are right."""
        at = [0, len(calls.comm) - 1]
        want = [f"t{int(calls.time[row]) // 1000}" for row in at]
        self.wrong += sum(
            got not in (name, comm.UNKNOWN) for got, name in zip(calls.comm.take(at).to_pylist(), want, strict=True)
        )
        self.calls += len(calls.comm)
        self._trace.write_stream(calls)
        self._tally.write_stream(calls)

    def write_aggregate(self, counts: Column, indices: Column, by: pa.DictionaryArray | None = None) -> None:
        """Write counts to both."""
        self.calls += int(np.asarray(counts).sum())
        self._trace.write_aggregate(counts, indices, by)
        self._tally.write_aggregate(counts, indices, by)


def replay(forks: int, output: IO[bytes], mode: str = "stream") -> Measured:
    """Replay so many forks.

    Args:
        forks: at least 100,000, a multiple of 2,000.
        output: receives the trace.
        mode: stream or aggregate.
    """
    source = _Forks()
    process = psutil.Process()
    tenth = rest = 0
    began = time.process_time()
    with TraceWriter(output, builtin_snapshot("6.12", ONE_NODE), {"mode": mode}) as trace:
        tally = RunningTally(tasks=mode == "stream")
        both = _Both(trace, tally)
        consumer: Any = (
            StreamConsumer(source, _Names(source), _Maker(), _Rows(), both)  # type: ignore[arg-type] # as they are used
            if mode == "stream"
            else AggregateConsumer(_Counters(source), _Maker(), both)  # type: ignore[arg-type] # likewise
        )
        while source.done < forks:
            source.next()
            consumer.drain()
            consumer.write()
            if source.done % (forks // 50) < _AT_ONCE:
                tally.rows()
                used = process.memory_info().rss
                if source.done <= forks // 10:
                    tenth = max(tenth, used)
                else:
                    rest = max(rest, used)
    return Measured(tenth, rest, time.process_time() - began, both.calls, consumer.unnamed, both.wrong)


def main() -> int:
    """Replay, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forks", type=int, default=FORKS)
    parser.add_argument("--mode", choices=("stream", "aggregate"), default="stream")
    options = parser.parse_args()
    with Path(os.devnull).open("wb") as nowhere:
        measured = replay(options.forks, nowhere, options.mode)
    print(f"{options.mode}: {options.forks:,} forks, {measured.calls:,} calls: {measured.seconds:.1f} s of CPU time")
    print(f"memory: at most {measured.tenth / 1e6:.1f} MB in the first tenth, {measured.rest / 1e6:.1f} MB after it")
    if options.mode == "stream":
        print(f"calls without a name: {measured.unnamed:,}; with a wrong one: {measured.wrong:,}")
    return int(
        measured.rest > _MOST_GROWTH * measured.tenth or measured.calls != 2 * options.forks or measured.wrong > 0
    )


if __name__ == "__main__":
    sys.exit(main())
