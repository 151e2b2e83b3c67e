# SPDX-License-Identifier: MIT
"""Reads a trace batch by batch; reports files that are not a trace, too new, or truncated."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import pyarrow as pa

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.trace.containers import CONTAINERS_KEY, MOST_CONTAINERS, ContainerNames, Containers, decode_containers
from kalloctrace.trace.decode import Decoder, Flattener, RowBatch, check_calls, from_format_1
from kalloctrace.trace.dedup import Counted, Tally
from kalloctrace.trace.inferred import Inferred, inferred_of
from kalloctrace.trace.messages import open_messages
from kalloctrace.trace.metadata import recording_of, snapshot_of, totals_of
from kalloctrace.trace.schema import (
    ALLOCATION,
    COLUMNS,
    COUNT,
    FORMAT,
    FORMAT_KEY,
    LATER,
    READABLE,
    RECORDING_KEY,
    ROWS,
    SNAPSHOT_KEY,
    STREAM,
    TOTALS_KEY,
    aggregate_schema,
)
from kalloctrace.trace.slowpath import SLOW_KEY
from kalloctrace.trace.slowpath_reader import decode_slow_calls
from kalloctrace.trace.totals import Totals

_T = TypeVar("_T")

_FLAT_ROWS = 1 << 16
"""Rows of one flat batch: a row takes ten times the space that it has in an aggregate."""
_FIX_FOREIGN = "name a file that `kalloctrace record` wrote"


@dataclass(frozen=True)
class Ending:
    """How a recording ends, as far as its file or the running capture shows.

    Attributes:
        totals: what the recording counted; None where the end of the trace is missing.
        truncated: the end of the recording is missing.
        damage: what stopped the reading; empty where the file simply ended.
        slow_damage: what is wrong with the calls of the slow path, where `TraceReader.read` read rows beyond it.
        containers: the names of containers that the recording found.
    """

    totals: Totals | None
    truncated: bool
    damage: str = ""
    slow_damage: str = ""
    containers: Containers = field(default_factory=dict)


class Pass(Iterator[_T]):
    """One pass over a trace, from its start to its end; passes are independent of each other.

    Args:
        items: yields what the pass reads, and returns how the trace ends.
    """

    def __init__(self, items: Generator[_T, None, Ending]) -> None:
        self._items = items
        self._ending: Ending | None = None

    @classmethod
    def empty(cls, ending: Ending) -> Self:
        """Return a pass over nothing."""

        def nothing() -> Generator[_T, None, Ending]:
            yield from ()
            return ending

        return cls(nothing())

    def __next__(self) -> _T:
        """Return the next item."""
        try:
            return next(self._items)
        except StopIteration as stop:
            if stop.value is not None:
                self._ending = stop.value
            raise StopIteration from None

    def finish(self) -> Ending:
        """Skip the items that are left, and return how the trace ends."""
        for _ in self:
            pass
        if self._ending is None:
            raise RuntimeError("an error ended this pass before")
        return self._ending


class TraceReader:
    """A recorded trace as it was when it was opened. Reading does not change it.

    Attributes:
        path: its file.
        snapshot: the kernel and machine that were recorded.
        recording: how it was made.
        aggregate: its rows hold how often an allocation occurred, not when and in which task.

    Args:
        path: the file to read.
        progress: is called during each pass with the part of the file that it has read, from 0 to 1.

    Raises:
        KalloctraceError: the file cannot be read, is not a trace, or has a newer format.
    """

    def __init__(self, path: Path, progress: Callable[[float], None] = lambda _: None) -> None:
        self.path = path
        self._progress = progress
        try:
            self._size = path.stat().st_size
            if self._size == 0:
                raise KalloctraceError(f"cannot read {path}", "it is empty", _FIX_FOREIGN)
            # Not mapped: a mapped file counts as resident memory, and a trace may be larger than memory.
            self._file = pa.OSFile(os.fsencode(path))
        except PermissionError as error:
            raise _not_permitted(path) from error
        except (OSError, pa.ArrowInvalid) as error:
            why = getattr(error, "strerror", None) or _first_line(error)
            raise KalloctraceError(f"cannot read {path}", why, _FIX_FOREIGN) from error
        try:
            self._schema = pa.ipc.open_stream(self._cursor()).schema
        except (OSError, pa.ArrowException) as error:
            self._file.close()
            raise KalloctraceError(f"cannot read {path}", "it is no trace", _FIX_FOREIGN) from error
        try:
            self._format = self._read_format()
            self.snapshot, self.recording = self._read_metadata()
            self.aggregate = self._format > 1 and COUNT.name in self._schema.names
            self._check_columns()
        except UnicodeDecodeError as error:
            self._file.close()
            raise self._damaged("the name of a column is damaged") from error
        except KalloctraceError:
            self._file.close()
            raise

    def _read_format(self) -> int:
        metadata = self._schema.metadata or {}
        if FORMAT_KEY not in metadata:
            raise KalloctraceError(
                f"cannot read {self.path}",
                "it is an Arrow stream, but no trace of kalloctrace",
                _FIX_FOREIGN,
            )
        number = metadata[FORMAT_KEY].decode(errors="replace")
        if number not in map(str, READABLE):
            raise KalloctraceError(
                f"cannot read {self.path}",
                f"its format is {number}, this version reads {READABLE[0]} to {FORMAT}",
                "read it with the kalloctrace that recorded it, or a newer one",
            )
        return int(number)

    def _read_metadata(self) -> tuple[Snapshot, dict[str, Any]]:
        metadata = self._schema.metadata
        for key, about in ((SNAPSHOT_KEY, "snapshot"), (RECORDING_KEY, "description of the recording")):
            if key not in metadata:
                raise self._damaged(f"its {about} is missing")
        try:
            snapshot = snapshot_of(metadata[SNAPSHOT_KEY])
        except ValueError as error:
            raise self._damaged(f"its snapshot is damaged: {_first_line(error)}") from error
        try:
            return snapshot, recording_of(metadata[RECORDING_KEY])
        except ValueError as error:
            raise self._damaged(f"its description of the recording is damaged: {_first_line(error)}") from error

    def _check_columns(self) -> None:
        _refuse_twice(self._schema.names, self._damaged)
        have: dict[str, Any] = {field.name: field.type for field in self._schema}
        layout = COLUMNS if self._format == 1 else self._layout()
        want = {field.name: field.type for field in layout}
        if want.pop("allocation", None) is not None:
            kind = have.get("allocation", pa.null())
            if not (pa.types.is_dictionary(kind) and pa.types.is_struct(kind.value_type)):
                raise self._damaged("its column allocation is missing or of another type")
            _refuse_twice([field.name for field in kind.value_type], self._damaged)
            have |= {field.name: field.type for field in kind.value_type}
            want |= {field.name: field.type for field in ALLOCATION}
        for name, kind in want.items():
            if have.get(name, kind if name in LATER else None) != kind:
                raise self._damaged(f"its column {name} is missing or of another type")

    def _layout(self) -> pa.Schema:
        """Return the columns of a file of format 2."""
        return aggregate_schema(self.by) if self.aggregate else STREAM

    @property
    def by(self) -> str | None:
        """Return the task column that an aggregate counts calls by; None for a stream, and if it has none."""
        by: str | None = self.recording.get("by") if self.aggregate else None
        return by

    def has(self, column: str) -> bool:
        """Return whether the trace has a column of TASK_COLUMNS, or CGROUP."""
        return column == self.by if self.aggregate else True

    def _damaged(self, why: str) -> KalloctraceError:
        return KalloctraceError(f"cannot read {self.path}", why, "record it again")

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def batches(self) -> Pass[pa.RecordBatch]:
        """Return a pass over the rows with the columns of ROWS, up to the end or to where the file was cut off."""
        return Pass(self._flat())

    def row_batches(self) -> Pass[RowBatch]:
        """Return a pass over the rows as dictionary-encoded batches."""
        return Pass(self._row_batches())

    def counted(self) -> Pass[tuple[dict[str, Any], int]]:
        """Return a pass over the distinct allocations of the trace and their numbers of calls.

        Memory grows with the distinct allocations, not with the calls.

        Returns:
            Mappings from column (of REQUEST, CONTEXT, OBSERVED, BULK) to Python value, and counts of at least 1.
        """
        return Pass(self._counted())

    def distinct(self) -> tuple[Counted, Ending]:
        """Read the rows; return what `counted` yields, for several uses, and how the trace ends."""
        tally, reading = Tally(), self.row_batches()
        for rows in reading:
            tally.add(rows.allocations, rows.indices, rows.counts)
        return tally.rows(), reading.finish()

    def slow_calls(self) -> Pass[dict[str, Any]]:
        """Return a pass over the calls of the slow path, with the columns of SLOW."""
        return Pass(self._slow_calls())

    def ending(self) -> Ending:
        """Read the trace to its end, without decoding its rows, and return how it ends."""
        return self._messages([0]).finish()

    def read(
        self, rows: Callable[[RowBatch], None], slow_call: Callable[[dict[str, Any]], None] | None = None
    ) -> Ending:
        """Read rows and calls of the slow path in one pass, in the order in which they were written.

        Args:
            rows: is called with each batch of rows.
            slow_call: is called with each call of the slow path, up to one that is damaged; without it these are not
                decoded.
        """
        if self._format == 1:
            # It has no calls of the slow path.
            reading = self.row_batches()
            for batch in reading:
                rows(batch)
            return reading.finish()
        both = Pass(self._decoded(slow=slow_call is not None))
        for stored, calls in both:
            if stored is not None:
                rows(stored)
            if slow_call is not None:
                for call in calls:
                    slow_call(call)
        return both.finish()

    def _flat(self) -> Generator[pa.RecordBatch, None, Ending]:
        if self._format == 1:
            stored = self._stored()
            yield from stored
            return stored.finish()
        flattener, reading = Flattener(), self.row_batches()
        for batch in reading:
            yield from map(flattener.flatten, batch.slices(_FLAT_ROWS))
        return reading.finish()

    def _row_batches(self) -> Generator[RowBatch, None, Ending]:
        if self._format == 1:
            stored = self._stored()
            yield from from_format_1(stored)
            return stored.finish()
        both = Pass(self._decoded(slow=False))
        for batch, _ in both:
            if batch is not None:
                yield batch
        return both.finish()

    def _counted(self) -> Generator[tuple[dict[str, Any], int], None, Ending]:
        rows, ending = self.distinct()
        yield from rows
        return ending

    def _slow_calls(self) -> Generator[dict[str, Any], None, Ending]:
        messages = self._messages([0])
        for _, metadata in messages:
            try:
                yield from _slow_calls_in(metadata)
            except ValueError as error:
                return Ending(None, truncated=True, damage=_slow_damage(error))
        return messages.finish()

    def _decoded(self, *, slow: bool) -> Generator[tuple[RowBatch | None, Sequence[dict[str, Any]]], None, Ending]:
        """Yield the contents of each message of a file of format 2: rows, calls of the slow path, or nothing."""
        # All columns, so that whoever reads the rows finds the same damage.
        known = {*self._layout().names}
        decoder = Decoder()
        messages = self._messages([i for i, name in enumerate(self._schema.names) if name in known])
        slow_damage, read = "", False
        for batch, metadata in messages:
            try:
                rows = decoder.decode(batch) if batch.num_rows else None
            except pa.ArrowException as error:
                return self._stopped(error, read=read)
            read = read or rows is not None
            calls: list[dict[str, Any]] = []
            if slow and not slow_damage:
                try:
                    calls.extend(_slow_calls_in(metadata))
                except ValueError as error:
                    slow_damage = _slow_damage(error)
            yield rows, calls
        return replace(messages.finish(), slow_damage=slow_damage)

    def _stored(self) -> Pass[pa.RecordBatch]:
        """Return the batches of a file of format 1."""

        def stored() -> Generator[pa.RecordBatch, None, Ending]:
            messages = self._messages([i for i, name in enumerate(self._schema.names) if name in COLUMNS.names])
            read = False
            for batch, _ in messages:
                if not batch.num_rows:
                    continue
                try:
                    complete = _complete(batch)
                    check_calls(complete)
                except pa.ArrowException as error:
                    return self._stopped(error, read=read)
                yield complete
                read = True
            return messages.finish()

        return Pass(stored())

    def _stopped(self, error: Exception, *, read: bool) -> Ending:
        """Return the ending of a trace whose rows are damaged from here on; refuse one of which no row was read."""
        if not read:
            raise self._damaged(_first_line(error)) from error
        return Ending(None, truncated=True, damage=_first_line(error))

    def _messages(self, fields: list[int]) -> Pass[tuple[pa.RecordBatch, Mapping[bytes, bytes]]]:
        """Return all batches of the file, with their own metadata."""
        return Pass(self._read_messages(fields))

    def _read_messages(
        self, fields: list[int]
    ) -> Generator[tuple[pa.RecordBatch, Mapping[bytes, bytes]], None, Ending]:
        totals, damage, read = None, "", 0
        containers: dict[str, ContainerNames] = {}
        cursor = self._cursor()
        reader = pa.ipc.open_stream(cursor, options=pa.ipc.IpcReadOptions(included_fields=fields))
        while True:
            try:
                batch, metadata = reader.read_next_batch_with_custom_metadata()
            except StopIteration:
                break
            except (OSError, pa.ArrowException) as error:
                damage = _first_line(error)
                break
            self._progress(min(1.0, cursor.tell() / self._size))
            if metadata is not None and TOTALS_KEY in metadata:
                try:
                    totals = totals_of(metadata[TOTALS_KEY])
                except ValueError as error:
                    damage = f"its totals are damaged: {_first_line(error)}"
            if metadata is not None and CONTAINERS_KEY in metadata and len(containers) < MOST_CONTAINERS:
                try:
                    containers |= decode_containers(metadata[CONTAINERS_KEY])
                except ValueError as error:
                    damage = f"its names of containers are damaged: {_first_line(error)}"
            yield batch, metadata or {}
            read += 1
        if damage and not read and cursor.tell() < self._size:
            # Nothing of it can be read, and not because the recorder was stopped before it wrote something.
            raise self._damaged(damage)
        return Ending(totals, truncated=totals is None, damage=damage, containers=containers)

    def _cursor(self) -> pa.NativeFile:
        """Return the file with a position of its own, at its start."""
        return open_messages(self._file, self._size)

    @property
    def sample(self) -> int:
        """Return N where 1 call in N was recorded; 1 where all were."""
        filters = self.recording.get("filters")
        sample = filters.get("sample") if isinstance(filters, dict) else None
        return sample if isinstance(sample, int) and sample > 1 else 1

    @property
    def inferred(self) -> frozenset[Inferred]:
        """Return the facts that the recording infers."""
        return inferred_of(self.recording)


def _refuse_twice(names: Sequence[str], damaged: Callable[[str], KalloctraceError]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise damaged(f"it has the column {twice[0]} twice")


def _slow_calls_in(metadata: Mapping[bytes, bytes]) -> list[dict[str, Any]]:
    return decode_slow_calls(metadata[SLOW_KEY]) if SLOW_KEY in metadata else []


def _slow_damage(error: ValueError) -> str:
    return f"its calls of the slow path are damaged: {_first_line(error)}"


def _complete(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with today's columns, in today's order; missing columns have their default."""
    later = {COUNT.name: 1, **LATER}
    columns = [
        batch.column(field.name)
        if field.name in batch.schema.names
        else pa.array([later[field.name]], field.type).take(pa.repeat(pa.scalar(0, pa.int32()), batch.num_rows))
        for field in ROWS
    ]
    return pa.RecordBatch.from_arrays(columns, schema=ROWS)


def read_snapshot(path: Path) -> Snapshot:
    """Return the kernel and machine on which a trace was recorded.

    Raises:
        KalloctraceError: the file is not a trace, or has a newer format.
    """
    with TraceReader(path) as trace:
        return trace.snapshot


def _not_permitted(path: Path) -> KalloctraceError:
    try:
        owner, mode = path.owner(), stat.S_IMODE(path.stat().st_mode)
    except (OSError, KeyError):
        return KalloctraceError(f"cannot read {path}", "permission denied", "run this as the user who recorded it")
    why = f"permission denied: it belongs to {owner}, and its mode is {mode:04o}"
    fix = f"run this as {owner}, or let {owner} give you a copy; traces are private, as they show what others run"
    return KalloctraceError(f"cannot read {path}", why, fix)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
