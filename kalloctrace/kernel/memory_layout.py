# SPDX-License-Identifier: MIT
"""Nodes, zones and zonelists as they lie in the kernel's memory, and where: addresses become names with it."""

from collections.abc import Mapping
from dataclasses import dataclass

from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.kcore import Kcore
from kalloctrace.kernel.machine import Node, Zone, ZonelistKind, ZoneRef

_KINDS: tuple[ZonelistKind, ...] = ("FALLBACK", "NOFALLBACK")
_POINTER = 8


@dataclass(frozen=True)
class MemoryLayout:
    """The nodes of a running kernel.

    Attributes:
        nodes: the online nodes with all their zones.
        zonelists: per kind and node id the entries before the terminating one.
        zone_addresses: `struct zone *` to its node and index.
        zonelist_addresses: `struct zonelist *` to its kind and the id of the node that owns it.
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
    """Read `struct zonelist`: an array of zonerefs that ends with one whose zone is NULL."""
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
