# SPDX-License-Identifier: MIT
"""Measures the instructions that a tool adds to an allocation, in a guest with the instruction clock.

`python -m tests.bench.cost --kernel 5.10 --kernel 7.3 -- kalloctrace record -f -o {out} -- {work}` measures one
command; `make bench` uses this for its whole table. See rows.py for the placeholders in commands.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from kalloctrace.bench.tools import PERF_STAT, Row
from kalloctrace.errors import KalloctraceError
from kalloctrace.lab.run import run_in_guest
from tests.bench.rows import APART, DEFAULT, FLOORS, OURS, PEERS, WATCHED

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "bench"
GUEST = Path(__file__).with_name("guest.py")
WORK = {"processes": 4, "pages": 512, "warm": 30, "rounds": 30}
TIMEOUT = 7200
TESTED = "5.10"
"""The kernel on which tests/live/test_cost.py measures."""


@dataclass(frozen=True)
class Cost:
    """The overhead of a row per allocation.

    Attributes:
        least: instructions, the minimum of all rounds minus that of the untraced runs right before and after it.
        mean: instructions, the same of the means, which include the tool's own work.
        drift: instructions by which the minima of these two untraced runs differ.
        captured: the captured allocations.
        lost: the lost allocations.
        gap: why there is no figure; empty if there is one.
        boot: the id of the boot in which it was measured.
    """

    least: float = 0
    mean: float = 0
    captured: int = 0
    lost: int = 0
    gap: str = ""
    drift: float = 0
    boot: str = ""

    def __str__(self) -> str:
        """Return the figures as text."""
        if self.gap:
            return self.gap
        return (
            f"+{self.least:,.1f} (mean +{self.mean:,.1f}), captured {self.captured:,}, lost {self.lost:,}, "
            f"untraced figure moved by {self.drift:,.1f}"
        )


def compiled(folder: Path) -> Path:
    """Build the program of the work in a folder and return its path.

    Raises:
        KalloctraceError: gcc is not installed.
    """
    if shutil.which("gcc") is None:
        raise KalloctraceError("the benchmark's work cannot be built", "gcc is not installed", "apt install gcc")
    program = folder / "touch"
    # Static, for guests without this machine's libraries.
    subprocess.run(["gcc", "-O2", "-static", "-o", program, GUEST.with_name("touch.c")], check=True)
    return program


def measure(kernel: str, rows: Sequence[Row], own: Sequence[Row] = ()) -> dict[str, Any]:
    """Measure rows in one boot of a kernel; return the result of guest.py.

    Args:
        kernel: the kernel's name in the lab.
        rows: the rows of the table.
        own: the rows whose start and consumer are measured too.

    Raises:
        KalloctraceError: the guest failed.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as name:
        folder = Path(name)
        job: dict[str, Any] = {"touch": str(compiled(folder)), **WORK}
        job |= {"rows": [asdict(row) for row in rows], "own": [asdict(row) for row in own]}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        words = [sys.executable, str(GUEST), str(folder / "job.json"), str(folder / "result.json")]
        done = run_in_guest(
            words, kernel=kernel, icount=True, writable=[ROOT], timeout=TIMEOUT, stderr=sys.stderr.buffer
        )
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it printed nothing"]
            raise KalloctraceError(f"the benchmark failed on {kernel}", lines[-1], f"read {done.console}")
        result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result


def untraced(result: dict[str, Any]) -> Cost:
    """Return the untraced instructions per allocation: minimum and mean."""
    bare = result["untraced"]
    return Cost(min(one["min"] for one in bare), sum(one["mean"] for one in bare) / len(bare))


def costs(result: dict[str, Any]) -> dict[str, Cost]:
    """Return the overhead of each row over the untraced runs right before and after it."""
    return {name: _cost(row, result["boot"]) for name, row in result["rows"].items()}


def _cost(row: dict[str, Any], boot: str) -> Cost:
    if "gap" in row:
        return Cost(gap=row["gap"], boot=boot)
    before, after = row["before"], row["after"]
    least, mean = (row[name] - (before[name] + after[name]) / 2 for name in ("min", "mean"))
    return Cost(least, mean, row["captured"], row["lost"], drift=abs(after["min"] - before["min"]), boot=boot)


def alone(kernel: str) -> dict[str, Cost]:
    """Return the overhead of our default rows, and of counting, in a boot without the other peers."""
    return costs(measure(kernel, (PERF_STAT, *DEFAULT, APART, *WATCHED)))


@click.command()
@click.option("--kernel", "kernels", multiple=True, default=("5.10", "7.3"), show_default=True)
@click.option(
    "--captured", default=r"^([\d,]+) allocations in", show_default=True, help="Pattern of the captured allocations."
)
@click.option("--lost", default=r"lost (\d+), missed", show_default=True, help="Pattern of the lost allocations.")
@click.option("--only", multiple=True, metavar="TEXT", help="Measure the rows of the table whose names contain TEXT.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def main(kernels: tuple[str, ...], captured: str, lost: str, only: tuple[str, ...], words: tuple[str, ...]) -> None:
    """Print the instructions that a command, or rows of the table, add to an allocation."""
    rows = [row for row in (*PEERS, *FLOORS, *OURS) if any(text in row.name for text in only)]
    if words:
        rows.append(Row("command", "", "", words, captured, lost=lost))
    for kernel in kernels:
        result = measure(kernel, rows)
        bare = untraced(result)
        click.echo(f"{result['release']}: untraced {bare.least:,.1f} (mean {bare.mean:,.1f})")
        for name, cost in costs(result).items():
            click.echo(f"  {name}: {cost}")


if __name__ == "__main__":
    main()
