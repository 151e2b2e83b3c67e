# SPDX-License-Identifier: MIT
"""Who holds the memory, and how much nobody accounts for."""

from typing import Any

import pytest

from kalloctrace.diagnose.answers.holders import find_holders, unaccounted
from kalloctrace.diagnose.answers.types import Holder
from kalloctrace.diagnose.reports.model import HugePages, Killed, LoggedZone, Site, Slab, Task
from tests.diagnosed import judged, zone

LOW = zone(100)
PLACES = {"totals": 11, "nodes": 12, "hugepages": 13, "profile": 14, "tasks": 15, "total_ram_pages": 16}
UNKNOWN_SIZE = "6.1.100"


def holders(*zones: LoggedZone, **more: Any) -> list[tuple[str, str, int, int | None, int | None]]:  # noqa: ANN401
    """Return the holders: kind, name, kB, pid and line."""
    return [tuple(one) for one in find_holders(judged(*(zones or (LOW,)), **{"places": PLACES, **more}))]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("kind", "counters"),
    [
        ("anonymous", ("active_anon", "inactive_anon")),
        ("shmem", ("shmem",)),
        ("file", ("active_file", "inactive_file")),
        ("unevictable", ("unevictable",)),
        ("slab", ("slab_unreclaimable",)),
        ("reclaimable_slab", ("slab_reclaimable",)),
        ("page_tables", ("pagetables",)),
    ],
)
def test_counters(kind: str, counters: tuple[str, ...]) -> None:
    """Each by its counters, all of which must be there."""
    [(found, _, held, pid, line)] = holders(totals=dict.fromkeys(counters, 10))
    assert (found, held, pid, line) == (kind, 40 * len(counters), None, 11)
    assert holders(totals=dict.fromkeys(counters[1:], 10)) == []
    assert holders(totals=dict.fromkeys(counters, 10), release=UNKNOWN_SIZE) == []


def test_the_largest_slab_caches() -> None:
    """Two are named."""
    slabs = [Slab("a", 1, 100), Slab("b", 1, 300), Slab("c", 1, 200)]
    [(_, what, *_)] = holders(totals={"slab_unreclaimable": 10}, slabs=slabs)
    assert what.endswith("(largest: b 300 kB, c 200 kB)")
    [(_, what, *_)] = holders(totals={"slab_unreclaimable": 10})
    assert what == "slab caches that cannot be freed"
    [(_, what, *_)] = holders(totals={"slab_reclaimable": 10}, slabs=slabs)
    assert "largest" not in what


def task(pid: int, rss: int, name: str = "web") -> Task:
    """Return a line of the OOM killer's table."""
    return Task(pid, pid, 0, rss, None, None, 0, name, 2 * rss)


def test_shared_memory_of_an_old_cgroup() -> None:
    """Version 1 counts tmpfs as page cache; its pages are on the lists of anonymous memory."""
    stats = {"cache": 1400, "rss": 680, "active_anon": 680, "inactive_anon": 1390}
    expected = [("shmem", 1390), ("anonymous", 680), ("file", 10)]
    for more, shared in (({}, 1390), ({"shmem": 7}, 7), ({"cache": 300}, 300), ({"inactive_anon": 0}, 0)):
        found = holders(memcg=True, event="oom", memcg_limit=(500, 500), memcg_stats={**stats, **more})
        held = {kind: kilobytes for kind, _, kilobytes, *_ in found}
        assert held.get("shmem", 0) == shared
        if not more:
            assert [(kind, kilobytes) for kind, _, kilobytes, *_ in found] == expected
    del stats["rss"]
    assert "shmem" not in {kind for kind, *_ in holders(memcg=True, event="oom", memcg_stats=stats)}


def test_tasks() -> None:
    """The five largest, in pages of the kernel's size."""
    tasks = [task(number, 10 * number, f"task{number}") for number in (3, 1, 6, 2, 5, 4)]
    expected = [("task", f"task{number}", 40 * number, number, 15) for number in (6, 5, 4, 3, 2)]
    assert holders(tasks=tasks) == expected
    assert holders(tasks=tasks, release=UNKNOWN_SIZE) == []
    # The table has the killed task too.
    killed = Killed(9, 7, "db", None, 4000, 20, None)
    assert holders(tasks=tasks, killed=killed) == expected
    assert holders(killed=killed) == [("task", "db", 4020, 7, 9)]
    assert holders(tasks=tasks, killed=killed, release=UNKNOWN_SIZE) == [("task", "db", 4020, 7, 9)]
    assert holders(killed=killed._replace(anon_rss_kb=None, file_rss_kb=None, shmem_rss_kb=8)) == [
        ("task", "db", 8, 7, 9)
    ]
    assert holders(killed=killed._replace(anon_rss_kb=None, file_rss_kb=0)) == []


@pytest.mark.parametrize(
    ("pages", "together"),
    [
        ((1000, 2000, 3000), True),
        ((1000, 2000, 3001), False),
        # Two are not many, and 6145 pages are more than there are.
        ((2000, 2000), False),
        ((2048, 2048, 2048), True),
        ((2048, 2048, 2049), False),
    ],
)
def test_many_processes_of_one_program(pages: tuple[int, ...], *, together: bool) -> None:
    """The workers of a server are told together, unless one has most of it or they share nearly all."""
    tasks = [*(task(number, rss, "worker") for number, rss in enumerate(pages, 7)), task(1, 5, "init")]
    memory = {"total_ram_pages": 6144, "reserved_pages": 0}
    found = [(what, held, pid) for _, what, held, pid, _ in holders(tasks=tasks, **memory) if "worker" in what]
    if together:
        name = f"worker, {len(pages)} processes (shared pages counted for each)"
        assert found == [(name, 4 * sum(pages), None)]
    else:
        alone = [("worker", 4 * rss, pid) for pid, rss in enumerate(pages, 7)]
        assert found == sorted(alone, key=lambda each: -each[1])


def test_stacks_and_huge_pages() -> None:
    """Of the nodes, before 4.8 of the zones; huge pages hold memory whether they are used or not."""
    nodes = {0: {"kernel_stack": 30}, 1: {"kernel_stack": 12}, 2: {}}
    assert holders(nodes=nodes) == [("kernel_stacks", "kernel stacks", 42, None, 12)]
    zones = (zone(100, kernel_stack=7), zone(100, name="DMA32", kernel_stack=8), zone(100, name="DMA"))
    assert holders(*zones, places={}, state_line=5) == [("kernel_stacks", "kernel stacks", 15, None, 5)]
    assert holders(*zones, nodes=nodes)[0][2] == 42
    huge = [HugePages(0, 10, 6, 0, 2048), HugePages(1, 2, 0, 0, 2048)]
    [(kind, what, held, _, line)] = holders(hugepages=huge)
    assert (kind, held, line) == ("hugetlb", 12 * 2048, 13)
    assert what.endswith(", 12.0 MB of them unused")
    [(_, what, held, _, _)] = holders(hugepages=[HugePages(0, 10, 0, 0, 4)])
    assert (what, held) == ("huge pages that are set aside", 40)


def test_sites() -> None:
    """The five largest of the allocation profile, which counts bytes."""
    sites = [Site(number << 12, 1, f"file.c:{number}") for number in (3, 1, 6, 2, 5, 4)]
    assert holders(profile=sites) == [
        ("site", f"allocated at file.c:{number}", 4 * number, None, 14) for number in (6, 5, 4, 3, 2)
    ]


def test_the_largest_first() -> None:
    """Of less than a hundredth of the memory nothing is said: 400 of 40,000 kB."""
    ram = {"total_ram_pages": 10_000, "reserved_pages": 0}
    found = holders(totals={"shmem": 100, "pagetables": 99, "unevictable": 200}, tasks=[task(1, 150)], **ram)
    assert [(kind, held) for kind, _, held, _, _ in found] == [("unevictable", 800), ("task", 600), ("shmem", 400)]
    # Where the size is not known everything is named, but what holds nothing.
    assert [kind for kind, *_ in holders(totals={"shmem": 1, "pagetables": 0})] == ["shmem"]
    tiny = {"total_ram_pages": 10, "reserved_pages": 0}
    assert [kind for kind, *_ in holders(totals={"shmem": 1, "pagetables": 0}, **tiny)] == ["shmem"]


ALL = {
    "active_anon": 1,
    "inactive_anon": 2,
    "active_file": 4,
    "inactive_file": 8,
    "unevictable": 16,
    "slab_reclaimable": 32,
    "slab_unreclaimable": 64,
    "pagetables": 128,
    "free": 256,
}
"""511 pages."""
RAM: dict[str, Any] = {"total_ram_pages": 10_000, "reserved_pages": 1_000}


def rest(**more: Any) -> int | None:  # noqa: ANN401
    """Return what nobody accounts for, in kB."""
    return unaccounted(judged(LOW, **{"totals": ALL, **RAM, **more}))


def test_unaccounted() -> None:
    """What no counter has, of which each must be there; some kernels print further ones."""
    assert rest() == (9_000 - 511) * 4
    for name in ALL:
        assert rest(totals={key: value for key, value in ALL.items() if key != name}) is None
    for name in RAM:
        assert unaccounted(judged(LOW, totals=ALL, **{key: value for key, value in RAM.items() if key != name})) is None
    others = ("isolated_anon", "isolated_file", "free_pcp", "bounce", "sec_pagetables", "kernel_misc_reclaimable")
    for name in others:
        assert rest(totals={**ALL, name: 1000}) == (9_000 - 1511) * 4
    assert rest(totals={**ALL, "shmem": 1000, "mapped": 1000}) == (9_000 - 511) * 4
    assert rest(nodes={0: {"kernel_stack": 100}}) == (9_000 - 511) * 4 - 100
    assert rest(hugepages=[HugePages(0, 10, 6, 0, 2048)]) == (9_000 - 511) * 4 - 20_480
    # Counters are read one after the other, and may add up to more.
    assert rest(totals={**ALL, "free": 20_000}) == 0


def test_unaccounted_memory_is_told_last() -> None:
    """From a hundredth on: 360 of 36,000 kB."""
    some = {**ALL, "free": 9_000 - 255 - 90}
    *_, last = find_holders(judged(LOW, totals=some, places=PLACES, **RAM))
    assert last == Holder("unaccounted", last.what, 360, None, 16)
    less = {**some, "free": some["free"] + 1}
    assert "unaccounted" not in {one.kind for one in find_holders(judged(LOW, totals=less, **RAM))}
    most = find_holders(judged(LOW, totals=ALL, tasks=[task(1, 200)], **RAM))
    assert [one.kind for one in most] == ["task", "page_tables", "unaccounted"]
