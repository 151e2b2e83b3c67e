# SPDX-License-Identifier: MIT
"""The consumer of a BPF ring buffer, which reads many records at once through shared memory.

The layout is that of kernel/bpf/ringbuf.c: a page with the consumer's position, a page with the producer's, then the
data, mapped twice in a row so that no record wraps around. Each record has a header of 8 bytes: its length, with the
bits "busy" and "discarded".
"""

import mmap

import numpy as np
import numpy.typing as npt

from kalloctrace.probe.maps.structs import opaque

_BUSY = 1 << 31
_DISCARDED = 1 << 30
_HEADER = 8


class Ring:
    """A ring buffer whose records all have the same type.

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
        self._nothing = np.zeros(0, dtype)
        self._size = size
        # Records are aligned to 8 bytes.
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
        """Return a copy of the finished records, and free their space.

        Records that arrive meanwhile wait for the next call, so a fast producer cannot keep the caller here.
        """
        start = int(self._consumer[0])
        waiting = int(self._producer[0]) - start
        if not waiting:
            # Mostly there is nothing, and this is done many times per second.
            return self._nothing
        at = start % self._size
        slots = self._data[at : at + waiting].view(self._slot)
        span = slots[: _first_busy(slots["header"])]
        # Indexing with a mask copies. After the next line the kernel may overwrite the memory.
        records: npt.NDArray[np.void] = span["record"][(span["header"] & _DISCARDED) == 0]
        self._consumer[0] = start + len(span) * self._slot.itemsize
        return records.view(self.dtype)

    @property
    def utilization(self) -> float:
        """Return how full the buffer is, from 0 to 1."""
        return (int(self._producer[0]) - int(self._consumer[0])) / self._size


def _first_busy(headers: npt.NDArray[np.uint32]) -> int:
    busy = np.flatnonzero(headers & _BUSY)
    return int(busy[0]) if busy.size else headers.size
