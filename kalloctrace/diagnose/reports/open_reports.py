# SPDX-License-Identifier: MIT
"""The reports that may get more lines, and when each is over."""

from collections import Counter, deque
from collections.abc import Iterator

from kalloctrace.diagnose.reports.boots import Boots
from kalloctrace.diagnose.reports.model import LoggedFailure
from kalloctrace.diagnose.reports.writer import NEAR, WITH_STATE, Writer, elapsed
from kalloctrace.flags.logforms import MaskText
from kalloctrace.logs.messages import Message

AFTERWARDS = 24
"""Lines after which a complete report gets no more."""

_MOST_OPEN = 64
_PATIENCE = 2000
"""Lines after which an incomplete report gets no more."""
_PAUSE = 30.0
"""Seconds after which a line cannot be a report's."""

_OF_MANY_LINES = WITH_STATE | {"warning", "memory"}
"""The events whose report may have lines that name nobody."""


def _is_reason(first: LoggedFailure, report: LoggedFailure) -> bool:
    """Return whether a line without a task is the reason of the report that follows.

    `alloc_vmap_area` prints that it found no range, then its caller what that was for, up to 3.x in two lines: the
    size, and the request. Source: mm/vmalloc.c of Linux 2.6.28 to 7.3.
    """
    pair, reason = (first.event, report.event), (first.warning_text or "").startswith(_GAVE_UP)
    if pair == ("vmap", "vmalloc"):
        # A guard page is added to the size.
        return (report.warning_text or "").startswith(_GAVE_UP) and (first.size or 0) >= (report.size or 0)
    if pair == ("vmap", "vmap"):
        # Else it is the same line for another request.
        return report.comm != ""
    return pair == ("vmalloc", "failure") or (pair == ("vmap", "failure") and reason)


_GAVE_UP = "allocation failure: "
"""Of vmalloc without pages; else it tells how many pages it got."""


class OpenReports:
    """The open reports of a log.

    Attributes:
        number: of the message that is read, from 1.
        open: in the order of their first lines.
        current: who writes where no caller is printed: the report whose task was named last; None for another task.
        foreign: the task that was named last has no report.
        showing: whose state the latest line of one was.
        rejecting: the lines of a state that follow are older than the report before them.
        done: the oldest report is over.
        boots: which kernel prints.
    """

    def __init__(self) -> None:
        """Begin a log."""
        self.number = 0
        self.open: list[Writer] = []
        self.current: Writer | None = None
        self.foreign = False
        self.showing: Writer | None = None
        self.rejecting = False
        self.done = False
        self.boots = Boots()
        self._events: Counter[str] = Counter()
        self._queue: deque[Writer] = deque()
        self._closed: set[Writer] = set()

    def begin(self, report: LoggedFailure, message: Message, mask: MaskText | None = None) -> Writer:
        """Open a report; those that it shows to be over are closed."""
        self._close_before(report, message)
        report.time, report.wall, report.host = message.time, message.wall, message.host
        boot = self.boots.of(message)
        report.release = boot.release
        writer = Writer(report, message, boot, mask, self.number, self.number, message.line, message.time)
        for other in self.open:
            if (
                not writer.first.caller
                and other.same_caller(message)
                and other.wants_state
                and writer.wants_state
                and not self.is_past(other, message)
            ):
                writer.rivals.append(other)
                other.rivals.append(writer)
        self.open.append(writer)
        self._events[report.event] += 1
        self._queue.append(writer)
        self.rejecting = False
        if report.event in _OF_MANY_LINES:
            self.current, self.foreign = writer, False
        return writer

    def continued(self, report: LoggedFailure, message: Message, mask: MaskText | None) -> bool:
        """Return whether a first line belongs to the report before: the reason, then the task and the mask."""
        last = self.open[-1] if self.open else None
        if last is None or last.mask is not None or last.report.comm or not last.may_write(message):
            return False
        first = last.report
        if not _is_reason(first, report) or self.number - last.touched > NEAR:
            return False
        first.warning_text = report.warning_text or first.warning_text
        first.suppressed += report.suppressed
        first.comm, first.nodemask, first.order = report.comm, report.nodemask, report.order
        first.cpuset, first.mems_allowed = report.cpuset, report.mems_allowed
        first.size = report.size if report.size is not None else first.size
        first.order_shown = report.order_shown
        last.mask = mask
        last.touch(self.number, message)
        self.current = last
        return True

    def adopted(self, message: Message) -> Writer | None:
        """Return the report of an OOM kill that so far was a state of memory without a first line; None for none."""
        writer = self.latest(message, "memory")
        if writer is None or writer.report.state_line != writer.report.line or writer.report.in_pages:
            return None
        if self.number - writer.touched > NEAR:
            return None
        self._events["memory"] -= 1
        self._events["oom"] += 1
        writer.report.event = "oom"
        return writer

    def latest(self, message: Message, event: str) -> Writer | None:
        """Return the latest report of an event that a message can be of."""
        if not self._events[event]:
            return None
        return next((w for w in reversed(self.open) if w.report.event == event and w.may_write(message)), None)

    def writing(self, message: Message) -> Writer | None:
        """Return the report that a line without a task's name is of."""
        if message.caller:
            return next((w for w in reversed(self.open) if w.may_write(message)), None)
        writer = self.current
        return writer if writer is not None and writer.may_write(message) else None

    def is_past(self, writer: Writer, message: Message) -> bool:
        """Return whether a message is much later than a report."""
        passed = elapsed(writer.written, message.time)
        return passed is not None and passed > _PAUSE

    def close_stale(self, message: Message) -> None:
        """Close the reports that had no line for long."""
        for writer in list(self.open):
            silent = message.line - writer.line
            if silent > _PATIENCE or (silent > AFTERWARDS and writer.complete) or self.is_past(writer, message):
                self._close(writer)

    def close_all(self) -> None:
        """Close all reports: the log is over."""
        for writer in list(self.open):
            self._close(writer)

    def close_host(self, message: Message) -> None:
        """Close the reports of the machine that a message is of: it was started again."""
        for writer in list(self.open):
            if writer.same_host(message):
                self._close(writer)

    def take(self) -> Iterator[Writer]:
        """Yield the reports that are closed, up to the first that is not."""
        while self._queue and self._queue[0] in self._closed:
            writer = self._queue.popleft()
            self._closed.discard(writer)
            yield writer
        self.done = False

    def _close_before(self, report: LoggedFailure, message: Message) -> None:
        for writer in list(self.open):
            same = message.caller != "" and writer.first.caller == message.caller
            # The OOM killer runs for one task at a time: oom_lock since 4.2, a lock of the zones before.
            another_kill = report.event == writer.report.event == "oom" and writer.same_caller(message)
            over = writer.complete and (writer.ended or self.number - writer.touched > NEAR or writer.state == 0)
            if over or same or another_kill:
                self._close(writer)
        if len(self.open) >= _MOST_OPEN:
            self._close(self.open[0])

    def _close(self, writer: Writer) -> None:
        self.open.remove(writer)
        # Else each report would keep the one before it for as long as the log goes on.
        writer.rivals = []
        self._events[writer.report.event] -= 1
        self._closed.add(writer)
        self.done = self.done or self._queue[0] is writer
        if self.current is writer:
            self.current = None
        if self.showing is writer:
            self.showing = None
