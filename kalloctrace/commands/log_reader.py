# SPDX-License-Identifier: MIT
"""Reads logs with the options that complete them, and collects what they report."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from kalloctrace.console import stderr
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.text import file_name

if TYPE_CHECKING:
    from kalloctrace.commands.many_logs import LogFile, LogResult
    from kalloctrace.diagnose.alike import Alike, AlikeFailures
    from kalloctrace.diagnose.from_log import Failure, NamedKernel
    from kalloctrace.diagnose.given import Given
    from kalloctrace.diagnose.reports.model import LoggedFailure

_OLD_NAMES = frozenset(("__GFP_WAIT", "__GFP_COLD", "__GFP_NOTRACK", "GFP_TEMPORARY"))
"""Names in logs of kernels before 5.8, whose flags have no tables."""
_MAX_ORDER = 63
_PAGE_KB = tuple(1 << power for power in range(2, 9))
"""Page sizes of Linux's architectures in kB: 4 (x86, arm) to 256 (ppc44x, hexagon)."""


@dataclass(frozen=True)
class LogOptions:
    """The options that go with logs, as they were given; None if not given.

    Attributes:
        kernel: the kernel to judge by instead of the one in the log: a release, "live" or a trace file.
        gfp: the mask of a request that the log does not show.
        order: likewise its order.
        page_size: the kernel's page size.
        html: the page to write.
        force: replace the page.
        as_json: print JSON objects instead of text.
    """

    kernel: str | None = None
    gfp: str | None = None
    order: str | None = None
    page_size: str | None = None
    html: Path | None = None
    force: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class LogReader:
    """Reads logs, and explains what they report.

    Attributes:
        kernel: the kernel to judge by instead of the one in the log.
        given: completes the reports.
    """

    kernel: "NamedKernel | None"
    given: "Given"

    @classmethod
    def of(cls, options: LogOptions) -> Self:
        """Return a reader.

        Raises:
            KalloctraceError: the value of an option cannot be used (exit code 2), or --kernel cannot be read.
        """
        from kalloctrace.commands.kernel_source import named_kernel
        from kalloctrace.diagnose.given import Given

        kernel = None if options.kernel is None else named_kernel(options.kernel)
        gfp = None if options.gfp is None else _gfp(options.gfp)
        return cls(kernel, Given(gfp, _order(options.order), _page_kb(options.page_size)))

    def explain(self, name: str, notes: list[str] | None = None) -> "AlikeFailures":
        """Return the groups of alike failures in a log.

        Args:
            name: a file, or "-" for standard input.
            notes: gets what was not read of it; None for standard error.

        Raises:
            KalloctraceError: it is a trace.
            OSError: it cannot be read.
        """
        from kalloctrace.commands.input_lines import log_lines
        from kalloctrace.commands.kernel_source import is_trace
        from kalloctrace.diagnose.alike import group_alike
        from kalloctrace.diagnose.reports.pairing import PAGE_KB, find_failures
        from kalloctrace.logs.messages import read_messages

        if is_trace(name):
            fix = "name a log; report --failures explains the failures of a trace"
            raise KalloctraceError(f"cannot read {file_name(name)} as a log", "it is a trace", fix)
        tables = self.kernel.tables if self.kernel is not None else None
        found: AlikeFailures | None = None
        try:
            with log_lines(name) if notes is None else log_lines(name, notes.append) as lines:
                reports = find_failures(read_messages(lines), tables, self.given.page_kb or PAGE_KB)
                found = group_alike(reports, self._judge)
        except KalloctraceError as error:
            if found is None:
                raise
            found.error = error
        return found

    def _judge(self, logged: "LoggedFailure") -> "Failure":
        from kalloctrace.diagnose.from_log import explain_failure

        self.given.complete(logged)
        return explain_failure(logged, self.kernel, self.given.page_kb)


def _gfp(text: str) -> tuple[str, ...] | int:
    """Return the names of a mask, or its number; the kernel that they are of is in the log."""
    from kalloctrace.explain.settings import parse_number
    from kalloctrace.flags.builtin import all_releases, default_tables, tables_of
    from kalloctrace.flags.decode import U32_MAX, parse_flags

    with suppress(ValueError):
        number = parse_number(text)
        if 0 <= number <= U32_MAX:
            return number
    names = tuple(name.strip() for name in text.split("|"))
    of_any = [tables_of(release) for release in all_releases()]
    unknown = [name for name in names if name not in _OLD_NAMES and not any(each.has_gfp(name) for each in of_any)]
    if not unknown:
        return names
    if unknown[0] and not unknown[0][:1].isdecimal():
        raise _no_flag(unknown[0], {name for each in of_any for name, _ in each.gfp_print + each.gfp_bits})
    parse_flags(text, default_tables())
    raise _wrong("--gfp", text, "it is neither one number of 32 bits nor names", "give 0xcc0, or GFP_KERNEL|__GFP_COMP")


def _no_flag(name: str, known: set[str]) -> KalloctraceError:
    from difflib import get_close_matches

    close = get_close_matches(name.upper(), sorted(known | _OLD_NAMES))
    fix = f"did you mean {' or '.join(close)}?" if close else "give a number, or a name such as GFP_KERNEL"
    return KalloctraceError(f"cannot read {name!r}", "no kernel has a gfp flag of that name", fix, Exit.USAGE)


def _order(text: str | None) -> int | None:
    if text is None:
        return None
    from kalloctrace.explain.settings import parse_number

    with suppress(ValueError):
        order = parse_number(text)
        if 0 <= order <= _MAX_ORDER:
            return order
    raise _wrong("--order", text, f"an order is a number from 0 to {_MAX_ORDER}", "give a number such as 3")


def _page_kb(text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6}) ?(?:(k)(?:i?B)?)?", text, re.IGNORECASE | re.ASCII)
    size = 0 if match is None else int(match[1]) << (10 if match[2] else 0)
    if size >> 10 in _PAGE_KB and size % 1024 == 0:
        return size >> 10
    known = ", ".join(f"{size}k" for size in _PAGE_KB)
    raise _wrong("--page-size", text, f"the page sizes of Linux are {known}", "give one of them")


def _wrong(option: str, text: str, why: str, fix: str) -> KalloctraceError:
    return KalloctraceError(f"{option} cannot be {text!r}", why, fix, Exit.USAGE)


class Explained(NamedTuple):
    """What a log reports, as JSON objects.

    Attributes:
        groups: one object for each group of alike failures.
        beyond: failures in further groups.
        notes: what was not read of it.
        error: why its end was not read; None if it was.
    """

    groups: list[dict[str, Any]]
    beyond: int
    notes: list[str]
    error: KalloctraceError | None


def explained(reader: LogReader, form: "Callable[[Alike, str], dict[str, Any]]", name: str) -> Explained:
    """Explain a log, and return an object for each group."""
    notes: list[str] = []
    found = reader.explain(name, notes)
    return Explained([form(group, name) for group in found.groups], found.beyond, notes, found.error)


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

    def __iter__(self) -> Iterator[list[dict[str, Any]] | None]:
        """Yield the groups of each log; None for one that cannot be read."""
        from kalloctrace.commands.many_logs import read_logs
        from kalloctrace.commands.progress import show_progress

        with show_progress(f"explaining {len(self._logs):,} logs", lambda: self._done / len(self._logs)):
            yield from self._groups(read_logs(self._logs, self._make))

    def _groups(self, results: "Iterable[LogResult[Explained]]") -> Iterator[list[dict[str, Any]] | None]:
        for result in results:
            self._done += 1
            error = result.error if result.made is None else result.made.error
            if error is not None:
                self._failed.append(error)
                if len(self._logs) > 1:
                    stderr().error(error)
            if result.made is None:
                yield None
                continue
            for note in result.made.notes:
                stderr().line(note if len(self._logs) == 1 else f"{file_name(result.log)}: {note}")
            self.read += 1
            self.groups += len(result.made.groups)
            self._beyond += result.made.beyond
            yield result.made.groups

    def require_groups(self) -> None:
        """Check that there is something to show.

        Raises:
            KalloctraceError: the only log cannot be read, or no log has a failure.
        """
        if self.groups:
            return
        if len(self._logs) == 1 and self._failed:
            raise self._failed[0]
        if self.read:
            raise no_failure()

    def exit_code(self, *, may_be_empty: bool = False) -> Exit:
        """Return the exit code after all logs.

        Args:
            may_be_empty: logs without any failure are no error.

        Raises:
            KalloctraceError: the only log cannot be read to its end, or no log has a failure.
        """
        if len(self._logs) == 1 and self._failed:
            raise self._failed[0]
        if not may_be_empty:
            self.require_groups()
        say_beyond(self._beyond)
        return Exit.FAILED if self._failed else Exit.OK


def say_beyond(failures: int) -> None:
    """Say on standard error how many failures are not shown."""
    if failures:
        stderr().line(f"{failures:,} failures are in further groups, which are not shown")


def no_log(folder: str) -> KalloctraceError:
    """Return the error about a folder without files."""
    return KalloctraceError(f"no log in {file_name(folder)}", "the folder has no file", "name a log or another folder")


def no_failure() -> KalloctraceError:
    """Return the error about logs without any failure."""
    return KalloctraceError(
        "no failure found",
        "the text has no report of the page allocator, such as 'page allocation failure' or 'invoked oom-killer'",
        "use the kernel's log (dmesg, journalctl -k), from that line to the list of free blocks",
    )
