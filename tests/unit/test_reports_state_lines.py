# SPDX-License-Identifier: MIT
"""Single lines of the state of memory: what they are, and what is read from them."""

from typing import Any

import pytest

from kalloctrace.diagnose.reports import zones
from kalloctrace.diagnose.reports.model import Blocks, HugePages, LoggedFailure, LoggedZone
from kalloctrace.diagnose.reports.zones import StateLine, state_line


def report() -> LoggedFailure:
    """Return a report without a state."""
    return LoggedFailure("failure", 1, "task", 0)


def line(text: str) -> StateLine:
    """Return a line of a state."""
    found = state_line(text)
    assert found is not None, text
    return found


@pytest.mark.parametrize(
    ("text", "kind", "key", "place"),
    [
        ("Mem-Info:", "begin", "", (0, 0, 0)),
        ("Mem-info: active_anon:1", "begin", "", (0, 0, 0)),
        *(
            (f"{name}:1 other:2", "totals", name, (1, 0, 0))
            for name in (
                *("active_anon", "active_file", "inactive_file", "unevictable", "dirty", "slab_reclaimable", "slab"),
                *("mapped", "shmem", "sec_pagetables", "kernel_misc_reclaimable", "free", "Active", "Active_anon"),
            )
        ),
        ("Node 3 active_anon:1kB inactive_anon:2kB", "node", "node 3", (2, 0, 0)),
        ("Node 3 DMA free:1kB min:2kB", "zone", "zone 3 DMA", (3, 3, 0)),
        ("Node 12 DMA32 free:1kB min:2kB", "zone", "zone 12 DMA32", (3, 12, 1)),
        ("Normal free:1kB min:2kB", "zone", "zone 0 Normal", (3, 0, 2)),
        ("HighMem free:1kB", "zone", "zone 0 HighMem", (3, 0, 3)),
        ("Node 0 Movable free:1kB", "zone", "zone 0 Movable", (3, 0, 4)),
        ("Node 0 Device free:1kB", "zone", "zone 0 Device", (3, 0, 5)),
        ("lowmem_reserve[]: 0 1 22", "reserve", "", (3, 0, 0)),
        ("Node 3 DMA: 1*4kB (U) 2*8kB (ME) = 20kB", "blocks", "blocks 3 DMA", (4, 3, 0)),
        ("Normal: 1*4kB 2*8kB = 20kB", "blocks", "blocks 0 Normal", (4, 0, 2)),
        ("Node 1 DMA32: 1*4kB (U)", "blocks", "blocks 1 DMA32", (4, 1, 1)),
        (
            "Node 1 hugepages_total=1 hugepages_free=2 hugepages_surp=3 hugepages_size=2048kB",
            "huge",
            "huge 1 2048",
            (5, 0, 0),
        ),
        ("Free swap  = 84kB", "tail", "Free", (6, 0, 0)),
        ("Total swap = 84kB", "tail", "Total", (6, 0, 0)),
        ("Free swap:       84kB", "tail", "Free", (6, 0, 0)),
        *(
            (f"81 {what}", "tail", what, (6, 0, 0))
            for what in (
                *("total pagecache pages", "pages RAM", "pages of RAM", "pages reserved", "pages in swap cache"),
                "reserved pages",
                *("pages HighMem/MovableOnly", "pages of HIGHMEM", "pages HIGHMEM", "pages cma reserved"),
                "pages hwpoisoned",
            )
        ),
    ],
)
def test_lines(text: str, kind: str, key: str, place: tuple[int, int, int]) -> None:
    """Each has its kind, what it tells about, and its place in a state."""
    found = line(text)
    assert (found.kind, found.key, found.text, found.place) == (kind, key, text, place)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "x Mem-Info:",
            "lowmem_reserve[]: 0 1 x",
            "lowmem_reserve[]:",
            "81 pages",
            "81 pages RAM x",
            "81 pages shared",
        ),
        *("mapped: 1", "my_active_anon:1", "Node 0 Normal free:x kB", "Node 0 Other free:1kB", "Node 0 DMA: = 0kB"),
        *("Some swap = 84kB", "Node x active_anon:1kB", "it has 4kB", "Node 1 hugepages_total=1 hugepages_size=2048kB"),
    ],
)
def test_other_lines(text: str) -> None:
    """What only resembles a line of a state is none."""
    assert state_line(text) is None


def test_totals() -> None:
    """The first number of each name; 2.6 begins names with a capital letter."""
    logged = report()
    zones.read_totals(logged, "Active:84372 inactive:12323 a_b:1 a:5 x-y:7 size:4kB big:9K")
    zones.read_totals(logged, "inactive:9 unstable:0")
    assert logged.totals == {"active": 84372, "inactive": 12323, "a_b": 1, "x-y": 7, "unstable": 0}


def test_nodes() -> None:
    """The last line of a node holds."""
    logged = report()
    for text in (
        "Node 0 active_anon:7kB isolated(anon):1kB isolated(file):2kB shmem_thp: 44kB all_unreclaimable? yes",
        "Node 1 active_anon:8kB all_unreclaimable? no",
        "Node 2 active_anon:9kB",
    ):
        zones.read_node(logged, line(text))
    assert logged.nodes == {
        0: {"active_anon": 7, "isolated_anon": 1, "isolated_file": 2, "shmem_thp": 44, "all_unreclaimable": 1},
        1: {"active_anon": 8, "all_unreclaimable": 0},
        2: {"active_anon": 9},
    }


def test_zones() -> None:
    """Each number in kB, whichever way the kernel writes it."""
    logged = report()
    text = "Node 3 DMA32 free:1kB boost:2kB min:3kB reserved_highatomic:4KB active_anon:5kB free_pcp:6kB"
    zone = zones.read_zone(logged, line(text))
    numbers = {"free": 1, "boost": 2, "min": 3, "reserved_highatomic": 4, "active_anon": 5, "free_pcp": 6}
    assert zone == LoggedZone(3, "DMA32", numbers)
    assert logged.zones == [zone]
    assert logged.nodes == {}
    # Once more, the same; and then another one.
    assert zones.read_zone(logged, line(text)) is zone
    assert logged.contradictions == []
    assert zones.read_zone(logged, line(text.replace("boost:2kB", "boost:9kB"))) is None
    assert logged.contradictions == ["node 3 DMA32 is shown twice, with other numbers; the first are used"]
    assert zone.kilobytes == numbers


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("DMA free:1kB present:9kB all_unreclaimable? yes",), 1),
        (("DMA free:1kB present:9kB all_unreclaimable? no",), 0),
        (("DMA free:1kB all_unreclaimable? yes", "Normal free:1kB all_unreclaimable? yes"), 1),
        (("DMA free:1kB all_unreclaimable? yes", "Normal free:1kB all_unreclaimable? no"), 0),
        (("DMA free:1kB all_unreclaimable? no", "Normal free:1kB all_unreclaimable? yes"), 0),
        (("DMA free:1kB all_unreclaimable? yes", "Normal free:0kB present:0kB all_unreclaimable? no"), 1),
    ],
)
def test_zones_of_old_kernels(texts: tuple[str, ...], expected: int) -> None:
    """A node has nothing left if all its zones with pages say so."""
    logged = report()
    for text in texts:
        zones.read_zone(logged, line(text))
    assert logged.nodes == {0: {"all_unreclaimable": expected}}


def test_lowmem_reserve() -> None:
    """Of the zone before it; a second one is another's."""
    zone = LoggedZone(0, "DMA")
    zones.read_reserve(zone, line("lowmem_reserve[]: 0 12 345"))
    assert zone.lowmem_reserve == (0, 12, 345)
    zones.read_reserve(zone, line("lowmem_reserve[]: 0 0"))
    assert zone.lowmem_reserve == (0, 12, 345)
    zones.read_reserve(None, line("lowmem_reserve[]: 0 0"))


def blocks(text: str) -> tuple[tuple[Blocks, ...] | None, list[str]]:
    """Return the blocks that are read from a line, and the contradictions."""
    logged = report()
    zones.read_blocks(logged, line(text))
    [zone] = logged.zones
    assert (zone.node, zone.zone) == (2, "DMA")
    return zone.blocks, logged.contradictions


def test_free_blocks() -> None:
    """By order, with the types that are there; pages may be of any size."""
    letters = {"U": "UNMOVABLE", "M": "MOVABLE", "E": "RECLAIMABLE", "H": "HIGHATOMIC", "R": "RESERVE"}
    letters |= {"C": "CMA", "I": "ISOLATE"}
    for letter, name in letters.items():
        found, _ = blocks(f"Node 2 DMA: 3*4kB ({letter}) 0*8kB = 12kB")
        assert found == (Blocks(3, 4, frozenset({f"MIGRATE_{name}"})), Blocks(0, 8, None))
    found, _ = blocks("Node 2 DMA: 3*64kB (UM) 2*128kB () 1*256kB (X) = 704kB")
    assert found is not None
    both = frozenset({"MIGRATE_UNMOVABLE", "MIGRATE_MOVABLE"})
    assert found[0] == Blocks(3, 64, both)
    assert [(one.number, one.size) for one in found] == [(3, 64), (2, 128), (1, 256)]
    assert found[2].types == frozenset({"X"})
    assert blocks("Node 2 DMA: 3_4kB 1_8kB = 20kB")[0] == (Blocks(3, 4, None), Blocks(1, 8, None))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Node 2 DMA: 3*4kB 1*16kB = 28kB", "the free blocks of node 2 DMA are not listed by order"),
        ("Node 2 DMA: 3*8kB 1*4kB = 28kB", "the free blocks of node 2 DMA are not listed by order"),
        ("Node 2 DMA: 0*0kB 0*0kB = 0kB", "the free blocks of node 2 DMA are not listed by order"),
        ("Node 2 DMA: 3*4kB 1*8kB", "the list of free blocks of node 2 DMA is cut off"),
        ("Node 2 DMA: 3*4kB 1*8kB = 24kB", "the free blocks of node 2 DMA add up to 20 kB, but 24 kB is printed"),
    ],
)
def test_blocks_that_do_not_add_up(text: str, said: str) -> None:
    """They are not used."""
    assert blocks(text) == (None, [said])


def test_the_first_list_of_a_zone_holds() -> None:
    """A second one may be newer."""
    logged = report()
    zones.read_blocks(logged, line("DMA: 3*4kB = 12kB"))
    zones.read_blocks(logged, line("DMA: 4*4kB = 16kB"))
    assert logged.zones[0].blocks == (Blocks(3, 4, None),)


def test_huge_pages() -> None:
    """In the order of the line."""
    logged = report()
    text = "Node 1 hugepages_total=2 hugepages_free=3 hugepages_surp=4 hugepages_size=2048kB"
    zones.read_huge_pages(logged, line(text))
    assert logged.hugepages == [HugePages(1, 2, 3, 4, 2048)]


def tail(*texts: str) -> LoggedFailure:
    """Return a report with these last lines."""
    logged = report()
    for text in texts:
        zones.read_tail(logged, line(text))
    return logged


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("Free swap  = 84kB",), {"swap": (84, None)}),
        (("Free swap  = 84kB", "Total swap = 99kB"), {"swap": (84, 99)}),
        (("Free swap  = 84kB", "Free swap  = 85kB"), {"swap": (84, None)}),
        (("Total swap = 99kB",), {"swap": None}),
        (("81 pages RAM",), {"total_ram_pages": 81, "reserved_pages": None}),
        (("81 pages of RAM",), {"total_ram_pages": 81}),
        (("81 pages reserved",), {"reserved_pages": 81, "total_ram_pages": None}),
        (("81 total pagecache pages", "82 total pagecache pages"), {"totals": {"pagecache": 81}}),
        (("81 pages in swap cache",), {"totals": {"swap_cache": 81}}),
        (("81 pages cma reserved",), {"totals": {"cma_reserved": 81}}),
        (("81 pages hwpoisoned",), {"totals": {"hwpoisoned": 81}}),
        (("81 pages HighMem/MovableOnly",), {"totals": {}, "total_ram_pages": None, "reserved_pages": None}),
    ],
)
def test_last_lines(texts: tuple[str, ...], expected: dict[str, Any]) -> None:
    """Swap, and numbers of pages."""
    logged = tail(*texts)
    assert {name: getattr(logged, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("swap", "text", "otherwise"),
    [
        (None, "Free swap  = 84kB", False),
        ((84, None), "Free swap  = 84kB", False),
        ((85, None), "Free swap  = 84kB", True),
        ((84, None), "Total swap = 84kB", False),
        ((1, 84), "Total swap = 84kB", False),
        ((84, 1), "Total swap = 84kB", True),
        ((1, 1), "84 pages RAM", False),
    ],
)
def test_swap_that_is_told_otherwise(swap: tuple[int, int | None] | None, text: str, otherwise: bool) -> None:
    """Then the line is another report's."""
    logged = report()
    logged.swap = swap
    assert zones.says_otherwise(logged, line(text)) is otherwise
