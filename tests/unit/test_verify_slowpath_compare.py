# SPDX-License-Identifier: MIT
"""The comparison of one attempt of the slow path with one prediction: each field, and each piece of evidence."""

from dataclasses import replace
from typing import Any, get_args

import pytest

from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.model.slowpath.types import Event, Prediction, Site, SlowAttempt, SlowCall, SlowContext, State
from kalloctrace.model.types import Step
from kalloctrace.verify.compare import Difference
from kalloctrace.verify.slowpath.compare import (
    distance,
    entry_differences,
    fits_evidence,
    skips_reclaim,
    slow_differences,
)
from tests.slow_scenarios import DMA32, NORMAL, PLAIN, USUAL, slow_kernel

SITES: tuple[Site, ...] = get_args(Site)
CALL = SlowCall(0xCC0, 0, PLAIN)
RECLAIM: frozenset[Event] = frozenset({"direct_reclaim"})
COMPACTION: frozenset[Event] = frozenset({"compaction"})
NONE: frozenset[Event] = frozenset()


def prediction(site: Site, events: frozenset[Event] = NONE, **changes: Any) -> Prediction:  # noqa: ANN401  (members of Prediction)
    """Return a prediction of an ordinary GFP_KERNEL attempt."""
    state = State(site, 0xCC0, 0x840, None, PLAIN.preferred_zone)
    return replace(Prediction("retry", 0xCC0, 0x840, state, (), events, "no"), **changes)


def attempt(**changes: Any) -> SlowAttempt:  # noqa: ANN401  (members of SlowAttempt)
    """Return a captured attempt that fits that prediction."""
    return replace(SlowAttempt(1, 0xCC0, 0, 0x840, PLAIN, USUAL), **changes)


@pytest.mark.parametrize(
    ("caller", "sites"),
    [
        ("__alloc_pages_direct_compact", {"initial_compact", "compact"}),
        ("__alloc_pages_direct_reclaim", {"reclaim", "drained"}),
        ("__alloc_pages_may_oom.constprop.0", {"oom", "oom_nofail_cpuset", "oom_nofail"}),
        ("__alloc_pages_cpuset_fallback", {"oom_nofail_cpuset", "oom_nofail", "nofail_cpuset", "nofail"}),
        ("__alloc_pages_slowpath", set(SITES)),
        ("", set(SITES)),
    ],
)
def test_the_caller_shows_the_site(caller: str, sites: set[Site]) -> None:
    """Each helper of __alloc_pages_slowpath calls get_page_from_freelist at its own sites; inlined, it shows none."""
    assert {site for site in SITES if fits_evidence(prediction(site), attempt(caller=caller))} == sites


@pytest.mark.parametrize(
    ("site", "expected", "seen", "reclaimed", "fits"),
    [
        pytest.param("retry", NONE, NONE, None, True, id="nothing happened"),
        pytest.param("retry", NONE, RECLAIM, None, False, id="reclaim that should not happen"),
        pytest.param("retry", NONE, COMPACTION, None, False, id="compaction that should not happen"),
        pytest.param("compact", COMPACTION, COMPACTION, None, True, id="compaction"),
        pytest.param("compact", COMPACTION, NONE, None, True, id="compaction that is deferred has no event"),
        pytest.param("oom", RECLAIM, NONE, None, False, id="a round without its reclaim"),
        pytest.param("oom", RECLAIM, RECLAIM, None, True, id="a round with reclaim of unknown success"),
        pytest.param("oom", RECLAIM, RECLAIM, 0, True, id="a round with reclaim in vain"),
        pytest.param("oom", RECLAIM, RECLAIM, 1, False, id="a round with reclaim of one page"),
        pytest.param("reclaim", RECLAIM, NONE, None, True, id="a task that is killed does not start reclaim"),
        pytest.param("reclaim", RECLAIM, NONE, 0, True, id="without reclaim its result says nothing"),
        pytest.param("reclaim", RECLAIM, RECLAIM, None, True, id="after reclaim of unknown success"),
        pytest.param("reclaim", RECLAIM, RECLAIM, 0, False, id="after reclaim in vain"),
        pytest.param("reclaim", RECLAIM, RECLAIM, 1, True, id="after reclaim of one page"),
        pytest.param("oom", RECLAIM, None, 7, True, id="events were not captured"),
    ],
)
def test_events_are_evidence(
    site: Site, expected: frozenset[Event], seen: frozenset[Event] | None, reclaimed: int | None, fits: bool
) -> None:
    """__alloc_pages_direct_reclaim tries again only after progress, and its tracepoint shows each reclaim."""
    captured = attempt(events=seen, reclaimed=reclaimed)
    assert fits_evidence(prediction(site, expected), captured) is fits


@pytest.mark.parametrize(
    ("site", "seen", "skips"),
    [("reclaim", NONE, True), ("reclaim", RECLAIM, False), ("reclaim", None, False), ("retry", NONE, False)],
)
def test_progress_without_reclaim_is_recognised(site: Site, seen: frozenset[Event] | None, skips: bool) -> None:
    """throttle_direct_reclaim returns early for a task that is being killed: no tracepoint, but progress."""
    assert skips_reclaim(prediction(site, RECLAIM), attempt(events=seen)) is skips


def test_distance_counts_fields_then_bits() -> None:
    """Two bits of alloc_flags (ALLOC_CPUSET, ALLOC_NO_WATERMARKS) and two of the mask differ."""
    other = attempt(alloc_flags=0x804, gfp_mask=0x1008C0)
    assert distance(slow_kernel("6.12"), CALL, prediction("retry"), other) == (2, 4)
    assert distance(slow_kernel("6.12"), CALL, prediction("retry"), attempt()) == (0, 0)


OTHER = SlowContext("NOFALLBACK", 1, 0b10, ZoneRef(1, DMA32), DMA32, 1, spread_dirty_pages=True, alloc_flags=0x400)
CONTEXT_FIELDS = (
    Difference("zonelist", ("FALLBACK", 0), ("NOFALLBACK", 1), "zonelist", ""),
    Difference("ac_nodemask_nodes", None, "1", "slow_policy", ""),
    Difference("preferred_zone", ZoneRef(0, NORMAL), ZoneRef(1, DMA32), "preferred_zone", ""),
    Difference("highest_zoneidx", NORMAL, DMA32, "highest_zoneidx", ""),
    Difference("migratetype", 0, 1, "migratetype", ""),
    Difference("spread_dirty_pages", False, True, "spread_dirty_pages", ""),
    Difference("ac_alloc_flags", 0, 0x400, "ac_alloc_flags", ""),
)
MEMBERS = {
    "zonelist_kind": "zonelist",
    "zonelist_nid": "zonelist",
    "nodemask": "ac_nodemask_nodes",
    "preferred_zone": "preferred_zone",
    "highest_zoneidx": "highest_zoneidx",
    "migratetype": "migratetype",
    "spread_dirty_pages": "spread_dirty_pages",
    "alloc_flags": "ac_alloc_flags",
}
"""Members of struct alloc_context, with the field that each belongs to."""


def differing(site: Site, captured: SlowAttempt) -> list[Difference]:
    """Return the differences from the ordinary prediction at a site."""
    return list(slow_differences(slow_kernel("6.12"), CALL, prediction(site), captured))


def test_every_field_of_an_attempt_is_compared() -> None:
    """Each differing field is reported with the model's value, the kernel's value and the rule that sets it."""
    seen = differing("retry", attempt(gfp_mask=0xCC8, order=1, alloc_flags=0x860, context=OTHER))
    assert seen == [
        Difference("freelist_gfp_mask", 0xCC0, 0xCC8, "slow_gfp", ""),
        Difference("freelist_order", 0, 1, "order", ""),
        Difference("alloc_flags", 0x840, 0x860, "slow_high", ""),
        *CONTEXT_FIELDS,
    ]


def test_one_half_of_the_zonelist_is_enough_to_differ() -> None:
    """A zonelist is a kind and a node."""
    for change in ({"zonelist_kind": "NOFALLBACK"}, {"zonelist_nid": 1}):
        seen = replace(PLAIN, **change)
        assert [each.field for each in differing("retry", attempt(context=seen))] == ["zonelist"]


def test_the_mask_before_the_oom_killer_has_its_own_rule() -> None:
    """__alloc_pages_may_oom clears __GFP_DIRECT_RECLAIM and sets __GFP_HARDWALL for its attempt alone."""
    rules = {site: [each.rule for each in differing(site, attempt(gfp_mask=0xCC8))] for site in SITES}
    assert rules == {site: ["slow_before_oom" if site == "oom" else "slow_gfp"] for site in SITES}


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_that_was_not_captured_is_not_compared(member: str) -> None:
    """The other members are compared all the same, at an attempt and at the entry."""
    seen = replace(OTHER, unknown=frozenset({member}))
    left = [each.field for each in CONTEXT_FIELDS if each.field != MEMBERS[member]]
    assert [each.field for each in differing("retry", attempt(context=seen))] == left
    assert [each.field for each in entry_differences(CALL, replace(CALL, context=seen))] == left


def test_the_effect_is_that_of_the_last_step() -> None:
    """A difference carries what its rule did, before the attempt or on the way to it."""
    before = (Step("slow_gfp", "f", "at the entry"), Step("order", "f", "an order"))
    expected = prediction("retry", steps=(Step("slow_gfp", "f", "since then"),))
    other = attempt(gfp_mask=0xCC8, order=1, alloc_flags=0x860)
    seen = slow_differences(slow_kernel("6.12"), CALL, expected, other, before)
    assert [each.effect for each in seen] == ["since then", "an order", ""]


@pytest.mark.parametrize(
    ("release", "bits", "rule"),
    [
        pytest.param("5.10", 0x1, "slow_watermark", id="ALLOC_WMARK_LOW"),
        pytest.param("5.10", 0x2, "slow_watermark", id="ALLOC_WMARK_HIGH"),
        pytest.param("5.10", 0x4, "slow_reserves", id="ALLOC_NO_WATERMARKS"),
        pytest.param("5.10", 0x8, "slow_reserves", id="ALLOC_OOM"),
        pytest.param("5.10", 0x10, "slow_atomic", id="ALLOC_HARDER"),
        pytest.param("5.10", 0x20, "slow_high", id="ALLOC_HIGH"),
        pytest.param("6.12", 0x10, "slow_non_block", id="ALLOC_NON_BLOCK"),
        pytest.param("6.12", 0x20, "slow_high", id="ALLOC_MIN_RESERVE"),
        pytest.param("6.12", 0x40, "slow_watermark", id="ALLOC_CPUSET"),
        pytest.param("6.12", 0x80, "slow_cma", id="ALLOC_CMA"),
        pytest.param("6.12", 0x100, "slow_defrag", id="ALLOC_NOFRAGMENT"),
        pytest.param("6.12", 0x200, "slow_non_block", id="ALLOC_HIGHATOMIC"),
        pytest.param("6.12", 0x800, "slow_kswapd", id="ALLOC_KSWAPD"),
        pytest.param("6.12", 1 << 20, "alloc_flags", id="no flag of this kernel"),
        pytest.param("6.12", 0x44, "slow_reserves", id="reserves come before ALLOC_CPUSET"),
        pytest.param("6.12", 0x50, "slow_non_block", id="ALLOC_NON_BLOCK comes before ALLOC_CPUSET"),
    ],
)
def test_each_alloc_flag_has_its_rule(release: str, bits: int, rule: str) -> None:
    """The rule of a difference in alloc_flags is that of the flag that differs."""
    other = attempt(alloc_flags=0x840 ^ bits)
    (difference,) = slow_differences(slow_kernel(release), CALL, prediction("retry"), other)
    assert (difference.field, difference.rule) == ("alloc_flags", rule)


def test_every_argument_of_the_slow_path_is_compared() -> None:
    """At the entry all fields have one rule, and the order and mask of the call count as well."""
    seen = list(entry_differences(CALL, replace(CALL, gfp_mask=0xCC8, order=1, context=OTHER)))
    assert [(each.field, each.expected, each.observed) for each in seen] == [
        ("slow_gfp_mask", 0xCC0, 0xCC8),
        ("slow_order", 0, 1),
        *((each.field, each.expected, each.observed) for each in CONTEXT_FIELDS),
    ]
    assert {each.rule for each in seen} == {"slow_entry"}
    assert all("fast path" in each.effect for each in seen)
    assert list(entry_differences(CALL, CALL)) == []


def test_a_nodemask_is_compared_as_a_list_of_nodes() -> None:
    """Both values are node lists, as the trace has them; the NULL pointer is None."""
    expected = replace(CALL, context=replace(PLAIN, nodemask=0b1011))
    (difference,) = entry_differences(expected, CALL)
    assert (difference.expected, difference.observed) == ("0-1,3", None)
    predicted = prediction("retry", state=State("retry", 0xCC0, 0x840, 0b1011, PLAIN.preferred_zone))
    (difference,) = slow_differences(slow_kernel("6.12"), CALL, predicted, attempt())
    assert (difference.expected, difference.observed) == ("0-1,3", None)
