# SPDX-License-Identifier: MIT
"""The `record` command."""

import os
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import click

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.flags.tables import FlagTables


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
@click.option("--pid", type=click.IntRange(min=1), help="Only calls of this process.")
@click.option("--comm", metavar="NAME", help="Only calls of tasks with this name (15 bytes).")
@click.option("--order", type=click.IntRange(min=0), help="Only calls of this order.")
@click.option("--gfp-any", metavar="MASK", help="Only calls with some of these gfp flags.")
@click.option("--gfp-all", metavar="MASK", help="Only calls with all of these gfp flags.")
@click.option("--gfp-none", metavar="MASK", help="Only calls with none of these gfp flags.")
@click.option("--node", type=click.IntRange(min=-1), help="Only calls that prefer this node.")
@click.option("--zone", metavar="NAME", help="Only calls whose preferred zone is of this kind, such as Normal.")
@click.option("--alloc-flags", metavar="FLAGS", help="Only calls that were prepared with all of these.")
@click.option("--failed", is_flag=True, help="Only calls that returned no page; needs --returns.")
@click.option("--sample", type=click.IntRange(min=2), metavar="N", help="Only one call in N.")
@click.option("--max-rate", type=click.IntRange(min=1), metavar="N", help="At most N calls a second; needs stream.")
@click.option("--slow/--no-slow", default=True, show_default=True, help="Record each attempt of the slow path too.")
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
    comm: str | None,
    order: int | None,
    gfp_any: str | None,
    gfp_all: str | None,
    gfp_none: str | None,
    node: int | None,
    zone: str | None,
    alloc_flags: str | None,
    failed: bool,
    sample: int | None,
    max_rate: int | None,
    slow: bool,
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
    from kalloctrace.probe.filters import Filters
    from kalloctrace.probe.recorder import Options, no_such_process, record
    from kalloctrace.trace.writer import exists_already

    _require("--returns", {"--failed": failed and not returns})
    _require(
        "--mode stream", {"--returns": returns, "--stack": stack, "--max-rate": max_rate} if mode != "stream" else {}
    )
    path = output or Path(f"kalloctrace-{os.uname().release}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.arrows")
    if path.exists() and not force:
        raise exists_already(path)
    if pid is not None and not psutil.pid_exists(pid):
        raise no_such_process(pid)
    kernel = LiveKernel()
    require_live(kernel)
    filters = Filters(
        pid,
        comm,
        order,
        _flags(gfp_any, kernel.tables),
        _flags(gfp_all, kernel.tables),
        _flags(gfp_none, kernel.tables),
        node,
        _zone(zone, kernel.tables),
        _flags(alloc_flags, kernel.tables, "alloc_flags"),
        failed,
        sample,
        max_rate,
    )
    result = record(
        kernel,
        Options(
            path,
            force,
            command_line,
            duration,
            filters,
            stack,
            "returns" if returns else mode,
            None if attach == "auto" else attach,
            slow,
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
    if totals.slow:
        click.echo(
            f"slow path: {totals.slow:,} calls, of these {totals.slow_running} still running; "
            f"events lost {totals.slow_lost}, missed {totals.slow_missed}",
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


def _require(needed: str, given: Mapping[str, object]) -> None:
    """Refuse options without another one that gives them their meaning."""
    for option, value in given.items():
        if value:
            raise KalloctraceError(
                f"will not record with {option} alone",
                f"it asks for what only {needed} captures",
                f"add {needed}, or leave out {option}",
                Exit.USAGE,
            )


def _flags(text: str | None, tables: FlagTables, kind: Literal["gfp", "alloc_flags"] = "gfp") -> int | None:
    from kalloctrace.flags.decode import parse_flags

    return None if text is None else parse_flags(text, tables, kind)


def _zone(name: str | None, tables: FlagTables) -> int | None:
    if name is None:
        return None
    index = tables.zone_index(name)
    if index is None:
        names = ", ".join(tables.zone_name(number) for _, number in tables.zone_type)
        raise KalloctraceError(f"{name!r} is no zone", f"this kernel has {names}", "name one of these", Exit.USAGE)
    return index
