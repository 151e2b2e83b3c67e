# SPDX-License-Identifier: MIT
"""The work that is measured, in a process of its own: it touches and frees anonymous memory, a page of order 0 each.

usage: python -m kalloctrace.bench.work CPU

It reads the number of rounds from standard input, one request a line, and answers each with one JSON object: the
duration of each round in ns, and its cycles in the kernel and outside it, if the processor counts them.
"""

import gc
import mmap
import os
import sys
import time
from contextlib import suppress

import numpy as np

from kalloctrace.console import stdout
from kalloctrace.system_calls import PERF_TYPE_HARDWARE, perf_event_open

PAGES = 512
"""Allocations of a round: the pages of one page table, which stays."""

WARM = 5
"""Rounds before those that are measured, each time."""

_PERF_COUNT_HW_CPU_CYCLES = 0


class Cycles:
    """The cycles of this thread; a machine without a counter for them has none."""

    def __init__(self) -> None:
        try:
            self._file: int | None = perf_event_open(PERF_TYPE_HARDWARE, _PERF_COUNT_HW_CPU_CYCLES, pid=0, cpu=-1)
        except OSError:
            self._file = None

    def read(self) -> int | None:
        """Return the cycles until now; None if they are not counted."""
        return None if self._file is None else int.from_bytes(os.read(self._file, 8), sys.byteorder)


def rounds(number: int, memory: mmap.mmap, cycles: Cycles) -> dict[str, list[int] | None]:
    """Run rounds, and return what each took.

    Args:
        number: of the rounds that are measured.
        memory: PAGES pages.
        cycles: the counter.

    Returns:
        "ns", and "cycles" or None, by round.
    """
    first_bytes = np.frombuffer(memory, np.uint8)[:: mmap.PAGESIZE]
    times, counted = [0] * number, [0] * number
    before: int | None = None
    after: int | None = None
    for index in range(-WARM, number):
        before = cycles.read()
        start = time.monotonic_ns()
        first_bytes[:] = 1
        memory.madvise(mmap.MADV_DONTNEED)
        spent = time.monotonic_ns() - start
        after = cycles.read()
        if index >= 0:
            times[index] = spent
            counted[index] = after - before if before is not None and after is not None else 0
    return {"ns": times, "cycles": None if after is None else counted}


def main(cpu: int) -> None:
    """Serve requests on one CPU until standard input ends."""
    os.sched_setaffinity(0, {cpu})
    gc.disable()
    cycles = Cycles()
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        # A kernel without huge pages refuses this.
        with suppress(OSError):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        for line in sys.stdin:
            stdout().json(rounds(int(line), memory, cycles), compact=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
