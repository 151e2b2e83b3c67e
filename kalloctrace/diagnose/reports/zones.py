# SPDX-License-Identifier: MIT
"""The state of memory: what stands after "Mem-Info:".

The lines are those of `show_mem` and `show_free_areas` (mm/page_alloc.c, lib/show_mem.c, mm/show_mem.c), 2.6 to 7.3.
"""

import itertools
import re
from functools import lru_cache
from typing import Literal, NamedTuple

from kalloctrace.diagnose.reports.model import ZONE_NAMES, Blocks, HugePages, LoggedFailure, LoggedZone

# Bounded, so that no number is too long to convert.
_NUMBER, _NODE = r"\d{1,15}", r"\d{1,5}"
_ZONE = "|".join(ZONE_NAMES)
_ZONE_LINE = re.compile(rf"(?:Node (?P<node>{_NODE}) )?(?P<zone>{_ZONE}) free:(?P<free>{_NUMBER})kB(?P<rest>.*)")
# Another CPU's message may stand within a line, so that only whole words count.
_FIELD = re.compile(r"(?<!\S)([a-z_]{1,32}):(\d{1,15})[kK]B(?!\w)")
_LOWMEM_RESERVE = re.compile(r"lowmem_reserve\[\]:(?P<pages>(?: \d{1,15})+)$")
_BUDDY = re.compile(
    rf"(?:Node (?P<node>{_NODE}) )?(?P<zone>{_ZONE}): "
    rf"(?P<blocks>(?:{_NUMBER}[*_]{_NUMBER}kB(?: \([A-Z]*\))? *)+)(?:= (?P<total>{_NUMBER})kB)?$"
)
_BLOCKS = re.compile(r"(\d{1,15})[*_](\d{1,15})kB(?: (\([A-Z]*\)))?")
_NODE_LINE = re.compile(rf"Node (?P<node>{_NODE}) (?P<rest>active_anon:.*)")
_NODE_FIELD = re.compile(r"(?<!\S)([a-z_]{1,32}(?:\((?:anon|file)\))?): ?(\d{1,15})kB(?!\w)")
_UNRECLAIMABLE = re.compile(r"all_unreclaimable\? (?P<answer>yes|no)")
_HUGE_PAGES = re.compile(
    rf"Node (?P<node>{_NODE}) hugepages_total=(?P<total>{_NUMBER}) hugepages_free=(?P<free>{_NUMBER}) "
    rf"hugepages_surp=(?P<surplus>{_NUMBER}) hugepages_size=(?P<size>{_NUMBER})kB"
)
_BEGIN = re.compile(r"Mem-[Ii]nfo:\s*(?P<rest>.*)")
_TOTAL = re.compile(r"(?<!\S)([A-Za-z_-]{2,32}):(\d{1,15})(?=\s|#012|$)")
_FIRST_TOTAL = re.compile(
    r"(?:active_anon|active_file|inactive_file|unevictable|dirty|slab_reclaimable|slab|mapped|shmem|sec_pagetables"
    r"|kernel_misc_reclaimable|free|Active|Active_anon):\d"
)
_SWAP = re.compile(rf"(?P<which>Free|Total) swap\s*[:=]\s*(?P<kb>{_NUMBER})kB")
_TAIL = re.compile(
    rf"(?P<pages>{_NUMBER}) (?P<what>total pagecache pages|pages RAM|pages of RAM|pages reserved|reserved pages"
    r"|pages in swap cache|pages HighMem/MovableOnly|pages of HIGHMEM|pages HIGHMEM|pages cma reserved"
    r"|pages hwpoisoned)$"
)
_TOTALS_OF_TAIL = {
    "total pagecache pages": "pagecache",
    "pages in swap cache": "swap_cache",
    "pages cma reserved": "cma_reserved",
    "pages hwpoisoned": "hwpoisoned",
}

_MIGRATETYPES = {
    "U": "MIGRATE_UNMOVABLE",
    "M": "MIGRATE_MOVABLE",
    "E": "MIGRATE_RECLAIMABLE",
    "H": "MIGRATE_HIGHATOMIC",
    "R": "MIGRATE_RESERVE",
    "C": "MIGRATE_CMA",
    "I": "MIGRATE_ISOLATE",
}

Kind = Literal["begin", "totals", "node", "zone", "reserve", "blocks", "huge", "tail"]

_RANKS: dict[Kind, int] = {
    "begin": 0,
    "totals": 1,
    "node": 2,
    "zone": 3,
    "reserve": 3,
    "blocks": 4,
    "huge": 5,
    "tail": 6,
}


class StateLine(NamedTuple):
    """One line of the state.

    Attributes:
        kind: of the line; "tail" for those after the lists of free blocks.
        key: what the line tells about, so that a second such line is another state's; "" if it may stand twice.
        match: of the expression of that kind.
        text: the line.
        place: where in a state the kernel prints it: the rank of its kind, the node, and the index of the zone.
        alone: nothing else stands in the line.
    """

    kind: Kind
    key: str
    match: re.Match[str]
    text: str
    place: tuple[int, int, int]
    alone: bool = False


def state_line(text: str) -> StateLine | None:
    """Recognize a line of the state; None if it is something else."""
    if "kB" in text or "KB" in text:
        return _line_with_sizes(text)
    if (match := _LOWMEM_RESERVE.match(text)) is not None:
        return _line("reserve", "", match, text, alone=True)
    if (match := _BEGIN.match(text)) is not None:
        return _line("begin", "", match, text)
    if (match := _FIRST_TOTAL.match(text)) is not None:
        alone = text.count(" ") == len(_totals(text)) - 1
        return _line("totals", match[0].partition(":")[0], match, text, alone=alone)
    if " pages" in text and (match := _TAIL.match(text)) is not None:
        return _line("tail", match["what"], match, text, alone=True)
    return None


def _line(kind: Kind, key: str, match: re.Match[str], text: str, *, alone: bool = False) -> StateLine:
    return StateLine(kind, key, match, text, (_RANKS[kind], 0, 0), alone)


_INDEX = {name: index for index, name in enumerate(ZONE_NAMES)}


def _line_of_zone(kind: Kind, match: re.Match[str], text: str, *, alone: bool) -> StateLine:
    node, zone = match["node"] or "0", match["zone"]
    return StateLine(kind, f"{kind} {node} {zone}", match, text, (_RANKS[kind], int(node), _INDEX[zone]), alone)


def _line_with_sizes(text: str) -> StateLine | None:
    if (match := _ZONE_LINE.match(text)) is not None:
        rest = match["rest"]
        return _line_of_zone("zone", match, text, alone=rest.count(" ") == len(_fields(rest)))
    if (match := _BUDDY.match(text)) is not None:
        return _line_of_zone("blocks", match, text, alone=True)
    if (match := _NODE_LINE.match(text)) is not None:
        return _line("node", f"node {match['node']}", match, text)
    if (match := _HUGE_PAGES.match(text)) is not None:
        return _line("huge", f"huge {match['node']} {match['size']}", match, text)
    if (match := _SWAP.match(text)) is not None:
        return _line("tail", match["which"], match, text)
    return None


def read_totals(report: LoggedFailure, text: str) -> None:
    """Read "active_anon:4558 inactive_anon:469552 …"; 2.6 writes "Active:84372 inactive:12323"."""
    for name, pages in _totals(text):
        report.totals.setdefault(name, pages)


def read_node(report: LoggedFailure, line: StateLine) -> None:
    """Read the line of a node."""
    fields = {name.replace("(", "_").rstrip(")"): int(value) for name, value in _NODE_FIELD.findall(line.match["rest"])}
    answer = _UNRECLAIMABLE.search(line.match["rest"])
    if answer is not None:
        fields["all_unreclaimable"] = int(answer["answer"] == "yes")
    report.nodes[int(line.match["node"])] = fields


def read_zone(report: LoggedFailure, line: StateLine) -> LoggedZone | None:
    """Read the line of a zone; return the zone, or None if the report has other numbers for it already."""
    match = line.match
    zone = report.zone(int(match["node"] or 0), match["zone"])
    fields = {"free": int(match["free"]), **_fields(match["rest"])}
    if zone.kilobytes and zone.kilobytes != fields:
        report.contradictions.append(f"{_name(zone)} is shown twice, with other numbers; the first are used")
        return None
    zone.kilobytes = fields
    answer = _UNRECLAIMABLE.search(match["rest"])
    if answer is not None and fields.get("present") != 0:
        # Before 4.8 the zones say it, not the node; only a node with no other zone left is out of memory.
        node = report.nodes.setdefault(zone.node, {})
        node["all_unreclaimable"] = node.get("all_unreclaimable", 1) & int(answer["answer"] == "yes")
    return zone


def read_reserve(zone: LoggedZone | None, line: StateLine) -> None:
    """Set lowmem_reserve of the zone whose line was read last."""
    if zone is not None and zone.lowmem_reserve is None:
        zone.lowmem_reserve = _pages(line.match["pages"])


def read_blocks(report: LoggedFailure, line: StateLine) -> None:
    """Read the list of a zone's free blocks."""
    match = line.match
    zone = report.zone(int(match["node"] or 0), match["zone"])
    blocks = _listed(match["blocks"])
    smallest = max(blocks[0].size, 1)
    if [block.size for block in blocks] != [smallest << order for order in range(len(blocks))]:
        report.contradictions.append(f"the free blocks of {_name(zone)} are not listed by order")
        return
    total = sum([block.number * block.size for block in blocks])
    if match["total"] is None:
        report.contradictions.append(f"the list of free blocks of {_name(zone)} is cut off")
    elif int(match["total"]) != total:
        report.contradictions.append(
            f"the free blocks of {_name(zone)} add up to {total:,} kB, but {int(match['total']):,} kB is printed"
        )
    elif zone.blocks is None:
        zone.blocks = blocks


def read_huge_pages(report: LoggedFailure, line: StateLine) -> None:
    """Read the huge pages of one size on a node."""
    match = line.match
    numbers = (int(match[name]) for name in ("node", "total", "free", "surplus", "size"))
    report.hugepages.append(HugePages(*numbers))


def says_otherwise(report: LoggedFailure, line: StateLine) -> bool:
    """Return whether a report has another number for what a line of its end says; old kernels print some twice."""
    if line.key in ("pages RAM", "pages of RAM"):
        return report.total_ram_pages not in (None, int(line.match["pages"]))
    if line.key in ("pages reserved", "reserved pages"):
        return report.reserved_pages not in (None, int(line.match["pages"]))
    if line.key not in ("Free", "Total") or report.swap is None:
        return False
    return report.swap[line.key == "Total"] not in (None, int(line.match["kb"]))


def read_tail(report: LoggedFailure, line: StateLine) -> None:
    """Read what stands after the lists of free blocks: swap, and numbers of pages."""
    match = line.match
    if "which" in match.re.groupindex:
        if match["which"] == "Free" and report.swap is None:
            report.swap = (int(match["kb"]), None)
        elif match["which"] == "Total" and report.swap is not None:
            report.swap = (report.swap[0], int(match["kb"]))
        return
    what, pages = match["what"], int(match["pages"])
    if what in ("pages RAM", "pages of RAM"):
        report.total_ram_pages = pages
    elif what in ("pages reserved", "reserved pages"):
        report.reserved_pages = pages
    elif what in _TOTALS_OF_TAIL:
        report.totals.setdefault(_TOTALS_OF_TAIL[what], pages)


@lru_cache(maxsize=512)
def _totals(text: str) -> list[tuple[str, int]]:
    return [(name.lower(), int(pages)) for name, pages in _TOTAL.findall(text)]


@lru_cache(maxsize=512)
def _fields(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in _FIELD.findall(text)}


@lru_cache(maxsize=512)
def _pages(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


@lru_cache(maxsize=512)
def _listed(text: str) -> tuple[Blocks, ...]:
    return tuple(itertools.starmap(_block, _BLOCKS.findall(text)))


@lru_cache(maxsize=4096)
def _block(number: str, size: str, types: str) -> Blocks:
    return Blocks(int(number), int(size), _types(types) if types else None)


@lru_cache(maxsize=512)
def _types(letters: str) -> frozenset[str]:
    return frozenset(_MIGRATETYPES.get(letter, letter) for letter in letters.strip("()"))


def _name(zone: LoggedZone) -> str:
    return f"node {zone.node} {zone.zone}"
