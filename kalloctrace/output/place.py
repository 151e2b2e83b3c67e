# SPDX-License-Identifier: MIT
"""Where an output goes, and what is refused there."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.output.opened import OutputFile, cannot_write
from kalloctrace.text import file_name

STANDARD_OUTPUT = Path("-")
"""The name of standard output, for what can be written there."""

_MAX_LINKS = 40


@dataclass(frozen=True)
class Place:
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


def examined(path: Path, *, overwrite: bool, inputs: Sequence[Path] = (), option: str = "-o") -> Place:
    """Return the place of an output.

    Args:
        path: as the user named it.
        overwrite: replace an existing file.
        inputs: the files that are read.
        option: the option that names it, for messages.

    Raises:
        KalloctraceError: it must not be written, or cannot be.
    """
    refuse_standard_output(path, option)
    descriptor = _own_descriptor(path)
    place = Place(file_name(path), path, None, descriptor, descriptor is not None, overwrite, option)
    with place.errors():
        if descriptor is not None:
            refuse_inputs(place, os.fstat(descriptor), inputs)
            return place
        link = path.is_symlink()
        if link:
            refuse_planted(place)
        with suppress(FileNotFoundError):
            place = replace(place, there=path.stat())
        if place.there is not None:
            mode = place.there.st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, "")
            if stat.S_ISSOCK(mode):
                raise OSError(errno.ENXIO, "it is a socket")
            refuse_inputs(place, place.there, inputs)
            if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or (stat.S_ISBLK(mode) and overwrite):
                return replace(place, in_place=True)
        if (link or place.there is not None) and not overwrite:
            raise place.exists()
        if link:
            place = replace(place, path=Path(os.path.realpath(path)))
        if not place.path.parent.is_dir():
            raise OSError(errno.ENOTDIR if os.path.lexists(place.path.parent) else errno.ENOENT, "")
    return place


def refuse_standard_output(path: Path, option: str, what: str = "file") -> None:
    """Refuse "-" where the output has a name of its own.

    Args:
        path: as the user named it.
        option: the option that names it, for messages.
        what: is to be written.

    Raises:
        KalloctraceError: it is "-" (exit code 2).
    """
    if path == STANDARD_OUTPUT:
        fix = f"name a {what} with {option}"
        raise KalloctraceError(
            f"will not write a {what} named -", "- is standard output, which is no place for it", fix, Exit.USAGE
        )


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


def refuse_inputs(place: Place, there: os.stat_result, inputs: Sequence[Path]) -> None:
    """Refuse a file that is read.

    Args:
        place: the output.
        there: the file that has its name now.
        inputs: the files that are read.

    Raises:
        KalloctraceError: it is one of them (exit code 2).
    """
    for source in inputs:
        with suppress(OSError):
            if stat.S_ISREG(there.st_mode) and os.path.samestat(there, source.stat()):
                raise KalloctraceError(
                    f"will not overwrite {place.name}",
                    "it is the file to read",
                    f"choose another file with {place.option}",
                    Exit.USAGE,
                )


def refuse_planted(place: Place) -> None:
    """Refuse a link that the kernel does not follow with fs.protected_symlinks set, as most distributions do.

    Raises:
        KalloctraceError: it is such a link.
    """
    link, folder = place.path.lstat(), place.path.parent.stat()
    shared = folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH
    if shared and link.st_uid not in {os.geteuid(), folder.st_uid}:
        raise KalloctraceError(
            f"will not write {place.name}",
            "it is another user's link in a folder where everybody may write",
            f"choose another file with {place.option}",
        )


def give_to_caller(descriptor: int, folder: Path) -> None:
    """Give a private file in a folder of the user who called sudo to that user, who could not read it otherwise."""
    caller = os.environ.get("SUDO_UID", "")
    with suppress(OSError):
        if os.geteuid() == 0 and caller.isdecimal() and int(caller) == folder.stat().st_uid:
            os.fchown(descriptor, int(caller), -1)
