# SPDX-License-Identifier: MIT
"""Format 2: each allocation is stored once, and comes back as often as it occurred."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.report.page.data import Limits, page_data
from kalloctrace.trace.dedup import MOST_ALLOCATIONS, Tally, count_distinct
from kalloctrace.trace.messages import MOST_UNPACKED
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.replay import Replay
from kalloctrace.trace.schema import (
    ALLOCATION,
    CGROUP,
    COLUMNS,
    COUNT,
    COUNTED_BY,
    FORMAT,
    FORMAT_KEY,
    RECORDING_KEY,
    ROWS,
    STREAM,
    TASK_COLUMNS,
)
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import MOST_ROWS, StreamColumns, TraceWriter
from tests import traces

SNAPSHOT = builtin_snapshot("5.10")
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
ROW: dict[str, Any] = {
    "entry": "normal",
    "gfp_mask": 0xCC0,
    "order": 0,
    "preferred_nid": 0,
    "task_flags": 0,
    "preempt_count": 0,
    "mems_allowed": "0",
    "cpusets_enabled": 0,
    "gfp_allowed_mask": 0x7FFFFF,
    "defrag_mode": False,
    "freelist_calls": 1,
    "page": True,
}
WHOSE: dict[str, Any] = {"time": 1, "cpu": 0, "pid": 7, "tid": 7, "comm": "make", "stack": None}
COUNTS = (
    "opened",
    "submitted",
    "dropped",
    "no_room",
    "replaced",
    "running",
    "freelist_alone",
    "return_alone",
    "missed",
)
TOTALS = Totals.from_json(
    {**dict.fromkeys(COUNTS, 0), "machine_changed": [], "reason": "the time was over", "seconds": 1.0}
)


def allocations(*orders: int) -> pa.StructArray:
    """Return allocations that differ in their order."""
    return pa.array([{**ROW, "order": order} for order in orders], ALLOCATION)


def write_calls(writer: TraceWriter, *indices: int) -> None:
    """Write calls that refer to allocations; their times go up, and each has a process of its own."""
    rows = len(indices)
    writer.write_stream(
        StreamColumns(
            time=np.arange(rows, dtype=np.uint64),
            cpu=np.zeros(rows, np.uint32),
            pid=np.arange(rows, dtype=np.int32),
            tid=np.arange(rows, dtype=np.int32),
            comm=pa.array(["make"] * rows, STREAM.field("comm").type),
            stack=None,
            indices=np.array(indices, np.int32),
        )
    )


def stream(path: Path, write: Callable[[TraceWriter], object]) -> Path:
    """Write a stream."""
    with TraceWriter(path, SNAPSHOT, {"mode": "stream"}) as writer:
        write(writer)
        writer.close(TOTALS)
    return path


def calls(added: pa.StructArray, *indices: int) -> Callable[[TraceWriter], None]:
    """Return what writes allocations and a batch that refers to them."""

    def write(writer: TraceWriter) -> None:
        writer.add(added)
        write_calls(writer, *indices)

    return write


def referring(batch: pa.RecordBatch, indices: list[int | None], dictionary: pa.StructArray) -> pa.RecordBatch:
    """Return a batch of a stream with other allocations, right or wrong."""
    allocation = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), dictionary, safe=False)
    return pa.RecordBatch.from_arrays([*batch.columns[:-1], allocation], schema=batch.schema)


def only_batch(path: Path) -> pa.RecordBatch:
    """Return the batch of a stream that has one."""
    (batch,) = pa.ipc.open_stream(path.read_bytes()).read_all().to_batches()
    return batch


def orders(path: Path) -> list[int]:
    """Return the order of each row, as `batches` gives them."""
    with TraceReader(path) as trace:
        batches = trace.batches()
        found = [order for batch in batches for order in batch["order"].to_pylist()]
        ending = batches.finish()
    assert not ending.truncated, ending.damage
    return found


def counted(path: Path) -> list[tuple[int, int]]:
    """Return orders and counts, as `counted` gives them."""
    with TraceReader(path) as trace:
        return sorted((row["order"], count) for row, count in trace.counted())


def test_index_means_the_same_throughout(tmp_path: Path) -> None:
    """Allocations are added between batches, and older indices still stand for the older ones."""

    def write(writer: TraceWriter) -> None:
        assert writer.add(allocations(1, 2)) == 0
        write_calls(writer, 0, 1, 0)
        assert writer.add(allocations(3)) == 2
        assert writer.add(allocations(4)) == 3
        write_calls(writer, 3, 0, 2)

    path = stream(tmp_path / "t.arrows", write)
    assert orders(path) == [1, 2, 1, 4, 1, 3]
    assert counted(path) == [(1, 3), (2, 1), (3, 1), (4, 1)]


def test_additions_are_stored_as_deltas(tmp_path: Path) -> None:
    """What is known already is not written again."""

    def write(writer: TraceWriter) -> None:
        for batch in range(3):
            writer.add(allocations(*range(10 * batch, 10 * batch + 10)))
            write_calls(writer, *range(10 * batch + 10))

    path = stream(tmp_path / "t.arrows", write)
    reader = pa.ipc.open_stream(path.read_bytes())
    reader.read_all()
    # Names and stacks are empty or the same each time: the deltas are the allocations'.
    assert (reader.stats.num_dictionary_deltas, reader.stats.num_replaced_dictionaries) == (2, 0)


def test_replaced_dictionary_is_understood(tmp_path: Path) -> None:
    """Another writer may give the same index another meaning later; equal allocations are one nevertheless."""
    path = stream(tmp_path / "t.arrows", calls(allocations(1, 2), 0, 1))
    batch = only_batch(path)
    with pa.ipc.new_stream(str(path), batch.schema) as writer:
        for other in (allocations(1, 2), allocations(2, 1), allocations(5, 2, 1), allocations(5)):
            writer.write_batch(referring(batch, [0, 0] if len(other) == 1 else [0, 1], other))
    with TraceReader(path) as trace:
        found = [order for rows in trace.batches() for order in rows["order"].to_pylist()]
    assert found == [1, 2, 2, 1, 5, 2, 5, 5]
    assert counted(path) == [(1, 2), (2, 3), (5, 3)]


def test_aggregate_comes_back(tmp_path: Path) -> None:
    """An aggregate says how often an allocation occurred, in as many rows as it likes, and nothing of who called."""
    path = tmp_path / "t.arrows"
    with TraceWriter(path, SNAPSHOT, {"mode": "aggregate"}) as writer:
        writer.add(allocations(1, 2, 3))
        writer.write_aggregate(np.array([5, 1 << 60], np.uint64), np.array([0, 1], np.int32))
        writer.write_aggregate(np.array([7], np.uint64), np.array([0], np.int32))
        writer.close(TOTALS)
    assert counted(path) == [(1, 12), (2, 1 << 60)]
    with TraceReader(path) as trace:
        assert trace.aggregate
        rows = [row for batch in trace.batches() for row in batch.to_pylist()]
    assert [(row["order"], row["count"]) for row in rows] == [(1, 5), (2, 1 << 60), (1, 7)]
    assert all(row[field.name] is None for row in rows for field in TASK_COLUMNS)


def test_calls_are_grouped_for_an_aggregate(tmp_path: Path) -> None:
    """Calls that are not grouped yet become counts."""
    path = tmp_path / "t.arrows"
    with TraceWriter(path, SNAPSHOT, {"mode": "aggregate"}) as writer:
        for batch in ([1, 2, 1], [2, 3]):
            rows = [{**WHOSE, **ROW, "order": order} for order in batch]
            writer.write(pa.RecordBatch.from_pylist(rows, schema=COLUMNS))
        writer.close(TOTALS)
    assert counted(path) == [(1, 2), (2, 2), (3, 1)]


@pytest.mark.parametrize("by", COUNTED_BY)
def test_calls_are_grouped_by_what_they_are_counted_by(tmp_path: Path, by: str) -> None:
    """Calls that are not grouped yet become counts of each name or control group; no other task column is kept."""
    path = tmp_path / "t.arrows"
    with TraceWriter(path, SNAPSHOT, {"mode": "aggregate", "by": by}) as writer:
        for batch in (((1, "a"), (1, "b"), (1, "a")), ((1, "c"), (2, "a"))):
            rows = [{**WHOSE, **ROW, "order": order, by: text} for order, text in batch]
            writer.write(pa.RecordBatch.from_pylist(rows, schema=COLUMNS))
        writer.close(TOTALS)
    assert counted(path) == [(1, 4), (2, 1)]
    with TraceReader(path) as trace:
        assert [field.name for field in (*TASK_COLUMNS, CGROUP) if trace.has(field.name)] == [by]
        found = [(row["order"], row[by], row["count"]) for batch in trace.batches() for row in batch.to_pylist()]
    assert sorted(found) == [(1, "a", 2), (1, "b", 1), (1, "c", 1), (2, "a", 1)]


def test_an_aggregate_without_its_column_is_refused(tmp_path: Path) -> None:
    """The description says that calls are counted by name, and there is no name."""
    path = tmp_path / "t.arrows"
    with TraceWriter(path, SNAPSHOT, {"mode": "aggregate"}) as writer:
        writer.add(allocations(1))
        writer.write_aggregate(np.array([1], np.uint64), np.array([0], np.int32))
        writer.close(TOTALS)
    with pa.ipc.open_stream(path) as stored:
        batches = list(stored)
        metadata = {**stored.schema.metadata, RECORDING_KEY: b'{"mode": "aggregate", "by": "comm"}'}
    schema = batches[0].schema.with_metadata(metadata)
    with pa.ipc.new_stream(path, schema) as again:
        for batch in batches:
            again.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
    with pytest.raises(KalloctraceError, match="comm is missing"):
        TraceReader(path)


def test_rows_of_a_stream_count_once(tmp_path: Path) -> None:
    """A row of a stream or of format 1 is one call."""
    path = stream(tmp_path / "t.arrows", calls(allocations(1), 0, 0))
    for name in (path, FIXTURES / "5.10" / "one-node.arrows"):
        with TraceReader(name) as trace:
            for batch in trace.batches():
                assert batch.schema.names == ROWS.names
                assert set(batch[COUNT.name].to_pylist()) == {1}


def test_trace_can_be_read_again(tmp_path: Path) -> None:
    """Each way to read begins at the start, whatever was read before."""
    path = stream(tmp_path / "t.arrows", calls(allocations(1), 0, 0))
    with TraceReader(path) as trace:
        for _ in range(2):
            assert sum(batch.num_rows for batch in trace.batches()) == 2
            assert [count for _, count in trace.counted()] == [2]
            assert trace.ending().totals == TOTALS


@pytest.mark.parametrize("trace", ["5.10/two-nodes", "7.3/stimulus-cpusets", "noinline-5.10/prepare", "6.16/cpusets"])
def test_format_1_becomes_format_2(tmp_path: Path, trace: str) -> None:
    """A recording of format 1, written anew, has the same rows in the same order, and the same counts."""
    old, new = FIXTURES / f"{trace}.arrows", tmp_path / "new.arrows"
    with TraceReader(old) as reader, TraceWriter(new, reader.snapshot, reader.recording) as writer:
        assert reader.recording["mode"] == "stream"
        rows = []
        for batch in reader.batches():
            rows += batch.to_pylist()
            writer.write(batch)
        totals = reader.ending().totals
        assert totals is not None
        writer.close(totals)
        before = {tuple(row.values()): count for row, count in reader.counted()}
        assert before == {tuple(row.values()): count for row, count in count_distinct(reader.batches())}
    with TraceReader(new) as reader:
        assert pa.ipc.open_stream(new.read_bytes()).schema.metadata[FORMAT_KEY] == str(FORMAT).encode()
        assert [row for batch in reader.batches() for row in batch.to_pylist()] == rows
        assert {tuple(row.values()): count for row, count in reader.counted()} == before


@pytest.mark.parametrize("index", [-1, 2, 1 << 30])
def test_index_of_nothing_is_damage(tmp_path: Path, index: int) -> None:
    """An index outside the dictionary ends the reading and is named; nothing is read out of bounds."""
    path = stream(tmp_path / "t.arrows", calls(allocations(1, 2), 0, 1))
    batch = only_batch(path)
    with pa.ipc.new_stream(str(path), batch.schema) as writer:
        writer.write_batch(batch)
        writer.write_batch(referring(batch, [0, index], allocations(1, 2)))
    with TraceReader(path) as trace:
        counted = trace.counted()
        assert sum(count for _, count in counted) == 2
        assert counted.finish().truncated
        assert "allocation" in counted.finish().damage


@pytest.mark.parametrize("column", ["comm", "stack", "time"])
def test_damage_is_found_whoever_reads(tmp_path: Path, column: str) -> None:
    """Whoever counts the rows finds the damage of a column that counting does not need, like whoever lists them."""
    path = stream(tmp_path / "t.arrows", calls(allocations(1, 2), 0, 1))
    batch = only_batch(path)
    damaged = {
        "comm": pa.DictionaryArray.from_arrays(pa.array([0, 7], pa.int32()), pa.array(["a"]), safe=False),
        "stack": pa.DictionaryArray.from_arrays(pa.array([0, 7], pa.int32()), pa.array(["a"]), safe=False),
        "time": pa.array([0, (1 << 64) - 1], pa.uint64()),
    }
    with pa.ipc.new_stream(str(path), batch.schema) as writer:
        writer.write_batch(batch)
        at = batch.schema.get_field_index(column)
        writer.write_batch(
            batch.set_column(at, batch.schema.field(at), damaged[column].cast(batch.schema.field(at).type))
        )
    with TraceReader(path) as trace:
        counted, listed = trace.counted(), trace.batches()
        assert counted.finish() == listed.finish()
        assert column in counted.finish().damage


def test_large_batches_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader refuses batches above a size, so the writer makes none."""
    monkeypatch.setattr("kalloctrace.trace.writer.MOST_ROWS", 2)
    path = stream(tmp_path / "t.arrows", calls(allocations(1, 2, 3), 0, 1, 2, 1, 0))
    batches = pa.ipc.open_stream(path.read_bytes()).read_all().to_batches()
    assert [batch.num_rows for batch in batches if batch.num_rows] == [2, 2, 1]
    assert orders(path) == [1, 2, 3, 2, 1]


def test_full_dictionary_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many distinct allocations there are, no dictionary is too large for the reader."""
    monkeypatch.setattr("kalloctrace.trace.writer.MOST_ROWS", 4)

    def write(writer: TraceWriter) -> None:
        for first in (0, 3, 6):
            assert writer.add(allocations(*range(first, first + 3))) == first
            write_calls(writer, 0, first + 1, first + 2)
        write_calls(writer, 8, 0, 3, 1)

    path = stream(tmp_path / "t.arrows", write)
    assert orders(path) == [0, 1, 2, 0, 4, 5, 0, 7, 8, 8, 0, 3, 1]
    with TraceReader(path) as trace:
        assert [len(rows.allocations) for rows in trace.row_batches()] == [3, 3, 3, 4]
        assert {row["order"]: count for row, count in trace.counted()}[0] == 4


def test_recorder_writes_no_dictionary_that_the_reader_refuses() -> None:
    """By their limits; the bytes too: an allocation has 250, in the file and unpacked."""
    assert MOST_ROWS <= MOST_ALLOCATIONS
    assert 4 * MOST_ROWS * 250 < MOST_UNPACKED


def test_missing_index_is_damage(tmp_path: Path) -> None:
    """A trace whose first row has no allocation is refused."""
    path = stream(tmp_path / "t.arrows", calls(allocations(1, 2), 0, 1))
    batch = only_batch(path)
    with pa.ipc.new_stream(str(path), batch.schema) as writer:
        writer.write_batch(referring(batch, [0, None], allocations(1, 2)))
    with TraceReader(path) as trace, pytest.raises(KalloctraceError, match="cannot read") as caught:
        list(trace.counted())
    assert "allocation must not have a null" in caught.value.why


def test_tally_stays_small_when_dictionaries_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the dictionary is another, what is kept is what is distinct."""
    monkeypatch.setattr("kalloctrace.trace.dedup._MERGE_ROWS", 10)
    tally = Tally()
    for batch in range(40):
        tally.add(allocations(batch % 3, 9), np.array([0, 1, 1], np.int32))
        assert sum(group.num_rows for group in tally._groups) <= 12  # noqa: SLF001 - memory is what is tested
    assert sorted((row["order"], count) for row, count in tally.rows()) == [(0, 14), (1, 13), (2, 13), (9, 80)]


def test_unknown_and_nothing_differ(tmp_path: Path) -> None:
    """What was not captured is null, and stays null."""
    row = {**ROW, "mems_allowed": None, "preempt_count": None, "page": None}
    path = stream(tmp_path / "t.arrows", calls(pa.array([row], ALLOCATION), 0))
    with TraceReader(path) as trace:
        ((got, _),) = trace.counted()
        (flat,) = [row for batch in trace.batches() for row in batch.to_pylist()]
    assert (got["mems_allowed"], got["preempt_count"], got["page"]) == (None, None, None)
    assert (flat["mems_allowed"], flat["preempt_count"], flat["page"]) == (None, None, None)


def replayed(trace: TraceReader) -> None:
    """Replay a trace to its end."""
    with Replay(trace.path) as replay:
        replay.advance(1e9)


@pytest.mark.parametrize("read", [TraceReader.distinct, lambda trace: page_data(trace, Limits()), replayed])
def test_more_allocations_than_can_be_kept_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[TraceReader], object]
) -> None:
    """Each dictionary is small enough, but there are several, with different allocations."""
    snapshot, totals, call = traces.source()
    with TraceWriter(tmp_path / "t.arrows", snapshot, {"mode": "stream"}) as writer:
        for order in range(3):
            changed = {**call, "order": order, "freelist_order": order}
            writer.write(pa.RecordBatch.from_pylist([changed], COLUMNS))
        writer.close(totals)
    monkeypatch.setattr("kalloctrace.trace.dedup.MOST_ALLOCATIONS", 3)
    with TraceReader(tmp_path / "t.arrows") as trace:
        read(trace)
        monkeypatch.setattr("kalloctrace.trace.dedup.MOST_ALLOCATIONS", 2)
        with pytest.raises(KalloctraceError, match="too many different allocations"):
            read(trace)
