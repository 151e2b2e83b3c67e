# SPDX-License-Identifier: MIT
"""What a recording left out, missed and inferred, in words."""

from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.trace.filter_text import filter_words, inferred_filters
from kalloctrace.trace.missed_text import missed_causes
from kalloctrace.trace.totals import MissedBy
from tests.unit.test_trace import TOTALS

TABLES = builtin_tables("6.12")
IO, HARDWALL, ZERO = 0x40, 0x100000, 0x100
BEYOND = 0x8000_0000
"""A bit that no flag of 6.12 has, so gfp_allowed_mask never has it."""


def causes(program: int = 0, kprobe: int = 0, memory: int = 0, calls: int | None = None, attach: str = "") -> list[str]:
    """Return the causes of these missed hits."""
    totals = replace(TOTALS, missed_by=MissedBy(kprobe, program, memory), bpf_calls=calls)
    return list(missed_causes(totals, {"attach": attach}))


def test_bpf_calls_are_the_likely_cause() -> None:
    """Somebody's bpf(2) calls make the kernel skip the programs of kprobes."""
    expected = "10,211 kprobe hits were skipped while other programs used bpf(2); 52,000 such calls meanwhile"
    assert causes(10_211, calls=52_000, attach="one:multi") == [expected]
    assert causes(1, calls=1) == ["1 kprobe hit was skipped while other programs used bpf(2); 1 such call meanwhile"]


@pytest.mark.parametrize(
    ("calls", "attach", "word"),
    [
        (None, "pair:jump", "could not be counted"),
        (0, "pair:jump", "nobody used bpf(2)"),
        (9, "one:fentry", "preempted task"),
    ],
)
def test_bpf_calls_are_not_blamed_where_they_are_no_cause(calls: int | None, attach: str, word: str) -> None:
    """Not without a count, not without calls, and not where trampolines are used, which bpf(2) does not disturb."""
    (cause,) = causes(5, calls=calls, attach=attach)
    assert word in cause
    assert "while other programs used" not in cause


def test_each_counter_has_its_words() -> None:
    """A counter that is 0 has none, and neither has a recording that did not keep the counters apart."""
    assert len(causes(1, 2, 3)) == 3
    assert "handler" in causes(kprobe=2)[0]
    assert "no memory" in causes(memory=3)[0]
    assert causes() == []
    assert list(missed_causes(replace(TOTALS, missed=5), {})) == []


def words(filters: dict[str, Any], *inferred: str) -> list[str]:
    """Return the filters in words."""
    return list(filter_words({"filters": filters, "inferred": list(inferred)}, TABLES))


@pytest.mark.parametrize(
    ("filters", "inferred", "note"),
    [
        ({"nid": 1}, "preferred_nid", "owns the zonelist"),
        ({"gfp_any": IO}, "scope_bits", "a scope"),
        ({"gfp_none": HARDWALL}, "hardwall", "__GFP_HARDWALL"),
        ({"gfp_all": BEYOND}, "gfp_outside_allowed_mask", "gfp_allowed_mask"),
    ],
)
def test_filter_on_an_inferred_fact_says_so(filters: dict[str, int], inferred: str, note: str) -> None:
    """It selects by what is inferred; the same filter of a recording that captures the fact has no note."""
    (noted,), (plain,) = words(filters, inferred), words(filters)
    assert noted.startswith(f"{plain} (")
    assert note in noted
    recording = {"filters": filters, "inferred": [inferred]}
    assert list(inferred_filters(recording, TABLES)) == list(filters)
    assert inferred_filters({"filters": filters}, TABLES) == {}


def test_other_filters_have_no_note() -> None:
    """A mask without bits that are inferred is what the caller passed."""
    facts = ("preferred_nid", "scope_bits", "hardwall", "gfp_outside_allowed_mask", "nodemask")
    filters = {"pid": 1, "order": 3, "gfp_any": ZERO, "alloc_flags": 1, "zone": 2, "nid": None, "sample": 2}
    assert words(filters, *facts) == words(filters)
