# SPDX-License-Identifier: MIT
"""The recording of one worker: attached once, written to one segment after another, within bounds."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import psutil
import pyarrow as pa

from kalloctrace.kernel.live import LiveKernel
from kalloctrace.monitor.config import Config
from kalloctrace.monitor.segments import SegmentFolder, SegmentWriter
from kalloctrace.monitor.start import Log
from kalloctrace.probe.attach.choice import ASKED
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.recorder import Session, attached
from kalloctrace.trace.containers import Containers
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.tally import RunningTally
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import Column, StreamColumns

CALL_SECONDS = 200e-9
"""The time that the programs add to a call: at most 460 instructions (docs/performance.md), at 2.3 a nanosecond."""

_CHECKPOINT = 10.0
"""Seconds between two writes of counts: what a power loss may cost of the open segment."""
_COST_SECONDS = 5.0
_MACHINE_SECONDS = 10.0
_WINDOW = 30.0
"""Seconds over which the cost is judged: a short burst is not above the bound."""


class Cost(NamedTuple):
    """What the recording has cost since it was attached.

    Attributes:
        programs: seconds of the programs, by the number of calls and `CALL_SECONDS`.
        recorder: CPU seconds of this process.
        share: the percentage of the time of all processors lately; None while that is not known.
        memory: resident bytes of this process.
    """

    programs: float
    recorder: float
    share: float | None
    memory: int


class CostMeter:
    """Measures the cost against the time of all processors.

    Args:
        processors: how many there are.
    """

    def __init__(self, processors: int) -> None:
        self._processors = processors
        self._process = psutil.Process()
        self._began = time.process_time()
        self._samples: deque[tuple[float, float]] = deque()

    def measure(self, calls: int) -> Cost:
        """Return the cost.

        Args:
            calls: that the programs have seen since the beginning.
        """
        programs, recorder = calls * CALL_SECONDS, time.process_time() - self._began
        now, spent = time.monotonic(), programs + recorder
        self._samples.append((now, spent))
        while len(self._samples) > 1 and now - self._samples[1][0] >= _WINDOW:
            self._samples.popleft()
        began, before = self._samples[0]
        share = None if now - began < _WINDOW else 100 * (spent - before) / (now - began) / self._processors
        return Cost(programs, recorder, share, self._process.memory_info().rss)


class Counts(NamedTuple):
    """The counts since the recording was attached.

    Attributes:
        seconds: since then.
        rows: with their counts.
        totals: what the recorder has counted.
    """

    seconds: float
    rows: RowBatch
    totals: Totals


class SegmentedRecording:
    """A recording of this machine in segments.

    Attributes:
        snapshot: the kernel and machine.
        recording: how the recording is made, as a trace describes it.
        ended: why it ended; empty while it is attached.
        cost: what it has cost so far.

    Args:
        kernel: the running kernel.
        config: what to record, and the bounds.
        folder: where the segments are.
        log: takes lines for people.

    Raises:
        KalloctraceError: on entry: the machine cannot be traced.
    """

    def __init__(self, kernel: LiveKernel, config: Config, folder: SegmentFolder, log: Log) -> None:
        self.snapshot = kernel.snapshot
        self.recording: Mapping[str, Any] = {}
        self.ended = ""
        self.cost = Cost(0.0, 0.0, None, 0)
        self._capture = attached(
            kernel,
            Filters(),
            mode="aggregate",
            asked=ASKED[config.attach],
            stacks=False,
            slow=config.slow,
            by=config.by,
        )
        self._config = config
        self._folder = folder
        self._log = log
        self._tally = RunningTally(tasks=False)
        self._contexts = ExitStack()
        self._last: Counts | None = None
        self._processors = psutil.cpu_count() or 1

    def __enter__(self) -> Self:
        """Attach, and begin to record."""
        with ExitStack() as contexts:
            self._attached = contexts.enter_context(self._capture)
            self.recording = self._attached.description
            self._segments = SegmentWriter(self._folder, self.snapshot, self.recording, self._config, self._log)
            self._session = Session(self._attached, _Both(self._tally, self._segments), checkpoint=_CHECKPOINT)
            self._session.begin()
            self._began = self._cost_at = self._machine_at = time.monotonic()
            self._meter = CostMeter(self._processors)
            self._contexts = contexts.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Complete the last segment and detach, if `finish` did not."""
        with self._contexts:
            self.finish("recording aborted" if kind is not None else "the service ended")

    def confine(self, folder: Path, in_other_thread: Callable[[Callable[[], None]], None]) -> list[str]:
        """Give up the privileges that the rest of the recording does not need; see `confine`."""
        return self._attached.confine([folder], files_later=True, in_other_thread=in_other_thread)

    @property
    def config(self) -> Config:
        """Return the configuration in force."""
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        self._config = self._segments.config = config

    @property
    def segments(self) -> SegmentWriter:
        """Return the writer of segments."""
        return self._segments

    @property
    def pause(self) -> float:
        """Return the number of seconds until the next drain."""
        return self._session.pause

    def drain(self) -> None:
        """Read what was captured."""
        if not self.ended:
            self._session.drain()

    def observe(self) -> Counts:
        """Return the counts so far; the recording goes on."""
        if self._last is not None:
            return self._last
        self._session.write()
        return self._counts("still recording")

    def check(self) -> str:
        """Keep to the limits and bounds, about once a second; return why the recording must be detached, if it must.

        Returns:
            "cpu" or "memory", which are above their bound; "machine", whose memory has changed; or an empty text.
        """
        now = time.monotonic()
        self._segments.retry()
        if self._segments.due:
            self._turn()
        if now - self._machine_at >= _MACHINE_SECONDS:
            self._machine_at = now
            if self._attached.machine_changed():
                self._log("the memory of the machine has changed")
                return "machine"
            if (processors := psutil.cpu_count() or 1) != self._processors:
                self._log(f"the machine has {processors} processors now, and had {self._processors}")
                self._processors = processors
                self._meter = CostMeter(processors)
                self.recording = {**self.recording, "cpus": processors}
                self._turn(self.recording)
        if now - self._cost_at >= _COST_SECONDS:
            self._cost_at = now
            return self._above_bounds()
        return ""

    def _turn(self, recording: Mapping[str, Any] | None = None) -> None:
        self._session.write()
        self._segments.turn(self._totals("the segment is complete"), recording)

    def _above_bounds(self) -> str:
        totals = self._totals("still recording")
        self.cost = self._meter.measure(totals.opened + (totals.own or 0) + (totals.filtered or 0))
        share, memory, config = self.cost.share, self.cost.memory, self._config
        if share is not None and share > config.cpu:
            self._log(f"recording takes {share:.1f} % of the processors, and may take {config.cpu:.1f} %")
            return "cpu"
        if memory > config.memory:
            self._log(f"the recorder has {memory >> 20} MiB resident, and may have {config.memory >> 20} MiB")
            return "memory"
        return ""

    def finish(self, reason: str) -> None:
        """Complete the last segment, and detach."""
        if self._last is not None:
            return
        self.ended = reason
        seconds = time.monotonic() - self._began
        with self._contexts.pop_all():
            self._session.stop()
            self._session.finish()
            self._last = self._counts(reason, seconds, self._attached.machine_changed())
            self._segments.close(self._last.totals)

    def _totals(self, reason: str, seconds: float | None = None, changed: tuple[str, ...] = ()) -> Totals:
        return self._session.totals(changed, reason, time.monotonic() - self._began if seconds is None else seconds)

    def _counts(self, reason: str, seconds: float | None = None, changed: tuple[str, ...] = ()) -> Counts:
        totals = self._totals(reason, seconds, changed)
        return Counts(totals.seconds, self._tally.rows(), totals)


class _Both:
    """Writes rows to the tally, of which metrics are made, and to the segments.

    Calls that are not grouped yet add allocations to the tally alone, so each has its own numbers.
    """

    def __init__(self, tally: RunningTally, segments: SegmentWriter) -> None:
        self._tally = tally
        self._segments = segments
        self._numbers = np.zeros(0, np.int32)

    def add(self, allocations: pa.RecordBatch | pa.StructArray) -> int:
        """Add allocations to both; return the number of the first one."""
        first = self._tally.add(allocations)
        self._numbers = np.concatenate([self._numbers, np.arange(first, first + len(allocations), dtype=np.int32)])
        return self._segments.add(allocations)

    def write_aggregate(self, counts: Column, indices: Column, by: pa.DictionaryArray | None = None) -> None:
        """Write how many calls there were of each allocation."""
        self._segments.write_aggregate(counts, indices, by)
        self._tally.write_aggregate(counts, self._numbers[np.asarray(indices)])

    def write_stream(self, calls: StreamColumns) -> None:
        """Write calls, one row each."""
        self._segments.write_stream(calls)
        self._tally.write_stream(calls._replace(indices=self._numbers[np.asarray(calls.indices)]))

    def write(self, batch: pa.RecordBatch) -> None:
        """Write calls that are not grouped yet."""
        self._segments.write(batch)
        self._tally.write(batch)

    def write_slow(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Write calls of the slow path."""
        self._segments.write_slow(calls)

    def write_containers(self, containers: Containers) -> None:
        """Write names of containers."""
        self._segments.write_containers(containers)
