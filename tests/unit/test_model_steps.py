# SPDX-License-Identifier: MIT
"""The steps of a preparation name the kernel's functions, in the order in which the kernel's source calls them."""

from dataclasses import replace

import pytest

from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import ZoneRef, machine_of
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.page_alloc import alloc_flags_cma, alloc_pages
from kalloctrace.model.types import NUMA_NO_NODE, Context, Request, Step, UnknownFact

# mm/page_alloc.c, `prepare_alloc_pages`, of linux-source-5.10 5.10.262-1:4950, 6.1.192-2:5406 and 7.3.4-1~bpo13+1:5114.
PREPARE = [
    ("gfp_zone", "gfp_zone"),
    ("zonelist", "node_zonelist"),
    ("gfp_migratetype", "gfp_migratetype"),
    ("cpuset", "prepare_alloc_pages"),
    ("spread_dirty_pages", "prepare_alloc_pages"),
    ("preferred_zone", "first_zones_zonelist"),
]
NOFRAGMENT = ("nofragment", "alloc_flags_nofragment")
CONTEXT = ("gfp_context", "current_gfp_context")
# mm/page_alloc.c of 7.3.4-1~bpo13+1:5406, and include/linux/gfp.h names the functions of the entries without locks.
ENTRY_7_3 = "__alloc_frozen_pages_noprof"


def with_cma(function: str) -> list[tuple[str, str]]:
    """Return the steps of `prepare_alloc_pages` on a kernel with CONFIG_CMA."""
    return [*PREPARE[:4], ("cma", function), *PREPARE[4:]]


def steps_of(release: str, request: Request, *, cma: bool = False) -> list[tuple[str, str]]:
    """Return the rule and the kernel function of each step."""
    kernel = Kernel.of(builtin_snapshot(release))
    kernel = replace(kernel, features=replace(kernel.features, config_cma=cma))
    return [(step.rule, step.function) for step in alloc_pages(kernel, request, kernel.context()).steps]


@pytest.mark.parametrize(
    ("release", "cma", "expected"),
    [
        # The scopes of current_gfp_context apply in the slow path only, until 5.12.
        (
            "5.10",
            False,
            [("order", "__alloc_pages_nodemask"), ("gfp_allowed_mask", "__alloc_pages_nodemask"), *PREPARE],
        ),
        ("6.1", False, [("order", "__alloc_pages"), ("gfp_allowed_mask", "__alloc_pages"), CONTEXT, *PREPARE]),
        (
            "6.12",
            False,
            [("order", "__alloc_pages_noprof"), ("gfp_allowed_mask", "__alloc_pages_noprof"), CONTEXT, *PREPARE],
        ),
        (
            "7.2",
            True,
            [("order", ENTRY_7_3), ("gfp_allowed_mask", ENTRY_7_3), CONTEXT, *with_cma("gfp_to_alloc_flags_cma")],
        ),
    ],
)
def test_steps_of_the_normal_entry(release: str, cma: bool, expected: list[tuple[str, str]]) -> None:
    """The entry's own rules, then prepare_alloc_pages, then alloc_flags_nofragment."""
    assert steps_of(release, Request(0xCC0, 0, 0), cma=cma) == [*expected, NOFRAGMENT]


def test_steps_of_7_3() -> None:
    """It tests the caller's alloc_flags first, and opens the highatomic reserve last."""
    first = [("alloc_flags_check", ENTRY_7_3), ("order", ENTRY_7_3), ("gfp_allowed_mask", ENTRY_7_3), CONTEXT]
    last = [NOFRAGMENT, ("highatomic", ENTRY_7_3)]
    assert steps_of("7.3", Request(0xCC0, 0, 0)) == [*first, *PREPARE, *last]


@pytest.mark.parametrize(
    ("release", "function"), [("6.17", "alloc_pages_nolock_noprof"), ("7.2", "alloc_frozen_pages_nolock_noprof")]
)
def test_steps_of_an_entry_without_locks(release: str, function: str) -> None:
    """Its own function tests the context, the order and the mask, takes no nodemask, and calls prepare_alloc_pages."""
    own = [("trylock", function), ("order", "pcp_allowed_order"), ("nolock_gfp", function)]
    request = Request(0, 0, NUMA_NO_NODE, nodemask=1, entry="nolock")
    assert steps_of(release, request) == [*own, ("nolock_nodemask", function), *PREPARE]


@pytest.mark.parametrize(("release", "function"), [("5.10", "current_alloc_flags"), ("5.13", "gfp_to_alloc_flags_cma")])
def test_function_that_allows_cma(release: str, function: str) -> None:
    """current_alloc_flags of 5.10.262-1:3778 tests PF_MEMALLOC_NOCMA too; gfp_to_alloc_flags_cma came with 5.13."""
    for gfp in (0xCC0, 0xCC8):
        assert ("cma", function) in steps_of(release, Request(gfp, 0, 0), cma=True)


@pytest.mark.parametrize(
    ("release", "request_", "rule", "function"),
    [
        ("5.10", Request(0xCC0, 11, 0), "order", "__alloc_pages_nodemask"),
        ("6.17", Request(0, 4, 0, entry="nolock"), "order", "pcp_allowed_order"),
        ("7.3", Request(0xCC0, 0, 0, alloc_flags=0x4), "alloc_flags_check", ENTRY_7_3),
    ],
)
def test_step_that_rejects(release: str, request_: Request, rule: str, function: str) -> None:
    """The last step names the function that returns NULL, and the reason is a sentence of it."""
    kernel = Kernel.of(builtin_snapshot(release))
    answer = alloc_pages(kernel, request_, kernel.context())
    assert answer.outcome == "rejected"
    last = answer.steps[-1]
    assert (last.rule, last.function) == (rule, function)
    assert answer.reason is not None
    assert last.effect.startswith(f"{answer.reason}: NULL is returned")


def test_a_large_order_warns_unless_nowarn() -> None:
    """WARN_ON_ONCE_GFP(order > MAX_PAGE_ORDER, gfp) of 6.1.192-2:5634; __GFP_NOWARN is 0x2000 there."""
    kernel = Kernel.of(builtin_snapshot("6.1"))
    answers = {gfp: alloc_pages(kernel, Request(gfp, 11, 0), kernel.context()) for gfp in (0xCC0, 0x2CC0)}
    assert {gfp: answer.warns for gfp, answer in answers.items()} == {0xCC0: True, 0x2CC0: False}
    assert answers[0xCC0].steps[-1].effect == f"{answers[0xCC0].reason}: NULL is returned, with a warning"
    assert answers[0x2CC0].steps[-1].effect == f"{answers[0x2CC0].reason}: NULL is returned"


def test_cpuset_step_is_named_whether_cpusets_are_on() -> None:
    """Both branches are prepare_alloc_pages' own."""
    kernel = Kernel.of(builtin_snapshot("6.12"))
    for enabled in (False, True):
        context = Context(cpusets_enabled=enabled, gfp_allowed_mask=0x3FFFFFF)
        steps: list[Step] = [*alloc_pages(kernel, Request(0xCC0, 0, 0), context).steps]
        assert [step.function for step in steps if step.rule == "cpuset"] == ["prepare_alloc_pages"]


def test_preferred_zone_is_a_step_where_no_zone_is_eligible() -> None:
    """`first_zones_zonelist` returns the terminating entry: a nodemask without the machine's only node."""
    kernel = Kernel.of(builtin_snapshot("6.12"))
    answers = [alloc_pages(kernel, Request(0xCC0, 0, 0, nodemask=mask), kernel.context()) for mask in (0b1, 0b10)]
    assert [answer.preferred_zone for answer in answers] == [ZoneRef(0, 2), None]
    assert all(("preferred_zone", "first_zones_zonelist") in [(s.rule, s.function) for s in a.steps] for a in answers)


@pytest.mark.parametrize(
    ("gfp", "rule", "name"),
    [
        # include/linux/mmzone.h: enum migratetype begins UNMOVABLE, MOVABLE, RECLAIMABLE; enum zone_type DMA, DMA32.
        (0xCC0, "gfp_migratetype", "MIGRATE_UNMOVABLE"),
        (0xCC8, "gfp_migratetype", "MIGRATE_MOVABLE"),
        (0xCD0, "gfp_migratetype", "MIGRATE_RECLAIMABLE"),
        (0xCC1, "gfp_zone", "(DMA)"),
        (0xCC4, "gfp_zone", "(DMA32)"),
    ],
)
def test_a_step_names_the_member_of_the_enum(gfp: int, rule: str, name: str) -> None:
    """A number alone does not show a reader which type or zone it is."""
    kernel = Kernel.of(builtin_snapshot("6.12"))
    (effect,) = (s.effect for s in alloc_pages(kernel, Request(gfp, 0, 0), kernel.context()).steps if s.rule == rule)
    assert name in effect


def test_a_fact_that_was_not_captured_is_named() -> None:
    """With cpusets on, prepare_alloc_pages reads current->mems_allowed of a task without a nodemask of its own."""
    kernel = Kernel.of(builtin_snapshot("6.12"))
    context = Context(cpusets_enabled=True, gfp_allowed_mask=0x3FFFFFF, mems_allowed=None)
    with pytest.raises(UnknownFact, match=r"not known: mems_allowed$"):
        alloc_pages(kernel, Request(0xCC0, 0, 0), context)
    # With a nodemask it does not read it.
    assert alloc_pages(kernel, Request(0xCC0, 0, 0, nodemask=1), context).outcome == "prepared"


def test_flags_before_and_after_the_entry_adds_its_own() -> None:
    """prepare_alloc_pages leaves ALLOC_WMARK_LOW (1); the entry adds ALLOC_KSWAPD and ALLOC_NOFRAGMENT (0x900)."""
    kernel = Kernel.of(builtin_snapshot("6.12"))
    answer = alloc_pages(kernel, Request(0xCC0, 0, 0, nodemask=0b1), kernel.context())
    assert (answer.prepare_alloc_flags, answer.alloc_flags) == (0x1, 0x901)
    assert (answer.nodemask, answer.nodemask_value) == ("caller", 0b1)


def test_an_entry_without_locks_takes_the_node_of_the_cpu() -> None:
    """NUMA_NO_NODE becomes numa_node_id() in 7.3 too, whose entry without locks is the normal one with ALLOC_NOLOCK."""
    kernel = Kernel.of(builtin_snapshot("7.3"))
    context = replace(kernel.context(), numa_node_id=0)
    answer = alloc_pages(kernel, Request(0, 0, NUMA_NO_NODE, entry="nolock"), context)
    assert (answer.outcome, answer.zonelist_nid) == ("prepared", 0)


def test_steps_of_7_3_without_locks() -> None:
    """ALLOC_NOLOCK makes the normal entry do what the function of its own did until 7.2; it has no name of its own."""
    first = [("alloc_flags_check", ENTRY_7_3), ("order", "pcp_allowed_order"), ("trylock", ENTRY_7_3)]
    masks = [("nolock_gfp", ENTRY_7_3), ("gfp_allowed_mask", ENTRY_7_3), CONTEXT]
    request = Request(0, 0, NUMA_NO_NODE, entry="nolock")
    assert steps_of("7.3", request) == [*first, *masks, *PREPARE, ("highatomic", ENTRY_7_3)]


def test_the_node_of_the_cpu_is_named_when_it_was_not_captured() -> None:
    """A machine with two nodes must know it."""
    machine = machine_of({0: (0, 1, 2), 1: (2,)}, gfp_allowed_mask=0x3FFFFFF)
    kernel = Kernel.of(builtin_snapshot("6.17", machine))
    with pytest.raises(UnknownFact, match=r"not known: numa_node_id$"):
        alloc_pages(kernel, Request(0, 0, NUMA_NO_NODE, entry="nolock"), replace(kernel.context(), numa_node_id=None))


def test_bits_that_suspend_clears_are_named() -> None:
    """pm_restrict_gfp_mask clears __GFP_IO and __GFP_FS, 0xc0, in gfp_allowed_mask: GFP_KERNEL becomes 0xc00."""
    kernel = Kernel.of(builtin_snapshot("6.12"))
    context = replace(kernel.context(), gfp_allowed_mask=0x3FFFF3F)
    answer = alloc_pages(kernel, Request(0xCC0, 0, 0), context)
    (effect,) = (step.effect for step in answer.steps if step.rule == "gfp_allowed_mask")
    assert answer.gfp == 0xC00
    assert "0xc0" in effect.replace(",", " ").split()


@pytest.mark.parametrize(("task_flags", "cma"), [(0, 0x80), (0x800, 0x80), (0x10000000, 0), (0x10000800, 0)])
def test_a_task_may_refuse_cma_areas(task_flags: int, cma: int) -> None:
    """current_alloc_flags of 5.10.262-1:3778 tests PF_MEMALLOC_NOCMA, 0x10000000, and no other flag of the task."""
    kernel = Kernel.of(builtin_snapshot("5.10"))
    kernel = replace(kernel, features=replace(kernel.features, config_cma=True))
    answer = alloc_pages(kernel, Request(0xCC8, 0, 0), replace(kernel.context(), task_flags=task_flags))
    assert answer.alloc_flags is not None
    # ALLOC_WMARK_LOW, ALLOC_KSWAPD and ALLOC_NOFRAGMENT are the others.
    assert answer.alloc_flags == 0x901 | cma
    assert ("cma", "current_alloc_flags") in [(step.rule, step.function) for step in answer.steps]


@pytest.mark.parametrize("migratetype", [0, 1, 2])
def test_a_task_that_refuses_cma_areas_adds_no_flag(migratetype: int) -> None:
    """current_alloc_flags of 5.10.262-1:3778 starts with 0 and adds ALLOC_CMA only without PF_MEMALLOC_NOCMA."""
    kernel = Kernel.of(builtin_snapshot("5.10"))
    context = replace(kernel.context(), task_flags=0x10000000)
    assert alloc_flags_cma(kernel, migratetype, context)[0] == 0


def test_the_argument_alloc_flags_has_32_bits() -> None:
    """`unsigned int alloc_flags`, 7.3.4-1~bpo13+1:5406: the upper half of the register means nothing."""
    kernel = Kernel.of(builtin_snapshot("7.3"))
    plain, filled = (
        alloc_pages(kernel, Request(0xCC0, 0, 0, alloc_flags=flags), kernel.context())
        for flags in (0x1000, 0xABCD_EF01_0000_1000)
    )
    assert plain.outcome == "prepared"
    assert filled == plain


def test_sentences_name_the_node_and_the_bit_of_kswapd() -> None:
    """The zonelist is the preferred node's; ALLOC_KSWAPD is __GFP_KSWAPD_RECLAIM, 0x800 of GFP_KERNEL."""
    machine = machine_of({0: (0, 1, 2), 1: (2,)}, gfp_allowed_mask=0x3FFFFFF)
    kernel = Kernel.of(builtin_snapshot("6.12", machine))
    with_bit, without = (
        {step.rule: step.effect for step in alloc_pages(kernel, Request(gfp, 0, 1), kernel.context()).steps}
        for gfp in (0xCC0, 0x4C0)
    )
    assert with_bit["zonelist"].endswith("of node 1")
    assert with_bit["nofragment"].startswith("ALLOC_KSWAPD;")
    assert without["nofragment"].startswith("no __GFP_KSWAPD_RECLAIM;")


@pytest.mark.parametrize(("gfp", "order", "flags"), [(0x820, 1, 0x200), (0x820, 0, 0), (0xC20, 1, 0), (0x800, 1, 0)])
def test_highatomic_on_the_fast_path_of_7_3(gfp: int, order: int, flags: int) -> None:
    """ALLOC_HIGHATOMIC, 0x200, for __GFP_HIGH of a higher order that may not reclaim: 7.3.4-1~bpo13+1:4526."""
    kernel = Kernel.of(builtin_snapshot("7.3"))
    answer = alloc_pages(kernel, Request(gfp, order, 0), kernel.context())
    assert answer.alloc_flags is not None
    assert answer.alloc_flags & 0x200 == flags
    assert (answer.steps[-1].rule, answer.steps[-1].function) == ("highatomic", ENTRY_7_3)


@pytest.mark.parametrize(
    ("task_flags", "sentence"),
    [
        (0, "task flags 0x0 hold no scope: gfp 0xcc0"),
        (0x40000, "PF_MEMALLOC_NOFS clears __GFP_FS: gfp 0xc40"),
        (0x80000, "PF_MEMALLOC_NOIO clears __GFP_IO and __GFP_FS: gfp 0xc00"),
    ],
)
def test_the_scope_of_a_task_is_named(task_flags: int, sentence: str) -> None:
    """current_gfp_context, include/linux/sched/mm.h of 6.12.117-1:250: NOIO implies NOFS."""
    kernel = Kernel.of(builtin_snapshot("6.12"))
    context = replace(kernel.context(), task_flags=task_flags)
    effects = {step.rule: step.effect for step in alloc_pages(kernel, Request(0xCC0, 0, 0), context).steps}
    assert effects["gfp_context"] == sentence
