# SPDX-License-Identifier: MIT
"""A recording of this machine that is looked at while it goes on.

What the kernel does is what `record` has it do.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.attach.plan import Attachment, Mode
from kalloctrace.probe.recorder import Session, attached
from kalloctrace.trace.observation import Observation, observation, write_observation
from kalloctrace.trace.tally import RunningTally
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import Column, RowWriter, StreamColumns, TraceWriter

_MACHINE_SECONDS = 10.0
"""How often it is looked whether the machine is still the snapshot's."""


class Observer:
    """Counts what is captured, and may write it besides.

    Attributes:
        snapshot: the kernel and machine.
        recording: how it is made, as a trace has it.
        ended: why nothing more will come; empty while it goes on.

    Args:
        kernel: the running kernel.
        filters: capture these calls only.
        mode: what is made of a call.
        attachment: how to attach, None to choose.
        stacks: capture kernel stacks.
        output: a trace to write as `record` does; None for none.
        overwrite: replace that file if it exists.

    Raises:
        KalloctraceError: on entry: the machine cannot be traced, or the trace cannot be written.
    """

    def __init__(
        self,
        kernel: LiveKernel,
        filters: Filters,
        *,
        mode: Mode,
        attachment: Attachment | None,
        stacks: bool,
        output: Path | None,
        overwrite: bool,
    ) -> None:
        self.snapshot = kernel.snapshot
        self.recording: Mapping[str, Any] = {}
        self.ended = ""
        self._capture = attached(kernel, filters, mode=mode, attachment=attachment, stacks=stacks, slow=True)
        self._tally = RunningTally(tasks=mode != "aggregate")
        self._output = output
        self._overwrite = overwrite
        self._contexts = ExitStack()
        self._last: Observation | None = None
        self._changed: tuple[str, ...] = ()
        self._machine_at = self._began = time.monotonic()

    def __enter__(self) -> Self:
        """Attach, and begin to capture."""
        with ExitStack() as contexts:
            capture = self._attached = contexts.enter_context(self._capture)
            self.recording = capture.description
            self._trace: TraceWriter | None = None
            writer: RowWriter = self._tally
            if self._output is not None:
                self._trace = contexts.enter_context(
                    TraceWriter(self._output, self.snapshot, self.recording, overwrite=self._overwrite)
                )
                writer = _Tee(self._tally, self._trace)
            self._session = Session(capture, writer)
            self._session.begin()
            self._machine_at = self._began = time.monotonic()
            self._contexts = contexts.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End the recording if that was not done, and detach."""
        with self._contexts:
            self.finish("the watching was broken off")

    def drain(self) -> None:
        """Take over what there is."""
        if not self.ended:
            self._session.drain()

    @property
    def pause(self) -> float:
        """Return in how many seconds to drain again."""
        return self._session.pause

    def observe(self) -> Observation:
        """Return what was counted so far; counters are read where they are, and go on."""
        if self._last is not None:
            return self._last
        self._session.write()
        if time.monotonic() - self._machine_at >= _MACHINE_SECONDS:
            self._check_machine()
        return self._observation("it goes on")

    def finish(self, reason: str) -> Observation:
        """End the recording."""
        if self._last is None:
            self.ended = reason
            seconds = time.monotonic() - self._began
            self._session.stop()
            self._session.finish()
            self._check_machine()
            self._last = self._observation(reason, seconds)
            if self._trace is not None:
                self._trace.close(self._last.totals)
        return self._last

    def write(self, path: Path) -> None:
        """Write what was counted so far as a trace of its own, an aggregate."""
        if self._last is None:
            self._session.write()
            self._check_machine()
        seen = self._last or self._observation("written while the recording went on")
        write_observation(path, self.snapshot, self.recording, seen)

    def _observation(self, reason: str, seconds: float | None = None) -> Observation:
        lasted = time.monotonic() - self._began if seconds is None else seconds
        totals: Totals = self._session.totals(self._changed, reason, lasted)
        return observation(lasted, self._tally, totals)

    def _check_machine(self) -> None:
        self._machine_at = time.monotonic()
        self._changed = self._attached.machine_changed()


class _Tee:
    """Writes what is captured to a tally and to a trace, which number allocations alike."""

    def __init__(self, tally: RunningTally, trace: TraceWriter) -> None:
        self._tally = tally
        self._trace = trace

    def add(self, allocations: pa.RecordBatch | pa.StructArray) -> int:
        """Make allocations known to both."""
        self._trace.add(allocations)
        return self._tally.add(allocations)

    def write_stream(self, calls: StreamColumns) -> None:
        """Write calls, a row each."""
        for writer in (self._trace, self._tally):
            writer.write_stream(calls)

    def write_aggregate(self, counts: Column, indices: Column) -> None:
        """Write how many calls allocations stand for."""
        self._trace.write_aggregate(counts, indices)
        self._tally.write_aggregate(counts, indices)

    def write_slow(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Write calls of the slow path."""
        self._trace.write_slow(calls)

    def write(self, batch: pa.RecordBatch) -> None:
        """Write calls that are not grouped yet."""
        self._trace.write(batch)
        self._tally.write(batch)
