# SPDX-License-Identifier: MIT
"""The `import` command."""

from pathlib import Path

import click

from kalloctrace.commands import complete
from kalloctrace.console import stderr
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.text import many


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, readable=False),
    help="The trace to write.  [default: FILE.arrows]",
)
@click.option("-f", "--force", is_flag=True, help="Replace the file if it exists.")
@click.option(
    "--kernel",
    metavar="K",
    shell_complete=complete.kernels,
    help="The kernel whose flags to use: 5.10, 6.1, ..., 'live' or a trace.  [default: the text's]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.argument("file", metavar="FILE | -")
def command(output: Path | None, force: bool, kernel: str | None, as_json: bool, file: str) -> int:
    """Make a trace from kmem:mm_page_alloc events that another tool recorded.

    Reads the text of `perf script` (with call chains), of `trace-cmd report`, or of tracefs's file `trace`. The event
    has less than `record` captures: the order, the migratetype, and the gfp mask after the kernel changed it. `verify`
    checks these; an allocation without a mismatch stays unknown.

    \b
    Examples:
      perf script --header | kalloctrace import -o my.arrows -
      (trace-cmd report --uname; trace-cmd report) | kalloctrace import -o my.arrows -
      kalloctrace import --kernel 6.1 -o my.arrows /sys/kernel/tracing/trace
    """
    from kalloctrace.commands.input_lines import input_lines
    from kalloctrace.commands.kernel_source import kernel_snapshot
    from kalloctrace.commands.recording_summary import print_next_step, print_recording_json
    from kalloctrace.output.files import complete_output
    from kalloctrace.text import file_name
    from kalloctrace.trace.ftrace_import import import_text
    from kalloctrace.trace.ftrace_text import EventText

    if file == "-" and output is None:
        raise KalloctraceError("no file to write", "standard input has no name", "name a file with -o", Exit.USAGE)
    path = output or Path(f"{Path(file).name}.arrows")
    source, name = (Path("/dev/stdin"), "standard input") if file == "-" else (Path(file), file_name(file))
    with complete_output(path, overwrite=force, inputs=[source], private=True) as trace:
        snapshot = None if kernel is None else kernel_snapshot(kernel)
        with input_lines(file) as lines:
            text = EventText(lines)
            done = import_text(text, trace, snapshot, name=name)
    if text.unreadable:
        stderr().line(
            f"{many(text.unreadable, 'line')} with this event could not be read, "
            f"the first is line {done.first_unreadable}; counted as lost",
        )
    totals = done.totals
    stderr().line(
        f"{many(totals.submitted, 'event')} of {done.form} on {done.kernel} in {totals.seconds:.1f} s; "
        f"lost {totals.lost:,}",
    )
    print_next_step(path)
    if as_json:
        print_recording_json(path, done.kernel, done.form, totals)
    return Exit.OK
