# SPDX-License-Identifier: MIT
"""Measures the overhead of this program and of its peers, and writes the tables: `make bench` runs it.

The figures go into recorded.json, with which the tests compare; page.py writes docs/performance.md and the README's
section from it. A missing figure is a gap with its reason.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from kalloctrace.bench.tools import PERF_STAT
from kalloctrace.probe.attach.bcc_import import import_bcc
from tests.bench import page
from tests.bench.cost import TESTED, alone, costs, measure, untraced
from tests.bench.peers import readings
from tests.bench.reading import read_large
from tests.bench.recorded import load, save
from tests.bench.rows import DEFAULT, FLOORS, OURS, PEERS

DEFAULT_KERNELS = ("5.10", "6.12", "7.3")

LARGE = 20_000_000
LARGE_READERS = ("verify", "report", "diff", "export to Parquet")
_STARTS = 21
_VERSIONS = (
    ("perf", "--version"),
    ("trace-cmd", "--version"),
    ("bpftrace", "--version"),
    ("qemu-system-x86_64", "--version"),
)


def kernel_figures(kernel: str) -> dict[str, Any]:
    """Return the figures of one boot of a kernel, and for the tests those of a boot without other peers."""
    result = measure(kernel, (*PEERS, *FLOORS, *OURS), [row for row in DEFAULT if row.kind == "stream"])
    figures = {
        "date": _today(),
        "release": result["release"],
        "untraced": asdict(untraced(result)),
        "rows": {name: asdict(cost) for name, cost in costs(result).items()},
        "own": result["own"],
        "own_date": _today(),
    }
    if kernel == TESTED:
        figures["alone"] = {name: asdict(cost) for name, cost in alone(kernel).items()}
    return figures


def versions() -> list[str]:
    """Return the versions of the tools, and which are missing."""
    found = []
    for words in _VERSIONS:
        if shutil.which(words[0]) is None:
            found.append(f"{words[0]} is not installed")
            continue
        done = subprocess.run(words, check=False, capture_output=True, encoding="utf-8")
        found.append(next(line for line in (done.stdout + done.stderr).splitlines() if line.strip()).strip())
    return [*found, f"bcc {import_bcc().__version__}"]


def median_seconds(words: Sequence[str]) -> float:
    """Return the median duration of several runs of a command, in seconds."""
    times = []
    for _ in range(_STARTS):
        start = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def starting() -> dict[str, float]:
    """Return the duration of Python importing click, and of `decode`, in seconds."""
    program = str(Path(sys.executable).with_name("kalloctrace"))
    return {
        "click": median_seconds([sys.executable, "-c", "import click"]),
        "decode": median_seconds([program, "decode", "0xcc0"]),
    }


def measure_again(recorded: dict[str, Any], parts: Sequence[str], kernels: Sequence[str]) -> None:
    """Measure parts again.

    Args:
        recorded: all figures, which are changed.
        parts: names of `_PARTS`; or texts, for the row of that name, or else the rows whose names contain it.
        kernels: where to measure rows, all in one boot; none for every recorded kernel.
    """
    for part in [part for part in parts if part in _PARTS]:
        recorded[part] = _PARTS[part]()
    texts = [part for part in parts if part not in _PARTS and part != "alone"]
    if "alone" in parts:
        recorded["kernels"][TESTED]["alone"] = {name: asdict(cost) for name, cost in alone(TESTED).items()}
    # Our limits are multiples of what counting costs in the same boot.
    every = (*PEERS, *FLOORS, *OURS)
    names = {row.name for row in every}
    rows = [
        row
        for row in every
        if row is PERF_STAT or any(row.name == text if text in names else text in row.name for text in texts)
    ]
    for kernel in (kernels or recorded["kernels"]) if texts else ():
        result = measure(kernel, rows)
        figures = recorded["kernels"].setdefault(kernel, {"rows": {}, "own": {}})
        figures |= {"date": _today(), "release": result["release"], "untraced": asdict(untraced(result))}
        figures["rows"] |= {name: asdict(cost) for name, cost in costs(result).items()}


_PARTS: Mapping[str, Callable[[], Any]] = {
    "starting": starting,
    "reading": lambda: [asdict(reading) for reading in readings(DEFAULT_KERNELS[0])],
    "large": lambda: read_large(LARGE, only=LARGE_READERS),
}
"""What is measured on this machine."""


def measure_kernels(recorded: dict[str, Any], kernels: Sequence[str]) -> None:
    """Measure all rows of kernels, and keep each kernel's figures as soon as they are there."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {pool.submit(kernel_figures, kernel): kernel for kernel in kernels}
        for done in as_completed(running):
            recorded["kernels"][running[done]] = done.result()
            save(recorded)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


@click.command()
@click.option("--tables-only", is_flag=True, help="Write the tables from recorded.json.")
@click.option(
    "--again",
    multiple=True,
    metavar="PART",
    help="Measure starting, reading, large or alone again, or the rows of KERNELS that are called PART or contain it.",
)
@click.argument("kernels", nargs=-1)
def main(tables_only: bool, again: tuple[str, ...], kernels: tuple[str, ...]) -> None:
    """Measure KERNELS and keep all other figures; without KERNELS, measure 5.10, 6.12 and 7.3, and the readers."""
    recorded = load()
    if not tables_only and not again:
        recorded |= {"date": _today(), "tools": versions()}
        if not kernels:
            # First, on an idle machine. The rest counts instructions, which do not depend on other load.
            measure_again(recorded, tuple(_PARTS), ())
        measure_kernels(recorded, kernels or DEFAULT_KERNELS)
    if again:
        measure_again(recorded, again, kernels)
        save(recorded)
    page.write(recorded)
    click.echo(page.page(recorded))


if __name__ == "__main__":
    main()
