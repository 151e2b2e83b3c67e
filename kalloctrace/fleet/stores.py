# SPDX-License-Identifier: MIT
"""Where a dataset is: a folder of this machine, or a place that fsspec knows, such as an object store.

A file is complete under its name, or not there at all. In a folder it is renamed when it is written; an object store
shows an object as a whole when its upload ends.
"""

import fcntl
import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.output.files import complete_output
from kalloctrace.output.folders import create_folder
from kalloctrace.output.opened import cannot_write
from kalloctrace.text import file_name

ARGUMENT = "DATASET"
_LOCK = "_lock"
_AT_ONCE = 1 << 24
"""Bytes that are uploaded in one step, as each commit is."""
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


class Store(ABC):
    """A place of files. Each is named by its path in the store, with slashes.

    Attributes:
        folder: of this machine; None elsewhere.
        filesystem: of fsspec; None for a folder of this machine.
    """

    folder: Path | None = None
    filesystem: Any = None

    @abstractmethod
    def label(self, place: str = "") -> str:
        """Return the name of the store, or of a file in it, for people."""

    @abstractmethod
    def address(self, place: str) -> str:
        """Return what an engine reads a file by."""

    @abstractmethod
    def create(self, folder: str) -> None:
        """Create a folder, where the store has some.

        Raises:
            KalloctraceError: it cannot be created.
        """

    @abstractmethod
    def names(self, folder: str = "") -> list[str] | None:
        """Return the names of what is in a folder; None if it is not there."""

    @abstractmethod
    def below(self, folder: str) -> list[str]:
        """Return all files below a folder."""

    @abstractmethod
    def sizes(self, places: Iterable[str]) -> Iterator[tuple[str, int | None]]:
        """Yield files with their bytes; None for one that is not there."""

    @abstractmethod
    def open(self, place: str) -> IO[bytes]:
        """Open a file to read it at any position.

        Raises:
            OSError: it cannot be read.
        """

    @abstractmethod
    def written(self, place: str) -> Any:  # noqa: ANN401 (a context manager of a file)
        """Return a context manager of a new file, which is there when the block ends.

        Raises:
            KalloctraceError: it cannot be written.
        """

    @abstractmethod
    def remove(self, place: str) -> bool:
        """Remove a file, and return whether that was possible."""

    @abstractmethod
    def sync(self, folders: Iterable[str]) -> None:
        """Make the names of files in folders outlast a loss of power.

        Raises:
            OSError: they may not.
        """

    @abstractmethod
    def locked(self, how: int) -> Any:  # noqa: ANN401 (a context manager)
        """Return a context manager that holds the lock, as of flock, and yields whether it does."""

    def read(self, place: str) -> bytes:
        """Return a file.

        Raises:
            OSError: it cannot be read.
        """
        with self.open(place) as file:
            return file.read()


class _FolderStore(Store):
    """A folder of this machine.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.folder = self._path = path

    def label(self, place: str = "") -> str:
        return file_name(self._path / place)

    def address(self, place: str) -> str:
        return os.path.abspath(self._path / place)  # noqa: PTH100 (links stay as they are named)

    def create(self, folder: str) -> None:
        create_folder(self._path / folder, ARGUMENT)

    def names(self, folder: str = "") -> list[str] | None:
        path = self._path / folder
        return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else None

    def below(self, folder: str) -> list[str]:
        return [p.relative_to(self._path).as_posix() for p in (self._path / folder).rglob("*") if p.is_file()]

    def sizes(self, places: Iterable[str]) -> Iterator[tuple[str, int | None]]:
        for place in places:
            try:
                yield place, (self._path / place).stat().st_size
            except OSError:
                yield place, None

    def open(self, place: str) -> IO[bytes]:
        return (self._path / place).open("rb")

    @contextmanager
    def written(self, place: str) -> Iterator[IO[bytes]]:
        with complete_output(self._path / place, overwrite=False, option=ARGUMENT) as file:
            yield file

    def remove(self, place: str) -> bool:
        try:
            (self._path / place).unlink()
        except OSError:
            return False
        return True

    def sync(self, folders: Iterable[str]) -> None:
        for folder in folders:
            descriptor = os.open(self._path / folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @contextmanager
    def locked(self, how: int) -> Iterator[bool]:
        try:
            lock = os.open(self._path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            # A dataset that one may only read: nobody who may write it can be kept waiting.
            yield False
            return
        try:
            try:
                fcntl.flock(lock, how)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(lock)


class _RemoteStore(Store):
    """A place that fsspec knows.

    It needs neither a rename nor a lock: nobody changes or reads a file before a commit names it, and a commit is one
    upload. So nothing is removed while others may read, which nobody can know here.

    Args:
        url: of the place.

    Raises:
        KalloctraceError: nothing here knows the protocol.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        try:
            from fsspec.core import url_to_fs  # noqa: PLC0415 (an extra)

            self.filesystem, self._root = url_to_fs(self._url)
        except (ImportError, ValueError, OSError) as error:
            fix = "pip install 'kalloctrace[fleet]' and the package of fsspec for this protocol"
            raise KalloctraceError(f"cannot use {self.label()}", _why(error), fix, Exit.USAGE) from error

    def label(self, place: str = "") -> str:
        return file_name(self.address(place) if place else self._url)

    def address(self, place: str) -> str:
        return f"{self._url}/{place}"

    def _path(self, place: str) -> str:
        return f"{self._root}/{place}" if place else self._root

    def create(self, folder: str) -> None:
        # An object store has no folders, and a file brings those that it needs.
        with suppress(OSError):
            self.filesystem.makedirs(self._path(folder), exist_ok=True)

    def names(self, folder: str = "") -> list[str] | None:
        self.filesystem.invalidate_cache()
        try:
            found = self.filesystem.ls(self._path(folder), detail=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(folder, error) from error
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def below(self, folder: str) -> list[str]:
        return [place for place, _ in self._found(folder)]

    def _found(self, folder: str) -> Iterator[tuple[str, int]]:
        self.filesystem.invalidate_cache()
        try:
            for path, about in self.filesystem.find(self._path(folder), detail=True).items():
                yield str(path)[len(self._root) :].lstrip("/"), int(about["size"])
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failed(folder, error) from error

    def sizes(self, places: Iterable[str]) -> Iterator[tuple[str, int | None]]:
        found = dict(self._found(""))
        return ((place, found.get(place)) for place in places)

    def open(self, place: str) -> IO[bytes]:
        opened: IO[bytes] = self.filesystem.open(self._path(place), "rb")
        return opened

    @contextmanager
    def written(self, place: str) -> Iterator[IO[bytes]]:
        try:
            with tempfile.TemporaryFile() as file:
                yield file
                size = file.seek(0, os.SEEK_END)
                file.seek(0)
                if size <= _AT_ONCE:
                    self.filesystem.pipe_file(self._path(place), file.read())
                else:
                    with self.filesystem.open(self._path(place), "wb") as there:
                        shutil.copyfileobj(file, there, _AT_ONCE)
        except OSError as error:
            raise cannot_write(self.label(place), error, ARGUMENT) from error

    def remove(self, place: str) -> bool:
        try:
            self.filesystem.rm_file(self._path(place))
        except OSError:
            return False
        return True

    def sync(self, folders: Iterable[str]) -> None:
        """Do nothing: an upload that has ended is stored."""

    @contextmanager
    def locked(self, how: int) -> Iterator[bool]:
        yield how & fcntl.LOCK_SH != 0

    def _failed(self, place: str, error: Exception) -> KalloctraceError:
        fix = "check the address and your rights there"
        return KalloctraceError(f"cannot read {self.label(place)}", _why(error), fix)


def store_of(place: str | Path) -> Store:
    """Return the store that a path or a URL names; file:// is a folder of this machine.

    Raises:
        KalloctraceError: nothing here knows the URL.
    """
    if isinstance(place, Path) or (found := _URL.match(place)) is None:
        return _FolderStore(Path(place))
    if found[1].lower() == "file":
        return _FolderStore(Path(unquote(urlsplit(place).path)))
    return _RemoteStore(place)


def _why(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
