# SPDX-License-Identifier: MIT
"""The consumer of the ring buffer, on a file of the same layout."""

import mmap
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from kalloctrace.probe.layout import struct_dtype
from kalloctrace.probe.maps.ringbuf import Ring

SIZE = 4096
DTYPE = np.dtype([("a", "<u8"), ("b", "<u4")])
SLOT = 24
BUSY, DISCARDED = 1 << 31, 1 << 30


class Producer:
    """The kernel's side: it writes records and moves its position; the data is mapped twice in a row."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 it lives as long as the producer
        self.file.truncate(2 * mmap.PAGESIZE + 2 * SIZE)
        self.position = 0

    @property
    def fd(self) -> int:
        """Return the descriptor that the consumer maps."""
        return self.file.fileno()

    def put(self, a: int, flags: int = 0) -> None:
        """Write one record."""
        slot = struct.pack("<IIQI4x", DTYPE.itemsize | flags, 0, a, a % 1000)
        for i, byte in enumerate(slot):
            at = (self.position + i) % SIZE
            for copy in (0, SIZE):
                os.pwrite(self.fd, bytes([byte]), 2 * mmap.PAGESIZE + copy + at)
        self.position += SLOT
        os.pwrite(self.fd, self.position.to_bytes(8, "little"), mmap.PAGESIZE)

    def finish(self, position: int) -> None:
        """Finish the record at a position."""
        for copy in (0, SIZE):
            os.pwrite(self.fd, DTYPE.itemsize.to_bytes(4, "little"), 2 * mmap.PAGESIZE + copy + position % SIZE)

    def consumed(self) -> int:
        """Return the consumer's position."""
        return int.from_bytes(os.pread(self.fd, 8, 0), "little")


@pytest.fixture
def producer() -> Iterator[Producer]:
    """Return a producer with an empty buffer."""
    producer = Producer()
    yield producer
    producer.file.close()


def drained(ring: Ring) -> list[int]:
    """Return the values that are ready."""
    return [int(record["a"]) for record in ring.drain()]


def test_records_come_in_order_and_give_their_room_back(producer: Producer) -> None:
    """Each record is seen once."""
    with closing(Ring(producer.fd, SIZE, DTYPE)) as ring:
        for value in (1, 2, 3):
            producer.put(value)
        assert drained(ring) == [1, 2, 3]
        assert producer.consumed() == 3 * SLOT
        assert drained(ring) == []


def test_unfinished_record_holds_back_those_behind_it(producer: Producer) -> None:
    """A program that is interrupted between reserving and submitting leaves its record busy for a while."""
    with closing(Ring(producer.fd, SIZE, DTYPE)) as ring:
        producer.put(1)
        busy = producer.position
        producer.put(2, BUSY)
        producer.put(3)
        assert drained(ring) == [1]
        producer.finish(busy)
        assert drained(ring) == [2, 3]


def test_discarded_record_is_skipped(producer: Producer) -> None:
    """It takes space, but is no record."""
    with closing(Ring(producer.fd, SIZE, DTYPE)) as ring:
        producer.put(1)
        producer.put(2, DISCARDED)
        producer.put(3)
        assert drained(ring) == [1, 3]


def test_records_that_wrap_are_whole(producer: Producer) -> None:
    """4,096 is not a multiple of a record's size, so records cross the end of the data repeatedly."""
    seen = []
    with closing(Ring(producer.fd, SIZE, DTYPE)) as ring:
        for value in range(1000):
            producer.put(value)
            if value % 97 == 0:
                seen += drained(ring)
        seen += drained(ring)
    assert seen == list(range(1000))


def test_fill_tells_how_much_waits(producer: Producer) -> None:
    """The recorder drains at once when the buffer fills up."""
    with closing(Ring(producer.fd, SIZE, DTYPE)) as ring:
        for value in range(SIZE // SLOT // 2):
            producer.put(value)
        assert ring.utilization == pytest.approx(0.5, abs=0.01)


LENGTHS = {"NODEMASK_WORDS": 2, "BY_WORDS": 0, "ALLOC_CONTEXT_WORDS": 6}


@pytest.mark.parametrize("struct", ["record", "bulk_record"])
def test_record_has_no_holes_but_at_its_end(struct: str) -> None:
    """Each offset is a multiple of the size, as the compiler has it, with the widest fields first."""
    dtype = struct_dtype(struct, LENGTHS)
    base = struct_dtype("record", LENGTHS)
    end = 0
    assert dtype.names is not None
    for name in dtype.names:
        kind, offset = dtype.fields[name][:2]  # type: ignore[index] # a structured type has fields
        assert offset == (base.itemsize if name == "page_array" else end)
        assert offset % kind.base.alignment == 0
        end = offset + kind.itemsize
    # A structure with 64-bit members fills a multiple of 8 bytes.
    assert dtype.itemsize == -(-end // 8) * 8


def test_bulk_record_begins_with_a_record() -> None:
    """Both kinds share their first members, so that one function makes rows from both."""
    base, bulk = (struct_dtype(struct, LENGTHS) for struct in ("record", "bulk_record"))
    assert bulk.names is not None
    assert base.names is not None
    assert bulk.names[: len(base.names)] == base.names
    assert bulk.fields is not None
    assert bulk.fields["populated"][0].shape == (2,)
