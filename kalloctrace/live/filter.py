# SPDX-License-Identifier: MIT
"""Filters of a live table, such as `order>0 zone=Normal gfp&__GFP_ZERO comm~python`."""

import re
from collections.abc import Callable, Mapping
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.flags.decode import parse_flags
from kalloctrace.flags.tables import FlagTables
from kalloctrace.live.table import LiveRow, alloc_text, gfp_text, migratetype_name, zone_name

Condition = Callable[[LiveRow], bool]

HELP = """\
Conditions, separated by spaces; a row must meet all of them.
A condition is a column, an operator and a value. The columns are comm pid
stack gfp order node zone migratetype alloc_flags entry rate count bytes
failed time (ms in the slow path) verdict.
  =  !=  >  >=  <  <=   compare numbers; = and != compare texts too
  ~  !~                 the text contains the value, or does not
  &                     gfp and alloc_flags: all of these bits are set
A word without an operator is searched for in all texts of a row.
Example: order>0 zone=Normal gfp&__GFP_ZERO comm~python verdict=MISMATCH"""

_WORD = re.compile(r"(?P<field>[a-z_]+)(?P<sign>!=|!~|>=|<=|=|~|>|<|&)(?P<value>.*)")
_NUMBERS: Mapping[str, Callable[[LiveRow], float | None]] = {
    "pid": lambda row: row.task.pid,
    "order": lambda row: row.request.order,
    "node": lambda row: row.request.node,
    "rate": lambda row: row.rate,
    "count": lambda row: row.count,
    "bytes": lambda row: row.bytes,
    "failed": lambda row: row.failed,
    "time": lambda row: None if row.slow_ns is None else row.slow_ns / 1e6,
}
_MASKS: Mapping[str, Callable[[LiveRow], int | None]] = {
    "gfp": lambda row: row.request.gfp_mask,
    "alloc_flags": lambda row: row.request.alloc_flags,
}
_TEXTS: Mapping[str, Callable[[LiveRow, FlagTables], str | None]] = {
    "comm": lambda row, _: row.task.comm,
    "stack": lambda row, _: row.task.stack,
    "zone": zone_name,
    "migratetype": migratetype_name,
    "entry": lambda row, _: row.request.entry,
    "verdict": lambda row, _: row.verdict,
    "gfp": gfp_text,
    "alloc_flags": alloc_text,
}
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {"=": eq, "!=": ne, ">": gt, ">=": ge, "<": lt, "<=": le}
_ORDERED = (">", ">=", "<", "<=")


def parse_filter(text: str, tables: FlagTables) -> Condition:
    """Return the condition that a text describes; an empty text accepts every row.

    Args:
        text: as HELP describes.
        tables: of the recorded kernel; flag names are this kernel's.

    Raises:
        KalloctraceError: a condition is not valid (exit code 2).
    """
    conditions = [_condition(word, tables) for word in text.split()]
    return lambda row: all(condition(row) for condition in conditions)


def _condition(word: str, tables: FlagTables) -> Condition:
    found = _WORD.fullmatch(word)
    if found is None:
        return lambda row: any(_contains(get(row, tables), word) for get in _TEXTS.values())
    field, sign, value = found["field"], found["sign"], found["value"]
    if field not in _NUMBERS and field not in _TEXTS:
        fields = ", ".join(dict.fromkeys((*_NUMBERS, *_TEXTS)))
        raise _bad(word, f"there is no column {field}", f"use one of {fields}")
    if sign in ("~", "!~"):
        return lambda row: _contains(_text(row, field, tables), value) == (sign == "~")
    if field in _MASKS:
        return _mask_condition(word, field, sign, parse_flags(value, tables, field))
    if sign == "&":
        raise _bad(word, "& works on gfp and alloc_flags only", f"write {field}=… or {field}~…")
    if field in _NUMBERS:
        return _number_condition(word, field, sign, value)
    if sign in _ORDERED:
        raise _bad(word, f"{field} is not a number", f"write {field}={value} or {field}~{value}")
    return _equal(lambda row: _TEXTS[field](row, tables), value, equal=sign == "=")


def _mask_condition(word: str, field: str, sign: str, mask: int) -> Condition:
    get = _MASKS[field]
    if sign in _ORDERED:
        raise _bad(word, f"{field} is a set of flags", f"write {field}=…, {field}&… or {field}~…")
    if sign == "&":
        return lambda row: ((get(row) or 0) & mask) == mask
    return lambda row: (get(row) == mask) == (sign == "=")


def _number_condition(word: str, field: str, sign: str, value: str) -> Condition:
    get, compare = _NUMBERS[field], _COMPARE[sign]
    try:
        number = float(value)
    except ValueError:
        raise _bad(word, f"{value!r} is not a number", f"write a number, such as {field}{sign}1") from None

    def holds(row: LiveRow) -> bool:
        have = get(row)
        return have is not None and compare(have, number)

    return holds


def _equal(get: Callable[[LiveRow], str | None], value: str, *, equal: bool) -> Condition:
    # The prefix MIGRATE_ may be left out.
    names = {value.lower(), f"migrate_{value}".lower()}
    return lambda row: ((get(row) or "").lower() in names) == equal


def _contains(text: str | None, part: str) -> bool:
    return text is not None and part.lower() in text.lower()


def _text(row: LiveRow, field: str, tables: FlagTables) -> str | None:
    if field in _TEXTS:
        return _TEXTS[field](row, tables)
    number = _NUMBERS[field](row)
    return None if number is None else f"{number:g}"


def _bad(word: str, why: str, fix: str) -> KalloctraceError:
    return KalloctraceError(f"cannot filter by {word!r}", why, fix, Exit.USAGE)
