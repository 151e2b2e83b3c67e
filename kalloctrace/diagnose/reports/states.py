# SPDX-License-Identifier: MIT
"""Whose state of memory a line is of."""

from kalloctrace.diagnose.reports import zones
from kalloctrace.diagnose.reports.model import LoggedFailure
from kalloctrace.diagnose.reports.open_reports import OpenReports
from kalloctrace.diagnose.reports.traces import is_incomplete
from kalloctrace.diagnose.reports.writer import NEAR, Writer, elapsed
from kalloctrace.diagnose.reports.zones import StateLine
from kalloctrace.logs.messages import Message


class States:
    """Gives the lines of states to the open reports."""

    def __init__(self, reports: OpenReports) -> None:
        """Begin a log."""
        self._reports = reports

    def read(self, message: Message, line: StateLine) -> None:
        """Add a line to the state that it is of; a state that no report waits for becomes one of its own."""
        if line.kind == "tail":
            self._read_tail(message, line)
            return
        if line.kind == "begin":
            self._reports.rejecting = False
            writer = self._begin_state(message)
            if writer is not None and line.match["rest"]:
                zones.read_totals(writer.report, line.match["rest"])
            return
        writer = self._shown_by(message, line)
        if writer is not None:
            self._add_to_state(writer, message, line)

    def _read_tail(self, message: Message, line: StateLine) -> None:
        showing, reports = self._reports.showing, self._reports.open
        if showing is not None and not (
            showing.same_caller(message) and showing.whole and line.key not in showing.keys
        ):
            others = [w for w in reports if w.state and w.may_write(message) and w.whole and line.key not in w.keys]
            if others and not message.caller:
                showing.mixed()
                others[-1].mixed()
            showing = others[-1] if others else showing if showing.same_caller(message) else None
        elif showing is None and not self._reports.rejecting:
            # Of some logs only these lines are left.
            showing = next((w for w in reversed(reports) if w.wants_state and w.may_write(message)), None)
        if showing is not None:
            if zones.says_otherwise(showing.report, line):
                showing.mixed()
                return
            zones.read_tail(showing.report, line)
            showing.keys.add(line.key)
            showing.early = not showing.whole
            if showing.state and showing.whole:
                showing.state = 3
            showing.touch(self._reports.number, message)

    def _add_to_state(self, writer: Writer, message: Message, line: StateLine) -> None:
        if line.key:
            writer.keys.add(line.key)
        writer.place = max(writer.place, line.place)
        if writer.interrupted or writer.early:
            self._note_interruptions(writer)
        report, note = writer.report, writer.touch
        if line.kind == "totals":
            zones.read_totals(report, line.text)
        elif line.kind == "node":
            zones.read_node(report, line)
        elif line.kind == "zone":
            writer.zone = zones.read_zone(report, line)
            note = writer.touch if report.nodes else writer.reach
        elif line.kind == "reserve":
            zones.read_reserve(writer.zone, line)
            note = writer.reach
        elif line.kind == "blocks":
            zones.read_blocks(report, line)
            writer.state, note = 2, writer.reach
        else:
            zones.read_huge_pages(report, line)
            writer.state = 2
        writer.trace_over = writer.trace_over or bool(writer.trace)
        note(self._reports.number, message)
        self._reports.showing = writer

    def _shown_by(self, message: Message, line: StateLine) -> Writer | None:
        """Return the report whose state a line is of, and begin one if it is the first of its state."""
        latest = self._reports.showing
        if latest is not None and latest.may_show(message) and latest.continues(line):
            return latest
        showing = [w for w in self._reports.open if w.may_show(message)]
        latest = latest if latest in showing else showing[-1] if showing else None
        if latest is None:
            whole = line.kind != "reserve" and (line.kind != "blocks" or line.match["total"] is not None)
            return (self._shown_again(message, line) or self._begin_state(message)) if whole else None
        others = [w for w in showing if w is not latest and w.continues(line)]
        if others:
            latest.mixed()
            others[-1].mixed()
            return others[-1]
        if line.kind == "reserve" or line.key not in latest.keys:
            return latest
        return self._shown_again(message, line) or self._begin_state(message)

    def _shown_again(self, message: Message, line: StateLine) -> Writer | None:
        """Return the report that shows a zone for the second time, if no other report waits for its state."""
        latest = self._reports.showing
        if latest is None or line.key not in latest.keys or line.kind == "totals" or not latest.may_write(message):
            return None
        return None if any(w.wants_state and w.may_write(message) for w in self._reports.open) else latest

    def _begin_state(self, message: Message) -> Writer | None:
        """Return the report whose state begins here; None if the state is older than the report before it."""
        current = self._reports.current
        if current is not None and current.report.event == "memory" and current.state == 0:
            return self._begin_orphan(message)
        wanting = [
            w
            for w in self._reports.open
            if w.wants_state and w.same_caller(message) and not self._reports.is_past(w, message)
        ]
        writers = [w for w in wanting if not w.is_younger(message)]
        if not writers:
            if wanting or self._reports.rejecting:
                self._reject(wanting, message)
                return None
            return self._begin_orphan(message)
        writer = self._reports.current
        if writer not in writers:
            writer = max(writers, key=lambda w: (w.named, w.touched))
            self._note_swapped(writer, message)
            if self._reports.foreign and not writer.first.caller:
                writer.mixed()
        self._note_rivals(writer, writers)
        if writer.tracing and is_incomplete(writer.trace):
            # A state follows a whole trace, so this one may be that of a report which has one.
            for other in writers:
                if not writer.first.caller and other.tracing and not is_incomplete(other.trace):
                    other.mixed()
                    writer.mixed()
        writer.report.state_line = message.line
        writer.report.state_age = elapsed(writer.first.time, message.time)
        self._show(writer, message)
        return writer

    def _note_swapped(self, writer: Writer, message: Message) -> None:
        """Note that the states of younger reports may be this one's: nothing says that its task writes again."""
        younger = [w for w in self._reports.open if w.state and w.opened > writer.opened and w.same_caller(message)]
        if younger and not writer.first.caller:
            for other in (writer, *younger):
                other.mixed()

    def _note_rivals(self, writer: Writer, writers: list[Writer]) -> None:
        """Note that a state may be another report's, which has written since this one began and has none yet."""
        if writer.first.caller:
            return
        for other in writers:
            near = other.touched > writer.opened or (not writer.named and other.touched > writer.opened - NEAR)
            if other is not writer and other.named and near:
                other.mixed()
                writer.mixed()

    def _reject(self, wanting: list[Writer], message: Message) -> None:
        self._reports.rejecting = True
        for writer in wanting[-1:]:
            report = writer.report
            if report.state_line is None:
                report.state_line, report.state_age = message.line, elapsed(writer.first.time, message.time)

    def _note_interruptions(self, writer: Writer) -> None:
        """Note that the lines of two states run into each other, where the first one goes on behind the second."""
        others = [w for w in self._reports.open if w.interrupts is writer] if writer.interrupted else []
        if others or writer.early:
            for other in (writer, *others):
                other.mixed()

    def _note_surplus(self, message: Message) -> None:
        """Note that one report may have the state of another: several were open at once, and here is one more state."""
        for writer in self._reports.open:
            others = [*writer.rivals, *([writer.interrupts] if writer.interrupts is not None else [])]
            if others and not message.caller and writer.same_caller(message):
                for other in (writer, *others):
                    other.mixed()

    def _begin_orphan(self, message: Message) -> Writer:
        self._note_surplus(message)
        writer = self._reports.current
        if writer is None or writer.report.event != "memory" or writer.state or not writer.may_write(message):
            writer = self._reports.begin(LoggedFailure("memory", message.line, "", 0, order_shown=False), message)
        writer.report.state_line = message.line
        self._show(writer, message)
        return writer

    def _show(self, writer: Writer, message: Message) -> None:
        showing = self._reports.showing
        if showing is not None and showing.may_show(message) and not showing.whole and not message.caller:
            writer.interrupts, showing.interrupted = showing, True
        writer.state, writer.trace_over = 1, True
        writer.touch(self._reports.number, message)
        self._reports.showing = writer
