# SPDX-License-Identifier: MIT
"""Writes the tables of a trace: a Parquet file each, or all into one DuckDB file."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import IO, Any

import pyarrow as pa
from pyarrow import parquet

from kalloctrace.console import json_text
from kalloctrace.errors import KalloctraceError
from kalloctrace.output.temporary import scratch_folder
from kalloctrace.report.export.tables.columns import TABLES
from kalloctrace.report.export.tables.rows import (
    Allocations,
    Row,
    SlowCalls,
    Stacks,
    Texts,
    flag_rows,
    group_rows,
    recording_row,
    snapshot_text,
)
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.trace.schema import RECORDING_KEY, SNAPSHOT_KEY

Create = Callable[[str], AbstractContextManager[IO[bytes]]]
"""Creates the file of a name."""

_DUCKDB: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "384MiB", "threads": 2}
"""Without a limit it takes most of the memory of the machine for a long trace."""
_BATCH_ROWS = 1 << 15
_GROUP_ROWS = 1 << 18
_PYTHON_ROWS = 1 << 12
"""Rows of tables that are made one by one; those of a call of the slow path have a kilobyte each."""


def write_tables(trace: TraceReader, create: Create) -> Ending:
    """Write all tables in one pass; memory grows with the distinct allocations and stacks, not with the calls.

    Args:
        trace: the trace.
        create: creates the file of a table.

    Returns:
        How the trace ends.
    """
    metadata = {SNAPSHOT_KEY: snapshot_text(trace.snapshot), RECORDING_KEY: json_text(trace.recording)}
    texts, stacks, groups = Texts(trace.snapshot.tables), Stacks(), set[str]()
    allocations, slow_calls = Allocations(texts, stacks, groups), SlowCalls(texts, stacks, groups)
    with ExitStack() as files:
        tables = {name: files.enter_context(_table(name, create, metadata)) for name in TABLES}

        def add_rows(rows: RowBatch) -> None:
            for part in rows.slices(_BATCH_ROWS):
                tables["allocations"].add_batch(allocations.batch(part))

        def add_slow_call(call: Row) -> None:
            for name, row in slow_calls.rows(call):
                tables[name].add(row)

        ending = trace.read(add_rows, add_slow_call)
        for row in stacks.rows(trace.snapshot.features.entry):
            tables["stacks"].add(row)
        for row in group_rows(groups, ending.containers):
            tables["cgroups"].add(row)
        for row in flag_rows(trace.snapshot.tables):
            tables["flags"].add(row)
        tables["recording"].add(recording_row(trace, ending))
    return ending


class _Table:
    """A table that is being written."""

    def __init__(self, writer: parquet.ParquetWriter, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._waiting = 0
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) >= _PYTHON_ROWS:
            self._convert()

    def add_batch(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)
        self._waiting += batch.num_rows
        if self._waiting >= _GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        self._convert()
        self._flush()

    def _convert(self) -> None:
        if self._rows:
            self.add_batch(pa.RecordBatch.from_pylist(self._rows, self._schema))
            self._rows = []

    def _flush(self) -> None:
        if self._batches:
            self._writer.write_table(pa.Table.from_batches(self._batches, self._schema))
            self._batches, self._waiting = [], 0


@contextmanager
def _table(name: str, create: Create, metadata: dict[bytes, str]) -> Iterator[_Table]:
    schema = TABLES[name]
    described = schema.with_metadata({**schema.metadata, **metadata})
    with create(f"{name}.parquet") as file, parquet.ParquetWriter(file, described, compression="zstd") as writer:
        table = _Table(writer, described)
        yield table
        table.finish()


def require_duckdb() -> None:
    """Refuse to write a DuckDB file where the library is missing.

    Raises:
        KalloctraceError: it is.
    """
    try:
        import duckdb  # noqa: F401, PLC0415 (an extra)
    except ImportError:
        raise KalloctraceError(
            "cannot write a DuckDB file",
            "duckdb is not installed",
            "pip install 'kalloctrace[duckdb]', or choose --format tables",
        ) from None


def write_duckdb(trace: TraceReader, stream: IO[bytes]) -> Ending:
    """Write all tables into one DuckDB file, with their descriptions as comments.

    The database is made in the system's folder for temporary files (TMPDIR), because DuckDB writes no streams.

    Args:
        trace: the trace.
        stream: where to write the file.
    """
    import duckdb  # noqa: PLC0415 (an extra)

    with scratch_folder() as folder:
        ending = write_tables(trace, lambda name: (folder / name).open("wb"))
        database = folder / "tables.duckdb"
        try:
            with duckdb.connect(os.fspath(database), config=_DUCKDB) as connection:
                for name, schema in TABLES.items():
                    path = _literal(os.fspath(folder / f"{name}.parquet"))
                    connection.execute(f"CREATE TABLE {name} AS FROM read_parquet({path})")
                    connection.execute(f"COMMENT ON TABLE {name} IS {_about(schema)}")
                    for field in schema:
                        connection.execute(f"COMMENT ON COLUMN {name}.{field.name} IS {_about(field)}")
        except duckdb.Error as error:
            # Among others: a full disk, which DuckDB reports in its own words.
            raise KalloctraceError(
                "cannot make the DuckDB file",
                str(error).partition("\n")[0],
                "free some space, name another folder with the variable TMPDIR, or choose --format tables",
            ) from error
        with database.open("rb") as made:
            shutil.copyfileobj(made, stream)
    return ending


def _about(described: Any) -> str:  # noqa: ANN401 (a schema or a field; pyarrow has no types)
    return _literal(described.metadata[b"about"].decode())


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'"
