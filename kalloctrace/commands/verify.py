# SPDX-License-Identifier: MIT
"""The `verify` command."""

from pathlib import Path

import click

from kalloctrace.console import stderr, stdout
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.text import file_name

WORST = (Exit.OK, Exit.INCOMPLETE, Exit.USAGE, Exit.FAILED, Exit.MISMATCH, Exit.INTERRUPTED)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per trace.")
@click.option("--strict", is_flag=True, help="Exit with 4 if anything was lost, missed, unknown or truncated.")
@click.option("--ktap", "as_ktap", is_flag=True, help="Print KTAP, the kernel's test protocol: each trace is a test.")
@click.argument("traces", nargs=-1, required=True, metavar="TRACE...", type=click.Path(path_type=Path, readable=False))
def command(as_json: bool, strict: bool, as_ktap: bool, traces: tuple[Path, ...]) -> int:
    """Predict every allocation of a trace and compare with what the kernel did.

    The machine's zonelists are compared with those that follow from the distances of its nodes. The output names the
    kernel that these rules were validated on.

    Needs no root and no bcc: a trace contains its kernel and machine. Exit code 3 means that the kernel did not do
    what the model predicts.

    \b
    Examples:
      kalloctrace verify my.arrows
      kalloctrace verify --strict --json fixtures/*/*.arrows
      kalloctrace verify --ktap my.arrows | tools/testing/kunit/kunit.py parse
    """
    from kalloctrace.commands.progress import reading
    from kalloctrace.verify.verification import verify_trace

    if as_json and as_ktap:
        raise KalloctraceError(
            "cannot combine --json and --ktap", "each is an output format", "use one of them", Exit.USAGE
        )
    if as_ktap:
        from kalloctrace.report.ktap import error_ktap, head

        stdout().lines(head(len(traces)))
    worst = Exit.OK
    for number, path in enumerate(traces, 1):
        try:
            with reading(path) as trace:
                verdict = verify_trace(trace)
                tables = trace.snapshot.tables
        except KalloctraceError as error:
            if len(traces) == 1 and not as_ktap:
                raise
            if as_ktap:
                stdout().lines(error_ktap(number, file_name(path), error.why))
            stderr().error(error)
            code = error.code
        else:
            if as_json:
                stdout().json(verdict.to_json())
            elif as_ktap:
                from kalloctrace.report.ktap import verification_ktap

                stdout().lines(verification_ktap(number, verdict, tables, strict=strict))
            else:
                from kalloctrace.report.verification_text import verification_lines

                stdout().wrapped_lines(verification_lines(verdict, tables))
            code = verdict.exit_code(strict=strict)
        worst = max(worst, code, key=WORST.index)
    return worst
