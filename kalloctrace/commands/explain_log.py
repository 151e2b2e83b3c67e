# SPDX-License-Identifier: MIT
"""`kalloctrace explain LOG`: why the page allocations failed that a kernel log shows."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from kalloctrace.errors import Exit, KalloctraceError


def explain_log(name: str, kernel: str | None, other_options: Sequence[str], *, as_json: bool) -> int:
    """Explain each failure in a log.

    Args:
        name: a file, or "-" for standard input.
        kernel: the release to judge by, in place of the one in the log.
        other_options: options of a single request that were given, none of which goes with a log.
        as_json: one object a line instead of text.

    Raises:
        KalloctraceError: the text shows no failure, or an option does not go with a log.
    """
    from kalloctrace.flags.builtin import builtin_tables
    from kalloctrace.report.failure import explain_failure
    from kalloctrace.report.failure_log import find_failures

    if other_options:
        what = f"{other_options[0]} does not go with a log"
        raise KalloctraceError(what, "the log says what was asked for", "leave it out", Exit.USAGE)
    tables = builtin_tables(kernel) if kernel is not None else None
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    failures = [explain_failure(logged, kernel) for logged in find_failures(_lines(data), tables)]
    if not failures:
        raise KalloctraceError(
            "no failure found",
            "the text has no line with 'page allocation failure', 'page allocation stall' or 'invoked oom-killer'",
            "give it the kernel's log (dmesg, journalctl -k), from that line to the list of free blocks",
        )
    if as_json:
        from kalloctrace.report.failure_json import failure_json

        for failure in failures:
            click.echo(json.dumps(failure_json(failure)))
    else:
        from kalloctrace.report.failure_text import write_failures

        write_failures(failures, sys.stdout)
    return Exit.OK


def _lines(data: bytes) -> list[str]:
    """Return the lines of a log, which may hold bytes of any encoding."""
    return data.decode("utf-8", errors="replace").split("\n")
