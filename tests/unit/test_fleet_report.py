# SPDX-License-Identifier: MIT
"""`fleet report` and `fleet sql`: against numbers that were worked out from the traces by another way."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.cli import main
from kalloctrace.fleet import questions
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import frames_of
from tests.fleets import add
from tests.schemas import hold
from tests.traces import RECORDED, stream

STACKS = RECORDED.parents[1] / "6.12" / "slow-stream.arrows"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset with slow calls and their callers, and with calls of three tasks on two hosts, some failed."""
    folder = tmp_path_factory.mktemp("fleet")
    one: list[dict[str, Any]] = [{"comm": "a", "page": False}, {"comm": "a"}, {"comm": "b"}]
    two: list[dict[str, Any]] = [{"comm": "a", "page": False}, {"comm": "c", "page": None}]
    traces = [
        stream(folder / "one.arrows", *one, recording={"id": "1", "host": "web-1"}),
        stream(folder / "two.arrows", *two, recording={"id": "2", "host": "web-2"}),
        STACKS,
    ]
    path = folder / "fleet"
    add(path, *traces)
    return path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    """Run the program; return the object on each line."""
    assert main(list(words)) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_failures(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By kernel and task, over hosts; a call whose return was not traced has not failed."""
    found = printed(capsys, "fleet", "report", "--json", "--top", "1000", str(dataset))
    hold("fleet_failures", *(row for row in found if row["type"] == "fleet_failures"))
    rows = {
        row["comm"]: row for row in found if row["type"] == "fleet_failures" and row["kernel_release"][:4] == "5.10"
    }
    assert {comm: (row["calls"], row["failed"], row["hosts"]) for comm, row in rows.items()} == {
        "a": (3, 2, 2),
    }
    with TraceReader(STACKS) as trace:
        slow = list(trace.slow_calls())
        count = sum(count for _, count in trace.counted())
    lost = sum(call["page"] is False for call in slow)
    assert lost > 0
    assert sum(row["failed"] for row in found if row["type"] == "fleet_failures") == 2 + lost
    seconds = sum(call["duration"] or 0 for call in slow) / 1e9
    assert main(["fleet", "report", "--top", "1", str(dataset)]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"{2 + lost:,} of {5 + count:,} calls failed; {len(slow):,} took the slow path, {seconds:,.2f} s in all",
        "3 recordings of 3 hosts",
    ]


def test_stalls(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A percentile is the nearest rank of the times of a caller."""
    found = printed(capsys, "fleet", "report", "--json", "--top", "1000", str(dataset))
    stalls = [row for row in found if row["type"] == "fleet_stalls"]
    hold("fleet_stalls", *stalls)
    times: dict[str | None, list[int]] = {}
    with TraceReader(STACKS) as trace:
        entry = trace.snapshot.features.entry
        for call in trace.slow_calls():
            frames = frames_of(call["stack"])
            caller = frames[frames.index(entry) + 1] if entry in frames[:-1] else None
            if call["duration"] is not None:
                times.setdefault(caller, []).append(call["duration"])
    assert {row["caller"] for row in stalls} == times.keys()
    for row in stalls:
        own = sorted(times[row["caller"]])
        for share in questions.PERCENTILES:
            assert row[f"p{share}_ns"] == own[math.ceil(share * len(own) / 100) - 1]
        assert (row["max_ns"], row["total_ns"]) == (own[-1], sum(own))
    assert [row["total_ns"] for row in stalls] == sorted((row["total_ns"] for row in stalls), reverse=True)


def test_sql(dataset: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables have the rows that count; flags have their values; an error ends only its own query."""
    query = "SELECT host, sum(calls) AS n FROM recordings GROUP BY host ORDER BY host"
    found = printed(capsys, "fleet", "sql", "--json", str(dataset), query)
    hold("fleet_row", *found)
    assert [(row["row"]["host"], row["row"]["n"]) for row in found][1:] == [("web-1", 3), ("web-2", 2)]
    (row,) = printed(
        capsys,
        "fleet",
        "sql",
        "--json",
        str(dataset),
        "SELECT 1.5 AS a, [DATE '2026-11-23', NULL] AS b, {'x': true} AS c",
    )
    assert row["row"] == {"a": 1.5, "b": ["2026-11-23", None], "c": {"x": True}}
    # 0xcc0 is GFP_KERNEL.
    flags = (
        "SELECT has_flag(3264, flag_value) AS yes, has_flag(0, flag_value) AS no FROM flags "
        "WHERE flag_name = '__GFP_IO' AND kernel_release LIKE '5.10%'"
    )
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"SELECT 1 AS x\nnonsense\n\n{flags}\n".encode())))
    assert main(["fleet", "sql", str(dataset)]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == ["  x", "  1", "  yes | no", "  True | False"]
    assert err.splitlines()[0] == "error: cannot answer the query"
    assert len(err.splitlines()) == 3
