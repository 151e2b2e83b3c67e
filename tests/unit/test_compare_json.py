# SPDX-License-Identifier: MIT
"""The comparison with an earlier program: what it reports, and what it lets pass."""

import pytest

from tests.compat.compare_json import Corrections, Difference, differences


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, []),
        ({"a": 1, "b": 2}, {"a": 1}, [("b", 2, "(absent)")]),
        ({"steps": [{"rule": "x", "effect": "one", "n": 1}]}, {"steps": [{"rule": "y", "effect": "two", "n": 1}]}, []),
        ({"steps": [{"n": 1}]}, {"steps": [{"n": 2}]}, [("steps[].n", 1, 2)]),
        ({"a": [1, 2]}, {"a": [1]}, [("a", [1, 2], [1])]),
        ({"a": 1}, {"a": True}, [("a", 1, True)]),
        ({"a": None}, {"a": {}}, [("a", None, {})]),
    ],
)
def test_only_prose_and_additions_may_differ(old: object, new: object, expected: list[object]) -> None:
    """A lost key, another length, another type and another number are differences."""
    assert list(differences(old, new)) == expected


def test_a_correction_that_explains_nothing_is_stale() -> None:
    """The list of corrections holds what differs, and no more."""
    rules = [
        {"case": "log ", "path": "alloc_flags", "reason": "a"},
        {"case": "batch ", "path": "gfp", "reason": "b"},
    ]
    corrections = Corrections(rules)
    assert corrections.explain(Difference("log 5.10-order1", 1, "alloc_flags", 1, 2))
    assert not corrections.explain(Difference("log 5.10-order1", 1, "conclusion", 1, 2))
    assert not corrections.explain(Difference("verify 5.10/slow", 1, "alloc_flags", 1, 2))
    assert corrections.stale() == [rules[1]]
