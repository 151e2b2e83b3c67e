# SPDX-License-Identifier: MIT
"""Adding to a fleet's dataset, and merging it: nothing is lost, and nothing counts twice, whatever happens."""

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import parquet

from kalloctrace.cli import main
from kalloctrace.errors import KalloctraceError
from kalloctrace.fleet.add import Adding, pseudonyms
from kalloctrace.fleet.compact import compact
from kalloctrace.fleet.dataset import Dataset, Writing
from kalloctrace.fleet.tables import FLEET_TABLES, NEEDED, SCHEMA
from kalloctrace.fleet.trace_rows import TraceRows
from kalloctrace.trace.reader import TraceReader
from tests.fleets import add, drop_column
from tests.schemas import hold
from tests.traces import UNDER_PRESSURE, aggregate, slow, slow_calls, stream

STARTED = "2026-11-23T10:56:26+00:00"


def made(path: Path, calls: int, *, name: str = "a", host: str = "web-1", started: str = STARTED) -> Path:
    """Write a trace of that many calls."""
    recording = {"id": name, "host": host, "started": started}
    return stream(path, *({} for _ in range(calls)), recording=recording)


def counted(path: Path, table: str = "allocations", column: str = "calls") -> int:
    """Return the sum of a column over the rows that count."""
    with Dataset.opened(path) as dataset:
        rows = dataset.table(table)
        live = pc.invert(pc.is_in(rows["recording_key"], pa.array(sorted(dataset.stale), pa.int64())))
        return int(pc.sum(rows.filter(live)[column]).as_py() or 0)


def files(path: Path) -> list[str]:
    """Return the files of a dataset."""
    return sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file() and f.name != "_lock")


def test_adding_again_changes_nothing(tmp_path: Path) -> None:
    """The recording's id decides, not the file's name."""
    dataset = tmp_path / "fleet"
    assert add(dataset, made(tmp_path / "one.arrows", 3)).done.added == 1
    before = files(dataset)
    again = add(dataset, made(tmp_path / "two.arrows", 3)).done
    assert (again.added, again.replaced, again.unchanged) == (0, 0, 1)
    assert files(dataset) == before
    assert counted(dataset) == 3


def test_a_file_that_is_there_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its end tells it apart from a longer version; a copy of it is the same file."""
    trace, dataset = made(tmp_path / "one.arrows", 3), str(tmp_path / "fleet")
    assert main(["fleet", "add", dataset, str(trace)]) == 0
    copied = tmp_path / "copied.arrows"
    copied.write_bytes(trace.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(Adding, "read", lambda *_: pytest.fail("it was read"))
        assert main(["fleet", "add", dataset, str(trace), str(copied)]) == 0
    capsys.readouterr()
    trace.unlink()
    made(trace, 4)
    assert main(["fleet", "add", "--json", dataset, str(trace)]) == 0
    assert json.loads(capsys.readouterr().out)["replaced"] == 1
    assert counted(Path(dataset)) == 4


def test_a_longer_version_takes_the_place_of_a_shorter_one(tmp_path: Path) -> None:
    """Also in one command, and not the other way round; a whole recording is longer than one without its end."""
    dataset = tmp_path / "fleet"
    long, short = made(tmp_path / "long.arrows", 5), made(tmp_path / "short.arrows", 2)
    add(dataset, short)
    assert add(dataset, long).done.replaced == 1
    assert counted(dataset) == 5
    assert add(dataset, short).done.unchanged == 1
    assert counted(dataset) == 5
    both = tmp_path / "both"
    done = add(both, short, long).done
    assert (done.added, done.replaced, done.calls, counted(both)) == (1, 0, 5, 5)
    cut = tmp_path / "cut.arrows"
    cut.write_bytes(long.read_bytes()[:-600])
    with TraceReader(cut) as reader:
        assert reader.ending().truncated
    assert add(tmp_path / "cuts", cut).done.added == 1
    assert add(tmp_path / "cuts", long).done.replaced == 1


def test_a_recording_without_an_id_has_a_hash(tmp_path: Path) -> None:
    """Of how it was made; of the whole file, where that does not say when."""
    dataset = tmp_path / "fleet"
    one = stream(tmp_path / "one.arrows", {}, recording={"started": STARTED})
    longer = stream(tmp_path / "longer.arrows", {}, {}, recording={"started": STARTED})
    assert add(dataset, one).done.added == 1
    assert add(dataset, longer).done.replaced == 1
    foreign = aggregate(tmp_path / "foreign.arrows", ({}, 3)), aggregate(tmp_path / "other.arrows", ({}, 4))
    assert add(dataset, *foreign, *foreign).done.added == 2
    assert counted(dataset) == 2 + 3 + 4


def test_a_foreign_file_is_named_and_the_rest_goes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 1; a folder stands for the traces below it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "traces").mkdir()
    made(tmp_path / "traces" / "good.arrows", 2)
    (tmp_path / "traces" / "half.arrows").write_bytes((tmp_path / "traces" / "good.arrows").read_bytes()[:90])
    (tmp_path / "notes.txt").write_text("no trace", encoding="utf-8")
    assert main(["fleet", "add", "--json", "fleet", "notes.txt", "traces", "missing.arrows"]) == 1
    out, err = capsys.readouterr()
    done = json.loads(out)
    hold("fleet_add", done)
    assert (done["added"], done["calls"], len(done["refused"])) == (1, 2, 3)
    assert [line for line in err.splitlines() if line.startswith("error:")] == [
        "error: cannot read notes.txt",
        "error: cannot read traces/half.arrows",
        "error: cannot read missing.arrows",
    ]
    assert counted(tmp_path / "fleet") == 2


def test_the_rows_are_those_of_the_trace(tmp_path: Path) -> None:
    """Calls by request, task and hour; slow calls with their attempts and zones."""
    calls = slow_calls()[:3]
    dataset = tmp_path / "fleet"
    path = slow(tmp_path / "slow.arrows", *calls)
    add(dataset, path, made(tmp_path / "one.arrows", 2))
    assert counted(dataset) == 3
    with Dataset.opened(dataset) as opened:
        assert opened.table("slow_calls").num_rows == 3
        assert opened.table("attempts").num_rows == sum(len(call["attempts"]) for call in calls)
        assert opened.table("zones").num_rows == sum(len(call["zones"]) for call in calls)
        assert opened.table("machines").num_rows == 2
        with TraceReader(UNDER_PRESSURE) as reader:
            assert reader.snapshot.release in opened.table("machines")["kernel_release"].to_pylist()
        (hours,) = {*opened.table("allocations")["hour"].to_pylist()} - {None}
        assert hours == 20780 * 24 + 10


@pytest.mark.parametrize(
    ("started", "known", "hour"),
    [
        ("2026-11-23T10:00:00+00:00", None, 10),
        ("2026-11-23T10:59:59+00:00", None, None),
        ("2026-11-23T10:59:59+00:00", 0.0, 11),
    ],
)
def test_an_hour_is_right_or_not_there(started: str, known: float | None, hour: int | None, tmp_path: Path) -> None:
    """An older recorder did not write its clock: the hour is known where the recording did not leave it."""
    how = {"started": started} | ({} if known is None else {"started_monotonic": known})
    trace = stream(tmp_path / "a.arrows", {"time": 2_000_000_000}, recording=how)
    with TraceReader(trace) as reader:
        totals = reader.ending().totals
    assert totals is not None
    assert 2 < totals.seconds < 60
    add(tmp_path / "fleet", trace)
    with Dataset.opened(tmp_path / "fleet") as opened:
        assert opened.table("allocations")["hour"].to_pylist() == [None if hour is None else 20780 * 24 + hour]


def test_a_recording_has_the_build_id_of_its_kernel(tmp_path: Path) -> None:
    """It is null for one that was made before recordings had it."""
    dataset = tmp_path / "fleet"
    new = stream(tmp_path / "new.arrows", {}, recording={"id": "1", "build_id": "ab12"})
    add(dataset, new, stream(tmp_path / "old.arrows", {}, recording={"id": "2"}))
    with Dataset.opened(dataset) as opened:
        rows = opened.table("recordings", ["recording_id", "build_id"]).to_pylist()
    assert {row["recording_id"]: row["build_id"] for row in rows} == {"1": "ab12", "2": None}


def test_what_several_recordings_share_is_stored_once(tmp_path: Path) -> None:
    """The machine and the request, over several commands."""
    dataset = tmp_path / "fleet"
    for number in range(3):
        add(dataset, made(tmp_path / f"{number}.arrows", 1, name=f"{number}", host=f"web-{number}"))
    with Dataset.opened(dataset) as opened:
        assert [opened.table(name).num_rows for name in ("machines", "requests", "recordings")] == [1, 1, 3]


def test_two_adds_at_once(tmp_path: Path) -> None:
    """Neither sees the other: what both add counts once, and the longer version of a recording wins."""
    dataset = tmp_path / "fleet"
    same, other = made(tmp_path / "same.arrows", 3), made(tmp_path / "other.arrows", 2, name="b")
    short, long = made(tmp_path / "short.arrows", 1, name="c"), made(tmp_path / "long.arrows", 4, name="c")
    with Dataset.opened(dataset, create=True) as first, Dataset.opened(dataset, create=True) as second:
        both = Adding(first), Adding(second)
        for adding, traces in zip(both, ((same, long), (same, other, short)), strict=True):
            for trace in traces:
                with TraceReader(trace) as reader:
                    adding.add(adding.read(reader))
        for adding in both:
            adding.commit()
    assert counted(dataset) == 3 + 2 + 4
    compact(dataset)
    assert counted(dataset) == 3 + 2 + 4


def in_child(work: Callable[[], None]) -> int:
    """Run something in a forked process; return how that ended."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_killed_add_leaves_nothing_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files stay until the dataset is merged; adding again makes it complete."""
    dataset = tmp_path / "fleet"
    add(dataset, made(tmp_path / "one.arrows", 3))
    before, more = files(dataset), made(tmp_path / "more.arrows", 2, name="b")

    def killed() -> None:
        monkeypatch.setattr(Writing, "commit", lambda _: os.kill(os.getpid(), 9))
        add(dataset, more)

    assert in_child(killed) == -9
    assert len(files(dataset)) > len(before)
    assert counted(dataset) == 3
    assert compact(dataset).removed
    assert files(dataset) == before
    add(dataset, more)
    assert counted(dataset) == 5


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """The error names a file, and the dataset is as it was."""
    dataset = tmp_path / "fleet"
    add(dataset, made(tmp_path / "one.arrows", 3))
    before, more = files(dataset), made(tmp_path / "more.arrows", 2, name="b")
    with Dataset.opened(dataset) as opened, TraceReader(more) as reader:
        adding = Adding(opened)
        adding.add(adding.read(reader))
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
        try:
            with pytest.raises(KalloctraceError, match=r"cannot write .*\.parquet"):
                adding.commit()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert files(dataset) == before
    assert counted(dataset) == 3


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """One that was cut off or lost, and a commit that is no JSON, names no file of the dataset, or is newer."""
    dataset = tmp_path / "fleet"
    add(dataset, made(tmp_path / "one.arrows", 3))
    (data,) = (dataset / "allocations").rglob("*.parquet")
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    with pytest.raises(KalloctraceError, match=f"{data.name}\n.*bytes in place of"):
        counted(dataset)
    data.write_bytes(bytes(len(whole)))
    with pytest.raises(KalloctraceError, match=f"cannot read .*{data.name}"):
        counted(dataset)
    data.unlink()
    with pytest.raises(KalloctraceError, match=f"{data.name}\n.*it is missing"):
        counted(dataset)
    (commit,) = (dataset / "_commits").iterdir()
    good = json.loads(commit.read_bytes())
    outside = {**good, "files": [{**good["files"][0], "path": "../outside"}]}
    for bad, why in (
        (b"{", "damaged"),
        (json.dumps(outside).encode(), "no place in a dataset"),
        (json.dumps({**good, "schema": SCHEMA + 1}).encode(), "its schema is"),
    ):
        commit.write_bytes(bad)
        with pytest.raises(KalloctraceError, match=why):
            counted(dataset)


def test_a_column_that_an_older_version_did_not_write_is_null(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In no file of a table, or in some; a merged dataset has all columns, and its answers are the same."""
    path = tmp_path / "fleet"
    query = "SELECT host, count(kernel_version) AS n, sum(calls) AS c FROM recordings GROUP BY 1"
    add(path, made(tmp_path / "one.arrows", 3))
    drop_column(path, "recordings", "kernel_version")
    drop_column(path, "requests", "gfp")

    def printed(*words: str) -> str:
        assert main(["fleet", *words]) == 0
        return capsys.readouterr().out

    assert printed("sql", str(path), query) == "  host | n | c\n  web-1 | 0 | 3\n"
    assert printed("verify", str(path)).startswith("ok: 3 of 3 calls")
    add(path, made(tmp_path / "two.arrows", 2, name="b"))
    for _ in ("two files", "one file"):
        assert printed("sql", str(path), query) == "  host | n | c\n  web-1 | 1 | 5\n"
        assert printed("verify", str(path)).startswith("ok: 5 of 5 calls")
        compact(path)
    with Dataset.opened(path) as dataset:
        (place,) = dataset.paths("recordings")
    assert parquet.read_schema(place).names == FLEET_TABLES["recordings"].names


@pytest.mark.parametrize("table", FLEET_TABLES)
def test_a_file_of_another_table_is_named(table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One without a key would lose rows: the error says which file, and which column is missing."""
    path = tmp_path / "fleet"
    add(path, slow(tmp_path / "slow.arrows", *slow_calls()[:2]), stream(tmp_path / "one.arrows", {"migratetype": 99}))
    assert main(["fleet", "verify", str(path)]) == 3
    column = next(name for name in FLEET_TABLES[table].names if name in NEEDED)
    drop_column(path, table, column)
    capsys.readouterr()
    assert main(["fleet", "report", str(path)]) == 1
    what, why, fix, *more = capsys.readouterr().err.splitlines()
    assert what.startswith(f"error: cannot read {path}/{table}/")
    assert f"it has no column {column}" in why
    assert "fix: restore this file" in fix
    assert not more


def test_a_damaged_file_that_only_the_engine_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has its size, so that DuckDB finds out; the fix is not more memory."""
    path = tmp_path / "fleet"
    add(path, slow(tmp_path / "slow.arrows", *slow_calls()[:2]))
    (file,) = (path / "slow_calls").rglob("*.parquet")
    whole = file.read_bytes()
    # Its end, with the names of the columns, is whole.
    rows = len(whole) - parquet.ParquetFile(file).metadata.serialized_size - 8
    file.write_bytes(whole[:4] + bytes(rows - 4) + whole[rows:])
    assert main(["fleet", "report", str(path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: DuckDB could not answer\n")
    assert "restore" in err
    assert "--memory" not in err


def test_wrong_clocks_lose_nothing(tmp_path: Path) -> None:
    """A day is what the host's clock said, or unknown."""
    dataset = tmp_path / "fleet"
    starts = ["1970-01-01T00:00:00+00:00", "2199-12-31T23:59:59+00:00", "0001-01-01T00:00:00+14:00", "yesterday", ""]
    add(dataset, *(made(tmp_path / f"{n}.arrows", 1, name=f"{n}", started=start) for n, start in enumerate(starts)))
    assert counted(dataset) == len(starts)
    days = {path.name for path in (dataset / "allocations").iterdir()}
    assert days == {"day=1970-01-01", "day=2199-12-31", "day=unknown"}


def test_two_hosts_with_one_name(tmp_path: Path) -> None:
    """Their recordings have different ids, so both count."""
    dataset = tmp_path / "fleet"
    add(dataset, made(tmp_path / "one.arrows", 3, name="x"), made(tmp_path / "two.arrows", 3, name="y"))
    assert counted(dataset) == 6


def test_pseudonyms(tmp_path: Path) -> None:
    """Names of hosts, tasks and commands are in no file; equal ones have equal pseudonyms, over several commands."""
    dataset = tmp_path / "fleet"
    recording = {"host": "secret-host", "started": STARTED, "command": ["secret-command"]}
    hosts = []
    for number in range(2):
        trace = stream(
            tmp_path / "secret-file.arrows", {"comm": "secret-task"}, recording={**recording, "id": f"{number}"}
        )
        with Dataset.opened(dataset, create=True) as opened, TraceReader(trace) as reader:
            adding = Adding(opened, hidden=pseudonyms(opened))
            read: TraceRows = adding.read(reader)
            adding.add(read)
            adding.commit()
            assert "secret" not in repr(read)
            hosts.append(read.recording["host"])
        trace.unlink()
    assert hosts[0] == hosts[1] != "secret-host"
    with Dataset.opened(dataset) as opened:
        for table in FLEET_TABLES:
            assert "secret" not in repr(opened.table(table).to_pylist())
    assert ((dataset / "_secret").stat().st_mode & 0o777) == 0o600


def test_merging_keeps_what_counts(tmp_path: Path) -> None:
    """One file is left for each table, day and kernel; the shorter version is gone."""
    dataset = tmp_path / "fleet"
    for number in range(3):
        add(dataset, made(tmp_path / f"{number}.arrows", 2, name=f"{number}"))
    add(dataset, made(tmp_path / "longer.arrows", 4, name="0"))
    add(dataset, slow(tmp_path / "slow.arrows", *slow_calls()[:2]))
    before = counted(dataset), counted(dataset, "slow_calls", "attempt_count")
    assert before[0] == 4 + 2 + 2 + 1
    compact(dataset)
    assert (counted(dataset), counted(dataset, "slow_calls", "attempt_count")) == before
    with Dataset.opened(dataset) as opened:
        assert opened.stale == frozenset()
        assert opened.table("recordings").num_rows == 4
        assert len(opened.commits) == 1
        assert {len([*path.parent.glob("*.parquet")]) for path in dataset.rglob("*.parquet")} == {1}


def test_two_who_merge_at_once_count_nothing_twice(tmp_path: Path) -> None:
    """And a dataset in use keeps its old files, so that whoever reads it can go on."""
    dataset = tmp_path / "fleet"
    for number in range(2):
        add(dataset, made(tmp_path / f"{number}.arrows", 2, name=f"{number}"))
    with Dataset.opened(dataset) as reader:
        old = [dataset / data.path for data in reader.files()]
        kept = {path: path.read_bytes() for path in (dataset / "_commits").iterdir()}
        assert compact(dataset).removed is None
        assert all(path.exists() for path in old)
        # The other one read the dataset before, so that it replaces the same commits.
        (first,) = {*(dataset / "_commits").iterdir()} - kept.keys()
        hidden = first.rename(tmp_path / "first.json")
        assert compact(dataset).removed is None
        hidden.rename(first)
    assert counted(dataset) == 4
    assert compact(dataset).removed
    assert counted(dataset) == 4


def test_a_folder_of_other_files_is_no_dataset(tmp_path: Path) -> None:
    """Nothing is written into it, and nothing read from it."""
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    for create in (True, False):
        with pytest.raises(KalloctraceError, match=r"is no dataset"), Dataset.opened(tmp_path, create=create):
            pass
    with pytest.raises(KalloctraceError, match="no such folder"), Dataset.opened(tmp_path / "no"):
        pass


def test_every_integer_has_a_sign_and_every_column_a_description() -> None:
    """Spark reads an unsigned column as a decimal."""
    for schema in FLEET_TABLES.values():
        for field in schema:
            kind = field.type.value_type if pa.types.is_list(field.type) else field.type
            assert kind in {pa.int64(), pa.utf8(), pa.bool_()}, field
            assert field.metadata[b"about"]
