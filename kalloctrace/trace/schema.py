# SPDX-License-Identifier: MIT
"""The columns of a trace and what its metadata holds.

A trace is an Arrow IPC stream. Each row is one call of the page allocator's entry. The schema's metadata carries the
format's number, the kernel's snapshot and how the recording was made; a last batch without rows carries the totals.
"""

import pyarrow as pa

FORMAT = 1
"""Raised when a reader of today could misread a trace of tomorrow; a new column alone does not."""

FORMAT_KEY = b"kalloctrace.format"
SNAPSHOT_KEY = b"kalloctrace.snapshot"
RECORDING_KEY = b"kalloctrace.recording"
TOTALS_KEY = b"kalloctrace.totals"

_NAMES = pa.dictionary(pa.int32(), pa.utf8())


def _column(name: str, kind: pa.DataType, about: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"about": about})


WHO = (
    _column("time", pa.uint64(), "CLOCK_MONOTONIC at the entry, ns"),
    _column("cpu", pa.uint32(), "CPU at the entry"),
    _column("pid", pa.int32(), "process id (tgid) of the current task, also in interrupts"),
    _column("tid", pa.int32(), "thread id of the current task"),
    _column("comm", _NAMES, "name of the current task"),
    _column("stack", _NAMES, "kernel stack, outermost;…;innermost, where asked for", nullable=True),
)

REQUEST = (
    _column("gfp_mask", pa.uint32(), "the entry's gfp argument"),
    _column("order", pa.uint32(), "the entry's order argument"),
    _column("preferred_nid", pa.int32(), "the entry's node argument"),
    _column(
        "nodemask",
        _NAMES,
        "nodes in the entry's nodemask argument, as a list; null where it is NULL",
        nullable=True,
    ),
    _column(
        "entry_alloc_flags", pa.uint32(), "the entry's alloc_flags argument; null where it has none", nullable=True
    ),
)

CONTEXT = (
    _column("task_flags", pa.uint32(), "current->flags"),
    _column("preempt_count", pa.uint32(), "the CPU's preempt_count, raw"),
    _column("mems_allowed", _NAMES, "current->mems_allowed, as a list"),
    _column("cpusets_enabled", pa.int32(), "the counter of cpusets_enabled_key"),
    _column("gfp_allowed_mask", pa.uint32(), "gfp_allowed_mask"),
    _column("defrag_mode", pa.bool_(), "vm.defrag_mode is on"),
)

OBSERVED = (
    _column(
        "freelist_calls",
        pa.uint32(),
        "calls of get_page_from_freelist() for this request; 0: it was rejected",
    ),
    _column("freelist_gfp_mask", pa.uint32(), "gfp argument of the first such call", nullable=True),
    _column("freelist_order", pa.uint32(), "its order argument", nullable=True),
    _column("alloc_flags", pa.uint32(), "its alloc_flags argument", nullable=True),
    _column(
        "zonelist_kind",
        _NAMES,
        "FALLBACK or NOFALLBACK; null where ac->zonelist is no known list",
        nullable=True,
    ),
    _column("zonelist_nid", pa.int32(), "the node that owns ac->zonelist", nullable=True),
    _column("ac_nodemask", _NAMES, "what ac->nodemask points to: null, caller, mems_allowed, other", nullable=True),
    _column("ac_nodemask_nodes", _NAMES, "nodes in *ac->nodemask, as a list", nullable=True),
    _column(
        "preferred_node",
        pa.int32(),
        "node of ac->preferred_zoneref; null where its zone is NULL",
        nullable=True,
    ),
    _column("preferred_zone", pa.int32(), "its zone's index; -1 where the zone is not known", nullable=True),
    _column("migratetype", pa.int32(), "ac->migratetype", nullable=True),
    _column("highest_zoneidx", pa.int32(), "ac->highest_zoneidx", nullable=True),
    _column("spread_dirty_pages", pa.bool_(), "ac->spread_dirty_pages", nullable=True),
    _column(
        "prepare_returned",
        pa.bool_(),
        "what prepare_alloc_pages() returned, where it is traced",
        nullable=True,
    ),
    _column("prepare_alloc_mask", pa.uint32(), "*alloc_mask at its return", nullable=True),
    _column("prepare_alloc_flags", pa.uint32(), "*alloc_flags at its return", nullable=True),
    _column("prepare_same_context", pa.bool_(), "*ac was the same then as at get_page_from_freelist()", nullable=True),
    _column("page", pa.bool_(), "the entry returned a page, not NULL"),
)

COLUMNS = pa.schema([*WHO, *REQUEST, *CONTEXT, *OBSERVED])
