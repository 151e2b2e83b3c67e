# SPDX-License-Identifier: MIT
"""`kalloctrace explain LOG`: why the page allocations failed that a kernel log shows."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kalloctrace.errors import Exit, KalloctraceError

if TYPE_CHECKING:
    from kalloctrace.diagnose.from_log import Failure


def explain_log(name: str, kernel: str | None, other_options: Sequence[str], *, as_json: bool) -> int:
    """Explain each failure in a log.

    Args:
        name: a file, or "-" for standard input.
        kernel: what to judge by in place of the release in the log: a release, "live" or a trace file.
        other_options: options of a single request that were given, none of which goes with a log.
        as_json: one object a line instead of text.

    Raises:
        KalloctraceError: the text shows no failure, or an option does not go with a log.
    """
    from kalloctrace.commands.kernel_source import named_kernel
    from kalloctrace.commands.progress import shown
    from kalloctrace.diagnose.from_log import explain_failure
    from kalloctrace.diagnose.log_parser import find_failures

    if other_options:
        what = f"{other_options[0]} does not go with a log"
        raise KalloctraceError(what, "the log says what was asked for", "leave it out", Exit.USAGE)
    named = named_kernel(kernel) if kernel is not None else None
    if name == "-" and sys.stdin.isatty():
        click.echo("paste the log; Ctrl-D on a line of its own ends it", err=True)
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    reports = find_failures(_lines(data), named.tables if named is not None else None)
    failures: list[Failure] = []
    with shown(f"explaining {len(reports):,} failures", lambda: len(failures) / len(reports)):
        for report in reports:
            failures.append(explain_failure(report, named))  # noqa: PERF401 it is told how far it is
    if not failures:
        raise KalloctraceError(
            "no failure found",
            "the text has no line with 'page allocation failure', 'page allocation stall' or 'invoked oom-killer'",
            "give it the kernel's log (dmesg, journalctl -k), from that line to the list of free blocks",
        )
    if as_json:
        from kalloctrace.diagnose.to_json import failure_json

        for failure in failures:
            click.echo(json.dumps(failure_json(failure)))
    else:
        from kalloctrace.diagnose.text import write_failures

        write_failures(failures, sys.stdout)
    return Exit.OK


def _lines(data: bytes) -> list[str]:
    """Return the lines of a log, which may hold bytes of any encoding."""
    return data.decode("utf-8", errors="replace").split("\n")
