# SPDX-License-Identifier: MIT
"""What the commands that capture say at their end."""

import shlex
from pathlib import Path

import click

from kalloctrace.trace.totals import Totals


def say_ended(totals: Totals) -> None:
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


def say_wrote(path: Path) -> None:
    """Say where the trace is, and what to do with it."""
    click.echo(f"wrote {path}\nnext: kalloctrace verify {shlex.quote(str(path))}", err=True)
