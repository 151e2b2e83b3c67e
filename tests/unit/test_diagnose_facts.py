# SPDX-License-Identifier: MIT
"""The amounts that the answers use, and whether the machine is out of memory, at the numbers that decide."""

from typing import Any

import pytest

from kalloctrace.diagnose.answers.facts import (
    allowed,
    amount,
    below_mark,
    excluded,
    free_elsewhere,
    free_kb,
    free_swap,
    has_flags,
    kept_for_lower,
    machine_kb,
    size_kb,
    swap_is_gone,
    total,
)
from kalloctrace.diagnose.answers.out_of_memory import has_given_up, judge_out_of_memory, reclaimable
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.reports.model import LoggedZone
from tests.diagnosed import judged, pages, zone

LOW = zone(100)
UNKNOWN_SIZE = "6.1.100"
"""A kernel whose page size is not known."""


@pytest.mark.parametrize(
    ("kilobytes", "text"),
    [
        (0, "0 kB"),
        (10239, "10,239 kB"),
        (10240, "10.0 MB"),
        (102_348, "99.9 MB"),
        (102_400, "100 MB"),
        (1_048_575, "1,024 MB"),
        (1 << 20, "1.0 GB"),
        (3 << 19, "1.5 GB"),
        (100 << 20, "100 GB"),
        (1234 << 20, "1,234 GB"),
    ],
)
def test_amounts(kilobytes: int, text: str) -> None:
    """Exact below 10 MB, then three digits."""
    assert amount(kilobytes) == text


def test_totals() -> None:
    """In pages; all that are asked for must be there, and the page size."""
    failure = judged(LOW, totals={"dirty": 10, "writeback": 5})
    assert (total(failure, "dirty"), total(failure, "dirty", "writeback")) == (40, 60)
    assert total(failure, "dirty", "free") is None
    assert total(judged(LOW, totals={"dirty": 10}, release="5.14.0.el8.aarch64"), "dirty") == 640
    assert total(judged(LOW, totals={"dirty": 10}, release=UNKNOWN_SIZE), "dirty") is None


def test_memory_of_the_machine() -> None:
    """`pages RAM` without `pages reserved`; else the counters, or what the zones manage, whichever is more."""
    ram: dict[str, Any] = {"total_ram_pages": 1000, "reserved_pages": 100}
    assert machine_kb(judged(LOW, **ram)) == 3600
    assert size_kb(judged(LOW, **ram, totals={"free": 5000})) == 3600
    for lacking in ({"total_ram_pages": 1000}, {"reserved_pages": 100}, {**ram, "release": UNKNOWN_SIZE}):
        assert machine_kb(judged(LOW, **lacking)) is None
    lists = ("active_anon", "inactive_anon", "active_file", "inactive_file", "unevictable")
    counters = (*lists, "free", "slab_reclaimable", "slab_unreclaimable")
    totals = {name: 1 << place for place, name in enumerate(counters)}
    assert size_kb(judged(LOW, totals={**totals, "mapped": 9999})) == 255 * 4
    managed = (zone(100, managed=800), zone(100, name="DMA32", managed=300), zone(100, name="DMA"))
    assert size_kb(judged(*managed, totals=totals)) == 1100
    assert size_kb(judged(*managed, totals={"free": 276})) == 1104
    assert size_kb(judged(LOW)) is None


@pytest.mark.parametrize(
    ("swap", "gone"),
    [
        (None, None),
        ((0, 0), True),
        ((0, None), True),
        ((1, None), None),
        ((9, 1000), True),
        ((10, 1000), True),
        ((11, 1000), False),
        ((1, 0), False),
    ],
)
def test_swap(swap: tuple[int, int | None] | None, gone: bool | None) -> None:
    """Less than a hundredth of it is as good as none."""
    failure = judged(LOW, swap=swap)
    assert swap_is_gone(failure) is gone
    assert free_swap(failure) == (swap or (None, None))


def test_flags() -> None:
    """All of them; of a mask that is not known none is sure."""
    assert has_flags(judged(LOW), "__GFP_IO", "__GFP_FS")
    assert not has_flags(judged(LOW), "__GFP_IO", "__GFP_NORETRY")
    assert has_flags(judged(LOW))
    assert not has_flags(judged(LOW, release="3.10"), "__GFP_IO")


def names(verdicts: list[Any]) -> list[str]:
    """Return the zones' names."""
    return [verdict.state.zone for verdict in verdicts]


KEPT = LoggedZone(0, "DMA32", {**LOW.kilobytes, "free": 3000}, (0, 0, 900, 900, 900))
"""750 pages are more than its watermark, 695, and less than that and the 900 that it keeps for Normal."""


def test_zones_by_verdict() -> None:
    """What the request may use, and which of it its own watermark refused, or lowmem_reserve alone."""
    block = zone(5000, (pages(5000, "UNMOVABLE"),), node=1)
    failure = judged(zone(90, name="Movable"), LOW, KEPT, block, order=1)
    assert names(excluded(failure)) == ["Movable"]
    assert names(allowed(failure)) == ["Normal", "DMA32", "Normal"]
    assert names(below_mark(failure)) == ["Normal"]
    assert names(kept_for_lower(failure)) == ["DMA32"]
    assert free_kb(failure, allowed(failure)) == (100 + 750 + 5000) * 4
    # At the watermark itself it is refused: more pages must be left.
    at = [
        judged(LoggedZone(0, "DMA32", {**KEPT.kilobytes, "free": 4 * free}, KEPT.lowmem_reserve)) for free in (695, 696)
    ]
    assert [names(below_mark(each)) for each in at] == [["DMA32"], []]
    assert [names(kept_for_lower(each)) for each in at] == [[], ["DMA32"]]
    none = judged(LOW, event="cma")
    assert (allowed(none), excluded(none), below_mark(none)) == ([], [], [])


LISTED = zone(100, (pages(100, "UNMOVABLE"),))
"""A zone of a whole state, with its free blocks."""
CLOSED = zone(90, (pages(90, "MOVABLE"),), name="Movable")
BOUND: dict[str, Any] = {"totals": {"free": 500}, "swap": (0, 0), "constraint": "mempolicy"}


@pytest.mark.parametrize(
    ("zones", "more", "expected"),
    [
        # 500 pages, of which 190 are in zones that are shown.
        ((), {}, 360 + 310 * 4),
        ((), {"constraint": "cpuset"}, 360 + 310 * 4),
        ((), {"constraint": None, "nodemask": "0", "mems_allowed": "0-1"}, 360 + 310 * 4),
        ((), {"swap": None, "total_ram_pages": 9}, 360 + 310 * 4),
        ((), {"totals": {"free": 190}}, 360),
        ((), {"totals": {"free": 180}}, 360),
        # Nothing binds it, or nothing that leaves out a node.
        ((), {"constraint": "none"}, 360),
        ((), {"constraint": None, "nodemask": "0"}, 360),
        ((), {"constraint": None, "nodemask": "0-1", "mems_allowed": "0-1"}, 360),
        ((), {"constraint": None, "mems_allowed": "0-1"}, 360),
        # Lines may be missing: the last ones, a zone's list or its numbers, a whole zone; or the total is.
        ((), {"swap": None}, 360),
        ((zone(0, node=1),), {}, 360),
        ((LoggedZone(1, "Normal", {}, None, (pages(0),)),), {}, 360),
        ((LoggedZone(0, "DMA", {**LOW.kilobytes, "free": 0}, (0, 10, 30, 30, 30), (pages(0),)),), {}, 360),
        ((), {"totals": {}}, 360),
        # The kernel prints the nodes that it may not use.
        ((zone(7, (pages(7, "UNMOVABLE"),), node=1),), {"nodemask": "0"}, 360 + 28),
    ],
)
def test_free_memory_elsewhere(zones: tuple[LoggedZone, ...], more: dict[str, Any], expected: int) -> None:
    """In zones that are shown and closed; and of a request that is bound, on the nodes that are not printed."""
    assert free_elsewhere(judged(LISTED, CLOSED, *zones, **{"event": "oom", **BOUND, **more})) == expected


def test_no_free_memory_elsewhere() -> None:
    """Nothing is not zero, unless the state is whole: another zone may not be shown."""
    assert free_elsewhere(judged(LOW)) is None
    assert free_elsewhere(judged(event="oom", **BOUND)) is None
    assert free_elsewhere(judged(LISTED, **{**BOUND, "totals": {"free": 100}})) == 0


@pytest.mark.parametrize(
    ("totals", "expected"),
    [
        ({}, (None, None)),
        ({"active_file": 30, "inactive_file": 20}, (None, None)),
        ({"active_file": 30, "inactive_file": 20, "slab_reclaimable": 8}, (None, 232)),
        ({"active_file": 30, "inactive_file": 20, "dirty": 6, "writeback": 4}, (160, None)),
        ({"active_file": 30, "inactive_file": 20, "dirty": 66, "writeback": 4, "slab_reclaimable": 0}, (0, 200)),
        ({"slab_reclaimable": 8, "dirty": 6, "writeback": 4}, (None, None)),
    ],
)
def test_what_can_be_freed(totals: dict[str, int], expected: tuple[int | None, int | None]) -> None:
    """At least the clean file pages; at most all file pages and the reclaimable slab."""
    assert reclaimable(judged(LOW, totals=totals)) == expected


@pytest.mark.parametrize(
    ("zones", "nodes", "given_up"),
    [
        ((LOW,), {0: {"all_unreclaimable": 1}}, True),
        ((LOW,), {0: {"all_unreclaimable": 0}}, False),
        ((LOW,), {0: {}}, False),
        ((LOW,), {}, False),
        ((LOW, zone(1, node=1)), {0: {"all_unreclaimable": 1}}, False),
        ((LOW, zone(1, node=1)), {0: {"all_unreclaimable": 1}, 1: {"all_unreclaimable": 1}}, True),
        ((LOW,), {0: {"all_unreclaimable": 1}, 1: {"all_unreclaimable": 0}}, True),
        ((), {0: {"all_unreclaimable": 1}}, False),
    ],
)
def test_kswapd_has_given_up(zones: tuple[LoggedZone, ...], nodes: dict[int, dict[str, int]], given_up: bool) -> None:
    """On each node whose zones are shown."""
    assert has_given_up(judged(*zones, nodes=nodes)) is given_up


@pytest.mark.parametrize(
    ("event", "more", "line"),
    [
        ("oom", {"memcg": True}, 1),
        ("oom", {"memcg": True, "places": {"memcg_limit": 7}}, 7),
        ("vmap", {}, 1),
        ("vmalloc", {"warning_text": "size 1, exceeds total pages"}, 1),
    ],
)
def test_reports_of_something_else(event: str, more: dict[str, Any], line: int) -> None:
    """A cgroup's limit, addresses, or a size that vmalloc refuses say nothing of the machine's memory."""
    memory = judge_out_of_memory(judged(LOW, event=event, **FULL, **more))
    assert memory.verdict is None
    assert [reason.line for reason in memory.reasons] == [line]


FULL: dict[str, Any] = {
    "totals": {
        "free": 100,
        "active_file": 0,
        "inactive_file": 0,
        "dirty": 0,
        "writeback": 0,
        "slab_reclaimable": 0,
        "active_anon": 9000,
        "inactive_anon": 0,
    },
    "swap": (0, 1000),
    "total_ram_pages": 10_000,
    "reserved_pages": 0,
}
"""Nothing is free, nothing can be freed, and the swap is full: 40,000 kB."""


def verdict(*zones: LoggedZone, **more: Any) -> bool | None:  # noqa: ANN401
    """Return whether a machine is out of memory, by FULL and what is different."""
    totals = {**FULL["totals"], **more.pop("totals", {})}
    known = {name: value for name, value in totals.items() if value is not None}
    failure = judged(*zones, **{"event": "oom", "constraint": "none", **FULL, "totals": known, **more})
    return judge_out_of_memory(failure).verdict


def test_out_of_memory() -> None:
    """Each of the lines is needed."""
    assert verdict(LOW) is True
    for name in ("free", "active_file", "inactive_file", "slab_reclaimable"):
        assert verdict(LOW, totals={name: None}) is None, name
    for more in ({"swap": None}, {"total_ram_pages": None}, {"reserved_pages": None}, {"constraint": "cpuset"}):
        assert verdict(LOW, **more) is None, more
    assert verdict() is None
    # That kswapd has given up shows that nothing can be freed.
    given_up = {0: {"all_unreclaimable": 1}}
    assert verdict(LOW, total_ram_pages=None, nodes=given_up) is True
    assert verdict(LOW, totals={"slab_reclaimable": None}, nodes=given_up) is True


@pytest.mark.parametrize(
    ("totals", "expected"),
    [
        # A tenth of 40,000 kB in clean file pages can be freed; less than a twentieth is little.
        ({"active_file": 1000}, False),
        ({"inactive_file": 1000}, False),
        ({"active_file": 999}, None),
        ({"active_file": 500}, None),
        ({"active_file": 499}, True),
        ({"active_file": 1000, "dirty": 1}, None),
        ({"active_file": 1000, "writeback": 1}, None),
        ({"slab_reclaimable": 500}, None),
        ({"slab_reclaimable": 499}, True),
    ],
)
def test_memory_that_can_be_freed(totals: dict[str, int], expected: bool | None) -> None:
    """Much is room, little is none; room is none where the log does not say that kswapd still tries."""
    assert verdict(LOW, totals=totals, nodes={0: {"all_unreclaimable": 0}}) is expected
    assert verdict(LOW, totals=totals) is (expected or None)


def test_memory_that_kswapd_could_not_free() -> None:
    """File pages are no room where it has given up on them."""
    given_up = {0: {"all_unreclaimable": 1}}
    assert verdict(LOW, totals={"active_file": 1000}, nodes=given_up) is True


@pytest.mark.parametrize(
    ("swap", "anonymous", "expected"),
    [
        ((500, 1000), 9000, False),
        ((500, 1000), 1000, False),
        ((500, 1000), 999, None),
        ((10, 1000), 9000, True),
        ((11, 1000), 9000, False),
        ((0, 0), 9000, True),
        ((5, None), 9000, None),
    ],
)
def test_processes_that_could_be_swapped(swap: tuple[int, int | None], anonymous: int, expected: bool | None) -> None:
    """As long as swap is free, a tenth of the memory is room."""
    assert verdict(LOW, swap=swap, totals={"active_anon": anonymous}) is expected
    halves = {"active_anon": anonymous // 2, "inactive_anon": anonymous - anonymous // 2}
    assert verdict(LOW, swap=swap, totals=halves) is expected


@pytest.mark.parametrize(
    ("free", "blocks", "expected"),
    [
        # 1,041 pages are the high watermark; one is lost for an order of 1.
        (1043, 1043, False),
        (1042, 1042, None),
        (0, 0, True),
    ],
)
def test_room_in_blocks_that_are_too_small(free: int, blocks: int, expected: bool | None) -> None:
    """Pages above the high watermark are memory, whatever their blocks."""
    small = zone(free, (pages(blocks, "UNMOVABLE"),) if blocks else None)
    assert verdict(small, order=1, totals={"free": free}) is expected


def test_room_in_a_zone_that_would_serve() -> None:
    """The state is later than the failure; below the high watermark nothing is said."""
    assert verdict(zone(1042), totals={"free": 1042}) is False
    assert verdict(zone(1041), totals={"free": 1041}) is None
    # Nobody gives it what lowmem_reserve keeps.
    kept = LoggedZone(0, "DMA32", {**LOW.kilobytes, "free": 4 * 1500}, (0, 0, 900, 900, 900))
    assert verdict(kept, totals={"free": 1500}) is True


@pytest.mark.parametrize(("elsewhere", "expected"), [(1042, False), (1041, True), (0, True)])
def test_room_elsewhere(elsewhere: int, expected: bool) -> None:
    """More in zones that the request may not use than its own zone is to keep free: 1,041 pages."""
    movable = zone(elsewhere, name="Movable")
    assert verdict(LOW, movable, totals={"free": 100 + elsewhere}) is expected


def test_room_that_no_zone_shows() -> None:
    """By the machine's own count: 1,041 pages besides the zones' may be in per-CPU lists, more are not."""
    assert verdict(LOW, totals={"free": 100 + 1041}) is True
    assert verdict(LOW, totals={"free": 100 + 1042}) is None
    # Zones without watermarks, early in boot, are to keep nothing.
    empty = LoggedZone(0, "Normal", dict.fromkeys(LOW.kilobytes, 0), (0,) * 5)
    assert verdict(empty, zone(9, name="Movable"), totals={"free": 9}) is not False


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"constraint": "none"}, True),
        ({"constraint": "mempolicy"}, None),
        ({"constraint": None}, None),
        ({"constraint": None, "cpuset": "/"}, True),
        ({"constraint": None, "mems_allowed": "0"}, True),
        ({"constraint": None, "mems_allowed": "0", "nodemask": "(null)"}, True),
        ({"constraint": None, "mems_allowed": "0", "nodemask": "0"}, None),
        ({"constraint": None, "cpuset": "db"}, None),
        ({"constraint": None, "cpuset": "db", "mems_allowed": "0-1"}, None),
    ],
)
def test_requests_that_may_use_all_nodes(more: dict[str, Any], expected: bool | None) -> None:
    """The OOM killer says so; else the cpuset and the nodemask do."""
    assert verdict(LOW, **more) is expected


def test_every_zone_must_be_low() -> None:
    """One that is not known may have room."""
    unknown = LoggedZone(1, "DMA32", {**LOW.kilobytes, "free": 4 * 900}, None)
    assert verdict(LOW, unknown, totals={"free": 1000}) is None
    assert verdict(LOW, zone(100, node=1), totals={"free": 200}) is True


def reasons(**more: Any) -> dict[str, int | None]:  # noqa: ANN401
    """Return the reasons, each with its line."""
    zones = more.pop("zones", (LOW,))
    places = {"totals": 11, "swap": 12, "nodes": 13}
    memory = judge_out_of_memory(judged(*zones, **{"event": "oom", "places": places, "state_line": 10, **more}))
    return {reason.text: reason.line for reason in memory.reasons}


FILES = {"active_file": 1, "inactive_file": 2}
SERVES = zone(2000, (pages(0), pages(1000, "UNMOVABLE")), node=1)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {}),
        ({"swap": (0, 0)}, {"there is no swap": 12}),
        ({"swap": (500, 9000)}, {"500 kB of 9,000 kB swap are free": 12}),
        ({"swap": (500, None)}, {"500 kB swap are free": 12}),
        (
            {"totals": {"active_file": 30, "inactive_file": 20, "dirty": 6, "writeback": 4}},
            {"160 kB of file pages can be freed": 11},
        ),
        (
            {
                "totals": {"active_file": 3, "inactive_file": 2, "dirty": 0, "writeback": 0, "slab_reclaimable": 9},
                "nodes": {0: {"all_unreclaimable": 1}},
            },
            {
                "20 kB of file pages and up to 36 kB of slab caches may be freed": 11,
                "kswapd has given up on node 0 (all_unreclaimable)": 13,
            },
        ),
        ({"totals": {"active_file": 30, "inactive_file": 20}}, {"at most 200 kB are file pages": 11}),
        (
            {"nodes": {0: {"active_file": 7, "inactive_file": 8}, 1: FILES}, "places": {"nodes": 13}},
            {"at most 18 kB are file pages": 13},
        ),
        ({"nodes": {0: {"active_file": 7, "inactive_file": 8}, 1: {"active_file": 1}}}, {}),
        ({"nodes": {0: {"active_file": 7}}}, {}),
        ({"nodes": {0: {"all_unreclaimable": 0}, 1: {"all_unreclaimable": 1}, 2: {"all_unreclaimable": 1}}},
         {"kswapd has given up on node 1, 2 (all_unreclaimable)": 13}),
        # A tenth of 40,000 kB.
        ({"totals": {"unevictable": 1000}, "total_ram_pages": 10_000, "reserved_pages": 0},
         {"4,000 kB are locked in memory (unevictable)": 11}),
        ({"totals": {"unevictable": 999}, "total_ram_pages": 10_000, "reserved_pages": 0}, {}),
        ({"totals": {"unevictable": 1000}}, {}),
        # Elsewhere.
        ({"zones": (LOW, zone(1042, name="Movable"))},
         {"4,168 kB are free in zones that the request may not use": 11}),
        ({"zones": (LOW, zone(1042, node=1)), "nodemask": "0"}, {"4,168 kB are free on other nodes": 11}),
        ({"zones": (LOW, zone(1042, node=1)), "nodemask": "0", "places": {}}, {"4,168 kB are free on other nodes": 10}),
        ({"zones": (zone(100, (pages(100, "UNMOVABLE"),)),), "constraint": "cpuset", "totals": {"free": 1142},
          "total_ram_pages": 9}, {"4,168 kB are free on other nodes": 11}),
        # In small blocks, or in blocks that would have served.
        ({"zones": (zone(1043, (pages(1043, "UNMOVABLE"),)),), "order": 1},
         {"4,172 kB are free in the zones that it may use, in blocks too small": 10}),
        ({"zones": (zone(1043, (pages(1043, "UNMOVABLE"),)), SERVES), "order": 1},
         {"11.9 MB are free in the zones that it may use": 10}),
    ],
)  # fmt: skip
def test_reasons(more: dict[str, Any], expected: dict[str, int]) -> None:
    """Each with the line of the log that says so."""
    assert reasons(**more) == expected


def test_a_diagnosis_by_default() -> None:
    """The tests above judge by these."""
    failure: Failure = judged(LOW)
    assert (failure.conclusion, failure.certainty, failure.page_kb) == ("watermark", "certain", 4)
