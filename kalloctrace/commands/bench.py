# SPDX-License-Identifier: MIT
"""The `bench` command."""

import click

from kalloctrace.bench.interval import FEWEST
from kalloctrace.errors import Exit, KalloctraceError

_REPEAT = 9
_MINUTES = 5


@click.command()
@click.option(
    "--repeat",
    type=click.IntRange(min=FEWEST),
    metavar="N",
    help=f"Measure each tool N times; more give narrower intervals. [default: {_REPEAT}, or from {FEWEST} on what fits "
    f"into {_MINUTES} minutes]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(repeat: int | None, as_json: bool) -> int:
    """Measure what tracing adds to an allocation on this machine, as root.

    A process touches and frees memory, alone and while each tool traces: this program's two modes, and perf stat, perf
    record and bpftrace where they are installed. It takes some minutes; the machine should be idle.

    \b
    Examples:
      kalloctrace bench
      kalloctrace bench --repeat 20 --json
    """
    import tempfile
    from pathlib import Path

    from kalloctrace.bench.machine import this_machine
    from kalloctrace.bench.measure import measure
    from kalloctrace.bench.text import result_json, write_result
    from kalloctrace.bench.tools import BPFTRACE, PERF_RECORD, PERF_STAT, ours
    from kalloctrace.commands.progress import show_progress
    from kalloctrace.console import stdout
    from kalloctrace.kernel.live import LiveKernel
    from kalloctrace.probe.attach.plan import make_plan
    from kalloctrace.probe.checks import require_live

    kernel = LiveKernel()
    require_live(kernel)
    attachment = make_plan(kernel).attach
    rows = (ours("aggregate", "auto"), ours("stream", "auto"), PERF_STAT, PERF_RECORD, BPFTRACE)
    done = [0.0]
    with (
        tempfile.TemporaryDirectory(prefix="kalloctrace-bench-") as folder,
        show_progress("measuring", lambda: done[-1]),
    ):
        result = measure(rows, repeat or _REPEAT, Path(folder), done.append, None if repeat else _MINUTES * 60)
    if as_json:
        stdout().json(result_json(result, this_machine(), attachment))
    else:
        write_result(result, this_machine(), attachment, stdout())
    failed = [one for one in result.added if one.gap and one.row.command[0] == "kalloctrace"]
    if failed:
        raise KalloctraceError(f"{failed[0].row.name} was not measured", failed[0].gap, "see: kalloctrace doctor")
    return Exit.OK
