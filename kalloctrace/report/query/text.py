# SPDX-License-Identifier: MIT
"""The groups of a question as a table for people."""

from kalloctrace.console import Console
from kalloctrace.report.query.fields import as_text
from kalloctrace.report.query.groups import Answer, Sums
from kalloctrace.report.query.question import Sort
from kalloctrace.styled import Sheet, Table, sheet_of
from kalloctrace.text import size_text

LONG = frozenset(("gfp", "alloc_flags", "stack", "cgroup"))
"""Fields whose values may need several lines."""


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
    return f"{mark}{sums.calls:,} call{plural}, {mark}{size_text(sums.bytes)}, {mark}{sums.failed:,} failed{time}"


def _add_table(sheet: Sheet, found: Answer, rows: list[tuple[list[str], Sums]]) -> None:
    table = Table("bold")
    for field in found.question.by:
        table.column(field, wraps="names" if field in LONG else "no")
    for heading in ("calls", "size", "failed", "slow path"):
        table.column(heading, right=True)
    for texts, sums in rows:
        table.row(*texts, *_numbers(found, sums))
    sheet.table(table)


def _numbers(found: Answer, sums: Sums) -> tuple[str, str, str, str]:
    mark = "~" if found.sample > 1 else ""
    slow = _duration(sums.slow_ns) if found.timed else "-"
    return f"{mark}{sums.calls:,}", f"{mark}{size_text(sums.bytes)}", f"{mark}{sums.failed:,}", slow


def _duration(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:,.3f} s"
