# SPDX-License-Identifier: MIT
"""Reads page allocation failures, stalls and OOM kills from a kernel log; it adds nothing to what the log says.

The lines are those of `warn_alloc`, `dump_header` and `show_free_areas` in mm/page_alloc.c, mm/oom_kill.c and
mm/show_mem.c of linux-source-5.10 5.10.262-1 to 7.3.4-1~bpo13+1, and those of logs of 2.6 to 5.7.
"""

import re
from collections.abc import Iterable

from kalloctrace.diagnose.reports.model import ZONE_NAMES, Blocks, Event, LoggedFailure, LoggedZone
from kalloctrace.flags.logforms import ReleaseText, release_in
from kalloctrace.flags.tables import FlagTables
from kalloctrace.flags.textsearch import Found, find_masks
from kalloctrace.logs.messages import Message, read_messages

_MIGRATETYPES = {
    "U": "MIGRATE_UNMOVABLE",
    "M": "MIGRATE_MOVABLE",
    "E": "MIGRATE_RECLAIMABLE",
    "H": "MIGRATE_HIGHATOMIC",
    "R": "MIGRATE_RESERVE",
    "C": "MIGRATE_CMA",
    "I": "MIGRATE_ISOLATE",
}

# Bounded, so that no number is too long to convert.
_NUMBER, _NODE = r"\d{1,15}", r"\d{1,5}"
_ZONE = "|".join(ZONE_NAMES)
_NODES = r"\(null\)|[\d,-]*\d"
_FAILURE = re.compile(r"(?P<comm>.*?):? ?page allocation failure[.:] ?order:(?P<order>\d{1,3}), ?mode:(?P<rest>.*)")
_STALL = re.compile(
    r"(?P<comm>.*?): page allocation stalls? for (?P<time>\d+ ?m?secs?|\d+ms)[,:] order: ?(?P<order>\d{1,3}), "
    r"?mode:(?P<rest>.*)"
)
_OOM = re.compile(r"(?P<comm>.*?) invoked oom-killer: gfp_mask=(?P<rest>.*)")
_ORDER = re.compile(r"\border=(?P<order>-?\d{1,3})")
_HEADERS: tuple[tuple[Event, re.Pattern[str]], ...] = (("failure", _FAILURE), ("stall", _STALL), ("oom", _OOM))
_NODEMASK = re.compile(rf"nodemask=(?P<nodes>{_NODES})(?=,|\s|$)")
_CPUSET = re.compile(r"cpuset=(?P<cpuset>\S{0,255}?),? ?mems_allowed=(?P<nodes>[\d,-]*\d)")
_OOM_KILL = re.compile(
    rf"oom-kill:constraint=(?P<constraint>\w+),nodemask=(?P<nodemask>{_NODES}),cpuset=(?P<cpuset>[^,]*),"
    r"mems_allowed=(?P<mems>[\d,-]*\d)(?P<rest>.*)"
)
_MEMCG = re.compile(r"oom_memcg=|Memory cgroup out of memory|^memory: usage \d+kB, limit \d+kB|CONSTRAINT_MEMCG")
_MEMCG_LIMIT = re.compile(r"memory: usage (?P<usage>\d{1,15})kB, limit (?P<limit>\d{1,15})kB")
_ZONE_LINE = re.compile(rf"(?:Node (?P<node>{_NODE}) )?(?P<zone>{_ZONE}) free:(?P<free>{_NUMBER})kB(?P<rest>.*)")
_FIELD = re.compile(r"(?<![a-z_])([a-z_]{1,32}):(\d{1,15})[kK]B")
_LOWMEM_RESERVE = re.compile(r"lowmem_reserve\[\]:(?P<pages>(?: \d{1,15})+)$")
_BUDDY = re.compile(
    rf"(?:Node (?P<node>{_NODE}) )?(?P<zone>{_ZONE}): "
    rf"(?P<blocks>(?:{_NUMBER}[*_]{_NUMBER}kB(?: \([A-Z]*\))? *)+)(?:= (?P<total>{_NUMBER})kB)?$"
)
_BLOCKS = re.compile(r"(?P<count>\d{1,15})[*_](?P<size>\d{1,15})kB(?: \((?P<types>[A-Z]*)\))?")


def find_failures(lines: Iterable[str], tables: FlagTables | None = None) -> list[LoggedFailure]:
    """Find every failure, stall and OOM kill in a text.

    Args:
        lines: the text, with or without line ends; prefixes of dmesg, journals and mail are removed.
        tables: the flags to decode masks with if the text names no kernel release; None for none.

    Returns:
        The reports, in the order of their first lines.
    """
    messages = list(read_messages(lines))
    masks: dict[int, Found] = {}
    for found in find_masks((message.text for message in messages), tables):
        masks.setdefault(found.line, found)
    reports: list[LoggedFailure] = []
    current: dict[str, LoggedFailure] = {}
    boot: ReleaseText | None = None
    for number, message in enumerate(messages, 1):
        begun = _header(message, masks.get(number))
        if begun is not None:
            begun.release = boot
            reports.append(begun)
            current[message.caller] = begun
        release = release_in(message.text)
        if release is not None and release.comm is None:
            boot = release
        report = current.get(message.caller)
        if report is not None:
            if release is not None and (release.comm is None or report.comm.endswith(release.comm)):
                report.release = release
            _read(report, message.text)
    return reports


def _header(message: Message, mask: Found | None) -> LoggedFailure | None:
    for event, pattern in _HEADERS:
        match = pattern.match(message.text)
        order = _ORDER.search(match["rest"]) if match is not None and event == "oom" else match
        if match is None or order is None:
            continue
        report = LoggedFailure(event, message.line, match["comm"].strip(), int(order["order"]), mask)
        if event == "stall":
            report.waited = match["time"]
        nodemask, cpuset = _NODEMASK.search(match["rest"]), _CPUSET.search(match["rest"])
        report.nodemask = nodemask["nodes"] if nodemask is not None else None
        if cpuset is not None:
            report.cpuset, report.mems_allowed = cpuset["cpuset"], cpuset["nodes"]
        return report
    return None


def _read(report: LoggedFailure, text: str) -> None:
    """Read one line's zone or limits into the report."""
    zone_line = _ZONE_LINE.match(text)
    if zone_line is not None:
        _read_zone(report, zone_line)
        return
    reserve = _LOWMEM_RESERVE.match(text)
    if reserve is not None:
        _read_reserve(report, tuple(int(pages) for pages in reserve["pages"].split()))
        return
    buddy = _BUDDY.match(text)
    if buddy is not None:
        _read_blocks(report, buddy)
        return
    _read_limits(report, text)


def _read_zone(report: LoggedFailure, match: re.Match[str]) -> None:
    zone = report.zone(int(match["node"] or 0), match["zone"])
    fields = {"free": int(match["free"]), **{name: int(value) for name, value in _FIELD.findall(match["rest"])}}
    if zone.kilobytes and zone.kilobytes != fields:
        report.contradictions.append(f"{_name(zone)} is shown twice, with other numbers; the first are used")
        report.latest = None
        return
    zone.kilobytes = fields
    report.latest = zone


def _read_reserve(report: LoggedFailure, pages: tuple[int, ...]) -> None:
    """Set lowmem_reserve of the zone whose line was read last."""
    if report.latest is not None and report.latest.lowmem_reserve is None:
        report.latest.lowmem_reserve = pages


def _read_blocks(report: LoggedFailure, match: re.Match[str]) -> None:
    zone = report.zone(int(match["node"] or 0), match["zone"])
    blocks = tuple(
        Blocks(int(block["count"]), int(block["size"]), _types(block["types"]))
        for block in _BLOCKS.finditer(match["blocks"])
    )
    sizes = [block.size for block in blocks]
    if any(size != max(sizes[0], 1) << order for order, size in enumerate(sizes)):
        report.contradictions.append(f"the free blocks of {_name(zone)} are not listed by order")
        return
    total = sum(block.number * block.size for block in blocks)
    if match["total"] is None:
        report.contradictions.append(f"the list of free blocks of {_name(zone)} is cut off")
    elif int(match["total"]) != total:
        report.contradictions.append(
            f"the free blocks of {_name(zone)} add up to {total:,} kB, but {int(match['total']):,} kB is printed"
        )
    elif zone.blocks is None:
        zone.blocks = blocks


def _types(letters: str | None) -> frozenset[str] | None:
    return None if letters is None else frozenset(_MIGRATETYPES.get(letter, letter) for letter in letters)


def _read_limits(report: LoggedFailure, text: str) -> None:
    killed = _OOM_KILL.search(text)
    if killed is not None and report.event == "oom":
        report.nodemask, report.cpuset, report.mems_allowed = killed["nodemask"], killed["cpuset"], killed["mems"]
    elif report.mems_allowed is None and (cpuset := _CPUSET.search(text)) is not None:
        report.cpuset, report.mems_allowed = cpuset["cpuset"], cpuset["nodes"]
    if report.event == "oom" and _MEMCG.search(text) is not None:
        report.memcg = True
        limit = _MEMCG_LIMIT.search(text)
        if limit is not None:
            report.memcg_limit = (int(limit["usage"]), int(limit["limit"]))


def _name(zone: LoggedZone) -> str:
    return f"node {zone.node} {zone.zone}"
