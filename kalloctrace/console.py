# SPDX-License-Identifier: MIT
"""Where every command prints. All other modules are forbidden to: see `banned-api` in pyproject.toml.

Names of tasks, releases, symbols, flags and paths come from files that others wrote, and from other users. A console
prints single lines. It escapes each line as a whole, newlines included, so no text can act on the terminal or begin a
line of its own; our styles are added after that. JSON is exact and pure ASCII.
"""

import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from traceback import TracebackException
from types import TracebackType
from typing import BinaryIO, Literal, TextIO

from kalloctrace.errors import KalloctraceError
from kalloctrace.text import COLUMNS, fitting, printable, wrap_message

Style = Literal["bold", "red", "green", "yellow"]
Part = str | tuple[str, Style]
"""A part of a line; a pair has a style, which only terminals show."""

_DIGITS = 5
_CODES: dict[Style, int] = {"bold": 1, "red": 31, "green": 32, "yellow": 33}


class Console:
    """Prints to one stream.

    Args:
        stream: where to print; None, if the caller closed it, discards everything.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream

    @property
    def is_terminal(self) -> bool:
        """Whether people watch the stream."""
        return self.stream is not None and self.stream.isatty()

    @property
    def columns(self) -> int:
        """How wide the terminal is, or its user wants it; 80 elsewhere."""
        if self.stream is None or not self.stream.isatty():
            return COLUMNS
        chosen = os.environ.get("COLUMNS", "")
        if chosen.isdecimal() and len(chosen) < _DIGITS and int(chosen) > 0:
            return int(chosen)
        return os.get_terminal_size(self.stream.fileno()).columns or COLUMNS

    def line(self, *parts: Part) -> None:
        """Print one line."""
        # https://no-color.org
        styled = self.is_terminal and not os.environ.get("NO_COLOR")
        self._write([f"{''.join(_part(part, styled=styled) for part in parts)}\n"])

    def lines(self, texts: Iterable[str]) -> None:
        """Print lines without styles."""
        self._write(f"{printable(text)}\n" for text in texts)

    def wrapped_lines(self, texts: Iterable[str]) -> None:
        """Print lines without styles; a terminal gets those that are too long in parts: no word is broken."""
        if self.is_terminal:
            texts = (part for text in texts for part in wrap_message(printable(text), self.columns))
        self.lines(texts)

    def rewrite(self, text: str) -> None:
        """Replace the line of a terminal on which the cursor stands by as much of a text as it holds.

        Args:
            text: without styles; an empty one clears the line.
        """
        if self.stream is not None:
            columns = os.get_terminal_size(self.stream.fileno()).columns or COLUMNS
            escaped = printable(text)
            self.stream.write(f"\r{escaped[: fitting(escaped, columns - 1)]}\x1b[K")
            self.stream.flush()

    def styled_lines(self, lines: Iterable[str]) -> None:
        """Print lines that `kalloctrace.styled` has escaped and styled."""
        self._write(f"{line}\n" for line in lines)

    def error(self, error: KalloctraceError) -> None:
        """Print the three lines of an error."""
        self.wrapped_lines(error.lines())

    def json(self, value: object, *, compact: bool = False) -> None:
        """Print a value as one line of JSON.

        Args:
            value: made of JSON's types.
            compact: no spaces after separators.
        """
        self.json_lines([value], compact=compact)

    def json_lines(self, values: Iterable[object], *, compact: bool = False) -> None:
        """Print each value as one line of JSON; the arguments are those of `json`."""
        self._write(f"{json_text(value, compact=compact)}\n" for value in values)

    def _write(self, lines: Iterable[str]) -> None:
        if self.stream is not None:
            self.stream.writelines(lines)
            self.stream.flush()


_WIDE, _COMPACT = json.JSONEncoder(), json.JSONEncoder(separators=(",", ":"))


def json_text(value: object, *, compact: bool = False) -> str:
    """Return a value as one line of JSON on which no terminal acts: exact, in ASCII without a control character.

    Args:
        value: made of JSON's types.
        compact: no spaces after separators.
    """
    # The encoder escapes all other control characters.
    return (_COMPACT if compact else _WIDE).encode(value).replace("\x7f", "\\u007f")


def stdout() -> Console:
    """Return the console for results."""
    return Console(sys.stdout)


def stderr() -> Console:
    """Return the console for everything else."""
    return Console(sys.stderr)


def stdout_bytes() -> BinaryIO:
    """Return standard output for what a program in a guest prints there."""
    return sys.stdout.buffer


def stderr_bytes() -> BinaryIO:
    """Return standard error for what a program in a guest prints there."""
    return sys.stderr.buffer


def guard_tracebacks() -> None:
    """Let tracebacks be printed as other text: the message of an exception may quote a file."""
    sys.excepthook = _print_traceback
    threading.excepthook = lambda args: _print_traceback(args.exc_type, args.exc_value, args.exc_traceback)


def _print_traceback(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, SystemExit):
        return
    whole = TracebackException(kind, error if error is not None else kind(), trace)
    stderr().lines(_traceback_lines(whole))


def _traceback_lines(whole: TracebackException) -> Iterator[str]:
    for part in whole.format():
        text = part.removesuffix("\n")
        # What is not indented holds the message.
        yield from text.split("\n") if text.startswith(" ") else [text]


def _part(part: Part, *, styled: bool) -> str:
    text, style = (part, None) if isinstance(part, str) else part
    escaped = printable(text)
    return f"\x1b[{_CODES[style]}m{escaped}\x1b[0m" if styled and style is not None else escaped
