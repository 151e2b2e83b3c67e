# SPDX-License-Identifier: MIT
"""Compares the model with compiled kernels: functions of Debian's images, executed in an emulator of the processor.

`make compiled` runs it. It calls the slow path with random requests, tasks, cpusets and zones, and judges every
attempt. It calls the entry function in the same way and compares the arguments of the slow path. It calls the watermark
check on random zones and compares the result.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from kalloctrace.errors import Exit  # noqa: E402  (a script's neighbours are no package's)
from tests.compiled.measure import Plan, measure  # noqa: E402
from tests.compiled.tally import tables  # noqa: E402
from tests.section import write_section  # noqa: E402

KERNELS = ("5.10", "6.1", "6.12", "6.16", "6.19", "7.0", "7.1", "7.2", "7.3")
PAGE = ROOT / "docs" / "slow-path.md"
BEGIN = "<!-- what compiled kernels do: written by make compiled -->"
END = "<!-- end of what compiled kernels do -->"


@click.command()
@click.argument("kernels", metavar="[KERNEL]...", nargs=-1)
@click.option("--calls", default=10_000, show_default=True, help="Calls of the slow path, a kernel.")
@click.option("--checks", default=10_000, show_default=True, help="Requests, and checks of a watermark, a kernel.")
@click.option("--seed", default=1, show_default=True, help="Seed of the random choices; it fixes the figures.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="How many kernels to run in parallel.")
@click.option(
    "--docs", is_flag=True, help="Write the tables into docs/slow-path.md as well, if every kernel is available."
)
@click.option(
    "--record",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write some of the calls and checks into slowpath/ and watermark/ there, replacing older ones.",
)
def main(  # noqa: PLR0917  (click passes one argument an option)
    kernels: tuple[str, ...], calls: int, checks: int, seed: int, jobs: int, docs: bool, record: Path | None
) -> None:
    """Compare the model with the compiled functions of each KERNEL, and print the result.

    The exit code is 3 if the model and a kernel differ, 1 if a kernel is not available or cannot be executed, and 4 if
    a kind of attempt never occurred.
    """
    plan = Plan(calls, checks, seed, record)
    with ProcessPoolExecutor(jobs) as pool:
        tallies = list(pool.map(measure, kernels or KERNELS, repeat(plan)))
    click.echo(tables(tallies))
    if docs and not any(tally.failure for tally in tallies):
        write_section(PAGE, BEGIN, END, tables(tallies))
    for tally in tallies:
        for text in (tally.failure, *tally.shown):
            if text:
                click.echo(f"{tally.name}: {text}", err=True)
        if not tally.failure and tally.unmet():
            click.echo(f"{tally.name}: no attempt was certainly {' or '.join(tally.unmet())}", err=True)
    if any(tally.differs for tally in tallies):
        sys.exit(Exit.MISMATCH)
    if any(tally.failure for tally in tallies):
        sys.exit(Exit.FAILED)
    sys.exit(Exit.INCOMPLETE if any(tally.unmet() for tally in tallies) else Exit.OK)


if __name__ == "__main__":
    main()
