# SPDX-License-Identifier: MIT
"""A summary as text for people."""

import shlex
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kalloctrace.report.amount import PAGE_SIZE, Amount
from kalloctrace.report.summary import Breakdown, Part, Summary, populated_zones
from kalloctrace.text import printable, wrap_names
from kalloctrace.trace.filter_text import filter_words
from kalloctrace.trace.totals import Totals
from kalloctrace.verify.verification import Verification

WIDTH = 80
_WIDEST = 120
"""Wider terminals do not make tables easier to read."""
_MIB = 1 << 20
_SHARE_WIDTH = len("100.0%")
_GAP = 2

_HEADINGS = {
    "gfp": "gfp mask, as the caller passed it",
    "order": "order",
    "migratetype": "migratetype",
    "preferred_zone": "preferred zone",
    "alloc_flags": "alloc_flags of the first attempt",
    "comm": "process",
    "zonelist": "zonelist and nodemask",
    "context": "context",
    "entry": "entry",
}
_EVENT_GFP = "gfp mask, as the kernel had changed it"
_ONLY_WHERE_IT_VARIES = {"zonelist", "entry"}
_NONE = "get_page_from_freelist was not called, or no zone was eligible"
_NONE_OF_EVENTS = "the events do not show it"
_LEGEND = f"""\
share    of all allocations
pages    of 4 KiB, 2^order for each allocation that got one
none     {_NONE}
bulk     a call of the bulk allocator, of which the prepared context cannot be
         seen; its pages are those that were looked at
task     process context; bh_disabled: the same with bottom halves off
softirq  interrupt context, as hardirq and nmi; its process was interrupted"""
_ESTIMATE = """\
~        an estimate: what was recorded, times {sample:,}"""
_NOT_FOLLOWED = """\
pages    of calls whose return was not traced are those asked for; whether these
         failed or took the slow path is not known"""
_SLOW_FOLLOWED = """\
pages    of calls whose return was not traced are those asked for
failed   as the slow path's own recording tells: report --failures says why"""


def write_summary(summary: Summary, verdict: Verification, stream: TextIO, *, top: int) -> None:
    """Write a summary and the verdict on the same trace.

    Args:
        summary: what the trace holds.
        verdict: what the model says to it.
        stream: where to write; coloured and as wide as the terminal where it is one, plain otherwise.
        top: rows of each table; half as many stacks.
    """
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    console.width = min(console.width, _WIDEST) if console.is_terminal else WIDTH
    with console.capture() as capture:
        _Page(console, summary, top).write(verdict)
    # Padding that ends a line is of no use to people, and in the way of diff.
    stream.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())


class _Page:
    """One summary on one console."""

    def __init__(self, console: Console, summary: Summary, top: int) -> None:
        self._console = console
        self._summary = summary
        self._top = top
        self._mark = "~" if summary.sample > 1 else ""
        self._count_width = max(len(f"{self._mark}count"), len(f"{summary.all.count:,}"))
        self._pages_width = max(len(f"{self._mark}pages"), len(f"{summary.all.pages:,}"))

    def write(self, verdict: Verification) -> None:
        self._pairs(header_fields(self._summary))
        self._heading("totals" if not self._mark else f"totals, estimated from 1 call in {self._summary.sample:,}")
        self._totals()
        if self._summary.aggregate:
            self._console.print("\n  An aggregate tells neither time nor CPU nor process: a stream does.")
        for breakdown in self._summary.by:
            if breakdown.name == "stack":
                self._stacks(breakdown)
            elif breakdown.parts and (breakdown.name not in _ONLY_WHERE_IT_VARIES or len(breakdown.parts) > 1):
                self._table(breakdown)
        self._heading("model")
        self._verdict(verdict)
        self._console.print()
        for legend in _legends(self._summary):
            self._console.print(Text(legend, style="dim"))

    def _heading(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(text, style="bold"))

    def _pairs(self, pairs: Iterator[tuple[str, str]]) -> None:
        grid = Table.grid(padding=(0, _GAP, 0, 0))
        grid.add_column(no_wrap=True, style="bold")
        grid.add_column(overflow="fold")
        for name, value in pairs:
            grid.add_row(name, Text(printable(value)))
        self._console.print(grid)

    def _totals(self) -> None:
        grid = Table.grid(padding=(0, _GAP, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, justify="right")
        grid.add_column(overflow="fold")
        for name, value, about in total_fields(self._summary):
            grid.add_row(f"  {name}", "not known" if value is None else f"{value:,}", Text(printable(about)))
        self._console.print(grid)
        if self._summary.totals is None:
            why = f" ({printable(self._summary.damage)})" if self._summary.damage else ""
            self._console.print(
                Text(
                    f"  The end of the recording is missing{why}: what follows counts up to the last whole batch.",
                    style="yellow",
                )
            )

    def _table(self, breakdown: Breakdown) -> None:
        self._console.print()
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), expand=True, header_style="bold")
        events = breakdown.name == "gfp" and only_events(self._summary)
        table.add_column(_EVENT_GFP if events else _HEADINGS[breakdown.name], ratio=1, overflow="fold")
        for name, width in (
            (f"{self._mark}count", self._count_width),
            ("share", _SHARE_WIDTH),
            (f"{self._mark}pages", self._pages_width),
        ):
            table.add_column(name, justify="right", no_wrap=True, width=width)
        numbers = self._count_width + _SHARE_WIDTH + self._pages_width
        # Three gaps stand between the columns, and rich keeps one after the last.
        room = self._console.width - numbers - 4 * _GAP
        for part in breakdown.parts[: self._top]:
            label = _label(breakdown.name, part)
            table.add_row(Text("\n".join(wrap_names(label, room))), *self._numbers(part.amount))
        hidden = len(breakdown.parts) - self._top
        if hidden > 0:
            table.add_row(f"  other ({hidden:,})", *self._numbers(breakdown.rest(self._top)))
        self._console.print(table)

    def _numbers(self, amount: Amount) -> tuple[str, str, str]:
        return f"{amount.count:,}", f"{amount.count / self._summary.all.count:.1%}", f"{amount.pages:,}"

    def _stacks(self, breakdown: Breakdown) -> None:
        shown = max(1, self._top // 2)
        if all(part.key["frames"] is None for part in breakdown.parts):
            return
        self._heading("stacks, innermost function first")
        for part in breakdown.parts[:shown]:
            self._amount_line(part.amount)
            for frame in part.label.split("\n"):
                self._console.print(Text(f"    {printable(frame)}"), overflow="fold")
        hidden = len(breakdown.parts) - shown
        if hidden > 0:
            self._amount_line(breakdown.rest(shown), f" in {hidden:,} other stacks")

    def _amount_line(self, amount: Amount, suffix: str = "") -> None:
        count, share, pages = self._numbers(amount)
        mark = self._mark
        self._console.print(Text(f"  {mark}{count} allocations, {share}, {mark}{pages} pages{suffix}", style="bold"))

    def _verdict(self, verdict: Verification) -> None:
        style = "red" if verdict.mismatched else "yellow" if verdict.unknown else "green"
        numbers = f"  matched {verdict.matched:,}  mismatched {verdict.mismatched:,}  unknown {verdict.unknown:,}"
        self._console.print(Text(numbers, style=style))
        # One line whatever its length, so that it can be copied.
        more = f"  more: kalloctrace verify {shlex.quote(verdict.trace)}"
        self._console.print(Text(printable(more)), soft_wrap=True)


def header_fields(summary: Summary) -> Iterator[tuple[str, str]]:
    """Yield a label, empty where it is the one before, and a text for each fact about the recording."""
    snapshot, recording = summary.snapshot, summary.recording
    yield "trace", summary.trace
    yield "kernel", snapshot.release
    yield "", snapshot.version
    for line, (nid, zones) in enumerate(populated_zones(snapshot)):
        sizes = ", ".join(f"{z['zone']} {z['present_pages'] * PAGE_SIZE / _MIB:,.0f} MiB" for z in zones)
        yield "" if line else "machine", f"node {nid}: {sizes or 'no memory'}"
    command = recording.get("command")
    if isinstance(command, list) and command:
        yield "command", shlex.join(map(str, command))
    yield "started", str(recording.get("started", "not known"))
    if summary.totals is None:
        yield "lasted", "not known" if summary.first is None else f"at least {summary.seconds:,.1f} s"
    else:
        yield "lasted", f"{summary.seconds:,.1f} s: {summary.totals.reason}"
    yield "recorded", ", ".join(_method(summary))
    filters = list(filter_words(recording, snapshot.tables))
    if filters:
        yield "filters", "; ".join(filters)


def _method(summary: Summary) -> Iterator[str]:
    recording = summary.recording
    imported = recording.get("imported")
    if isinstance(imported, dict):
        yield f"imported from {imported.get('form')}"
        yield "masks as the kernel had changed them"
        return
    pid, attached = recording.get("pid"), recording.get("attached")
    yield str(recording.get("mode", "mode not known"))
    if pid is not None:
        yield f"process {pid}"
    elif not any(filter_words(recording, summary.snapshot.tables)):
        yield "all processes"
    yield "with kernel stacks" if recording.get("stacks") else "without stacks"
    if recording.get("cpus") is not None:
        yield f"{recording['cpus']} CPUs"
    if isinstance(attached, list):
        yield f"at {' and '.join(map(str, attached))}"


def total_fields(summary: Summary) -> Iterator[tuple[str, int | None, str]]:
    """Yield the name of each total, its number (None where it is not known), and what it means."""
    totals, seconds = summary.totals, summary.seconds
    rate = f"{summary.all.count / seconds:,.0f} a second" if seconds > 0 else ""
    yield "allocations", summary.all.count, rate
    yield "pages", summary.all.pages, f"{summary.all.pages * PAGE_SIZE / _MIB:,.1f} MiB"
    by_slow_path = _told_by_slow_path(summary)
    if by_slow_path is None:
        yield "failed", _known(summary, summary.failed), f"returned no page{_but(summary)}"
    else:
        running = f"; not returned at the end: {by_slow_path.slow_running:,}" if by_slow_path.slow_running else ""
        yield "failed", by_slow_path.slow_failed, f"left the slow path without a page{running}"
    missing = " or its call was missed" if totals is not None and totals.missed else ""
    yield (
        "rejected",
        None if only_events(summary) else summary.rejected,
        f"of these: get_page_from_freelist was never called{missing}",
    )
    slow = f"took more than one call of get_page_from_freelist{_but(summary)}"
    if by_slow_path is None:
        yield "slow path", None if only_events(summary) else _known(summary, summary.slow_path), slow
    else:
        lost = by_slow_path.slow_lost + by_slow_path.slow_missed
        besides = f"; events lost or missed: {lost:,}" if lost else ""
        yield "slow path", by_slow_path.slow, f"calls of it that were recorded{besides}"
    yield "lost", summary.lost, "seen, but not in the trace for want of room"
    yield "missed", totals.missed if totals else None, "probe hits that the kernel skipped"
    yield "still running", totals.running if totals else None, "had not returned when the recording ended"
    if totals is not None and totals.names_dropped:
        yield "names lost", totals.names_dropped, "so that calls may be listed under the name a task had before"
    if totals is not None and totals.machine_changed:
        yield "changed", len(totals.machine_changed), f"facts of the machine: {', '.join(totals.machine_changed)}"


def _told_by_slow_path(summary: Summary) -> Totals | None:
    """Return the totals when the slow path was recorded and not every return, so that it knows more of failures."""
    totals = summary.totals
    told = totals is not None and totals.slow is not None and summary.sample == 1
    return totals if told and summary.not_followed else None


def _known(summary: Summary, number: int) -> int | None:
    """Return a number that only traced returns can tell; None where there were none."""
    return None if number == 0 and 0 < summary.not_followed == summary.all.count else number


def only_events(summary: Summary) -> bool:
    """Tell whether all is of another tool, which does not see get_page_from_freelist()."""
    return 0 < summary.events == summary.all.count


def _but(summary: Summary) -> str:
    return f"; returns not traced: {summary.not_followed:,}" if summary.not_followed else ""


def _legends(summary: Summary) -> Iterator[str]:
    yield _LEGEND.replace(_NONE, _NONE_OF_EVENTS) if only_events(summary) else _LEGEND
    if summary.sample > 1:
        yield _ESTIMATE.format(sample=summary.sample)
    if summary.not_followed:
        yield _NOT_FOLLOWED if _told_by_slow_path(summary) is None else _SLOW_FOLLOWED


def _label(name: str, part: Part) -> str:
    if name == "comm":
        pids = part.key["pids"]
        who = f"pid {pids[0]}" if len(pids) == 1 else f"{len(pids):,} processes"
        return f"{printable(part.label)} ({who})"
    return printable(part.label)
