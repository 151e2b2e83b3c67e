# SPDX-License-Identifier: MIT
"""Logs with the newest line first, as log servers show and export them, and `journalctl -r` prints."""

from collections.abc import Iterable, Iterator

from kalloctrace.logs.blocks import Block

_HEADS = (
    *("page allocation failure", "page allocation stall", "page alloction stall", "invoked oom-killer"),
    *("vmalloc error:", ": Show Memory"),
)
_STATE = "Mem-Info:"
_RESERVE, _ZONE = "lowmem_reserve[]:", (" free:", " min:")
_TABLE, _KILL = " total_vm ", ("Killed process ", "Kill process ")
_UNDECIDED = 8
"""Blocks whose order may be open: no report has more lines before its first line is clear."""
_LONGEST = 4096
"""Lines of a report that are turned round at once."""


def in_order(blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield the blocks; those that have a report's last line first are turned round, report by report.

    Each zone's line stands before its lowmem_reserve, and a table of tasks before the line about the kill.

    Args:
        blocks: of a log.
    """
    order, held, newest = _Order(), list[Block](), False
    turned = _Turned()
    for block in blocks:
        if not block.follows:
            yield from (*held, *turned.rest())
            order, held, newest = _Order(), [], False
        if newest:
            yield from turned.add(block)
            continue
        if order.known is None:
            held.append(block)
            order.read(block.lines)
            if order.known is None and len(held) < _UNDECIDED:
                continue
            newest = bool(order.known)
            order.known = newest
            for each in held:
                yield from turned.add(each) if newest else (each,)
            held = []
        else:
            yield block
    yield from (*held, *turned.rest())


class _Order:
    """What the lines of a report say about their order.

    Attributes:
        known: whether the newest line is first; None while it is open.
    """

    def __init__(self) -> None:
        self.known: bool | None = None
        self._last = ""
        self._turned = 0
        self._killed = self._table = False

    def read(self, lines: list[str]) -> None:
        """Read the next lines, until the order is known."""
        for line in lines:
            if any(map(line.__contains__, _HEADS)) or _STATE in line:
                self.known = self._turned > 0 or (self._killed and self._table)
                return
            zone, reserve = all(map(line.__contains__, _ZONE)), _RESERVE in line
            self._turned += (zone and self._last == "reserve") - (reserve and self._last == "zone")
            if zone or reserve:
                self._last = "zone" if zone else "reserve"
            elif _TABLE in line:
                self._table = self._killed
            elif any(map(line.__contains__, _KILL)):
                self._killed = not self._table


class _Turned:
    """Turns round the lines of each report."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._lines: list[str] = []

    def add(self, block: Block) -> Iterator[Block]:
        """Add lines, and yield the reports whose first line is among them."""
        for number, line in zip(block.numbers, block.lines, strict=True):
            self._numbers.append(number)
            self._lines.append(line)
            if any(map(line.__contains__, _HEADS)) or len(self._lines) >= _LONGEST:
                yield from self.rest()

    def rest(self) -> Iterator[Block]:
        """Yield what is left, turned round."""
        if self._lines:
            yield Block(self._numbers[::-1], self._lines[::-1], follows=False)
        self._numbers, self._lines = [], []
