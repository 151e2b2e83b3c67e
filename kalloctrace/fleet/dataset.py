# SPDX-License-Identifier: MIT
"""A dataset on disk: Parquet files, and commits that name the files which count.

A commit is a small file in `_commits/`, written last and in one step. It names the files of one `fleet add`, with their
sizes, and the commits that it replaces. A file that no commit names does not count, whoever left it there. Several
processes may write at once, because none changes what another one wrote: two versions of one recording are told apart
when the dataset is read, by their extent.
"""

import fcntl
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Self
from urllib.parse import quote

import pyarrow as pa
from pyarrow import parquet

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.fleet.stores import ARGUMENT, Store, store_of
from kalloctrace.fleet.tables import FLEET_TABLES, NEEDED, PARTITIONED, SCHEMA
from kalloctrace.kernel.shapes import U53, array, integer, parse_json, record, text
from kalloctrace.output.files import complete_output
from kalloctrace.output.opened import cannot_write
from kalloctrace.text import file_name, shell_word

_COMMITS, _SECRET = "_commits", "_secret"
_SUFFIX = ".json"
_MOST_BYTES = 16 << 20
_PLAIN = re.compile(r"[A-Za-z0-9_./=%+~-]+")
_GROUP_ROWS = 1 << 18
_FIX_FILE = "restore this file from a copy, or add the traces to a new dataset"

_FILE = record({"table": text(64), "path": text(4096), "rows": integer(0, U53), "bytes": integer(0, U53)})
_COMMIT = record(
    {"schema": integer(0, U53), "files": array(_FILE, 1 << 20), "replaces": array(text(256), 1 << 20)},
)


@dataclass(frozen=True)
class DataFile:
    """A Parquet file of a dataset.

    Attributes:
        table: the table that it has rows of.
        path: its place in the dataset.
        rows: how many.
        size: its bytes.
    """

    table: str
    path: str
    rows: int
    size: int


@dataclass(frozen=True)
class Commit:
    """What was written at once.

    Attributes:
        name: the commit's own.
        files: the files that count.
        replaces: names of commits that do not count any more.
    """

    name: str
    files: tuple[DataFile, ...]
    replaces: tuple[str, ...] = ()


@dataclass
class Dataset:
    """A dataset as it was when it was opened.

    Attributes:
        store: where it is.
        commits: those that count.
        replaced: those that others replace, whose files may still be there.
    """

    store: Store
    commits: list[Commit] = field(default_factory=list)
    replaced: list[Commit] = field(default_factory=list)

    @classmethod
    @contextmanager
    def opened(cls, path: Path | str, *, create: bool = False) -> Iterator[Self]:
        """Yield a dataset whose files are whole; none of them is removed while the block runs.

        Args:
            path: its folder, or a URL that fsspec knows.
            create: make it if it is not there.

        Raises:
            KalloctraceError: it is no dataset, it is damaged, or a newer version wrote it.
        """
        store = store_of(path)
        names = store.names()
        if create:
            if names and _COMMITS not in names:
                what, why = f"will not add to {store.label()}", "the folder has other files, and is no dataset"
                raise KalloctraceError(what, why, "name a new or empty folder")
            store.create(_COMMITS)
        elif names is None or _COMMITS not in names:
            why = "there is no such folder" if names is None else "the folder is no dataset"
            fix = f"make one: kalloctrace fleet add {shell_word(path)} TRACE..."
            raise KalloctraceError(f"cannot read {store.label()}", why, fix)
        dataset = cls(store)
        with store.locked(fcntl.LOCK_SH):
            dataset.read()
            dataset._check_sizes()
            yield dataset

    @property
    def name(self) -> str:
        """Return its name for people: that of its folder, or the last part of its URL."""
        return self.store.label().rpartition("/")[2]

    def read(self) -> None:
        """Read the commits again."""
        found = [self._commit(name) for name in self._names()]
        gone = {name for commit in found for name in commit.replaces}
        self.commits = [commit for commit in found if commit.name not in gone]
        self.replaced = [commit for commit in found if commit.name in gone]
        self.__dict__.pop("stale", None)

    def _names(self) -> list[str]:
        return [name for name in self.store.names(_COMMITS) or () if name.endswith(_SUFFIX)]

    def _commit(self, name: str) -> Commit:
        place = f"{_COMMITS}/{name}"
        try:
            data = parse_json(self.store.read(place), _MOST_BYTES)
            schema = data.get("schema") if isinstance(data, dict) else None
            self._refuse_newer(schema)
            _COMMIT(data, "")
            files = tuple(DataFile(f["table"], f["path"], f["rows"], f["bytes"]) for f in data["files"])
            _check_places(files)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            fix = "restore this file from a copy, or move it away, without what it added"
            raise KalloctraceError(
                f"cannot read {self.store.label(place)}", f"the commit is damaged: {why}", fix
            ) from error
        return Commit(name, files, tuple(data["replaces"]))

    def _refuse_newer(self, schema: object) -> None:
        if isinstance(schema, int) and schema > SCHEMA:
            raise KalloctraceError(
                f"cannot read {self.store.label()}",
                f"its schema is {schema}, this version reads up to {SCHEMA}",
                "read it with the kalloctrace that wrote it, or a newer one",
            )

    def _check_sizes(self) -> None:
        wanted = {data.path: data.size for data in self.files()}
        for place, size in self.store.sizes(wanted):
            if size != wanted[place]:
                why = "it is missing" if size is None else f"it has {size:,} bytes in place of {wanted[place]:,}"
                raise KalloctraceError(f"cannot read {self.store.label(place)}", why, _FIX_FILE)

    def files(self, *tables: str) -> Iterator[DataFile]:
        """Yield the files that count, of these tables or of all."""
        for commit in self.commits:
            for data in commit.files:
                if not tables or data.table in tables:
                    yield data

    def paths(self, table: str) -> list[str]:
        """Return the paths of a table's files."""
        return [self.store.address(data.path) for data in self.files(table)]

    def check_columns(self, table: str) -> None:
        """Refuse a table whose first file lacks a column that every version writes, as one of another table does.

        Raises:
            KalloctraceError: a column is missing, or the file is damaged.
        """
        for data in islice(self.files(table), 1):
            with self._opened(data.path, FLEET_TABLES[table]):
                pass

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return columns of a table as they are stored: all rows that were committed.

        Raises:
            KalloctraceError: a file is damaged.
        """
        return self.read_files(name, self.files(name), columns)

    def read_files(self, name: str, files: Iterable[DataFile], columns: list[str] | None = None) -> pa.Table:
        """Return columns of some files of a table; one that an older version did not write is null.

        Raises:
            KalloctraceError: a file is damaged, or lacks a column that every version writes.
        """
        schema = FLEET_TABLES[name]
        read = schema if columns is None else pa.schema([schema.field(column) for column in columns])
        read = read.remove_metadata()
        parts = [self._read(data.path, read) for data in files]
        return pa.concat_tables([read.empty_table(), *parts])

    @contextmanager
    def _opened(self, place: str, schema: pa.Schema) -> Iterator[parquet.ParquetFile]:
        """Yield a Parquet file that has the columns of a schema, but for those that may be missing."""
        try:
            # Not as a dataset, which would take columns from the names of folders.
            with self.store.open(place) as opened, parquet.ParquetFile(opened) as file:
                missing = [name for name in schema.names if name in NEEDED and name not in file.schema_arrow.names]
                if missing:
                    why = f"it has no column {missing[0]}, which every version writes"
                    raise KalloctraceError(f"cannot read {self.store.label(place)}", why, _FIX_FILE)
                yield file
        except (OSError, pa.ArrowException) as error:
            why = str(error).partition("\n")[0] or type(error).__name__
            raise KalloctraceError(f"cannot read {self.store.label(place)}", why, _FIX_FILE) from error

    def _read(self, place: str, schema: pa.Schema) -> pa.Table:
        with self._opened(place, schema) as file:
            part = file.read(columns=[name for name in schema.names if name in file.schema_arrow.names])
        columns = [
            part[f.name].cast(f.type) if f.name in part.column_names else pa.nulls(len(part), f.type) for f in schema
        ]
        return pa.table(columns, schema=schema)

    @cached_property
    def stale(self) -> frozenset[int]:
        """Return the keys of recordings that do not count, because a longer version is there, or the same one."""
        rows = self.table("recordings", ["recording_id", "extent", "recording_key"])
        best: dict[str, tuple[int, int]] = {}
        keys = set()
        for name, extent, key in zip(*(rows[column].to_pylist() for column in rows.column_names), strict=True):
            best[name] = max(best.get(name, (-1, -1)), (extent, key))
            keys.add(key)
        return frozenset(keys - {key for _, key in best.values()})

    def extents(self) -> dict[str, int]:
        """Return the extent of the longest version of each recording."""
        rows = self.table("recordings", ["recording_id", "extent"])
        found: dict[str, int] = {}
        for name, extent in zip(*(rows[column].to_pylist() for column in rows.column_names), strict=True):
            found[name] = max(found.get(name, -1), extent)
        return found

    def files_added(self) -> set[tuple[str, int]]:
        """Return the id of each recording with the key of each file of it that was added."""
        rows = self.table("recordings", ["recording_id", "file_key"])
        return {pair for pair in zip(*(column.to_pylist() for column in rows.columns), strict=True) if None not in pair}

    def keys(self, table: str, key: str) -> set[int]:
        """Return all values of a key."""
        return set(self.table(table, [key])[key].to_pylist())

    def secret(self, make: Callable[[], bytes]) -> bytes:
        """Return the dataset's secret, which its owner alone can read; it is made once.

        Args:
            make: returns a new one.

        Raises:
            KalloctraceError: it can be neither read nor written, or would not stay one.
        """
        if self.store.folder is None:
            why, fix = "others may read all that is there", "add to a folder of this machine, and copy it"
            raise KalloctraceError(f"cannot keep a secret in {self.store.label()}", why, fix, Exit.USAGE)
        path = self.store.folder / _SECRET
        if not path.exists():
            # Whoever is first makes it.
            with (
                suppress(KalloctraceError),
                complete_output(path, overwrite=False, private=True, option=ARGUMENT) as file,
            ):
                file.write(make())
        try:
            return path.read_bytes()
        except OSError as error:
            why, fix = error.strerror or str(error), "run this as the owner of the dataset"
            raise KalloctraceError(f"cannot read {file_name(path)}", why, fix) from error

    def remove_unused(self) -> int | None:
        """Remove files that no commit names, and replaced commits with their files.

        Returns:
            How many files; None if somebody is using the dataset, so that nothing was removed.
        """
        with self.store.locked(fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
            if not alone:
                return None
            self.read()
            used = {data.path for data in self.files()}
            # The commits first: what they name may be missing from now on.
            for commit in self.replaced:
                self.store.remove(f"{_COMMITS}/{commit.name}")
            there = (place for table in FLEET_TABLES for place in self.store.below(table))
            removed = sum(self.store.remove(place) for place in there if place not in used)
            self.read()
            return removed


class Writing:
    """Files of one commit, which count when it is finished.

    Args:
        dataset: where to.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._store = dataset.store
        self.token = secrets.token_hex(16)
        self._files: list[DataFile] = []
        self._places: list[str] = []
        self._commit_name = f"{self.token}{_SUFFIX}"

    def write(self, table: str, rows: pa.Table, *, day: str, kernel: str) -> None:
        """Write rows of a table as a file.

        Args:
            table: its name.
            rows: with its columns.
            day: of the recordings, where the table has a folder for each.
            kernel: their kernel's release, likewise.

        Raises:
            KalloctraceError: it cannot be written.
        """
        parted = table in PARTITIONED
        self.write_into(table, f"{table}/day={_folder(day)}/kernel={_folder(kernel)}" if parted else table, rows)

    def write_into(self, table: str, folder: str, rows: pa.Table) -> None:
        """Write rows of a table as a file in a folder of the dataset.

        Raises:
            KalloctraceError: it cannot be written.
        """
        if not rows.num_rows:
            return
        place = f"{folder}/{self.token}.parquet"
        self._store.create(folder)
        schema = FLEET_TABLES[table]
        # A signal may come before the next line ends.
        self._places.append(place)
        with self._store.written(place) as file:
            with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
                writer.write_table(rows.cast(schema), row_group_size=_GROUP_ROWS)
            size = file.tell()
        self._files.append(DataFile(table, place, rows.num_rows, size))

    def commit(self, replaces: Iterable[str] = ()) -> None:
        """Make the files count, in one step.

        Raises:
            KalloctraceError: the commit cannot be written.
        """
        files = [{"table": f.table, "path": f.path, "rows": f.rows, "bytes": f.size} for f in self._files]
        commit = {"schema": SCHEMA, "files": files, "replaces": sorted(replaces)}
        place = f"{_COMMITS}/{self._commit_name}"
        try:
            self._store.sync({data.path.rpartition("/")[0] for data in self._files})
            with self._store.written(place) as file:
                file.write(json.dumps(commit, ensure_ascii=True).encode())
            self._store.sync([_COMMITS])
        except OSError as error:
            raise cannot_write(self._store.label(place), error, ARGUMENT) from error

    def discard(self) -> None:
        """Remove the files, unless they count already: a signal may come just after the commit."""
        if self._commit_name not in (self._store.names(_COMMITS) or ()):
            for place in self._places:
                self._store.remove(place)


@contextmanager
def writing(dataset: Dataset) -> Iterator[Writing]:
    """Yield files to write; they are removed if the block raises."""
    files = Writing(dataset)
    try:
        yield files
    except BaseException:
        files.discard()
        raise


def _check_places(files: Iterable[DataFile]) -> None:
    for data in files:
        if not _PLAIN.fullmatch(data.path) or ".." in data.path or data.path.startswith("/"):
            raise ValueError(f"{data.path} is no place in a dataset")


def _folder(value: str) -> str:
    """Return a value as the name of a Hive folder."""
    return quote(value, safe="+~") or "unknown"
