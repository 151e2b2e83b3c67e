# SPDX-License-Identifier: MIT
"""What kind of report a log has: of which limit, of a request or of none, of its own state or of another's."""

from kalloctrace.diagnose.reports.model import LoggedFailure, LoggedZone
from kalloctrace.diagnose.states import is_shown, populated

STATE_TOLERANCE = 0.001
"""Seconds by which the clocks of two lines of one report may disagree: those of CPUs are not quite the same."""

ENTRIES = ("__alloc_pages_nodemask", "__alloc_pages", "__alloc_pages_noprof", "__alloc_frozen_pages_noprof")
"""The functions that warn of an order above the largest; others that warn may be inlined into them."""


def warned_in(logged: LoggedFailure) -> str:
    """Return the function that a WARNING names; empty if it names none."""
    return logged.trace[0].function if logged.trace else ""


def is_memcg(logged: LoggedFailure) -> bool:
    """Return whether the limit of a memory cgroup caused the report.

    `mem_cgroup_out_of_memory` in a call trace is enough: nothing but the charge of a memory cgroup calls it.
    Source: mm/memcontrol.c of Linux 2.6.25 to 7.3.
    """
    called = (frame.function for frame in logged.trace if frame.reliable)
    return logged.memcg or logged.constraint == "memcg" or (logged.event == "oom" and _MEMCG_OOM in called)


_MEMCG_OOM = "mem_cgroup_out_of_memory"


def has_request(logged: LoggedFailure) -> bool:
    """Return whether the report is of a request whose mask and order decide.

    A person invokes the OOM killer with a negative order (SysRq f). `pagefault_out_of_memory` calls it with an empty
    mask: which request failed is not known there (mm/oom_kill.c of Linux 2.6.35 to 7.3).
    """
    if logged.event == "oom":
        page_fault = logged.mask is not None and logged.mask.value == 0 and not logged.mask.printed
        return logged.order >= 0 and not page_fault
    return logged.event != "memory" or (logged.mask is not None and logged.order_shown)


def older_state(logged: LoggedFailure) -> bool:
    """Return whether the state in the report is older than the failure, so that it is likely another failure's."""
    return logged.state_age is not None and logged.state_age < -STATE_TOLERANCE


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
