# SPDX-License-Identifier: MIT
"""Compiles the BPF program, attaches it, and gives access to its maps."""

import ctypes
import mmap
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.held_file import HeldFile
from kalloctrace.kernel.kcore import Kcore
from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.attach.bcc_import import import_bcc
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.attach.kprobes import Hook, Kprobes
from kalloctrace.probe.attach.optprobe import CODE_BYTES, past_ftrace
from kalloctrace.probe.attach.plan import FREELIST, PREPARE, Mode, Plan
from kalloctrace.probe.layout import bpf_folder, constant, enum_values, struct_dtype
from kalloctrace.probe.maps.counters import Counters
from kalloctrace.probe.maps.mmap_array import MmapArray
from kalloctrace.probe.maps.percpu_buffer import PerCpuBuffer, buffer_bits, entry_dtype
from kalloctrace.probe.maps.ringbuf import Ring

RING_BYTES = 32 << 20
CACHE_BITS = 9
OVERFLOW = 65536
SPILLED_BYTES = 8 << 20
PENDING = 16384
FEW_BYTES = 4 << 20
TASK_COMMS_BYTES = 1 << 20
BULK_RING_BYTES = 2 << 20
BULK_PENDING = 1024
SLOW_BYTES = 16 << 20
ZONES_BYTES = 16 << 20
SLOW_OPEN = 16384
STACKS = 16384

SLOW_PROGRAMS = (
    *("on_slowpath", "on_slowpath_return"),
    *("raw_tracepoint__mm_vmscan_direct_reclaim_begin", "raw_tracepoint__mm_compaction_try_to_compact_pages"),
    "raw_tracepoint__mark_victim",
)
"""The programs of slow.bpf.c. A hit that they miss is not a missed allocation."""

_U64 = (1 << 64) - 1

_IDLE, _CAPTURING, _CLOSING = enum_values("capturing", "IDLE", "CAPTURING", "CLOSING")
_OFF, _CALIBRATE, _CAPTURE = enum_values("mode", "OFF", "CALIBRATE", "CAPTURE")
_COUNTERS = (
    *(
        "OPENED",
        "DROPPED",
        "PENDING_FULL",
        "UNPAIRED_FREELIST",
        "UNPAIRED_RETURN",
        "OVERWRITTEN",
        "FREELIST_BUSY",
        "FILTERED",
    ),
    *("COMMS_DROPPED", "ZONES_DROPPED"),
)
*_COUNTER_INDICES, _ = enum_values("counter", *_COUNTERS, "NR_COUNTERS")
_CALIBRATION_PAGES = 512
_NEARLY_ALL = 0.9
_SETTLE = 0.02
"""Seconds after which every program that was running on another CPU has ended."""


@dataclass(frozen=True)
class Counts:
    """The program's exact counts since capture began.

    opened = calls consumed + dropped + pending_full + overwritten + calls that have not ended.

    Attributes:
        opened: calls of an entry, without those that a filter rejected later.
        dropped: calls that found the buffer full, or the rate used up.
        pending_full: calls that found the hash of pending calls full.
        unpaired_freelist: calls of get_page_from_freelist() without a pending call.
        unpaired_return: returns of an entry without a pending call.
        overwritten: pending calls whose frame was used again before they returned.
        missed: hits that the kernel skipped because the program, or another kprobe, was already running on that CPU.
        missed_freelist: those among them of get_page_from_freelist() whose call may have been seen.
        comms_dropped: task names that found their ring buffer full.
        zones_dropped: how often there was no room for the zones of a slow-path call.
        slow_missed: slow-path hits that the kernel skipped, or calls beyond its limit of active ones.
    """

    opened: int
    dropped: int
    pending_full: int
    unpaired_freelist: int
    unpaired_return: int
    overwritten: int
    missed: int
    missed_freelist: int
    comms_dropped: int
    zones_dropped: int
    slow_missed: int


class Probe:
    """The attached program. Everything is released on exit; it holds only file descriptors.

    Attributes:
        mode: what the program records of a call.
        records: the ring buffers with calls that are traced to their return, one for each kind of record.
        events: the events of stream mode; None in other modes.
        task_comms: the ring buffer with task names in stream mode; None in other modes.
        counters: the counters of aggregate mode; None in other modes.
        slow: the ring buffers with slow-path events and zones; None if the slow path is not traced.

    Args:
        kernel: the running kernel.
        plan: what to attach to.
        filters: which calls to capture.
        stacks: capture the kernel stack of each call too.

    Raises:
        KalloctraceError: bcc is missing, or the kernel rejects the program.
    """

    def __init__(self, kernel: LiveKernel, plan: Plan, *, filters: Filters, stacks: bool = False) -> None:
        self._bcc = import_bcc()
        self.mode = plan.mode
        self._frame_to_ac = 0
        self._bulk = plan.bulk is not None
        self._interrupt_mask = kernel.features.interrupt_mask
        self._missed_before: Counter[str] = Counter()
        self._missed_kprobes_before: Counter[str] = Counter()
        cpus = os.sysconf("SC_NPROCESSORS_CONF")
        with Kcore() as kcore:
            table = kernel.address("__per_cpu_offset")
            bases = [kcore.u64(table + 8 * cpu) for cpu in range(cpus)]
            hooks = [_as_jump(hook, kcore, kernel) for hook in plan.hooks()]

        def code(hook: Hook) -> bytes:
            with Kcore() as kcore:
                return kcore.read(kernel.address(hook.function) + hook.offset, 1)

        lengths = plan.lengths()
        event = struct_dtype("event", lengths)
        entry_bytes = entry_dtype(event).itemsize
        bits = buffer_bits(RING_BYTES, cpus, entry_bytes)
        constants = self._constants(plan, cpus, filters, stacks=stacks) | {
            "PERCPU_BUFFER_BITS": bits,
            "BUFFER_ENTRY_WORDS": entry_bytes // 8,
        }
        self._bpf = self._load(plan.sources(), constants, hooks)
        offsets = self._bpf["per_cpu_offset"]
        for cpu, base in enumerate(bases):
            offsets[ctypes.c_int(cpu)] = ctypes.c_uint64(base)
        if plan.prepare:
            self._bpf.attach_kprobe(event=PREPARE, fn_name="on_prepare")
            self._bpf.attach_kretprobe(event=PREPARE, fn_name="on_prepared")
        self._call = struct_dtype("call", lengths)
        self._slots = MmapArray(self._bpf["slots"].map_fd, cpus, struct_dtype("slot", lengths))
        address = int(plan.constants["PREEMPT_COUNT_ADDRESS"])
        self._slots.items["preempt_count_address"] = [base + address & _U64 for base in bases]
        self.records = [self._ring("records", _records_bytes(plan.mode), struct_dtype("record", lengths))]
        if self._bulk:
            self.records.append(self._ring("bulk_records", BULK_RING_BYTES, struct_dtype("bulk_record", lengths)))
        # These are the same for every call.
        own = self._slots.items["call"]["e"]
        own["cpu"], own["stack"] = np.arange(cpus), -1
        self.slow: tuple[Ring, Ring] | None = None
        if plan.slow is not None:
            self.slow = (
                self._ring("slow_events", SLOW_BYTES, struct_dtype("slow_event", lengths)),
                self._ring("slow_zones", ZONES_BYTES, struct_dtype("slow_zone", lengths)),
            )
        self.events = self.task_comms = self.counters = None
        if plan.mode == "stream":
            pending = self._ring("events", FEW_BYTES, event)
            self.events = PerCpuBuffer(self._bpf["percpu_buffer"].map_fd, bits, self._slots.items, pending)
            self.task_comms = self._ring("task_comms", TASK_COMMS_BYTES, struct_dtype("task_comm", lengths))
        if plan.mode == "aggregate":
            entry = struct_dtype("count_entry", lengths)
            spilled = self._ring("spilled", SPILLED_BYTES, entry)
            entries = (cpus << CACHE_BITS) * constant("ASSOCIATIVITY")
            self.counters = Counters(self._bpf, self._bcc.libbcc.lib, entries, entry, spilled)
        programs = {hook: self._bpf.funcs[hook.program.encode()].fd for hook in hooks}
        self._kprobes = Kprobes(programs, code) if hooks else None
        # Open to the end: without privileges they could not be opened.
        self._statistics = {
            function.name.decode(): HeldFile(Path(f"/proc/self/fdinfo/{function.fd}"))
            for function in self._bpf.funcs.values()
        }

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Detach everything."""
        self.detach()
        for buffer in (*self.records, *(self.slow or ()), self.events, self.task_comms, self.counters):
            if buffer is not None:
                buffer.close()
        self._slots.close()
        self._bpf.cleanup()

    def detach(self) -> None:
        """Remove the kprobes from tracefs; the kernel detaches all else when the process ends."""
        if self._kprobes is not None:
            self._kprobes.close()

    def _ring(self, name: str, size: int, dtype: np.dtype[np.void]) -> Ring:
        return Ring(self._bpf[name].map_fd, size, dtype)

    def _constants(self, plan: Plan, cpus: int, filters: Filters, *, stacks: bool) -> dict[str, int | str]:
        constants: dict[str, int | str] = {
            **plan.constants,
            **filters.constants(),
            "PENDING": PENDING,
            "CACHE_BITS": CACHE_BITS,
            "OVERFLOW": OVERFLOW,
            "SPILLED_PAGES": SPILLED_BYTES // mmap.PAGESIZE,
            "EVENTS_PAGES": FEW_BYTES // mmap.PAGESIZE,
            "RECORDS_PAGES": _records_bytes(plan.mode) // mmap.PAGESIZE,
            "TASK_COMMS_PAGES": TASK_COMMS_BYTES // mmap.PAGESIZE,
            "SLOW_PAGES": SLOW_BYTES // mmap.PAGESIZE,
            "ZONES_PAGES": ZONES_BYTES // mmap.PAGESIZE,
            "SLOW_OPEN": SLOW_OPEN,
            "BULK_PENDING": BULK_PENDING,
            "BULK_RING_PAGES": BULK_RING_BYTES // mmap.PAGESIZE,
            "NR_CPUS": cpus,
        }
        if stacks:
            constants["STACKS"] = STACKS
        return constants

    def _load(self, sources: list[str], constants: dict[str, int | str], hooks: list[Hook]) -> Any:  # noqa: ANN401 bcc has no types
        folder = bpf_folder()
        flags = [
            f"-D{name}={value:#x}ULL" if _wide(value) else f"-D{name}={value}" for name, value in constants.items()
        ]
        # Only bcc's own prologue includes kernel headers; the folder has replacements for these.
        os.environ["BCC_KERNEL_SOURCE"] = str(folder)
        try:
            bpf = self._bcc.BPF(
                text=b"".join((folder / name).read_bytes() for name in sources),
                cflags=[f"-I{folder}", "-Wno-unused-command-line-argument", *flags],
            )
            for hook in hooks:
                bpf.load_func(hook.program, bpf.KPROBE)
        except Exception as error:
            raise KalloctraceError(
                "cannot load the BPF program", str(error), "see what is missing: kalloctrace doctor"
            ) from error
        return bpf

    @property
    def jumps(self) -> list[str]:
        """Return the functions whose kprobe has become a jump."""
        return [] if self._kprobes is None else self._kprobes.jumps

    def calibrate(self) -> int:
        """Measure the distance of `struct alloc_context` from the frame of the entry's call, and check preempt_count.

        Returns:
            The distance in bytes.

        Raises:
            KalloctraceError: the measurements do not agree, or the probes change preempt_count.
        """
        self._switch(_CALIBRATE, tid=threading.get_native_id())
        with mmap.mmap(-1, _CALIBRATION_PAGES * mmap.PAGESIZE) as memory:
            for page in range(0, len(memory), mmap.PAGESIZE):
                memory[page] = 1
        self._switch(_OFF)
        distances: Counter[int] = Counter()
        preempt_counts: Counter[int] = Counter()
        for key, value in self._bpf["calibrated"].items():
            distances[key.frame_to_ac] += value.value
            preempt_counts[key.preempt_count] += value.value
        distance = self._frame_to_ac = agreed_distance(distances)
        self._slots.items["frame_to_ac"] = self._slots.items["slot_to_ac"] = distance
        check_task_context(preempt_counts, self._interrupt_mask)
        # Stored while nothing is captured, so that the later switch changes only the mode.
        self._switch(_OFF)
        return distance

    def start(self) -> None:
        """Begin to capture."""
        self._missed_before = self._missed()
        self._missed_kprobes_before = self._missed_kprobes()
        self._switch(_CAPTURE)
        if self.mode != "returns":
            self._slots.items["capturing"] = _CAPTURING

    def stop(self) -> None:
        """Stop capturing. Pending calls have a moment to end, and so have programs that run on other CPUs."""
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
        buffers: list[Ring | PerCpuBuffer] = [*self.records, *(self.slow or ())]
        if self.events is not None:
            buffers.append(self.events)
        return max(buffer.utilization for buffer in buffers)

    def counts(self) -> Counts:
        """Return the counters."""
        table = self._bpf["counters"]
        counted = {
            name: sum(table[ctypes.c_int(index)]) for name, index in zip(_COUNTERS, _COUNTER_INDICES, strict=True)
        }
        missed = self._missed()
        missed.subtract(self._missed_before)
        skipped = self._missed_kprobes()
        skipped.subtract(self._missed_kprobes_before)
        slow_missed = sum(missed.pop(name, 0) + skipped.pop(name, 0) for name in SLOW_PROGRAMS)
        freelist = [count for name, count in missed.items() if name.endswith((f"__{FREELIST}", "on_freelist"))]
        return Counts(
            opened=counted["OPENED"] - counted["FILTERED"] + int(self._slots.items["calls"].sum()),
            dropped=counted["DROPPED"],
            pending_full=counted["PENDING_FULL"],
            unpaired_freelist=counted["UNPAIRED_FREELIST"],
            unpaired_return=counted["UNPAIRED_RETURN"],
            overwritten=counted["OVERWRITTEN"],
            missed=missed.total() + counted["FREELIST_BUSY"] + skipped.total(),
            missed_freelist=sum(freelist) + counted["FREELIST_BUSY"],
            comms_dropped=counted["COMMS_DROPPED"],
            zones_dropped=counted["ZONES_DROPPED"],
            slow_missed=slow_missed,
        )

    def unfinished(self) -> npt.NDArray[np.void]:
        """Return the calls that did not reach get_page_from_freelist(), as `struct call` of record.h."""
        if self.mode == "returns":
            return np.zeros(0, self._call)
        slots = self._slots.items
        own = slots["call"][(slots["call"]["frame"] != 0) & (slots["migrated"] != slots["calls"])]
        pending = [np.frombuffer(bytes(value), self._call) for value in self._bpf["pending_calls"].values()]
        return np.concatenate([own, *pending])

    def running(self) -> int:
        """Return how many of the calls that are traced to their return have not returned."""
        tables = ["pending_records", "bulk_pending"] if self._bulk else ["pending_records"]
        return sum(1 for table in tables for _ in self._bpf[table].keys())  # noqa: SIM118 a bcc table, not a dict

    def stack(self, stack_id: int) -> tuple[int, ...]:
        """Return the addresses of a captured stack, innermost first."""
        return tuple(self._bpf["stacks"].walk(stack_id))

    def maps_readable(self) -> bool:
        """Return whether this process may read the maps, with the capabilities that are now in effect."""
        key, leaf = ctypes.c_int(0), self._bpf["control"].Leaf()
        return bool(
            self._bcc.libbcc.lib.bpf_lookup_elem(self._bpf["control"].map_fd, ctypes.byref(key), ctypes.byref(leaf))
            == 0
        )

    def _switch(self, mode: int, tid: int = 0) -> None:
        table = self._bpf["control"]
        control = table.Leaf()
        control.mode, control.tid, control.frame_to_ac = mode, tid, self._frame_to_ac
        table[ctypes.c_int(0)] = control

    def _missed(self) -> Counter[str]:
        """Return `recursion_misses` of each program, by its name.

        Linux kernel commit 9ed9e9ba2337 ("bpf: Count the number of times recursion was prevented") (in v5.12);
        older kernels never skip a tracing program, so there is nothing to count. A kprobe's program is skipped only
        while another program runs on that CPU: in an interrupt, or while a bpf(2) call changes a map. The kernel counts
        this since dd8657894c11 ("bpf: Count missed stats in trace_call_bpf") (in v6.7).
        """
        missed: Counter[str] = Counter()
        for name, file in self._statistics.items():
            lines = file.read().decode().splitlines()
            missed[name] = sum(int(line.split()[1]) for line in lines if line.startswith("recursion_misses:"))
        return missed

    def _missed_kprobes(self) -> Counter[str]:
        """Return how many hits of each program came while a kprobe's handler was running on their CPU.

        These do not make a captured call look rejected: a handler runs with preemption disabled, so a hit in between
        belongs to a call of an interrupt, whose entry is missed too.
        """
        return Counter(self._kprobes.missed() if self._kprobes is not None else {})


def _as_jump(hook: Hook, kcore: Kcore, kernel: LiveKernel) -> Hook:
    """Return the hook, with an offset where it can become a jump if the function has one."""
    if hook.at_return or not hook.hot:
        return hook
    return replace(hook, offset=past_ftrace(kcore.read(kernel.address(hook.function), CODE_BYTES)))


def _records_bytes(mode: Mode) -> int:
    """Return the size of the ring buffer for calls that are traced to their return; in other modes these are few."""
    return RING_BYTES if mode == "returns" else FEW_BYTES


def _wide(value: int | str) -> bool:
    return isinstance(value, int) and value > 0x7FFFFFFF


def agreed_distance(seen: Counter[int]) -> int:
    """Return the distance on which nearly all measurements agree; interrupts may have disturbed a few.

    Args:
        seen: how often each distance, in bytes, was measured.

    Raises:
        KalloctraceError: they do not agree.
    """
    total = seen.total()
    if total:
        distance, times = seen.most_common(1)[0]
        if times >= _NEARLY_ALL * total and 0 < distance < 4096:
            return distance
    raise KalloctraceError(
        "cannot pair the entry with get_page_from_freelist",
        f"the distance between their frames could not be measured: {dict(seen.most_common(3))}",
        "try again on an idle machine; if it fails again, report the kernel release",
    )


def check_task_context(seen: Counter[int], interrupt_mask: int) -> None:
    """Refuse probes that make every call look as if an interrupt made it.

    Kprobes on ftrace and trampolines change at most the low byte of preempt_count. A breakpoint's handler runs in NMI
    context (exc_int3() in arch/x86/kernel/traps.c), so the interrupt bits would be those of the probe itself.

    Args:
        seen: how often each raw preempt_count was measured in calls of one task.
        interrupt_mask: the bits that mean "not in task context".

    Raises:
        KalloctraceError: more calls have such a bit than interrupts can explain.
    """
    interrupted = sum(times for preempt_count, times in seen.items() if preempt_count & interrupt_mask)
    if interrupted > (1 - _NEARLY_ALL) * seen.total():
        raise KalloctraceError(
            "cannot capture preempt_count",
            f"{interrupted} of {seen.total()} calls of a task seem to be an interrupt's: the probe is a breakpoint",
            "let kprobes use ftrace: sysctl kernel.ftrace_enabled=1; or record with --attach fentry",
        )
