# SPDX-License-Identifier: MIT
"""Single lines of the OOM killer: tasks, caches, allocations, limits and whom it killed."""

from typing import Any

import pytest

from kalloctrace.diagnose.reports.model import Cache, Killed, LoggedFailure, Site, Slab, Task
from kalloctrace.diagnose.reports.tasks import (
    Lists,
    begins_table,
    is_about_kill,
    names_victim,
    read_cache,
    read_kill,
    read_list,
)

HEAD = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"


def listed(*texts: str, page_kb: int = 4) -> tuple[LoggedFailure, Lists, list[bool]]:
    """Read lines; return the report, its lists, and which lines are of them."""
    report, lists = LoggedFailure("oom", 1, "", 0), Lists()
    return report, lists, [read_list(report, lists, text, page_kb) for text in texts]


def only_task(*texts: str, page_kb: int = 4) -> Task:
    """Return the only task."""
    [task] = listed(*texts, page_kb=page_kb)[0].tasks
    return task


def test_the_head_of_a_table() -> None:
    """It names the columns behind the first four."""
    assert begins_table(HEAD)
    assert not begins_table("[ 7] total_vm rss name")
    _, lists, known = listed(HEAD)
    assert (known, lists.columns) == ([True], ("rss", "pgtables_bytes", "swapents", "oom_score_adj"))


def test_tasks_by_their_columns() -> None:
    """The name is all that is left."""
    task = Task(332, 331, 7, 507, 106496, 4, -9, "my task 7", 8529)
    assert only_task(HEAD, "[    332]     7   331     8529      507   106496        4            -9 my task 7") == task
    tables = HEAD.replace("pgtables_bytes", "nr_ptes nr_pmds nr_puds")
    line = "[    332]     7   331     8529      507   5 6 7       4            -9 x"
    assert only_task(tables, line).pgtables_bytes == 18 * 4096
    assert only_task(tables, line, page_kb=64).pgtables_bytes == 18 * 65536
    ptes = HEAD.replace("pgtables_bytes", "nr_ptes")
    assert only_task(ptes, "[ 332] 7 331 8529 507 5 4 -9 x").pgtables_bytes == 5 * 4096
    old = "[ pid ]   uid  tgid total_vm      rss cpu oom_adj name"
    found = only_task(old, "[ 1046]  1066  1047   228537    95491   3     -17 apache 2")
    assert found == Task(1046, 1047, 1066, 95491, None, None, -17, "apache 2", 228537)


@pytest.mark.parametrize(
    "text",
    [
        "[ 332] 7 331 8529 507 5 4 -9",
        "[ 332] 7 331 8529 x 5 4 -9 x",
        "[ 332] 7 331 8529",
        "( 332) 7 331 8529 507 5 4 -9 x",
    ],
)
def test_lines_that_are_no_tasks(text: str) -> None:
    """A cut line, and one with words for numbers."""
    report, _, known = listed(HEAD, text)
    assert (report.tasks, known) == ([], [True, False])


def test_tasks_without_a_head() -> None:
    """Only what stands at the same place in every table."""
    assert only_task("[ 7] 1 6 5605 987 624 8 200 st x") == Task(7, 6, 1, 987, None, None, 200, "st x", 5605)
    assert only_task("[ 7] 1 6 5605 987 1 -17 st") == Task(7, 6, 1, 987, None, None, None, "st", 5605)
    for text in ("[ 7] 1 6 5605 987 1 st", "[ 7] 1 6 5605 1 2 3 4"):
        assert listed(text)[0].tasks == []


def test_slab_caches() -> None:
    """Behind their head, until the tasks begin."""
    report, _, known = listed(
        *("Unreclaimable slab info:", "Name                      Used          Total", "a b   563KB        576KB"),
        *(HEAD, "c   1KB  2KB"),
    )
    assert report.slabs == [Slab("a b", 563, 576)]
    assert known == [True, True, True, True, False]
    assert listed("a   563KB        576KB", "Name Used Total")[2] == [False, False]


def test_the_allocation_profile() -> None:
    """Bytes by callers, in each unit; until the caches begin."""
    units = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50, "EiB": 1 << 60}
    for unit, size in units.items():
        report, _, known = listed("Memory allocations:", f"1.5 {unit}     14 lib/x.c:3 [mod] func:f")
        assert report.profile == [Site(int(1.5 * size), 14, "lib/x.c:3 [mod] func:f")]
        assert known == [True, True]
    report, lists, known = listed("Memory allocations:", "Unreclaimable slab info:", "1.5 KiB  14 lib/x.c:3 func:f")
    assert (report.profile, lists.slabs, lists.profile, known[-1]) == ([], True, False, False)
    report, lists, _ = listed("Unreclaimable slab info:", "Memory allocations:", "a   563KB        576KB")
    assert (report.slabs, lists.slabs, lists.profile) == ([], False, True)
    assert listed("1.5 KiB  14 lib/x.c:3 func:f")[2] == [False]


KILL = "Out of memory: Killed process 4 (cc1) total-vm:30kB, anon-rss:9kB, file-rss:4kB, shmem-rss:2kB, UID:1"
SUMMARY = (
    "oom-kill:constraint=CONSTRAINT_{},nodemask=3,cpuset=/c,mems_allowed=0-3,global_oom,task_memcg=/,"
    "task=x y,pid=9,uid=0"
)


def killing(*texts: str, **more: Any) -> tuple[LoggedFailure, Lists]:  # noqa: ANN401
    """Return a report with these lines, the first of which is line 5."""
    report, lists = LoggedFailure("oom", 1, "", 0, **more), Lists()
    for number, text in enumerate(texts, 5):
        read_kill(report, lists, text, number)
    return report, lists


def test_a_kill() -> None:
    """The last line of a report, with sizes; later ones are of others."""
    report, lists = killing(KILL, KILL.replace("process 4", "process 5"))
    assert (report.killed, lists.final, lists.group) == (Killed(5, 4, "cc1", 30, 9, 4, 2), True, False)
    assert (report.constraint, report.memcg) == (None, False)
    report, lists = killing("Killed process 8 (x) vsz:30kB, anon-rss:9kB")
    assert (report.killed, lists.final) == (Killed(5, 8, "x", 30, 9, None, None), True)
    report, lists = killing("Out of memory: Kill process 100 (parent) score 998 or sacrifice child")
    assert (report.killed, lists.final) == (Killed(5, 100, "parent", None, None, None, None), False)
    report, _ = killing("Out of memory: Kill process 100 (parent) score 998", KILL)
    assert report.killed == Killed(6, 4, "cc1", 30, 9, 4, 2)
    report, _ = killing("Out of memory: Kill process 100 score 998")
    assert report.killed == Killed(5, 100, "", None, None, None, None)


def test_the_victim_of_the_summary() -> None:
    """It stands before the kill; a kill that is read already holds."""
    report, lists = killing(SUMMARY.format("NONE"))
    assert (report.killed, lists.final) == (Killed(5, 9, "x y", None, None, None, None), False)
    report, _ = killing(SUMMARY.format("NONE"), "Out of memory: Kill process 100 (parent) score 998")
    assert report.killed == Killed(5, 9, "x y", None, None, None, None)
    report, _ = killing(KILL, SUMMARY.format("NONE"))
    assert report.killed == Killed(5, 4, "cc1", 30, 9, 4, 2)


@pytest.mark.parametrize(
    ("name", "constraint"),
    [("NONE", "none"), ("CPUSET", "cpuset"), ("MEMORY_POLICY", "mempolicy"), ("MEMCG", "memcg"), ("NEW", None)],
)
def test_constraints(name: str, constraint: str | None) -> None:
    """Of the summary; one that no kernel has changes nothing."""
    report, _ = killing(SUMMARY.format(name))
    assert (report.constraint, report.memcg) == (constraint, constraint == "memcg")
    assert (report.nodemask, report.cpuset, report.mems_allowed) == ("3", "/c", "0-3")
    assert killing(SUMMARY.format("NEW"), constraint="cpuset")[0].constraint == "cpuset"


@pytest.mark.parametrize(
    ("why", "constraint"),
    [
        ("Memory cgroup out of memory", "memcg"),
        ("No available memory (MPOL_BIND)", "mempolicy"),
        ("No available memory in cpuset", "cpuset"),
        ("Out of memory", None),
        ("Out of Memory", None),
    ],
)
def test_reasons_of_kills(why: str, constraint: str | None) -> None:
    """The line of the victim names them."""
    text = f"{why}: Killed process 8 (x)."
    report, _ = killing(text)
    assert report.constraint == constraint
    assert names_victim(text)
    assert is_about_kill(text)
    if constraint is None:
        assert killing(text, constraint="none")[0].constraint == "none"


def test_lines_about_a_kill() -> None:
    """They stand for a report whose first line is missing."""
    assert is_about_kill(SUMMARY.format("NONE"))
    assert is_about_kill("Killed process 8 (x) total-vm:1kB")
    assert not names_victim("Killed process 8 (x) total-vm:1kB")
    assert not is_about_kill("oom_reaper: reaped process 8 (x)")
    assert not is_about_kill("a process was Killed")


@pytest.mark.parametrize(
    ("text", "path", "limit"),
    [
        ("Task in /a/b killed as a result of limit of /a", "/a", None),
        ("Memory limit reached of cgroup /a b", "/a b", None),
        ("Memory cgroup stats for /a: cache:188KB rss:1048388KB", "/a", None),
        ("Memory cgroup stats for /a:", "/a", None),
        ("memory: usage 102400kB, limit 202400kB, failcnt 33", None, (102400, 202400)),
        ("Memory cgroup out of memory: nothing", None, None),
    ],
)
def test_limits(text: str, path: str | None, limit: tuple[int, int] | None) -> None:
    """Each line alone says that a cgroup's limit was reached."""
    report, _ = killing(text)
    assert (report.memcg, report.constraint, report.memcg_path, report.memcg_limit) == (True, "memcg", path, limit)
    # The first cgroup that is named is the one whose limit it was.
    assert killing(text, memcg_path="/first")[0].memcg_path == "/first"


def test_no_limit() -> None:
    """Other lines say nothing of it."""
    report, lists = killing("memory+swap: usage 102400kB, limit 9007199254740988kB, failcnt 0")
    assert (report.memcg, report.constraint, report.memcg_limit) == (False, None, None)
    assert not lists.group


@pytest.mark.parametrize(
    ("lines", "limit", "counter", "place"),
    [
        # Each of version 1's three counters has a limit; the one that is full decides.
        (("memory: usage 500kB, limit 600kB", "memory+swap: usage 900kB, limit 900kB"), (900, 900), "memory+swap", 6),
        (("memory: usage 30kB, limit 600kB", "kmem: usage 20kB, limit 20kB"), (20, 20), "kmem", 6),
        (("memory: usage 600kB, limit 600kB", "memory+swap: usage 600kB, limit 600kB"), (600, 600), "memory", 5),
        # 12 of 600 kB are a fiftieth: charges are made in batches.
        (("memory: usage 588kB, limit 600kB", "memory+swap: usage 600kB, limit 600kB"), (588, 600), "memory", 5),
        (("memory: usage 587kB, limit 600kB", "memory+swap: usage 600kB, limit 600kB"), (600, 600), "memory+swap", 6),
        (("memory: usage 587kB, limit 600kB", "memory+swap: usage 587kB, limit 600kB"), (587, 600), "memory", 5),
    ],
)
def test_which_limit(lines: tuple[str, str], limit: tuple[int, int], counter: str, place: int) -> None:
    """`mem_cgroup_print_oom_meminfo` prints all counters, and not which of them refused the charge."""
    report, _ = killing(*(f"{text}, failcnt 3" for text in lines))
    assert (report.memcg_limit, report.memcg_counter, report.places["memcg_limit"]) == (limit, counter, place)
    assert report.memcg_v1


def test_version_2_has_other_counters() -> None:
    """Its swap has a limit of its own, which refuses no charge."""
    report, _ = killing("memory: usage 600kB, limit 600kB, failcnt 3", "swap: usage 0kB, limit 0kB, failcnt 0")
    assert (report.memcg_limit, report.memcg_counter, report.memcg_v1) == ((600, 600), "memory", False)


def test_nobody_could_be_killed() -> None:
    """The line of `out_of_memory`; a kernel that panics says it once more."""
    report, lists = killing("Out of memory and no killable processes...")
    assert (report.no_victim, report.killed, report.panic, lists.final) == (5, None, None, True)
    report, _ = killing("Kernel panic - not syncing: System is deadlocked on memory")
    assert (report.no_victim, report.panic) == (None, (5, "System is deadlocked on memory"))
    assert killing(KILL, "Out of memory and no killable processes...")[0].no_victim is None


def test_a_whole_cgroup() -> None:
    """memory.oom.group."""
    report, lists = killing("Tasks in /a are going to be killed due to memory.oom.group set", KILL)
    assert lists.group
    assert report.killed is not None


def test_caches() -> None:
    """The line behind "SLUB: Unable to allocate": the order that failed is the smallest one."""
    report = LoggedFailure("slub", 1, "", 0, cache=Cache("", None, 2, None, None), order_shown=False)
    assert read_cache(report, "  cache: kmalloc-4k, object size: 96, buffer size: 96, default order: 3, min order: 1")
    assert report.cache == Cache("kmalloc-4k", None, 2, 3, 1)
    assert (report.order, report.order_shown) == (1, True)
    slab = LoggedFailure("slub", 1, "", 0, order_shown=False)
    assert read_cache(slab, "cache: size-32(17:a(b)), object size: 32, order: 2")
    assert slab.cache == Cache("size-32(17:a(b))", "a(b)", None, 2, None)
    assert (slab.order, slab.order_shown) == (2, True)
    assert not read_cache(slab, "node 0: slabs: 22, objs: 1122, free: 0")
