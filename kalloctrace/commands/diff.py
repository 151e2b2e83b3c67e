# SPDX-License-Identifier: MIT
"""The `diff` command."""

from pathlib import Path

import click

from kalloctrace.console import stdout
from kalloctrace.errors import Exit


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Rows of each table.")
@click.option(
    "--threshold",
    type=click.FloatRange(min=0, max=100),
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="Show a share that differs by at least this many percentage points.",
)
@click.argument("before", metavar="A", type=click.Path(path_type=Path, readable=False))
@click.argument("after", metavar="B", type=click.Path(path_type=Path, readable=False))
def command(as_json: bool, top: int, threshold: float, before: Path, after: Path) -> int:
    """Show what differs between two traces, such as before and after a kernel upgrade.

    Compares requests, their alloc_flags and the model's verdicts: what appeared, what vanished, and whose share
    changed. If both traces have the slow path, its attempts are compared too: their kinds, flags and verdicts. Its
    calls and failures are counted for each trace. Flags are compared by name, each with its own kernel's tables.
    A difference is not a failure.

    \b
    Examples:
      kalloctrace diff before.arrows after.arrows
      kalloctrace diff --json a.arrows b.arrows | jq '.by.preparation.rows[] | select(.change == "appeared")'
      kalloctrace diff --json a.arrows b.arrows | jq '.by.slow_kind.rows, .before.slow, .after.slow'
    """
    from kalloctrace.commands.progress import reading
    from kalloctrace.report.diff import compare, side_of

    with reading(before) as first, reading(after) as second:
        diff = compare(side_of(first), side_of(second), threshold / 100)
    if as_json:
        stdout().json(diff.to_json())
    else:
        from kalloctrace.report.diff_text import diff_lines

        stdout().lines(diff_lines(diff, top))
    return Exit.OK
