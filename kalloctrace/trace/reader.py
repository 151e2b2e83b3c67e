# SPDX-License-Identifier: MIT
"""Reads a trace batch by batch, and says when it is no trace, too new, or cut off."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.trace.schema import COLUMNS, FORMAT, FORMAT_KEY, LATER, RECORDING_KEY, SNAPSHOT_KEY, TOTALS_KEY
from kalloctrace.trace.totals import Totals

_MEND_FOREIGN = "name a file that `kalloctrace record` wrote"


class TraceReader:
    """A recorded trace.

    Attributes:
        path: its file.
        snapshot: the kernel and machine that were recorded.
        recording: how it was made.
        totals: what was counted; None until `batches` has come to the end, and for good if the trace is truncated.

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
        try:
            if path.stat().st_size == 0:
                raise KalloctraceError(f"cannot read {path}", "it is empty", _MEND_FOREIGN)
            self._file = pa.memory_map(str(path))
        except (OSError, pa.ArrowInvalid) as error:
            why = getattr(error, "strerror", None) or _first_line(error)
            raise KalloctraceError(f"cannot read {path}", why, _MEND_FOREIGN) from error
        try:
            self._reader = pa.ipc.open_stream(self._file)
        except (OSError, pa.ArrowException) as error:
            self._file.close()
            raise KalloctraceError(f"cannot read {path}", "it is no trace", _MEND_FOREIGN) from error
        try:
            self.snapshot, self.recording = self._read_metadata()
        except KalloctraceError:
            self._file.close()
            raise

    def _read_metadata(self) -> tuple[Snapshot, dict[str, Any]]:
        metadata = self._reader.schema.metadata or {}
        if FORMAT_KEY not in metadata:
            raise KalloctraceError(
                f"cannot read {self.path}",
                "it is an Arrow stream, but no trace of kalloctrace",
                _MEND_FOREIGN,
            )
        number = metadata[FORMAT_KEY].decode(errors="replace")
        if number != str(FORMAT):
            raise KalloctraceError(
                f"cannot read {self.path}",
                f"its format is {number}, this version reads {FORMAT}",
                "read it with the kalloctrace that recorded it, or a newer one",
            )
        try:
            snapshot = Snapshot.from_json(json.loads(metadata[SNAPSHOT_KEY]))
            recording: dict[str, Any] = dict(json.loads(metadata[RECORDING_KEY]))
        except (KalloctraceError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged(f"its metadata is damaged: {error!r}") from error
        have = self._reader.schema
        for column in COLUMNS:
            index = have.get_field_index(column.name)
            if index < 0 and column.name in LATER:
                continue
            if index < 0 or have.field(index).type != column.type:
                raise self._damaged(f"its column {column.name} is missing or of another type")
        return snapshot, recording

    def _damaged(self, why: str) -> KalloctraceError:
        return KalloctraceError(f"cannot read {self.path}", why, "record it again")

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, a batch at a time, up to the end or to where the file was cut off."""
        while True:
            try:
                batch, metadata = self._reader.read_next_batch_with_custom_metadata()
                batch.validate(full=True)
            except StopIteration:
                break
            except (OSError, pa.ArrowException) as error:
                self._damage = _first_line(error)
                break
            if metadata is not None and TOTALS_KEY in metadata:
                try:
                    self.totals = Totals.from_json(json.loads(metadata[TOTALS_KEY]))
                except (KeyError, ValueError, TypeError) as error:
                    self._damage = f"its totals are damaged: {error!r}"
            if batch.num_rows:
                yield _complete(batch)
        self._ended = True

    @property
    def truncated(self) -> bool:
        """Tell whether the end of the recording is missing; known once `batches` has come to its end."""
        return self._ended and self.totals is None

    @property
    def damage(self) -> str:
        """Return what stopped the reading, empty where the file simply ended."""
        return self._damage


def _complete(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the columns of today: in their order, with those that came later."""
    columns = [
        batch.column(field.name)
        if field.name in batch.schema.names
        else pa.array([LATER[field.name]], field.type).take(pa.repeat(pa.scalar(0, pa.int32()), batch.num_rows))
        for field in COLUMNS
    ]
    return pa.RecordBatch.from_arrays(columns, schema=COLUMNS)


def read_snapshot(path: Path) -> Snapshot:
    """Return the kernel and machine that a trace was recorded on.

    Raises:
        KalloctraceError: the file is no trace, or is of a newer format.
    """
    with TraceReader(path) as trace:
        return trace.snapshot


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
