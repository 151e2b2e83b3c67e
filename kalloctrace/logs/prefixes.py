# SPDX-License-Identifier: MIT
"""What stands before a kernel message: stamps, levels, hosts, quotes. What no list has is learned from the log itself.

Known tokens are those of printk (CONFIG_PRINTK_TIME, CONFIG_PRINTK_CALLER), dmesg, journalctl, syslog daemons,
RFC 5424, container runtimes, Android vendors' kernels, VMware's logs, and mail. For everything else, lines that can
only begin as they do (`lines.ANCHOR`) show what stands before them; where two lines of a log agree, it is their prefix.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from kalloctrace.logs.lines import ANCHOR, HEADER, START, starts, starts_certainly
from kalloctrace.logs.pieces import Piece

_TIME = r"\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?"
_ZONE = r"(?:Z|[+-]\d\d:?\d\d| [+-]\d{2,4}(?= )| (?:UTC|GMT|MSK|WIB|[A-Z]{1,4}T)(?= ))?"
_STAMP = (
    rf"(?:\w{{3}} )?\d{{4}}[-/]\d\d[-/]\d\d[T _]{_TIME}{_ZONE}"
    rf"|(?:\w{{3}},? )?\w{{3}}\.?\s{{0,2}}\d{{1,2}}(?: \d{{4}})? {_TIME}(?: \d{{4}})?"
    rf"|\d{{1,2}}[-/. ](?:\d\d|\w{{3}})(?:[-/. ]\d{{2,4}})?[ :T,]{{1,2}}{_TIME}(?: [AP]M)?{_ZONE}"
    r"|\d{9,10}\.\d{3,9}(?=\s)"
    rf"|{_TIME}"
)
_LEVEL = r"(?:emerg|alert|crit|err|error|warn|warning|notice|info|debug)"
_HOST = r"[A-Za-z0-9_.-]{1,64}"
_FIRST_LINE = r"(?::? ?page allocation (?:failure|stall)| invoked oom-killer|: vmalloc(?: error)?:)"
# "vmalloc error" follows the name of a task, not of a host.
_STARTS_MESSAGE = rf"(?!vmalloc)(?={START}|.{{1,40}}?{_FIRST_LINE})"

_TOKEN = re.compile(
    r"\s*+(?:(?P<quote>>\s?|\|(?:\s|(?=[\[<]))|[│┃║]|`{1,3}(?=[\[<\w])|'(?=[\[<]))"
    r"|(?P<bullet>(?:[-*+•·‣◦–#]|/\*|//|\d{1,7}[.)])\s+(?=[\[<']|\w)|\d{1,7}\t|\d{1,7}:\s+(?=[\[<]))"
    r"|(?:\d{1,6} (?=<))?<\d{1,4}>(?:1 )?"
    rf"|<\w{{1,16}}\.{_LEVEL}>\s?"
    r"|\d{1,4},\d{1,20},(?P<kmsg>\d{1,20}),[-c+](?P<fields>(?:,\w{1,32}=[^;,\s]{0,64})*);"
    r"|(?P<repeated>message repeated \d{1,9} times: \[\s?)"
    r"|\[\s*(?P<delta>\+?)(?:\d{1,4}-)?(?P<boot>\d{1,12}\.\d{1,9})(?P<more>[^\[\]]{0,48})\]\s?"
    r"|\[\s*(?P<caller>[TC]\d{1,10})\]\s?"
    rf"|\[(?P<bracket>{_STAMP}|[^\[\]:]{{0,40}}\d\d:\d\d:\d\d[^\[\]]{{0,24}})\]\s?"
    rf"|(?P<wall>{_STAMP})(?:[:,;|]?\s+|[|;]\s*)"
    rf"|(?:kern|user|daemon|syslog|local\d)\s*:{_LEVEL}\s*:\s?)"
)
_KERNEL = re.compile(
    rf"\s*+(?:(?P<host>{_HOST})\s+)?(?:<?\w{{1,16}}\.{_LEVEL}>?\s+)?kernel(?:\[[\d-]{{1,10}}\])?"
    r"(?::(?: :)?|\s+\S{1,16}\s+\S{1,32}\s+(?:-|(?:\[[^\[\]]{0,256}\])+)(?=\s))\s?"
)
# What grep prints, names of files and numbers of lines, and the address of a machine.
_FIRST = re.compile(
    r"\s*+(?:(?P<address>\d{1,3}(?:\.\d{1,3}){3})(?::\d{1,5})?:?\s+"
    rf"|(?:[\w./@+-]{{1,128}}[:-])?(?:\d{{1,7}}[:-])(?=\[\s*\d{{1,12}}\.\d|<\d|{_STAMP})"
    rf"|[\w./@+-]{{1,128}}:(?=\[\s*\d{{1,12}}\.\d|<\d{{1,3}}>))"
)
# Tokens that mean this only behind a stamp.
_LATER = re.compile(
    r"\s*+(?:(?P<address>\d{1,3}(?:\.\d{1,3}){3})(?::\d{1,5})?:?\s+"
    r"|[A-Z]?\[\s*\d{1,4}:[^\[\]]{1,32}:\s*\d{1,10}\]\s?"
    r"|\[pid:\d{1,10},cpu\d{1,4}[^\[\]]{0,40}\]\s?"
    r"|-?\(\d{1,4}\)\s?(?:\[\s*\d{1,10}:[^\[\]]{1,32}\]\s?)?"
    r"|c\d{1,4}\s+\d{1,10}\s(?!total |pages )"
    r"|(?:stdout|stderr) [FP](?::\w{1,16})* ?"
    r"|[VDIWEF]/?(?=\s)"
    r"|\d{1,7}\s+\d{1,7}\s+[VDIWEF]\s"
    r"|\|?\s?(?:vcpu-\d{1,4}|vmx|mks|cpu\d{1,4}:\d{1,10})[|)]?\s?"
    r"|\|\s?[A-Z]\d{3}:\s|(?:In|Wa|Er)\(\d{1,3}\)\s+[\w-]{1,32}\s+-\s+"
    r"|(?:Guest|guest|message from guest|kmsg|console|dmesg):\s+"
    rf"|(?:(?P<syslog>{_HOST})\s+)?(?:<?\w{{1,16}}\.{_LEVEL}>?|klogd|vmunix)(?:\[\d{{1,10}}\])?:?\s+"
    rf"|(?!{START})(?P<host>{_HOST}):\s+{_STARTS_MESSAGE})"
)
_starts_behind_blanks = re.compile(rf"\s*+{START}").match
_CALLER = re.compile(r"\b[TC]\d{1,10}\b")
_WHEN = re.compile(
    r"(?:(?P<year>\d{4})[-/](?P<month>\d\d)[-/](?P<mday>\d\d)[T _]"
    r"|(?P<name>[A-Z][a-z]{2})\.?\s{0,2}(?P<day>\d{1,2})(?: \d{4})? )"
    r"(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SOME_YEAR = 30
"""Years since 1970 of a stamp without one."""
_DAYS_BEFORE = (0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335)


class Prefix(NamedTuple):
    """What stands before a message.

    Attributes:
        end: where the message begins.
        stamped: there is more than quotes and bullets.
        time: seconds; None if there is none.
        wall: the wall-clock time as printed; None if there is none.
        caller: the caller id, or "".
        host: the host's name, or "".
        closing: what the prefix opens and the message's end closes, such as a quotation mark; or "".
        host_follows: it ends in a stamp of RFC 3164, which has a host's name next.
        since_boot: the time is since boot, not by the wall clock.
        starts: what stands behind it and its blanks begins as a message does.
    """

    end: int
    stamped: bool
    time: float | None = None
    wall: str | None = None
    caller: str = ""
    host: str = ""
    closing: str = ""
    host_follows: bool = False
    since_boot: bool = False
    starts: bool = False


_NOTHING = Prefix(0, stamped=False)
_BEGINS = Prefix(0, stamped=False, starts=True)


def known_prefix(text: str) -> Prefix:
    """Read the tokens that stand before every message of some source."""
    at, stamped, host_follows = 0, False, False
    time: float | None = None
    wall: str | None = None
    caller = host = closing = ""
    certain = False
    # At the very beginning, what looks like a message may be the name of a file.
    while not (certain := at > 0 and starts_certainly(text, at) is not None):
        match = _TOKEN.match(text, at)
        if match is None:
            named = _named(text, at, stamped=stamped)
            if named is None or named.end == at:
                break
            at, stamped, host, host_follows = named.end, stamped or named.stamped, host or named.host, False
            continue
        # The last group of a token tells which one it is.
        at, kind = match.end(), match.lastgroup
        if kind in ("quote", "repeated"):
            closing = _closing(match, closing)
        if kind in ("quote", "bullet"):
            continue
        stamped = True
        host_follows = kind == "wall" and match["wall"][:1].isalpha()
        if kind in ("bracket", "wall"):
            wall = match[kind]
        elif kind in ("caller", "more", "fields"):
            caller, time = _caller_in(match[kind], caller), _since_boot(match, time)
    begins = certain or starts_behind(text, at)
    if at == 0:
        return _BEGINS if begins else _NOTHING
    since_boot = time is not None
    if time is None and wall is not None:
        time = wall_seconds(wall)
    return Prefix(at, stamped, time, wall, caller, host, closing, host_follows, since_boot, begins)


def starts_behind(text: str, at: int) -> bool:
    """Return whether what stands behind a prefix and its blanks begins as a message does.

    Args:
        text: a line.
        at: the end of the prefix.
    """
    return _starts_behind_blanks(text, at) is not None


def _caller_in(text: str, before: str) -> str:
    found = _CALLER.search(text)
    return before if found is None else found[0]


def _since_boot(token: re.Match[str], before: float | None) -> float | None:
    if token["kmsg"] is not None:
        return int(token["kmsg"]) / 1e6
    return before if token["boot"] is None or token["delta"] else float(token["boot"])


_PAIRED = frozenset("|│┃║`'")
"""Marks that stand at both ends of a line."""


def _closing(match: re.Match[str], before: str) -> str:
    if match["repeated"] is not None:
        return "]"
    # A bar may be the first of a table's row, or the side of a box.
    quote = (match["quote"] or "").strip()
    return quote if quote[:1] in _PAIRED else before


_EMBEDDED = re.compile(r"\[ {0,8}(?P<boot>\d{1,8}\.\d{6})\](?:\[ {0,6}[TC]\d{1,10}\])? ")
_EMBEDDED_SYSLOG = re.compile(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S{1,64} kernel: ")


# `console_unlock`, kernel/printk/printk.c of Linux 3.16 to 4.14, which prints no line end there.
_DROPPED = re.compile(r"\*\* \d{1,10} printk messages dropped \*\* +(?=\S)")

_AT_ONCE = 1.0
"""Seconds between two messages that ran into each other on a console."""


def next_prefix(text: str, known: Prefix) -> int:
    """Return where another prefix follows in a line that lost its line ends, or the text's length.

    Args:
        text: a line.
        known: its own prefix.
    """
    begin = known.end
    if text.startswith("** ", begin) and (dropped := _DROPPED.match(text, begin)) is not None:
        return dropped.end()
    match = _EMBEDDED.search(text, begin + 1) if text.find("] ", begin + 1) > 0 else None
    if text.find(" kernel: ", begin) >= 0:
        syslog = _EMBEDDED_SYSLOG.search(text, begin + 1)
        if syslog is not None and (match is None or syslog.start() < match.start()):
            match = syslog
    if match is None:
        return len(text)
    # The words of a report's first line behind the prefix do not tell what stands before it.
    begins = starts(text, begin) is not None or HEADER.match(text, begin, match.start()) is not None
    return match.start() if begins or _is_at_once(text, known, match) else len(text)


def _is_at_once(text: str, known: Prefix, match: re.Match[str]) -> bool:
    """Return whether a message begins within another one's line, which a second CPU wrote at the same time."""
    boot = match.re is _EMBEDDED and known.since_boot and known.time is not None
    return boot and starts_behind(text, match.end()) and abs(float(match["boot"]) - (known.time or 0)) < _AT_ONCE


def _named(text: str, at: int, *, stamped: bool) -> Prefix | None:
    """Read a token with a name of a host or program."""
    if "kernel" in text and (match := _KERNEL.match(text, at)) is not None:
        return Prefix(match.end(), stamped=True, host=match["host"] or "")
    if stamped:
        later = _LATER.match(text, at)
        return (
            Prefix(later.end(), stamped=True, host=later["host"] or later["syslog"] or later["address"] or "")
            if later
            else None
        )
    first = _FIRST.match(text, at)
    return Prefix(first.end(), stamped=True, host=first["address"] or "") if first is not None else None


@lru_cache(maxsize=256)
def wall_seconds(stamp: str) -> float | None:
    """Return a wall-clock time as seconds that are comparable within one log; None if it names no day.

    No time since boot is as large.

    Args:
        stamp: as printed; without a fraction the result is a whole number. Stamps without a year are of one year.
    """
    match = _WHEN.search(stamp)
    if match is None:
        return None
    if match["name"] is not None:
        if match["name"] not in _MONTHS:
            return None
        years, month, day = _SOME_YEAR, _MONTHS.index(match["name"]), int(match["day"])
    else:
        years, month, day = int(match["year"]) - 1970, int(match["month"]) - 1, int(match["mday"])
        if month not in range(12):
            return None
    days = years * 366 + _DAYS_BEFORE[month] + day
    seconds = (int(match["hour"]) * 60 + int(match["minute"])) * 60 + int(match["second"] or 0)
    return days * 86_400 + seconds + float(f"0.{match['part'] or 0}")


_LONGEST = 160
"""Characters of a prefix that is learned."""
_MOST_SHAPES = 16
_MOST_NEW = 8
"""Expressions that are made of one block."""
_MOST_SAMPLES = 64
"""Lines of a block that are searched for anchors."""
_ANCHOR_HINTS = (
    *("Mem-", "[]:", "race:", "Hardware name", "Linux version", " free:", "Node ", "kB", "omm: ", "anon:", "swap"),
    *("pages", "oom-kill", "ut of memory", "pid ", "Tasks state"),
)
"""Every anchor has one of these."""
_NO_PREFIX = re.compile(r"\d[kK]B\b")
_PART = re.compile(r"(?P<space>\s+)|(?P<number>(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{6,}|\d+)|(?P<mark>[:-])")


class LearnedPrefixes:
    """The prefixes of one log that no list has."""

    def __init__(self) -> None:
        """Begin a log."""
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._shapes: dict[str, re.Pattern[str]] = {}

    def learn(self, pieces: Sequence[tuple[Piece, Prefix]]) -> None:
        """Learn from lines that belong together, each with its known prefix."""
        together = "\n".join([piece.text[known.end :] for piece, known in pieces if not known.starts])
        if not any(map(together.__contains__, _ANCHOR_HINTS)):
            return
        unknown = list(islice(_unknown(pieces), _MOST_SAMPLES))
        new: dict[str, re.Pattern[str]] = {}
        stamped = any(known.stamped for _, known in pieces)
        for sample in filter(None, map(_sample, unknown)):
            if stamped and sample.strip().isdecimal():
                # The end of a wrapped line.
                continue
            shape = _shape(sample)
            if shape not in self._shapes and (shape in new or len(new) < _MOST_NEW):
                self._seen[shape] = self._seen.get(shape, 0) + 1
                new[shape] = re.compile(shape)
        for shape, pattern in new.items():
            if self._seen[shape] >= 2 or sum(pattern.match(rest) is not None for rest in unknown) >= 2:
                if len(self._shapes) == _MOST_SHAPES:
                    del self._shapes[next(iter(self._shapes))]
                self._shapes[shape] = pattern
        while len(self._seen) > _MOST_SAMPLES:
            self._seen.popitem(last=False)

    def prefix(self, text: str, known: Prefix) -> Prefix:
        """Return the prefix of a line whose known prefix is given."""
        if known.starts or not self._shapes:
            return known
        rest = text[known.end :]
        at = len(rest) - len(rest.lstrip())
        ends = [match.end() for pattern in self._shapes.values() if (match := pattern.match(rest, at)) is not None]
        if not ends:
            return known
        end = max(ends)
        return known._replace(
            end=known.end + end,
            stamped=True,
            closing=next((mark for mark in "\"`'" if rest[:end].count(mark) % 2), known.closing),
            starts=starts_behind(rest, end),
        )


def _unknown(pieces: Sequence[tuple[Piece, Prefix]]) -> Iterator[str]:
    """Yield the lines that do not begin as a message behind their known prefix."""
    # Where messages have stamps, a line without one only continues another.
    # A line's second piece, such as what stands behind "vm1: " in "vm1: [   12.345678] ", does not count.
    first = {piece.line: known.stamped for piece, known in reversed(pieces)}
    stamped = sum(first.values()) * 10 > len(first)
    for piece, known in pieces:
        if known.stamped == stamped and not known.starts and (rest := piece.text[known.end :].lstrip()):
            yield rest


@lru_cache(maxsize=1024)
def _sample(rest: str) -> str:
    """Return what stands before the anchor of a line, or an empty text."""
    anchor = ANCHOR.search(rest, 1, _LONGEST + 80)
    if anchor is None or anchor.start() > _LONGEST:
        return ""
    sample = rest[: anchor.start()]
    return sample if _NO_PREFIX.search(sample) is None else ""


def _shape(sample: str) -> str:
    """Return the expression of the prefixes that are like this one: numbers, widths and separators vary."""
    parts: list[str] = []
    at = 0
    for match in _PART.finditer(sample):
        parts.append(re.escape(sample[at : match.start()]))
        parts.append({"space": r"\s+", "number": _number_like(match[0]), "mark": "[:-]"}[match.lastgroup or ""])
        at = match.end()
    return "".join(parts) + re.escape(sample[at:])


def _number_like(number: str) -> str:
    """Return the expression of the numbers that are like one: a long one is no number of a message's rest."""
    digits = r"\d" if number.isdecimal() else "[0-9a-fA-F]"
    return f"{digits}{{6,}}" if len(number) >= _LONG else f"{digits}+"


_LONG = 6
"""Digits of a number that may be hexadecimal."""

_MARKS = (": ", "] ", "> ", "| ", ") ", " - ", '="')
"""Ends of unknown prefixes, which hardly any task's name has."""
_COMM = 15
"""The most characters of a task's name: TASK_COMM_LEN in include/linux/sched.h, less one."""


def without_host(text: str, comms: Iterable[str], *, host_follows: bool) -> str:
    """Return a report's first line without what is left of a prefix before the task's name.

    Args:
        text: any message.
        comms: names of tasks in the lines below.
        host_follows: as in the line's prefix.
    """
    match = HEADER.match(text)
    if match is None or " " not in match["comm"]:
        return text
    before = match["comm"]
    for comm in comms:
        if before.endswith(comm) and not before[: -len(comm)][-1:].isalnum():
            return text[len(before) - len(comm) :]
    at = max(before.rfind(mark) + len(mark) if mark in before else 0 for mark in _MARKS)
    if at == 0 and host_follows:
        at = before.find(" ") + 1
    while len(before) - at > _COMM and (space := before.find(" ", at)) >= 0:
        at = space + 1
    return text[at:].lstrip()
