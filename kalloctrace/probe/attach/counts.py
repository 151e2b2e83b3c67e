# SPDX-License-Identifier: MIT
"""What the program and the kernel count while calls are captured."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kalloctrace.kernel.held_file import HeldFile
from kalloctrace.probe.layout import enum_values

SLOW_PROGRAMS = (
    *("on_slowpath", "on_slowpath_return"),
    *("at_mm_vmscan_direct_reclaim_begin", "at_mm_compaction_try_to_compact_pages", "at_mark_victim"),
)
"""The programs of slow.bpf.c. A hit that they miss is not a missed allocation."""

PART_PROGRAMS = (
    *("on_reclaim", "on_oom", "on_reclaim_throttle", "on_congestion_wait", "on_wait_iff_congested"),
    *("at_mm_vmscan_direct_reclaim_end", "at_mm_compaction_begin", "at_mm_compaction_end"),
    *("at_mm_vmscan_throttled", "at_writeback_congestion_wait", "at_writeback_wait_iff_congested"),
    *("at_contention_begin", "at_contention_end"),
)
"""The programs of parts.bpf.c. A hit that they miss loses no event: its time stays with the part before it."""

_COUNTERS = (
    *(
        "OPENED",
        "DROPPED",
        "PENDING_FULL",
        "UNPAIRED_FREELIST",
        "UNPAIRED_RETURN",
        "OVERWRITTEN",
        "FREELIST_BUSY",
        "FILTERED",
        "REJECTED",
    ),
    *("COMMS_DROPPED", "ZONES_DROPPED", "OWN", "UNMATCHED", "OVERFLOWED"),
)
*_COUNTER_INDICES, _ = enum_values("counter", *_COUNTERS, "NR_COUNTERS")


@dataclass(frozen=True)
class Counts:
    """The program's exact counts since capture began.

    opened = calls consumed + dropped + pending_full + overwritten + calls that have not ended.

    Attributes:
        opened: calls of an entry, without those that a filter rejected later.
        dropped: calls that found the buffer full, or the rate used up.
        pending_full: calls that found the hash of pending calls full.
        unpaired_freelist: calls of get_page_from_freelist() without a pending call.
        unpaired_return: returns of an entry without a pending call.
        overwritten: pending calls whose frame was used again before they returned.
        missed_by_program: hits that were skipped because a program, or a bpf(2) call, was running on that CPU.
        missed_by_kprobe: hits that the kernel skipped because another kprobe was.
        bpf_calls: bpf(2) calls of all processes; None if they are not counted.
        missed_freelist: those among them of get_page_from_freelist() whose call may have been seen.
        comms_dropped: task names that found their ring buffer full.
        zones_dropped: how often there was no room for the zones of a slow-path call.
        slow_missed: slow-path hits that the kernel skipped, or calls beyond its limit of active ones.
        rejected: requests that the entry rejected; None if no probe sees where it does.
        own: calls of the recorder, which were left out; None if they are captured.
        filtered: calls that a filter rejected, at once or later.
    """

    opened: int
    dropped: int
    pending_full: int
    unpaired_freelist: int
    unpaired_return: int
    overwritten: int
    missed_by_program: int
    missed_by_kprobe: int
    bpf_calls: int | None
    missed_freelist: int
    comms_dropped: int
    zones_dropped: int
    slow_missed: int
    own: int | None
    filtered: int
    rejected: int | None = None


def counted(slots: npt.NDArray[np.void]) -> dict[str, int]:
    """Return the program's counters, by their names, of all CPUs together.

    Args:
        slots: the mapped `struct slot`s.
    """
    summed = slots["counters"].sum(axis=0)
    return {name: int(summed[index]) for name, index in zip(_COUNTERS, _COUNTER_INDICES, strict=True)}


def missed_by_programs(statistics: Mapping[str, HeldFile]) -> Counter[str]:
    """Return `recursion_misses` of each program, by its name.

    Linux kernel commit 9ed9e9ba2337 ("bpf: Count the number of times recursion was prevented") (in v5.12);
    older kernels never skip a tracing program, so there is nothing to count. A kprobe's program is skipped only
    while another program runs on that CPU: in an interrupt, or while a bpf(2) call changes a map. The kernel counts
    this since dd8657894c11 ("bpf: Count missed stats in trace_call_bpf") (in v6.7).
    """
    missed: Counter[str] = Counter()
    for name, file in statistics.items():
        lines = file.read().decode().splitlines()
        missed[name] = sum(int(line.split()[1]) for line in lines if line.startswith("recursion_misses:"))
    return missed
