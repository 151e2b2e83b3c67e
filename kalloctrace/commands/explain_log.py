# SPDX-License-Identifier: MIT
"""`kalloctrace explain LOG…`: why page allocations in kernel logs failed."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kalloctrace.commands.log_reader import LogOptions, LogReader, Results, explained, no_failure, no_log, say_beyond
from kalloctrace.commands.pager import paged
from kalloctrace.console import stderr, stdout
from kalloctrace.errors import Exit, KalloctraceError

if TYPE_CHECKING:
    from kalloctrace.commands.many_logs import LogFile


def explain_logs(names: Sequence[str], options: LogOptions, other_options: Sequence[str]) -> int:
    """Explain each failure in logs.

    Args:
        names: files, folders, and "-" for standard input.
        options: those that go with logs.
        other_options: given options that describe a single request; a log excludes them.

    Raises:
        KalloctraceError: no log has a failure, or an option cannot be combined with a log.
    """
    from kalloctrace.commands.many_logs import find_logs

    if other_options:
        what = f"{other_options[0]} does not go with a log"
        raise KalloctraceError(what, "the log contains the requests", "leave it out", Exit.USAGE)
    if options.html is not None and options.as_json:
        what = "--html does not go with --json"
        raise KalloctraceError(what, "one writes a page, the other prints", "use one of them", Exit.USAGE)
    if options.force and options.html is None:
        raise KalloctraceError("--force has no effect alone", "it replaces a page", "add --html FILE", Exit.USAGE)
    reader = LogReader.of(options)
    logs = find_logs(names)
    if not logs:
        raise no_log(names[0])
    if options.html is not None:
        return _write_page(logs, reader, options.html, force=options.force)
    _say_paste(names)
    if options.as_json:
        return _print_json(logs, reader)
    if len(logs) == 1:
        return _print_answers(logs[0], reader)
    return _print_table(logs, reader)


def _say_paste(names: Sequence[str]) -> None:
    if "-" in names and sys.stdin.isatty():
        stderr().line("paste the log; Ctrl-D on a line of its own ends it")


def _write_page(logs: "Sequence[LogFile]", reader: LogReader, html: Path, *, force: bool) -> int:
    from kalloctrace.output.files import page_output
    from kalloctrace.output.place import STANDARD_OUTPUT
    from kalloctrace.report.page.document import logs_html
    from kalloctrace.report.page.logs import LogsPage, page_group

    inputs = [Path(log.name) for log in logs if log.name != "-"]
    with page_output(html, overwrite=force, inputs=inputs) as file:
        _say_paste([log.name for log in logs])
        results = Results(logs, partial(explained, reader, page_group))
        page = LogsPage()
        for groups in results:
            page.add(groups or [])
        results.require_groups()
        file.writelines(part.encode(errors="backslashreplace") for part in logs_html(page.to_json(results.read)))
    if html != STANDARD_OUTPUT:
        stderr().line(f"wrote {html}; open it in a browser")
    return results.exit_code()


def _print_answers(log: "LogFile", reader: LogReader) -> int:
    from kalloctrace.commands.many_logs import read_logs
    from kalloctrace.report.logs import write_alike

    ((name, found, error),) = read_logs([log], reader.explain)
    if error is not None:
        raise error
    if found is None or not found.groups:
        raise no_failure() if found is None or found.error is None else found.error
    with paged() as console:
        write_alike(found, name, console)
    say_beyond(found.beyond)
    if found.error is not None:
        raise found.error
    return Exit.OK


def _print_json(logs: "Sequence[LogFile]", reader: LogReader) -> int:
    from kalloctrace.diagnose.alike import alike_json

    results = Results(logs, partial(explained, reader, alike_json))
    for groups in results:
        stdout().json_lines(groups or [])
    return results.exit_code()


def _print_table(logs: "Sequence[LogFile]", reader: LogReader) -> int:
    from kalloctrace.diagnose.alike import alike_json
    from kalloctrace.report.logs import LogTable, write_table

    table = LogTable()
    results = Results(logs, partial(explained, reader, alike_json))
    for groups in results:
        for group in groups or []:
            table.add(group)
    if results.groups:
        with paged() as console:
            write_table(table, results.read, console)
    return results.exit_code()
