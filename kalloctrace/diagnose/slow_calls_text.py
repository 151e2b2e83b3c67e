# SPDX-License-Identifier: MIT
"""Reports of slow-path calls as text."""

from collections.abc import Sequence
from functools import partial
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kalloctrace.diagnose.slow_calls import SlowCallReport
from kalloctrace.diagnose.text import console_of, print_failure, write_captured
from kalloctrace.trace.schema import frames_of

_MODEL = {"matched": "green", "mismatched": "red", "unknown": "magenta"}


def write_slow_calls(groups: Sequence[Sequence[SlowCallReport]], stream: TextIO) -> None:
    """Write the first call of each group, and the size of the group."""
    console = console_of(stream)
    with console.capture() as captured:
        for number, group in enumerate(groups):
            if number:
                console.print()
            _write(group, console)
    write_captured(captured, stream)


def _write(group: Sequence[SlowCallReport], console: Console) -> None:
    report = group[0]
    call = report.call
    where = f"{seconds(call['time'])}, pid {call['pid']}, cpu {call['cpu']}; "
    if len(group) > 1:
        times = [one.call["time"] for one in group]
        span = f"from {seconds(min(times))} to {seconds(max(times))}"
        where = f"the slowest of {len(group):,} such calls, {span} (--json has each)\n{where}"
    print_failure(report.why, console, where=where, more=partial(_attempts, report, console))


def _attempts(report: SlowCallReport, console: Console) -> None:
    console.print()
    if report.call["stack"]:
        console.print(Text(f"called by {' ← '.join(frames_of(report.call['stack']))}"))
        console.print()
    if report.attempts:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("", "attempt"):
            table.add_column(name, no_wrap=True)
        table.add_column("after", justify="right", no_wrap=True)
        for name in ("before it", "alloc_flags", "model"):
            table.add_column(name)
        for number, one in enumerate(report.attempts, 1):
            table.add_row(
                str(number),
                one.kind,
                milliseconds(one.row["after"]),
                " ".join(one.row["between"]),
                f"{one.row['alloc_flags']:#x} {one.alloc_flags.replace('|', ' | ')}",
                Text(one.judged.verdict, _MODEL[one.judged.verdict]),
            )
        console.print(table)
    lasted = "" if report.call["duration"] is None else f", after {milliseconds(report.call['duration'])}"
    console.print(Text(f"__alloc_pages_slowpath returned {report.ended}{lasted}"))


def seconds(time: int) -> str:
    """Return a time (CLOCK_MONOTONIC, ns) in about the form of the kernel's log."""
    return f"{time / 1e9:.6f} s"


def milliseconds(time: int) -> str:
    """Return a duration (ns) as text."""
    return f"{time / 1e6:,.3f} ms"
