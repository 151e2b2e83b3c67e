# SPDX-License-Identifier: MIT
"""The format of a trace: its columns, its layouts in the file, and its metadata.

A trace is an Arrow IPC stream (.arrows). The schema's metadata has the format's number, and as JSON the kernel's
snapshot and how the recording was made. The last batch has no rows and has the totals in its own metadata. A trace
without this batch is truncated.

Format 2 stores each combination of request, context and observation, an ALLOCATION, once: as an entry of the
dictionary of the column `allocation`. The dictionary grows during a recording by dictionary deltas, so an index
mostly means the same in the next batch. A reader must not rely on it: a full dictionary is replaced. There are two
layouts:

- STREAM, if `recording["mode"]` is "stream": a row is a call, with its time and task. Batches are not compressed,
  because lz4 would take more instructions for an event than all other parts of writing.
- `aggregate_schema`, if it is "aggregate": a row is the number of calls of an allocation since the previous row of the
  same allocation. It does not have the time and task of a call; but if `recording["by"]` is "comm" or "cgroup", calls
  are also counted by the column of this name.

In format 1, which many fixtures have, a row is a call with all COLUMNS. The reader and `export` return both formats as
ROWS.

pyarrow reads format 2 directly, and polars takes what pyarrow has read. polars itself refuses dictionary deltas;
pandas and DuckDB fail on dictionaries of structures (polars 2.1.0, pandas 3.1.1, DuckDB 2.0.1). Use `export` for them.

The bulk allocator never calls get_page_from_freelist(), so its prepared context cannot be captured: the columns of
that call are null, and freelist_calls is 0 although nothing was rejected. Captured instead are the nodes and zones of
the pages that it took (not those in the array before the call, and not those on a list), and the mask with which it
calls the normal entry for a single page. That call is a row of its own.

A row with the entry TRACEPOINT is an event of kmem:mm_page_alloc that another tool recorded. It has the order, the
migratetype, and whether there was a page. Its gfp_mask is the event's: the mask after the kernel changed it, not the
requested one. Its time is by that tool's clock. Its pid is the thread's id if the tool does not print the process's.
All other columns are null.
"""

from types import MappingProxyType

import pyarrow as pa

FORMAT = 2
"""Incremented when an older reader would misread a newer trace; a new column does not require it."""
READABLE = (1, FORMAT)

FORMAT_KEY = b"kalloctrace.format"
SNAPSHOT_KEY = b"kalloctrace.snapshot"
RECORDING_KEY = b"kalloctrace.recording"
TOTALS_KEY = b"kalloctrace.totals"

MOST_STACK = 1 << 14
"""Bytes of a stack: 127 functions, the most that a kernel follows (PERF_MAX_STACK_DEPTH), of 128 characters each."""

TRACEPOINT = "tracepoint"

_COUNTED_BY = ("comm", "cgroup")
_NAMES = pa.dictionary(pa.int32(), pa.utf8())


def _column(name: str, kind: pa.DataType, about: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"about": about})


TASK_COLUMNS = (
    _column("time", pa.uint64(), "CLOCK_MONOTONIC at the entry, ns"),
    _column("cpu", pa.uint32(), "CPU at the entry"),
    _column("pid", pa.int32(), "process id (tgid) of the current task, also in interrupts"),
    _column("tid", pa.int32(), "thread id of the current task"),
    _column("comm", _NAMES, "name of the current task"),
    _column("stack", _NAMES, "kernel stack, outermost;…;innermost, if requested", nullable=True),
)

REQUEST = (
    _column(
        "entry",
        _NAMES,
        "normal; nolock: the entry without locks, with its own preparation; bulk: the bulk allocator; bulk_single: the "
        "normal entry, called by the bulk allocator; tracepoint: kmem:mm_page_alloc, recorded by another tool",
    ),
    _column("gfp_mask", pa.uint32(), "the entry's gfp argument; 0 if it has none; the mask of an event"),
    _column("order", pa.uint32(), "the entry's order argument; 0 if it has none"),
    _column("preferred_nid", pa.int32(), "the entry's node argument", nullable=True),
    _column(
        "nodemask",
        _NAMES,
        "nodes in the entry's nodemask argument, as a list; null if it is NULL",
        nullable=True,
    ),
    _column("entry_alloc_flags", pa.uint32(), "the entry's alloc_flags argument; null if it has none", nullable=True),
    _column("nr_pages", pa.int32(), "the bulk allocator's nr_pages argument", nullable=True),
    _column(
        "nr_populated",
        pa.uint32(),
        "elements at the start of its array that already held a page; null also if there are too many to count",
        nullable=True,
    ),
)

CONTEXT = (
    _column(
        "task_flags",
        pa.uint32(),
        "current->flags; null if not captured because the stage does not read them",
        nullable=True,
    ),
    _column(
        "preempt_count",
        pa.uint32(),
        "the CPU's preempt_count, raw; null if not captured because nothing depended on it",
        nullable=True,
    ),
    _column(
        "mems_allowed",
        _NAMES,
        "current->mems_allowed, as a list; null if not captured because cpusets were off",
        nullable=True,
    ),
    _column("cpusets_enabled", pa.int32(), "the counter of cpusets_enabled_key", nullable=True),
    _column("gfp_allowed_mask", pa.uint32(), "gfp_allowed_mask", nullable=True),
    _column("defrag_mode", pa.bool_(), "vm.defrag_mode is on", nullable=True),
    _column("softirq_disable_cnt", pa.uint32(), "current->softirq_disable_cnt, if the kernel has it", nullable=True),
    _column("numa_node_id", pa.int32(), "the CPU's node, if the entry is nolock", nullable=True),
    _column("memcg_kmem_online", pa.bool_(), "memcg_kmem_online(), if the entry is bulk", nullable=True),
    _column("page_owner_inited", pa.bool_(), "the key page_owner_inited, if the entry is bulk", nullable=True),
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
        "FALLBACK or NOFALLBACK; null if ac->zonelist is not in the snapshot",
        nullable=True,
    ),
    _column("zonelist_nid", pa.int32(), "the node that owns ac->zonelist", nullable=True),
    _column("ac_nodemask", _NAMES, "what ac->nodemask points to: null, caller, mems_allowed, other", nullable=True),
    _column("ac_nodemask_nodes", _NAMES, "nodes in *ac->nodemask, as a list", nullable=True),
    _column(
        "preferred_node",
        pa.int32(),
        "node of ac->preferred_zoneref; null if its zone is NULL",
        nullable=True,
    ),
    _column("preferred_zone", pa.int32(), "its zone's index; -1 if the zone is not in the snapshot", nullable=True),
    _column("migratetype", pa.int32(), "ac->migratetype", nullable=True),
    _column("highest_zoneidx", pa.int32(), "ac->highest_zoneidx", nullable=True),
    _column("spread_dirty_pages", pa.bool_(), "ac->spread_dirty_pages", nullable=True),
    _column(
        "prepare_returned",
        pa.bool_(),
        "the return value of prepare_alloc_pages(), if traced",
        nullable=True,
    ),
    _column("prepare_alloc_mask", pa.uint32(), "*alloc_mask at its return", nullable=True),
    _column("prepare_alloc_flags", pa.uint32(), "*alloc_flags at its return", nullable=True),
    _column(
        "prepare_same_context", pa.bool_(), "*ac at its return equals *ac at get_page_from_freelist()", nullable=True
    ),
    _column(
        "page", pa.bool_(), "the entry returned a page, not NULL; null if its return was not traced", nullable=True
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
        "number of examined pages among those that it took: at most the first 128 of an array, none of a list",
        nullable=True,
    ),
    _column("bulk_nodes", _NAMES, "nodes of the examined pages, as a list", nullable=True),
    _column("bulk_zones", _NAMES, "indexes of their zones, as a list", nullable=True),
    _column("bulk_list", pa.bool_(), "its pages are put on a list, not into an array", nullable=True),
    _column(
        "bulk_single_gfp_mask",
        pa.uint32(),
        "gfp argument of its call of the normal entry for a single page; null without such a call",
        nullable=True,
    ),
)

CGROUP = _column(
    "cgroup", _NAMES, "path of the task's control group; null if not recorded, ? if it is not known", nullable=True
)
"""A task column that was added later, so it is the last one in rows."""

COLUMNS = pa.schema([*TASK_COLUMNS, *REQUEST, *CONTEXT, *OBSERVED, *BULK, CGROUP])
"""A call as the recorder passes it to the writer."""

COUNT = _column("count", pa.uint64(), "calls that the row represents")

ROWS = pa.schema(
    [*(field.with_nullable(True) for field in TASK_COLUMNS), *REQUEST, *CONTEXT, *OBSERVED, *BULK, COUNT, CGROUP]
)
"""A row as the reader returns it, of any format; the task columns are null in an aggregate."""

ALLOCATION = pa.struct(
    [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in (*REQUEST, *CONTEXT, *OBSERVED, *BULK)
    ]
)
"""All columns of a call that determine or show its preparation."""

_ALLOCATIONS = _column("allocation", pa.dictionary(pa.int32(), ALLOCATION), "request, context and observation")

STREAM = pa.schema([*TASK_COLUMNS, CGROUP, _ALLOCATIONS])

COUNTED_BY = MappingProxyType({field.name: field for field in (*TASK_COLUMNS, CGROUP) if field.name in _COUNTED_BY})
"""The task columns that an aggregate may count calls by: one of them, if `recording["by"]` names it."""


def aggregate_schema(by: str | None) -> pa.Schema:
    """Return the columns of an aggregate.

    Args:
        by: a name of COUNTED_BY; None if calls are counted by their allocation alone.
    """
    return pa.schema([COUNT, *(() if by is None else (COUNTED_BY[by],)), _ALLOCATIONS])


LATER = MappingProxyType(
    {
        "entry": "normal",
        **dict.fromkeys(("nr_pages", "nr_populated", "softirq_disable_cnt", "numa_node_id")),
        **dict.fromkeys(("memcg_kmem_online", "page_owner_inited", "bulk_returned", "bulk_seen", "bulk_nodes")),
        **dict.fromkeys(("bulk_zones", "bulk_list", "bulk_single_gfp_mask", CGROUP.name)),
    }
)
"""Columns that were added after the first traces, and the values that they have where they are missing."""


def frames_of(stack: str) -> list[str]:
    """Return the functions of the column "stack", innermost first."""
    return stack.split(";")[::-1]
