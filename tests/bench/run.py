# SPDX-License-Identifier: MIT
"""Measures the overhead of this program and of its peers, and writes the tables: `make bench` runs it.

The figures go into recorded.json, with which the tests compare; docs/performance.md and the README's section are
generated from it. A missing figure is a gap with its reason.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from kalloctrace.probe.attach.bcc_import import import_bcc
from tests.bench import tables
from tests.bench.cost import alone, costs, measure, untraced
from tests.bench.peers import readings
from tests.bench.reading import read_large
from tests.bench.rows import OURS, PEERS, WATCHED
from tests.section import write_section

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).with_name("recorded.json")
PAGE = ROOT / "docs" / "performance.md"
README = ROOT / "README.md"
BEGIN = "<!-- what it costs: written by make bench -->"
END = "<!-- end of what it costs -->"

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
    """Return the figures of one boot of a kernel, and for the tests those of a boot with our rows alone."""
    result = measure(kernel, (*PEERS, *OURS, *WATCHED), [row for row in OURS if row.kind == "stream"])
    return {
        "release": result["release"],
        "untraced": asdict(untraced(result)),
        "rows": {name: asdict(cost) for name, cost in costs(result).items()},
        "own": result["own"],
        "alone": {name: asdict(cost) for name, cost in alone(kernel).items()},
    }


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


def write(figures: tables.Figures) -> None:
    """Write the page and the README's section.

    Raises:
        KalloctraceError: the README lacks the markers of the section.
    """
    write_section(README, BEGIN, END, tables.summary(figures))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(tables.page(figures), encoding="utf-8")


def measure_again(recorded: dict[str, Any], part: str) -> None:
    """Measure a part again: one of those below, or the rows whose names contain a text."""
    parts: dict[str, Callable[[], Any]] = {
        "starting": starting,
        "reading": lambda: [asdict(reading) for reading in readings(next(iter(recorded["kernels"])))],
        "large": lambda: read_large(LARGE, only=LARGE_READERS),
    }
    if part in parts:
        recorded[part] = parts[part]()
        return
    if part == "alone":
        for kernel, figures in recorded["kernels"].items():
            figures["alone"] = {name: asdict(cost) for name, cost in alone(kernel).items()}
        return
    rows = [row for row in (*PEERS, *OURS, *WATCHED) if part in row.name]
    for kernel, figures in recorded["kernels"].items():
        figures["rows"] |= {name: asdict(cost) for name, cost in costs(measure(kernel, rows)).items()}


@click.command()
@click.option("--tables-only", is_flag=True, help="Write the tables from recorded.json.")
@click.option(
    "--again",
    multiple=True,
    metavar="PART",
    help="Measure starting, reading, large or alone again, or the rows whose names contain PART; keep the rest.",
)
@click.argument("kernels", nargs=-1)
def main(tables_only: bool, again: tuple[str, ...], kernels: tuple[str, ...]) -> None:
    """Measure KERNELS, by default 5.10 and 7.3."""
    if tables_only or again:
        recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
        for part in again:
            measure_again(recorded, part)
        if again:
            RECORDED.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
        write(recorded)
        return
    names = kernels or ("5.10", "7.3")
    # First, on an idle machine. The rest counts instructions, which do not depend on other load.
    reading = [asdict(reading) for reading in readings(names[0])]
    large = read_large(LARGE, only=LARGE_READERS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        measured = dict(zip(names, pool.map(kernel_figures, names), strict=True))
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "tools": versions(),
        "starting": starting(),
        "reading": reading,
        "large": large,
        "kernels": measured,
    }
    RECORDED.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    write(figures)
    click.echo(tables.page(figures))


if __name__ == "__main__":
    main()
