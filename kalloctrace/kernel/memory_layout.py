# SPDX-License-Identifier: MIT
"""Nodes, zones and zonelists in the kernel's memory: resolves addresses and page flags to node and zone."""

from collections.abc import Mapping
from dataclasses import dataclass

from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.kallsyms import Symbols
from kalloctrace.kernel.kcore import Kcore
from kalloctrace.kernel.machine import Node, Topology, Zone, ZonelistKind, ZoneRef

_KINDS: tuple[ZonelistKind, ...] = ("FALLBACK", "NOFALLBACK")
_POINTER = 8

_LOCAL_DISTANCE = 10
_REMOTE_DISTANCE = 20
_FLAGS_BITS = 64

_TOPOLOGY = ("numa_distance", "numa_distance_cnt", "zonelist_update_seq")


@dataclass(frozen=True)
class MemoryLayout:
    """The nodes of the running kernel.

    Attributes:
        nodes: the online nodes with all their zones.
        zonelists: by kind and node id, without the terminating entry.
        zone_addresses: the node and zone index by `struct zone *`.
        zonelist_addresses: the kind and the owner's node id by `struct zonelist *`.
    """

    nodes: tuple[Node, ...]
    zonelists: Mapping[ZonelistKind, Mapping[int, tuple[ZoneRef, ...]]]
    zone_addresses: Mapping[int, ZoneRef]
    zonelist_addresses: Mapping[int, tuple[ZonelistKind, int]]


def read_memory_layout(kcore: Kcore, btf: Btf, node_data: int, online: tuple[int, ...]) -> MemoryLayout:
    """Read the nodes of the running kernel.

    Args:
        kcore: its memory.
        btf: its types.
        node_data: address of `struct pglist_data *node_data[]`.
        online: ids of the online nodes.
    """
    zones = _ZoneReader(kcore, btf)
    pgdats = {nid: kcore.u64(node_data + _POINTER * nid) for nid in online}
    zone_addresses = {
        zones.address(pgdat, index): ZoneRef(nid, index)
        for nid, pgdat in pgdats.items()
        for index in range(zones.count)
    }
    first = btf.offset("pglist_data", "node_zonelists")
    size = btf.size("zonelist")
    kinds = _KINDS[: btf.member_size("pglist_data", "node_zonelists") // size]
    addresses = {pgdat + first + size * i: (kind, nid) for nid, pgdat in pgdats.items() for i, kind in enumerate(kinds)}
    zonelists: dict[ZonelistKind, dict[int, tuple[ZoneRef, ...]]] = {kind: {} for kind in _KINDS}
    for address, (kind, nid) in addresses.items():
        zonelists[kind][nid] = _zonelist(kcore, btf, address, size, zone_addresses)
    return MemoryLayout(
        nodes=tuple(
            Node(nid, tuple(Zone(i, zones.present_pages(pgdat, i)) for i in range(zones.count)))
            for nid, pgdat in pgdats.items()
        ),
        zonelists=zonelists,
        zone_addresses=zone_addresses,
        zonelist_addresses=addresses,
    )


def read_topology(
    kcore: Kcore, btf: Btf, symbols: Symbols, possible: tuple[int, ...], cpus: tuple[int, ...]
) -> Topology | None:
    """Read the inputs from which the running kernel built its zonelists.

    /sys shows only the distances of online nodes, but the kernel builds lists for all possible nodes.
    `zonelist_update_seq` grows by two with each build: Linux kernel commit 3d36424b3b58 ("mm/page_alloc: fix race
    condition between build_all_zonelists and page allocation") (in v6.0, and in Debian's 5.10).

    Args:
        kcore: its memory.
        btf: its types.
        symbols: its symbols.
        possible: ids of the possible nodes.
        cpus: ids of the nodes with online CPUs.

    Returns:
        The topology; None if the kernel lacks one of the symbols.
    """
    found = [symbols.address(name) for name in _TOPOLOGY]
    addresses = [address for address in found if address is not None]
    if len(addresses) != len(found):
        return None
    numa_distance, numa_distance_cnt, zonelist_update_seq = addresses
    known = kcore.u32(numa_distance_cnt)
    table = kcore.read(kcore.u64(numa_distance), known * known) if known else b""
    zones = _ZoneReader(kcore, btf)
    return Topology(
        possible=possible,
        distances=tuple(tuple(_distance(table, known, one, other) for other in possible) for one in possible),
        cpus=cpus,
        # struct zonelist has one entry per zone and node, and the terminating one.
        max_numnodes=(btf.size("zonelist") // btf.size("zoneref") - 1) // zones.count,
        zonelist_builds=kcore.u32(zonelist_update_seq) // 2,
    )


def _distance(table: bytes, known: int, one: int, other: int) -> int:
    """Return `__node_distance` of arch/x86/mm/numa.c (since 6.12 in mm/numa_memblks.c)."""
    if one < known and other < known:
        return table[one * known + other]
    return _LOCAL_DISTANCE if one == other else _REMOTE_DISTANCE


class _ZoneReader:
    """The array `pglist_data.node_zones`."""

    def __init__(self, kcore: Kcore, btf: Btf) -> None:
        self._kcore = kcore
        self._first = btf.offset("pglist_data", "node_zones")
        self._size = btf.size("zone")
        self._present_pages = btf.offset("zone", "present_pages")
        self.count = btf.member_size("pglist_data", "node_zones") // self._size

    def address(self, pgdat: int, index: int) -> int:
        return pgdat + self._first + self._size * index

    def present_pages(self, pgdat: int, index: int) -> int:
        return self._kcore.u64(self.address(pgdat, index) + self._present_pages)


def _zonelist(kcore: Kcore, btf: Btf, address: int, size: int, zones: Mapping[int, ZoneRef]) -> tuple[ZoneRef, ...]:
    """Read `struct zonelist`: an array of zonerefs, terminated by one with a NULL zone."""
    stride = btf.size("zoneref")
    zone_at = btf.offset("zoneref", "zone")
    data = kcore.read(address, size)
    refs = []
    for start in range(0, size, stride):
        zone = int.from_bytes(data[start + zone_at : start + zone_at + _POINTER], "little")
        if zone == 0:
            break
        refs.append(zones[zone])
    return tuple(refs)


@dataclass(frozen=True)
class PageFlags:
    """The position of node and zone in `page->flags`.

    Attributes:
        nodes_pgshift: NODES_PGSHIFT; all bits from it upwards are the node id.
        zones_pgshift: ZONES_PGSHIFT.
        zones_mask: ZONES_MASK.
    """

    nodes_pgshift: int
    zones_pgshift: int
    zones_mask: int

    def place(self, flags: int) -> ZoneRef:
        """Return the node and zone of a page with these flags, `unsigned long`."""
        return ZoneRef(flags >> self.nodes_pgshift, flags >> self.zones_pgshift & self.zones_mask)


def page_flags_of(nodes: int, zones: int) -> PageFlags:
    """Return the layout of CONFIG_SPARSEMEM_VMEMMAP: no section field, the node in the top bits, the zone below it.

    Source: include/linux/page-flags-layout.h (ZONES_SHIFT), the same from 5.8 to 7.3.

    Args:
        nodes: MAX_NUMNODES.
        zones: MAX_NR_ZONES.
    """
    nodes_pgshift = _FLAGS_BITS - (nodes - 1).bit_length()
    zones_shift = (zones - 1).bit_length()
    return PageFlags(nodes_pgshift, nodes_pgshift - zones_shift, (1 << zones_shift) - 1)


def read_page_flags(kcore: Kcore, btf: Btf, symbols: Symbols, layout: MemoryLayout) -> PageFlags | None:
    """Return the position of node and zone in the running kernel's `page->flags`.

    The layout is computed from the kernel's types and checked against the first page of each populated zone.

    Args:
        kcore: its memory.
        btf: its types.
        symbols: its symbols.
        layout: its zones.

    Returns:
        The layout; None if a page contradicts it, or if the pages cannot be located.
    """
    vmemmap_base = symbols.address("vmemmap_base")
    zone_type = btf.enum("zone_type")
    if vmemmap_base is None or zone_type is None:
        return None
    flags = page_flags_of(8 * btf.member_size("task_struct", "mems_allowed"), zone_type[-1][1])
    vmemmap, size, flags_at = kcore.u64(vmemmap_base), btf.size("page"), btf.offset("page", "flags")
    present = {(node.nid, zone.index) for node in layout.nodes for zone in node.zones if zone.present_pages}
    for address, ref in layout.zone_addresses.items():
        if ref in present:
            first = kcore.u64(address + btf.offset("zone", "zone_start_pfn"))
            if flags.place(kcore.u64(vmemmap + first * size + flags_at)) != ref:
                return None
    return flags
