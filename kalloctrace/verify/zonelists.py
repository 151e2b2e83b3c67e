# SPDX-License-Identifier: MIT
"""Compares the captured zonelists with those predicted from the nodes' zones and distances."""

from dataclasses import dataclass
from typing import Any

from kalloctrace.kernel.machine import ZonelistKind, ZoneRef
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.kernel.zonelists import build_all_zonelists, why_not_predicted, zonelist_rule
from kalloctrace.verify.rows import ModelFailure


@dataclass(frozen=True)
class ZonelistMismatch:
    """A zonelist that differs from the prediction.

    Attributes:
        kind: which list.
        nid: the node that owns it.
        expected: its predicted entries.
        observed: its captured entries; None if the list was not captured.
        rule: the rule that orders the nodes.
    """

    kind: ZonelistKind
    nid: int
    expected: tuple[ZoneRef, ...]
    observed: tuple[ZoneRef, ...] | None
    rule: str

    def to_json(self) -> dict[str, Any]:
        """Return the mismatch as JSON values."""
        return {
            "field": "zonelist",
            "kind": self.kind,
            "nid": self.nid,
            "expected": [list(ref) for ref in self.expected],
            "observed": None if self.observed is None else [list(ref) for ref in self.observed],
            "rule": self.rule,
        }


@dataclass(frozen=True)
class ZonelistVerdict:
    """The verdict on a machine's zonelists.

    Attributes:
        reason: why they were not predicted; empty if they were.
        nodes: how many nodes' lists were compared.
        mismatches: the lists that differ.
    """

    reason: str = ""
    nodes: int = 0
    mismatches: tuple[ZonelistMismatch, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        return {
            "predicted": not self.reason,
            "reason": self.reason,
            "nodes": self.nodes,
            "mismatched": len(self.mismatches),
            "mismatches": [mismatch.to_json() for mismatch in self.mismatches],
        }


def verify_zonelists(snapshot: Snapshot) -> ZonelistVerdict:
    """Predict the zonelists of every online node and compare.

    Args:
        snapshot: the kernel and machine that were recorded.

    Raises:
        ModelFailure: the prediction failed.
    """
    machine, topology = snapshot.machine, snapshot.machine.topology
    reason = why_not_predicted(machine)
    if topology is None or reason:
        return ZonelistVerdict(reason)
    rule = zonelist_rule(snapshot.release, snapshot.version)
    if rule is None:
        return ZonelistVerdict("the release does not tell how its kernel orders nodes")
    captured = {"FALLBACK": machine.fallback, "NOFALLBACK": machine.nofallback}
    try:
        predicted = build_all_zonelists(machine, topology, rule)
    except Exception as error:
        raise ModelFailure(f"the zonelists of {len(machine.nodes)} nodes by the rule {rule}", error) from error
    if not snapshot.features.config_numa:
        del predicted["NOFALLBACK"]
    mismatches = tuple(
        ZonelistMismatch(kind, nid, expected, captured[kind].get(nid), str(rule))
        for kind, lists in predicted.items()
        for nid, expected in lists.items()
        if expected != captured[kind].get(nid)
    )
    return ZonelistVerdict("", len(machine.nodes), mismatches)
