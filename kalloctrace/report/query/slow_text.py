# SPDX-License-Identifier: MIT
"""What the calls of the slow path spent their time with, for people."""

from kalloctrace.console import Console
from kalloctrace.diagnose.from_trace import caller_of_call
from kalloctrace.report.query.slow import Bucket, SlowAnswer, SlowGroup
from kalloctrace.report.query.text import LONG
from kalloctrace.styled import Sheet, Table, sheet_of
from kalloctrace.text import duration, many
from kalloctrace.trace.slow_split import PARTS, spent_with


def write_slow(found: SlowAnswer, top: int, console: Console) -> None:
    """Print how long calls took and with what, then the groups that took longest.

    Args:
        found: the calls.
        top: how many groups to print.
        console: where to print.
    """
    sheet = sheet_of(console)
    if not found.all.calls:
        sheet.line("no call of the slow path", "bold")
        sheet.show()
        return
    for text in _headline(found.all):
        sheet.line(text, "bold")
    if found.all.buckets:
        sheet.blank()
        _add_histogram(sheet, found.all)
    if found.groups:
        sheet.blank()
        _add_groups(sheet, found, top)
    sheet.blank()
    _add_legend(sheet, found.all)
    sheet.show()


def _headline(group: SlowGroup) -> list[str]:
    failed = f", {group.failed:,} failed" if group.failed else ""
    running = f", {group.running:,} without a captured return" if group.running else ""
    lines = [f"{many(group.calls, 'slow call')} took {duration(group.time)} in all{failed}{running}"]
    if group.split:
        lines.append(spent_with(group.parts))
    slowest = group.slowest
    if slowest is not None:
        call = slowest.example
        asked = caller_of_call(call)
        by = f" by {asked}" if asked else ""
        lines.append(f"the slowest took {duration(call['duration'])}: order {call['order']}, {call['comm']}{by}")
    return lines


def _add_histogram(sheet: Sheet, group: SlowGroup) -> None:
    table = Table("bold")
    table.column("took at least", right=True)
    table.column("calls", right=True)
    table.column("spent with", wraps="words")
    table.column("the slowest of them", wraps="words")
    for power, bucket in sorted(group.buckets.items(), reverse=True):
        table.row(duration(1 << power if power else 0), f"{bucket.calls:,}", spent_with(bucket.parts), _example(bucket))
    sheet.table(table)


def _example(bucket: Bucket) -> str:
    call = bucket.example
    asked = caller_of_call(call)
    return f"{duration(call['duration'])}, order {call['order']}, {call['comm']}{f', {asked}' if asked else ''}"


def _add_groups(sheet: Sheet, found: SlowAnswer, top: int) -> None:
    table = Table("bold")
    for name in found.question.by:
        table.column(name, wraps="names" if name in LONG else "no")
    for heading in ("calls", "time", "worst"):
        table.column(heading, right=True)
    table.column("spent with", wraps="words")
    groups = found.sorted()
    for key, group in groups[:top]:
        slowest = group.slowest
        worst = "-" if slowest is None else duration(slowest.example["duration"])
        spent = spent_with(group.parts) if group.split else "not recorded"
        table.row(*found.texts(key), f"{group.calls:,}", duration(group.time), worst, spent)
    sheet.table(table)
    if len(groups) > top:
        sheet.line(f"{len(groups) - top:,} more groups: --top {len(groups)}", "dim")


def _add_legend(sheet: Sheet, group: SlowGroup) -> None:
    if not group.split:
        sheet.line("this trace does not show what the time was spent with: record it again", "dim")
        return
    table = Table()
    table.column()
    table.column(wraps="words")
    for name, about in PARTS.items():
        if group.parts[name] is None:
            table.row(name, "not shown by this kernel: it has no contention events (before 5.19)")
        elif group.parts[name]:
            table.row(name, about.partition("; null")[0])
    sheet.table(table)
