# SPDX-License-Identifier: MIT
"""`kalloctrace explain LOG…`: why page allocations in kernel logs failed."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from kalloctrace.console import stderr, stdout
from kalloctrace.errors import Exit, KalloctraceError

if TYPE_CHECKING:
    from kalloctrace.commands.many_logs import LogFile, LogResult
    from kalloctrace.diagnose.alike import Alike, AlikeFailures
    from kalloctrace.diagnose.from_log import NamedKernel


@dataclass(frozen=True)
class LogReader:
    """Reads logs, and explains what they report.

    Attributes:
        kernel: the kernel to judge by instead of the one in the log.
    """

    kernel: "NamedKernel | None" = None

    def explain(self, name: str) -> "AlikeFailures":
        """Return the groups of alike failures in a log.

        Args:
            name: a file, or "-" for standard input.

        Raises:
            OSError: it cannot be read.
        """
        from kalloctrace.commands.input_lines import log_lines
        from kalloctrace.diagnose.alike import group_alike
        from kalloctrace.diagnose.from_log import explain_failure
        from kalloctrace.diagnose.log_parser import find_failures

        with log_lines(name) as lines:
            reports = find_failures(lines, self.kernel.tables if self.kernel is not None else None)
            return group_alike(reports, lambda logged: explain_failure(logged, self.kernel))


class Explained(NamedTuple):
    """What a log reports, as JSON objects.

    Attributes:
        groups: one object for each group of alike failures.
        beyond: failures in further groups.
    """

    groups: list[dict[str, Any]]
    beyond: int


def explained(reader: LogReader, form: "Callable[[Alike, str], dict[str, Any]]", name: str) -> Explained:
    """Explain a log, and return an object for each group."""
    found = reader.explain(name)
    return Explained([form(group, name) for group in found.groups], found.beyond)


def explain_logs(names: Sequence[str], kernel: str | None, other_options: Sequence[str], *, as_json: bool) -> int:
    """Explain each failure in logs.

    Args:
        names: files, folders, and "-" for standard input.
        kernel: the kernel to judge by instead of the one in the log: a release, "live" or a trace file.
        other_options: given options that describe a single request; a log excludes them.
        as_json: print one JSON object a line instead of text.

    Raises:
        KalloctraceError: no log has a failure, or an option cannot be combined with a log.
    """
    from kalloctrace.commands.kernel_source import named_kernel
    from kalloctrace.commands.many_logs import find_logs

    if other_options:
        what = f"{other_options[0]} does not go with a log"
        raise KalloctraceError(what, "the log contains the requests", "leave it out", Exit.USAGE)
    reader = LogReader(named_kernel(kernel) if kernel is not None else None)
    if "-" in names and sys.stdin.isatty():
        stderr().line("paste the log; Ctrl-D on a line of its own ends it")
    logs = find_logs(names)
    if not logs:
        raise KalloctraceError(f"no log in {names[0]}", "the folder has no file", "name a log or another folder")
    if as_json:
        return _print_json(logs, reader)
    if len(logs) == 1:
        return _print_answers(logs[0], reader)
    return _print_table(logs, reader)


def _print_answers(log: "LogFile", reader: LogReader) -> int:
    from kalloctrace.commands.many_logs import read_logs
    from kalloctrace.report.logs import write_alike

    ((name, found, error),) = read_logs([log], reader.explain)
    if error is not None:
        raise error
    if found is None or not found.groups:
        raise _no_failure()
    write_alike(found, name, stdout())
    _say_beyond(found.beyond)
    return Exit.OK


def _print_json(logs: "Sequence[LogFile]", reader: LogReader) -> int:
    from kalloctrace.diagnose.alike import alike_json

    results = Results(logs, partial(explained, reader, alike_json))
    for groups in results:
        stdout().json_lines(groups)
    return results.exit_code()


def _print_table(logs: "Sequence[LogFile]", reader: LogReader) -> int:
    from kalloctrace.diagnose.alike import alike_json
    from kalloctrace.report.logs import LogTable, write_table

    table = LogTable()
    results = Results(logs, partial(explained, reader, alike_json))
    for groups in results:
        for group in groups:
            table.add(group)
    if results.groups:
        write_table(table, results.read, stdout())
    return results.exit_code()


class Results:
    """The groups of each log, in the order of the logs; what cannot be read is named on standard error.

    Attributes:
        read: how many logs could be read.
        groups: how many groups they have.

    Args:
        logs: to read.
        make: explains the log with this name.
    """

    def __init__(self, logs: "Sequence[LogFile]", make: Callable[[str], Explained]) -> None:
        self._logs = logs
        self._make = make
        self._done = 0
        self._failed: list[KalloctraceError] = []
        self._beyond = 0
        self.read = 0
        self.groups = 0

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the groups of each log that can be read."""
        from kalloctrace.commands.many_logs import read_logs
        from kalloctrace.commands.progress import show_progress

        with show_progress(f"explaining {len(self._logs):,} logs", lambda: self._done / len(self._logs)):
            yield from self._groups(read_logs(self._logs, self._make))

    def _groups(self, results: "Iterable[LogResult[Explained]]") -> Iterator[list[dict[str, Any]]]:
        for result in results:
            self._done += 1
            if result.error is not None:
                self._failed.append(result.error)
                if len(self._logs) > 1:
                    stderr().error(result.error)
            if result.made is None:
                continue
            self.read += 1
            self.groups += len(result.made.groups)
            self._beyond += result.made.beyond
            yield result.made.groups

    def exit_code(self) -> Exit:
        """Return the exit code after all logs.

        Raises:
            KalloctraceError: the only log cannot be read, or no log has a failure.
        """
        if len(self._logs) == 1 and self._failed:
            raise self._failed[0]
        if self.read and not self.groups:
            raise _no_failure()
        _say_beyond(self._beyond)
        return Exit.FAILED if self._failed else Exit.OK


def _say_beyond(failures: int) -> None:
    if failures:
        stderr().line(f"{failures:,} failures are in further groups, which are not shown")


def _no_failure() -> KalloctraceError:
    return KalloctraceError(
        "no failure found",
        "the text has no line with 'page allocation failure', 'page allocation stall' or 'invoked oom-killer'",
        "use the kernel's log (dmesg, journalctl -k), from that line to the list of free blocks",
    )
