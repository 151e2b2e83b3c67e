# SPDX-License-Identifier: MIT
"""A log's zones as the watermark check reads them: each field in pages, and each case that the log leaves open."""

from typing import Any

import pytest

from kalloctrace.diagnose.page_size import PageSize
from kalloctrace.diagnose.reports.model import Blocks, LoggedFailure, LoggedZone
from kalloctrace.diagnose.states import Case, cases, is_shown, populated, shown_states, unshown_zones
from kalloctrace.model.watermark import FreeBlocks, ZoneState

X86 = ("DMA", "DMA32", "Normal", "Movable")
FOUR_KB = Case(X86, 4, "zone_layout")
NOTHING = frozenset[str]()
MARKS = {"free": 4000, "min": 400, "low": 500, "high": 600}


def report(*zones: LoggedZone, **more: Any) -> LoggedFailure:  # noqa: ANN401 fields of any type
    """Return a report with zones."""
    return LoggedFailure("failure", 1, "task", 0, zones=list(zones), **more)


def zone(name: str, reserve: tuple[int, ...] | None = None, *, node: int = 0, **more: int) -> LoggedZone:
    """Return a zone with its free pages and its watermarks."""
    return LoggedZone(node, name, {**MARKS, **more}, reserve)


def state(logged: LoggedFailure, case: Case = FOUR_KB, absent: frozenset[str] = NOTHING) -> ZoneState:
    """Return the state of a report's only zone."""
    [found] = shown_states(logged, case, absent)
    return found


def test_each_field_in_pages() -> None:
    """Those of the line are printed in kB; lowmem_reserve is printed in pages."""
    line = zone(
        "DMA32",
        (0, 0, 9, 12),
        node=3,
        boost=40,
        reserved_highatomic=84,
        free_highatomic=48,
        free_cma=16,
        managed=16000,
        active_file=80,
        inactive_file=44,
        active_anon=200,
        inactive_anon=120,
    )
    line.blocks = (Blocks(2, 4, None), Blocks(0, 8, frozenset({"MIGRATE_CMA"})))
    assert state(report(line, swap=(4000, None))) == ZoneState(
        node=3,
        zone="DMA32",
        index=1,
        free=1000,
        watermarks=(100, 125, 150),
        boost=10,
        reserved_highatomic=21,
        free_highatomic=12,
        free_cma=4,
        lowmem_reserve=(0, 0, 9, 12),
        managed=4000,
        blocks=(FreeBlocks(2, None), FreeBlocks(0, frozenset({"MIGRATE_CMA"}))),
        reclaimable=31,
        swappable=80,
    )
    assert state(report(line), Case(X86, 8, "page_size")).watermarks == (50, 62, 75)


def test_what_the_line_does_not_show_is_unknown() -> None:
    """But a counter that the kernel does not have counts nothing."""
    bare = state(report(zone("Normal")))
    assert bare == ZoneState(0, "Normal", 2, 1000, (100, 125, 150))
    absent = frozenset({"boost", "free_cma", "reserved_highatomic", "free_highatomic"})
    without = state(report(zone("Normal", boost=40)), absent=absent)
    assert (without.boost, without.free_cma, without.reserved_highatomic, without.free_highatomic) == (0, 0, 0, 0)


@pytest.mark.parametrize("lacking", ["active_file", "inactive_file"])
def test_half_of_the_file_pages_is_no_count(lacking: str) -> None:
    """Both lists are needed to know what reclaim could free."""
    pages: dict[str, Any] = {"active_file": 80, "inactive_file": 44}
    del pages[lacking]
    assert state(report(zone("Normal", **pages))).reclaimable is None


def test_anonymous_pages_need_swap() -> None:
    """Reclaim frees as many as the free swap can hold; without a line about swap there is none."""
    line = zone("Normal", active_anon=200)
    assert state(report(line)).swappable == 0
    assert state(report(line, swap=(120, 9000))).swappable == 30
    assert state(report(line, swap=(123, 9000)), Case(X86, 64, "page_size")).swappable == 1
    assert state(report(line, swap=(400, 9000))).swappable == 50
    assert state(report(zone("Normal", inactive_anon=40), swap=(400, 9000))).swappable == 10


def test_blocks_alone() -> None:
    """As in /proc/buddyinfo: the pages are the blocks'; the watermarks are not known."""
    line = LoggedZone(1, "Normal", {}, (0, 0, 0, 7), (Blocks(3, 4, None), Blocks(2, 8, None), Blocks(1, 16, None)))
    blocks = (FreeBlocks(3), FreeBlocks(2), FreeBlocks(1))
    expected = ZoneState(1, "Normal", 2, 11, (0, 0, 0), lowmem_reserve=(0, 0, 0, 7), blocks=blocks, counted=False)
    assert state(report(line)) == expected
    assert shown_states(report(LoggedZone(0, "Normal")), FOUR_KB, NOTHING) == []


@pytest.mark.parametrize("name", MARKS)
def test_a_zone_is_shown_with_all_its_watermarks(name: str) -> None:
    """Of a cut line nothing is used."""
    line = zone("Normal")
    assert is_shown(line)
    del line.kilobytes[name]
    assert not is_shown(line)
    assert shown_states(report(line), FOUR_KB, NOTHING) == []


def test_zones_without_pages_are_on_no_zonelist() -> None:
    """Old kernels print them, with `present:0kB`; a line without that field says nothing of it."""
    empty, full, unknown = zone("Movable", present=0), zone("Normal", present=4), zone("DMA32")
    assert populated([empty, full, unknown]) == [full, unknown]
    assert [one.zone for one in shown_states(report(empty, full, unknown), FOUR_KB, NOTHING)] == ["Normal", "DMA32"]


@pytest.mark.parametrize(
    ("totals", "lines", "expected"),
    [
        # No total; or a total, and a line that has the number itself.
        ({"free": 1000}, [{}], [None]),
        ({"free": 1000, "free_cma": 90}, [{"free_cma": 40}], [10]),
        # The only zone has them all.
        ({"free": 1000, "free_cma": 90}, [{}], [90]),
        ({"free": 1000, "free_cma": 0}, [{}], [0]),
        ({"free": 1000, "free_cma": 1}, [{}], [1]),
        # A zone is missing, so that the rest may be there; or the total of free pages is.
        ({"free": 1001, "free_cma": 90}, [{}], [None]),
        ({"free_cma": 90}, [{}], [None]),
        # The rest is in the one that lacks it, or in none.
        ({"free": 2000, "free_cma": 90}, [{"free_cma": 40}, {}], [10, 80]),
        ({"free": 2000, "free_cma": 10}, [{"free_cma": 40}, {}], [10, 0]),
        ({"free": 2000, "free_cma": 9}, [{"free_cma": 40}, {}], [10, 0]),
        # Two lack it.
        ({"free": 2000, "free_cma": 90}, [{}, {}], [None, None]),
        ({"free": 2000, "free_cma": 0}, [{}, {}], [0, 0]),
    ],
)
def test_free_cma_of_the_total(totals: dict[str, int], lines: list[dict[str, Any]], expected: list[int | None]) -> None:
    """In pages, where all but one zone show theirs; where none is left, no zone has any."""
    zones = [zone("Normal", node=node, **line) for node, line in enumerate(lines)]
    found = shown_states(report(*zones, totals=totals), FOUR_KB, NOTHING)
    assert [one.free_cma for one in found] == expected


def test_free_cma_of_the_total_in_large_pages() -> None:
    """128 of 250 pages of 16 kB are those of the zone whose line lacks them."""
    zones = (zone("Normal", free=2000, free_cma=32), zone("Normal", free=2000, node=1))
    logged = report(*zones, totals={"free": 250, "free_cma": 130})
    found = shown_states(logged, Case(X86, 16, "page_size"), NOTHING)
    assert [one.free_cma for one in found] == [2, 128]


def reserves(*zones: LoggedZone) -> dict[tuple[int, str], tuple[int, ...] | None]:
    """Return the lowmem_reserve that is used of each zone."""
    return {(one.node, one.zone): one.lowmem_reserve for one in shown_states(report(*zones), FOUR_KB, NOTHING)}


def test_a_reserve_of_another_length_is_not_used() -> None:
    """lowmem_reserve has one number for each zone of the kernel, so lines are missing or mixed."""
    assert reserves(zone("Normal", (0, 0, 0, 7))) == {(0, "Normal"): (0, 0, 0, 7)}
    assert reserves(zone("Normal", (0, 0, 7))) == {(0, "Normal"): None}
    assert reserves(zone("DMA32", (0, 0, 5, 7)), zone("Normal", (0, 0, 7))) == {(0, "DMA32"): None, (0, "Normal"): None}
    both = reserves(zone("DMA32", (0, 0, 5, 7)), zone("Normal"))
    assert both == {(0, "DMA32"): (0, 0, 5, 7), (0, "Normal"): None}


@pytest.mark.parametrize(
    ("lower", "mine", "used"),
    [
        # DMA keeps more for Normal than for DMA32: Normal has pages, so DMA32 keeps some for it.
        ((0, 10, 30, 30), (0, 0, 20, 20), True),
        ((0, 10, 30, 30), (0, 0, 0, 0), False),
        # And more for Movable than for Normal.
        ((0, 10, 10, 30), (0, 0, 0, 0), False),
        ((0, 10, 10, 30), (0, 0, 0, 5), True),
        # One more page may be lost by division; two cannot.
        ((0, 10, 11, 11), (0, 0, 0, 0), True),
        ((0, 10, 12, 12), (0, 0, 0, 0), False),
        # What DMA keeps for DMA32 itself says nothing of DMA32's own.
        ((0, 10, 10, 10), (0, 0, 0, 0), True),
    ],
)
def test_a_reserve_that_a_lower_zone_contradicts(lower: tuple[int, ...], mine: tuple[int, ...], used: bool) -> None:
    """`setup_per_zone_lowmem_reserve` adds up the pages of the zones above, for each lower zone of the node."""
    for pair in ((zone("DMA", lower), zone("DMA32", mine)), (zone("DMA32", mine), zone("DMA", lower))):
        assert reserves(*pair) == {(0, "DMA"): lower, (0, "DMA32"): mine if used else None}


def test_only_lower_zones_of_the_node_contradict() -> None:
    """Another node's zones, and zones above, have reserves of their own."""
    other = (zone("DMA", (0, 10, 30, 30)), zone("DMA32", (0, 0, 0, 0), node=1))
    assert None not in reserves(*other).values()
    above = (zone("DMA32", (0, 0, 30, 30)), zone("DMA", (0, 10, 0, 0)))
    assert None not in reserves(*above).values()
    # One that is not contradicted, or shows no reserve, does not hide another.
    three = (zone("Normal"), *other, zone("DMA32", (0, 0, 0, 0)))
    assert reserves(*three) == {
        (0, "Normal"): None,
        (0, "DMA"): (0, 10, 30, 30),
        (1, "DMA32"): (0, 0, 0, 0),
        (0, "DMA32"): None,
    }


@pytest.mark.parametrize(
    ("zones", "highest", "expected"),
    [
        # DMA keeps more for DMA32, and for Normal: both have pages.
        ([zone("DMA", (0, 10, 30, 30))], 2, [(0, "DMA32"), (0, "Normal")]),
        ([zone("DMA", (0, 10, 30, 30))], 1, [(0, "DMA32")]),
        ([zone("DMA", (0, 10, 30, 40))], None, [(0, "DMA32"), (0, "Normal"), (0, "Movable")]),
        ([zone("DMA", (0, 0, 30, 30))], 2, [(0, "Normal")]),
        ([zone("DMA", (0, 10, 30, 30)), zone("Normal", (0, 0, 0, 0))], 2, [(0, "DMA32")]),
        ([zone("Normal", (0, 0, 0, 0)), zone("DMA", (0, 10, 30, 30), node=1)], 2, [(1, "DMA32"), (1, "Normal")]),
        # A list of blocks alone, or a cut line, shows that the zone has pages; a reserve of other zones does not.
        ([LoggedZone(0, "DMA32")], 2, [(0, "DMA32")]),
        ([LoggedZone(0, "Movable")], 2, []),
        ([zone("DMA", (0, 10, 30))], 2, []),
        ([zone("DMA")], 2, []),
        # An empty zone's does not count.
        ([zone("DMA", (0, 10, 30, 30), present=0)], 2, []),
    ],
)
def test_zones_that_are_missing(zones: list[LoggedZone], highest: int | None, expected: list[tuple[int, str]]) -> None:
    """A zone keeps more for a higher one that has pages than for the zone below that."""
    assert list(unshown_zones(report(*zones), FOUR_KB, highest)) == expected


def test_the_highest_zone_of_a_kernel_without_it() -> None:
    """A mask whose zone the kernel lacks gets Normal: OPT_ZONE_DMA and its like in include/linux/gfp.h."""
    small = Case(("DMA", "Normal", "Movable"), 4, "zone_layout")
    assert (small.highest("DMA"), small.highest("DMA32"), small.highest("Movable")) == (0, 1, 2)
    assert small.highest(None) is None


CERTAIN = PageSize(4, "certain")


def test_layouts_that_differ_for_the_request() -> None:
    """Three numbers fit four layouts; Normal is the second zone of two of them, the first of the others."""
    logged = report(zone("Normal", (0, 5, 9)))
    found = list(cases(logged, "Normal", PageSize(16, "certain")))
    assert found == [
        Case(("DMA", "Normal", "Movable"), 16, "zone_layout"),
        Case(("Normal", "HighMem", "Movable"), 16, "zone_layout"),
    ]
    # Nothing differs where the request's zone is not known, or the numbers agree.
    assert len(list(cases(logged, None, CERTAIN))) == 1
    assert len(list(cases(report(zone("Normal", (0, 0, 9))), "Normal", CERTAIN))) == 1
    # Normal is above DMA, but on a kernel without DMA the request gets Normal.
    assert [case.layout for case in cases(logged, "DMA", CERTAIN)] == [
        ("DMA", "Normal", "Movable"),
        ("DMA32", "Normal", "Movable"),
        ("Normal", "HighMem", "Movable"),
    ]


def test_layouts_without_a_reserve() -> None:
    """The zones that are shown, Normal and Movable, which every kernel has, and the one that the mask names."""
    found = [case.layout for case in cases(report(zone("Normal")), "DMA", CERTAIN)]
    assert found == [("DMA", "Normal", "Movable"), ("Normal", "Movable")]
    found = [case.layout for case in cases(report(zone("DMA32")), "Normal", CERTAIN)]
    assert found == [("DMA32", "Normal", "Movable")]
    # Without DMA the request gets Normal, from which DMA32 may serve it.
    found = [case.layout for case in cases(report(zone("DMA32")), "DMA", CERTAIN)]
    assert found == [("DMA", "DMA32", "Normal", "Movable"), ("DMA32", "Normal", "Movable")]


def test_page_sizes() -> None:
    """Every other one, unless the size is certain or the numbers are pages anyway."""
    logged = report(zone("Normal"), zone("DMA"))
    layout = ("DMA", "Normal", "Movable")
    for certainty in ("likely", "unknown"):
        assert list(cases(logged, "Normal", PageSize(64, certainty))) == [
            Case(layout, 64, "zone_layout"),
            *(Case(layout, size, "page_size") for size in (4, 8, 16)),
        ]
    assert len(list(cases(logged, "Normal", CERTAIN))) == 1
    logged.in_pages = True
    assert len(list(cases(logged, "Normal", PageSize(4, "unknown")))) == 1
