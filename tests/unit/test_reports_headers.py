# SPDX-License-Identifier: MIT
"""What is read from the first line of a report alone, field by field."""

import pytest

from kalloctrace.diagnose.reports.headers import BEGINNINGS, begun, pieces, read_nodes
from kalloctrace.diagnose.reports.model import Cache, LoggedFailure

NODES = "nodemask=0-1,cpuset=/db,mems_allowed=0,2"
IN_NODES = {"nodemask": "0-1", "cpuset": "/db", "mems_allowed": "0,2"}


def report(event: str, comm: str = "", order: int = 0, **more: object) -> LoggedFailure:
    """Return a report that begins in line 7."""
    return LoggedFailure(event, 7, comm, order, **more)  # type: ignore[arg-type]


FIRST_LINES = {
    f"my task: page allocation failure: order:3, mode:0xcc0(GFP_KERNEL), {NODES}": (
        report("failure", "my task", 3, **IN_NODES)
    ),
    "x: page allocation failure. order:12, mode:0x20": report("failure", "x", 12),
    "x: page allocation failure: order:3": report("failure", "x", 3),
    "x: page allocation failure: order:3, ": report("failure", "x", 3),
    "x: page allocation failure: order:3 ffff8800deadbeef": report("failure", "x", 3),
    f"x: page allocation stalls for 10079ms, order:2, mode:0xcc0(GFP_KERNEL), {NODES}": (
        report("stall", "x", 2, waited="10079ms", **IN_NODES)
    ),
    "x: page allocation stalls for 10 msecs: order: 2, mode:0xcc0(GFP_KERNEL)": (
        report("stall", "x", 2, waited="10 msecs")
    ),
    f"x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), {NODES}, order=2, oom_score_adj=0": (
        report("oom", "x", 2, **IN_NODES)
    ),
    "x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1, oom_score_adj=0": report("oom", "x", -1),
    "x invoked oom-killer: gfp_mask=0x800d0order=3oom_score_adj=0": report("oom", "x", 3),
    "oom-killer: gfp_mask=0x1d2": report("oom", order_shown=False),
    "x invoked oom-killer:": report("oom", "x", order_shown=False),
    f"x: vmemmap alloc failure: order:9, mode:0xcc0(GFP_KERNEL), {NODES}": report("vmemmap", "x", 9, **IN_NODES),
    f"x: vmalloc error: size 8192, page order 3, failed to allocate pages, mode:0xcc0(GFP_KERNEL), {NODES}": (
        report("vmalloc", "x", 3, size=8192, warning_text="page order 3, failed to allocate pages", **IN_NODES)
    ),
    "x: vmalloc error: size 8192, vm_struct allocation failed, mode:0xcc0(GFP_KERNEL)": (
        report("vmap", "x", size=8192, warning_text="vm_struct allocation failed", order_shown=False)
    ),
    "vmalloc: allocation failure: 16384 bytes": (
        report("vmalloc", size=16384, warning_text="allocation failure: 16384 bytes", order_shown=False)
    ),
    "vmalloc: allocation failure": report("vmalloc", warning_text="allocation failure", order_shown=False),
    "x: vmalloc error: size 8192, exceeds total pages": (
        report("vmalloc", "x", size=8192, warning_text="exceeds total pages", order_shown=False)
    ),
    "vmap allocation for size 393216 failed: use vmalloc=<size> to increase size.": (
        report("vmap", size=393216, warning_text="failed: use vmalloc=<size> to increase size", order_shown=False)
    ),
    "allocation failed: out of vmalloc space - use vmalloc=<size> to increase size.": (
        report("vmap", warning_text="out of vmalloc space - use vmalloc=<size> to increase size", order_shown=False)
    ),
    "SLUB: Unable to allocate memory on node -1 (gfp=0x20)": (
        report("slub", cache=Cache("", None, None, None, None), order_shown=False)
    ),
    "SLUB: Unable to allocate memory on node 0 (gfp=0x20)": (
        report("slub", cache=Cache("", None, 0, None, None), order_shown=False)
    ),
    "SLAB: Unable to allocate memory on CPU 3 (of node 0) on node 1, gfp=0x820(GFP_ATOMIC)": (
        report("slub", cpu=3, cache=Cache("", None, 1, None, None), order_shown=False)
    ),
    "cma: cma_alloc: linux,cma: alloc failed, req-size: 257 pages, ret: -16": (
        report("cma", pages=257, errno=16, cma_area="linux,cma", order_shown=False)
    ),
    "cma: cma_alloc: alloc failed, req-size: 1 pages, ret: -12": report("cma", pages=1, errno=12, order_shown=False),
    "alloc_contig_range: [78500, 78600) PFNs busy": report("contig", pages=256, errno=16, order_shown=False),
    "alloc_contig_range: [78600, 78500) PFNs busy": report("contig", pages=0, errno=16, order_shown=False),
    "WARNING: CPU: 3 PID: 204 at mm/page_alloc.c:5535 __alloc_pages+0x1e8/0xad2": (
        report("warning", cpu=3, pid=204, warning_text="mm/page_alloc.c:5535 __alloc_pages", order_shown=False)
    ),
    "WARNING: mm/page_alloc.c:5124 at rmqueue+0x2e4/0x340, CPU#5: my task/77": (
        report("warning", "my task", cpu=5, pid=77, warning_text="mm/page_alloc.c:5124 at rmqueue", order_shown=False)
    ),
    "WARNING: at mm/page_alloc.c:2112 rmqueue+0x1/0x2()": (
        report("warning", warning_text="mm/page_alloc.c:2112 rmqueue", order_shown=False)
    ),
    **{
        f"HugeTLB: allocating 100 of page size 2.00 {unit}iB failed node1.  Only allocated 50 hugepages.": (
            report("hugetlb", size=2 << shift, pages=100, order_shown=False,
                   warning_text=f"HugeTLB: allocating 100 of page size 2.00 {unit}iB failed node1.  "
                                "Only allocated 50 hugepages")
        )
        for unit, shift in (("K", 10), ("M", 20), ("G", 30), ("T", 40))
    },
    "sysrq: Show Memory": report("memory", order_shown=False),
    "SysRq : Show Memory": report("memory", order_shown=False),
}  # fmt: skip


@pytest.mark.parametrize("text", FIRST_LINES)
def test_first_lines(text: str) -> None:
    """Whatever a log's collector writes before some of them."""
    assert begun(text, 7) == FIRST_LINES[text]
    assert any(hint in text for hint in BEGINNINGS)
    if FIRST_LINES[text].event in ("slub", "cma", "contig", "warning", "hugetlb", "memory"):
        before = begun(f"kernel: {text}", 7)
        assert before is not None
        assert before.event == FIRST_LINES[text].event


@pytest.mark.parametrize(
    "text",
    [
        "x: page allocation failure: order:3 is what I see",
        "x: page allocation failures: 7",
        "x: page allocation stalls for ever",
        "my oom-killer: x",
        "x: vmemmap alloc failure",
        "vmalloc: size 8192 is fine",
        "vmap allocation for size 1 works",
        "SLUB: Unable to allocate memory",
        "cma_alloc: alloc failed, req-size: x",
        "alloc_contig_range: [x, y) PFNs busy",
        "at mm/page_alloc.c:12",
        "HugeTLB: allocating 100 pages",
        "My Show Memory",
        "alloc",
        "nothing",
    ],
)
def test_other_texts(text: str) -> None:
    """Words of a report alone are none."""
    assert begun(text, 7) is None


@pytest.mark.parametrize(
    ("text", "nodemask", "cpuset", "mems"),
    [
        ("nodemask=(null),cpuset=/,mems_allowed=0", "(null)", "/", "0"),
        ("nodemask=0-3, cpuset=a b", "0-3", None, None),
        ("cpuset=db mems_allowed=0-1,3", None, "db", "0-1,3"),
        ("cpuset=db, mems_allowed=0", None, "db", "0"),
        ("nodemask=x", None, None, None),
        ("", None, None, None),
    ],
)
def test_nodes(text: str, nodemask: str | None, cpuset: str | None, mems: str | None) -> None:
    """On the first line, or on one of their own."""
    logged = report("failure")
    assert read_nodes(logged, text) is (cpuset is not None)
    assert (logged.nodemask, logged.cpuset, logged.mems_allowed) == (nodemask, cpuset, mems)
    # What the line does not say stays.
    again = report("failure", nodemask="7", cpuset="old", mems_allowed="9")
    read_nodes(again, text)
    assert (again.nodemask, again.cpuset) == (nodemask or "7", cpuset or "old")


def test_lines_that_run_into_each_other() -> None:
    """Each failure is one of its own."""
    one = "x: page allocation failure: order:3, mode:0x20"
    assert pieces(one) == [one]
    assert pieces("nothing") == ["nothing"]
    both = f"{one}, y: page allocation failure: order:4, mode:0x20"
    assert pieces(both) == [one, "y: page allocation failure: order:4, mode:0x20"]
    three = f"{both} z: page allocation failure: order:5, mode:0x20"
    assert [begun(piece, 7) and begun(piece, 7).order for piece in pieces(three)] == [3, 4, 5]  # type: ignore[union-attr]
    assert pieces("page allocation failure page allocation failure") == [
        "page allocation failure page allocation failure"
    ]
