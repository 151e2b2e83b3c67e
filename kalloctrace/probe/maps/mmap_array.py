# SPDX-License-Identifier: MIT
"""An array of a BPF program that user space reads and writes in place."""

import mmap

import numpy as np


class MmapArray:
    """A map of type array that may be mapped into memory (BPF_F_MMAPABLE).

    Attributes:
        items: its elements, as the program sees them at any moment.

    Args:
        fd: the map's file descriptor.
        length: how many elements it has.
        dtype: numpy's description of an element.
    """

    def __init__(self, fd: int, length: int, dtype: np.dtype[np.void]) -> None:
        # The kernel puts elements at multiples of 8 bytes, and a map has whole pages.
        size = -(-length * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.items = np.frombuffer(self._memory, dtype, length)

    def close(self) -> None:
        """Unmap the memory, as soon as nobody looks at a part of it any more."""
        del self.items, self._memory
