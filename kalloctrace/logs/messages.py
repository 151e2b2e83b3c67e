# SPDX-License-Identifier: MIT
"""The messages of a kernel log, whatever is around them."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from kalloctrace.logs.blocks import Block, blocks
from kalloctrace.logs.containers import Containers
from kalloctrace.logs.lines import HEADER, may_be_header
from kalloctrace.logs.pieces import Piece
from kalloctrace.logs.prefixes import LearnedPrefixes, Prefix, known_prefix, next_prefix, without_host
from kalloctrace.logs.quoted_printable import decoded, is_quoted_printable
from kalloctrace.logs.unwrap import Break, Line, joined, terminal_width
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
    for block in blocks(lines):
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


def _with_prefixes(piece: Piece) -> Iterator[tuple[Piece, Prefix]]:
    """Yield a piece with its prefix; several, if it is several lines without line ends."""
    known = known_prefix(piece.text)
    while (end := next_prefix(piece.text, known.end)) < len(piece.text):
        rest = replace(piece, text=piece.text[end:], indent=None, record=False)
        piece.text, piece.width = piece.text[:end], 0
        yield piece, known
        piece, known = rest, known_prefix(rest.text)
    yield piece, known


class _Reader:
    def __init__(self) -> None:
        self._containers = Containers()
        self._prefixes = LearnedPrefixes()
        self._waiting: list[tuple[Piece, Prefix]] = []
        self._width = 0
        self._is_mail = False
        self._is_since_boot = False
        self._entries: deque[_Entry] = deque()
        self._open: dict[str, _Entry] = {}
        self._stamped = False
        self._lately: list[bool] = []

    def read(self, block: Block) -> Iterator[Message]:
        """Read a block; it is yielded when the next one is known, from which its prefixes are learned too."""
        if not block.follows:
            yield from self.rest()
        lines: Iterable[tuple[int, str]] = enumerate(block.lines, block.first)
        self._is_mail = is_quoted_printable(block.lines, before=self._is_mail)
        if self._is_mail:
            lines = decoded(lines)
        pieces = [
            part
            for number, line in lines
            for piece in self._containers.pieces(number, line)
            for part in _with_prefixes(piece)
        ]
        self._prefixes.learn(pieces)
        waiting, self._waiting = self._waiting, pieces
        yield from self._yield_lines(waiting)

    def rest(self) -> Iterator[Message]:
        """Yield what was held back: the log ends here, or lines are passed over."""
        waiting, self._waiting = self._waiting, []
        yield from self._yield_lines(waiting)
        while self._entries:
            yield from self._messages()
        self._open.clear()

    def _yield_lines(self, pieces: list[tuple[Piece, Prefix]]) -> Iterator[Message]:
        lines = [self._line(piece, known) for piece, known in pieces]
        self._width = terminal_width(lines, self._width)
        # A mail may wrap a line into several; text with hardly any stamp is something else.
        before, self._lately = self._lately, [line.stamped for line in lines]
        self._stamped = (sum(before) + sum(self._lately)) * _MOST_PARTS > len(before) + len(lines)
        for (piece, _), line in zip(pieces, lines, strict=True):
            self._add(piece, line)
            if len(self._entries) > _HELD:
                yield from self._messages()

    def _line(self, piece: Piece, known: Prefix) -> Line:
        prefix = self._prefixes.prefix(piece.text, known)
        text = printable(piece.text[prefix.end :], instead=" ")
        if prefix.closing and text.rstrip().endswith(prefix.closing):
            text = text.rstrip()[: -len(prefix.closing)]
        return Line(text, piece.width, prefix, stamped=prefix.stamped or piece.record)

    def _add(self, piece: Piece, line: Line) -> None:
        text, prefix, stamped = line.text, line.prefix, line.stamped
        caller = prefix.caller or piece.caller
        last = self._open.get(caller) if stamped else self._last()
        if last is not None:
            cut = last.width == self._width > 0 and not stamped
            how = Break(cut, stamped, loose=self._stamped and not stamped)
            above = f"{last.text} " if last.ends_blank else last.text
            both = joined(above, text.rstrip(), how)
            if both is not None:
                last.text, last.width, last.ends_blank = both, piece.width, text.endswith(" ")
                return
        blanks = len(text) - len(text.lstrip())
        entry = _Entry(
            line=piece.line,
            text=text.strip(),
            time=self._time(piece, prefix),
            wall=prefix.wall or piece.wall,
            caller=caller,
            host=prefix.host or piece.host,
            indent=None if piece.indent is None else piece.indent + prefix.end + blanks,
            width=piece.width,
            ends_blank=text.endswith(" "),
            host_follows=prefix.host_follows,
        )
        if last is not None and self._stamped and not stamped:
            # A message of several lines has its stamp on the first.
            entry.time, entry.wall, entry.caller, entry.host = last.time, last.wall, last.caller, last.host
        self._entries.append(entry)
        self._open[entry.caller] = entry

    def _time(self, piece: Piece, prefix: Prefix) -> float | None:
        """Return the time of a line: where some lines have the time since boot, only that is comparable."""
        since_boot = prefix.time if prefix.since_boot else piece.time
        if since_boot is not None:
            self._is_since_boot = True
        return since_boot if self._is_since_boot else prefix.time

    def _last(self) -> _Entry | None:
        return self._entries[-1] if self._entries else None

    def _messages(self) -> Iterator[Message]:
        """Yield the message that was held back longest; several, if a terminal cut an escaped newline within it."""
        entry = self._entries.popleft()
        if self._open.get(entry.caller) is entry:
            del self._open[entry.caller]
        text, indent = entry.text, entry.indent
        if may_be_header(text) and (header := HEADER.match(text)) is not None:
            # "tmux: server" looks like a host and a task.
            whole = f"{entry.host}: {header['comm']}" if entry.host else ""
            if whole and whole in self._comms():
                text, entry.host = f"{entry.host}: {text}", ""
            else:
                text = without_host(text, self._comms(), host_follows=entry.host_follows)
            indent = None if indent is None else indent + len(entry.text) - len(text)
        if "#012" not in text:
            yield Message(entry.line, text, entry.time, entry.wall, entry.caller, entry.host, indent)
            return
        for part in text.split("#012"):
            yield Message(entry.line, part.strip(), entry.time, entry.wall, entry.caller, entry.host, None)

    def _comms(self) -> Iterator[str]:
        for entry in self._entries:
            if entry.text.startswith(("CPU: ", "Pid: ")) and (match := _COMM.match(entry.text)) is not None:
                yield match["comm"]
