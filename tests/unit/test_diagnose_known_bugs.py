# SPDX-License-Identifier: MIT
"""Bugs of the kernel: on which releases each is named, and what the log must show of it."""

from typing import Any

import pytest

from kalloctrace.diagnose.answers.known_bugs import find_known_bugs
from kalloctrace.diagnose.reports.model import Blocks, Frame, LoggedZone
from tests.diagnosed import judged, pages, zone

KERNEL = ("GFP_KERNEL",)
LOW = zone(100, (pages(100, "UNMOVABLE"),))
"""Its list shows pages of 4 kB."""


def bugs(*zones: LoggedZone, **more: Any) -> dict[str, str]:  # noqa: ANN401
    """Return what is shown of each bug, by the commit that fixed it."""
    return {bug.commit: bug.text for bug in find_known_bugs(judged(*zones, **{"gfp": KERNEL, **more}))}


def frames(*functions: str, reliable: bool = True) -> tuple[Frame, ...]:
    """Return a call trace, innermost function first."""
    return tuple(Frame(function, None, reliable) for function in functions)


RESERVED = zone(2250, (pages(2250, "UNMOVABLE"),), reserved_highatomic=8192)
BLOCK = zone(5000, (pages(5000, "UNMOVABLE"),))
HIGHMEM = LoggedZone(0, "HighMem", {**LOW.kilobytes}, (0, 0, 0))
NORMAL_32 = LoggedZone(0, "Normal", {**LOW.kilobytes, "active_file": 4000, "inactive_file": 1000}, (0, 0, 0))
NODES = (LOW, zone(9000, node=1))
HUGE: dict[str, Any] = {
    "order": 9,
    "gfp": ("GFP_TRANSHUGE", "__GFP_THISNODE"),
    "nodemask": "0",
}
MGLRU: dict[str, Any] = {
    "trace": frames("shrink_one", "shrink_node"),
    "totals": {"active_file": 60, "inactive_file": 40, "dirty": 50},
}
BTRFS: dict[str, Any] = {"order": 1, "trace": frames("__kmalloc", "btrfs_lookup_bio_sums")}


@pytest.mark.parametrize(
    ("bug", "releases", "others", "zones", "more"),
    [
        (("c928807f6f6b", "6.13"), ("6.1.0", "6.10.9"), ("6.11.0", "4.3.9"), (RESERVED,), {}),
        (("6b4e3181d7bd", "4.8"), ("4.7.0",), ("4.6.9", "4.7.1"), (BLOCK,), {"event": "oom", "order": 1}),
        (("71ab6cfe88dc", "4.11"), ("4.8.0", "4.8.17"), ("4.7.9", "4.9.0"), (NORMAL_32, HIGHMEM), {"event": "oom"}),
        (("400e22499dd9", "4.15"), ("4.9.0", "4.14.9"), ("4.8.17", "4.15.0"), (LOW,), {"event": "stall"}),
        (("cfc7fe2b0f18", "6.19"), ("2.6.39", "6.1.0", "7.3.1"), ("2.4.37",), (LOW,), BTRFS),
        (("1bc542c6a0d1", "6.13"), ("6.2.0", "6.11.9"), ("6.1.9", "6.12.0"), (LOW,), MGLRU),
        (("76e654cc91bb", "5.4"), ("4.6.0", "4.18.20"), ("3.19.8", "4.19.0"), NODES, HUGE),
    ],
)
def test_releases(
    bug: tuple[str, str],
    releases: tuple[str, ...],
    others: tuple[str, ...],
    zones: tuple[LoggedZone, ...],
    more: dict[str, Any],
) -> None:
    """From the release that brought the bug to the last that certainly lacks the fix."""
    for release in releases:
        [found] = find_known_bugs(judged(*zones, release=release, **{"gfp": KERNEL, **more}))
        assert (found.commit, found.fixed_in, found.line) == (*bug, 1), release
    for release in others:
        assert bug[0] not in bugs(*zones, release=release, **more), release
    # A vendor's kernel, and one that is not named.
    for release in ("5.14.0-362.el9.x86_64", ""):
        assert bugs(*zones, release=release, **more) == {}


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (RESERVED, "8,192 kB for high-order atomic requests, of which at most 0 kB are free"),
        # 1,554 of 1,555 reserved pages are free: 696 pages would be there, of more than 695.
        (zone(2250, (pages(1554, "HIGHATOMIC"),), reserved_highatomic=6220), "of which at most 6,216 kB are free"),
        (zone(2250, (pages(1555, "HIGHATOMIC"),), reserved_highatomic=6220), None),
        (zone(696, (pages(696, "UNMOVABLE"),), reserved_highatomic=4), "keeps 4 kB for"),
        (zone(695, (pages(695, "UNMOVABLE"),), reserved_highatomic=4), None),
        (zone(2250, (pages(2250, "UNMOVABLE"), Blocks(9, 8, None)), reserved_highatomic=8192), None),
        (zone(2250, (pages(2250, "UNMOVABLE"), Blocks(0, 8, None)), reserved_highatomic=8192), "keeps 8,192 kB"),
        (zone(2250, (pages(1, "UNMOVABLE"), Blocks(9, 8, frozenset({"MIGRATE_HIGHATOMIC"}))),
              reserved_highatomic=8192), "at most 72 kB are free"),
        (zone(2250, reserved_highatomic=8192), None),
        (zone(2250, (pages(2250, "UNMOVABLE"),)), None),
        (zone(5000, (pages(5000, "UNMOVABLE"),), reserved_highatomic=8192), None),
    ],
)  # fmt: skip
def test_highatomic(state: LoggedZone, shown: str | None) -> None:
    """The reserve in whole blocks decided, and some of it is not free."""
    text = bugs(state, release="6.1.0").get("c928807f6f6b")
    assert (text is None) is (shown is None)
    assert (shown or "") in (text or "")


def test_highatomic_in_a_further_zone() -> None:
    """Each zone is looked at."""
    other = zone(2250, (pages(2250, "UNMOVABLE"),), node=1, reserved_highatomic=8192)
    assert "node 1 Normal keeps" in bugs(zone(100), LOW, other, release="6.1.0")["c928807f6f6b"]


@pytest.mark.parametrize(
    ("more", "zones", "found"),
    [
        ({"order": 1}, (BLOCK,), True),
        ({"order": 3}, (BLOCK,), True),
        ({"order": 0}, (BLOCK,), False),
        ({"order": 4}, (BLOCK,), False),
        ({"order": 1, "event": "failure"}, (BLOCK,), False),
        ({"order": 1, "memcg": True}, (BLOCK,), False),
        ({"order": 1}, (LOW,), False),
        ({"order": 1}, (), False),
    ],
)
def test_early_oom(more: dict[str, Any], zones: tuple[LoggedZone, ...], found: bool) -> None:
    """The OOM killer, for an order of 1 to 3, with enough pages in small blocks."""
    assert ("6b4e3181d7bd" in bugs(*zones, release="4.7.0", **{"event": "oom", **more})) is found


def low_memory(file: int = 5000, high: int = 4164, **more: Any) -> bool:  # noqa: ANN401
    """Return whether the bug of low memory is named; the zone has file pages and a high watermark, in kB."""
    line = {**LOW.kilobytes, "high": high, "active_file": file, "inactive_file": 0}
    zones = more.pop("zones", (LoggedZone(0, "Normal", line, (0, 0, 0)), HIGHMEM))
    return "71ab6cfe88dc" in bugs(*zones, release="4.8.0", **{"event": "oom", **more})


def test_low_memory() -> None:
    """The OOM killer ran for it, and its file pages are more than the high watermark."""
    assert low_memory()
    assert low_memory(file=4165)
    assert not low_memory(file=4164)
    assert low_memory(gfp=("GFP_KERNEL", "GFP_DMA"))
    assert not low_memory(gfp=("GFP_HIGHUSER",))
    assert not low_memory(event="failure")
    assert not low_memory(memcg=True)
    assert not low_memory(zones=(NORMAL_32,))
    assert not low_memory(zones=(HIGHMEM,))
    both = bugs(NORMAL_32, HIGHMEM, release="4.8.0", event="oom")["71ab6cfe88dc"]
    assert "still had 5,000 kB of file pages" in both


@pytest.mark.parametrize(
    ("functions", "order", "found"),
    [
        (("__kmalloc", "btrfs_lookup_bio_sums"), 1, True),
        (("__kmalloc_noprof", "btrfs_lookup_bio_sums_noprof"), 1, True),
        (("__kmalloc", "btrfs_lookup_bio_sums"), 0, False),
        (("__kmalloc", "btrfs_other"), 1, False),
        # With the fix kvmalloc is tried first; without either nothing is shown.
        (("__kmalloc", "__kvmalloc_node", "btrfs_lookup_bio_sums"), 1, False),
        (("alloc_pages", "btrfs_lookup_bio_sums"), 1, False),
        ((), 1, False),
    ],
)
def test_btrfs(functions: tuple[str, ...], order: int, found: bool) -> None:
    """The trace decides."""
    assert ("cfc7fe2b0f18" in bugs(LOW, trace=frames(*functions), order=order)) is found


@pytest.mark.parametrize(
    ("function", "totals", "found"),
    [
        *((name, {}, True) for name in ("lru_gen_shrink_lruvec", "lru_gen_shrink_node", "shrink_one")),
        *((name, {}, True) for name in ("try_to_shrink_lruvec", "evict_folios")),
        ("shrink_lruvec", {}, False),
        # Half of the file pages; of none nothing is dirty.
        ("shrink_one", {"dirty": 49}, False),
        ("shrink_one", {"dirty": 0, "active_file": 0, "inactive_file": 0}, False),
        ("shrink_one", {"dirty": 1, "active_file": 0, "inactive_file": 0}, True),
        ("shrink_one", {"dirty": None}, False),
        ("shrink_one", {"active_file": None}, False),
    ],
)
def test_dirty_pages(function: str, totals: dict[str, int | None], found: bool) -> None:
    """MGLRU reclaims, and most file pages are dirty."""
    shown = {name: value for name, value in {**MGLRU["totals"], **totals}.items() if value is not None}
    text = bugs(LOW, release="6.6.0", totals=shown, trace=frames(function, "shrink_node")).get("1bc542c6a0d1")
    assert (text is not None) is found
    if totals == {} and text is not None:
        assert "200 kB of 400 kB file pages are dirty" in text


@pytest.mark.parametrize(
    ("more", "zones", "found"),
    [
        ({}, NODES, True),
        ({"order": 8}, NODES, False),
        ({"order": 10}, NODES, False),
        ({"gfp": ("GFP_TRANSHUGE",)}, NODES, False),
        ({"gfp": ("GFP_TRANSHUGE_LIGHT", "__GFP_THISNODE")}, NODES, False),
        ({"gfp": ("GFP_KERNEL", "__GFP_THISNODE")}, NODES, False),
        # Nothing is free elsewhere; or there is no other node.
        ({"nodemask": "0-1"}, NODES, False),
        ({}, (LOW, zone(9000, name="Movable")), False),
    ],
)
def test_huge_pages_of_one_node(more: dict[str, Any], zones: tuple[LoggedZone, ...], found: bool) -> None:
    """A huge page, with __GFP_THISNODE and direct reclaim, while another node has memory."""
    text = bugs(*zones, release="4.18.0", **{**HUGE, **more}).get("76e654cc91bb")
    assert (text is not None) is found
    if text is not None:
        assert "35.2 MB were free elsewhere" in text
