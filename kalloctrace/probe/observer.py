# SPDX-License-Identifier: MIT
"""A recording of this machine that can be observed while it runs; the kernel does the same as for `record`."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.attach.choice import Asked
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.attach.plan import By, Mode
from kalloctrace.probe.privileges.capabilities import Capability
from kalloctrace.probe.recorder import Session, attached, output_folders
from kalloctrace.trace.containers import Containers
from kalloctrace.trace.observation import Observation, observation, write_observation
from kalloctrace.trace.tally import RunningTally
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import Column, RowWriter, StreamColumns, TraceWriter

_MACHINE_SECONDS = 10.0
"""How often to check whether the machine still matches the snapshot."""


class Observer:
    """Counts captured calls, and can also write them to a trace.

    Attributes:
        snapshot: the kernel and machine.
        recording: how the recording is made, as a trace describes it.
        ended: why the recording ended; empty while it runs.

    Args:
        kernel: the running kernel.
        filters: which calls to capture.
        mode: what is recorded of a call.
        asked: how to attach.
        stacks: capture kernel stacks.
        output: a trace to write as `record` does; None for none.
        overwrite: replace that file if it exists.
        by: what aggregate mode counts calls by in addition to the request; None for nothing.
        longer_than: calls that are longer than this in the slow path are counted separately, ns.

    Raises:
        KalloctraceError: on entry: the machine cannot be traced, or the trace cannot be written.
    """

    def __init__(
        self,
        kernel: LiveKernel,
        filters: Filters,
        *,
        mode: Mode,
        asked: Asked,
        stacks: bool,
        output: Path | None,
        overwrite: bool,
        by: By | None = None,
        longer_than: int = 0,
    ) -> None:
        self.snapshot = kernel.snapshot
        self.recording: Mapping[str, Any] = {}
        self.ended = ""
        self._capture = attached(kernel, filters, mode=mode, asked=asked, stacks=stacks, slow=True, by=by)
        self._tally = RunningTally(tasks=mode != "aggregate" or by == "comm", longer_than=longer_than)
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
        """End the recording if `finish` did not, and detach."""
        with self._contexts:
            self.finish("recording aborted")

    def confine(
        self,
        folders: Sequence[Path] = (),
        *,
        kept: Iterable[Capability] = (),
        in_other_thread: Callable[[Callable[[], None]], None] | None = None,
    ) -> list[str]:
        """Give up the privileges that the rest of the recording does not need; see `confine`.

        Args:
            folders: where traces will be written, besides the folder of `output`.
            kept: capabilities that the caller needs.
            in_other_thread: runs a function in the other thread of this process; None if there is none.
        """
        return self._attached.confine(
            [*output_folders(self._output), *folders],
            files_later=bool(folders) or self._overwrite,
            kept=kept,
            in_other_thread=in_other_thread,
        )

    def drain(self) -> None:
        """Read what was captured."""
        if not self.ended:
            self._session.drain()

    @property
    def pause(self) -> float:
        """Return the number of seconds until the next drain."""
        return self._session.pause

    def observe(self) -> Observation:
        """Return the counts so far; the counters are read in place and keep counting."""
        if self._last is not None:
            return self._last
        self._session.write()
        if time.monotonic() - self._machine_at >= _MACHINE_SECONDS:
            self._check_machine()
        return self._observation("still recording")

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
        """Write the counts so far as a separate trace, an aggregate."""
        if self._last is None:
            self._session.write()
            self._check_machine()
        seen = self._last or self._observation("written during the recording")
        write_observation(path, self.snapshot, self.recording, seen)

    def _observation(self, reason: str, seconds: float | None = None) -> Observation:
        lasted = time.monotonic() - self._began if seconds is None else seconds
        totals: Totals = self._session.totals(self._changed, reason, lasted)
        return observation(lasted, self._tally, totals)

    def _check_machine(self) -> None:
        self._machine_at = time.monotonic()
        self._changed = self._attached.machine_changed()


class _Tee:
    """Writes captured calls to a tally and to a trace; both give an allocation the same number."""

    def __init__(self, tally: RunningTally, trace: TraceWriter) -> None:
        self._tally = tally
        self._trace = trace

    def add(self, allocations: pa.RecordBatch | pa.StructArray) -> int:
        """Add allocations to both; return the number of the first one."""
        self._trace.add(allocations)
        return self._tally.add(allocations)

    def write_stream(self, calls: StreamColumns) -> None:
        """Write calls, one row each."""
        for writer in (self._trace, self._tally):
            writer.write_stream(calls)

    def write_aggregate(self, counts: Column, indices: Column, by: pa.DictionaryArray | None = None) -> None:
        """Write how many calls there were of each allocation."""
        self._trace.write_aggregate(counts, indices, by)
        self._tally.write_aggregate(counts, indices, by)

    def write_slow(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Write slow-path calls."""
        self._trace.write_slow(calls)
        self._tally.write_slow(calls)

    def write_containers(self, containers: Containers) -> None:
        """Write names of containers."""
        self._trace.write_containers(containers)

    def write(self, batch: pa.RecordBatch) -> None:
        """Write calls that are not grouped yet."""
        self._trace.write(batch)
        self._tally.write(batch)
