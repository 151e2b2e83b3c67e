# SPDX-License-Identifier: MIT
"""The tables of `export`, read back by DuckDB and pyarrow; expected values come from the trace's own rows."""

import json
import re
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyarrow import parquet

from kalloctrace.cli import main
from kalloctrace.report.export.tables import write
from kalloctrace.report.export.tables.columns import TABLES
from kalloctrace.trace.reader import TraceReader
from tests.traces import RECORDED, aggregate, stream

ROOT = Path(__file__).parents[2]
STREAM = RECORDED.parents[1] / "6.12" / "slow-stream.arrows"
Query = Callable[[str], list[tuple[Any, ...]]]
QUESTIONS = re.compile(r"^## (.*?)$\n+```sql\n(.*?)^```", re.MULTILINE | re.DOTALL)
SQL_2016 = frozenset(
    (
        *("all", "and", "any", "array", "as", "at", "between", "boolean", "both"),
        *("by", "case", "cast", "check", "column", "count", "create", "cube", "current"),
        *("date", "day", "default", "delete", "desc", "distinct", "else", "end", "exists"),
        *("extract", "false", "fetch", "filter", "for", "from", "full", "group", "grouping"),
        *("having", "hour", "in", "inner", "insert", "integer", "interval", "into", "is"),
        *("join", "leading", "left", "like", "limit", "lower", "max", "min", "minute"),
        *("month", "natural", "no", "not", "null", "of", "offset", "on", "only"),
        *("or", "order", "outer", "over", "partition", "position", "primary", "range", "rank"),
        *("references", "result", "right", "row", "rows", "second", "select", "set", "size"),
        *("some", "start", "sum", "table", "then", "time", "timestamp", "to", "trailing"),
        *("true", "truncate", "union", "unique", "unknown", "update", "upper", "user", "using"),
        *("value", "values", "when", "where", "window", "with", "within", "year", "zone"),
    )
)


def rows_of(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the calls of a trace, and its calls of the slow path."""
    with TraceReader(path) as trace:
        return [row for batch in trace.batches() for row in batch.to_pylist()], list(trace.slow_calls())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tables of a stream, with slow calls and stacks."""
    path = tmp_path_factory.mktemp("tables") / "tables"
    assert main(["export", "--format", "tables", "-o", str(path), str(STREAM)]) == 0
    return path


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    """Return what answers a query about the same trace, as a DuckDB file."""
    path = tmp_path_factory.mktemp("database") / "t.duckdb"
    assert main(["export", "--format", "duckdb", "-o", str(path), str(STREAM)]) == 0
    with duckdb.connect(str(path), read_only=True) as connection:
        yield lambda sql: connection.execute(sql).fetchall()


def test_both_forms_have_the_same_tables(folder: Path, query: Query) -> None:
    """A file for each table, with its columns and rows."""
    assert {path.stem for path in folder.iterdir()} == set(TABLES)
    for name, schema in TABLES.items():
        table = parquet.read_table(folder / f"{name}.parquet")
        assert table.column_names == schema.names
        assert query(f"FROM {name} SELECT count(*)") == [(table.num_rows,)]
        described = query(f"SELECT column_name FROM duckdb_columns() WHERE table_name = '{name}' ORDER BY column_index")
        assert [column for (column,) in described] == schema.names


def test_no_column_is_a_keyword(query: Query) -> None:
    """Neither of DuckDB, which has PostgreSQL's, nor reserved in SQL:2016, so that none needs quotes."""
    keywords = {word for (word,) in query("SELECT keyword_name FROM duckdb_keywords()")} | SQL_2016
    assert not {name for schema in TABLES.values() for name in schema.names} & keywords
    assert not set(TABLES) & keywords


def test_everything_is_described(folder: Path, query: Query) -> None:
    """In the metadata of Parquet, and in DuckDB's comments; the kernel and machine are in the metadata."""
    for name, schema in TABLES.items():
        found = parquet.read_schema(folder / f"{name}.parquet")
        abouts = {field.name: field.metadata[b"about"].decode() for field in schema}
        assert {field.name: field.metadata[b"about"].decode() for field in found} == abouts
        assert all(abouts.values())
        assert json.loads(found.metadata[b"kalloctrace.snapshot"])["release"].startswith("6.12.")
        assert json.loads(found.metadata[b"kalloctrace.recording"])["mode"] == "stream"
        comments = query(f"SELECT column_name, comment FROM duckdb_columns() WHERE table_name = '{name}'")
        assert dict(comments) == abouts
    assert all(about for (about,) in query("SELECT comment FROM duckdb_tables()"))


def test_durations_are_ns_and_truth_values_are_booleans() -> None:
    """A column of a time or duration ends in _ns; no boolean is a number or text."""
    fields = [field for schema in TABLES.values() for field in schema]
    for field in fields:
        if {"duration", "time", "after"} & set(field.name.split("_")[:1]):
            assert field.name.endswith("_ns"), field.name
    booleans = {field.name for field in fields if pa.types.is_boolean(field.type)}
    assert {"got_page", "complete", "truncated", "defrag_mode", "oom_victim", "spread_dirty_pages"} <= booleans


def test_allocations_are_the_calls(query: Query) -> None:
    """Each call with its values, the text of its stack, and 2^order pages if it got its page."""
    calls, _ = rows_of(STREAM)
    columns = "time_ns, pid, comm, gfp_mask, page_order, alloc_flags, migratetype, got_page, calls, bytes_each, folded"
    found = query(f"SELECT {columns} FROM allocations LEFT JOIN stacks USING (stack_id)")
    names = ("time", "pid", "comm", "gfp_mask", "order", "alloc_flags", "migratetype", "page", "count")
    expected = [
        (*(row[name] for name in names), (4096 << row["order"]) if row["page"] else 0, row["stack"]) for row in calls
    ]
    assert sorted(found, key=repr) == sorted(expected, key=repr)


def test_texts_are_the_recorded_kernels(query: Query) -> None:
    """GFP_ATOMIC lacks __GFP_ATOMIC on 6.12; a zone and a migratetype have their names."""
    texts: dict[int, str] = dict(query("SELECT gfp_mask, gfp FROM allocations GROUP BY ALL"))
    atomic = [mask for mask, text in texts.items() if text.split("|")[0] == "GFP_ATOMIC"]
    assert atomic
    assert all(mask & 0x820 == 0x820 for mask in atomic)
    assert query("SELECT DISTINCT preferred_zone_name FROM allocations WHERE preferred_zone IS NOT NULL") == [
        ("DMA32",)
    ]
    names = query("SELECT DISTINCT migratetype, migratetype_name FROM slow_calls ORDER BY 1")
    assert names[0] == (0, "MIGRATE_UNMOVABLE")
    assert query("SELECT flag_value FROM flags WHERE flag_name = 'GFP_ATOMIC'") == [(0x820,)]


def test_slow_calls_and_their_parts(query: Query) -> None:
    """Attempts in order, events counted, zones of both moments."""
    _, calls = rows_of(STREAM)
    found = query(
        "SELECT slow_call_id, duration_ns, attempt_count, direct_reclaims, got_page FROM slow_calls ORDER BY 1"
    )
    assert found == [
        (
            number,
            call["duration"],
            len(call["attempts"]),
            [event for one in call["attempts"] for event in one["between"]].count("direct_reclaim")
            + call["after_last"].count("direct_reclaim"),
            call["page"],
        )
        for number, call in enumerate(calls)
    ]
    attempts = query(
        "SELECT slow_call_id, after_ns, alloc_flags, events_before FROM attempts ORDER BY 1, attempt_number"
    )
    assert attempts == [
        (number, one["after"], one["alloc_flags"], one["between"])
        for number, call in enumerate(calls)
        for one in call["attempts"]
    ]
    zones = query("SELECT slow_call_id, captured_at, node, zone_index, free_pages, lowmem_reserve_pages FROM zones")
    assert sorted(zones) == sorted(
        (number, zone["at"], zone["node"], zone["zone"], zone["free"], zone["lowmem_reserve"])
        for number, call in enumerate(calls)
        for zone in call["zones"]
    )


def test_the_recording(query: Query) -> None:
    """Its length and losses, as its totals have them."""
    with TraceReader(STREAM) as trace:
        totals, release = trace.ending().totals, trace.snapshot.release
    assert totals is not None
    found = query("SELECT kernel_release, recorded_as, duration_ns, truncated, damage, lost_slow_events FROM recording")
    lost = totals.slow_lost + totals.slow_missed
    assert found == [(release, "stream", round(totals.seconds * 1e9), False, None, lost)]


def test_an_aggregate(tmp_path: Path) -> None:
    """It has counts, and no times and tasks; its end may be missing."""
    trace = aggregate(tmp_path / "t.arrows", ({"order": 1}, 7), ({"order": 2, "page": None}, 5))
    assert main(["export", "--format", "tables", "-o", str(tmp_path / "t"), str(trace)]) == 0
    rows = parquet.read_table(tmp_path / "t" / "allocations.parquet").to_pylist()
    assert [(row["page_order"], row["calls"], row["bytes_each"], row["got_page"]) for row in rows] == [
        (1, 7, 8192, True),
        (2, 5, 16384, None),
    ]
    assert {row[name] for row in rows for name in ("time_ns", "cpu", "pid", "tid", "comm", "stack_id")} == {None}
    assert parquet.read_table(tmp_path / "t" / "slow_calls.parquet").num_rows == 0


def test_a_folder_is_complete_or_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder is used; another is replaced only with -f, and only if it holds nothing but tables."""
    trace, target = str(stream(tmp_path / "t.arrows", {}, {})), tmp_path / "out"
    words = ["export", "--format", "tables", "-o", str(target), trace]
    target.mkdir()
    assert main(words) == 0
    before = {path.name: path.stat().st_ino for path in target.iterdir()}
    assert main(words) == 1
    assert main([*words, "-f"]) == 0
    after = {path.name: path.stat().st_ino for path in target.iterdir()}
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    (target / "mine.txt").write_text("mine")
    assert main([*words, "-f"]) == 1
    assert "has other files too: mine.txt" in capsys.readouterr().err
    assert {path.name for path in target.iterdir()} == {*after, "mine.txt"}
    assert {path.name for path in tmp_path.iterdir()} == {"t.arrows", "out"}


def test_a_folder_with_the_trace_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The trace is not replaced, though it has the name of a table."""
    target = tmp_path / "out"
    target.mkdir()
    trace = stream(target / "allocations.parquet", {})
    before = trace.read_bytes()
    assert main(["export", "--format", "tables", "-f", "-o", str(target), str(trace)]) == 2
    assert "allocations.parquet\n  why: it is the file to read" in capsys.readouterr().err
    assert [path.read_bytes() for path in target.iterdir()] == [before]


@pytest.mark.parametrize("there", [False, True])
def test_a_link_counts_as_a_folder(there: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever it leads, it is followed only with -f, and stays."""
    trace, link = str(stream(tmp_path / "t.arrows", {})), tmp_path / "link"
    link.symlink_to("target")
    if there:
        (tmp_path / "target").mkdir()
    words = ["export", "--format", "tables", "-o", str(link), trace]
    assert main(words) == 1
    assert "will not overwrite" in capsys.readouterr().err
    assert not there or not any((tmp_path / "target").iterdir())
    assert main([*words, "-f"]) == 0
    assert link.is_symlink()
    assert (tmp_path / "target" / "allocations.parquet").is_file()


@pytest.mark.parametrize("words", [["duckdb"], ["csv", "--pseudonymous"]])
def test_no_place_for_temporary_files(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names their folder, not the output, and there is no output."""
    trace = str(stream(tmp_path / "t.arrows", {}))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert main(["export", "--format", *words, "-o", str(tmp_path / "out"), trace]) == 1
    what, _, fix = capsys.readouterr().err.splitlines()
    assert what == f"error: cannot write temporary files in {tmp_path / 'missing'}"
    assert "TMPDIR" in fix
    assert [path.name for path in tmp_path.iterdir()] == ["t.arrows"]


def test_a_failure_of_duckdb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DuckDB says in its own words that the disk is full; the error has three lines, and there is no output."""

    def connect(*_: object, **__: object) -> None:
        raise duckdb.IOException("Could not write file: No space left on device\nmore")

    trace = str(stream(tmp_path / "t.arrows", {}))
    monkeypatch.setattr(duckdb, "connect", connect)
    assert main(["export", "--format", "duckdb", "-o", str(tmp_path / "out"), trace]) == 1
    what, why, _ = capsys.readouterr().err.splitlines()
    assert what == "error: cannot make the DuckDB file"
    assert why == "  why: Could not write file: No space left on device"
    assert [path.name for path in tmp_path.iterdir()] == ["t.arrows"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is left behind where the trace is damaged, the place is a file, or its folder is missing."""
    trace = stream(tmp_path / "t.arrows", {})
    (tmp_path / "damaged.arrows").write_bytes(trace.read_bytes()[:900])
    places = {"new": "damaged.arrows", "t.arrows": "t.arrows", "no/new": "t.arrows"}
    for place, source in places.items():
        assert main(["export", "--format", "tables", "-o", str(tmp_path / place), str(tmp_path / source)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"t.arrows", "damaged.arrows"}


@pytest.mark.parametrize(("form", "what"), [("tables", "folder"), ("duckdb", "file")])
def test_an_output_is_required(form: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither form is for standard output."""
    assert main(["export", "--format", form, str(STREAM)]) == 2
    assert f"error: no {what} to write" in capsys.readouterr().err


def test_without_duckdb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its extra is named, before anything is written."""
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert main(["export", "--format", "duckdb", "-o", str(tmp_path / "t"), str(STREAM)]) == 1
    assert "pip install 'kalloctrace[duckdb]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_rows_of_several_batches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is written does not depend on how many rows are made at once."""
    for name in ("_BATCH_ROWS", "_GROUP_ROWS", "_PYTHON_ROWS"):
        monkeypatch.setattr(write, name, 3)
    trace = stream(tmp_path / "t.arrows", *({"order": order, "stack": f"a;b{order % 2}"} for order in range(8)))
    assert main(["export", "--format", "tables", "-o", str(tmp_path / "t"), str(trace)]) == 0
    rows = parquet.read_table(tmp_path / "t" / "allocations.parquet").to_pylist()
    assert [(row["page_order"], row["stack_id"]) for row in rows] == [(order, order % 2) for order in range(8)]
    stacks = parquet.read_table(tmp_path / "t" / "stacks.parquet").to_pylist()
    assert [(one["stack_id"], one["folded"], one["frames"]) for one in stacks] == [
        (0, "a;b0", ["b0", "a"]),
        (1, "a;b1", ["b1", "a"]),
    ]


@pytest.mark.parametrize("language", ["en", "zh-cn"])
def test_the_questions_of_the_docs(language: str, query: Query) -> None:
    """Each has an answer, and both languages ask the same five."""
    asked = QUESTIONS.findall((ROOT / "docs" / language / "sql.md").read_text(encoding="utf-8"))
    english = QUESTIONS.findall((ROOT / "docs/en/sql.md").read_text(encoding="utf-8"))
    assert [sql for _, sql in asked] == [sql for _, sql in english]
    assert len(asked) == 5
    for title, sql in asked:
        assert query(sql), title


def test_the_answers_of_the_docs(query: Query) -> None:
    """They agree with a plain loop over the trace."""
    calls, slow = rows_of(STREAM)
    _, waited, failed, _, _ = (
        sql for _, sql in QUESTIONS.findall((ROOT / "docs/en/sql.md").read_text(encoding="utf-8"))
    )
    long = [call for call in slow if call["duration"] > 10_000_000]
    assert {row[0]: row[1] for row in query(waited)} == {
        stack: sum(call["stack"] == stack for call in long) for stack in {call["stack"] for call in long}
    }
    assert sum(row[3] for row in query(failed)) == sum(call["page"] is False for call in slow)
    atomic = [row for row in calls if row["gfp_mask"] & 0x820 == 0x820 and row["order"] >= 2]
    first = next(sql for _, sql in QUESTIONS.findall((ROOT / "docs/en/sql.md").read_text(encoding="utf-8")))
    assert sum(row[3] for row in query(first)) == len(atomic)


@pytest.mark.parametrize("language", ["en", "zh-cn"])
def test_the_page_of_the_docs(language: str) -> None:
    """It is what `python docs/tables.py` writes, with a description of each column, and none of another."""
    script = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    assert (ROOT / "docs" / language / "tables.md").read_text(encoding="utf-8") == script["page"](language)
    known = script["translations"]()
    columns = {field.name for schema in TABLES.values() for field in schema}
    assert set(known["columns"]) == columns
    assert all(set(known.get(name, {})) <= set(schema.names) for name, schema in TABLES.items())
