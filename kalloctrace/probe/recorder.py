# SPDX-License-Identifier: MIT
"""Records until the command ends, the time limit is reached or a signal comes, and writes a complete trace."""

import gc
import os
import platform
import secrets
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.live import LiveKernel, nr_node_ids
from kalloctrace.kernel.machine import Machine
from kalloctrace.output.temporary import discard_unfinished
from kalloctrace.probe.attach.audit import NO_WAY, audit_way
from kalloctrace.probe.attach.choice import NOTHING_ASKED, Asked
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.attach.kprobes import detach_all
from kalloctrace.probe.attach.loader import Probe
from kalloctrace.probe.attach.plan import By, Mode, Plan, make_plan, shown_by
from kalloctrace.probe.attach.program_cache import running_build_id
from kalloctrace.probe.audit import FEW, MANY, Audit, Times
from kalloctrace.probe.child import Child, User
from kalloctrace.probe.decode.allocations import AllocationMaker
from kalloctrace.probe.decode.containers import ContainerFinder
from kalloctrace.probe.decode.groups import GroupPaths, TaskGroups
from kalloctrace.probe.decode.rows import RowMaker
from kalloctrace.probe.decode.slowpath import SlowPathConsumer
from kalloctrace.probe.decode.stacks import stack_text
from kalloctrace.probe.decode.zones import ZoneCopies
from kalloctrace.probe.drain import (
    CHECKPOINT_SECONDS,
    AggregateConsumer,
    Consumer,
    RecordConsumer,
    StreamConsumer,
    comm_text,
)
from kalloctrace.probe.privileges.capabilities import Capability
from kalloctrace.probe.privileges.confine import confine, protections
from kalloctrace.signals import Ending, Interrupted
from kalloctrace.text import file_name
from kalloctrace.trace.filter_text import inferred_filters
from kalloctrace.trace.pseudonyms import PseudonymousWriter
from kalloctrace.trace.totals import MissedBy, Totals
from kalloctrace.trace.writer import RowWriter, TraceWriter

DRAIN_INTERVAL = 0.1
"""Seconds between two drains."""
_IDLE_INTERVAL = 0.25
"""Seconds in aggregate mode, where the program counts and little is sent, while all buffers are nearly empty."""
_IDLE = 1 / 256
_DRAIN_AT_ONCE = 0.25
"""How full the fullest buffer is."""


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
        asked: how to attach.
        slow: record slow-path calls too.
        user: who runs the command; None for the caller.
        pseudonymous: write pseudonyms in place of names.
        own: record the calls of this process too.
        children: record only the command and its descendants.
        by: what aggregate mode counts calls by in addition to the request; None for nothing.
        audit: when to compare one probe with the pair; None for right before and after.
    """

    path: Path
    overwrite: bool
    command: Sequence[str]
    seconds: float | None
    filters: Filters
    stacks: bool
    mode: Mode = "aggregate"
    asked: Asked = NOTHING_ASKED
    slow: bool = True
    user: User | None = None
    pseudonymous: bool = False
    own: bool = False
    children: bool = False
    by: By | None = None
    audit: Times | None = None


@dataclass(frozen=True)
class Recorded:
    """The result of a recording.

    Attributes:
        totals: what was captured.
        exit_status: of the command; None without one.
        strangers: the names of threads that kept their capabilities; see `confine`.
        recording: how it was made, as the trace describes it.
    """

    totals: Totals
    exit_status: int | None
    strangers: list[str]
    recording: Mapping[str, Any]


def record(kernel: LiveKernel, options: Options, started: Callable[[Mapping[str, Any]], None]) -> Recorded:
    """Record page allocations of this machine into a trace.

    Args:
        kernel: the running kernel.
        options: what to record.
        started: called when capture has begun, with how the recording is made.

    Raises:
        KalloctraceError: the machine cannot be traced, or the trace cannot be written.
    """
    # Started before there are threads, which a fork would lose, and with the caller's handling of signals.
    with (
        Child(options.command, options.user) if options.command else nullcontext() as child,
        Ending(discard_unfinished, detach_all, *(() if child is None else (child.kill,))) as ending,
        attached(
            kernel,
            options.filters if child is None or not options.children else replace(options.filters, children=child.pid),
            mode=options.mode,
            asked=options.asked,
            stacks=options.stacks,
            slow=options.slow,
            own=options.own,
            command=options.command,
            by=options.by,
            audited=FEW if options.audit is None else MANY,
        ) as capture,
        (PseudonymousWriter if options.pseudonymous else TraceWriter)(
            options.path, kernel.snapshot, capture.description, overwrite=options.overwrite
        ) as writer,
    ):
        session = Session(capture, writer, _audit(capture, options.audit))
        strangers = capture.confine(
            output_folders(options.path), files_later=options.overwrite, in_other_thread=ending.in_watcher
        )
        ending.running(options.path)
        recorded = session.run(child, options.seconds, ending, partial(started, capture.description))
        totals = session.totals(capture.machine_changed(), recorded.reason, recorded.seconds)
        writer.close(totals)
    return Recorded(totals, recorded.exit_status, strangers, capture.description)


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
            attaches_later=self.probe.audits,
            in_other_thread=in_other_thread,
        )

    def machine_changed(self) -> tuple[str, ...]:
        """Return the names of the machine's facts that have changed since the snapshot."""
        return _changed(self.kernel.snapshot.machine, self.kernel.machine_now())


def _audit(capture: Capture, times: Times | None) -> Audit | None:
    """Return the audit of a recording; None where the pair itself is attached.

    Raises:
        KalloctraceError: the user asks for one that is not possible.
    """
    plan = capture.plan
    if times is not None and plan.one is None:
        raise KalloctraceError(
            "cannot audit this recording",
            f"--audit compares one probe with the pair, and the pair is attached: {plan.attachment.reason}",
            "leave out --audit",
        )
    if times is not None and not capture.probe.audits:
        raise KalloctraceError(
            "cannot audit this recording",
            capture.probe.no_audit or NO_WAY,
            "leave out --audit, or record with --attach pair",
        )
    return Audit(capture.probe, capture.kernel, plan, times) if plan.audit is not None else None


def plan_for(
    kernel: LiveKernel, filters: Filters, *, mode: Mode, asked: Asked, slow: bool, by: By | None, audited: int
) -> Plan:
    """Return what a recording attaches to; the arguments are those of `attached`.

    Raises:
        KalloctraceError: the machine cannot be traced.
    """
    plan = make_plan(kernel, mode, asked, by)
    if filters.by_result:
        # The prepared context and the result of a bulk call cannot be filtered.
        plan = plan.without_bulk()
    way = audit_way(shown_by(kernel)) if audited and plan.one is not None else None
    if way is not None:
        plan = plan.with_audit(way, audited)
    # The slow path does not know the alloc_flags of the first attempt any more.
    return plan.without_slow() if not slow or filters.alloc_flags is not None else plan


@contextmanager
def attached(
    kernel: LiveKernel,
    filters: Filters,
    *,
    mode: Mode,
    asked: Asked,
    stacks: bool,
    slow: bool,
    own: bool = False,
    command: Sequence[str] = (),
    by: By | None = None,
    audited: int = 0,
) -> Iterator[Capture]:
    """Attach to this machine's kernel; everything is detached when the context ends.

    Args:
        kernel: the running kernel.
        filters: which calls to record.
        mode: what is recorded of a call.
        asked: how to attach.
        stacks: record kernel stacks.
        slow: record slow-path calls too.
        own: record the calls of this process too.
        command: the recorded command, for the description.
        by: what aggregate mode counts calls by in addition to the request; None for nothing.
        audited: load the pair beside one probe, to count so many different calls, where the kernel has a way to attach
            it later; 0 to load none.

    Raises:
        KalloctraceError: the machine cannot be traced.
    """

    def planned(asked: Asked) -> Plan:
        return plan_for(kernel, filters, mode=mode, asked=asked, slow=slow, by=by, audited=audited)

    plan = planned(asked)
    with ExitStack() as contexts:
        try:
            probe, frame_to_ac = contexts.enter_context(_calibrated(kernel, plan, filters, stacks=stacks, own=own))
        except KalloctraceError as error:
            # Whatever is wrong with one probe, the pair may be possible.
            if asked.probes is not None or plan.one is None:
                raise
            plan = planned(replace(asked, probes="pair")).because(error)
            probe, frame_to_ac = contexts.enter_context(_calibrated(kernel, plan, filters, stacks=stacks, own=own))
        description = {
            "id": secrets.token_hex(16),
            "host": platform.node(),
            "build_id": running_build_id(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            # CLOCK_MONOTONIC, which the times of calls are of.
            "started_monotonic": round(time.monotonic(), 6),
            "command": [file_name(word) for word in command],
            "mode": "aggregate" if mode == "aggregate" else "stream",
            "returns": mode == "returns",
            "filters": filters.to_json(),
            "stacks": stacks,
            "attached": plan.attached(),
            "attach": plan.attach,
            "inferred": list(plan.inferred),
            "attachment_reason": plan.attachment.reason,
            "kprobes_as_jumps": probe.jumps,
            "audit": None if plan.audit is None or not probe.audits else plan.audit,
            "slow": plan.slow is not None,
            "cgroups": None if plan.hierarchy is None else plan.hierarchy.version,
            "by": plan.by,
            "protections": protections(),
            "left_out": list(plan.left_out),
            "frame_to_ac": frame_to_ac,
            "cpus": psutil.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        }
        description["filters_inferred"] = list(inferred_filters(description, kernel.tables))
        yield Capture(kernel, plan, probe, filters, description)


@contextmanager
def _calibrated(
    kernel: LiveKernel, plan: Plan, filters: Filters, *, stacks: bool, own: bool
) -> Iterator[tuple[Probe, int]]:
    """Attach the program and calibrate it; return the result of the latter too."""
    with Probe(kernel, plan, filters=filters, stacks=stacks, own=own) as probe:
        yield probe, probe.calibrate()


def _group_paths(capture: Capture) -> GroupPaths | None:
    if capture.plan.hierarchy is None or capture.probe.cgroup_paths is None:
        return None
    return GroupPaths(capture.plan.hierarchy, capture.probe.cgroup_paths)


def _consumers(
    capture: Capture, paths: GroupPaths | None, writer: RowWriter, checkpoint: float
) -> tuple[list[Consumer], SlowPathConsumer | None]:
    kernel, plan, probe = capture.kernel, capture.plan, capture.probe
    possible = (1 << nr_node_ids()) - 1
    text = partial(stack_text, kernel.symbols, {plan.entry, plan.nolock, plan.bulk})
    rows = RowMaker(
        kernel.layout,
        kernel.btf,
        kernel.features,
        possible,
        lambda stack: text(probe.stack(stack)),
        group_path=None if paths is None else paths.path,
    )
    maker = AllocationMaker(kernel.layout, kernel.btf, kernel.features, possible, plan.inferred)
    consumers: list[Consumer] = [RecordConsumer(probe.records, rows, writer)]
    if probe.events is not None and probe.task_comms is not None:
        groups = None if paths is None or plan.hierarchy is None else TaskGroups(plan.hierarchy, paths)
        consumers.append(StreamConsumer(probe.events, probe.task_comms, maker, rows, writer, groups=groups))
    if probe.counters is not None:
        by_text = _by_text(plan, paths)
        consumers.append(AggregateConsumer(probe.counters, maker, writer, by_text=by_text, checkpoint=checkpoint))
    if probe.slow is None:
        return consumers, None
    copies = ZoneCopies(kernel.btf, kernel.layout.zone_addresses)
    hidden = () if "LOCKS" in plan.constants else ("lock",)
    return consumers, SlowPathConsumer(
        probe.slow, rows, copies, text, filters=capture.filters, writer=writer, hidden=hidden
    )


def _by_text(plan: Plan, paths: GroupPaths | None) -> Callable[[npt.NDArray[np.uint64]], str] | None:
    """Return what makes the text of what calls are counted by, from its words; None if by nothing."""
    if plan.by == "cgroup" and paths is not None:
        return lambda words: paths.path(int(words[0]))
    return None if plan.by is None else comm_text


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
        audit: compares one probe with the pair; None if nothing does.
        checkpoint: seconds between two writes of counts in aggregate mode.
    """

    def __init__(
        self,
        capture: Capture,
        writer: RowWriter,
        audit: Audit | None = None,
        *,
        checkpoint: float = CHECKPOINT_SECONDS,
    ) -> None:
        self._probe, self._audit = capture.probe, audit
        self._paths, self._containers, self._writer = _group_paths(capture), ContainerFinder(), writer
        self._consumers, self._slow = _consumers(capture, self._paths, writer, checkpoint)
        # One probe does not count calls apart from their rows.
        self._one = capture.plan.one is not None
        self._uncounted = self._consumers[1:] if self._one else []
        self._max_order = capture.kernel.features.max_order
        self._filters = capture.filters
        # The share of one CPU and one interval in the records of a second.
        self._share = max(1, round((self._filters.max_rate or 0) * DRAIN_INTERVAL / (psutil.cpu_count() or 1)))
        self._allowed_at = 0.0
        self._may_idle = capture.plan.mode == "aggregate" and self._filters.max_rate is None
        self._running: int | None = None

    def run(self, child: Child | None, seconds: float | None, ending: Ending, started: Callable[[], None]) -> _Ended:
        """Capture until the command ends, the time limit is reached or a signal comes."""
        if self._audit is not None:
            self._audit.before()
        self.begin()
        if self._audit is not None:
            self._audit.begun()
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
        if self._audit is not None:
            self._audit.after()
        status = child.end() if child is not None else None
        self.finish()
        return _Ended(reason, lasted, status)

    def begin(self) -> None:
        """Begin to capture."""
        self._allow()
        # No collection looks through what was made so far: that takes as long as ten thousand allocations.
        gc.collect()
        gc.freeze()
        self._probe.start()

    def drain(self) -> None:
        """Read what was captured; call this several times per second."""
        self._allow()
        for consumer in self._consumers:
            consumer.drain()
        if self._slow is not None:
            self._slow.drain()
        self._name_containers()

    def write(self) -> None:
        """Write everything captured so far."""
        for consumer in self._consumers:
            consumer.drain()
            consumer.write()

    def stop(self) -> None:
        """Stop capturing."""
        self._probe.stop()
        gc.unfreeze()

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
        self._name_containers(last=True)
        self._running = int((~rejected).sum()) + self._probe.running()

    def _name_containers(self, *, last: bool = False) -> None:
        """Write the names of containers that are new."""
        if self._paths is None:
            return
        self._paths.drain()
        found = self._containers.found(self._paths.new(), last=last)
        if found:
            self._writer.write_containers(found)

    @property
    def pause(self) -> float:
        """Return the number of seconds until the next drain: 0 if a buffer fills up."""
        full = self._probe.utilization
        if full > _DRAIN_AT_ONCE:
            return 0.0
        return _IDLE_INTERVAL if self._may_idle and full < _IDLE else DRAIN_INTERVAL

    def _allow(self) -> None:
        if self._filters.max_rate is not None and time.monotonic() - self._allowed_at >= DRAIN_INTERVAL:
            self._probe.allow(self._share)
            self._allowed_at = time.monotonic()

    def totals(self, machine_changed: tuple[str, ...], reason: str, seconds: float) -> Totals:
        """Return the counts; before `finish`, calls that are still in a buffer count as running."""
        submitted = sum(consumer.consumed for consumer in self._consumers)
        counts, slow = self._probe.counts(), self._slow
        opened = counts.opened + sum(consumer.consumed for consumer in self._uncounted)
        in_flight = max(0, opened - submitted - counts.dropped - counts.pending_full - counts.overwritten)
        return Totals(
            opened=opened,
            submitted=submitted,
            dropped=counts.dropped,
            no_room=counts.pending_full,
            replaced=counts.overwritten,
            running=in_flight if self._running is None else self._running,
            freelist_alone=counts.unpaired_freelist,
            return_alone=counts.unpaired_return,
            missed=counts.missed_by_program + counts.missed_by_kprobe,
            # A probe that finds no memory counts as a kprobe's miss.
            missed_by=MissedBy(counts.missed_by_kprobe, counts.missed_by_program, 0),
            bpf_calls=counts.bpf_calls,
            missed_freelist=counts.missed_freelist,
            names_dropped=counts.comms_dropped + sum(consumer.unnamed for consumer in self._consumers),
            slow=None if slow is None else slow.consumed,
            slow_failed=None if slow is None else slow.failed,
            slow_split=None if slow is None else slow.split,
            slow_running=0 if slow is None else slow.running,
            slow_alone=0 if slow is None else slow.assembler.unpaired,
            slow_lost=0 if slow is None else slow.assembler.lost,
            slow_missed=counts.slow_missed,
            rejected=counts.rejected,
            dropped_by_flags=0 if self._one else None,
            zones_dropped=counts.zones_dropped,
            own=counts.own,
            filtered=counts.filtered,
            audit=None if self._audit is None else self._audit.result(),
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
            if ending.reason:
                # The rest is read after the end: on a slow machine a full buffer takes longer than a signal may.
                ending.noticed()
                return ending.reason
            self.drain()
            if self._audit is not None:
                self._audit.step()
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
