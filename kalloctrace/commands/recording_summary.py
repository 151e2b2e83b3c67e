# SPDX-License-Identifier: MIT
"""What the commands that write a trace say at their end."""

import json
import shlex
from pathlib import Path

import click

from kalloctrace.trace.totals import Totals


def print_totals(totals: Totals) -> None:
    """Say how much was captured, and what is missing."""
    click.echo(
        f"{totals.submitted:,} allocations in {totals.seconds:.1f} s ({totals.reason}); "
        f"lost {totals.lost}, missed {totals.missed}, still running {totals.running}",
        err=True,
    )
    if totals.slow:
        click.echo(
            f"slow path: {totals.slow:,} calls, failed {totals.slow_failed or 0:,}, "
            f"still running {totals.slow_running}; events lost {totals.slow_lost}, missed {totals.slow_missed}",
            err=True,
        )


def print_next_step(path: Path) -> None:
    """Say where the trace is, and what to do with it."""
    click.echo(f"wrote {path}\nnext: kalloctrace verify {shlex.quote(str(path))}", err=True)


def print_recording_json(path: Path, kernel: str, source: str, totals: Totals, exit_status: int | None = None) -> None:
    """Write the same as a JSON object, schemas/recording.schema.json.

    Args:
        path: the trace.
        kernel: its release.
        source: what recorded it.
        totals: what was counted.
        exit_status: of the command that ran meanwhile, None without one.
    """
    said = {
        "type": "recording",
        "trace": str(path),
        "kernel": kernel,
        "source": source,
        "allocations": totals.submitted,
        "lost": totals.lost,
        "missed": totals.missed,
        "running": totals.running,
        "slow": totals.slow,
        "slow_failed": totals.slow_failed,
        "slow_lost": totals.slow_lost,
        "slow_missed": totals.slow_missed,
        "machine_changed": list(totals.machine_changed),
        "seconds": totals.seconds,
        "reason": totals.reason,
        "exit_status": exit_status,
    }
    click.echo(json.dumps(said))
