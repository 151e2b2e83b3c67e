# SPDX-License-Identifier: MIT
"""What kind of report a log has, and the page size of its kernel."""

from typing import Any

import pytest

from kalloctrace.diagnose.from_log import explain_failure
from kalloctrace.diagnose.given import Given
from kalloctrace.diagnose.kinds import (
    has_request,
    is_by_bpf,
    is_cgroup_cache,
    is_memcg,
    must_not_fail,
    nothing_given,
    older_state,
    order_is_too_large,
    refused_before_pages,
    vmalloc_size_is_refused,
    warned_in,
)
from kalloctrace.diagnose.page_size import PageSize, page_size
from kalloctrace.diagnose.reports.model import Blocks, Cache, Frame, Killed, LoggedFailure, LoggedZone, Task
from kalloctrace.flags.logforms import ReleaseText


def report(event: str = "failure", *, order: int = 0, **more: Any) -> LoggedFailure:  # noqa: ANN401
    """Return a report."""
    return LoggedFailure(event, 1, "task", order, **more)  # type: ignore[arg-type]


def zone(name: str = "Normal", blocks: tuple[Blocks, ...] | None = None, **kilobytes: int) -> LoggedZone:
    """Return a zone."""
    return LoggedZone(0, name, kilobytes, None, blocks)


@pytest.mark.parametrize(
    ("function", "too_large", "nofail"),
    [
        ("__alloc_pages_nodemask", True, False),
        ("__alloc_pages", True, False),
        ("__alloc_pages_noprof", True, False),
        ("__alloc_frozen_pages_noprof", True, False),
        ("__alloc_pages_slowpath", False, True),
        ("get_page_from_freelist", False, True),
        ("rmqueue", False, True),
        ("free_pcppages_bulk", False, False),
    ],
)
def test_warnings(function: str, too_large: bool, nofail: bool) -> None:
    """The function decides, whatever suffix the compiler gave it."""
    for suffix in ("+0x2ec/0x330", ".isra.0+0x2ec/0x330", ".constprop.0+0x1/0x2", ""):
        logged = report("warning", warning_text=f"mm/page_alloc.c:3013 {function}{suffix}")
        assert warned_in(logged) == function
        assert (order_is_too_large(logged), must_not_fail(logged)) == (too_large, nofail)
    other = report("vmalloc", warning_text=f"mm/page_alloc.c:3013 {function}+0x2ec/0x330")
    assert (warned_in(other), order_is_too_large(other), must_not_fail(other)) == ("", False, False)


def test_a_warning_without_a_function() -> None:
    """Names none."""
    for text in (None, ""):
        assert warned_in(report("warning", warning_text=text)) == ""


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("allocation failure: 4096 bytes", True),
        ("allocation failure: 4096 bytes, mode:0xcc0", True),
        ("size 99999999, exceeds total pages", True),
        # Some pages were there, or some were asked for.
        ("allocation failure, allocated 0 of 4096 bytes", False),
        ("allocation failure: allocated 4096 of 8192 bytes", False),
        ("size 8192, page order 0, failed to allocate pages", False),
        ("then allocation failure: 4096 bytes", False),
        (None, False),
    ],
)
def test_vmalloc_without_pages(text: str | None, refused: bool) -> None:
    """Only of vmalloc's own reports."""
    assert refused_before_pages(report("vmalloc", warning_text=text)) is refused
    assert not refused_before_pages(report("vmap", warning_text=text))


RAM = {"total_ram_pages": 1000, "reserved_pages": 100}


@pytest.mark.parametrize(
    ("more", "page_kb", "expected"),
    [
        ({"warning_text": "size 1, exceeds total pages"}, None, True),
        ({"size": 0}, None, True),
        # More than all pages; not more than the pages that the kernel has not kept for itself; in between.
        ({"size": (1000 << 12) + 1, **RAM}, 4, True),
        ({"size": 1000 << 12, **RAM}, 4, None),
        ({"size": (900 << 12) + 1, **RAM}, 4, None),
        ({"size": 900 << 12, **RAM}, 4, False),
        ({"size": (899 << 12) + 1, **RAM}, 4, False),
        ({"size": 1, **RAM}, 4, False),
        ({"size": 900 << 16, **RAM}, 64, False),
        ({"size": (1000 << 16) + 1, **RAM}, 64, True),
        # What is not known.
        ({"size": 1, **RAM}, None, None),
        ({"size": None, **RAM}, 4, None),
        ({"size": 1, "total_ram_pages": 1000}, 4, None),
        ({"size": 1, "reserved_pages": 100}, 4, None),
    ],
)
def test_a_size_that_vmalloc_refuses(more: dict[str, Any], page_kb: int | None, expected: bool | None) -> None:
    """`size >> PAGE_SHIFT > totalram_pages()`: those pages are RAM, without what the kernel reserved at boot."""
    assert vmalloc_size_is_refused(report("vmalloc", **more), page_kb) is expected


def test_memory_cgroups() -> None:
    """By the report, by the OOM killer's constraint, or by the cache of a cgroup."""
    cache = Cache("kmalloc-64(17:service)", "17:service", None, 0, 0)
    assert is_memcg(report(memcg=True))
    assert is_memcg(report("oom", constraint="memcg"))
    assert is_memcg(report("slub", cache=cache))
    assert is_cgroup_cache(report("slub", cache=cache))
    for other in (report(), report("oom", constraint="cpuset"), report("slub", cache=cache._replace(cgroup=None))):
        assert not is_memcg(other)
        assert not is_cgroup_cache(other)


def asked(event: str, gfp: tuple[str, ...] | int | None, order: int = 0, **more: Any) -> bool:  # noqa: ANN401
    """Return whether a report is of a request."""
    logged = report(event, order=order, **more)
    Given(gfp=gfp).complete(logged)
    return has_request(logged)


def test_reports_without_a_request() -> None:
    """SysRq f has order -1; a page fault has an empty mask; SysRq m, and files of /proc, have neither."""
    assert asked("oom", 0xCC0)
    assert asked("oom", None)
    assert not asked("oom", 0xCC0, order=-1)
    assert not asked("oom", 0)
    # A mask that is printed with names is one, whatever its number.
    assert asked("oom", ("GFP_KERNEL",))
    assert asked("failure", 0)
    assert asked("stall", None)
    assert asked("memory", 0xCC0)
    assert not asked("memory", None)
    assert not asked("memory", 0xCC0, order_shown=False)


def test_a_person_completes_what_is_not_printed() -> None:
    """And changes nothing else."""
    logged = report("memory", order_shown=False)
    logged.line = 7
    Given(gfp=("GFP_KERNEL", "__GFP_ZERO"), order=3).complete(logged)
    assert logged.mask is not None
    assert (logged.mask.value, logged.mask.printed, logged.mask.line) == (None, ("GFP_KERNEL", "__GFP_ZERO"), 7)
    assert (logged.order, logged.order_shown) == (3, True)
    mask = logged.mask
    Given(gfp=0x820, order=5).complete(logged)
    assert (logged.mask, logged.order) == (mask, 3)
    other = report("memory", order_shown=False)
    Given().complete(other)
    assert (other.mask, other.order, other.order_shown) == (None, 0, False)
    Given(gfp=0, order=0).complete(other)
    assert other.mask is not None
    assert (other.mask.value, other.mask.printed, other.order_shown) == (0, (), True)


@pytest.mark.parametrize(("age", "older"), [(None, False), (0.0, False), (5.0, False), (-0.001, False), (-0.002, True)])
def test_a_state_of_another_failure(age: float | None, older: bool) -> None:
    """The clocks of two CPUs differ by less than a millisecond."""
    assert older_state(report(state_age=age)) is older


EMPTY: dict[str, Any] = {"free": 0, "min": 0, "low": 0, "high": 0}


@pytest.mark.parametrize(
    ("zones", "nothing"),
    [
        ([zone(**EMPTY, managed=16)], True),
        ([zone(**EMPTY, present=16)], True),
        ([zone(**EMPTY, managed=16), zone("DMA", **EMPTY, managed=16)], True),
        ([zone(**EMPTY, managed=16, blocks=(Blocks(0, 4, None),))], True),
        # One zone without pages, next to one that has some.
        ([zone(**EMPTY, managed=16), zone("Movable", **EMPTY, present=0)], True),
        ([zone(**EMPTY, managed=16), zone("DMA", **EMPTY, managed=0)], True),
        # No zone has pages; or nothing is shown of one.
        ([], False),
        ([zone(**EMPTY)], False),
        ([zone(**EMPTY, managed=0, present=16)], False),
        ([zone(managed=16)], False),
        ([zone(**EMPTY, managed=16), zone("DMA", managed=16)], False),
        ([zone(**EMPTY, managed=16, blocks=(Blocks(0, 4, None), Blocks(1, 8, None)))], False),
    ],
)  # fmt: skip
def test_nothing_is_given_to_the_allocator(zones: list[LoggedZone], nothing: bool) -> None:
    """Early in boot: every zone is empty, and some zone will have pages."""
    assert bool(nothing_given(report(zones=zones))) is nothing


@pytest.mark.parametrize("name", EMPTY)
def test_a_zone_with_pages_or_watermarks_was_given_some(name: str) -> None:
    """Each of the four numbers says so."""
    assert not nothing_given(report(zones=[zone(**{**EMPTY, name: 4}, managed=16)]))


def release(text: str) -> ReleaseText:
    """Return a kernel's release as a log names it."""
    return ReleaseText(text, "", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6.1.0-18-amd64", PageSize(4, "certain")),
        ("3.10.0-1160.el7.x86_64", PageSize(4, "certain")),
        ("4.4.0-i386", PageSize(4, "certain")),
        ("2.6.32-5-686", PageSize(4, "certain")),
        ("5.10.0-586-pae", PageSize(4, "certain")),
        ("5.14.0-70.el9.aarch64+64k", PageSize(64, "likely")),
        ("6.8.0-31-generic-64k", PageSize(64, "likely")),
        ("6.6.0-64kb-pages", PageSize(64, "likely")),
        ("6.5.0-asahi-00780", PageSize(16, "likely")),
        ("6.6.51+rpt-rpi-2712", PageSize(16, "likely")),
        ("6.6.0-16k", PageSize(16, "likely")),
        ("4.18.0-372.el8.aarch64", PageSize(64, "likely")),
        ("4.14.0-115.el7a.aarch64", PageSize(64, "likely")),
        ("3.16.0-4-powerpc64", PageSize(64, "likely")),
        ("5.10.0-ppc64el", PageSize(64, "likely")),
        ("5.10.0-sparc64-smp", PageSize(8, "likely")),
        ("5.10.0-alpha-generic", PageSize(8, "likely")),
        ("5.14.0-70.el9.aarch64", PageSize(4, "unknown")),
        ("6.6.0-164k", PageSize(4, "unknown")),
        ("6.6.0-64kernel", PageSize(4, "unknown")),
        ("6.6.0-x686", PageSize(4, "unknown")),
        ("6.1.0-AMD64", PageSize(4, "certain")),
        ("", PageSize(4, "unknown")),
    ],
)
def test_page_sizes_of_flavours(text: str, expected: PageSize) -> None:
    """x86 has one; elsewhere names make one likely."""
    assert page_size(report(release=release(text))) == expected
    assert page_size(report(release=release(text)), 16) == PageSize(16, "certain")


def test_page_sizes_that_a_report_shows() -> None:
    """The first list of free blocks begins with one page, whatever a person says; nothing else of it counts."""
    listed = zone(blocks=(Blocks(3, 64, None), Blocks(1, 128, None)))
    arm = release("5.14.0-70.el9.aarch64+16k")
    assert page_size(report(zones=[zone("DMA"), listed], release=arm)) == PageSize(64, "certain")
    assert page_size(report(zones=[listed]), 4) == PageSize(64, "certain")
    assert page_size(report()) == PageSize(4, "unknown")


def test_page_sizes_of_files_in_pages() -> None:
    """/proc/zoneinfo shows none, even if the kernel that is named has one size only."""
    logged = report("memory", in_pages=True, zones=[zone(blocks=(Blocks(3, 4, None),))], release=release("6.1.0-amd64"))
    assert page_size(logged) == PageSize(4, "unknown")
    assert page_size(logged, 64) == PageSize(64, "certain")


@pytest.mark.parametrize(
    ("totals", "zones", "nodes", "expected"),
    [
        ({"free": 64}, [zone(free=1024)], {}, 16),
        ({"free": 100}, [zone(free=4000), zone("DMA", free=2400)], {}, 64),
        # Fewer than 64 pages may agree by chance; and a line without the number leaves a part out.
        ({"free": 63}, [zone(free=63 * 16)], {}, None),
        ({"free": 64}, [zone(free=1024), zone("DMA")], {}, None),
        ({"free": 64}, [zone(free=1025)], {}, None),
        ({"free": 64}, [zone(free=64 * 32)], {}, None),
        ({}, [zone(free=1024)], {}, None),
        *(
            ({name: 100}, [zone()], {0: {name: 800}}, 8)
            for name in ("active_anon", "inactive_anon", "active_file", "inactive_file", "unevictable")
        ),
        ({"active_anon": 100}, [zone()], {0: {"active_anon": 800}, 1: {"active_anon": 800}, 2: {}}, 16),
        # Before 4.8 each zone counts them; the nodes' lines come first where both are there.
        ({"active_file": 100}, [zone(active_file=200), zone("DMA", active_file=200), zone("DMA32")], {}, 4),
        ({"active_file": 100}, [zone(active_file=200)], {0: {"active_file": 1600}}, 16),
        # The first counter that agrees.
        ({"free": 70, "active_anon": 100}, [zone(free=9)], {0: {"active_anon": 800}}, 8),
        ({"free": 100, "active_anon": 100}, [zone(free=1600)], {0: {"active_anon": 800}}, 16),
    ],
)
def test_page_sizes_by_counters(
    totals: dict[str, int], zones: list[LoggedZone], nodes: dict[int, dict[str, int]], expected: int | None
) -> None:
    """A total in pages, and its parts in kB."""
    logged = report(totals=totals, zones=zones, nodes=nodes, release=release("5.10.0-sparc64"))
    assert page_size(logged) == (PageSize(8, "likely") if expected is None else PageSize(expected, "certain"))
    assert page_size(logged, 4) == PageSize(4, "certain")


@pytest.mark.parametrize(
    ("pid", "pages", "kilobytes", "expected"),
    [
        (7, 1875, 120_000, 64),
        (7, 64, 256, 4),
        (7, 63, 252, None),
        # It gave some back meanwhile, or the table has another process.
        (7, 1876, 120_000, None),
        (8, 1875, 120_000, None),
        (7, 1875, None, None),
    ],
)
def test_page_size_by_the_killed_process(pid: int, pages: int, kilobytes: int | None, expected: int | None) -> None:
    """The table has its address space in pages, and the line of the kill in kB; a cgroup's report has no more."""
    tasks = [Task(1, 1, 0, 10, None, None, 0, "init", 30_000), Task(7, 7, 0, 10, None, None, 0, "web", pages)]
    logged = report("oom", tasks=tasks, killed=Killed(9, pid, "web", kilobytes, 40, 0, 0), release=release("6.12.9"))
    assert page_size(logged) == (PageSize(4, "unknown") if expected is None else PageSize(expected, "certain"))
    assert page_size(report("oom", tasks=tasks)) == PageSize(4, "unknown")


CHOSEN = ("dump_header", "oom_kill_process", "bpf_oom_kill_process", "bpf_handle_oom", "out_of_memory")
"""A BPF program chooses whom to kill: a trace of the series "mm: BPF OOM"."""


@pytest.mark.parametrize(
    ("functions", "by_bpf"),
    [
        ((*CHOSEN, "mem_cgroup_out_of_memory", "try_charge_memcg", "charge_memcg"), False),
        ((*CHOSEN, "__alloc_pages_slowpath", "bpf_map_update_elem"), False),
        (("dump_header", "oom_kill_process", "out_of_memory", "bpf_out_of_memory", "bpf_prog_1_psi"), True),
    ],
)
def test_oom_killer_called_by_bpf(functions: tuple[str, ...], by_bpf: bool) -> None:
    """Only where a program called it, neither a limit nor a request is shown to be the cause."""
    trace = tuple(Frame(function, None, reliable=True) for function in functions)
    logged = report("oom", trace=trace, memcg=True, constraint="memcg")
    assert is_by_bpf(logged) == by_bpf
    assert is_memcg(logged) != by_bpf
    assert has_request(logged) != by_bpf
    failure = explain_failure(logged)
    assert failure.conclusion == ("no_request" if by_bpf else "memcg")
    assert failure.certain != by_bpf
