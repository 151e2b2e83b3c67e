# SPDX-License-Identifier: MIT
"""A logged failure, judged zone by zone; what the log does not show stays unknown."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

from kalloctrace.diagnose.diagnosis import in_every_case, judge_zones
from kalloctrace.diagnose.kinds import (
    has_request,
    is_cgroup_cache,
    is_memcg,
    must_not_fail,
    nothing_given,
    older_state,
    order_is_too_large,
    refused_before_pages,
    shows_request,
    vmalloc_size_is_refused,
)
from kalloctrace.diagnose.mask import OLD_TABLES, Mask, mask_of
from kalloctrace.diagnose.page_size import KNOWN, PageSize, page_size
from kalloctrace.diagnose.reports.model import LoggedFailure
from kalloctrace.diagnose.states import Case, cases, shown_states, unshown_zones
from kalloctrace.diagnose.zones import AllocationAttempt, Conclusion, Diagnosis
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.logged import LoggedKernel, logged_kernel
from kalloctrace.kernel.nodelist import parse_nodelist
from kalloctrace.kernel.watermark_rules import KNOWN_WATERMARK_RULES, WatermarkRules
from kalloctrace.model.kernel import GFP_ZONE_TABLE, Kernel
from kalloctrace.model.slowpath.flags import Condition, mask_alloc_flags
from kalloctrace.model.slowpath.types import SlowKernel
from kalloctrace.model.watermark import Watermarks

NULL = "(null)"
"""How a log prints the nodemask of a request without one."""

Certainty = Literal["certain", "likely", "unknown"]

FailureConclusion = (
    Conclusion
    | Literal["memcg", "address_range", "size_refused", "contiguous_range", "order_too_large", "nofail", "no_request"]
)
"""What the zones show; or: a memory cgroup's limit was reached, no range of addresses or no contiguous range of pages
was free, vmalloc was asked for nothing or for more than there is, the order is larger than the allocator's largest, the
request must not fail, nothing was requested."""


class NamedKernel(NamedTuple):
    """A kernel to judge by, instead of the one that the log names.

    Attributes:
        release: `uname -r`, or a release such as "5.10".
        version: `uname -v`; "" if unknown.
        tables: its flags; None if unknown, as for old releases.
    """

    release: str
    version: str
    tables: FlagTables | None


@dataclass(frozen=True)
class Failure:
    """A failure in a log, or a call of a trace, with its diagnosis.

    Attributes:
        logged: the report in the log; for a trace, what a log would say about the call.
        kernel: the release that it was judged by; "" if unknown.
        tables: that kernel's flags; None if unknown.
        rules: that kernel's watermark check.
        gfp_text: the names in the mask, as far as they are known.
        highest_zone: the highest zone that may serve the mask; None if unknown.
        attempt: the request of the decisive attempts.
        why: the diagnosis; None if the zones did not decide, or are unknown.
        page_size: of the kernel.
        source: where the failure was recorded.
        mask: the mask in a log; None for a trace.
        unshown: zones that may serve the request, but whose line the log lacks: node and name.
        unrecorded: what a trace lacks for a certain diagnosis.
    """

    logged: LoggedFailure
    kernel: str
    tables: FlagTables | None
    rules: WatermarkRules
    gfp_text: str
    highest_zone: str | None
    attempt: AllocationAttempt
    why: Diagnosis | None
    page_size: PageSize = KNOWN
    source: Literal["log", "trace"] = "log"
    mask: Mask | None = None
    unshown: tuple[tuple[int, str], ...] = ()
    unrecorded: tuple[str, ...] = ()

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """What is lacking for a certain diagnosis; of alike failures only one is asked for it."""
        return self.unrecorded if self.mask is None else tuple(_missing(self, self.mask))

    @property
    def page_kb(self) -> int:
        """The page size in kB; assumed if it is not known."""
        return self.page_size.kilobytes

    @property
    def conclusion(self) -> FailureConclusion:
        """Why the request failed."""
        logged = self.logged
        if is_memcg(logged):
            return "memcg"
        if logged.event == "vmap" or refused_before_pages(logged):
            return _refused(logged, self.page_size)
        if logged.event in ("cma", "contig"):
            return "contiguous_range"
        if logged.event == "warning":
            return "order_too_large" if order_is_too_large(logged) else "nofail" if must_not_fail(logged) else "unknown"
        if not has_request(logged):
            return "no_request"
        return self.why.conclusion if self.why is not None else "unknown"

    @property
    def certainty(self) -> Certainty:
        """How sure the conclusion is; lines that contradict each other may belong to two reports."""
        conclusion = self.conclusion
        if conclusion in ("memcg", "address_range", "size_refused", "contiguous_range"):
            return "likely" if is_cgroup_cache(self.logged) else "certain"
        if conclusion in ("order_too_large", "nofail"):
            return "likely"
        # A log that shows no zone that the request may use lacks lines: some zone has the kernel's own memory.
        no_zone = conclusion == "no_zone" and self.source == "log"
        open_still = self.why is None or conclusion in ("passes", "unknown") or self.unshown or no_zone
        if open_still or self.why is None or self.logged.contradictions:
            return "unknown"
        if self.why.certain:
            return "certain"
        doubts = {doubt for verdict in self.why.zones if not verdict.certain for doubt in verdict.unless or ("",)}
        return "likely" if doubts == {"page_size"} and self.page_size.certainty == "likely" else "unknown"

    @property
    def certain(self) -> bool:
        """Whether the conclusion is certain."""
        return self.certainty == "certain"

    @property
    def cause(self) -> tuple[object, ...]:
        """What failures with the same cause have in common: the request, its task, and the zones that refused it."""
        logged, diagnosis = self.logged, self.why
        request = (logged.event, logged.comm, logged.order, self.gfp_text, logged.memcg)
        if diagnosis is None:
            return (*request, self.missing[:1])
        passes = diagnosis.conclusion == "passes"
        zones = (
            (verdict.state.node, verdict.state.zone, "open" if verdict.kind in ("passes", "unknown") else verdict.kind)
            for verdict in diagnosis.zones
            if verdict.kind == "passes" or (verdict.kind != "excluded" and not passes)
        )
        return (*request, passes, *zones)

    @property
    def ignores_watermarks(self) -> bool:
        """Whether the decisive attempts checked no watermark."""
        return bool(self.attempt.alloc_flags & (self.tables or OLD_TABLES).bits.alloc_no_watermarks)


def _refused(logged: LoggedFailure, size: PageSize) -> FailureConclusion:
    """Return why vmalloc gave up before it asked for pages."""
    if logged.event == "vmap":
        return "address_range"
    too_large = vmalloc_size_is_refused(logged, None if size.certainty == "unknown" else size.kilobytes)
    return "unknown" if too_large is None else "size_refused" if too_large else "address_range"


_JUDGED = ("failure", "stall", "oom", "vmalloc", "vmemmap", "slub", "hugetlb", "memory")


def explain_failure(logged: LoggedFailure, kernel: NamedKernel | None = None, page_kb: int | None = None) -> Failure:
    """Diagnose why a logged request failed.

    Args:
        logged: the report.
        kernel: the kernel to judge by; None for the one that the log names.
        page_kb: its page size in kB; None for what the log shows.
    """
    if kernel is not None:
        judged = logged_kernel(*kernel)
    elif logged.release is not None:
        judged = logged_kernel(logged.release.release, logged.release.version)
    else:
        judged = logged_kernel("", "")
    mask = mask_of(logged, judged)
    size = page_size(logged, page_kb)
    rules = _rules_shown(logged, judged.watermarks)
    highest_zone = GFP_ZONE_TABLE.get(mask.modifiers) if mask.modifiers is not None else None
    possible = list(cases(logged, highest_zone, size))
    highest = possible[0].highest(highest_zone)
    attempt = _attempt(logged, mask, judged, highest)
    why = None
    if logged.event in _JUDGED and _zones_decide(logged) and shows_request(logged) and not older_state(logged):
        check = Watermarks(rules, judged.snapshot.tables.bits)
        states = [shown_states(logged, case, judged.absent_counters) for case in possible]
        others = [replace(attempt, highest_zoneidx=case.highest(highest_zone)) for case in possible[1:]]
        tried = [attempt, *others]
        answers = [judge_zones(check, *each) for each in zip(tried, states, strict=True)] if states[0] else []
        why = _in_every_case(logged, possible, answers)
    return Failure(
        logged=logged,
        kernel=judged.release,
        tables=judged.tables,
        rules=rules,
        gfp_text=mask.text,
        highest_zone=None if highest is None else possible[0].layout[highest],
        attempt=attempt,
        why=why,
        page_size=size,
        mask=mask,
        unshown=unshown_zones(logged, possible[0], highest),
    )


def _zones_decide(logged: LoggedFailure) -> bool:
    return has_request(logged) and not is_memcg(logged) and not refused_before_pages(logged)


def _in_every_case(logged: LoggedFailure, possible: list[Case], answers: list[Diagnosis]) -> Diagnosis | None:
    if not answers:
        return None
    others = zip((case.doubt for case in possible), answers, strict=True)
    why = in_every_case(answers[0], list(others)[1:])
    return replace(why, find_remedies=tuple) if nothing_given(logged) else why


def _rules_shown(logged: LoggedFailure, rules: WatermarkRules) -> WatermarkRules:
    """Return the rules, with the counter of high-order atomic pages that the log shows.

    c928807f6f6b ("mm/page_alloc: keep track of free highatomic") (in v6.13) counts the free ones and prints them after
    the reserved ones; stable kernels took it at different patch levels.
    """
    counted = [zone.kilobytes.keys() for zone in logged.zones if "reserved_highatomic" in zone.kilobytes]
    if any("free_highatomic" in names for names in counted):
        return _counting(rules, "free")
    # Something after it shows that the line is not just cut off.
    whole = any(names & {"active_anon", "free_pcp", "free_cma"} for names in counted)
    return _counting(rules, "reserved") if whole and rules.known and rules.highatomic == "unknown" else rules


@lru_cache(maxsize=16)
def _counting(rules: WatermarkRules, highatomic: Literal["free", "reserved"]) -> WatermarkRules:
    return replace(rules, highatomic=highatomic)


@lru_cache(maxsize=8)
def _slow_kernel(kernel: LoggedKernel) -> SlowKernel:
    return SlowKernel(Kernel.of(kernel.snapshot), kernel.slowpath)


@lru_cache(maxsize=256)
def _mask_flags(kernel: LoggedKernel, value: int, order: int) -> tuple[int, tuple[Condition, ...]]:
    return mask_alloc_flags(_slow_kernel(kernel), value, order, unsure=kernel.unsure)


def _attempt(logged: LoggedFailure, mask: Mask, kernel: LoggedKernel, highest: int | None) -> AllocationAttempt:
    order, slow = max(logged.order, 0), _slow_kernel(kernel)
    names, bits = mask.names, slow.bits
    waits = True if logged.event in _WAITED else mask.direct_reclaim
    mems_allowed = nodes_of(logged.mems_allowed)
    if names is None:
        value = 0
        flags, conditions = _flags_without_names(slow, mask, order, waits=waits is True)
    else:
        value = slow.kernel.tables.gfp_of(names) if mask.bits is None else mask.bits[1]
        flags, conditions = _mask_flags(kernel, value, order)
    only_outside = names is not None and _only_node_outside(logged, mems_allowed)
    return AllocationAttempt(
        order=order,
        alloc_flags=flags,
        highest_zoneidx=highest,
        gfp_mask=value if mask.bits is not None else 0,
        direct_reclaim=waits,
        nodemask=nodes_of(logged.nodemask),
        mems_allowed=mems_allowed,
        hardwall=bool(value & bits.gfp_hardwall) or only_outside,
        thisnode=bool(value & bits.gfp_thisnode),
        nomemalloc=bool(value & bits.gfp_nomemalloc),
        oom=logged.event == "oom",
        conditions=_possible(logged, conditions),
    )


def _possible(logged: LoggedFailure, conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """Drop the conditions that the report rules out.

    A task with PF_MEMALLOC leaves `__alloc_pages_slowpath` before `__alloc_pages_may_oom`, mm/page_alloc.c of
    linux-source-5.10 5.10.262-1:4760 to 7.3.4-1~bpo13+1. `out_of_memory` returns for an OOM victim before it prints the
    report (`task_will_free_mem`), mm/oom_kill.c of Linux 4.7 to 7.3; before, for a task with TIF_MEMDIE. The idle task
    has no memory and no priority of a real-time task (`init_idle`, kernel/sched/core.c); it may have PF_MEMALLOC while
    `__netif_receive_skb` handles a packet for swap.
    """
    if logged.event == "oom":
        ruled_out = ("oom_victim", "pf_memalloc")
    elif logged.pid == 0:
        ruled_out = ("oom_victim", "real_time")
    else:
        return conditions
    return tuple(condition for condition in conditions if condition.fact not in ruled_out)


_WAITED = ("oom", "stall")
"""Only a request that may reclaim gets there."""


def _only_node_outside(logged: LoggedFailure, mems_allowed: int | None) -> bool:
    """Return whether the OOM killer found that the cpuset excludes a node, and only one node is outside it.

    Then no ancestor of the cpuset allows that node either: `constrained_alloc`, mm/oom_kill.c of Linux 2.6.32 to 7.3.
    """
    if logged.constraint != "cpuset" or mems_allowed is None:
        return False
    return len({zone.node for zone in logged.zones if not mems_allowed >> zone.node & 1}) == 1


def _flags_without_names(slow: SlowKernel, mask: Mask, order: int, *, waits: bool) -> tuple[int, tuple[Condition, ...]]:
    """Return the ALLOC_* bits of a mask whose bits are not known, what else it may hold, and what its task may be.

    Up to 4.3 __GFP_HIGH is all of GFP_ATOMIC, and on every kernel it is this bit. A movable request may use CMA pages.
    """
    tables = slow.kernel.tables
    high = tables.gfp("__GFP_HIGH")
    _, (realtime, *others) = mask_alloc_flags(slow, high, order)
    flags, (atomic, _) = 0, mask_alloc_flags(slow, tables.gfp("GFP_ATOMIC"), order)
    if (mask.value or 0) & high:
        flags, conditions = atomic, [Condition("plain_mask", 0), *others]
    elif waits:
        conditions = [realtime, *others]
    else:
        conditions = [Condition("atomic_mask", atomic), *others]
    if mask.modifiers is None:
        conditions.append(Condition("movable_mask", flags | slow.bits.alloc_cma))
    elif mask.modifiers & tables.gfp("__GFP_MOVABLE"):
        cma = slow.bits.alloc_cma
        flags, conditions = flags | cma, [replace(each, alloc_flags=each.alloc_flags | cma) for each in conditions]
    return flags, tuple(conditions)


def nodes_of(text: str | None) -> int | None:
    """Read a nodemask as printed; None if it is NULL or cannot be read."""
    return None if text is None or text == NULL else _nodes_in(text)


@lru_cache(maxsize=256)
def _nodes_in(text: str) -> int | None:
    try:
        return parse_nodelist(text)
    except ValueError:
        return None


def _missing(failure: Failure, mask: Mask) -> Iterator[str]:
    logged, why = failure.logged, failure.why
    if logged.lost:
        yield f"{logged.lost:,} messages that were lost among its lines (see dmesg, or a larger log_buf_len=)"
    if logged.event == "memory" and not has_request(logged):
        yield "a request to judge (name one: --gfp GFP_KERNEL --order 3)"
    if logged.event not in _JUDGED or not _zones_decide(logged) or (logged.event == "hugetlb" and why is None):
        return
    if not failure.kernel:
        yield "the kernel's release (name it with --kernel)"
    yield from _missing_of_mask(mask)
    if older_state(logged):
        yield f"the zones: those that follow are {-1000 * (logged.state_age or 0):,.0f} ms older than the failure"
    elif why is None and not logged.zones:
        yield "the zones (the lines 'Node 0 Normal free:… min:… low:… high:…' after Mem-Info)"
    elif why is not None:
        yield from _missing_of_zones(failure, why)
        if not failure.rules.known:
            yield _unknown_rules(failure.kernel, failure.rules)


def _missing_of_zones(failure: Failure, why: Diagnosis) -> Iterator[str]:
    yield from (f"the line of node {node} {zone}" for node, zone in failure.unshown)
    doubtful = [verdict for verdict in why.zones if not verdict.certain]
    states = [verdict.state for verdict in doubtful]
    yield from (f"the free blocks of node {state.node} {state.zone}" for state in states if state.blocks is None)
    highest = failure.attempt.highest_zoneidx
    for state in states:
        own = highest is not None and state.index is not None and state.index >= highest
        if state.counted and not own and state.lowmem_reserve is None:
            yield f"lowmem_reserve of node {state.node} {state.zone}"
    doubts = {doubt for verdict in doubtful for doubt in verdict.unless}
    yield from (text for doubt, text in _DOUBTS.items() if doubt in doubts)


_DOUBTS = {
    "zone_layout": "which zones this kernel has, so which part of lowmem_reserve holds",
    "page_size": "the page size (name it with --page-size)",
    "other_node": "which node __GFP_THISNODE asked for",
}


def _missing_of_mask(mask: Mask) -> Iterator[str]:
    if mask.value is None and mask.names is None:
        yield "the gfp mask"
    elif mask.modifiers is None:
        yield f"what the bits of mask {mask.value:#x} mean on this kernel, so which zones it may use"
    elif mask.names is None:
        yield f"what the bits of mask {mask.value:#x} mean on this kernel, but for those of the zones"
    if mask.as_printed is not None and mask.tables is not None:
        yield f"the flags' numbers on this kernel, so its names hold: {mask.tables.kernel}'s would be {mask.as_printed}"


def _unknown_rules(kernel: str, rules: WatermarkRules) -> str:
    whose = f"of {kernel}" if kernel else "of this kernel"
    if not rules.block_of_any_type:
        return f"the watermark check {whose}: only what all kernels share is applied"
    return f"the watermark check {whose} in every detail: known are those from {KNOWN_WATERMARK_RULES}"
