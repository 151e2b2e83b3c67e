# SPDX-License-Identifier: MIT
"""The consumer of the per-CPU buffers, on a file of the same layout."""

import mmap
import tempfile
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from kalloctrace.probe.layout import struct_dtype
from kalloctrace.probe.maps.percpu_buffer import PerCpuBuffer, buffer_bits, entry_dtype
from kalloctrace.probe.maps.ringbuf import Ring

CPUS, BITS = 3, 2
SIZE = 1 << BITS
LENGTHS = {"NODEMASK_WORDS": 1, "BY_WORDS": 0}
EVENT = struct_dtype("event", LENGTHS)
ENTRY = entry_dtype(EVENT)
SLOT = struct_dtype("slot", LENGTHS)


class Program:
    """The BPF program: each CPU writes into its buffer and moves its position."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 it lives as long as the program
        self.file.truncate(-(-(CPUS << BITS) * ENTRY.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE)
        self.events = np.frombuffer(mmap.mmap(self.file.fileno(), 0), ENTRY, CPUS << BITS)
        self.slots = np.zeros(CPUS, SLOT)
        self.ring = tempfile.TemporaryFile()  # noqa: SIM115 likewise
        self.ring.truncate(2 * mmap.PAGESIZE + 2 * mmap.PAGESIZE)

    def send(self, cpu: int, time: int) -> bool:
        """Write one event; return whether there was room."""
        position = int(self.slots["producer_pos"][cpu])
        if position - int(self.slots["consumer_pos"][cpu]) >= SIZE:
            return False
        self.events["time"][(cpu << BITS) + position % SIZE] = time
        self.slots["producer_pos"][cpu] += 1
        return True

    def buffer(self) -> PerCpuBuffer:
        """Return the consumer."""
        return PerCpuBuffer(self.file.fileno(), BITS, self.slots, Ring(self.ring.fileno(), mmap.PAGESIZE, EVENT))


@pytest.fixture
def program() -> Iterator[Program]:
    """Return a program that has sent nothing."""
    program = Program()
    yield program
    program.file.close()
    program.ring.close()


def drained(buffer: PerCpuBuffer) -> list[int]:
    """Return the times of the events that were there."""
    return [int(time) for events in buffer.drain() for time in events["time"]]


def test_events_come_cpu_by_cpu_and_once(program: Program) -> None:
    """In the order in which each CPU wrote them."""
    with closing(program.buffer()) as buffer:
        for cpu, time in ((2, 1), (0, 2), (2, 3)):
            program.send(cpu, time)
        assert drained(buffer) == [2, 1, 3]
        assert drained(buffer) == []


def test_buffer_wraps_around(program: Program) -> None:
    """Also if events lie across its end."""
    with closing(program.buffer()) as buffer:
        seen = []
        for start in range(0, 30, 3):
            for time in range(start, start + 3):
                assert program.send(1, time)
            seen += drained(buffer)
        assert seen == list(range(30))


def test_full_buffer_is_read_completely_and_has_room_again(program: Program) -> None:
    """At any position."""
    with closing(program.buffer()) as buffer:
        for first in range(1, 2 * SIZE):
            times = list(range(first, first + SIZE))
            assert all(program.send(0, time) for time in times)
            assert not program.send(0, 0)
            assert buffer.utilization == 1
            assert drained(buffer) == times
            assert buffer.utilization == 0
            program.send(0, 0)
            assert drained(buffer) == [0]


def test_space_is_freed_after_the_events_were_used(program: Program) -> None:
    """Until then they are not overwritten."""
    with closing(program.buffer()) as buffer:
        for time in range(SIZE):
            program.send(0, time)
        spans = buffer.drain()
        assert next(spans)["time"].tolist() == list(range(SIZE))
        assert not program.send(0, 7)
        assert not any(map(len, spans))
        assert program.send(0, 7)


@pytest.mark.parametrize(("cpus", "bits"), [(1, 17), (2, 16), (3, 16), (512, 10)])
def test_buffers_share_the_memory(cpus: int, bits: int) -> None:
    """But no buffer is too small."""
    assert buffer_bits(32 << 20, cpus, 160) == bits
