# SPDX-License-Identifier: MIT
"""/proc/zoneinfo, /proc/buddyinfo, /proc/pagetypeinfo and page_owner, as mm/vmstat.c and mm/page_owner.c write them."""

from typing import Any

import pytest

from kalloctrace.diagnose.reports.model import Blocks, Frame, LoggedFailure, Site
from kalloctrace.diagnose.reports.proc import ProcFile, begins_file, owner_sites, read_owner, read_proc, zone_key

ZONEINFO = "Node 1, zone    DMA32"
BUDDYINFO = "Node 1, zone    DMA32      3      0      2"
TYPES = "Node    1, zone    DMA32, type      Movable      3      0   >100"
OWNER = "Page allocated via order 2, mask 0xcc0(GFP_KERNEL)"


def read(*texts: str, page_kb: int = 4) -> tuple[LoggedFailure, ProcFile, list[bool]]:
    """Read lines; return the report, the file, and which lines are of it."""
    report, file = LoggedFailure("memory", 1, "", 0), ProcFile()
    return report, file, [read_proc(report, file, text, page_kb) for text in texts]


def test_lines_that_begin_a_file() -> None:
    """Each with what it tells about."""
    assert [begins_file(text) for text in (ZONEINFO, BUDDYINFO, TYPES, OWNER)] == [True] * 4
    assert not begins_file("  pages free     3968")
    assert not begins_file("Node 1, zone    Other")
    assert not begins_file("Number of blocks type     Unmovable")
    keys = [zone_key(text) for text in (ZONEINFO, BUDDYINFO, TYPES, OWNER)]
    assert keys == ["zone 1 DMA32 ", "blocks 1 DMA32 ", "types 1 DMA32 Movable", ""]


FIELDS = {
    **{name: name for name in ("boost", "min", "low", "high", "present", "managed")},
    "pages free": "free",
    "nr_free_cma": "free_cma",
    "nr_zone_active_file": "active_file",
    "nr_zone_inactive_file": "inactive_file",
    "nr_free_highatomic": "free_highatomic",
}
NODE_FIELDS = {
    **{f"nr_{name}": name for name in ("active_anon", "inactive_anon", "active_file", "inactive_file", "unevictable")},
    **{f"nr_{name}": name for name in ("isolated_anon", "isolated_file", "mapped", "dirty", "writeback", "shmem")},
    **{f"nr_{name}": name for name in ("slab_reclaimable", "slab_unreclaimable")},
    "nr_page_table_pages": "pagetables",
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_a_zone(name: str) -> None:
    """In pages; the first of a name holds, as later ones are of a CPU."""
    for sign in ("     ", ": "):
        report, _, known = read(ZONEINFO, f"{name}{sign}12", f"{name}{sign}13", page_kb=16)
        assert known == [True, True, True]
        [zone] = report.zones
        assert (zone.node, zone.zone, zone.kilobytes) == (1, "DMA32", {FIELDS[name]: 192})


@pytest.mark.parametrize("name", NODE_FIELDS)
def test_fields_of_a_node(name: str) -> None:
    """They stand behind "per-node stats" in the node's first zone; elsewhere they are the zone's."""
    report, _, _ = read(ZONEINFO, "per-node stats", f"{name} 12", f"{name} 13", page_kb=16)
    assert report.nodes == {1: {NODE_FIELDS[name]: 192}}
    assert report.zones[0].kilobytes == {}
    report, _, _ = read(ZONEINFO, f"{name} 12")
    assert report.nodes == {}


def test_the_end_of_the_nodes_fields() -> None:
    """`pages free` follows them, in the next zone they do not hold."""
    report, _, _ = read(ZONEINFO, "per-node stats", "pages free 9", "nr_dirty 1", "min 3")
    assert (report.nodes, report.zones[0].kilobytes) == ({}, {"free": 36, "min": 12})
    report, _, _ = read(ZONEINFO, "per-node stats", ZONEINFO.replace("DMA32", "Normal"), "nr_dirty 1")
    assert report.nodes == {}
    # A zone's own field there is the zone's.
    report, _, _ = read(ZONEINFO, "per-node stats", "min 3")
    assert report.zones[0].kilobytes == {"min": 12}


def test_protection() -> None:
    """It is lowmem_reserve."""
    report, _, known = read(ZONEINFO, "protection: (0, 12, 345)", "protection: (5")
    assert (report.zones[0].lowmem_reserve, known) == ((0, 12, 345), [True, True, False])


def test_other_lines() -> None:
    """Outside of a zone, or of another form, they are not the file's."""
    assert read("pages free     3968")[2] == [False]
    assert read(ZONEINFO, "cpu: 0 x", "start_pfn:           1")[2] == [True, False, True]
    assert read(ZONEINFO, "Node 1, zone x", "min 3")[2] == [True, False, False]
    assert read("Node 1 has no, zone")[2] == [False]


def test_free_blocks() -> None:
    """Of each order; a second list is not used."""
    report, _, known = read(BUDDYINFO, BUDDYINFO.replace("3 ", "9 "), "min 3", page_kb=16)
    [zone] = report.zones
    assert (zone.node, zone.zone, known) == (1, "DMA32", [True, True, False])
    assert zone.blocks == (Blocks(3, 16, None), Blocks(0, 32, None), Blocks(2, 64, None))


TYPE_NAMES = {
    "Unmovable": "UNMOVABLE",
    "Movable": "MOVABLE",
    "Reclaimable": "RECLAIMABLE",
    "HighAtomic": "HIGHATOMIC",
    "Reserve": "RESERVE",
    "CMA": "CMA",
    "Isolate": "ISOLATE",
}


@pytest.mark.parametrize("name", TYPE_NAMES)
def test_types(name: str) -> None:
    """Their numbers add up; one of 100,000 or more is printed with a sign."""
    report, _, _ = read(TYPES.replace("Movable", name), TYPES.replace("Movable", name), page_kb=16)
    only = frozenset({f"MIGRATE_{TYPE_NAMES[name]}"})
    assert report.zones[0].blocks == (Blocks(6, 16, only), Blocks(0, 32, frozenset()), Blocks(200, 64, only))


def test_several_types() -> None:
    """Each order has those of which it has a block; a type that no kernel has is not counted."""
    shorter = "Node    1, zone    DMA32, type    Unmovable      0      5"
    report, _, known = read(shorter, TYPES, TYPES.replace("Movable", "Other"))
    movable, unmovable = frozenset({"MIGRATE_MOVABLE"}), frozenset({"MIGRATE_UNMOVABLE"})
    assert known == [True] * 3
    assert report.zones[0].blocks == (Blocks(3, 4, movable), Blocks(5, 8, unmovable), Blocks(100, 16, movable))


def test_pageblocks_are_no_free_blocks() -> None:
    """The last table of /proc/pagetypeinfo has the form of /proc/buddyinfo."""
    report, file, known = read("Number of blocks type     Unmovable      Movable", BUDDYINFO)
    assert (known, file.block_types) == ([True, True], True)
    assert report.zones[0].blocks is None


def owned(*pages: tuple[str, list[Frame]], page_kb: int = 4) -> list[Site]:
    """Return the callers of pages, each with the line of page_owner and its stack."""
    report, file = LoggedFailure("memory", 1, "", 0), ProcFile()
    for text, frames in pages:
        assert read_proc(report, file, text, page_kb)
        for frame in frames:
            read_owner(file, frame, page_kb)
    return owner_sites(file)


def frame(function: str, module: str | None = None) -> Frame:
    """Return a frame of a stack."""
    return Frame(function, module, reliable=True)


ALLOCATING = """
post_alloc_hook prep_new_page set_page_owner __set_page_owner save_stack register_early_stack get_page_from_freelist
__get_free_pages get_free_pages get_zeroed_page vma_alloc_folio folio_alloc __folio_alloc alloc_pages __alloc_pages
__alloc_pages_nodemask alloc_page alloc_frozen_pages __alloc_frozen_pages folio_alloc_page filemap_alloc_folio
page_cache_alloc __page_cache_alloc page_frag_alloc new_slab allocate_slab alloc_slab_page slab_alloc ___slab_alloc
kmem_cache_alloc kmalloc __kmalloc kvmalloc_node kzalloc vmalloc __vmalloc_node_range pcpu_alloc post_alloc_hook_noprof
"""


@pytest.mark.parametrize("function", ALLOCATING.split())
def test_functions_of_allocators_own_no_page(function: str) -> None:
    """Who called them does."""
    assert owned((OWNER, [frame(function), frame("ext4_read")])) == [Site(16 << 10, 1, "ext4_read")]


def test_page_owner() -> None:
    """Four pages each; the first function behind the allocator counts, with its module."""
    one = (OWNER, [frame("alloc_pages"), frame("uvc_alloc", "uvcvideo"), frame("other")])
    two = (OWNER.replace("order 2", "order 0"), [frame("ext4_read"), frame("ext4_read")])
    assert owned(one, one, two) == [Site(32 << 10, 2, "uvc_alloc [uvcvideo]"), Site(4 << 10, 1, "ext4_read")]
    assert owned(one, page_kb=16) == [Site(64 << 10, 1, "uvc_alloc [uvcvideo]")]
    # Frames without a page before them, and a damaged order.
    file = ProcFile()
    read_owner(file, frame("ext4_read"), 4)
    assert owner_sites(file) == []
    assert owned((OWNER.replace("order 2", "order 99"), [frame("a")])) == [Site(4 << 40, 1, "a")]
    assert owned((OWNER.replace("order 2", "order 30"), [frame("a")])) == [Site(4 << 40, 1, "a")]
    assert owned((OWNER.replace("order 2", "order 29"), [frame("a")])) == [Site(4 << 39, 1, "a")]


def test_the_largest_owners() -> None:
    """Twenty of them."""
    pages: list[Any] = [(OWNER, [frame(f"f{number}")]) for number in range(25) for _ in range(number + 1)]
    found = owned(*pages)
    assert [site.where for site in found] == [f"f{number}" for number in range(24, 4, -1)]


def test_a_page_ends_a_zone() -> None:
    """Fields behind it are not the zone's."""
    _, file, known = read(ZONEINFO, OWNER, "min 3")
    assert (known, file.zone) == ([True, True, False], None)
