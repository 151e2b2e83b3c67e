# SPDX-License-Identifier: MIT
"""The summary of a trace as text for people."""

import shlex
from collections.abc import Iterator

from kalloctrace.console import Console
from kalloctrace.report.amount import Amount
from kalloctrace.report.headline import Line, headline, model_line
from kalloctrace.report.summary import Breakdown, Part, Summary, only_events, populated_zones, slow_path_totals
from kalloctrace.report.verification_text import not_judged_lines
from kalloctrace.styled import Sheet, Table
from kalloctrace.trace.audited import audit_lines
from kalloctrace.trace.filter_text import filter_words
from kalloctrace.trace.inferred import INFERRED, INFERRED_TEXT, inferred_of
from kalloctrace.trace.missed_text import missed_causes
from kalloctrace.trace.results import PAGE_SIZE
from kalloctrace.trace.totals import Totals
from kalloctrace.verify.verification import Verification

_WIDEST = 120
"""Wider tables are not easier to read."""
_MIB = 1 << 20
_SHARE_WIDTH = len("100.0%")
_TONES = {"good": "green", "bad": "red", "doubt": "yellow", "plain": ""}

_HEADINGS = {
    "gfp": "gfp mask passed by the caller",
    "order": "order",
    "migratetype": "migratetype",
    "preferred_zone": "preferred zone",
    "alloc_flags": "alloc_flags of the first attempt",
    "comm": "process",
    "zonelist": "zonelist and nodemask",
    "context": "context",
    "entry": "entry",
}
_EVENT_GFP = "gfp mask after the kernel changed it"
_ONLY_WHERE_VARYING = {"zonelist", "entry"}
_NONE = "get_page_from_freelist was not called, or no zone was eligible"
_NONE_OF_EVENTS = "the events do not show it"
_LEGEND = """\
share    of all allocations
pages    of 4 KiB, 2^order for each allocation that got its pages
none     {none}
bulk     a call of the bulk allocator: its prepared context is not visible, and
         its pages are the ones that the probe checked
task     process context; bh_disabled: process context with bottom halves off
softirq  interrupt context, like hardirq and nmi; the process is the interrupted
         one"""
_ESTIMATE = """\
~        an estimate: the recorded number times {sample:,}"""
_NOT_FOLLOWED = """\
pages    are the requested ones where the return was not traced; whether those
         calls failed or took the slow path is not known"""
_SLOW_FOLLOWED = """\
pages    are the requested ones where the return was not traced
failed   counted by the slow path's own recording: report --failures says why"""


def write_summary(summary: Summary, verdict: Verification, console: Console, *, top: int) -> None:
    """Print a summary and the verdict on the same trace.

    Args:
        summary: of the trace.
        verdict: on the trace.
        console: where to print: in colour and as wide as the terminal, or plain where it is not a terminal.
        top: number of rows in each table; half as many stacks are shown.
    """
    sheet = Sheet(console, min(console.columns, _WIDEST))
    _Page(sheet, summary, top).add(verdict)
    sheet.show()


class _Page:
    """One summary on one sheet."""

    def __init__(self, sheet: Sheet, summary: Summary, top: int) -> None:
        self._sheet = sheet
        self._summary = summary
        self._top = top
        self._mark = "~" if summary.sample > 1 else ""
        self._count_width = max(len(f"{self._mark}count"), len(f"{summary.all.count:,}"))
        self._pages_width = max(len(f"{self._mark}pages"), len(f"{summary.all.pages:,}"))

    def add(self, verdict: Verification) -> None:
        for answer in headline(self._summary):
            self._headline(answer)
        self._headline(model_line(verdict))
        for line in not_judged_lines(verdict):
            self._sheet.line(line)
        self._commands(verdict)
        self._sheet.blank()
        self._pairs(header_fields(self._summary))
        self._heading("totals" if not self._mark else f"totals, estimated from 1 call in {self._summary.sample:,}")
        self._totals()
        if self._summary.aggregate:
            self._sheet.blank()
            self._sheet.line("  An aggregate has no times, CPUs or processes: record with --mode stream.")
        for breakdown in self._summary.by:
            if breakdown.name == "stack":
                self._stacks(breakdown)
            elif breakdown.parts and (breakdown.name not in _ONLY_WHERE_VARYING or len(breakdown.parts) > 1):
                self._table(breakdown)
        self._sheet.blank()
        for legend in _legends(self._summary):
            for line in legend.splitlines():
                self._sheet.line(line, "dim")

    def _heading(self, text: str) -> None:
        self._sheet.blank()
        self._sheet.line(text, "bold")

    def _pairs(self, pairs: Iterator[tuple[str, str]]) -> None:
        grid = Table()
        grid.column(style="bold")
        grid.column(wraps="words")
        for name, value in pairs:
            grid.row(name, value)
        self._sheet.table(grid)

    def _totals(self) -> None:
        grid = Table()
        grid.column()
        grid.column(right=True)
        grid.column(wraps="words")
        for name, value, about in total_fields(self._summary):
            grid.row(f"  {name}", "not known" if value is None else f"{value:,}", about)
        self._sheet.table(grid)
        if self._summary.totals is None:
            why = f" ({self._summary.damage})" if self._summary.damage else ""
            text = f"  The end of the recording is missing{why}: the numbers below cover all complete batches."
            self._sheet.line(text, "yellow")

    def _table(self, breakdown: Breakdown) -> None:
        self._sheet.blank()
        table = Table("bold", expand=True)
        events = breakdown.name == "gfp" and only_events(self._summary)
        table.column(_EVENT_GFP if events else _HEADINGS[breakdown.name], wraps="names")
        for name, width in (
            (f"{self._mark}count", self._count_width),
            ("share", _SHARE_WIDTH),
            (f"{self._mark}pages", self._pages_width),
        ):
            table.column(name, right=True, width=width)
        for part in breakdown.parts[: self._top]:
            table.row(_label(breakdown.name, part), *self._numbers(part.amount))
        hidden = len(breakdown.parts) - self._top
        if hidden > 0:
            table.row(f"  other ({hidden:,})", *self._numbers(breakdown.rest(self._top)))
        self._sheet.table(table)

    def _numbers(self, amount: Amount) -> tuple[str, str, str]:
        return f"{amount.count:,}", f"{amount.count / self._summary.all.count:.1%}", f"{amount.pages:,}"

    def _stacks(self, breakdown: Breakdown) -> None:
        shown = max(1, self._top // 2)
        if all(part.key["frames"] is None for part in breakdown.parts):
            return
        self._heading("stacks, innermost function first")
        for part in breakdown.parts[:shown]:
            self._amount_line(part.amount)
            for frame in part.key["frames"] or (part.label,):
                self._sheet.line(f"    {frame}")
        hidden = len(breakdown.parts) - shown
        if hidden > 0:
            self._amount_line(breakdown.rest(shown), f" in {hidden:,} other stacks")

    def _amount_line(self, amount: Amount, suffix: str = "") -> None:
        count, share, pages = self._numbers(amount)
        mark = self._mark
        self._sheet.line(f"  {mark}{count} allocations, {share}, {mark}{pages} pages{suffix}", "bold")

    def _headline(self, line: Line) -> None:
        self._sheet.line(line.text, _TONES[line.tone])

    def _commands(self, verdict: Verification) -> None:
        """Print the commands that say more. They are never wrapped, so that they can be copied."""
        trace = shlex.quote(verdict.trace)
        self._sheet.line(f"  more: kalloctrace verify {trace}", wrap=False)
        if self._summary.slow is not None and self._summary.slow.calls:
            self._sheet.line(f"        kalloctrace report --failures {trace}", wrap=False)
        elif self._summary.failed:
            self._sheet.line(f"        kalloctrace report --by gfp,order --failed {trace}", wrap=False)
        if self._summary.recording.get("by") == "cgroup":
            self._sheet.line(f"        kalloctrace report --by cgroup {trace}", wrap=False)


def header_fields(summary: Summary) -> Iterator[tuple[str, str]]:
    """Yield a label and a text for each fact about the recording; an empty label continues the previous one."""
    snapshot, recording = summary.snapshot, summary.recording
    yield "trace", summary.trace
    yield "kernel", snapshot.release
    if snapshot.version:
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
    inferred = inferred_of(recording)
    if inferred:
        yield "inferred", "; ".join(INFERRED_TEXT[fact] for fact in INFERRED if fact in inferred)


def _method(summary: Summary) -> Iterator[str]:
    recording = summary.recording
    imported = recording.get("imported")
    if isinstance(imported, dict):
        yield f"imported from {imported.get('form')}"
        yield "masks after the kernel changed them"
        return
    pid, attached = recording.get("pid"), recording.get("attached")
    by = recording.get("by")
    yield f"{recording.get('mode', 'mode not known')}{'' if by is None else f' by {by}'}"
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
    """Yield the name of each total, its number (None where it is not known), and its meaning."""
    totals, seconds = summary.totals, summary.seconds
    rate = f"{summary.all.count / seconds:,.0f} per second" if seconds > 0 else ""
    yield "allocations", summary.all.count, rate
    yield "pages", summary.all.pages, f"{summary.all.pages * PAGE_SIZE / _MIB:,.1f} MiB"
    by_slow_path = slow_path_totals(summary)
    if by_slow_path is None:
        yield "failed", _known(summary, summary.failed), f"returned no page{_but(summary)}"
    else:
        running = f"; not returned at the end: {by_slow_path.slow_running:,}" if by_slow_path.slow_running else ""
        yield "failed", by_slow_path.slow_failed, f"left the slow path without a page{running}"
    missing = " or its call was missed" if totals is not None and totals.missed else ""
    yield (
        "rejected",
        None if only_events(summary) else summary.rejected,
        f"get_page_from_freelist was never called{missing}",
    )
    slow = f"called get_page_from_freelist more than once{_but(summary)}"
    if by_slow_path is None:
        yield "slow path", None if only_events(summary) else _known(summary, summary.slow_path), slow
    else:
        lost = by_slow_path.slow_lost + by_slow_path.slow_missed
        gaps = f"; events lost or missed: {lost:,}" if lost else ""
        yield "slow path", by_slow_path.slow, f"recorded calls of the slow path{gaps}"
    yield "lost", summary.lost, "captured, but not in the trace: a buffer was full"
    causes = [] if totals is None else list(missed_causes(totals, summary.recording))
    yield (
        "missed",
        totals.missed if totals else None,
        ": ".join(["probe hits that the kernel skipped", *(["; ".join(causes)] if causes else [])]),
    )
    if totals is not None and totals.audit is not None:
        number = totals.audit.differing if totals.audit.windows else None
        yield "audit", number, f"calls that differ: {'; '.join(audit_lines(totals.audit))}"
    yield from _left_out(totals)
    yield "still running", totals.running if totals else None, "had not returned when the recording ended"
    if totals is not None and totals.names_dropped:
        yield (
            "names lost",
            totals.names_dropped,
            "names of tasks: calls may be listed under the previous name, or under ?",
        )
    if totals is not None and totals.machine_changed:
        yield "changed", len(totals.machine_changed), f"facts about the machine: {', '.join(totals.machine_changed)}"


def _left_out(totals: Totals | None) -> Iterator[tuple[str, int | None, str]]:
    """Yield the calls that are not in the trace on purpose, where they were counted."""
    if totals is None:
        return
    if totals.own is not None:
        yield "own", totals.own, "calls of the recorder itself, left out"
    if totals.filtered is not None:
        yield "filtered", totals.filtered, "calls that the filters left out"
    if totals.dropped_by_flags:
        yield "by flags", totals.dropped_by_flags, "taken for later attempts, by their alloc_flags"


def _known(summary: Summary, number: int) -> int | None:
    """Return a number that depends on traced returns; None where no return was traced."""
    return None if number == 0 and 0 < summary.not_followed == summary.all.count else number


def _but(summary: Summary) -> str:
    return f"; returns not traced: {summary.not_followed:,}" if summary.not_followed else ""


def _legends(summary: Summary) -> Iterator[str]:
    yield _LEGEND.format(none=_NONE_OF_EVENTS if only_events(summary) else _NONE)
    if summary.recording.get("pseudonymous"):
        yield "pseudonymous: the names of tasks, commands and cgroups are hashed"
    if summary.sample > 1:
        yield _ESTIMATE.format(sample=summary.sample)
    if summary.not_followed:
        yield _NOT_FOLLOWED if slow_path_totals(summary) is None else _SLOW_FOLLOWED


def _label(name: str, part: Part) -> str:
    if name == "comm":
        pids = part.key["pids"]
        who = f"pid {pids[0]}" if len(pids) == 1 else f"{len(pids):,} processes" if pids else "processes not listed"
        # No line begins with a name that a process has chosen.
        return f"  {part.label} ({who})"
    return part.label
