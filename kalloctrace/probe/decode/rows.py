# SPDX-License-Identifier: MIT
"""Turns captured records into rows of a trace: pointers become names, bit masks become node lists."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.features import Features
from kalloctrace.kernel.memory_layout import MemoryLayout
from kalloctrace.kernel.nodelist import format_nodelist
from kalloctrace.probe.layout import enum_texts, enum_values
from kalloctrace.trace.schema import COLUMNS

Records = npt.NDArray[np.void]
Bools = npt.NDArray[np.bool_]


class RowMaker:
    """Makes rows from the records of one recording.

    Args:
        layout: the addresses of the machine's zones and zonelists.
        btf: the kernel's types.
        features: the kernel's rules.
        possible_nodes: a bit mask of the node ids that may exist; other bits of a nodemask are ignored.
        stack_text: returns the text of a captured stack by its id.
        group_path: returns the path of a control group by its id; None if groups are not recorded.
    """

    def __init__(
        self,
        layout: MemoryLayout,
        btf: Btf,
        features: Features,
        possible_nodes: int,
        stack_text: Callable[[int], str],
        *,
        group_path: Callable[[int], str] | None = None,
    ) -> None:
        self._zone_addresses = layout.zone_addresses
        self._zonelist_addresses = layout.zonelist_addresses
        self._mems_allowed = btf.offset("task_struct", "mems_allowed")
        self._ac = {name: (btf.offset("alloc_context", name), kind) for name, kind in _ALLOC_CONTEXT.items()}
        if btf.has_member("alloc_context", "alloc_flags"):
            self._ac["alloc_flags"] = (btf.offset("alloc_context", "alloc_flags"), "<u4")
        self._possible = possible_nodes
        self._features = features
        self._stack_text = stack_text
        self._group_path = group_path

    def rows(self, records: Records) -> pa.RecordBatch:
        """Return one row for each record, in order. The records are all `struct record` or all `struct bulk_record`."""
        reached = records["freelist_calls"] > 0
        prepared = records["prepare_calls"] > 0
        columns = {
            "time": records["time"],
            "cpu": records["cpu"],
            "pid": (records["pid_tgid"] >> np.uint64(32)).astype(np.int32),
            "tid": (records["pid_tgid"] & np.uint64(0xFFFFFFFF)).astype(np.int32),
            "comm": _named(records["comm"], lambda comm: comm.decode(errors="replace")),
            "stack": self.stacks(records["stack"]),
            **self._groups(records["cgroup"]),
            "nodemask": self._nodes(records["nodemask_nodes"], records["nodemask"] != 0),
            "mems_allowed": self._nodes(records["mems_allowed"]),
            "defrag_mode": records["defrag_mode"] != 0,
            "freelist_calls": records["freelist_calls"],
            "ac_nodemask": pa.DictionaryArray.from_arrays(
                pa.array(self._nodemask_kind(records), mask=~reached), _NODEMASK_KINDS
            ),
            "ac_nodemask_nodes": self._nodes(
                records["ac_nodemask_nodes"], reached & (self.member(records["ac"], "nodemask") != 0)
            ),
            "page": records["page"] != 0,
            "entry": pa.DictionaryArray.from_arrays(pa.array(records["entry"].astype(np.int32)), _ENTRIES),
            "softirq_disable_cnt": _where(records["softirq_disable_cnt"], self._features.config_preempt_rt),
            "numa_node_id": pa.array(records["numa_node_id"], mask=records["entry"] != _NOLOCK),
            "entry_alloc_flags": pa.array(
                records["entry_alloc_flags"],
                mask=(records["entry"] == _NOLOCK)
                | (records["entry"] == _BULK)
                | (not self._features.entry_alloc_flags),
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
            columns[name] = pa.array(self.member(records["ac"], name), mask=~reached)
        columns["prepare_returned"] = pa.array(records["prepare_returned"] != 0, mask=~prepared)
        columns["prepare_same_context"] = pa.array(self._same_context(records), mask=~prepared | ~reached)
        for name in ("prepare_alloc_mask", "prepare_alloc_flags"):
            columns[name] = pa.array(records[name], mask=~prepared)
        columns |= self._zonelist(records, reached) | self._preferred(records, reached)
        if "nr_pages" in (records.dtype.names or ()):
            columns |= self._bulk(records)
        arrays = [
            pa.array(columns[field.name]).cast(field.type)
            if field.name in columns
            else pa.nulls(len(records), field.type)
            for field in COLUMNS
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=COLUMNS)

    def stacks(self, ids: npt.NDArray[np.int32]) -> pa.DictionaryArray:
        """Return the text of each captured stack; null if the id is negative."""
        return _named(ids, self._stack_text, ids >= 0)

    def _groups(self, groups: npt.NDArray[np.uint64]) -> dict[str, pa.Array]:
        if self._group_path is None:
            return {}
        path = self._group_path
        return {"cgroup": _named(groups, lambda group: path(int(group)))}

    def _nodes(self, words: npt.NDArray[np.uint64], present: Bools | None = None) -> pa.DictionaryArray:
        """Return node lists of nodemasks, given as rows of 64-bit words."""
        return _named(
            words[:, 0] if words.shape[1] == 1 else words,
            lambda value: format_nodelist(int.from_bytes(value.tobytes(), "little") & self._possible),
            present,
        )

    def _bulk(self, records: Records) -> dict[str, pa.Array]:
        """Return the columns that only calls of the bulk allocator have."""
        examined = records["examined"] > 0
        populated = np.array([_leading_ones(words) for words in records["populated"]], dtype=np.uint32)
        limit = 64 * records["populated"].shape[1]
        return {
            "nr_pages": pa.array(records["nr_pages"]),
            "nr_populated": pa.array(populated, mask=(populated == limit) & (records["nr_pages"] > limit)),
            "memcg_kmem_online": pa.array(records["memcg_kmem"] > 0),
            "page_owner_inited": pa.array(records["page_owner"] > 0),
            "bulk_returned": pa.array(records["returned"]),
            "bulk_seen": pa.array(records["examined"]),
            "bulk_nodes": self._nodes(records["nodes"], examined),
            "bulk_zones": _named(records["zones"], lambda zones: format_nodelist(int(zones)), examined),
            "bulk_list": pa.array(records["page_array"] == 0),
            "bulk_single_gfp_mask": pa.array(records["single_gfp_mask"], mask=records["single_calls"] == 0),
        }

    def _nodemask_kind(self, records: Records) -> npt.NDArray[np.int32]:
        pointer = self.member(records["ac"], "nodemask")
        own = records["task"] + np.uint64(self._mems_allowed)
        kinds = np.select([pointer == 0, pointer == records["nodemask"], pointer == own], [0, 1, 2], 3)
        return kinds.astype(np.int32)

    def member(self, ac: npt.NDArray[np.uint64], name: str) -> npt.NDArray[Any]:
        """Return a member of copies of `struct alloc_context`, given one per row."""
        offset, kind = self._ac[name]
        raw = np.ascontiguousarray(ac).view(np.uint8)[:, offset : offset + np.dtype(kind).itemsize]
        return np.ascontiguousarray(raw).view(kind).ravel()

    def ac_alloc_flags(self, ac: npt.NDArray[np.uint64]) -> list[int | None]:
        """Return ac->alloc_flags of such copies; None if the kernel has no such member."""
        if "alloc_flags" not in self._ac:
            return [None] * len(ac)
        flags: list[int | None] = self.member(ac, "alloc_flags").tolist()
        return flags

    def _same_context(self, records: Records) -> Bools:
        """Return where get_page_from_freelist() received the context that prepare_alloc_pages() returned."""
        pairs = [
            (self.member(records["prepare_ac"], name), self.member(records["ac"], name)) for name in _ALLOC_CONTEXT
        ]
        same: Bools = np.all([before == after for before, after in pairs], axis=0)
        return same

    def _zonelist(self, records: Records, reached: Bools) -> dict[str, pa.Array]:
        zonelist = self.member(records["ac"], "zonelist")
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
        # struct zoneref has the index too. If the two differ, the zone counts as unknown.
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
"""The members of `struct alloc_context` that the preparation stage sets, on every kernel since 5.8."""

_ENTRY_TEXTS = {
    "ENTRY_NORMAL": "normal",
    "ENTRY_NOLOCK": "nolock",
    "ENTRY_BULK": "bulk",
    "ENTRY_BULK_SINGLE": "bulk_single",
}
_ENTRIES = pa.array(enum_texts("entry", _ENTRY_TEXTS))
"""In the order of the values of `enum entry`."""
_, _NOLOCK, _BULK, _ = enum_values("entry", *_ENTRY_TEXTS)

_NODEMASK_KINDS = pa.array(["null", "caller", "mems_allowed", "other"])


def _where(values: npt.NDArray[Any], known: bool) -> pa.Array:
    return pa.array(values, mask=np.full(len(values), not known))


def _leading_ones(words: npt.NDArray[np.uint64]) -> int:
    """Return the number of consecutive bits that are set, starting with bit 0 of the first word."""
    value = int.from_bytes(words.tobytes(), "little")
    return (~value & (value + 1)).bit_length() - 1


def _named(values: npt.NDArray[Any], name: Callable[[Any], str], present: Bools | None = None) -> pa.DictionaryArray:
    """Return the text of each value; the text of a distinct value is made once.

    Args:
        values: one value, or one row of words, for each row.
        name: returns the text of a value; not called for values that are present in no row.
        present: which rows have a value; all of them by default.
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
