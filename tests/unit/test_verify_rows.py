# SPDX-License-Identifier: MIT
"""Rows become the model's arguments, column by column, and compared values become text."""

from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.errors import Exit
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import machine_of
from kalloctrace.model.bulk import BulkRequest
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Context, Request
from kalloctrace.verify.field_text import value_text
from kalloctrace.verify.rows import (
    DAMAGED,
    DamagedRowError,
    ModelFailure,
    bulk_request_of,
    context_of,
    missing_facts,
    node_mask,
    request_of,
    request_text,
)

Row = dict[str, Any]
MACHINE = machine_of({0: [2]}, gfp_allowed_mask=0xFFFFFF, page_group_by_mobility_disabled=True)
ROW: Row = {
    "entry": "normal",
    "gfp_mask": 0x100CCA,
    "order": 3,
    "preferred_nid": 1,
    "nodemask": "0,2",
    "entry_alloc_flags": 0x400,
    "nr_pages": 7,
    "nr_populated": 5,
    "cpusets_enabled": 1,
    "gfp_allowed_mask": 0xFFFF3F,
    "task_flags": 0x800,
    "preempt_count": 0x100,
    "softirq_disable_cnt": 0x200,
    "mems_allowed": "1-2",
    "defrag_mode": True,
    "numa_node_id": 3,
    "memcg_kmem_online": True,
    "page_owner_inited": True,
}
"""A row with another value than the default in each column."""


def kernel() -> Kernel:
    """Return a kernel that does not group pages by mobility."""
    return Kernel.of(builtin_snapshot("6.12", MACHINE))


def test_every_argument_of_the_entry_is_read() -> None:
    """A null nodemask is the NULL pointer, and an entry without alloc_flags has 0."""
    assert request_of(ROW) == Request(0x100CCA, 3, 1, 0b101, 0x400, "normal")
    nolock = {**ROW, "entry": "nolock", "nodemask": None, "entry_alloc_flags": None}
    assert request_of(nolock) == Request(0x100CCA, 3, 1, None, 0, "nolock")
    assert request_of({**ROW, "entry": "pages_noprof"}).entry == "normal"


def test_every_argument_of_the_bulk_allocator_is_read() -> None:
    """It has no order: all its pages are single."""
    assert bulk_request_of(ROW) == BulkRequest(0x100CCA, 1, 0b101, 7, 5)


def test_every_fact_of_the_context_is_read() -> None:
    """Page grouping is a fact of the machine, and all others are columns."""
    assert context_of(kernel(), ROW) == Context(
        cpusets_enabled=True,
        gfp_allowed_mask=0xFFFF3F,
        task_flags=0x800,
        preempt_count=0x100,
        softirq_disable_cnt=0x200,
        mems_allowed=0b110,
        defrag_mode=True,
        page_group_by_mobility_disabled=True,
        numa_node_id=3,
        memcg_kmem_online=True,
        page_owner_inited=True,
    )


def test_facts_that_not_every_kernel_has_may_be_null() -> None:
    """They count as absent; preempt_count, mems_allowed and the node of the CPU stay unknown."""
    optional = ("preempt_count", "softirq_disable_cnt", "mems_allowed", "numa_node_id")
    row = {**ROW, **dict.fromkeys((*optional, "memcg_kmem_online", "page_owner_inited")), "cpusets_enabled": 0}
    context = context_of(kernel(), row)
    assert (context.preempt_count, context.mems_allowed, context.numa_node_id) == (None, None, None)
    assert context.softirq_disable_cnt == 0
    assert (context.cpusets_enabled, context.memcg_kmem_online, context.page_owner_inited) == (False, False, False)


@pytest.mark.parametrize("column", ["cpusets_enabled", "gfp_allowed_mask", "defrag_mode"])
def test_a_fact_that_is_always_captured_must_be_there(column: str) -> None:
    """Only a damaged row lacks it."""
    row = {**ROW, column: None}
    assert missing_facts(row) == [column]
    with pytest.raises(DamagedRowError, match=f"^no {column}$"):
        context_of(kernel(), row)


def test_task_flags_are_missing_only_where_the_stage_reads_them() -> None:
    """5.10 without CONFIG_CMA does not read them on the fast path; with it, or later, a row without them is damaged."""
    row = {**ROW, "task_flags": None}
    assert missing_facts(row) == []
    without, with_cma = (
        Kernel.of(replace(one, features=replace(one.features, config_cma=cma)))
        for one in [builtin_snapshot("5.10", MACHINE)]
        for cma in (False, True)
    )
    assert context_of(without, row).task_flags == 0
    for this in (with_cma, kernel()):
        with pytest.raises(DamagedRowError, match=r"^no task_flags$"):
            context_of(this, row)


def test_nothing_is_missing_from_a_whole_row() -> None:
    """The value 0 is a value."""
    assert missing_facts({**ROW, "cpusets_enabled": 0, "task_flags": 0, "defrag_mode": False}) == []


def test_nodes_are_a_mask() -> None:
    """Bit n is node n."""
    assert node_mask({"nodes": "0-2,5"}, "nodes") == 0b100111
    assert node_mask({"nodes": None}, "nodes") is None
    assert node_mask({"nodes": ""}, "nodes") == 0
    with pytest.raises(DamagedRowError, match=r"^nodes: "):
        node_mask({"nodes": "x"}, "nodes")


def test_the_request_is_shown_as_the_kernel_has_it() -> None:
    """A call of the slow path has no node of its own."""
    assert request_text(ROW) == "the request normal gfp_mask=0x100cca order=3 preferred_nid=1 nodemask=0,2"
    assert request_text({"gfp_mask": 0xCC0, "order": 1}) == "the request gfp_mask=0xcc0 order=1"


def test_a_failing_model_is_a_bug_of_this_program() -> None:
    """The three lines name the request, the error and what to send."""
    failure = ModelFailure("the request x", KeyError("y"))
    assert failure.what == "the model failed on the request x"
    assert failure.why == "this is a bug in kalloctrace: KeyError: 'y'"
    assert "--debug" in failure.fix
    assert failure.code == Exit.FAILED
    assert "damaged" in DAMAGED


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("alloc_flags", 0x840, "0x840 ALLOC_WMARK_MIN|ALLOC_CPUSET|ALLOC_KSWAPD"),
        ("freelist_gfp_mask", 0xCC0, "0xcc0 (GFP_KERNEL)"),
        ("gfp_mask", 0x820, "0x820 (GFP_ATOMIC)"),
        ("preferred_zone", (1, 2), "Normal of node 1"),
        ("preferred_zone", None, "None"),
        ("zonelist", ("FALLBACK", 0), "('FALLBACK', 0)"),
        ("freelist_order", 3, "3"),
        ("ac_nodemask_nodes", "0-1", "0-1"),
    ],
)
def test_a_value_is_shown_with_its_names(field: str, value: object, text: str) -> None:
    """Masks and zones have the names of the recorded kernel; other values stand for themselves."""
    assert value_text(field, value, builtin_snapshot("6.12").tables) == text
