# SPDX-License-Identifier: MIT
"""The verdict on one zone, and what holds in every case that a log leaves open."""

from dataclasses import astuple, replace
from typing import Any

import pytest

from kalloctrace.diagnose.diagnosis import in_every_case, judge_zones
from kalloctrace.diagnose.zones import (
    AllocationAttempt,
    Diagnosis,
    ExcludedBy,
    Remedy,
    ZoneVerdict,
    excluded_by,
    judge_zone,
)
from kalloctrace.model.slowpath.flags import Condition
from kalloctrace.model.watermark import FreeBlocks, Range, ZoneState
from tests.unit.test_diagnose_zones import CPUSET, DMA32, HARDER, HIGH, KERNEL, MOVABLE, NORMAL, kernel, zone

LTS = kernel("6.12")
LOW, RICH = zone(0, NORMAL, 900), zone(0, NORMAL, 5000)
NO_BLOCK = zone(0, NORMAL, 5000, largest=2)
AND_CMA = tuple(FreeBlocks(2, frozenset({"MIGRATE_MOVABLE", "MIGRATE_CMA"})) for _ in range(11))
DOUBTFUL = zone(0, NORMAL, 1500, free_cma=None, blocks=AND_CMA)
"""Of 1,500 pages any number may be in CMA areas."""


@pytest.mark.parametrize(
    ("more", "node", "index", "expected"),
    [
        ({}, 0, NORMAL, None),
        ({}, 0, MOVABLE, "highest_zoneidx"),
        ({"highest_zoneidx": DMA32}, 0, NORMAL, "highest_zoneidx"),
        ({"highest_zoneidx": None}, 0, MOVABLE, None),
        ({"thisnode": True, "preferred_nid": 0}, 0, NORMAL, None),
        ({"thisnode": True, "preferred_nid": 0}, 1, NORMAL, "THISNODE"),
        ({"thisnode": True, "preferred_nid": None}, 1, NORMAL, None),
        ({"thisnode": False, "preferred_nid": 0}, 1, NORMAL, None),
        ({"nodemask": 0b010}, 0, NORMAL, "nodemask"),
        ({"nodemask": 0b010}, 1, NORMAL, None),
        ({"nodemask": 0b010}, 2, NORMAL, "nodemask"),
        ({"nodemask": 0}, 0, NORMAL, "nodemask"),
        ({"mems_allowed": 0b101, "hardwall": True}, 0, NORMAL, None),
        ({"mems_allowed": 0b101, "hardwall": True}, 1, NORMAL, "cpuset"),
        ({"mems_allowed": 0b101, "hardwall": True}, 2, NORMAL, None),
        ({"mems_allowed": 0, "hardwall": True}, 0, NORMAL, "cpuset"),
        ({"mems_allowed": 0b101, "hardwall": False}, 1, NORMAL, None),
        ({"mems_allowed": None, "hardwall": True}, 1, NORMAL, None),
        ({"mems_allowed": 0b101, "hardwall": True, "alloc_flags": HIGH}, 1, NORMAL, None),
    ],
)
def test_zones_that_are_not_tried(more: dict[str, Any], node: int, index: int, expected: ExcludedBy | None) -> None:
    """The mask's highest zone, __GFP_THISNODE, the nodemask; the cpuset with ALLOC_CPUSET and __GFP_HARDWALL."""
    attempt, state = replace(KERNEL, **more), zone(node, index, 5000)
    assert excluded_by(LTS, attempt, state) == expected
    verdict = judge_zone(LTS, attempt, state)
    assert (verdict.kind == "excluded", verdict.excluded_by) == (expected is not None, expected)
    if expected is not None:
        assert verdict == ZoneVerdict(state, "excluded", expected)


def test_a_zone_without_a_known_place_is_tried() -> None:
    """A trace may not name the kernel's zones."""
    assert excluded_by(LTS, KERNEL, replace(RICH, index=None)) is None


def judged(state: ZoneState, **more: Any) -> tuple[str, bool, tuple[str, ...], tuple[str, ...]]:  # noqa: ANN401
    """Return a verdict: its kind, whether it is certain, the doubts, and under which conditions it would pass."""
    verdict = judge_zone(LTS, replace(KERNEL, **more), state)
    return verdict.kind, verdict.certain, verdict.unless, verdict.passes_if


@pytest.mark.parametrize(
    ("more", "doubt"),
    [
        ({"mems_allowed": 0b10}, "cpuset_ancestors"),
        ({"thisnode": True}, "other_node"),
        ({"highest_zoneidx": None}, "zone_not_allowed"),
    ],
)
def test_a_zone_that_may_not_be_allowed(more: dict[str, Any], doubt: str) -> None:
    """Whether it was tried is not known: that matters if it would serve, not if it refuses."""
    assert judged(zone(0, NORMAL, 5000, lowmem_reserve=(0, 0, 0, 0)), **more) == ("passes", False, (doubt,), ())
    assert judged(zone(0, NORMAL, 900, lowmem_reserve=(0, 0, 0, 0)), **more) == ("watermark", True, (), ())
    assert judged(replace(NO_BLOCK, lowmem_reserve=(0, 0, 0, 0)), order=4, **more) == ("block", True, (), ())


def test_a_zone_that_is_allowed() -> None:
    """Nothing is left open where each limit is known."""
    passes = ("passes", True, (), ())
    assert judged(RICH) == passes
    assert judged(RICH, mems_allowed=0b01) == passes
    assert judged(RICH, mems_allowed=0b10, alloc_flags=HIGH) == passes
    assert judged(RICH, thisnode=True, preferred_nid=0) == passes
    assert judged(replace(RICH, index=None)) == ("passes", False, ("zone_not_allowed",), ())


def test_blocks_without_a_count() -> None:
    """A list alone proves that no block fits, and nothing else."""
    listed = zone(0, NORMAL, 5000, largest=2, watermarks=(0, 0, 0), counted=False)
    assert judged(listed, order=4) == ("block", False, ("not_counted",), ())
    assert judged(listed, order=2) == ("unknown", False, ("not_counted",), ())
    assert judge_zone(LTS, replace(KERNEL, order=2), listed).check.outcome == "unknown"  # type: ignore[union-attr]


MEMALLOC = Condition("oom_victim", CPUSET | LTS.bits.alloc_no_watermarks)
SAME = Condition("real_time", CPUSET)
MORE = Condition("real_time", CPUSET | HIGH)
MASK = Condition("movable_mask", CPUSET | LTS.bits.alloc_cma)


@pytest.mark.parametrize(
    ("state", "flags", "condition", "expected"),
    [
        # It did not pass, so that what would have let it pass is not so.
        (LOW, CPUSET, MEMALLOC, ("watermark", True, (), ("oom_victim",))),
        (DOUBTFUL, CPUSET, MEMALLOC, ("unknown", False, (), ("oom_victim",))),
        # But many a mask is movable, also where the zone did not serve when its state was printed.
        (zone(0, NORMAL, 5000, free_cma=4500), CPUSET, MASK, ("watermark", False, ("movable_mask",), ())),
        # The other flags refuse as well, or pass as well.
        (LOW, CPUSET, SAME, ("watermark", True, (), ())),
        (zone(0, NORMAL, 400), CPUSET, MORE, ("watermark", True, (), ())),
        (RICH, CPUSET, MORE, ("passes", True, (), ())),
        (DOUBTFUL, CPUSET, SAME, ("unknown", False, (), ())),
        # They may pass: not known.
        (replace(DOUBTFUL, free=900), CPUSET, MORE,
         ("watermark", False, ("real_time",), ())),
        # It passes only with the flags that it has.
        (zone(0, NORMAL, 600), CPUSET | HIGH, SAME, ("passes", False, ("real_time",), ())),
        (replace(DOUBTFUL, free=900), CPUSET | HIGH, SAME, ("unknown", False, ("real_time",), ())),
    ],
)  # fmt: skip
def test_conditions(state: ZoneState, flags: int, condition: Condition, expected: tuple[object, ...]) -> None:
    """Facts of the task that a log does not show, each with the flags that it stands for."""
    assert judged(state, alloc_flags=flags, conditions=(condition,)) == expected


def test_a_block_instead_of_pages_is_no_doubt() -> None:
    """A zone that refuses for another reason refuses."""
    state = zone(0, NORMAL, 900, largest=2)
    assert judged(state, order=4, conditions=(MORE,)) == ("watermark", True, (), ())
    assert judged(state, order=4, alloc_flags=CPUSET | HIGH, conditions=(SAME,)) == ("block", True, (), ())


def of(*states: ZoneState, **more: Any) -> Diagnosis:  # noqa: ANN401
    """Return the diagnosis of a request of order 4."""
    return judge_zones(LTS, replace(KERNEL, **{"order": 4, **more}), states)


EXCLUDED = zone(0, MOVABLE, 5000)
UNSURE = zone(0, NORMAL, 3000, free_cma=None, blocks=AND_CMA)


@pytest.mark.parametrize(
    ("states", "conclusion", "certain"),
    [
        ([], "no_zone", True),
        ([EXCLUDED], "no_zone", True),
        ([LOW], "watermark", True),
        ([NO_BLOCK], "block", True),
        ([LOW, EXCLUDED], "watermark", True),
        ([LOW, LOW], "watermark", True),
        ([LOW, NO_BLOCK], "mixed", True),
        ([NO_BLOCK, RICH], "passes", False),
        ([LOW, UNSURE], "unknown", False),
        ([UNSURE, RICH], "passes", False),
    ],
)
def test_conclusions(states: list[ZoneState], conclusion: str, certain: bool) -> None:
    """One zone that would serve contradicts the failure; one that is not known leaves it open."""
    diagnosis = of(*states)
    assert (diagnosis.conclusion, diagnosis.certain) == (conclusion, certain)
    assert [verdict.state for verdict in diagnosis.zones] == states


def test_a_pass_that_is_in_doubt_decides_nothing() -> None:
    """The zone may not be allowed, and then only the others count; remedies are those of the rest."""
    doubtful = replace(RICH, lowmem_reserve=(0, 0, 0, 0))
    diagnosis = of(replace(NO_BLOCK, lowmem_reserve=(0, 0, 0, 0)), doubtful, highest_zoneidx=None)
    assert (diagnosis.conclusion, diagnosis.certain) == ("unknown", False)
    assert of(RICH).remedies == ()
    assert "smaller_order" in {remedy.change for remedy in of(NO_BLOCK, UNSURE).remedies}


def combined(
    first: Diagnosis, *others: tuple[Any, Diagnosis]
) -> tuple[str, bool, list[tuple[str, bool, tuple[str, ...]]]]:
    """Return what holds in every case."""
    found = in_every_case(first, others)
    return found.conclusion, found.certain, [(one.kind, one.certain, one.unless) for one in found.zones]


def test_what_every_case_agrees_in_is_certain() -> None:
    """Without other cases the first is the answer."""
    first = of(LOW)
    assert in_every_case(first, ()) is first
    assert combined(first, ("page_size", of(LOW))) == ("watermark", True, [("watermark", True, ())])
    rich = of(RICH)
    assert combined(rich, ("page_size", of(RICH))) == ("passes", False, [("passes", True, ())])


@pytest.mark.parametrize(("state", "kind"), [(LOW, "watermark"), (NO_BLOCK, "block")])
def test_a_zone_that_refuses_or_is_not_tried(state: ZoneState, kind: str) -> None:
    """Does not serve either way, so that it is said to refuse."""
    refused, excluded = of(state), of(state, highest_zoneidx=DMA32)
    expected = (kind, True, [(kind, True, ())])
    assert combined(refused, ("zone_layout", excluded)) == expected
    assert combined(excluded, ("zone_layout", refused)) == expected


@pytest.mark.parametrize(
    ("first", "other", "kind"),
    [
        (of(LOW), of(RICH), "watermark"),
        (of(RICH), of(LOW), "passes"),
        (of(RICH), of(RICH, highest_zoneidx=DMA32), "passes"),
        (of(RICH, highest_zoneidx=DMA32), of(RICH), "excluded"),
        (of(RICH, highest_zoneidx=DMA32), of(UNSURE), "excluded"),
    ],
)
def test_a_case_that_differs_is_a_doubt(first: Diagnosis, other: Diagnosis, kind: str) -> None:
    """The likeliest case is told, with what is different in the other; twice the same is one doubt."""
    _, certain, zones = combined(first, ("page_size", other), ("page_size", other))
    assert (certain, zones) == (False, [(kind, False, ("page_size",))])
    _, _, zones = combined(first, ("page_size", other), ("zone_layout", other))
    assert zones == [(kind, False, ("page_size", "zone_layout"))]
    # A zone that refuses in one case only does not settle it.
    expected = "watermark" if kind == "watermark" else "unknown"
    assert combined(first, ("page_size", other))[0] == expected


@pytest.mark.parametrize(("first", "other", "kind"), [(LOW, NO_BLOCK, "watermark"), (NO_BLOCK, LOW, "block")])
def test_a_zone_that_refuses_for_its_pages_or_for_its_blocks(first: ZoneState, other: ZoneState, kind: str) -> None:
    """The list of free blocks does not depend on which zones there are, but it may on the page size."""
    assert combined(of(first), ("page_size", of(other))) == (kind, False, [(kind, False, ("page_size",))])
    assert combined(of(first), ("zone_layout", of(other))) == (kind, True, [(kind, True, ())])
    both = combined(of(first), ("page_size", of(other)), ("zone_layout", of(other)))
    assert both == (kind, False, [(kind, False, ("page_size",))])


def test_a_verdict_of_another_case_is_compared_as_well() -> None:
    """Excluded, refused, and would serve: the second case is doubted by the third."""
    cases = [of(LOW, highest_zoneidx=DMA32), of(LOW), of(RICH)]
    found = combined(cases[0], ("zone_layout", cases[1]), ("page_size", cases[2]))
    assert found == ("watermark", False, [("watermark", False, ("page_size",))])


def test_lowmem_reserve_of_two_layouts() -> None:
    """Each layout reads another number of it; the numbers told are those of both. The page size changes none."""

    def reserve(doubt: Any, one: int | None, two: int) -> Range:  # noqa: ANN401
        first, second = (of(zone(0, DMA32, 900), highest_zoneidx=highest) for highest in (one, two))
        check = in_every_case(first, [(doubt, second)]).zones[0].check
        assert check is not None
        return check.lowmem_reserve

    # DMA32 keeps 400 pages for requests that may use Normal, 500 for Movable.
    assert reserve("zone_layout", NORMAL, MOVABLE) == Range(400, 500)
    assert reserve("zone_layout", MOVABLE, NORMAL) == Range(400, 500)
    assert reserve("page_size", NORMAL, MOVABLE) == Range(400, 400)


def test_lowmem_reserve_of_a_zone_that_one_case_excludes() -> None:
    """There is only one check."""
    first, second = of(LOW), of(LOW, highest_zoneidx=DMA32)
    for one, two in ((first, second), (second, first)):
        found = in_every_case(one, [("zone_layout", two)]).zones[0]
        assert found.check is not None
        assert found.check.lowmem_reserve == Range(0, 0)


def test_remedies_of_every_case() -> None:
    """A change must help in each, whatever its number; that of the likeliest is told."""
    more, less = (of(zone(0, NORMAL, 5000, largest=largest)) for largest in (3, 2))
    other = of(zone(1, NORMAL, 5000, largest=2))
    found = in_every_case(more, [("page_size", less)])
    assert [(remedy.change, remedy.value) for remedy in found.remedies] == [("smaller_order", 3)]
    assert in_every_case(more, [("page_size", less), ("page_size", other)]).remedies == ()
    assert in_every_case(more, [("page_size", other), ("page_size", less)]).remedies == ()
    low = of(LOW)
    assert {"gfp_high", "min_free_kbytes"} <= {remedy.change for remedy in low.remedies}
    assert in_every_case(low, [("page_size", less)]).remedies == ()


def test_a_boost_that_does_not_hold_for_atomic_requests() -> None:
    """5.10 tests __GFP_ATOMIC for that: of 1,000 - 600 pages 150 are left of the watermark."""
    boosted = zone(0, NORMAL, 200, boost=600)
    old = kernel("5.10")
    attempt = replace(KERNEL, alloc_flags=HIGH | HARDER)
    assert judge_zone(old, replace(attempt, gfp_mask=old.bits.gfp_atomic), boosted).kind == "passes"
    assert judge_zone(old, attempt, boosted).kind == "watermark"


def test_equal_diagnoses() -> None:
    """Their verdicts decide; how remedies are found does not."""
    assert of(LOW) == of(LOW)
    assert of(LOW) != of(NO_BLOCK)
    assert "find_remedies" not in repr(of(LOW))


def test_a_request_by_default() -> None:
    """Limits that nobody names are none."""
    attempt = AllocationAttempt(0, CPUSET, NORMAL)
    assert astuple(attempt) == (0, CPUSET, NORMAL, 0, None, None, None, False, False, False, None, False, ())
    assert ZoneVerdict(LOW, "unknown")[2:] == (None, None, True, (), ())
    assert astuple(Remedy("gfp_high", 1, "DMA")) == ("gfp_high", 1, "DMA", None, False)
    assert judge_zones(LTS, attempt, [RICH]).conclusion == "passes"
    assert judge_zones(LTS, attempt, [zone(1, NORMAL, 5000)]).conclusion == "passes"
    # Reclaim is not known to be forbidden, so that it is no remedy; nor was the OOM killer called.
    changes = {remedy.change for remedy in judge_zones(LTS, attempt, [LOW]).remedies}
    assert "direct_reclaim" not in changes
    assert "gfp_high" in changes
