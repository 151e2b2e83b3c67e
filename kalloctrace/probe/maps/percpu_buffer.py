# SPDX-License-Identifier: MIT
"""Reads the events of stream mode from the per-CPU buffers, in whole spans, through shared memory."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kalloctrace.probe.maps.mmap_array import MmapArray
from kalloctrace.probe.maps.ringbuf import Ring
from kalloctrace.probe.maps.structs import Structs, opaque, padded

_CACHE_LINE = 64
_LEAST_BITS = 10


class PerCpuBuffer:
    """One buffer for each CPU. Only that CPU writes to it, and only this object reads it.

    Attributes:
        dtype: numpy's description of `struct event`.

    Args:
        fd: the file descriptor of the map `percpu_buffer` of stream.bpf.c.
        bits: the base-2 logarithm of the number of events in each buffer.
        slots: `struct slot` of each CPU, which holds the positions of producer and consumer.
        pending: the ring buffer with the events of calls that went through the hash of pending calls.
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
        """Yield the events that are available now, CPU by CPU, as arrays with the members of `struct event`.

        The arrays are views of the buffers: copy what is to be kept before the next iteration.
        """
        produced = self._slots["producer_pos"].copy()
        for cpu in np.flatnonzero(produced != self._slots["consumer_pos"]):
            buffer = self._shared.items[cpu * self._size : (cpu + 1) * self._size]
            start, end = int(self._slots["consumer_pos"][cpu]) % self._size, int(produced[cpu]) % self._size
            for piece in [buffer[start:end]] if start < end else [buffer[start:], buffer[:end]]:
                yield piece.view(self._entry)
            self._slots["consumer_pos"][cpu] = produced[cpu]
        yield self._pending.drain()

    @property
    def utilization(self) -> float:
        """Return how full the fullest buffer is, from 0 to 1; the ring buffer counts too."""
        return max(
            float((self._slots["producer_pos"] - self._slots["consumer_pos"]).max()) / self._size,
            self._pending.utilization,
        )


def entry_dtype(event: np.dtype[np.void]) -> np.dtype[np.void]:
    """Return numpy's description of a buffer's entry: a `struct event`, padded to whole cache lines."""
    return padded(event, _CACHE_LINE)


def buffer_bits(total: int, cpus: int, entry: int) -> int:
    """Return the base-2 logarithm of the number of entries of each buffer.

    Args:
        total: the bytes of all buffers together. With many CPUs they take more, so that no buffer is too small.
        cpus: the number of buffers.
        entry: the size of an entry in bytes.
    """
    return max(_LEAST_BITS, (total // (cpus * entry)).bit_length() - 1)
