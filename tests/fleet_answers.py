# SPDX-License-Identifier: MIT
"""All answers about a fleet, to compare engines row by row."""

import importlib.util
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.fleet import questions
from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.diff import diff_fleet
from kalloctrace.fleet.frames import Engine
from kalloctrace.fleet.outliers import find_outliers
from kalloctrace.fleet.tables import FLEET_TABLES
from kalloctrace.fleet.verify import model_version
from tests.bench.fleet_data import AFTER, BEFORE, SMALL, Fleet, make_fleet
from tests.fleets import add, drop_column
from tests.traces import slow, slow_calls, stream

FLEET = Fleet(hosts=12, requests=12, slow=60, calls=5_000, outlier=0.6, regression=2.0, mismatched=600, fixture=SMALL)
Answers = dict[str, list[dict[str, Any]]]


def require_spark() -> None:
    """Skip a test where Spark cannot run; fail where it must."""
    missing = [
        what
        for what, found in (
            ("Java 17 or 21 (apt install default-jre-headless)", shutil.which("java")),
            ("pyspark", importlib.util.find_spec("pyspark")),
        )
        if found is None
    ]
    if missing and os.environ.get("KALLOCTRACE_REQUIRE_LIVE") == "1":
        pytest.fail(f"Spark cannot run: {', '.join(missing)} is missing")
    if missing:
        pytest.skip(f"Spark cannot run: {', '.join(missing)} is missing")


def make_mixed_fleet(path: Path, traces: Path) -> None:
    """Make a dataset: a fleet with injections, and traces with each verdict, nulls, failures, and a longer version.

    It is of a schema without two of the columns.
    """
    make_fleet(path, FLEET)
    wrong: list[dict[str, Any]] = [
        *({"migratetype": 99, "comm": "a"}, {"migratetype": 99, "comm": "a", "page": False}),
        *({"cpusets_enabled": -1}, {"alloc_flags": 0, "page": None}, {}),
    ]
    started = {"started": "2026-11-23T10:56:26+00:00"}
    add(
        path,
        stream(traces / "one.arrows", *wrong, recording={**started, "host": "web-1", "id": "1"}),
        stream(traces / "two.arrows", *wrong[:2], recording={**started, "host": "web-2", "id": "2"}),
        stream(traces / "three.arrows", {}, recording={"id": "3"}),
        slow(traces / "slow.arrows", *slow_calls()[:9]),
    )
    add(path, stream(traces / "longer.arrows", *({} for _ in range(9)), recording={"id": "3"}))
    drop_column(path, "zones", "free_types")
    drop_column(path, "recordings", "damage")


def answers(path: Path, running: Engine) -> Answers:
    """Return the rows of two tables and of the answer to each question, in an order that no engine decides."""
    model = model_version()
    with Dataset.opened(path) as dataset:
        tables = running.tables(dataset)
        found = {
            # Whose columns no question reads.
            **{
                name: _sorted(running.rows(tables[name].select(FLEET_TABLES[name].names)))
                for name in ("attempts", "zones")
            },
            "unjudged": _sorted(running.rows(questions.unjudged(tables, model))),
            "totals": running.rows(questions.totals(tables)),
            "distinct": running.rows(questions.distinct_requests(tables)),
            "verdicts": running.rows(questions.verdict_counts(tables, model)),
            "mismatches": running.rows(questions.mismatches(tables, model)),
            "failed": running.rows(questions.failed_calls(tables)),
            "slow": running.rows(questions.slow_totals(tables)),
            "failures": running.rows(questions.failures(tables)),
            "stalls": running.rows(questions.stalls(tables)),
        }
        compared = diff_fleet(dataset, running, BEFORE, AFTER)
        found["differences"] = _sorted([_without_chance(one.to_json()) for one in compared.differences])
        found["outliers"] = _sorted([_without_chance(row) for row in find_outliers(dataset, running).json_lines()])
    return found


def columns(path: Path, running: Engine) -> dict[str, dict[str, str]]:
    """Return the columns of each table, with their types."""
    with Dataset.opened(path) as dataset:
        tables = running.tables(dataset)
        return {name: {n: str(kind) for n, kind in table.collect_schema().items()} for name, table in tables.items()}


def hold_equal(one: Answers, other: Answers) -> None:
    """Compare answers row by row; what an engine adds up in another order may differ in its last digits."""
    assert one.keys() == other.keys()
    for name, rows in one.items():
        assert len(rows) == len(other[name]), name
        for left, right in zip(rows, other[name], strict=True):
            assert left.keys() == right.keys(), name
            for field, value in left.items():
                same = right[field]
                alike = isinstance(value, float) and math.isclose(value, same, rel_tol=1e-9, abs_tol=1e-12)
                assert alike or (value == same and type(value) is type(same)), (name, field, value, same)


def _without_chance(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose p-value has the digits that do not depend on the order of sums."""
    return {name: round(value, 6) if name == "p_value" else value for name, value in row.items()}


def _sorted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in the order of all that is not a fraction."""
    return sorted(rows, key=lambda row: repr([value for value in row.values() if not isinstance(value, float)]))
