# SPDX-License-Identifier: MIT
"""`kalloctrace explain LOG`: why page allocations in a kernel log failed."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kalloctrace.console import stderr, stdout
from kalloctrace.errors import Exit, KalloctraceError

if TYPE_CHECKING:
    from kalloctrace.diagnose.from_log import Failure


def explain_log(name: str, kernel: str | None, other_options: Sequence[str], *, as_json: bool) -> int:
    """Explain each failure in a log.

    Args:
        name: a file, or "-" for standard input.
        kernel: the kernel to judge by instead of the one in the log: a release, "live" or a trace file.
        other_options: given options that describe a single request; a log excludes them.
        as_json: print one JSON object a line instead of text.

    Raises:
        KalloctraceError: the text has no failure, or an option cannot be combined with a log.
    """
    from kalloctrace.commands.input_lines import input_lines
    from kalloctrace.commands.kernel_source import named_kernel
    from kalloctrace.commands.progress import show_progress
    from kalloctrace.diagnose.from_log import explain_failure
    from kalloctrace.diagnose.log_parser import find_failures

    if other_options:
        what = f"{other_options[0]} does not go with a log"
        raise KalloctraceError(what, "the log contains the requests", "leave it out", Exit.USAGE)
    named = named_kernel(kernel) if kernel is not None else None
    if name == "-" and sys.stdin.isatty():
        stderr().line("paste the log; Ctrl-D on a line of its own ends it")
    with input_lines(name) as lines:
        reports = find_failures(lines, named.tables if named is not None else None)
    failures: list[Failure] = []
    with show_progress(f"explaining {len(reports):,} failures", lambda: len(failures) / len(reports)):
        for report in reports:
            failures.append(explain_failure(report, named))  # noqa: PERF401 the progress bar reads the list
    if not failures:
        raise KalloctraceError(
            "no failure found",
            "the text has no line with 'page allocation failure', 'page allocation stall' or 'invoked oom-killer'",
            "use the kernel's log (dmesg, journalctl -k), from that line to the list of free blocks",
        )
    if as_json:
        from kalloctrace.diagnose.to_json import failure_json

        stdout().json_lines(map(failure_json, failures))
    else:
        from kalloctrace.diagnose.text import write_failures

        write_failures(failures, stdout())
    return Exit.OK
