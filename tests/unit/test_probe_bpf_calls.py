# SPDX-License-Identifier: MIT
"""The bpf(2) calls of all processes: one event for each CPU, counted while a recording runs."""

import os
from collections.abc import Callable

import pytest

from kalloctrace.probe.attach import bpf_calls
from kalloctrace.probe.attach.bpf_calls import BpfCalls

ADDRESS = 0xFFFF_FFFF_8100_0000


class Kernel:
    """A kernel with some symbols, whose events count what a test sets; its last CPU is not there.

    Args:
        names: of the symbols.
    """

    def __init__(self, *names: str) -> None:
        self.symbols = self
        self.names = names
        self.asked: list[tuple[int, int, int]] = []
        self.counts: dict[int, int] = {}

    def address(self, name: str) -> int | None:
        """Return the address of a symbol."""
        return ADDRESS + self.names.index(name) if name in self.names else None

    def open(self, kind: int, _: int, *, pid: int, cpu: int, address: int) -> int:
        """Open an event."""
        self.asked.append((kind, pid, address))
        if cpu == 2:
            raise OSError("no such CPU")
        file = os.memfd_create("event")
        self.counts[file] = 0
        return file

    def read(self, file: int, size: int) -> bytes:
        """Read an event."""
        return self.counts[file].to_bytes(size, "little")


Make = Callable[..., tuple[Kernel, BpfCalls]]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return a function that makes a kernel with these symbols, and counts its calls on three CPUs."""

    def made(*names: str) -> tuple[Kernel, BpfCalls]:
        kernel = Kernel(*names)
        monkeypatch.setattr(bpf_calls, "perf_event_open", kernel.open)
        monkeypatch.setattr(bpf_calls, "kprobe_type", lambda: 8)
        counted = BpfCalls(kernel, 3)  # type: ignore[arg-type] # its symbols
        monkeypatch.setattr(os, "read", kernel.read)
        return kernel, counted

    return made


def test_calls_between_start_and_stop_are_counted(make: Make) -> None:
    """On all CPUs; before the end those so far."""
    kernel, counted = make("__x64_sys_bpf", "__sys_bpf")
    assert kernel.asked == [(8, -1, ADDRESS + 1)] * 3
    one, other = kernel.counts
    kernel.counts |= {one: 5, other: 7}
    counted.start()
    kernel.counts |= {one: 6, other: 10}
    assert counted.counted() == 4
    counted.stop()
    kernel.counts[one] = 100
    assert counted.counted() == 4
    counted.start()
    assert counted.counted() == 0
    counted.close()


def test_older_kernels_have_the_system_call_alone(make: Make) -> None:
    """5.10 has no function of its own below it."""
    kernel, counted = make("__x64_sys_bpf")
    assert {address for _, _, address in kernel.asked} == {ADDRESS}
    counted.close()


def test_unknown_where_nothing_counts(make: Make) -> None:
    """No symbol, so no event."""
    _, counted = make()
    counted.start()
    counted.stop()
    assert counted.counted() is None
