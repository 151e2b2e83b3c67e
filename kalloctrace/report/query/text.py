# SPDX-License-Identifier: MIT
"""The groups of a question as a table for people."""

from kalloctrace.console import Console
from kalloctrace.report.query.fields import as_text
from kalloctrace.report.query.groups import Answer, Sums
from kalloctrace.report.query.question import Field, Sort
from kalloctrace.styled import Sheet, Table, sheet_of
from kalloctrace.text import printable, wrap_names, wrap_words

_LONG = frozenset(("gfp", "alloc_flags", "stack", "cgroup"))
"""Fields whose values share the width that the others leave."""
_GAP = 2
_NARROWEST = 18
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def write_groups(found: Answer, sort: Sort, top: int, console: Console) -> None:
    """Print the sums of all groups, and the first groups.

    Args:
        found: the groups.
        sort: what the largest have most of.
        top: how many groups to print.
        console: where to print.
    """
    sheet = sheet_of(console)
    by = found.question.by
    plural = "" if len(found.groups) == 1 else "s"
    sheet.line(f"{_headline(found)}: {len(found.groups):,} group{plural} by {', '.join(by)}", "bold")
    groups = found.sorted(sort)
    rest = Sums()
    for group in groups[top:]:
        rest.add(group.sums)
    snapshot, containers = found.snapshot, found.ending.containers
    rows = [
        ([as_text(*value, snapshot, containers) for value in zip(by, group.key, strict=True)], group.sums)
        for group in groups[:top]
    ]
    if len(groups) > top:
        rows.append(([f"other ({len(groups) - top:,})", *([""] * (len(by) - 1))], rest))
    if rows:
        sheet.blank()
        _add_table(sheet, found, rows)
    sheet.show()


def _headline(found: Answer) -> str:
    sums = found.all
    mark = "~" if found.sample > 1 else ""
    time = f", {_duration(sums.slow_ns)} in the slow path" if found.timed else ""
    plural = "" if sums.calls == 1 else "s"
    return f"{mark}{sums.calls:,} call{plural}, {mark}{_size(sums.bytes)}, {mark}{sums.failed:,} failed{time}"


def _add_table(sheet: Sheet, found: Answer, rows: list[tuple[list[str], Sums]]) -> None:
    by = found.question.by
    numbers = [_numbers(found, sums) for _, sums in rows]
    headings = ("calls", "size", "failed", "slow path")
    widths = [max(map(len, column)) for column in zip(headings, *numbers, strict=True)]
    texts = [[printable(text) for text in texts] for texts, _ in rows]
    fixed = {
        field: max(len(field), *(len(row[at]) for row in texts)) for at, field in enumerate(by) if field not in _LONG
    }
    room = sheet.width - sum(width + _GAP for width in (*widths, *fixed.values()))
    shares = len(by) - len(fixed)
    each = max(_NARROWEST, room // shares - _GAP) if shares else 0
    table = Table("bold")
    for field in by:
        table.column(field, wraps="fold" if field in _LONG else "no", width=fixed.get(field, each))
    for heading, width in zip(headings, widths, strict=True):
        table.column(heading, right=True, width=width)
    for cells, row in zip(texts, numbers, strict=True):
        table.row(*(_cell(field, text, each) for field, text in zip(by, cells, strict=True)), *row)
    sheet.table(table)


def _cell(field: Field, text: str, width: int) -> str | list[str]:
    if field not in _LONG:
        return text
    return wrap_words(text, width) if field == "stack" else wrap_names(text, width)


def _numbers(found: Answer, sums: Sums) -> tuple[str, str, str, str]:
    mark = "~" if found.sample > 1 else ""
    slow = _duration(sums.slow_ns) if found.timed else "-"
    return f"{mark}{sums.calls:,}", f"{mark}{_size(sums.bytes)}", f"{mark}{sums.failed:,}", slow


def _size(size: int) -> str:
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} B"


def _duration(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:,.3f} s"
