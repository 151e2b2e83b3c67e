# SPDX-License-Identifier: MIT
"""Reads a trace batch by batch, and says when it is no trace, too new, or cut off."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.trace.decode import Decoder, Encoded, Flattener, encoded
from kalloctrace.trace.dedup import Tally
from kalloctrace.trace.schema import (
    AGGREGATE,
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
    WHO,
)
from kalloctrace.trace.slowpath import SLOW_KEY, from_text
from kalloctrace.trace.totals import Totals

_MEND_FOREIGN = "name a file that `kalloctrace record` wrote"


class TraceReader:
    """A recorded trace. Each of `batches`, `encoded` and `counted` reads it from its start to its end.

    Attributes:
        path: its file.
        snapshot: the kernel and machine that were recorded.
        recording: how it was made.
        aggregate: its rows say how often an allocation occurred, not when and for whom.
        totals: what was counted; None until it was read to the end, and for good if the trace is truncated.

    Args:
        path: the file to read.

    Raises:
        KalloctraceError: the file cannot be read, is no trace, or is of a newer format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.totals: Totals | None = None
        self._damage = ""
        self._ended = False
        self._position = 0
        try:
            self._size = path.stat().st_size
            if self._size == 0:
                raise KalloctraceError(f"cannot read {path}", "it is empty", _MEND_FOREIGN)
            # Not mapped: what is mapped counts as resident memory, and a trace may be larger than that.
            self._file = pa.OSFile(str(path))
        except (OSError, pa.ArrowInvalid) as error:
            why = getattr(error, "strerror", None) or _first_line(error)
            raise KalloctraceError(f"cannot read {path}", why, _MEND_FOREIGN) from error
        try:
            self._schema = pa.ipc.open_stream(self._file).schema
        except (OSError, pa.ArrowException) as error:
            self._file.close()
            raise KalloctraceError(f"cannot read {path}", "it is no trace", _MEND_FOREIGN) from error
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
                _MEND_FOREIGN,
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
        try:
            snapshot = Snapshot.from_json(json.loads(metadata[SNAPSHOT_KEY]))
            recording: dict[str, Any] = dict(json.loads(metadata[RECORDING_KEY]))
        except (KalloctraceError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged(f"its metadata is damaged: {error!r}") from error
        return snapshot, recording

    def _check_columns(self) -> None:
        have: dict[str, Any] = {field.name: field.type for field in self._schema}
        layout = COLUMNS if self._format == 1 else AGGREGATE if self.aggregate else STREAM
        want = {field.name: field.type for field in layout}
        if want.pop("allocation", None) is not None:
            kind = have.get("allocation", pa.null())
            if not (pa.types.is_dictionary(kind) and pa.types.is_struct(kind.value_type)):
                raise self._damaged("its column allocation is missing or of another type")
            have |= {field.name: field.type for field in kind.value_type}
            want |= {field.name: field.type for field in ALLOCATION}
        for name, kind in want.items():
            if have.get(name, kind if name in LATER else None) != kind:
                raise self._damaged(f"its column {name} is missing or of another type")

    def _damaged(self, why: str) -> KalloctraceError:
        return KalloctraceError(f"cannot read {self.path}", why, "record it again")

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows with the columns of ROWS, up to the end or to where the file was cut off."""
        if self._format == 1:
            yield from map(_complete, self._stored())
            return
        flattener = Flattener()
        yield from map(flattener.flat, self.encoded(*(field.name for field in WHO)))

    def encoded(self, *who: str) -> Iterator[Encoded]:
        """Yield the rows as they are stored, likewise.

        Args:
            who: the columns of WHO to read; an aggregate has none.
        """
        if self._format == 1:
            yield from encoded(map(_complete, self._stored()))
            return
        wanted = {*who, COUNT.name, "allocation"}
        decoder = Decoder()
        for batch in self._stored([i for i, name in enumerate(self._schema.names) if name in wanted]):
            try:
                yield decoder.decode(batch)
            except pa.ArrowException as error:
                self._damage, self._ended = _first_line(error), True
                return

    def counted(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield each distinct allocation of the trace, and how many calls it stands for.

        Memory grows with the distinct ones, not with the calls.

        Returns:
            Mappings from column (of REQUEST, CONTEXT, OBSERVED, BULK) to Python value, and counts of at least 1.
        """
        tally = Tally()
        for rows in self.encoded():
            tally.add(rows.allocations, rows.indices, rows.counts)
        yield from tally.rows()

    def slow_calls(self) -> Iterator[dict[str, Any]]:
        """Yield the calls of the slow path, with the columns of SLOW."""
        for _, metadata in self._messages([0]):
            if SLOW_KEY in metadata:
                try:
                    yield from from_text(metadata[SLOW_KEY])
                except ValueError as error:
                    self._damage = f"its calls of the slow path are damaged: {_first_line(error)}"
                    self._ended = True
                    return

    def _stored(self, fields: list[int] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the batches of the file that have rows."""
        for batch, _ in self._messages(fields):
            if batch.num_rows:
                yield batch

    def _messages(self, fields: list[int] | None = None) -> Iterator[tuple[pa.RecordBatch, Mapping[bytes, bytes]]]:
        """Yield all batches of the file, with their own metadata."""
        self._damage, self._ended, self.totals = "", False, None
        self._file.seek(0)
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        reader = pa.ipc.open_stream(self._file, options=options)
        while True:
            try:
                batch, metadata = reader.read_next_batch_with_custom_metadata()
                if fields is None:
                    batch.validate(full=True)
            except StopIteration:
                break
            except (OSError, pa.ArrowException) as error:
                self._damage = _first_line(error)
                break
            self._position = self._file.tell()
            if metadata is not None and TOTALS_KEY in metadata:
                try:
                    self.totals = Totals.from_json(json.loads(metadata[TOTALS_KEY]))
                except (KeyError, ValueError, TypeError) as error:
                    self._damage = f"its totals are damaged: {error!r}"
            yield batch, metadata or {}
        self._ended = True

    @property
    def sample(self) -> int:
        """Return of how many calls one was recorded; 1 where all were."""
        filters = self.recording.get("filters")
        sample = filters.get("sample") if isinstance(filters, dict) else None
        return sample if isinstance(sample, int) and sample > 1 else 1

    @property
    def fraction(self) -> float:
        """Return how much of the file was read, from 0 to 1; other threads may ask."""
        return min(1.0, self._position / self._size)

    @property
    def truncated(self) -> bool:
        """Tell whether the end of the recording is missing; known once it was read to its end."""
        return self._ended and self.totals is None

    @property
    def damage(self) -> str:
        """Return what stopped the reading, empty where the file simply ended."""
        return self._damage


def _complete(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the columns of today: in their order, with those that came later."""
    later = {COUNT.name: 1, **LATER}
    columns = [
        batch.column(field.name)
        if field.name in batch.schema.names
        else pa.array([later[field.name]], field.type).take(pa.repeat(pa.scalar(0, pa.int32()), batch.num_rows))
        for field in ROWS
    ]
    return pa.RecordBatch.from_arrays(columns, schema=ROWS)


def read_snapshot(path: Path) -> Snapshot:
    """Return the kernel and machine that a trace was recorded on.

    Raises:
        KalloctraceError: the file is no trace, or is of a newer format.
    """
    with TraceReader(path) as trace:
        return trace.snapshot


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
