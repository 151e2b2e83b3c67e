# SPDX-License-Identifier: MIT
"""A recorded call of the slow path, judged: each field of its row, and which of its attempts decides."""

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.from_trace import slow_failure, slow_start
from kalloctrace.diagnose.reports.model import Frame
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.watermark import FreeBlocks, ZoneState
from kalloctrace.trace.reader import TraceReader
from tests.traces import UNDER_PRESSURE, Row

GFP_KERNEL, GFP_ATOMIC = 0xCC0, 0x820
MIN, LOW = 0x840, 0x841
"""ALLOC_CPUSET and ALLOC_KSWAPD, at the min and at the low watermark."""

ARGUMENTS: Row = {
    "ac_alloc_flags": 0,
    "ac_nodemask": "null",
    "ac_nodemask_nodes": None,
    "cpusets_enabled": 0,
    "defrag_mode": False,
    "gfp_allowed_mask": 0xFFFFFF,
    "gfp_mask": GFP_KERNEL,
    "highest_zoneidx": 2,
    "mems_allowed": "0-1",
    "migratetype": 0,
    "oom_victim": False,
    "order": 0,
    "preempt_count": 1,
    "preferred_node": 0,
    "preferred_zone": 2,
    "prio": 120,
    "softirq_disable_cnt": None,
    "spread_dirty_pages": False,
    "task_flags": 0,
    "zonelist_kind": "FALLBACK",
    "zonelist_nid": 0,
}
ATTEMPT: Row = {**ARGUMENTS, "after": 5, "between": [], "alloc_flags": MIN}
ZONE: Row = {
    "at": "returns",
    "node": 1,
    "zone": 2,
    "free": 345,
    "min": 210,
    "low": 6601,
    "high": 12992,
    "boost": 100,
    "free_blocks": [3, 4],
    "free_types": [0b10, 0b101],
    "free_cma": 7,
    "free_highatomic": 8,
    "reserved_highatomic": 9,
    "lowmem_reserve": [0, 1, 2, 3, 4],
    "managed": 63914,
}
CALL: Row = {
    "after_last": [],
    "comm": "web",
    "complete": True,
    "cpu": 0,
    "duration": 4_121_116,
    "page": False,
    "pid": 166,
    "tid": 166,
    "time": 9,
    "stack": "do_syscall_64;[mine];alloc_pages",
    "given": ARGUMENTS,
    "attempts": [ATTEMPT],
    "zones": [ZONE],
}


@cache
def recorded() -> Snapshot:
    """Return a kernel of 7.3."""
    with TraceReader(UNDER_PRESSURE) as trace:
        return trace.snapshot


def call(zone: dict[str, Any] | None = None, attempt: dict[str, Any] | None = None, **more: Any) -> Row:  # noqa: ANN401
    """Return a call with other values."""
    made = {**copy.deepcopy(CALL), **more}
    for name, change in (("zones", zone), ("attempts", attempt)):
        for row in made[name]:
            row.update(change or {})
    return made


def failed(**changes: Any) -> Failure:  # noqa: ANN401
    """Return the diagnosis of a call that found no page."""
    return slow_failure(recorded(), call(**changes))


def test_a_zone() -> None:
    """The watermarks that are recorded have no boost; each bit of a mask is a type."""
    why = failed().why
    assert why is not None
    [verdict] = why.zones
    assert verdict.state == ZoneState(
        node=1,
        zone="Normal",
        index=2,
        free=345,
        watermarks=(310, 6701, 13092),
        boost=100,
        reserved_highatomic=9,
        free_highatomic=8,
        free_cma=7,
        lowmem_reserve=(0, 1, 2, 3, 4),
        managed=63914,
        blocks=(
            FreeBlocks(3, frozenset({"MIGRATE_MOVABLE"})),
            FreeBlocks(4, frozenset({"MIGRATE_UNMOVABLE", "MIGRATE_RECLAIMABLE"})),
        ),
    )


def test_the_request() -> None:
    """The arguments of the attempt, not those that the slow path was given."""
    more = {"gfp_mask": GFP_KERNEL | 0x100000, "ac_nodemask_nodes": "0,2", "highest_zoneidx": 1, "alloc_flags": MIN | 4}
    attempt = failed(attempt={**more, "cpusets_enabled": 1, "zonelist_kind": "NOFALLBACK", "zonelist_nid": 1}).attempt
    assert (attempt.order, attempt.alloc_flags, attempt.highest_zoneidx) == (0, MIN | 4, 1)
    assert (attempt.gfp_mask, attempt.direct_reclaim) == (GFP_KERNEL | 0x100000, True)
    assert (attempt.nodemask, attempt.mems_allowed, attempt.thisnode, attempt.preferred_nid) == (0b101, 0b11, True, 1)
    plain = failed().attempt
    assert (plain.nodemask, plain.mems_allowed, plain.thisnode, plain.preferred_nid) == (None, None, False, 0)
    assert (plain.hardwall, plain.nomemalloc, plain.oom) == (False, False, False)
    tables = recorded().tables
    for name, member in (("__GFP_HARDWALL", "hardwall"), ("__GFP_NOMEMALLOC", "nomemalloc")):
        assert getattr(failed(attempt={"gfp_mask": GFP_KERNEL | tables.gfp(name)}).attempt, member) is True
    assert failed(attempt={"gfp_mask": GFP_ATOMIC}).attempt.direct_reclaim is False


def test_what_a_log_would_say() -> None:
    """Of the call as the slow path was given it."""
    found = failed(attempt={"mems_allowed": "1", "ac_nodemask_nodes": "0"}, given={**ARGUMENTS, "order": 3})
    logged = found.logged
    assert (logged.event, logged.comm, logged.order, logged.waited) == ("failure", "web", 3, None)
    assert (logged.line, logged.nodemask, logged.mems_allowed) == (0, "0", "1")
    assert logged.trace == (
        Frame("alloc_pages", None, reliable=True),
        Frame("[mine]", "mine", reliable=True),
        Frame("do_syscall_64", None, reliable=True),
    )
    assert failed().logged.nodemask == "(null)"
    assert (found.source, found.gfp_text, found.highest_zone) == ("trace", "GFP_KERNEL", "Normal")
    assert (found.kernel, found.tables, found.page_kb) == (recorded().release, recorded().tables, 4)
    assert found.attempt.order == 3
    none = failed(given={**ARGUMENTS, "gfp_mask": 0, "highest_zoneidx": 1})
    assert (none.gfp_text, none.highest_zone) == ("no flags", "DMA32")


def test_zones_that_were_not_copied() -> None:
    """Those of the other moment do not count; without any nothing is known."""
    other = failed(zone={"at": "begins"})
    assert other.why is None
    assert other.missing == ("the zones: there was no room for them",)
    assert failed().missing == ()
    assert failed(zones=[]).why is None


def attempts(*flags: int) -> list[Row]:
    """Return attempts with these flags."""
    return [{**ATTEMPT, "alloc_flags": each} for each in flags]


def test_the_attempt_that_decides() -> None:
    """The last one at the min watermark."""
    assert failed(attempts=attempts(LOW, MIN | 8, MIN | 16, LOW)).attempt.alloc_flags == MIN | 16
    assert failed(attempts=attempts(MIN | 16, MIN | 8)).attempt.alloc_flags == MIN | 8


@pytest.mark.parametrize("tried", [[], [LOW]])
def test_a_call_without_such_an_attempt(tried: list[int]) -> None:
    """The flags that it would have had: `gfp_to_alloc_flags` of 7.3, for GFP_KERNEL and for GFP_ATOMIC."""
    bits = recorded().tables.bits
    kernel = failed(attempts=attempts(*tried)).attempt
    assert kernel.alloc_flags == bits.alloc_cpuset | bits.alloc_kswapd
    assert kernel.gfp_mask == GFP_KERNEL
    atomic = failed(attempts=attempts(*tried), given={**ARGUMENTS, "gfp_mask": GFP_ATOMIC, "order": 1}).attempt
    assert atomic.alloc_flags == (
        bits.alloc_min_reserve | bits.alloc_non_block | bits.alloc_highatomic | bits.alloc_kswapd
    )


def test_the_counter_of_high_order_atomic_pages() -> None:
    """What the trace has of it decides."""
    assert failed().rules.highatomic == "free"
    old = replace(recorded(), release="6.6.30", version="")
    assert slow_failure(old, call()).rules.highatomic == "free"
    assert slow_failure(old, call(zone={"free_highatomic": None})).rules.highatomic == "reserved"


def started(**changes: Any) -> Failure:  # noqa: ANN401
    """Return why the fast path of a call found no page."""
    snapshot = recorded()
    made = call(**{"zone": {"at": "begins"}, "page": True, **changes})
    return slow_start(snapshot, Kernel.of(snapshot), made)


def test_the_fast_path() -> None:
    """It checks the low watermark: `prepare_alloc_pages` gives ALLOC_WMARK_LOW, and ALLOC_CPUSET if cpusets are on."""
    found = started()
    assert (found.logged.event, found.logged.waited) == ("stall", "4.1 ms")
    assert found.attempt.alloc_flags & 3 == 1
    assert found.attempt.gfp_mask == GFP_KERNEL
    assert found.why is not None
    assert found.why.zones[0].check is not None
    assert (found.why.zones[0].check.watermark, found.why.zones[0].check.mark) == ("low", 6701)
    assert started(duration=None).logged.waited is None
    assert started(duration=2_500_000_000).logged.waited == "2,500.0 ms"
    # Its zones are those when the slow path began.
    assert started(zone={"at": "returns"}).why is None


def test_a_fast_path_that_is_not_known() -> None:
    """The zonelist of the request was not captured."""
    found = started(given={**ARGUMENTS, "zonelist_nid": None})
    assert (found.why, found.attempt.alloc_flags) == (None, 0)
    assert (found.logged.event, found.logged.waited) == ("stall", "4.1 ms")
    [missing] = found.missing
    assert missing.startswith("what the fast path asked for (")
