# SPDX-License-Identifier: MIT
"""The verdict on events of kmem:mm_page_alloc: what such an event can refute, and that it never proves a match."""

from typing import Any

import pytest

from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import machine_of
from kalloctrace.model.kernel import Kernel
from kalloctrace.verify.compare import Difference, RowVerdict
from kalloctrace.verify.events import NOT_SHOWN, EventJudge

Row = dict[str, Any]
ALLOWED = 0xFFFFFF
KERNEL = Kernel.of(builtin_snapshot("6.12", machine_of({0: [2]}, gfp_allowed_mask=ALLOWED)))
MOVABLE_MASK, KERNEL_MASK = 0x100CCA, 0xCC0
EVENT: Row = {"entry": "tracepoint", "order": 0, "gfp_mask": KERNEL_MASK, "migratetype": 0}
EQUAL = {"order": "equal", "gfp_mask": "equal", "migratetype": "equal"}


def judged(*, grouped: bool = True, **changes: object) -> RowVerdict:
    """Return the verdict on an event with some columns changed."""
    return EventJudge(KERNEL, grouped)({**EVENT, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"order": 10},
        {"gfp_mask": MOVABLE_MASK, "migratetype": 1},
        {"gfp_mask": KERNEL_MASK | 0x10, "migratetype": 2},
    ],
    ids=str,
)
def test_an_event_without_a_contradiction_stays_unknown(changes: Row) -> None:
    """Zones, nodes, alloc_flags and the original mask are not in it."""
    verdict = judged(**changes)
    assert (verdict.differences, verdict.unknown, verdict.fields) == ((), NOT_SHOWN, EQUAL)
    assert "kmem:mm_page_alloc" in NOT_SHOWN


@pytest.mark.parametrize(
    ("changes", "field", "expected", "observed", "rule"),
    [
        ({"order": 11}, "order", 10, 11, "order"),
        ({"gfp_mask": KERNEL_MASK | 1 << 30}, "gfp_mask", KERNEL_MASK, KERNEL_MASK | 1 << 30, "gfp_allowed_mask"),
        ({"gfp_mask": MOVABLE_MASK, "migratetype": 2}, "migratetype", 1, 2, "gfp_migratetype"),
        ({"gfp_mask": MOVABLE_MASK}, "migratetype", 1, 0, "gfp_migratetype"),
        ({"migratetype": 1}, "migratetype", 0, 1, "gfp_migratetype"),
    ],
)
def test_an_event_can_contradict_the_model(changes: Row, field: str, expected: int, observed: int, rule: str) -> None:
    """Order 10 is the largest; gfp_allowed_mask limits the mask; the mobility bits give the migratetype."""
    verdict = judged(**changes)
    (difference,) = verdict.differences
    assert difference == Difference(field, expected, observed, rule, difference.effect)
    assert difference.effect
    assert verdict.unknown == ""
    assert verdict.fields == {**EQUAL, field: "different"}


def test_every_contradiction_of_an_event_is_reported() -> None:
    """An event may differ in all its fields."""
    verdict = judged(order=12, gfp_mask=MOVABLE_MASK | 1 << 30, migratetype=0)
    assert [difference.field for difference in verdict.differences] == ["order", "gfp_mask", "migratetype"]


def test_a_kernel_may_not_group_pages_by_mobility() -> None:
    """If no event has another migratetype than 0, page_group_by_mobility_disabled may be set, so 0 is possible."""
    verdict = judged(grouped=False, gfp_mask=MOVABLE_MASK)
    assert (verdict.differences, verdict.unknown) == ((), NOT_SHOWN)
    assert verdict.fields == {**EQUAL, "migratetype": "unknown"}
    assert judged(grouped=False).fields == EQUAL
    wrong = judged(grouped=False, gfp_mask=MOVABLE_MASK, migratetype=2)
    assert [difference.observed for difference in wrong.differences] == [2]


@pytest.mark.parametrize(
    ("rows", "grouped"),
    [
        ([EVENT, {**EVENT, "migratetype": 1}], True),
        ([EVENT, EVENT], False),
        ([EVENT, {**EVENT, "entry": "normal", "migratetype": 1}], False),
        ([], False),
    ],
)
def test_one_event_shows_that_pages_are_grouped(rows: list[Row], grouped: bool) -> None:
    """The rows of other entries say nothing of the machine that another tool recorded."""
    judge = EventJudge.of(KERNEL, rows)
    assert judge.grouped is grouped
    assert judge.kernel is KERNEL
    assert bool(judge({**EVENT, "gfp_mask": MOVABLE_MASK}).differences) is grouped
