# SPDX-License-Identifier: MIT
"""The `export` command."""

import sys
from pathlib import Path
from typing import Literal

import click

from kalloctrace.errors import Exit, KalloctraceError


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "csv", "jsonl"]),
    required=True,
    help="What to write; a table has one column for each field.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.  [default: standard output]")
@click.option("-f", "--force", is_flag=True, help="Replace the file if it exists.")
@click.argument("trace", metavar="TRACE", type=click.Path(path_type=Path))
def command(form: Literal["parquet", "csv", "jsonl"], output: Path | None, force: bool, trace: Path) -> int:
    """Write a trace's rows for other programs: a row a call, or of an aggregate a row a count.

    Needs no root and no bcc. Numbers are raw, as the kernel had them: `kalloctrace decode --kernel TRACE` names
    them.

    \b
    Examples:
      kalloctrace export --format parquet -o my.parquet my.arrows
      kalloctrace export --format csv my.arrows | head
      kalloctrace export --format jsonl my.arrows | jq 'select(.order > 3)'
    """
    from kalloctrace.trace.export import export
    from kalloctrace.trace.reader import TraceReader
    from kalloctrace.trace.writer import exists_already

    if form == "parquet" and output is None:
        raise KalloctraceError("no file to write", "Parquet cannot be streamed", "name a file with -o", Exit.USAGE)
    with TraceReader(trace) as reader:
        if output is None:
            export(reader, form, sys.stdout.buffer)
        else:
            try:
                file = output.open("wb" if force else "xb")
            except FileExistsError as error:
                raise exists_already(output) from error
            with file:
                export(reader, form, file)
        if reader.truncated:
            why = f" ({reader.damage})" if reader.damage else ""
            click.echo(f"truncated: the end of {trace} is missing{why}; written up to its last whole batch", err=True)
        if reader.sample > 1:
            click.echo(f"a sample: 1 call in {reader.sample:,} was recorded", err=True)
    return Exit.OK
