# SPDX-License-Identifier: MIT
"""The one error that people see: what went wrong, why, and how to fix it."""

import errno
from enum import IntEnum

from kalloctrace.recorders import INTERRUPTED as _INTERRUPTED
from kalloctrace.text import printable

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of the system for a file that cannot grow any more."""


class Exit(IntEnum):
    """Exit codes of the program; scripts rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    MISMATCH = 3
    INCOMPLETE = 4
    INTERRUPTED = _INTERRUPTED


class KalloctraceError(Exception):
    """A failure, its reason and its fix, shown as three lines without a traceback.

    Args:
        what: what could not be done, on one line.
        why: the reason, on one line.
        fix: what the user can do about it, on one line.
        code: the program's exit code.
    """

    def __init__(self, what: str, why: str, fix: str, code: Exit = Exit.FAILED) -> None:
        # All of them, so that an error can come from another process.
        super().__init__(what, why, fix, code)
        self.what = what
        self.why = why
        self.fix = fix
        self.code = code

    def lines(self) -> tuple[str, str, str]:
        """Return the three lines; nothing in a file's name or a damaged trace can act on a terminal."""
        return f"error: {printable(self.what)}", f"  why: {printable(self.why)}", f"  fix: {printable(self.fix)}"

    def __str__(self) -> str:
        """Return the three lines as one text."""
        return "\n".join(self.lines())
