# SPDX-License-Identifier: MIT
"""Counts the bpf(2) calls of all processes: during one that changes or reads a map, the kernel skips programs."""

import os
from contextlib import suppress

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.attach.links import kprobe_type
from kalloctrace.system_calls import perf_event_open

_FUNCTIONS = ("__sys_bpf", "__x64_sys_bpf")
"""What the system call runs; the first one also for programs of i386.

Linux kernel commit af2ac3e13e45 ("bpf: Prepare bpf syscall to be used from kernel and user space.") (in v5.13).
"""
_COUNT_BYTES = 8


class BpfCalls:
    """A perf event on each CPU, a kprobe at the system call: it costs other programs nothing unless they use bpf(2).

    Args:
        kernel: the running kernel.
        cpus: how many CPUs there may be.
    """

    def __init__(self, kernel: LiveKernel, cpus: int) -> None:
        self._events: list[int] = []
        self._before = 0
        self._at_end: int | None = None
        found = (kernel.symbols.address(name) for name in _FUNCTIONS)
        address = next((one for one in found if one is not None), None)
        if address is None:
            return
        with suppress(OSError, KalloctraceError):
            kind = kprobe_type()
            for cpu in range(cpus):
                # A CPU that is not there is refused.
                with suppress(OSError):
                    self._events.append(perf_event_open(kind, 0, pid=-1, cpu=cpu, address=address))

    def start(self) -> None:
        """Begin to count."""
        self._before, self._at_end = self._count(), None

    def stop(self) -> None:
        """Stop counting."""
        self._at_end = self._count()

    def counted(self) -> int | None:
        """Return how many there were between start and stop, or since start; None if the kernel does not count them."""
        now = self._count() if self._at_end is None else self._at_end
        return now - self._before if self._events else None

    def _count(self) -> int:
        return sum(int.from_bytes(os.read(event, _COUNT_BYTES), "little") for event in self._events)

    def close(self) -> None:
        """Stop counting."""
        for event in self._events:
            os.close(event)
        self._events.clear()
