# SPDX-License-Identifier: MIT
"""Turns captured records into the rows of a trace: pointers become names, words become node lists."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.features import Features
from kalloctrace.kernel.memory_layout import MemoryLayout
from kalloctrace.kernel.nodelist import format_nodelist
from kalloctrace.trace.schema import COLUMNS

Records = npt.NDArray[np.void]
Bools = npt.NDArray[np.bool_]


class RowMaker:
    """Makes rows of the records of one recording.

    Args:
        layout: the addresses of the machine's zones and zonelists.
        btf: the kernel's types.
        features: the kernel's rules.
        possible_nodes: the node ids that may exist, as a set: bits beyond them in a nodemask mean nothing.
        stack_text: returns the text of a captured stack by its id.
    """

    def __init__(
        self,
        layout: MemoryLayout,
        btf: Btf,
        features: Features,
        possible_nodes: int,
        stack_text: Callable[[int], str],
    ) -> None:
        self._zone_addresses = layout.zone_addresses
        self._zonelist_addresses = layout.zonelist_addresses
        self._mems_allowed = btf.offset("task_struct", "mems_allowed")
        self._ac = {name: (btf.offset("alloc_context", name), kind) for name, kind in _ALLOC_CONTEXT.items()}
        self._possible = possible_nodes
        self._entry_alloc_flags = features.entry_alloc_flags
        self._stack_text = stack_text

    def rows(self, records: Records) -> pa.RecordBatch:
        """Return one row for each record, in order."""
        reached = records["freelist_calls"] > 0
        prepared = records["prepare_calls"] > 0
        columns = {
            "time": records["time"],
            "cpu": records["cpu"],
            "pid": (records["pid_tgid"] >> np.uint64(32)).astype(np.int32),
            "tid": (records["pid_tgid"] & np.uint64(0xFFFFFFFF)).astype(np.int32),
            "comm": _named(records["comm"], lambda comm: comm.decode(errors="replace")),
            "stack": _named(records["stack"], self._stack_text, records["stack"] >= 0),
            "nodemask": self._nodes(records["nodemask_nodes"], records["nodemask"] != 0),
            "mems_allowed": self._nodes(records["mems_allowed"]),
            "defrag_mode": records["defrag_mode"] != 0,
            "freelist_calls": records["freelist_calls"],
            "ac_nodemask": pa.DictionaryArray.from_arrays(
                pa.array(self._nodemask_kind(records), mask=~reached), _NODEMASK_KINDS
            ),
            "ac_nodemask_nodes": self._nodes(
                records["ac_nodemask_nodes"], reached & (self._member(records["ac"], "nodemask") != 0)
            ),
            "page": records["page"] != 0,
            "entry_alloc_flags": pa.array(
                records["entry_alloc_flags"], mask=np.full(len(records), not self._entry_alloc_flags)
            ),
        }
        for name in (
            "gfp_mask",
            "order",
            "preferred_nid",
            "task_flags",
            "preempt_count",
            "cpusets_enabled",
            "gfp_allowed_mask",
        ):
            columns[name] = records[name]
        for name in ("freelist_gfp_mask", "freelist_order", "alloc_flags"):
            columns[name] = pa.array(records[name], mask=~reached)
        for name in ("migratetype", "highest_zoneidx", "spread_dirty_pages"):
            columns[name] = pa.array(self._member(records["ac"], name), mask=~reached)
        columns["prepare_returned"] = pa.array(records["prepare_returned"] != 0, mask=~prepared)
        columns["prepare_same_context"] = pa.array(self._same_context(records), mask=~prepared | ~reached)
        for name in ("prepare_alloc_mask", "prepare_alloc_flags"):
            columns[name] = pa.array(records[name], mask=~prepared)
        columns |= self._zonelist(records, reached) | self._preferred(records, reached)
        arrays = [pa.array(columns[field.name]).cast(field.type) for field in COLUMNS]
        return pa.RecordBatch.from_arrays(arrays, schema=COLUMNS)

    def _nodes(self, words: npt.NDArray[np.uint64], present: Bools | None = None) -> pa.DictionaryArray:
        """Name sets of nodes, given as rows of 64-bit words."""
        return _named(
            words[:, 0] if words.shape[1] == 1 else words,
            lambda value: format_nodelist(int.from_bytes(value.tobytes(), "little") & self._possible),
            present,
        )

    def _nodemask_kind(self, records: Records) -> npt.NDArray[np.int32]:
        pointer = self._member(records["ac"], "nodemask")
        own = records["task"] + np.uint64(self._mems_allowed)
        kinds = np.select([pointer == 0, pointer == records["nodemask"], pointer == own], [0, 1, 2], 3)
        return kinds.astype(np.int32)

    def _member(self, ac: npt.NDArray[np.uint64], name: str) -> npt.NDArray[Any]:
        """Take a member out of copies of `struct alloc_context`, one a row."""
        offset, kind = self._ac[name]
        raw = np.ascontiguousarray(ac).view(np.uint8)[:, offset : offset + np.dtype(kind).itemsize]
        return np.ascontiguousarray(raw).view(kind).ravel()

    def _same_context(self, records: Records) -> Bools:
        """Tell where prepare_alloc_pages() left what get_page_from_freelist() was given."""
        pairs = [(self._member(records["prepare_ac"], name), self._member(records["ac"], name)) for name in self._ac]
        same: Bools = np.all([before == after for before, after in pairs], axis=0)
        return same

    def _zonelist(self, records: Records, reached: Bools) -> dict[str, pa.Array]:
        zonelist = self._member(records["ac"], "zonelist")
        unique, inverse = np.unique(zonelist, return_inverse=True)
        owners = [self._zonelist_addresses.get(int(address)) for address in unique]
        unknown = np.array([owner is None for owner in owners], dtype=bool)[inverse] | ~reached
        nids = np.array([owner[1] if owner else -1 for owner in owners], dtype=np.int32)[inverse]
        kinds = _named(zonelist, lambda a: self._zonelist_addresses[int(a)][0], ~unknown)
        return {"zonelist_kind": kinds, "zonelist_nid": pa.array(nids, mask=unknown)}

    def _preferred(self, records: Records, reached: Bools) -> dict[str, pa.Array]:
        address = records["preferred_zone"]
        absent = ~reached | (address == 0)
        unique, inverse = np.unique(address, return_inverse=True)
        refs = [self._zone_addresses.get(int(a), (-1, -1)) for a in unique]
        nodes = np.array([ref[0] for ref in refs], dtype=np.int32)[inverse]
        zones = np.array([ref[1] for ref in refs], dtype=np.int32)[inverse]
        # struct zoneref says the index too; where the two differ, neither is believed.
        zones[zones != records["preferred_zone_idx"]] = -1
        return {
            "preferred_node": pa.array(nodes, mask=absent),
            "preferred_zone": pa.array(zones, mask=absent),
        }


_ALLOC_CONTEXT = {
    "zonelist": "<u8",
    "nodemask": "<u8",
    "preferred_zoneref": "<u8",
    "migratetype": "<i4",
    "highest_zoneidx": "<i4",
    "spread_dirty_pages": "?",
}
"""The members of `struct alloc_context` that the stage sets, on every kernel from 5.8 on."""

_NODEMASK_KINDS = pa.array(["null", "caller", "mems_allowed", "other"])


def _named(values: npt.NDArray[Any], name: Callable[[Any], str], present: Bools | None = None) -> pa.DictionaryArray:
    """Encode values by a text for each distinct one.

    Args:
        values: one a row, or one row of words a row.
        name: returns the text of a value; not called for values that are absent everywhere.
        present: the rows that have a value at all, all of them by default.
    """
    chosen = values if present is None else values[present]
    unique, inverse = np.unique(chosen, axis=0, return_inverse=True)
    texts: dict[str, int] = {}
    positions = np.array([texts.setdefault(name(value), len(texts)) for value in unique], dtype=np.int32)
    indices = np.zeros(len(values), dtype=np.int32)
    if len(unique):
        indices[... if present is None else present] = positions[inverse.ravel()]
    absent = None if present is None else ~present
    return pa.DictionaryArray.from_arrays(pa.array(indices, mask=absent), pa.array(list(texts), pa.utf8()))
