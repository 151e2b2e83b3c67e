# SPDX-License-Identifier: MIT
"""The `record` command."""

import os
import shlex
import time
from pathlib import Path
from typing import Literal

import click

from kalloctrace.errors import Exit, KalloctraceError


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The trace to write.  [default: a new name]")
@click.option("-f", "--force", is_flag=True, help="Replace the file if it exists.")
@click.option("-d", "--duration", type=click.FloatRange(min=0, min_open=True), help="End after this many seconds.")
@click.option(
    "--mode",
    type=click.Choice(["aggregate", "stream"]),
    default="aggregate",
    show_default=True,
    help="aggregate counts calls that are alike, and costs least; stream has a row for each, with time and task.",
)
@click.option("--returns", is_flag=True, help="With stream: also what each call returned. A third probe.")
@click.option(
    "--attach",
    type=click.Choice(["auto", "fentry", "kprobe"]),
    default="auto",
    show_default=True,
    help="How to attach. fentry costs least; kprobe also sees what tasks do that preempt one another.",
)
@click.option("--pid", type=click.IntRange(min=1), help="Record this process only.")
@click.option("--stack", is_flag=True, help="Record the kernel stack of each call.")
@click.argument("command_line", nargs=-1, metavar="[-- COMMAND...]", type=click.UNPROCESSED)
def command(
    output: Path | None,
    force: bool,
    duration: float | None,
    mode: Literal["aggregate", "stream"],
    returns: bool,
    attach: Literal["auto", "fentry", "kprobe"],
    pid: int | None,
    stack: bool,
    command_line: tuple[str, ...],
) -> int:
    """Capture page allocations live, as root, into a trace.

    Records while COMMAND runs, for a time, or until Ctrl-C. All processes are recorded unless --pid names one.

    \b
    Examples:
      kalloctrace record -- make -j8
      kalloctrace record -d 10 -o ten-seconds.arrows
      kalloctrace record --mode stream --stack --pid 1234
    """
    import psutil

    from kalloctrace.kernel.live import LiveKernel
    from kalloctrace.probe.checks import require_live
    from kalloctrace.probe.recorder import Options, no_such_process, record
    from kalloctrace.trace.writer import exists_already

    if mode == "aggregate" and (returns or stack):
        option = "--returns" if returns else "--stack"
        raise KalloctraceError(
            f"will not record with {option}",
            "an aggregate does not tell one call from the next",
            f"add --mode stream, or leave out {option}",
            Exit.USAGE,
        )
    path = output or Path(f"kalloctrace-{os.uname().release}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.arrows")
    if path.exists() and not force:
        raise exists_already(path)
    if pid is not None and not psutil.pid_exists(pid):
        raise no_such_process(pid)
    kernel = LiveKernel()
    require_live(kernel)
    result = record(
        kernel,
        Options(
            path,
            force,
            command_line,
            duration,
            pid,
            stack,
            "returns" if returns else mode,
            None if attach == "auto" else attach,
        ),
        started=lambda: click.echo(
            f"recording on {kernel.snapshot.release}"
            + (f" while {shlex.join(command_line)} runs" if command_line else "")
            + ("" if command_line or duration else "; Ctrl-C ends it"),
            err=True,
        ),
    )
    totals = result.totals
    click.echo(
        f"{totals.submitted:,} allocations in {totals.seconds:.1f} s ({totals.reason}); "
        f"lost {totals.lost}, missed {totals.missed}, still running {totals.running}",
        err=True,
    )
    click.echo(f"wrote {path}\nnext: kalloctrace verify {shlex.quote(str(path))}", err=True)
    if result.exit_status not in (None, 0):
        raise KalloctraceError(
            f"the command {shlex.join(command_line)} failed",
            f"it ended with exit status {result.exit_status}",
            "the trace is whole; mend the command if that was not meant",
        )
    return Exit.OK
