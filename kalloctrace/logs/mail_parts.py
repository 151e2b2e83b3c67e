# SPDX-License-Identifier: MIT
"""Mails that hold one text twice, plain and as HTML: a report in both has happened once."""

import re

_KIND = "ultipart/alternative"
_BOUNDARY = re.compile(r'boundary="?([^";\s]{1,70})', re.IGNORECASE)
_NEXT_MAIL = re.compile(r"From \S+ .*\d\d:\d\d|Message-ID:", re.IGNORECASE)
_HEADER_LINES = 4
"""Lines into which a header may be folded."""


class FirstParts:
    """Leaves out all but the first of a mail's alternatives, from one line to the next."""

    def __init__(self) -> None:
        """Begin a log."""
        self._boundary = ""
        self._parts = 0
        self._header = 0

    def of(self, lines: list[str]) -> list[str]:
        """Return lines that follow those before; those that are left out are empty."""
        if not self._boundary and not self._header and _KIND not in "\n".join(lines):
            return lines
        return [line if self._is_kept(line) else "" for line in lines]

    def _is_kept(self, line: str) -> bool:
        if _KIND in line:
            self._boundary, self._parts, self._header = "", 0, _HEADER_LINES
        if self._header:
            self._header -= 1
            boundary = _BOUNDARY.search(line)
            if boundary is not None:
                self._boundary, self._header = f"--{boundary[1]}", 0
        elif self._boundary:
            text = line.rstrip()
            if text == self._boundary:
                self._parts += 1
            elif text == f"{self._boundary}--" or _NEXT_MAIL.match(line) is not None:
                self._boundary = ""
            return not self._boundary or self._parts < 2
        return True
