# SPDX-License-Identifier: MIT
"""The first line of every report of the page allocator, from Linux 2.6 to 7.3."""

from pathlib import Path

import pytest

from kalloctrace.diagnose.reports.model import Cache, LoggedFailure
from kalloctrace.diagnose.reports.pairing import find_failures
from kalloctrace.logs.messages import Message, read_messages

PASTED = Path(__file__).parent / "data" / "failures" / "pasted"
TAIL = "mode:0xcc0(GFP_KERNEL), nodemask=(null),cpuset=/,mems_allowed=0"


def found(*lines: str) -> list[LoggedFailure]:
    """Return the reports of some messages."""
    return list(find_failures(Message(number, line) for number, line in enumerate(lines, 1)))


def only(*lines: str) -> LoggedFailure:
    """Return the one report of some messages."""
    [report] = found(*lines)
    return report


def pasted(name: str) -> list[LoggedFailure]:
    """Return the reports of a file."""
    return list(find_failures(read_messages((PASTED / f"{name}.log").read_text().split("\n"))))


RANGE, PAGES = "vm_struct allocation failed", "failed to allocate pages"
VMALLOC = {
    f"x: vmalloc error: size 33554432, {RANGE}, {TAIL}": ("vmap", 33554432, RANGE, None),
    f"x: vmalloc error: size 8192, {RANGE}. Retrying., {TAIL}": ("vmap", 8192, f"{RANGE}. Retrying", None),
    f"x: vmalloc error: size 8192, align 0x1000, {RANGE}, {TAIL}": ("vmap", 8192, RANGE, None),
    f"x: vmalloc error: size 8192, {PAGES}, {TAIL}": ("vmalloc", 8192, PAGES, None),
    f"x: vmalloc error: size 8192, page order 3, {PAGES}, {TAIL}": ("vmalloc", 8192, f"page order 3, {PAGES}", 3),
    f"x: vmalloc error: size 8192, exceeds total pages, {TAIL}": ("vmalloc", 8192, "exceeds total pages", None),
    f"x: vmalloc error: size 8192, failed to map pages, {TAIL}": ("vmalloc", 8192, "failed to map pages", None),
    f"x: vmalloc size 8192 allocation failure: page order 9 allocation failed, {TAIL}": (
        *("vmalloc", 8192, "allocation failure: page order 9 allocation failed", 9),
    ),
    f"x: vmalloc: allocation failure: 16384 bytes, {TAIL}": (
        *("vmalloc", 16384, "allocation failure: 16384 bytes", None),
    ),
    f"x: vmalloc: allocation failure, allocated 4096 of 16384 bytes, {TAIL}": (
        *("vmalloc", 16384, "allocation failure, allocated 4096 of 16384 bytes", None),
    ),
}


@pytest.mark.parametrize("line", VMALLOC)
def test_vmalloc(line: str) -> None:
    """A lack of addresses is told from a lack of pages; size, reason and request are read."""
    report = only(line)
    order = report.order if report.order_shown else None
    assert (report.event, report.size, report.warning_text, order) == VMALLOC[line]
    assert (report.comm, report.mask and report.mask.value, report.mems_allowed) == ("x", 0xCC0, "0")


WRAPPED = (
    *VMALLOC,
    f"x: vmemmap alloc failure: order:9, {TAIL}",
    "vmap allocation for size 393216 failed: use vmalloc=<size> to increase size",
)


def _read(report: LoggedFailure) -> tuple[object, ...]:
    mask = report.mask.value if report.mask is not None else None
    return report.event, report.comm, report.size, report.order, mask, report.warning_text, report.mems_allowed


@pytest.mark.parametrize("prefix", ["", "[   12.345678] ", "Nov 28 01:02:03 host kernel: "])
@pytest.mark.parametrize("line", WRAPPED)
def test_wrapped_at_any_blank(line: str, prefix: str) -> None:
    """A mail breaks the first line at one of its blanks, and may repeat the prefix there."""
    rest = [f"{prefix}CPU: 3 PID: 7 Comm: x Not tainted 6.2.0 #1", f"{prefix}Mem-Info:"]
    [whole] = find_failures(read_messages([f"{prefix}{line}", *rest]))
    for at in (at for at, letter in enumerate(line) if letter == " "):
        for again in (prefix, ""):
            [report] = find_failures(read_messages([f"{prefix}{line[:at]}", f"{again}{line[at + 1 :]}", *rest]))
            assert _read(report) == _read(whole), line[:at]


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("vmap allocation for size 393216 failed: use vmalloc=<size> to increase size", 393216),
        ("vmap allocation for size 20480 failed: use vmalloc=<size> to increase size.", 20480),
        ("vmalloc_node_range for size 8192 failed: Address range restricted to 0xf1000000 - 0xf5110000", 8192),
        ("allocation failed: out of vmalloc space - use vmalloc=<size> to increase size.", None),
    ],
)
def test_no_range_of_addresses(line: str, size: int | None) -> None:
    """The message of vmap itself; with the one of its caller behind it, it is one failure."""
    alone = only(line)
    assert (alone.event, alone.size, alone.order_shown, alone.comm) == ("vmap", size, False, "")
    both = only(
        line, f"udevd: vmalloc error: size 4096, {RANGE}, {TAIL}", "CPU: 3 PID: 7 Comm: udevd Not tainted 6.2.0 #1"
    )
    assert (both.line, both.event, both.size, both.comm, both.pid) == (1, "vmap", 4096, "udevd", 7)
    assert both.mask is not None
    assert both.mask.kernel == "6.2"


def test_vmalloc_in_two_lines() -> None:
    """From 2.6.39 to 4.8 the reason stands on a line of its own, before that of the request."""
    report = only("vmalloc: allocation failure: 16384 bytes", "x: page allocation failure: order:0, mode:0x80d2")
    assert (report.event, report.line, report.comm, report.size) == ("vmalloc", 1, "x", 16384)
    assert report.mask is not None
    assert report.mask.value == 0x80D2


def test_pasted_vmalloc_and_vmemmap() -> None:
    """Both have the zones of a failure."""
    [vmap], [vmemmap] = pasted("vmalloc-range"), pasted("vmemmap")
    assert (vmap.event, vmap.size, vmap.warning_text) == ("vmap", 33554432, RANGE)
    assert (vmemmap.event, vmemmap.order, vmemmap.order_shown) == ("vmemmap", 9, True)
    assert [[zone.kilobytes["free"] for zone in report.zones] for report in (vmap, vmemmap)] == [[126872], [126872]]


def test_vmemmap_over_lines_of_the_kernel() -> None:
    """The memory map of added memory."""
    report = only(f"kworker/0:1: vmemmap alloc failure: order:9, {TAIL}")
    assert (report.comm, report.order, report.mask and report.mask.value) == ("kworker/0:1", 9, 0xCC0)


SLUB = {
    "SLUB: Unable to allocate memory on node -1 (gfp=0x20)": (None, None, 0x20),
    "SLUB: Unable to allocate memory on node 2, gfp=0x480020(GFP_ATOMIC)": (None, 2, 0x480020),
    "SLUB: Unable to allocate memory on CPU 3 (of node 0) on node 1, gfp=0x820(GFP_ATOMIC)": (3, 1, 0x820),
    "SLAB: Unable to allocate memory on node 0, gfp=0x480020(GFP_ATOMIC)": (None, 0, 0x480020),
}


@pytest.mark.parametrize("line", SLUB)
def test_slab_caches(line: str) -> None:
    """The cache that cannot grow, and the order that it needs at least."""
    cpu, node, mask = SLUB[line]
    report = only(line, "  cache: kmalloc-4k, object size: 4096, buffer size: 4096, default order: 3, min order: 1")
    assert (report.event, report.cpu, report.mask and report.mask.value) == ("slub", cpu, mask)
    assert report.cache == Cache("kmalloc-4k", None, node, 3, 1)
    assert (report.order, report.order_shown) == (1, True)


def test_slab_caches_of_cgroups() -> None:
    """A cache with a cgroup's name has the cgroup's limit."""
    line = "SLUB: Unable to allocate memory on node -1, gfp=0x24000c0(GFP_KERNEL)"
    cache = "cache: kmalloc-64(17:docker-1.scope), object size: 64, buffer size: 64, default order: 0, min order: 0"
    report = only(line, cache, "node 0: slabs: 22, objs: 1122, free: 0")
    assert report.cache is not None
    assert (report.cache.name, report.cache.cgroup) == ("kmalloc-64(17:docker-1.scope)", "docker-1.scope")
    slab = only("SLAB: Unable to allocate memory on node 0 (gfp=0xd0)", "  cache: size-32, object size: 32, order: 2")
    assert slab.cache == Cache("size-32", None, 0, 2, None)
    alone = only(line)
    assert alone.cache == Cache("", None, None, None, None)
    assert not alone.order_shown


@pytest.mark.parametrize(
    ("line", "area"),
    [
        ("cma: cma_alloc: alloc failed, req-size: 257 pages, ret: -16", None),
        ("cma: cma_alloc: linux,cma: alloc failed, req-size: 257 pages, ret: -16", "linux,cma"),
        ("cma: __cma_alloc: reserved: alloc failed, req-size: 257 pages, ret: -16", "reserved"),
        ("cma_alloc: alloc failed, req-size: 257 pages, ret: -16", None),
    ],
)
def test_cma(line: str, area: str | None) -> None:
    """The pages asked for, the error, and what the area had."""
    report = only(line, "cma: number of available pages: 3@125+20@236=> 1042 free of 32768 total pages")
    assert (report.event, report.pages, report.errno, report.cma_area) == ("cma", 257, 16, area)
    assert report.cma_pages == (1042, 32768)
    assert report.cma_largest == 20


def test_cma_then_a_warning() -> None:
    """A CMA request that failed, and the warning about what came instead."""
    cma, warning = pasted("cma-then-warning")
    assert (cma.event, cma.pages, cma.errno, cma.time) == ("cma", 19200, 12, 175.968984)
    assert (warning.event, warning.comm, warning.cpu, warning.pid) == ("warning", "task", 3, 2599)
    assert warning.warning_text == "mm/page_alloc.c:4935 __alloc_pages_nodemask"
    assert warning.release is not None
    assert warning.release.release == "5.10.63-v8+"
    assert not warning.order_shown


@pytest.mark.parametrize(
    ("line", "who", "text"),
    [
        (
            "WARNING: CPU: 3 PID: 204 at mm/page_alloc.c:5535 __alloc_pages+0x1e8/0xad2",
            (3, 204, ""),
            "mm/page_alloc.c:5535 __alloc_pages",
        ),
        (
            "WARNING: at /build/linux-3.2/mm/page_alloc.c:2112 __alloc_pages_slowpath+0x1/0x2()",
            (None, None, ""),
            "/build/linux-3.2/mm/page_alloc.c:2112 __alloc_pages_slowpath",
        ),
        (
            "WARNING: mm/page_alloc.c:5124 at __alloc_frozen_pages_noprof+0x2e4/0x340, CPU#5: my task/77",
            (5, 77, "my task"),
            "mm/page_alloc.c:5124 at __alloc_frozen_pages_noprof",
        ),
    ],
)
def test_warnings(line: str, who: tuple[int | None, int | None, str], text: str) -> None:
    """A WARNING of mm/page_alloc.c in the forms of old and new kernels."""
    report = only(line)
    assert (report.event, (report.cpu, report.pid, report.comm), report.warning_text) == ("warning", who, text)
    assert found(line.replace("page_alloc", "slub")) == []


def test_contiguous_ranges() -> None:
    """A range that could not be freed."""
    report = only("alloc_contig_range: [78500, 78600) PFNs busy")
    assert (report.event, report.pages, report.errno) == ("contig", 0x100, 16)
    assert only("alloc_contig_range_noprof: [88d8e0, 88d8e9) PFNs busy").pages == 9


@pytest.mark.parametrize("where", ["", " node1"])
def test_huge_pages(where: str) -> None:
    """Huge pages that could not be reserved."""
    text = f"HugeTLB: allocating 100 of page size 2.00 MiB failed{where}.  Only allocated 50 hugepages"
    report = only(f"{text}.")
    assert (report.event, report.size, report.warning_text, report.order_shown) == ("hugetlb", 2 << 20, text, False)
    assert only(text.replace("2.00 MiB", "1.00 GiB")).size == 1 << 30


OOM = {
    "x invoked oom-killer: gfp_mask=0x201da, order=0, oom_adj=0, oom_score_adj=0": ("x", 0, True, 0x201DA),
    "swapper invoked oom-killer: gfp_mask=0x80d1, order=0, oomkilladj=0": ("swapper", 0, True, 0x80D1),
    "oom-killer: gfp_mask=0xd0, order=1": ("", 1, True, 0xD0),
    "oom-killer: gfp_mask=0x1d2": ("", 0, False, 0x1D2),
    "x invoked oom-killer: gfp_mask=0x0(), order=0, oom_score_adj=0": ("x", 0, True, 0),
    "kworker/2:1 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1, oom_score_adj=0": (
        *("kworker/2:1", -1, True, 0xCC0),
    ),
    "x invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE),": ("x", 0, False, 0x100CCA),
}


@pytest.mark.parametrize("line", OOM)
def test_oom(line: str) -> None:
    """The OOM killer, also of a page fault (mask 0), by a person (order -1), and before it named its task."""
    report = only(line)
    assert report.mask is not None
    assert (report.comm, report.order, report.order_shown, report.mask.value) == OOM[line]


@pytest.mark.parametrize(
    "line",
    [
        "why is there a page allocation failure here?",
        "page allocation failure: order:4 is what I see",
        "the oom-killer: a history",
        "vmalloc: size 8192 is fine",
        "vmap allocation for size 8192 succeeded",
        "hugetlb: allocating 100 huge pages",
        "x: vmalloc size 8192, all is well",
        "SLUB: HWalign=64, Order=0-3, MinObjects=0, CPUs=4, Nodes=1",
    ],
)
def test_what_begins_no_report(line: str) -> None:
    """Words of a report alone are none."""
    assert found(line) == []
