# SPDX-License-Identifier: MIT
"""Logs that have each line twice, as two daemons wrote the same messages into one file."""

from collections.abc import Sequence
from itertools import islice
from operator import eq

from kalloctrace.logs.pieces import Piece
from kalloctrace.logs.prefixes import Prefix

_ENOUGH = 4
"""So many lines at least are two each: several CPUs may print some alike lines."""

_Line = tuple[Piece, Prefix]


class Repeats:
    """Leaves out the second of two lines, where nearly every line is there twice."""

    def __init__(self) -> None:
        """Begin a log."""
        self._waiting = ""
        self._enough = _ENOUGH

    def left_out(self, lines: list[_Line]) -> list[_Line]:
        """Return the lines of a block, each once.

        Args:
            lines: those that follow the block before.
        """
        texts = [piece.text[known.end :].strip() for piece, known in lines]
        # The first may be the second of two.
        begin = int(self._waiting != "" and texts[:1] == [self._waiting])
        self._waiting = ""
        # No more pairs than lines that are as the one before; this is quick.
        same = sum(map(eq, texts, islice(texts, 1, None)))
        pairs = _pairs(texts, begin) if same >= self._enough else set()
        if len(pairs) < self._enough or len(pairs) * 20 < (len(texts) - begin) * 9:
            return lines
        self._enough = 1
        seconds = {first + 1: first for first in pairs}
        if len(texts) - 1 not in seconds:
            self._waiting = texts[-1]
        kept = [_fuller(lines, at) if at in pairs else lines[at] for at in range(len(lines)) if at not in seconds]
        return kept[begin:]


def _pairs(texts: Sequence[str], begin: int) -> set[int]:
    """Return the places of lines that the next one repeats, and no further one: events of a trace may be all alike."""
    pairs, at = set(), begin
    while at < len(texts) - 1:
        same = texts[at] == texts[at + 1] != "" and texts[at + 1 : at + 3] != [texts[at]] * 2
        if same:
            pairs.add(at)
        at += 2 if same else 1
    return pairs


def _fuller(lines: list[_Line], at: int) -> _Line:
    """Return the one of two lines that has the time since boot, or the first."""
    return lines[at + 1] if lines[at + 1][1].since_boot and not lines[at][1].since_boot else lines[at]
