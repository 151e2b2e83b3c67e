# SPDX-License-Identifier: MIT
"""Writes a trace as it is captured: after a crash it is readable up to its last whole batch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.trace.schema import COLUMNS, FORMAT, FORMAT_KEY, RECORDING_KEY, SNAPSHOT_KEY, TOTALS_KEY
from kalloctrace.trace.totals import Totals


class TraceWriter:
    """A trace under way.

    Args:
        path: the file to make.
        snapshot: the kernel and machine that are recorded.
        recording: how the recording is made: command, filters, wall-clock time; for people.
        overwrite: replace a file of this name instead of refusing.

    Raises:
        KalloctraceError: the file exists, or cannot be made.
    """

    def __init__(
        self, path: Path, snapshot: Snapshot, recording: Mapping[str, Any], *, overwrite: bool = False
    ) -> None:
        try:
            self._file = path.open("wb" if overwrite else "xb", buffering=0)
        except FileExistsError as error:
            raise exists_already(path) from error
        except OSError as error:
            raise KalloctraceError(
                f"cannot write {path}", error.strerror or str(error), "choose another file with -o"
            ) from error
        schema = COLUMNS.with_metadata(
            {
                FORMAT_KEY: str(FORMAT),
                SNAPSHOT_KEY: json.dumps(snapshot.to_json()),
                RECORDING_KEY: json.dumps(recording),
            }
        )
        self._writer = pa.ipc.new_stream(self._file, schema, options=pa.ipc.IpcWriteOptions(compression="zstd"))
        self._schema = schema

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the stream; without `close` before, the trace counts as truncated."""
        self._writer.close()
        self._file.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Write rows; they are in the file when this returns."""
        self._writer.write_batch(batch)

    def close(self, totals: Totals) -> None:
        """Write the totals, after the last rows."""
        empty = pa.RecordBatch.from_pylist([], schema=self._schema)
        self._writer.write_batch(empty, custom_metadata={TOTALS_KEY: json.dumps(totals.to_json())})


def exists_already(path: Path) -> KalloctraceError:
    """Return the refusal to overwrite a file."""
    return KalloctraceError(
        f"will not overwrite {path}",
        "a file of this name exists",
        "choose another with -o, or add -f to replace it",
    )
