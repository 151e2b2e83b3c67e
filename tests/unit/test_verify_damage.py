# SPDX-License-Identifier: MIT
"""Damaged data is unknown; a failing model is a crash that names the request."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.__main__ import main
from kalloctrace.commands.verify import WORST
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.model.kernel import Kernel
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import TRACEPOINT
from kalloctrace.trace.writer import TraceWriter
from kalloctrace.verify.compare import RowVerdict, Switches, compared, judge
from kalloctrace.verify.events import EventJudge
from kalloctrace.verify.rows import DamagedRowError, ModelFailure, context_of, request_of
from kalloctrace.verify.slowpath.trace import SlowJudge, SlowVerification, verify_slow_call
from kalloctrace.verify.verification import Shown, verify_trace
from tests import traces

BULK = Path(__file__).parents[2] / "fixtures" / "7.3" / "stimulus.arrows"
SWITCHES = Switches(frozenset(), frozenset(), frozenset())
DAMAGED = RowVerdict(unknown="the row is damaged")
Row = dict[str, Any]


def prepared() -> tuple[Kernel, Row]:
    """Return a real kernel, and a request that it prepared."""
    snapshot, _, row = traces.source()
    return Kernel.of(snapshot), row


def bulk_call() -> tuple[Kernel, Row]:
    """Return a real kernel, and a call of its bulk allocator that took pages."""
    with TraceReader(BULK) as trace:
        row = next(row for row, _ in trace.counted() if row["entry"] == "bulk" and row["bulk_seen"])
        return Kernel.of(trace.snapshot), row


def fails(*_: object, **__: object) -> None:
    """Fail as a model with a bug does."""
    raise ValueError("a bug of the model")


@pytest.mark.parametrize(
    "change",
    [
        {"nodemask": "0-x"},
        {"nodemask": "1-0"},
        {"mems_allowed": "x"},
        {"cpusets_enabled": None},
        {"gfp_allowed_mask": None},
        {"defrag_mode": None},
        {"freelist_calls": None},
        {"freelist_gfp_mask": None},
        {"alloc_flags": None},
        {"entry": "nolock"},
    ],
    ids=str,
)
def test_damaged_row_is_unknown(change: Mapping[str, Any]) -> None:
    """A value that no recorder writes makes a row unknown."""
    kernel, row = prepared()
    assert judge(kernel, row, SWITCHES, may_miss=False) == RowVerdict()
    assert judge(kernel, {**row, **change}, SWITCHES, may_miss=False) == DAMAGED


@pytest.mark.parametrize(
    "change",
    [
        {"bulk_nodes": "?"},
        {"bulk_nodes": None},
        {"bulk_zones": None},
        {"nodemask": "-1"},
        {"bulk_seen": 0, "bulk_returned": None},
    ],
    ids=str,
)
def test_damaged_bulk_call_is_unknown(change: Mapping[str, Any]) -> None:
    """The same holds for the bulk allocator, whose pages are lists as well."""
    kernel, row = bulk_call()
    assert judge(kernel, row, SWITCHES, may_miss=False) == RowVerdict()
    assert judge(kernel, {**row, **change}, SWITCHES, may_miss=False) == DAMAGED


def test_parsing_names_the_damage() -> None:
    """The error names the column; the flags of a task are needed only where the stage reads them."""
    kernel, row = prepared()
    reading = replace(kernel, features=replace(kernel.features, gfp_context_on_fast_path=True))
    assert context_of(kernel, {**row, "task_flags": None}).task_flags == 0
    with pytest.raises(DamagedRowError, match="nodemask: "):
        request_of({**row, "nodemask": "9-1"})
    with pytest.raises(DamagedRowError, match="mems_allowed: "):
        context_of(kernel, {**row, "mems_allowed": "9-1"})
    with pytest.raises(DamagedRowError, match="no defrag_mode, task_flags"):
        context_of(reading, {**row, "task_flags": None, "defrag_mode": None})
    with pytest.raises(DamagedRowError):
        list(compared(kernel, {**row, "nodemask": "9-1"}))


def test_damaged_row_has_no_switches() -> None:
    """What a damaged row lacks is no value that a switch had."""
    _, row = prepared()
    rows = [row, {**row, "cpusets_enabled": None}, {**row, "gfp_allowed_mask": 1, "defrag_mode": None}]
    assert Shown(rows).switches() == Shown([row]).switches()


def test_failing_model_names_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ValueError of the model is a bug and not a damaged row."""
    kernel, row = prepared()
    monkeypatch.setattr("kalloctrace.model.page_alloc.alloc_flags_nofragment", fails)
    with pytest.raises(ModelFailure) as caught:
        judge(kernel, row, SWITCHES, may_miss=False)
    assert caught.value.code == Exit.FAILED
    assert f"gfp_mask={row['gfp_mask']:#x} order={row['order']}" in caught.value.what
    assert f"preferred_nid={row['preferred_nid']}" in caught.value.what
    assert "ValueError: a bug of the model" in caught.value.why


def test_failing_model_ends_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`verify` exits with 1 and three lines; it never counts such rows as unknown."""
    monkeypatch.setattr("kalloctrace.model.page_alloc.alloc_flags_nofragment", fails)
    path = traces.stream(tmp_path / "t.arrows", {})
    assert main(["verify", str(path)]) == Exit.FAILED
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(":")[0].strip() for line in err.splitlines()] == ["error", "why", "fix"]
    assert "the request normal gfp_mask=" in err


def slow_call() -> Row:
    """Return a call of the slow path with several attempts."""
    return dict(next(call for call in traces.slow_calls() if call["complete"] and len(call["attempts"]) > 1))


@pytest.mark.parametrize("change", [{"mems_allowed": "x"}, {"ac_nodemask_nodes": "2-1"}], ids=str)
def test_damaged_slow_call_is_unknown(change: Mapping[str, Any]) -> None:
    """A damaged call of the slow path is unknown, with each of its attempts."""
    call = slow_call()
    with TraceReader(traces.UNDER_PRESSURE) as trace:
        judge_call = SlowJudge(trace.snapshot, Kernel.of(trace.snapshot))
    slow = SlowVerification()
    verify_slow_call(slow, judge_call, {**call, "given": {**call["given"], **change}})
    assert (slow.unknown, slow.calls_unknown, slow.mismatches) == (slow.attempts, 1, [])
    assert "attempt: the call is damaged" in slow.unknown_reasons


@pytest.mark.parametrize("change", [{"mems_allowed": "x"}, {"ac_nodemask_nodes": "2-1"}], ids=str)
def test_damaged_slow_call_of_a_file_ends_its_slow_path(tmp_path: Path, change: Mapping[str, Any]) -> None:
    """No command gets the batch that holds it; the trace is incomplete from there."""
    call = slow_call()
    path = traces.slow(tmp_path / "t.arrows", {**call, "given": {**call["given"], **change}})
    with TraceReader(path) as trace:
        verdict = verify_trace(trace)
    assert verdict.slow is not None
    assert (verdict.slow.attempts, verdict.truncated) == (0, True)


@pytest.mark.parametrize("function", ["slowpath_call", "slow_call_of"])
def test_failing_model_names_the_slow_call(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """A bug in the model of the slow path names the call."""
    call = slow_call()
    with TraceReader(traces.UNDER_PRESSURE) as trace:
        judge_call = SlowJudge(trace.snapshot, Kernel.of(trace.snapshot))
    monkeypatch.setattr(f"kalloctrace.verify.slowpath.trace.{function}", fails)
    failing = judge_call.args if function == "slowpath_call" else judge_call
    with pytest.raises(ModelFailure, match=f"of {call['comm']} at {call['time']} ns"):
        failing(call)


def test_snapshot_without_a_flag_of_the_slow_path_is_damaged(tmp_path: Path) -> None:
    """The file is named, and the exit code is that of a failure."""
    path = tmp_path / "t.arrows"
    with TraceReader(traces.UNDER_PRESSURE) as trace:
        snapshot, totals = trace.snapshot, trace.ending().totals
    assert totals is not None
    alloc = tuple(named for named in snapshot.tables.alloc if named[0] != "ALLOC_OOM")
    broken = replace(snapshot, tables=replace(snapshot.tables, alloc=alloc))
    with TraceWriter(path, broken, {"mode": "stream", "slow": True}) as writer:
        writer.write_slow([slow_call()])
        writer.close(totals)
    with pytest.raises(KalloctraceError, match="cannot read") as caught:
        TraceReader(path)
    assert caught.value.code == Exit.FAILED
    assert "ALLOC_OOM" in caught.value.why


def test_failing_model_names_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event of another tool is judged by the model as well."""
    kernel, row = prepared()
    monkeypatch.setattr("kalloctrace.verify.events.gfp_migratetype", fails)
    with pytest.raises(ModelFailure, match=f"gfp_mask={row['gfp_mask']:#x} order={row['order']}"):
        EventJudge.of(kernel, [row])({**row, "entry": TRACEPOINT})


def test_failing_prediction_of_zonelists_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug in the prediction of zonelists is a crash that says what was predicted, and no damaged snapshot."""
    monkeypatch.setattr("kalloctrace.verify.zonelists.build_all_zonelists", fails)
    with TraceReader(BULK) as trace:
        assert trace.snapshot.machine.topology is not None
    path = shutil.copy(BULK, tmp_path / "t.arrows")
    assert main(["verify", str(path)]) == Exit.FAILED
    err = capsys.readouterr().err
    assert "the model failed on the zonelists of" in err
    assert "ValueError: a bug of the model" in err
    assert "damaged" not in err


def test_every_exit_code_has_its_rank() -> None:
    """The exit code of several traces is the worst of theirs, whatever each is."""
    assert sorted(WORST) == sorted(Exit)


@pytest.mark.parametrize(("codes", "expected"), [((2, 3), 3), ((3, 2), 3), ((0, 2), 2), ((2, 1), 1), ((4, 2), 2)])
def test_several_traces_end_with_the_worst_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codes: tuple[int, int], expected: int
) -> None:
    """Also where one of them ends with wrong usage."""
    paths = [traces.stream(tmp_path / f"{number}.arrows", {}) for number in range(2)]
    left = iter(codes)

    def verdict(_: TraceReader) -> None:
        raise KalloctraceError("what", "why", "fix", Exit(next(left)))

    monkeypatch.setattr("kalloctrace.verify.verification.verify_trace", verdict)
    assert main(["verify", *map(str, paths)]) == expected
