# SPDX-License-Identifier: MIT
"""Facts that were not captured: a row is judged where the model does not need them, and unknown where it does."""

from pathlib import Path
from typing import Any

import pytest

from kalloctrace.model.kernel import Kernel
from kalloctrace.trace.reader import TraceReader
from kalloctrace.verify.compare import RowVerdict, Switches, judge

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
TRACES = ["5.10/two-nodes", "5.10/stimulus-cpusets", "6.12/no-dma32", "7.3/stimulus-cpusets", "7.3/stimulus"]
SWITCHES = Switches(frozenset(), frozenset(), frozenset())
Row = dict[str, Any]


def judged(kernel: Kernel, row: Row, **changes: object) -> RowVerdict:
    """Return the verdict on a row with some columns changed."""
    return judge(kernel, {**row, **changes}, SWITCHES, may_miss=False)


def recorded(trace: str) -> tuple[Kernel, list[Row]]:
    """Return the kernel and the distinct rows of a recording of a real one."""
    with TraceReader(FIXTURES / f"{trace}.arrows") as reader:
        return Kernel.of(reader.snapshot), [row for row, _ in reader.counted() if row["entry"] != "bulk"]


def needs_mems_allowed(row: Row) -> bool:
    """Return whether the kernel itself showed that it used current->mems_allowed."""
    return bool(row["ac_nodemask"] == "mems_allowed")


@pytest.mark.parametrize("trace", TRACES)
def test_mems_allowed_is_missed_only_where_it_is_used(trace: str) -> None:
    """Without mems_allowed those rows are unknown whose nodemask it became, as the kernel itself showed."""
    kernel, rows = recorded(trace)
    verdicts = [(needs_mems_allowed(row), judged(kernel, row, mems_allowed=None)) for row in rows]
    assert verdicts
    for needed, verdict in verdicts:
        assert verdict == (RowVerdict(unknown="not known: mems_allowed") if needed else RowVerdict())


@pytest.mark.parametrize("trace", [name for name in TRACES if "cpusets" in name])
def test_cpusets_make_the_facts_needed(trace: str) -> None:
    """The recordings under cpusets have rows that need each fact, so that the tests of it can fail."""
    _, rows = recorded(trace)
    assert any(map(needs_mems_allowed, rows))
    assert any(row["cpusets_enabled"] and row["nodemask"] is None for row in rows)


@pytest.mark.parametrize("trace", TRACES)
def test_preempt_count_is_missed_only_under_cpusets(trace: str) -> None:
    """Only the cpuset branch reads the context, and only if the caller gave no nodemask."""
    kernel, rows = recorded(trace)
    for row in rows:
        needed = row["cpusets_enabled"] and row["nodemask"] is None and row["freelist_calls"] > 0
        verdict = judged(kernel, row, preempt_count=None)
        assert verdict == (RowVerdict(unknown="not known: preempt_count") if needed else RowVerdict())


@pytest.mark.parametrize("trace", TRACES)
def test_return_is_not_needed(trace: str) -> None:
    """Whether a page was found says nothing of the preparation; a rejected call is judged by its outcome alone."""
    kernel, rows = recorded(trace)
    assert any(row["freelist_calls"] == 0 for row in rows)
    for row in rows:
        assert judged(kernel, row, page=None) == RowVerdict()


@pytest.mark.parametrize("trace", TRACES)
def test_wrong_outcome_is_found_without_the_return(trace: str) -> None:
    """A call that was rejected and should not have been is a mismatch, though nobody saw its return."""
    kernel, rows = recorded(trace)
    row = next(row for row in rows if row["freelist_calls"])
    verdict = judged(kernel, row, freelist_calls=0, page=None)
    assert [difference.field for difference in verdict.differences] == ["outcome"]


def test_mismatch_elsewhere_is_still_found() -> None:
    """That a fact is missing which nothing depends on excuses nothing."""
    kernel, rows = recorded("5.10/two-nodes")
    row = next(row for row in rows if row["freelist_calls"])
    verdict = judged(kernel, row, mems_allowed=None, preempt_count=None, page=None, migratetype=99)
    assert [difference.field for difference in verdict.differences] == ["migratetype"]
