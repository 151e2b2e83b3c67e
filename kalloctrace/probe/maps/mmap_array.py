# SPDX-License-Identifier: MIT
"""An array of a BPF program that user space reads and writes in place."""

import mmap

import numpy as np


class MmapArray:
    """A map of type array, mapped into memory (BPF_F_MMAPABLE).

    Attributes:
        items: its elements; changes by either side are visible to the other at once.

    Args:
        fd: the map's file descriptor.
        length: the number of elements.
        dtype: numpy's description of an element.
    """

    def __init__(self, fd: int, length: int, dtype: np.dtype[np.void]) -> None:
        # The kernel aligns elements to 8 bytes, and a map has whole pages.
        size = -(-length * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self.items = np.frombuffer(self._memory, dtype, length)

    def close(self) -> None:
        """Unmap the memory; arrays that still refer to it keep it mapped."""
        del self.items, self._memory
