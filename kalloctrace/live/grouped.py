# SPDX-License-Identifier: MIT
"""Rows of a live table added up by some of their fields."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from kalloctrace.live.keys import RequestKey, TaskKey
from kalloctrace.live.table import By, LiveRow, SortName

Fields = tuple[SortName, ...]

_OF_REQUEST = {"gfp": "gfp_mask", "order": "order", "node": "node", "zone": "zone"}
_OF_REQUEST |= {name: name for name in ("migratetype", "alloc_flags")}
_ADDED = ("count", "new", "rate", "share", "matched", "mismatched", "unknown", "bytes", "failed", "slow_ns")
_HIDDEN = RequestKey("", 0, 0, None, None, None, None)


def finest(fields: Collection[SortName]) -> By:
    """Return the grouping whose rows have these fields."""
    return "stack" if "stack" in fields else "task" if {"comm", "pid"} & set(fields) else "request"


def grouped(rows: Iterable[LiveRow], fields: Fields) -> list[LiveRow]:
    """Return the sums of rows with the same fields; each row shows only these.

    Args:
        rows: those of `finest(fields)`.
        fields: the fields.
    """
    sums: dict[tuple[RequestKey, TaskKey], LiveRow] = {}
    for row in rows:
        key = group_key(row, fields)
        have = sums.get(key)
        if have is None:
            sums[key] = replace(row, request=key[0], task=key[1], shown=frozenset(fields))
            continue
        sums[key] = replace(have, **{name: _sum(getattr(have, name), getattr(row, name)) for name in _ADDED})
    return list(sums.values())


def _sum(one: Any, other: Any) -> Any:  # noqa: ANN401 (int or float, as both are; None where one is not known)
    return None if one is None or other is None else one + other


def group_key(row: LiveRow, fields: Fields) -> tuple[RequestKey, TaskKey]:
    """Return the key of the group of a row."""
    of_request = {_OF_REQUEST[name] for name in fields if name in _OF_REQUEST}
    request = _HIDDEN._replace(**{name: getattr(row.request, name) for name in of_request})
    if "alloc_flags" in of_request:
        # Where there are none, the entry says why.
        request = request._replace(entry=row.request.entry)
    return request, TaskKey(**{name: getattr(row.task, name) for name in TaskKey._fields if name in fields})
