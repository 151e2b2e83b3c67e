# SPDX-License-Identifier: MIT
"""What kind of report a log has: of which limit, of a request or of none, of its own state or of another's."""

import re

from kalloctrace.diagnose.reports.model import LoggedFailure, LoggedZone
from kalloctrace.diagnose.reports.writer import TOLERANCE
from kalloctrace.diagnose.states import is_shown, populated

_REFUSED = re.compile(r"allocation failure: \d+ bytes\b")

_ENTRIES = ("__alloc_pages_nodemask", "__alloc_pages", "__alloc_pages_noprof", "__alloc_frozen_pages_noprof")
_LATER = ("__alloc_pages_slowpath", "get_page_from_freelist", "rmqueue")


def order_is_too_large(logged: LoggedFailure) -> bool:
    """Return whether a WARNING likely is that of an order above the largest.

    It is the only one of the allocator's entry function; but a compiler may inline functions with other warnings, as
    on arm64. Source: mm/page_alloc.c of Linux 4.19 to 7.3.
    """
    return warned_in(logged) in _ENTRIES


def must_not_fail(logged: LoggedFailure) -> bool:
    """Return whether a WARNING likely is one of those about a __GFP_NOFAIL request.

    `rmqueue` warns of one of order 2 or more, `__alloc_pages_slowpath` of one that may not reclaim or that a task makes
    which frees memory itself. Source: mm/page_alloc.c of Linux 4.8 to 7.3.
    """
    return warned_in(logged) in _LATER


def was_freeing(logged: LoggedFailure) -> bool:
    """Return whether a WARNING was raised where pages are given back, as by __free_one_page or free_unref_page."""
    return warned_in(logged).lstrip("_").startswith("free_")


def warned_in(logged: LoggedFailure) -> str:
    """Return the function that a WARNING of mm/page_alloc.c names; empty if it names none."""
    if logged.event != "warning" or not logged.warning_text:
        return ""
    return logged.warning_text.split()[-1].partition("+")[0].partition(".")[0]


def refused_before_pages(logged: LoggedFailure) -> bool:
    """Return whether vmalloc gave up before it asked for pages, so that the zones played no part.

    Either its size was 0 or more than the whole memory, or it got no range of addresses. Up to 5.11 one line was for
    both, "vmalloc: allocation failure: N bytes"; without pages it said "allocated N of M bytes". Source:
    `__vmalloc_node_range`, mm/vmalloc.c of Linux 3.2 to 7.3.
    """
    text = logged.warning_text or ""
    return logged.event == "vmalloc" and (_REFUSED.match(text) is not None or "exceeds total pages" in text)


def vmalloc_size_is_refused(logged: LoggedFailure, page_kb: int | None) -> bool | None:
    """Return whether vmalloc refused a size, for which there is not enough memory at all.

    Args:
        logged: a report that `refused_before_pages`.
        page_kb: the page size in kB; None if it is not known.

    Returns:
        False if its size would do, so that addresses were missing; None if the log does not show which it was.
    """
    if "exceeds total pages" in (logged.warning_text or "") or logged.size == 0:
        return True
    if logged.size is None or logged.total_ram_pages is None or logged.reserved_pages is None or page_kb is None:
        return None
    pages = -(-logged.size // (page_kb << 10))
    if pages > logged.total_ram_pages:
        return True
    return False if pages <= logged.total_ram_pages - logged.reserved_pages else None


def is_by_bpf(logged: LoggedFailure) -> bool:
    """Return whether a BPF program called the OOM killer, so that neither a request nor a limit has to be the cause.

    `bpf_out_of_memory` of Roman Gushchin's series "mm: BPF OOM" does it. A program that only chooses whom to kill
    (`bpf_handle_oom`) runs below `out_of_memory`, which a request or a limit has called as ever.
    """
    return logged.event == "oom" and any(
        frame.reliable and frame.function == "bpf_out_of_memory" for frame in logged.trace
    )


def is_memcg(logged: LoggedFailure) -> bool:
    """Return whether the limit of a memory cgroup caused the report."""
    if is_by_bpf(logged):
        return False
    return logged.memcg or logged.constraint == "memcg" or is_cgroup_cache(logged)


def is_cgroup_cache(logged: LoggedFailure) -> bool:
    """Return whether the slab cache that could not grow is a memory cgroup's, so that likely its limit was reached.

    Each cgroup had its own caches in Linux 3.8 to 5.8, whose pages were charged to it: `charge_slab_page`, mm/slab.h.
    """
    return logged.cache is not None and logged.cache.cgroup is not None


def policy_binds(logged: LoggedFailure) -> bool:
    """Return whether an OOM report shows that a memory policy binds the request to some nodes.

    4.19 prints the constraint. Since 4.9 the nodemask is printed, and it is kept for a memory policy alone
    (`out_of_memory`, mm/oom_kill.c); 4.9 and 4.10 print the nodes of the cpuset where there is none.
    """
    if logged.constraint is not None or logged.event != "oom":
        return logged.constraint == "mempolicy"
    return logged.nodemask not in (None, "(null)", logged.mems_allowed) and logged.mems_allowed is not None


def has_request(logged: LoggedFailure) -> bool:
    """Return whether the report is of a request whose mask and order decide.

    A person invokes the OOM killer with a negative order (SysRq f). `pagefault_out_of_memory` calls it with an empty
    mask: which request failed is not known there (mm/oom_kill.c of Linux 2.6.35 to 7.3).
    """
    if logged.event == "oom":
        if is_by_bpf(logged):
            return False
        page_fault = logged.mask is not None and logged.mask.value == 0 and not logged.mask.printed
        return logged.order >= 0 and not page_fault
    return logged.event != "memory" or (logged.mask is not None and logged.order_shown)


def shows_request(logged: LoggedFailure) -> bool:
    """Return whether a report shows its request: of an OOM report whose first line is missing, nothing is known."""
    return logged.event != "oom" or logged.mask is not None or logged.order_shown


def older_state(logged: LoggedFailure) -> bool:
    """Return whether the state in the report is older than the failure, so that it is likely another failure's."""
    return logged.state_age is not None and logged.state_age < -TOLERANCE


def nothing_given(logged: LoggedFailure) -> bool:
    """Return whether no page has been given to the page allocator yet.

    `memblock_free_all` gives it the first ones, and `init_per_zone_wmark_min`, an initcall, sets the watermarks.
    Source: init/main.c and mm/page_alloc.c of Linux 2.6 to 7.3.
    """
    zones = populated(logged.zones)
    managed = any(zone.kilobytes.get("managed", zone.kilobytes.get("present", 0)) for zone in zones)
    return managed and all(is_shown(zone) and _is_empty(zone) for zone in zones)


def _is_empty(zone: LoggedZone) -> bool:
    listed = any(block.number for block in zone.blocks or ())
    return not listed and not any(zone.kilobytes[name] for name in ("free", "min", "low", "high"))
