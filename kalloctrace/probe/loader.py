# SPDX-License-Identifier: MIT
"""Compiles the BPF program, attaches it, and hands out what it captures."""

import ctypes
import mmap
import os
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.kcore import Kcore
from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.bcc_import import import_bcc
from kalloctrace.probe.layout import bpf_folder, record_dtype
from kalloctrace.probe.plan import FREELIST, PREPARE, Plan
from kalloctrace.probe.ring import Ring

RING_BYTES = 32 << 20
PENDING = 16384
BULK_RING_BYTES = 2 << 20
BULK_PENDING = 1024
STACKS = 16384

_OFF, _CALIBRATE, _CAPTURE = range(3)
_CALIBRATION_PAGES = 512


class _Control(ctypes.Structure):
    """`struct control` of the program."""

    _fields_ = (
        ("mode", ctypes.c_uint32),
        ("tid", ctypes.c_uint32),
        ("frame_to_ac", ctypes.c_uint64),
        ("tgid", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class Counts:
    """What the program counted, exactly, since capture began.

    opened = submitted + dropped + no_room + replaced + (calls still running).

    Attributes:
        opened: calls of an entry.
        submitted: records that reached the ring buffer.
        dropped: records that found it full.
        no_room: calls that found the table of running calls full.
        freelist_alone: calls of get_page_from_freelist() without a running call.
        return_alone: returns of an entry without a running call.
        replaced: calls whose frame held a record that never returned.
        missed: hits that the kernel skipped as the program was already running on that CPU.
        missed_freelist: those of get_page_from_freelist() among them.
    """

    opened: int
    submitted: int
    dropped: int
    no_room: int
    freelist_alone: int
    return_alone: int
    replaced: int
    missed: int
    missed_freelist: int


class Probe:
    """The attached program. Nothing of it outlives the object, nor the process: it holds file descriptors only.

    Args:
        kernel: the running kernel.
        plan: what to attach to.
        tgid: the one process to capture, None for all.
        stacks: capture the kernel stack of each call too.

    Raises:
        KalloctraceError: bcc is missing, or the kernel refuses the program.
    """

    def __init__(self, kernel: LiveKernel, plan: Plan, *, tgid: int | None = None, stacks: bool = False) -> None:
        self._bcc = import_bcc()
        self._control = _Control(_OFF, 0, 0, tgid or 0)
        cpus = os.sysconf("SC_NPROCESSORS_CONF")
        constants: dict[str, int | str] = {
            **plan.constants,
            "PENDING": PENDING,
            "RING_PAGES": RING_BYTES // mmap.PAGESIZE,
            "BULK_PENDING": BULK_PENDING,
            "BULK_RING_PAGES": BULK_RING_BYTES // mmap.PAGESIZE,
            "NR_CPUS": cpus,
        }
        if stacks:
            constants["STACKS"] = STACKS
        self._bulk = plan.bulk is not None
        self._bpf = self._load(plan.sources(), constants)
        with Kcore() as kcore:
            table = kernel.address("__per_cpu_offset")
            offsets = self._bpf["per_cpu_offset"]
            for cpu in range(cpus):
                offsets[ctypes.c_int(cpu)] = ctypes.c_uint64(kcore.u64(table + 8 * cpu))
        if plan.prepare:
            self._bpf.attach_kprobe(event=PREPARE, fn_name="on_prepare")
            self._bpf.attach_kretprobe(event=PREPARE, fn_name="on_prepared")
        lengths = plan.lengths()
        self._rings = [Ring(self._bpf["records"].map_fd, RING_BYTES, record_dtype("record", lengths))]
        if self._bulk:
            dtype = record_dtype("bulk_record", lengths)
            self._rings.append(Ring(self._bpf["bulk_records"].map_fd, BULK_RING_BYTES, dtype))

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Detach everything."""
        for ring in self._rings:
            ring.__exit__()
        self._bpf.cleanup()

    def _load(self, sources: list[str], constants: dict[str, int | str]) -> Any:  # noqa: ANN401 bcc has no types
        folder = bpf_folder()
        flags = [
            f"-D{name}={value:#x}ULL" if _wide(value) else f"-D{name}={value}" for name, value in constants.items()
        ]
        # bcc includes kernel headers only in its own prologue; the folder holds stand-ins for those.
        os.environ["BCC_KERNEL_SOURCE"] = str(folder)
        try:
            return self._bcc.BPF(
                text=b"".join((folder / name).read_bytes() for name in sources),
                cflags=[f"-I{folder}", "-Wno-unused-command-line-argument", *flags],
            )
        except Exception as error:
            raise KalloctraceError(
                "cannot load the BPF program", str(error), "see what is missing: kalloctrace doctor"
            ) from error

    def calibrate(self) -> int:
        """Measure how far `struct alloc_context` lies from the frame of the entry's call.

        Returns:
            The distance in bytes.

        Raises:
            KalloctraceError: the measurements do not agree.
        """
        self._switch(_CALIBRATE, tid=threading.get_native_id())
        with mmap.mmap(-1, _CALIBRATION_PAGES * mmap.PAGESIZE) as memory:
            for page in range(0, len(memory), mmap.PAGESIZE):
                memory[page] = 1
        self._switch(_OFF)
        seen = Counter({key.value: value.value for key, value in self._bpf["distances"].items()})
        distance = self._control.frame_to_ac = _agreed(seen)
        # Written while nothing is captured: the later switch then changes nothing but the mode.
        self._switch(_OFF)
        return distance

    def start(self) -> None:
        """Begin to capture."""
        self._switch(_CAPTURE)

    def stop(self) -> None:
        """End capturing; calls still running stay unfinished."""
        self._switch(_OFF)

    def drain(self) -> list[npt.NDArray[np.void]]:
        """Return what was captured since the last call, an array for each kind of record."""
        return [ring.drain() for ring in self._rings]

    @property
    def fill(self) -> float:
        """Return how full the fullest ring buffer is, between 0 and 1."""
        return max(ring.fill for ring in self._rings)

    def counts(self) -> Counts:
        """Return the counters."""
        table = self._bpf["counters"]
        opened, submitted, dropped, no_room, freelist_alone, return_alone, replaced = (
            sum(table[ctypes.c_int(i)]) for i in range(7)
        )
        missed = self._missed()
        freelist = [count for name, count in missed.items() if name.endswith(f"__{FREELIST}")]
        return Counts(
            opened=opened,
            submitted=submitted,
            dropped=dropped,
            no_room=no_room,
            freelist_alone=freelist_alone,
            return_alone=return_alone,
            replaced=replaced,
            missed=sum(missed.values()),
            missed_freelist=sum(freelist),
        )

    def running(self) -> int:
        """Return how many calls have begun and not returned."""
        tables = ["pending", "bulk_pending"] if self._bulk else ["pending"]
        return sum(1 for table in tables for _ in self._bpf[table].keys())  # noqa: SIM118 a bcc table, not a dict

    def stack(self, stack_id: int) -> tuple[int, ...]:
        """Return the addresses of a captured stack, innermost first."""
        return tuple(self._bpf["stacks"].walk(stack_id))

    def _switch(self, mode: int, tid: int = 0) -> None:
        self._control.mode = mode
        self._control.tid = tid
        self._bpf["control"][ctypes.c_int(0)] = self._control

    def _missed(self) -> dict[str, int]:
        """Return `recursion_misses` of each program, by its name, which ends with the function's (after `__`).

        Linux kernel commit 9ed9e9ba2337 ("bpf: Count the number of times recursion was prevented") (in v5.12);
        before it the kernel skips no tracing program, so that there is nothing to count.
        """
        missed = {}
        for function in self._bpf.funcs.values():
            lines = Path(f"/proc/self/fdinfo/{function.fd}").read_text().splitlines()
            counts = (int(line.split()[1]) for line in lines if line.startswith("recursion_misses:"))
            missed[function.name.decode()] = sum(counts)
        return missed


def _wide(value: int | str) -> bool:
    return isinstance(value, int) and value > 0x7FFFFFFF


def _agreed(seen: Counter[int]) -> int:
    """Return the one distance that nearly all measurements share; interrupts may have disturbed a few."""
    total = seen.total()
    if total:
        distance, times = seen.most_common(1)[0]
        if times >= 0.9 * total and 0 < distance < 4096:
            return distance
    raise KalloctraceError(
        "cannot pair the entry with get_page_from_freelist",
        f"the distance between their frames could not be measured: {dict(seen.most_common(3))}",
        "try again on a quieter machine, and report the kernel's release if it stays so",
    )
