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

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.logforms import ReleaseText, release_in

Form: TypeAlias = Literal["perf script", "trace-cmd report", "tracefs trace"]

_EVENT = "mm_page_alloc:"
# Repetitions are bounded or possessive, so that no line makes a match slow.
_UNAME = re.compile(r"Linux \S++ (?P<release>\d{1,3}\.\d{1,3}\S*+) \S++")
"""What `trace-cmd report --uname` prints."""
_ID = r"\d{1,10}"
_TIME = r"(?P<time>\d{1,20}(?:\.\d{1,20})?):"
_FTRACE = re.compile(
    rf"\s*(?:[\w.-]+: +)?(?P<comm>\S.{{0,15}}?)-(?P<tid>{_ID})\s+(?:\(\s*(?P<pid>{_ID}|-+)\)\s+)?"
    rf"\[(?P<cpu>{_ID})\]\s+(?:[^\s:]+\s+)?"
    rf"{_TIME}\s+(?:kmem:)?mm_page_alloc:(?P<gap>\s+)(?P<fields>.*)"
)
_PERF = re.compile(
    rf"\s*(?P<comm>\S.{{0,15}}?)\s+(?:(?P<pid>{_ID})/)?(?P<tid>{_ID})\s+\[(?P<cpu>{_ID})\]\s+(?:[^\s:]+\s+)?"
    rf"{_TIME}\s+(?:\d+\s+)?kmem:mm_page_alloc:\s+(?P<fields>.*)"
)
_FIELD = re.compile(r"(?<!\w)(\w{1,32})=(\S+)")
_NUMBER = re.compile(r"(?:\d{1,20}|0[xX][0-9a-fA-F]{1,16})", re.ASCII)
_FRAME = re.compile(r"\s+(?P<address>[0-9a-f]{8,16}) (?P<name>\S.*)")
_OFFSET = re.compile(r"\+0x[0-9a-f]+$")
_KERNEL_HALF = 1 << 63
"""The lowest kernel address on x86_64; call chains of perf have user frames as well."""
_MAX_FRAMES = 1024
"""Frames that are kept of one call chain, from the innermost; perf records 127 (kernel.perf_event_max_stack)."""

_LOST = (
    re.compile(r"CPU:\d+ \[LOST (\d+) EVENTS\]"),
    re.compile(r"CPU:\d+ \[(\d+) EVENTS DROPPED\]"),
    re.compile(r"PERF_RECORD_LOST\w{0,16} lost (\d+)"),
)
_OVERWRITTEN = re.compile(r"# entries-in-buffer/entries-written: (\d+)/(\d+)")
_NO_PFN = (1 << 64) - 1
"""-1UL: the page frame number of a failed allocation, which all but a raw report print as 0."""

_NANOSECONDS = 9
_I32, _U32, _I64 = (1 << 31) - 1, (1 << 32) - 1, (1 << 63) - 1


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
        unreadable: lines with this event that could not be read, such as a truncated line, or one with a number that
            no kernel prints.
        first_unreadable: number of the first unreadable line, from 1; 0 if there is none.
    """

    lines: Iterable[str]
    form: Form | None = None
    release: ReleaseText | None = None
    lost: int = 0
    unreadable: int = 0
    first_unreadable: int = 0

    def events(self) -> Iterator[Event]:
        """Yield the events in the order of the text.

        Raises:
            KalloctraceError: the text reports more lost events than can be counted.
        """
        waiting: Event | None = None
        frames: list[str] = []
        tracefs = False
        for number, raw in enumerate(self.lines, 1):
            line = raw.rstrip("\r\n")
            if waiting is not None and (frame := _FRAME.match(line)) is not None and line.endswith(")"):
                name, bracket, _ = frame["name"].rpartition(" (")
                if bracket:
                    if int(frame["address"], 16) >= _KERNEL_HALF and len(frames) < _MAX_FRAMES:
                        frames.append(_OFFSET.sub("", name))
                    continue
            if waiting is not None:
                yield _with_stack(waiting, frames)
                waiting, frames = None, []
            if _EVENT not in line or line.startswith("#"):
                tracefs = tracefs or line.startswith("# tracer:")
                self._note(line, number)
                continue
            waiting = self._event(line, number, tracefs=tracefs)
        if waiting is not None:
            yield _with_stack(waiting, frames)

    def _note(self, line: str, number: int) -> None:
        """Look for the release and for lost events in a line that is not an event."""
        if self.release is None and self.form is None:
            uname = _UNAME.fullmatch(line)
            self.release = release_in(line) if uname is None else ReleaseText(uname["release"], "", None)
        overwritten = _OVERWRITTEN.match(line)
        lost = next(filter(None, (pattern.search(line) for pattern in _LOST)), None)
        try:
            if overwritten is not None:
                self.lost += max(0, int(overwritten[2]) - int(overwritten[1]))
            if lost is not None:
                self.lost += int(lost[1])
        except ValueError:  # Python refuses numbers of thousands of digits
            self.lost = _I64 + 1
        if self.lost > _I64:
            raise KalloctraceError(
                f"cannot read line {number} of the text",
                "it reports more lost events than a kernel can count",
                "give the text as the tool wrote it",
            )

    def _event(self, line: str, number: int, *, tracefs: bool) -> Event | None:
        perf = _PERF.match(line)
        match = perf or _FTRACE.match(line)
        event = None if match is None else _event_of(match)
        if match is None or event is None:
            self.unreadable += 1
            self.first_unreadable = self.first_unreadable or number
        elif self.form is None:
            self.form = "perf script" if perf else _ftrace_form(match, tracefs=tracefs)
        return event


def _ftrace_form(match: re.Match[str], *, tracefs: bool) -> Form:
    """Return which tool wrote an event: lines of trace_pipe have no head, but only trace-cmd pads the event's name."""
    return "tracefs trace" if tracefs or match["gap"] == " " else "trace-cmd report"


def _event_of(match: re.Match[str]) -> Event | None:
    """Return an event; None if a field is missing, or is not a number of the size that a kernel has for it."""
    fields = dict(_FIELD.findall(match["fields"]))
    try:
        tid = _number(match["tid"], _I32)
        pid = match["pid"]
        return Event(
            time=_ns(match["time"]),
            cpu=_number(match["cpu"], _U32),
            pid=_number(pid, _I32) if pid and pid.isdigit() else tid,
            tid=tid,
            comm=match["comm"],
            stack=None,
            order=_number(fields["order"], _U32),
            migratetype=_number(fields["migratetype"], _I32),
            gfp_flags=fields["gfp_flags"],
            failed=_number(fields["pfn"], _NO_PFN) in (0, _NO_PFN),
        )
    except (KeyError, ValueError):
        return None


def _number(text: str, highest: int) -> int:
    """Return a number; ValueError if the text is none, or it is not in 0 to `highest`."""
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(text)
    number = int(text, 16 if text[1:2] in ("x", "X") else 10)
    if number > highest:
        raise ValueError(text)
    return number


def _ns(text: str) -> int:
    """Return a time in ns, below 2**63; a number without a fraction is of a counting clock, and returned as it is."""
    seconds, point, fraction = text.partition(".")
    time = int(seconds + fraction[:_NANOSECONDS].ljust(_NANOSECONDS, "0")) if point else int(seconds)
    if time > _I64:
        raise ValueError(text)
    return time


def _with_stack(event: Event, frames: list[str]) -> Event:
    return event._replace(stack=";".join(reversed(frames))) if frames else event
