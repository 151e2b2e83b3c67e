# SPDX-License-Identifier: MIT
"""The comparison of one row with its prediction: each field with its rule, and what makes a row unknown."""

from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import Machine, machine_of
from kalloctrace.model.kernel import Kernel
from kalloctrace.trace.schema import COLUMNS
from kalloctrace.verify.compare import Difference, FieldCount, RowVerdict, Switches, compared, judge, predict

Row = dict[str, Any]
DMA, DMA32, NORMAL = range(3)
ONE = machine_of({0: (DMA, DMA32, NORMAL)}, gfp_allowed_mask=0xFFFFFF)
TWO = machine_of({0: (DMA, DMA32, NORMAL), 1: (NORMAL,)}, gfp_allowed_mask=0xFFFFFF)
SMALL = machine_of({0: (DMA, DMA32)}, gfp_allowed_mask=0xFFFFFF)
FIXED = Switches(frozenset(), frozenset(), frozenset())
DAMAGED = "the row is damaged"

ROW: Row = {
    **dict.fromkeys(COLUMNS.names),
    "entry": "normal",
    "gfp_mask": 0xCC0,
    "order": 0,
    "preferred_nid": 0,
    "task_flags": 0,
    "preempt_count": 0,
    "mems_allowed": "0-1",
    "cpusets_enabled": 0,
    "gfp_allowed_mask": 0xFFFFFF,
    "defrag_mode": False,
    "freelist_calls": 1,
    "freelist_gfp_mask": 0xCC0,
    "freelist_order": 0,
    "alloc_flags": 0x901,
    "zonelist_kind": "FALLBACK",
    "zonelist_nid": 0,
    "ac_nodemask": "null",
    "preferred_node": 0,
    "preferred_zone": NORMAL,
    "migratetype": 0,
    "highest_zoneidx": NORMAL,
    "spread_dirty_pages": False,
    "page": True,
}
"""GFP_KERNEL of 6.12: ALLOC_WMARK_LOW, ALLOC_NOFRAGMENT as ZONE_NORMAL has a lower zone, and ALLOC_KSWAPD."""

PREPARED: Row = {
    "prepare_returned": True,
    "prepare_alloc_mask": 0xCC0,
    "prepare_alloc_flags": 0x1,
    "prepare_same_context": True,
}
REJECTED: Row = {"order": 11, "freelist_calls": 0, "page": False}
IN_CPUSET: Row = {
    "cpusets_enabled": 1,
    "freelist_gfp_mask": 0x100CC0,
    "ac_nodemask": "mems_allowed",
    "ac_nodemask_nodes": "0-1",
}
"""prepare_alloc_pages() adds __GFP_HARDWALL, and the cpuset's nodes as no nodemask was given."""

FIELDS = (
    *("outcome", "freelist_order", "zonelist", "ac_nodemask", "ac_nodemask_nodes", "preferred_zone", "migratetype"),
    *("highest_zoneidx", "spread_dirty_pages", "freelist_gfp_mask", "alloc_flags"),
)


def kernel(release: str = "6.12", machine: Machine = ONE) -> Kernel:
    """Return a built-in kernel."""
    return Kernel.of(builtin_snapshot(release, machine))


def judged(
    release: str = "6.12",
    machine: Machine = ONE,
    switches: Switches = FIXED,
    *,
    may_miss: bool = False,
    **changes: object,
) -> RowVerdict:
    """Return the verdict on the usual row with some columns changed."""
    return judge(kernel(release, machine), {**ROW, **changes}, switches, may_miss=may_miss)


def values(difference: Difference) -> tuple[object, ...]:
    """Return what a difference says, without the text for people."""
    return difference.field, difference.expected, difference.observed, difference.rule


def test_every_field_of_a_prepared_row_is_compared() -> None:
    """What prepare_alloc_pages() returned is compared where it is traced."""
    verdict = judged()
    assert (verdict.differences, verdict.unknown) == ((), "")
    assert verdict.fields == dict.fromkeys(FIELDS, "equal")
    assert judged(**PREPARED).fields == dict.fromkeys((*FIELDS, *PREPARED), "equal")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"freelist_order": 1}, ("freelist_order", 0, 1, "order")),
        ({"zonelist_kind": "NOFALLBACK"}, ("zonelist", ("FALLBACK", 0), ("NOFALLBACK", 0), "zonelist")),
        ({"zonelist_nid": 1}, ("zonelist", ("FALLBACK", 0), ("FALLBACK", 1), "zonelist")),
        ({"ac_nodemask": "caller"}, ("ac_nodemask", "null", "caller", "cpuset")),
        ({"ac_nodemask_nodes": "1"}, ("ac_nodemask_nodes", None, "1", "cpuset")),
        ({"preferred_zone": DMA}, ("preferred_zone", (0, NORMAL), (0, DMA), "preferred_zone")),
        ({"preferred_node": None}, ("preferred_zone", (0, NORMAL), None, "preferred_zone")),
        ({"migratetype": 1}, ("migratetype", 0, 1, "gfp_migratetype")),
        ({"highest_zoneidx": 3}, ("highest_zoneidx", NORMAL, 3, "gfp_zone")),
        ({"spread_dirty_pages": True}, ("spread_dirty_pages", False, True, "spread_dirty_pages")),
        ({"freelist_gfp_mask": 0x100CC0}, ("freelist_gfp_mask", 0xCC0, 0x100CC0, "cpuset")),
        ({"freelist_gfp_mask": 0xC80}, ("freelist_gfp_mask", 0xCC0, 0xC80, "gfp_context")),
        ({"freelist_gfp_mask": 0xC40}, ("freelist_gfp_mask", 0xCC0, 0xC40, "gfp_context")),
        ({"freelist_gfp_mask": 0xCC8}, ("freelist_gfp_mask", 0xCC0, 0xCC8, "gfp_context")),
        ({"freelist_gfp_mask": 0xDC0}, ("freelist_gfp_mask", 0xCC0, 0xDC0, "gfp_allowed_mask")),
        ({"alloc_flags": 0x941}, ("alloc_flags", 0x901, 0x941, "cpuset")),
        ({"alloc_flags": 0x981}, ("alloc_flags", 0x901, 0x981, "cma")),
        ({"alloc_flags": 0xB01}, ("alloc_flags", 0x901, 0xB01, "highatomic")),
        ({"alloc_flags": 0x801}, ("alloc_flags", 0x901, 0x801, "nofragment")),
        ({**PREPARED, "prepare_returned": False}, ("prepare_returned", True, False, "order")),
        ({**PREPARED, "prepare_alloc_mask": 0}, ("prepare_alloc_mask", 0xCC0, 0, "cpuset")),
        ({**PREPARED, "prepare_alloc_flags": 0}, ("prepare_alloc_flags", 1, 0, "cpuset")),
        ({**PREPARED, "prepare_same_context": False}, ("prepare_same_context", True, False, "preferred_zone")),
        ({"freelist_calls": 0}, ("outcome", "prepared", "rejected", "order")),
        ({"order": 11, "freelist_order": 11}, ("outcome", "rejected", "prepared", "order")),
        ({**REJECTED, "page": True}, ("page", False, True, "order")),
    ],
    ids=str,
)
def test_each_field_has_its_rule(changes: Row, expected: tuple[object, ...]) -> None:
    """One altered column is one difference, with both values and the rule that sets the field."""
    verdict = judged(**changes)
    (difference,) = verdict.differences
    assert values(difference) == expected
    assert verdict.unknown == ""
    assert [name for name, found in verdict.fields.items() if found != "equal"] == [difference.field]
    assert verdict.fields[difference.field] == "different"


def test_a_request_may_have_no_eligible_zone() -> None:
    """Node 1 has no ZONE_DMA: preferred_zoneref is the terminating entry, and ALLOC_NOFRAGMENT is not set."""
    row: Row = {
        "gfp_mask": 0xCC1,
        "nodemask": "1",
        "freelist_gfp_mask": 0xCC1,
        "alloc_flags": 0x801,
        "ac_nodemask": "caller",
        "ac_nodemask_nodes": "1",
        "preferred_node": None,
        "preferred_zone": None,
        "highest_zoneidx": DMA,
        "page": False,
    }
    assert judged(machine=TWO, **row) == RowVerdict()


def test_scopes_are_applied_later_on_5_10() -> None:
    """There current_gfp_context() is called in the slow path, so gfp_allowed_mask alone changes the mask before."""
    (difference,) = judged("5.10", freelist_gfp_mask=0xC80, alloc_flags=0x901).differences
    assert difference.rule == "gfp_allowed_mask"


def test_a_difference_has_the_effect_of_its_rule() -> None:
    """If no such rule was applied, it is why nothing was prepared."""
    (difference,) = judged(highest_zoneidx=3).differences
    assert "select highest_zoneidx 2" in difference.effect
    (difference,) = judged(**{**REJECTED, "page": True}).differences
    assert "order 11" in difference.effect
    assert judged(freelist_gfp_mask=0xC80).differences[0].effect is not None


def test_a_rejected_row_has_two_fields() -> None:
    """Without a traced return, the outcome alone is compared."""
    assert judged(**REJECTED).fields == {"outcome": "equal", "page": "equal"}
    assert judged(**{**REJECTED, "page": None}).fields == {"outcome": "equal"}
    assert judged(freelist_calls=0).fields == {"outcome": "different"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cpusets_enabled": -1}, "cpusets were being switched on"),
        ({"freelist_calls": None}, DAMAGED),
        ({"freelist_gfp_mask": None}, DAMAGED),
        ({"alloc_flags": None}, DAMAGED),
        ({"mems_allowed": "x"}, DAMAGED),
        ({"task_flags": None}, DAMAGED),
        ({"entry": "nolock"}, DAMAGED),
        ({"zonelist_kind": None}, "the zonelist is none of the snapshot's"),
        ({"preferred_zone": -1}, "the preferred zone is none of the snapshot's"),
        ({**IN_CPUSET, "preempt_count": None}, "not known: preempt_count"),
    ],
    ids=str,
)
def test_what_cannot_be_judged_is_unknown(changes: Row, why: str) -> None:
    """The row has no verdict on any field."""
    verdict = judged(**changes)
    assert (verdict.differences, verdict.unknown, verdict.fields) == ((), why, {})


def test_missed_hits_make_a_missing_call_unknown() -> None:
    """A row with that call is judged all the same."""
    missing = "get_page_from_freelist was not seen, and probe hits were missed"
    assert judged(may_miss=True, freelist_calls=0).unknown == missing
    assert judged(may_miss=True) == RowVerdict()


@pytest.mark.parametrize(
    ("realtime", "preempt_count", "softirq", "unknown"),
    [(True, 0, None, True), (True, 0, 0, False), (True, None, None, False), (False, 0, None, False)],
)
def test_preempt_rt_needs_the_softirq_count_of_the_task(
    realtime: bool, preempt_count: int | None, softirq: int | None, unknown: bool
) -> None:
    """It completes preempt_count; without both, the model says whether they decide."""
    plain = kernel()
    other = plain.on(plain.machine, replace(plain.features, config_preempt_rt=realtime))
    row = {**ROW, "preempt_count": preempt_count, "softirq_disable_cnt": softirq}
    verdict = judge(other, row, FIXED, may_miss=False)
    assert verdict == RowVerdict(unknown="softirq_disable_cnt was not captured" if unknown else "")


def test_a_cpuset_that_changes_during_the_call_is_no_mismatch() -> None:
    """The kernel reads current->mems_allowed after the probe did."""
    assert judged(machine=TWO, **IN_CPUSET) == RowVerdict()
    moved = {**IN_CPUSET, "ac_nodemask_nodes": "0"}
    assert judged(machine=TWO, **moved) == RowVerdict(unknown="mems_allowed changed during the call")
    assert [each.field for each in judged(machine=TWO, **IN_CPUSET, migratetype=1).differences] == ["migratetype"]
    elsewhere = {**moved, "cpusets_enabled": 0, "freelist_gfp_mask": 0xCC0}
    assert [each.field for each in judged(machine=TWO, **elsewhere).differences] == [
        "ac_nodemask",
        "ac_nodemask_nodes",
    ]


SWITCHED = RowVerdict(unknown="a switch of the machine changed during the call")


@pytest.mark.parametrize(
    ("release", "machine", "switches", "changes"),
    [
        ("6.12", TWO, {"cpusets_enabled": frozenset({True})}, {**IN_CPUSET, "cpusets_enabled": 0}),
        ("6.12", ONE, {"gfp_allowed_mask": frozenset({0xFFFF3F})}, {"freelist_gfp_mask": 0xC00}),
        ("7.2", SMALL, {"defrag_mode": frozenset({True})}, {"preferred_zone": DMA32, "alloc_flags": 0x901}),
    ],
)
def test_a_switch_that_changes_during_the_call_is_no_mismatch(
    release: str, machine: Machine, switches: Row, changes: Row
) -> None:
    """The kernel may have read either value that a switch had during the recording; another value explains nothing."""
    assert judged(release, machine, replace(FIXED, **switches), **changes) == SWITCHED
    assert judged(release, machine, **changes).differences
    assert judged(release, machine, replace(FIXED, **switches), **changes, migratetype=1).differences


def test_two_switches_may_change_during_a_call() -> None:
    """Suspend and a first cpuset: the mask shows both."""
    switches = Switches(frozenset({True, False}), frozenset({0xFFFFFF, 0xFFFF3F}), frozenset({False}))
    changes = {**IN_CPUSET, "cpusets_enabled": 0, "freelist_gfp_mask": 0x100C00}
    assert judged(machine=TWO, switches=switches, **changes) == SWITCHED


def test_a_prediction_can_be_read_alone() -> None:
    """`compared` yields the fields in order, each with the model's value first."""
    row = {**ROW, "migratetype": 2}
    assert predict(kernel(), row).gfp == 0xCC0
    assert predict(kernel(machine=TWO), {**ROW, **IN_CPUSET}).nodemask == "mems_allowed"
    seen = {name: (want, got) for name, want, got in compared(kernel(), row)}
    assert tuple(seen) == FIELDS
    assert (seen["migratetype"], seen["alloc_flags"]) == ((0, 2), (0x901, 0x901))


def test_counts_of_a_field_add_up() -> None:
    """Each verdict has its own count."""
    count = FieldCount()
    assert count.to_json() == {"equal": 0, "different": 0, "unknown": 0}
    count.add("equal", 2)
    count.add("equal", 3)
    count.add("different", 7)
    count.add("unknown", 1)
    assert count.to_json() == {"equal": 5, "different": 7, "unknown": 1}


def test_a_difference_as_json() -> None:
    """The keys are the contract of `verify --json`."""
    assert Difference("f", 1, 2, "r", "e").to_json() == {
        "field": "f",
        "expected": 1,
        "observed": 2,
        "rule": "r",
        "effect": "e",
    }
