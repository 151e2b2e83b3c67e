# SPDX-License-Identifier: MIT
"""Calls of the bulk allocator: what is predicted of them, and how the pages that they took are judged."""

from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import Machine, ZoneRef, machine_of
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.page_alloc import alloc_pages
from kalloctrace.model.types import Context, Request
from kalloctrace.trace.inferred import NOTHING_INFERRED
from kalloctrace.trace.schema import COLUMNS
from kalloctrace.verify.bulk import eligible
from kalloctrace.verify.compare import RowVerdict, Switches, judge
from kalloctrace.verify.verification import Judge, Shown
from tests import traces
from tests.broken_rules import BULK_MUTATIONS

DMA, DMA32, NORMAL, MOVABLE = range(4)
KERNEL_MASK, ACCOUNT, HARDWALL, MOVABLE_MASK = 0xCC0, 0x400000, 0x100000, 0x100CCA
NOIO = 0x80000
UNKNOWN_BIT = 0x80000000
SWITCHES = Switches(frozenset(), frozenset(), frozenset())

Row = dict[str, Any]

ONE = machine_of({0: [DMA, DMA32, NORMAL]}, gfp_allowed_mask=0x1FFFFFF)
TWO = machine_of({0: [DMA, DMA32, NORMAL], 1: [NORMAL, MOVABLE]}, gfp_allowed_mask=0x1FFFFFF)

TAKEN: Row = {
    **dict.fromkeys(COLUMNS.names),
    "entry": "bulk",
    "gfp_mask": KERNEL_MASK,
    "order": 0,
    "preferred_nid": 0,
    "nodemask": None,
    "entry_alloc_flags": None,
    "nr_pages": 100,
    "nr_populated": 0,
    "task_flags": 0,
    "preempt_count": 0x80000000,
    "mems_allowed": "0-1",
    "cpusets_enabled": 0,
    "gfp_allowed_mask": 0x1FFFFFF,
    "defrag_mode": False,
    "softirq_disable_cnt": None,
    "numa_node_id": None,
    "memcg_kmem_online": False,
    "page_owner_inited": False,
    "freelist_calls": 0,
    "page": True,
    "bulk_returned": 100,
    "bulk_seen": 100,
    "bulk_nodes": "0",
    "bulk_zones": "2",
    "bulk_list": False,
    "bulk_single_gfp_mask": None,
}
NONE_SEEN: Row = {"bulk_seen": 0, "bulk_nodes": None, "bulk_zones": None}
SINGLE: Row = {**NONE_SEEN, "bulk_returned": 1, "bulk_single_gfp_mask": KERNEL_MASK}


def judged(machine: Machine = ONE, *, may_miss: bool = False, **changes: object) -> RowVerdict:
    """Return the verdict on the usual row with some columns changed."""
    kernel = Kernel.of(builtin_snapshot("6.12", machine))
    return judge(kernel, {**TAKEN, **changes}, SWITCHES, may_miss=may_miss)


def fields(verdict: RowVerdict) -> list[str]:
    """Return the fields that differ; nothing may be unknown."""
    assert not verdict.unknown
    return [difference.field for difference in verdict.differences]


MATCHING: dict[str, tuple[Machine, Row]] = {
    "pages of the highest zone": (ONE, {}),
    "pages of a lower one": (ONE, {"bulk_zones": "1"}),
    "DMA32 requested": (ONE, {"gfp_mask": 0xCC4, "bulk_zones": "1"}),
    "movable": (TWO, {"gfp_mask": MOVABLE_MASK, "preferred_nid": 1, "bulk_nodes": "1", "bulk_zones": "3"}),
    "the caller's nodemask": (TWO, {"nodemask": "1", "bulk_nodes": "1"}),
    "the task's cpuset": (TWO, {"cpusets_enabled": 1, "mems_allowed": "1", "bulk_nodes": "1"}),
    "a page for the normal entry after all": (ONE, {**SINGLE}),
    "with the mask that was prepared": (
        ONE,
        {**SINGLE, "cpusets_enabled": 1, "bulk_single_gfp_mask": KERNEL_MASK | HARDWALL},
    ),
    "a mask with a bit that the kernel lacks": (
        ONE,
        {**SINGLE, "gfp_mask": KERNEL_MASK | UNKNOWN_BIT},
    ),
    "a task without I/O": (ONE, {**SINGLE, "task_flags": NOIO}),
    "one page": (ONE, {**SINGLE, "nr_pages": 1, "cpusets_enabled": 1}),
    "one page missing": (ONE, {**SINGLE, "nr_populated": 99, "bulk_returned": 100, "cpusets_enabled": 1}),
    "accounted": (
        ONE,
        {
            **SINGLE,
            "memcg_kmem_online": True,
            "gfp_mask": KERNEL_MASK | ACCOUNT,
            "cpusets_enabled": 1,
            "bulk_single_gfp_mask": KERNEL_MASK | ACCOUNT,
        },
    ),
    "accounting on, but not requested": (ONE, {"memcg_kmem_online": True}),
    "requested, but accounting off": (ONE, {"gfp_mask": KERNEL_MASK | ACCOUNT}),
    "page_owner": (ONE, {**SINGLE, "page_owner_inited": True, "cpusets_enabled": 1}),
    "nothing missing": (ONE, {**NONE_SEEN, "nr_populated": 100}),
    "nothing requested": (ONE, {**NONE_SEEN, "nr_pages": 0, "bulk_returned": 0, "page": False}),
    "some pages, then one by the normal entry": (ONE, {"bulk_single_gfp_mask": KERNEL_MASK}),
}

DIFFERING: dict[str, tuple[Machine, Row, str]] = {
    "a zone above the highest": (ONE, {"gfp_mask": 0xCC4}, "bulk_zone"),
    "two zones": (ONE, {"bulk_zones": "1-2"}, "bulk_zone"),
    "another node": (TWO, {"bulk_nodes": "1"}, "bulk_zone"),
    "a node outside the nodemask": (TWO, {"nodemask": "1"}, "bulk_zone"),
    "a node outside the cpuset": (TWO, {"cpusets_enabled": 1, "mems_allowed": "1"}, "bulk_zone"),
    "a zone without memory": (ONE, {"gfp_mask": MOVABLE_MASK, "bulk_zones": "3"}, "bulk_zone"),
    "nothing taken at all": (ONE, {**NONE_SEEN, "bulk_returned": 0, "page": False}, "bulk_outcome"),
    "the caller's mask after preparing": (ONE, {**SINGLE, "cpusets_enabled": 1}, "bulk_single_gfp_mask"),
    "pages where one was missing": (ONE, {"nr_pages": 1, "bulk_single_gfp_mask": KERNEL_MASK}, "bulk_zone"),
    "pages where none was missing": (ONE, {"nr_populated": 100}, "bulk_zone"),
    "a page for the normal entry where none was missing": (
        ONE,
        {**SINGLE, "nr_populated": 100},
        "bulk_single_gfp_mask",
    ),
    "pages on the free node of another": (
        TWO,
        {"gfp_mask": 0x200CC0, "preferred_nid": 1, "bulk_nodes": "0"},
        "bulk_zone",
    ),
}


@pytest.mark.parametrize("what", MATCHING)
def test_matches(what: str) -> None:
    """What a kernel does, as its source says, is no mismatch."""
    machine, changes = MATCHING[what]
    assert fields(judged(machine, **changes)) == []


@pytest.mark.parametrize("what", DIFFERING)
def test_differs(what: str) -> None:
    """What no kernel would do is named."""
    machine, changes, field = DIFFERING[what]
    assert field in fields(judged(machine, **changes))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"nr_populated": None}, "before was not captured"),
        ({"nr_pages": None}, "before was not captured"),
        ({"bulk_seen": None}, "before was not captured"),
        ({**NONE_SEEN, "bulk_list": True}, "on a list are not looked at"),
        ({**NONE_SEEN}, "no page was read"),
        ({"cpusets_enabled": -1}, "cpusets were being switched on"),
    ],
)
def test_what_was_not_seen_is_unknown(changes: Row, why: str) -> None:
    """It is no pass."""
    assert why in judged(**changes).unknown


@pytest.mark.parametrize(
    ("what", "expected", "observed", "rule"),
    [
        ("nothing taken at all", True, False, "bulk"),
        ("the caller's mask after preparing", KERNEL_MASK | HARDWALL, KERNEL_MASK, "cpuset"),
        (
            "another node",
            [ZoneRef(0, NORMAL), ZoneRef(0, DMA32), ZoneRef(0, DMA)],
            [ZoneRef(1, NORMAL)],
            "preferred_zone",
        ),
        ("a zone above the highest", [ZoneRef(0, DMA32), ZoneRef(0, DMA)], [ZoneRef(0, NORMAL)], "preferred_zone"),
        ("pages where none was missing", [], [ZoneRef(0, NORMAL)], "bulk"),
        ("a page for the normal entry where none was missing", None, KERNEL_MASK, "bulk"),
    ],
)
def test_difference_has_both_values_and_the_rule(what: str, expected: object, observed: object, rule: str) -> None:
    """Allowed are the zones of the preferred zone's node up to the highest one, the highest first."""
    machine, changes, field = DIFFERING[what]
    (difference,) = judged(machine, **changes).differences
    assert (difference.field, difference.expected, difference.observed) == (field, expected, observed)
    assert difference.rule == rule


def test_zones_of_a_preparation() -> None:
    """Without a preferred zone, a highest zone or a zonelist there is no zone to take pages from."""
    kernel = Kernel.of(builtin_snapshot("6.12", TWO))
    expected = alloc_pages(
        kernel, Request(MOVABLE_MASK, 0, 1), Context(cpusets_enabled=False, gfp_allowed_mask=0xFFFFFF)
    )
    assert eligible(kernel, expected) == [ZoneRef(1, MOVABLE), ZoneRef(1, NORMAL)]
    for member in ("preferred_zone", "highest_zoneidx", "zonelist_kind", "zonelist_nid"):
        missing: Row = {member: None}
        assert eligible(kernel, replace(expected, **missing)) == []
    assert eligible(kernel, replace(expected, zonelist_nid=7)) == []


def test_missed_hits_leave_nothing_to_judge() -> None:
    """The call of the normal entry may be one of those."""
    changes = {**NONE_SEEN, "bulk_returned": 0}
    assert "probe hits were missed" in judged(may_miss=True, **changes).unknown


@pytest.mark.parametrize("mutation", BULK_MUTATIONS)
def test_broken_rule_is_noticed(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule, broken alone, turns a match into a mismatch or lets a mismatch pass."""
    module, name, broken = BULK_MUTATIONS[mutation]
    monkeypatch.setattr(module, name, broken)
    wrong = [what for what, (machine, changes) in MATCHING.items() if fields(judged(machine, **changes))]
    wrong += [what for what, (machine, changes, _) in DIFFERING.items() if not fields(judged(machine, **changes))]
    assert wrong


@pytest.mark.parametrize(("missed", "missed_freelist"), [(1, 0), (0, 1)])
def test_bulk_call_is_judged_by_all_hits_that_were_missed(missed: int, missed_freelist: int) -> None:
    """A missed hit of the normal entry hides the call for a single page; one of get_page_from_freelist() does not."""
    totals = replace(traces.source()[1], missed=missed, missed_freelist=missed_freelist, machine_changed=())
    row = {**TAKEN, **NONE_SEEN, "bulk_returned": 0}
    verdict = Judge.of(Kernel.of(builtin_snapshot("6.12", ONE)), Shown([row]), totals, NOTHING_INFERRED)(row)
    assert (verdict.unknown, bool(verdict.differences)) == (
        ("nothing of the bulk call was seen, and probe hits were missed", False) if missed else ("", True)
    )
