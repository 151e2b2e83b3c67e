# SPDX-License-Identifier: MIT
"""Why a request failed, from the states of zones alone."""

from dataclasses import replace

import pytest

from kalloctrace.diagnose.diagnosis import judge_zones
from kalloctrace.diagnose.zones import AllocationAttempt, Diagnosis, Remedy
from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.flags.releases import parse_release
from kalloctrace.kernel.watermark_rules import watermark_rules
from kalloctrace.model.slowpath.flags import Condition
from kalloctrace.model.watermark import FreeBlocks, Watermarks, ZoneState

DMA32, NORMAL, MOVABLE = 1, 2, 3
CPUSET, HARDER, HIGH, OOM, NO_WATERMARKS = 0x40, 0x10, 0x20, 0x8, 0x4
MOVABLE_BLOCK = frozenset({"MIGRATE_MOVABLE"})


def kernel(release: str) -> Watermarks:
    """Return the check of a built-in release."""
    return Watermarks(watermark_rules(parse_release(release)), builtin_tables(release).bits)


def zone(node: int, index: int, free: int, *, largest: int = 10, **more: object) -> ZoneState:
    """Return a zone of min 1000 pages that has movable blocks of each order up to the largest."""
    state = ZoneState(
        node=node,
        zone=("DMA", "DMA32", "Normal", "Movable")[index],
        index=index,
        free=free,
        watermarks=(1000, 1250, 1500),
        boost=0,
        reserved_highatomic=0,
        free_highatomic=0,
        free_cma=0,
        lowmem_reserve=(0, 0, 400 if index == DMA32 else 0, 500),
        blocks=tuple(FreeBlocks(int(order <= largest), MOVABLE_BLOCK) for order in range(11)),
    )
    return replace(state, **more)  # type: ignore[arg-type]


KERNEL = AllocationAttempt(order=0, alloc_flags=CPUSET, highest_zoneidx=NORMAL, direct_reclaim=True)


def changes(answer: Diagnosis) -> dict[str, Remedy]:
    """Return the remedies by what they change."""
    return {remedy.change: remedy for remedy in answer.remedies}


def test_too_few_pages() -> None:
    """A zone at its watermark refuses; the answer names the least change that would have done."""
    answer = judge_zones(kernel("5.10"), KERNEL, [zone(0, NORMAL, 900)])
    assert (answer.conclusion, answer.certain) == ("watermark", True)
    found = changes(answer)
    # More than 899 is left with a watermark of 899.
    assert found["min_free_kbytes"] == Remedy("min_free_kbytes", 0, "Normal", 899)
    assert {"gfp_high", "gfp_atomic", "gfp_memalloc"} <= found.keys()
    # It may reclaim already, and the watermark has no boost and no reserve in it.
    assert not {"direct_reclaim", "watermark_boost", "lowmem_reserve", "smaller_order"} & found.keys()


def test_no_block() -> None:
    """A zone with enough pages and no block shows its largest order."""
    answer = judge_zones(kernel("6.12"), replace(KERNEL, order=4), [zone(0, NORMAL, 5000, largest=2)])
    assert (answer.conclusion, answer.certain) == ("block", True)
    assert changes(answer)["smaller_order"] == Remedy("smaller_order", 0, "Normal", 2)
    # Reserves and watermarks are of no help then.
    assert changes(answer).keys() == {"smaller_order"}


def test_a_smaller_order_must_pass_the_watermark_too() -> None:
    """Where the pages do not suffice for any order, none is offered."""
    answer = judge_zones(kernel("6.12"), replace(KERNEL, order=4), [zone(0, NORMAL, 900, largest=2)])
    assert "smaller_order" not in changes(answer)


def test_both_reasons() -> None:
    """Zones that refuse for different reasons make a mixed conclusion."""
    answer = judge_zones(
        kernel("6.12"), replace(KERNEL, order=4), [zone(0, DMA32, 1100), zone(0, NORMAL, 5000, largest=2)]
    )
    assert answer.conclusion == "mixed"
    assert [verdict.kind for verdict in answer.zones] == ["watermark", "block"]


def test_lowmem_reserve_alone() -> None:
    """A lower zone that would serve its own requests is named as such."""
    answer = judge_zones(kernel("6.12"), KERNEL, [zone(0, DMA32, 1200)])
    assert answer.conclusion == "watermark"
    assert changes(answer)["lowmem_reserve"] == Remedy("lowmem_reserve", 0, "DMA32")


def test_boost_alone() -> None:
    """A watermark that is too high by its boost only is named as such."""
    answer = judge_zones(kernel("6.12"), KERNEL, [zone(0, NORMAL, 900, boost=300)])
    assert changes(answer)["watermark_boost"] == Remedy("watermark_boost", 0, "Normal")
    # 900 > 300 + 599.
    assert changes(answer)["min_free_kbytes"].value == 599


def test_cma_pages_alone() -> None:
    """Pages that only movable requests may use are named as such."""
    answer = judge_zones(kernel("6.12"), KERNEL, [zone(0, NORMAL, 1500, free_cma=600)])
    assert changes(answer)["gfp_movable"] == Remedy("gfp_movable", 0, "Normal")


def test_direct_reclaim() -> None:
    """For a request that may not reclaim the pages are counted that would have to be freed."""
    atomic = replace(KERNEL, alloc_flags=HIGH | HARDER, direct_reclaim=False)
    zones = [zone(0, DMA32, 300), zone(0, NORMAL, 370)]
    # 500 of 1000 pages, for who waits has no ALLOC_NON_BLOCK, and 400 more in DMA32.
    answer = judge_zones(kernel("6.12"), atomic, zones)
    assert changes(answer)["direct_reclaim"] == Remedy("direct_reclaim", 0, "Normal", 131)
    order = replace(atomic, order=4)
    assert changes(judge_zones(kernel("6.12"), order, [zone(0, NORMAL, 370, largest=2)]))["direct_reclaim"].needs_block


def test_reclaim_frees_pages_only_where_the_cpuset_allows() -> None:
    """A request that can wait stays in its cpuset: gfp_to_alloc_flags clears ALLOC_CPUSET for an atomic one alone."""
    atomic = replace(KERNEL, alloc_flags=HIGH | HARDER, direct_reclaim=False, mems_allowed=0b01, hardwall=True)
    # More than 500 pages are needed. Node 1 lacks fewer of them, but it is outside the cpuset.
    answer = judge_zones(kernel("6.12"), atomic, [zone(0, NORMAL, 370), zone(1, NORMAL, 374)])
    assert changes(answer)["direct_reclaim"] == Remedy("direct_reclaim", 0, "Normal", 131)


def test_zone_limit() -> None:
    """Zones above the mask's are excluded, and would have served."""
    limited = replace(KERNEL, highest_zoneidx=DMA32)
    answer = judge_zones(kernel("6.12"), limited, [zone(0, DMA32, 100), zone(0, NORMAL, 5000)])
    assert [verdict.excluded_by for verdict in answer.zones] == [None, "highest_zoneidx"]
    assert changes(answer)["zone_modifier"] == Remedy("zone_modifier", 0, "Normal")


@pytest.mark.parametrize(
    ("limit", "attempt"),
    [
        ("nodemask", replace(KERNEL, nodemask=0b01)),
        ("cpuset", replace(KERNEL, mems_allowed=0b01, hardwall=True)),
        ("THISNODE", replace(KERNEL, thisnode=True, preferred_nid=0)),
    ],
)
def test_node_limit(limit: str, attempt: AllocationAttempt) -> None:
    """A node that a limit closes is named with it, and would have served."""
    answer = judge_zones(kernel("6.12"), attempt, [zone(0, NORMAL, 100), zone(1, NORMAL, 5000)])
    assert [verdict.excluded_by for verdict in answer.zones] == [None, limit]
    assert changes(answer)[limit] == Remedy(limit, 1, "Normal")  # type: ignore[arg-type]


def test_atomic_requests_leave_the_cpuset() -> None:
    """Without ALLOC_CPUSET the cpuset closes nothing."""
    attempt = replace(KERNEL, alloc_flags=HIGH | HARDER, mems_allowed=0b01, hardwall=True)
    assert judge_zones(kernel("6.12"), attempt, [zone(1, NORMAL, 5000)]).conclusion == "passes"


def test_without_hardwall_an_ancestor_may_allow_the_node() -> None:
    """A node outside the cpuset is certainly excluded only if __GFP_HARDWALL is set."""
    verdict = judge_zones(kernel("6.12"), replace(KERNEL, mems_allowed=0b01), [zone(1, NORMAL, 5000)]).zones[0]
    assert (verdict.kind, verdict.certain) == ("passes", False)


def test_every_zone_excluded() -> None:
    """A request that may use no zone has the conclusion no_zone."""
    answer = judge_zones(kernel("6.12"), replace(KERNEL, nodemask=0b10), [zone(0, NORMAL, 5000)])
    assert (answer.conclusion, answer.certain) == ("no_zone", True)


def test_a_state_that_would_do_explains_nothing() -> None:
    """Where the state would have let it pass, the failure is not explained for certain."""
    answer = judge_zones(kernel("6.12"), KERNEL, [zone(0, NORMAL, 5000)])
    assert (answer.conclusion, answer.certain, answer.remedies) == ("passes", False, ())


def test_conditions() -> None:
    """A condition under which it would have passed is refuted by the failure; one that leaves doubt is not."""
    rich = Condition("oom_victim", NO_WATERMARKS)
    verdict = judge_zones(kernel("5.10"), replace(KERNEL, conditions=(rich,)), [zone(0, NORMAL, 900)]).zones[0]
    assert (verdict.passes_if, verdict.unless, verdict.certain) == (("oom_victim",), (), True)
    doubtful = zone(0, NORMAL, 900, reserved_highatomic=None)
    high = Condition("real_time", CPUSET | HIGH)
    verdict = judge_zones(kernel("5.10"), replace(KERNEL, conditions=(high,)), [doubtful]).zones[0]
    assert (verdict.kind, verdict.unless, verdict.certain) == ("watermark", ("real_time",), False)


def test_no_watermarks() -> None:
    """A request that ignores watermarks has no other flags of its mask, so none could be added."""
    blocks = tuple(FreeBlocks(1, frozenset({"MIGRATE_HIGHATOMIC"})) for _ in range(11))
    state = zone(0, NORMAL, 900, blocks=blocks)
    answer = judge_zones(
        kernel("6.1"), AllocationAttempt(order=2, alloc_flags=NO_WATERMARKS, highest_zoneidx=NORMAL), (state,)
    )
    assert answer.conclusion == "block"
    assert not {"gfp_high", "gfp_atomic"} & set(changes(answer))


def test_fast_path() -> None:
    """At the low watermark no flag of the mask opens the reserves, so none is named."""
    answer = judge_zones(kernel("7.3"), replace(KERNEL, alloc_flags=1), (zone(0, NORMAL, 700),))
    assert answer.conclusion == "watermark"
    assert set(changes(answer)) == {"min_free_kbytes"}
    slow = judge_zones(kernel("7.3"), KERNEL, (zone(0, NORMAL, 700),))
    assert {"gfp_high", "gfp_atomic", "gfp_memalloc"} <= set(changes(slow))


def test_who_waits_has_less_of_the_reserves() -> None:
    """GFP_ATOMIC with __GFP_DIRECT_RECLAIM may go down to 500 of 1000 pages, without it to 375."""
    state = zone(0, NORMAL, 300)
    for release in ("5.10", "7.3"):
        atomic = replace(KERNEL, alloc_flags=HIGH | HARDER, direct_reclaim=False)
        assert changes(judge_zones(kernel(release), atomic, (state,)))["direct_reclaim"].value == 201


def test_a_request_that_waits_stays_in_its_cpuset() -> None:
    """With __GFP_DIRECT_RECLAIM an atomic request has ALLOC_CPUSET, so reclaim in another node would not help it."""
    for release in ("5.10", "7.3"):
        atomic = replace(KERNEL, alloc_flags=HIGH | HARDER, direct_reclaim=False, mems_allowed=0b01, hardwall=True)
        inside = judge_zones(kernel(release), atomic, (zone(0, NORMAL, 300),))
        outside = judge_zones(kernel(release), atomic, (zone(1, NORMAL, 300),))
        assert (inside.conclusion, outside.conclusion) == ("watermark", "watermark")
        assert "direct_reclaim" in changes(inside)
        assert "direct_reclaim" not in changes(outside)


def test_memory_that_is_used_up() -> None:
    """In an OOM report no reserve is named, unless a zone could get to its high watermark and its lowmem_reserve."""
    killed = replace(KERNEL, oom=True)
    low = zone(0, DMA32, 1390, watermarks=(1000, 1100, 1250), reclaimable=0)
    assert judge_zones(kernel("6.12"), killed, [low]).remedies == ()
    for more in ({"reclaimable": 300}, {"swappable": 300}, {"boost": 300}):
        answer = judge_zones(kernel("6.12"), killed, [replace(low, **more)])  # type: ignore[arg-type]
        assert "gfp_high" in changes(answer)
    # A smaller order or another zone would have been served: then memory is not used up.
    assert "smaller_order" in changes(
        judge_zones(kernel("6.12"), replace(killed, order=4), [zone(0, NORMAL, 5000, largest=2)])
    )
