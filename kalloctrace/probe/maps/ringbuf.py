# SPDX-License-Identifier: MIT
"""The consumer's side of a BPF ring buffer, read in whole spans through shared memory.

Layout as in kernel/bpf/ringbuf.c: one page with the consumer's position, one with the producer's, then the data
mapped twice in a row so that no record wraps. Each record has a header of 8 bytes: its length, with two bits that
say "not finished" and "discarded".
"""

import mmap

import numpy as np
import numpy.typing as npt

from kalloctrace.probe.maps.structs import opaque

_BUSY = 1 << 31
_DISCARDED = 1 << 30
_HEADER = 8


class Ring:
    """A ring buffer whose records all have one type.

    Attributes:
        dtype: numpy's description of a record.

    Args:
        fd: the map's file descriptor.
        size: the size of its data in bytes, a power of two.
        dtype: numpy's description of a record.
    """

    def __init__(self, fd: int, size: int, dtype: np.dtype[np.void]) -> None:
        page = mmap.PAGESIZE
        self.dtype = dtype
        self._size = size
        # Records start at multiples of 8 bytes.
        stride = _HEADER + -(-dtype.itemsize // 8) * 8
        self._slot = np.dtype(
            {
                "names": ["header", "record"],
                "formats": ["<u4", opaque(dtype)],
                "offsets": [0, _HEADER],
                "itemsize": stride,
            }
        )
        self._consumer_page = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._rest = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer = np.frombuffer(self._consumer_page, "<u8", 1)
        self._producer = np.frombuffer(self._rest, "<u8", 1)
        self._data = np.frombuffer(self._rest, "u1", 2 * size, page)

    def close(self) -> None:
        """Unmap the memory."""
        del self._consumer, self._producer, self._data
        self._consumer_page.close()
        self._rest.close()

    def drain(self) -> npt.NDArray[np.void]:
        """Return a copy of the records that are finished now, and give their room back.

        What comes in meanwhile waits for the next call: a fast producer does not keep the caller here.
        """
        start = int(self._consumer[0])
        waiting = int(self._producer[0]) - start
        at = start % self._size
        slots = self._data[at : at + waiting].view(self._slot)
        span = slots[: _first_busy(slots["header"])]
        # Chosen by a mask, which copies: the memory is the kernel's again with the next line.
        records: npt.NDArray[np.void] = span["record"][(span["header"] & _DISCARDED) == 0]
        self._consumer[0] = start + len(span) * self._slot.itemsize
        return records.view(self.dtype)

    @property
    def utilization(self) -> float:
        """Return how full the buffer is, between 0 and 1."""
        return (int(self._producer[0]) - int(self._consumer[0])) / self._size


def _first_busy(headers: npt.NDArray[np.uint32]) -> int:
    busy = np.flatnonzero(headers & _BUSY)
    return int(busy[0]) if busy.size else headers.size
