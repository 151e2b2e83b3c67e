# SPDX-License-Identifier: MIT
"""Which lines continue the line before: a mail or a terminal wrapped them, or the kernel printed them word by word."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from kalloctrace.logs.lines import (
    FORMS,
    HEADER,
    HEADLESS,
    LONGEST_PHRASE,
    PARTIAL,
    PHRASES,
    Form,
    form_of,
    may_be_header,
    starts,
)
from kalloctrace.logs.prefixes import Prefix

LONGEST = 1536
"""Characters of a joined message: a kernel message has 1 KiB with its prefix (kernel/printk/printk.c)."""

_NARROWEST = 40
_MOST_OTHERS = 3
"""Lines of another width that others continue: from so many on, no terminal cut the text."""
_MOST_BY_CHANCE = 8
"""Lines of one width that a mail program makes by chance."""
MAILED = -1
"""The width of lines that a mail program broke."""
_SHORT = 24
"""Characters of a beginning that is too short to tell."""
_REACH = LONGEST_PHRASE + 8
_PAIRS = frozenset(one + next_one for phrase in PHRASES for one, next_one in pairwise(phrase))
"""The characters that follow each other in these phrases."""
_NEXT_WORDS = (
    (":", re.compile(r"page$").match),
    ("", re.compile(r"invoked$|cpuset=\S+ mems_allowed=").match),
    ("page", re.compile(r"allocation\b").match),
    ("=>", re.compile(r"\d+ free of \d").match),
    ("ut of memory:", re.compile(r"Killed process\b").match),
)
"""What the first words of a report's first line end in, and what follows, where each word has its line; and the end of
CMA's list of free ranges."""
_ADDRESS = re.compile(r"\[<[0-9a-f]{8,16}>\](?: \?)?$")
_FUNCTION = re.compile(r"(?:\? )?[\w.]{1,128}\+0x[0-9a-f]{1,8}/0x")
"""A frame of kernels up to 4.9, where a mail may have broken it."""
_LONGEST_NAME = 200
"""Characters of the name and of what is left of a prefix."""


class Line(NamedTuple):
    """A line of a log.

    Attributes:
        text: behind its prefix, with its blanks.
        width: characters of the physical line; 0 if something else ends this line there.
        prefix: what stands before.
        stamped: a stamp or a container says that a message or a part of one begins here.
        starts: it begins as a message does.
    """

    text: str
    width: int
    prefix: Prefix
    stamped: bool
    starts: bool


def terminal_width(lines: Sequence[Line], before: int) -> int:
    """Return the width at which a terminal cut the lines of a text; 0 or `MAILED` if none did.

    Nearly all lines that others continue then have exactly that many characters, and none has more. Where a mail
    program breaks lines between words, their widths differ.

    Args:
        lines: some that follow one another.
        before: the width of the lines before.
    """
    widest = max([line.width for line in lines], default=0)
    if widest > before > 0:
        before = 0
    stamped = [line.stamped for line in lines]
    begins = stamped if any(stamped) else [_begins(line) for line in lines]
    # What stands above the first beginning is other text, whose lines continue none.
    first = begins.index(True) if True in begins else len(lines)
    continued = Counter(
        [
            line.width
            for line, below in zip(lines[first:], begins[first + 1 :], strict=False)
            if not below and line.width >= _NARROWEST
        ]
    )
    # A copy may lose the blank at the end of a line.
    others = continued.total() - continued[widest] - continued[widest - 1]
    least = 1 if before != MAILED else _MOST_BY_CHANCE
    if continued[widest] > max(least, others * 4):
        return widest
    return before if others < _MOST_OTHERS else MAILED


def _begins(line: Line) -> bool:
    """Return whether a line is the beginning of one, a report's first line included."""
    return line.starts or (may_be_header(line.text) and HEADER.match(line.text.lstrip()) is not None)


class Break(NamedTuple):
    """How a line stands below another.

    Attributes:
        cut: the line above fills a terminal's width exactly.
        stamped: the line has a prefix of its own.
        loose: it has none, but messages of this log have one.
        starts: it begins as a message does.
        full: with its first word the line above would be wider than all lines near it.
    """

    cut: bool = False
    stamped: bool = False
    loose: bool = False
    starts: bool = False
    full: bool = False


def is_apart(last: str, line: Line) -> bool:
    """Return whether a line continues no other for certain; this is quick.

    Args:
        last: the line above, without prefix.
        line: the line.
    """
    return line.stamped and line.starts and len(last) > _SHORT


def joined(last: str, text: str, how: Break) -> str | None:
    """Return a line with the one that continues it; None if the second is a message of its own.

    Args:
        last: the line so far, without prefix.
        text: the line below, without prefix but with its blanks.
        how: how it stands below.
    """
    below = text.strip()
    if not below or not last or len(last) + len(below) > LONGEST:
        return below if how.loose and not last else None
    phrase = _across(last.rstrip(), below)
    if phrase is not None:
        return phrase
    if HEADLESS.match(below) is not None:
        # Several CPUs that fail at once leave first lines without a name: each is a report of its own.
        own = HEADER.match(last) is not None or starts(last) is not None or len(last) > _LONGEST_NAME
        return None if own else _glued(last, text, None, how)
    form = form_of(last)
    if form is None:
        return _begun(last, text, how)
    if form.is_complete(last.rstrip()) and not how.cut:
        named = f"{last.rstrip()} {below}"
        return named if (how.loose or how.full) and not how.starts and form.is_named(named) else None
    return _continued(last, text, form, how)


def _continued(last: str, text: str, form: Form, how: Break) -> str | None:
    below, glued = text.strip(), _glued(last, text, form, how)
    begins = FORMS["totals"].begin.match(below) is not None if how.cut and how.loose else how.starts
    if begins and not _is_one_word(last, below, glued, form):
        return None
    return glued if how.loose or how.cut or _fits(last, below, glued, form, how) else None


def _begun(last: str, text: str, how: Break) -> str | None:
    """Join what is no line of a report, or too short to tell."""
    completed = _completed(last.rstrip(), text, how)
    if completed is not None or not how.loose:
        return completed
    # Mem-Info alone has lines without a stamp.
    if how.cut and FORMS["totals"].begin.match(text.strip()) is None:
        return _glued(last, text, None, how)
    spaced = f"{last.rstrip()} {text.strip()}"
    begins = len(last) <= _SHORT and (starts(spaced) is not None or form_of(spaced) is not None)
    return spaced if begins and not how.starts else None


def _is_one_word(last: str, below: str, glued: str, form: Form) -> bool:
    """Return whether two lines are parts of one word, though the second looks like a beginning."""
    tail, head = last.rsplit(None, 1)[-1], below.split(None, 1)[0]
    return glued.startswith(last + head) and form.word.fullmatch(tail) is None


def _fits(last: str, below: str, glued: str, form: Form, how: Break) -> bool:
    """Return whether a line begins with words that the kind of the line above has."""
    first, *others = below.split()
    # The kernel does not cut within a word.
    within = glued.startswith(last + first) and not how.stamped
    if not (within or form.is_word(first)):
        # A task's name may be any word.
        return last.rstrip().endswith("omm:") and not others
    return all(map(form.is_word, others[:1]))


def _across(last: str, below: str) -> str | None:
    """Join lines that a report's first words span."""
    for end, begins in _NEXT_WORDS:
        if last.endswith(end) and begins(below) is not None and len(last) <= _LONGEST_NAME:
            return f"{last} {below}"
    if last.endswith((">]", "?")) and _ADDRESS.search(last) is not None and _FUNCTION.match(below) is not None:
        return f"{last} {below}"
    if last[-1:] + below[:1] not in _PAIRS:
        return None
    tail, head = last[-_REACH:].replace(" ", ""), below[:_REACH].replace(" ", "")
    both = tail + head
    for phrase in PHRASES:
        at = both.find(phrase)
        if 0 <= at < len(tail) < at + len(phrase):
            return _spaced(last, below, len(tail) - at, phrase)
    return None


_WORDS = (
    *("page", "allocation", "alloc", "failure", "stall", "invoked", "oom-killer", "error:", "for", "size"),
    *(
        "vmalloc:",
        "vmalloc_node_range",
        "vmalloc",
        "vmemmap",
        "vmap",
        "failed:",
        "out",
        "of",
        "space",
        "Out",
        "memory:",
    ),
)
"""Of a phrase; a longer one before its beginning."""


def _spaced(last: str, below: str, cut: int, phrase: str) -> str:
    """Join within a phrase, with a space where the phrase has one."""
    ends, at = set(), 0
    while at < len(phrase):
        word = next((word for word in _WORDS if phrase.startswith(word, at)), phrase[at:])
        at += len(word)
        ends.add(at)
    return f"{last.rstrip()} {below}" if cut in ends else f"{last.rstrip()}{below}"


def _completed(last: str, text: str, how: Break) -> str | None:
    """Join a beginning that is too short to tell, if it becomes the beginning of a line so."""
    if len(last) > _SHORT or PARTIAL.fullmatch(last) is None:
        return None
    below = text.strip()
    first = below.split(None, 1)[0]
    if how.starts and not any(map(PARTIAL.fullmatch, (last + first, f"{last} {first}"))):
        return None
    both = (last + below, f"{last} {below}")
    ways = both if how.cut else both[::-1]
    for begins in (lambda glued: form_of(glued) is not None, PARTIAL.fullmatch, starts):
        found = next((glued for glued in ways if begins(glued)), None)
        if found is not None:
            return found
    return None


def _glued(last: str, text: str, form: Form | None, how: Break) -> str:
    """Join two parts of a line; a space was cut out unless both make one word only together."""
    below = text.lstrip()
    if how.cut and (form is None or text[:1].isspace() or last[-1:].isspace()):
        return f"{last}{text}".rstrip()
    if text[:1].isspace() or last[-1:].isspace() or form is None:
        return f"{last.rstrip()} {below}".rstrip()
    tail, head = last.rsplit(None, 1)[-1], below.split(None, 1)[0]
    together = form.is_word(tail + head)
    apart = form.is_word(tail) and form.is_word(head)
    open_names = tail.count("(") > tail.count(")") and ("0x" in tail or "GFP" in tail)
    close = open_names or (together and not apart) or (how.cut and (together or not apart))
    return f"{last}{below}".rstrip() if close else f"{last} {below}".rstrip()
