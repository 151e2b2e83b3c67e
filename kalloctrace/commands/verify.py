# SPDX-License-Identifier: MIT
"""The `verify` command."""

import json
from pathlib import Path

import click

from kalloctrace.errors import Exit, KalloctraceError

_WORST = (Exit.OK, Exit.INCOMPLETE, Exit.FAILED, Exit.MISMATCH)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a trace.")
@click.option("--strict", is_flag=True, help="Exit with 4 when anything was lost, missed, unknown or cut off.")
@click.argument("traces", nargs=-1, required=True, metavar="TRACE...", type=click.Path(path_type=Path))
def command(as_json: bool, strict: bool, traces: tuple[Path, ...]) -> int:
    """Predict every allocation of a trace and compare with what the kernel did.

    The machine's zonelists are compared with those that its nodes' distances lead to expect, and it is said on
    which kernel the rules in use were proven.

    Needs no root and no bcc: a trace carries its kernel and machine with it. Exit code 3 means that the kernel
    did something else than the model says.

    \b
    Examples:
      kalloctrace verify my.arrows
      kalloctrace verify --strict --json fixtures/*/*.arrows
    """
    from kalloctrace.report.verification_text import verification_lines
    from kalloctrace.trace.reader import TraceReader
    from kalloctrace.verify.verification import verify_trace

    worst = Exit.OK
    for path in traces:
        try:
            with TraceReader(path) as trace:
                verdict = verify_trace(trace)
                tables = trace.snapshot.tables
        except KalloctraceError as error:
            if len(traces) == 1:
                raise
            click.echo(str(error), err=True)
            code = error.code
        else:
            if as_json:
                click.echo(json.dumps(verdict.to_json()))
            else:
                click.echo("\n".join(verification_lines(verdict, tables)))
            code = verdict.exit_code(strict=strict)
        worst = max(worst, code, key=_WORST.index)
    return worst
