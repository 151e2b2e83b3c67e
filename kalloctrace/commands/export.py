# SPDX-License-Identifier: MIT
"""The `export` command."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, get_args

import click

from kalloctrace.console import stderr, stdout
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.text import file_name, shell_word

if TYPE_CHECKING:
    from kalloctrace.trace.reader import Ending, TraceReader

_Form = Literal["parquet", "csv", "jsonl", "tables", "duckdb", "perfetto", "folded", "speedscope", "arrows"]
_NEED_FILES = {
    "parquet": "Parquet cannot be streamed",
    "tables": "tables are a folder of files",
    "duckdb": "a database is a file",
    "arrows": "a trace is a file",
}


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(get_args(_Form)),
    required=True,
    help="What to write: a table with a column for each field, a set of tables for SQL, a timeline, or stacks.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, readable=False),
    help="The file to write, or the folder of tables; - is standard output.  [default: -]",
)
@click.option("-f", "--force", is_flag=True, help="Replace the file or the folder if it exists.")
@click.option(
    "--pseudonymous",
    is_flag=True,
    help="Hash the names of tasks, commands and cgroups, with a random key that is thrown away.",
)
@click.argument("trace", metavar="TRACE", type=click.Path(path_type=Path, readable=False))
def command(form: _Form, output: Path | None, force: bool, pseudonymous: bool, trace: Path) -> int:
    """Write a trace for other programs.

    Needs no root and no bcc. parquet, csv and jsonl have one row per call, or one row per count of an aggregate. Their
    numbers are the kernel's own; `kalloctrace decode --kernel TRACE` names the bits.

    \b
    tables      a folder of Parquet files for SQL: allocations, slow_calls, attempts, zones, stacks, cgroups, flags,
                recording
    duckdb      the same tables in one DuckDB file; needs the extra [duckdb]
    perfetto    a timeline for https://ui.perfetto.dev: tracks of CPUs and tasks, counters; needs --mode stream
    folded      "task;outermost;...;innermost calls" a line, for flamegraph.pl and others
    speedscope  the same for https://www.speedscope.app, by calls and by bytes
    arrows      a trace again, with --pseudonymous, to be shared

    If no stacks were recorded, the gfp mask and the order are used instead.

    \b
    Examples:
      kalloctrace export --format parquet -o my.parquet my.arrows
      kalloctrace export --format jsonl my.arrows | jq 'select(.order > 3)'
      kalloctrace export --format tables -o my-tables my.arrows
      kalloctrace export --format duckdb -o my.duckdb my.arrows
      kalloctrace export --format perfetto -o my.pftrace my.arrows
      kalloctrace export --format folded my.arrows | flamegraph.pl > my.svg
      kalloctrace export --format arrows --pseudonymous -o shared.arrows my.arrows
    """
    from kalloctrace.output.place import STANDARD_OUTPUT

    if output == STANDARD_OUTPUT:
        output = None
    if form == "arrows" and not pseudonymous:
        raise KalloctraceError("nothing to export", "it would be the same trace", "add --pseudonymous", Exit.USAGE)
    if output is None and (form in _NEED_FILES or (form == "perfetto" and stdout().is_terminal)):
        why = _NEED_FILES.get(form, "a terminal does not show a timeline")
        what = "folder" if form == "tables" else "file"
        raise KalloctraceError(f"no {what} to write", why, f"name a {what} with -o", Exit.USAGE)
    source = _pseudonymous(trace) if pseudonymous and form != "arrows" else nullcontext(trace)
    return _export(form, output, force, trace, source)


@contextmanager
def _pseudonymous(trace: Path) -> Iterator[Path]:
    """Yield a trace that has pseudonyms in place of names."""
    from kalloctrace.commands.progress import reading
    from kalloctrace.output.temporary import scratch_folder
    from kalloctrace.trace.pseudonyms import write_pseudonymous

    with scratch_folder() as folder:
        copy = folder / "pseudonymous.arrows"
        with copy.open("wb") as file, reading(trace) as reader:
            write_pseudonymous(reader, file)
        yield copy


def _export(form: _Form, output: Path | None, force: bool, trace: Path, source: AbstractContextManager[Path]) -> int:
    """Write what `source` has, which stands for the trace that the user named."""
    from kalloctrace.commands.progress import reading
    from kalloctrace.output.files import complete_output, standard_output
    from kalloctrace.output.folders import complete_folder

    if form == "tables":
        from kalloctrace.report.export.tables.write import write_tables

        assert output is not None  # noqa: S101 (refused above)
        with (
            complete_folder(output, overwrite=force, inputs=[trace]) as folder,
            source as path,
            reading(path) as reader,
        ):
            _print_missing(reader, write_tables(reader, folder.file), trace)
        return Exit.OK
    if form == "duckdb":
        from kalloctrace.report.export.tables.write import require_duckdb

        require_duckdb()
    writing = standard_output([trace]) if output is None else complete_output(output, overwrite=force, inputs=[trace])
    with writing as file, source as path, reading(path) as reader:
        if form == "perfetto" and reader.aggregate:
            raise KalloctraceError(
                f"cannot make a timeline of {trace}",
                "it is an aggregate, which has no times and no tasks",
                "record with --mode stream, or choose another --format",
            )
        ending = _write(reader, form, file)
        _print_missing(reader, ending, trace)
        slow = ending.totals.slow if ending.totals is not None else None
        if slow and form in {"parquet", "csv", "jsonl"}:
            words = f"kalloctrace export --format tables -o FOLDER {shell_word(trace)}"
            stderr().line(f"without the attempts of {slow:,} calls of the slow path, which {words} writes")
    return Exit.OK


def _print_missing(reader: "TraceReader", ending: "Ending", trace: Path) -> None:
    """Print what the trace lacks."""
    if ending.truncated:
        why = f" ({ending.damage})" if ending.damage else ""
        stderr().line(f"truncated: the end of {trace} is missing{why}; written up to its last whole batch")
    if ending.slow_damage:
        stderr().line(f"damaged: {ending.slow_damage}; written up to them")
    if reader.sample > 1:
        stderr().line(f"a sample: 1 call in {reader.sample:,} was recorded")


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
        case "duckdb":
            from kalloctrace.report.export.tables.write import write_duckdb

            return write_duckdb(trace, stream)
        case "arrows":
            from kalloctrace.trace.pseudonyms import write_pseudonymous

            return write_pseudonymous(trace, stream)
        case "tables":
            raise AssertionError("tables are a folder")
        case _:
            from kalloctrace.report.export.rows import write_rows

            return write_rows(trace, form, stream)
