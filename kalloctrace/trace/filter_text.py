# SPDX-License-Identifier: MIT
"""What a recording left out, in words."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.flags.tables import FlagTables
from kalloctrace.trace.inferred import Inferred, inferred_of

_SHOWN = {"nid": "node"}
_FIXED = {"failed": "failures only", "children": "the command and its descendants only"}
_MASKS = {"gfp_any": "any of gfp", "gfp_all": "all of gfp", "gfp_none": "none of gfp"}
_GFP_FACTS: Mapping[Inferred, tuple[tuple[str, ...], str]] = MappingProxyType(
    {
        "scope_bits": (
            ("__GFP_IO", "__GFP_FS", "__GFP_MOVABLE", "__GFP_DIRECT_RECLAIM", "__GFP_NOWARN"),
            "bits that a scope of the task changes are seen as it left them",
        ),
        "hardwall": (("__GFP_HARDWALL",), "while cpusets are on, __GFP_HARDWALL is always seen"),
    }
)
"""The bits of a mask that each fact concerns, and what a filter on them means. Source: current_gfp_context() in
include/linux/sched/mm.h, prepare_alloc_pages() in mm/page_alloc.c."""


def filter_words(recording: Mapping[str, Any], tables: FlagTables) -> Iterator[str]:
    """Yield the filters and limits that were in force.

    Args:
        recording: how a recording was made; its "filters" are null where they are not set.
        tables: of the recorded kernel.
    """
    notes = inferred_filters(recording, tables)
    for name, value in _filters_of(recording):
        text = _filter_text(name, value, tables)
        yield f"{text} ({notes[name]})" if name in notes else text


def inferred_filters(recording: Mapping[str, Any], tables: FlagTables) -> dict[str, str]:
    """Return the filters that select by a fact that the recording infers, with what each means, for people.

    Args:
        recording: how a recording was made.
        tables: of the recorded kernel.
    """
    inferred = inferred_of(recording)
    bits = dict(tables.gfp_bits)
    notes = {}
    for name, value in _filters_of(recording):
        if name == "nid" and "preferred_nid" in inferred:
            notes[name] = "the node that owns the zonelist, as the caller's is not captured"
        elif name in _MASKS and isinstance(value, int):
            found = [
                about
                for fact, (names, about) in _GFP_FACTS.items()
                if fact in inferred and any(value & bits.get(bit, 0) for bit in names)
            ]
            if "gfp_outside_allowed_mask" in inferred and decode_gfp(value, tables).unknown:
                found.append("bits outside gfp_allowed_mask are never seen")
            if found:
                notes[name] = "; ".join(found)
    return notes


def _filters_of(recording: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    filters = recording.get("filters")
    for name, value in filters.items() if isinstance(filters, dict) else ():
        if value is not None and value is not False:
            yield name, value


def _filter_text(name: str, value: Any, tables: FlagTables) -> str:  # noqa: ANN401  (any JSON value)
    if name in _MASKS and isinstance(value, int):
        return f"{_MASKS[name]} {value:#x} {decode_gfp(value, tables).text}"
    if name == "alloc_flags" and isinstance(value, int):
        return f"alloc_flags {value:#x} {decode_alloc(value, tables).text}"
    if name in _FIXED:
        return _FIXED[name]
    match name:
        case "sample":
            return f"1 call in {value:,}"
        case "max_rate":
            return f"at most {value:,} a second"
    return f"{_SHOWN.get(name, name)} {value}"
