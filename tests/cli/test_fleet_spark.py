# SPDX-License-Identifier: MIT
"""Spark answers each question about a fleet as DuckDB does, row by row, in Java of this machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kalloctrace.cli import main
from kalloctrace.errors import KalloctraceError
from kalloctrace.fleet import verify
from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.engines import engine
from kalloctrace.fleet.frames import Engine
from kalloctrace.fleet.sql import Shell
from tests.fleet_answers import answers, columns, hold_equal, make_mixed_fleet, require_spark

pytestmark = pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
SPARK = ("--engine", "spark", "--master", "local[2]", "--memory", "1g")


@pytest.fixture(scope="module")
def unjudged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a dataset that nobody has judged, in a folder whose name has the characters of patterns."""
    require_spark()
    folder = tmp_path_factory.mktemp("fleet")
    path = folder / "a [fleet] {of,*} ?%20 \\ machines"
    make_mixed_fleet(path, folder)
    with pytest.MonkeyPatch.context() as patch:
        # Java that compiles less starts sooner.
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
        yield path


@pytest.fixture(scope="module")
def dataset(unjudged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of it that DuckDB has judged."""
    path = tmp_path_factory.mktemp("copied") / "a [fleet] {of,*} ?%20 \\ machines"
    shutil.copytree(unjudged, path)
    with engine() as duckdb, Dataset.opened(path) as opened:
        assert verify.judge_fleet(opened, duckdb, processes=1) > 0
    return path


@pytest.fixture(scope="module")
def spark(unjudged: Path) -> Iterator[Engine]:
    """Start Spark."""
    assert unjudged
    with engine("spark", master="local[2]", memory="1g") as running:
        yield running


def judged(path: Path) -> list[str]:
    """Return all verdicts and differences of a dataset."""
    with Dataset.opened(path) as opened:
        return sorted(repr(row) for name in ("verdicts", "differences") for row in opened.table(name).to_pylist())


def test_the_program(unjudged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the same with both engines; what Java prints is not shown."""
    printed = []
    for words in ((), SPARK):
        assert main(["fleet", "report", "--json", "--top", "50", *words, str(unjudged)]) == 0
        printed.append(capsys.readouterr())
    assert printed[0] == printed[1]
    assert len(printed[0].out.splitlines()) > 2


def test_its_answers_are_those_of_duckdb(dataset: Path, spark: Engine) -> None:
    """Those to each question, and the columns of each table with their types."""
    with engine() as duckdb:
        assert columns(dataset, spark) == columns(dataset, duckdb)
        found = answers(dataset, duckdb)
        hold_equal(answers(dataset, spark), found)
    assert {name for name, rows in found.items() if not rows} == {"unjudged"}


@pytest.mark.parametrize("most_here", [verify.MOST_HERE, 10])
def test_its_verdicts_are_those_of_duckdb(
    most_here: int, dataset: Path, unjudged: Path, spark: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged here, or on the executors in several parts, of which each is kept."""
    path = dataset.parent / f"judged {most_here}"
    shutil.copytree(unjudged, path)
    monkeypatch.setattr(verify, "MOST_HERE", most_here)
    monkeypatch.setattr("kalloctrace.fleet.on_spark.TASKS", 2)
    done: list[float] = []
    with Dataset.opened(path) as opened:
        before = len(opened.commits)
        number = verify.judge_fleet(opened, spark, done.append, processes=1)
        assert len(opened.commits) == before + max(1, -(-number // most_here))
        assert done[-1] == 1
        assert number > 10
        assert verify.judge_fleet(opened, spark) == 0
    assert judged(path) == judged(dataset)


def test_an_executor_with_another_model(unjudged: Path, spark: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, and nothing is kept."""
    errors = pytest.importorskip("pyspark.errors")
    monkeypatch.setattr(verify, "MOST_HERE", 10)
    monkeypatch.setattr("kalloctrace.fleet.on_spark.TASKS", 2)
    monkeypatch.setattr(verify, "model_version", lambda: "another")
    with (
        Dataset.opened(unjudged) as opened,
        pytest.raises(errors.PySparkException, match="another version of kalloctrace"),
    ):
        verify.judge_fleet(opened, spark)
    assert not judged(unjudged)


def test_sql(dataset: Path, spark: Engine) -> None:
    """The tables have their names, and has_flag is there; an error is the query's own."""
    with Dataset.opened(dataset) as opened:
        shell = Shell(opened, spark)
        rows = list(
            shell.answer(
                "SELECT host, sum(calls) AS n FROM recordings WHERE host LIKE 'web-%' GROUP BY host ORDER BY host"
            )
        )
        assert rows == [{"host": "web-1", "n": 5}, {"host": "web-2", "n": 2}]
        flags = "SELECT has_flag(3264, flag_value) AS yes, has_flag(0, flag_value) AS no FROM flags"
        # 0xcc0 is GFP_KERNEL.
        (row,) = shell.answer(f"{flags} WHERE flag_name = '__GFP_IO' AND kernel_release LIKE '5.10%'")
        assert row == {"yes": True, "no": False}
        with pytest.raises(KalloctraceError, match="PARSE_SYNTAX_ERROR"):
            list(shell.answer("nonsense"))


def test_what_is_refused(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A master without Spark."""
    assert main(["fleet", "verify", "--master", "local[2]", str(dataset)]) == 2
    assert capsys.readouterr().err.startswith("error: --master has no effect")
