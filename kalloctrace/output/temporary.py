# SPDX-License-Identifier: MIT
"""Files and folders that are removed when the process ends, whatever ends it."""

import atexit
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from kalloctrace.errors import KalloctraceError
from kalloctrace.output.opened import CREATE
from kalloctrace.output.place import Place
from kalloctrace.text import file_name

_PREFIX = ".kalloctrace-"


class _Temporary(Protocol):
    """What must not outlive the process."""

    def discard(self) -> None:
        """Remove it if it is there."""


_unfinished: list[_Temporary] = []


def discard_unfinished() -> None:
    """Remove all temporary files and folders, before the process ends.

    An exception, such as that of a signal, removes them on its way, unless it comes while one is entered or left.
    """
    for temporary in _unfinished.copy():
        temporary.discard()


atexit.register(discard_unfinished)


class TemporaryFile:
    """A file without its final name. The folder is found once, so that nobody can exchange it meanwhile."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._name = f"{_PREFIX}{secrets.token_hex(8)}"
        with place.errors():
            self._folder: int | None = os.open(place.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # Before it exists: a signal may come at once.
        _unfinished.append(self)

    def create(self, mode: int) -> int:
        """Create and open the file."""
        with self._place.errors():
            return os.open(self._name, CREATE, mode, dir_fd=self._folder)

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
                    os.close(os.open(name, CREATE, 0o600, dir_fd=self._folder))
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


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder for what is needed only meanwhile, in the system's place for temporary files.

    Raises:
        KalloctraceError: it cannot be created, or there is no space for its files.
    """
    place = Path(tempfile.gettempdir())
    try:
        with temporary_folder(place) as folder:
            yield folder
    except BrokenPipeError:
        raise
    except OSError as error:
        why = error.strerror or str(error)
        fix = "free some space, or name another folder with the variable TMPDIR"
        raise KalloctraceError(f"cannot write temporary files in {file_name(place)}", why, fix) from error
