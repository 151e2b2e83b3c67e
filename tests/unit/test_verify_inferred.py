# SPDX-License-Identifier: MIT
"""Inferred facts: which rules they leave without a verdict, and which requests a row may stand for."""

from typing import Any

import pytest

from kalloctrace.trace.inferred import INFERRED, INFERRED_TEXT, NOTHING_INFERRED, Inferred
from kalloctrace.verify.compare import RowVerdict, Switches, compared, judge, predict
from kalloctrace.verify.inferred import NOT_JUDGED
from tests.unit.test_verify_compare import FIXED, IN_CPUSET, REJECTED, ROW, TWO, kernel

ALL: frozenset[Inferred] = frozenset(INFERRED)
NOFS, NOWARN_SCOPE = 0x40000, 0x1000000
CPUSET_FLAG = 0x40
"""ALLOC_CPUSET of 6.12: mm/internal.h."""
MEMS = {**IN_CPUSET, "gfp_mask": 0x100CC0, "nodemask": "0-1"}
"""As one probe records it: __GFP_HARDWALL as the stage left it, and the nodemask that ac shows."""


def judged(
    *facts: Inferred, switches: Switches = FIXED, release: str = "6.12", may_miss: bool = False, **changes: object
) -> RowVerdict:
    """Return the verdict on the usual row with some columns changed."""
    row = {**ROW, **changes}
    return judge(kernel(release, TWO), row, switches, may_miss=may_miss, inferred=frozenset(facts))


@pytest.mark.parametrize(
    ("fact", "changes", "rules"),
    [
        ("preferred_nid", {}, ("zonelist",)),
        ("gfp_outside_allowed_mask", {}, ("gfp_allowed_mask",)),
        ("scope_bits", {}, ()),
        ("scope_bits", {"task_flags": NOFS, "gfp_mask": 0xC40, "freelist_gfp_mask": 0xC40}, ("gfp_context",)),
        ("hardwall", {}, ()),
        ("hardwall", MEMS | {"nodemask": None}, ("cpuset",)),
        ("nodemask", {}, ()),
        ("nodemask", MEMS, ("cpuset",)),
        (
            "nodemask",
            MEMS | {"nodemask": "0", "ac_nodemask": "caller", "ac_nodemask_nodes": "0", "alloc_flags": 0x941},
            (),
        ),
    ],
)
def test_each_fact_leaves_its_rule_without_a_verdict(
    fact: Inferred, changes: dict[str, Any], rules: tuple[str, ...]
) -> None:
    """Only where the row needs the fact; the allocation is matched by its other rules."""
    assert judged(fact, **changes) == RowVerdict(not_judged=rules)
    assert set(rules) <= set(NOT_JUDGED)


def test_nothing_is_inferred_in_a_recording_with_all_arguments() -> None:
    """Then every rule is judged."""
    assert judged(*NOTHING_INFERRED, task_flags=NOFS, freelist_gfp_mask=0xC40) == RowVerdict()


def test_each_fact_has_its_words() -> None:
    """The report lists what was not captured."""
    assert tuple(INFERRED_TEXT) == INFERRED


def test_scopes_that_a_kernel_does_not_apply_there_are_no_reason() -> None:
    """5.10 applies them on the slow path only; 6.12 has no PF_MEMALLOC_NOWARN any more."""
    assert judged("scope_bits", release="5.10", task_flags=NOFS, alloc_flags=0x501).not_judged == ()
    assert judged("scope_bits", task_flags=NOWARN_SCOPE).not_judged == ()


def test_rejected_and_bulk_calls_are_captured_whole() -> None:
    """The probe of the reject block, and that of the bulk allocator, see all arguments."""
    assert judged(*INFERRED, **REJECTED) == RowVerdict()
    bulk: dict[str, Any] = {"entry": "bulk", "nr_pages": 2, "nr_populated": 0, "bulk_returned": 2, "bulk_seen": 2}
    pages: dict[str, Any] = {"bulk_nodes": "0", "bulk_zones": "2", "bulk_list": False}
    verdict = judged(*INFERRED, **bulk, **pages, freelist_calls=0, alloc_flags=None)
    assert (verdict.fields["bulk_zone"], verdict.not_judged) == ("equal", ())


def test_a_row_that_cannot_be_judged_has_no_such_rule() -> None:
    """It is unknown as a whole."""
    verdict = judged(*INFERRED, zonelist_kind=None)
    assert verdict.unknown
    assert verdict.not_judged == ()


@pytest.mark.parametrize(
    ("changes", "field", "rule"),
    [
        ({"zonelist_kind": "NOFALLBACK"}, "zonelist", "zonelist"),
        (
            {"gfp_mask": 0x200CC0, "gfp_allowed_mask": 0xFFFFF, "freelist_gfp_mask": 0x200CC0},
            "freelist_gfp_mask",
            "gfp_allowed_mask",
        ),
        ({"task_flags": NOFS}, "freelist_gfp_mask", "gfp_context"),
        (MEMS | {"gfp_mask": 0xCC0, "freelist_gfp_mask": 0xCC0}, "freelist_gfp_mask", "cpuset"),
    ],
)
def test_what_shows_in_spite_of_an_inferred_fact_is_a_mismatch(changes: dict[str, Any], field: str, rule: str) -> None:
    """A bit that should have been cleared or set, or the wrong kind of list, needs no inferred fact to be seen."""
    verdict = judged(*INFERRED, **changes)
    assert {difference.field: difference.rule for difference in verdict.differences} == {field: rule}
    assert rule not in verdict.not_judged


@pytest.mark.parametrize(
    ("alloc_flags", "preempt_count", "fits"),
    [
        (0x901, 0, True),
        (0x901 | CPUSET_FLAG, 0, True),
        (0x901 | CPUSET_FLAG, 0x10000, True),
        (0x901, 0x10000, False),
    ],
    ids=["NULL was passed", "the caller's own mems_allowed", "likewise, in an interrupt", "an interrupt without it"],
)
def test_nodemask_may_be_the_callers_or_the_cpusets(alloc_flags: int, preempt_count: int, *, fits: bool) -> None:
    """A caller that passes a pointer to its own mems_allowed leaves the same mask, with ALLOC_CPUSET."""
    verdict = judged("nodemask", **MEMS, alloc_flags=alloc_flags, preempt_count=preempt_count)
    assert (not verdict.differences) == fits
    assert verdict.unknown == ""
    # Where both were captured there is one answer: ALLOC_CPUSET goes with a nodemask of the caller.
    whole = judged(**MEMS | {"nodemask": None}, alloc_flags=alloc_flags, preempt_count=preempt_count)
    assert (not whole.differences) == (fits and not alloc_flags & CPUSET_FLAG)


def test_prediction_is_of_the_request_that_fits() -> None:
    """Details of a row show the request by which it was matched."""
    inferred: frozenset[Inferred] = frozenset({"nodemask"})
    asked_null, asked_own = {**ROW, **MEMS}, {**ROW, **MEMS, "alloc_flags": 0x901 | CPUSET_FLAG}
    assert predict(kernel("6.12", TWO), asked_null, inferred).nodemask == "mems_allowed"
    assert predict(kernel("6.12", TWO), asked_own, inferred).nodemask == "caller"
    for row in (asked_null, asked_own):
        assert all(want == got for _, want, got in compared(kernel("6.12", TWO), row, inferred))


def test_what_nothing_fits_is_shown_as_if_null_was_passed() -> None:
    """That is by far the most frequent request."""
    verdict = judged("nodemask", **MEMS, migratetype=1)
    assert [one.field for one in verdict.differences] == ["migratetype"]


def test_a_switch_during_the_call_is_no_mismatch() -> None:
    """Cpusets were switched off after the stage: the nodemask is then the cpuset's in the context that it ran in."""
    switches = Switches(frozenset({False, True}), frozenset(), frozenset())
    verdict = judged(*INFERRED, switches=switches, **MEMS | {"cpusets_enabled": 0})
    assert verdict == RowVerdict(unknown="a switch of the machine changed during the call")
