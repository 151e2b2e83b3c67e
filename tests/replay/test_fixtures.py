# SPDX-License-Identifier: MIT
"""Recordings of real kernels, judged again: the same assertions as on a live kernel."""

from pathlib import Path

import pytest

from kalloctrace.trace.dedup import count_distinct
from kalloctrace.trace.reader import TraceReader
from kalloctrace.verify.verification import verify_trace

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
# Those of the slow path have tests of their own: test_slow_fixtures.py.
TRACES = sorted(path for path in FIXTURES.glob("*/*.arrows") if path.stem not in {"slow", "slow-parts"})


def test_there_are_fixtures() -> None:
    """Without them the tests below would pass by not being there."""
    names = {trace.stem for trace in TRACES if trace.parent.name == "5.10"}
    assert names >= {"one-node", "two-nodes", "low-memory", "no-dma32", "cpusets", "stimulus", "stimulus-cpusets"}


@pytest.mark.parametrize("path", TRACES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_kernel_did_what_the_model_says(path: Path) -> None:
    """Every allocation is matched, none is unknown, none was lost, and the recording is whole."""
    with TraceReader(path) as trace:
        verdict = verify_trace(trace)
    assert verdict.mismatches == []
    assert verdict.allocations > 0
    assert verdict.matched == verdict.allocations
    assert (verdict.unknown, verdict.lost, verdict.missed, verdict.truncated) == (0, 0, 0, False)


@pytest.mark.parametrize("name", ["prepare", "prepare-cpusets"])
def test_prepare_alloc_pages_itself_agrees(name: str) -> None:
    """Where it is a function of its own, its results are those that get_page_from_freelist() is called with."""
    with TraceReader(FIXTURES / "noinline-5.10" / f"{name}.arrows") as trace:
        rows = [row for row, _ in count_distinct(trace.batches()) if row["freelist_calls"]]
    assert rows
    for row in rows:
        assert row["prepare_returned"] is True
        assert row["prepare_same_context"] is True
        assert row["prepare_alloc_mask"] == row["freelist_gfp_mask"]
        assert row["prepare_alloc_flags"] & ~row["alloc_flags"] == 0


@pytest.mark.parametrize("path", TRACES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recording_accounts_for_every_call(path: Path) -> None:
    """Each call that was seen is a row, was lost, was replaced or was still running."""
    with TraceReader(path) as trace:
        rows = sum(batch.num_rows for batch in trace.batches())
        totals = trace.ending().totals
    assert totals is not None
    assert rows == totals.submitted
    assert totals.opened == totals.submitted + totals.lost + totals.replaced + totals.running


@pytest.mark.parametrize("path", TRACES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_each_fixture_has_its_note(path: Path) -> None:
    """A note next to the trace has kernel, machine, workload and counts."""
    note = path.with_suffix(".md").read_text()
    for word in ("kernel:", "machine:", "workload:", "allocations:", "verdict:"):
        assert f"- {word}" in note


@pytest.mark.parametrize(
    "path", sorted(FIXTURES.glob("*/*.arrows")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_no_fixture_names_a_path_of_the_machine_that_recorded_it(path: Path) -> None:
    """What stands for one is in braces."""
    with TraceReader(path) as trace:
        words = trace.recording["command"]
    assert not [word for word in words if word.partition("=")[2].startswith("/") or word.startswith("/")]
