# SPDX-License-Identifier: MIT
"""Folders that are complete under their name, or not there at all."""

import errno
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from kalloctrace.errors import KalloctraceError
from kalloctrace.output.opened import CREATE, cannot_write
from kalloctrace.output.place import Place, refuse_inputs, refuse_planted, refuse_standard_output
from kalloctrace.output.temporary import temporary_folder
from kalloctrace.text import file_name


def create_folder(path: Path, option: str = "-o") -> None:
    """Create a folder for outputs, with those above it, unless it exists.

    Args:
        path: the folder.
        option: the option that names it, for messages.

    Raises:
        KalloctraceError: it cannot be created, or is something else.
    """
    refuse_standard_output(path, option, "folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        not_a_folder = OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        raise cannot_write(file_name(path), not_a_folder, option) from error
    except OSError as error:
        raise cannot_write(file_name(path), error, option) from error


class OutputFolder:
    """A folder that is being written.

    Args:
        place: where it will be.
        path: where it is until then.
    """

    def __init__(self, place: "Place", path: Path) -> None:
        self._place = place
        self._path = path
        self._names: set[str] = set()

    @contextmanager
    def file(self, name: str) -> Iterator[IO[bytes]]:
        """Yield a new file of the folder."""
        self._names.add(name)
        with self._place.errors():
            raw = self._place.file(os.open(self._path / name, CREATE, 0o666))
        with raw:
            file = io.BufferedWriter(raw)
            yield file
            file.flush()
            with self._place.errors():
                os.fsync(raw.fileno())

    def publish(self, aside: Path) -> None:
        """Give the folder its name.

        Args:
            aside: where to move a folder that it replaces.
        """
        target = self._place.path
        with self._place.errors():
            if target.is_dir() and (others := {entry.name for entry in target.iterdir()} - self._names):
                raise KalloctraceError(
                    f"will not overwrite {self._place.name}",
                    f"the folder has other files too: {min(others)}",
                    f"choose another folder with {self._place.option}",
                )
            if target.is_dir() and any(target.iterdir()):
                target.rename(aside)
            self._path.rename(target)


@contextmanager
def complete_folder(
    path: Path, *, overwrite: bool, inputs: Sequence[Path] = (), option: str = "-o"
) -> Iterator[OutputFolder]:
    """Yield a folder that appears under its name when the block ends without an exception.

    An empty folder of this name is used. With -f, one that has nothing but files of the same names is replaced. A link
    counts as existing, wherever it leads.

    Args:
        path: the folder to write.
        overwrite: replace an existing one.
        inputs: the files that are read.
        option: the option that names the folder, for messages.

    Raises:
        KalloctraceError: the folder exists, has one of the inputs (exit code 2), or cannot be written.
    """
    refuse_standard_output(path, option, "folder")
    place = Place(file_name(path), path, None, None, in_place=False, overwrite=overwrite, option=option)
    with place.errors():
        if path.is_symlink():
            refuse_planted(place)
            if not overwrite:
                raise place.exists()
        place = replace(place, path=Path(os.path.realpath(path)))
        if os.path.lexists(place.path) and not place.path.is_dir():
            raise cannot_write(place.name, OSError(errno.EEXIST, "it is not a folder"), option)
        if place.path.is_dir() and any(place.path.iterdir()) and not overwrite:
            raise place.exists()
        if place.path.is_dir():
            for there in place.path.iterdir():
                refuse_inputs(replace(place, name=file_name(path / there.name)), there.stat(), inputs)
    with ExitStack() as stack:
        with place.errors():
            temporary = stack.enter_context(temporary_folder(place.path.parent))
            new = temporary / "new"
            new.mkdir()
        folder = OutputFolder(place, new)
        yield folder
        folder.publish(temporary / "old")
