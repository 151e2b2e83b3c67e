# SPDX-License-Identifier: MIT
"""Extracts masks and kernel releases from single lines of kernel logs and traces."""

import re
from collections.abc import Iterator
from typing import NamedTuple

# Cheap tests: most lines have neither, and the expressions below are slow.
_MASK_HINTS = ("gfp", "mode:", "mask 0x")
_RELEASE_HINTS = ("omm:", "Linux ", "os release")

_NAME = r"_{0,3}GFP_\w+"
# No kernel prints more than 64 bits, and Python does not print a number of thousands of digits.
_HEX = r"0x[0-9a-fA-F]{1,16}"
_MASK = re.compile(
    r"(?<![\w.])(?P<key>gfp_flags|gfp_mask|gfp|mode|mask)"
    r"(?:[=:]\s?|\s)"
    # Copies lose commas and blanks: "gfp_mask=0x800d0order=0".
    rf"(?P<mask>{_HEX}(?:(?![\w|])|(?=order=))|none\b|"
    rf"(?>(?:{_NAME}|{_HEX})(?:\|(?:{_NAME}|{_HEX}))*)(?!\w))"
    r"(?:\s?(?P<open>\()(?P<names>[\w|]*)(?P<close>\))?)?"
)
# The number of characters before a mask that are searched for its context.
_CONTEXT = 300
# Other messages use these words for other things, so this context is required, unless names of gfp flags follow.
_NEEDS_CONTEXT = {"mode": re.compile(r"alloc", re.IGNORECASE), "mask": re.compile(r"allocated via")}
_GFP_NAME = re.compile(r"_{0,3}GFP_")

_FORMS = (
    ("Unexpected gfp", re.compile(r"Unexpected gfp:")),
    ("oom-killer", re.compile(r"invoked oom-killer")),
    ("page allocation stall", re.compile(r"page allocation stalls? for")),
    ("page allocation failure", re.compile(r"page allocation failure")),
    ("SLUB", re.compile(r"SLUB: ")),
    ("SLAB", re.compile(r"SLAB: ")),
    ("vmalloc", re.compile(r"vmalloc|vmap ")),
    ("page_owner", re.compile(r"allocated via order")),
)
_TRACEPOINT = re.compile(r"(?<!\w)(?:\w+:)?(?P<event>[a-z]\w+):\s[^:]*$")
_WARN_ALLOC = "warn_alloc"
_OTHER = "gfp"
# In these reports the kernel prints its release some lines below the mask (dump_stack_print_info); messages of the slab
# allocators stand directly before or after such a report.
_RELEASE_FOLLOWS = (
    "Unexpected gfp",
    "oom-killer",
    "page allocation stall",
    "page allocation failure",
    "vmalloc",
    "SLUB",
    "SLAB",
    _WARN_ALLOC,
)

# The task's name stands directly before these words.
_REPORT_START = re.compile(r": (?:page allocation|vmalloc)| invoked oom-killer")
# Parentheses after a mask may hold something other than its names.
_NAMES = re.compile(rf"(?:(?:{_NAME}|{_HEX})(?:\||$))*\w*")

_VERSION_STRING = r"(?P<release>\d{1,3}\.\d{1,3}[\w.+~-]*)"
# "CPU: 1 PID: 7 Comm: a b Tainted: G  W  6.1.0-49-amd64 #1 Debian 6.1.192-2", and before 3.9
# "Pid: 9, comm: x Not tainted 2.6.38-8-server #42-Ubuntu".
# The repetitions are bounded, so that no line makes the match slow.
_TASK_LINE = re.compile(
    r"(?:CPU|Pid): .{0,60}?\b[Cc]omm: (?P<comm>.{1,64}?) {1,8}(?:Kdump: loaded {1,8})?"
    r"(?:Not tainted|Tainted:.{0,80}?) {1,8}"
    rf"{_VERSION_STRING}(?P<version>(?: .*)?)$"
)
_BOOT_LINES = (
    re.compile(rf"\bLinux version {_VERSION_STRING}(?P<version>.*)"),
    re.compile(rf"^# os release : {_VERSION_STRING}(?P<version>)"),
    re.compile(rf"(?:^|\s)Linux \S+ {_VERSION_STRING}(?P<version> #\d.*)"),
)


class MaskText(NamedTuple):
    """A mask as a line prints it.

    Attributes:
        column: the column of the mask's first character, 1-based.
        form: the kind of line: the name of a report or of a tracepoint.
        number: the printed value; None if only names are printed.
        names: the text in the parentheses, or the names printed instead of a number; None if there are no names.
        cut: whether the line ends within the names.
        task: the text before the report's first words, which ends with the task's name.
        release_follows: whether the kernel's release may follow some lines below.
    """

    column: int
    form: str
    number: int | None
    names: str | None
    cut: bool
    task: str
    release_follows: bool


class ReleaseText(NamedTuple):
    """A kernel release as a line prints it.

    Attributes:
        release: `uname -r`.
        version: the text after it, which contains `uname -v`.
        comm: the task of the report that this line belongs to; None for a line that begins a log or a boot.
    """

    release: str
    version: str
    comm: str | None


def masks_in(line: str) -> Iterator[MaskText]:
    """Yield the masks of a line, from left to right."""
    if not any(map(line.__contains__, _MASK_HINTS)):
        return
    report, task = _report(line), _before_report(line)
    for match in _MASK.finditer(line):
        context = None if _GFP_NAME.match(match["names"] or "") else _NEEDS_CONTEXT.get(match["key"])
        if context is None or context.search(line, max(match.start() - _CONTEXT, 0), match.start()) is not None:
            yield _mask_text(line, match, report or _form(line, match), task)


def release_in(line: str) -> ReleaseText | None:
    """Return the kernel release in a line, or None."""
    if not any(map(line.__contains__, _RELEASE_HINTS)):
        return None
    task = _TASK_LINE.match(line, max(line.find("CPU: "), line.find("Pid: "), 0))
    if task is not None:
        return ReleaseText(task["release"], task["version"], task["comm"])
    for pattern in _BOOT_LINES:
        match = pattern.search(line)
        if match is not None:
            return ReleaseText(match["release"], match["version"], None)
    return None


def _mask_text(line: str, match: re.Match[str], form: str, task: str) -> MaskText:
    mask = match["mask"]
    is_number = mask[0] == "0" and "|" not in mask
    words = "" if mask == "none" else mask
    brackets, cut = _brackets(match, line)
    return MaskText(
        column=match.start("mask") + 1,
        form=form,
        number=int(mask, 16) if is_number else None,
        names=brackets if is_number else words,
        cut=is_number and cut,
        task=task,
        release_follows=form in _RELEASE_FOLLOWS,
    )


def _brackets(match: re.Match[str], line: str) -> tuple[str | None, bool]:
    """Return the names in the parentheses after a mask, and whether the line ends before they close."""
    names = match["names"]
    if names is None or _NAMES.fullmatch(names) is None:
        return None, False
    if match["close"] is not None:
        known = names == "" or "GFP_" in names or names.startswith("0x")
        return (names if known else None), False
    cut = match.end() == len(line)
    return (names if cut else None), cut


def _report(line: str) -> str | None:
    return next((name for name, pattern in _FORMS if pattern.search(line)), None)


def _form(line: str, match: re.Match[str]) -> str:
    if match["key"] == "mode":
        return _WARN_ALLOC
    tracepoint = _TRACEPOINT.search(line, max(match.start() - _CONTEXT, 0), match.start())
    return tracepoint["event"] if tracepoint is not None else _OTHER


def _before_report(line: str) -> str:
    start = _REPORT_START.search(line)
    return line[: start.start()] if start is not None else ""
