# SPDX-License-Identifier: MIT
"""The `report` command."""

import json
import sys
from pathlib import Path

import click

from kalloctrace.errors import Exit


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Rows of each table.")
@click.argument("trace", metavar="TRACE", type=click.Path(path_type=Path))
def command(as_json: bool, top: int, trace: Path) -> int:
    """Summarise a trace: who allocated what, from where, and whether the model agrees.

    Needs no root and no bcc. Names are those of the recorded kernel. Of the kernel stacks, where the trace has
    them, the text shows half as many as rows.

    \b
    Examples:
      kalloctrace report my.arrows
      kalloctrace report --top 30 my.arrows | less
      kalloctrace report --json my.arrows | jq '.by.gfp.rows[0]'
    """
    from kalloctrace.report.summary import summarize
    from kalloctrace.trace.reader import TraceReader
    from kalloctrace.verify.verification import verify_trace

    with TraceReader(trace) as reader:
        summary = summarize(reader)
    with TraceReader(trace) as reader:
        verdict = verify_trace(reader)
    if as_json:
        click.echo(json.dumps(summary.to_json(verdict, top)))
    else:
        from kalloctrace.report.summary_text import write_summary

        write_summary(summary, verdict, sys.stdout, top=top)
    return Exit.OK
