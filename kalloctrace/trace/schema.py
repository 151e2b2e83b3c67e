# SPDX-License-Identifier: MIT
"""What a trace holds: its columns, its layout in the file, and its metadata.

A trace is an Arrow IPC stream (.arrows). The schema's metadata carries the format's number, the kernel's snapshot and
how the recording was made, as JSON; a last batch without rows carries the totals as its own metadata. Without that
batch the recording was cut off, and holds what came before.

Format 2 stores each combination of request, context and observation, an ALLOCATION, once: as an entry of the
dictionary that the column `allocation` refers to. The dictionary grows during a recording, by dictionary deltas, so
that an index means the same from its first batch to the last; a reader must not rely on that, as a stream may also
replace a dictionary. There are two layouts:

- STREAM, where `recording["mode"]` is "stream": a row is a call, with its time and task. Its batches are not
  compressed: lz4 would cost more instructions an event than all the rest of the writing.
- AGGREGATE, where it is "aggregate": a row says how many calls an allocation stands for, since the row before that is
  about it. Nothing is known of the time and task of a call.

Format 1, of which the fixtures are, has a row a call too, but each with all COLUMNS. Reader and `export` give both as
ROWS.

Of other programs pyarrow reads format 2 as it is, and polars what pyarrow has read; polars alone refuses dictionary
deltas, and pandas and DuckDB fail at dictionaries of structures (polars 2.1.0, pandas 3.1.1, DuckDB 2.0.1). For these
there is `export`.

Of a call of the bulk allocator the prepared context cannot be seen, as it never calls get_page_from_freelist(): every
column that this call fills is null there, and freelist_calls is 0 though nothing was rejected. What shows instead are
the nodes and zones of the pages that it took itself (not those that were in the array before, not those on a list),
and the mask with which it calls the normal entry where it leaves a page to that; this call is a row of its own.

A row whose entry is TRACEPOINT is an event of kmem:mm_page_alloc that another tool recorded. It has order, migratetype,
and whether there was a page; its gfp_mask is the event's, which is the mask as the kernel had changed it, not as it was
asked for; its time is the event's, by that tool's clock; its pid is the thread's where the tool does not tell the
process's. Everything else is null: not known.
"""

from types import MappingProxyType

import pyarrow as pa

FORMAT = 2
"""Raised when a reader of today could misread a trace of tomorrow; a new column alone does not."""
READABLE = (1, FORMAT)

FORMAT_KEY = b"kalloctrace.format"
SNAPSHOT_KEY = b"kalloctrace.snapshot"
RECORDING_KEY = b"kalloctrace.recording"
TOTALS_KEY = b"kalloctrace.totals"

TRACEPOINT = "tracepoint"

_NAMES = pa.dictionary(pa.int32(), pa.utf8())


def _column(name: str, kind: pa.DataType, about: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"about": about})


TASK_COLUMNS = (
    _column("time", pa.uint64(), "CLOCK_MONOTONIC at the entry, ns"),
    _column("cpu", pa.uint32(), "CPU at the entry"),
    _column("pid", pa.int32(), "process id (tgid) of the current task, also in interrupts"),
    _column("tid", pa.int32(), "thread id of the current task"),
    _column("comm", _NAMES, "name of the current task"),
    _column("stack", _NAMES, "kernel stack, outermost;…;innermost, where asked for", nullable=True),
)

REQUEST = (
    _column(
        "entry",
        _NAMES,
        "normal; nolock: an entry without locks with a stage of its own; bulk: the bulk allocator; bulk_single: the "
        "normal one, called by the bulk allocator; tracepoint: another tool's event, see above",
    ),
    _column("gfp_mask", pa.uint32(), "the entry's gfp argument; 0 where it has none; an event's mask"),
    _column("order", pa.uint32(), "the entry's order argument; 0 where it has none"),
    _column("preferred_nid", pa.int32(), "the entry's node argument", nullable=True),
    _column(
        "nodemask",
        _NAMES,
        "nodes in the entry's nodemask argument, as a list; null where it is NULL",
        nullable=True,
    ),
    _column(
        "entry_alloc_flags", pa.uint32(), "the entry's alloc_flags argument; null where it has none", nullable=True
    ),
    _column("nr_pages", pa.int32(), "the bulk allocator's argument: pages that shall be there", nullable=True),
    _column(
        "nr_populated",
        pa.uint32(),
        "leading elements of its array that held a page already; null also where they are too many to be counted",
        nullable=True,
    ),
)

CONTEXT = (
    _column("task_flags", pa.uint32(), "current->flags", nullable=True),
    _column(
        "preempt_count",
        pa.uint32(),
        "the CPU's preempt_count, raw; null where it was not captured as nothing depended on it",
        nullable=True,
    ),
    _column(
        "mems_allowed",
        _NAMES,
        "current->mems_allowed, as a list; null where it was not captured as nothing depended on it: cpusets were off",
        nullable=True,
    ),
    _column("cpusets_enabled", pa.int32(), "the counter of cpusets_enabled_key", nullable=True),
    _column("gfp_allowed_mask", pa.uint32(), "gfp_allowed_mask", nullable=True),
    _column("defrag_mode", pa.bool_(), "vm.defrag_mode is on", nullable=True),
    _column("softirq_disable_cnt", pa.uint32(), "current->softirq_disable_cnt, where the kernel has it", nullable=True),
    _column("numa_node_id", pa.int32(), "the CPU's node, where the entry is nolock", nullable=True),
    _column("memcg_kmem_online", pa.bool_(), "memcg_kmem_online(), where the entry is bulk", nullable=True),
    _column("page_owner_inited", pa.bool_(), "the key of that name, where the entry is bulk", nullable=True),
)

OBSERVED = (
    _column(
        "freelist_calls",
        pa.uint32(),
        "calls of get_page_from_freelist() for this request; 0: it was rejected",
        nullable=True,
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
    _column(
        "page", pa.bool_(), "the entry returned a page, not NULL; null where its return was not traced", nullable=True
    ),
)

BULK = (
    _column(
        "bulk_returned",
        pa.uint32(),
        "pages in the bulk allocator's array when it returned, or on its list",
        nullable=True,
    ),
    _column(
        "bulk_seen",
        pa.uint32(),
        "how many of those that it took itself were looked at: of the first 128 elements, none on a list",
        nullable=True,
    ),
    _column("bulk_nodes", _NAMES, "nodes of the pages that were looked at, as a list", nullable=True),
    _column("bulk_zones", _NAMES, "indexes of their zones, as a list", nullable=True),
    _column("bulk_list", pa.bool_(), "its pages go on a list, not into an array", nullable=True),
    _column(
        "bulk_single_gfp_mask",
        pa.uint32(),
        "gfp argument of its call of the normal entry for a single page; null where it made none",
        nullable=True,
    ),
)

COLUMNS = pa.schema([*TASK_COLUMNS, *REQUEST, *CONTEXT, *OBSERVED, *BULK])
"""A call as the recorder gives it to the writer."""

COUNT = _column("count", pa.uint64(), "calls that the row stands for")

ROWS = pa.schema([*(field.with_nullable(True) for field in TASK_COLUMNS), *REQUEST, *CONTEXT, *OBSERVED, *BULK, COUNT])
"""A row as the reader gives it, of any format; who called is null in an aggregate."""

ALLOCATION = pa.struct(
    [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in (*REQUEST, *CONTEXT, *OBSERVED, *BULK)
    ]
)
"""All of a call that decides or shows its preparation."""

_ALLOCATIONS = _column("allocation", pa.dictionary(pa.int32(), ALLOCATION), "request, context and what was observed")

STREAM = pa.schema([*TASK_COLUMNS, _ALLOCATIONS])
AGGREGATE = pa.schema([COUNT, _ALLOCATIONS])

LATER = MappingProxyType(
    {
        "entry": "normal",
        **dict.fromkeys(("nr_pages", "nr_populated", "softirq_disable_cnt", "numa_node_id")),
        **dict.fromkeys(("memcg_kmem_online", "page_owner_inited", "bulk_returned", "bulk_seen", "bulk_nodes")),
        **dict.fromkeys(("bulk_zones", "bulk_list", "bulk_single_gfp_mask")),
    }
)
"""Columns that came after the first traces, and what their absence means."""


def frames_of(stack: str) -> list[str]:
    """Return the functions of the column "stack", innermost first."""
    return stack.split(";")[::-1]
