# SPDX-License-Identifier: MIT
"""The flags of the slow path's attempts, from a gfp mask alone."""

from dataclasses import replace

import pytest

from kalloctrace.flags.builtin import known_release
from kalloctrace.kernel.slowpath_rules import unsure_rules
from kalloctrace.model.slowpath.attempts import oom_cannot_help
from kalloctrace.model.slowpath.flags import attempt_alloc_flags, mask_alloc_flags
from kalloctrace.model.slowpath.state_machine import enter
from kalloctrace.model.slowpath.types import Facts, Path, SlowCall, SlowContext
from tests.slow_scenarios import slow_kernel

RT, VICTIM, MEMALLOC = (
    "real_time",
    "oom_victim",
    "pf_memalloc",
)
HIGHATOMIC = {
    False: "highatomic_for_all",
    True: "highatomic_for_high",
}


@pytest.mark.parametrize(
    ("release", "gfp", "order", "flags"),
    [
        # GFP_KERNEL: ALLOC_CPUSET and the kswapd bit.
        ("5.10", 0xCC0, 0, 0x840),
        ("7.3", 0xCC0, 3, 0x840),
        # GFP_ATOMIC has __GFP_ATOMIC in 5.10 and 6.1, and leaves the cpuset.
        ("5.10", 0xA20, 0, 0x830),
        ("6.1", 0xA20, 0, 0x830),
        ("6.1", 0xA20, 2, 0xA30),
        ("6.12", 0x820, 0, 0x830),
        ("6.12", 0x820, 2, 0xA30),
        # With __GFP_DIRECT_RECLAIM the slow path clears __GFP_ATOMIC first.
        ("5.10", 0xE20, 0, 0x860),
        ("6.1", 0xE20, 2, 0x860),
        # __GFP_NOMEMALLOC withholds the reserves that come with not blocking.
        ("5.10", 0x80A20, 0, 0x820),
        ("6.12", 0x80820, 2, 0x820),
        # GFP_NOWAIT: not atomic in 5.10; ALLOC_NON_BLOCK, with its cpuset, since 6.3.
        ("5.10", 0x800, 0, 0x840),
        ("6.12", 0x2800, 2, 0x850),
        # ALLOC_HIGHATOMIC for every request that cannot block, until 6a204d4b14c9: 6.16 never got it (its image says
        # so, see test_model_slowpath_emulated.py), 6.6 did in 6.6.113 and 6.17 in 6.17.4 (from source).
        ("6.16", 0, 1, 0x250),
        ("6.6.112", 0, 1, 0x250),
        ("6.6.113", 0, 1, 0x50),
        ("6.6", 0, 1, 0x50),
        ("6.12.53", 0, 1, 0x250),
        ("6.17.3", 0, 1, 0x250),
        ("6.17.4", 0, 1, 0x50),
        ("6.18", 0, 1, 0x50),
        # __GFP_HIGH with direct reclaim.
        ("6.12", 0xCE0, 0, 0x860),
        # Movable: ALLOC_CMA with CONFIG_CMA, which Debian's 7.3 has and its 6.12 has not.
        ("7.3", 0x100CCA, 0, 0x8C0),
        ("6.12", 0x100CCA, 0, 0x840),
        # __GFP_MEMALLOC: ALLOC_NO_WATERMARKS in place of all but ALLOC_KSWAPD, which 5.10 does not keep.
        ("6.12", 0x20CC0, 0, 0x804),
        ("5.10", 0x20CC0, 0, 0x4),
    ],
)
def test_flags_of_a_mask(release: str, gfp: int, order: int, flags: int) -> None:
    """The flags are those of the kernel's own functions, worked out by hand."""
    assert mask_alloc_flags(slow_kernel(release), gfp, order)[0] == flags


def conditions(release: str, gfp: int, order: int) -> dict[str, int]:
    """Return the flags under each condition, for a kernel whose patch level is not known."""
    _, found = mask_alloc_flags(slow_kernel(release), gfp, order, unsure=unsure_rules(known_release(release)))
    return {condition.fact: condition.alloc_flags for condition in found}


def test_conditions_are_what_the_task_would_change() -> None:
    """A state of the task is a condition exactly where it changes the flags."""
    assert conditions("5.10", 0xCC0, 0) == {RT: 0x850, VICTIM: 0x8, MEMALLOC: 0x4}
    assert conditions("6.12", 0xCC0, 0) == {RT: 0x860, VICTIM: 0x808, MEMALLOC: 0x804}
    # __GFP_NOMEMALLOC leaves the priority alone; an atomic request has no use for it.
    assert conditions("5.10", 0x80CC0, 0) == {RT: 0x850}
    assert conditions("5.10", 0x80A20, 0) == {}
    # __GFP_MEMALLOC opens everything already.
    assert conditions("6.12", 0x20CC0, 0) == {}
    assert conditions("6.12", 0x820, 0) == {VICTIM: 0x808, MEMALLOC: 0x804}


def test_conditions_of_an_unknown_patch_level() -> None:
    """Between 6.1 and 6.18 a release without its patch level may have the fix of ALLOC_HIGHATOMIC or not."""
    assert conditions("6.12", 0x2800, 1)[HIGHATOMIC[False]] == 0xA50
    assert conditions("6.8", 0x2800, 1)[HIGHATOMIC[True]] == 0x850
    for release in ("5.15", "6.12.54", "6.18"):
        assert not set(HIGHATOMIC.values()) & conditions(release, 0x2800, 1).keys()
    # The fix changes nothing for order 0, for requests that can reclaim, and for those with __GFP_HIGH.
    for gfp, order in ((0x2800, 0), (0xCC0, 1), (0x820, 1)):
        assert not set(HIGHATOMIC.values()) & conditions("6.12", gfp, order).keys()


def test_unsure_rules() -> None:
    """Only rules that came as fixes are unsure, and only before the release that had them from the start."""
    assert unsure_rules(known_release("6.12.54")) == frozenset()
    assert unsure_rules(known_release("5.10")) == {"thisnode_compacts_only"}
    assert (
        unsure_rules(known_release("6.1"))
        == unsure_rules(known_release("6.17"))
        == {"thisnode_compacts_only", "highatomic_for_high"}
    )
    assert unsure_rules(known_release("6.18")) == {"thisnode_compacts_only"}
    assert unsure_rules(known_release("7.0")) == frozenset()
    # A vendor's release shows nothing.
    assert unsure_rules(known_release("5.14.0-570.el9.x86_64")) == {"thisnode_compacts_only", "highatomic_for_high"}


def test_captured_facts_decide() -> None:
    """With facts there is one answer: that of the condition that holds."""
    slow = slow_kernel("6.12")
    assert attempt_alloc_flags(slow, 0xCC0, 0, Facts(prio=50)) == conditions("6.12", 0xCC0, 0)[RT]
    assert attempt_alloc_flags(slow, 0xCC0, 0, Facts(oom_victim=True)) == conditions("6.12", 0xCC0, 0)[VICTIM]
    assert attempt_alloc_flags(slow, 0xCC0, 0, replace(Facts(), defrag_mode=True)) == 0x840
    assert attempt_alloc_flags(slow_kernel("6.16"), 0xCC0, 0, Facts(defrag_mode=True)) == 0x940


@pytest.mark.parametrize(
    ("allowed", "suspended"), [(0xFFFFFF, False), (0xFFFF3F, True), (0xFFFFBF, True), (0xFFFF7F, True)]
)
@pytest.mark.parametrize("release", ["5.10", "6.12", "7.3"])
def test_suspend_keeps_the_oom_killer_away(release: str, allowed: int, suspended: bool) -> None:
    """`pm_suspended_storage` is true as soon as gfp_allowed_mask lacks __GFP_IO or __GFP_FS, or both."""
    slow = slow_kernel(release)
    context = SlowContext("FALLBACK", 0, None, None, 2, 0)
    call = SlowCall(0xCC0, 0, context)
    path = Path(slow, call, Facts(gfp_allowed_mask=allowed), enter(slow, call))
    assert bool(oom_cannot_help(path)) == suspended


@pytest.mark.parametrize(
    ("gfp", "order", "zone", "task_flags", "reason"),
    [
        (0xCC0, 0, 2, 0, ""),
        (0xCC0, 3, 3, 0, ""),
        # PF_MEMALLOC is no PF_DUMPCORE (0x200).
        (0xCC0, 0, 2, 0x800, ""),
        (0xCC0, 0, 2, 0x200, "PF_DUMPCORE"),
        (0xCC0, 4, 2, 0, "order 4 is costly"),
        (0x4CC0, 0, 2, 0, "__GFP_RETRY_MAYFAIL or __GFP_THISNODE"),
        (0x200CC0, 0, 2, 0, "__GFP_RETRY_MAYFAIL or __GFP_THISNODE"),
        (0xCC4, 0, 1, 0, "the request is for low memory"),
    ],
)
@pytest.mark.parametrize("release", ["5.10", "7.3"])
def test_why_the_oom_killer_is_not_called(  # noqa: PLR0917  (the facts that decide)
    release: str, gfp: int, order: int, zone: int, task_flags: int, reason: str
) -> None:
    """`__alloc_pages_may_oom` of 5.10.262-1:4048; highest_zoneidx below ZONE_NORMAL is low memory."""
    slow = slow_kernel(release)
    call = SlowCall(gfp, order, SlowContext("FALLBACK", 0, None, None, zone, 0))
    assert oom_cannot_help(Path(slow, call, Facts(task_flags=task_flags), enter(slow, call))) == reason
