# SPDX-License-Identifier: MIT
"""The entry point: prepares the process, so that signals and closed files do no harm, and runs the command line.

It imports little, because a signal may come at any time: until the command line is imported, it ends the program at
once.
"""

import io
import os
import signal
import sys

from kalloctrace.recorders import ENDING_SIGNALS, INTERRUPTED, RECORDERS, command_name, interrupted_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from _typeshed import ReadableBuffer

_STDERR = 2


def main(argv: "Sequence[str]") -> int:
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
        _handle(number, lambda *_: os._exit(code))
    _open_standard_files()
    sys.meta_path.insert(0, _WithoutPandas())
    from kalloctrace import cli
    from kalloctrace.console import guard_tracebacks
    from kalloctrace.output.temporary import discard_unfinished
    from kalloctrace.signals import Terminated

    guard_tracebacks()
    if "_KALLOCTRACE_COMPLETE" in os.environ:
        # The shell's completion script set it: print the completions and exit.
        cli.cli.main(prog_name="kalloctrace")
    if not recorder:
        _handle(signal.SIGINT, signal.default_int_handler)
        _handle(signal.SIGTERM, _terminate)
        _handle(signal.SIGHUP, _terminate)
    try:
        done = cli.main(argv)
    except Terminated as error:
        discard_unfinished()
        # The caller sees the signal, as without a handler.
        signal.signal(error.number, signal.SIG_DFL)
        signal.raise_signal(error.number)
    if done == INTERRUPTED:
        try:  # noqa: SIM105 - contextlib is not imported yet
            sys.stdout.flush()
        except OSError:
            pass
        # sys.exit() would kill the process by SIGINT where the interrupt went through an exec(), as in a dataclass.
        os._exit(done)
    if not recorder:
        # Python would print a traceback while it exits.
        _handle(signal.SIGINT, signal.SIG_DFL)
    sys.exit(done)


def _handle(number: signal.Signals, handler: "Callable[[int, Any], object] | signal.Handlers") -> None:
    """Install a handler, unless the program was started with the signal ignored, as `nohup` does."""
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, handler)


def _terminate(number: int, _: object) -> None:
    from kalloctrace.signals import Terminated

    raise Terminated(number)


class _Messages(io.FileIO):
    """Standard error. A message that cannot be written, as its terminal or reader is gone, must not end a recording."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write all bytes, or drop them."""
        rest = memoryview(data).cast("B")
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError:
            pass
        return memoryview(data).nbytes


class _WithoutPandas:
    """Makes the import of pandas fail: pyarrow tries it with its first array, and only Spark Connect needs it."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        """Fail for pandas, and leave other modules to the other finders."""
        if name == "pandas" and "pyspark.sql.connect" not in sys.modules:
            raise ModuleNotFoundError(name, name=name)


def _open_standard_files() -> None:
    """Open the null device in place of closed files (`<&- >&- 2>&-`): no file of ours may get their numbers."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(fd, True)
    os.close(fd)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - open as long as the program runs
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - likewise
    # A character that the locale lacks must not abort a report.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    encoding = None if sys.stderr is None else sys.stderr.encoding
    # Without a buffer, as a signal in the middle of a write would leave it there to be written again.
    sys.stderr = io.TextIOWrapper(
        _Messages(_STDERR, "w", closefd=False), encoding, "backslashreplace", write_through=True
    )


if __name__ == "__main__":
    run()
