# SPDX-License-Identifier: MIT
"""Calls of the slow path as a trace stores them, with each attempt and the state of the zones.

All rows of a trace have the same columns, so these calls are stored elsewhere: as an Arrow stream in the metadata of
batches without rows. Readers that do not know this metadata skip it.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from kalloctrace.trace.schema import CGROUP
from kalloctrace.trace.slow_split import PARTS

SLOW_KEY = b"kalloctrace.slow"

_Column = tuple[str, pa.DataType, str]

_CONTEXT: Sequence[_Column] = (
    ("gfp_mask", pa.uint32(), "the gfp argument"),
    ("order", pa.uint32(), "the order argument"),
    ("zonelist_kind", pa.utf8(), "FALLBACK or NOFALLBACK; null if ac->zonelist is not in the snapshot"),
    ("zonelist_nid", pa.int32(), "the node that owns ac->zonelist"),
    ("ac_nodemask", pa.utf8(), "what ac->nodemask points to: null, caller, mems_allowed, other"),
    ("ac_nodemask_nodes", pa.utf8(), "nodes in *ac->nodemask, as a list"),
    ("preferred_node", pa.int32(), "node of ac->preferred_zoneref; null if its zone is NULL"),
    ("preferred_zone", pa.int32(), "its zone's index; -1 if the zone is not in the snapshot"),
    ("migratetype", pa.int32(), "ac->migratetype"),
    ("highest_zoneidx", pa.int32(), "ac->highest_zoneidx"),
    ("spread_dirty_pages", pa.bool_(), "ac->spread_dirty_pages"),
    ("ac_alloc_flags", pa.uint32(), "ac->alloc_flags, where the kernel has it"),
    ("task_flags", pa.uint32(), "current->flags"),
    ("preempt_count", pa.uint32(), "the CPU's preempt_count, raw; in `given`, the first attempt's"),
    ("softirq_disable_cnt", pa.uint32(), "current->softirq_disable_cnt, where the kernel has it"),
    ("mems_allowed", pa.utf8(), "current->mems_allowed, as a list"),
    ("cpusets_enabled", pa.int32(), "the counter of cpusets_enabled_key"),
    ("gfp_allowed_mask", pa.uint32(), "gfp_allowed_mask"),
    ("defrag_mode", pa.bool_(), "vm.defrag_mode is on"),
    ("prio", pa.int32(), "current->prio"),
    ("oom_victim", pa.bool_(), "current->signal->oom_mm is not NULL"),
)

_ATTEMPT: Sequence[_Column] = (
    ("after", pa.uint64(), "ns since the slow path was entered"),
    ("alloc_flags", pa.uint32(), "the alloc_flags argument"),
    (
        "between",
        pa.list_(pa.utf8()),
        "events since the previous attempt: direct_reclaim, compaction, oom, where the kernel has their tracepoints",
    ),
    *_CONTEXT,
)

_ZONE: Sequence[_Column] = (
    ("at", pa.utf8(), "begins or returns: when it was captured"),
    ("node", pa.int32(), "its node"),
    ("zone", pa.int32(), "its index"),
    ("free", pa.int64(), "vm_stat[NR_FREE_PAGES], pages; without the per-CPU differences"),
    ("free_cma", pa.int64(), "vm_stat[NR_FREE_CMA_PAGES]; 0 without CMA"),
    ("min", pa.uint64(), "_watermark[WMARK_MIN], pages"),
    ("low", pa.uint64(), "_watermark[WMARK_LOW]"),
    ("high", pa.uint64(), "_watermark[WMARK_HIGH]"),
    ("boost", pa.uint64(), "watermark_boost"),
    ("reserved_highatomic", pa.uint64(), "nr_reserved_highatomic"),
    ("free_highatomic", pa.uint64(), "nr_free_highatomic, where the kernel has it"),
    ("lowmem_reserve", pa.list_(pa.int64()), "lowmem_reserve[], by the highest zone of a request"),
    ("managed", pa.uint64(), "managed_pages"),
    ("free_blocks", pa.list_(pa.uint64()), "free_area[order].nr_free, by order"),
    ("free_types", pa.list_(pa.uint32()), "by order, the migratetypes with a free block: bit n is type n"),
)


def _struct(columns: Sequence[_Column]) -> pa.StructType:
    return pa.struct([pa.field(name, kind, metadata={"about": about}) for name, kind, about in columns])


CGROUP_COLUMN = CGROUP.with_type(pa.utf8())

LATER = (
    CGROUP_COLUMN,
    *(
        pa.field(name, pa.uint64(), metadata={"about": f"ns of `duration`: {about}; null without a return"})
        for name, about in PARTS.items()
    ),
)
"""Columns that the first traces do not have."""

SLOW = pa.schema(
    [
        pa.field(name, kind, metadata={"about": about})
        for name, kind, about in (
            ("time", pa.uint64(), "CLOCK_MONOTONIC when __alloc_pages_slowpath() was entered, ns"),
            ("cpu", pa.uint32(), "CPU then"),
            ("pid", pa.int32(), "process id (tgid) of the current task, also in interrupts"),
            ("tid", pa.int32(), "thread id of the current task"),
            ("comm", pa.utf8(), "name of the current task"),
            ("stack", pa.utf8(), "kernel stack, outermost;…;innermost"),
            ("given", _struct(_CONTEXT), "its arguments, and the other values that it reads"),
            ("attempts", pa.list_(_struct(_ATTEMPT)), "its calls of get_page_from_freelist(), in order"),
            ("after_last", pa.list_(pa.utf8()), "events after the last attempt, as in `between`"),
            ("page", pa.bool_(), "it returned a page, not NULL; null if its return was not captured"),
            ("duration", pa.uint64(), "ns until it returned; null if its return was not captured"),
            ("complete", pa.bool_(), "no event was lost while it ran"),
            ("zones", pa.list_(_struct(_ZONE)), "the zones of its zonelist; empty if the buffer for them was full"),
        )
    ]
    + [*LATER]
)
"""A row is a call of the slow path."""


MOST_UNPACKED = 32 << 20
"""Bytes of the calls in one batch of the file; as Python objects they are ten times as large."""


def encode_slow_calls(calls: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield calls, each with all columns of SLOW, as texts, because metadata must be text; each text can be decoded."""
    yield from _encoded(pa.Table.from_pylist(list(calls), SLOW))


def _encoded(table: pa.Table) -> Iterator[str]:
    if table.num_rows > 1 and table.nbytes > MOST_UNPACKED // 2:
        # On a machine with many nodes each call has megabytes of zones.
        half = table.num_rows // 2
        yield from _encoded(table.slice(0, half))
        yield from _encoded(table.slice(half))
        return
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SLOW, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    yield base64.b64encode(sink.getvalue()).decode()
