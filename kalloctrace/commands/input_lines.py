# SPDX-License-Identifier: MIT
"""The lines of a text that someone else wrote: of any encoding, and of any length."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kalloctrace.console import stderr
from kalloctrace.errors import KalloctraceError
from kalloctrace.logs.files import LogLines, open_log
from kalloctrace.logs.pieces import LONGEST as LONGEST_LOGGED
from kalloctrace.text import file_name, printable

LONGEST = 1 << 14
"""Bytes that are read of one line. A kernel message has 1 KiB at most, an event and the names in a mask as much."""


class InputLines:
    """The lines of a stream, one after the other; the rest of a long line is skipped, and the line counted.

    Args:
        stream: the text; memory does not grow with it, nor with a line.
        longest: bytes that are read of one line.
    """

    def __init__(self, stream: IO[bytes], longest: int = LONGEST) -> None:
        """Start at the stream's position."""
        self._stream = stream
        self._longest = longest
        self.cut = 0
        """Lines that were longer."""

    def raw(self) -> Iterator[bytes]:
        """Yield the lines with their ends; of a longer line the first bytes, one more than `longest`."""
        read, most = self._stream.readline, self._longest + 1
        while line := read(most):
            if len(line) == most and not line.endswith(b"\n"):
                self.cut += 1
                yield line
                while (rest := read(1 << 20)) and not rest.endswith(b"\n"):
                    pass
            else:
                yield line

    def __iter__(self) -> Iterator[str]:
        """Yield the lines as text, with their ends."""
        return (line.decode("utf-8", errors="replace") for line in self.raw())

    def say_cut(self) -> None:
        """Say on standard error how many lines were cut."""
        if self.cut:
            stderr().line(_cut_text(self.cut, f"{self._longest:,} bytes"))


def _cut_text(cut: int, longest: str) -> str:
    lines = "1 line is" if cut == 1 else f"{cut:,} lines are"
    return f"{lines} longer than {longest}; what follows there was not read"


def _say(text: str) -> None:
    stderr().line(text)


@contextmanager
def log_lines(name: str, say: Callable[[str], None] = _say) -> Iterator[LogLines]:
    """Open a log, and say at the end what was not read of it.

    Args:
        name: a file, or "-" for standard input.
        say: gets a line of text; by default it is printed on standard error.

    Raises:
        KalloctraceError: when all is read that can be: the rest of a compressed file is damaged or missing.
    """
    with open_log(name) as lines:
        yield lines
    if lines.cut:
        say(_cut_text(lines.cut, f"{LONGEST_LOGGED:,} characters"))
    if lines.damage:
        what = f"cannot read all of {'standard input' if name == '-' else file_name(name)}"
        why = f"the compressed file is damaged or cut off, and was read up to there ({printable(lines.damage)})"
        raise KalloctraceError(what, why, "copy the file again, or unpack what can be read of it first")


@contextmanager
def input_lines(name: str, longest: int = LONGEST) -> Iterator[InputLines]:
    """Open a file, or standard input for "-"; at the end say how many lines were cut."""
    if name == "-":
        lines = InputLines(sys.stdin.buffer, longest)
        yield lines
    else:
        with Path(name).open("rb") as stream:
            lines = InputLines(stream, longest)
            yield lines
    lines.say_cut()
