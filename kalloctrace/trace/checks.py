# SPDX-License-Identifier: MIT
"""Checks the values of a trace's columns, before anything else uses them.

A column of rows and one of the same name in a call of the slow path have the same values.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from kalloctrace.kernel.nodelist import MAX_NUMNODES
from kalloctrace.kernel.shapes import U31, U53
from kalloctrace.kernel.snapshot import MAX_ORDER, MAX_ZONES
from kalloctrace.trace.schema import MOST_STACK
from kalloctrace.trace.slow_split import PARTS

MOST_CALLS = 1 << 62
"""Calls in one trace: their sums stay within 64 bits."""

_MOST_NS = 1 << 62
"""Nanoseconds: 146 years."""
_TEXT = 256
_PATH_MAX = 4096
"""The kernel's."""
_NODELIST = 4096
"""Bytes: every second of 1,024 nodes, which is the longest list, has 2,414."""


class _Range(NamedTuple):
    low: int
    high: int


_NODE, _ZONE, _PAGES, _COUNT = (
    _Range(-1, MAX_NUMNODES - 1),
    _Range(-1, MAX_ZONES - 1),
    _Range(-U53, U53),
    _Range(0, U31),
)
_RANGES: Mapping[str, _Range] = MappingProxyType(
    {
        "time": _Range(0, _MOST_NS),
        "duration": _Range(0, _MOST_NS),
        "after": _Range(0, _MOST_NS),
        **dict.fromkeys(PARTS, _Range(0, _MOST_NS)),
        "cpu": _Range(0, 1 << 16),
        "count": _Range(1, MOST_CALLS),
        **dict.fromkeys(("pid", "tid"), _Range(-1, U31)),
        **dict.fromkeys(("preferred_nid", "zonelist_nid", "preferred_node", "numa_node_id", "node"), _NODE),
        **dict.fromkeys(("preferred_zone", "highest_zoneidx", "zone"), _ZONE),
        "migratetype": _Range(-1, 255),
        **dict.fromkeys(("freelist_calls", "nr_populated", "bulk_returned", "bulk_seen"), _COUNT),
        **dict.fromkeys(("free", "free_cma", "min", "low", "high", "boost", "managed"), _PAGES),
        **dict.fromkeys(("reserved_highatomic", "free_highatomic", "lowmem_reserve", "free_blocks"), _PAGES),
    }
)

_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "entry": ("normal", "nolock", "bulk", "bulk_single", "tracepoint"),
        "zonelist_kind": ("FALLBACK", "NOFALLBACK"),
        "ac_nodemask": ("null", "caller", "mems_allowed", "other"),
        "at": ("begins", "returns"),
        **dict.fromkeys(("between", "after_last"), ("direct_reclaim", "compaction", "oom")),
    }
)

_LENGTHS: Mapping[str, int] = MappingProxyType(
    {
        "stack": MOST_STACK,
        "cgroup": _PATH_MAX,
        **dict.fromkeys(("nodemask", "mems_allowed", "ac_nodemask_nodes", "bulk_nodes", "bulk_zones"), _NODELIST),
    }
)

_ITEMS: Mapping[str, int] = MappingProxyType(
    {"lowmem_reserve": MAX_ZONES, "free_blocks": MAX_ORDER + 1, "free_types": MAX_ORDER + 1}
)
"""The most items that one list of this name has."""


def check_values(name: str, values: pa.Array, *, nullable: bool) -> None:
    """Check the values of a column and of everything inside it. The memory of the column was validated before.

    Args:
        name: the column's.
        values: its values; of a dictionary-encoded column, those of the dictionary.
        nullable: it may have nulls.

    Raises:
        pyarrow.ArrowInvalid: a value is missing, or is none that a recorder writes.
    """
    if not nullable and values.null_count:
        raise pa.ArrowInvalid(f"column {name} must not have a null")
    kind = values.type
    if pa.types.is_list(kind):
        longest = pc.max(pc.list_value_length(values)).as_py() or 0
        if longest > _ITEMS.get(name, longest):
            raise pa.ArrowInvalid(f"column {name} has a list of {longest:,} items")
        check_values(name, values.flatten(), nullable=False)
    elif pa.types.is_integer(kind):
        _check_range(name, values)
    elif pa.types.is_string(kind):
        _check_text(name, values)


def check_orders(orders: pa.Array) -> None:
    """Check the orders of calls that were not rejected: each is one that a kernel can serve.

    Raises:
        pyarrow.ArrowInvalid: an order is too large.
    """
    if (pc.max(orders).as_py() or 0) > MAX_ORDER:
        raise pa.ArrowInvalid(f"column order has an order above {MAX_ORDER} that was not rejected")


def _check_range(name: str, values: pa.Array) -> None:
    allowed = _RANGES.get(name)
    if allowed is None:
        return
    found = pc.min_max(values).as_py()
    if found["max"] is not None and not allowed.low <= found["min"] <= found["max"] <= allowed.high:
        raise pa.ArrowInvalid(f"column {name} has a value outside {allowed.low} to {allowed.high}")


def _check_text(name: str, values: pa.Array) -> None:
    choices = _CHOICES.get(name)
    if choices is not None:
        # Of no values, "all" is null.
        if pc.all(pc.is_in(values.drop_null(), pa.array(choices, values.type))).as_py() is False:
            raise pa.ArrowInvalid(f"column {name} has a text that is none of {', '.join(choices)}")
        return
    longest = pc.max(pc.binary_length(values)).as_py() or 0
    if longest > _LENGTHS.get(name, _TEXT):
        raise pa.ArrowInvalid(f"column {name} has a text of {longest:,} bytes")
