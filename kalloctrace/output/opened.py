# SPDX-License-Identifier: MIT
"""An open file whose errors name it."""

import errno
import io
import os
import select
from typing import Any

from kalloctrace.errors import NO_SPACE, KalloctraceError

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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
