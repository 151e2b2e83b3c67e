# SPDX-License-Identifier: MIT
"""One kernel on one machine, as an immutable record that each trace stores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self, get_args

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.decode import WMARK_MASK
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.features import ContextTest, Features, Nolock
from kalloctrace.kernel.machine import Machine
from kalloctrace.kernel.nodelist import MAX_NUMNODES
from kalloctrace.kernel.shapes import (
    U31,
    U53,
    Shape,
    ShapeError,
    array,
    boolean,
    choice,
    integer,
    mapping,
    number_text,
    optional,
    record,
    row,
    text,
)

MAX_ORDER = 30
"""No kernel has larger blocks: `1 << order` pages are counted in an `int`."""
MAX_ZONES = 8
"""`enum zone_type` has at most six members (include/linux/mmzone.h)."""
_MAX_FLAGS = 256

_NODE = integer(0, MAX_NUMNODES - 1)
_ZONE = integer(0, MAX_ZONES - 1)
_NAME = text(256)
_NAMED = array(row(_NAME, integer()), _MAX_FLAGS)
_ZONELISTS = mapping(number_text(MAX_NUMNODES - 1), array(row(_NODE, _ZONE), MAX_NUMNODES * MAX_ZONES), MAX_NUMNODES)

SNAPSHOT: Shape = record(
    {
        "release": text(256),
        "version": text(1024),
        "features": record(
            {
                "entry": _NAME,
                "entry_alloc_flags": boolean,
                "nolock": choice(*get_args(Nolock)),
                "gfp_context_on_fast_path": boolean,
                "pf_memalloc_pin": boolean,
                "pf_memalloc_noreclaim": boolean,
                "pf_memalloc_nocma": boolean,
                "context_test": choice(*get_args(ContextTest)),
                "interrupt_mask": integer(),
                "config_cma": boolean,
                "config_cpusets": boolean,
                "config_numa": boolean,
                "defrag_mode": boolean,
                "highatomic_on_fast_path": boolean,
                "max_order": integer(0, MAX_ORDER),
                "nolock_orders": array(integer(0, MAX_ORDER), MAX_ORDER + 1),
                "config_preempt_rt": boolean,
            },
            later=["config_preempt_rt"],
        ),
        "tables": record(
            {
                "kernel": text(256),
                "source": _NAME,
                **dict.fromkeys(("gfp_print", "gfp_bits", "alloc", "migratetype", "zone_watermarks", "pf"), _NAMED),
                "zone_type": array(row(_NAME, integer(0, MAX_ZONES)), _MAX_FLAGS),
            }
        ),
        "machine": record(
            {
                "nodes": array(
                    record(
                        {
                            "nid": _NODE,
                            "zones": array(record({"index": _ZONE, "present_pages": integer(0, U53)}), MAX_ZONES),
                        }
                    ),
                    MAX_NUMNODES,
                ),
                "fallback": _ZONELISTS,
                "nofallback": _ZONELISTS,
                "nr_online_nodes": integer(0, MAX_NUMNODES),
                "gfp_allowed_mask": integer(),
                "page_group_by_mobility_disabled": boolean,
                "cpusets_enabled": boolean,
                "defrag_mode": boolean,
                "topology": optional(
                    record(
                        {
                            "possible": array(_NODE, MAX_NUMNODES),
                            "distances": array(array(integer(0, 255), MAX_NUMNODES), MAX_NUMNODES),
                            "cpus": array(_NODE, MAX_NUMNODES),
                            "max_numnodes": integer(1, MAX_NUMNODES),
                            "zonelist_builds": integer(0, U31),
                        }
                    )
                ),
            },
            later=["topology"],
        ),
        "evidence": mapping(_NAME, text(1024), _MAX_FLAGS),
    }
)
"""The JSON of a snapshot; `Snapshot.from_json` also checks what several of its values must have in common."""


@dataclass(frozen=True)
class Snapshot:
    """All facts about a kernel that are needed to decode, predict and compare.

    Attributes:
        release: `uname -r`, or the name of a built-in kernel.
        version: `uname -v`, which holds the package's version on Debian.
        features: the rules of its preparation stage.
        tables: its flags.
        machine: nodes, zones, zonelists and switches at the time of the snapshot.
        evidence: the source of each feature by name, for people.
    """

    release: str
    version: str
    features: Features
    tables: FlagTables
    machine: Machine
    evidence: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the snapshot as JSON values."""
        return {
            "release": self.release,
            "version": self.version,
            "features": self.features.to_json(),
            "tables": self.tables.to_json(),
            "machine": self.machine.to_json(),
            "evidence": dict(self.evidence),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the snapshot from the result of `to_json`.

        Raises:
            ShapeError: a value is missing, or is none that a kernel has.
        """
        SNAPSHOT(data, "")
        snapshot = cls(
            release=data["release"],
            version=data["version"],
            features=Features.from_json(data["features"]),
            tables=FlagTables.from_json(data["tables"]),
            machine=Machine.from_json(data["machine"]),
            evidence=dict(data["evidence"]),
        )
        _check_tables(snapshot.tables)
        _check_machine(snapshot.machine)
        return snapshot


_WATERMARKS = range(3)
"""ALLOC_WMARK_MIN, LOW and HIGH: indexes below WMARK_MASK, in all kernels."""


def _check_tables(tables: FlagTables) -> None:
    try:
        tables.bits  # noqa: B018  (it looks every flag up)
    except KalloctraceError as error:
        raise ShapeError("tables", f"are incomplete: {error.what}") from error
    if not all(
        mask in _WATERMARKS if name.startswith("ALLOC_WMARK_") else not mask & WMARK_MASK for name, mask in tables.alloc
    ):
        raise ShapeError("tables.alloc", "has a flag among the two bits of the watermark")
    if tables.zone_index("Normal") is None:
        raise ShapeError("tables.zone_type", "has no ZONE_NORMAL, which every kernel has")


def _check_machine(machine: Machine) -> None:
    """Check that nodes and zones are in order, and that the lists name no others."""
    nids = [node.nid for node in machine.nodes]
    _check_ascending(nids, "machine.nodes")
    for node in machine.nodes:
        _check_ascending([zone.index for zone in node.zones], f"the zones of node {node.nid}")
    zones = {(node.nid, zone.index) for node in machine.nodes for zone in node.zones}
    for name, lists in (("fallback", machine.fallback), ("nofallback", machine.nofallback)):
        for nid, refs in lists.items():
            if len(set(refs)) != len(refs) or not zones.issuperset(refs):
                raise ShapeError(f"machine.{name}.{nid}", "names a zone twice, or one that no node has")
    topology = machine.topology
    if topology is not None:
        _check_ascending(topology.possible, "machine.topology.possible")


def _check_ascending(numbers: Sequence[int], path: str) -> None:
    if any(one >= other for one, other in pairwise(numbers)):
        raise ShapeError(path, "is not in ascending order")
