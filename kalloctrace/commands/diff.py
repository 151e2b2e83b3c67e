# SPDX-License-Identifier: MIT
"""The `diff` command."""

from pathlib import Path

import click
from click.core import ParameterSource

from kalloctrace.commands.kernel_source import TRACE_SUFFIX, is_trace
from kalloctrace.commands.pager import paged
from kalloctrace.console import stdout
from kalloctrace.errors import Exit, KalloctraceError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Rows of each table.")
@click.option(
    "--threshold",
    type=click.FloatRange(min=0, max=100),
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="Of traces, show a share that differs by at least this many percentage points.",
)
@click.argument("before", metavar="A", type=click.Path(path_type=Path, readable=False, allow_dash=True))
@click.argument("after", metavar="B", type=click.Path(path_type=Path, readable=False, allow_dash=True))
def command(as_json: bool, top: int, threshold: float, before: Path, after: Path) -> int:
    """Show what differs between two traces or two kernel logs, such as before and after a kernel upgrade.

    Compares requests, their alloc_flags and the model's verdicts: what appeared, what vanished, and whose share
    changed. If both traces have the slow path, its attempts are compared too: their kinds, flags and verdicts. Its
    calls and failures are counted for each trace. Flags are compared by name, each with its own kernel's tables.
    A difference is not a failure.

    Of logs (files, folders, or - for standard input) it compares the failures that `explain` finds: how many of each
    kind there are, by event, order, mask, caller, constraint and conclusion.

    \b
    Examples:
      kalloctrace diff before.arrows after.arrows
      kalloctrace diff --json a.arrows b.arrows | jq '.by.preparation.rows[] | select(.change == "appeared")'
      kalloctrace diff --json a.arrows b.arrows | jq '.by.slow_kind.rows, .before.slow, .after.slow'
      kalloctrace diff kern.log.1 kern.log
    """
    if _are_logs(before, after):
        if click.get_current_context().get_parameter_source("threshold") is not ParameterSource.DEFAULT:
            why = "the failures of logs are compared by number, not by share"
            raise KalloctraceError("--threshold does not go with logs", why, "leave it out", Exit.USAGE)
        from kalloctrace.commands.diff_logs import diff_logs

        return diff_logs(str(before), str(after), top, as_json=as_json)
    from kalloctrace.commands.progress import reading
    from kalloctrace.report.diff import compare, side_of

    with reading(before) as first, reading(after) as second:
        diff = compare(side_of(first), side_of(second), threshold / 100)
    if as_json:
        stdout().json(diff.to_json())
    else:
        from kalloctrace.report.diff_text import diff_lines

        with paged() as console:
            console.lines(diff_lines(diff, top))
    return Exit.OK


def _are_logs(before: Path, after: Path) -> bool:
    """Return whether both are logs. A trace begins as one; a damaged one may have no more than its name.

    Raises:
        KalloctraceError: one is a trace, and the other is none.
    """
    traces = [is_trace(str(path)) for path in (before, after)]
    named = [path.suffix == TRACE_SUFFIX for path in (before, after)]
    if not any(traces):
        return not any(named)
    for path, trace, name in zip((before, after), traces, named, strict=True):
        if not trace and not name and path.exists():
            raise KalloctraceError(
                f"cannot compare a trace with {path}", "it is no trace", "give two traces or two logs", Exit.USAGE
            )
    return False
