# SPDX-License-Identifier: MIT
"""Text in base64 within a log: the body of a mail or its attachment, compressed or not."""

import binascii
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from kalloctrace.logs.files import LogLines, encoding_of, is_compressed
from kalloctrace.logs.mail_parts import FirstParts

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_SHORTEST = 56
"""Characters of the first line: programs wrap after 60 to 76, and no report fits into less."""
_QUOTE = ">"
"""What stands before each line of a mail that another one quotes."""
_BODY = re.compile(rf"(?:{_QUOTE} ?){{0,16}}([A-Za-z0-9+/]+)(={{0,2}})\s*")
_AHEAD = 16
"""Lines that are taken at once where one is wanted."""
_CONTROLS = "\t\n\r\x1b"
_SHARE_OF_TEXT = 0.95
"""A log may hold some bytes that are no text; of other bytes, most are not."""


class Chunk(NamedTuple):
    """Lines that follow one another.

    Attributes:
        numbers: of the physical line in which each line begins, from 1.
        lines: at least one.
        text: all of them.
    """

    numbers: Sequence[int]
    lines: list[str]
    text: str


def chunks(lines: Iterable[str], size: int) -> Iterator[Chunk]:
    """Yield the lines of a log, some at a time; what is encoded is decoded.

    Args:
        lines: the log.
        size: how many lines a chunk has at most.
    """
    source = _Source(lines)
    while taken := source.take(size):
        begins = next((index for index, line in enumerate(taken) if _may_begin(line) and _begins(line)), None)
        before = taken[:begins]
        if begins is not None:
            source.put_back(taken[begins:])
        if before:
            yield Chunk(range(source.number - len(before) + 1, source.number + 1), before, "\n".join(before))
        if begins is None:
            continue
        decoded = _decoded(source)
        while part := list(islice(decoded, size)):
            numbers, texts = [number for number, _ in part], [line for _, line in part]
            yield Chunk(numbers, texts, "\n".join(texts))


class _Source:
    """The lines of a log.

    Attributes:
        number: of lines taken.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._parts = FirstParts()
        self._next: list[str] = []
        self.number = 0

    def take(self, size: int) -> list[str]:
        """Return some of the next lines; none at the end."""
        lines, self._next = self._next or self._parts.of(list(islice(self._lines, size))), []
        self.number += len(lines)
        return lines

    def line(self) -> str | None:
        """Return the next line; None at the end."""
        if not self._next:
            self._next = self._parts.of(list(islice(self._lines, _AHEAD)))
        if not self._next:
            return None
        self.number += 1
        return self._next.pop(0)

    def put_back(self, lines: list[str]) -> None:
        """Put back the lines that were taken last."""
        self._next = [*lines, *self._next]
        self.number -= len(lines)


class _Body(io.RawIOBase):
    """The bytes that lines hold in base64; each is read when its bytes are."""

    def __init__(self, source: _Source) -> None:
        super().__init__()
        self._source = source
        self._characters = ""
        self._bytes = b""
        self._over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        while not self._bytes and not self._over:
            self._read_line()
        room = memoryview(buffer)
        data, self._bytes = self._bytes[: len(room)], self._bytes[len(room) :]
        room[: len(data)] = data
        return len(data)

    def _read_line(self) -> None:
        line = self._source.line()
        match = _BODY.fullmatch(line) if line is not None else None
        if match is None:
            self._over = True
            if line is not None:
                self._source.put_back([line])
            return
        self._characters += match[1]
        if match[2]:
            self._over = True
            self._characters += match[2]
        whole = len(self._characters) // 4 * 4
        self._bytes, self._characters = binascii.a2b_base64(self._characters[:whole]), self._characters[whole:]


def _decoded(source: _Source) -> Iterator[tuple[int, str]]:
    """Yield the lines that are encoded, each with the number of the line in which it begins."""
    number = source.number + 1
    for line in LogLines(io.BufferedReader(_Body(source))):
        yield number, line
        number = source.number


def _may_begin(line: str) -> bool:
    """Return whether a line may begin encoded text; this is quick."""
    return " " not in line or line[:1] == _QUOTE


def _begins(line: str) -> bool:
    """Return whether a line begins encoded text."""
    match = _BODY.fullmatch(line) if len(line) >= _SHORTEST else None
    return match is not None and _is_text(match[1])


def _is_text(characters: str) -> bool:
    """Return whether base64 holds text, or a compressed file: other files, and names and sums, do not."""
    data = binascii.a2b_base64(characters[: len(characters) // 4 * 4])
    if is_compressed(data):
        return True
    text = data.decode(encoding_of(data), errors="replace")
    good = sum(character.isprintable() or character in _CONTROLS for character in text if character != "\ufffd")
    return good >= len(text) * _SHARE_OF_TEXT
