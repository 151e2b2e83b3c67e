# SPDX-License-Identifier: MIT
"""`kalloctrace export` as people and scripts run it: each format has the contents of the trace."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from kalloctrace.text import printable
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import ROWS
from tests.traces import RECORDED, aggregate, slow, slow_calls, stream

BULK = RECORDED.parents[1] / "7.3" / "stimulus.arrows"
NAMES = ["plain", "a,b", 'say "x"', "line\nbreak", "näme", "", "\x1b[31m", "tab\t"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the real program."""
    return subprocess.run(
        [sys.executable, "-m", "kalloctrace", "export", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a trace."""
    with TraceReader(path) as trace:
        return [row for batch in trace.batches() for row in batch.to_pylist()]


def text(value: object) -> str:
    """Return a value as CSV text."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def exported(path: Path, form: str) -> str:
    """Run the program without a file and return its standard output."""
    done = run("--format", form, path)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("path", [RECORDED, BULK], ids=["5.10", "7.3"])
def test_json_lines_are_the_rows(path: Path) -> None:
    """Each row is an object, which names its type."""
    objects = [json.loads(line) for line in exported(path, "jsonl").splitlines()]
    assert [found.pop("type") for found in objects] == ["allocation"] * len(objects)
    assert objects == rows(path)


@pytest.mark.parametrize("path", [RECORDED, BULK], ids=["5.10", "7.3"])
def test_csv_is_the_rows(path: Path) -> None:
    """Each row is a line below the names of the columns."""
    head, *lines = csv.reader(io.StringIO(exported(path, "csv")))
    assert head == ROWS.names
    assert lines == [[text(value) for value in row.values()] for row in rows(path)]


@pytest.mark.parametrize("path", [RECORDED, BULK], ids=["5.10", "7.3"])
def test_parquet_is_the_rows(tmp_path: Path, path: Path) -> None:
    """The table has each row, with the same columns and types."""
    output = tmp_path / "t.parquet"
    done = run("--format", "parquet", "-o", output, path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    table = parquet.read_table(output)
    assert table.schema.names == ROWS.names
    assert table.to_pylist() == rows(path)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_names_come_through(tmp_path: Path, form: str) -> None:
    """Any task name is one value, and never mistaken for a stack; in CSV, which people print, it is escaped."""
    path = stream(tmp_path / "t.arrows", *({"comm": name, "stack": "a;b"} for name in NAMES), {"stack": None})
    printed = exported(path, form)
    if form == "jsonl":
        found = [(row["comm"], row["stack"]) for row in map(json.loads, printed.splitlines())]
        assert found[-1][1] is None
    else:
        found = [(row["comm"], row["stack"]) for row in csv.DictReader(io.StringIO(printed, newline=""))]
        assert printed.splitlines()[-1].count('""') == 0
    assert found[:-1] == [(name if form == "jsonl" else printable(name), "a;b") for name in NAMES]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_aggregate(tmp_path: Path, form: str) -> None:
    """A row of an aggregate has its count, and null in the caller's columns."""
    path = aggregate(tmp_path / "t.arrows", ({"order": 1}, 5), ({"order": 2}, 1 << 52))
    output = tmp_path / "out"
    assert run("--format", form, "-o", output, path).returncode == 0
    if form == "parquet":
        found = parquet.read_table(output).to_pylist()
    elif form == "jsonl":
        found = [json.loads(line) for line in output.read_text().splitlines()]
    else:
        found = list(csv.DictReader(output.read_text().splitlines()))
    assert [(int(row["order"]), int(row["count"])) for row in found] == [(1, 5), (2, 1 << 52)]
    assert all(not row["time"] and not row["comm"] for row in found)


def test_file_is_not_overwritten(tmp_path: Path) -> None:
    """An existing file stays as it is, unless -f is given."""
    output = tmp_path / "t.csv"
    output.write_text("precious")
    refused = run("--format", "csv", "-o", output, RECORDED)
    assert refused.returncode == 1
    assert "-f" in refused.stderr
    assert output.read_text() == "precious"
    assert run("--format", "csv", "-f", "-o", output, RECORDED).returncode == 0
    assert output.read_text().startswith("time,")


def test_refused_trace_leaves_no_file(tmp_path: Path) -> None:
    """If there is nothing to export, no file is written."""
    output = tmp_path / "t.csv"
    assert run("--format", "csv", "-o", output, tmp_path / "missing.arrows").returncode == 1
    assert not output.exists()


@pytest.mark.parametrize("words", [["--format", "parquet"], ["--format", "xml"], []])
def test_wrong_usage(words: list[str]) -> None:
    """Parquet needs a file, and the format must exist."""
    assert run(*words, RECORDED).returncode == 2


def test_truncation_is_reported(tmp_path: Path) -> None:
    """The rows of a truncated trace are written, and a message names the truncation."""
    whole = stream(tmp_path / "t.arrows", {}, {})
    batches = pa.ipc.open_stream(whole.read_bytes()).read_all()
    cut = tmp_path / "cut.arrows"
    with pa.ipc.new_stream(str(cut), batches.schema) as writer:
        writer.write_table(batches)
    done = run("--format", "jsonl", cut)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    assert done.stderr.startswith("truncated: ")


def test_sample_is_reported(tmp_path: Path) -> None:
    """A message shows that the trace is a sample."""
    path = stream(tmp_path / "t.arrows", {}, recording={"filters": {"sample": 100}})
    assert "1 call in 100" in run("--format", "csv", path).stderr


def test_trace_is_never_overwritten(tmp_path: Path) -> None:
    """An export never overwrites its trace, even with -f or by another name."""
    trace = stream(tmp_path / "t.arrows", {})
    before = trace.read_bytes()
    (tmp_path / "link.csv").symlink_to(trace)
    for output in (trace, tmp_path / "link.csv"):
        done = run("--format", "csv", "-f", "-o", output, trace)
        assert (done.returncode, "it is the file to read" in done.stderr) == (2, True)
    assert trace.read_bytes() == before


def test_omitted_slow_path_is_reported(tmp_path: Path) -> None:
    """A table cannot hold attempts: a message names the format that can, and that format has them."""
    trace = slow(tmp_path / "t.arrows", *slow_calls()[:3])
    done = run("--format", "csv", "-o", tmp_path / "t.csv", trace)
    assert "without the attempts of 3 calls of the slow path" in done.stderr
    words = done.stderr.split("which kalloctrace ")[1].split(" writes")[0].split()
    command = [sys.executable, "-m", "kalloctrace", *words]
    subprocess.run(command, capture_output=True, check=True, timeout=60, cwd=tmp_path)
    assert parquet.read_metadata(tmp_path / "FOLDER" / "slow_calls.parquet").num_rows == 3
