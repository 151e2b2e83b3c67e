# SPDX-License-Identifier: MIT
"""Escapes within a line: colours of terminals, HTML, control characters as syslog daemons and JSON write them."""

import html
import re

from kalloctrace.logs.pieces import LONGEST

_COLOUR = re.compile(r"\[\d{0,3}(?:;\d{1,3})*m")
_ANSI = re.compile(
    r"(?:\x1b|\^\[|#033|\\033|\\x1[bB]|\\u001[bB]|\\e)\[[0-9;?]*[A-Za-z]"
    r"|\x1b\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)|\x1b[@-Z\\^_]"
    # A terminal's copy may have lost the escape character itself.
    r"|^\[\d{1,3}(?:;\d{1,3})*m|\[(?:0|\d{1,3}(?:;\d{1,3})+)?m$"
)
_TAG = re.compile(
    r"</?(?:pre|p|div|span|code|tt|td|tr|table|tbody|a|font|b|i|u|em|strong|li|ul|ol|blockquote|html|body|samp|kbd|hr)"
    r"(?:\s[^<>]{0,256})?/?>",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,8});")
_BREAK = re.compile(r"<br\s?/?>|(?:\\r)?\\n|(?:#015)?#012|\x1e|\r", re.IGNORECASE)
_TAB = re.compile(r"\\t|#011")


def is_plain(text: str) -> bool:
    """Return whether a text is one line without escapes; this is quick."""
    # An expression or a loop over these takes five times as long.
    escaped = "<" in text or "&" in text or "\\" in text or "\x1b" in text or "^" in text or "#0" in text
    broken = "\n" in text or "\r" in text or "\x1e" in text or "\ufeff" in text
    return not escaped and not broken and _COLOUR.search(text) is None


def plain_lines(text: str) -> list[str]:
    """Return the lines that a text holds, without escapes.

    Args:
        text: one line, or a string with newlines in it.
    """
    if is_plain(text):
        return [text]
    lines = [part for line in text.split("\n") for part in _BREAK.split(line)]
    return [_plain(line[:LONGEST]) for line in lines if line.strip()] or [""]


def _plain(line: str) -> str:
    line = _ANSI.sub("", _TAB.sub("\t", line).replace('\\"', '"').replace("\ufeff", ""))
    if "<" in line:
        line = _TAG.sub("", line)
    if _ENTITY.search(line) is not None:
        # A page within a page is escaped twice.
        line = html.unescape(html.unescape(line)).replace("\xa0", " ")
    return line
