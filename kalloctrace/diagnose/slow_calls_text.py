# SPDX-License-Identifier: MIT
"""Reports of slow-path calls as text: a table of all, then examples in full."""

from collections.abc import Sequence
from functools import partial

from kalloctrace.console import Console
from kalloctrace.diagnose.slow_calls import SlowCallReport, SlowGroup, SlowGroups
from kalloctrace.diagnose.slow_table import SlowRow, examples, slow_rows
from kalloctrace.diagnose.text import add_failure
from kalloctrace.styled import Sheet, Table, sheet_of
from kalloctrace.trace.clock import Clock, kernel_seconds
from kalloctrace.trace.schema import frames_of

EXAMPLES = 5
_ROWS = 20
"""Rows of the table, unless more are asked for."""
_ATTEMPTS = 50
"""The first and the last so many attempts of a call are shown; a call that loops for minutes has tens of thousands."""
_CALLERS = 2
"""Callers in a row of the table."""
_MODEL = {"matched": "green", "mismatched": "red", "unknown": "magenta"}


def write_slow_calls(found: SlowGroups, console: Console, clock: Clock, top: int | None = None) -> None:
    """Print a table of all calls, and the slowest call of some groups.

    Args:
        found: the groups; at least one.
        console: where to print.
        clock: of the recording.
        top: how many groups to print in full, and of the table at least as many rows; None for a few.
    """
    sheet = sheet_of(console)
    rows, most = slow_rows(found.groups), max(top or 0, _ROWS)
    sheet.table(_table(rows[:most]))
    if (hidden := len(rows) - most) > 0:
        sheet.line(f"… and {hidden:,} more rows; --top shows more")
    chosen = examples(rows, top or EXAMPLES)
    for group in chosen:
        sheet.blank()
        _add(group, sheet, clock)
    more = [
        *([f"{left:,} more groups"] if (left := len(found.groups) - len(chosen)) else []),
        *([f"{found.beyond:,} calls of further causes"] if found.beyond else []),
    ]
    if more:
        sheet.blank()
        sheet.line(f"… and {' and '.join(more)}; --top shows more groups, --json has each call")
    sheet.show()


def _table(rows: Sequence[SlowRow]) -> Table:
    table = Table("dim")
    table.column("reason", wraps="words")
    table.column("zones", wraps="words")
    for name in ("order", "calls", "worst"):
        table.column(name, right=True)
    table.column("callers", wraps="words")
    for row in rows:
        table.row(
            row.reason,
            row.zones,
            str(row.order),
            f"{row.calls:,}",
            "" if row.worst is None else milliseconds(row.worst),
            _callers(row),
        )
    return table


def _callers(row: SlowRow) -> list[str]:
    callers = row.callers.most_common()
    shown = [f"{name} {calls:,}" for name, calls in callers[:_CALLERS]]
    hidden = len(callers) - len(shown)
    return [*shown, *([f"{hidden:,} other callers"] if hidden else [])]


def _add(group: SlowGroup, sheet: Sheet, clock: Clock) -> None:
    report = group.slowest
    call = report.call
    wall = clock.wall_time(call["time"])
    logs = f"the kernel's log: {kernel_seconds(call['time'])}{'' if wall is None else f', a journal: about {wall}'}"
    time = f"{clock.seconds(call['time'])} after {clock.event} ({logs})"
    before = ""
    if group.calls > 1:
        span = f"from {clock.seconds(group.first)} to {clock.seconds(group.last)}"
        before = f"the slowest of {group.calls:,} such calls, {span} (--json has each)"
    where = f"{time}, pid {call['pid']}, cpu {call['cpu']}; "
    add_failure(report.why, sheet, before=before, where=where, more=partial(_attempts, report, sheet))


def _attempts(report: SlowCallReport, sheet: Sheet) -> None:
    sheet.blank()
    if report.call["stack"]:
        sheet.line(f"called by {' ← '.join(frames_of(report.call['stack']))}")
        sheet.blank()
    if report.attempts:
        table = Table("dim")
        for name in ("", "attempt"):
            table.column(name)
        table.column("after", right=True)
        for name in ("before it", "alloc_flags", "model"):
            table.column(name, wraps="words")
        hidden = range(_ATTEMPTS + 1, len(report.attempts) - _ATTEMPTS + 1)
        for number, one in enumerate(report.attempts, 1):
            if number in hidden:
                if number == hidden[0]:
                    table.row("…", f"{len(hidden):,} more", "", "", "", "")
                continue
            table.row(
                str(number),
                one.kind,
                milliseconds(one.row["after"]),
                " ".join(one.row["between"]),
                f"{one.row['alloc_flags']:#x} {one.alloc_flags.replace('|', ' | ')}",
                (one.judged.verdict, _MODEL[one.judged.verdict]),
            )
        sheet.table(table)
    lasted = "" if report.call["duration"] is None else f", after {milliseconds(report.call['duration'])}"
    sheet.line(f"__alloc_pages_slowpath returned {report.ended}{lasted}")


def milliseconds(time: int) -> str:
    """Return a duration (ns) as text."""
    return f"{time / 1e6:,.3f} ms"
