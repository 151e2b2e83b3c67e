# SPDX-License-Identifier: MIT
"""Pseudonymous traces: no name is left in the bytes, equal names stay equal, and all else is as it was."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kalloctrace.__main__ import main
from kalloctrace.trace.containers import ContainerNames
from kalloctrace.trace.pseudonyms import PseudonymousWriter, Pseudonyms
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import COLUMNS
from kalloctrace.trace.slowpath import SLOW_KEY
from kalloctrace.trace.writer import TraceWriter
from tests.traces import slow_calls, source

SECRETS = (
    *("secret-task", "secret-other", "secret-slow", "secret-command", "secret-cgroup", "secret-user"),
    *("secret-slice", "secret-service", "secret-namespace", "secret-pod", "secret-container"),
)
HASHED = dict.fromkeys(("comm", "cgroup"))
SAFE = {"time": 5_000_000_000, "cpu": 0, "pid": 7, "tid": 7}


def write(writer: TraceWriter) -> None:
    """Write three calls of two tasks, and a call of the slow path."""
    _, totals, row = source()
    tasks = ("secret-task", "secret-other", "secret-task")
    rows = [{**row, **SAFE, "comm": comm, "cgroup": "/secret-slice"} for comm in tasks]
    writer.write(pa.RecordBatch.from_pylist(rows, COLUMNS))
    writer.write_slow([{**slow_calls()[0], **SAFE, "comm": "secret-slow", "cgroup": "/secret-service"}])
    writer.write_containers({"/secret-slice": ContainerNames("secret-namespace", "secret-pod", "secret-container")})
    writer.close(totals)


RECORDING: Mapping[str, Any] = {
    "mode": "stream",
    "slow": True,
    "started": "2026-01-01T00:00:00+00:00",
    "command": ["secret-command", "--secret-user"],
    "filters": {"comm": "secret-task", "cgroup": "/secret-cgroup", "gfp_any": 4},
    "user": "secret-user",
}


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Write a trace with names that must not be left."""
    path = tmp_path / "open.arrows"
    with TraceWriter(path, source()[0], RECORDING) as writer:
        write(writer)
    return path


@pytest.mark.parametrize("by", ["comm", "cgroup"])
def test_names_that_calls_are_counted_by(tmp_path: Path, by: str) -> None:
    """Whether the trace is recorded so or made of another; each name keeps its count."""
    recording = {**RECORDING, "mode": "aggregate", "by": by}
    opened, recorded, exported = (tmp_path / f"{name}.arrows" for name in ("open", "recorded", "exported"))
    for path, kind in ((opened, TraceWriter), (recorded, PseudonymousWriter)):
        with kind(path, source()[0], recording) as writer:
            write(writer)
    assert main(["export", str(opened), "--format", "arrows", "--pseudonymous", "-o", str(exported)]) == 0
    names = {"comm": [1, 2], "cgroup": [3]}[by]
    for path in (recorded, exported):
        assert not [secret for secret in SECRETS if secret.encode() in contents(path)]
        with TraceReader(path) as trace:
            found = [row for batch in trace.batches() for row in batch.to_pylist()]
        assert sorted(row["count"] for row in found) == names
        assert all(row[by].startswith("name-") for row in found)


def contents(path: Path) -> bytes:
    """Return all bytes of a trace, and those that are compressed or encoded inside it, decoded."""
    with TraceReader(path) as reader:
        decoded = [repr(batch.to_pydict()) for batch in reader.batches()]
        decoded += [repr(call) for call in reader.slow_calls()]
        decoded.append(repr(reader.recording) + repr(reader.snapshot) + repr(reader.ending()))
    return path.read_bytes() + "".join(decoded).encode()


def found(data: bytes) -> set[str]:
    """Return which secrets are in the bytes."""
    return {secret for secret in SECRETS if secret.encode() in data}


def test_names_are_in_the_bytes_of_an_open_trace(trace: Path) -> None:
    """The search of these tests finds each of them."""
    assert found(contents(trace)) == set(SECRETS)
    assert SLOW_KEY in trace.read_bytes()


def test_exported_trace_has_no_name(trace: Path, tmp_path: Path) -> None:
    """Neither in rows, nor in calls of the slow path, nor in the metadata; it says so, and the rest is the same."""
    path = tmp_path / "shared.arrows"
    assert main(["export", "--format", "arrows", "--pseudonymous", "-o", str(path), str(trace)]) == 0
    assert found(contents(path)) == set()
    with TraceReader(path) as shared, TraceReader(trace) as original:
        rows, before = ([row for batch in one.batches() for row in batch.to_pylist()] for one in (shared, original))
        names = [row.pop("comm") for row in rows]
        assert names[0] == names[2] != names[1]
        assert all(len(name) <= 15 for name in names)
        assert len({row.pop("cgroup") for row in rows} | {None}) == 2
        assert rows == [{name: value for name, value in row.items() if name not in HASHED} for row in before]
        assert shared.recording["pseudonymous"] is True
        assert shared.recording["filters"]["comm"] == names[0]
        assert shared.recording["filters"]["gfp_any"] == 4
        assert shared.recording["started"] == RECORDING["started"]
        assert shared.snapshot == original.snapshot
        assert shared.ending() == replace(original.ending(), containers={})
        (call,), (as_it_was,) = list(shared.slow_calls()), list(original.slow_calls())
        assert {**call, **HASHED} == {**as_it_was, **HASHED}


def test_recorded_trace_has_no_name(tmp_path: Path) -> None:
    """The names are hashed before they are written, and the key is another in each trace."""
    names = []
    for number in range(2):
        path = tmp_path / f"{number}.arrows"
        with PseudonymousWriter(path, source()[0], RECORDING) as writer:
            write(writer)
        assert found(contents(path)) == set()
        with TraceReader(path) as reader:
            assert reader.recording["pseudonymous"] is True
            names.append(next(reader.batches())["comm"][0].as_py())
    assert names[0] != names[1]


@pytest.mark.parametrize("form", ["csv", "jsonl", "folded"])
def test_other_formats_have_no_name(form: str, trace: Path, tmp_path: Path) -> None:
    """They are made from a pseudonymous trace."""
    path = tmp_path / "out"
    assert main(["export", "--format", form, "--pseudonymous", "-o", str(path), str(trace)]) == 0
    assert found(path.read_bytes()) == set()
    assert b"name-" in path.read_bytes()


def test_truncated_trace_stays_truncated(trace: Path, tmp_path: Path) -> None:
    """Its losses do not become known."""
    path = tmp_path / "shared.arrows"
    trace.write_bytes(trace.read_bytes()[:-200])
    assert main(["export", "--format", "arrows", "--pseudonymous", "-o", str(path), str(trace)]) == 0
    with TraceReader(path) as reader:
        assert reader.ending().truncated


def test_trace_is_not_copied_for_nothing(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --pseudonymous it would be the same."""
    assert main(["export", "--format", "arrows", "-o", "x.arrows", str(trace)]) == 2
    assert "add --pseudonymous" in capsys.readouterr().err


def test_unknown_name_stays_unknown() -> None:
    """It is no name."""
    assert Pseudonyms().of("?") == "?"
