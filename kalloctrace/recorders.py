# SPDX-License-Identifier: MIT
"""The commands that record, and how they are ended. It imports little: a signal may come at any time."""

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RECORDERS = frozenset({"live", "monitor", "record", "serve-metrics"})
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130


def command_name(argv: "Sequence[str]") -> str:
    """Return the command in the program's arguments; empty without one."""
    return next((word for word in argv if not word.startswith("-")), "")


def interrupted_code(argv: "Sequence[str]") -> int:
    """Return the exit code of a command that was interrupted."""
    return 0 if command_name(argv) in RECORDERS else INTERRUPTED
