# SPDX-License-Identifier: MIT
"""What a recording left out, in words."""

from collections.abc import Iterator, Mapping
from typing import Any

from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.flags.tables import FlagTables

_SHOWN = {"nid": "node"}
_MASKS = {"gfp_any": "any of gfp", "gfp_all": "all of gfp", "gfp_none": "none of gfp"}


def filter_words(recording: Mapping[str, Any], tables: FlagTables) -> Iterator[str]:
    """Yield the filters and limits that were in force.

    Args:
        recording: how a recording was made; its "filters" are null where they are not set.
        tables: of the recorded kernel.
    """
    filters = recording.get("filters")
    for name, value in filters.items() if isinstance(filters, dict) else ():
        if value is None or value is False:
            continue
        if name in _MASKS and isinstance(value, int):
            yield f"{_MASKS[name]} {value:#x} {decode_gfp(value, tables).text}"
        elif name == "alloc_flags" and isinstance(value, int):
            yield f"alloc_flags {value:#x} {decode_alloc(value, tables).text}"
        elif name == "failed":
            yield "failures only"
        elif name == "sample":
            yield f"1 call in {value:,}"
        elif name == "max_rate":
            yield f"at most {value:,} a second"
        else:
            yield f"{_SHOWN.get(name, name)} {value}"
