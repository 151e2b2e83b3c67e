# SPDX-License-Identifier: MIT
"""The columns of the tables, with their descriptions. The pages of the documentation are made of them.

Most come from the columns of a trace, with a name that is no SQL keyword. A mask, a zone or a migratetype has a column
of text next to its number.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from kalloctrace.trace.schema import ROWS
from kalloctrace.trace.slow_split import PARTS
from kalloctrace.trace.slowpath import SLOW

NAMES: Mapping[str, str] = {
    "time": "time_ns",
    "order": "page_order",
    "count": "calls",
    "page": "got_page",
    "stack": "stack_id",
    **{name: f"{name}_ns" for name in ("duration", *PARTS)},
    "after": "after_ns",
    "between": "events_before",
    "after_last": "events_after",
    "at": "captured_at",
    "zone": "zone_index",
    **{name: f"{name}_pages" for name in ("free", "free_cma", "min", "low", "high", "boost", "managed")},
    **{name: f"{name}_pages" for name in ("reserved_highatomic", "free_highatomic", "lowmem_reserve")},
}
"""Columns of a trace that have another name in a table."""

TEXTS: Mapping[str, tuple[str, str]] = {
    "gfp_mask": ("gfp", "gfp"),
    "freelist_gfp_mask": ("freelist_gfp", "gfp"),
    "prepare_alloc_mask": ("prepare_alloc_gfp", "gfp"),
    "bulk_single_gfp_mask": ("bulk_single_gfp", "gfp"),
    "gfp_allowed_mask": ("gfp_allowed", "gfp"),
    "alloc_flags": ("alloc_flags_text", "alloc_flags"),
    "entry_alloc_flags": ("entry_alloc_flags_text", "alloc_flags"),
    "prepare_alloc_flags": ("prepare_alloc_flags_text", "alloc_flags"),
    "ac_alloc_flags": ("ac_alloc_flags_text", "alloc_flags"),
    "preferred_zone": ("preferred_zone_name", "zone"),
    "highest_zoneidx": ("highest_zone_name", "zone"),
    "zone": ("zone_name", "zone"),
    "migratetype": ("migratetype_name", "migratetype"),
}
"""Columns of a trace that are numbers with names: the column of text, and the kind of its names."""

_TEXT_ABOUT = {
    "gfp": "the names of {}, as the recorded kernel prints them",
    "alloc_flags": "the names of {}",
    "zone": "the name of the zone of {}; null if the zone is not in the snapshot",
    "migratetype": "the name of {}",
}
_ABOUTS: Mapping[str, str] = {
    "cpu": "CPU at that time",
    "preempt_count": "the CPU's preempt_count, raw; of a slow call at its first attempt; null if not captured",
    "after_last": "events after the last attempt, as in events_before",
}
"""Descriptions of columns that stand alone in a table."""
_STACK_ID = "its kernel stack in the table stacks; null if none was recorded"
_SLOW_CALL_ID = "the call in the table slow_calls"


def _field(name: str, kind: pa.DataType, about: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"about": about})


def _about(field: pa.Field) -> str:
    about: str = _ABOUTS.get(field.name) or field.metadata[b"about"].decode()
    return about


def _of_trace(fields: Iterable[pa.Field]) -> Iterator[pa.Field]:
    """Yield the columns of a table for columns of a trace."""
    for field in fields:
        name = NAMES.get(field.name, field.name)
        if field.name == "stack":
            yield _field(name, pa.int64(), _STACK_ID)
            continue
        yield _field(name, field.type, _about(field), nullable=field.nullable)
        if field.name in TEXTS:
            text, kind = TEXTS[field.name]
            about = _TEXT_ABOUT[kind].format(name)
            yield _field(text, pa.dictionary(pa.int32(), pa.utf8()), about, nullable=True)


def _schema(about: str, fields: Sequence[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={"about": about})


_SLOW_FIELDS = {field.name: field for field in SLOW}
_ATTEMPT = _SLOW_FIELDS["attempts"].type.value_type
_ZONE = _SLOW_FIELDS["zones"].type.value_type
_U64, _TEXT, _BOOL = pa.uint64(), pa.utf8(), pa.bool_()

TABLES: Mapping[str, pa.Schema] = {
    "allocations": _schema(
        "A row for each call of the page allocator; in an aggregate, for equal calls, without their times and tasks.",
        [
            *_of_trace(ROWS),
            _field(
                "bytes_each",
                pa.int64(),
                "bytes of the pages that each of its calls got; of the requested pages "
                "if it was not recorded whether they got them",
                nullable=False,
            ),
        ],
    ),
    "slow_calls": _schema(
        "A row for each call of the slow path, __alloc_pages_slowpath(), also in an aggregate.",
        [
            _field("slow_call_id", pa.int64(), "number of the row", nullable=False),
            *_of_trace(_SLOW_FIELDS[name] for name in ("time", "cpu", "pid", "tid", "comm", "stack", "cgroup")),
            *_of_trace(_SLOW_FIELDS["given"].type),
            *_of_trace(_SLOW_FIELDS[name] for name in ("page", "duration", *PARTS, "complete", "after_last")),
            _field("attempt_count", pa.int32(), "its rows in the table attempts", nullable=False),
            _field("direct_reclaims", pa.int32(), "how often it reclaimed pages itself", nullable=False),
            _field("compactions", pa.int32(), "how often it compacted memory itself", nullable=False),
            _field("oom_kills", pa.int32(), "how often it let the OOM killer choose a task", nullable=False),
        ],
    ),
    "attempts": _schema(
        "A row for each call of get_page_from_freelist() in the slow path.",
        [
            _field("slow_call_id", pa.int64(), _SLOW_CALL_ID, nullable=False),
            _field("attempt_number", pa.int32(), "1 for the first of the call", nullable=False),
            *_of_trace(_ATTEMPT),
        ],
    ),
    "zones": _schema(
        "A row for the state of each zone of a call of the slow path, when it begins and when it returns.",
        [_field("slow_call_id", pa.int64(), _SLOW_CALL_ID, nullable=False), *_of_trace(_ZONE)],
    ),
    "stacks": _schema(
        "A row for each different kernel stack.",
        [
            _field("stack_id", pa.int64(), "number of the row", nullable=False),
            _field("folded", _TEXT, "its functions, outermost;…;innermost", nullable=False),
            _field("frames", pa.list_(_TEXT), "its functions, innermost first", nullable=False),
            _field("caller", _TEXT, "the function that called the page allocator; null if the stack does not show it"),
        ],
    ),
    "cgroups": _schema(
        "A row for each control group that calls come from, with its pod and container if its path shows them.",
        [
            _field("cgroup", _TEXT, "path in its hierarchy", nullable=False),
            _field("pod_uid", _TEXT, "UID of the Kubernetes pod; null outside a pod"),
            _field("container_id", _TEXT, "the runtime's id of the innermost container; null outside a container"),
            _field("pod_namespace", _TEXT, "namespace of the pod; null if the recorder did not find it"),
            _field("pod", _TEXT, "name of the pod; null likewise"),
            _field("container", _TEXT, "name of the container; null likewise"),
        ],
    ),
    "flags": _schema(
        "A row for each name that the recorded kernel has for a bit, a mask or a number.",
        [
            _field("flag_kind", _TEXT, "gfp, alloc_flags, task_flags, zone or migratetype", nullable=False),
            _field("flag_name", _TEXT, "such as __GFP_IO or ALLOC_CMA", nullable=False),
            _field("flag_value", pa.uint32(), "its value in this kernel", nullable=False),
            _field("meaning", _TEXT, "what it means; null if it is a combination of others"),
        ],
    ),
    "recording": _schema(
        "One row: the kernel and machine, how the trace was recorded, and what is missing from it.",
        [
            _field("trace", _TEXT, "name of the file", nullable=False),
            _field("kernel_release", _TEXT, "release of the recorded kernel", nullable=False),
            _field("kernel_version", _TEXT, "its version, as uname -v prints it", nullable=False),
            _field("recorded_as", _TEXT, "stream or aggregate", nullable=False),
            _field("started_at", _TEXT, "wall-clock time of the start; null if it is not known"),
            _field("duration_ns", _U64, "length of the recording; null if its end is missing"),
            _field("sampled_every", pa.int64(), "1 call in this many was recorded", nullable=False),
            _field("truncated", _BOOL, "the end of the recording is missing", nullable=False),
            _field("damage", _TEXT, "what stopped the reading; null if nothing did"),
            _field("lost_calls", _U64, "captured calls that are not in the trace; null if its end is missing"),
            _field("missed_hits", _U64, "probe hits that the kernel skipped; null if its end is missing"),
            _field("lost_slow_events", _U64, "events of the slow path that were lost or missed; null likewise"),
            _field("snapshot_json", _TEXT, "the kernel and machine, as the trace has them", nullable=False),
            _field("recording_json", _TEXT, "how the trace was recorded, as the trace has it", nullable=False),
        ],
    ),
}
"""The tables. A description is the metadata `about` of a table and of a column."""
