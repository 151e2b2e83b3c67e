# SPDX-License-Identifier: MIT
"""Finds the reports of a log, and which lines are whose.

Several CPUs write at once. A line is assigned by the caller id of CONFIG_PRINTK_CALLER if the log has one; else by
the task that a line names ("CPU: 3 PID: 7 Comm: x", "x cpuset=/ mems_allowed=0") for it and those that follow, and by
its time.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache

from kalloctrace.diagnose.reports.fallbacks import with_fallbacks
from kalloctrace.diagnose.reports.headers import BEGINNINGS, begun, pieces, read_nodes
from kalloctrace.diagnose.reports.model import Frame, LoggedFailure
from kalloctrace.diagnose.reports.open_reports import AFTERWARDS, OpenReports
from kalloctrace.diagnose.reports.proc import PROC_HINTS, begins_file, owner_sites, read_owner, read_proc, zone_key
from kalloctrace.diagnose.reports.said import ANOTHER_HINTS, Said, said_by
from kalloctrace.diagnose.reports.states import States
from kalloctrace.diagnose.reports.tasks import (
    OOM_HINTS,
    begins_table,
    is_about_kill,
    names_victim,
    of_cgroup,
    read_cache,
    read_kill,
    read_list,
)
from kalloctrace.diagnose.reports.traces import (
    LONGEST,
    PANICKING,
    frames_in,
    is_incomplete,
    is_mixed,
    lacks_beginning,
    trace_begins,
    trace_ends,
)
from kalloctrace.diagnose.reports.writer import NEAR, Writer
from kalloctrace.flags.logforms import MaskText, ReleaseText, masks_in
from kalloctrace.flags.tables import FlagTables
from kalloctrace.flags.textsearch import read_mask
from kalloctrace.logs.batches import in_batches
from kalloctrace.logs.messages import Message

PAGE_KB = 4
"""The page size in kB where only pages are printed."""

_LAST_TOTAL = re.compile(r"(?P<name>[a-z_]{1,32}):\d{1,15}$")
_LAST_NODES = re.compile(r"mems_allowed=[\d,-]*$")
_CMA_FREE = re.compile(r".*=> (?P<free>\d{1,15}) free of (?P<all>\d{1,15}) total pages")
_CMA_RANGE = re.compile(r"(?<!\d)(\d{1,15})@\d")
_LATE_MASK = re.compile(r",? ?mode:0x")
_SHOWN_BY = (
    (("failure", "stall", "vmalloc", "vmap", "vmemmap"), ("warn_alloc", "__alloc_pages_slowpath", "warn_alloc_failed")),
    (("oom",), ("oom_kill_process", "dump_header", "out_of_memory")),
    (("slub",), ("slab_out_of_memory",)),
    (("cma",), ("cma_alloc", "__cma_alloc")),
    (("contig",), ("alloc_contig_range", "alloc_contig_range_noprof")),
)
"""Events, and the functions whose rate limit suppresses them."""

# `printk_ratelimit`, kernel/printk.c up to 2.6.26; lib/ratelimit.c of 2.6.27 to 2.6.32.
_LIMITS_ALL = ("printk", "__ratelimit")
"""These names stand for a rate limit that most of the kernel shares."""

# These call the OOM killer for the limit of a memory cgroup: mm/memcontrol.c, 2.6.25 to 7.3.
_MEMCG_FUNCTIONS = frozenset(("mem_cgroup_out_of_memory", "mem_cgroup_oom_synchronize", "mem_cgroup_handle_oom"))

_BATCH = 128
"""Messages that are read before the first of them is given to its report."""

_MOST_WAITING = 256
"""Reports that wait for the name of their kernel."""

_MAY_PANIC = ("oom", "warning")
"""Events that may themselves end the kernel: panic_on_oom and panic_on_warn."""

_HINTS = (
    *BEGINNINGS,
    *PROC_HINTS,
    *OOM_HINTS,
    *("Mem-", " free:", "lowmem_reserve[]", "kB (", "*4kB", "0kB ", "active_anon:", "total_vm"),
    *("suppressed", "omm:", "Linux ", *ANOTHER_HINTS),
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
    yield from with_fallbacks(_paired(messages, _Pairing(tables, page_kb)))


def _paired(messages: Iterable[Message], pairing: "_Pairing") -> Iterator[LoggedFailure]:
    last = None
    for message in in_batches(messages, _BATCH):
        pairing.feed(message)
        last = message
        if pairing.reports.done:
            yield from pairing.take()
    if last is not None:
        pairing.forget_end(last)
    pairing.reports.close_all()
    yield from pairing.take(most_waiting=0)


class _Pairing:
    """Gives each line to its report.

    Attributes:
        reports: the open reports.
    """

    def __init__(self, tables: FlagTables | None, page_kb: int) -> None:
        self.reports = OpenReports()
        self._states = States(self.reports)
        self._tables, self._page_kb = tables, page_kb
        self._suppressed: dict[tuple[str, ...], int] = {}
        self._limited = (0, 0)
        self._waiting: deque[Writer] = deque()

    def feed(self, message: Message) -> None:
        """Read the next message."""
        text = message.text
        if not self.reports.open and not any(map(text.__contains__, _HINTS)):
            self.reports.number += 1
            return
        said = said_by(text)
        if not said.may_begin:
            self._feed(message, said)
            return
        for piece in pieces(text):
            self._feed(message if piece == text else message._replace(text=piece), said_by(piece))

    def forget_end(self, last: Message) -> None:
        """Forget what the last line ends in, a number or a list: the log may end within it."""
        for writer in self.reports.open:
            if writer.line != last.line:
                continue
            if writer.zone is not None and last.text.startswith("lowmem_reserve[]:"):
                writer.zone.lowmem_reserve = None
            elif (total := _LAST_TOTAL.search(last.text)) is not None:
                writer.report.totals.pop(total["name"], None)
            elif last.line != writer.report.line and _LAST_NODES.search(last.text) is not None:
                writer.report.mems_allowed = None

    def _feed(self, message: Message, said: Said) -> None:
        self.reports.number += 1
        if self.reports.number % AFTERWARDS == 0:
            self.reports.close_stale(message)
        if said.state is not None and said.state.alone:
            self._states.read(message, said.state)
            return
        report = begun(message.text, message.line) if said.may_begin else None
        if report is not None:
            self._begin(report, message)
        elif not self._read_identity(message, said):
            self._read_body(message, said)

    def take(self, most_waiting: int = _MOST_WAITING) -> Iterator[LoggedFailure]:
        """Yield the reports that are over, up to the first that is not.

        Args:
            most_waiting: how many wait for a later line that names their kernel.
        """
        self._waiting.extend(self.reports.take())
        while self._waiting and (_kernel_is_known(self._waiting[0]) or len(self._waiting) > most_waiting):
            report = self._finished(self._waiting.popleft())
            if report.event != "memory" or report.zones or report.nodes or report.totals or report.profile:
                yield report

    def _begin(self, report: LoggedFailure, message: Message) -> None:
        mask = _mask_in(message.text)
        for events, _ in _SHOWN_BY:
            if report.event in events:
                report.suppressed = self._suppressed.pop(events, 0)
        limited, number = self._limited
        if self.reports.number == number + 1:
            report.limited = limited
        if not self.reports.continued(report, message, mask):
            self.reports.begin(report, message, mask)

    def _finished(self, writer: Writer) -> LoggedFailure:
        report = writer.report
        other = writer.interrupts
        if other is not None and writer.opened < other.touched and not (writer.whole and other.whole):
            # What one lacks may be among the lines of the other.
            writer.mixed()
            other.mixed()
        if report.release is None and writer.boot.release is not None:
            report.release, report.release_line = writer.boot.release, writer.boot.line
        report.trace, report.trace_lines = tuple(writer.trace), tuple(writer.trace_lines)
        if report.event == "oom" and any(f.reliable and f.function in _MEMCG_FUNCTIONS for f in report.trace):
            report.memcg, report.constraint = True, "memcg"
        if writer.file.sites:
            report.profile = owner_sites(writer.file)
        if writer.mask is not None:
            report.mask = read_mask(report.line, writer.mask, report.release, self._tables)
        return report

    def _read_identity(self, message: Message, said: Said) -> bool:
        """Read a line that names its task or the kernel; return whether it is one."""
        release = said.release
        if said.another:
            self.reports.boots.another(message)
            self.reports.close_host(message)
        elif release is not None and self.reports.boots.named(message, release):
            self.reports.close_host(message)
        elif said.task is not None:
            self._read_task(message, said.task, release)
        elif release is not None:
            return True
        elif said.cpuset is not None:
            self._read_cpuset(message, said.cpuset)
        else:
            return False
        return True

    def _read_task(self, message: Message, task: re.Match[str], release: ReleaseText | None) -> None:
        comm, pid = task["comm"], int(task["pid"])
        waiting = [w for w in self.reports.open if not w.named and not w.lacks_task and w.may_write(message)]
        waiting = [w for w in waiting if w.report.event not in ("memory", "slub", "cma", "contig", "hugetlb")]
        own = [w for w in waiting if _is_task(w, comm, pid)]
        last = waiting[-1] if waiting else None
        if not own and last is not None and not last.tracing and self.reports.number - last.touched == 1:
            # People rename the task in one of the two lines.
            last.named, last.report.release = True, release or last.report.release
            last.touch(self.reports.number, message)
            self.reports.current = last
            return
        writer = self.reports.current if self.reports.current in own else own[-1] if own else None
        self.reports.current, self.reports.foreign = writer, writer is None
        if writer is None:
            return
        if len(own) > 1 and not message.caller and self.reports.number - own[0].touched <= NEAR:
            for other in own:
                other.mixed()
                other.report.release = other.report.release or release
        report = writer.report
        # Whatever stands before the name is what is left of a prefix.
        report.comm, report.pid, report.release = comm, pid, release or report.release
        report.cpu = int(task["cpu"]) if task["cpu"] is not None else report.cpu
        writer.named = True
        writer.touch(self.reports.number, message)

    def _read_cpuset(self, message: Message, comm: str) -> None:
        own = [w for w in self.reports.open if w.may_write(message) and _has_name(w, comm) and not w.named]
        writer = self.reports.current if self.reports.current in own else own[-1] if own else None
        if writer is not None and writer.report.mems_allowed is None:
            self.reports.current = writer
            read_nodes(writer.report, message.text)
            writer.touch(self.reports.number, message)

    def _read_body(self, message: Message, said: Said) -> None:
        if said.kill and self._read_kill(message):
            return
        if said.suppressed is not None:
            for events, functions in _SHOWN_BY:
                if said.suppressed["function"] in functions:
                    self._suppressed[events] = self._suppressed.get(events, 0) + int(said.suppressed["number"])
            if said.suppressed["function"] in _LIMITS_ALL:
                self._limited = (int(said.suppressed["number"]), self.reports.number)
        elif said.lost:
            for writer in self.reports.open:
                # A complete one has all of its lines.
                writer.report.lost += 0 if writer.complete else said.lost
        elif said.state is not None:
            self._states.read(message, said.state)
        elif not (self._read_lists(message) or self._read_proc(message) or self._read_details(message)):
            self._read_trace(message)

    def _read_kill(self, message: Message) -> bool:
        writer = self.reports.latest(message, "oom")
        again = writer is not None and names_victim(message.text) and writer.lists.final and not writer.lists.group
        if writer is None or again:
            if not is_about_kill(message.text):
                return False
            writer = self._begin_oom(message)
        read_kill(writer.report, writer.lists, message.text, message.line)
        writer.touch(self.reports.number, message)
        return True

    def _begin_oom(self, message: Message) -> Writer:
        """Begin an OOM report whose first line is missing; it may have shown the state of memory already."""
        writer = None if of_cgroup(message.text) else self.reports.adopted(message)
        return writer or self.reports.begin(LoggedFailure("oom", message.line, "", 0, order_shown=False), message)

    def _read_lists(self, message: Message) -> bool:
        """Read a line of the OOM killer's lists; the allocation profile follows every state."""
        writer = self.reports.latest(message, "oom") or (
            self.reports.showing if self.reports.showing in self.reports.open else None
        )
        if writer is None and begins_table(message.text):
            writer = self._begin_oom(message)
        if writer is None or not read_list(writer.report, writer.lists, message.text, self._page_kb):
            return False
        writer.touch(self.reports.number, message)
        return True

    def _read_proc(self, message: Message) -> bool:
        writer = self.reports.latest(message, "memory")
        key = zone_key(message.text) if ", zone" in message.text else ""
        if writer is None or not writer.report.in_pages or (key in writer.keys and not writer.file.block_types):
            if not begins_file(message.text):
                return False
            writer = self.reports.begin(
                LoggedFailure("memory", message.line, "", 0, order_shown=False, in_pages=True), message
            )
            writer.report.state_line = message.line
        if not read_proc(writer.report, writer.file, message.text, self._page_kb):
            return False
        if key:
            writer.keys.add(key)
        writer.touch(self.reports.number, message)
        return True

    def _read_details(self, message: Message) -> bool:
        """Read a line that follows SLUB's or CMA's, or a mask that another CPU's line cut off."""
        text = message.text
        if "object size:" in text and (writer := self.reports.latest(message, "slub")) is not None:
            read_cache(writer.report, text)
        elif "free of" in text and (free := _CMA_FREE.match(text)) is not None:
            writer = self.reports.latest(message, "cma")
            if writer is not None:
                writer.report.cma_pages = (int(free["free"]), int(free["all"]))
                writer.report.cma_largest = max(map(int, _CMA_RANGE.findall(text)), default=None)
        elif _LATE_MASK.match(text) is not None:
            lacking = [
                w for w in self.reports.open if w.mask is None and w.report.event == "failure" and w.may_write(message)
            ]
            writer = lacking[-1] if lacking else None
            if writer is not None:
                writer.mask = _mask_in(f"page allocation failure{text}")
                read_nodes(writer.report, text)
        else:
            return False
        if writer is not None:
            writer.touch(self.reports.number, message)
        return True

    def _read_trace(self, message: Message) -> None:
        text = message.text
        writer = self.reports.writing(message)
        rest = trace_begins(text)
        if not message.caller:
            writer = self._traced(writer, begins=rest is not None)
        if writer is None or writer.trace_over:
            within = writer is not None and writer.tracing and writer.state in (1, 2) and not writer.whole
            if writer is not None and within and frames_in(text, within=False):
                # The calls of another report, in the middle of this one's state.
                writer.mixed()
            return
        if rest is not None:
            writer.tracing = True
            writer.touch(self.reports.number, message)
        elif writer.tracing and trace_ends(text):
            writer.trace_over = True
        for frame in frames_in(text if rest is None else rest, within=writer.tracing):
            if writer.report.in_pages:
                read_owner(writer.file, frame, self._page_kb)
            elif is_mixed(writer.trace, frame) or (
                lacks_beginning(writer.trace, frame) and not message.caller and self._is_interrupting(writer)
            ):
                self._mixed_traces(writer)
                return
            else:
                _add_frame(writer, frame, message.line)
            writer.touch(self.reports.number, message)

    def _traced(self, writer: Writer | None, *, begins: bool) -> Writer | None:
        """Return the report whose trace goes on: until another one begins, that of a report that was interrupted."""
        if writer is None or writer.tracing:
            return writer
        others = [w for w in self.reports.open if w is not writer and w.tracing and not w.trace_over]
        latest = max(others, key=lambda w: w.touched, default=None)
        if latest is None:
            return writer
        if not begins:
            return latest if writer.state == 0 else writer
        if latest.touched > writer.opened or is_incomplete(latest.trace):
            writer.tracing = True
            self._mixed_traces(writer)
        return writer

    def _is_interrupting(self, writer: Writer) -> bool:
        """Return whether the trace of an older report may go on behind the beginning of this one."""
        return any(
            w is not writer and w.tracing and not w.trace_over and w.touched > writer.opened - NEAR
            for w in self.reports.open
        )

    def _mixed_traces(self, writer: Writer) -> None:
        """Drop the traces whose lines run into each other: a function of one would be taken for the other's."""
        for other in self.reports.open:
            if other is writer or (other.tracing and not other.trace_over and other.touched > writer.opened - NEAR):
                other.trace, other.trace_lines, other.trace_over = [], [], True
                other.mixed()


@lru_cache(maxsize=64)
def _mask_in(text: str) -> MaskText | None:
    return next(masks_in(text), None)


def _add_frame(writer: Writer, frame: Frame, line: int) -> None:
    if frame.reliable and frame.function in PANICKING and writer.report.event not in _MAY_PANIC:
        writer.trace, writer.trace_lines, writer.trace_over = [], [], True
    elif len(writer.trace) < LONGEST:
        writer.trace.append(frame)
        writer.trace_lines.append(line)


def _has_name(writer: Writer, comm: str) -> bool:
    """Return whether a task's name, perhaps behind a host's or without its first word, is that of a report."""
    own = writer.report.comm
    return own.endswith(comm) or (own != "" and comm.endswith(f": {own}"))


def _kernel_is_known(writer: Writer) -> bool:
    """Return whether no later line can name the kernel that printed a report."""
    return writer.report.release is not None or writer.boot.release is not None or writer.boot.over


def _is_task(writer: Writer, comm: str, pid: int) -> bool:
    report = writer.report
    if report.pid is not None:
        return report.pid == pid
    # A name with a blank may be wrapped there, so that the first line has its end only.
    return not report.comm or report.comm.endswith(comm) or comm.endswith(f" {report.comm}")
