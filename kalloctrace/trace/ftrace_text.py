# SPDX-License-Identifier: MIT
"""Reads events of kmem:mm_page_alloc from the text of `perf script`, `trace-cmd report` or a tracefs `trace` file.

The event is mm_page_alloc of include/trace/events/kmem.h: `page= pfn= order= migratetype= gfp_flags=`. Up to 5.10 the
page frame number is decimal (linux-source-5.10 5.10.262-1), later hexadecimal. Flags are names, or a number if the tool
could not read the kernel's list. In a raw report (`-R`) all values are numbers, in another order. trace-cmd prefixes
events of an instance with its name.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from kalloctrace.flags.logforms import ReleaseText, release_in

Form: TypeAlias = Literal["perf script", "trace-cmd report", "tracefs trace"]

_EVENT = "mm_page_alloc:"
_UNAME = re.compile(r"Linux \S+ (?P<release>\d+\.\d+\S*) \S+")
"""What `trace-cmd report --uname` prints."""
_TIME = r"(?P<time>\d+(?:\.\d+)?):"
_FTRACE = re.compile(
    r"\s*(?:[\w.-]+: +)?(?P<comm>\S.{0,15}?)-(?P<tid>\d+)\s+(?:\(\s*(?P<pid>\d+|-+)\)\s+)?"
    r"\[(?P<cpu>\d+)\]\s+(?:[^\s:]+\s+)?"
    rf"{_TIME}\s+(?:kmem:)?mm_page_alloc:\s+(?P<fields>.*)"
)
_PERF = re.compile(
    r"\s*(?P<comm>\S.{0,15}?)\s+(?:(?P<pid>\d+)/)?(?P<tid>\d+)\s+\[(?P<cpu>\d+)\]\s+(?:[^\s:]+\s+)?"
    rf"{_TIME}\s+(?:\d+\s+)?kmem:mm_page_alloc:\s+(?P<fields>.*)"
)
_FIELD = re.compile(r"(\w+)=(\S+)")
_FRAME = re.compile(r"\s+(?P<address>[0-9a-f]{8,16}) (?P<name>.+) \(.*\)$")
_OFFSET = re.compile(r"\+0x[0-9a-f]+$")
_KERNEL_HALF = 1 << 63
"""The lowest kernel address on x86_64; call chains of perf have user frames as well."""

_LOST = (
    re.compile(r"CPU:\d+ \[LOST (\d+) EVENTS\]"),
    re.compile(r"CPU:\d+ \[(\d+) EVENTS DROPPED\]"),
    re.compile(r"PERF_RECORD_LOST\w* lost (\d+)"),
)
_OVERWRITTEN = re.compile(r"# entries-in-buffer/entries-written: (\d+)/(\d+)")
_NO_PFN = (1 << 64) - 1
"""-1UL: the page frame number of a failed allocation, which all but a raw report print as 0."""

_NANOSECONDS = 9


class Event(NamedTuple):
    """An event.

    Attributes:
        time: ns, by the clock of the tool.
        cpu: the CPU that the event names.
        pid: process id (tgid); the thread's id if the text does not have it.
        tid: thread id.
        comm: the task's name as printed; ftrace prints <...> for a name that it no longer has.
        stack: kernel stack, outermost;…;innermost; None if there is none.
        order: argument of the allocation.
        migratetype: the event's migratetype, a number.
        gfp_flags: as printed, names or a number.
        failed: the allocation returned no page.
    """

    time: int
    cpu: int
    pid: int
    tid: int
    comm: str
    stack: str | None
    order: int
    migratetype: int
    gfp_flags: str
    failed: bool


@dataclass
class EventText:
    """A text, and facts about it, which are complete once `events` has ended.

    Attributes:
        lines: the text, with or without line ends.
        form: which tool wrote it; None before the first event.
        release: the kernel that the text names before its first event; None if it names none.
        lost: events of any kind that the text reports as missing.
        unreadable: lines with this event that could not be read, such as a truncated line.
        first_unreadable: number of the first unreadable line, from 1; 0 if there is none.
    """

    lines: Iterable[str]
    form: Form | None = None
    release: ReleaseText | None = None
    lost: int = 0
    unreadable: int = 0
    first_unreadable: int = 0

    def events(self) -> Iterator[Event]:
        """Yield the events in the order of the text."""
        waiting: Event | None = None
        frames: list[str] = []
        tracefs = False
        for number, raw in enumerate(self.lines, 1):
            line = raw.rstrip("\r\n")
            frame = _FRAME.match(line) if waiting is not None else None
            if frame is not None:
                frames += [_OFFSET.sub("", frame["name"])] if int(frame["address"], 16) >= _KERNEL_HALF else []
                continue
            if waiting is not None:
                yield _with_stack(waiting, frames)
                waiting, frames = None, []
            if _EVENT not in line or line.startswith("#"):
                tracefs = tracefs or line.startswith("# tracer:")
                self._note(line)
                continue
            waiting = self._event(line, number, tracefs=tracefs)
        if waiting is not None:
            yield _with_stack(waiting, frames)

    def _note(self, line: str) -> None:
        """Look for the release and for lost events in a line that is not an event."""
        if self.release is None and self.form is None:
            uname = _UNAME.fullmatch(line)
            self.release = release_in(line) if uname is None else ReleaseText(uname["release"], "", None)
        overwritten = _OVERWRITTEN.match(line)
        if overwritten is not None:
            self.lost += max(0, int(overwritten[2]) - int(overwritten[1]))
        lost = next(filter(None, (pattern.search(line) for pattern in _LOST)), None)
        if lost is not None:
            self.lost += int(lost[1])

    def _event(self, line: str, number: int, *, tracefs: bool) -> Event | None:
        perf = _PERF.match(line)
        match = perf or _FTRACE.match(line)
        event = None if match is None else _event_of(match)
        if event is None:
            self.unreadable += 1
            self.first_unreadable = self.first_unreadable or number
        elif self.form is None:
            self.form = "perf script" if perf else "tracefs trace" if tracefs else "trace-cmd report"
        return event


def _event_of(match: re.Match[str]) -> Event | None:
    """Return an event; None if a field is missing or is not a number."""
    fields = dict(_FIELD.findall(match["fields"]))
    try:
        tid = int(match["tid"])
        return Event(
            time=_ns(match["time"]),
            cpu=int(match["cpu"]),
            pid=int(match["pid"]) if (match["pid"] or "-").isdigit() else tid,
            tid=tid,
            comm=match["comm"],
            stack=None,
            order=int(fields["order"]),
            migratetype=int(fields["migratetype"]),
            gfp_flags=fields["gfp_flags"],
            failed=int(fields["pfn"], 0) in (0, _NO_PFN),
        )
    except (KeyError, ValueError):
        return None


def _ns(text: str) -> int:
    """Return a time in ns; a number without a fraction is from a counting clock, and returned as it is."""
    seconds, point, fraction = text.partition(".")
    if not point:
        return int(seconds)
    return int(seconds + fraction[:_NANOSECONDS].ljust(_NANOSECONDS, "0"))


def _with_stack(event: Event, frames: list[str]) -> Event:
    return event._replace(stack=";".join(reversed(frames))) if frames else event
