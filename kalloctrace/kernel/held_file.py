# SPDX-License-Identifier: MIT
"""A file of the kernel's that is read again after the privilege to open it was given up."""

import os
from pathlib import Path

_AT_ONCE = 1 << 16


class HeldFile:
    """A file that stays open as long as this object lives. The kernel checks the privilege when it is opened.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        """Close the file."""
        if hasattr(self, "_fd"):
            os.close(self._fd)

    def read(self) -> bytes:
        """Return its present content.

        Raises:
            OSError: it cannot be read.
        """
        os.lseek(self._fd, 0, os.SEEK_SET)
        return b"".join(iter(lambda: os.read(self._fd, _AT_ONCE), b""))
