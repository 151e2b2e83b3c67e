# SPDX-License-Identifier: MIT
"""A piece of a log: one line as it stood before containers, prefixes and wrapping."""

from dataclasses import dataclass

LONGEST = 1 << 14
"""Characters that are read of one line. A kernel message has 1 KiB at most."""


@dataclass(slots=True)
class Piece:
    """A line of text out of a log, with what its container says of it.

    Attributes:
        line: the number of the physical line, from 1.
        text: what the container holds, with its prefix.
        width: characters of the physical line.
        indent: characters of the physical line before `text`; None if `text` is not a part of it as it stands.
        record: the container says that this begins a message.
        time: seconds; None if the container has none.
        wall: the wall-clock time as printed; None if the container has none.
        caller: the caller id; "" if the container has none.
        host: the host's name; "" if the container has none.
    """

    line: int
    text: str
    width: int
    indent: int | None = 0
    record: bool = False
    time: float | None = None
    wall: str | None = None
    caller: str = ""
    host: str = ""

    def grow(self, text: str) -> None:
        """Add what continues it; no message is longer than some bytes of a line."""
        if len(self.text) < LONGEST:
            self.text += text
