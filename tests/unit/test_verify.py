# SPDX-License-Identifier: MIT
"""Verification: what a kernel really did matches, and whatever is altered is found and named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kalloctrace.errors import Exit
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.report.verification_text import verification_lines
from kalloctrace.trace.dedup import count_distinct
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import COLUMNS, OBSERVED
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import TraceWriter
from kalloctrace.verify.verification import Verification, verify_trace

TRACE = Path(__file__).parents[2] / "fixtures" / "5.10" / "two-nodes.arrows"
COPIES = 4
Row = dict[str, Any]
# What a rejected request leaves behind: nothing was observed.
NOT_REACHED: Row = {field.name: None for field in OBSERVED if field.nullable}


@pytest.fixture(scope="module")
def source() -> TraceReader:
    """A trace of a real kernel."""
    return TraceReader(TRACE)


@pytest.fixture(scope="module")
def row(source: TraceReader) -> Row:
    """A request of that kernel that was prepared and got its page at once."""
    with TraceReader(source.path) as trace:
        for batch in trace.batches():
            for row in batch.to_pylist():
                if row["freelist_calls"] == 1 and row["page"] and row["zonelist_kind"] == "FALLBACK":
                    found: Row = row
                    return found
    pytest.fail("the trace has no such request")


@pytest.fixture
def judge(source: TraceReader, tmp_path: Path) -> Callable[..., Verification]:
    """Return a function that verifies a trace of the given rows, on the real kernel's snapshot."""

    def verify(*rows: Row, snapshot: Snapshot = source.snapshot, **changed_totals: object) -> Verification:
        path = tmp_path / "t.arrows"
        totals = source.ending().totals
        assert totals is not None
        counts = {"opened": len(rows), "submitted": len(rows), "dropped": 0, "no_room": 0, "missed": 0}
        with TraceWriter(path, snapshot, {}, overwrite=True) as writer:
            writer.write(pa.RecordBatch.from_pylist(list(rows), schema=COLUMNS))
            data = {**totals.to_json(), **counts, "machine_changed": (), **changed_totals}
            writer.close(Totals.from_json(data))
        with TraceReader(path) as trace:
            verdict = verify_trace(trace)
        assert verdict.allocations == verdict.matched + verdict.mismatched + verdict.unknown == len(rows)
        return verdict

    return verify


Judge = Callable[..., Verification]


def test_real_kernel_matches(source: TraceReader) -> None:
    """Everything that a real kernel did is as the model says."""
    with TraceReader(source.path) as trace:
        verdict = verify_trace(trace)
    assert verdict.allocations == verdict.matched > 0
    assert verdict.exit_code(strict=True) == Exit.OK


def test_unaltered_row_matches(judge: Judge, row: Row) -> None:
    """The row that the following tests alter is right before."""
    assert judge(*[row] * COPIES).matched == COPIES


def observation(row: Row, field: str) -> object:
    """Return what a row says about a compared field; some fields are two columns."""
    together = {
        "outcome": "prepared" if row["freelist_calls"] else "rejected",
        "zonelist": (row["zonelist_kind"], row["zonelist_nid"]),
        "preferred_zone": (row["preferred_node"], row["preferred_zone"]),
    }
    return together[field] if field in together else row[field]


# column, how it is altered, the field that is reported
ALTERATIONS: list[tuple[str, Callable[[Row], Row], str]] = [
    ("freelist_gfp_mask", lambda row: {"freelist_gfp_mask": row["freelist_gfp_mask"] ^ 0x40}, "freelist_gfp_mask"),
    ("freelist_order", lambda row: {"freelist_order": row["freelist_order"] + 1}, "freelist_order"),
    ("alloc_flags", lambda row: {"alloc_flags": row["alloc_flags"] ^ 0x100}, "alloc_flags"),
    ("zonelist_kind", lambda _: {"zonelist_kind": "NOFALLBACK"}, "zonelist"),
    ("zonelist_nid", lambda row: {"zonelist_nid": row["zonelist_nid"] + 1}, "zonelist"),
    ("ac_nodemask", lambda _: {"ac_nodemask": "other"}, "ac_nodemask"),
    ("ac_nodemask_nodes", lambda _: {"ac_nodemask_nodes": "5"}, "ac_nodemask_nodes"),
    ("preferred_node", lambda row: {"preferred_node": row["preferred_node"] + 1}, "preferred_zone"),
    ("preferred_zone", lambda row: {"preferred_zone": row["preferred_zone"] + 1}, "preferred_zone"),
    ("migratetype", lambda row: {"migratetype": row["migratetype"] + 1}, "migratetype"),
    ("highest_zoneidx", lambda row: {"highest_zoneidx": row["highest_zoneidx"] - 1}, "highest_zoneidx"),
    ("spread_dirty_pages", lambda row: {"spread_dirty_pages": not row["spread_dirty_pages"]}, "spread_dirty_pages"),
    ("freelist_calls", lambda _: {"freelist_calls": 0}, "outcome"),
]
# What prepare_alloc_pages() returned is compared only where it is traced.
PREPARED = ("prepare_returned", "prepare_alloc_mask", "prepare_alloc_flags", "prepare_same_context")


@pytest.mark.parametrize(("alter", "field"), [a[1:] for a in ALTERATIONS], ids=[a[0] for a in ALTERATIONS])
def test_altered_column_is_found(judge: Judge, row: Row, alter: Callable[[Row], Row], field: str) -> None:
    """One altered column is one mismatch, in exactly that field, with both values and the rule."""
    altered = alter(row)
    verdict = judge(row, {**row, **altered}, row)
    assert (verdict.matched, verdict.mismatched, verdict.unknown) == (2, 1, 0)
    (mismatch,) = verdict.mismatches
    assert (mismatch.count, mismatch.difference.field) == (1, field)
    assert mismatch.difference.expected == observation(row, field)
    assert mismatch.difference.observed == observation({**row, **altered}, field)
    assert mismatch.difference.rule
    assert verdict.exit_code(strict=True) == Exit.MISMATCH


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("prepare_returned", False),
        ("prepare_alloc_mask", 0),
        ("prepare_alloc_flags", 0x800000),
        ("prepare_same_context", False),
    ],
)
def test_altered_return_is_found(judge: Judge, row: Row, column: str, value: object) -> None:
    """Where prepare_alloc_pages() is traced, what it returned is compared too."""
    right = {"prepare_returned": True, "prepare_alloc_mask": row["freelist_gfp_mask"], "prepare_same_context": True}
    # The watermark is set before it, the no-fragment and kswapd flags after it.
    traced = {**row, **right, "prepare_alloc_flags": row["alloc_flags"] & 0x3}
    assert judge(traced).matched == 1
    verdict = judge({**traced, column: value})
    assert [m.difference.field for m in verdict.mismatches] == [column]


def test_every_observed_column_is_altered() -> None:
    """The tables above have each observed column; what a page's absence means is below."""
    assert {a[0] for a in ALTERATIONS} | set(PREPARED) | {"page"} == {field.name for field in OBSERVED}


def test_failed_allocation_matches(judge: Judge, row: Row) -> None:
    """That no page was found is not the preparation's doing."""
    assert judge({**row, "page": False}).matched == 1


def test_rejection_matches(judge: Judge, row: Row) -> None:
    """An order that is too large is rejected before get_page_from_freelist()."""
    assert judge({**row, **NOT_REACHED, "order": 40, "freelist_calls": 0, "page": False}).matched == 1


def test_page_of_a_rejected_request_is_found(judge: Judge, row: Row) -> None:
    """A request that is rejected gets no page."""
    verdict = judge({**row, **NOT_REACHED, "order": 11, "freelist_calls": 0, "page": True})
    assert [m.difference.field for m in verdict.mismatches] == ["page"]


def test_two_altered_columns_are_two_mismatches_of_one_allocation(judge: Judge, row: Row) -> None:
    """An allocation that differs in two fields counts once, and has an entry for each."""
    verdict = judge({**row, "migratetype": 99, "freelist_order": 9})
    assert verdict.mismatched == 1
    assert {m.difference.field for m in verdict.mismatches} == {"migratetype", "freelist_order"}


def test_most_frequent_mismatch_comes_first(judge: Judge, row: Row) -> None:
    """Mismatches are sorted by the allocations that they concern."""
    verdict = judge(*[{**row, "migratetype": 98}] * 2, *[{**row, "migratetype": 99}] * 3)
    assert [m.count for m in verdict.mismatches] == [3, 2]


@pytest.mark.parametrize(
    ("altered", "totals"),
    [
        pytest.param({}, {"machine_changed": ("nodes",)}, id="the machine changed"),
        pytest.param({"migratetype": 99}, {"machine_changed": ("fallback",)}, id="the machine changed, row differs"),
        pytest.param({"cpusets_enabled": -1}, {}, id="cpusets were being switched on"),
        pytest.param({"freelist_calls": 0}, {"missed": 1}, id="the call may have been missed"),
        pytest.param({"zonelist_kind": None, "zonelist_nid": None}, {}, id="no known zonelist"),
        pytest.param({"preferred_zone": -1}, {}, id="no known zone"),
        pytest.param({"alloc_flags": None}, {}, id="no alloc_flags"),
        pytest.param({"freelist_gfp_mask": None}, {}, id="no gfp mask"),
        pytest.param({"mems_allowed": "x"}, {}, id="no list of nodes"),
        pytest.param({"nodemask": "3-1"}, {}, id="a range that runs backwards"),
    ],
)
def test_what_was_not_captured_is_unknown(judge: Judge, row: Row, altered: Row, totals: dict[str, Any]) -> None:
    """A row that lacks a fact is unknown with its reason: neither a pass nor a mismatch."""
    verdict = judge({**row, **altered}, **totals)
    assert (verdict.matched, verdict.mismatched, verdict.unknown) == (0, 0, 1)
    assert sum(verdict.unknown_reasons.values()) == 1
    assert verdict.exit_code(strict=False) == Exit.OK
    assert verdict.exit_code(strict=True) == Exit.INCOMPLETE


def test_what_another_program_missed_leaves_no_doubt(judge: Judge, row: Row) -> None:
    """Only a hit of get_page_from_freelist() itself can be the call that was not seen."""
    absent = {**row, "freelist_calls": 0}
    assert judge(absent, missed=3, missed_freelist=0).mismatched == 1
    assert judge(absent, missed=3, missed_freelist=1).unknown == 1


def test_a_call_that_cannot_have_been_missed_is_a_mismatch(judge: Judge, row: Row) -> None:
    """Without missed probe hits, a call that was not seen was not made."""
    (mismatch,) = judge({**row, "freelist_calls": 0}, missed=0).mismatches
    assert mismatch.difference.field == "outcome"
    assert (mismatch.difference.expected, mismatch.difference.observed) == ("prepared", "rejected")


@pytest.mark.parametrize("totals", [{"dropped": 2}, {"no_room": 2}, {"submitted": 3}])
def test_loss_is_a_number(judge: Judge, row: Row, totals: dict[str, Any]) -> None:
    """Calls that were dropped, or were submitted and are not in the file, are lost."""
    verdict = judge(row, **totals)
    assert verdict.lost == 2
    assert verdict.exit_code(strict=True) == Exit.INCOMPLETE


def test_distinct_rows_span_batches(row: Row) -> None:
    """Equal rows are one whatever batch they are in, though each batch has dictionaries of its own."""
    schema = COLUMNS
    batches = [
        pa.RecordBatch.from_pylist([{**row, "mems_allowed": nodes} for nodes in order], schema=schema)
        for order in (["0", "1", "1"], ["1", "0"])
    ]
    assert sorted((r["mems_allowed"], count) for r, count in count_distinct(batches)) == [("0", 2), ("1", 3)]


def test_no_rows_are_no_groups() -> None:
    """A trace without rows has nothing to judge."""
    assert list(count_distinct([])) == []


def test_text_names_a_mismatch_in_words(judge: Judge, row: Row, source: TraceReader) -> None:
    """People read both values, the rule, and the flags by the recorded kernel's names."""
    verdict = judge({**row, "alloc_flags": row["alloc_flags"] ^ 0x100})
    text = "\n".join(verification_lines(verdict, source.snapshot.tables))
    assert "mismatched 1" in text
    assert "1 × alloc_flags" in text
    assert "ALLOC_WMARK_LOW" in text
    assert "nofragment" in text


def test_totals_hold(source: TraceReader) -> None:
    """The real trace's own numbers add up: what was opened is accounted for."""
    totals = source.ending().totals
    assert isinstance(totals, Totals)
    assert totals.opened == totals.submitted + totals.lost + totals.replaced + totals.running
