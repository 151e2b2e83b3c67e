# SPDX-License-Identifier: MIT
"""Writes a trace as it is captured: after a crash it is readable up to its last whole batch."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.output.growing import GrowingOutput
from kalloctrace.trace.containers import CONTAINERS_KEY, Containers, encode_containers
from kalloctrace.trace.dedup import allocations_of, dictionary_encode
from kalloctrace.trace.schema import (
    ALLOCATION,
    CGROUP,
    FORMAT,
    FORMAT_KEY,
    RECORDING_KEY,
    SNAPSHOT_KEY,
    STREAM,
    TASK_COLUMNS,
    TOTALS_KEY,
    aggregate_schema,
)
from kalloctrace.trace.slowpath import SLOW_KEY, encode_slow_calls
from kalloctrace.trace.totals import Totals

MOST_ROWS = 1 << 16
"""In one batch. As many allocations are in one dictionary: a reader keeps them, and a batch with new ones compares and
copies all of them."""
_MOST_SLOW_CALLS = 1 << 10
"""In one batch; most have one attempt, and take 2 KB."""

_TEXTS = STREAM.field(CGROUP.name).type

Column: TypeAlias = "npt.NDArray[Any] | pa.Array"


class StreamColumns(NamedTuple):
    """Calls as columns, a row for each call.

    Attributes:
        time: the column of this name in STREAM, like the following ones.
        cpu: see STREAM.
        pid: see STREAM.
        tid: see STREAM.
        comm: see STREAM; cheapest if each dictionary is the previous one, or starts with it.
        stack: see STREAM; None if stacks are not recorded.
        cgroup: see STREAM; None if groups are not recorded.
        indices: for each row, the index of its allocation, int32.
    """

    time: Column
    cpu: Column
    pid: Column
    tid: Column
    comm: pa.DictionaryArray
    stack: pa.DictionaryArray | None
    indices: Column
    cgroup: pa.DictionaryArray | None = None


class RowWriter(Protocol):
    """Takes rows as they are captured; see `TraceWriter` for the arguments."""

    def add(self, allocations: pa.RecordBatch | pa.StructArray) -> int:
        """Add allocations that rows will refer to; return the index of the first."""

    def write_stream(self, calls: StreamColumns) -> None:
        """Take calls, a row for each."""

    def write_aggregate(self, counts: Column, indices: Column, by: pa.DictionaryArray | None = None) -> None:
        """Take counts of calls by allocation, and by what else they are counted by."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Take calls that are not grouped yet."""

    def write_slow(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Take calls of the slow path."""

    def write_containers(self, containers: Containers) -> None:
        """Take names of containers."""


class TraceWriter:
    """A trace that is being written.

    A recorder adds each new allocation once, and then refers to it by its index. In the file the dictionary grows by
    deltas; where it is full, another begins, with the allocations that rows refer to from then on. Batches should be
    large: each batch with new allocations takes time for the whole dictionary, about 0.3 ms for 3,000.

    Args:
        target: the file to create, which is readable while it grows, and up to its last whole batch whatever ends the
            recording; or an open file that somebody else completes.
        snapshot: the kernel and machine that are recorded.
        recording: how the recording is made, for people: command, filters, wall-clock time. Its "mode" selects the
            layout, "aggregate" or "stream" (the default).
        overwrite: replace an existing file, when the first batch is written.

    Raises:
        KalloctraceError: the file exists, or cannot be written; also raised by all methods that write.
    """

    def __init__(
        self, target: Path | IO[bytes], snapshot: Snapshot, recording: Mapping[str, Any], *, overwrite: bool = False
    ) -> None:
        aggregate = recording.get("mode") == "aggregate"
        self._by: str | None = recording.get("by") if aggregate else None
        self._schema = (aggregate_schema(self._by) if aggregate else STREAM).with_metadata(
            {
                FORMAT_KEY: str(FORMAT),
                SNAPSHOT_KEY: json.dumps(snapshot.to_json()),
                RECORDING_KEY: json.dumps(recording),
            }
        )
        self._aggregate = aggregate
        options = pa.ipc.IpcWriteOptions(
            compression="zstd" if aggregate else None, emit_dictionary_deltas=True, use_threads=False
        )
        self._output = GrowingOutput(target, overwrite=overwrite) if isinstance(target, Path) else None
        file = target if self._output is None else self._output.file
        try:
            self._writer = pa.ipc.new_stream(file, self._schema, options=options)
        except BaseException:
            if self._output is not None:
                self._output.close()
            raise
        self._added = _Added()
        self._dictionary = pa.array([], ALLOCATION)
        self._places = np.zeros(0, np.int32)
        self._known: dict[tuple[Any, ...], int] = {}
        nothing = [pa.array([], field.type) for field in self._schema if field.name != "allocation"]
        self._last = self._batch(nothing, np.zeros(0, np.int32))

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the stream; without `close` before, the trace counts as truncated."""
        if self._output is None:
            self._writer.close()
            return
        try:
            if kind is None or self._output.readable:
                self._output.write_whole(self._writer.close)
        finally:
            self._output.close()

    def add(self, allocations: pa.RecordBatch | pa.StructArray) -> int:
        """Add allocations that rows will refer to.

        Args:
            allocations: each with all fields of ALLOCATION, distinct and not added before.

        Returns:
            The index of the first; the others follow.
        """
        if not isinstance(allocations, pa.StructArray):
            allocations = allocations_of(allocations)
        return self._added.append(allocations)

    def write_stream(self, calls: StreamColumns) -> None:
        """Write calls, a row for each; they are in the file when this returns."""
        stack, cgroup = (
            pa.nulls(len(calls.indices), _TEXTS) if column is None else column for column in (calls.stack, calls.cgroup)
        )
        self._write([calls.time, calls.cpu, calls.pid, calls.tid, calls.comm, stack, cgroup], calls.indices)

    def write_aggregate(self, counts: Column, indices: Column, by: pa.DictionaryArray | None = None) -> None:
        """Write counts of calls by allocation; the rows are in the file when this returns.

        Args:
            counts: calls since the previous row with the same index and the same `by`, uint64.
            indices: for each row, the index of its allocation, int32.
            by: for each row, the value of the column that `recording["by"]` names; None if it names none.
        """
        self._write([counts] if by is None else [counts, by], indices)

    def write(self, batch: pa.RecordBatch) -> None:
        """Write calls that are not grouped yet; they are in the file when this returns.

        Args:
            batch: a row for each call, with all COLUMNS.
        """
        if not batch.num_rows:
            return
        allocations, local = dictionary_encode(pa.Table.from_batches([batch]))
        indices = self._indices(allocations)[local]
        if self._by is not None:
            column = batch.column(self._by)
            rows = pa.table({"index": indices, "by": column.indices}).group_by(["index", "by"], use_threads=False)
            groups = rows.aggregate([([], "count_all")]).combine_chunks()
            by = pa.DictionaryArray.from_arrays(groups["by"].combine_chunks(), column.dictionary)
            counts = groups["count_all"].to_numpy().astype(np.uint64)
            self.write_aggregate(counts, groups["index"].to_numpy(), by)
        elif self._aggregate:
            present, counts = np.unique(indices, return_counts=True)
            self.write_aggregate(counts.astype(np.uint64), present)
        else:
            self._write([batch.column(field.name) for field in (*TASK_COLUMNS, CGROUP)], indices)

    def write_slow(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Write calls of the slow path, each with all columns of SLOW; they are in the file when this returns."""
        for start in range(0, len(calls), _MOST_SLOW_CALLS):
            part = calls[start : start + _MOST_SLOW_CALLS]
            for text in encode_slow_calls(part):
                self._write_batch(self._last, {SLOW_KEY: text})

    def write_containers(self, containers: Containers) -> None:
        """Write names of containers; they are in the file when this returns."""
        self._write_batch(self._last, {CONTAINERS_KEY: encode_containers(containers)})

    def close(self, totals: Totals) -> None:
        """Write the totals, after the last rows."""
        self._write_batch(self._last, {TOTALS_KEY: json.dumps(totals.to_json())})

    def _indices(self, allocations: pa.StructArray) -> npt.NDArray[np.int32]:
        """Return the indices of allocations; adds those that are new."""
        rows = [tuple(row.values()) for row in allocations.to_pylist()]
        new = [i for i, row in enumerate(rows) if row not in self._known]
        first = self.add(allocations.take(pa.array(new, pa.int64())))
        self._known |= {rows[i]: first + position for position, i in enumerate(new)}
        return np.array([self._known[row] for row in rows], np.int32)

    def _write(self, columns: Sequence[Column], indices: Column) -> None:
        arrays = [pa.array(column) if isinstance(column, np.ndarray) else column for column in columns]
        numbers = np.asarray(indices)
        for start in range(0, max(1, len(numbers)), MOST_ROWS):
            part = self._in_dictionary(numbers[start : start + MOST_ROWS])
            batch = self._batch([array.slice(start, MOST_ROWS) for array in arrays], part)
            self._write_batch(batch)
            # An empty batch that keeps the current dictionaries: the totals must not replace them.
            self._last = batch.slice(0, 0)

    def _in_dictionary(self, numbers: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return the places of allocations in the dictionary; adds those that it does not have."""
        if len(self._places) < len(self._added):
            new = np.full(len(self._added) - len(self._places), _NOWHERE, np.int32)
            self._places = np.concatenate([self._places, new])
        places: npt.NDArray[np.int32] = self._places[numbers]
        missing = np.unique(numbers[places == _NOWHERE])
        if not len(missing):
            return places
        if len(self._dictionary) + len(missing) > MOST_ROWS:
            self._dictionary = self._dictionary[:0]
            self._places[:] = _NOWHERE
            missing = np.unique(numbers)
        have = len(self._dictionary)
        self._places[missing] = np.arange(have, have + len(missing), dtype=np.int32)
        self._dictionary = pa.concat_arrays([self._dictionary, *self._added.taken(missing)])
        added: npt.NDArray[np.int32] = self._places[numbers]
        return added

    def _write_batch(self, batch: pa.RecordBatch, metadata: Mapping[bytes, str | bytes] | None = None) -> None:
        write = partial(self._writer.write_batch, batch, custom_metadata=metadata)
        if self._output is None:
            write()
        else:
            self._output.write_whole(write)

    def _batch(self, arrays: Sequence[pa.Array], places: npt.NDArray[np.int32]) -> pa.RecordBatch:
        allocation = pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), self._dictionary)
        return pa.RecordBatch.from_arrays([*arrays, allocation], schema=self._schema)


_NOWHERE = -1


class _Added:
    """All allocations that were added, in blocks, so that adding some does not copy all."""

    def __init__(self) -> None:
        self._blocks: list[pa.StructArray] = []
        self._begins: list[int] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, allocations: pa.StructArray) -> int:
        """Add allocations; return the number of the first."""
        first = self._size
        if self._blocks and len(self._blocks[-1]) < MOST_ROWS:
            self._blocks[-1] = pa.concat_arrays([self._blocks[-1], allocations])
        else:
            self._blocks.append(allocations)
            self._begins.append(first)
        self._size += len(allocations)
        return first

    def taken(self, numbers: npt.NDArray[np.int32]) -> Iterator[pa.StructArray]:
        """Yield the allocations with these numbers, which are in order."""
        bounds = np.searchsorted(numbers, [*self._begins, self._size])
        for block, begin, at, end in zip(self._blocks, self._begins, bounds, bounds[1:], strict=False):
            if at < end:
                yield block.take(pa.array(numbers[at:end] - begin))


def default_name(release: str) -> Path:
    """Return the default name of a new trace, in the current directory; no other process makes the same name.

    Args:
        release: of the recorded kernel.
    """
    return Path(f"kalloctrace-{release}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.arrows")
