# SPDX-License-Identifier: MIT
"""`fleet verify` over all fixtures, and over traces that differ: its sums are those of `verify`."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.cli import main
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.fleet import verify
from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.engines import engine
from kalloctrace.fleet.frames import Engine
from kalloctrace.fleet.text import verification_lines
from kalloctrace.trace.reader import TraceReader
from kalloctrace.verify.verification import verify_trace
from tests.fleets import add, killed
from tests.schemas import hold
from tests.traces import RECORDED, aggregate, stream

FIXTURES = sorted(RECORDED.parents[1].rglob("*.arrows"))
SUMS = ("allocations", "matched", "mismatched", "unknown", "lost", "missed")


def expected(*traces: Path) -> dict[str, int]:
    """Return the sums of `verify` over traces."""
    sums: Counter[str] = Counter(recordings=len(traces))
    for path in traces:
        with TraceReader(path) as trace:
            verdict = verify_trace(trace)
        sums.update({name: getattr(verdict, name) for name in SUMS})
    return {name: sums[name] for name in ("recordings", *SUMS)}


def found(path: Path, running: Engine, **more: Any) -> verify.FleetVerification:  # noqa: ANN401 (options)
    """Verify a dataset."""
    with Dataset.opened(path) as dataset:
        return verify.verify_fleet(dataset, running, **more)


def sums(verdict: verify.FleetVerification) -> dict[str, int]:
    """Return what `expected` has."""
    return {name: getattr(verdict, name) for name in ("recordings", *SUMS)}


@pytest.fixture(scope="module")
def differing(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return traces with every verdict: mismatches, unknown calls, an end that is missing, lost calls."""
    folder = tmp_path_factory.mktemp("traces")
    started = {"started": "2026-11-23T10:56:26+00:00"}
    wrong: tuple[dict[str, Any], ...] = (
        {"migratetype": 99},
        {"migratetype": 99},
        {"cpusets_enabled": -1},
        {"alloc_flags": 0},
        {},
    )
    one = stream(folder / "one.arrows", *wrong, recording={**started, "host": "web-1", "id": "1"})
    two = stream(folder / "two.arrows", *wrong[:2], recording={**started, "host": "web-2", "id": "2"})
    cut = stream(folder / "cut.arrows", {}, {}, recording={"id": "3"})
    cut.write_bytes(cut.read_bytes()[:-600])
    event = aggregate(folder / "event.arrows", ({"entry": "tracepoint", "order": 20}, 7), ({}, 3))
    return [one, two, cut, event]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, differing: list[Path]) -> Path:
    """Return a dataset of all fixtures, and of the traces that differ."""
    path = tmp_path_factory.mktemp("fleet") / "fleet"
    add(path, *FIXTURES, *differing)
    return path


def test_its_sums_are_those_of_verify(dataset: Path, differing: list[Path]) -> None:
    """Over all fixtures and all traces that differ; a second time the model does not run."""
    with engine() as running:
        first = found(dataset, running, processes=1)
        assert sums(first) == expected(*FIXTURES, *differing)
        assert first.mismatched
        assert first.unknown
        assert first.judged >= first.distinct > 40_000
        again = found(dataset, running)
    assert again.judged == 0
    assert sums(again) == sums(first)
    hold("fleet_verification", [*first.json_lines()][-1])


def test_what_differs(tmp_path: Path, differing: list[Path]) -> None:
    """A mismatch says where it is, how often, and since when."""
    path = tmp_path / "fleet"
    add(path, *differing)
    with engine() as running:
        verdict = found(path, running)
    hold("fleet_mismatch", *[*verdict.json_lines()][:-1])
    (row,) = (row for row in verdict.mismatches if row["field"] == "migratetype" and row["observed"] == "99")
    assert (row["calls"], row["requests"], row["hosts"], row["a_host"]) == (4, 1, 2, "web-1")
    assert (row["first_seen"], row["rule"]) == ("2026-11-23T10:56:26+00:00", "gfp_migratetype")
    assert verdict.unknown_reasons["cpusets were being switched on"] == 1
    text = "\n".join(verification_lines(verdict))
    assert text.startswith(f"MISMATCH: {verdict.mismatched} of {verdict.allocations} calls")
    assert "migratetype is 99" in text


def test_exit_codes(tmp_path: Path, differing: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """3 for a mismatch, 4 for incomplete data with --strict, as of `verify`."""
    wrong, good, empty = (str(tmp_path / name) for name in ("wrong", "good", "empty"))
    add(Path(wrong), *differing)
    add(Path(good), differing[2])
    add(Path(empty))
    for words, code in (([wrong], 3), ([good], 0), (["--strict", good], 4), (["--strict", empty], 0)):
        assert main(["fleet", "verify", "--json", *words]) == code
        *mismatches, last = map(json.loads, capsys.readouterr().out.splitlines())
        hold("fleet_verification", last)
        assert bool(mismatches) == (code == Exit.MISMATCH)
    assert main(["fleet", "verify", empty]) == 0
    assert capsys.readouterr().out.startswith("nothing to verify")


def test_another_model_judges_again(tmp_path: Path, differing: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts of this model are used, those of another one are not; two who judge at once count nothing twice."""
    path = tmp_path / "fleet"
    add(path, *differing)
    with engine() as running:
        with Dataset.opened(path) as early:
            first = found(path, running)
            # It has read the dataset before the verdicts were there.
            verify.verify_fleet(early, running)
        assert sums(found(path, running)) == sums(first) == expected(*differing)
        monkeypatch.setattr(verify, "model_version", lambda: "another")
        again = found(path, running)
    assert again.judged == first.judged
    assert sums(again) == sums(first)


def test_two_processes_judge_as_one(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The requests are shared out, and each is judged once."""
    with engine() as running:
        one = found(dataset, running)
        monkeypatch.setattr(verify, "model_version", lambda: "of two processes")
        two = found(dataset, running, processes=2)
    assert two.judged > 40_000
    assert (sums(two), two.mismatches, two.unknown_reasons) == (sums(one), one.mismatches, one.unknown_reasons)


def test_two_commands_judge_at_once(tmp_path: Path, differing: list[Path]) -> None:
    """Both find the sums, and what both have judged counts once afterwards."""
    path = tmp_path / "fleet"
    add(path, *differing)
    words = [sys.executable, "-m", "kalloctrace", "fleet", "verify", "--json", str(path)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for command in running:
        last = json.loads(command.communicate()[0].splitlines()[-1])
        assert {name: last[name] for name in ("recordings", *SUMS)} == expected(*differing)
    with engine() as duckdb:
        verdict = found(path, duckdb)
    assert (verdict.judged, sums(verdict)) == (0, expected(*differing))


def test_a_process_that_judges_is_killed(
    tmp_path: Path, differing: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says so, and the next command judges what is left."""
    path = tmp_path / "fleet"
    add(path, *differing)
    with engine() as running:
        with monkeypatch.context() as patch:
            patch.setattr(verify, "_PART", 1)
            patch.setattr(verify, "_judge_part", killed)
            with pytest.raises(KalloctraceError, match="a process that judges was killed"):
                found(path, running, processes=2)
        assert sums(found(path, running, processes=1)) == expected(*differing)


def test_an_engine_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the extra that brings it; an amount of memory that is none is refused."""
    path = tmp_path / "fleet"
    add(path)
    assert main(["fleet", "verify", "--memory", "much", str(path)]) == 1
    assert capsys.readouterr().err.startswith("error: cannot start DuckDB")
    connect = ("--master", "sc://127.0.0.1:1")
    for name, module, *more in (
        ("duckdb", "duckdb"),
        ("duckdb", "narwhals"),
        ("spark", "py4j"),
        ("spark", "grpc", *connect),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            for own in (f"on_{name}", "on_connect", "frames"):
                patch.delitem(sys.modules, f"kalloctrace.fleet.{own}", raising=False)
            assert main(["fleet", "verify", "--engine", name, *more, str(path)]) == 1
        err = capsys.readouterr().err
        assert f"{module} is not installed" in err
        assert f"kalloctrace[{'fleet' if name == 'duckdb' else name}]" in err
        assert ("pyspark[connect]" in err) == bool(more)


def test_other_commands_load_no_engine() -> None:
    """Neither the program nor its fleet commands load one before they need it."""
    script = (
        "import sys; from kalloctrace.cli import main; main(['fleet', 'verify', '--help']); main(['decode', '1'])\n"
        "import kalloctrace.fleet.add, kalloctrace.fleet.dataset\n"
        "print({'narwhals', 'duckdb', 'pyspark'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()"
