# SPDX-License-Identifier: MIT
"""`kalloctrace verify --ktap`, read by the rules of Documentation/dev-tools/ktap.rst."""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.traces import RECORDED, slow, slow_calls, stream

NEWEST = RECORDED.parents[1] / "7.3" / "stimulus-cpusets.arrows"
_RESULT = re.compile(
    r"(?P<result>ok|not ok) (?P<number>[1-9]\d*) (?P<name>[^#\s][^#]*?)(?: # (?P<directive>[A-Z]+)(?: (?P<data>.*))?)?"
)


@dataclass
class Case:
    """A test of a run.

    Attributes:
        ok: its result.
        name: its description.
        directive: SKIP and the like; empty if there is none.
        data: the text after the directive.
        diagnostics: the lines directly before its result.
        subtests: by name.
    """

    ok: bool
    name: str
    directive: str
    data: str
    diagnostics: list[str]
    subtests: dict[str, "Case"] = field(default_factory=dict)


def parse(lines: list[str], indent: str = "") -> dict[str, Case]:
    """Consume a run of one level from the front of lines, and return its tests by name."""
    assert lines.pop(0) == f"{indent}KTAP version 1"
    plan = re.fullmatch(rf"{indent}1\.\.(\d+)", lines.pop(0))
    assert plan is not None
    cases: dict[str, Case] = {}
    for number in range(1, int(plan[1]) + 1):
        subtests = parse(lines, f"{indent}  ") if lines[0].startswith(f"{indent}  KTAP") else {}
        diagnostics = []
        while lines[0].startswith(f"{indent}# "):
            diagnostics.append(lines.pop(0).removeprefix(f"{indent}# "))
        line = lines.pop(0)
        assert line.startswith(indent)
        match = _RESULT.fullmatch(line.removeprefix(indent))
        assert match is not None, line
        case = Case(
            match["result"] == "ok", match["name"], match["directive"] or "", match["data"] or "", diagnostics, subtests
        )
        assert int(match["number"]) == number
        assert case.directive in {"", "SKIP", "ERROR"}
        assert not (case.ok and case.directive == "ERROR")
        assert not (case.ok and any(not subtest.ok for subtest in subtests.values()))
        assert case.name not in cases
        cases[case.name] = case
    return cases


def ktap(*words: str | Path, code: int) -> dict[str, Case]:
    """Run the real program and return its tests by name."""
    done = subprocess.run(
        [sys.executable, "-m", "kalloctrace", "verify", "--ktap", *map(str, words)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    lines = done.stdout.splitlines()
    cases = parse(lines)
    assert not lines
    return cases


def test_each_trace_is_a_test_and_each_field_a_subtest() -> None:
    """Recordings of real kernels pass, field by field, with the number of judged allocations."""
    cases = ktap("--strict", NEWEST, RECORDED, code=0)
    assert list(cases) == [str(NEWEST), str(RECORDED)]
    for case in cases.values():
        assert (case.ok, case.directive) == (True, "")
        assert all(subtest.ok for subtest in case.subtests.values())
        # The older of the two has no distances, from which the zonelists could be predicted.
        assert {name for name, subtest in case.subtests.items() if subtest.directive} <= {"zonelists"}
        assert {"migratetype", "alloc_flags", "preferred_zone", "zonelists", "judged", "complete"} <= set(case.subtests)
    assert "bulk_zone" in cases[str(NEWEST)].subtests
    assert "bulk_zone" not in cases[str(RECORDED)].subtests
    assert cases[str(RECORDED)].subtests["outcome"].diagnostics == ["equal 26662, different 0, unknown 0"]


def test_mismatch_fails_its_field_alone(tmp_path: Path) -> None:
    """The differing field is `not ok`, with its values; the other fields are `ok`."""
    path = stream(tmp_path / "t.arrows", {}, {"migratetype": 99}, {"migratetype": 99})
    (case,) = ktap(path, code=3).values()
    failed = {name for name, subtest in case.subtests.items() if not subtest.ok}
    assert (case.ok, failed) == (False, {"migratetype"})
    diagnostics = case.subtests["migratetype"].diagnostics
    assert diagnostics[0] == "equal 1, different 2, unknown 0"
    assert {"mismatch: 2 × migratetype", "observed 99"} <= set(diagnostics)


def test_unknown_is_skipped_or_fails(tmp_path: Path) -> None:
    """An unjudged field never passes: it is skipped with the reason, and fails with --strict."""
    path = stream(tmp_path / "t.arrows", {}, {"cpusets_enabled": -1})
    (case,) = ktap(path, code=0).values()
    judged = case.subtests["judged"]
    assert (case.ok, case.directive, judged.directive) == (True, "", "SKIP")
    assert judged.data == "1 of 2 allocations are unknown"
    assert judged.diagnostics == ["unknown: 1 × cpusets were being switched on"]
    (case,) = ktap("--strict", path, code=4).values()
    assert (case.ok, case.subtests["judged"].ok, case.subtests["complete"].ok) == (False, False, True)


def test_nothing_judged_is_no_pass(tmp_path: Path) -> None:
    """A trace in which no allocation could be judged is skipped."""
    (case,) = ktap(stream(tmp_path / "t.arrows", {"cpusets_enabled": -1}), code=0).values()
    assert (case.ok, case.directive) == (True, "SKIP")
    assert all(subtest.directive == "SKIP" for name, subtest in case.subtests.items() if name == "judged")


def test_slow_path_is_a_subtest(tmp_path: Path) -> None:
    """A differing attempt fails it, and lost events make the trace incomplete, as for --strict."""
    good = next(call for call in slow_calls() if len(call["attempts"]) > 1)
    (case,) = ktap("--strict", slow(tmp_path / "good.arrows", good), code=0).values()
    assert (case.subtests["slow_path"].ok, case.subtests["slow_path"].directive) == (True, "")
    first, *rest = good["attempts"]
    wrong = {**good, "attempts": [{**first, "alloc_flags": first["alloc_flags"] ^ 0x100}, *rest]}
    (case,) = ktap(slow(tmp_path / "wrong.arrows", wrong), code=3).values()
    assert {name for name, subtest in case.subtests.items() if not subtest.ok} == {"slow_path"}
    assert "mismatch: attempt 1, alloc_flags" in case.subtests["slow_path"].diagnostics
    (case,) = ktap("--strict", slow(tmp_path / "lost.arrows", good, lost=2), code=4).values()
    assert {name for name, subtest in case.subtests.items() if not subtest.ok} >= {"complete"}
    assert "lost in the slow path 2" in case.subtests["complete"].diagnostics


def test_cut_off_trace_is_not_complete(tmp_path: Path) -> None:
    """A subtest reports it."""
    path = stream(tmp_path / "t.arrows", {}, {})
    path.write_bytes(path.read_bytes()[:-400])
    (case,) = ktap(path, code=0).values()
    assert (case.subtests["complete"].directive, case.subtests["complete"].data) == ("SKIP", "truncated 1")


@pytest.mark.parametrize("traces", [["missing.arrows"], ["missing.arrows", RECORDED]])
def test_unreadable_trace_is_an_error(traces: list[str | Path]) -> None:
    """It is a failed test; the other traces are still judged."""
    cases = list(ktap(*traces, code=1).values())
    assert [(case.ok, case.directive) for case in cases] == [(False, "ERROR"), (True, "")][: len(traces)]
    assert cases[0].data == "No such file or directory"


def test_any_name_is_a_description(tmp_path: Path) -> None:
    """A hash sign or a line break in a name does not end the description or the line."""
    cases = ktap(stream(tmp_path / "a # SKIP\nb.arrows", {}), code=0)
    assert list(cases) == [str(tmp_path / "a _ SKIP b.arrows")]


def test_two_forms_at_once_are_refused() -> None:
    """It is either JSON or KTAP."""
    words = [sys.executable, "-m", "kalloctrace", "verify", "--json", "--ktap", str(RECORDED)]
    assert subprocess.run(words, capture_output=True, check=False, timeout=60).returncode == 2
