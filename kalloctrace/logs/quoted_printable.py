# SPDX-License-Identifier: MIT
"""Mail in quoted-printable: "=3D" stands for "=", and a line that ends in "=" goes on."""

import re
from collections.abc import Iterable, Iterator, Sequence

_ENCODED = re.compile(r"=(?:[0-9A-F]{2}|\s*$)")
_HEADER = re.compile(r"[>\s]*Content-Transfer-Encoding:\s*quoted-printable\s*$", re.IGNORECASE)
_CODE = re.compile(r"((?:=[0-9A-F]{2})+)")
_MOST = 1024
"""Characters of a line that is joined; a kernel message has no more."""


class QuotedPrintable:
    """Decodes the lines of a log, block after block, where they are quoted-printable."""

    def __init__(self) -> None:
        """Begin a log."""
        self._is_on = False
        self._begun: tuple[int, str] | None = None

    def read(self, numbers: Sequence[int], lines: Sequence[str]) -> Iterable[tuple[int, str]]:
        """Return numbered lines; one that is joined has the number of its first part.

        Args:
            numbers: of the lines.
            lines: a block of lines that follow one another.
        """
        numbered = zip(numbers, lines, strict=True)
        self._is_on = _is_quoted_printable(lines, before=self._is_on)
        return self._decoded(numbered) if self._is_on else (*self.rest(), *numbered)

    def rest(self) -> Sequence[tuple[int, str]]:
        """Return the line that was to go on, if the log ends or lines are passed over."""
        begun, self._begun = self._begun, None
        return () if begun is None else (begun,)

    def _decoded(self, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        for number, line in lines:
            text = line.rstrip()
            first, head = self._begun or (number, "")
            self._begun = None
            if text.endswith("=") and len(head) + len(text) < _MOST:
                self._begun = (first, head + text[:-1])
            else:
                yield first, _CODE.sub(_characters, head + text)


def _is_quoted_printable(lines: Sequence[str], *, before: bool) -> bool:
    """Return whether lines are quoted-printable: an "=" is always encoded there, and "=3D" is nothing else.

    Args:
        lines: some that follow one another.
        before: whether the lines before are.
    """
    together = "\n".join(lines)
    if "printable" in together and any(map(_HEADER.match, lines)):
        return True
    if not before and "=3D" not in together:
        return False
    equals = sum(line.count("=") for line in lines)
    return sum(len(_ENCODED.findall(line)) for line in lines) * 10 >= equals * 9


def _characters(match: re.Match[str]) -> str:
    return bytes.fromhex(match[1].replace("=", "")).decode("utf-8", errors="replace")
