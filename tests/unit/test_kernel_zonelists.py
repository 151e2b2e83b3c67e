# SPDX-License-Identifier: MIT
"""Zonelists predicted from distances equal those that real kernels built, and every rule is needed."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from kalloctrace.errors import Exit
from kalloctrace.kernel import zonelists
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import Machine, Node, Topology, Zone
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.kernel.zonelists import ZonelistRule, build_all_zonelists, why_not_predicted, zonelist_rule
from kalloctrace.report.verification_text import verification_lines
from kalloctrace.verify.verification import Verification
from kalloctrace.verify.zonelists import verify_zonelists

DATA = Path(__file__).parent / "data" / "zonelists"
RECORDED = sorted(path.stem for path in DATA.glob("*.json"))
KERNELS = ("5.10", "6.1", "6.12", "7.3")


@cache
def recorded(name: str) -> Snapshot:
    """Return the snapshot of a real kernel on a machine."""
    data = json.loads((DATA / f"{name}.json").read_text())
    return replace(
        builtin_snapshot(name.split("-", maxsplit=1)[0], Machine.from_json(data["machine"])),
        release=data["release"],
        version=data["version"],
    )


def with_topology(snapshot: Snapshot, **changed: object) -> Snapshot:
    """Return the snapshot with another topology and the same zonelists."""
    topology = snapshot.machine.topology
    assert topology is not None
    # The fields have types of their own; each caller gives the right one.
    return replace(snapshot, machine=replace(snapshot.machine, topology=replace(topology, **changed)))  # type: ignore[arg-type]


def predicted(snapshot: Snapshot, rule: ZonelistRule) -> bool:
    """Return whether a rule predicts the lists that the kernel built."""
    machine = snapshot.machine
    assert machine.topology is not None
    lists = build_all_zonelists(machine, machine.topology, rule)
    return lists == {"FALLBACK": machine.fallback, "NOFALLBACK": machine.nofallback}


def test_every_kernel_was_recorded_on_every_machine() -> None:
    """No file that the tests below need is missing."""
    machines = ("equal", "memoryless", "rebuilt", "two", "uneven")
    assert sorted(["6.1-offline", *(f"{kernel}-{on}" for kernel in KERNELS for on in machines)]) == RECORDED


@pytest.mark.parametrize("name", RECORDED)
def test_prediction_equals_the_lists_of_a_real_kernel(name: str) -> None:
    """All lists of all nodes are predicted correctly."""
    snapshot = recorded(name)
    verdict = verify_zonelists(snapshot)
    assert (verdict.reason, verdict.nodes) == ("", len(snapshot.machine.nodes))
    assert verdict.mismatches == ()


def own_rule(snapshot: Snapshot) -> ZonelistRule:
    """Return the rule of the release."""
    rule = zonelist_rule(snapshot.release, snapshot.version)
    assert rule is not None
    return rule


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("load", ["assigned", "accumulated", "one"])
def test_load_of_another_release_is_caught(kernel: str, load: str) -> None:
    """With uneven distances, each rule for node_load gives other lists."""
    snapshot = recorded(f"{kernel}-uneven")
    rule = own_rule(snapshot)
    # mypy cannot know that the parameters are those of the Literal.
    assert predicted(snapshot, replace(rule, load=load)) == (load == rule.load)  # type: ignore[arg-type]


@pytest.mark.parametrize("kernel", KERNELS)
def test_distances_decide(kernel: str) -> None:
    """Distances of another machine give other lists."""
    elsewhere = recorded(f"{kernel}-equal").machine.topology
    assert elsewhere is not None
    snapshot = recorded(f"{kernel}-uneven")
    assert not predicted(with_topology(snapshot, distances=elsewhere.distances), own_rule(snapshot))


@pytest.mark.parametrize("kernel", KERNELS)
def test_cpus_count_after_the_lists_were_rebuilt(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After memory hotplug, nodes with CPUs come after others; at boot CPUs do not count."""
    rebuilt, boot = recorded(f"{kernel}-rebuilt"), recorded(f"{kernel}-equal")
    rule = own_rule(boot)
    assert not predicted(with_topology(rebuilt, zonelist_builds=1), rule)
    assert not predicted(with_topology(boot, zonelist_builds=2), rule)
    monkeypatch.setattr(zonelists, "PENALTY_FOR_NODE_WITH_CPUS", 0)
    assert predicted(boot, rule)
    assert not predicted(rebuilt, rule)


@pytest.mark.parametrize("kernel", KERNELS)
def test_direction_decides(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among equally distant nodes those above the owner come first; the reverse gives other lists."""
    snapshot = recorded(f"{kernel}-equal")
    monkeypatch.setattr(zonelists, "is_below", lambda n, node: n > node)
    assert not predicted(snapshot, own_rule(snapshot))


@pytest.mark.parametrize("kernel", KERNELS)
def test_memoryless_node_is_not_a_candidate(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without memory is not in other nodes' lists; otherwise it would take their penalty."""
    snapshot = recorded(f"{kernel}-memoryless")
    monkeypatch.setattr(zonelists, "has_memory", lambda _: True)
    assert not predicted(snapshot, own_rule(snapshot))


def test_memoryless_local_node_decides() -> None:
    """If node_load counts the nodes left to place, a memoryless owner makes a difference."""
    snapshot = recorded("5.10-memoryless")
    assert own_rule(snapshot).memoryless_local == "first"
    assert not predicted(snapshot, replace(own_rule(snapshot), memoryless_local="skipped"))


TWO_PAIRS = ((10, 12, 32, 32), (12, 10, 32, 32), (32, 32, 10, 12), (32, 32, 12, 10))
"""Distances of four nodes in two pairs of neighbours."""


def order(rule: ZonelistRule, *online: int) -> dict[int, list[int]]:
    """Return the nodes of each FALLBACK list if these nodes of the two pairs are online, each with one zone."""
    topology = Topology((0, 1, 2, 3), TWO_PAIRS, (), 1024, 1)
    machine = Machine(tuple(Node(nid, (Zone(2, 1),)) for nid in online), {}, {}, len(online), 0)
    lists = build_all_zonelists(machine, topology, rule)["FALLBACK"]
    return {nid: [ref.node for ref in refs] for nid, refs in lists.items()}


def test_offline_nodes_load_others_since_5_18() -> None:
    """The list of an offline possible node also adds a penalty, which changes later lists."""
    assert order(ZonelistRule("one", "online", "skipped"), 0, 1, 3)[3] == [3, 0, 1]
    assert order(ZonelistRule("one", "possible", "skipped"), 0, 1, 3)[3] == [3, 1, 0]


def test_example_of_the_commit_that_accumulates() -> None:
    """Linux kernel commit 54d032ced983 shows these four nodes, and their lists before and after it."""
    before = {0: [0, 1, 2, 3], 1: [1, 0, 3, 2], 2: [2, 3, 0, 1], 3: [3, 2, 0, 1]}
    assert order(ZonelistRule("assigned", "online", "first"), 0, 1, 2, 3) == before
    assert order(ZonelistRule("accumulated", "online", "first"), 0, 1, 2, 3) == {**before, 3: [3, 2, 1, 0]}


@pytest.mark.parametrize(
    ("release", "rule"),
    [
        ("5.10.0-46-amd64", ZonelistRule("assigned", "online", "first")),
        ("5.15.0", ZonelistRule("assigned", "online", "first")),
        ("5.16.1", ZonelistRule("accumulated", "online", "first")),
        ("5.18.0", ZonelistRule("accumulated", "possible", "first")),
        ("5.19.0", ZonelistRule("one", "possible", "first")),
        ("6.6.9", ZonelistRule("one", "possible", "first")),
        ("6.7.0", ZonelistRule("one", "possible", "skipped")),
        ("8.1.0", ZonelistRule("one", "possible", "skipped")),
    ],
)
def test_rule_of_a_release(release: str, rule: ZonelistRule) -> None:
    """Each row holds from its release on; a kernel newer than all rows gets the newest rule."""
    assert zonelist_rule(release) == rule


@pytest.mark.parametrize("release", ["5.7.1", "5.14.0-427.el9.x86_64", "nonsense"])
def test_release_without_a_rule(release: str) -> None:
    """A vendor with backports, an older kernel or no release has no rule, so there is no verdict."""
    assert zonelist_rule(release) is None
    verdict = verify_zonelists(replace(recorded("6.1-two"), release=release))
    assert not verdict.to_json()["predicted"]
    assert verdict.reason


def test_trace_without_distances_is_not_predicted() -> None:
    """Older traces have no topology: nothing is predicted, and this is not a mismatch."""
    snapshot = builtin_snapshot("5.10")
    verdict = verify_zonelists(snapshot)
    assert verdict.to_json() == {
        "predicted": False,
        "reason": "the trace has no distances",
        "nodes": 0,
        "mismatched": 0,
        "mismatches": [],
    }
    lines = list(verification_lines(Verification("t", "k", zonelists=verdict), snapshot.tables))
    assert "  zonelists: not predicted, the trace has no distances" in lines


def test_hotplugged_node_without_memory_is_not_predicted() -> None:
    """The lists of such a machine may have been built at different times."""
    snapshot = recorded("6.1-memoryless")
    assert why_not_predicted(snapshot.machine) == ""
    assert "memory was plugged" in verify_zonelists(with_topology(snapshot, zonelist_builds=2)).reason
    assert verify_zonelists(with_topology(snapshot, zonelist_builds=0)).reason


def test_node_without_distances_is_not_predicted() -> None:
    """A topology of other nodes is reported, and nothing is predicted."""
    snapshot = with_topology(recorded("6.1-two"), possible=(0, 7))
    assert "no distances of some nodes" in verify_zonelists(snapshot).reason


def reversed_list(machine: Machine) -> Machine:
    """Reverse a FALLBACK list."""
    return replace(machine, fallback={**machine.fallback, 2: machine.fallback[2][::-1]})


def missing_list(machine: Machine) -> Machine:
    """Remove a FALLBACK list."""
    return replace(machine, fallback={nid: refs for nid, refs in machine.fallback.items() if nid != 3})


def empty_list(machine: Machine) -> Machine:
    """Empty a NOFALLBACK list."""
    return replace(machine, nofallback={**machine.nofallback, 1: ()})


@pytest.mark.parametrize(
    ("alter", "kind", "nid"),
    [(reversed_list, "FALLBACK", 2), (missing_list, "FALLBACK", 3), (empty_list, "NOFALLBACK", 1)],
)
def test_list_that_differs_is_a_mismatch(alter: Callable[[Machine], Machine], kind: str, nid: int) -> None:
    """The list, its owner, both values and the rule are reported, and the exit code is that of a mismatch."""
    snapshot = recorded("6.1-equal")
    built = (snapshot.machine.fallback if kind == "FALLBACK" else snapshot.machine.nofallback)[nid]
    altered: dict[Callable[[Machine], Machine], object]
    altered = {reversed_list: [list(ref) for ref in built[::-1]], missing_list: None, empty_list: []}
    snapshot = replace(snapshot, machine=alter(snapshot.machine))
    verdict = Verification("t", snapshot.release, zonelists=verify_zonelists(snapshot))
    (mismatch,) = verdict.to_json()["zonelists"]["mismatches"]
    assert (mismatch["field"], mismatch["kind"], mismatch["nid"]) == ("zonelist", kind, nid)
    assert mismatch["expected"] == [list(ref) for ref in built]
    assert mismatch["observed"] == altered[alter]
    assert "node_load += 1" in mismatch["rule"]
    assert verdict.to_json()["zonelists"]["mismatched"] == 1
    assert verdict.exit_code(strict=False) == Exit.MISMATCH
    text = "\n".join(verification_lines(verdict, snapshot.tables))
    assert f"mismatch: zonelist {kind} of node {nid}" in text
    assert "zonelists: nodes 4  mismatched 1" in text


def test_kernel_without_numa_has_no_second_list() -> None:
    """Without CONFIG_NUMA there is only the FALLBACK list."""
    snapshot = recorded("6.1-two")
    snapshot = replace(
        snapshot,
        features=replace(snapshot.features, config_numa=False),
        machine=replace(snapshot.machine, nofallback={}),
    )
    assert verify_zonelists(snapshot).mismatches == ()


@pytest.mark.parametrize("name", RECORDED)
def test_topology_survives_the_round_trip(name: str) -> None:
    """The topology in a trace equals the captured one."""
    where = recorded(name).machine
    assert Machine.from_json(json.loads(json.dumps(where.to_json()))) == where


def test_distances_that_are_not_square_are_refused() -> None:
    """A damaged snapshot is an error."""
    data = recorded("6.1-two").machine.to_json()
    data["topology"]["distances"].pop()
    with pytest.raises(ValueError, match="distances"):
        Machine.from_json(data)
