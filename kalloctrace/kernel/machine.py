# SPDX-License-Identifier: MIT
"""The memory of one machine as the page allocator sees it: nodes, zones, zonelists, switches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

ZonelistKind = Literal["FALLBACK", "NOFALLBACK"]


class ZoneRef(NamedTuple):
    """One entry of a zonelist: `struct zoneref`, as the node and the index of its zone."""

    node: int
    zone: int


@dataclass(frozen=True)
class Zone:
    """A zone of a node.

    Attributes:
        index: index in `enum zone_type`.
        present_pages: `zone->present_pages`, in pages of 4 KiB.
    """

    index: int
    present_pages: int


@dataclass(frozen=True)
class Node:
    """An online node and its zones, the empty ones too, ascending by index."""

    nid: int
    zones: tuple[Zone, ...]

    def present_pages(self, zone: int) -> int:
        """Return the present pages of the zone with this index, 0 where there is none."""
        return next((z.present_pages for z in self.zones if z.index == zone), 0)


@dataclass(frozen=True)
class Topology:
    """What the kernel orders the nodes of a zonelist by, beside the zones themselves.

    Attributes:
        possible: the possible nodes, ascending: those that the machine may ever have.
        distances: for each possible node, in this order, the distance to each of them (10 is local).
        cpus: the nodes with online CPUs, ascending.
        max_numnodes: MAX_NUMNODES, the nodes that the kernel was built for.
        zonelist_builds: how often the zonelists were built since boot: 1 unless memory was plugged.
    """

    possible: tuple[int, ...]
    distances: tuple[tuple[int, ...], ...]
    cpus: tuple[int, ...]
    max_numnodes: int
    zonelist_builds: int

    def node_distance(self, one: int, other: int) -> int:
        """Return the distance between two possible nodes."""
        return self.distances[self.possible.index(one)][self.possible.index(other)]

    def to_json(self) -> dict[str, Any]:
        """Return the topology as JSON values."""
        return {
            "possible": list(self.possible),
            "distances": [list(row) for row in self.distances],
            "cpus": list(self.cpus),
            "max_numnodes": self.max_numnodes,
            "zonelist_builds": self.zonelist_builds,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the topology from what `to_json` returned.

        Raises:
            ValueError: the distances are no square of the possible nodes.
        """
        possible = tuple(data["possible"])
        distances = tuple(tuple(row) for row in data["distances"])
        if [len(row) for row in distances] != [len(possible)] * len(possible):
            raise ValueError("the distances are not those of the possible nodes")
        return cls(possible, distances, tuple(data["cpus"]), data["max_numnodes"], data["zonelist_builds"])


@dataclass(frozen=True)
class Machine:
    """What the preparation stage reads of the machine; constant between two hotplug events or sysctl writes.

    Attributes:
        nodes: the online nodes, ascending.
        fallback: per node id its `node_zonelists[ZONELIST_FALLBACK]`, without the terminating entry.
        nofallback: per node id its `node_zonelists[ZONELIST_NOFALLBACK]`, likewise.
        nr_online_nodes: the kernel's own count.
        gfp_allowed_mask: bits that survive the entry.
        page_group_by_mobility_disabled: true on machines of some MiB.
        cpusets_enabled: `cpusets_enabled_key` counts more than 0.
        defrag_mode: the sysctl vm.defrag_mode is on.
        topology: what the zonelists were built from; None where the kernel does not show it all.
    """

    nodes: tuple[Node, ...]
    fallback: Mapping[int, tuple[ZoneRef, ...]]
    nofallback: Mapping[int, tuple[ZoneRef, ...]]
    nr_online_nodes: int
    gfp_allowed_mask: int
    page_group_by_mobility_disabled: bool = False
    cpusets_enabled: bool = False
    defrag_mode: bool = False
    topology: Topology | None = None

    def node(self, nid: int) -> Node | None:
        """Return the online node with this id."""
        return next((node for node in self.nodes if node.nid == nid), None)

    def zonelist(self, kind: ZonelistKind, nid: int) -> tuple[ZoneRef, ...] | None:
        """Return a node's zonelist, None for a node that has none (it is not online)."""
        return (self.fallback if kind == "FALLBACK" else self.nofallback).get(nid)

    def to_json(self) -> dict[str, Any]:
        """Return the machine as JSON values."""
        return {
            "nodes": [
                {
                    "nid": node.nid,
                    "zones": [{"index": z.index, "present_pages": z.present_pages} for z in node.zones],
                }
                for node in self.nodes
            ],
            "fallback": {str(nid): [list(ref) for ref in refs] for nid, refs in self.fallback.items()},
            "nofallback": {str(nid): [list(ref) for ref in refs] for nid, refs in self.nofallback.items()},
            "nr_online_nodes": self.nr_online_nodes,
            "gfp_allowed_mask": self.gfp_allowed_mask,
            "page_group_by_mobility_disabled": self.page_group_by_mobility_disabled,
            "cpusets_enabled": self.cpusets_enabled,
            "defrag_mode": self.defrag_mode,
            "topology": self.topology and self.topology.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the machine from what `to_json` returned; older writers knew no topology."""
        topology = data.get("topology")
        return cls(
            nodes=tuple(
                Node(node["nid"], tuple(Zone(z["index"], z["present_pages"]) for z in node["zones"]))
                for node in data["nodes"]
            ),
            fallback=_zonelists(data["fallback"]),
            nofallback=_zonelists(data["nofallback"]),
            nr_online_nodes=data["nr_online_nodes"],
            gfp_allowed_mask=data["gfp_allowed_mask"],
            page_group_by_mobility_disabled=data["page_group_by_mobility_disabled"],
            cpusets_enabled=data["cpusets_enabled"],
            defrag_mode=data["defrag_mode"],
            topology=None if topology is None else Topology.from_json(topology),
        )


def _zonelists(data: Mapping[str, Sequence[Sequence[int]]]) -> dict[int, tuple[ZoneRef, ...]]:
    return {int(nid): tuple(ZoneRef(*ref) for ref in refs) for nid, refs in data.items()}


def default_fallback_order(nid: int, nodes: Mapping[int, object]) -> list[int]:
    """Return the order in which a node's zonelist visits the nodes where all are equally far and have CPUs.

    A node's score is worse when its id is below the list's owner, so the list starts at the owner and wraps.
    Source: `find_next_best_node` in mm/page_alloc.c of linux-source-6.12 6.12.117-1:5315.

    Args:
        nid: whose zonelist.
        nodes: the machine's, by id.
    """
    return sorted(nodes, key=lambda other: (other < nid, other))


def machine_of(
    populated: Mapping[int, Sequence[int]],
    *,
    gfp_allowed_mask: int,
    fallback_order: Mapping[int, Sequence[int]] | None = None,
    page_group_by_mobility_disabled: bool = False,
    cpusets_enabled: bool = False,
    defrag_mode: bool = False,
) -> Machine:
    """Build a machine from which zones of which nodes have memory.

    Args:
        populated: per online node the indexes of its zones with memory.
        gfp_allowed_mask: as in `Machine`.
        fallback_order: per node the order in which its FALLBACK zonelist visits the nodes; by default that of
            nodes all equally far apart: ascending from the node itself, and around.
        page_group_by_mobility_disabled: as in `Machine`.
        cpusets_enabled: as in `Machine`.
        defrag_mode: as in `Machine`.

    Returns:
        The machine, with one page in each populated zone: only whether a zone is empty matters to the stage.
    """
    own = {
        nid: tuple(ZoneRef(nid, zone) for zone in sorted(zones, reverse=True))
        for nid, zones in sorted(populated.items())
    }
    order = fallback_order or {nid: default_fallback_order(nid, own) for nid in own}
    return Machine(
        nodes=tuple(
            Node(nid, tuple(Zone(zone, 1) for zone in sorted(zones))) for nid, zones in sorted(populated.items())
        ),
        fallback={nid: tuple(ref for other in order.get(nid, (nid,)) for ref in own.get(other, ())) for nid in own},
        nofallback=own,
        nr_online_nodes=len(own),
        gfp_allowed_mask=gfp_allowed_mask,
        page_group_by_mobility_disabled=page_group_by_mobility_disabled,
        cpusets_enabled=cpusets_enabled,
        defrag_mode=defrag_mode,
    )
