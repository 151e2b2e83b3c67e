# SPDX-License-Identifier: MIT
"""Mail in quoted-printable: "=3D" stands for "=", and a line that ends in "=" goes on."""

import re
from collections.abc import Iterable, Iterator

_ENCODED = re.compile(r"=(?:[0-9A-F]{2}|\s*$)")
_CODE = re.compile(r"((?:=[0-9A-F]{2})+)")
_MOST = 1024
"""Characters of a line that is joined; a kernel message has no more."""


def is_quoted_printable(lines: Iterable[str], *, before: bool) -> bool:
    """Return whether lines are quoted-printable: an "=" is always encoded there, and "=3D" is nothing else.

    Args:
        lines: some that follow one another.
        before: whether the lines before are.
    """
    equals = encoded = certain = 0
    for line in lines:
        if "=" in line:
            equals += line.count("=")
            encoded += len(_ENCODED.findall(line))
            certain += "=3D" in line
    return (certain > 0 or before) and encoded * 10 >= equals * 9


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
