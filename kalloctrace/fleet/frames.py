# SPDX-License-Identifier: MIT
"""What a question gets and returns: frames of Narwhals, which any engine evaluates; the questions know none."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, ClassVar, TypeVar

import narwhals as nw
import pyarrow as pa

from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.tables import FLEET_TABLES, JUDGED, PARTITIONED, SHARED

Frame = nw.LazyFrame[Any]
Tables = Mapping[str, Frame]
"""The tables of a dataset, with the rows that count, each once."""
Batches = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
"""Makes batches of rows from others."""

_T = TypeVar("_T")
_AGAIN = 0.1
"""Seconds between two attempts to end an answer."""


class Refused(Exception):  # noqa: N818 (the caller knows whether it is an error of the query)
    """The engine does not understand a query, or fails to answer it; the text says why, on one line."""


class Engine(ABC):
    """An engine that is running.

    Attributes:
        has_executors: whether it has Python on other machines too.
    """

    has_executors: ClassVar[bool] = False

    @abstractmethod
    def read(self, paths: list[str], schema: pa.Schema) -> Any:  # noqa: ANN401 (a frame of its own)
        """Return the rows of Parquet files.

        Args:
            paths: at least one.
            schema: the columns; those that a file lacks are null.
        """

    @abstractmethod
    def hold(self, table: pa.Table) -> Any:  # noqa: ANN401 (likewise)
        """Return a table that is in memory."""

    @abstractmethod
    def reach(self, dataset: Dataset) -> None:
        """Make the files of a dataset known, where the engine does not know their place itself."""

    @abstractmethod
    def name_table(self, name: str, frame: Any) -> None:  # noqa: ANN401 (likewise)
        """Give one of its own frames a name for `sql`."""

    @abstractmethod
    def run_sql(self, query: str) -> pa.Table | None:
        """Do what `sql` says."""

    @abstractmethod
    def cancel(self) -> None:
        """End what it is answering, if it is; called from another thread."""

    def sql(self, query: str) -> pa.Table | None:
        """Return the answer to a query in its own SQL, which also has the function has_flag; None if it has no rows.

        Raises:
            Refused: it cannot be answered.
        """
        return self._waited(lambda: self.run_sql(query))

    def arrow(self, frame: Frame) -> pa.Table:
        """Return an answer as an Arrow table."""
        table: pa.Table = self._waited(lambda: frame.collect("pyarrow").to_native())
        return table

    def rows(self, frame: Frame) -> list[dict[str, Any]]:
        """Return the rows of a small answer."""
        rows: list[dict[str, Any]] = self.arrow(frame).to_pylist()
        return rows

    def _waited(self, work: Callable[[], _T]) -> _T:
        """Return what is made in a thread, so that a signal reaches this one at once, and ends the work."""
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(work)
            try:
                return answer.result()
            except BaseException:
                # It may not have begun yet.
                while wait([answer], _AGAIN).not_done:
                    self.cancel()
                raise

    def share(self) -> float:
        """Return the finished share of what it is answering, from 0 to 1, as far as it knows; for another thread."""
        return 0.0

    def on_executors(self, frame: Frame, work: Batches, schema: pa.Schema) -> Frame:
        """Return what other machines make of the rows of a frame.

        Args:
            frame: its rows come in any order, in many batches.
            work: runs there.
            schema: of what it returns.
        """
        raise NotImplementedError

    def tables(self, dataset: Dataset) -> Tables:
        """Return the tables of a dataset, which must stay open for as long as they are used.

        Raises:
            KalloctraceError: a file is damaged, or belongs to another table.
        """
        self.reach(dataset)
        return self._waited(lambda: {name: self._table(dataset, name) for name in FLEET_TABLES})

    def _table(self, dataset: Dataset, name: str) -> Frame:
        dataset.check_columns(name)
        paths, schema = dataset.paths(name), FLEET_TABLES[name].remove_metadata()
        native = self.read(paths, schema) if paths else self.hold(schema.empty_table())
        frame: Frame = nw.from_native(native).lazy()
        if name in SHARED:
            return frame.unique(subset=FLEET_TABLES[name].names[:1], keep="any")
        if name in JUDGED:
            return frame.unique(keep="any")
        if name in PARTITIONED and dataset.stale:
            stale = pa.table({"recording_key": pa.array(sorted(dataset.stale), pa.int64())})
            return frame.join(nw.from_native(self.hold(stale)).lazy(), on="recording_key", how="anti")
        return frame
