# SPDX-License-Identifier: MIT
"""The columns of a live table: which ones fit a width, and the text of their cells."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from kalloctrace.flags.decode import Decoded, decode_alloc, decode_gfp
from kalloctrace.flags.meanings import SHORT_ALLOC, SHORT_GFP, SHORT_MIGRATETYPE, short_name
from kalloctrace.flags.tables import FlagTables
from kalloctrace.live.table import By, LiveRow, SortName, migratetype_name, sort_names, zone_name
from kalloctrace.text import printable, size_text
from kalloctrace.trace.schema import frames_of

GAP = 1
"""Characters between two columns."""
NARROW, WIDE = 80, 200

_NOTHING = "-"
_MILLION = 1_000_000
_WIDEST_RATE = 99_999


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: also the name to sort by.
        headings: its possible headings, shortest first; the longest one that fits is shown.
        min_width: characters that it needs.
        max_width: characters that it can use.
        right: values are aligned to the right.
    """

    name: SortName
    headings: tuple[str, ...]
    min_width: int
    max_width: int
    right: bool = False


class PlacedColumn(NamedTuple):
    """A shown column with its width in characters."""

    column: Column
    width: int

    @property
    def heading(self) -> str:
        """Return the longest heading that fits and leaves room for the sort mark."""
        fitting = [text for text in self.column.headings if len(text) < self.width]
        return fitting[-1] if fitting else self.column.headings[0]


_COLUMNS = (
    Column("rate", ("rate", "calls/s"), 7, 9, right=True),
    Column("count", ("count",), 9, 13, right=True),
    Column("share", ("share",), 6, 6, right=True),
    Column("bytes", ("size",), 9, 10, right=True),
    Column("failed", ("failed",), 7, 10, right=True),
    Column("time", ("slow s", "s in slow path"), 9, 15, right=True),
    Column("comm", ("comm",), 10, 15),
    Column("pid", ("pid",), 7, 7, right=True),
    Column("gfp", ("gfp",), 13, 60),
    Column("order", ("or", "ord", "order"), 3, 6, right=True),
    Column("node", ("n", "nd", "node"), 2, 5, right=True),
    Column("zone", ("zone",), 7, 7),
    Column("migratetype", ("m", "mt", "migratetype"), 2, 12),
    Column("alloc_flags", ("flags", "alloc", "alloc_flags"), 10, 60),
    Column("verdict", ("verdict",), 8, 8),
    Column("stack", ("called from", "called from, innermost first"), 17, 90),
)
"""From left to right."""

_IMPORTANT: tuple[SortName, ...] = (
    *("rate", "verdict", "gfp", "comm", "pid", "stack", "alloc_flags"),
    *("order", "node", "zone", "migratetype", "count", "share"),
)
"""Most important first, after the one to sort by: a narrow screen drops columns from the end."""

_SPARE: tuple[SortName, ...] = ("failed", "time", "bytes")
"""Columns that are shown where this leaves enough room to spell flags and functions, most important first."""
_SPELLED = 20
"""Characters beyond its minimum that a column with such names shall keep."""

_GROWING: tuple[SortName, ...] = ("order", "node", "rate", "count", "migratetype", "comm")
"""Columns that grow to their maximum, in this order, where there is room."""

_LEGEND: tuple[SortName, ...] = ("alloc_flags", "migratetype", "gfp")
"""The column with the most short names comes last, because a long legend is cut at its end."""

_WEIGHTS: Mapping[SortName, int] = MappingProxyType({"stack": 3, "gfp": 1, "alloc_flags": 1})
"""Columns that divide the remaining width, by weight."""


def place_columns(
    by: By, width: int, fields: Collection[SortName] | None = None, *, sort: SortName = "rate"
) -> list[PlacedColumn]:
    """Choose columns for a width, from left to right.

    Args:
        by: what a row groups calls by.
        width: characters in a line.
        fields: the only fields that rows show; None for all.
        sort: the column that rows are sorted by, which is always shown.
    """
    available = set(sort_names(by, fields))
    columns = {column.name: column for column in _COLUMNS}
    widths: dict[SortName, int] = {}
    left = width + GAP
    for name in dict.fromkeys((sort, *_IMPORTANT)):
        if name in available and columns[name].min_width + GAP <= left:
            widths[name] = columns[name].min_width
            left -= columns[name].min_width + GAP
    room = _SPELLED * len(widths.keys() & _WEIGHTS.keys())
    for name in _SPARE:
        if name in available and name not in widths and left - columns[name].min_width - GAP >= room:
            widths[name] = columns[name].min_width
            left -= columns[name].min_width + GAP
    for name in _GROWING:
        if name in widths and left >= columns[name].max_width - columns[name].min_width:
            left -= columns[name].max_width - columns[name].min_width
            widths[name] = columns[name].max_width
    shares = {name: share for name, share in _WEIGHTS.items() if name in widths}
    while shares:
        name, share = next(iter(shares.items()))
        more = min(left * share // sum(shares.values()), columns[name].max_width - columns[name].min_width)
        widths[name] += more
        left -= more
        del shares[name]
    return [PlacedColumn(column, widths[column.name]) for column in _COLUMNS if column.name in widths]


@dataclass
class Cells:
    """Makes the texts of cells, and remembers the short names that it used.

    Attributes:
        tables: of the recorded kernel.
        short_names: the kernel's name for each column and short name that was used.
    """

    tables: FlagTables
    short_names: dict[tuple[SortName, str], str] = field(default_factory=dict)

    def text(self, row: LiveRow, placed: PlacedColumn) -> str:
        """Return the text of a cell, no longer than the column is wide."""
        name, width = placed.column.name, placed.width
        if name == "gfp":
            return self._flags(name, decode_gfp(row.request.gfp_mask, self.tables), SHORT_GFP, width)
        if name == "alloc_flags":
            return self._alloc_flags(row, width)
        if name == "migratetype":
            return self._migratetype(row, width)
        return clipped(printable(_PLAIN[name](row, self.tables)), width)

    def legend(self) -> list[tuple[str, str]]:
        """Return pairs of a short name and the kernel's name: alloc_flags first, gfp masks last."""
        used = sorted(self.short_names.items(), key=lambda item: (_LEGEND.index(item[0][0]), item[0][1]))
        return [(text, name) for (_, text), name in used]

    def _alloc_flags(self, row: LiveRow, width: int) -> str:
        if row.request.alloc_flags is None:
            return "rejected" if row.request.rejected else {"bulk": "(bulk)"}.get(row.request.entry, "?")
        return self._flags("alloc_flags", decode_alloc(row.request.alloc_flags, self.tables), SHORT_ALLOC, width)

    def _flags(self, column: SortName, decoded: Decoded, names: Mapping[str, str], width: int) -> str:
        if len(decoded.text) <= width:
            return decoded.text or "0"
        words = {name: short_name(name, names) for name in decoded.names}
        self.short_names |= {(column, text): name for name, text in words.items()}
        unknown = [f"{decoded.unknown:#x}"] if decoded.unknown else []
        return clipped("|".join([*words.values(), *unknown]), width)

    def _migratetype(self, row: LiveRow, width: int) -> str:
        name = migratetype_name(row, self.tables)
        if name is None:
            return _NOTHING
        whole = name.removeprefix("MIGRATE_")
        if len(whole) <= width:
            return whole
        text = short_name(name, SHORT_MIGRATETYPE)
        self.short_names["migratetype", text] = name
        return clipped(text, width)


def clipped(text: str, width: int) -> str:
    """Return a text cut to a width, with an ellipsis where something was cut."""
    return text if len(text) <= width else text[: width - 1] + "…"


def rate_text(rate: float) -> str:
    """Return a rate in at most seven characters."""
    if rate > _WIDEST_RATE:
        return f"{rate / _MILLION:.2f}M" if rate >= _MILLION else f"{rate / 1000:.1f}k"
    return f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:.1f}"


def _stack(row: LiveRow, _: FlagTables) -> str:
    if row.task.stack is None:
        return "(no stack)"
    # The innermost function is the entry, the same in all stacks.
    return " < ".join(frames_of(row.task.stack)[1:]) or row.task.stack


_PLAIN: Mapping[SortName, Callable[[LiveRow, FlagTables], str]] = {
    "rate": lambda row, _: rate_text(row.rate),
    "count": lambda row, _: f"{row.count:,}",
    "share": lambda row, _: f"{row.share:.1%}",
    "bytes": lambda row, _: size_text(row.bytes),
    "failed": lambda row, _: _NOTHING if row.failed is None else f"{row.failed:,}",
    "time": lambda row, _: _NOTHING if row.slow_ns is None else f"{row.slow_ns / 1e9:,.3f}",
    "comm": lambda row, _: row.task.comm or "?",
    "pid": lambda row, _: _NOTHING if row.task.pid is None else str(row.task.pid),
    "order": lambda row, _: str(row.request.order),
    "node": lambda row, _: _NOTHING if row.request.node is None else str(row.request.node),
    "zone": lambda row, tables: zone_name(row, tables) or _NOTHING,
    "verdict": lambda row, _: row.verdict,
    "stack": _stack,
}
