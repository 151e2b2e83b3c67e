# SPDX-License-Identifier: MIT
"""The folder of the segments belongs to one service at a time."""

import fcntl
import os
import time
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.text import file_name


def lock_folder(path: Path) -> int:
    """Make the folder of the segments if it is missing, and lock it for this process and its children.

    Returns:
        The open folder, which holds the lock.

    Raises:
        KalloctraceError: it cannot be made, or another process writes segments there.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        why = error.strerror or str(error)
        raise KalloctraceError(f"cannot use the folder {file_name(path)}", why, "choose another folder") from error
    # A worker whose service was killed has noticed it by then.
    for wait in (0.5,) * 10 + (0.0,):
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(wait)
        else:
            return folder
    os.close(folder)
    why = "another kalloctrace monitor writes segments there"
    raise KalloctraceError(f"cannot use the folder {file_name(path)}", why, "choose another folder")
