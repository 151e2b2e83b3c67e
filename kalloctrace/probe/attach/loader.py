# SPDX-License-Identifier: MIT
"""Loads the BPF program, attaches it, and gives access to its maps."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.held_file import HeldFile
from kalloctrace.kernel.kcore import Kcore
from kalloctrace.kernel.live import LiveKernel, nr_node_ids
from kalloctrace.probe.attach import audit, one
from kalloctrace.probe.attach.audit import AuditPair
from kalloctrace.probe.attach.bpf_calls import BpfCalls
from kalloctrace.probe.attach.calibration import CALIBRATION_PAGES, agreed_distance, check_task_context, touch
from kalloctrace.probe.attach.counts import PART_PROGRAMS, SLOW_PROGRAMS, Counts, counted, missed_by_programs
from kalloctrace.probe.attach.entry_code import refused
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.attach.kprobes import Hook, Kprobes
from kalloctrace.probe.attach.links import Links, counts_perf
from kalloctrace.probe.attach.optprobe import CODE_BYTES, past_ftrace
from kalloctrace.probe.attach.plan import FREELIST, Plan
from kalloctrace.probe.attach.program import STACK, U64
from kalloctrace.probe.attach.program_cache import build_program
from kalloctrace.probe.attach.programs import (
    TRACE_FENTRY,
    TRACE_FEXIT,
    TRACE_KPROBE_MULTI,
    TYPE_KPROBE,
    TYPE_RAW_TRACEPOINT,
    TYPE_TRACING,
    link_program,
    load_program,
    not_loaded,
)
from kalloctrace.probe.attach.sizes import (
    BULK_RING_BYTES,
    CGROUP_PATHS_BYTES,
    FEW_BYTES,
    SLOW_BYTES,
    SPILLED_BYTES,
    TASK_COMMS_BYTES,
    ZONES_BYTES,
    cache_bits,
    create_maps,
    event_bits,
    records_bytes,
    size_constants,
)
from kalloctrace.probe.layout import constant, enum_values, struct_dtype
from kalloctrace.probe.maps.counters import Counters
from kalloctrace.probe.maps.mmap_array import MmapArray
from kalloctrace.probe.maps.overflow import OverflowHash, Seen
from kalloctrace.probe.maps.percpu_buffer import PerCpuBuffer
from kalloctrace.probe.maps.ringbuf import Ring

_U64 = (1 << 64) - 1

_IDLE, _CAPTURING, _CLOSING = enum_values("capturing", "IDLE", "CAPTURING", "CLOSING")
_OFF, _CALIBRATE, _CAPTURE = enum_values("mode", "OFF", "CALIBRATE", "CAPTURE")
_AUDIT_OFF, _AUDIT_READY, _AUDIT_COUNT = enum_values("audit", "AUDIT_OFF", "AUDIT_READY", "AUDIT_COUNT")
_SETTLE = 0.02
"""Seconds after which every program that was running on another CPU has ended."""


def given(
    kernel: LiveKernel, plan: Plan, filters: Filters, cpus: int, *, stacks: bool, own: bool
) -> tuple[list[str], dict[str, int | str]]:
    """Return the files of a program, and its preprocessor symbols.

    Args:
        kernel: the running kernel.
        plan: what is attached to.
        filters: which calls are captured.
        cpus: how many there may be.
        stacks: stacks are captured too.
        own: the calls of this process are captured too.
    """
    constants = {
        **plan.constants,
        **filters.constants(),
        **size_constants(plan, cpus, stacks=stacks),
        **one.filter_constants(kernel, filters),
        **({} if own else {"OWN_TGID": os.getpid()}),
    }
    return [*plan.sources(), *filters.sources()], constants


class Probe:
    """The attached program. Everything is released on exit; it holds only file descriptors.

    Attributes:
        mode: what the program records of a call.
        records: the ring buffers with calls that are traced to their return, one for each kind of record.
        events: the events of stream mode; None in other modes.
        task_comms: the ring buffer with task names in stream mode; None in other modes.
        counters: the counters of aggregate mode; None in other modes.
        slow: the ring buffers with slow-path events and zones; None if the slow path is not traced.
        cgroup_paths: the ring buffer with the paths of new control groups; None if groups are not recorded.
        no_audit: why the pair cannot audit one probe, although it was planned; empty if it can.

    Args:
        kernel: the running kernel.
        plan: what to attach to.
        filters: which calls to capture.
        stacks: capture the kernel stack of each call too.
        own: capture the calls of this process too.

    Raises:
        KalloctraceError: the program cannot be compiled, or the kernel rejects it.
    """

    def __init__(
        self, kernel: LiveKernel, plan: Plan, *, filters: Filters, stacks: bool = False, own: bool = False
    ) -> None:
        self.mode, self._frame_to_ac = plan.mode, 0
        self._plan, self._btf, self._gfp_bits = plan, kernel.btf, dict(kernel.tables.gfp_bits)
        self._bulk, self._leaves_own_out = plan.bulk is not None, not own
        self._interrupt_mask = kernel.features.interrupt_mask
        self._missed_before, self._missed_kprobes_before = Counter[str](), Counter[str]()
        cpus = os.sysconf("SC_NPROCESSORS_CONF")
        with Kcore() as kcore:
            table = kernel.address("__per_cpu_offset")
            bases = [kcore.u64(table + 8 * cpu) for cpu in range(cpus)]
            hooks = plan.hooks()
            if plan.attachment.way == "jump":
                hooks = [_as_jump(hook, kcore, kernel) for hook in hooks]

        lengths = plan.lengths()
        sources, constants = given(kernel, plan, filters, cpus, stacks=stacks, own=own)
        self._loaded, self._links = dict[str, int](), list[int]()
        self._attached: Kprobes | Links | None = None
        self.no_audit = ""
        with ExitStack() as held:
            # Released in the opposite order, also if something here fails.
            self._maps = create_maps(plan, cpus, stacks=stacks)
            for file in self._maps.values():
                held.callback(os.close, file)
            self._program = held.enter_context(build_program(sources, constants, self._maps, lengths))
            held.callback(self._unload)
            self._programs = {hook: self._load(hook) for hook in hooks}
            self._call = struct_dtype("call", lengths)
            self._look = MmapArray(self._maps["LOOK"], 1, struct_dtype("look")) if "LOOK" in self._maps else None
            self._slots = self._map_slots(plan, bases)
            held.callback(self._slots.close)
            self._open_buffers(plan, cpus, stacks=stacks)
            held.callback(self._close_buffers)
            self._bpf_calls = BpfCalls(kernel, cpus)
            held.callback(self._bpf_calls.close)
            held.callback(self._detach)
            self._attach(kernel, plan)
            self._audit = self._load_audit(kernel)
            if self._audit is not None:
                held.callback(self._audit.close)
            self._statistics = self._hold_statistics()
            self._held = held.pop_all()

    def _open_buffers(self, plan: Plan, cpus: int, *, stacks: bool) -> None:
        lengths = plan.lengths()
        self.records = self._record_rings(plan)
        sent_stacks = self._ring("sent_stacks", FEW_BYTES, struct_dtype("stack", lengths)) if stacks else None
        self._stacks, self._sent_stacks = dict[int, tuple[int, ...]](), sent_stacks
        self.slow, self.cgroup_paths = self._slow_rings(plan), self._cgroup_ring(plan)
        self.events = self.task_comms = self.counters = None
        if plan.mode == "stream":
            pending = self._ring("events", FEW_BYTES, struct_dtype("event", lengths))
            buffer = self._maps.get("EVENTS") or self._program.file("percpu_buffer")
            self.events = PerCpuBuffer(buffer, event_bits(plan, cpus), self._slots.items, pending)
            self.task_comms = self._ring("task_comms", TASK_COMMS_BYTES, struct_dtype("task_comm", lengths))
        if plan.mode == "aggregate":
            self.counters = self._counters(plan, cpus)

    def _close_buffers(self) -> None:
        for buffer in (
            *(*self.records, *(self.slow or ()), self.events, self.task_comms),
            *(self.counters, self._sent_stacks, self.cgroup_paths, self._look),
        ):
            if buffer is not None:
                buffer.close()

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Detach everything."""
        self._held.close()

    def _unload(self) -> None:
        for program in self._loaded.values():
            os.close(program)
        self._loaded.clear()

    def _detach(self) -> None:
        for link in self._links:
            os.close(link)
        self._links.clear()
        if self._attached is not None:
            self._attached.close()

    def _map_slots(self, plan: Plan, bases: list[int]) -> MmapArray:
        """Return the slots of all CPUs, with what is the same for every call; tell the program where per-CPU memory is.

        Args:
            plan: what is attached to.
            bases: the address of each CPU's per-CPU memory.
        """
        slots = MmapArray(self._maps["SLOTS"], len(bases), struct_dtype("slot", plan.lengths()))
        address = int(plan.constants["PREEMPT_COUNT_ADDRESS"])
        slots.items["preempt_count_address"] = [base + address & _U64 for base in bases]
        call = slots.items["call"]["e"]
        call["cpu"], call["stack"] = np.arange(len(bases)), -1
        offsets = self._program.map("per_cpu_offset", U64)
        for cpu, base in enumerate(bases):
            offsets[np.uint32(cpu)] = np.uint64(base)
        return slots

    def _counters(self, plan: Plan, cpus: int) -> Counters:
        entry = struct_dtype("count_entry", plan.lengths())
        entries = (cpus << cache_bits(plan, cpus)) * constant("ASSOCIATIVITY")
        cache = MmapArray(self._maps["CELLS"], entries, entry)
        spilled = self._ring("spilled", SPILLED_BYTES, entry)
        fd = self._program.file("overflow")
        overflow = OverflowHash(fd, entry["a"], lambda: counted(self._slots.items)["OVERFLOWED"])
        return Counters(cache, spilled, overflow.read)

    def _hold_statistics(self) -> dict[str, HeldFile]:
        """Open the kernel's description of each program, by its name; without privileges it could not be opened."""
        return {name: HeldFile(Path(f"/proc/self/fdinfo/{file}")) for name, file in self._loaded.items()}

    def _ring(self, name: str, size: int, dtype: np.dtype[np.void]) -> Ring:
        return Ring(self._program.file(name), size, dtype)

    def _record_rings(self, plan: Plan) -> list[Ring]:
        lengths = plan.lengths()
        rings = [self._ring("records", records_bytes(plan.mode), struct_dtype("record", lengths))]
        if plan.bulk is not None:
            rings.append(self._ring("bulk_records", BULK_RING_BYTES, struct_dtype("bulk_record", lengths)))
        return rings

    def _slow_rings(self, plan: Plan) -> tuple[Ring, Ring] | None:
        if plan.slow is None:
            return None
        lengths = plan.lengths()
        return (
            self._ring("slow_events", SLOW_BYTES, struct_dtype("slow_event", lengths)),
            self._ring("slow_zones", ZONES_BYTES, struct_dtype("slow_zone", lengths)),
        )

    def _cgroup_ring(self, plan: Plan) -> Ring | None:
        if plan.hierarchy is None:
            return None
        return self._ring("cgroup_paths", CGROUP_PATHS_BYTES, struct_dtype("cgroup_path", plan.lengths()))

    def _attach(self, kernel: LiveKernel, plan: Plan) -> None:
        def code(hook: Hook) -> bytes:
            with Kcore() as kcore:
                return kcore.read(kernel.address(hook.function) + hook.offset, 1)

        for name, tracepoint in self._program.tracepoints().items():
            self._link(self._load_as(name, TYPE_RAW_TRACEPOINT), tracepoint)
        for hook in plan.trampolines():
            attach_type = TRACE_FEXIT if hook.at_return else TRACE_FENTRY
            self._link(self._load_as(hook.program, TYPE_TRACING, attach_type, hook.function))
        if plan.one is not None and plan.attachment.way == "fentry":
            program = self._loaded[one.SHORT] = one.load_fentry(self._program.instructions, self._btf, FREELIST)
            try:
                self._links.append(link_program(program))
            except OSError as error:
                raise refused(f"by fentry: {error.strerror or error}") from error
        if self._programs:
            way = plan.attachment.way
            if way == "multi" or (way == "fentry" and counts_perf(kernel.btf)):
                self._attached = Links(self._programs, kernel.address)
            else:
                self._attached = Kprobes(self._programs, code)

    def _link(self, program: int, tracepoint: str = "") -> None:
        try:
            self._links.append(link_program(program, tracepoint))
        except OSError as error:
            raise not_loaded(f"{tracepoint or 'fentry'}: {error.strerror or error}") from error

    def _load(self, hook: Hook) -> int:
        """Load the program of a hook, and return its file."""
        multi = self._plan.attachment.way == "multi" and hook.hot
        return self._load_as(hook.program, TYPE_KPROBE, TRACE_KPROBE_MULTI if multi else 0)

    def _load_as(self, name: str, kind: int, attach_type: int = 0, function: str = "") -> int:
        """Load a program, and return its file.

        Args:
            name: the program's.
            kind: TYPE_*.
            attach_type: how it will be attached, where the kernel must know this before.
            function: the one that a program of TYPE_TRACING is for.

        Raises:
            KalloctraceError: the kernel refused.
        """
        if name == one.SHORT:
            instructions = one.joined_program(self._program.instructions, self._btf)
        else:
            instructions = one.with_cast(self._program.instructions(name), self._btf)
        btf_id = self._btf.function_id(function) if function else 0
        try:
            file = load_program(instructions, kind, name=name, attach_type=attach_type, btf_id=btf_id)
        except OSError as error:
            raise not_loaded(error.strerror or str(error)) from error
        self._loaded[name] = file
        return file

    @property
    def jumps(self) -> list[str]:
        """Return the functions whose kprobe has become a jump."""
        return self._attached.jumps if isinstance(self._attached, Kprobes) else []

    def calibrate(self) -> int:
        """Measure the distance of `struct alloc_context` from the frame of the entry's call, and check preempt_count.

        One probe has no frame of that call: the distance is from the return address of get_page_from_freelist().

        Returns:
            The distance in bytes.

        Raises:
            KalloctraceError: the measurements do not agree, or the probes change preempt_count.
        """
        measured = self._measured()
        distances: Counter[int] = Counter()
        preempt_counts: Counter[int] = Counter()
        for key, times in measured:
            distances[int(key["frame_to_ac"])] += times
            preempt_counts[int(key["preempt_count"])] += times
        check_task_context(preempt_counts, self._interrupt_mask)
        if self._look is not None:
            self._look.items["return_to_ac"] = one.agreed_return(distances, CALIBRATION_PAGES)
            self._check_scope({int(key["gfp_mask"]) for key, _ in measured})
            self._look.items["rejects"] = self._sees_rejected()
            return int(self._look.items["return_to_ac"][0])
        distance = self._frame_to_ac = agreed_distance(distances)
        self._slots.items["frame_to_ac"] = self._slots.items["slot_to_ac"] = distance
        # Stored while nothing is captured, so that the later switch changes only the mode.
        self._switch(_OFF)
        return distance

    def _measured(self, request: Callable[[], None] | None = None) -> list[tuple[Any, int]]:
        """Let this thread allocate, and return what these calls showed, as `struct calibrated`, with how many did.

        Args:
            request: makes the calls; None for page faults.
        """
        table = self._program.map("calibrated", U64, "calibrated")
        table.clear()
        self._switch(_CALIBRATE, tid=threading.get_native_id())
        (request or touch)()
        self._switch(_OFF)
        return [(key, int(value)) for key, value in table.items()]

    def _check_scope(self, usual: set[int]) -> None:
        """Check the probe for scopes, if there is one, by calls in a scope that ask for the same as others."""
        if self._plan.one is None or self._plan.one.scope is None:
            return
        masks: Counter[tuple[int, int]] = Counter()
        with one.in_scope():
            for key, times in self._measured():
                masks[int(key["asked"]), int(key["gfp_mask"])] += times
        cleared = self._gfp_bits["__GFP_IO"] | self._gfp_bits["__GFP_FS"]
        one.check_scope(masks, usual, cleared, CALIBRATION_PAGES)

    def _sees_rejected(self) -> bool:
        """Check the probe for rejected requests, if there is one, by such a request; return whether there is."""
        if self._plan.one is None or self._plan.one.reject is None:
            return False
        requests = self._measured(one.be_rejected)
        seen = {
            (int(key["asked"]), int(key["gfp_mask"]), int(key["preempt_count"]), int(key["frame_to_ac"])): times
            for key, times in requests
            if key["asked"]
        }
        one.check_rejected(seen, nr_node_ids())
        return True

    def _load_audit(self, kernel: LiveKernel) -> AuditPair | None:
        """Load the pair that audits one probe; None if there is none, or the kernel refuses it."""
        if self._plan.audit is None:
            return None
        functions = {audit.ENTRY: self._plan.entry, audit.FREELIST: FREELIST}
        try:
            return AuditPair(
                self._plan.audit, functions, self._program.instructions, kernel.address, self._btf.function_id
            )
        except OSError as error:
            self.no_audit = error.strerror or str(error)
            return None

    @property
    def audits(self) -> bool:
        """Return whether the pair can audit one probe."""
        return self._audit is not None

    def attach_audit(self) -> None:
        """Attach the pair beside one probe.

        Raises:
            KalloctraceError: the kernel refused, or the frames of its calls could not be measured.
        """
        if self._audit is None or self._look is None:
            raise _no_audit(self.no_audit or "it was not asked for")
        try:
            self._audit.attach()
        except OSError as error:
            self._audit.detach()
            raise _no_audit(error.strerror or str(error)) from error
        if not self._look.items["audit_frame_to_ac"][0]:
            # One probe measures these calls too, and shows their mask.
            measured = Counter({int(key["frame_to_ac"]): n for key, n in self._measured() if not key["gfp_mask"]})
            self._look.items["audit_frame_to_ac"] = agreed_distance(measured)

    def detach_audit(self) -> None:
        """Detach the pair."""
        if self._audit is not None:
            self._audit.detach()

    def open_audit(self) -> None:
        """Begin to count calls by both attachments, at one moment for both."""
        if self._look is not None:
            self._look.items["audit"] = _AUDIT_READY
            time.sleep(_SETTLE)
            # No call has this distance, so each takes the long way. Programs that would still set it have ended.
            self._look.items["distance"] = 0
            time.sleep(_SETTLE)
            self._look.items["audit"] = _AUDIT_COUNT

    def close_audit(self) -> None:
        """Stop counting, likewise."""
        if self._look is not None:
            self._look.items["audit"] = _AUDIT_READY
            time.sleep(_SETTLE)
            self._look.items["audit"] = _AUDIT_OFF

    def audit_missed(self) -> int:
        """Return how many hits the kernel has skipped of one probe and of the pair that audits it."""
        by_pair = 0 if self._audit is None else self._audit.missed()
        return missed_by_programs(self._statistics)[one.SHORT] + self._missed_kprobes()[one.SHORT] + by_pair

    def audited(self) -> tuple[Seen, Seen]:
        """Return what one probe and the pair counted: different `struct allocation`s, and how often each was seen.

        It reads maps by bpf(2), so nothing may be captured any more.
        """
        key = struct_dtype("allocation", self._plan.lengths())
        of_one, of_pair = (
            OverflowHash(self._program.file(name), key, lambda: 1).read() for name in ("audited_one", "audited_pair")
        )
        return of_one, of_pair

    def audit_alone(self) -> tuple[int, int]:
        """Return how many calls the pair saw without their entry, and how many found a map of the audit full."""
        if self._look is None:
            return 0, 0
        unpaired, full = (int(self._look.items[name][0]) for name in ("audit_unpaired", "audit_full"))
        return unpaired, full

    def start(self) -> None:
        """Begin to capture."""
        self._missed_before = missed_by_programs(self._statistics)
        self._missed_kprobes_before = self._missed_kprobes()
        if self._look is not None:
            # First, because calls of the bulk allocator add to it once they are captured.
            self._look.items["state"] = _CAPTURING
        self._switch(_CAPTURE)
        self._bpf_calls.start()
        if self.mode != "returns":
            self._slots.items["capturing"] = _CAPTURING

    def stop(self) -> None:
        """Stop capturing. Pending calls have a moment to end, and so have programs that run on other CPUs."""
        self._bpf_calls.stop()
        if self._look is not None:
            self._look.items["state"] = _IDLE
        if self.mode != "returns":
            self._slots.items["capturing"] = _CLOSING
        else:
            self._switch(_OFF)
        time.sleep(_SETTLE)
        self._slots.items["capturing"] = _IDLE
        self._switch(_OFF)

    def allow(self, records: int) -> None:
        """Let each CPU send this many records until the next call of this method; used if the rate is limited."""
        self._slots.items["tokens"] = records

    @property
    def utilization(self) -> float:
        """Return how full the fullest buffer is, from 0 to 1."""
        buffers: list[Ring | PerCpuBuffer | Counters] = [*self.records, *(self.slow or ())]
        buffers += [one for one in (self.events, self.counters) if one is not None]
        return max(buffer.utilization for buffer in buffers)

    def counts(self) -> Counts:
        """Return the counters."""
        seen = counted(self._slots.items)
        missed = missed_by_programs(self._statistics)
        missed.subtract(self._missed_before)
        skipped = self._missed_kprobes()
        skipped.subtract(self._missed_kprobes_before)
        # A call in a scope whose mask was not seen counts as dropped, and a rejected request is no allocation.
        for program in (one.SCOPE, one.REJECT, *PART_PROGRAMS):
            missed.pop(program, 0)
            skipped.pop(program, 0)
        slow_missed = sum(missed.pop(name, 0) + skipped.pop(name, 0) for name in SLOW_PROGRAMS)
        freelist = [count for name, count in missed.items() if name == "on_freelist"]
        return Counts(
            opened=seen["OPENED"] - seen["FILTERED"] + int(self._slots.items["calls"].sum()),
            dropped=seen["DROPPED"],
            pending_full=seen["PENDING_FULL"],
            unpaired_freelist=seen["UNPAIRED_FREELIST"],
            unpaired_return=seen["UNPAIRED_RETURN"],
            overwritten=seen["OVERWRITTEN"],
            missed_by_program=missed.total() + seen["FREELIST_BUSY"],
            missed_by_kprobe=skipped.total(),
            bpf_calls=self._bpf_calls.counted(),
            missed_freelist=sum(freelist) + seen["FREELIST_BUSY"],
            comms_dropped=seen["COMMS_DROPPED"],
            zones_dropped=seen["ZONES_DROPPED"],
            slow_missed=slow_missed,
            rejected=seen["REJECTED"] if self._look is not None and self._look.items["rejects"][0] else None,
            own=seen["OWN"] if self._leaves_own_out else None,
            filtered=seen["FILTERED"] + seen["UNMATCHED"],
        )

    def unfinished(self) -> npt.NDArray[np.void]:
        """Return the calls that did not reach get_page_from_freelist(), as `struct call` of record.h."""
        if self.mode == "returns" or self._look is not None:
            return np.zeros(0, self._call)
        slots = self._slots.items
        own = slots["call"][(slots["call"]["frame"] != 0) & (slots["migrated"] != slots["calls"])]
        pending = [call for _, call in self._program.map("pending_calls", self._call, U64).items()]
        return np.concatenate([own, np.array(pending, self._call)])

    def running(self) -> int:
        """Return how many of the calls that are traced to their return have not returned."""
        tables = {"pending_records": "record"} | ({"bulk_pending": "bulk_record"} if self._bulk else {})
        return sum(1 for name, value in tables.items() for _ in self._program.map(name, value, U64))

    def stack(self, stack_id: int) -> tuple[int, ...]:
        """Return the addresses of a captured stack, innermost first."""
        found = self._stacks.get(stack_id)
        if found is None and self._sent_stacks is not None:
            for sent in self._sent_stacks.drain():
                words = sent["addresses"][: max(0, int(sent["bytes"])) // sent["addresses"].itemsize]
                self._stacks[int(sent["id"])] = tuple(words.tolist())
            found = self._stacks.get(stack_id)
        # It is in the map too, in case the ring buffer was full.
        if found is not None:
            return found
        words = self._program.map("stacks", STACK)[np.uint32(stack_id)]
        return tuple(int(word) for word in words if word)

    def maps_readable(self) -> bool:
        """Return whether this process may read the maps, with the capabilities that are now in effect."""
        try:
            self._program.map("control", "control")[np.uint32(0)]
        except OSError:
            return False
        return True

    def _switch(self, mode: int, tid: int = 0) -> None:
        control = np.zeros((), struct_dtype("control"))
        control["mode"], control["tid"], control["frame_to_ac"] = mode, tid, self._frame_to_ac
        self._program.map("control", "control")[np.uint32(0)] = control[()]

    def _missed_kprobes(self) -> Counter[str]:
        """Return how many hits of each program came while a kprobe's handler was running on their CPU.

        These do not make a captured call look rejected: a handler runs with preemption disabled, so a hit in between
        belongs to a call of an interrupt, whose entry is missed too.
        """
        return Counter(self._attached.missed() if self._attached is not None else {})


def _no_audit(why: str) -> KalloctraceError:
    return KalloctraceError("cannot audit one probe by the pair", why, "leave out --audit, or use --attach pair")


def _as_jump(hook: Hook, kcore: Kcore, kernel: LiveKernel) -> Hook:
    """Return the hook, with an offset where it can become a jump if the function has one."""
    if hook.at_return or not hook.hot:
        return hook
    return replace(hook, offset=past_ftrace(kcore.read(kernel.address(hook.function), CODE_BYTES)))
