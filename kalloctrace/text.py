# SPDX-License-Identifier: MIT
"""Text for people: escape what a terminal would act on, and wrap long masks."""

import os
import re
import shlex
import unicodedata

_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Printable to Python, but drawn as nothing: Default_Ignorable_Code_Point of Unicode 16, and the empty braille cell."""

COLUMNS = 80
"""Columns of a line where it does not go to a terminal, and of texts that are as wide on every terminal."""
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))

_WORD = re.compile(r"(?:'[^']*'|\"[^\"]*\"|\S)+")
_COMMAND = re.compile(r": (kalloctrace [^,;()]+)$")
_CONTINUED, _CONTINUATION = " \\", "    "
"""How a line of a command ends that goes on, and how the next one begins."""


def printable(text: str, instead: str | None = None) -> str:
    r"""Return a text in which no character controls a terminal or hides another one.

    Processes choose their own names, and logs hold anything. Characters that `str.isprintable` rejects are C0 and C1
    controls, bidirectional and other format characters, separators other than the space, surrogates, and code points
    without a meaning. Variation selectors and fillers are escaped too: they are invisible.

    Args:
        text: any text.
        instead: replaces each such character; by default it is escaped, such as \x1b or \u202e.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _is_visible(c) else _escaped(c) if instead is None else instead for c in text)


def _is_visible(character: str) -> bool:
    return character.isprintable() and _INVISIBLE.match(character) is None


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        # A byte of a file's name that is not UTF-8.
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def wrap_names(text: str, width: int) -> list[str]:
    """Break a text as `wrap_words` does, but also after a "|", so that the names of a mask stay whole.

    Args:
        text: such as "0xcc0 GFP_KERNEL|__GFP_COMP".
        width: columns of a line.
    """
    return wrap_words(text, width, "|")


def wrap_words(text: str, width: int, after: str = " ") -> list[str]:
    """Break a text into lines between words; only words longer than a line are cut, masks between two names.

    Args:
        text: it may be indented.
        width: columns of a line; lines after the first are indented by two more than the first.
        after: a character that also ends a word.
    """
    lines: list[str] = []
    start = len(text) - len(text.lstrip(" "))
    indent = " " * (start + 2)
    while (limit := max(start + 1, fitting(text, width))) < len(text):
        cut = max(text.rfind(" ", start + 1, limit + 1), text.rfind(after, start, limit) + 1)
        cut = cut if cut > start else text.rfind("|", start, limit) + 1
        cut = cut if cut > start else limit
        lines.append(text[:cut].rstrip())
        text, start = indent + text[cut:].lstrip(" "), len(indent)
    return [*lines, text]


def wrap_command(command: str, width: int) -> list[str]:
    r"""Break a command into lines that a shell still takes for one: between words, with a \ at the end.

    Args:
        command: for a shell, perhaps after a prompt.
        width: columns of a line. A longer word stays whole.
    """
    lines: list[str] = []
    line = ""
    for word in _WORD.findall(command):
        if line and len(line) + len(word) + len(" " + _CONTINUED) > width:
            lines.append(line + _CONTINUED)
            line = _CONTINUATION + word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def wrap_message(text: str, width: int) -> list[str]:
    """Break a text as `wrap_names` does; a command at its end, after a colon, is broken as `wrap_command` does.

    Args:
        text: it may be indented.
        width: columns of a line.
    """
    found = _COMMAND.search(text)
    if found is None or fitting(text, width) == len(text):
        return wrap_names(text, width)
    indent = " " * (len(text) - len(text.lstrip(" ")) + 2)
    command = wrap_command(found[1], width - len(indent))
    return [*wrap_names(text[: found.start() + 1], width), *(f"{indent}{line}" for line in command)]


def fitting(text: str, width: int) -> int:
    """Return how many characters at the beginning of a text fit into a number of columns."""
    if text.isascii():
        return min(len(text), width)
    for at, character in enumerate(text):
        width -= 2 if unicodedata.east_asian_width(character) in "FW" else 1
        if width < 0:
            return at
    return len(text)


def many(number: int, noun: str) -> str:
    """Return a number of things, with the noun in the singular where it is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size_text(size: int) -> str:
    """Return a number of bytes in the largest unit that it fills, such as 1.5 MiB."""
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} B"


def share(part: int, whole: int) -> str:
    """Return a share for people, with two digits that count: 42%, 0.046%."""
    percent = 100 * part / whole
    return f"{percent:.0f}%" if percent >= 10 else f"{percent:.2g}%"


def duration(ns: int) -> str:
    """Return a time for people: 1.24 s, 38 ms, 950 us."""
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= size:
            number = ns / size
            return f"{number:,.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"
    return f"{ns} ns"


def file_name(path: str | os.PathLike[str]) -> str:
    r"""Return the name of a file as text that every encoding of Unicode can hold.

    Args:
        path: a name as the system's functions take it. Bytes that are not UTF-8 are escaped, such as \xff.
    """
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def shell_word(path: str | os.PathLike[str]) -> str:
    r"""Return the name of a file as a word for a shell, such as $'\xff' for bytes that a terminal would not show."""
    name = os.fspath(path)
    if printable(name) == name:
        return shlex.quote(name)
    plain = name.replace("\\", r"\\").replace("'", r"\'")
    return "$'" + "".join(c if _is_visible(c) else "".join(f"\\x{b:02x}" for b in os.fsencode(c)) for c in plain) + "'"
