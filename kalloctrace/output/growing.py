# SPDX-License-Identifier: MIT
"""A file that others follow while it grows."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.output.opened import CREATE, cannot_write
from kalloctrace.output.place import examined, give_to_caller
from kalloctrace.output.temporary import TemporaryFile, _unfinished
from kalloctrace.signals import uninterrupted


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
        self._place = place = examined(path, overwrite=overwrite)
        self._temporary: TemporaryFile | None = None
        self._whole = 0
        self._failure: KalloctraceError | None = None
        if place.in_place:
            self.file = place.open()
            return
        if place.there is None:
            with place.errors(), uninterrupted():
                self.file = place.file(os.open(place.path, CREATE, 0o600))
                _unfinished.append(self)
        else:
            self._temporary = TemporaryFile(place)
            self.file = place.file(self._temporary.create(0o600))
        give_to_caller(self.file.fileno(), place.path.parent)

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

    def discard(self) -> None:
        """Remove the file if nothing of it is whole."""
        if not self._whole:
            self._remove()
        if self in _unfinished:
            _unfinished.remove(self)

    def close(self) -> None:
        """Close the file; remove it if nothing of it is whole."""
        with self.file:
            self.discard()
            if not self._whole:
                return
            if self._failure is None and not self._place.in_place:
                with self._place.errors():
                    os.fsync(self.file.fileno())

    def _remove(self) -> None:
        if self._temporary is not None:
            self._temporary.discard()
        elif not self._place.in_place:
            with suppress(OSError):
                if os.path.samestat(self._place.path.lstat(), os.fstat(self.file.fileno())):
                    self._place.path.unlink()
