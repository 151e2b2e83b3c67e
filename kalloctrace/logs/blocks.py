# SPDX-License-Identifier: MIT
"""The parts of a log that may belong to a memory report; all others are passed over, many lines at a time."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kalloctrace.logs.base64_text import chunks

_LINES = 64
_HINTS = (
    *("alloc", "oom", "kB", "gfp", "GFP", "Mem-Info", "Mem-info", "Node ", "lowmem", "Linux ", "omm: ", "os release"),
    *("callbacks suppressed", "messages suppressed"),
    *("mask 0x", "mode:", "order:", "Out of memory", "killed as", "Killed process", "ysRq"),
    *("ysrq", "ncfrag=", "Node\n", '"MESSAGE":[', '"MESSAGE": [', '"MESSAGE" : ['),
    # Where another machine's log begins.
    *("-- Boot ", "-- Reboot --", "Message-I"),
)
"""Every report has some of these within a few lines, wherever its lines are cut."""
_REPORT_GOES_ON = re.compile(
    r"\] +\d+ +\d+ +\d+ +\d+|\+0x[0-9a-f]+/0x[0-9a-f]+|\[<[0-9a-f]{8,16}>\]|^ *\S{1,32} +\d+ +\d+$", re.MULTILINE
)
"""Tables of tasks and calls: they have no hint, and may be long."""


class Block(NamedTuple):
    """Lines that follow one another.

    Attributes:
        numbers: of the physical line in which each line begins, from 1.
        lines: at least one.
        follows: the line above the first was in the block before.
    """

    numbers: Sequence[int]
    lines: list[str]
    follows: bool


def blocks(lines: Iterable[str]) -> Iterator[Block]:
    """Yield the lines near a hint of a memory report.

    The block before a hint is one of them, and the block behind it: a report's first line may be wrapped in any way.
    """
    before, active, yielded = Block((), [], follows=False), 0, False
    for numbers, chunk, text in chunks(lines, _LINES):
        if any(map(text.__contains__, _HINTS)) or (active and _REPORT_GOES_ON.search(text) is not None):
            active = 2
        elif active:
            active -= 1
        block = Block(numbers, chunk, follows=yielded)
        if active:
            if before.lines:
                yield before._replace(follows=yielded)
                block = block._replace(follows=True)
                before = Block((), [], follows=False)
            yield block
            yielded = True
        else:
            before, yielded = block, False
