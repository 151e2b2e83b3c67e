# SPDX-License-Identifier: MIT
"""The entry point: prepares the process, so that signals and closed files do no harm, and runs the command line.

It imports little, because a signal may come at any time: until the command line is imported, it ends the program at
once.
"""

import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kalloctrace.signals import ENDING_SIGNALS, RECORDERS, Terminated, command_name, handle, interrupted_code

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STDERR = 2


def main(argv: Sequence[str]) -> int:
    """Run the command line in this process; see `kalloctrace.cli.main`."""
    from kalloctrace import cli

    return cli.main(argv)


def run() -> None:
    """Run the program on the process's own arguments and exit."""
    argv = sys.argv[1:]
    recorder = command_name(argv) in RECORDERS
    # Nothing needs cleaning up yet. A recorder handles the signals itself as soon as something does.
    code = interrupted_code(argv)
    for number in ENDING_SIGNALS if recorder else (signal.SIGINT,):
        handle(number, lambda *_: os._exit(code))
    _open_standard_files()
    from kalloctrace import cli
    from kalloctrace.console import guard_tracebacks
    from kalloctrace.output import discard_unfinished

    guard_tracebacks()
    if "_KALLOCTRACE_COMPLETE" in os.environ:
        # The shell's completion script set it: print the completions and exit.
        cli.cli.main(prog_name="kalloctrace")
    if not recorder:
        handle(signal.SIGINT, signal.default_int_handler)
        handle(signal.SIGTERM, _terminate)
        handle(signal.SIGHUP, _terminate)
    try:
        done = cli.main(argv)
    except Terminated as error:
        discard_unfinished()
        # The caller sees the signal, as without a handler.
        signal.signal(error.number, signal.SIG_DFL)
        signal.raise_signal(error.number)
    if not recorder:
        # Python would print a traceback while it exits.
        handle(signal.SIGINT, signal.SIG_DFL)
    sys.exit(done)


def _terminate(number: int, _: object) -> None:
    raise Terminated(number)


class _Messages(io.FileIO):
    """Standard error. A message that cannot be written, as its terminal or reader is gone, must not end a recording."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write, or drop, bytes."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _open_standard_files() -> None:
    """Open the null device in place of closed files (`<&- >&- 2>&-`): no file of ours may get their numbers."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(fd, True)
    os.close(fd)
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - open as long as the program runs
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - likewise
    # A character that the locale lacks must not abort a report.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    messages = io.BufferedWriter(_Messages(_STDERR, "w", closefd=False))
    encoding = None if sys.stderr is None else sys.stderr.encoding
    sys.stderr = io.TextIOWrapper(messages, encoding, "backslashreplace", line_buffering=True)


if __name__ == "__main__":
    run()
