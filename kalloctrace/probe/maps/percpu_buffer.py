# SPDX-License-Identifier: MIT
"""Reads the events of stream mode: what each CPU wrote into its lane, in whole spans, through shared memory."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kalloctrace.probe.maps.mmap_array import SharedArray
from kalloctrace.probe.maps.ringbuf import Ring
from kalloctrace.probe.maps.structs import Structs, opaque, padded


class Lanes:
    """A buffer for each CPU, which that CPU alone writes to, and only this object reads.

    Attributes:
        dtype: numpy's description of `struct event`.

    Args:
        fd: the file descriptor of the map `lanes` of stream.bpf.c.
        bits: a lane has two to this power events.
        slots: `struct slot` of each CPU, which counts what was sent and what was taken over.
        parked: the ring buffer with the events of calls that were parked, and so go by no lane.
    """

    def __init__(self, fd: int, bits: int, slots: npt.NDArray[np.void], parked: Ring) -> None:
        self.dtype = parked.dtype
        self._cell = cell_dtype(parked.dtype)
        self._parked = parked
        self._size = 1 << bits
        self._slots = slots
        self._shared = SharedArray(fd, len(slots) << bits, opaque(self._cell))

    def close(self) -> None:
        """Unmap the memory."""
        self._parked.close()
        self._shared.close()
        del self._slots

    def drain(self) -> Iterator[Structs]:
        """Yield the events that are there now, CPU by CPU: arrays with the members of `struct event`.

        They are where the program wrote them: what is to stay has to be copied before the next ones are asked for.
        """
        sent = self._slots["sent"].copy()
        for cpu in np.flatnonzero(sent != self._slots["taken"]):
            lane = self._shared.items[cpu * self._size : (cpu + 1) * self._size]
            start, end = int(self._slots["taken"][cpu]) % self._size, int(sent[cpu]) % self._size
            for piece in [lane[start:end]] if start < end else [lane[start:], lane[:end]]:
                yield piece.view(self._cell)
            self._slots["taken"][cpu] = sent[cpu]
        yield self._parked.drain()

    @property
    def fill(self) -> float:
        """Return how full the fullest lane is, or the ring buffer, between 0 and 1."""
        return max(float((self._slots["sent"] - self._slots["taken"]).max()) / self._size, self._parked.fill)


def cell_dtype(event: np.dtype[np.void]) -> np.dtype[np.void]:
    """Return numpy's description of what holds a `struct event` in a lane: whole lines of the processor's cache."""
    return padded(event, _CACHE_LINE)


def lane_bits(total: int, cpus: int, cell: int) -> int:
    """Return the size of a lane, as a power of two of cells.

    Args:
        total: bytes for all lanes together, or more where a lane would be too small to be of use.
        cpus: how many lanes.
        cell: bytes of a cell.
    """
    return max(_LEAST_BITS, (total // (cpus * cell)).bit_length() - 1)


_CACHE_LINE = 64
_LEAST_BITS = 10
