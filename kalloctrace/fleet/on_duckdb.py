# SPDX-License-Identifier: MIT
"""DuckDB, in this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from kalloctrace.errors import KalloctraceError
from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.frames import Engine, Refused

_MACRO = "CREATE TEMPORARY MACRO has_flag(mask, flag) AS (mask & flag) = flag"
_UNITS = {"k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB"}


class _DuckDB(Engine):
    """An engine over a connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def read(self, paths: list[str], schema: pa.Schema) -> Any:  # noqa: ANN401 (a relation)
        found = self._connection.read_parquet(paths, hive_partitioning=False, union_by_name=True)
        there, types = set(found.columns), self.hold(schema.empty_table()).types
        columns = (
            name if name in there else f"NULL::{kind} AS {name}" for name, kind in zip(schema.names, types, strict=True)
        )
        return found.project(", ".join(columns))

    def reach(self, dataset: Dataset) -> None:
        filesystem = dataset.store.filesystem
        if filesystem is not None:
            protocol = filesystem.protocol if isinstance(filesystem.protocol, str) else filesystem.protocol[0]
            if not self._connection.filesystem_is_registered(protocol):
                self._connection.register_filesystem(filesystem)

    def hold(self, table: pa.Table) -> Any:  # noqa: ANN401 (a relation)
        return self._connection.from_arrow(table)

    def name_table(self, name: str, frame: Any) -> None:  # noqa: ANN401 (a relation)
        frame.create_view(name)

    def cancel(self) -> None:
        self._connection.interrupt()

    def share(self) -> float:
        return max(0.0, self._connection.query_progress() / 100)

    def run_sql(self, query: str) -> pa.Table | None:
        try:
            found = self._connection.sql(query)
            # A statement such as SET has no rows.
            return None if found is None else found.to_arrow_table()
        except duckdb.Error as error:
            raise Refused(str(error).strip().partition("\n")[0]) from error


@contextmanager
def running_duckdb(memory: str) -> Iterator[Engine]:
    """Yield DuckDB.

    Args:
        memory: that it may use, such as 2g.

    Raises:
        KalloctraceError: it does not start, or cannot answer.
    """
    try:
        connection = duckdb.connect(config={"threads": os.cpu_count() or 1})
        connection.execute("SET memory_limit = $1", [_bytes_text(memory)])
        # Nobody needs the order of rows, and keeping it takes memory.
        connection.execute("SET preserve_insertion_order = false")
        # It knows how far it is only where it could print that.
        connection.execute("SET enable_progress_bar = true")
        connection.execute("SET enable_progress_bar_print = false")
        connection.execute(_MACRO)
    except duckdb.Error as error:
        why = str(error).partition("\n")[0]
        raise KalloctraceError("cannot start DuckDB", why, "give --memory an amount such as 2g") from error
    try:
        with connection:
            yield _DuckDB(connection)
    except duckdb.Error as error:
        fix = (
            "give it more with --memory, free some space in its folder for temporary files, or use --engine spark"
            if isinstance(error, duckdb.OutOfMemoryException)
            else "if a file is damaged, restore it from a copy"
        )
        raise KalloctraceError("DuckDB could not answer", str(error).partition("\n")[0], fix) from error


def _bytes_text(memory: str) -> str:
    """Return an amount of memory as DuckDB writes it: 2g is 2GiB."""
    number, unit = memory[:-1], memory[-1:].lower()
    return f"{number}{_UNITS[unit]}" if unit in _UNITS else memory
