# SPDX-License-Identifier: MIT
"""The line that begins a report, of each kind.

The forms are those of `warn_alloc` and `alloc_contig_range` (mm/page_alloc.c), `dump_header` (mm/oom_kill.c),
mm/vmalloc.c, mm/slub.c, mm/slab.c, mm/sparse-vmemmap.c, mm/cma.c and mm/hugetlb.c, from 2.6 to 7.3.
"""

import re
from collections.abc import Callable
from itertools import pairwise

from kalloctrace.diagnose.reports.model import Cache, LoggedFailure

_NODES = r"\(null\)|[\d,-]*\d"
_WHO = r"(?P<comm>.*?):? ?"
_FAILURE = re.compile(rf"{_WHO}page allocation failure[.:] ?order:(?P<order>\d{{1,3}})(?P<rest>.*)")
# What follows the order where another CPU's line ran into this one: nothing, a word of a register or stack dump, or a
# message without a space before it.
_NO_MASK = re.compile(r",?\s*(?:[0-9a-f]{8,16}\s*)?$|[A-Za-z_<]")
_RUN_ON = re.compile(r"(?:[^\s,:()]{1,15}: ?)?page allocation failure[.:] ?order:\d")
_STALL = re.compile(
    r"(?P<comm>.*?): page allocation stalls? for (?P<time>\d+ ?m?secs?|\d+ms)[,:] order: ?(?P<order>\d{1,3}), "
    r"?mode:(?P<rest>.*)"
)
_OOM = re.compile(r"(?:(?P<comm>.*?) ?invoked |^)oom-killer:(?P<rest> ?gfp_mask=.*|\s*$)")
_OOM_ORDER = re.compile(r"(?:\b|(?<=0x)[0-9a-f]{1,16})order=(?P<order>-?\d{1,3})")
_VMEMMAP = re.compile(rf"{_WHO}vmemmap alloc failure: order:(?P<order>\d{{1,3}})(?P<rest>.*)")
_VMALLOC = re.compile(
    rf"{_WHO}vmalloc(?: error)?:? (?:size (?P<size>\d{{1,20}})(?:, align 0x[0-9a-f]+)?,? |(?=allocation failure))"
    r"(?P<why>.*?)(?:,? ?mode:(?P<rest>.*))?$"
)
_VMALLOC_ASKED = re.compile(r"(?:of |: )(?P<size>\d{1,20}) bytes")
_VMALLOC_ORDER = re.compile(r"page order (?P<order>\d{1,3})\b")
_VMAP = re.compile(
    r"(?:.*?\b)?(?:(?:vmap allocation|vmalloc_node_range) for size (?P<size>\d{1,20}) (?P<why>failed.*)"
    r"|allocation failed: (?P<space>out of vmalloc space.*))"
)
_SLUB = re.compile(
    r".*?\bSL[AU]B: Unable to allocate memory on "
    r"(?:CPU (?P<cpu>\d{1,5}) \(of node -?\d+\) on )?node (?P<node>-?\d{1,5})"
)
_CMA = re.compile(
    r".*?\b\w*cma_alloc\w*: (?:(?P<area>.{1,64}?): )?alloc failed, req-size: (?P<pages>\d{1,15}) pages, "
    r"ret: -?(?P<errno>\d{1,5})"
)
_CONTIG = re.compile(r".*?\balloc_contig\w*: \[(?P<start>[0-9a-f]{1,16}), (?P<end>[0-9a-f]{1,16})\) PFNs busy")
_WARNING = re.compile(
    r".*?\bWARNING: (?:CPU: (?P<cpu>\d{1,5}) PID: (?P<pid>\d{1,10}) )?(?:at )?"
    r"(?P<where>\S*\bmm/page_alloc\.c:\d+(?: at)? \w[\w.]*)"
    r"(?:.*, CPU#(?P<newer_cpu>\d{1,5}): (?P<comm>.{1,64})/(?P<newer_pid>\d{1,10}))?"
)
_HUGETLB = re.compile(
    r".*?(?P<why>HugeTLB: allocating (?P<pages>\d{1,10}) of page size (?P<size>\d{1,6})(?:\.\d+)? ?(?P<unit>[KMGT])i?B "
    r"failed(?: node\d+)?\.\s+Only allocated \d+ hugepages)"
)
_SHOW_MEMORY = re.compile(r".*?\b[sS]ys[rR]q ?: Show Memory")
_NODEMASK = re.compile(rf"nodemask=(?P<nodes>{_NODES})(?=,|\s|$)")
_CPUSET = re.compile(r"cpuset=(?P<cpuset>\S{0,255}?),? ?mems_allowed=(?P<nodes>[\d,-]*\d)")

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_EBUSY = 16


def begun(text: str, line: int) -> LoggedFailure | None:
    """Return the report that a message begins, or None.

    Args:
        text: the message.
        line: its line number.
    """
    for hint, read in _KINDS:
        if hint in text and (report := read(text, line)) is not None:
            return report
    return None


def may_begin(text: str) -> bool:
    """Return whether a message has the words of a first line; this is quick."""
    return any(map(text.__contains__, _SIGNS)) and any(map(text.__contains__, BEGINNINGS))


def pieces(text: str) -> list[str]:
    """Split a message where the first lines of several failures run into each other; each is a failure of its own."""
    if text.count("page allocation failure") < 2:
        return [text]
    starts = [match.start() for match in _RUN_ON.finditer(text)]
    if not starts:
        return [text]
    return [text[at:end].strip(" ,") for at, end in pairwise([0, *starts[1:], len(text)])]


def read_nodes(report: LoggedFailure, text: str) -> bool:
    """Read the nodemask and the cpuset into a report; return whether there is a cpuset."""
    nodemask, cpuset = _NODEMASK.search(text), _CPUSET.search(text)
    if nodemask is not None:
        report.nodemask = nodemask["nodes"]
    if cpuset is not None:
        report.cpuset, report.mems_allowed = cpuset["cpuset"], cpuset["nodes"]
    return cpuset is not None


def _failure(text: str, line: int) -> LoggedFailure | None:
    match = _FAILURE.match(text)
    if match is None:
        return None
    rest = match["rest"]
    if not rest.lstrip(", ").startswith("mode:") and _NO_MASK.match(rest) is None:
        return None
    return _warned(LoggedFailure("failure", line, match["comm"].strip(), int(match["order"])), rest)


def _stall(text: str, line: int) -> LoggedFailure | None:
    match = _STALL.match(text)
    if match is None:
        return None
    report = LoggedFailure("stall", line, match["comm"].strip(), int(match["order"]), waited=match["time"])
    return _warned(report, match["rest"])


def _oom(text: str, line: int) -> LoggedFailure | None:
    match = _OOM.search(text)
    if match is None:
        return None
    order = _OOM_ORDER.search(match["rest"])
    shown = int(order["order"]) if order is not None else 0
    report = LoggedFailure("oom", line, (match["comm"] or "").strip(), shown, order_shown=order is not None)
    return _warned(report, match["rest"])


def _vmemmap(text: str, line: int) -> LoggedFailure | None:
    match = _VMEMMAP.match(text)
    if match is None:
        return None
    return _warned(LoggedFailure("vmemmap", line, match["comm"].strip(), int(match["order"])), match["rest"])


def _vmalloc(text: str, line: int) -> LoggedFailure | None:
    match = _VMALLOC.match(text)
    if match is None or not ("fail" in match["why"] or "exceeds" in match["why"]):
        return None
    why = match["why"].strip(" .,")
    asked, order = _VMALLOC_ASKED.search(why), _VMALLOC_ORDER.search(why)
    size = match["size"] or (asked["size"] if asked is not None else None)
    report = LoggedFailure(
        "vmap" if "vm_struct" in why else "vmalloc",
        line,
        match["comm"].strip(),
        int(order["order"]) if order is not None else 0,
        size=int(size) if size is not None else None,
        warning_text=why,
        order_shown=order is not None,
    )
    return _warned(report, match["rest"] or "")


def _vmap(text: str, line: int) -> LoggedFailure | None:
    match = _VMAP.match(text)
    if match is None:
        return None
    size = int(match["size"]) if match["size"] is not None else None
    why = match["why"] or match["space"]
    return LoggedFailure("vmap", line, "", 0, size=size, warning_text=why.strip(" ."), order_shown=False)


def _slub(text: str, line: int) -> LoggedFailure | None:
    match = _SLUB.match(text)
    if match is None:
        return None
    node = int(match["node"])
    cache = Cache("", None, node if node >= 0 else None, None, None)
    return LoggedFailure("slub", line, "", 0, cpu=_number(match["cpu"]), cache=cache, order_shown=False)


def _cma(text: str, line: int) -> LoggedFailure | None:
    match = _CMA.match(text)
    if match is None:
        return None
    pages, errno = int(match["pages"]), int(match["errno"])
    return LoggedFailure("cma", line, "", 0, pages=pages, errno=errno, cma_area=match["area"], order_shown=False)


def _contig(text: str, line: int) -> LoggedFailure | None:
    match = _CONTIG.match(text)
    if match is None:
        return None
    pages = int(match["end"], 16) - int(match["start"], 16)
    return LoggedFailure("contig", line, "", 0, pages=max(pages, 0), errno=_EBUSY, order_shown=False)


def _warning(text: str, line: int) -> LoggedFailure | None:
    match = _WARNING.match(text)
    if match is None:
        return None
    return LoggedFailure(
        "warning",
        line,
        (match["comm"] or "").strip(),
        0,
        cpu=_number(match["cpu"] or match["newer_cpu"]),
        pid=_number(match["pid"] or match["newer_pid"]),
        warning_text=match["where"],
        order_shown=False,
    )


def _hugetlb(text: str, line: int) -> LoggedFailure | None:
    match = _HUGETLB.match(text)
    if match is None:
        return None
    size = int(match["size"]) * _UNITS[match["unit"]]
    pages = int(match["pages"])
    return LoggedFailure("hugetlb", line, "", 0, size=size, pages=pages, warning_text=match["why"], order_shown=False)


def _memory(text: str, line: int) -> LoggedFailure | None:
    return LoggedFailure("memory", line, "", 0, order_shown=False) if _SHOW_MEMORY.match(text) is not None else None


def _warned(report: LoggedFailure, rest: str) -> LoggedFailure:
    read_nodes(report, rest)
    return report


def _number(digits: str | None) -> int | None:
    return int(digits) if digits is not None else None


_KINDS: tuple[tuple[str, Callable[[str, int], LoggedFailure | None]], ...] = (
    ("page allocation failure", _failure),
    ("page allocation stall", _stall),
    ("oom-killer:", _oom),
    ("vmemmap alloc failure", _vmemmap),
    (" for size ", _vmap),
    ("out of vmalloc space", _vmap),
    ("vmalloc", _vmalloc),
    ("B: Unable to allocate", _slub),
    ("alloc failed, req-size", _cma),
    ("PFNs busy", _contig),
    ("mm/page_alloc.c:", _warning),
    ("HugeTLB: allocating", _hugetlb),
    (": Show Memory", _memory),
)
"""A text without the words has no report of the kind."""

_SIGNS = ("alloc", "oom-killer:", " for size ", "PFNs busy", ": Show Memory")
"""Each of these words has one of them."""

BEGINNINGS = tuple(hint for hint, _ in _KINDS)
"""A line with none of these words begins no report."""
