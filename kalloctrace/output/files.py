# SPDX-License-Identifier: MIT
"""Files that are complete under their name, or not there at all."""

import errno
import io
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.output.opened import cannot_write
from kalloctrace.output.place import STANDARD_OUTPUT, Place, examined, give_to_caller, refuse_inputs
from kalloctrace.output.temporary import TemporaryFile


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
    place = examined(path, overwrite=overwrite, inputs=inputs, option=option)
    if place.in_place:
        with place.open() as raw:
            file = io.BufferedWriter(raw)
            yield file
            file.flush()
        return
    there = None if private else place.there
    temporary = TemporaryFile(place)
    try:
        # The mode of the replaced file follows when the file is complete; until then it may hold less than that one.
        with place.file(temporary.create(0o666 if there is None and not private else 0o600)) as raw:
            file = io.BufferedWriter(raw)
            if private:
                give_to_caller(raw.fileno(), place.path.parent)
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
def standard_output(inputs: Sequence[Path] = (), option: str = "-o") -> Iterator[IO[bytes]]:
    """Yield standard output as bytes, with errors that name it.

    Args:
        inputs: the files that are read.
        option: the option that names a file instead, for messages.

    Raises:
        KalloctraceError: it is redirected into one of the inputs (exit code 2), or cannot be written.
    """
    sys.stdout.flush()
    place = Place("standard output", Path(), None, sys.stdout.fileno(), in_place=True, overwrite=False, option=option)
    refuse_inputs(place, os.fstat(sys.stdout.fileno()), inputs)
    with place.open() as raw:
        file = io.BufferedWriter(raw)
        yield file
        file.flush()


@contextmanager
def page_output(path: Path, *, overwrite: bool, inputs: Sequence[Path] = ()) -> Iterator[IO[bytes]]:
    """Yield the file of `--html`, complete or not there at all; "-" is standard output.

    Args:
        path: the file to write.
        overwrite: replace an existing file.
        inputs: the files that are read.

    Raises:
        KalloctraceError: as of `complete_output` and `standard_output`, or standard output is a terminal.
    """
    if path != STANDARD_OUTPUT:
        with complete_output(path, overwrite=overwrite, inputs=inputs, option="--html") as file:
            yield file
        return
    if sys.stdout.isatty():
        fix = "name a file with --html, or redirect standard output"
        raise KalloctraceError("no file to write", "a terminal does not show a page", fix, Exit.USAGE)
    with standard_output(inputs, "--html") as file:
        yield file


def require_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written, before long work.

    Raises:
        KalloctraceError: the file exists, or its folder is missing or read-only.
    """
    place = examined(path, overwrite=overwrite)
    if not place.in_place and not os.access(place.path.parent, os.W_OK | os.X_OK):
        read_only = os.statvfs(place.path.parent).f_flag & os.ST_RDONLY
        code = errno.EROFS if read_only else errno.EACCES
        raise cannot_write(place.name, OSError(code, os.strerror(code)), place.option)


def _take_over(descriptor: int, replaced: os.stat_result) -> None:
    """Give a file the mode of the one that it replaces, and the owner if that is permitted."""
    mode = replaced.st_mode & 0o777
    with suppress(PermissionError):
        os.fchown(descriptor, replaced.st_uid, replaced.st_gid)
    if os.fstat(descriptor).st_gid != replaced.st_gid:
        mode &= ~stat.S_IRWXG
    os.fchmod(descriptor, mode)
