# SPDX-License-Identifier: MIT
"""The `diff` command."""

import json
from pathlib import Path

import click

from kalloctrace.errors import Exit


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Rows of each part.")
@click.option(
    "--threshold",
    type=click.FloatRange(min=0, max=100),
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="By how many percentage points a share must differ.",
)
@click.argument("before", metavar="A", type=click.Path(path_type=Path))
@click.argument("after", metavar="B", type=click.Path(path_type=Path))
def command(as_json: bool, top: int, threshold: float, before: Path, after: Path) -> int:
    """Say what differs between two traces, such as before and after a kernel's upgrade.

    Compares requests, the flags that they got, and the model's verdicts: what appeared, what vanished, and what
    has another share. Where both recorded the slow path, also its attempts: their kinds, their flags, and the
    verdicts; its calls and failed ones are told of each trace. Flags are compared by their names, each by its own
    kernel's tables. That something differs is no failure.

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
        click.echo(json.dumps(diff.to_json()))
    else:
        from kalloctrace.report.diff_text import diff_lines

        click.echo("\n".join(diff_lines(diff, top)))
    return Exit.OK
