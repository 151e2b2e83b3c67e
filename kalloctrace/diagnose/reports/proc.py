# SPDX-License-Identifier: MIT
"""The state of memory in /proc/zoneinfo, /proc/buddyinfo, /proc/pagetypeinfo and page_owner.

mm/vmstat.c and mm/page_owner.c write them. These print pages, so that kB follow only from the page size.
"""

import re
from dataclasses import dataclass, field

from kalloctrace.diagnose.reports.model import ZONE_NAMES, Blocks, Frame, LoggedFailure, LoggedZone, Site

_ZONE = rf"Node\s+(?P<node>\d{{1,5}}), zone\s+(?P<zone>{'|'.join(ZONE_NAMES)})"
_ZONEINFO = re.compile(rf"{_ZONE}$")
_BUDDYINFO = re.compile(rf"{_ZONE}(?P<counts>(?:\s+\d{{1,15}}){{1,64}})$")
_PAGETYPEINFO = re.compile(rf"{_ZONE}, type\s+(?P<type>\w+)(?P<counts>(?:\s+>?\d{{1,15}}){{1,64}})$")
_BLOCK_TYPES = "Number of blocks type"
_FIELD = re.compile(r"(?:pages )?(?P<name>[a-z_]{1,40}):?\s+(?P<pages>\d{1,15})$")
_PROTECTION = re.compile(r"protection: \((?P<pages>\d{1,15}(?:, \d{1,15})*)\)$")
_OWNER = re.compile(r"Page allocated via order (?P<order>\d{1,3}), mask ")
_ALLOCATOR = re.compile(
    r"_*(?:post_alloc_hook|prep_new_page|set_page_owner|save_stack|register_early_stack|get_page_from_freelist"
    r"|get_free_pages|get_zeroed_page|vma_alloc_\w+|(?:folio_)?alloc_pages?\w*|alloc_(?:frozen_)?pages?\w*|folio_alloc\w*"
    r"|filemap_alloc_folio\w*|page_cache_alloc|page_frag\w*|new_slab|allocate_slab|alloc_slab_page|slab_alloc\w*"
    r"|kmem_cache_alloc\w*|kmalloc\w*|kvmalloc\w*|kzalloc\w*|vmalloc\w*|pcpu_alloc\w*)(?:_noprof)?$"
)

_NAMES = {
    "free": "free",
    "boost": "boost",
    "min": "min",
    "low": "low",
    "high": "high",
    "present": "present",
    "managed": "managed",
    "nr_free_cma": "free_cma",
    "nr_zone_active_file": "active_file",
    "nr_zone_inactive_file": "inactive_file",
    "nr_free_highatomic": "free_highatomic",
}
_NODE_NAMES = {
    **{f"nr_{name}": name for name in ("active_anon", "inactive_anon", "active_file", "inactive_file", "unevictable")},
    **{f"nr_{name}": name for name in ("isolated_anon", "isolated_file", "mapped", "dirty", "writeback", "shmem")},
    **{f"nr_{name}": name for name in ("slab_reclaimable", "slab_unreclaimable")},
    "nr_page_table_pages": "pagetables",
}
_TYPES = {
    "Unmovable": "MIGRATE_UNMOVABLE",
    "Movable": "MIGRATE_MOVABLE",
    "Reclaimable": "MIGRATE_RECLAIMABLE",
    "HighAtomic": "MIGRATE_HIGHATOMIC",
    "Reserve": "MIGRATE_RESERVE",
    "CMA": "MIGRATE_CMA",
    "Isolate": "MIGRATE_ISOLATE",
}
_MOST_SITES = 4096
_PRINTED_SITES = 20

PROC_HINTS = (", zone", "Page allocated via", _BLOCK_TYPES)
"""A line with none of these words begins no part of these files."""


@dataclass
class ProcFile:
    """Where in one of these files the next line stands.

    Attributes:
        zone: of /proc/zoneinfo, whose fields follow.
        per_node: the fields are those of the node.
        block_types: the lines of zones count pageblocks, not free blocks.
        order: of the page of page_owner whose stack follows; None if its caller is known.
        sites: bytes and calls of page_owner by function.
    """

    zone: LoggedZone | None = None
    per_node: bool = False
    block_types: bool = False
    order: int | None = None
    sites: dict[str, list[int]] = field(default_factory=dict)


def begins_file(text: str) -> bool:
    """Return whether a line is one of these files'."""
    patterns = (_ZONEINFO, _BUDDYINFO, _PAGETYPEINFO, _OWNER)
    return any(hint in text for hint in PROC_HINTS) and any(pattern.match(text) is not None for pattern in patterns)


def zone_key(text: str) -> str:
    """Return what a line of these files tells about; a second line with the same key begins another reading."""
    for name, pattern in (("zone", _ZONEINFO), ("blocks", _BUDDYINFO), ("types", _PAGETYPEINFO)):
        if (match := pattern.match(text)) is not None:
            return " ".join((name, *match.group("node", "zone"), match["type"] if pattern is _PAGETYPEINFO else ""))
    return ""


def read_proc(report: LoggedFailure, file: ProcFile, text: str, page_kb: int) -> bool:
    """Read a line of these files; return whether it is one.

    Args:
        report: the report of the state.
        file: where in the file the line stands.
        text: the line.
        page_kb: the page size in kB.
    """
    if text.startswith(_BLOCK_TYPES):
        file.block_types = True
        return True
    if text.startswith("Node") and ", zone" in text:
        return _read_zone_line(report, file, text, page_kb)
    if (owner := _OWNER.match(text)) is not None:
        file.order, file.zone = min(int(owner["order"]), 30), None
        return True
    return file.zone is not None and _read_field(report, file, file.zone, text, page_kb)


def read_owner(file: ProcFile, frame: Frame, page_kb: int) -> None:
    """Count a page of page_owner for the first function that is no part of the allocator."""
    if file.order is None or _ALLOCATOR.match(frame.function) is not None:
        return
    where = frame.function if frame.module is None else f"{frame.function} [{frame.module}]"
    if where in file.sites or len(file.sites) < _MOST_SITES:
        counted = file.sites.setdefault(where, [0, 0])
        counted[0] += page_kb * 1024 << file.order
        counted[1] += 1
    file.order = None


def owner_sites(file: ProcFile) -> list[Site]:
    """Return the callers that hold most, the largest first."""
    sites = sorted((Site(held, calls, where) for where, (held, calls) in file.sites.items()), reverse=True)
    return sites[:_PRINTED_SITES]


def _read_zone_line(report: LoggedFailure, file: ProcFile, text: str, page_kb: int) -> bool:
    file.zone, file.per_node = None, False
    if (match := _ZONEINFO.match(text)) is not None:
        file.zone = report.zone(int(match["node"]), match["zone"])
        return True
    if (match := _PAGETYPEINFO.match(text)) is not None:
        counts = [int(count.lstrip(">")) for count in match["counts"].split()]
        _add_type(report.zone(int(match["node"]), match["zone"]), _TYPES.get(match["type"]), counts, page_kb)
        return True
    if (match := _BUDDYINFO.match(text)) is not None:
        zone = report.zone(int(match["node"]), match["zone"])
        if not file.block_types and zone.blocks is None:
            counts = [int(count) for count in match["counts"].split()]
            zone.blocks = tuple(Blocks(count, page_kb << order, None) for order, count in enumerate(counts))
        return True
    return False


def _add_type(zone: LoggedZone, name: str | None, counts: list[int], page_kb: int) -> None:
    if name is None:
        return
    known = zone.blocks or ()
    blocks = []
    for order, count in enumerate(counts):
        before = known[order] if order < len(known) else Blocks(0, page_kb << order, frozenset())
        types = (before.types or frozenset()) | ({name} if count else frozenset())
        blocks.append(Blocks(before.number + count, before.size, types))
    zone.blocks = tuple(blocks)


def _read_field(report: LoggedFailure, file: ProcFile, zone: LoggedZone, text: str, page_kb: int) -> bool:
    if text.startswith("per-node stats"):
        file.per_node = True
        return True
    if (match := _PROTECTION.match(text)) is not None:
        zone.lowmem_reserve = tuple(int(pages) for pages in match["pages"].split(", "))
        return True
    if (match := _FIELD.match(text)) is None:
        return False
    name, kilobytes = match["name"], int(match["pages"]) * page_kb
    if text.startswith("pages "):
        file.per_node = False
    if file.per_node and name in _NODE_NAMES:
        report.nodes.setdefault(zone.node, {}).setdefault(_NODE_NAMES[name], kilobytes)
    elif name in _NAMES:
        zone.kilobytes.setdefault(_NAMES[name], kilobytes)
    return True
