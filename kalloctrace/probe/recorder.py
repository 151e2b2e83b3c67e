# SPDX-License-Identifier: MIT
"""Records until the command ends, the time limit is reached or a signal comes, and writes a complete trace."""

import os
import select
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.live import LiveKernel, nr_node_ids
from kalloctrace.kernel.machine import Machine
from kalloctrace.output import discard_unfinished
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.attach.loader import Probe
from kalloctrace.probe.attach.plan import Attachment, Mode, Plan, make_plan
from kalloctrace.probe.child import Child, User
from kalloctrace.probe.decode.allocations import AllocationMaker
from kalloctrace.probe.decode.rows import RowMaker
from kalloctrace.probe.decode.slowpath import SlowPathConsumer
from kalloctrace.probe.decode.stacks import stack_text
from kalloctrace.probe.decode.zones import ZoneCopies
from kalloctrace.probe.drain import AggregateConsumer, Consumer, RecordConsumer, StreamConsumer
from kalloctrace.probe.privileges.capabilities import Capability
from kalloctrace.probe.privileges.confine import confine, protections
from kalloctrace.signals import Ending, Interrupted
from kalloctrace.text import file_name
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import RowWriter, TraceWriter

DRAIN_INTERVAL = 0.1
"""Seconds between two drains."""
_DRAIN_AT_ONCE = 0.25


@dataclass(frozen=True)
class Options:
    """What to record.

    Attributes:
        path: the trace to write.
        overwrite: replace an existing file.
        command: the command to run and to record while it runs; empty to record until the time limit or a signal.
        seconds: the time limit; None for none.
        filters: which calls to record.
        stacks: record kernel stacks.
        mode: what is recorded of a call.
        attachment: how to attach; None chooses.
        slow: record slow-path calls too.
        user: who runs the command; None for the caller.
    """

    path: Path
    overwrite: bool
    command: Sequence[str]
    seconds: float | None
    filters: Filters
    stacks: bool
    mode: Mode = "aggregate"
    attachment: Attachment | None = None
    slow: bool = True
    user: User | None = None


@dataclass(frozen=True)
class Recorded:
    """The result of a recording.

    Attributes:
        totals: what was captured.
        exit_status: of the command; None without one.
        strangers: the names of threads that kept their capabilities; see `confine`.
    """

    totals: Totals
    exit_status: int | None
    strangers: list[str]


def record(kernel: LiveKernel, options: Options, started: Callable[[], None]) -> Recorded:
    """Record page allocations of this machine into a trace.

    Args:
        kernel: the running kernel.
        options: what to record.
        started: called when capture has begun.

    Raises:
        KalloctraceError: the machine cannot be traced, or the trace cannot be written.
    """
    # Started before there are threads, which a fork would lose, and with the caller's handling of signals.
    with (
        Child(options.command, options.user) if options.command else nullcontext() as child,
        Ending() as ending,
        attached(
            kernel,
            options.filters,
            mode=options.mode,
            attachment=options.attachment,
            stacks=options.stacks,
            slow=options.slow,
            command=options.command,
        ) as capture,
        TraceWriter(options.path, kernel.snapshot, capture.description, overwrite=options.overwrite) as writer,
    ):
        if child is not None:
            ending.on_abort(child.kill)
        ending.on_abort(discard_unfinished)
        ending.on_abort(capture.probe.detach)
        session = Session(capture, writer)
        strangers = capture.confine(
            output_folders(options.path), files_later=options.overwrite, in_other_thread=ending.in_watcher
        )
        recorded = session.run(child, options.seconds, ending, started)
        totals = session.totals(capture.machine_changed(), recorded.reason, recorded.seconds)
        writer.close(totals)
    return Recorded(totals, recorded.exit_status, strangers)


def output_folders(path: Path | None) -> list[Path]:
    """Return the folder of an output that exists; none if it is not a regular file, as nothing is made there."""
    return [] if path is None or not path.is_file() else [Path(os.path.realpath(path)).parent]


@dataclass(frozen=True)
class Capture:
    """The attached and calibrated program, ready to capture.

    Attributes:
        kernel: the running kernel.
        plan: what the program is attached to.
        probe: the program.
        filters: which calls are recorded.
        description: how the recording is made, for the trace.
    """

    kernel: LiveKernel
    plan: Plan
    probe: Probe
    filters: Filters
    description: dict[str, Any]

    def confine(
        self,
        folders: Sequence[Path],
        *,
        files_later: bool,
        kept: Iterable[Capability] = (),
        in_other_thread: Callable[[Callable[[], None]], None] | None = None,
    ) -> list[str]:
        """Give up the privileges that the rest of the recording does not need; see `confine`."""
        return confine(
            folders,
            kept=kept,
            files_later=files_later,
            maps_readable=self.probe.maps_readable,
            in_other_thread=in_other_thread,
        )

    def machine_changed(self) -> tuple[str, ...]:
        """Return the names of the machine's facts that have changed since the snapshot."""
        return _changed(self.kernel.snapshot.machine, self.kernel.machine_now())


@contextmanager
def attached(
    kernel: LiveKernel,
    filters: Filters,
    *,
    mode: Mode,
    attachment: Attachment | None,
    stacks: bool,
    slow: bool,
    command: Sequence[str] = (),
) -> Iterator[Capture]:
    """Attach to this machine's kernel; everything is detached when the context ends.

    Args:
        kernel: the running kernel.
        filters: which calls to record.
        mode: what is recorded of a call.
        attachment: how to attach; None chooses.
        stacks: record kernel stacks.
        slow: record slow-path calls too.
        command: the recorded command, for the description.

    Raises:
        KalloctraceError: the machine cannot be traced.
    """
    plan = make_plan(kernel, mode, attachment)
    if filters.by_result:
        # The prepared context and the result of a bulk call cannot be filtered.
        plan = plan.without_bulk()
    if not slow or filters.alloc_flags is not None:
        # The slow path does not know the alloc_flags of the first attempt any more.
        plan = plan.without_slow()
    with Probe(kernel, plan, filters=filters, stacks=stacks) as probe:
        frame_to_ac = probe.calibrate()
        description = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": [file_name(word) for word in command],
            "mode": "aggregate" if mode == "aggregate" else "stream",
            "returns": mode == "returns",
            "filters": filters.to_json(),
            "stacks": stacks,
            "attached": plan.attached(),
            "attachment": plan.attachment,
            "attachment_reason": plan.attachment_reason,
            "kprobes_as_jumps": probe.jumps,
            "slow": plan.slow is not None,
            "protections": protections(),
            "left_out": list(plan.left_out),
            "frame_to_ac": frame_to_ac,
            "cpus": psutil.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        }
        yield Capture(kernel, plan, probe, filters, description)


def _consumers(capture: Capture, writer: RowWriter) -> tuple[list[Consumer], SlowPathConsumer | None]:
    kernel, plan, probe = capture.kernel, capture.plan, capture.probe
    possible = (1 << nr_node_ids()) - 1
    text = partial(stack_text, kernel.symbols, {plan.entry, plan.nolock, plan.bulk})
    rows = RowMaker(
        kernel.layout,
        kernel.btf,
        kernel.features,
        possible,
        lambda stack: text(probe.stack(stack)),
    )
    maker = AllocationMaker(kernel.layout, kernel.btf, kernel.features, possible)
    consumers: list[Consumer] = [RecordConsumer(probe.records, rows, writer)]
    if probe.events is not None and probe.task_comms is not None:
        consumers.append(StreamConsumer(probe.events, probe.task_comms, maker, rows, writer))
    if probe.counters is not None:
        consumers.append(AggregateConsumer(probe.counters, maker, writer))
    if probe.slow is None:
        return consumers, None
    copies = ZoneCopies(kernel.btf, kernel.layout.zone_addresses)
    return consumers, SlowPathConsumer(probe.slow, rows, copies, text, filters=capture.filters, writer=writer)


@dataclass(frozen=True)
class _Ended:
    reason: str
    seconds: float
    exit_status: int | None


class Session:
    """The loop that moves captured calls from the program to a writer.

    Args:
        capture: the attached program.
        writer: receives the rows.
    """

    def __init__(self, capture: Capture, writer: RowWriter) -> None:
        self._probe = capture.probe
        self._consumers, self._slow = _consumers(capture, writer)
        self._max_order = capture.kernel.features.max_order
        self._filters = capture.filters
        # The share of one CPU and one interval in the records of a second.
        self._share = max(1, round((self._filters.max_rate or 0) * DRAIN_INTERVAL / (psutil.cpu_count() or 1)))
        self._allowed_at = 0.0
        self._running: int | None = None

    def run(self, child: Child | None, seconds: float | None, ending: Ending, started: Callable[[], None]) -> _Ended:
        """Capture until the command ends, the time limit is reached or a signal comes."""
        ending.running()
        self.begin()
        begin = time.monotonic()
        with suppress(Interrupted), ending.blocking():
            started()
        try:
            if child is not None:
                child.resume()
            reason = self._until_end(child, ending, None if seconds is None else begin + seconds)
            lasted = time.monotonic() - begin
        finally:
            self.stop()
        status = child.end() if child is not None else None
        self.finish()
        return _Ended(reason, lasted, status)

    def begin(self) -> None:
        """Begin to capture."""
        self._allow()
        self._probe.start()

    def drain(self) -> None:
        """Read what was captured; call this several times per second."""
        self._allow()
        for consumer in self._consumers:
            consumer.drain()
        if self._slow is not None:
            self._slow.drain()

    def write(self) -> None:
        """Write everything captured so far."""
        for consumer in self._consumers:
            consumer.drain()
            consumer.write()

    def stop(self) -> None:
        """Stop capturing."""
        self._probe.stop()

    def finish(self) -> None:
        """Read and write the rest, after `stop`."""
        unfinished = self._probe.unfinished()
        # The kernel rejects such an order before anything else. Other calls may simply not have come that far yet.
        rejected = unfinished["e"]["a"]["order"] > self._max_order
        if self._filters.by_result:
            # Such a call does not match the filters, and it has ended.
            unfinished, rejected = unfinished[~rejected], rejected[~rejected]
        for consumer in self._consumers:
            consumer.finish(unfinished[rejected])
        if self._slow is not None:
            self._slow.finish()
        self._running = int((~rejected).sum()) + self._probe.running()

    @property
    def pause(self) -> float:
        """Return the number of seconds until the next drain: 0 if a buffer fills up."""
        return 0.0 if self._probe.utilization > _DRAIN_AT_ONCE else DRAIN_INTERVAL

    def _allow(self) -> None:
        if self._filters.max_rate is not None and time.monotonic() - self._allowed_at >= DRAIN_INTERVAL:
            self._probe.allow(self._share)
            self._allowed_at = time.monotonic()

    def totals(self, machine_changed: tuple[str, ...], reason: str, seconds: float) -> Totals:
        """Return the counts; before `finish`, calls that are still in a buffer count as running."""
        submitted = sum(consumer.consumed for consumer in self._consumers)
        counts, slow = self._probe.counts(), self._slow
        in_flight = max(0, counts.opened - submitted - counts.dropped - counts.pending_full - counts.overwritten)
        return Totals(
            opened=counts.opened,
            submitted=submitted,
            dropped=counts.dropped,
            no_room=counts.pending_full,
            replaced=counts.overwritten,
            running=in_flight if self._running is None else self._running,
            freelist_alone=counts.unpaired_freelist,
            return_alone=counts.unpaired_return,
            missed=counts.missed,
            missed_freelist=counts.missed_freelist,
            names_dropped=counts.comms_dropped + sum(consumer.unnamed for consumer in self._consumers),
            slow=None if slow is None else slow.consumed,
            slow_failed=None if slow is None else slow.failed,
            slow_running=0 if slow is None else slow.running,
            slow_alone=0 if slow is None else slow.assembler.unpaired,
            slow_lost=0 if slow is None else slow.assembler.lost,
            slow_missed=counts.slow_missed,
            zones_dropped=counts.zones_dropped,
            machine_changed=machine_changed,
            reason=reason,
            seconds=round(seconds, 6),
        )

    def _until_end(self, child: Child | None, ending: Ending, deadline: float | None) -> str:
        watched: list[Ending | int] = [ending] if child is None else [ending, child.pidfd]
        while True:
            pause = self.pause
            if deadline is not None:
                pause = max(0.0, min(pause, deadline - time.monotonic()))
            ready, _, _ = select.select(watched, [], [], pause)
            self.drain()
            if ending.reason:
                ending.noticed()
                return ending.reason
            if ready:
                return "the command ended"
            if deadline is not None and time.monotonic() >= deadline:
                return "the time limit was reached"


def _changed(before: Machine, after: Machine) -> tuple[str, ...]:
    """Return the names of the facts that the model takes from the snapshot and that have changed.

    Facts that may change from call to call (cpusets_enabled, gfp_allowed_mask, defrag_mode) are in each row.
    """
    facts = ("nodes", "fallback", "nofallback", "nr_online_nodes", "page_group_by_mobility_disabled")
    return tuple(fact for fact in facts if getattr(before, fact) != getattr(after, fact))


def no_such_process(pid: int) -> KalloctraceError:
    """Return the error for a process that does not exist."""
    return KalloctraceError(
        f"cannot record process {pid}", "there is no such process", "give the id of a running process with --pid"
    )
