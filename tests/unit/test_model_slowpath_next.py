# SPDX-License-Identifier: MIT
"""What may follow each attempt of the slow path, and the rules that lead there, one transition at a time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.kernel.machine import Machine, ZoneRef
from kalloctrace.model.slowpath.state_machine import enter, next_attempts, slowpath_call
from kalloctrace.model.slowpath.types import Facts, Failure, Outcome, Prediction, SlowCall, SlowContext, State
from kalloctrace.model.types import Request, UnknownFact
from tests.slow_scenarios import DUMPCORE, MEMALLOC, NORMAL, ONE_NODE, PLAIN, TWO_NODES, USUAL, slow_kernel

SLOWPATH, RECLAIM = "__alloc_pages_slowpath", "__alloc_pages_direct_reclaim"
COMPACT, OOM = "__alloc_pages_direct_compact", "__alloc_pages_may_oom"
# The functions of mm/page_alloc.c in which the rules are, from 5.10.262-1 to 7.3.4-1~bpo13+1.
FUNCTIONS = {
    **dict.fromkeys(("slow_watermark", "slow_kswapd", "slow_non_block"), "gfp_to_alloc_flags"),
    "slow_cma": "gfp_to_alloc_flags_cma",
    "preferred_zone": "first_zones_zonelist",
    **dict.fromkeys(("slow_no_zone", "slow_insane", "slow_noretry", "slow_costly", "slow_retry"), SLOWPATH),
    **dict.fromkeys(("slow_memalloc", "slow_no_reclaim", "slow_victim", "slow_nofail", "slow_policy"), SLOWPATH),
    "slow_defrag": SLOWPATH,
    **dict.fromkeys(("slow_reclaim", "slow_drain"), RECLAIM),
    "slow_compact": COMPACT,
    **dict.fromkeys(("slow_oom", "slow_before_oom", "slow_oom_nofail"), OOM),
    "slow_cpuset_fallback": "__alloc_pages_cpuset_fallback",
    "slow_cpuset": "check_retry_cpuset",
}
RESERVES = [("slow_reserves", "__gfp_pfmemalloc_flags"), ("slow_reserves", SLOWPATH)]

NORETRY, MAYFAIL, NOFAIL, THISNODE = 0x10CC0, 0x4CC0, 0x8CC0, 0x210CC0
CPUSETS = Facts(cpusets_enabled=True)
DEFRAG = Facts(defrag_mode=True)
VICTIM = Facts(oom_victim=True)
START = ["slow_watermark", "slow_kswapd", "slow_non_block", "slow_cma", "preferred_zone"]


def outcomes(
    release: str,
    site: str,
    *,
    facts: Facts = USUAL,
    machine: Machine = ONE_NODE,
    gfp: int = 0xCC0,
    order: int = 0,
    **changes: Any,  # noqa: ANN401  (members of SlowContext and State)
) -> tuple[Outcome, ...]:
    """Return what may follow an attempt at a site; nodemask changes the call's and the state's."""
    slow = slow_kernel(release, machine)
    own = {"migratetype": "migratetype", "ac_alloc_flags": "alloc_flags"}
    context = {own.get(name, name): value for name, value in changes.items() if name in own or name == "nodemask"}
    call = SlowCall(gfp, order, replace(PLAIN, **context))
    members = {name: value for name, value in changes.items() if name not in own}
    state = replace(enter(slow, call), **{"site": site, "alloc_flags": 0x840, **members})
    return next_attempts(slow, call, state, facts)


def written(outcome: Outcome) -> tuple[str, list[str]]:
    """Return the kind of an attempt with its site and events, or NULL; and the rules, each with the right function."""
    for step in outcome.steps:
        if step.rule == "slow_reserves":
            assert (step.rule, step.function) in RESERVES
        else:
            assert step.function == FUNCTIONS[step.rule], step
    rules = [step.rule for step in outcome.steps]
    if isinstance(outcome, Failure):
        return "NULL", rules
    return " ".join([outcome.kind, "at", outcome.state.site, *sorted(outcome.events)]), rules


def _round(reserves: list[str]) -> list[tuple[str, list[str]]]:
    return [
        ("retry at retry", ["slow_retry", *reserves]),
        ("retry at retry", ["slow_oom", *reserves]),
        ("before_oom at oom", ["slow_before_oom"]),
    ]


ROUND = _round(["slow_reserves"])
"""Another round, at once or after another task's OOM kill; or the OOM killer. 7.0 opens the reserves elsewhere."""


def _after(events: str, rules: list[str], reserves: Sequence[str] = ("slow_reserves",)) -> list[tuple[str, list[str]]]:
    return [(f"{kind} {events}".rstrip(), [*rules, *own]) for kind, own in _round([*reserves])]


CASES: list[tuple[str, str, dict[str, Any], list[tuple[str, list[str]]]]] = [
    ("6.12", "entry", {}, [("after_waking_kswapd at initial", START)]),
    ("6.12", "entry", {"gfp": 0x4C0}, [("first_try at initial", [each for each in START if each != "slow_kswapd"])]),
    ("7.2", "entry", {}, [("after_waking_kswapd at retry", START)]),
    ("6.12", "entry", {"nodemask": 0b10}, [("NULL", [*START, "slow_no_zone"])]),
    # Early compaction, up to 6.19: an attempt follows unless it was skipped; in 5.10 in any case.
    (
        *("6.12", "initial", {"order": 4}),
        [
            ("after_compaction at initial_compact compaction", ["slow_reserves"]),
            ("retry at retry compaction", ["slow_reserves"] * 2),
        ],
    ),
    ("5.10", "initial", {"order": 4}, [("after_compaction at initial_compact compaction", ["slow_reserves"])]),
    (
        *("6.12", "initial", {"order": 4, "gfp": NORETRY}),
        [
            ("after_compaction at initial_compact compaction", ["slow_reserves"]),
            ("NULL", ["slow_reserves", "slow_noretry"]),
        ],
    ),
    (
        *("6.12", "initial_compact", {"order": 4, "gfp": NORETRY}),
        [("NULL", ["slow_noretry"]), ("retry at retry", ["slow_reserves"])],
    ),
    ("6.12", "initial_compact", {"order": 4, "gfp": THISNODE}, [("NULL", ["slow_noretry"])]),
    ("6.12", "initial_compact", {"order": 4}, [("retry at retry", ["slow_reserves"])]),
    # Order 0, and movable pages up to PAGE_ALLOC_COSTLY_ORDER (3), are not compacted early; nor is PF_MEMALLOC.
    ("6.12", "initial", {}, [("retry at retry", ["slow_reserves"])]),
    ("6.12", "initial", {"order": 3, "migratetype": 1}, [("retry at retry", ["slow_reserves"])]),
    ("6.12", "initial", {"order": 1, "gfp": 0xC00}, [("retry at retry", ["slow_reserves"])]),
    (
        *("6.12", "initial", {"order": 1, "facts": Facts(MEMALLOC)}),
        [("with_reserves at retry", ["slow_reserves", "slow_reserves", "slow_policy", "preferred_zone"])],
    ),
    (
        *("6.12", "initial", {"order": 1}),
        [
            ("after_compaction at initial_compact compaction", ["slow_reserves"]),
            ("retry at retry compaction", ["slow_reserves"] * 2),
        ],
    ),
    ("6.12", "initial", {"order": 1, "gfp": 0x8C0}, [("retry at retry", ["slow_reserves"])]),
    ("6.12", "initial_compact", {"order": 1, "gfp": NORETRY}, [("retry at retry", ["slow_reserves"])]),
    # The round.
    (
        *("6.12", "retry", {}),
        [
            ("after_direct_reclaim at reclaim direct_reclaim", ["slow_reclaim"]),
            *_after("direct_reclaim", ["slow_reclaim", "slow_compact"]),
        ],
    ),
    ("6.12", "retry", {"gfp": 0x820}, [("NULL", ["slow_no_reclaim"])]),
    ("6.12", "retry", {"facts": Facts(MEMALLOC)}, [("NULL", ["slow_memalloc"])]),
    (
        *("7.2", "retry", {"facts": Facts(MEMALLOC)}),
        [("with_reserves at retry", ["slow_reserves", "slow_reserves", "slow_policy", "preferred_zone"])],
    ),
    (
        *("7.2", "retry", {"facts": Facts(MEMALLOC), "can_retry_reserves": False}),
        [("NULL", ["slow_reserves", "slow_reserves", "slow_policy", "preferred_zone", "slow_memalloc"])],
    ),
    (
        *("7.2", "retry", {"gfp": 0x800, "alloc_flags": 0x950, "facts": DEFRAG}),
        [("without_nofragment at retry", ["slow_reserves", "slow_defrag"])],
    ),
    *(
        (
            "7.2",
            "retry",
            {"gfp": gfp, "alloc_flags": flags, "facts": facts},
            [("NULL", ["slow_reserves", "slow_no_reclaim"])],
        )
        for gfp, flags, facts in ((0x0, 0x150, DEFRAG), (0x800, 0x850, DEFRAG), (0x800, 0x950, Facts()))
    ),
    (
        *("7.0", "retry", {"gfp": 0x800, "alloc_flags": 0x950, "facts": DEFRAG}),
        [("NULL", ["slow_reserves", "slow_no_reclaim"])],
    ),
    (
        *("7.2", "retry", {"order": 2, "compact_first": True}),
        [
            ("after_compaction at compact compaction", ["slow_reserves", "slow_compact"]),
            ("retry at retry compaction", ["slow_reserves"]),
        ],
    ),
    ("6.12", "reclaim", {}, [("after_draining at drained", ["slow_drain"])]),
    ("6.12", "drained", {}, _after("", ["slow_compact"])),
    (
        *("6.12", "drained", {"order": 1}),
        [("after_compaction at compact compaction", ["slow_compact"]), *_after("compaction", [])],
    ),
    ("5.10", "drained", {"order": 1}, [("after_compaction at compact compaction", ["slow_compact"])]),
    ("6.12", "drained", {"order": 1, "gfp": 0xC00}, _after("compaction", [])),
    ("5.10", "drained", {"order": 1, "gfp": 0xC00}, [("after_compaction at compact compaction", ["slow_compact"])]),
    # vm.defrag_mode: unmovable pages are compacted even for order 0, and it gives up ALLOC_NOFRAGMENT before OOM.
    (
        *("7.2", "drained", {"alloc_flags": 0x940, "facts": DEFRAG}),
        [
            ("after_compaction at compact compaction", ["slow_compact"]),
            ("retry at retry compaction", ["slow_retry"]),
            ("without_nofragment at retry compaction", ["slow_defrag"]),
        ],
    ),
    (
        *("7.2", "drained", {"alloc_flags": 0x940, "facts": DEFRAG, "migratetype": 1}),
        [
            ("retry at retry", ["slow_compact", "slow_retry"]),
            ("without_nofragment at retry", ["slow_compact", "slow_defrag"]),
        ],
    ),
    ("7.2", "drained", {}, _after("", ["slow_compact"], [])),
    (
        *("7.0", "drained", {"alloc_flags": 0x940, "facts": DEFRAG}),
        [
            ("retry at retry", ["slow_compact", "slow_retry"]),
            ("without_nofragment at retry", ["slow_compact", "slow_defrag"]),
        ],
    ),
    # After compaction.
    ("6.12", "compact", {}, ROUND),
    ("6.12", "compact", {"gfp": NORETRY}, [("NULL", ["slow_noretry"])]),
    ("6.12", "compact", {"order": 3}, ROUND),
    ("6.12", "compact", {"order": 4}, [("NULL", ["slow_costly"])]),
    ("6.12", "compact", {"order": 4, "gfp": MAYFAIL}, ROUND),
    ("6.12", "compact", {"order": 4, "gfp": MAYFAIL & ~0x40}, [("NULL", ["slow_costly"])]),
    ("7.2", "compact", {"order": 2, "compact_first": True}, [("retry at retry", [])]),
    ("7.2", "compact", {"order": 2, "compact_first": True, "gfp": NORETRY}, [("retry at retry", [])]),
    ("7.2", "compact", {"order": 2, "compact_first": True, "gfp": THISNODE}, [("NULL", ["slow_noretry"])]),
    # The OOM killer.
    ("6.12", "oom", {}, [("retry at retry oom", ["slow_oom", "slow_reserves"]), ("NULL", ["slow_oom"])]),
    ("6.12", "oom", {"facts": Facts(DUMPCORE)}, [("NULL", ["slow_oom"])]),
    (
        "6.12",
        "oom",
        {"gfp": NOFAIL},
        [("oom_nofail at oom_nofail_cpuset oom", ["slow_oom_nofail", "slow_cpuset_fallback"])],
    ),
    (
        *("6.12", "oom", {"gfp": NOFAIL, "facts": Facts(DUMPCORE)}),
        [("nofail at nofail_cpuset", ["slow_oom", "slow_nofail", "slow_cpuset_fallback"])],
    ),
    # An OOM victim has used its reserves with ALLOC_OOM, or may use none with __GFP_NOMEMALLOC.
    ("6.12", "oom", {"facts": VICTIM, "alloc_flags": 0x808}, [("NULL", ["slow_oom", "slow_victim"])] * 2),
    ("6.12", "oom", {"facts": VICTIM, "gfp": 0x80CC0}, [("NULL", ["slow_oom", "slow_victim"])] * 2),
    (
        *("6.12", "oom", {"facts": VICTIM}),
        [
            (
                "with_reserves at retry oom",
                ["slow_oom", "slow_reserves", "slow_reserves", "slow_policy", "preferred_zone"],
            ),
            ("NULL", ["slow_oom"]),
        ],
    ),
    ("6.12", "oom_nofail_cpuset", {}, [("oom_nofail at oom_nofail", ["slow_cpuset_fallback"])]),
    ("6.12", "oom_nofail", {}, [("retry at retry", ["slow_reserves"])]),
    ("6.12", "nofail_cpuset", {}, [("nofail at nofail", ["slow_cpuset_fallback"])]),
    ("6.12", "nofail", {}, [("retry at retry", ["slow_reserves"])]),
    # The cpuset may have changed, or has no node of the nodemask.
    (
        *("6.12", "compact", {"gfp": NORETRY, "facts": CPUSETS}),
        [("restart at initial", ["slow_noretry", "slow_cpuset", *START]), ("NULL", ["slow_noretry"])],
    ),
    (
        *("6.12", "compact", {"gfp": NORETRY, "facts": replace(CPUSETS, mems_allowed=0b01), "nodemask": 0b10}),
        [("restart at initial", ["slow_noretry", "slow_cpuset", *START])],
    ),
]


@pytest.mark.parametrize(
    ("release", "site", "changes", "expected"),
    CASES,
    ids=[f"{number} {case[0]} {case[1]}" for number, case in enumerate(CASES)],
)
def test_what_may_follow(
    release: str, site: str, changes: dict[str, Any], expected: list[tuple[str, list[str]]]
) -> None:
    """`__alloc_pages_slowpath` of 5.10.262-1:4643, 6.12.118-1, 7.2.12-1~bpo13+1, from one attempt to the next."""
    assert [written(each) for each in outcomes(release, site, **changes)] == expected


def only(found: tuple[Outcome, ...]) -> Prediction:
    """Return the only outcome, an attempt."""
    (outcome,) = found
    assert isinstance(outcome, Prediction)
    return outcome


def test_a_cpuset_without_a_suitable_zone() -> None:
    """cpusets_insane_config(): NULL if the static key is on, 6.1.192-2:5153; only for __GFP_HARDWALL."""
    facts = replace(CPUSETS, mems_allowed=0b10)
    found = [written(each) for each in outcomes("6.12", "entry", gfp=0x100CC0, facts=facts)]
    assert ("NULL", [*START, "slow_insane"]) in found
    assert ("after_waking_kswapd at initial", START) in found
    for gfp, other in ((0xCC0, facts), (0x100CC0, CPUSETS), (0x100CC0, replace(facts, cpusets_enabled=False))):
        assert [written(each) for each in outcomes("6.12", "entry", gfp=gfp, facts=other)] == [
            ("after_waking_kswapd at initial", START)
        ]


def test_a_restart_drops_a_nodemask_that_the_cpuset_excludes() -> None:
    """check_retry_cpuset of 5.10.262-1:4610: `ac->nodemask = NULL`; a cpuset that only changed keeps it."""
    facts = replace(CPUSETS, mems_allowed=0b01)
    forced = only(outcomes("6.12", "compact", gfp=NORETRY, facts=facts, nodemask=0b10, machine=TWO_NODES))
    assert (forced.restarted, forced.state.nodemask, forced.state.preferred_zone) == (
        "forced",
        None,
        ZoneRef(0, NORMAL),
    )
    possible = outcomes("6.12", "compact", gfp=NORETRY, facts=CPUSETS, nodemask=0b10, machine=TWO_NODES)[0]
    assert isinstance(possible, Prediction)
    assert (possible.restarted, possible.state.nodemask) == ("possible", 0b10)
    assert possible.state.preferred_zone == ZoneRef(1, NORMAL)


def test_the_reserves_drop_the_memory_policy() -> None:
    """`ac->nodemask = NULL` and a new preferred zone: 5.10.262-1:4800. ALLOC_CPUSET without reserves keeps both."""
    zone = ZoneRef(1, NORMAL)
    for facts, flags, gfp, nodemask in (
        (Facts(MEMALLOC), 0x804, 0xCC0, None),
        (Facts(), 0x830, 0x820, None),
        (Facts(), 0x840, 0xCC0, 0b10),
    ):
        before = 0x830 if gfp == 0x820 else 0x840
        found = only(
            outcomes(
                *("6.12", "initial"),
                gfp=gfp,
                facts=facts,
                alloc_flags=before,
                machine=TWO_NODES,
                nodemask=0b10,
                preferred_zone=zone,
            )
        )
        assert (found.alloc_flags, found.state.nodemask) == (flags, nodemask)
        assert found.state.preferred_zone == (zone if nodemask else ZoneRef(0, NORMAL))
        assert (found.gfp_mask, found.restarted) == (gfp, "no")


def test_the_attempt_before_the_oom_killer() -> None:
    """`(gfp_mask | __GFP_HARDWALL) & ~__GFP_DIRECT_RECLAIM`, ALLOC_WMARK_HIGH | ALLOC_CPUSET: 5.10.262-1:4011."""
    for release, ac_flags, flags in (("6.12", 0, 0x42), ("7.3", 0x1000, 0x1042)):
        last = outcomes(release, "compact", ac_alloc_flags=ac_flags)[-1]
        assert isinstance(last, Prediction)
        assert (last.kind, last.gfp_mask, last.alloc_flags) == ("before_oom", 0x1008C0, flags)


@pytest.mark.parametrize(
    ("release", "site", "ac_flags", "flags"),
    [
        # ALLOC_HARDER (0x10) or ALLOC_MIN_RESERVE (0x20), with ALLOC_CPUSET (0x40) first; ALLOC_NO_WATERMARKS is 4.
        ("5.10", "nofail_cpuset", 0, 0x10),
        ("6.12", "nofail_cpuset", 0, 0x20),
        ("7.3", "nofail_cpuset", 0x1000, 0x1020),
        ("6.12", "oom_nofail_cpuset", 0, 0x4),
        ("7.3", "oom_nofail_cpuset", 0x1000, 0x1004),
    ],
)
def test_the_second_attempt_of_nofail_leaves_the_cpuset(release: str, site: str, ac_flags: int, flags: int) -> None:
    """`__alloc_pages_cpuset_fallback` of 5.10.262-1:3991."""
    found = only(outcomes(release, site, ac_alloc_flags=ac_flags))
    assert (found.alloc_flags, found.gfp_mask) == (flags, 0xCC0)


def test_the_first_attempt_of_nofail_stays_in_the_cpuset() -> None:
    """With ALLOC_CPUSET, 0x40."""
    assert only(outcomes("6.12", "oom", gfp=NOFAIL)).alloc_flags == 0x44
    assert only(outcomes("6.12", "oom", gfp=NOFAIL, facts=Facts(DUMPCORE))).alloc_flags == 0x60


def test_variables_since_7_0() -> None:
    """compact_first for order > 0 that is not movable, until compaction was tried; can_retry_reserves once."""
    for order, migratetype, first in ((0, 0, False), (2, 0, True), (2, 1, False), (4, 1, True)):
        entered = only(outcomes("7.2", "entry", order=order, migratetype=migratetype))
        assert (entered.state.compact_first, entered.state.can_retry_reserves) == (first, True)
    assert not only(outcomes("6.12", "entry", order=2)).state.compact_first
    assert not only(outcomes("7.2", "compact", order=2, compact_first=True)).state.compact_first
    assert not only(outcomes("7.2", "retry", facts=Facts(MEMALLOC))).state.can_retry_reserves


@pytest.mark.parametrize(("alloc_flags", "mask", "kept"), [(0x950, 0x800, 0x850), (0xDD0, 0x800, 0xCD0)])
def test_what_falls_back_loses_only_nofragment(alloc_flags: int, mask: int, kept: int) -> None:
    """`alloc_flags &= ~ALLOC_NOFRAGMENT`, 0x100: 7.2.12-1:5009."""
    found = only(outcomes("7.2", "retry", gfp=mask, alloc_flags=alloc_flags, facts=DEFRAG))
    assert (found.kind, found.alloc_flags) == ("without_nofragment", kept)
    assert outcomes("7.2", "compact", alloc_flags=alloc_flags, facts=DEFRAG)[-1].alloc_flags == kept  # type: ignore[union-attr]


def test_the_caller_s_alloc_flags_stay() -> None:
    """`alloc_flags_slowpath(...) | ac->alloc_flags` and `reserve_flags | ac->alloc_flags`: 7.3.4-1~bpo13+1:4892."""
    assert only(outcomes("7.3", "entry", ac_alloc_flags=0x1000)).alloc_flags == 0x1840
    assert only(outcomes("7.3", "retry", facts=Facts(MEMALLOC), ac_alloc_flags=0x1000)).alloc_flags == 0x1804
    # Before 7.3 the member does not exist.
    assert only(outcomes("7.2", "entry", ac_alloc_flags=0x1000)).alloc_flags == 0x840


@pytest.mark.parametrize(
    ("fact", "site", "gfp"),
    [
        ("task_flags", "retry", 0xCC0),
        ("task_flags", "oom", 0xCC0),
        ("gfp_allowed_mask", "oom", 0xCC0),
        ("cpusets_enabled", "entry", 0x100CC0),
        ("cpusets_enabled", "initial", 0xCC0),
        ("mems_allowed", "entry", 0x100CC0),
        ("mems_allowed", "initial", 0xCC0),
        ("oom_victim", "oom", 0x80CC0),
    ],
)
def test_a_fact_that_decides_is_named(fact: str, site: str, gfp: int) -> None:
    """The message names the fact as the trace does."""
    cpusets = fact == "mems_allowed"
    missing: dict[str, Any] = {fact: None}
    with pytest.raises(UnknownFact, match=f"not known: {fact}$"):
        outcomes("6.12", site, gfp=gfp, facts=replace(Facts(cpusets_enabled=cpusets), **missing), nodemask=0b1)


@pytest.mark.parametrize("member", ["zonelist_kind", "zonelist_nid"])
def test_a_zonelist_that_was_not_captured_is_named(member: str) -> None:
    """The preferred zone is not known without it."""
    missing: dict[str, Any] = {member: None}
    slow = slow_kernel("6.12")
    call = SlowCall(0xCC0, 0, replace(PLAIN, **missing))
    with pytest.raises(UnknownFact, match=r"not known: zonelist$"):
        next_attempts(slow, call, enter(slow, call), Facts())


def test_registers_of_the_entry_have_32_bits() -> None:
    """The slow path gets what the entry read: the lower half of each register."""
    kernel = slow_kernel("7.3").kernel
    context = kernel.context()
    plain = slowpath_call(kernel, Request(0xCC0, 1, 0, alloc_flags=0x1000), context)
    high = 0xABCD << 32
    assert slowpath_call(kernel, Request(high | 0xCC0, high | 1, 0, alloc_flags=high | 0x1000), context) == plain
    assert (plain.gfp_mask, plain.order) == (0xCC0, 1)
    assert plain.context == SlowContext("FALLBACK", 0, None, ZoneRef(0, NORMAL), NORMAL, 0, False, 0x1000)
    dma = slowpath_call(kernel, Request(0xCC1, 0, 0), context)
    assert (dma.context.highest_zoneidx, dma.context.migratetype) == (0, 0)
    movable = slowpath_call(kernel, Request(0x100CCA, 0, 0), context)
    assert (movable.context.highest_zoneidx, movable.context.migratetype) == (3, 1)


def test_a_call_without_attempts() -> None:
    """What nobody captured: no attempts, whether a page came back, the facts at the entry."""
    call = SlowCall(0xCC0, 0, PLAIN)
    assert (call.attempts, call.page, call.complete, call.facts) == ((), None, True, None)
    assert (PLAIN.spread_dirty_pages, PLAIN.alloc_flags, PLAIN.unknown) == (False, 0, frozenset())


def test_state_before_the_first_attempt() -> None:
    """No flags yet; the nodemask and the preferred zone of the fast path; __GFP_ATOMIC is cleared (5.10.262-1:4664)."""
    zone = ZoneRef(1, NORMAL)
    call = SlowCall(0xE20, 0, replace(PLAIN, nodemask=0b10, preferred_zone=zone))
    assert enter(slow_kernel("5.10"), call) == State("entry", 0xC20, 0, 0b10, zone, True, False)


def test_only_pf_memalloc_keeps_a_task_from_reclaim() -> None:
    """`if (current->flags & PF_MEMALLOC) goto nopage`, 5.10.262-1: other flags of the task do not count."""
    kinds = [written(each)[0] for each in outcomes("6.12", "retry", facts=Facts(task_flags=0xFFFF & ~MEMALLOC))]
    assert kinds[0] == "after_direct_reclaim at reclaim direct_reclaim"
