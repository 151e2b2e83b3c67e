# SPDX-License-Identifier: MIT
"""Finds the reports of a log, and which lines are whose.

Several CPUs write at once. A line is told by the caller id of CONFIG_PRINTK_CALLER if the log has one; else by the task
that a line names ("CPU: 3 PID: 7 Comm: x", "x cpuset=/ mems_allowed=0") for it and those that follow, and by its time.
"""

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator

from kalloctrace.diagnose.reports import zones
from kalloctrace.diagnose.reports.headers import BEGINNINGS, begun, pieces, read_nodes
from kalloctrace.diagnose.reports.model import LoggedFailure
from kalloctrace.diagnose.reports.proc import PROC_HINTS, begins_file, owner_sites, read_owner, read_proc, zone_key
from kalloctrace.diagnose.reports.tasks import (
    OOM_HINTS,
    begins_table,
    is_about_kill,
    names_victim,
    read_cache,
    read_kill,
    read_list,
)
from kalloctrace.diagnose.reports.traces import LONGEST, frames_in, is_mixed, trace_begins, trace_ends
from kalloctrace.diagnose.reports.writer import Writer
from kalloctrace.diagnose.reports.zones import STATE_HINTS, StateLine, state_line
from kalloctrace.flags.logforms import ReleaseText, masks_in, release_in
from kalloctrace.flags.tables import FlagTables
from kalloctrace.flags.textsearch import read_mask
from kalloctrace.logs.messages import Message

PAGE_KB = 4
"""The page size in kB where only pages are printed."""

_MOST_OPEN = 64
_PATIENCE = 2000
"""Lines after which an incomplete report gets no more."""
_AFTERWARDS = 24
"""Lines after which a complete one gets no more."""
_PAUSE = 30.0
"""Seconds after which a line cannot be a report's."""
_NEAR = 6
"""Messages between lines of two reports that still may run into each other."""

_TASK_LINE = re.compile(
    r"(?:CPU: (?P<cpu>\d{1,5}) )?(?:UID: \d{1,10} )?(?:PID|Pid): (?P<pid>\d{1,10}),? [Cc]omm: (?P<comm>.{1,64}?) {1,8}"
    r"(?:Kdump: loaded {1,8})?(?:Not tainted|Tainted:)"
)
_CPUSET_LINE = re.compile(r"(?P<comm>.{1,64}?) cpuset=\S{0,255}? mems_allowed=[\d,-]*\d$")
_SUPPRESSED = re.compile(r"(?:.*\s)?(?P<function>\w+): (?P<number>\d{1,10}) (?:\w+ )?callbacks suppressed")
_CMA_FREE = re.compile(r".*=> (?P<free>\d{1,15}) free of (?P<all>\d{1,15}) total pages")
_LATE_MASK = re.compile(r",? ?mode:0x")
_SHOWN_BY = (
    (("failure", "stall", "vmalloc", "vmap", "vmemmap"), ("warn_alloc", "__alloc_pages_slowpath", "warn_alloc_failed")),
    (("oom",), ("oom_kill_process", "dump_header", "out_of_memory")),
    (("slub",), ("slab_out_of_memory",)),
    (("cma",), ("cma_alloc", "__cma_alloc")),
    (("contig",), ("alloc_contig_range", "alloc_contig_range_noprof")),
)
"""Events, and the functions whose rate limit suppresses them."""

# These call the OOM killer for the limit of a memory cgroup: mm/memcontrol.c, 2.6.25 to 7.3.
_MEMCG_FUNCTIONS = frozenset(("mem_cgroup_out_of_memory", "mem_cgroup_oom_synchronize", "mem_cgroup_handle_oom"))

_HINTS = (
    *BEGINNINGS,
    *PROC_HINTS,
    *OOM_HINTS,
    *("Mem-", " free:", "lowmem_reserve[]", "kB (", "*4kB", "0kB ", "active_anon:", "total_vm"),
    *("suppressed", "omm:", "Linux "),
)
"""While no report is open, a line with none of these words says nothing."""


def find_failures(
    messages: Iterable[Message], tables: FlagTables | None = None, page_kb: int = PAGE_KB
) -> Iterator[LoggedFailure]:
    """Find every report of the page allocator in a log, in constant memory and linear time.

    Args:
        messages: the log, as `read_messages` reads it.
        tables: the flags to decode masks with if the log names no kernel release; None for none.
        page_kb: the page size in kB, for files of /proc, which print pages.

    Yields:
        The reports in the order of their first lines, each when it can get no more.
    """
    pairing = _Pairing(tables, page_kb)
    for message in messages:
        pairing.feed(message)
        if pairing.done:
            yield from pairing.take()
    pairing.close_all()
    yield from pairing.take()


class _Pairing:
    """The reports that may get more lines.

    Attributes:
        done: whether the oldest report can be taken.
    """

    def __init__(self, tables: FlagTables | None, page_kb: int) -> None:
        self.done = False
        self._tables, self._page_kb = tables, page_kb
        self._open: list[Writer] = []
        self._events: Counter[str] = Counter()
        """How many reports of each event are open."""
        self._queue: deque[Writer] = deque()
        self._closed: set[Writer] = set()
        self._number = 0
        self._current: Writer | None = None
        """Who writes where no caller is printed: the report whose task was named last; None for another task."""
        self._showing: Writer | None = None
        """Whose state the latest line of one was."""
        self._rejecting = False
        """The lines of a state that follow are older than the report before them."""
        self._release: ReleaseText | None = None
        self._suppressed: dict[tuple[str, ...], int] = {}

    def feed(self, message: Message) -> None:
        """Read the next message."""
        text = message.text
        if not self._open and not any(hint in text for hint in _HINTS):
            self._number += 1
            return
        for piece in pieces(text):
            self._feed(message if piece == text else message._replace(text=piece))

    def _feed(self, message: Message) -> None:
        self._number += 1
        text = message.text
        if self._number % _AFTERWARDS == 0:
            self._close_stale(message)
        report = begun(text, message.line)
        if report is not None:
            self._begin(report, message)
        elif not self._read_identity(message):
            self._read_body(message)

    def take(self) -> Iterator[LoggedFailure]:
        """Yield the reports that are closed, up to the first that is not."""
        while self._queue and self._queue[0] in self._closed:
            writer = self._queue.popleft()
            self._closed.discard(writer)
            report = self._finished(writer)
            if report.event != "memory" or report.zones or report.nodes or report.totals or report.profile:
                yield report
        self.done = False

    def close_all(self) -> None:
        """End all reports: the log is over, or the machine was started again."""
        for writer in list(self._open):
            self._close(writer)

    def _begin(self, report: LoggedFailure, message: Message) -> Writer:
        mask = next(masks_in(message.text), None)
        merged = self._continued(report, message)
        if merged is not None:
            merged.mask = mask
            return merged
        self._close_before(report, message)
        report.time, report.wall, report.host = message.time, message.wall, message.host
        report.release = self._release
        for events, _ in _SHOWN_BY:
            if report.event in events:
                report.suppressed = self._suppressed.pop(events, 0)
        writer = Writer(report, message, mask, self._number, self._number, message.line, message.time)
        self._open.append(writer)
        self._events[report.event] += 1
        self._queue.append(writer)
        self._current, self._rejecting = writer, False
        return writer

    def _continued(self, report: LoggedFailure, message: Message) -> Writer | None:
        """Return the report that two lines begin: the reason, then the task and the mask."""
        last = self._open[-1] if self._open else None
        if last is None or last.mask is not None or last.report.comm or not last.may_write(message):
            return None
        pair = (last.report.event, report.event)
        if pair not in (("vmap", "vmap"), ("vmalloc", "failure")) or self._number - last.touched > _NEAR:
            return None
        first = last.report
        first.comm, first.nodemask, first.order = report.comm, report.nodemask, report.order
        first.cpuset, first.mems_allowed = report.cpuset, report.mems_allowed
        first.size = report.size if report.size is not None else first.size
        first.order_shown = report.order_shown
        last.touch(self._number, message)
        self._current = last
        return last

    def _close_before(self, report: LoggedFailure, message: Message) -> None:
        """Close the reports that a new one shows to be over."""
        for writer in list(self._open):
            same = message.caller != "" and writer.first.caller == message.caller
            # The OOM killer runs for one task at a time: oom_lock since 4.2, a lock of the zones before.
            another_kill = report.event == writer.report.event == "oom" and writer.same_caller(message)
            if writer.complete or same or another_kill:
                self._close(writer)
        if len(self._open) >= _MOST_OPEN:
            self._close(self._open[0])

    def _close_stale(self, message: Message) -> None:
        for writer in list(self._open):
            silent = message.line - writer.line
            if silent > _PATIENCE or (silent > _AFTERWARDS and writer.complete) or self._is_past(writer, message):
                self._close(writer)

    def _is_past(self, writer: Writer, message: Message) -> bool:
        return writer.written is not None and message.time is not None and message.time - writer.written > _PAUSE

    def _close(self, writer: Writer) -> None:
        self._open.remove(writer)
        self._events[writer.report.event] -= 1
        self._closed.add(writer)
        self.done = self.done or self._queue[0] is writer
        if self._current is writer:
            self._current = None
        if self._showing is writer:
            self._showing = None

    def _finished(self, writer: Writer) -> LoggedFailure:
        report = writer.report
        report.trace = tuple(writer.trace)
        if report.event == "oom" and any(f.reliable and f.function in _MEMCG_FUNCTIONS for f in report.trace):
            report.memcg, report.constraint = True, "memcg"
        if writer.file.sites:
            report.profile = owner_sites(writer.file)
        if writer.mask is not None:
            report.mask = read_mask(report.line, writer.mask, report.release, self._tables)
        return report

    def _read_identity(self, message: Message) -> bool:
        """Read a line that names its task or the kernel; return whether it is one."""
        text = message.text
        release = release_in(text)
        if release is not None and release.comm is None:
            self.close_all()
            self._release = release
            return True
        task = _TASK_LINE.match(text, max(text.find("CPU: "), text.find("Pid: "), 0)) if "omm:" in text else None
        if task is not None:
            self._read_task(message, task, release)
            self._release = release or self._release
            return True
        if "mems_allowed=" in text and (line := _CPUSET_LINE.match(text)) is not None:
            self._read_cpuset(message, line["comm"])
            return True
        return False

    def _read_task(self, message: Message, task: re.Match[str], release: ReleaseText | None) -> None:
        comm, pid = task["comm"], int(task["pid"])
        waiting = [w for w in self._open if not w.named and w.may_write(message)]
        waiting = [w for w in waiting if w.report.event not in ("memory", "slub", "cma", "contig", "hugetlb")]
        own = [w for w in waiting if _is_task(w, comm, pid)]
        last = waiting[-1] if waiting else None
        if not own and last is not None and not last.tracing and self._number - last.touched == 1:
            # People rename the task in one of the two lines.
            last.named, last.report.release = True, release or last.report.release
            last.touch(self._number, message)
            self._current = last
            return
        writer = self._current if self._current in own else own[-1] if own else None
        self._current = writer
        if writer is None:
            return
        if len(own) > 1 and not message.caller and self._number - own[0].touched <= _NEAR:
            for other in own:
                other.mixed()
                other.report.release = other.report.release or release
        report = writer.report
        # Whatever stands before the name is what is left of a prefix.
        report.comm, report.pid, report.release = comm, pid, release or report.release
        report.cpu = int(task["cpu"]) if task["cpu"] is not None else report.cpu
        writer.named = True
        writer.touch(self._number, message)

    def _read_cpuset(self, message: Message, comm: str) -> None:
        own = [w for w in self._open if w.may_write(message) and w.report.comm.endswith(comm) and not w.named]
        writer = self._current if self._current in own else own[-1] if own else None
        if writer is not None and writer.report.mems_allowed is None:
            self._current = writer
            read_nodes(writer.report, message.text)
            writer.touch(self._number, message)

    def _read_body(self, message: Message) -> None:
        text = message.text
        if any(hint in text for hint in OOM_HINTS) and self._read_kill(message):
            return
        if "suppressed" in text and (suppressed := _SUPPRESSED.match(text)) is not None:
            for events, functions in _SHOWN_BY:
                if suppressed["function"] in functions:
                    self._suppressed[events] = self._suppressed.get(events, 0) + int(suppressed["number"])
            return
        if any(hint in text for hint in STATE_HINTS) and (line := state_line(text)) is not None:
            self._read_state(message, line)
        elif not (self._read_lists(message) or self._read_proc(message) or self._read_details(message)):
            self._read_trace(message)

    def _read_kill(self, message: Message) -> bool:
        writer = self._latest(message, "oom")
        again = writer is not None and names_victim(message.text) and writer.lists.final and not writer.lists.group
        if writer is None or again:
            if not is_about_kill(message.text):
                return False
            report = LoggedFailure("oom", message.line, "", 0, order_shown=False)
            writer = self._begin(report, message)
        read_kill(writer.report, writer.lists, message.text, message.line)
        writer.touch(self._number, message)
        return True

    def _latest(self, message: Message, event: str) -> Writer | None:
        if not self._events[event]:
            return None
        own = (w for w in reversed(self._open) if w.report.event == event and w.may_write(message))
        return next(own, None)

    def _read_lists(self, message: Message) -> bool:
        """Read a line of the OOM killer's lists; the allocation profile follows every state."""
        writer = self._latest(message, "oom") or (self._showing if self._showing in self._open else None)
        if writer is None and begins_table(message.text):
            writer = self._begin(LoggedFailure("oom", message.line, "", 0, order_shown=False), message)
        if writer is None or not read_list(writer.report, writer.lists, message.text, self._page_kb):
            return False
        writer.touch(self._number, message)
        return True

    def _read_proc(self, message: Message) -> bool:
        writer = self._latest(message, "memory")
        key = zone_key(message.text) if ", zone" in message.text else ""
        if writer is None or not writer.report.in_pages or (key in writer.keys and not writer.file.block_types):
            if not begins_file(message.text):
                return False
            writer = self._begin(
                LoggedFailure("memory", message.line, "", 0, order_shown=False, in_pages=True), message
            )
            writer.report.state_line = message.line
        if not read_proc(writer.report, writer.file, message.text, self._page_kb):
            return False
        if key:
            writer.keys.add(key)
        writer.touch(self._number, message)
        return True

    def _read_details(self, message: Message) -> bool:
        """Read a line that follows SLUB's or CMA's, or a mask that another CPU's line cut off."""
        text = message.text
        if "object size:" in text and (writer := self._latest(message, "slub")) is not None:
            read_cache(writer.report, text)
        elif "free of" in text and (free := _CMA_FREE.match(text)) is not None:
            writer = self._latest(message, "cma")
            if writer is not None:
                writer.report.cma_pages = (int(free["free"]), int(free["all"]))
        elif _LATE_MASK.match(text) is not None:
            lacking = [w for w in self._open if w.mask is None and w.report.event == "failure" and w.may_write(message)]
            writer = lacking[-1] if lacking else None
            if writer is not None:
                writer.mask = next(masks_in(f"page allocation failure{text}"), None)
                read_nodes(writer.report, text)
        else:
            return False
        if writer is not None:
            writer.touch(self._number, message)
        return True

    def _read_trace(self, message: Message) -> None:
        text = message.text
        writer = self._writing(message)
        if writer is None or writer.trace_over:
            return
        rest = trace_begins(text)
        if rest is not None:
            writer.tracing = True
            writer.touch(self._number, message)
        elif writer.tracing and trace_ends(text):
            writer.trace_over = True
        for frame in frames_in(text if rest is None else rest, within=writer.tracing):
            if writer.report.in_pages:
                read_owner(writer.file, frame, self._page_kb)
            elif is_mixed(writer.trace, frame):
                self._mixed_traces(writer)
                return
            elif len(writer.trace) < LONGEST:
                writer.trace.append(frame)
            writer.touch(self._number, message)

    def _writing(self, message: Message) -> Writer | None:
        """Return the report that a line without a task's name is of."""
        if message.caller:
            return next((w for w in reversed(self._open) if w.may_write(message)), None)
        writer = self._current
        return writer if writer is not None and writer.may_write(message) else None

    def _mixed_traces(self, writer: Writer) -> None:
        """Drop the traces whose lines run into each other: a function of one would be taken for the other's."""
        for other in self._open:
            if other is writer or (other.trace and not other.trace_over and other.touched > writer.opened - _NEAR):
                other.trace, other.trace_over = [], True
                other.mixed()

    def _read_state(self, message: Message, line: StateLine) -> None:
        if line.kind == "tail":
            showing = self._showing
            if showing is not None and not showing.same_caller(message):
                showing = next((w for w in reversed(self._open) if w.state and w.may_write(message)), None)
            if showing is not None:
                zones.read_tail(showing.report, line)
                showing.state = 3
                showing.touch(self._number, message)
            return
        if line.kind == "begin":
            self._rejecting = False
            writer = self._begin_state(message)
            if writer is not None and line.match["rest"]:
                zones.read_totals(writer.report, line.match["rest"])
            return
        writer = self._shown_by(message, line)
        if writer is not None:
            self._add_to_state(writer, message, line)

    def _add_to_state(self, writer: Writer, message: Message, line: StateLine) -> None:
        if line.key:
            writer.keys.add(line.key)
        report = writer.report
        if line.kind == "totals":
            zones.read_totals(report, line.text)
        elif line.kind == "node":
            zones.read_node(report, line)
        elif line.kind == "zone":
            writer.zone = zones.read_zone(report, line)
        elif line.kind == "reserve":
            zones.read_reserve(writer.zone, line)
        elif line.kind == "blocks":
            zones.read_blocks(report, line)
            writer.state = 2
        else:
            zones.read_huge_pages(report, line)
            writer.state = 2
        writer.trace_over = writer.trace_over or bool(writer.trace)
        writer.touch(self._number, message)
        self._showing = writer

    def _shown_by(self, message: Message, line: StateLine) -> Writer | None:
        """Return the report whose state a line is of, and begin one if it is the first of its state."""
        if self._showing is not None and self._showing.may_show(message) and line.key not in self._showing.keys:
            return self._showing
        showing = [w for w in self._open if w.may_show(message)]
        latest = self._showing if self._showing in showing else showing[-1] if showing else None
        if latest is None:
            whole = line.kind != "reserve" and (line.kind != "blocks" or line.match["total"] is not None)
            return (self._shown_again(message, line) or self._begin_state(message)) if whole else None
        if line.key not in latest.keys:
            return latest
        others = [w for w in showing if w is not latest and line.key not in w.keys and w.touched > latest.opened]
        if others:
            latest.mixed()
            others[-1].mixed()
            return others[-1]
        return self._shown_again(message, line) or self._begin_state(message)

    def _shown_again(self, message: Message, line: StateLine) -> Writer | None:
        """Return the report that shows a zone for the second time, if no other report waits for its state."""
        latest = self._showing
        if latest is None or line.key not in latest.keys or line.kind == "totals" or not latest.may_write(message):
            return None
        return None if any(w.wants_state and w.may_write(message) for w in self._open) else latest

    def _begin_state(self, message: Message) -> Writer | None:
        """Return the report whose state begins here; None if the state is older than the report before it."""
        current = self._current
        if current is not None and current.report.event == "memory" and current.state == 0:
            return self._begin_orphan(message)
        wanting = [w for w in self._open if w.wants_state and w.same_caller(message) and not self._is_past(w, message)]
        writers = [w for w in wanting if not w.is_younger(message)]
        if not writers:
            if wanting or self._rejecting:
                self._reject(wanting, message)
                return None
            return self._begin_orphan(message)
        writer = self._current if self._current in writers else max(writers, key=lambda w: (w.named, w.touched))
        self._note_rivals(writer, writers)
        writer.report.state_line = message.line
        if message.time is not None and writer.first.time is not None:
            writer.report.state_age = message.time - writer.first.time
        self._show(writer, message)
        return writer

    def _note_rivals(self, writer: Writer, writers: list[Writer]) -> None:
        """Note that a state may be another report's, which has written since this one began and has none yet."""
        if writer.first.caller:
            return
        for other in writers:
            near = other.touched > writer.opened or (not writer.named and other.touched > writer.opened - _NEAR)
            if other is not writer and other.named and near:
                other.mixed()
                writer.mixed()

    def _reject(self, wanting: list[Writer], message: Message) -> None:
        self._rejecting = True
        for writer in wanting[-1:]:
            report = writer.report
            if report.state_line is None and message.time is not None and writer.first.time is not None:
                report.state_line, report.state_age = message.line, message.time - writer.first.time

    def _begin_orphan(self, message: Message) -> Writer:
        writer = self._current
        if writer is None or writer.report.event != "memory" or writer.state or not writer.may_write(message):
            writer = self._begin(LoggedFailure("memory", message.line, "", 0, order_shown=False), message)
        writer.report.state_line = message.line
        self._show(writer, message)
        return writer

    def _show(self, writer: Writer, message: Message) -> None:
        writer.state, writer.trace_over = 1, True
        writer.touch(self._number, message)
        self._showing = writer


def _is_task(writer: Writer, comm: str, pid: int) -> bool:
    report = writer.report
    if report.pid is not None:
        return report.pid == pid
    return not report.comm or report.comm.endswith(comm)
