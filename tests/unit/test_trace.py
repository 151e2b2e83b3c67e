# SPDX-License-Identifier: MIT
"""The trace file: what is written can be read back, and every loss is reported."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.inferred import inferred_of
from kalloctrace.trace.metadata import totals_of
from kalloctrace.trace.reader import Ending, TraceReader, read_snapshot
from kalloctrace.trace.rebatch import rebatched
from kalloctrace.trace.schema import COLUMNS, FORMAT_KEY, LATER, RECORDING_KEY, ROWS, SNAPSHOT_KEY, TOTALS_KEY
from kalloctrace.trace.totals import MissedBy, Totals
from kalloctrace.trace.writer import TraceWriter

SNAPSHOT = builtin_snapshot("5.10")
RECORDING = {"command": ["make"], "mode": "stream"}
TOTALS = Totals(
    opened=5,
    submitted=3,
    dropped=1,
    no_room=1,
    replaced=0,
    running=0,
    freelist_alone=0,
    return_alone=0,
    missed=0,
    machine_changed=(),
    reason="the command ended",
    seconds=1.5,
)
# One call of a task for one page, prepared; what a test does not look at.
ROW: dict[str, Any] = {
    "time": 1,
    "cpu": 0,
    "pid": 7,
    "tid": 7,
    "comm": "make",
    "stack": None,
    "entry": "normal",
    "gfp_mask": 0xCC0,
    "order": 0,
    "preferred_nid": 0,
    "nodemask": None,
    "task_flags": 0,
    "preempt_count": 0,
    "mems_allowed": "0",
    "cpusets_enabled": 0,
    "gfp_allowed_mask": 0x7FFFFF,
    "defrag_mode": False,
    "freelist_calls": 1,
    "page": True,
}

_WRITE_UNTIL_KILLED = """
import sys, time
from pathlib import Path
import pyarrow as pa
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.trace.schema import COLUMNS
from kalloctrace.trace.writer import TraceWriter

batch = pa.RecordBatch.from_pylist([{row}] * 3, schema=COLUMNS)
writer = TraceWriter(Path(sys.argv[1]), builtin_snapshot("5.10"), {{}})
writer.write(batch)
writer.write(batch)
print("written", flush=True)
time.sleep(60)
"""


FIXTURES = Path(__file__).parents[2] / "fixtures"


def rows(*changes: dict[str, Any]) -> pa.RecordBatch:
    """Return a batch with one row for each set of changed columns."""
    return pa.RecordBatch.from_pylist([{**ROW, **change} for change in changes], schema=COLUMNS)


def write(path: Path, *batches: pa.RecordBatch, totals: Totals | None = TOTALS) -> Path:
    """Write a trace; without totals it counts as cut off."""
    with TraceWriter(path, SNAPSHOT, RECORDING) as writer:
        for batch in batches:
            writer.write(batch)
        if totals is not None:
            writer.close(totals)
    return path


def rewrite(path: Path, metadata: dict[bytes, bytes], totals: bytes | None = None) -> None:
    """Replace parts of a trace's metadata, or all of its totals."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        schema, batches = reader.schema, []
        while True:
            try:
                batches.append(reader.read_next_batch_with_custom_metadata())
            except StopIteration:
                break
        changed = schema.with_metadata({**schema.metadata, **metadata})
        temporary = path.with_suffix(".new")
        with pa.ipc.new_stream(str(temporary), changed) as writer:
            for batch, custom in batches:
                custom_metadata = {TOTALS_KEY: totals} if custom is not None and totals is not None else custom
                writer.write_batch(batch, custom_metadata=custom_metadata)
    temporary.rename(path)


def read(path: Path) -> tuple[list[dict[str, Any]], Ending]:
    """Return all rows, and how the trace ends."""
    with TraceReader(path) as trace:
        batches = trace.batches()
        return [row for batch in batches for row in batch.to_pylist()], batches.finish()


def refusal(path: Path) -> KalloctraceError:
    """Return the error with which a file is refused."""
    with pytest.raises(KalloctraceError) as caught:
        TraceReader(path)
    assert caught.value.code == Exit.FAILED
    assert str(path) in caught.value.what
    assert caught.value.why
    assert caught.value.fix
    return caught.value


def test_rows_come_back(tmp_path: Path) -> None:
    """Each row is read as it was written, in order, over all batches."""
    path = write(tmp_path / "t.arrows", rows({"order": 1}, {"order": 2}), rows({"comm": "näme", "stack": "a;b"}))
    got, _ = read(path)
    assert [(row["order"], row["comm"], row["stack"]) for row in got] == [
        (1, "make", None),
        (2, "make", None),
        (0, "näme", "a;b"),
    ]


def test_snapshot_comes_back(tmp_path: Path) -> None:
    """A trace carries its kernel, table by table."""
    assert read_snapshot(write(tmp_path / "t.arrows")) == SNAPSHOT


def test_recording_and_totals_come_back(tmp_path: Path) -> None:
    """What was counted, and how the recording was made, is read as it was written."""
    path = write(tmp_path / "t.arrows", rows({}))
    assert read(path)[1] == Ending(TOTALS, truncated=False)
    with TraceReader(path) as trace:
        assert trace.recording == RECORDING


def test_lost_is_what_found_no_room() -> None:
    """Both tables that can be full count as lost."""
    assert TOTALS.lost == 2


def test_totals_ignore_what_a_newer_writer_adds() -> None:
    """An unknown key is no reason to refuse a trace."""
    assert Totals.from_json({**TOTALS.to_json(), "added": 1}) == TOTALS


def test_totals_of_one_probe_come_back() -> None:
    """What only a probe at get_page_from_freelist() counts is written and read; a newer counter is ignored."""
    counted = {"own": 1, "filtered": 2, "rejected": 3, "dropped_by_flags": 0, "bpf_calls": 52_000}
    missed_by = {"kprobe": 4, "program": 5, "memory": 6}
    totals = Totals.from_json({**TOTALS.to_json(), **counted, "missed_by": {**missed_by, "added": 7}})
    assert totals.missed_by == MissedBy(kprobe=4, program=5, memory=6)
    written = totals.to_json()
    assert {name: written[name] for name in counted} == counted
    assert written["missed_by"] == missed_by
    assert totals_of(json.dumps(written).encode()) == totals


def test_totals_of_an_older_version_lack_what_it_did_not_count() -> None:
    """A counter that did not exist is not known, which is not 0."""
    later = ("own", "filtered", "rejected", "dropped_by_flags", "bpf_calls", "missed_by", "audit")
    older = {name: value for name, value in TOTALS.to_json().items() if name not in later}
    assert totals_of(json.dumps(older).encode()) == TOTALS
    assert [getattr(TOTALS, name) for name in later] == [None] * len(later)


def test_inferred_facts_of_a_recording(tmp_path: Path) -> None:
    """They are read as they were written; a recording of the pair, or of an older version, has none."""
    assert inferred_of(RECORDING) == frozenset()
    recording = {**RECORDING, "attach": "one:multi", "inferred": ["hardwall", "preferred_nid"]}
    with TraceWriter(tmp_path / "t.arrows", SNAPSHOT, recording) as writer:
        writer.close(TOTALS)
    with TraceReader(tmp_path / "t.arrows") as trace:
        assert trace.recording["attach"] == "one:multi"
        assert inferred_of(trace.recording) == {"hardwall", "preferred_nid"}


def test_reading_does_not_change_the_reader(tmp_path: Path) -> None:
    """Whatever is read, all attributes of a reader stay as they were."""
    with TraceReader(write(tmp_path / "t.arrows", rows({}, {}), totals=None)) as trace:
        before = dict(vars(trace))
        assert trace.batches().finish() == trace.counted().finish() == trace.ending()
        assert list(trace.slow_calls()) == []
        assert vars(trace) == before


def test_passes_are_independent(tmp_path: Path) -> None:
    """A pass that starts while another is under way disturbs neither."""
    path = write(tmp_path / "t.arrows", rows({"order": 1}), rows({"order": 2}), rows({"order": 3}))
    with TraceReader(path) as trace:
        first = trace.batches()
        orders = [next(first)["order"].to_pylist()]
        assert [row["order"] for batch in trace.batches() for row in batch.to_pylist()] == [1, 2, 3]
        orders += [batch["order"].to_pylist() for batch in first]
    assert orders == [[1], [2], [3]]


def test_finish_reads_what_is_left(tmp_path: Path) -> None:
    """A pass that was left halfway returns the ending, and then yields nothing more."""
    with TraceReader(write(tmp_path / "t.arrows", rows({}), rows({}))) as trace:
        batches = trace.batches()
        next(batches)
        assert batches.finish() == batches.finish() == Ending(TOTALS, truncated=False)
        assert list(batches) == []


def test_a_failed_pass_has_no_ending(tmp_path: Path) -> None:
    """After an error it is not known how the trace ends."""
    with TraceReader(write(tmp_path / "t.arrows", rows({}))) as trace:
        batches = trace.batches()
    with pytest.raises(ValueError, match="closed"):
        next(batches)
    with pytest.raises(RuntimeError):
        batches.finish()


def test_a_growing_file_is_read_as_it_was(tmp_path: Path) -> None:
    """What a recorder appends after the file was opened is not read: all passes see the same rows."""
    path = write(tmp_path / "t.arrows", rows({}), rows({}))
    whole = path.read_bytes()
    with pa.OSFile(str(path)) as file:
        pa.ipc.open_stream(file).read_next_batch()
        path.write_bytes(whole[: file.tell()])
    with TraceReader(path) as trace:
        path.write_bytes(whole)
        assert sum(count for _, count in trace.counted()) == 1
        assert trace.ending().truncated


@pytest.mark.parametrize("fixture", ["5.10/two-nodes", "7.3/slow"])
def test_one_pass_feeds_several_consumers(fixture: str) -> None:
    """Rows and calls of the slow path of one pass are those that separate passes find."""
    with TraceReader(FIXTURES / f"{fixture}.arrows") as trace:
        batches: list[RowBatch] = []
        calls: list[dict[str, Any]] = []
        ending = trace.read(rows=batches.append, slow_call=calls.append)
        assert ending == trace.ending()
        assert calls == list(trace.slow_calls())
        separate = list(trace.row_batches())
        assert trace.read(rows=lambda _: None) == ending
    assert [len(batch.indices) for batch in batches] == [len(batch.indices) for batch in separate]
    assert [batch.task_columns for batch in batches] == [batch.task_columns for batch in separate]


def test_trace_without_totals_is_truncated(tmp_path: Path) -> None:
    """A writer that ended without its closing record leaves a truncated trace with all its rows."""
    got, ending = read(write(tmp_path / "t.arrows", rows({}, {}), totals=None))
    assert (len(got), ending.totals, ending.truncated, ending.damage) == (2, None, True, "")


def test_empty_recording_is_whole(tmp_path: Path) -> None:
    """An empty recording is complete."""
    got, ending = read(write(tmp_path / "t.arrows"))
    assert (got, ending.truncated) == ([], False)


def test_killed_writer_leaves_its_batches(tmp_path: Path) -> None:
    """A writer killed without warning leaves a readable, truncated trace with every batch it wrote."""
    path = tmp_path / "t.arrows"
    program = [sys.executable, "-c", _WRITE_UNTIL_KILLED.format(row=ROW), str(path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    got, ending = read(path)
    assert (len(got), ending.truncated) == (6, True)


def test_writer_refuses_to_overwrite(tmp_path: Path) -> None:
    """An existing file stays as it is, and the error names both ways out."""
    path = tmp_path / "t.arrows"
    path.write_bytes(b"precious")
    with pytest.raises(KalloctraceError) as caught:
        TraceWriter(path, SNAPSHOT, RECORDING)
    assert "-f" in caught.value.fix
    assert path.read_bytes() == b"precious"


def test_writer_overwrites_when_requested(tmp_path: Path) -> None:
    """With overwrite=True nothing of the old file is left."""
    path = write(tmp_path / "t.arrows", rows(*[{}] * 500))
    with TraceWriter(path, SNAPSHOT, RECORDING, overwrite=True) as writer:
        writer.close(TOTALS)
    got, ending = read(path)
    assert (got, ending.truncated, ending.damage) == ([], False, "")


def test_writer_names_what_it_cannot_write(tmp_path: Path) -> None:
    """A folder that does not exist is an error with its reason."""
    with pytest.raises(KalloctraceError, match="cannot write") as caught:
        TraceWriter(tmp_path / "no" / "t.arrows", SNAPSHOT, RECORDING)
    assert caught.value.why == "its folder does not exist"


def test_newer_format_is_named_with_its_fix(tmp_path: Path) -> None:
    """A newer format is refused with both numbers and the fix."""
    path = write(tmp_path / "t.arrows")
    rewrite(path, {FORMAT_KEY: b"3"})
    error = refusal(path)
    assert error.why == "its format is 3, this version reads 1 to 2"
    assert "newer" in error.fix


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (SNAPSHOT_KEY, b"{"),
        (SNAPSHOT_KEY, b"\xff\xfe"),
        (SNAPSHOT_KEY, b"[]"),
        (SNAPSHOT_KEY, b"{}"),
        (SNAPSHOT_KEY, b"null"),
        (SNAPSHOT_KEY, b"[" * 100_000),
        (RECORDING_KEY, b"{"),
        (RECORDING_KEY, b"[1]"),
        (RECORDING_KEY, b"null"),
        (RECORDING_KEY, b"1"),
    ],
    ids=lambda value: repr(value[:16]),
)
def test_damaged_metadata_is_refused(tmp_path: Path, key: bytes, value: bytes) -> None:
    """Any invalid metadata is reported as damaged."""
    path = write(tmp_path / "t.arrows")
    rewrite(path, {key: value})
    assert "damaged" in refusal(path).why


@pytest.mark.parametrize("part", ["features", "tables", "machine"])
@pytest.mark.parametrize("value", [None, [], {}, 1])
def test_damaged_snapshot_is_refused(tmp_path: Path, part: str, value: object) -> None:
    """A snapshot with a part of another kind is refused."""
    path = write(tmp_path / "t.arrows")
    rewrite(path, {SNAPSHOT_KEY: json.dumps({**SNAPSHOT.to_json(), part: value}).encode()})
    refusal(path)


@pytest.mark.parametrize(
    "totals", [b"{", b"{}", b"[]", b"null", json.dumps({**TOTALS.to_json(), "machine_changed": 1}).encode()]
)
def test_damaged_totals_leave_the_rows(tmp_path: Path, totals: bytes) -> None:
    """Without its totals a trace is truncated and says why; its rows are still read."""
    path = write(tmp_path / "t.arrows", rows({}, {}, {}))
    rewrite(path, {}, totals)
    got, ending = read(path)
    assert (len(got), ending.truncated) == (3, True)
    assert "totals" in ending.damage


def stored(path: Path, layout: str, *batches: pa.RecordBatch) -> pa.Table:
    """Return what a file of a layout holds: of format 1, or of today's."""
    whole = pa.ipc.open_stream(write(path, *batches).read_bytes()).read_all()
    if layout == "today's":
        return whole
    metadata = {**whole.schema.metadata, FORMAT_KEY: b"1"}
    return pa.Table.from_batches(batches).replace_schema_metadata(metadata)


def changed(whole: pa.Table, name: str, kind: pa.DataType | None) -> pa.Table:
    """Return the contents of a trace without a column or a field of its allocations, or with it in another type."""
    place = whole.schema.get_field_index(name)
    if place >= 0:
        rest = whole.drop_columns([name])
        return rest if kind is None else rest.append_column(name, whole[name].cast(kind))
    allocation = whole["allocation"].combine_chunks()
    fields = dict(zip(allocation.dictionary.type.names, allocation.dictionary.flatten(), strict=True))
    field = fields.pop(name)
    if kind is not None:
        fields[name] = field.cast(kind)
    dictionary = pa.StructArray.from_arrays(list(fields.values()), list(fields))
    column = pa.DictionaryArray.from_arrays(allocation.indices, dictionary)
    return whole.set_column(whole.schema.get_field_index("allocation"), "allocation", column)


def store(path: Path, table: pa.Table) -> Path:
    """Write what a file holds as it is."""
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


LAYOUTS = pytest.mark.parametrize("layout", ["format 1", "today's"])


@LAYOUTS
@pytest.mark.parametrize("name", LATER)
def test_later_column_may_be_missing(tmp_path: Path, name: str, layout: str) -> None:
    """A trace from before the column was there is read, and the column has the value that its absence means."""
    whole = stored(tmp_path / "whole.arrows", layout, rows({}, {}))
    got, _ = read(store(tmp_path / "t.arrows", changed(whole, name, None)))
    assert [row[name] for row in got] == [LATER[name]] * 2
    assert list(got[0]) == ROWS.names


@LAYOUTS
@pytest.mark.parametrize("name", [name for name in COLUMNS.names if name not in LATER])
def test_missing_column_is_named(tmp_path: Path, name: str, layout: str) -> None:
    """A trace without one of the columns is refused, and the column is named."""
    whole = stored(tmp_path / "whole.arrows", layout, rows({}))
    assert f" {name} " in refusal(store(tmp_path / "t.arrows", changed(whole, name, None))).why


@LAYOUTS
@pytest.mark.parametrize("name", ["time", "gfp_mask"])
def test_column_of_another_type_is_named(tmp_path: Path, name: str, layout: str) -> None:
    """A trace in which a column has another type is refused."""
    whole = stored(tmp_path / "whole.arrows", layout, rows({}))
    assert f" {name} " in refusal(store(tmp_path / "t.arrows", changed(whole, name, pa.int64()))).why


def test_missing_allocations_are_named(tmp_path: Path) -> None:
    """A trace without its allocations, or with invalid ones, is refused."""
    whole = stored(tmp_path / "whole.arrows", "today's", rows({}))
    for table in (whole.drop_columns(["allocation"]), whole.set_column(6, "allocation", pa.array([1]))):
        assert " allocation " in refusal(store(tmp_path / "t.arrows", table)).why


@LAYOUTS
def test_added_column_is_ignored(tmp_path: Path, layout: str) -> None:
    """A column that a newer writer adds does not keep the others from being read."""
    table = stored(tmp_path / "whole.arrows", layout, rows({})).append_column("added", pa.array([1]))
    got, _ = read(store(tmp_path / "t.arrows", table))
    assert list(got[0]) == ROWS.names


def test_gathered_batches_share_one_dictionary() -> None:
    """Small batches become one table: rows in order, names as before, and one dictionary for all of them."""
    (table,) = rebatched([rows({"comm": "a"}), rows({"comm": "b"}, {"comm": "a"})])
    assert table["comm"].to_pylist() == ["a", "b", "a"]
    assert {tuple(chunk.dictionary.to_pylist()) for chunk in table["comm"].chunks} == {("a", "b")}


def test_gathering_keeps_tables_small() -> None:
    """A long trace is never one table."""
    batch = rows(*[{}] * 10_000)
    sizes = [table.num_rows for table in rebatched([batch] * 15)]
    assert sum(sizes) == 150_000
    assert max(sizes) < 80_000
