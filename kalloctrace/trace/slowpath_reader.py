# SPDX-License-Identifier: MIT
"""Reads the calls of the slow path that a trace stores, and checks them."""

import base64
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from kalloctrace.kernel.nodelist import parse_nodelist
from kalloctrace.trace.checks import check_orders, check_values
from kalloctrace.trace.messages import open_messages
from kalloctrace.trace.schema import CGROUP
from kalloctrace.trace.slow_split import PARTS
from kalloctrace.trace.slowpath import LATER, MOST_UNPACKED, SLOW

_NULLABLE = frozenset(
    (
        *("stack", CGROUP.name, "zonelist_kind", "zonelist_nid", "ac_nodemask", "ac_nodemask_nodes", "preferred_node"),
        *("preferred_zone", "spread_dirty_pages", "ac_alloc_flags", "softirq_disable_cnt", "mems_allowed"),
        *("page", "duration", "free_highatomic", *PARTS),
    )
)
"""Columns that are null where the recorder did not capture them, or where the kernel does not have them."""

_NODES = ("ac_nodemask_nodes", "mems_allowed")
"""Columns with lists of nodes."""


def decode_slow_calls(text: bytes) -> list[dict[str, Any]]:
    """Return the calls of such a text, each with at least the columns of SLOW.

    Raises:
        ValueError: it is damaged.
    """
    data = base64.b64decode(text, validate=True)
    try:
        reader = pa.ipc.open_stream(open_messages(pa.BufferReader(data), len(data), MOST_UNPACKED))
        older = [column for column in LATER if column.name not in reader.schema.names]
        _check_type("", pa.struct(SLOW), pa.struct([*reader.schema, *older]))
        table = reader.read_all()
        for column in older:
            table = table.append_column(column, pa.nulls(table.num_rows, column.type))
        # Before anything looks at a value: Arrow ends the program where an offset points outside its buffer.
        table.validate(full=True)
        for batch in table.to_batches():
            _check_calls("", batch.to_struct_array(), pa.struct(SLOW))
    except (OSError, pa.ArrowException) as error:
        raise ValueError(str(error)) from error
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _check_type(name: str, want: pa.DataType, have: pa.DataType) -> None:
    """Refuse a type that lacks something of SLOW. More fields, of a newer writer, are allowed if they are plain."""
    if pa.types.is_struct(want) and pa.types.is_struct(have):
        kinds = {field.name: field.type for field in have}
        if len(kinds) < have.num_fields:
            raise pa.ArrowInvalid(f"{name or 'the calls'} have a column twice")
        for field in want:
            if field.name not in kinds:
                raise pa.ArrowInvalid(f"column {field.name} is missing")
            _check_type(field.name, field.type, kinds.pop(field.name))
        for other, kind in kinds.items():
            _check_plain(other, kind)
    elif pa.types.is_list(want) and pa.types.is_list(have):
        _check_type(name, want.value_type, have.value_type)
    elif want != have:
        raise pa.ArrowInvalid(f"column {name} is of another type")


def _check_plain(name: str, kind: pa.DataType) -> None:
    if not any(check(kind) for check in (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string)):
        raise pa.ArrowInvalid(f"column {name} is of a type that no column has")


def _check_calls(name: str, values: pa.Array, kind: pa.DataType) -> None:
    """Check the values of a column of SLOW, and of all columns inside it."""
    check_values(name, values, nullable=name in _NULLABLE)
    if pa.types.is_list(kind):
        _check_calls(name, values.flatten(), kind.value_type)
    elif pa.types.is_struct(kind):
        columns = dict(zip((field.name for field in values.type), values.flatten(), strict=True))
        for field in kind:
            _check_calls(field.name, columns[field.name], field.type)
        if "order" in columns:
            check_orders(columns["order"])
        if "rest" in columns:
            _check_parts(columns)
        if "free_blocks" in columns:
            _check_orders_of_zones(columns["free_blocks"], columns["free_types"])
    elif name in _NODES:
        for text in values.drop_null().unique().to_pylist():
            parse_nodelist(text)


def _check_parts(columns: Mapping[str, pa.Array]) -> None:
    names = ("duration", *PARTS)
    for row in zip(*(columns[name].to_pylist() for name in names), strict=True):
        duration, *parts = row
        if any(part is not None for part in parts) and sum(part or 0 for part in parts) != duration:
            raise pa.ArrowInvalid("the parts of a call do not add up to its duration")


def _check_orders_of_zones(blocks: pa.ListArray, types: pa.ListArray) -> None:
    if not blocks.value_lengths().equals(types.value_lengths()):
        raise pa.ArrowInvalid("columns free_blocks and free_types of a zone have different orders")
