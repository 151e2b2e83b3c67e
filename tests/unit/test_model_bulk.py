# SPDX-License-Identifier: MIT
"""The bulk allocator: when it prepares nothing, and what it prepares; `__alloc_pages_bulk` of 6.1.192-2:5469."""

from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import ZoneRef, machine_of
from kalloctrace.model.bulk import BulkRequest, alloc_pages_bulk
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Context, Preparation

DMA, DMA32, NORMAL = range(3)
GFP_KERNEL, ACCOUNT, NOIO = 0xCC0, 0x400000, 0x80000
TWO_NODES = machine_of({0: (DMA, DMA32, NORMAL), 1: (NORMAL,)}, gfp_allowed_mask=0x7FFFFF)


def bulk(
    nr_pages: int = 100,
    nr_populated: int = 0,
    *,
    gfp: int = GFP_KERNEL,
    nid: int = 0,
    nodemask: int | None = None,
    **facts: Any,  # noqa: ANN401  (members of Context)
) -> Preparation:
    """Return what 6.1 prepares on two nodes."""
    kernel = Kernel.of(builtin_snapshot("6.1", TWO_NODES))
    context: Context = replace(kernel.context(), **facts)
    return alloc_pages_bulk(kernel, BulkRequest(gfp, nid, nodemask, nr_pages, nr_populated), context)


@pytest.mark.parametrize(("nr_pages", "nr_populated"), [(0, 0), (-1, 0), (4, 4), (1, 1)])
def test_nothing_is_missing(nr_pages: int, nr_populated: int) -> None:
    """`nr_pages <= 0`, and a full array: the function returns at once."""
    answer = bulk(nr_pages, nr_populated)
    assert (answer.outcome, answer.gfp, answer.alloc_flags) == ("nothing", None, None)
    assert [(step.rule, step.function) for step in answer.steps] == [("bulk", "alloc_pages_bulk")]
    assert answer.steps[0].effect == f"{answer.reason}: nothing is prepared"
    assert f"{nr_pages} pages" in str(answer.reason)


@pytest.mark.parametrize(
    ("nr_pages", "nr_populated", "facts"),
    [
        (1, 0, {}),
        (100, 99, {}),
        (2, 0, {"page_owner_inited": True}),
        (100, 0, {"gfp": GFP_KERNEL | ACCOUNT, "memcg_kmem_online": True}),
    ],
)
def test_the_normal_entry_allocates_one_page(nr_pages: int, nr_populated: int, facts: dict[str, Any]) -> None:
    """`goto failed`: for one missing page, for page_owner, and for memory that a cgroup is charged for."""
    answer = bulk(nr_pages, nr_populated, **facts)
    assert (answer.outcome, answer.gfp) == ("single", None)
    assert [(step.rule, step.function) for step in answer.steps] == [("bulk", "alloc_pages_bulk")]
    assert answer.reason
    assert answer.steps[0].effect == f"{answer.reason}: the normal entry is called for a single page"


@pytest.mark.parametrize(
    ("nr_pages", "nr_populated", "facts"),
    [
        (2, 0, {}),
        (3, 1, {}),
        # Both are needed: memcg_kmem_online() and __GFP_ACCOUNT.
        (100, 0, {"memcg_kmem_online": True}),
        (100, 0, {"gfp": GFP_KERNEL | ACCOUNT}),
    ],
)
def test_one_preparation_serves_all(nr_pages: int, nr_populated: int, facts: dict[str, Any]) -> None:
    """gfp_allowed_mask and prepare_alloc_pages with ALLOC_WMARK_LOW (1): no scopes, no alloc_flags_nofragment."""
    answer = bulk(nr_pages, nr_populated, **facts)
    assert (answer.outcome, answer.reason) == ("prepared", None)
    assert (answer.gfp, answer.alloc_flags) == (facts.get("gfp", GFP_KERNEL), 0x1)
    assert [step.rule for step in answer.steps] == [
        *("bulk", "gfp_allowed_mask", "gfp_zone", "zonelist", "gfp_migratetype", "cpuset"),
        *("spread_dirty_pages", "preferred_zone"),
    ]
    assert answer.steps[0].function == "alloc_pages_bulk"
    assert f"{nr_pages - nr_populated} pages" in answer.steps[0].effect


def test_arguments_reach_the_preparation() -> None:
    """The node selects the zonelist, and the nodemask the zone."""
    own = bulk(nid=1)
    assert (own.zonelist_nid, own.preferred_zone, own.nodemask) == (1, ZoneRef(1, NORMAL), "null")
    other = bulk(nid=1, nodemask=0b01)
    assert (other.zonelist_nid, other.preferred_zone) == (1, ZoneRef(0, NORMAL))
    assert (other.nodemask, other.nodemask_value) == ("caller", 0b01)


def test_the_context_reaches_the_preparation() -> None:
    """Cpusets confine it, and gfp_allowed_mask applies; the task's scopes do not."""
    confined = bulk(cpusets_enabled=True, mems_allowed=0b10)
    assert (confined.nodemask, confined.preferred_zone) == ("mems_allowed", ZoneRef(1, NORMAL))
    assert bulk(gfp_allowed_mask=0xFFFF3F).gfp == 0xC00
    assert bulk(task_flags=NOIO).gfp == GFP_KERNEL


def test_the_mask_has_32_bits() -> None:
    """`gfp_t` is `unsigned int`: the upper half of the register means nothing."""
    assert bulk(gfp=0xABCD_0000_0000 | GFP_KERNEL) == bulk()
