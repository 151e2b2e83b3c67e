# SPDX-License-Identifier: MIT
"""Reads the events of stream mode: what each CPU wrote into its buffer, in whole spans, through shared memory."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kalloctrace.probe.maps.mmap_array import MmapArray
from kalloctrace.probe.maps.ringbuf import Ring
from kalloctrace.probe.maps.structs import Structs, opaque, padded


class PerCpuBuffer:
    """A buffer for each CPU, which that CPU alone writes to, and only this object reads.

    Attributes:
        dtype: numpy's description of `struct event`.

    Args:
        fd: the file descriptor of the map `lanes` of stream.bpf.c.
        bits: a buffer has two to this power events.
        slots: `struct slot` of each CPU, which counts what was sent and what was taken over.
        pending: the ring buffer with the events of calls that were pending, and so go by no buffer.
    """

    def __init__(self, fd: int, bits: int, slots: npt.NDArray[np.void], pending: Ring) -> None:
        self.dtype = pending.dtype
        self._entry = entry_dtype(pending.dtype)
        self._pending = pending
        self._size = 1 << bits
        self._slots = slots
        self._shared = MmapArray(fd, len(slots) << bits, opaque(self._entry))

    def close(self) -> None:
        """Unmap the memory."""
        self._pending.close()
        self._shared.close()
        del self._slots

    def drain(self) -> Iterator[Structs]:
        """Yield the events that are there now, CPU by CPU: arrays with the members of `struct event`.

        They are where the program wrote them: what is to stay has to be copied before the next ones are asked for.
        """
        sent = self._slots["producer_pos"].copy()
        for cpu in np.flatnonzero(sent != self._slots["consumer_pos"]):
            buffer = self._shared.items[cpu * self._size : (cpu + 1) * self._size]
            start, end = int(self._slots["consumer_pos"][cpu]) % self._size, int(sent[cpu]) % self._size
            for piece in [buffer[start:end]] if start < end else [buffer[start:], buffer[:end]]:
                yield piece.view(self._entry)
            self._slots["consumer_pos"][cpu] = sent[cpu]
        yield self._pending.drain()

    @property
    def utilization(self) -> float:
        """Return how full the fullest buffer is, or the ring buffer, between 0 and 1."""
        return max(
            float((self._slots["producer_pos"] - self._slots["consumer_pos"]).max()) / self._size,
            self._pending.utilization,
        )


def entry_dtype(event: np.dtype[np.void]) -> np.dtype[np.void]:
    """Return numpy's description of what holds a `struct event` in a buffer: whole lines of the processor's cache."""
    return padded(event, _CACHE_LINE)


def buffer_bits(total: int, cpus: int, cell: int) -> int:
    """Return the size of a buffer, as a power of two of cells.

    Args:
        total: bytes for all lanes together, or more where a buffer would be too small to be of use.
        cpus: how many lanes.
        cell: bytes of a cell.
    """
    return max(_LEAST_BITS, (total // (cpus * cell)).bit_length() - 1)


_CACHE_LINE = 64
_LEAST_BITS = 10
