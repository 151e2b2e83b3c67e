# SPDX-License-Identifier: MIT
"""What the rules look up in a kernel's tables, and the context that a machine gives to a request."""

from dataclasses import replace

import pytest

from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import machine_of
from kalloctrace.model.gfp import gfp_zone
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.page_alloc import alloc_pages
from kalloctrace.model.types import ALL_NODES, NUMA_NO_NODE, Context, Preparation, Request, UnknownFact

# include/linux/mmzone.h, enum zone_type: 32-bit x86 with CONFIG_HIGHMEM; ZONE_NORMAL and ZONE_MOVABLE alone.
HIGHMEM = (("ZONE_DMA", 0), ("ZONE_NORMAL", 1), ("ZONE_HIGHMEM", 2), ("ZONE_MOVABLE", 3))
NORMAL_ONLY = (("ZONE_NORMAL", 0), ("ZONE_MOVABLE", 1))


def kernel_with(zones: tuple[tuple[str, int], ...]) -> Kernel:
    """Return 6.12 with another enum zone_type."""
    snapshot = builtin_snapshot("6.12")
    return Kernel.of(replace(snapshot, tables=replace(snapshot.tables, zone_type=zones)))


@pytest.mark.parametrize(
    ("zones", "normal", "expected"),
    [
        # OPT_ZONE_DMA32 is ZONE_NORMAL here; __GFP_HIGHMEM selects ZONE_HIGHMEM, and with __GFP_MOVABLE ZONE_MOVABLE.
        (HIGHMEM, 1, {0x0: 1, 0x1: 0, 0x2: 2, 0x4: 1, 0x8: 1, 0x9: 0, 0xA: 3, 0xC: 1}),
        # OPT_ZONE_DMA, OPT_ZONE_HIGHMEM and OPT_ZONE_DMA32 are all ZONE_NORMAL.
        (NORMAL_ONLY, 0, {0x0: 0, 0x1: 0, 0x2: 0, 0x4: 0, 0x8: 0, 0x9: 0, 0xA: 1, 0xC: 0}),
    ],
)
def test_a_zone_that_the_kernel_lacks_is_zone_normal(
    zones: tuple[tuple[str, int], ...], normal: int, expected: dict[int, int]
) -> None:
    """OPT_ZONE_* and GFP_ZONE_TABLE of include/linux/gfp.h, the same from 5.8 to 7.3."""
    kernel = kernel_with(zones)
    assert (kernel.zone_normal, kernel.zone_dma32) == (normal, None)
    assert {modifiers: gfp_zone(kernel, modifiers)[0] for modifiers in expected} == expected


def test_tables_without_zone_normal_are_an_error() -> None:
    """Every kernel has ZONE_NORMAL."""
    with pytest.raises(ValueError, match=r"tables of 6\.12 have no ZONE_NORMAL"):
        kernel_with((("ZONE_DMA", 0), ("ZONE_MOVABLE", 1)))


def test_context_of_a_machine() -> None:
    """The machine's switches, and a task that nothing restricts, outside of interrupts."""
    machine = replace(machine_of({0: (0, 1, 2)}, gfp_allowed_mask=0x1234), cpusets_enabled=True, defrag_mode=True)
    kernel = Kernel.of(builtin_snapshot("6.16", replace(machine, page_group_by_mobility_disabled=True)))
    assert kernel.context() == Context(
        cpusets_enabled=True,
        gfp_allowed_mask=0x1234,
        task_flags=0,
        preempt_count=0,
        softirq_disable_cnt=0,
        mems_allowed=ALL_NODES,
        defrag_mode=True,
        page_group_by_mobility_disabled=True,
        numa_node_id=None,
    )
    off = kernel.on(machine_of({0: (0, 1, 2)}, gfp_allowed_mask=0x5678)).context()
    assert off == Context(cpusets_enabled=False, gfp_allowed_mask=0x5678)


def test_context_of_a_request() -> None:
    """Each argument is the member of its name."""
    context = Kernel.of(builtin_snapshot("6.12")).context(
        task_flags=0x800, preempt_count=0x100, softirq_disable_cnt=0x200, mems_allowed=0b10, numa_node_id=1
    )
    assert (context.task_flags, context.preempt_count, context.softirq_disable_cnt) == (0x800, 0x100, 0x200)
    assert (context.mems_allowed, context.numa_node_id) == (0b10, 1)


def test_a_kernel_on_another_machine_keeps_what_its_tables_say() -> None:
    """The features change only if others are given."""
    kernel = Kernel.of(builtin_snapshot("6.12"))
    machine = machine_of({0: (2,), 1: (2,)}, gfp_allowed_mask=0x5678)
    moved = kernel.on(machine)
    assert moved == replace(kernel, machine=machine)
    features = replace(kernel.features, config_cma=True)
    assert kernel.on(machine, features) == replace(kernel, machine=machine, features=features)


def test_all_nodes_is_a_full_nodemask() -> None:
    """NODE_MASK_ALL: one bit for each of MAX_NUMNODES nodes, 1 << CONFIG_NODES_SHIFT; x86 allows 10 at most."""
    assert int("1" * 1024, 2) == ALL_NODES


def test_an_ordinary_context() -> None:
    """What no caller says: no scope, no interrupt, no cpuset, no vm.defrag_mode, no page_owner, no kmem accounting."""
    context = Context(cpusets_enabled=False, gfp_allowed_mask=0)
    assert (context.task_flags, context.preempt_count, context.softirq_disable_cnt) == (0, 0, 0)
    assert context.mems_allowed == ALL_NODES
    assert context.numa_node_id is None
    switches = (context.defrag_mode, context.page_group_by_mobility_disabled)
    assert (*switches, context.memcg_kmem_online, context.page_owner_inited) == (False,) * 4


def test_a_rejected_request_has_no_arguments() -> None:
    """The entry returns NULL before prepare_alloc_pages: order 11 exceeds MAX_PAGE_ORDER, 10; __GFP_NOWARN is set."""
    kernel = Kernel.of(builtin_snapshot("6.12"))
    answer = alloc_pages(kernel, Request(0x2CC0, 11, 0), kernel.context())
    assert answer == Preparation("rejected", answer.steps, answer.reason, False, *[None] * 11)


def test_a_plain_request() -> None:
    """The normal entry, without a nodemask and without alloc_flags; NUMA_NO_NODE is -1: include/linux/numa.h."""
    assert Request(0xCC0, 0, 0) == Request(0xCC0, 0, 0, None, 0, "normal")
    assert NUMA_NO_NODE == -1


def test_a_missing_fact_keeps_its_name() -> None:
    """Callers show the name by itself."""
    assert UnknownFact("mems_allowed").name == "mems_allowed"
