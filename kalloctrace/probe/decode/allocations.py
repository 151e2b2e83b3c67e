# SPDX-License-Identifier: MIT
"""Turns captured `struct allocation`s into those of a trace: pointers become names, bits become columns."""

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.features import Features
from kalloctrace.kernel.machine import ZonelistKind, ZoneRef
from kalloctrace.kernel.memory_layout import MemoryLayout
from kalloctrace.kernel.nodelist import format_nodelist
from kalloctrace.probe.layout import enum_values
from kalloctrace.trace.inferred import Inferred
from kalloctrace.trace.schema import ALLOCATION

Allocations = npt.NDArray[np.void]

NODEMASK, TASK_CONTEXT, PREPARED, CALLER, MEMS_ALLOWED, OTHER, BULK_SINGLE = enum_values(
    "present",
    *("NODEMASK", "TASK_CONTEXT", "PREPARED"),
    *("AC_NODEMASK_CALLER", "AC_NODEMASK_MEMS_ALLOWED", "AC_NODEMASK_OTHER"),
    "BULK_SINGLE",
)
CPUSETS_ENABLED, CPUSETS_SWITCHING, DEFRAG_MODE = enum_values(
    "switches", "CPUSETS_ENABLED", "CPUSETS_SWITCHING", "DEFRAG_MODE"
)

_UNKNOWN_ZONE = -1


class AllocationMaker:
    """Makes the trace's allocations from those that one recording captured.

    Args:
        layout: the addresses of the machine's zones and zonelists.
        btf: the kernel's types.
        features: the kernel's rules.
        possible_nodes: a bit mask of the node ids that may exist; other bits of a nodemask are ignored.
        inferred: the facts that were not captured.
    """

    def __init__(
        self,
        layout: MemoryLayout,
        btf: Btf,
        features: Features,
        possible_nodes: int,
        inferred: Collection[Inferred] = (),
    ) -> None:
        self._owners = layout.zonelist_addresses
        self._zonerefs = _zoneref_addresses(layout, btf.size("zoneref"))
        self._possible = possible_nodes
        self._features = features
        self._inferred = inferred

    def make(self, captured: Allocations) -> pa.StructArray:
        """Return one allocation for each captured one, in order.

        Args:
            captured: `struct allocation` of record.h, all distinct.
        """
        rows = [self._row(row) for row in captured]
        return pa.array(rows, ALLOCATION)

    def _row(self, row: np.void) -> dict[str, Any]:
        present, switches = int(row["present"]), int(row["switches"])
        features = self._features
        context = bool(present & TASK_CONTEXT)
        made = {
            "entry": "bulk_single" if present & BULK_SINGLE else "normal",
            **{name: int(row[name]) for name in ("gfp_mask", "order", "preferred_nid")},
            "task_flags": int(row["task_flags"]) if features.reads_task_flags else None,
            "nodemask": self._nodes(row["nodemask_nodes"]) if present & NODEMASK else None,
            "entry_alloc_flags": int(row["entry_alloc_flags"]) if features.entry_alloc_flags else None,
            "preempt_count": int(row["preempt_count"]) if context else None,
            "mems_allowed": self._nodes(row["mems_allowed"]) if context else None,
            "cpusets_enabled": -1 if switches & CPUSETS_SWITCHING else int(bool(switches & CPUSETS_ENABLED)),
            "gfp_allowed_mask": int(row["gfp_allowed_mask"]),
            "defrag_mode": bool(switches & DEFRAG_MODE),
            "softirq_disable_cnt": int(row["softirq_disable_cnt"]) if context and features.config_preempt_rt else None,
            "freelist_calls": int(bool(present & PREPARED)),
        }
        if not present & PREPARED:
            return made
        shown = self._context(row, present)
        if "preferred_nid" in self._inferred:
            made["preferred_nid"] = shown["zonelist_nid"]
        return made | shown

    def _context(self, row: np.void, present: int) -> dict[str, Any]:
        """Return the columns with the arguments of the first get_page_from_freelist()."""
        kind, nid = self._owners.get(int(row["zonelist"]), (None, None))
        known = int(row["preferred_zoneref"]) in self._zonerefs
        zone = self._zonerefs.get(int(row["preferred_zoneref"]), ZoneRef(_UNKNOWN_ZONE, _UNKNOWN_ZONE))
        pointer = next(
            (
                name
                for bit, name in ((CALLER, "caller"), (MEMS_ALLOWED, "mems_allowed"), (OTHER, "other"))
                if present & bit
            ),
            "null",
        )
        return {
            "freelist_gfp_mask": int(row["freelist_gfp_mask"]),
            # The program pairs the two probes only if both have the same order.
            "freelist_order": int(row["order"]),
            "alloc_flags": int(row["alloc_flags"]),
            "zonelist_kind": kind,
            "zonelist_nid": nid,
            "ac_nodemask": pointer,
            "ac_nodemask_nodes": None if pointer == "null" else self._nodes(row["ac_nodemask_nodes"]),
            "preferred_node": None if known and zone is None else zone and zone.node,
            "preferred_zone": None if known and zone is None else zone and zone.zone,
            "migratetype": int(row["migratetype"]),
            "highest_zoneidx": int(row["highest_zoneidx"]),
            "spread_dirty_pages": bool(row["spread_dirty_pages"]),
        }

    def _nodes(self, words: npt.NDArray[np.uint64]) -> str:
        return format_nodelist(int.from_bytes(words.tobytes(), "little") & self._possible)


def _zoneref_addresses(layout: MemoryLayout, size: int) -> dict[int, ZoneRef | None]:
    """Return the zone of each zoneref of each zonelist, by its address; None for the terminating zoneref."""
    addresses: dict[int, ZoneRef | None] = {}
    for start, (kind, nid) in layout.zonelist_addresses.items():
        for position, zone in enumerate((*_entries(layout, kind, nid), None)):
            addresses[start + position * size] = zone
    return addresses


def _entries(layout: MemoryLayout, kind: ZonelistKind, nid: int) -> tuple[ZoneRef, ...]:
    return layout.zonelists[kind][nid]
