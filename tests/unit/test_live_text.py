# SPDX-License-Identifier: MIT
"""The head of a live table, which is always visible."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from kalloctrace.live.table import LiveTable
from kalloctrace.live.text import slow_parts, totals_json
from tests.traces import source


def table(**totals: Any) -> LiveTable:  # noqa: ANN401  (members of the totals)
    """Return a table with totals."""
    _, recorded, _ = source()
    numbers = dict.fromkeys(("count", "distinct", "matched", "mismatched", "unknown"), 7)
    shown = SimpleNamespace(rate=1.0, seconds=2.0, interval=1.0, totals=replace(recorded, **totals), **numbers)
    return cast("LiveTable", shown)


def test_slow_path_and_failures_are_visible() -> None:
    """Failures turn red once a call got no page."""
    parts = dict(slow_parts(table(slow=1234, slow_failed=5).totals))
    assert (parts["slow 1,234"], parts["failed 5"]) == ("doubt", "bad")
    calm = dict(slow_parts(table(slow=0, slow_failed=0).totals))
    assert (calm["slow 0"], calm["failed 0"]) == ("plain", "plain")
    assert totals_json(table(slow=1234, slow_failed=5))["slow_failed"] == 5


def test_slow_path_that_is_not_recorded_has_no_number() -> None:
    """An unknown number is omitted, not shown as 0."""
    assert slow_parts(table(slow=None).totals) == []
    assert totals_json(table(slow=None))["slow"] is None


def test_older_traces_do_not_say_how_many_failed() -> None:
    """Their recorder did not count failures separately."""
    assert slow_parts(table(slow=9).totals) == [("slow 9", "doubt")]
    assert totals_json(table(slow=9))["slow_failed"] is None
