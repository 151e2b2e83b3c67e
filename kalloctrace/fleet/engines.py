# SPDX-License-Identifier: MIT
"""The engine that answers, and the tables that it gets, as frames of Narwhals: the questions know no engine."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import narwhals as nw
import pyarrow as pa

from kalloctrace.errors import KalloctraceError
from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.tables import FLEET_TABLES, JUDGED, PARTITIONED, SHARED

Frame = nw.LazyFrame[Any]
Tables = Mapping[str, Frame]
"""The tables of a dataset, with the rows that count, each once."""

MEMORY = "2g"


@dataclass(frozen=True)
class Engine:
    """An engine that is running.

    Attributes:
        read: returns a table of Parquet files.
        hold: returns a table that is in memory.
        native: its own connection.
    """

    read: Callable[[list[str]], Any]
    hold: Callable[[pa.Table], Any]
    native: Any

    def tables(self, dataset: Dataset) -> Tables:
        """Return the tables of a dataset, which must stay open for as long as they are used."""
        return {name: self._table(dataset, name) for name in FLEET_TABLES}

    def _table(self, dataset: Dataset, name: str) -> Frame:
        paths = dataset.paths(name)
        empty = FLEET_TABLES[name].remove_metadata().empty_table()
        frame: Frame = nw.from_native(self.read(paths) if paths else self.hold(empty)).lazy()
        if name in SHARED:
            return frame.unique(subset=FLEET_TABLES[name].names[:1], keep="any")
        if name in JUDGED:
            return frame.unique(keep="any")
        if name in PARTITIONED and dataset.stale:
            stale = pa.table({"recording_key": pa.array(sorted(dataset.stale), pa.int64())})
            return frame.join(nw.from_native(self.hold(stale)).lazy(), on="recording_key", how="anti")
        return frame


@contextmanager
def engine(memory: str = MEMORY) -> Iterator[Engine]:
    """Yield an engine: DuckDB in this process.

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
    except duckdb.Error as error:
        why = str(error).partition("\n")[0]
        raise KalloctraceError("cannot start DuckDB", why, "give --memory an amount such as 2g") from error

    def read(paths: list[str]) -> Any:  # noqa: ANN401 (a relation)
        return connection.read_parquet(paths, hive_partitioning=False, union_by_name=True)

    try:
        with connection:
            yield Engine(read, connection.from_arrow, connection)
    except duckdb.Error as error:
        raise KalloctraceError(
            "DuckDB could not answer",
            str(error).partition("\n")[0],
            "give it more with --memory, or free some space in its folder for temporary files",
        ) from error


def rows_of(frame: Frame) -> list[dict[str, Any]]:
    """Return the rows of a small answer."""
    rows: list[dict[str, Any]] = arrow_of(frame).to_pylist()
    return rows


def arrow_of(frame: Frame) -> pa.Table:
    """Return an answer as an Arrow table."""
    table: pa.Table = frame.collect("pyarrow").to_native()
    return table


def _bytes_text(memory: str) -> str:
    """Return an amount of memory as DuckDB writes it: 2g is 2GiB."""
    units = {"k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB"}
    number, unit = memory[:-1], memory[-1:].lower()
    return f"{number}{units[unit]}" if unit in units else memory
