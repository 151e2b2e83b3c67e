# SPDX-License-Identifier: MIT
"""Whether a failure does harm: what its caller does without the memory."""

import re
from collections.abc import Callable

from kalloctrace.diagnose.answers.caller import frames_to_caller, name_of, reliable_frames
from kalloctrace.diagnose.answers.facts import amount, has_flags
from kalloctrace.diagnose.answers.fallbacks import FALLBACKS, Fallback
from kalloctrace.diagnose.answers.types import Caller, Harm
from kalloctrace.diagnose.findings import findings_of
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.kinds import has_request, was_freeing
from kalloctrace.model.slowpath.attempts import PAGE_ALLOC_COSTLY_ORDER

LARGEST_ORDER = 10
"""The largest order of a kernel with usual settings (MAX_PAGE_ORDER, before 6.8 MAX_ORDER - 1)."""

_SYSTEM_CALL = re.compile(
    r"(?:__(?:x64|ia32|arm64|s390x?|se|do|riscv|powerpc)_)?(?:compat_)?(?:sys|SyS|SYSC|ksys)_(?P<name>\w+)"
)


def judge_harm(failure: Failure, caller: Caller | None) -> Harm:
    """Return what the failure leads to; "unknown" where the log and the tables do not say."""
    logged = failure.logged
    if logged.killed is not None:
        killed = logged.killed
        sizes = (killed.anon_rss_kb, killed.file_rss_kb, killed.shmem_rss_kb)
        held = sum(size or 0 for size in sizes)
        had = f", which held {amount(held)}" if held else ""
        group = ", and every other process of its cgroup (memory.oom.group)" if logged.kills_group else ""
        why = f"the OOM killer killed {killed.comm} (pid {killed.pid}){had}{group}"
        return Harm("killed", why, "certain", killed.line)
    by_event = _BY_EVENT.get(logged.event)
    return by_event(failure) if by_event is not None else _of_caller(failure, caller)


def _oom(failure: Failure) -> Harm:
    if failure.logged.panic is not None:
        line, why = failure.logged.panic
        return Harm("failed", f"no process was killed: the kernel panicked ({why})", "certain", line)
    if failure.logged.no_victim is not None:
        why = "no process could be killed: each is exempt (oom_score_adj -1000), a kernel thread, or about to end"
        asked = has_request(failure.logged)
        return Harm("failed" if asked else "unknown", why, "likely" if asked else "unknown", failure.logged.no_victim)
    why = "the log does not show which process was killed"
    return Harm("unknown", why, "unknown", failure.logged.line)


def _stall(failure: Failure) -> Harm:
    why = "the request had not failed: it went on trying, and its task waited"
    return Harm("retried", why, "certain", failure.logged.line)


def _memory(failure: Failure) -> Harm:
    asked = "the request is the one that the options name" if has_request(failure.logged) else "no request that failed"
    why = f"the log shows the state of memory, and {asked}"
    return Harm("unknown", why, "unknown", failure.logged.line)


def _vmemmap(failure: Failure) -> Harm:
    """Source: `vmemmap_populate_hugepages` and `vmemmap_alloc_block`, mm/sparse-vmemmap.c of 6.x."""
    if failure.logged.order > 0:
        why = "the array of struct page is mapped with small pages instead"
        return Harm("fallback", why, "certain", failure.logged.line)
    return Harm("failed", "the memory that was to be added cannot be used", "likely", failure.logged.line)


def _vmap(failure: Failure) -> Harm:
    return Harm("failed", "vmalloc returned no address, and its caller got nothing", "likely", failure.logged.line)


def _cma(failure: Failure) -> Harm:
    """Source: `__dma_direct_alloc_pages`, kernel/dma/direct.c: first CMA, then `alloc_pages_node`."""
    pages, line = failure.logged.pages, failure.logged.line
    if pages is not None and pages > 1 << LARGEST_ORDER:
        why = f"{pages:,} pages are more than any block outside CMA areas, so the DMA layer has no other way"
        return Harm("failed", why, "likely", line)
    if pages is None or pages > 1 << PAGE_ALLOC_COSTLY_ORDER:
        why = "the DMA layer asks for ordinary pages after CMA, but for many at once it may not get them either"
        return Harm("unknown", why, "unknown", line)
    return Harm("fallback", "the DMA layer asks for ordinary pages after CMA", "likely", line)


def _slub(failure: Failure) -> Harm | None:
    """A packet needs its head first: "skbuff_head_cache" and "skbuff_fclone_cache", net/core/skbuff.c."""
    cache = failure.logged.cache
    if cache is None or not cache.name.startswith("skbuff_") or failure.attempt.direct_reclaim is not False:
        return None
    why = "the network drops a packet for which it gets no memory; TCP sends it again"
    return Harm("dropped", why, "likely", failure.logged.line)


def _contig(failure: Failure) -> Harm:
    """Source: the loop of `cma_alloc`, mm/cma.c."""
    why = "one range could not be emptied; who allocates ranges tries the next one"
    return Harm("retried", why, "likely", failure.logged.line)


def _hugetlb(failure: Failure) -> Harm:
    return Harm("failed", "there are fewer huge pages than were asked for", "certain", failure.logged.line)


def _warning(failure: Failure) -> Harm:
    """Source: mm/page_alloc.c: only the warning of too large an order returns NULL; `rmqueue` and the others go on."""
    line = failure.logged.line
    if failure.conclusion == "order_too_large":
        why = "a request that no block can hold gets nothing (a WARNING of mm/page_alloc.c)"
        return Harm("failed", why, "likely", line)
    if was_freeing(failure.logged):
        return Harm("unknown", "no request failed: pages were being given back", "unknown", line)
    why = "the warning alone fails no request; whether this one got its pages is not shown"
    return Harm("unknown", why, "unknown", line)


_BY_EVENT: dict[str, Callable[[Failure], Harm]] = {
    "oom": _oom,
    "stall": _stall,
    "memory": _memory,
    "vmemmap": _vmemmap,
    "vmap": _vmap,
    "cma": _cma,
    "contig": _contig,
    "hugetlb": _hugetlb,
    "warning": _warning,
}


def _of_caller(failure: Failure, caller: Caller | None) -> Harm:
    line = caller.line if caller is not None else None
    known = _fallback(failure)
    if known is not None:
        return Harm(known.harm, known.why, known.certainty, line)
    slub = _slub(failure)
    if slub is not None:
        return slub
    if failure.logged.event == "vmalloc" and failure.logged.order > 0:
        why = "vmalloc tries large pages first, and single pages after them"
        return Harm("fallback", why, "likely", failure.logged.line)
    if has_flags(failure, "__GFP_NORETRY"):
        why = "__GFP_NORETRY is for callers that have another way at small cost"
        return Harm("fallback", why, "likely", failure.logged.line)
    return _unknown(failure, caller)


def _fallback(failure: Failure) -> Fallback | None:
    atomic = None if failure.attempt.direct_reclaim is None else not failure.attempt.direct_reclaim
    for frame in frames_to_caller(failure.logged):
        for row in FALLBACKS:
            if (
                row.functions.fullmatch(name_of(frame))
                and failure.logged.order in row.orders
                and has_flags(failure, *row.names)
                and row.atomic in (None, atomic)
            ):
                return row
    return None


def _unknown(failure: Failure, caller: Caller | None) -> Harm:
    """Return what is known of a caller that the table does not have."""
    line = caller.line if caller is not None else failure.logged.line
    if any(finding.kind in ("boot_mask", "nothing_given") for finding in findings_of(failure)):
        return Harm(
            "unknown", "this was early in boot; the lines after it show whether the boot went on", "unknown", line
        )
    if failure.attempt.direct_reclaim is False:
        why = "a request that cannot wait may fail at any time; its caller must be ready for that"
        return Harm("unknown", why, "unknown", failure.logged.line)
    who = f"{caller.function} got no memory" if caller is not None else "the log does not show who got no memory"
    entered = _system_call(failure)
    if entered is not None:
        who += f"; without another way the system call {entered} returns an error"
    elif caller is not None:
        who += "; whether it has another way is not known"
    return Harm("unknown", who, "unknown", line)


def _system_call(failure: Failure) -> str | None:
    for frame in reversed(reliable_frames(failure.logged.trace)):
        match = _SYSTEM_CALL.fullmatch(name_of(frame))
        if match is not None:
            return match["name"]
    return None
