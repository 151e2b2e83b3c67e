# SPDX-License-Identifier: MIT
"""What one report of the page allocator says; nothing here is concluded."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

from kalloctrace.flags.logforms import ReleaseText
from kalloctrace.flags.textsearch import Found

Event = Literal[
    "failure",
    "stall",
    "oom",
    "vmalloc",
    "vmap",
    "slub",
    "vmemmap",
    "cma",
    "contig",
    "warning",
    "hugetlb",
    "memory",
]
"""failure, stall and oom: "page allocation failure", "page allocation stalls", "invoked oom-killer". vmalloc: it got no
pages; vmap: it found no range of addresses. slub: "SLUB: Unable to allocate memory". vmemmap: "vmemmap alloc failure".
cma: "cma_alloc: alloc failed". contig: alloc_contig_range could not free a range. warning: a WARNING of
mm/page_alloc.c. hugetlb: no huge page. memory: the state of memory without a request (SysRq-m, /proc/zoneinfo)."""

Constraint = Literal["none", "cpuset", "mempolicy", "memcg"]

ZONE_NAMES = ("DMA", "DMA32", "Normal", "HighMem", "Movable", "Device")
"""In the order of `enum zone_type`; all except Normal and Movable depend on the kernel's configuration."""


class Blocks(NamedTuple):
    """The free blocks of one order, as printed.

    Attributes:
        number: the count of blocks.
        size: the size of one, in kB.
        types: MIGRATE_* names; None if the kernel prints none.
    """

    number: int
    size: int
    types: frozenset[str] | None


@dataclass
class LoggedZone:
    """One zone in a log.

    Attributes:
        node: 0 if the kernel prints no node (built without CONFIG_NUMA).
        zone: its name.
        kilobytes: the fields of its line ("free", "min") in kB; empty if the log has only its blocks.
        lowmem_reserve: pages, by `enum zone_type`; None if the line is missing.
        blocks: by order; None if the line is missing or does not add up.
    """

    node: int
    zone: str
    kilobytes: dict[str, int] = field(default_factory=dict)
    lowmem_reserve: tuple[int, ...] | None = None
    blocks: tuple[Blocks, ...] | None = None


class Frame(NamedTuple):
    """One line of a call trace.

    Attributes:
        function: its name, without offset and without suffixes of the compiler.
        module: the module in brackets; None for the kernel itself.
        reliable: False if the line begins with "?", so the function may not have been called.
    """

    function: str
    module: str | None
    reliable: bool


class Task(NamedTuple):
    """A line of the OOM killer's table; a number is None if this kernel does not print it.

    Attributes:
        pid: of the task.
        tgid: of its process.
        uid: of its user.
        rss_pages: resident pages.
        pgtables_bytes: of its page tables.
        swapents_pages: pages in swap.
        oom_score_adj: as printed; kernels before 2.6.36 print oom_adj.
        name: the task's name.
        total_vm_pages: the size of its address space in pages.
    """

    pid: int
    tgid: int | None
    uid: int
    rss_pages: int
    pgtables_bytes: int | None
    swapents_pages: int | None
    oom_score_adj: int | None
    name: str
    total_vm_pages: int


class Slab(NamedTuple):
    """A line of "Unreclaimable slab info", in kB."""

    name: str
    used_kb: int
    total_kb: int


class Site(NamedTuple):
    """A line of "Memory allocations": bytes held, number of calls, and file:line, module and function."""

    bytes: int
    calls: int
    where: str


class HugePages(NamedTuple):
    """The huge pages of one size on one node."""

    node: int
    total: int
    free: int
    surplus: int
    size_kb: int


class Killed(NamedTuple):
    """The process that the OOM killer killed; a size is None if it is not printed.

    Attributes:
        line: the number of the line that says so.
        pid: of the process.
        comm: its name.
        total_vm_kb: the size of its address space.
        anon_rss_kb: resident anonymous memory.
        file_rss_kb: resident pages of files.
        shmem_rss_kb: resident shared memory.
    """

    line: int
    pid: int
    comm: str
    total_vm_kb: int | None
    anon_rss_kb: int | None
    file_rss_kb: int | None
    shmem_rss_kb: int | None


class Cache(NamedTuple):
    """The slab cache that could not grow.

    Attributes:
        name: as printed, with its cgroup if the kernel has a cache for each; "" if not printed.
        cgroup: the cgroup in the name "kmalloc-64(17:service)"; None if there is none.
        node: the node asked for; None for any.
        default_order: the order of a slab.
        min_order: the smallest order that can hold an object.
    """

    name: str
    cgroup: str | None
    node: int | None
    default_order: int | None
    min_order: int | None


@dataclass
class LoggedFailure:
    """One report in a log.

    Attributes:
        event: what happened.
        line: the number of its first line, from 1.
        comm: the task's name; "" if not printed.
        order: of the request; 0 if none is printed, negative if a person invoked the OOM killer.
        mask: its gfp mask; None if the line has no readable one.
        nodemask: as printed, "(null)" or a list; None if not printed.
        cpuset: the task's cpuset; None if not printed.
        mems_allowed: its nodes, as printed; None if not printed.
        release: the kernel that the report names, else the last one named before or the first one named after it in the
            same boot; None if there is none.
        release_line: the number of the later line that names it; None if it was named before the report's end.
        zones: in the order printed.
        waited: the duration of a stall, as printed.
        memcg: the limit of a memory cgroup caused it.
        memcg_limit: usage and limit in kB, if printed.
        memcg_counter: whose limit that is: "memory", "memory+swap" or "kmem"; "" if it is not printed.
        memcg_v1: the counters are those of version 1 of cgroups.
        contradictions: contradictions within the report.
        time: of the first line in seconds, comparable within one log; None if not printed.
        wall: the time of day of the first line, as printed.
        cpu: from the line "CPU: 3 PID: 7"; None if not printed.
        pid: as cpu.
        host: the machine's name; "" if not printed.
        constraint: as the OOM killer prints it; None if not printed.
        memcg_path: the memory cgroup whose limit was reached.
        memcg_stats: what it holds in kB, by the kernel's names.
        size: bytes asked for, of vmalloc, vmap and contig; None if not printed.
        pages: pages asked for, of cma, contig, vmalloc and a warning that follows a cma, and huge pages; None if not
            printed.
        trace: the call trace, innermost function first.
        trace_lines: the number of each frame's line.
        totals: the lines after "Mem-Info:" in pages, by the kernel's name.
        nodes: the line "Node 0 active_anon:…" of each node in kB; all_unreclaimable is 0 or 1.
        swap: free and total, in kB; the total is None if it is not printed.
        total_ram_pages: "pages RAM".
        reserved_pages: "pages reserved".
        tasks: the OOM killer's table.
        slabs: its unreclaimable slab caches.
        profile: the allocation profile.
        hugepages: the huge pages of each node.
        killed: who was killed; None if not printed.
        panic: the number of the line that says why the kernel panicked instead, and why; None if there is none.
        no_victim: the number of the line that says that no process could be killed; None if there is none.
        kills_group: all processes of the victim's memory cgroup are killed (memory.oom.group).
        suppressed: the number of reports that the rate limit suppressed before this one.
        limited: the number of messages that a rate limit of all callers suppressed right before this one.
        lost: the number of messages that were lost among its lines.
        state_line: the number of the first line of the state of memory; None if there is none.
        state_age: seconds from the report's first line to its state; None if unknown. Negative: the state that follows
            is older than the report, so it is another report's, and none of it is used.
        warning_text: where a WARNING was raised, or the reason that vmalloc or hugetlb gives.
        errno: the error that a cma, contig or hugetlb allocation returned, as a positive number.
        cache: the slab cache.
        cma_area: the name of the CMA area, if printed.
        cma_pages: free and all pages of the CMA area.
        cma_largest: the pages of its largest free range; None if not printed.
        order_shown: whether the report prints the order.
        in_pages: the state is printed in pages, and kB were computed with the page size given.
        places: the number of the first line of each part, by the name of its attribute here, such as "swap".
    """

    event: Event
    line: int
    comm: str
    order: int
    mask: Found | None = None
    nodemask: str | None = None
    cpuset: str | None = None
    mems_allowed: str | None = None
    release: ReleaseText | None = None
    release_line: int | None = None
    zones: list[LoggedZone] = field(default_factory=list)
    waited: str | None = None
    memcg: bool = False
    memcg_limit: tuple[int, int] | None = None
    memcg_counter: str = ""
    memcg_v1: bool = False
    contradictions: list[str] = field(default_factory=list)
    time: float | None = None
    wall: str | None = None
    cpu: int | None = None
    pid: int | None = None
    host: str = ""
    constraint: Constraint | None = None
    memcg_path: str | None = None
    memcg_stats: dict[str, int] = field(default_factory=dict)
    size: int | None = None
    pages: int | None = None
    trace: tuple[Frame, ...] = ()
    trace_lines: tuple[int, ...] = ()
    totals: dict[str, int] = field(default_factory=dict)
    nodes: dict[int, dict[str, int]] = field(default_factory=dict)
    swap: tuple[int, int | None] | None = None
    total_ram_pages: int | None = None
    reserved_pages: int | None = None
    tasks: list[Task] = field(default_factory=list)
    slabs: list[Slab] = field(default_factory=list)
    profile: list[Site] = field(default_factory=list)
    hugepages: list[HugePages] = field(default_factory=list)
    killed: Killed | None = None
    panic: tuple[int, str] | None = None
    no_victim: int | None = None
    kills_group: bool = False
    suppressed: int = 0
    limited: int = 0
    lost: int = 0
    state_line: int | None = None
    state_age: float | None = None
    warning_text: str | None = None
    errno: int | None = None
    cache: Cache | None = None
    cma_area: str | None = None
    cma_pages: tuple[int, int] | None = None
    cma_largest: int | None = None
    order_shown: bool = True
    in_pages: bool = False
    places: dict[str, int] = field(default_factory=dict)
    _named: dict[tuple[int, str], LoggedZone] = field(default_factory=dict, repr=False, compare=False)

    def zone(self, node: int, name: str) -> LoggedZone:
        """Return the zone of that name; create it if the report does not have it yet."""
        zone = self._named.get((node, name))
        if zone is None:
            zone = self._named[node, name] = LoggedZone(node, name)
            self.zones.append(zone)
        return zone


def zone_layouts(zones: Iterable[LoggedZone]) -> tuple[tuple[str, ...], ...]:
    """Return each possible set of zones of the kernel, in the order of `enum zone_type`.

    The length of lowmem_reserve is the number of zones, and the printed ones are among them. No kernel has
    HighMem (32 bits) together with DMA32 or Device (64 bits), but those before 2.6.23, which have no Movable: then all
    zones are shown.
    """
    shown = list(zones)
    lengths = {len(zone.lowmem_reserve) for zone in shown if zone.lowmem_reserve is not None}
    if len(lengths) != 1:
        return ()
    length, names = lengths.pop(), frozenset(zone.zone for zone in shown)
    if len(names) == length and "Normal" in names and "Movable" not in names:
        return (tuple(name for name in ZONE_NAMES if name in names),)
    return tuple(_layouts(length, names | {"Normal", "Movable"}))


@lru_cache(maxsize=64)
def _layouts(length: int, needed: frozenset[str]) -> list[tuple[str, ...]]:
    layouts = []
    for choice in range(1 << len(ZONE_NAMES)):
        layout = tuple(name for bit, name in enumerate(ZONE_NAMES) if choice >> bit & 1)
        mixed = "HighMem" in layout and ("DMA32" in layout or "Device" in layout)
        if len(layout) == length and needed <= set(layout) and not mixed:
            layouts.append(layout)
    return layouts
