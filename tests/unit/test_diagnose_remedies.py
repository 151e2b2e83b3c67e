# SPDX-License-Identifier: MIT
"""What would have let a request succeed: each change alone, at the number where it begins to help."""

from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.diagnose.diagnosis import judge_zones
from kalloctrace.diagnose.zones import Remedy
from kalloctrace.model.watermark import FreeBlocks, Watermarks, ZoneState
from tests.unit.test_diagnose_zones import CPUSET, DMA32, HARDER, HIGH, KERNEL, MOVABLE, NORMAL, kernel, zone

OLD, LTS = kernel("5.10"), kernel("6.12")
BITS = LTS.bits
ATOMIC: dict[str, Any] = {
    "alloc_flags": BITS.alloc_high | BITS.alloc_min_reserve | BITS.alloc_non_block | BITS.alloc_highatomic,
    "direct_reclaim": False,
}
"""GFP_ATOMIC of order 1 or more, as 6.12 has it."""

HIGHATOMIC = tuple(FreeBlocks(1, frozenset({"MIGRATE_HIGHATOMIC"})) for _ in range(11))


def changes(*states: ZoneState, rules: Watermarks = LTS, **more: Any) -> dict[str, Remedy]:  # noqa: ANN401
    """Return the remedies of a request by what they change."""
    found = judge_zones(rules, replace(KERNEL, **more), states).remedies
    assert len({remedy.change for remedy in found}) == len(found)
    return {remedy.change: remedy for remedy in found}


@pytest.mark.parametrize(
    ("order", "largest", "value"), [(1, 0, 0), (4, 2, 2), (4, 3, 3), (10, 0, 0), (11, 10, 10), (99, 9, 9)]
)
def test_the_largest_order_that_would_do(order: int, largest: int, value: int) -> None:
    """Whatever a damaged line says."""
    found = changes(zone(0, NORMAL, 50000, largest=largest), order=order)
    assert found["smaller_order"] == Remedy("smaller_order", 0, "Normal", value)


def test_no_order_is_smaller_than_0() -> None:
    """And the first zone of the zonelist serves, if several would."""
    assert "smaller_order" not in changes(zone(0, NORMAL, 900))
    assert "smaller_order" not in changes(zone(0, NORMAL, 5000, largest=-1), order=1)
    low, one, two = zone(0, NORMAL, 900, largest=2), *(zone(node, NORMAL, 5000, largest=2) for node in (1, 2))
    assert changes(low, one, two, order=4)["smaller_order"] == Remedy("smaller_order", 1, "Normal", 2)
    # Not the largest block of all: that zone has too few pages.
    less = replace(low, blocks=zone(0, NORMAL, 0, largest=3).blocks)
    assert changes(less, one, order=4)["smaller_order"].value == 2


@pytest.mark.parametrize(
    ("free", "helps"),
    [
        (1000, {"gfp_high", "gfp_atomic", "gfp_memalloc"}),
        # Half of 1000 for __GFP_HIGH, and a quarter less of that for a request that cannot wait.
        (501, {"gfp_high", "gfp_atomic", "gfp_memalloc"}),
        (500, {"gfp_atomic", "gfp_memalloc"}),
        (376, {"gfp_atomic", "gfp_memalloc"}),
        (375, {"gfp_memalloc"}),
        (1, {"gfp_memalloc"}),
    ],
)
@pytest.mark.parametrize("rules", [OLD, LTS], ids=["5.10", "6.12"])
def test_reserves(rules: Watermarks, free: int, helps: set[str]) -> None:
    """Each mask opens as much of the reserves as `__zone_watermark_ok` says, on old kernels and on new ones."""
    found = changes(zone(0, NORMAL, free), rules=rules)
    assert {change for change in found if change.startswith("gfp_")} == helps
    assert all(found[change] == Remedy(change, 0, "Normal") for change in helps)  # type: ignore[arg-type]


def test_reserves_that_are_open_already() -> None:
    """A change that changes nothing is none: __GFP_HIGH has GFP_ATOMIC's first half."""
    state = zone(0, NORMAL, 450)
    assert "gfp_high" not in changes(state, alloc_flags=CPUSET | HIGH | BITS.alloc_min_reserve)
    assert "gfp_atomic" in changes(state, alloc_flags=CPUSET | HIGH | BITS.alloc_min_reserve)
    assert set(changes(zone(0, NORMAL, 300), **ATOMIC)) == {"direct_reclaim", "gfp_memalloc", "min_free_kbytes"}


@pytest.mark.parametrize(("release", "order", "helps"), [("6.6", 0, False), ("6.6", 1, True), ("6.12", 0, True)])
def test_blocks_of_high_order_atomic_requests(release: str, order: int, helps: bool) -> None:
    """ALLOC_HIGHATOMIC is for orders above 0: `gfp_to_alloc_flags` since 6.3. ALLOC_NON_BLOCK is enough since 6.12."""
    found = changes(zone(0, NORMAL, 5000, blocks=HIGHATOMIC), rules=kernel(release), order=order)
    assert ("gfp_atomic" in found) is helps
    assert "gfp_high" not in found


def test_cma_pages_at_every_watermark() -> None:
    """They serve movable requests in the fast path as well, which opens no reserve."""
    state = zone(0, NORMAL, 1800, free_cma=600)
    assert set(changes(state, alloc_flags=CPUSET | 1)) == {"gfp_movable", "min_free_kbytes"}
    assert "gfp_high" not in changes(zone(0, NORMAL, 1200), alloc_flags=CPUSET | 1)
    both = changes(zone(0, NORMAL, 1500, free_cma=600))
    assert {"gfp_movable", "gfp_high", "gfp_atomic", "gfp_memalloc"} <= both.keys()
    assert "gfp_movable" not in changes(zone(0, NORMAL, 900), alloc_flags=CPUSET)


@pytest.mark.parametrize(
    ("state", "flags", "value"),
    [
        (zone(0, NORMAL, 1), CPUSET, 0),
        (zone(0, NORMAL, 2), CPUSET, 1),
        (zone(0, NORMAL, 900), CPUSET, 899),
        (zone(0, NORMAL, 1000), CPUSET, 999),
        # The boost stays: 300 + 599 < 900; without a watermark it alone would still be too much.
        (zone(0, NORMAL, 900, boost=300), CPUSET, 599),
        (zone(0, NORMAL, 900, boost=None), CPUSET, 899),
        (zone(0, NORMAL, 200, boost=300), CPUSET, None),
        # 400 more are kept for requests that may use Normal.
        (zone(0, DMA32, 1200), CPUSET, 799),
        (zone(0, DMA32, 401), CPUSET, 0),
        (zone(0, DMA32, 400), CPUSET, None),
        # Half of it for __GFP_HIGH: 402 - 201 is less than 202; 403 - 201 is not.
        (zone(0, NORMAL, 202), CPUSET | HIGH, 402),
        # low and high are 250 and 500 above min.
        (zone(0, NORMAL, 700), CPUSET | 1, 449),
        (zone(0, NORMAL, 700), CPUSET | 2, 199),
        (zone(0, NORMAL, 0), CPUSET, None),
    ],
)
def test_the_highest_min_watermark_that_is_low_enough(state: ZoneState, flags: int, value: int | None) -> None:
    """One page more than the watermark must be left."""
    found = changes(state, alloc_flags=flags).get("min_free_kbytes")
    assert found == (None if value is None else Remedy("min_free_kbytes", 0, state.zone, value))


def test_the_zone_whose_watermark_is_nearest() -> None:
    """899 of 1,000 rather than 1,499 of 3,000; a zone without a block gets none from a lower watermark."""
    large = zone(1, NORMAL, 1500, watermarks=(3000, 3250, 3500))
    for states in ((zone(0, NORMAL, 900), large), (large, zone(0, NORMAL, 900))):
        assert changes(*states)["min_free_kbytes"] == Remedy("min_free_kbytes", 0, "Normal", 899)
    nearer = replace(large, free=2900)
    assert changes(zone(0, NORMAL, 900), nearer)["min_free_kbytes"] == Remedy("min_free_kbytes", 1, "Normal", 2899)
    no_block = zone(0, NORMAL, 5000, largest=2)
    assert changes(no_block, zone(1, NORMAL, 900), order=4)["min_free_kbytes"].node == 1
    used = (zone(0, NORMAL, 0), zone(1, NORMAL, 900))
    assert changes(*used)["min_free_kbytes"].node == 1


def test_boost_and_lowmem_reserve() -> None:
    """Each alone is enough, or is not named; only zones with too few pages count."""
    assert changes(zone(0, NORMAL, 900, boost=300))["watermark_boost"] == Remedy("watermark_boost", 0, "Normal")
    assert "watermark_boost" not in changes(zone(0, NORMAL, 700, boost=300))
    assert changes(zone(0, DMA32, 1001))["lowmem_reserve"] == Remedy("lowmem_reserve", 0, "DMA32")
    assert "lowmem_reserve" not in changes(zone(0, DMA32, 1000))
    unknown = zone(0, DMA32, 900, lowmem_reserve=None, managed=10)
    assert "lowmem_reserve" not in changes(unknown)
    no_block, low = zone(0, NORMAL, 5000, largest=2), zone(1, NORMAL, 900, boost=300)
    assert changes(no_block, low, order=4)["watermark_boost"].node == 1
    assert "watermark_boost" not in changes(replace(no_block, boost=300), order=4)


def test_reclaim_of_what_is_missing() -> None:
    """In the zone that lacks least; GFP_ATOMIC that waits has half of the watermark only: 501 pages are needed."""
    assert changes(zone(0, NORMAL, 370), zone(1, NORMAL, 360), **ATOMIC)["direct_reclaim"] == Remedy(
        "direct_reclaim", 0, "Normal", 131
    )
    assert changes(zone(0, NORMAL, 360), zone(1, NORMAL, 370), **ATOMIC)["direct_reclaim"] == Remedy(
        "direct_reclaim", 1, "Normal", 131
    )
    # With 3 pages more for an order of 2, and a block that compaction would make.
    found = changes(zone(0, NORMAL, 370), order=2, **ATOMIC)["direct_reclaim"]
    assert found == Remedy("direct_reclaim", 0, "Normal", 134)
    found = changes(zone(0, NORMAL, 370, largest=1), order=2, **ATOMIC)["direct_reclaim"]
    assert found == Remedy("direct_reclaim", 0, "Normal", 134, needs_block=True)


@pytest.mark.parametrize("direct_reclaim", [True, None])
def test_a_request_that_may_reclaim(direct_reclaim: bool | None) -> None:
    """Has tried; and what is not known is not advised."""
    assert "direct_reclaim" not in changes(zone(0, NORMAL, 370), direct_reclaim=direct_reclaim)


@pytest.mark.parametrize(
    ("more", "helps"),
    [
        ({"reclaimable": 131}, True),
        ({"reclaimable": 130}, False),
        ({"reclaimable": 0}, False),
        ({"reclaimable": 100, "swappable": 31}, True),
        ({"reclaimable": 100, "swappable": 30}, False),
        ({"reclaimable": 0, "swappable": 131}, True),
        ({"reclaimable": None, "swappable": 0}, True),
    ],
)
def test_reclaim_of_what_can_be_reclaimed(more: dict[str, Any], helps: bool) -> None:
    """131 pages, of files or in swap, as far as the log shows them."""
    state = replace(zone(0, NORMAL, 370), **more)
    assert ("direct_reclaim" in changes(state, **ATOMIC)) is helps
    # The next zone may do.
    other = changes(state, zone(1, NORMAL, 300, reclaimable=5000), **ATOMIC)["direct_reclaim"]
    assert (other.node, other.value) == ((0, 131) if helps else (1, 201))


def test_compaction_alone() -> None:
    """Where the pages suffice for a request that waits as well; a zone that lacks pages is told first."""
    first, second = (zone(node, NORMAL, 5000, largest=1) for node in (0, 1))
    found = changes(first, second, order=2, **ATOMIC)["direct_reclaim"]
    assert found == Remedy("direct_reclaim", 0, "Normal", 0, needs_block=True)
    found = changes(first, zone(1, NORMAL, 370), order=2, **ATOMIC)["direct_reclaim"]
    assert found == Remedy("direct_reclaim", 1, "Normal", 134)
    # Compaction makes no single pages: those that are there are of another type.
    single = zone(0, NORMAL, 5000, blocks=HIGHATOMIC)
    assert "direct_reclaim" not in changes(single, alloc_flags=BITS.alloc_high, direct_reclaim=False)
    found = changes(replace(single, free=370), alloc_flags=CPUSET, direct_reclaim=False)["direct_reclaim"]
    assert found == Remedy("direct_reclaim", 0, "Normal", 631)


@pytest.mark.parametrize(("rules", "flags"), [(OLD, HIGH | HARDER), (LTS, ATOMIC["alloc_flags"])], ids=["5.10", "6.12"])
def test_a_request_that_waits_loses_reserves(rules: Watermarks, flags: int) -> None:
    """The last quarter, and blocks of MIGRATE_HIGHATOMIC, which it would take as it is: others must be made."""
    lacking = zone(0, NORMAL, 370, blocks=HIGHATOMIC)
    found = changes(lacking, rules=rules, order=1, alloc_flags=flags, direct_reclaim=False)["direct_reclaim"]
    assert found == Remedy("direct_reclaim", 0, "Normal", 501 - (370 - 1), needs_block=True)


@pytest.mark.parametrize(
    ("more", "used_up"),
    [
        # 1,250 are the high watermark, and 400 are kept for requests that may use Normal.
        ({"reclaimable": 260}, True),
        ({"reclaimable": 261}, False),
        ({"reclaimable": None}, True),
        ({"reclaimable": 200, "swappable": 60}, True),
        ({"reclaimable": 200, "swappable": 61}, False),
        ({"reclaimable": 160, "boost": 100}, True),
        ({"reclaimable": 161, "boost": 100}, False),
        ({"reclaimable": 260, "boost": None}, True),
        ({"reclaimable": 261, "boost": None}, False),
    ],
)
def test_memory_that_is_used_up(more: dict[str, Any], used_up: bool) -> None:
    """A zone that cannot get above its high watermark, whatever reclaim would free."""
    state = replace(zone(0, DMA32, 1390, watermarks=(1000, 1100, 1250)), **more)
    assert ("gfp_high" not in changes(state, oom=True)) is used_up
    # Without the OOM killer reclaim had not given up; and one zone of several is enough.
    assert "gfp_high" in changes(state, oom=False)
    assert "gfp_high" in changes(state, zone(0, NORMAL, 900, reclaimable=5000), oom=True)
    assert ("gfp_high" in changes(state, zone(0, MOVABLE, 900, reclaimable=5000), oom=True)) is not used_up


def test_used_up_memory_of_other_nodes() -> None:
    """Limits are named all the same: there is memory elsewhere."""
    low = zone(0, NORMAL, 900, reclaimable=0)
    assert set(changes(low, zone(1, NORMAL, 5000), oom=True, nodemask=0b01)) == {"nodemask"}


def test_zones_that_another_mask_may_use() -> None:
    """Up to Normal: memory of the kernel's own is never in Movable or HighMem."""
    low, rich, movable = zone(0, DMA32, 900), zone(0, NORMAL, 5000), zone(0, MOVABLE, 5000)
    expected = Remedy("zone_modifier", 0, "Normal")
    assert changes(low, rich, movable, highest_zoneidx=DMA32)["zone_modifier"] == expected
    assert changes(low, movable, rich, highest_zoneidx=DMA32)["zone_modifier"] == expected
    assert "zone_modifier" not in changes(low, movable, highest_zoneidx=DMA32)
    assert "zone_modifier" not in changes(zone(0, NORMAL, 900), movable)
    assert "zone_modifier" not in changes(low, replace(rich, free=900), highest_zoneidx=DMA32)
    # A zone whose place is not known is not excluded by it.
    placeless = replace(zone(0, NORMAL, 900), index=None)
    assert "zone_modifier" not in changes(placeless)
    found = changes(placeless, low, replace(rich, node=1), highest_zoneidx=DMA32)["zone_modifier"]
    assert found == Remedy("zone_modifier", 1, "Normal")
    dma = replace(zone(0, 0, 900), lowmem_reserve=(0, 0, 0, 0))
    assert changes(dma, zone(0, DMA32, 5000), highest_zoneidx=0)["zone_modifier"] == Remedy("zone_modifier", 0, "DMA32")


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ("nodemask", {"nodemask": 0b001}),
        ("cpuset", {"mems_allowed": 0b001, "hardwall": True}),
        ("THISNODE", {"thisnode": True, "preferred_nid": 0}),
    ],
)
def test_one_limit_at_a_time(change: str, more: dict[str, Any]) -> None:
    """The first zone that it alone closes, and that would serve."""
    low, full, rich = zone(0, NORMAL, 900), zone(1, NORMAL, 900), zone(2, NORMAL, 5000)
    limits = {"nodemask", "cpuset", "THISNODE", "zone_modifier"}
    found = changes(low, full, rich, **more)
    assert limits & found.keys() == {change}
    assert found[change] == Remedy(change, 2, "Normal")  # type: ignore[arg-type]
    assert not limits & changes(low, full, **more).keys()
    assert not limits & changes(low, zone(2, MOVABLE, 5000), **more).keys()
    # Two limits close it: lifting one does not help.
    both = {"nodemask": 0b001, "mems_allowed": 0b001, "hardwall": True}
    assert not limits & changes(low, rich, **{**both, **more}).keys()


def test_limits_where_this_node_is_known() -> None:
    """The zonelist of __GFP_THISNODE has its own node, so that lifting another limit helps there."""
    found = changes(zone(0, NORMAL, 5000), nodemask=0b10, thisnode=True, preferred_nid=0)
    assert found["nodemask"] == Remedy("nodemask", 0, "Normal")


def test_a_zone_that_may_serve_already() -> None:
    """It needs no change, whether it was tried or not."""
    may = zone(0, NORMAL, 5000, lowmem_reserve=(0, 0, 0, 0))
    found = changes(may, zone(1, NORMAL, 900), highest_zoneidx=None, nodemask=0b01)
    assert not {"nodemask", "min_free_kbytes", "direct_reclaim"} & found.keys()


def test_flags_of_the_request_stay() -> None:
    """A movable request keeps its CMA pages; a real-time task has the last quarter of the reserves already."""
    movable: dict[str, Any] = {"alloc_flags": CPUSET | BITS.alloc_cma}
    assert "gfp_high" in changes(zone(0, NORMAL, 900, free_cma=500), **movable)
    real_time = changes(zone(0, NORMAL, 400), rules=OLD, alloc_flags=CPUSET | HARDER)
    assert "gfp_high" in real_time
    assert "gfp_atomic" not in real_time


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"thisnode": True, "preferred_nid": None}, set()),
        ({"thisnode": True, "preferred_nid": 0}, set()),
        ({"thisnode": False, "preferred_nid": None}, {"nodemask"}),
    ],
)
def test_the_zonelist_of_this_node(more: dict[str, Any], expected: set[str]) -> None:
    """Where the preferred node is not known, the zonelist of __GFP_THISNODE may lack the other nodes."""
    states = (zone(0, NORMAL, 900), zone(1, NORMAL, 5000))
    assert {"nodemask"} & changes(*states, nodemask=0b01, **more).keys() == expected
    cpuset: dict[str, Any] = {"mems_allowed": 0b01, "hardwall": True}
    assert bool({"cpuset"} & changes(*states, **cpuset, **more).keys()) is bool(expected)
