# SPDX-License-Identifier: MIT
"""Who holds the memory, as far as the log shows it, and how much nobody accounts for."""

import operator
from collections.abc import Iterable, Iterator

from kalloctrace.diagnose.answers.facts import amount, cgroup_shmem, machine_kb, size_kb, total
from kalloctrace.diagnose.answers.types import Holder, HolderKind
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.reports.model import Task

_TASKS, _SITES = 5, 5
"""At most as many are named."""

_MANY = 3
"""From so many processes of one name on they are told together."""

_LEAST = 100
"""A holder of less than a hundredth of the memory is not named."""

_ACCOUNTED = (
    *("active_anon", "inactive_anon", "active_file", "inactive_file", "unevictable"),
    *("slab_reclaimable", "slab_unreclaimable", "pagetables", "free"),
)
"""Counters that no page is in twice (`show_free_areas`, mm/show_mem.c); each kernel since 2.6.31 prints all of them."""

_ALSO_ACCOUNTED = ("isolated_anon", "isolated_file", "free_pcp", "bounce", "sec_pagetables", "kernel_misc_reclaimable")
"""Such counters that not every kernel prints."""


_COUNTERS: tuple[tuple[HolderKind, str, tuple[str, ...]], ...] = (
    ("anonymous", "anonymous memory of all processes, with shared memory", ("active_anon", "inactive_anon")),
    ("anonymous", "anonymous memory of all processes", ("mapped-anon",)),
    ("shmem", "shared memory and tmpfs", ("shmem",)),
    ("file", "page cache of files", ("active_file", "inactive_file")),
    ("unevictable", "locked in memory (mlock, ramfs)", ("unevictable",)),
    ("slab", "slab caches that cannot be freed", ("slab_unreclaimable",)),
    ("reclaimable_slab", "slab caches that can be freed", ("slab_reclaimable",)),
    ("slab", "slab caches", ("slab",)),
    ("page_tables", "page tables", ("pagetables",)),
)

_OF_CGROUP: tuple[tuple[HolderKind, str, tuple[str, ...]], ...] = (
    ("anonymous", "anonymous memory of the cgroup", ("anon", "rss")),
    ("slab", "slab caches of the cgroup that cannot be freed", ("slab_unreclaimable",)),
    ("reclaimable_slab", "slab caches of the cgroup that can be freed", ("slab_reclaimable",)),
    ("page_tables", "page tables of the cgroup", ("pagetables",)),
    ("kernel_stacks", "kernel stacks of the cgroup", ("kernel_stack",)),
)
"""`mem_cgroup_print_oom_meminfo` and `memory_stats`, mm/memcontrol.c; up to 5.2 "rss" and "cache"."""


def find_holders(failure: Failure) -> tuple[Holder, ...]:
    """Return who holds the memory, the largest first; what is not accounted for is the last one."""
    limit = failure.logged.memcg_limit if failure.conclusion == "memcg" else None
    size = size_kb(failure) if limit is None else limit[1]
    least = 1 if size is None else max(size // _LEAST, 1)
    found = [holder for holder in _holders(failure) if holder.kilobytes >= least]
    ordered = sorted(found, key=operator.attrgetter("kilobytes"), reverse=True)
    rest = unaccounted(failure)
    if rest is not None and rest >= least and size is not None:
        what = "not accounted for by any counter of the log (drivers, vmalloc, balloons)"
        ordered.append(Holder("unaccounted", what, rest, line=failure.logged.places.get("total_ram_pages")))
    return tuple(ordered)


def unaccounted(failure: Failure) -> int | None:
    """Return how many kB no counter accounts for; None unless the log shows all of them."""
    whole, counted = machine_kb(failure), total(failure, *_ACCOUNTED)
    if whole is None or counted is None:
        return None
    also = sum(total(failure, name) or 0 for name in _ALSO_ACCOUNTED)
    return max(whole - counted - also - _kernel_stacks(failure) - _hugetlb(failure), 0)


def _holders(failure: Failure) -> Iterator[Holder]:
    logged, places = failure.logged, failure.logged.places
    yield from _tasks(failure)
    for kind, what, names in _COUNTERS:
        held = total(failure, *names)
        if held is not None:
            largest = _largest_slabs(failure) if names == ("slab_unreclaimable",) else ""
            yield Holder(kind, what + largest, held, line=places.get("totals"))
    yield from _of_cgroup(failure)
    if stacks := _kernel_stacks(failure):
        yield Holder("kernel_stacks", "kernel stacks", stacks, line=places.get("nodes") or logged.state_line)
    if huge := _hugetlb(failure):
        free = sum(pages.free * pages.size_kb for pages in logged.hugepages)
        unused = f", {amount(free)} of them unused" if free else ""
        yield Holder("hugetlb", f"huge pages that are set aside{unused}", huge, line=places.get("hugepages"))
    for site in sorted(logged.profile, key=operator.attrgetter("bytes"), reverse=True)[:_SITES]:
        yield Holder("site", f"allocated at {site.where}", site.bytes >> 10, line=places.get("profile"))


def _of_cgroup(failure: Failure) -> Iterator[Holder]:
    stats, line = failure.logged.memcg_stats, failure.logged.places.get("memcg_stats")
    for kind, what, names in _OF_CGROUP:
        held = next((stats[name] for name in names if name in stats), 0)
        if held:
            yield Holder(kind, what, held, line=line)
    shared = cgroup_shmem(stats)
    if shared:
        yield Holder("shmem", "shared memory and tmpfs of the cgroup", shared, line=line)
    # The page cache has shared memory too.
    cached = stats.get("file", stats.get("cache", 0)) - shared
    if cached > 0:
        yield Holder("file", "page cache of the cgroup", cached, line=line)


def _tasks(failure: Failure) -> Iterator[Holder]:
    logged, killed = failure.logged, failure.logged.killed
    if failure.page_size.certainty != "unknown":
        line = logged.places.get("tasks")
        size = size_kb(failure)
        most = None if size is None else size // failure.page_kb
        programs = sorted(_by_program(logged.tasks, most), key=operator.itemgetter(1), reverse=True)
        for name, pages, pid in programs[:_TASKS]:
            yield Holder("task", name, pages * failure.page_kb, pid, line)
    if killed is not None and (not logged.tasks or failure.page_size.certainty == "unknown"):
        held = sum(size or 0 for size in (killed.anon_rss_kb, killed.file_rss_kb, killed.shmem_rss_kb))
        if held:
            yield Holder("task", killed.comm, held, killed.pid, killed.line)


def _by_program(tasks: Iterable[Task], most: int | None) -> Iterator[tuple[str, int, int | None]]:
    """Yield the name, the pages and the pid of each process; of many alike ones, such as a server's, all at once.

    Where one has half of what they all have, it is named by itself; and where they have more than there is, for then
    they share nearly all of it.

    Args:
        tasks: the table.
        most: how many pages there are; None if that is not known.
    """
    named: dict[str, list[Task]] = {}
    for task in tasks:
        named.setdefault(task.name, []).append(task)
    for name, alike in named.items():
        pages = sum(task.rss_pages for task in alike)
        one = max(task.rss_pages for task in alike) * 2 > pages
        if len(alike) < _MANY or one or (most is not None and pages > most):
            yield from ((name, task.rss_pages, task.pid) for task in alike)
        else:
            yield f"{name}, {len(alike)} processes (shared pages counted for each)", pages, None


def _largest_slabs(failure: Failure) -> str:
    slabs = sorted(failure.logged.slabs, key=operator.attrgetter("total_kb"), reverse=True)[:2]
    named = ", ".join(f"{slab.name} {amount(slab.total_kb)}" for slab in slabs)
    return f" (largest: {named})" if named else ""


def _kernel_stacks(failure: Failure) -> int:
    nodes = sum(node.get("kernel_stack", 0) for node in failure.logged.nodes.values())
    return nodes or sum(zone.kilobytes.get("kernel_stack", 0) for zone in failure.logged.zones)


def _hugetlb(failure: Failure) -> int:
    return sum(pages.total * pages.size_kb for pages in failure.logged.hugepages)
