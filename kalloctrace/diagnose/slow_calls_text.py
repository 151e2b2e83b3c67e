# SPDX-License-Identifier: MIT
"""Reports of slow-path calls as text."""

from collections.abc import Sequence
from functools import partial

from kalloctrace.console import Console
from kalloctrace.diagnose.slow_calls import SlowCallReport, SlowGroup
from kalloctrace.diagnose.text import add_failure
from kalloctrace.styled import Sheet, Table, sheet_of
from kalloctrace.trace.schema import frames_of

_MODEL = {"matched": "green", "mismatched": "red", "unknown": "magenta"}


def write_slow_calls(groups: Sequence[SlowGroup], console: Console) -> None:
    """Print the slowest call of each group, and the size of the group."""
    sheet = sheet_of(console)
    for number, group in enumerate(groups):
        if number:
            sheet.blank()
        _add(group, sheet)
    sheet.show()


def _add(group: SlowGroup, sheet: Sheet) -> None:
    report = group.slowest
    call = report.call
    where = f"{seconds(call['time'])}, pid {call['pid']}, cpu {call['cpu']}; "
    before = ""
    if group.calls > 1:
        span = f"from {seconds(group.first)} to {seconds(group.last)}"
        before = f"the slowest of {group.calls:,} such calls, {span} (--json has each)"
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
        for number, one in enumerate(report.attempts, 1):
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


def seconds(time: int) -> str:
    """Return a time (CLOCK_MONOTONIC, ns) in about the form of the kernel's log."""
    return f"{time / 1e9:.6f} s"


def milliseconds(time: int) -> str:
    """Return a duration (ns) as text."""
    return f"{time / 1e6:,.3f} ms"
