# SPDX-License-Identifier: MIT
"""What to change: advice with values that follow from the log."""

from collections.abc import Iterator

from kalloctrace.diagnose.answers.facts import (
    allowed,
    amount,
    below_mark,
    cgroup_shmem,
    excluded,
    machine_kb,
    size_kb,
    swap_is_gone,
    total,
)
from kalloctrace.diagnose.answers.out_of_memory import has_given_up, reclaimable
from kalloctrace.diagnose.answers.tuning import earlier_kswapd, larger_min_free, smaller_reserve
from kalloctrace.diagnose.answers.types import Advice, Caller, Certainty, Harm, Holder, OutOfMemory
from kalloctrace.diagnose.findings import findings_of
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.kinds import policy_binds, refused_before_pages
from kalloctrace.diagnose.zones import Remedy
from kalloctrace.model.slowpath.attempts import PAGE_ALLOC_COSTLY_ORDER

_MANY_DIRTY = 32 << 10
"""Fewer dirty pages than 32 MB, in kB, are written within a moment."""

_LITTLE = 20
"""Less than a twentieth of the memory is little, as in the judgement whether the machine is out of memory."""
_COUNTED = ("mm/", "fs/", "arch/", "include/", "./include/")
"""Files whose pages the counters of the state have: page cache, processes, slab caches, page tables."""
_EBUSY = 16
_UNCOUNTED = "mm/vmalloc.c"


def advise(
    failure: Failure, caller: Caller | None, harm: Harm, memory: OutOfMemory, holders: tuple[Holder, ...]
) -> tuple[Advice, ...]:
    """Return what to change, the best first."""
    logged = failure.logged
    if logged.order < 0 or logged.event == "memory":
        return ()
    if failure.conclusion == "memcg" or (logged.cache is not None and logged.cache.cgroup is not None):
        return (_memcg(failure, holders),)
    harmless = harm.kind in ("fallback", "retried") and logged.event != "stall"
    if harmless and (harm.certainty == "certain" or not memory.verdict):
        text = f"nothing has to change: {harm.why}"
        return (Advice(text, None, None, harm.certainty, harm.line),)
    if logged.event in ("cma", "vmap", "hugetlb", "warning"):
        return tuple(_by_event(failure))
    if refused_before_pages(logged):
        return tuple(_refused(failure))
    return tuple(_bound(failure)) or tuple(_of_memory(failure, caller, memory, holders))


def _of_memory(
    failure: Failure, caller: Caller | None, memory: OutOfMemory, holders: tuple[Holder, ...]
) -> Iterator[Advice]:
    """Yield what to do about who holds the memory where there is none, else about the request."""
    first_page = failure.logged.event == "oom" and failure.attempt.order == 0
    maybe = memory.verdict is None and (first_page or has_given_up(failure) or _has_nothing_to_free(failure))
    if memory.verdict or maybe:
        yield from _true_oom(failure, memory, holders)
    elif caller is not None and caller.subsystem == "hugetlb" and failure.logged.order > PAGE_ALLOC_COSTLY_ORDER:
        yield _of_huge_page(caller)
    else:
        yield from _request(failure, caller)
    if failure.logged.event in ("oom", "stall"):
        yield from _dirty(failure)


def _has_nothing_to_free(failure: Failure) -> bool:
    """Return whether swap is full or there is none, and hardly anything else can be freed: kswapd has nothing to do."""
    size, (_, most) = size_kb(failure), reclaimable(failure)
    return bool(swap_is_gone(failure)) and size is not None and most is not None and most * _LITTLE < size


def _dirty(failure: Failure) -> Iterator[Advice]:
    """Yield a limit of half as many dirty pages, if most of the page cache must be written before it can be freed."""
    files, unwritten = total(failure, "active_file", "inactive_file"), total(failure, "dirty", "writeback")
    if files is None or unwritten is None or unwritten * 2 < files or unwritten < _MANY_DIRTY:
        return
    if unwritten > files:
        # Pages on their way to swap are counted too.
        return
    text = f"start to write earlier: {amount(unwritten)} of {amount(files)} file pages are dirty"
    value = unwritten // 2048 << 20
    yield Advice(text, "vm.dirty_bytes", value, "likely", failure.logged.places.get("totals"))


def _memcg(failure: Failure, holders: tuple[Holder, ...]) -> Advice:
    logged = failure.logged
    path = logged.memcg_path or (logged.cache.cgroup if logged.cache is not None else None)
    name = f"of {path}" if path is not None else "of the memory cgroup"
    certainty: Certainty = "certain" if failure.conclusion == "memcg" else "likely"
    now = f", now {amount(logged.memcg_limit[1])}" if logged.memcg_limit is not None else ""
    text = f"raise the limit {name}{now}, or let its processes use less; the machine's settings do not matter"
    largest = next((each for each in holders if each.kind == "task"), None)
    if largest is not None and logged.memcg_counter != "kmem":
        text += f"; {_holds(largest)} {amount(largest.kilobytes)}"
    shared = cgroup_shmem(logged.memcg_stats)
    if logged.memcg_counter == "kmem":
        text += "; it is that of kernel memory alone, which later kernels do not have"
    if logged.memcg_limit is not None and shared * 4 >= logged.memcg_limit[1]:
        text += f"; {amount(shared)} are shared memory and tmpfs, which killing a process does not free"
    setting = _LIMITS_V1[logged.memcg_counter] if logged.memcg_v1 else "memory.max"
    return Advice(text, setting, None, certainty, logged.places.get("memcg_limit", logged.line))


def _holds(task: Holder) -> str:
    """Return who holds, for a sentence: a process, or all of one program."""
    return f"{task.what} (pid {task.pid}) holds" if task.pid is not None else f"{task.what.rpartition(' (')[0]} hold"


_LIMITS_V1 = {
    "memory": "memory.limit_in_bytes",
    "memory+swap": "memory.memsw.limit_in_bytes",
    "kmem": "memory.kmem.limit_in_bytes",
}
"""The files of version 1 of cgroups, by the counter that the OOM killer prints: mm/memcontrol.c."""


def _refused(failure: Failure) -> Iterator[Advice]:
    """Yield what to change where vmalloc gave up before it asked for pages."""
    if failure.conclusion == "size_refused":
        text = "the caller must check the size that it asks for (it may come from a program)"
        yield Advice(text, None, None, "likely", failure.logged.line)
    elif failure.conclusion == "address_range":
        yield _more_addresses(failure)


def _more_addresses(failure: Failure) -> Advice:
    text = "on a 32-bit kernel, give vmalloc more addresses (boot parameter), or load less at once"
    return Advice(text, "vmalloc=", None, "likely", failure.logged.line)


def _by_event(failure: Failure) -> Iterator[Advice]:
    logged = failure.logged
    match logged.event:
        case "cma":
            yield _cma(failure)
        case "vmap":
            yield _more_addresses(failure)
        case "hugetlb":
            yield _at_boot(logged.line)
        case "warning" if failure.conclusion == "nofail":
            text = "with __GFP_NOFAIL the caller must be able to wait, and ask for two pages at most (or use kvmalloc)"
            yield Advice(text, None, None, "likely", logged.line)
        case "warning" if failure.conclusion == "order_too_large":
            text = "the caller must ask for less at once, use kvmalloc, or (a device) get its memory from a CMA area"
            yield Advice(text, None, None, "likely", logged.line)


def _at_boot(line: int | None) -> Advice:
    text = "set huge pages aside while the machine boots, when memory is not yet fragmented (boot parameter)"
    return Advice(text, "hugepages=", None, "certain", line)


def _of_huge_page(caller: Caller) -> Advice:
    """Return how to get huge pages: their size is not the caller's choice."""
    if caller.function.startswith(_AT_BOOT):
        text = "ask for fewer huge pages (boot parameter): the machine has no memory for more"
        return Advice(text, "hugepages=", None, "likely", caller.line)
    return _at_boot(caller.line)


_AT_BOOT = ("hugetlb_hstate_alloc_pages", "hugetlb_pages_alloc_boot")
"""Functions of mm/hugetlb.c that the boot parameter leads to."""


def _cma(failure: Failure) -> Advice:
    logged = failure.logged
    line = logged.line
    free, whole = logged.cma_pages if logged.cma_pages is not None else (0, 0)
    pieces = ", in pieces" if logged.pages is not None and free >= logged.pages else ""
    if logged.pages is not None and logged.errno == _EBUSY and (logged.cma_largest or 0) >= logged.pages:
        pieces = ", also in one range, but pages of others in it could not be moved (in use, or being written)"
    if logged.pages is None or failure.page_size.certainty == "unknown":
        alone = f": this request alone takes {logged.pages:,} pages of it" if logged.pages is not None else ""
        if whole and alone:
            alone += f", and {free:,} of its {whole:,} were free{pieces}"
        return Advice(f"make the CMA area larger (boot parameter){alone}", "cma=", None, "likely", line)
    # The size of an area is a multiple of a page block, and never needs more than 4 MB.
    needed = -(-logged.pages * failure.page_kb // 4096) * 4
    text = f"make the CMA area larger (boot parameter): this request alone takes {needed} MB of it"
    size = 2 * needed
    if logged.cma_pages is not None:
        size = -(-whole * failure.page_kb // 4096) * 4 + needed
        text += f", and {amount(free * failure.page_kb)} of its {amount(whole * failure.page_kb)} were free{pieces}"
    return Advice(text, "cma=", f"{size}M", "likely", line)


def _bound(failure: Failure) -> Iterator[Advice]:
    """Yield how to lift what binds the request to nodes, if others have free memory."""
    logged = failure.logged
    if failure.attempt.thisnode:
        return
    kept_out = [each for each in excluded(failure) if each.excluded_by in ("nodemask", "cpuset")]
    nodes = sorted({each.state.node for each in kept_out if each.state.free > each.state.watermarks[2]})
    names = ",".join(str(node) for node in nodes) or None
    line = logged.places.get("constraint", logged.line)
    where = f" node {names}" if names else " other nodes"
    if policy_binds(logged):
        text = f"let its memory policy prefer node {logged.nodemask} instead of binding to it, or allow{where} too"
        yield Advice(text, "mempolicy", "preferred", "likely", line)
    elif logged.constraint == "cpuset" or (nodes and any(each.excluded_by == "cpuset" for each in kept_out)):
        text = f"allow the cpuset{where} too: it has nodes {logged.mems_allowed}"
        yield Advice(text, "cpuset.mems", names, "likely", line)
    elif nodes:
        text = f"allow{where} too: the request's nodemask is {logged.nodemask}"
        yield Advice(text, "mempolicy", names, "likely", line)


def _true_oom(failure: Failure, memory: OutOfMemory, holders: tuple[Holder, ...]) -> Iterator[Advice]:
    """Yield what to do about those who hold the memory; watermarks do not make memory."""
    size = size_kb(failure)
    # Without the machine's own count a part of its memory may be on nodes that the log does not show.
    certainty: Certainty = "certain" if memory.verdict and machine_kb(failure) is not None else "likely"
    task = next((each for each in holders if each.kind == "task"), None)
    if task is not None and size is not None and task.kilobytes * 10 >= size:
        share = min(100, 100 * task.kilobytes // size)
        less = "let it use less, or limit it" if task.pid is not None else "let them use less, run fewer, or limit them"
        text = f"{_holds(task)} {amount(task.kilobytes)}, {share} %: {less}"
        yield Advice(text, "memory.max", None, certainty, task.line)
    for holder in holders:
        known = _OF_HOLDER.get(holder.kind)
        if known is not None and size is not None and holder.kilobytes * 10 >= size:
            text, setting = _profiled(failure, holder) or known
            yield Advice(f"{amount(holder.kilobytes)} {holder.what}: {text}", setting, None, "likely", holder.line)
    yield from _unused_huge_pages(failure)
    if failure.logged.swap is not None and failure.logged.swap[1] == 0:
        anonymous = total(failure, "active_anon", "inactive_anon")
        if anonymous is not None and size is not None and anonymous * 5 >= size * 2:
            text = f"add swap, on a disk or as zram: {amount(anonymous)} of process memory cannot leave RAM without it"
            yield Advice(text, "swap", None, "likely", failure.logged.places.get("swap"))


def _profiled(failure: Failure, holder: Holder) -> tuple[str, None] | None:
    """Return who holds what no counter has, if the allocation profile names it."""
    if holder.kind != "unaccounted":
        return None
    sites = [
        site
        for site in failure.logged.profile
        if not site.where.startswith(_COUNTED) or site.where.startswith(_UNCOUNTED)
    ]
    largest = max(sites, key=lambda site: site.bytes, default=None)
    if largest is None or largest.bytes >> 9 < holder.kilobytes:
        return None
    return f"{amount(largest.bytes >> 10)} of it are allocated at {largest.where}: see what uses that", None


_OF_HOLDER: dict[str, tuple[str, str | None]] = {
    "shmem": ("find who fills tmpfs and shared memory (df -t tmpfs, ipcs -m), and limit it (mount -o size=)", "size="),
    "slab": ("see in /proc/slabinfo which slab cache grows; if it never shrinks, the kernel leaks memory", None),
    "unaccounted": (
        "no counter has it: see with page_owner=on or memory allocation profiling which driver holds it",
        "page_owner=",
    ),
    "page_tables": ("many processes map the same memory with small pages: use huge pages for it", None),
    "unevictable": ("see in /proc/PID/status (VmLck) which process locks its memory", None),
}


def _unused_huge_pages(failure: Failure) -> Iterator[Advice]:
    """Yield how many huge pages to give back, for the default size alone, which vm.nr_hugepages sets."""
    sizes = {pages.size_kb for pages in failure.logged.hugepages if pages.total}
    free = sum(pages.free for pages in failure.logged.hugepages)
    if len(sizes) == 1 and free:
        keep = sum(pages.total for pages in failure.logged.hugepages) - free
        text = f"{free:,} huge pages ({amount(free * sizes.pop())}) are set aside and unused: give them back"
        yield Advice(text, "vm.nr_hugepages", keep, "likely", failure.logged.places.get("hugepages"))


def _request(failure: Failure, caller: Caller | None) -> Iterator[Advice]:
    answer = failure.why
    for finding in findings_of(failure):
        if finding.kind == "other_layout":
            text = f"build the module again for this kernel: {finding.text}"
            yield Advice(text, None, None, finding.certainty, failure.logged.line)
            return
    if failure.attempt.direct_reclaim is False and failure.logged.order > PAGE_ALLOC_COSTLY_ORDER:
        who, line = _who(failure, caller)
        text = (
            f"let {who} ask for single pages, or where it may sleep: nothing makes blocks of this size for GFP_ATOMIC"
        )
        yield Advice(text, None, None, "likely", line)
        return
    if answer is None or answer.conclusion in ("passes", "no_zone", "unknown"):
        yield from _undecided(failure)
        return
    remedies = {remedy.change: remedy for remedy in answer.remedies}
    if failure.attempt.order > 0 and any(each.kind == "block" for each in allowed(failure)):
        yield from _smaller(failure, caller, remedies.get("smaller_order"))
    yield from _closed_memory(failure)
    yield from _higher_zone(failure, caller)
    if failure.logged.event == "oom":
        return
    if "watermark_boost" in remedies:
        text = "turn the boost of the watermarks off: without it the zone would have had enough free pages"
        yield Advice(text, "vm.watermark_boost_factor", 0, "likely", failure.logged.state_line)
    elif _kswapd_helps(failure):
        yield from larger_min_free(failure)
        yield from earlier_kswapd(failure)
    elif failure.conclusion == "watermark":
        yield from smaller_reserve(failure)


def _undecided(failure: Failure) -> Iterator[Advice]:
    """Yield what helps whatever the zones decided."""
    if failure.why is not None and failure.why.conclusion == "passes":
        yield from _high_memory(failure)
    if failure.attempt.direct_reclaim is False and _is_below_min(failure):
        yield from larger_min_free(failure)


def _is_below_min(failure: Failure) -> bool:
    """Return whether a zone has less than kswapd should leave to requests that cannot wait."""
    return any(each.state.counted and each.state.free < each.state.watermarks[0] for each in allowed(failure))


def _kswapd_helps(failure: Failure) -> bool:
    """Return whether a zone was below its own watermark, and has one: while the machine boots it has none."""
    return any(each.state.watermarks[2] for each in below_mark(failure))


def _closed_memory(failure: Failure) -> Iterator[Advice]:
    """Yield how to open what is free and closed to the request: CMA areas, and high memory of 32-bit kernels."""
    line = failure.logged.state_line
    for each in allowed(failure):
        check = each.check
        if each.kind != "watermark" or check is None:
            continue
        if check.cma.low > check.needed.high - check.usable.low:
            free = (
                f"{amount(check.cma.low * failure.page_kb)} of node {each.state.node} {each.state.zone}'s free memory"
            )
            text = f"make the CMA area smaller (boot parameter): {free} are in it, where only movable pages may go"
            yield Advice(text, "cma=", _half_cma(failure, check.needed.high - check.usable.low + 1), "likely", line)
    yield from _high_memory(failure)


def _high_memory(failure: Failure) -> Iterator[Advice]:
    """Yield how to use the high memory of a 32-bit kernel that is free and closed to the request."""
    high = [each.state for each in excluded(failure) if each.state.zone == "HighMem"]
    if any(state.free > state.watermarks[2] for state in high):
        text = "use a 64-bit kernel if the processor can run one: the kernel cannot use the free high memory for itself"
        yield Advice(text, None, None, "likely", failure.logged.state_line)


def _higher_zone(failure: Failure, caller: Caller | None) -> Iterator[Advice]:
    """Yield how not to ask for low memory, if there is room above it."""
    if failure.highest_zone not in ("DMA", "DMA32"):
        return
    above = [each.state for each in excluded(failure) if each.excluded_by == "highest_zoneidx"]
    best = max(above, key=lambda state: state.free - state.watermarks[2], default=None)
    if best is None or best.free <= best.watermarks[2]:
        return
    who, line = _who(failure, caller)
    free = amount(best.free * failure.page_kb)
    text = (
        f"let {who} use the DMA API with the device's own mask instead of __GFP_{failure.highest_zone}, if the device "
        f"reaches more memory: {free} are free in node {best.node} {best.zone}"
    )
    yield Advice(text, None, None, "likely", line)


def _half_cma(failure: Failure, pages: int) -> str | None:
    """Return half of the area's size if that leaves enough pages outside; None if it does not, or is not shown."""
    whole = total(failure, "cma_reserved")
    if whole is None or whole // 2 < pages * failure.page_kb:
        return None
    return f"{whole // 2048}M"


def _who(failure: Failure, caller: Caller | None) -> tuple[str, int]:
    """Return who asked, for a sentence, and the line that says so."""
    if caller is None:
        return "the caller", failure.logged.line
    return caller.function, caller.line or failure.logged.line


def _smaller(failure: Failure, caller: Caller | None, smaller: Remedy | None) -> Iterator[Advice]:
    """Yield how the caller can do with smaller blocks; kvmalloc, mm/util.c, is for those who may sleep."""
    who, line = _who(failure, caller)
    may_sleep = failure.attempt.direct_reclaim is not False
    if smaller is not None:
        text = f"let {who} ask for order {smaller.value} at most: node {smaller.node} {smaller.zone} had such a block"
        text += "; or use kvmalloc, if the pages need not be contiguous" if may_sleep else ""
        yield Advice(text, "order", smaller.value, "likely", line)
    else:
        pages = "single pages or kvmalloc" if may_sleep else "single pages"
        yield Advice(f"let {who} use {pages}, if the pages need not be contiguous", None, None, "likely", line)
    if may_sleep:
        text = "compact memory now (once; it fragments again), if the caller cannot be changed"
        yield Advice(text, "vm.compact_memory", 1, "likely", failure.logged.state_line)
