# SPDX-License-Identifier: MIT
"""What to change: each advice with its value, at the number where it begins to be given."""

from typing import Any

import pytest

from kalloctrace.diagnose.answers.answers import answer
from kalloctrace.diagnose.answers.tuning import earlier_kswapd, larger_min_free, smaller_reserve
from kalloctrace.diagnose.answers.types import Advice
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.reports.model import Blocks, Cache, Frame, HugePages, LoggedZone, Site, Task
from tests.diagnosed import judged, pages, zone

LOW = zone(100)
RESERVED = zone(0).kilobytes


def kept(free: int, name: str = "DMA32", node: int = 0, reserve: int = 900) -> LoggedZone:
    """Return a zone that keeps pages for requests that may use Normal."""
    return LoggedZone(node, name, {**RESERVED, "free": free * 4}, (0, 0, reserve, reserve, reserve))


def small(free: int, order: int = 0, **more: Any) -> LoggedZone:  # noqa: ANN401
    """Return a zone whose largest block is of an order."""
    return zone(
        free,
        (*(pages(0) for _ in range(order)), Blocks(free >> order, 4 << order, pages(1, "UNMOVABLE").types)),
        **more,
    )


def advice(*zones: LoggedZone, **more: Any) -> list[Advice]:  # noqa: ANN401
    """Return the advice about a report."""
    return list(answer(judged(*zones, **more)).advice)


def settings(*zones: LoggedZone, **more: Any) -> dict[str | None, int | str | None]:  # noqa: ANN401
    """Return the values by setting."""
    return {each.setting: each.value for each in advice(*zones, **more)}


def only(*zones: LoggedZone, **more: Any) -> Advice:  # noqa: ANN401
    """Return the only advice."""
    [found] = advice(*zones, **more)
    return found


@pytest.mark.parametrize(
    ("zones", "value"),
    [
        # Twice 2,780 kB, in steps of 1,024; what was missing are 2,384 kB.
        ((zone(100),), 6144),
        # 695 + 1 pages of which 2,780 - 2,000 kB are the watermark without its boost: 780 + 2,784.
        ((zone(0, boost=2000),), 4096),
        ((zone(100), zone(695, node=1)), 11264),
        # A zone that the kernel does not give a part of vm.min_free_kbytes does not count.
        ((zone(100), zone(9000, name="Movable")), 6144),
        ((zone(100), LoggedZone(0, "DMA", {"free": 4000})), 6144),
        # A twentieth of what is managed.
        ((zone(100, managed=122_880),), 6144),
        ((zone(100, managed=122_879),), None),
        ((zone(100, managed=61_440), zone(9000, name="DMA32", managed=61_440)), None),
        ((zone(100, managed=61_440), zone(900, name="Movable", managed=161_440)), None),
        # Not below their own watermark.
        ((kept(750),), None),
        ((zone(5000),), None),
    ],
)
def test_min_free(zones: tuple[LoggedZone, ...], value: int | None) -> None:
    """vm.min_free_kbytes is the sum of the zones' min watermarks without their boost."""
    found = list(larger_min_free(judged(*zones, state_line=9)))
    expected = [] if value is None else [("vm.min_free_kbytes", value, "likely", 9)]
    assert [(each.setting, each.value, each.certainty, each.line) for each in found] == expected


def test_min_free_of_what_was_missing() -> None:
    """The zone nearest to its watermark decides: 4 kB. Movable has no part of vm.min_free_kbytes."""
    boosted = zone(0, boost=2000)
    near = LoggedZone(1, "Normal", {**RESERVED, "free": 695 * 4, "boost": 2000}, (0,) * 5)
    [found] = larger_min_free(judged(boosted, near))
    assert found.value == 4096
    movable = judged(zone(100, name="Movable"), gfp=("GFP_HIGHUSER_MOVABLE",))
    assert list(larger_min_free(movable)) == []


@pytest.mark.parametrize(
    ("zones", "value"),
    [
        # From min to low are 173 pages; 346 of 1,000,000 pages are 3.46 ten-thousandths.
        ((zone(100, managed=4_000_000),), 4),
        ((zone(100, managed=346 * 4),), None),
        ((zone(100, managed=3460 * 4),), 1000),
        ((zone(100, managed=3459 * 4),), None),
        ((zone(100, managed=3460 * 4), zone(100, node=1, managed=4_000_000)), 4),
        ((zone(100, managed=4_000_000), zone(100, node=1)), 4),
        ((zone(100, managed=4_000_000), zone(5000, node=1, managed=400_000_000)), 4),
        ((zone(100, managed=4_000_000, low=2780),), None),
        ((zone(100, managed=4_000_000, low=2784),), 1),
        ((zone(100),), None),
        ((zone(100, managed=0),), None),
        ((kept(750),), None),
    ],
)
def test_scale_factor(zones: tuple[LoggedZone, ...], value: int | None) -> None:
    """The distance is managed * watermark_scale_factor / 10,000; twice as much of it."""
    found = list(earlier_kswapd(judged(*zones, state_line=9)))
    expected = [] if value is None else [("vm.watermark_scale_factor", value, "likely", 9)]
    assert [(each.setting, each.value, each.certainty, each.line) for each in found] == expected


@pytest.mark.parametrize(("release", "there"), [("4.5.0-amd64", False), ("4.6.0-amd64", True), ("", False)])
def test_scale_factor_is_of_4_6(release: str, there: bool) -> None:
    """795ae7a0de6b."""
    failure = judged(zone(100, managed=4_000_000), gfp=("GFP_KERNEL",), release=release)
    assert bool(list(earlier_kswapd(failure))) is there


@pytest.mark.parametrize(
    ("zones", "times"),
    [
        # 750 - 695 - 1 pages are left for a reserve, now 900.
        ((kept(750),), 17),
        ((kept(697),), 900),
        ((kept(696),), None),
        ((kept(1595),), 2),
        ((kept(750), kept(1200, node=1)), 2),
        ((kept(1200), kept(750, node=1)), 2),
        ((kept(750, name="DMA"),), None),
        ((kept(750, name="DMA"), kept(700)), 225),
        ((LOW,), None),
        # Which number of it holds is not known.
        ((LoggedZone(0, "Normal", {**RESERVED, "free": 3000}, (0, 100, 900)),), None),
    ],
)
def test_lowmem_reserve(zones: tuple[LoggedZone, ...], times: int | None) -> None:
    """A reserve that is so much smaller leaves one page more than the watermark."""
    found = list(smaller_reserve(judged(*zones, state_line=9)))
    assert [(each.setting, each.value, each.certainty, each.line) for each in found] == (
        [] if times is None else [("vm.lowmem_reserve_ratio", None, "likely", 9)]
    )
    assert [f"a ratio {times:,} times as large" in each.text for each in found] == [True] * len(found)


def test_which_zone_keeps_too_much() -> None:
    """It is named, with what is free in it."""
    [found] = smaller_reserve(judged(kept(750), kept(1200, node=1)))
    assert "node 1 DMA32, where 4,800 kB are free" in found.text


@pytest.mark.parametrize(
    ("counter", "setting", "more"),
    [
        ("memory", "memory.limit_in_bytes", False),
        ("memory+swap", "memory.memsw.limit_in_bytes", False),
        ("kmem", "memory.kmem.limit_in_bytes", True),
    ],
)
def test_limits_of_version_1(counter: str, setting: str, *, more: bool) -> None:
    """Each counter has a limit of its own, and none is called memory.max."""
    limit = {"event": "oom", "memcg": True, "memcg_limit": (60, 60), "memcg_counter": counter, "memcg_v1": True}
    found = only(LOW, **limit, tasks=[Task(7, 7, 0, 100, None, None, 0, "web", 200)])
    assert found.setting == setting
    assert ("kernel memory alone" in found.text) == more
    # What processes have is not the kernel's.
    assert ("web (pid 7) holds" in found.text) != more


def test_requests_that_nothing_is_advised_for() -> None:
    """SysRq f, and a state of memory without a failure."""
    assert advice(LOW, event="oom", order=-1) == []
    assert advice(LOW, event="memory") == []
    for free in (5000, 900):
        # It would be served now, or that is not known.
        assert advice(LoggedZone(0, "DMA32", {**RESERVED, "free": free * 4}, None)) == []
    assert advice() == []


CGROUP = Cache("kmalloc-64(17:web)", "17:web", None, 0, 0)


@pytest.mark.parametrize(
    ("more", "certainty", "line", "words"),
    [
        ({"event": "oom", "memcg": True}, "certain", 1, "limit of the memory cgroup, or"),
        ({"event": "oom", "memcg": True, "places": {"memcg_limit": 7}}, "certain", 7, "limit of the memory cgroup, or"),
        (
            {"event": "oom", "memcg": True, "memcg_path": "/web", "memcg_limit": (50, 60)},
            "certain",
            1,
            "limit of /web, now 60 kB, or",
        ),
        ({"event": "slub", "cache": CGROUP}, "certain", 1, "limit of 17:web, or"),
    ],
)
def test_memory_cgroups(more: dict[str, Any], certainty: str, line: int, words: str) -> None:
    """The limit, wherever it is said."""
    found = only(LOW, **more)
    assert (found.setting, found.value, found.line) == ("memory.max", None, line)
    assert found.certainty == certainty
    assert words in found.text
    assert "holds" not in found.text
    task = Task(640, 640, 0, 40_960, None, None, 0, "worker", 90_000)
    more = {**more, "tasks": [task], "totals": {"active_anon": 90_000, "inactive_anon": 0}}
    assert only(LOW, **more).text.endswith("worker (pid 640) holds 160 MB")


@pytest.mark.parametrize(
    ("event", "more", "expected"),
    [
        ("vmap", {}, ("vmalloc=", None, "likely")),
        ("hugetlb", {}, ("hugepages=", None, "certain")),
        ("warning", {"warning_text": "mm/page_alloc.c:1 rmqueue+0x1/0x2"}, (None, None, "likely")),
        ("warning", {"warning_text": "mm/page_alloc.c:1 __alloc_pages+0x1/0x2"}, (None, None, "likely")),
        ("warning", {"warning_text": "mm/page_alloc.c:1 free_one_page+0x1/0x2"}, None),
        ("vmalloc", {"warning_text": "size 1, exceeds total pages"}, (None, None, "likely")),
        ("vmalloc", {"warning_text": "allocation failure: 4096 bytes", "size": 4096, "total_ram_pages": 9,
                     "reserved_pages": 0}, ("vmalloc=", None, "likely")),
        ("vmalloc", {"warning_text": "allocation failure: 4096 bytes", "size": 4096}, None),
        ("cma", {}, ("cma=", None, "likely")),
        ("cma", {"pages": 9, "release": "6.1.100"}, ("cma=", None, "likely")),
        # 1,025 pages of 4 kB are 5 MB in steps of 4; twice that, or on top of the area.
        ("cma", {"pages": 1025}, ("cma=", "16M", "likely")),
        ("cma", {"pages": 1024}, ("cma=", "8M", "likely")),
        ("cma", {"pages": 1025, "cma_pages": (900, 1024)}, ("cma=", "12M", "likely")),
        ("cma", {"pages": 1025, "cma_pages": (900, 1025)}, ("cma=", "16M", "likely")),
        ("cma", {"pages": 8, "release": "5.14.0.el8.aarch64"}, None),
    ],
)  # fmt: skip
def test_reports_of_other_events(
    event: str, more: dict[str, Any], expected: tuple[str | None, str | None, str] | None
) -> None:
    """Each has its own advice, with the line of the report."""
    found = [each for each in advice(LOW, event=event, **more) if not each.text.startswith("nothing has to change")]
    assert [(each.setting, each.value, each.certainty) for each in found] == ([] if expected is None else [expected])
    assert all(each.line == 1 for each in found)


def test_numbers_of_a_cma_area() -> None:
    """They are said as well."""
    text = only(LOW, event="cma", pages=1025, cma_pages=(900, 1024)).text
    assert "takes 8 MB of it, and 3,600 kB of its 4,096 kB were free" in text
    assert "takes 1,025 pages of it" in only(LOW, event="cma", pages=1025, release="6.1.100").text
    assert ":" not in only(LOW, event="cma").text
    [words] = [each.text for each in advice(event="warning", warning_text="mm/page_alloc.c:1 rmqueue+0x1/0x2")]
    assert "__GFP_NOFAIL" in words
    [words] = [each.text for each in advice(event="warning", warning_text="mm/page_alloc.c:1 __alloc_pages+0x1/0x2")]
    assert "kvmalloc" in words


@pytest.mark.parametrize(
    ("free", "largest", "words"),
    [
        (2047, 2047, "2,047 of its 8,192 were free"),
        (2048, 2047, "2,048 of its 8,192 were free, in pieces"),
        (4096, None, "4,096 of its 8,192 were free, in pieces"),
        (4096, 2048, "4,096 of its 8,192 were free, also in one range, but pages of others in it could not be moved"),
    ],
)
def test_free_ranges_of_a_cma_area(free: int, largest: int | None, words: str) -> None:
    """Too little, too small, or there but in use: `cma_debug_show_areas` lists ranges that no allocation holds."""
    asked = {"event": "cma", "pages": 2048, "cma_pages": (free, 8192), "cma_largest": largest, "errno": 16}
    text = only(LOW, **asked, release="6.1.100").text
    assert text.partition(" (in use")[0].endswith(words)
    # ENOMEM: the range is not aligned as the request needs it.
    assert "moved" not in only(LOW, **{**asked, "errno": 12}, release="6.1.100").text


def test_harmless_failures() -> None:
    """Who has another way needs nothing; a stall is none of those, though it is tried again."""
    found = only(LOW, gfp=("GFP_KERNEL", "__GFP_NORETRY"))
    assert (found.setting, found.value, found.certainty) == (None, None, "likely")
    assert found.text.startswith("nothing has to change")
    assert "vm.min_free_kbytes" in settings(LOW, event="stall")


RICH = zone(5000, node=1)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"constraint": "mempolicy", "nodemask": "0"}, ("mempolicy", "preferred", "likely", 1)),
        (
            {"constraint": "mempolicy", "nodemask": "0", "places": {"constraint": 8}},
            ("mempolicy", "preferred", "likely", 8),
        ),
        ({"constraint": "cpuset", "mems_allowed": "0"}, ("cpuset.mems", "1", "likely", 1)),
        ({"mems_allowed": "0", "gfp": ("GFP_KERNEL", "__GFP_HARDWALL")}, ("cpuset.mems", "1", "likely", 1)),
        ({"nodemask": "0"}, ("mempolicy", "1", "likely", 1)),
    ],
)
def test_requests_that_are_bound(more: dict[str, Any], expected: tuple[str, str, str, int]) -> None:
    """Node 1 has pages above its high watermark."""
    found = only(LOW, RICH, event="oom", **more)
    assert (found.setting, found.value, found.certainty, found.line) == expected
    assert "node 1" in found.text


def test_nodes_without_free_memory() -> None:
    """1,041 pages are the high watermark: no more than that is of no use. Each node is named once, in order."""
    assert "mempolicy" not in settings(LOW, zone(1041, node=1), nodemask="0")
    assert settings(LOW, zone(1042, node=1), nodemask="0") == {"mempolicy": "1"}
    many = (LOW, zone(5000, node=2), zone(5000, node=1), zone(100, node=3), zone(5000, node=2, name="DMA32"))
    assert settings(*many, nodemask="0") == {"mempolicy": "1,2"}
    # A zone that the mask excludes is not closed by the nodemask.
    assert "mempolicy" not in settings(LOW, zone(5000, node=1, name="Movable"), nodemask="0")
    # A policy and a cpuset are named by the OOM killer, whatever is free.
    assert settings(LOW, event="oom", constraint="cpuset", mems_allowed="0") == {"cpuset.mems": None}
    assert (
        "allow the cpuset other nodes too: it has nodes 0"
        in only(LOW, event="oom", constraint="cpuset", mems_allowed="0").text
    )
    assert settings(LOW, event="oom", constraint="mempolicy", nodemask="0") == {"mempolicy": "preferred"}
    # Without a cpuset that closes a node none is advised.
    assert "cpuset.mems" not in settings(LOW, RICH, mems_allowed="0-1", gfp=("GFP_KERNEL", "__GFP_HARDWALL"))


def test_this_node() -> None:
    """A policy or a cpuset does not change __GFP_THISNODE."""
    mask = ("GFP_KERNEL", "__GFP_THISNODE")
    assert not {"mempolicy", "cpuset.mems"} & settings(LOW, RICH, nodemask="0", gfp=mask).keys()


FULL: dict[str, Any] = {
    "event": "oom",
    "constraint": "none",
    "totals": {
        "free": 100,
        "active_file": 0,
        "inactive_file": 0,
        "dirty": 0,
        "writeback": 0,
        "slab_reclaimable": 0,
        "active_anon": 0,
        "inactive_anon": 0,
    },
    "swap": (0, 1000),
    "total_ram_pages": 10_000,
    "reserved_pages": 0,
    "places": {"totals": 11, "swap": 12, "hugepages": 13, "tasks": 14},
}
"""Memory of 40,000 kB is used up."""


def full(**more: Any) -> list[tuple[str | None, Any, str, int | None]]:  # noqa: ANN401
    """Return the advice where memory is used up."""
    totals = {**FULL["totals"], **more.pop("totals", {})}
    found = advice(LOW, **{**FULL, "totals": {key: one for key, one in totals.items() if one is not None}, **more})
    return [(each.setting, each.value, each.certainty, each.line) for each in found]


def task(rss: int) -> list[Task]:
    """Return tasks, one of which holds more than the other."""
    return [Task(1, 1, 0, 10, None, None, 0, "init", 20), Task(7, 7, 0, rss, None, None, 0, "web", 2 * rss)]


def test_the_task_that_holds_most() -> None:
    """A tenth of the memory; certain where it is certainly used up."""
    assert full(tasks=task(1000)) == [("memory.max", None, "certain", 14)]
    assert full(tasks=task(999)) == []
    assert full(tasks=task(1000), totals={"slab_reclaimable": None}) == [("memory.max", None, "likely", 14)]
    # The counters may be those of some nodes.
    assert full(tasks=task(1000), total_ram_pages=None) == [("memory.max", None, "likely", 14)]
    shares = {rss: advice(LOW, **{**FULL, "tasks": task(rss)})[0].text for rss in (1099, 1100, 99_000)}
    assert "web (pid 7) holds 4,396 kB, 10 %" in shares[1099]
    assert "4,400 kB, 11 %" in shares[1100]
    # Shared pages count for each task.
    assert "100 %" in shares[99_000]


@pytest.mark.parametrize(
    ("counter", "setting"),
    [("shmem", "size="), ("slab_unreclaimable", None), ("pagetables", None), ("unevictable", None)],
)
def test_what_else_holds_memory(counter: str, setting: str | None) -> None:
    """A tenth of the memory, in each of these."""
    assert full(totals={counter: 1000}) == [(setting, None, "likely", 11)]
    assert full(totals={counter: 999}) == []


def test_many_processes_that_hold_most() -> None:
    """Together a tenth of it."""
    workers = [Task(pid, pid, 0, 400, None, None, 0, "php-fpm", 800) for pid in (7, 8, 9)]
    [found] = advice(LOW, **{**FULL, "tasks": workers})
    assert (found.setting, found.line) == ("memory.max", 14)
    assert found.text.startswith("php-fpm, 3 processes hold 4,800 kB, 12 %: let them use less, run fewer, ")


def test_memory_that_nobody_accounts_for() -> None:
    """A tenth of it, if all counters are there."""
    zeros = dict.fromkeys(("unevictable", "slab_unreclaimable", "pagetables"), 0)
    assert full(totals={**zeros, "active_anon": 8900}) == [("page_owner=", None, "likely", None)]
    assert full(totals={**zeros, "active_anon": 8901}) == []


@pytest.mark.parametrize(
    ("where", "size", "named"),
    [
        ("drivers/gpu/drm/ttm/ttm_pool.c:137 [ttm] func:ttm_pool_alloc_page", 550, True),
        ("net/core/page_pool.c:570 func:__page_pool_alloc_page_order", 551, True),
        ("mm/vmalloc.c:3731 func:vm_area_alloc_pages", 900, True),
        ("drivers/gpu/drm/ttm/ttm_pool.c:137 [ttm] func:ttm_pool_alloc_page", 549, False),
        # The counters have these.
        ("mm/memory.c:1061 func:folio_prealloc", 900, False),
        ("fs/ext4/super.c:7 [ext4] func:ext4_page", 900, False),
    ],
)
def test_the_profile_names_what_no_counter_has(where: str, size: int, *, named: bool) -> None:
    """A site with at least half of it; the counters lack 1100 pages here."""
    zeros = dict.fromkeys(("unevictable", "slab_unreclaimable", "pagetables"), 0)
    totals = {**FULL["totals"], **zeros, "active_anon": 8800}
    found = advice(LOW, **{**FULL, "totals": totals, "profile": [Site(size << 12, 1, where)]})
    assert [each.setting for each in found] == [None if named else "page_owner="]
    assert (f"allocated at {where}" in found[0].text) == named


def test_page_cache_is_not_blamed() -> None:
    """What can be freed is no advice."""
    assert full(totals={"active_file": 400}) == []
    assert full(totals={"active_anon": 9000}) == []


@pytest.mark.parametrize(
    ("huge", "expected"),
    [
        ([HugePages(0, 10, 6, 0, 2048)], 4),
        ([HugePages(0, 10, 6, 0, 2048), HugePages(1, 5, 1, 0, 2048)], 8),
        ([HugePages(0, 10, 0, 0, 2048)], None),
        ([HugePages(0, 10, 6, 0, 2048), HugePages(0, 1, 1, 0, 1 << 20)], None),
        ([HugePages(0, 10, 6, 0, 2048), HugePages(0, 0, 0, 0, 1 << 20)], 4),
        ([], None),
    ],
)
def test_huge_pages_that_are_not_used(huge: list[HugePages], expected: int | None) -> None:
    """vm.nr_hugepages sets those of the default size."""
    found = full(hugepages=huge)
    assert found == ([] if expected is None else [("vm.nr_hugepages", expected, "likely", 13)])


def test_swap() -> None:
    """Two fifths of the memory are processes', and there is none."""
    assert full(swap=(0, 0), totals={"active_anon": 4000}) == [("swap", None, "likely", 12)]
    assert full(swap=(0, 0), totals={"inactive_anon": 4000}) == [("swap", None, "likely", 12)]
    assert full(swap=(0, 0), totals={"active_anon": 3999}) == []
    assert full(totals={"active_anon": 4000}) == []
    assert full(swap=(0, 0), totals={"active_anon": None}) == []
    assert full(swap=(0, None), totals={"active_anon": 4000}) == []


DIRTY = {"active_file": 10_000, "inactive_file": 6_384, "dirty": 8_000, "writeback": 192}
"""8,192 pages, 32 MB, are half of the file pages."""


@pytest.mark.parametrize(
    ("event", "totals", "there"),
    [
        ("oom", {}, True),
        ("stall", {}, True),
        ("failure", {}, False),
        ("oom", {"active_file": 10_001}, False),
        ("oom", {"dirty": 7_999, "active_file": 9_998}, False),
        ("oom", {"writeback": 194}, True),
    ],
)
def test_dirty_pages(event: str, totals: dict[str, int], there: bool) -> None:
    """The kernel may have half as many in future."""
    found = [
        (each.value, each.certainty, each.line)
        for each in advice(LOW, event=event, totals={**DIRTY, **totals}, places={"totals": 11})
        if each.setting == "vm.dirty_bytes"
    ]
    assert found == ([(16 << 20, "likely", 11)] if there else [])
    for name in DIRTY:
        lacking = {key: value for key, value in DIRTY.items() if key != name}
        assert "vm.dirty_bytes" not in settings(LOW, event=event, totals=lacking)


def test_pages_on_their_way_to_swap() -> None:
    """They are counted as written back too, and no limit of dirty file pages holds for them."""
    totals = {**DIRTY, "dirty": 0, "writeback": 16_384}
    assert "vm.dirty_bytes" in settings(LOW, event="stall", totals=totals)
    assert "vm.dirty_bytes" not in settings(LOW, event="stall", totals={**totals, "writeback": 16_385})


@pytest.mark.parametrize(
    ("more", "helps"),
    [
        ({}, False),
        # A hundredth of the swap, a twentieth of the memory: there is something to free.
        ({"swap": (11, 1000)}, True),
        ({"swap": (0, 0)}, False),
        ({"swap": None}, True),
        ({"active_file": 300, "slab_reclaimable": 200}, True),
        ({"active_file": 300, "slab_reclaimable": 199}, False),
        ({"slab_reclaimable": None}, True),
    ],
)
def test_no_watermark_where_nothing_can_be_freed(more: dict[str, Any], *, helps: bool) -> None:
    """An earlier kswapd finds nothing, also for a stall or a failure."""
    swap, totals = more.pop("swap", FULL["swap"]), {**FULL["totals"], **more}
    known = {key: value for key, value in totals.items() if value is not None}
    for event in ("failure", "stall"):
        found = settings(LOW, **{**FULL, "constraint": None, "event": event, "swap": swap, "totals": known})
        assert ("vm.min_free_kbytes" in found) == helps


def test_low_memory() -> None:
    """A driver that asks for it, where a zone above has room."""
    low = zone(100, name="DMA")
    high = zone(0).kilobytes["high"] // 4
    for gfp, free, there in ((0xCC1, high + 1, True), (0xCC1, high, False), (0xCC0, high + 1, False)):
        found = [each.text for each in advice(low, zone(free), gfp=gfp, order=0)]
        assert any("instead of __GFP_DMA, if" in text for text in found) == there


def test_first_page() -> None:
    """The OOM killer for a single page, or kswapd that has given up, are a lack of memory; else the request is."""
    tasks = {"tasks": task(1000), "total_ram_pages": 10_000, "reserved_pages": 0}
    assert "memory.max" in settings(LOW, event="oom", **tasks)
    assert "memory.max" not in settings(LOW, event="oom", order=1, **tasks)
    assert "memory.max" not in settings(LOW, event="failure", **tasks)
    given_up = {"nodes": {0: {"all_unreclaimable": 1}}}
    assert "memory.max" in settings(LOW, event="failure", **given_up, **tasks)
    # With room nobody is to blame, whoever gave up.
    assert "memory.max" not in settings(zone(5000), event="oom", **given_up, **tasks)


def test_masks_of_another_kernel() -> None:
    """Then the module is the cause, and nothing else is advised."""
    found = only(LOW, gfp=0xD0)
    assert (found.setting, found.value, found.certainty, found.line) == (None, None, "likely", 1)
    assert found.text.startswith("build the module again")


TRACE = {"trace": (Frame("web_rx", "web", reliable=True),), "trace_lines": (5,)}


@pytest.mark.parametrize(("order", "single"), [(3, False), (4, True)])
def test_atomic_requests_of_many_pages(order: int, single: bool) -> None:
    """PAGE_ALLOC_COSTLY_ORDER is 3."""
    found = advice(small(5000), gfp=("GFP_ATOMIC",), order=order, **TRACE)
    assert ("for GFP_ATOMIC" in found[0].text) is single
    assert "web_rx" in found[0].text
    assert (found[0].line, found[0].certainty) == (5, "likely")
    if single:
        [alone] = advice(small(5000), gfp=("GFP_ATOMIC",), order=order)
        assert alone.text.startswith("let the caller ask for single pages")
        assert alone.line == 1


def test_smaller_orders() -> None:
    """The largest that would have been served; compaction, where the request may wait."""
    found = advice(small(5000, 2, node=1), order=4, state_line=9, **TRACE)
    assert [(each.setting, each.value, each.certainty, each.line) for each in found] == [
        ("order", 2, "likely", 5),
        ("vm.compact_memory", 1, "likely", 9),
    ]
    assert "let web_rx ask for order 2 at most: node 1 Normal" in found[0].text
    atomic = advice(small(5000, 2), order=3, gfp=("GFP_ATOMIC",))
    assert [(each.setting, each.value, each.line) for each in atomic] == [("order", 2, 1)]
    # `kvmalloc_node` does not try vmalloc for a request that may not sleep, mm/util.c.
    assert ("kvmalloc" in found[0].text, "kvmalloc" in atomic[0].text) == (True, False)
    # No order would be served.
    isolated = zone(1300, (pages(1300, "ISOLATE"),))
    none = advice(isolated, order=4, state_line=9)
    assert [(each.setting, each.value, each.line) for each in none] == [(None, None, 1), ("vm.compact_memory", 1, 9)]
    assert "use single pages or kvmalloc" in none[0].text
    [alone] = advice(isolated, order=3, gfp=("GFP_ATOMIC",))
    assert alone.text == "let the caller use single pages, if the pages need not be contiguous"
    # For single pages there is no smaller order.
    assert "order" not in settings(zone(1300, (pages(1300, "ISOLATE"),)))


def test_a_block_and_pages() -> None:
    """Where one zone lacks a block and the other pages, both are said."""
    found = settings(small(5000, 2), zone(100, node=1), order=4)
    assert set(found) == {"order", "vm.compact_memory", "vm.min_free_kbytes"}


def test_watermarks() -> None:
    """The boost alone; else more memory is kept free, but where the OOM killer ran."""
    boosted = zone(600, boost=1000)
    assert settings(boosted, state_line=9) == {"vm.watermark_boost_factor": 0}
    [only_one] = advice(boosted, state_line=9)
    assert (only_one.certainty, only_one.line) == ("likely", 9)
    managed = zone(100, managed=4_000_000)
    assert list(settings(managed)) == ["vm.min_free_kbytes", "vm.watermark_scale_factor"]
    assert settings(managed, event="oom", order=1) == {}
    assert list(settings(kept(750))) == ["vm.lowmem_reserve_ratio"]
    # It is not the reserve alone.
    assert list(settings(kept(750), LOW)) == ["vm.min_free_kbytes"]


CMA: dict[str, Any] = {"free_cma": 8000, "managed": 4_000_000}
"""2,000 free pages are in CMA areas."""


def test_cma_areas() -> None:
    """Of 2,100 pages 100 are usable; 596 more are needed, and half of the area is enough for them."""
    state = zone(2100, None, **CMA)
    assert settings(state, totals={"cma_reserved": 4096}, state_line=9)["cma="] == "8M"
    found = next(each for each in advice(state, totals={"cma_reserved": 4096}, state_line=9) if each.setting == "cma=")
    assert (found.certainty, found.line) == ("likely", 9)
    assert "8,000 kB of node 0 Normal's free memory" in found.text
    assert settings(state, totals={"cma_reserved": 1192})["cma="] == "2M"
    assert settings(state, totals={"cma_reserved": 1191})["cma="] is None
    assert settings(state)["cma="] is None
    # Without the area it would lack pages as well: 595 of 695, or all but one of them.
    assert "cma=" not in settings(zone(695, free_cma=2780 - 400))
    assert "cma=" in settings(zone(696, free_cma=2780 - 400))
    # Movable requests may use them.
    assert "cma=" not in settings(state, gfp=("GFP_HIGHUSER_MOVABLE", "__GFP_NORETRY"))


def test_high_memory() -> None:
    """Of a 32-bit kernel's free memory the kernel itself can use the low part only."""

    def high(free: int) -> dict[str | None, Any]:
        zones = [
            LoggedZone(0, name, {**RESERVED, "free": 4 * pages}, (0, 0, 0, 0))
            for name, pages in (("DMA", 100), ("HighMem", free))
        ]
        return settings(*zones, release="5.10.0-686-pae")

    assert None in high(1042)
    assert None not in high(1041)
    assert None not in settings(LOW, zone(5000, name="Movable"))


def test_advice_while_the_machine_boots() -> None:
    """Without watermarks kswapd cannot start earlier."""
    empty = LoggedZone(0, "Normal", {**dict.fromkeys(RESERVED, 0), "managed": 8000}, (0,) * 5)
    failure: Failure = judged(empty)
    assert failure.conclusion == "watermark"
    assert answer(failure).advice == ()


@pytest.mark.parametrize(
    ("function", "order", "expected"),
    [
        ("set_max_huge_pages", 9, ("hugepages=", None, "certain")),
        ("hugetlb_no_page", 4, ("hugepages=", None, "certain")),
        ("hugetlb_hstate_alloc_pages", 9, ("hugepages=", None, "likely")),
        ("hugetlb_pages_alloc_boot_node", 9, ("hugepages=", None, "likely")),
    ],
)
def test_huge_pages_by_their_caller(function: str, order: int, expected: tuple[str, None, str]) -> None:
    """Their size is not the caller's choice; at boot there is no earlier time."""
    trace = {"trace": (Frame(function, None, reliable=True),), "trace_lines": (20,)}
    found = only(small(9000), order=order, **trace)
    assert (found.setting, found.value, found.certainty, found.line) == (*expected, 20)
    assert "order" in settings(small(9000, 1), order=3, **trace)
