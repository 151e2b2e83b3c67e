# SPDX-License-Identifier: MIT
"""The lines of a call trace, as the architectures print them."""

import re
from functools import lru_cache

from kalloctrace.diagnose.reports.model import Frame

_TRACE = re.compile(r"(?:Call [Tt]race|Backtrace|Trace)\s*:\s*(?P<rest>.*)")
_NAME = r"(?P<function>[A-Za-z_.$][\w.$]*)"
_MODULE = r"(?: \[(?P<module>[A-Za-z_][\w-]*)(?: [^\]]*)?\])?"
_ADDRESS = r"(?:</?[A-Z_]{3,10}>|\(?\[?<?(?:0x)?[0-9a-f]{8,16}>?\]?\)?|\[[<(]?[0-9a-f]{4,16}[>)]?\])"
_FRAME = re.compile(rf"(?:{_ADDRESS}\s*){{0,4}}(?P<unsure>\? ?)?{_NAME}\+0x[0-9a-f]{{1,8}}/0x[0-9a-f]{{1,8}}{_MODULE}")
# "(show_stack) from [<c0010f00>] (dump_stack+0x10/0x14)" of 32-bit arm: the second function called the first.
_FROM = re.compile(
    rf"(?:{_ADDRESS}\s*)?\(?[\w.$]+(?:\+0x[0-9a-f]+/0x[0-9a-f]+)?(?: \[[\w -]+\])?\)? from "
    rf"(?:{_ADDRESS}\s*)?\(?{_NAME}(?:\+0x[0-9a-f]{{1,8}}/0x[0-9a-f]{{1,8}})?{_MODULE}\)?"
)
# x86_64 up to 2.6.17: "<ffffffff8015e1d2>{__alloc_pages+789} <ffffffff80160f7f>{:ext3:ext3_readpage+12}".
_BRACED = re.compile(r"<[0-9a-f]{8,16}>\{(?::(?P<module>[\w-]{1,64}):)?(?P<function>\w{1,128})\+\d{1,8}\}")
# After scripts/decode_stacktrace.sh, and the inlined functions that syzbot adds.
_DECODED = re.compile(
    rf"(?P<unsure>\? ?)?{_NAME} "
    r"(?:\([\w./-]{1,256}:\d{1,7}[^\[\]]{0,80}\)(?: (?P<module>[A-Za-z_][\w-]*))?|[\w./-]{1,256}:\d{1,7} \[inline\])$"
)
_END = ("---[ end trace", "Code: ", "Mem-Info")

_DUMPERS = frozenset(("dump_backtrace", "show_stack", "show_trace", "dump_stack", "dump_stack_lvl", "__dump_stack"))
"""Functions that print a trace, so that they stand at its beginning."""
_REPORTERS = _DUMPERS | {"warn_alloc", "warn_alloc_failed", "dump_header"}
"""Functions that stand once in the trace of a report, and never at its end."""

PANICKING = frozenset(("panic", "vpanic"))
"""Functions whose trace is of the end of the kernel, kernel/panic.c."""

LONGEST = 256
"""Frames that are kept of a trace; the kernel's stacks hold fewer."""


def trace_begins(text: str) -> str | None:
    """Return what follows "Call Trace:" on the line; None if this is another line."""
    match = _TRACE.match(text)
    return match["rest"] if match is not None else None


def trace_ends(text: str) -> bool:
    """Return whether a line ends a trace."""
    return text.startswith(_END)


@lru_cache(maxsize=1024)
def frames_in(text: str, *, within: bool) -> tuple[Frame, ...]:
    """Return the frames of a line, innermost first.

    Args:
        text: the line.
        within: it follows "Call Trace:", so that lines that other texts may hold are frames too.
    """
    if "+0x" in text:
        match = _FROM.match(text) or _FRAME.match(text)
        if match is not None:
            unsure = "unsure" in match.re.groupindex and match["unsure"] is not None
            return (_frame(match, reliable=not unsure and "(unreliable)" not in text),)
    if ">{" in text:
        return tuple(_frame(match, reliable=True) for match in _BRACED.finditer(text))
    if within and (match := _DECODED.match(text)) is not None:
        return (_frame(match, reliable=match["unsure"] is None),)
    return ()


def is_mixed(trace: list[Frame], frame: Frame) -> bool:
    """Return whether a frame shows that the lines of two traces run into each other."""
    if not frame.reliable or frame.function not in _REPORTERS:
        return False
    known = [other.function for other in trace if other.reliable]
    return frame.function in known or (frame.function in _DUMPERS and not _DUMPERS.issuperset(known))


def lacks_beginning(trace: list[Frame], frame: Frame) -> bool:
    """Return whether the first frame of a trace is not of what prints a report, so that another trace goes on here."""
    return not trace and frame.reliable and frame.function not in _REPORTERS


def is_incomplete(trace: list[Frame]) -> bool:
    """Return whether a trace lacks the functions that called for the report."""
    return all(frame.function in _REPORTERS for frame in trace)


def _frame(match: re.Match[str], *, reliable: bool) -> Frame:
    # No function in C has a dot: what follows one is the compiler's, such as ".isra.0"; ppc64 prints one before.
    return Frame(match["function"].lstrip(".").split(".")[0], match["module"], reliable)
