# SPDX-License-Identifier: MIT
"""The messages of a kernel log, whatever is around them."""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from kalloctrace.logs.blocks import Block, blocks
from kalloctrace.logs.containers import Containers
from kalloctrace.logs.lines import HEADER, may_be_header, starts, with_beginning
from kalloctrace.logs.newest_first import in_order
from kalloctrace.logs.pieces import Piece
from kalloctrace.logs.prefixes import LearnedPrefixes, Prefix, known_prefix, next_prefix, without_host
from kalloctrace.logs.quoted_printable import QuotedPrintable
from kalloctrace.logs.repeats import Repeats
from kalloctrace.logs.unwrap import MAILED, Break, Line, is_apart, joined, terminal_width
from kalloctrace.text import printable


class Message(NamedTuple):
    """One message of the kernel.

    Attributes:
        line: the number of its first physical line, from 1.
        text: without prefix, joined if it was wrapped; printable.
        time: seconds, comparable within one log: since boot, or by the wall clock; None if not printed. A clock that
            prints no fractions gives whole seconds.
        wall: the wall-clock time as printed; None if not printed.
        caller: the caller id of CONFIG_PRINTK_CALLER, such as "T123" or "C1"; "" if not printed.
        host: the host's name; "" if not printed.
        indent: characters before `text` in its physical line; None if the text does not stand there as it is.
    """

    line: int
    text: str
    time: float | None = None
    wall: str | None = None
    caller: str = ""
    host: str = ""
    indent: int | None = 0


def read_messages(lines: Iterable[str]) -> Iterator[Message]:
    """Yield the messages of a log in the order of their first lines, in constant memory.

    Parts of the log without any sign of a memory report or a gfp mask are passed over.

    Args:
        lines: the text, with or without line ends.
    """
    reader = _Reader()
    for block in in_order(blocks(lines)):
        yield from reader.read(block)
    yield from reader.rest()


_HELD = 48
"""Messages that are held back: a line below may still continue them, or name the task of a report's first line."""
_COMM = re.compile(r"(?:CPU|Pid): .{0,60}?\b[Cc]omm: (?P<comm>.{1,64}?) {1,8}(?:Kdump: |Not tainted|Tainted:)")


_MOST_PARTS = 10
"""Lines into which one is wrapped."""


@dataclass(slots=True)
class _Entry:
    line: int
    text: str
    time: float | None
    wall: str | None
    caller: str
    host: str
    indent: int | None
    width: int
    ends_blank: bool
    host_follows: bool
    stamped: bool
    closing: str


def _with_prefixes(piece: Piece) -> list[tuple[Piece, Prefix]]:
    """Return a piece with its prefix; several, if it is several lines without line ends."""
    known, parts = known_prefix(piece.text), []
    while (end := next_prefix(piece.text, known)) < len(piece.text):
        rest = replace(piece, text=piece.text[end:], indent=None, record=False)
        piece.text, piece.width = piece.text[:end], 0
        parts.append((piece, known))
        piece, known = rest, known_prefix(rest.text)
    return [*parts, (piece, known)]


def _without_closing(text: str, mark: str) -> str:
    """Return a text without the mark at its end, and the comma that separates it from the next one of a list."""
    end = text.rstrip()
    for closing in (mark, f"{mark},"):
        if end.endswith(closing):
            return end.removesuffix(closing)
    return text


class _Reader:
    def __init__(self) -> None:
        self._containers = Containers()
        self._prefixes = LearnedPrefixes()
        self._waiting: list[tuple[Piece, Prefix]] = []
        self._width = 0
        self._mail = QuotedPrintable()
        self._repeats = Repeats()
        self._is_since_boot = False
        self._entries: deque[_Entry] = deque()
        self._open: dict[str, _Entry] = {}
        self._stamped = False
        self._lately: list[bool] = []
        self._widest = (0, 0)

    def read(self, block: Block) -> list[Message]:
        """Read a block; it is returned when the next one is known, from which its prefixes are learned too."""
        before = [] if block.follows else self.rest()
        pieces = self._pieces(self._mail.read(block.numbers, block.lines))
        self._prefixes.learn(pieces)
        waiting, self._waiting = self._waiting, pieces
        return before + self._read_lines(waiting)

    def rest(self) -> list[Message]:
        """Return what was held back: the log ends here, or lines are passed over."""
        waiting, self._waiting = self._waiting, []
        messages = self._read_lines([*waiting, *self._pieces(self._mail.rest())])
        while self._entries:
            messages += self._messages()
        self._open.clear()
        return messages

    def _pieces(self, lines: Iterable[tuple[int, str]]) -> list[tuple[Piece, Prefix]]:
        return self._repeats.left_out(
            [
                part
                for number, line in lines
                for piece in self._containers.pieces(number, line)
                for part in _with_prefixes(piece)
            ]
        )

    def _read_lines(self, pieces: list[tuple[Piece, Prefix]]) -> list[Message]:
        messages: list[Message] = []
        lines = [self._line(piece, known) for piece, known in pieces]
        self._width = terminal_width(lines, self._width)
        # A mail does not break a line without blanks, however long it is.
        self._widest = (self._widest[1], max([line.width for line in lines if " " in line.text.strip()], default=0))
        # A mail may wrap a line into several; text with hardly any stamp is something else.
        before, self._lately = self._lately, [line.stamped for line in lines]
        self._stamped = (sum(before) + sum(self._lately)) * _MOST_PARTS > len(before) + len(lines)
        for (piece, _), line in zip(pieces, lines, strict=True):
            self._add(piece, line)
            if len(self._entries) > _HELD:
                messages += self._messages()
        return messages

    def _line(self, piece: Piece, known: Prefix) -> Line:
        prefix = self._prefixes.prefix(piece.text, known)
        rest = piece.text[prefix.end :]
        text = printable(rest, instead=" ")
        if "alloction" in text:
            # So spelled by 63f53dea0c98 ("mm: warn about allocations which stall for too long").
            text = text.replace("page alloction stall", "page allocation stall")
        if prefix.closing:
            text = _without_closing(text, prefix.closing)
        begins = prefix.starts if text == rest and not text[-1:].isspace() else starts(text.strip()) is not None
        return Line(text, piece.width, prefix, prefix.stamped or piece.record, begins)

    def _add(self, piece: Piece, line: Line) -> None:
        text, prefix, stamped = line.text, line.prefix, line.stamped
        caller = prefix.caller or piece.caller
        last = self._open.get(caller) if stamped else self._last()
        if last is not None and stamped and not last.stamped:
            # What has no stamp is no message of the kernel, or the rest of one.
            last = None
        if last is not None and not is_apart(last.text, line):
            above = f"{last.text} " if last.ends_blank else last.text
            both = joined(above, text.rstrip(), self._break(last, line))
            if both is not None:
                last.text, last.width, last.ends_blank = both, piece.width, text.endswith(" ")
                return
        bare = text.lstrip()
        # By position, as this is made for each line.
        entry = _Entry(
            piece.line,
            bare.rstrip(),
            self._time(piece, prefix),
            prefix.wall or piece.wall,
            caller,
            prefix.host or piece.host,
            None if piece.indent is None else piece.indent + prefix.end + len(text) - len(bare),
            piece.width,
            text.endswith(" "),
            prefix.host_follows,
            stamped,
            prefix.closing,
        )
        if last is not None and self._stamped and not stamped:
            # A message of several lines has its stamp on the first.
            entry.time, entry.wall, entry.caller, entry.host = last.time, last.wall, last.caller, last.host
        self._entries.append(entry)
        self._open[entry.caller] = entry

    def _break(self, last: _Entry, line: Line) -> Break:
        cut = last.width == self._width > 0 and not line.stamped
        # A mail breaks a line before the first word that does not fit.
        mailed = self._width == MAILED and not line.stamped
        full = mailed and last.width + 1 + len(line.text.strip().partition(" ")[0]) > max(self._widest)
        return Break(cut, line.stamped, self._stamped and not line.stamped, line.starts, full)

    def _time(self, piece: Piece, prefix: Prefix) -> float | None:
        """Return the time of a line: where some lines have the time since boot, only that is comparable."""
        since_boot = prefix.time if prefix.since_boot else piece.time
        if since_boot is not None:
            self._is_since_boot = True
        return since_boot if self._is_since_boot else prefix.time

    def _last(self) -> _Entry | None:
        return self._entries[-1] if self._entries else None

    def _messages(self) -> Sequence[Message]:
        """Return the message that was held back longest; several, if a terminal cut an escaped newline within it."""
        entry = self._entries.popleft()
        if self._open.get(entry.caller) is entry:
            del self._open[entry.caller]
        text, indent = entry.text, entry.indent
        if entry.closing:
            # Of a line that was wrapped, it is at the end of the last part.
            text = _without_closing(text, entry.closing)
        if "order:" in text or ": gfp_mask=" in text:
            whole = with_beginning(text)
            text, indent = whole, indent if whole == text else None
        if may_be_header(text) and (header := HEADER.match(text)) is not None:
            # "tmux: server" looks like a host and a task.
            whole = f"{entry.host}: {header['comm']}" if entry.host else ""
            if whole and whole in self._comms():
                text, entry.host = f"{entry.host}: {text}", ""
            else:
                text = without_host(text, self._comms(), host_follows=entry.host_follows)
            indent = None if indent is None else indent + len(entry.text) - len(text)
        if "#012" not in text:
            return (Message(entry.line, text, entry.time, entry.wall, entry.caller, entry.host, indent),)
        return [
            Message(entry.line, part.strip(), entry.time, entry.wall, entry.caller, entry.host, None)
            for part in text.split("#012")
        ]

    def _comms(self) -> Iterator[str]:
        for entry in self._entries:
            if entry.text.startswith(("CPU: ", "Pid: ")) and (match := _COMM.match(entry.text)) is not None:
                yield match["comm"]
