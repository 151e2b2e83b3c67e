# SPDX-License-Identifier: MIT
"""A live table: rates, shares and verdicts from two observations of a recording."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.flags.builtin import builtin_kernels, builtin_tables
from kalloctrace.flags.meanings import SHORT_ALLOC, SHORT_GFP, SHORT_MIGRATETYPE, short_name
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.live.columns import GAP, Cells, place_columns, rate_text
from kalloctrace.live.detail import detail
from kalloctrace.live.grouped import Fields, finest
from kalloctrace.live.keys import TaskKey
from kalloctrace.live.table import By, LiveRow, SortName
from kalloctrace.live.text import row_json, row_words
from kalloctrace.live.view import View
from kalloctrace.report.query.groups import answer
from kalloctrace.report.query.question import Field, Question
from kalloctrace.trace.ftrace_import import import_text
from kalloctrace.trace.ftrace_text import EventText
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.replay import Replay
from kalloctrace.trace.results import Selection
from tests import played
from tests.traces import RECORDED, slow, slow_calls, source, stream

SLOW_STREAM = RECORDED.parents[1] / "6.12" / "slow-stream.arrows"
SELECTIONS = [
    Selection(),
    Selection(failed=True),
    Selection(slower_than=0),
    Selection(slower_than=1_000_000),
    Selection(failed=True, slower_than=1_000_000),
]
BYS: tuple[By, ...] = ("request", "task", "stack")


@pytest.fixture
def wrong(tmp_path: Path) -> Iterator[Replay]:
    """Replay a stream whose last call is a mismatch."""
    with Replay(played.trace(tmp_path / "wrong.arrows", wrong=True)) as replay:
        yield replay


def view_of(replay: Replay, by: By, *steps: float) -> View:
    """Return a view that was updated at some times, each given in seconds after the one before."""
    view = View(replay.snapshot, by)
    for step in steps:
        replay.advance(step)
        view.update(replay.observe())
    return view


def by_task(rows: list[LiveRow]) -> dict[str | None, tuple[int, int]]:
    """Return count and new calls of each task."""
    return {row.task.comm: (row.count, row.new) for row in rows}


def test_rates_are_those_of_the_interval(wrong: Replay) -> None:
    """Counts cover the whole session."""
    view = view_of(wrong, "task", 0.95, 1.0)
    assert by_task(view.rows()) == {"python": (25, 15), "sh": (5, 5)}
    assert [row.rate for row in view.rows()] == pytest.approx([15, 5])
    assert [row.share for row in view.rows()] == [0.75, 0.25]
    assert view.table is not None
    assert view.table.count == 30
    assert view.table.rate == pytest.approx(20)


def test_nothing_new_is_no_rate(wrong: Replay) -> None:
    """Rows stay with a rate of zero, and nothing is divided by zero."""
    view = view_of(wrong, "request", 3.0)
    view.update(wrong.observe())
    assert [(row.rate, row.share) for row in view.rows()] == [(0.0, 0.0)] * 2


@pytest.mark.parametrize(("by", "rows"), [("request", 2), ("task", 3), ("stack", 3)])
def test_rows_are_the_requested_ones(wrong: Replay, by: By, rows: int) -> None:
    """There is one for each request, for each request and task, and for each request, task and stack."""
    view = view_of(wrong, by, 3.0)
    assert len(view.rows()) == rows
    assert sum(row.count for row in view.rows()) == 36


def test_mismatch_is_seen_at_once(wrong: Replay) -> None:
    """The row has the verdict, and its details name the field that differs."""
    view = view_of(wrong, "task", 2.0)
    assert view.table is not None
    assert view.table.mismatched == 0
    wrong.advance(1.0)
    view.update(wrong.observe())
    assert (view.table.matched, view.table.mismatched, view.table.unknown) == (35, 1, 0)
    (row,) = [row for row in view.rows() if row.verdict == "MISMATCH"]
    assert row.task == TaskKey("sh", 71)
    lines = detail(view.allocations, "5.10", row, view.members(row), 0)
    assert any(line.tone == "bad" and "MISMATCH in alloc_flags" in line.text for line in lines)
    assert any("first_zones_zonelist" in line.text for line in lines)


def test_misses_change_verdicts_that_were_given(tmp_path: Path) -> None:
    """A call without get_page_from_freelist() is not known to be rejected once hits were missed."""
    absent = {"freelist_calls": 0, "alloc_flags": None, "migratetype": None, "preferred_node": None, "order": 11}
    with Replay(stream(tmp_path / "t.arrows", {"page": None, **absent})) as replay:
        replay.advance(1.0)
        seen = replay.observe()
    view = View(replay.snapshot)
    view.update(seen)
    assert [row.verdict for row in view.rows()] == ["ok"]
    assert view.rows()[0].request.rejected
    view.update(replace(seen, totals=replace(seen.totals, missed=1)))
    assert [row.verdict for row in view.rows()] == ["unknown"]


def test_machine_that_changed_is_not_judged(wrong: Replay) -> None:
    """The snapshot no longer holds what the kernel reads."""
    view = view_of(wrong, "request", 3.0)
    seen = wrong.observe()
    view.update(replace(seen, totals=replace(seen.totals, machine_changed=("nodes",))))
    assert {row.verdict for row in view.rows()} == {"unknown"}


def test_each_column_sorts_both_ways(wrong: Replay) -> None:
    """Sorting by the same column again reverses the order."""
    view = view_of(wrong, "task", 3.0)
    view.set_sort("comm")
    assert [row.task.comm for row in view.rows()] == ["python", "sh", "sh"]
    view.set_sort("comm")
    assert [row.task.comm for row in view.rows()] == ["sh", "sh", "python"]
    view.set_sort("verdict")
    assert view.rows()[0].verdict == "MISMATCH"
    first = view.sort
    view.next_sort(1)
    assert view.sort != first
    view.next_sort(-1)
    assert view.sort == first


def test_sort_column_goes_with_its_rows(wrong: Replay) -> None:
    """Where rows no longer include tasks, they are sorted by rate again."""
    view = view_of(wrong, "task", 3.0)
    view.set_sort("comm")
    view.set_by("request")
    assert view.sort == "rate"


@pytest.mark.parametrize("by", BYS)
def test_lines_are_never_wider_than_the_screen(by: By) -> None:
    """At every width rate, verdict and gfp are shown, and 80 columns show all but the share of tasks."""
    with Replay(RECORDED) as replay:
        view = view_of(replay, by, 1000.0)
    for width in range(40, 260):
        placed = place_columns(by, width)
        assert sum(part.width + GAP for part in placed) - GAP <= width
        assert {"rate", "gfp", "verdict"} <= {part.column.name for part in placed}
        cells = Cells(view.snapshot.tables)
        assert all(len(cells.text(row, part)) <= part.width for row in view.rows() for part in placed)
        assert all(len(part.heading) < part.width for part in placed)


def test_columns_of_80_and_200() -> None:
    """A narrow screen drops columns, and a wide one adds some."""
    names = {(by, width): [part.column.name for part in place_columns(by, width)] for by in BYS for width in (79, 199)}
    what = ["gfp", "order", "node", "zone", "migratetype", "alloc_flags", "verdict"]
    assert names["request", 199] == ["rate", "count", "share", "bytes", "failed", "time", *what]
    assert names["request", 79] == ["rate", "count", "share", *what]
    assert names["task", 79] == ["rate", "comm", "pid", *what]
    assert names["stack", 79] == ["rate", "comm", "pid", "gfp", "alloc_flags", "verdict", "stack"]
    assert names["stack", 199] == ["rate", "count", "share", "failed", "time", "comm", "pid", *what, "stack"]


def test_short_names_are_one_for_each_flag_of_every_kernel() -> None:
    """Each flag has a short name, and no two flags share one."""
    for known, listed in ((SHORT_GFP, "gfp_print"), (SHORT_ALLOC, "alloc"), (SHORT_MIGRATETYPE, "migratetype")):
        assert len(set(known.values())) == len(known)
        flags = {name for kernel in builtin_kernels() for name, _ in getattr(builtin_tables(kernel), listed)}
        flags -= {"MIGRATE_PCPTYPES", "MIGRATE_TYPES", "__MIGRATE_TYPE_END"}
        assert flags <= known.keys()
    assert short_name("__GFP_NEW", SHORT_GFP) == "new"


def test_legend_has_what_is_on_the_screen(wrong: Replay) -> None:
    """The legend has the short names that are used, and no others."""
    view = view_of(wrong, "request", 1.0)
    row = view.rows()[0]
    cells = Cells(view.snapshot.tables)
    texts = {part.column.name: cells.text(row, part) for part in place_columns("request", 60)}
    legend = dict(cells.legend())
    assert set(texts["alloc_flags"].split("|")) <= legend.keys()
    assert legend[texts["migratetype"]].startswith("MIGRATE_")
    assert set(legend) <= {word for text in texts.values() for word in text.split("|")}
    wide = Cells(view.snapshot.tables)
    assert "GFP_" in "".join(wide.text(row, part) for part in place_columns("request", 200))
    assert wide.legend() == []


@pytest.mark.parametrize(
    ("rate", "text"), [(0, "0"), (0.25, "0.2"), (99, "99"), (12345.6, "12,346"), (123456, "123.5k"), (2.5e6, "2.50M")]
)
def test_rates_have_at_most_seven_characters(rate: float, text: str) -> None:
    """Any rate fits the width."""
    assert rate_text(rate) == text
    assert len(text) <= 7


def matching(view: View, words: str) -> int:
    """Return how many rows pass a filter."""
    view.set_filter(words)
    return len(view.rows())


@pytest.fixture
def real() -> View:
    """Return a real recording by task."""
    with Replay(RECORDED) as replay:
        return view_of(replay, "task", 1000.0)


def test_filter_words(real: View) -> None:
    """Each operator does what it says, on every row of a real recording."""
    rows = list(real.rows())
    zero = real.snapshot.tables.gfp("__GFP_ZERO")
    expected: dict[str, Any] = {
        "": lambda _: True,
        "order>0": lambda row: row.request.order > 0,
        "order=0": lambda row: row.request.order == 0,
        "node!=0": lambda row: row.request.node not in (0, None),
        "gfp&__GFP_ZERO": lambda row: row.request.gfp_mask & zero,
        "gfp=GFP_HIGHUSER_MOVABLE": lambda row: row.request.gfp_mask == 0x100CCA,
        "comm=python": lambda row: row.task.comm == "python",
        "comm!~kallo": lambda row: "kallo" not in row.task.comm,
        "migratetype=movable": lambda row: row.request.migratetype == 1,
        "verdict=ok count>=100": lambda row: row.count >= 100,
        "kalloctrace": lambda row: "kalloctrace" in row.task.comm,
        "pid~14": lambda row: "14" in str(row.task.pid),
    }
    for words, matches in expected.items():
        left = sum(1 for row in rows if matches(row))
        assert left > 0, words
        assert matching(real, words) == left, words


@pytest.mark.parametrize("words", ["oder=1", "order=x", "order&1", "zone>1", "gfp>1", "gfp=NO_SUCH", "comm&1"])
def test_filter_that_makes_no_sense_is_refused(real: View, words: str) -> None:
    """The error gives the reason, and the previous filter stays."""
    real.set_filter("order=0")
    with pytest.raises(Exception, match=r"cannot (filter|read)"):
        real.set_filter(words)
    assert real.filter == "order=0"
    assert {row.request.order for row in real.rows()} == {0}


def test_every_row_of_a_recording_can_be_explained(real: View) -> None:
    """Each allocation of each row has its steps, and their counts add up to the row's."""
    for row in real.rows():
        chosen = real.members(row)
        assert sum(count for _, count in chosen) == row.count
        for position in range(len(chosen)):
            texts = [line.text for line in detail(real.allocations, "5.10", row, chosen, position)]
            assert "steps" in texts
            assert max(map(len, texts)) <= 80


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Replay]:
    """Replay events that perf recorded: a plausible one, one of an impossible order, one of a wrong migratetype."""
    text = "\n".join(
        f"dd 133 [000] {second}.5: kmem:mm_page_alloc: page=0x1 pfn=0x1 order={order} migratetype={migratetype} "
        "gfp_flags=GFP_KERNEL"
        for second, order, migratetype in ((1, 0, 0), (2, 11, 0), (3, 0, 1))
    )
    path = tmp_path / "events.arrows"
    with path.open("wb") as file:
        import_text(EventText(iter(text.splitlines())), file, builtin_snapshot("6.1"), name="perf")
    with Replay(path) as replay:
        yield replay


def test_events_of_another_tool_are_judged_as_verify_does(events: Replay) -> None:
    """Their visible fields can mismatch; without a mismatch they are unknown, and they never count as rejected."""
    view = view_of(events, "task", 1000.0)
    assert {(row.request.order, row.request.migratetype): row.verdict for row in view.rows()} == {
        (0, 0): "unknown",
        (11, 0): "MISMATCH",
        (0, 1): "MISMATCH",
    }
    (flags,) = (part for part in place_columns("task", 200) if part.column.name == "alloc_flags")
    assert {Cells(view.snapshot.tables).text(row, flags) for row in view.rows()} == {"?"}
    for row in view.rows():
        lines = [line.text for line in detail(view.allocations, "6.1", row, view.members(row), 0)]
        assert any(
            line.startswith("unknown: an event" if row.verdict == "unknown" else "MISMATCH in") for line in lines
        )


def test_stack_is_shown_innermost_first(wrong: Replay) -> None:
    """The entry is left out, because all stacks end in it."""
    view = view_of(wrong, "stack", 1.0)
    part = place_columns("stack", 280)[-1]
    text = Cells(view.snapshot.tables).text(view.rows()[0], part)
    assert text == "alloc_pages_vma < handle_mm_fault < asm_exc_page_fault < entry_SYSCALL_64"
    lines = [line.text for line in detail(view.allocations, "5.10", view.rows()[0], view.members(view.rows()[0]), 0)]
    assert lines[:3] == ["called by python (pid 70)", "  __alloc_pages_nodemask", "  alloc_pages_vma"]


def test_source_of_these_tests_is_real() -> None:
    """Every allocation of the row got its page."""
    assert source()[2]["page"]


def test_rows_are_added_up_by_fields(wrong: Replay) -> None:
    """Each group has the calls of its rows that pass the filter; nothing else of them is shown."""
    view = View(wrong.snapshot, "task", fields=("comm",))
    wrong.advance(3.0)
    view.update(wrong.observe())
    assert view.table is not None
    sums: Counter[str | None] = Counter()
    for row in view.table.rows:
        sums[row.task.comm] += row.count
    assert {row.task.comm: row.count for row in view.rows()} == sums
    assert sum(row.share for row in view.rows()) == pytest.approx(1)
    assert sum(row.mismatched for row in view.rows()) == view.table.mismatched > 0
    for row in view.rows():
        assert sum(count for _, count in view.members(row)) == row.count
        words = {word.partition("=")[0] for word in row_words(row, view.snapshot.tables)}
        assert words == {"calls/s", "calls", "share", "bytes", "failed", "comm", "verdict"}
        shown = row_json(view.table, row, view.snapshot.tables)
        assert (shown["comm"], shown["order"], shown["gfp"], shown["entry"]) == (row.task.comm, None, None, None)
    names = {part.column.name for part in place_columns(view.by, 200, view.fields)}
    assert names == {"rate", "count", "share", "bytes", "failed", "time", "comm", "verdict"}
    (some,) = {row.request.order for row in view.table.rows if row.count == max(row.count for row in view.table.rows)}
    view.set_filter(f"order={some}")
    chosen = sum(row.count for row in view.table.rows if row.request.order == some)
    assert sum(row.count for row in view.rows()) == chosen
    view.set_by("request")
    assert view.fields is None


def whole(path: Path, fields: Fields, selection: Selection) -> dict[tuple[Any, ...], tuple[int, int, int | None, int]]:
    """Return calls, bytes, failures and time of each group at the end of a replayed trace, by the live table."""
    with Replay(path, longer_than=selection.slower_than or 0) as replay:
        view = View(replay.snapshot, finest(fields), fields=fields, selection=selection)
        view.describe(replay.recording)
        replay.advance(1e9)
        view.update(replay.observe(), whole=True)
    found = {}
    for row in view.rows():
        names: dict[str, object] = {
            "gfp": row.request.gfp_mask,
            "order": row.request.order,
            "alloc_flags": row.request.alloc_flags,
        }
        names |= {"comm": row.task.comm, "pid": row.task.pid, "stack": row.task.stack}
        assert row.slow_ns is not None
        found[tuple(names[name] for name in fields)] = (row.count, row.bytes, row.failed, row.slow_ns)
    return found


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
@pytest.mark.parametrize("fields", [("gfp", "order", "alloc_flags"), ("comm", "pid"), ("stack",)], ids=",".join)
def test_sums_are_those_of_report(fields: Fields, selection: Selection) -> None:
    """A live table that has seen a whole trace answers a question as `report --by` does."""
    with TraceReader(SLOW_STREAM) as trace:
        question = Question(
            by=cast("tuple[Field, ...]", fields), failed=selection.failed, slower_than=selection.slower_than
        )
        expected = {
            group.key: (group.sums.calls, group.sums.bytes, group.sums.failed, group.sums.slow_ns)
            for group in answer(trace, question).groups
        }
    assert expected
    assert whole(SLOW_STREAM, fields, selection) == expected


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_calls_whose_return_was_not_traced(selection: Selection, tmp_path: Path) -> None:
    """Failures and, where only failed or slow calls are selected, calls are those of the slow path."""
    failed_calls = [call for call in slow_calls() if call["page"] is False and call["duration"] > 1_000_000]
    calls = [*slow_calls()[:60], *failed_calls[:20]]
    path = slow(tmp_path / "t.arrows", *calls)
    chosen = [
        call
        for call in calls
        if (not selection.failed or call["page"] is False)
        and (selection.slower_than is None or call["duration"] > selection.slower_than)
    ]
    found = whole(path, ("order",), selection).values()
    assert sum(failed or 0 for _, _, failed, _ in found) == sum(call["page"] is False for call in chosen) > 0
    assert sum(ns for *_, ns in found) == sum(call["duration"] for call in chosen)
    rows = 1 if selection == Selection() else len(chosen)
    assert sum(count for count, *_ in found) == rows


def test_slow_calls_of_an_interval(tmp_path: Path) -> None:
    """A call counts when it has returned, and is new in that interval only."""
    call = next(call for call in slow_calls() if call["page"] is False)
    late = {**call, "time": 1 + 2 * played.SECOND, "duration": played.SECOND}
    seen = []
    with Replay(slow(tmp_path / "t.arrows", late)) as replay:
        view = View(replay.snapshot, selection=Selection(failed=True))
        view.describe(replay.recording)
        for _ in range(4):
            replay.advance(1.0)
            view.update(replay.observe())
            seen.append([(row.count, row.new, row.rate) for row in view.rows()])
    assert seen == [[], [], [(1, 1, 1.0)], [(1, 0, 0.0)]]


def test_slow_call_has_the_verdict_of_its_request(tmp_path: Path) -> None:
    """Without a call of its request that was recorded, it is not known."""
    with Replay(SLOW_STREAM) as replay:
        view = View(replay.snapshot, selection=Selection(slower_than=0))
        view.describe(replay.recording)
        replay.advance(1e9)
        view.update(replay.observe())
    assert {row.verdict for row in view.rows()} == {"ok"}
    assert all(row.matched == row.count for row in view.rows())
    assert all(view.members(row) for row in view.rows())
    with Replay(slow(tmp_path / "t.arrows", *slow_calls()[:5])) as replay:
        view = View(replay.snapshot, selection=Selection(slower_than=0))
        view.describe(replay.recording)
        replay.advance(1e9)
        view.update(replay.observe())
    assert {row.verdict for row in view.rows()} == {"unknown"}
    assert [view.members(row) for row in view.rows()] == [[]] * len(view.rows())


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"selection": Selection(slower_than=5)}, "cannot select slow calls"),
        ({"selection": Selection(failed=True)}, "cannot select failed calls"),
        ({"sort": "time"}, "cannot sort by time"),
        ({"sort": "failed"}, "cannot sort by failed"),
    ],
)
def test_what_a_recording_does_not_show_is_refused(how: dict[str, Any], what: str) -> None:
    """Nothing is shown as 0 that is not known."""
    snapshot, _, _ = source()
    with pytest.raises(KalloctraceError) as refused:
        View(snapshot, **how).describe({"mode": "stream", "returns": False, "slow": False})
    assert refused.value.what == what
    assert refused.value.code == Exit.USAGE


def test_capture_without_a_slow_path_has_another_fix() -> None:
    """Nothing can be recorded again there."""
    snapshot, _, _ = source()
    with pytest.raises(KalloctraceError) as refused:
        View(snapshot, sort="time").describe({"mode": "aggregate", "slow": False}, capturing=True)
    assert "record it" not in refused.value.fix
    assert "--alloc-flags" in refused.value.fix


def test_columns_of_what_is_not_recorded_are_empty(tmp_path: Path) -> None:
    """Without the slow path and returns, failures and time are null, and no cell says 0."""
    with Replay(stream(tmp_path / "t.arrows", {"page": None}, recording={"returns": False})) as replay:
        view = View(replay.snapshot)
        view.describe(replay.recording)
        replay.advance(1.0)
        view.update(replay.observe())
    (row,) = view.rows()
    assert (row.failed, row.slow_ns) == (None, None)
    assert view.table is not None
    told = row_json(view.table, row, replay.snapshot.tables)
    assert (told["failed"], told["slow_ns"]) == (None, None)
    assert not any(word.startswith(("failed=", "slow_path_ms=")) for word in row_words(row, replay.snapshot.tables))
    cells = Cells(replay.snapshot.tables)
    shown = {part.column.name: cells.text(row, part) for part in place_columns("request", 200)}
    assert (shown["failed"], shown["time"], shown["bytes"]) == ("-", "-", f"{4 << row.request.order}.0 KiB")


@pytest.mark.parametrize("name", ["bytes", "failed", "time", "share"])
def test_the_column_to_sort_by_is_always_shown(name: SortName) -> None:
    """It is at 80 columns, too, where other columns make room."""
    assert name not in [part.column.name for part in place_columns("stack", 80)]
    placed = place_columns("stack", 80, sort=name)
    assert name in [part.column.name for part in placed]
    assert sum(part.width + GAP for part in placed) <= 80 + GAP
