# SPDX-License-Identifier: MIT
"""A compared field's value as text, with the names of the recorded kernel."""

from typing import Any

from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.flags.tables import FlagTables


def value_text(field: str, value: Any, tables: FlagTables) -> str:  # noqa: ANN401 each field has its own type
    """Return the text of a field's value, predicted or observed.

    Args:
        field: its name, as `Difference.field` has it.
        value: its value.
        tables: of the recorded kernel.
    """
    if field == "alloc_flags":
        return f"{value:#x} {decode_alloc(value, tables).text}"
    if field in {"freelist_gfp_mask", "gfp_mask"}:
        return gfp_text(value, tables)
    if field == "preferred_zone" and value is not None:
        return f"{tables.zone_name(value[1])} of node {value[0]}"
    return str(value)


def gfp_text(value: int, tables: FlagTables) -> str:
    """Return a gfp mask as a number, and its names in parentheses."""
    return f"{value:#x} ({decode_gfp(value, tables).text})"
