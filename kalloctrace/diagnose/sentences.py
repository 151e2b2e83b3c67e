# SPDX-License-Identifier: MIT
"""The sentences about a diagnosed failure."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from kalloctrace.diagnose.findings import Finding, findings_of
from kalloctrace.diagnose.from_log import Failure, FailureConclusion
from kalloctrace.diagnose.kinds import is_by_bpf, nothing_given, refused_before_pages, shows_request
from kalloctrace.diagnose.reports.model import LoggedFailure
from kalloctrace.diagnose.zones import Change, Diagnosis, Doubt, Kind, Remedy, ZoneVerdict
from kalloctrace.model.watermark import Range, WatermarkCheck, ZoneState

_EVENTS = {"stall": "stalled", "oom": "led to the OOM killer"}

VERDICTS: dict[Kind, str] = {
    "excluded": "not allowed",
    "watermark": "too few pages",
    "block": "no block",
    "passes": "would pass",
    "unknown": "unknown",
}
"""The verdict on a zone, for people."""

CLAUSES: dict[Doubt, str] = {
    "real_time": "the task were real-time",
    "oom_victim": "the task were being killed by the OOM killer",
    "pf_memalloc": "the task were reclaiming memory itself (PF_MEMALLOC)",
    "highatomic_for_all": "the kernel gave ALLOC_HIGHATOMIC to all that cannot block, as some releases did",
    "highatomic_for_high": "the kernel gave ALLOC_HIGHATOMIC to __GFP_HIGH requests alone, as later releases do",
    "atomic_mask": "the request were atomic (GFP_ATOMIC)",
    "plain_mask": "the request were not atomic",
    "movable_mask": "the request were movable (__GFP_MOVABLE), so that CMA pages could serve it",
    "cpuset_ancestors": "the cpuset's ancestors did not allow this node either",
    "other_node": "__GFP_THISNODE asked for another node",
    "zone_not_allowed": "the request could not use this zone at all",
    "zone_layout": "the kernel had other zones",
    "page_size": "its pages had another size",
    "not_counted": "it had too few free pages as well",
}
"""A doubt as a clause after "if", also in the JSON object."""

_LETTERS = {
    "MIGRATE_UNMOVABLE": "unmovable",
    "MIGRATE_MOVABLE": "movable",
    "MIGRATE_RECLAIMABLE": "reclaimable",
    "MIGRATE_HIGHATOMIC": "high-order atomic",
    "MIGRATE_RESERVE": "reserve",
    "MIGRATE_CMA": "CMA",
    "MIGRATE_ISOLATE": "isolated",
}


def request_sentence(failure: Failure) -> str:
    """Return the request, its task and what happened."""
    logged = failure.logged
    if failure.conclusion == "no_request" and logged.event == "memory":
        return "the state of memory"
    mask = f" with {failure.gfp_text}" if failure.gfp_text else ""
    if logged.event == "memory":
        return f"{_requested(failure)}{mask} in this state of memory"
    if logged.event == "warning" and failure.conclusion != "order_too_large":
        return f"a warning of the page allocator{f' for {logged.comm}' if logged.comm else ''}"
    task = f" for {logged.comm}" if logged.comm else ""
    waited = f" for {logged.waited}" if logged.waited is not None else ""
    return f"{_requested(failure)}{mask}{task} {_EVENTS.get(logged.event, 'failed')}{waited}"


def _requested(failure: Failure) -> str:
    """Return what was requested."""
    logged = failure.logged
    order = f"order {logged.order}" + (f" ({size(failure, logged.order)})" if logged.order >= 0 else "")
    if logged.event in ("vmalloc", "vmap"):
        if not logged.size:
            return "vmalloc" if logged.size is None else "vmalloc of 0 bytes"
        return f"vmalloc of {-(-logged.size // 1024):,} kB"
    if logged.event in ("cma", "contig"):
        return "a range of pages" if logged.pages is None else f"{logged.pages:,} contiguous {_pages(logged.pages)}"
    if logged.event == "slub" and logged.cache is not None:
        return f"a slab of {logged.cache.name}" + (f", {order}," if logged.order_shown else "")
    if not logged.order_shown:
        return _huge_pages(logged) if logged.event == "hugetlb" else "a request"
    return order


def _huge_pages(logged: LoggedFailure) -> str:
    if logged.pages is None or logged.size is None:
        return "huge pages"
    return f"{logged.pages:,} huge {_pages(logged.pages)} of {logged.size >> 10:,} kB"


def headline(failure: Failure) -> str:
    """Return the request and the cause, in one sentence."""
    return f"{request_sentence(failure)}: {reason_sentence(failure)}"


def headline_alike(failure: Failure) -> str:
    """Return the headline without the numbers that differ between failures with the same cause."""
    return headline(replace(failure, logged=replace(failure.logged, waited=None)))


def reason_sentence(failure: Failure) -> str:
    """Return why it happened, as far as it is known."""
    tell = _TELL.get(failure.conclusion)
    if tell is not None:
        return tell(failure)
    if refused_before_pages(failure.logged):
        return "its size is more than the whole memory, or no range of kernel addresses was free; pages did not lack"
    if failure.logged.event == "warning":
        return "unknown, the warning is not of a request's order or flags"
    first = [finding.text for finding in findings_of(failure) if finding.kind in _FIRST]
    if failure.why is not None:
        return first[0] if nothing_given(failure.logged) else "; ".join((*first, _by_zones(failure, failure.why)))
    if failure.source == "trace":
        return f"unknown, the trace lacks {failure.missing[0]}"
    return "; ".join(
        (*(first or (["unknown"] if failure.logged.event != "hugetlb" else [])), _without_zones(failure.logged))
    ).replace("unknown; ", "unknown, ")


def _without_zones(logged: LoggedFailure) -> str:
    if logged.event == "hugetlb":
        _, _, got = (logged.warning_text or "").rpartition(". ")
        return f"no more blocks of that size were free, also after compaction: {got.strip().lower()}"
    lacking = "the zones" if shows_request(logged) or not logged.zones else "which request failed"
    return f"the log does not show {lacking}"


_FIRST = ("nothing_given", "older_state", "bound", "no_reclaim")
"""The findings that belong to the reason."""


def further_findings(failure: Failure) -> tuple[Finding, ...]:
    """Return the findings that the headline does not have."""
    return tuple(finding for finding in findings_of(failure) if finding.kind not in _FIRST)


def _memcg(failure: Failure) -> str:
    limit = ""
    if failure.logged.memcg_limit is not None:
        usage, at_most = failure.logged.memcg_limit
        what = _COUNTERS.get(failure.logged.memcg_counter, "")
        limit = f" ({usage:,} kB of {at_most:,} kB{what} used)"
    return f"the limit of its memory cgroup was reached{limit}; the zones were not the cause"


_COUNTERS = {"memory+swap": " memory with swap", "kmem": " kernel memory"}
"""Limits of version 1 of cgroups besides that of memory itself."""


def _no_addresses(_failure: Failure) -> str:
    return "no range of kernel addresses was free; that is no lack of memory"


def _size_refused(failure: Failure) -> str:
    if failure.logged.size == 0:
        return "vmalloc was asked for 0 bytes, which it refuses"
    return "vmalloc refuses more than the machine's whole memory, so no pages were asked for"


def _no_range(failure: Failure) -> str:
    area = " from its CMA area" if failure.logged.event == "cma" else ""
    if failure.logged.errno == _EBUSY:
        return f"no range of that size could be had{area}: pages in it were in use and could not be moved (EBUSY)"
    error = "ENOMEM" if failure.logged.errno in (None, _ENOMEM) else f"error {failure.logged.errno}"
    return f"no range of that size could be had{area} ({error})"


_ENOMEM, _EBUSY = 12, 16


def _order_too_large(failure: Failure) -> str:
    after = ""
    if failure.logged.pages is not None:
        order = (failure.logged.pages - 1).bit_length()
        after = f"; a CMA request for {failure.logged.pages:,} pages failed before it, which needs order {order} here"
    return f"likely its order is larger than the largest that the page allocator has, so it was refused at once{after}"


def _nofail(_failure: Failure) -> str:
    return "likely it must not fail (__GFP_NOFAIL), and its order or its mask does not allow that"


def _no_request(failure: Failure) -> str:
    if failure.logged.order < 0:
        return "a person invoked the OOM killer (SysRq f), no request failed"
    if failure.logged.event == "memory":
        return "no request is shown"
    if is_by_bpf(failure.logged):
        return "a BPF program called the OOM killer; why it did is not shown"
    return "a page fault found no memory (an empty mask); which request failed before is not shown"


_TELL: dict[FailureConclusion, Callable[[Failure], str]] = {
    "memcg": _memcg,
    "address_range": _no_addresses,
    "size_refused": _size_refused,
    "contiguous_range": _no_range,
    "order_too_large": _order_too_large,
    "nofail": _nofail,
    "no_request": _no_request,
}


def _by_zones(failure: Failure, answer: Diagnosis) -> str:
    tried = [verdict for verdict in answer.zones if verdict.kind != "excluded"]
    if answer.conclusion == "no_zone":
        return "it may use none of the zones that are shown"
    if answer.conclusion == "passes":
        passed = _zone_list([verdict.state for verdict in tried if verdict.kind == "passes"])
        if failure.logged.event == "memory":
            return f"{passed} would serve it"
        return f"{passed} could serve it in the state that is shown, which is later than the failure"
    blocks = f"no free block of {size(failure, failure.attempt.order)} or more of a type that it may take"
    refused = _mixed([verdict for verdict in tried if verdict.kind in ("watermark", "block")], blocks)
    doubtful = [verdict.state for verdict in tried if verdict.kind in ("unknown", "passes")]
    open_still = f"the {failure.source} does not decide it for {_zone_list(doubtful)}" if doubtful else ""
    if failure.logged.event == "memory" and refused and not open_still:
        refused = f"it would get none: {refused}"
    return "; ".join(filter(None, (refused, open_still)))


def _mixed(tried: list[ZoneVerdict], blocks: str) -> str:
    low = [verdict.state for verdict in tried if verdict.kind == "watermark"]
    broken = [verdict.state for verdict in tried if verdict.kind == "block"]
    parts = []
    if low:
        parts.append(f"{_zone_list(low)} had too few free pages above the reserves")
    if broken:
        parts.append(f"{_zone_list(broken)} had {blocks}")
    return "; ".join(parts)


def _zone_list(states: list[ZoneState]) -> str:
    names = [zone_name(state) for state in states]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def zone_name(state: ZoneState) -> str:
    """Return the name of a zone and its node."""
    return f"node {state.node} {state.zone}"


def kilobytes(failure: Failure, pages: int) -> str:
    """Return a number of pages in kB; in pages if the log has nothing else and does not show their size."""
    if failure.logged.in_pages and failure.page_size.certainty == "unknown":
        return f"{pages:,} {_pages(pages)}"
    return f"{pages * failure.page_kb:,} kB"


def size(failure: Failure, order: int) -> str:
    """Return the size of a block: in kB if the page size is known, else in pages."""
    pages = 1 << order
    if failure.page_size.certainty == "certain":
        return kilobytes(failure, pages)
    likely = f", likely {kilobytes(failure, pages)}" if failure.page_size.certainty == "likely" else ""
    return f"{pages:,} {_pages(pages)}{likely}"


def _pages(number: int) -> str:
    return "page" if number == 1 else "pages"


def _amount(failure: Failure, pages: int) -> str:
    """Return a number of pages that the log has in pages: in kB if the page size is known."""
    if failure.page_size.certainty == "unknown":
        return f"{pages:,} {_pages(pages)}"
    return kilobytes(failure, pages)


def _range(failure: Failure, pages: Range) -> str:
    if pages.low == pages.high:
        return kilobytes(failure, pages.low)
    return f"{kilobytes(failure, pages.low).rpartition(' ')[0]} to {kilobytes(failure, pages.high)}"


def certainty(failure: Failure) -> str:
    """Return how sure the answer is."""
    if failure.certainty == "unknown":
        return "unknown" if failure.why is None else "not certain"
    return failure.certainty if failure.why is None else f"{failure.certainty}, for the state that is shown"


def conditions(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield the conditions that would change a verdict, each once."""
    unless: dict[Doubt, list[str]] = {}
    for verdict in diagnosis.zones:
        for doubt in verdict.unless:
            unless.setdefault(doubt, []).append(zone_name(verdict.state))
    for doubt, zones in unless.items():
        yield f"if {CLAUSES[doubt]}, the verdict would differ for {', '.join(zones)}"


def zone_sentence(failure: Failure, verdict: ZoneVerdict) -> str:
    """Return why one zone did not serve the request, with the numbers."""
    check = verdict.check
    if verdict.kind == "excluded" or check is None:
        return _excluded(failure, verdict)
    if not verdict.state.counted:
        listed = f"the free blocks add up to {kilobytes(failure, verdict.state.free)}"
        return f"{listed}; {_blocks(failure, verdict, check, above=verdict.kind == 'block')}"
    if failure.ignores_watermarks:
        free = f"{kilobytes(failure, verdict.state.free)} free, no watermark applies (ALLOC_NO_WATERMARKS)"
        return f"{free}; {_blocks(failure, verdict, check, above=True)}"
    usable, needed = _usable(failure, verdict.state, check), _needed(failure, verdict.state, check)
    if verdict.kind == "watermark":
        return f"{usable}, not above {needed}"
    above = check.usable.low > check.needed.high
    compared = f"{usable}, above {needed}" if above else f"{usable}; needed more than {needed}"
    return f"{compared}; {_blocks(failure, verdict, check, above=above)}"


def _blocks(failure: Failure, verdict: ZoneVerdict, check: WatermarkCheck, *, above: bool) -> str:
    if verdict.kind == "passes":
        return "a free block fits"
    if verdict.kind == "block":
        real_time = ", unless the task is real-time" if "real_time" in verdict.passes_if else ""
        return f"{_no_block(failure, check)}{real_time}"
    if not verdict.state.counted:
        return "the log does not show its free pages and watermarks"
    if not above:
        return "the data does not show which is larger"
    if not failure.rules.block_of_any_type and failure.attempt.order > 0:
        return "kernels before 4.4 also compare the pages of each order, which is not modelled here"
    return "the data does not show whether a free block fits"


def _excluded(failure: Failure, verdict: ZoneVerdict) -> str:
    logged = failure.logged
    name = "" if logged.cpuset is None else f" {logged.cpuset}"
    return {
        "highest_zoneidx": f"the mask allows zones up to {failure.highest_zone} (highest_zoneidx)",
        "nodemask": f"the request's nodemask is {logged.nodemask}",
        "cpuset": f"the cpuset{name} has nodes {logged.mems_allowed}, and __GFP_HARDWALL is set",
        "THISNODE": "__GFP_THISNODE requires another node",
        None: "not tried",
    }[verdict.excluded_by]


def _usable(failure: Failure, state: ZoneState, check: WatermarkCheck) -> str:
    free = f"{kilobytes(failure, state.free)} free"
    if failure.attempt.order > 0 and state.free < 1 << failure.attempt.order:
        return f"{free}, less than one block of the order"
    if check.usable.low != check.usable.high:
        return f"{free}, at most {kilobytes(failure, check.usable.high)} of it usable"
    kept = ((check.highatomic, "kept for high-order atomic requests"), (check.cma, "in CMA areas"))
    parts = [f"{kilobytes(failure, pages.low)} {what}" for pages, what in kept if pages.low]
    if check.order_pages:
        parts.append(f"{_amount(failure, check.order_pages)} for the order")
    listed = ", ".join(parts)
    usable = kilobytes(failure, check.usable.low) if check.usable.low > 0 else "none"
    return f"{free}, {usable} of it usable (not {listed})" if listed else free


def _needed(failure: Failure, state: ZoneState, check: WatermarkCheck) -> str:
    mark = f"{check.watermark} {kilobytes(failure, check.mark)}"
    if check.watermark == "min" and check.mark < state.watermarks[0]:
        mark += " without its boost"
    elif state.boost:
        mark += f" with its boost of {kilobytes(failure, state.boost)}"
    if check.lowered != check.mark:
        mark += f" (lowered to {kilobytes(failure, check.lowered)})"
    if check.lowmem_reserve.high == 0:
        return mark
    if failure.page_size.certainty == "unknown" and check.lowmem_reserve.low == check.lowmem_reserve.high:
        return f"{mark} + lowmem_reserve {_amount(failure, check.lowmem_reserve.low)}"
    return f"{mark} + lowmem_reserve {_range(failure, check.lowmem_reserve)}"


def _no_block(failure: Failure, check: WatermarkCheck) -> str:
    order = failure.attempt.order
    there = ", ".join(sorted(_LETTERS.get(name, name) for name in check.types_there))
    if there:
        return f"the only free blocks of {size(failure, order)} or more are {there}, which it may not take"
    if check.largest is None:
        return "no free block of a type that it may take"
    return f"the largest free block has {size(failure, check.largest)} (order {check.largest})"


_SERVED = ": {where} would have served"
_REMEDIES: dict[Change, str] = {
    "smaller_order": "order {value} ({size}) instead of {order}: {where} had such a block",
    "gfp_high": "__GFP_HIGH, which opens half of the min watermark" + _SERVED,
    "gfp_atomic": "the access of GFP_ATOMIC to the reserves{instead}" + _SERVED,
    "gfp_memalloc": "__GFP_MEMALLOC{instead}, which ignores watermarks and is for freeing memory only" + _SERVED,
    "gfp_movable": "a movable request (__GFP_MOVABLE), which may use CMA areas" + _SERVED,
    "watermark_boost": "no watermark boost (vm.watermark_boost_factor=0)" + _SERVED,
    "lowmem_reserve": "no lowmem_reserve (a larger vm.lowmem_reserve_ratio makes it smaller)" + _SERVED,
    "zone_modifier": "a mask that may use zones above {highest}" + _SERVED,
    "nodemask": "a nodemask with node {node} in it" + _SERVED,
    "cpuset": "a cpuset with node {node} in it" + _SERVED,
    "THISNODE": "no __GFP_THISNODE" + _SERVED,
}


def remedy_sentence(failure: Failure, remedy: Remedy) -> str:
    """Return a change that would have let the request succeed, and in which zone."""
    where = f"node {remedy.node} {remedy.zone}"
    if remedy.change == "direct_reclaim":
        return _reclaim(failure, remedy, where)
    if remedy.change == "min_free_kbytes":
        return _min_free(failure, remedy, where)
    return _REMEDIES[remedy.change].format(
        where=where,
        node=remedy.node,
        value=remedy.value,
        size=size(failure, remedy.value or 0),
        order=failure.attempt.order,
        highest=failure.highest_zone,
        instead=" instead of __GFP_NOMEMALLOC" if failure.attempt.nomemalloc else "",
    )


def _reclaim(failure: Failure, remedy: Remedy, where: str) -> str:
    flag = "__GFP_DIRECT_RECLAIM" if failure.tables is not None else "__GFP_DIRECT_RECLAIM (before 4.4 __GFP_WAIT)"
    how = f"{flag}, so that the request waits while memory is freed"
    pages = remedy.value or 0
    parts = []
    if pages:
        cache = _reclaimable(failure, remedy)
        has = f" (which has {kilobytes(failure, cache)} of file pages)" if cache is not None else ""
        parts.append(f"{kilobytes(failure, pages)} freed in {where}{has} would be enough")
    if remedy.needs_block:
        block = size(failure, failure.attempt.order)
        parts.append(f"compaction would have to make a block of {block} in {where}")
    return f"{how}: {'; and '.join(parts)}"


def _reclaimable(failure: Failure, remedy: Remedy) -> int | None:
    zones = failure.why.zones if failure.why is not None else ()
    for verdict in zones:
        if (verdict.state.node, verdict.state.zone) == (remedy.node, remedy.zone):
            return verdict.state.reclaimable
    return None


def _min_free(failure: Failure, remedy: Remedy, where: str) -> str:
    """Return the min watermark that would have been low enough, as a share of vm.min_free_kbytes.

    The kernel divides vm.min_free_kbytes among the zones of all nodes (`__setup_per_zone_wmarks`); the request may use
    only some of them. HighMem and Movable do not take part.
    """
    zones = failure.why.zones if failure.why is not None else ()
    state = next(each.state for each in zones if (each.state.node, each.state.zone) == (remedy.node, remedy.zone))
    own, value = state.watermarks[0] - (state.boost or 0), remedy.value or 0
    boost = " without its boost" if state.boost else ""
    text = f"a min watermark of {kilobytes(failure, value)} or less in {where}, which now has {kilobytes(failure, own)}"
    text += boost
    if own > 0 and state.zone not in ("HighMem", "Movable"):
        share = 100 * value // own
        text += f" (vm.min_free_kbytes at {f'about {share} %' if share else 'less than 1 %'} of its value)"
    return f"{text}; this leaves less for requests that cannot wait"
