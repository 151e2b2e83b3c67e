# SPDX-License-Identifier: MIT
"""The `export` command."""

from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, get_args

import click

from kalloctrace.console import stderr, stdout
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.text import file_name, shell_word

if TYPE_CHECKING:
    from kalloctrace.trace.reader import Ending, TraceReader

_Form = Literal["parquet", "csv", "jsonl", "perfetto", "folded", "speedscope"]
_BINARY = ("parquet", "perfetto")


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(get_args(_Form)),
    required=True,
    help="What to write: a table with a column for each field, a timeline, or stacks for flame graphs.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, readable=False),
    help="The file to write.  [default: standard output]",
)
@click.option("-f", "--force", is_flag=True, help="Replace the file if it exists.")
@click.argument("trace", metavar="TRACE", type=click.Path(path_type=Path, readable=False))
def command(form: _Form, output: Path | None, force: bool, trace: Path) -> int:
    """Write a trace for other programs.

    Needs no root and no bcc. parquet, csv and jsonl have one row per call, or one row per count of an aggregate. Their
    numbers are the kernel's own; `kalloctrace decode --kernel TRACE` names the bits.

    \b
    perfetto    a timeline for https://ui.perfetto.dev: tracks of CPUs and tasks, counters; needs --mode stream
    folded      "task;outermost;...;innermost calls" a line, for flamegraph.pl and others
    speedscope  the same for https://www.speedscope.app, by calls and by bytes

    If no stacks were recorded, the gfp mask and the order are used instead.

    \b
    Examples:
      kalloctrace export --format parquet -o my.parquet my.arrows
      kalloctrace export --format jsonl my.arrows | jq 'select(.order > 3)'
      kalloctrace export --format perfetto -o my.pftrace my.arrows
      kalloctrace export --format folded my.arrows | flamegraph.pl > my.svg
    """
    from kalloctrace.commands.progress import reading
    from kalloctrace.output import complete_output, standard_output

    if form in _BINARY and output is None and (form == "parquet" or stdout().is_terminal):
        why = "Parquet cannot be streamed" if form == "parquet" else "a terminal does not show a timeline"
        raise KalloctraceError("no file to write", why, "name a file with -o", Exit.USAGE)
    writing = standard_output([trace]) if output is None else complete_output(output, overwrite=force, inputs=[trace])
    with writing as file, reading(trace) as reader:
        if form == "perfetto" and reader.aggregate:
            raise KalloctraceError(
                f"cannot make a timeline of {trace}",
                "it is an aggregate, which has no times and no tasks",
                "record with --mode stream, or choose another --format",
            )
        ending = _write(reader, form, file)
        if ending.truncated:
            why = f" ({ending.damage})" if ending.damage else ""
            stderr().line(f"truncated: the end of {trace} is missing{why}; written up to its last whole batch")
        slow = ending.totals.slow if ending.totals is not None else None
        if slow and form in {"parquet", "csv", "jsonl"}:
            words = f"kalloctrace report --failures --slower-than 0 --json {shell_word(trace)}"
            stderr().line(f"without the attempts of {slow:,} calls of the slow path, which {words} writes")
        if reader.sample > 1:
            stderr().line(f"a sample: 1 call in {reader.sample:,} was recorded")
    return Exit.OK


def _write(trace: "TraceReader", form: _Form, stream: IO[bytes]) -> "Ending":
    match form:
        case "perfetto":
            from kalloctrace.report.export.perfetto import write_perfetto

            return write_perfetto(trace, stream)
        case "folded" | "speedscope":
            from kalloctrace.report.export.stacks import stacks_of, write_folded, write_speedscope

            stacks = stacks_of(trace)
            if not stacks.recorded:
                stderr().line("no stacks were recorded: the gfp mask and the order are used instead")
            if form == "folded":
                write_folded(stacks, stream)
            else:
                write_speedscope(stacks, file_name(trace.path.name), stream)
            return stacks.ending
        case _:
            from kalloctrace.report.export.rows import write_rows

            return write_rows(trace, form, stream)
