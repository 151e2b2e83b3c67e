# SPDX-License-Identifier: MIT
"""How the source of the stage changed: rows of features, expressions, and values after boot."""

from dataclasses import replace

import pytest

from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.kernel.history import REWRITES, feature_rows, order_test, row_in_force


@pytest.mark.parametrize(
    ("kernel", "expression"),
    [
        ("5.8", "order >= MAX_ORDER"),
        ("6.3", "order >= MAX_ORDER"),
        ("6.4", "order > MAX_ORDER"),
        ("6.7", "order > MAX_ORDER"),
        ("6.8", "order > MAX_PAGE_ORDER"),
        ("7.3", "order > MAX_PAGE_ORDER"),
    ],
)
def test_expression_of_the_largest_order(kernel: str, expression: str) -> None:
    """The kernel renamed its constant in 6.4 and in 6.8."""
    assert order_test(builtin_tables(kernel)) == expression


def test_tables_of_no_release_have_the_newest_source() -> None:
    """A kernel whose name is not a release is taken as the newest."""
    tables = replace(builtin_tables("5.10"), kernel="custom")
    assert order_test(tables) == "order > MAX_PAGE_ORDER"
    assert row_in_force("entry", tables) == feature_rows("entry")[-1]


def test_rows_of_a_feature_are_in_the_order_of_the_releases() -> None:
    """Each with its value."""
    assert [(row.since, row.value) for row in feature_rows("pf_memalloc_nocma")] == [
        ((5, 8), False),
        ((5, 9), True),
        ((5, 13), False),
    ]
    assert feature_rows("moon") == ()


@pytest.mark.parametrize(
    ("kernel", "since"), [("5.8", (5, 8)), ("5.9", (5, 9)), ("5.12", (5, 9)), ("5.13", (5, 13)), ("7.3", (5, 13))]
)
def test_row_in_force_is_the_last_one_reached(kernel: str, since: tuple[int, int]) -> None:
    """A later row replaces the earlier ones."""
    row = row_in_force("pf_memalloc_nocma", builtin_tables(kernel))
    assert row is not None
    assert row.since == since


def test_no_row_is_in_force_before_the_first_release() -> None:
    """The same holds for a feature without rows."""
    assert row_in_force("entry", replace(builtin_tables("5.10"), kernel="5.7")) is None
    assert row_in_force("moon", builtin_tables("5.10")) is None


def test_masks_after_boot_are_listed_with_their_release() -> None:
    """The history of gfp_allowed_mask has a value and a source for each change."""
    assert [(change.since, change.what) for change in REWRITES["gfp_allowed_mask"]] == [
        ((5, 8), "after boot the mask is 0x7fffff"),
        ((5, 14), "after boot the mask is 0x1ffffff"),
        ((5, 18), "after boot the mask is 0x7ffffff"),
        ((6, 4), "after boot the mask is 0x3ffffff"),
        ((6, 9), "after boot the mask is 0xffffff"),
        ((6, 10), "after boot the mask is 0x1ffffff"),
        ((7, 3), "after boot the mask is 0xffffff"),
    ]


@pytest.mark.parametrize("rule", REWRITES)
def test_changes_are_sorted_and_cite_a_source(rule: str) -> None:
    """Oldest first, each with the file or the two releases that were compared."""
    changes = REWRITES[rule]
    assert [change.since for change in changes] == sorted({change.since for change in changes})
    assert all(" against " in change.source or ".h" in change.source for change in changes)
