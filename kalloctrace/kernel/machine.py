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
        present_pages: `zone->present_pages`, pages of 4 KiB.
    """

    index: int
    present_pages: int


@dataclass(frozen=True)
class Node:
    """An online node and all its zones, empty ones included, in ascending order of index."""

    nid: int
    zones: tuple[Zone, ...]

    def present_pages(self, zone: int) -> int:
        """Return the present pages of the zone with this index; 0 if the node has no such zone."""
        return next((z.present_pages for z in self.zones if z.index == zone), 0)


@dataclass(frozen=True)
class Topology:
    """The inputs, apart from the zones, by which the kernel orders the nodes of a zonelist.

    Attributes:
        possible: the ids of the possible nodes (`node_possible_map`) in ascending order.
        distances: for each possible node, in this order, its distance to each possible node (10 is local).
        cpus: the ids of the nodes with online CPUs in ascending order.
        max_numnodes: MAX_NUMNODES, the number of nodes that the kernel was built for.
        zonelist_builds: how often the zonelists were built since boot: 1 unless memory was hotplugged.
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
        """Build the topology from the result of `to_json`.

        Raises:
            ValueError: the distances are not a square matrix over the possible nodes.
        """
        possible = tuple(data["possible"])
        distances = tuple(tuple(row) for row in data["distances"])
        if [len(row) for row in distances] != [len(possible)] * len(possible):
            raise ValueError("the distances are not a square matrix over the possible nodes")
        return cls(possible, distances, tuple(data["cpus"]), data["max_numnodes"], data["zonelist_builds"])


@dataclass(frozen=True)
class Machine:
    """The machine's state that the preparation stage reads; it changes only by hotplug or a sysctl write.

    Attributes:
        nodes: the online nodes in ascending order.
        fallback: per node id its `node_zonelists[ZONELIST_FALLBACK]`, without the terminating entry.
        nofallback: per node id its `node_zonelists[ZONELIST_NOFALLBACK]`, without the terminating entry.
        nr_online_nodes: the kernel's variable of this name.
        gfp_allowed_mask: the gfp bits that the entry keeps (`gfp_t`).
        page_group_by_mobility_disabled: true only on machines with a few MiB of memory.
        cpusets_enabled: `cpusets_enabled_key` is greater than 0.
        defrag_mode: the sysctl vm.defrag_mode is on.
        topology: the inputs of the zonelists; None if the kernel does not show all of them.
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
        """Return the online node with this id, or None."""
        return next((node for node in self.nodes if node.nid == nid), None)

    def zonelist(self, kind: ZonelistKind, nid: int) -> tuple[ZoneRef, ...] | None:
        """Return a node's zonelist; None if the node is not online."""
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
        """Build the machine from the result of `to_json`; `topology` may be missing, from an older writer."""
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
    """Return the order of the nodes in a node's zonelist if all nodes are equally far apart and have CPUs.

    A node below the list's owner gets a penalty, so the list starts at the owner and wraps around.
    Source: `find_next_best_node` in mm/page_alloc.c of linux-source-6.12 6.12.117-1:5315.

    Args:
        nid: the owner of the zonelist.
        nodes: the machine's nodes by id.
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
    """Build a machine from the populated zones of its nodes.

    Args:
        populated: per online node the indexes of its zones with memory.
        gfp_allowed_mask: as in `Machine`.
        fallback_order: per node the order of the nodes in its FALLBACK zonelist; by default `default_fallback_order`.
        page_group_by_mobility_disabled: as in `Machine`.
        cpusets_enabled: as in `Machine`.
        defrag_mode: as in `Machine`.

    Returns:
        The machine with one page in each populated zone: the stage only tests whether a zone is empty.
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
