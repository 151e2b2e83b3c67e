# SPDX-License-Identifier: MIT
"""Files that the program writes: complete under their name or not there at all, and a trace that others follow.

A complete output is a temporary file in the same folder until it is finished. Neither an error nor a signal leaves it
behind, and an existing file stays until its successor is complete.

- Existing file: refused without -f. The new file takes over its mode and owner, unless it is private.
- Symbolic link: counts as existing, wherever it leads. With -f the file that it leads to is replaced, and the link
  stays. Another user's link in a folder where everybody may write, such as /tmp, is refused.
- Character device, FIFO, /dev/stdout, /dev/fd/N: written in place, since there is nothing to replace. A block device
  needs -f.
- A file to read is refused, under any name.
- A private file, which every trace is, has mode 0600. After sudo it belongs to the user who called sudo, if the folder
  does.
"""

import atexit
import errno
import io
import os
import secrets
import select
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

from kalloctrace.errors import NO_SPACE, Exit, KalloctraceError
from kalloctrace.text import file_name

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PREFIX = ".kalloctrace-"
_MAX_LINKS = 40


class OutputFile(io.FileIO):
    """An open file whose writes are whole, or raise an error that names the file.

    Args:
        descriptor: the open file; this object closes it.
        name: of the file, for messages.
        option: the option that names the file, for messages.
    """

    def __init__(self, descriptor: int, name: str, option: str = "-o") -> None:
        super().__init__(descriptor, "wb")
        self._label = name
        self._option = option
        self._size = 0

    def write(self, data: Any, /) -> int:  # noqa: ANN401 (any object with a buffer)
        """Write all of the data.

        Raises:
            KalloctraceError: it cannot be written.
            BrokenPipeError: it is a pipe that nobody reads any more.
        """
        rest = memoryview(data).cast("B")
        size = rest.nbytes
        try:
            while rest.nbytes:
                written = super().write(rest)
                if written is None:
                    # Another process has made this open file non-blocking.
                    select.select([], [self], [])
                else:
                    rest = rest[written:]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise cannot_write(self._label, error, self._option) from error
        self._size += size
        return size

    def tell(self) -> int:
        """Return how many bytes were written: a pipe has no other position, and Parquet asks for one."""
        return self._size


@contextmanager
def complete_output(
    path: Path, *, overwrite: bool, inputs: Sequence[Path] = (), private: bool = False, option: str = "-o"
) -> Iterator[IO[bytes]]:
    """Yield a file that appears under its name when the block ends without an exception.

    Enter the block before any work, so that an output that cannot be written is refused first.

    Args:
        path: the file to write.
        overwrite: replace an existing file.
        inputs: the files that are read.
        private: its mode is 0600, also where it replaces a file that others may read.
        option: the option that names the file, for messages.

    Raises:
        KalloctraceError: the file exists, is one of the inputs (exit code 2), or cannot be written.
    """
    place = _examined(path, overwrite=overwrite, inputs=inputs, option=option)
    if place.in_place:
        with place.open() as raw:
            file = io.BufferedWriter(raw)
            yield file
            file.flush()
        return
    there = None if private else place.there
    temporary = _TemporaryFile(place)
    try:
        # The mode of the replaced file follows when the file is complete; until then it may hold less than that one.
        with place.file(temporary.create(0o666 if there is None and not private else 0o600)) as raw:
            file = io.BufferedWriter(raw)
            if private:
                _give_to_caller(raw.fileno(), place.path.parent)
            yield file
            file.flush()
            with place.errors():
                if there is not None:
                    _take_over(raw.fileno(), there)
                # Some file systems report only now that the disk is full.
                os.fsync(raw.fileno())
            temporary.publish()
    finally:
        temporary.discard()


@contextmanager
def standard_output(inputs: Sequence[Path] = ()) -> Iterator[IO[bytes]]:
    """Yield standard output as bytes, with errors that name it.

    Args:
        inputs: the files that are read.

    Raises:
        KalloctraceError: it is redirected into one of the inputs (exit code 2), or cannot be written.
    """
    sys.stdout.flush()
    place = _Place("standard output", Path(), None, sys.stdout.fileno(), in_place=True, overwrite=False, option="-o")
    _refuse_inputs(place, os.fstat(sys.stdout.fileno()), inputs)
    with place.open() as raw:
        file = io.BufferedWriter(raw)
        yield file
        file.flush()


class GrowingOutput:
    """A file that others may read while it grows, with mode 0600.

    It is created exclusively under its own name. If it replaces a file, it has a temporary name until `write_whole`
    has succeeded for the first time. Whatever happens later, what that has written stays, and nothing follows it.

    Attributes:
        file: to write to, unbuffered.

    Args:
        path: the file to write.
        overwrite: replace an existing file.

    Raises:
        KalloctraceError: the file exists or cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self._place = place = _examined(path, overwrite=overwrite)
        self._temporary: _TemporaryFile | None = None
        self._whole = 0
        self._failure: KalloctraceError | None = None
        if place.in_place:
            self.file = place.open()
            return
        if place.there is None:
            with place.errors():
                self.file = place.file(os.open(place.path, _CREATE, 0o600))
        else:
            self._temporary = _TemporaryFile(place)
            self.file = place.file(self._temporary.create(0o600))
        _give_to_caller(self.file.fileno(), place.path.parent)

    @property
    def readable(self) -> bool:
        """Return whether something whole is in the file, and more can follow."""
        return self._whole > 0 and self._failure is None

    def write_whole(self, write: Callable[[], object]) -> None:
        """Write something all of which is in the file afterwards, or nothing.

        Args:
            write: writes it.

        Raises:
            KalloctraceError: it cannot be written, or an earlier write failed.
        """
        if self._failure is not None:
            raise self._failure
        try:
            write()
            if self._temporary is not None and not self._whole:
                self._temporary.publish()
                self._temporary.discard()
        except BaseException as error:
            self._failure = self._described(error)
            with suppress(OSError):
                os.ftruncate(self.file.fileno(), self._whole)
            if isinstance(error, KalloctraceError | OSError):
                raise self._failure from error
            raise
        self._whole = self.file.tell()

    def _described(self, error: BaseException) -> KalloctraceError:
        if isinstance(error, KalloctraceError):
            what, why, fix = error.what, error.why, error.fix
        else:
            system = error if isinstance(error, OSError) else OSError(f"writing was interrupted: {error!r}")
            described = cannot_write(self._place.name, system, self._place.option)
            what, why, fix = described.what, described.why, described.fix
        return KalloctraceError(what, f"{why}; what was written before can be read" if self._whole else why, fix)

    def close(self) -> None:
        """Close the file; remove it if nothing of it is whole."""
        with self.file:
            if not self._whole:
                self._remove()
            elif self._failure is None and not self._place.in_place:
                with self._place.errors():
                    os.fsync(self.file.fileno())

    def _remove(self) -> None:
        if self._temporary is not None:
            self._temporary.discard()
        elif not self._place.in_place:
            with suppress(OSError):
                if os.path.samestat(self._place.path.lstat(), os.fstat(self.file.fileno())):
                    self._place.path.unlink()


def require_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written, before long work.

    Raises:
        KalloctraceError: the file exists, or its folder is missing or read-only.
    """
    place = _examined(path, overwrite=overwrite)
    if not place.in_place and not os.access(place.path.parent, os.W_OK | os.X_OK):
        read_only = os.statvfs(place.path.parent).f_flag & os.ST_RDONLY
        code = errno.EROFS if read_only else errno.EACCES
        raise cannot_write(place.name, OSError(code, os.strerror(code)), place.option)


def create_folder(path: Path, option: str = "-o") -> None:
    """Create a folder for outputs, with those above it, unless it exists.

    Args:
        path: the folder.
        option: the option that names it, for messages.

    Raises:
        KalloctraceError: it cannot be created, or is something else.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        not_a_folder = OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        raise cannot_write(file_name(path), not_a_folder, option) from error
    except OSError as error:
        raise cannot_write(file_name(path), error, option) from error


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder in another one; it is removed with its contents, also after a signal.

    Args:
        folder: the other folder.

    Raises:
        OSError: it cannot be created.
    """
    temporary = _TemporaryFolder(folder / f"{_PREFIX}{secrets.token_hex(8)}")
    try:
        temporary.path.mkdir(mode=0o700)
        yield temporary.path
    finally:
        temporary.discard()


def cannot_write(name: str, error: OSError, option: str) -> KalloctraceError:
    """Return the error for a file that the system does not let us write.

    Args:
        name: of the file.
        error: the system's error.
        option: the option that names the file.
    """
    why, fix = error.strerror or str(error), f"choose another file with {option}"
    match error.errno:
        case number if number in NO_SPACE:
            fix = f"free some space, or choose another place with {option}"
        case errno.ENOENT:
            why, fix = "its folder does not exist", f"create the folder, or choose another with {option}"
        case errno.ENOTDIR:
            why = "a part of its path is not a folder"
        case errno.EISDIR:
            why, fix = "it is a folder", f"name a file with {option}"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            fix = f"choose a folder in which you may create files, with {option}"
    return KalloctraceError(f"cannot write {name}", why, fix)


@dataclass(frozen=True)
class _Place:
    """Where an output goes.

    Attributes:
        name: as the user knows it.
        path: the file to create or to replace, which is not a symbolic link.
        there: the file that has this path now.
        descriptor: the open file of this process that the path stands for.
        in_place: it is written without being replaced.
        overwrite: replace an existing file.
        option: the option that names it.
    """

    name: str
    path: Path
    there: os.stat_result | None
    descriptor: int | None
    in_place: bool
    overwrite: bool
    option: str

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn errors of the system into errors that name the file."""
        try:
            yield
        except FileExistsError as error:
            raise self.exists() from error
        except OSError as error:
            raise cannot_write(self.name, error, self.option) from error

    def exists(self) -> KalloctraceError:
        """Return the refusal to overwrite a file."""
        return KalloctraceError(
            f"will not overwrite {self.name}",
            "a file of this name exists",
            f"choose another file with {self.option}, or add -f to replace it",
        )

    def file(self, descriptor: int) -> OutputFile:
        """Return an open file under its name for people."""
        return OutputFile(descriptor, self.name, self.option)

    def open(self) -> OutputFile:
        """Open what is written in place; opening a FIFO waits for its reader."""
        with self.errors():
            if self.descriptor is not None:
                return self.file(os.dup(self.descriptor))
            return self.file(os.open(self.path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC))


def _examined(path: Path, *, overwrite: bool, inputs: Sequence[Path] = (), option: str = "-o") -> _Place:
    """Return the place of an output.

    Raises:
        KalloctraceError: it must not be written, or cannot be.
    """
    descriptor = _own_descriptor(path)
    place = _Place(file_name(path), path, None, descriptor, descriptor is not None, overwrite, option)
    with place.errors():
        if descriptor is not None:
            _refuse_inputs(place, os.fstat(descriptor), inputs)
            return place
        link = path.is_symlink()
        if link:
            _refuse_planted(place)
        with suppress(FileNotFoundError):
            place = replace(place, there=path.stat())
        if place.there is not None:
            mode = place.there.st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, "")
            if stat.S_ISSOCK(mode):
                raise OSError(errno.ENXIO, "it is a socket")
            _refuse_inputs(place, place.there, inputs)
            if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or (stat.S_ISBLK(mode) and overwrite):
                return replace(place, in_place=True)
        if (link or place.there is not None) and not overwrite:
            raise place.exists()
        if link:
            place = replace(place, path=Path(os.path.realpath(path)))
        if not place.path.parent.is_dir():
            raise OSError(errno.ENOTDIR if os.path.lexists(place.path.parent) else errno.ENOENT, "")
    return place


def _own_descriptor(path: Path) -> int | None:
    """Return the number of the open file that a path such as /dev/stdout or /dev/fd/3 stands for; None for others."""
    here = os.fspath(path)
    for _ in range(_MAX_LINKS):
        folder, name = os.path.split(here)
        try:
            folder = os.path.realpath(folder or ".")
            if folder == f"/proc/{os.getpid()}/fd" and name.isdecimal():
                return int(name)
            target = os.fspath(Path(here).readlink())
        except OSError:
            return None
        here = os.path.join(folder, target)  # noqa: PTH118 (a link may lead to what pathlib would normalise)
    return None


def _refuse_inputs(place: _Place, there: os.stat_result, inputs: Sequence[Path]) -> None:
    for source in inputs:
        with suppress(OSError):
            if stat.S_ISREG(there.st_mode) and os.path.samestat(there, source.stat()):
                raise KalloctraceError(
                    f"will not overwrite {place.name}",
                    "it is the file to read",
                    f"choose another file with {place.option}",
                    Exit.USAGE,
                )


def _refuse_planted(place: _Place) -> None:
    """Refuse a link that the kernel does not follow with fs.protected_symlinks set, as most distributions do."""
    link, folder = place.path.lstat(), place.path.parent.stat()
    shared = folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH
    if shared and link.st_uid not in {os.geteuid(), folder.st_uid}:
        raise KalloctraceError(
            f"will not write {place.name}",
            "it is another user's link in a folder where everybody may write",
            f"choose another file with {place.option}",
        )


def _take_over(descriptor: int, replaced: os.stat_result) -> None:
    """Give a file the mode of the one that it replaces, and the owner if that is permitted."""
    mode = replaced.st_mode & 0o777
    with suppress(PermissionError):
        os.fchown(descriptor, replaced.st_uid, replaced.st_gid)
    if os.fstat(descriptor).st_gid != replaced.st_gid:
        mode &= ~stat.S_IRWXG
    os.fchmod(descriptor, mode)


def _give_to_caller(descriptor: int, folder: Path) -> None:
    """Give a private file in a folder of the user who called sudo to that user, who could not read it otherwise."""
    caller = os.environ.get("SUDO_UID", "")
    with suppress(OSError):
        if os.geteuid() == 0 and caller.isdecimal() and int(caller) == folder.stat().st_uid:
            os.fchown(descriptor, int(caller), -1)


class _Temporary(Protocol):
    """What must not outlive the process."""

    def discard(self) -> None:
        """Remove it if it is there."""


_unfinished: list[_Temporary] = []


def discard_unfinished() -> None:
    """Remove all temporary files and folders, before the process ends.

    An exception, such as that of a signal, removes them on its way, unless it comes while one is entered or left.
    """
    for temporary in _unfinished:
        temporary.discard()


atexit.register(discard_unfinished)


class _TemporaryFile:
    """A file without its final name. The folder is found once, so that nobody can exchange it meanwhile."""

    def __init__(self, place: _Place) -> None:
        self._place = place
        self._name = f"{_PREFIX}{secrets.token_hex(8)}"
        with place.errors():
            self._folder: int | None = os.open(place.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # Before it exists: a signal may come at once.
        _unfinished.append(self)

    def create(self, mode: int) -> int:
        """Create and open the file."""
        with self._place.errors():
            return os.open(self._name, _CREATE, mode, dir_fd=self._folder)

    def publish(self) -> None:
        """Give the file its name. Without -f, a file that has got this name meanwhile is not overwritten."""
        place, name, both = self._place, self._place.path.name, {"src_dir_fd": self._folder, "dst_dir_fd": self._folder}
        with place.errors():
            if not place.overwrite:
                try:
                    os.link(self._name, name, **both, follow_symlinks=False)
                except FileExistsError:
                    raise
                except OSError:
                    # A file system without hard links: take the name first, then replace our own empty file.
                    os.close(os.open(name, _CREATE, 0o600, dir_fd=self._folder))
                else:
                    return
            os.rename(self._name, name, **both)  # noqa: PTH104 (pathlib knows no folder descriptors)

    def discard(self) -> None:
        """Remove the file if it still has its temporary name."""
        if self._folder is None:
            return
        with suppress(OSError):
            os.unlink(self._name, dir_fd=self._folder)
        with suppress(OSError):
            os.close(self._folder)
        self._folder = None
        _unfinished.remove(self)


class _TemporaryFolder:
    """A folder for files that are moved when all of them are complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _unfinished.append(self)

    def discard(self) -> None:
        """Remove the folder with its contents."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self in _unfinished:
            _unfinished.remove(self)
