# SPDX-License-Identifier: MIT
"""What reading a trace costs: `python tests/bench/reading.py [EVENTS]` prints a Markdown table.

The trace is synthetic: the distinct allocations of a real recording, as often as they occurred there, in random order,
at increasing times and for several processes. Each reader is the real program in a process of its own, whose CPU time
and resident memory the system counts; the starting of Python, measured on a trace without rows, is not part of what an
event costs.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import ALLOCATION
from kalloctrace.trace.writer import TraceWriter

ROOT = Path(__file__).resolve().parents[2]
RECORDING = ROOT / "fixtures" / "5.10" / "two-nodes.arrows"
BATCH_ROWS = 1 << 16
PROCESSES = 12
RUN_ROWS = 64
"""Calls that a process makes in a row."""
STARTS = 3
"""How often the start is measured: the least counts."""
CYCLE = 16
"""Batches that are prepared, and written again and again with other times."""
READERS: dict[str, tuple[str, ...]] = {
    "verify": ("verify", "--json", "TRACE"),
    "report": ("report", "--json", "TRACE"),
    "diff, of two traces": ("diff", "--json", "TRACE", "TRACE"),
    "export to Parquet": ("export", "--format", "parquet", "-f", "-o", "OUTPUT", "TRACE"),
    "export to CSV": ("export", "--format", "csv", "-f", "-o", "OUTPUT", "TRACE"),
    "export to JSON lines": ("export", "--format", "jsonl", "-f", "-o", "OUTPUT", "TRACE"),
}


@dataclass(frozen=True)
class Cost:
    """What a run of a reader took: CPU and wall-clock time in seconds, resident memory in bytes."""

    cpu: float
    wall: float
    memory: int


def make_trace(path: Path, events: int) -> None:
    """Write a stream of so many calls."""
    with TraceReader(RECORDING) as trace:
        counted = list(trace.counted())
        snapshot, recording, totals = trace.snapshot, trace.recording, trace.totals
    assert totals is not None
    shares = np.array([count for _, count in counted], float)
    generator = np.random.default_rng(1)
    names = pa.array([f"task{i}" for i in range(PROCESSES)])
    indices = generator.choice(len(shares), (CYCLE, BATCH_ROWS), p=shares / shares.sum()).astype(np.int32)
    steps = generator.integers(200, 3000, (CYCLE, BATCH_ROWS), np.uint64)
    runs = generator.integers(0, PROCESSES, (CYCLE, BATCH_ROWS // RUN_ROWS), np.int32)
    now = np.uint64(0)
    with TraceWriter(path, snapshot, {**recording, "synthetic": True}) as writer:
        writer.add(pa.array([row for row, _ in counted], ALLOCATION))
        for batch, first in enumerate(range(0, events, BATCH_ROWS)):
            rows, at = min(BATCH_ROWS, events - first), batch % CYCLE
            times = now + np.cumsum(steps[at, :rows])
            now = times[-1]
            task = np.repeat(runs[at], RUN_ROWS)[:rows]
            writer.write_stream(
                time=times,
                cpu=(task % 2).astype(np.uint32),
                pid=task + 1000,
                tid=task + 1000,
                comm=pa.DictionaryArray.from_arrays(task, names),
                stack=None,
                indices=indices[at, :rows],
            )
        writer.close(replace(totals, opened=events, submitted=events, seconds=float(now) / 1e9))


def run(words: Sequence[str]) -> Cost:
    """Run the program and return what the system counted."""
    begin = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", "kalloctrace", *words], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"kalloctrace {' '.join(words)} failed with exit code {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - begin, usage.ru_maxrss << 10)


def main() -> None:
    """Make the traces, run each reader on them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", nargs="?", type=int, default=20_000_000)
    parser.add_argument("--only", help="readers to run, by the first word of their names, with commas between them")
    parser.add_argument("--folder", help="where the traces are made, for want of room in the usual place")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else None
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        trace, empty, output = (Path(folder) / name for name in ("trace.arrows", "empty.arrows", "output"))
        make_trace(trace, options.events)
        make_trace(empty, 0)
        size = trace.stat().st_size
        print(
            f"{options.events:,} allocations, {size / options.events:.1f} bytes each; {os.cpu_count()} CPUs, ", end=""
        )
        print(f"{platform.machine()}, Python {platform.python_version()}, pyarrow {pa.__version__}\n")
        print(
            "| reader | CPU ns an event | events a second a core | wall-clock s | resident MiB | bytes an event out |"
        )
        print("|---|---:|---:|---:|---:|---:|")
        for name, words in READERS.items():
            if chosen and not any(name.startswith(word) for word in chosen):
                continue

            def command(path: Path, words: tuple[str, ...] = words) -> list[str]:
                return [{"TRACE": str(path), "OUTPUT": str(output)}.get(word, word) for word in words]

            start = min(run(command(empty)).cpu for _ in range(STARTS))
            cost = run(command(trace))
            written = f"{output.stat().st_size / options.events:.1f}" if "OUTPUT" in words else "-"
            cpu = (cost.cpu - start) / options.events / words.count("TRACE")
            print(
                f"| {name} | {cpu * 1e9:.1f} | {1 / cpu:,.0f} | {cost.wall:.1f} | {cost.memory >> 20} | {written} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
