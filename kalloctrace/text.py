# SPDX-License-Identifier: MIT
"""Text for people: escape what a terminal would act on, wrap long masks, and style headings."""

import os
from typing import TextIO

_BOLD, _RESET = "\x1b[1m", "\x1b[0m"


def printable(text: str, instead: str | None = None) -> str:
    r"""Return a text in which no character controls a terminal or hides another one.

    Processes choose their own names, and logs hold anything. Characters that `str.isprintable` rejects are C0 and C1
    controls, bidirectional and other format characters, separators other than the space, surrogates, and code points
    without a meaning.

    Args:
        text: any text.
        instead: replaces each such character; by default it is escaped, such as \x1b or \u202e.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) if instead is None else instead for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def wrap_names(text: str, width: int) -> list[str]:
    """Break a text into lines after a "|" or a space, so that the names of a mask stay whole.

    Args:
        text: such as "0xcc0 GFP_KERNEL|__GFP_COMP".
        width: characters in a line; lines after the first are indented by two of them.
    """
    lines: list[str] = []
    indent = ""
    while len(indent) + len(text) > width:
        limit = max(1, width - len(indent))
        cut = max(text.rfind("|", 0, limit), text.rfind(" ", 0, limit)) + 1 or limit
        lines.append(indent + text[:cut].rstrip())
        text, indent = text[cut:], "  "
    return [*lines, indent + text]


def heading(text: str, stream: TextIO) -> str:
    """Return a heading: bold on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    bold = stream.isatty() and not os.environ.get("NO_COLOR")
    return f"{_BOLD}{text}{_RESET}" if bold else text


def file_name(path: str | os.PathLike[str]) -> str:
    r"""Return the name of a file as text that every encoding of Unicode can hold.

    Args:
        path: a name as the system's functions take it. Bytes that are not UTF-8 are escaped, such as \xff.
    """
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")
