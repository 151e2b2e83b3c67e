# SPDX-License-Identifier: MIT
"""What the OOM killer prints besides the state of memory: tasks, caches, allocations, limits, and whom it killed.

The lines are those of mm/oom_kill.c, mm/slab_common.c, lib/alloc_tag.c and mm/memcontrol.c, 2.6 to 7.3.
"""

import re
from dataclasses import dataclass

from kalloctrace.diagnose.reports.model import Cache, Constraint, Killed, LoggedFailure, Site, Slab, Task

_TABLE = re.compile(r"\[\s*pid\s*\]\s+uid\s+tgid\s+total_vm\s+(?P<columns>rss\b.*)\bname\s*$")
_TASK = re.compile(
    r"\[\s*(?P<pid>\d{1,10})\]\s+(?P<uid>\d{1,10})\s+(?P<tgid>\d{1,10})\s+(?P<total_vm>\d{1,15})\s+(?P<rest>\d.*)"
)
_SLAB = re.compile(r"(?P<name>\S.{0,63}?)\s+(?P<used>\d{1,15})KB\s+(?P<total>\d{1,15})KB$")
_SITE = re.compile(
    r"(?P<size>\d{1,6}(?:\.\d{1,3})?) (?P<unit>(?:[KMGTPE]i)?B)\s+(?P<calls>\d{1,20})\s+(?P<where>\S+:\d+ .*func:\S+)$"
)
_SITE_UNITS = {"B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40, "PiB": 50, "EiB": 60}
_PROFILE = "Memory allocations:"
_SLABS = "Unreclaimable slab info:"
_SLABS_EMPTY = re.compile(r"Name\s+Used\s+Total$")

_OOM_KILL = re.compile(
    r"oom-kill:constraint=(?P<constraint>\w+),nodemask=(?P<nodemask>\(null\)|[\d,-]*\d),cpuset=(?P<cpuset>[^,]*),"
    # What follows shows that the list is whole.
    r"mems_allowed=(?P<mems>[\d,-]*\d)(?= ?,[a-z])"
)
_VICTIM = re.compile(r"oom-kill:constraint=.*,task=(?P<comm>.{0,64}),pid=(?P<pid>\d{1,10}),uid=\d")
_CONSTRAINTS: dict[str, Constraint] = {
    "CONSTRAINT_NONE": "none",
    "CONSTRAINT_CPUSET": "cpuset",
    "CONSTRAINT_MEMORY_POLICY": "mempolicy",
    "CONSTRAINT_MEMCG": "memcg",
}
_REASONS: dict[str, Constraint] = {
    "No available memory (MPOL_BIND)": "mempolicy",
    "No available memory in cpuset": "cpuset",
    "Memory cgroup out of memory": "memcg",
}
_KILL = re.compile(
    r".*?(?P<why>(?:Memory cgroup out|[Oo]ut) of [Mm]emory|No available memory (?:\(MPOL_BIND\)|in cpuset))[^:]{0,40}: "
    r"Kill(?:ed)? process (?P<pid>\d{1,10})(?: \((?P<comm>.{0,64}?)\))?(?=[ ,.]|$)"
)
_KILLED = re.compile(
    r".*?\bKilled process (?P<pid>\d{1,10})(?:, UID \d+,)? "
    r"\((?P<comm>.{0,64}?)\)(?P<sizes>(?:[,.]| (?:total-vm|vsz):|$).*)"
)
# `out_of_memory` and `check_panic_on_oom`, mm/oom_kill.c of 2.6 to 7.3.
_PANIC = re.compile(
    r".*?\bKernel panic - not syncing: (?P<why>System is deadlocked on memory|[Oo]ut of memory[ :].{1,128})"
)
_NO_VICTIM = "Out of memory and no killable processes"
_SIZE = re.compile(r"\b(total-vm|vsz|anon-rss|file-rss|shmem-rss):(\d{1,15})kB")
_GROUP = "are going to be killed due to memory.oom.group set"
_MEMCG_PATH = re.compile(
    r"(?:killed as a result of limit of |Memory limit reached of cgroup |oom_memcg=|Memory cgroup stats for )"
    r"(?P<path>[^\s,:][^,]{0,4095}?)(?=,|$|: ?\w+:|:$)"
)
_MEMCG = re.compile(r"Memory cgroup out of memory|killed as a result of limit of|Memory cgroup stats for")
_MEMCG_LIMIT = re.compile(
    r"(?P<counter>memory|memory\+swap|kmem): usage (?P<usage>\d{1,15})kB, limit (?P<limit>\d{1,16})kB"
)
_REACHED = 50
"""A charge fails less than a fiftieth below the limit: it is made in batches, and pages are freed meanwhile."""
_STATS = re.compile(r"Memory cgroup stats for .{1,4096}?:(?P<rest>(?: [a-z_]{1,32}:\d{1,15}KB)*)")
_STAT_OF_LINE = re.compile(r"(?<!\S)([a-z_]{1,32}):(\d{1,15})KB")
_STAT = re.compile(r"(?P<name>[a-z_]{1,32}) (?P<bytes>\d{1,20})$")
_CACHE = re.compile(
    r"\s*cache: (?P<name>.{1,255}?), object size: \d+, "
    r"(?:buffer size: \d+, default order: (?P<default>\d{1,3}), min order: (?P<min>\d{1,3})|order: (?P<order>\d{1,3}))"
)
_CACHE_CGROUP = re.compile(r"\(\d+:(?P<cgroup>.*)\)$")

OOM_HINTS = (
    *("rocess ", "oom-kill:", ": usage ", "emory cgroup", "Memory limit reached", "oom.group", "limit of"),
    *("Kernel panic", _NO_VICTIM),
)
"""A line with none of these words says nothing of whom the OOM killer killed, and why."""

_LONGEST_TABLE = 1 << 16


@dataclass
class Lists:
    """Which list of an OOM report the next lines belong to.

    Attributes:
        columns: of the table of tasks, after total_vm; None until its head is read.
        slabs: the lines of the slab caches follow.
        profile: the lines of the allocation profile follow.
        stats: the lines of what a memory cgroup holds follow.
        final: the line of the killed process is complete.
        group: the kernel kills a whole cgroup, one line for each process.
    """

    columns: tuple[str, ...] | None = None
    slabs: bool = False
    profile: bool = False
    stats: bool = False
    final: bool = False
    group: bool = False


def begins_table(text: str) -> bool:
    """Return whether a line is the head of the table of tasks."""
    return "total_vm" in text and _TABLE.match(text) is not None


def read_list(report: LoggedFailure, lists: Lists, text: str, page_kb: int) -> bool:
    """Read a line of the tasks, the slab caches or the allocation profile; return whether it is one.

    Args:
        report: the report.
        lists: which list the line may belong to.
        text: the line.
        page_kb: the page size in kB, for kernels that print the number of page tables.
    """
    if (table := _TABLE.match(text)) is not None:
        lists.columns, lists.slabs, lists.stats = tuple(table["columns"].split()), False, False
        return True
    if text.startswith((_SLABS, _PROFILE)):
        lists.slabs, lists.profile = text.startswith(_SLABS), text.startswith(_PROFILE)
        return True
    if text[:1] == "[" and (match := _TASK.match(text)) is not None:
        task = _task(match, lists.columns, page_kb)
        if task is not None and len(report.tasks) < _LONGEST_TABLE:
            report.tasks.append(task)
        return task is not None
    return _read_entry(report, lists, text)


def _read_entry(report: LoggedFailure, lists: Lists, text: str) -> bool:
    if lists.profile and (match := _SITE.match(text)) is not None:
        size = int(float(match["size"]) * (1 << _SITE_UNITS[match["unit"]]))
        report.profile.append(Site(size, int(match["calls"]), match["where"]))
        return True
    if lists.slabs and (match := _SLAB.match(text)) is not None:
        report.slabs.append(Slab(match["name"], int(match["used"]), int(match["total"])))
        return True
    if lists.stats and (match := _STAT.match(text)) is not None:
        report.memcg_stats.setdefault(match["name"], int(match["bytes"]) >> 10)
        return True
    return lists.slabs and _SLABS_EMPTY.match(text) is not None


def _task(match: re.Match[str], columns: tuple[str, ...] | None, page_kb: int) -> Task | None:
    """Read a task by the names of its table's columns; without these, only what all tables have."""
    words = match["rest"].split(None, len(columns) if columns is not None else -1)
    if columns is None:
        numbers = next((at for at, word in enumerate(words) if not word.lstrip("-").isdigit()), len(words))
        if not 3 <= numbers < len(words):
            return None
        name = match["rest"].split(None, numbers)[-1]
        # The score is the last number in every table but that of 2.6.24 to 2.6.35, which has three here.
        fields = {"rss": words[0], **({"oom_score_adj": words[numbers - 1]} if numbers > 3 else {})}
    else:
        if len(words) <= len(columns):
            return None
        name, fields = words[-1], dict(zip(columns, words, strict=False))
    try:
        values = {column: int(word[:20]) for column, word in fields.items()}
    except ValueError:
        return None
    tables = values.get("pgtables_bytes")
    if tables is None and "nr_ptes" in values:
        tables = (values["nr_ptes"] + values.get("nr_pmds", 0) + values.get("nr_puds", 0)) * page_kb * 1024
    return Task(
        pid=int(match["pid"]),
        tgid=int(match["tgid"]),
        uid=int(match["uid"]),
        rss_pages=values["rss"],
        pgtables_bytes=tables,
        swapents_pages=values.get("swapents"),
        oom_score_adj=values.get("oom_score_adj", values.get("oom_adj")),
        name=name,
        total_vm_pages=int(match["total_vm"]),
    )


def names_victim(text: str) -> bool:
    """Return whether a line says whom the OOM killer kills, and why: such a line each kill has."""
    return _KILL.match(text) is not None


def of_cgroup(text: str) -> bool:
    """Return whether a line says that the limit of a memory cgroup was reached."""
    limit = _MEMCG_LIMIT.match(text)
    own = limit is not None and limit["counter"] == "memory"
    return own or "CONSTRAINT_MEMCG" in text or _MEMCG.search(text) is not None


def is_about_kill(text: str) -> bool:
    """Return whether a line is about a kill, so that it stands for a report whose first line is missing."""
    kills = _OOM_KILL.search(text) is not None or _KILLED.match(text) is not None or names_victim(text)
    return kills or of_cgroup(text)


def read_kill(report: LoggedFailure, lists: Lists, text: str, line: int) -> None:
    """Read whom the OOM killer killed, and the limit that it kept."""
    _read_limits(report, text, line)
    stats = _STATS.match(text)
    if stats is not None:
        # Up to 5.2 each cgroup below has a line of its own.
        lists.stats = True
        for name, kilobytes in _STAT_OF_LINE.findall(stats["rest"]):
            report.memcg_stats[name] = report.memcg_stats.get(name, 0) + int(kilobytes)
    if _GROUP in text:
        lists.group, report.kills_group = True, True
    victim = _VICTIM.search(text)
    if victim is not None and report.killed is None:
        report.killed = Killed(line, int(victim["pid"]), victim["comm"], None, None, None, None)
    why = _KILL.match(text)
    if why is not None:
        report.constraint = _REASONS.get(why["why"], report.constraint)
        if report.killed is None:
            report.killed = Killed(line, int(why["pid"]), why["comm"] or "", None, None, None, None)
    if _NO_VICTIM in text and report.killed is None:
        report.no_victim, lists.final = line, True
    panic = _PANIC.match(text)
    if panic is not None and report.killed is None:
        report.panic, lists.final = (line, panic["why"].rstrip(" .")), True
    killed = _KILLED.match(text)
    if killed is not None and not lists.final:
        lists.final = True
        sizes = {name: int(value) for name, value in _SIZE.findall(killed["sizes"])}
        report.killed = Killed(
            line,
            int(killed["pid"]),
            killed["comm"],
            sizes.get("total-vm", sizes.get("vsz")),
            sizes.get("anon-rss"),
            sizes.get("file-rss"),
            sizes.get("shmem-rss"),
        )


def _read_limits(report: LoggedFailure, text: str, line: int) -> None:
    summary = _OOM_KILL.search(text)
    if summary is not None:
        report.nodemask, report.cpuset, report.mems_allowed = summary["nodemask"], summary["cpuset"], summary["mems"]
        report.constraint = _CONSTRAINTS.get(summary["constraint"], report.constraint)
    limit = _MEMCG_LIMIT.match(text)
    if limit is not None:
        limit = limit if _read_limit(report, limit, line) else None
    path = _MEMCG_PATH.search(text)
    if path is not None and report.memcg_path is None:
        report.memcg_path = path["path"]
    if limit is not None or path is not None or report.constraint == "memcg" or _MEMCG.search(text) is not None:
        report.memcg, report.constraint = True, "memcg"


def _read_limit(report: LoggedFailure, match: re.Match[str], line: int) -> bool:
    """Read a counter of the cgroup; return whether it may be the one at its limit.

    In version 1 that of memory with swap or of kernel memory may be.
    """
    usage, limit = int(match["usage"]), int(match["limit"])
    at_limit = (limit - usage) * _REACHED <= limit
    report.memcg_v1 = report.memcg_v1 or match["counter"] != "memory"
    known = report.memcg_limit
    if match["counter"] != "memory" and not at_limit:
        return False
    if known is None or (at_limit and (known[1] - known[0]) * _REACHED > known[1]):
        report.memcg_limit, report.memcg_counter = (usage, limit), match["counter"]
        report.places["memcg_limit"] = line
    return True


def read_cache(report: LoggedFailure, text: str) -> bool:
    """Read the line of a slab cache that follows "SLUB: Unable to allocate"; return whether it is one."""
    match = _CACHE.match(text)
    if match is None:
        return False
    cgroup = _CACHE_CGROUP.search(match["name"])
    smallest = match["min"] or match["order"]
    report.cache = Cache(
        name=match["name"],
        cgroup=cgroup["cgroup"] if cgroup is not None else None,
        node=report.cache.node if report.cache is not None else None,
        default_order=int(match["default"] or match["order"]),
        min_order=int(match["min"]) if match["min"] is not None else None,
    )
    # The allocation with the smallest order is the last one, and the one that is reported.
    report.order, report.order_shown = int(smallest), True
    return True
