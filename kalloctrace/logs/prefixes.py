# SPDX-License-Identifier: MIT
"""What stands before a kernel message: stamps, levels, hosts, quotes."""

import re

_TIME = r"\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?"
_STAMP = (
    rf"(?:\w{{3}} )?\d{{4}}-\d\d-\d\d[T ]{_TIME}(?:Z|[+-]\d\d:?\d\d| [A-Z]{{2,5}}(?= ))?"
    rf"|(?:\w{{3}} )?\w{{3}}\s?\s?\d{{1,2}} {_TIME}(?: \d{{4}})?"
    rf"|{_TIME}"
)
# Prefixes of dmesg, journalctl --output=short-*, syslog daemons, and quoted mail, all of which may be indented.
_PREFIX = re.compile(
    r"\s*(?:(?P<quote>[>|])\s?"
    r"|<\d{1,3}>(?:1 )?"
    r"|\[\s*\+?\d+\.\d+(?:\s*<\s*\+?\d+\.\d+>)?\]\s?"
    r"|\[\s*(?P<caller>[TC]\d+)\]\s?"
    rf"|\[(?:{_STAMP})\]\s?"
    rf"|(?:{_STAMP})\s+"
    r"|(?:kern|user|daemon|syslog)\s*:(?:emerg|alert|crit|err|warn|notice|info|debug)\s*:\s?"
    r"|(?:[\w.-]+\s+)?(?:\w+\.\w+\s+)?kernel(?:\[\d+\])?(?::|\s+-\s+-\s+-(?=\s))\s?)"
)


def without_prefix(line: str) -> tuple[str, str, bool]:
    """Return the text behind the prefix, the caller id, and whether there is a prefix other than quotes."""
    at, caller, stamped = 0, "", False
    while (match := _PREFIX.match(line, at)) is not None:
        caller = match["caller"] or caller
        stamped = stamped or match["quote"] is None
        at = match.end()
    return line[at:], caller, stamped
