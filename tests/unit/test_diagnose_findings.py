# SPDX-License-Identifier: MIT
"""What a report shows besides its zones' verdicts: each finding at the number where it begins to hold."""

from typing import Any

import pytest

from kalloctrace.diagnose.findings import findings_of, leaves_out_nodes
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.reports.model import Blocks, LoggedZone
from tests.diagnosed import MARKS, judged, pages, zone


def kinds(failure: Failure) -> dict[str, str]:
    """Return how sure each finding is."""
    return {found.kind: found.certainty for found in findings_of(failure)}


def text(failure: Failure, kind: str) -> str:
    """Return the sentence of the only finding of a kind."""
    [found] = [each.text for each in findings_of(failure) if each.kind == kind]
    return found


NO_RECLAIM = 0x100
"""__GFP_ZERO alone."""


@pytest.mark.parametrize(
    ("event", "more", "conclusion"),
    [
        ("oom", {"memcg": True}, "memcg"),
        ("vmap", {}, "address_range"),
        ("vmalloc", {"warning_text": "size 1, exceeds total pages"}, "size_refused"),
        ("cma", {}, "contiguous_range"),
        ("warning", {"warning_text": "mm/page_alloc.c:1 __alloc_pages+0x1/0x2"}, "order_too_large"),
        ("warning", {"warning_text": "mm/page_alloc.c:1 rmqueue+0x1/0x2"}, "nofail"),
        ("oom", {"order": -1}, "no_request"),
    ],
)
def test_where_zones_play_no_part(event: str, more: dict[str, Any], conclusion: str) -> None:
    """Neither does the mask."""
    failure = judged(event=event, gfp=NO_RECLAIM, **more)
    assert (failure.conclusion, kinds(failure)) == (conclusion, {})
    assert kinds(judged(gfp=NO_RECLAIM)) == {"no_reclaim": "certain"}


EMPTY = {"free": 0, **dict.fromkeys(MARKS, 0)}


def test_nothing_given() -> None:
    """`managed` is certain; `present`, of older kernels, may be a hole."""
    managed = judged(
        LoggedZone(0, "Normal", {**EMPTY, "managed": 8000}), LoggedZone(0, "DMA", {**EMPTY, "managed": 99})
    )
    assert kinds(managed)["nothing_given"] == "certain"
    assert "8,099 kB are managed" in text(managed, "nothing_given")
    present = judged(LoggedZone(0, "Normal", {**EMPTY, "present": 8000}))
    assert kinds(present)["nothing_given"] == "likely"
    assert "managed" not in text(present, "nothing_given")


def test_older_state() -> None:
    """As much as the report says."""
    old = judged(zone(900), state_age=-1.5)
    assert kinds(old)["older_state"] == "likely"
    assert "1,500 ms older" in text(old, "older_state")
    assert "older_state" not in kinds(judged(zone(900), state_age=0.0))


@pytest.mark.parametrize(
    ("event", "more", "words"),
    [
        ("oom", {"constraint": "mempolicy", "nodemask": "3"}, "memory policy binds it to node 3"),
        ("oom", {"constraint": "mempolicy"}, ""),
        ("oom", {"constraint": "cpuset", "mems_allowed": "1", "cpuset": "db"}, "cpuset db binds it to node 1"),
        ("oom", {"constraint": "cpuset", "mems_allowed": "1"}, "cpuset binds it to node 1"),
        ("oom", {"constraint": "cpuset"}, ""),
        ("oom", {"constraint": "none", "nodemask": "1"}, ""),
        # Only the OOM killer says what bound a request; it says nothing here.
        ("oom", {"nodemask": "1"}, ""),
        ("failure", {"nodemask": "1"}, "binds it to node 1 (its nodemask)"),
        ("failure", {"nodemask": "0"}, ""),
        ("failure", {"nodemask": "(null)"}, ""),
        ("failure", {"nodemask": "0", "mems_allowed": "0-1"}, "binds it to node 0 (its nodemask)"),
        ("failure", {"mems_allowed": "0-1"}, ""),
    ],
)
def test_bound(event: str, more: dict[str, Any], words: str) -> None:
    """`constrained_alloc` prints it; else a nodemask binds that leaves out a node."""
    failure = judged(zone(100), event=event, **more)
    assert ("bound" in kinds(failure)) is bool(words)
    if words:
        assert kinds(failure)["bound"] == "certain"
        assert words in text(failure, "bound")


@pytest.mark.parametrize(
    ("nodemask", "mems_allowed", "nodes", "leaves"),
    [
        ("0", "0", {}, False),
        ("0", None, {}, False),
        ("1", None, {}, True),
        ("0", "0-1", {}, True),
        ("0-1", "0-1", {}, False),
        ("0-1", "0", {}, False),
        ("0", None, {1: {}}, True),
        ("0-1", None, {1: {}}, False),
        ("0-1", None, {2: {}}, True),
    ],
)
def test_nodes_that_a_nodemask_leaves_out(
    nodemask: str, mems_allowed: str | None, nodes: dict[int, dict[str, int]], leaves: bool
) -> None:
    """Of the cpuset's, of the zones', and of those that have a line of their own."""
    failure = judged(zone(100), nodemask=nodemask, mems_allowed=mems_allowed, nodes=nodes)
    assert leaves_out_nodes(failure) is leaves


@pytest.mark.parametrize(
    ("release", "gfp", "found"),
    [
        ("6.1.100", NO_RECLAIM, True),
        ("6.1.100", 0x400 | NO_RECLAIM, False),
        ("6.1.100", 0x800 | NO_RECLAIM, False),
        # An empty mask means the same on each kernel. Before 4.4 there is no bit for kswapd.
        ("4.4", 0, True),
        ("4.3.9", 0, False),
        ("", 0, False),
        # What these bits are is not known.
        ("4.4", NO_RECLAIM, False),
    ],
)
def test_no_reclaim(release: str, gfp: int, found: bool) -> None:
    """Neither __GFP_DIRECT_RECLAIM nor __GFP_KSWAPD_RECLAIM."""
    assert kinds(judged(zone(100), gfp=gfp, release=release)).get("no_reclaim") == ("certain" if found else None)


@pytest.mark.parametrize(
    ("mask", "name", "kernels"),
    [
        # include/linux/gfp.h of 4.3: __GFP_WAIT 0x10, __GFP_IO 0x40, __GFP_FS 0x80.
        (0xD0, "GFP_KERNEL", "kernels up to 4.3"),
        (0x50, "GFP_NOFS", "kernels up to 4.3"),
        # __GFP_RECLAIM: 0x400000 and 0x2000000 in 4.4, 0x400000 and 0x1000000 in 4.10, 0x200000 and 0x400000 in 4.18.
        (0x24000C0, "GFP_KERNEL", "kernels 4.4 to 4.9"),
        (0x2400040, "GFP_NOFS", "kernels 4.4 to 4.9"),
        (0x14000C0, "GFP_KERNEL", "kernels 4.10 to 4.17"),
        (0x1400040, "GFP_NOFS", "kernels 4.10 to 4.17"),
        (0x6000C0, "GFP_KERNEL", "kernels 4.18 to 5.0"),
        (0x600040, "GFP_NOFS", "kernels 4.18 to 5.0"),
    ],
)
def test_masks_of_other_kernels(mask: int, name: str, kernels: str) -> None:
    """All their bits are in it; the first that fits is named, and only that."""
    for more in (0, 0x100):
        failure = judged(zone(100), gfp=mask | more)
        assert kinds(failure) == {"no_reclaim": "certain", "other_layout": "likely"}
        assert f"{mask:#x} was {name} on {kernels}" in text(failure, "other_layout")
    assert "other_layout" not in kinds(judged(zone(100), gfp=mask & ~0x40))


@pytest.mark.parametrize(
    ("gfp", "pid", "comm", "expected"),
    [
        (NO_RECLAIM, 0, "swapper", {"boot_mask": "likely"}),
        (NO_RECLAIM, 1, "swapper", {"no_reclaim": "certain"}),
        (NO_RECLAIM, 0, "swapper/0", {"no_reclaim": "certain"}),
        (NO_RECLAIM, None, "swapper", {"no_reclaim": "certain"}),
        # GFP_BOOT_MASK takes these two away as well.
        (NO_RECLAIM | 0x40, 0, "swapper", {"no_reclaim": "certain"}),
        (NO_RECLAIM | 0x80, 0, "swapper", {"no_reclaim": "certain"}),
    ],
)
def test_masks_early_in_boot(gfp: int, pid: int | None, comm: str, expected: dict[str, str]) -> None:
    """Only the first task runs then."""
    assert kinds(judged(zone(100), gfp=gfp, pid=pid, comm=comm)) == expected


def test_masks_before_any_page_is_given() -> None:
    """Then it is certain, whoever asks."""
    empty = LoggedZone(0, "Normal", {**EMPTY, "managed": 8000})
    assert kinds(judged(empty, gfp=NO_RECLAIM)) == {"nothing_given": "certain", "boot_mask": "certain"}


@pytest.mark.parametrize(
    ("gfp", "more", "found"),
    [
        (("GFP_KERNEL",), {}, True),
        (("GFP_KERNEL",), {"release": "4.13"}, True),
        (("GFP_KERNEL",), {"release": "4.12.14"}, False),
        (("GFP_KERNEL",), {"release": ""}, False),
        (("GFP_KERNEL",), {"event": "stall"}, False),
        (("GFP_KERNEL",), {"order": 3}, True),
        (("GFP_KERNEL",), {"order": 4}, False),
        (("GFP_HIGHUSER_MOVABLE",), {}, True),
        (("GFP_KERNEL", "GFP_DMA32"), {}, False),
        (("GFP_KERNEL", "GFP_DMA"), {}, False),
        (("GFP_ATOMIC",), {}, False),
        (("GFP_KERNEL", "__GFP_NORETRY"), {}, False),
        (("GFP_KERNEL", "__GFP_RETRY_MAYFAIL"), {}, False),
        (("GFP_KERNEL", "__GFP_THISNODE"), {}, False),
    ],
)
def test_requests_that_are_not_given_up(gfp: tuple[str, ...], more: dict[str, Any], found: bool) -> None:
    """`__alloc_pages_slowpath` tries again: an order of at most PAGE_ALLOC_COSTLY_ORDER, 3, whose mask lets it."""
    failure = judged(zone(100), LoggedZone(0, "DMA32", {"free": 4, **MARKS}), gfp=gfp, **more)
    assert ("not_given_up" in kinds(failure)) is found
    if found:
        assert kinds(failure)["not_given_up"] == "certain"
        assert "OOM victim" in text(failure, "not_given_up")


@pytest.mark.parametrize(
    ("comm", "known"),
    [("kswapd0", True), ("kswapd12", True), ("kswapd", False), ("kswapdx", False), ("my kswapd0", False)],
)
def test_kswapd(comm: str, known: bool) -> None:
    """One thread for each node, "kswapd%d"; it has PF_MEMALLOC."""
    assert ("kswapd frees memory itself" in text(judged(zone(100), comm=comm), "not_given_up")) is known


def counter(free: int, *blocks: Blocks, order: int = 0, **more: Any) -> str:  # noqa: ANN401
    """Return what is said about a zone's counter; "" if nothing is."""
    failure = judged(zone(free, blocks, **more), order=order, gfp=("GFP_KERNEL", "__GFP_NORETRY"))
    found = [each for each in findings_of(failure) if each.kind == "counter"]
    assert all(each.certainty == "certain" for each in found)
    return "".join(each.text for each in found)


@pytest.mark.parametrize(
    ("listed", "order", "more", "found"),
    [
        # 695 pages are too few, 696 are enough.
        (695, 0, {}, False),
        (696, 0, {}, True),
        # One page less for an order of 1; and what is kept for others.
        (696, 1, {}, False),
        (697, 1, {}, True),
        (705, 0, {"reserved_highatomic": 40}, False),
        (706, 0, {"reserved_highatomic": 40}, True),
        (705, 0, {"free_cma": 40}, False),
        (706, 0, {"free_cma": 40}, True),
    ],
)
def test_a_list_that_would_have_been_enough(listed: int, order: int, more: dict[str, Any], found: bool) -> None:
    """The counter is what the check reads; it matters where the list would pass."""
    said = counter(250, pages(listed, "UNMOVABLE"), order=order, **more)
    assert bool(said) is found
    if found:
        assert (
            f"1,000 kB free are counted, which is what the check reads, but the free blocks add up to {listed * 4:,} kB"
            in said
        )
        assert said.endswith("the counter is wrong or the list is newer")


def test_a_counter_that_passes_or_that_the_list_confirms() -> None:
    """Is no contradiction; nor is a zone without a list."""
    assert counter(9000, pages(9500, "UNMOVABLE")) == ""
    assert counter(695, pages(695, "UNMOVABLE")) == ""
    assert counter(250) == ""
    # Each zone has its own.
    blocks = (pages(900, "UNMOVABLE"),)
    failure = judged(
        zone(9000, blocks),
        zone(250, node=1),
        zone(250, blocks, node=2),
        zone(240, blocks, node=3),
        gfp=("GFP_KERNEL", "__GFP_NORETRY"),
    )
    found = [each.text.partition(":")[0] for each in findings_of(failure) if each.kind == "counter"]
    assert found == ["node 2 Normal", "node 3 Normal"]


@pytest.mark.parametrize(
    ("blocks", "end"),
    [
        # 598 pages are not counted. Of the 300 blocks of two at least one is unmovable.
        ((pages(248, "UNMOVABLE"), pages(300, "UNMOVABLE", "ISOLATE")), "may be all of the difference"),
        ((pages(249, "UNMOVABLE"), pages(300, "UNMOVABLE", "ISOLATE")), "explain at most 2,392 kB of it: the counter"),
        ((pages(250, "UNMOVABLE"), Blocks(375, 8, frozenset({"MIGRATE_ISOLATE"}))), "may be all of the difference"),
        ((pages(1000, "UNMOVABLE"),), "but the free blocks add up to 4,000 kB: the counter is"),
        # One block of each of three types: none, or one, is isolated.
        ((pages(997, "UNMOVABLE"), Blocks(3, 4, frozenset({"MIGRATE_ISOLATE", "MIGRATE_MOVABLE", "MIGRATE_CMA"}))),
         "explain at most 8 kB of it: the counter"),
        ((Blocks(1000, 4, None),), "but the free blocks add up to 4,000 kB: the counter is"),
    ],
)  # fmt: skip
def test_isolated_blocks(blocks: tuple[Blocks, ...], end: str) -> None:
    """They are in the list, but not counted: `__mod_zone_freepage_state` leaves MIGRATE_ISOLATE out."""
    said = counter(250, *(Blocks(one.number, 4 << order, one.types) for order, one in enumerate(blocks)))
    assert end in said
    assert ("may be all" in said) is not ("the counter is wrong" in said)


def highatomic(free: int, reserved: int, *blocks: Blocks, release: str = "6.1.100") -> str:
    """Return what is said about pages that are reserved and not free; "" if nothing is."""
    state = zone(free, blocks, reserved_highatomic=reserved * 4)
    failure = judged(state, gfp=("GFP_KERNEL", "__GFP_NORETRY"), release=release)
    return "".join(each.text for each in findings_of(failure) if each.kind == "highatomic")


@pytest.mark.parametrize(
    ("free", "reserved", "blocks", "over"),
    [
        # Without what is not free of the reserve more than 695 pages are there.
        (696, 1, (pages(696, "UNMOVABLE"),), 1),
        (695, 1, (pages(695, "UNMOVABLE"),), None),
        (2250, 2048, (pages(2250, "UNMOVABLE"),), 2048),
        (2250, 2048, (pages(1750, "UNMOVABLE"), Blocks(250, 8, frozenset({"MIGRATE_HIGHATOMIC"}))), 1548),
        (2250, 2048, (pages(2250, "UNMOVABLE", "HIGHATOMIC"),), None),
        (2250, 1555, (pages(1554, "HIGHATOMIC"), pages(0)), 1),
        (2250, 1555, (pages(1555, "HIGHATOMIC"), pages(0)), None),
        # It would have been refused all the same, or it is not refused.
        (690, 500, (pages(690, "UNMOVABLE"),), None),
        (2250, 100, (pages(2250, "UNMOVABLE"),), None),
        # The list has no types, or there is none.
        (2250, 2048, (Blocks(2250, 4, None),), None),
        (2250, 2048, (pages(2250, "UNMOVABLE"), Blocks(0, 8, None)), 2048),
        (2250, 2048, (), None),
    ],
)
def test_a_reserve_that_is_not_free(free: int, reserved: int, blocks: tuple[Blocks, ...], over: int | None) -> None:
    """Up to 6.12 the check subtracts `nr_reserved_highatomic`, free or not."""
    said = highatomic(free, reserved, *blocks)
    if over is None:
        assert said == ""
    else:
        assert said.startswith(f"node 0 Normal: {over * 4:,} kB that the check keeps")


def test_a_reserve_on_kernels_that_count_what_is_free() -> None:
    """c928807f6f6b, in 6.13."""
    assert highatomic(2250, 2048, pages(2250, "UNMOVABLE"), release="6.13") == ""
