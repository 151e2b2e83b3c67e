# SPDX-License-Identifier: MIT
"""A report that may get more lines, with what decides whether a line is its own."""

from dataclasses import dataclass, field

from kalloctrace.diagnose.reports.boots import Boot
from kalloctrace.diagnose.reports.model import Frame, LoggedFailure, LoggedZone
from kalloctrace.diagnose.reports.proc import ProcFile
from kalloctrace.diagnose.reports.tasks import Lists
from kalloctrace.diagnose.reports.zones import StateLine
from kalloctrace.flags.logforms import MaskText
from kalloctrace.logs.messages import Message

TOLERANCE = 0.001
"""Seconds by which a line may be older than its report's first one: the clocks of CPUs differ."""

WITH_STATE = frozenset(("failure", "stall", "oom", "vmalloc", "vmap", "vmemmap"))
"""The events whose report shows the state of memory."""

NEAR = 6
"""Messages between lines of two reports that still may run into each other."""

MIXED = "lines of several reports run into each other here, so some may be another one's"
"""What is said of a report whose lines cannot be separated from another one's."""

_PARTS = (
    *("totals", "nodes", "hugepages", "swap", "total_ram_pages", "profile"),
    *("tasks", "slabs", "memcg_limit", "memcg_stats", "constraint"),
)
"""The parts whose first lines are noted."""


_COMPARABLE = 1e6
"""Seconds between times of two clocks: that since boot, and that of the day."""


def elapsed(begin: float | None, end: float | None) -> float | None:
    """Return the seconds between two messages; None if a time is not printed, or they are of two clocks."""
    if begin is None or end is None or abs(end - begin) > _COMPARABLE:
        return None
    return end - begin


@dataclass(eq=False)
class Writer:
    """A report, and how far its lines have come.

    Attributes:
        report: the report.
        first: its first message.
        boot: the boot that it is of.
        mask: the mask in its first line; None if it has none.
        opened: the number of its first message.
        touched: the number of its latest message.
        line: the line of its latest message.
        written: the time of its latest message; None if not printed.
        named: its task's line ("CPU: 3 PID: 7 Comm: x") is read.
        state: the state of memory: 0 not begun, 1 its zones, 2 its free blocks, 3 what follows them.
        keys: the lines of the state that it has.
        place: of the latest of them.
        interrupts: whose state was incomplete when its own began.
        interrupted: another one's state began before its own was whole.
        early: something of the end of a state came before its zones were complete.
        zone: the zone whose line was read last.
        trace: the call trace so far.
        trace_lines: the number of each frame's line.
        tracing: "Call Trace:" is read, and the trace is not over.
        trace_over: no more frames are its own.
        unplaced: the parts that no line had yet.
        rivals: reports without a caller id that were without a state when this one was, too.
        lists: the lists of an OOM report.
        file: where in a file of /proc the next line stands.
    """

    report: LoggedFailure
    first: Message
    boot: Boot
    mask: MaskText | None
    opened: int
    touched: int
    line: int
    written: float | None = None
    named: bool = False
    state: int = 0
    keys: set[str] = field(default_factory=set)
    place: tuple[int, int, int] = (0, 0, 0)
    interrupts: "Writer | None" = None
    interrupted: bool = False
    early: bool = False
    zone: LoggedZone | None = None
    trace: list[Frame] = field(default_factory=list)
    trace_lines: list[int] = field(default_factory=list)
    tracing: bool = False
    trace_over: bool = False
    unplaced: list[str] = field(default_factory=lambda: list(_PARTS))
    rivals: "list[Writer]" = field(default_factory=list)
    lists: Lists = field(default_factory=Lists)
    file: ProcFile = field(default_factory=ProcFile)

    def touch(self, number: int, message: Message) -> None:
        """Note that a message was its own, after it was read."""
        self.reach(number, message)
        members = vars(self.report)
        if any(map(members.__getitem__, self.unplaced)):
            for part in filter(members.__getitem__, self.unplaced):
                self.report.places.setdefault(part, message.line)
            self.unplaced = [part for part in self.unplaced if not members[part]]

    def reach(self, number: int, message: Message) -> None:
        """As `touch`, of a message that begins no part whose first line is noted."""
        self.touched, self.line = number, message.line
        if message.time is not None:
            self.written = message.time

    def may_write(self, message: Message) -> bool:
        """Return whether a message can be its own, by caller, host and time."""
        return self.same_caller(message) and not self.is_younger(message)

    def may_show(self, message: Message) -> bool:
        """Return whether a line of its state, which has begun, can be its own."""
        return self.state in {1, 2} and not self.report.in_pages and self.may_write(message)

    def continues(self, line: StateLine) -> bool:
        """Return whether a line may be the next one of its state, in the order in which the kernel prints it."""
        if line.key in self.keys and line.key:
            return False
        if line.kind == "reserve":
            return self.zone is not None and self.zone.lowmem_reserve is None
        place = line.place
        if line.kind == "blocks" and f"zone{line.key[6:]}" not in self.keys:
            return False
        return place >= self.place if line.kind in ("zone", "blocks") else place[0] >= self.place[0]

    @property
    def ended(self) -> bool:
        """Whether the last lines of the state are read."""
        return "pages RAM" in self.keys or "pages of RAM" in self.keys

    @property
    def whole(self) -> bool:
        """Whether the state has the free blocks of each of its zones."""
        shown = [key[5:] for key in self.keys if key.startswith("zone ")]
        return bool(shown) and self.keys.issuperset([f"blocks {zone}" for zone in shown])

    def same_caller(self, message: Message) -> bool:
        """Return whether caller and host are its own, as far as they are printed."""
        first = self.first
        return (not first.caller or not message.caller or first.caller == message.caller) and self.same_host(message)

    def same_host(self, message: Message) -> bool:
        """Return whether the host is its own, as far as it is printed."""
        return not self.first.host or not message.host or self.first.host == message.host

    def is_younger(self, message: Message) -> bool:
        """Return whether a message was written before its first line."""
        begin, time = self.first.time, message.time
        return begin is not None and time is not None and -_COMPARABLE <= time - begin < -TOLERANCE

    def mixed(self) -> None:
        """Note that some lines may be another report's."""
        if MIXED not in self.report.contradictions:
            self.report.contradictions.append(MIXED)

    @property
    def lacks_task(self) -> bool:
        """Whether it so far is the one line that no range of addresses was found, which the kernel prints by itself."""
        return self.report.event == "vmap" and not self.report.comm and self.mask is None

    @property
    def wants_state(self) -> bool:
        """Whether the state of memory is still to come; the OOM killer prints it before its tasks and its victim."""
        if self.state or self.report.tasks or self.report.killed is not None or self.lists.columns is not None:
            return False
        return self.report.event in WITH_STATE and not self.lacks_task

    @property
    def complete(self) -> bool:
        """Whether nothing of it is to come, unless several reports run into each other."""
        if self.report.event == "oom":
            return self.lists.final and not self.lists.group
        if self.report.event in ("slub", "cma"):
            return bool(self.report.cma_pages or (self.report.cache and self.report.cache.name))
        return self.state == 3 or (self.state == 2 and self.whole) or self.report.event in ("contig", "hugetlb")
