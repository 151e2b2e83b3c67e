# SPDX-License-Identifier: MIT
"""Mail in quoted-printable: "=3D" stands for "=", and a line that ends in "=" goes on."""

import re
from collections.abc import Iterable, Iterator, Sequence

_ENCODED = re.compile(r"=(?:[0-9A-F]{2}|\s*$)")
_HEADER = re.compile(r"[>\s]*Content-Transfer-Encoding:\s*quoted-printable\s*$", re.IGNORECASE)
_CODE = re.compile(r"((?:=[0-9A-F]{2})+)")
_MOST = 1024
"""Characters of a line that is joined; a kernel message has no more."""


def is_quoted_printable(lines: Sequence[str], *, before: bool) -> bool:
    """Return whether lines are quoted-printable: an "=" is always encoded there, and "=3D" is nothing else.

    Args:
        lines: some that follow one another.
        before: whether the lines before are.
    """
    if any("printable" in line and _HEADER.match(line) for line in lines):
        return True
    if not before and not any("=3D" in line for line in lines):
        return False
    equals = sum(line.count("=") for line in lines)
    return sum(len(_ENCODED.findall(line)) for line in lines) * 10 >= equals * 9


def decoded(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield numbered lines decoded; a joined line has the number of its first part."""
    begun: tuple[int, str] | None = None
    for number, line in lines:
        text = line.rstrip()
        first, head = begun or (number, "")
        if text.endswith("=") and len(head) + len(text) < _MOST:
            begun = (first, head + text[:-1])
            continue
        begun = None
        yield first, _CODE.sub(_characters, head + text)
    if begun is not None:
        yield begun[0], _CODE.sub(_characters, begun[1])


def _characters(match: re.Match[str]) -> str:
    return bytes.fromhex(match[1].replace("=", "")).decode("utf-8", errors="replace")
