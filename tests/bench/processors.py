# SPDX-License-Identifier: MIT
"""Correctness and memory with many processors: `make bench-processors` records in guests with 1 to 64 of them.

Emulated on a few cores such a guest is slow, so these figures are counts and sizes, no times.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab.run import run_in_guest
from tests.bench.cost import BUILD, ROOT
from tests.bench.page import write
from tests.bench.recorded import load, save

TIMEOUT = 3600
MEMORY = "6G"


def measure(kernel: str, cpus: int) -> dict[str, Any]:
    """Record in a guest with that many processors; return the result of processors_guest.py.

    Raises:
        KalloctraceError: the guest failed.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as name:
        result = Path(name) / "result.json"
        done = run_in_guest(
            [sys.executable, "-m", "tests.bench.processors_guest", str(result)],
            kernel=kernel,
            cpus=cpus,
            memory=MEMORY,
            timeout=TIMEOUT,
            writable=[ROOT],
            stderr=sys.stderr.buffer,
        )
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it printed nothing"]
            raise KalloctraceError(f"{cpus} processors on {kernel} failed", lines[-1], f"read {done.console}")
        figures: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return figures


@click.command()
@click.option("--kernel", default="7.3", show_default=True)
@click.argument("numbers", nargs=-1, type=click.IntRange(min=1))
def main(kernel: str, numbers: tuple[int, ...]) -> None:
    """Measure with NUMBERS of processors, by default 1, 2, 8 and 64."""
    recorded = load()
    known = {one["cpus"]: one for one in recorded.get("processors", [])}
    for number in numbers or (1, 2, 8, 64):
        known[number] = measure(kernel, number)
        click.echo(json.dumps(known[number]))
        recorded["processors"] = [known[cpus] for cpus in sorted(known)]
        save(recorded)
    write(recorded)


if __name__ == "__main__":
    main()
