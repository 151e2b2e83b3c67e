# SPDX-License-Identifier: MIT
"""Predicts the zonelists of every node, as mm/page_alloc.c builds them from the nodes' zones and distances.

A prediction needs the inputs at the time of the build. At boot the kernel builds the lists before it assigns CPUs to
nodes (`numa_add_cpu` runs from `identify_cpu`, long after `build_all_zonelists` in `start_kernel`). So the penalty for
nodes with CPUs only applies after memory hotplug made the kernel rebuild the lists.

Before e553f62f10d9 ("mm, page_alloc: fix build_zonerefs_node()") (in v5.18, 5.10.112, 5.15.34 and 5.17.3) a zone had to
have managed pages to enter a list, since then present pages. The two differ only for memory that a balloon has not
released yet, as on Xen; this module uses present pages for all releases.
"""

from dataclasses import dataclass
from typing import Any, Literal

from kalloctrace.flags.releases import upstream_release
from kalloctrace.kernel.builtin import FIRST, Row
from kalloctrace.kernel.machine import Machine, Node, Topology, ZonelistKind, ZoneRef

PENALTY_FOR_NODE_WITH_CPUS = 1
"""include/linux/topology.h; x86 has no value of its own."""

MOST_PREDICTED = 128
"""Nodes; the time grows with the cube of their number, as in the kernel: some seconds here."""

ROWS = (
    Row("load", FIRST, "assigned", "mm/page_alloc.c:5918 of 5.10.262-1"),
    Row(
        "load",
        (5, 16),
        "accumulated",
        '54d032ced983 ("mm/page_alloc: use accumulated load when building node fallback list") (in v5.16)',
    ),
    Row(
        "load",
        (5, 19),
        "one",
        '379313241e77 ("mm/page_alloc: adding same penalty is enough to get round-robin order") (in v5.19); '
        "mm/page_alloc.c:6598 of 6.1.192-2",
    ),
    Row("owners", FIRST, "online", "__build_all_zonelists() in mm/page_alloc.c of 5.10.262-1"),
    Row(
        "owners",
        (5, 18),
        "possible",
        '09f49dca570a ("mm: handle uninitialized numa nodes gracefully") (in v5.18)',
    ),
    Row("memoryless_local", FIRST, "first", "mm/page_alloc.c:5812 of 5.10.262-1, :6493 of 6.1.192-2"),
    Row(
        "memoryless_local",
        (6, 7),
        "skipped",
        'c2baef394af8 ("mm: page_alloc: skip memoryless nodes entirely") (in v6.7)',
    ),
)
"""Only the release determines these rules: the compiled functions leave no symbol or type that shows them."""


@dataclass(frozen=True)
class ZonelistRule:
    """How one kernel orders the nodes of a zonelist.

    Attributes:
        load: the change of `node_load` for the first node of each distance: set to the number of nodes left to place,
            increased by this number, or increased by one.
        owners: the nodes whose lists are built one after the other, each changing `node_load`.
        memoryless_local: whether a node without memory comes first in its own list. It adds no zone there, but it
            counts as placed; this makes no difference if `node_load` grows by one.
    """

    load: Literal["assigned", "accumulated", "one"]
    owners: Literal["online", "possible"]
    memoryless_local: Literal["first", "skipped"]

    def __str__(self) -> str:
        """Return the rule in words."""
        load = {"assigned": "= load", "accumulated": "+= load", "one": "+= 1"}[self.load]
        return f"node_load {load}, lists of {self.owners} nodes, memoryless local node {self.memoryless_local}"


def zonelist_rule(release: str, version: str = "") -> ZonelistRule | None:
    """Return the rule of a release.

    Args:
        release: `uname -r`, or "6.12"; a release newer than all rows gets the newest rule.
        version: `uname -v`, which holds Debian's package version.

    Returns:
        The rule; None if the release does not determine it.
    """
    parsed = upstream_release(release, version)
    if parsed is None or parsed[:2] < FIRST:
        return None
    values: dict[str, Any] = {row.feature: row.value for row in ROWS if row.since <= parsed[:2]}
    return ZonelistRule(**values)


def why_not_predicted(machine: Machine) -> str:
    """Return why the zonelists of a machine cannot be predicted, "" if they can."""
    if machine.topology is None:
        return "the trace has no distances"
    if any(node.nid not in machine.topology.possible for node in machine.nodes):
        return "the trace has no distances of some nodes"
    if len(machine.nodes) > MOST_PREDICTED:
        return f"there are more than {MOST_PREDICTED} nodes, which would take minutes"
    if machine.topology.zonelist_builds < 1:
        return "the zonelists were being built"
    if machine.topology.zonelist_builds > 1 and any(not has_memory(node) for node in machine.nodes):
        # A node that is hotplugged without memory gets its own list, and the other lists are not rebuilt.
        return "memory was plugged, and a node has none: its lists may be older or newer than the others'"
    return ""


def build_all_zonelists(
    machine: Machine, topology: Topology, rule: ZonelistRule
) -> dict[ZonelistKind, dict[int, tuple[ZoneRef, ...]]]:
    """Return the zonelists of every online node.

    Source: `__build_all_zonelists`, `build_zonelists`, mm/page_alloc.c:5897 of 5.10.262-1, :6578 of 6.1.192-2, :5410
    of 6.12.117-1, :5925 of 7.3.4-1~bpo13+1.

    Args:
        machine: its nodes and zones.
        topology: the inputs for the order of the nodes.
        rule: the rule of the release.

    Returns:
        The lists by kind and node id, without the terminating entry.
    """
    own = {node.nid: _build_zonerefs_node(node) for node in machine.nodes}
    order = _Order(machine, topology, rule)
    owners = sorted(own) if rule.owners == "online" else topology.possible
    orders = {nid: order.build_zonelists(nid) for nid in owners}
    return {
        "FALLBACK": {nid: tuple(ref for other in orders[nid] for ref in own[other]) for nid in own},
        "NOFALLBACK": own,
    }


def _build_zonerefs_node(node: Node) -> tuple[ZoneRef, ...]:
    """Return the populated zones of a node, highest index first."""
    return tuple(ZoneRef(node.nid, zone.index) for zone in reversed(node.zones) if zone.present_pages)


def has_memory(node: Node) -> bool:
    """Return whether a node is in the kernel's `node_states[N_MEMORY]`."""
    return any(zone.present_pages for zone in node.zones)


def is_below(n: int, node: int) -> bool:
    """Return whether a node gets the penalty for an id below the owner's, by which a list continues after its owner."""
    return n < node


class _Order:
    """Computes the node order of one list after the other; `node_load` carries over between lists."""

    def __init__(self, machine: Machine, topology: Topology, rule: ZonelistRule) -> None:
        self._topology = topology
        self._rule = rule
        self._nr_online_nodes = machine.nr_online_nodes
        self._n_memory = tuple(node.nid for node in machine.nodes if has_memory(node))
        # At boot the lists are built before any CPU is assigned to a node.
        self._cpus = topology.cpus if topology.zonelist_builds > 1 else ()
        self._node_load = dict.fromkeys(topology.possible, 0)

    def build_zonelists(self, local_node: int) -> list[int]:
        """Return the node order of one list; nodes without memory contribute no zones."""
        order: list[int] = []
        prev_node, load = local_node, self._nr_online_nodes
        while (node := self._find_next_best_node(local_node, order)) is not None:
            distance = self._topology.node_distance(local_node, node)
            if distance != self._topology.node_distance(local_node, prev_node):
                self._penalise(node, load)
            order.append(node)
            prev_node = node
            load -= 1
        return order

    def _penalise(self, node: int, load: int) -> None:
        if self._rule.load == "assigned":
            self._node_load[node] = load
        else:
            self._node_load[node] += load if self._rule.load == "accumulated" else 1

    def _find_next_best_node(self, node: int, used: list[int]) -> int | None:
        local = self._rule.memoryless_local == "first" or node in self._n_memory
        if local and node not in used:
            return node
        unused = (n for n in self._n_memory if n not in used)
        # On a tie the lowest id wins.
        return min(unused, key=lambda n: self._score(node, n), default=None)

    def _score(self, node: int, n: int) -> int:
        val = self._topology.node_distance(node, n)
        val += is_below(n, node)
        if n in self._cpus:
            val += PENALTY_FOR_NODE_WITH_CPUS
        val *= self._topology.max_numnodes
        if self._rule.load != "one":
            val *= self._nr_online_nodes
        return val + self._node_load[n]
