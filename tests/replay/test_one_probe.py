# SPDX-License-Identifier: MIT
"""The recorded fixtures, judged as if one probe had recorded them: what is inferred is never judged against itself.

The other rules have the same verdict on each row, and each of them that is broken on purpose is still noticed.
"""

from collections import Counter
from functools import cache
from typing import Any

import pytest

from kalloctrace.model.kernel import Kernel
from kalloctrace.trace.inferred import INFERRED, NOTHING_INFERRED, Inferred
from kalloctrace.verify.compare import RowVerdict, Switches, judge
from tests.broken_rules import BULK_MUTATIONS, MUTATIONS, RT_MUTATIONS
from tests.one_probe import HARDWALL, as_one_probe
from tests.replay.test_broken_rules import NOT_IN, recorded

Row = dict[str, Any]
ALL: frozenset[Inferred] = frozenset(INFERRED)
FOLDERS = ("5.10", "6.12", "7.3")
SWITCHES = Switches(frozenset(), frozenset(), frozenset())
ALL_MUTATIONS = {**MUTATIONS, **BULK_MUTATIONS, **RT_MUTATIONS}

UNNOTICED = {
    "no gfp_allowed_mask": "gfp_allowed_mask",
    "no scopes": "gfp_context",
    "no NOIO": "gfp_context",
    "no NOFS": "gfp_context",
    "no PIN": "gfp_context",
}
"""Broken rules whose result becomes their own input, and the rule that is reported as not judged for that reason."""


def verdict(kernel: Kernel, row: Row, inferred: frozenset[Inferred] = ALL) -> RowVerdict:
    """Return the verdict on a row."""
    return judge(kernel, row, SWITCHES, may_miss=False, inferred=inferred)


@cache
def rows_of(folder: str) -> list[tuple[Kernel, Row]]:
    """Return each distinct row of a kernel's fixtures as one probe would have recorded it."""
    return [(kernel, as_one_probe(row)) for kernel, rows in recorded(folder) for row in rows]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_row_is_matched_by_the_same_fields(folder: str) -> None:
    """Inferred facts make no row unknown or mismatched, and every field is compared as before."""
    for kernel, rows in recorded(folder):
        for row in rows:
            whole, one = verdict(kernel, row, NOTHING_INFERRED), verdict(kernel, as_one_probe(row))
            assert (one.differences, one.unknown, one.fields) == ((), "", whole.fields)
            assert whole.not_judged == ()


@pytest.mark.parametrize("folder", FOLDERS)
def test_not_judged_are_the_rows_that_need_an_inferred_fact(folder: str) -> None:
    """The kernel's own values show which rows these are: the pair's recording has the facts that one probe infers."""
    found: Counter[str] = Counter()
    for kernel, rows in recorded(folder):
        for row in rows:
            rules = verdict(kernel, as_one_probe(row)).not_judged
            found.update(rules)
            if row["entry"] == "bulk" or not row["freelist_calls"]:
                assert rules == ()
                continue
            assert "zonelist" in rules
            assert ("cpuset" in rules) == (row["cpusets_enabled"] > 0)
            if row["gfp_mask"] & row["gfp_allowed_mask"] & ~row["freelist_gfp_mask"]:
                assert "gfp_context" in rules
            if row["gfp_mask"] & ~row["gfp_allowed_mask"]:
                assert "gfp_allowed_mask" in rules
    assert found.keys() >= {"zonelist", "cpuset", "gfp_allowed_mask"}
    assert ("gfp_context" in found) == (folder != "5.10"), "5.10 applies the scopes on the slow path"


@pytest.mark.parametrize(
    ("folder", "mutation"),
    [(folder, name) for folder in FOLDERS for name in ALL_MUTATIONS if name not in NOT_IN[folder]],
)
def test_broken_rule_is_caught_unless_it_is_not_judged(
    folder: str, mutation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rule that a kernel has is noticed when broken, but for those that are reported as not judged."""
    if mutation in UNNOTICED:
        assert any(UNNOTICED[mutation] in verdict(kernel, row).not_judged for kernel, row in rows_of(folder))
    module, name, broken = ALL_MUTATIONS[mutation]
    monkeypatch.setattr(module, name, broken)
    noticed = any(verdict(kernel, row).differences for kernel, row in rows_of(folder))
    assert noticed == (mutation not in UNNOTICED)


WRONG: dict[str, Any] = {
    "another zone": lambda row: {"preferred_zone": 0 if row["preferred_zone"] else 1},
    "no zone": lambda _: {"preferred_node": None, "preferred_zone": None},
    "another migratetype": lambda row: {"migratetype": row["migratetype"] ^ 1},
    "another highest zone": lambda row: {"highest_zoneidx": row["highest_zoneidx"] ^ 1},
    "dirty pages the other way": lambda row: {"spread_dirty_pages": not row["spread_dirty_pages"]},
    "another order": lambda row: {"freelist_order": row["freelist_order"] + 1},
    "another watermark": lambda row: {"alloc_flags": row["alloc_flags"] ^ 1},
    "ALLOC_KSWAPD the other way": lambda row: {"alloc_flags": row["alloc_flags"] ^ 0x800},
    "ALLOC_NOFRAGMENT the other way": lambda row: {"alloc_flags": row["alloc_flags"] ^ 0x100},
    "ALLOC_CMA the other way": lambda row: {"alloc_flags": row["alloc_flags"] ^ 0x80},
    "the other kind of zonelist": lambda row: {
        "zonelist_kind": "FALLBACK" if row["zonelist_kind"] == "NOFALLBACK" else "NOFALLBACK"
    },
    "no nodemask": lambda _: {"ac_nodemask": "null", "ac_nodemask_nodes": None},
    "another node's mask": lambda _: {"ac_nodemask_nodes": "5"},
}
"""What a kernel that prepares a request wrongly would show instead."""


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("folder", ["6.12", "7.3"])
def test_wrong_preparation_is_found_alike(folder: str, wrong: str) -> None:
    """What the kernel does wrongly is found in the same fields, by the same rules, as where everything is captured."""
    found = 0
    for kernel, rows in recorded(folder):
        for row in rows[:: max(1, len(rows) // 100)]:
            if row["entry"] == "bulk" or not row["freelist_calls"]:
                continue
            # A caller's nodemask is seen as what it is, wherever cpusets leave it.
            if wrong in {"no nodemask", "another node's mask"} and row["ac_nodemask"] != "mems_allowed":
                continue
            broken = {**row, **WRONG[wrong](row)}
            whole = verdict(kernel, broken, NOTHING_INFERRED)
            one = verdict(kernel, as_one_probe(broken))
            assert [(d.field, d.rule, d.expected, d.observed) for d in one.differences] == [
                (d.field, d.rule, d.expected, d.observed) for d in whole.differences
            ]
            assert one.unknown == whole.unknown
            found += bool(whole.differences or whole.unknown)
    assert found


def test_a_missing_hardwall_is_found() -> None:
    """Whether it was asked for is not known, but while cpusets are on it must be there."""
    for kernel, row in rows_of("7.3"):
        if row["cpusets_enabled"] > 0 and row["freelist_calls"] and row["entry"] != "bulk":
            lacking = {name: row[name] & ~HARDWALL for name in ("gfp_mask", "freelist_gfp_mask")}
            judged = verdict(kernel, {**row, **lacking})
            assert [(one.field, one.rule) for one in judged.differences] == [("freelist_gfp_mask", "cpuset")]
            assert "cpuset" not in judged.not_judged
            return
    pytest.fail("no fixture has a row for this")
