# SPDX-License-Identifier: MIT
"""The trace that is meant where none is named: on a terminal the newest one of the folder."""

from pathlib import Path

import click

from kalloctrace.console import stderr, stdout
from kalloctrace.errors import Exit, KalloctraceError


def trace_or_newest(named: Path | None) -> Path:
    """Return a trace that is named, or the newest one of the current folder, whose name is printed.

    Args:
        named: the command's argument.

    Raises:
        click.MissingParameter: none is named, and the output is not a terminal: a script must name its trace.
        KalloctraceError: the folder has none (exit code 2).
    """
    from kalloctrace.commands.kernel_source import TRACE_SUFFIX, is_trace

    if named is not None:
        return named
    if not stdout().is_terminal:
        context = click.get_current_context()
        raise click.MissingParameter(ctx=context, param_hint="'TRACE'", param_type="argument")
    traces = [path for path in Path().glob(f"*{TRACE_SUFFIX}") if is_trace(str(path))]
    if not traces:
        raise KalloctraceError(
            "no trace to read",
            f"none is named, and this folder has no {TRACE_SUFFIX} file",
            "name a trace, or record one with: kalloctrace record",
            Exit.USAGE,
        )
    newest = max(traces, key=lambda path: path.stat().st_mtime_ns)
    stderr().line(f"reading {newest}, the newest trace in this folder")
    return newest
