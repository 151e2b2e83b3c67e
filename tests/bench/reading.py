# SPDX-License-Identifier: MIT
"""Measures the cost of reading a trace: `python -m tests.bench.reading [EVENTS]` prints a Markdown table.

The trace is synthetic: the distinct allocations of a real recording with their frequencies, in random order, at
increasing times and for several processes. Each reader is the real program in its own process; the system counts its
CPU time and resident memory. The start of Python, measured on a trace without rows, is subtracted.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import ALLOCATION
from kalloctrace.trace.writer import StreamColumns, TraceWriter

ROOT = Path(__file__).resolve().parents[2]
RECORDING = ROOT / "fixtures" / "5.10" / "two-nodes.arrows"
BATCH_ROWS = 1 << 16
PROCESSES = 12
RUN_ROWS = 64
"""Consecutive calls of one process."""
STARTS = 3
"""Measurements of the start; the minimum is used."""
CYCLE = 16
"""Prepared batches; they are written repeatedly with other times."""
READERS: dict[str, tuple[str, ...]] = {
    "verify": ("verify", "--json", "TRACE"),
    "report": ("report", "--json", "TRACE"),
    "diff, of two traces": ("diff", "--json", "TRACE", "TRACE"),
    "export to Parquet": ("export", "--format", "parquet", "-f", "-o", "OUTPUT", "TRACE"),
    "export to CSV": ("export", "--format", "csv", "-f", "-o", "OUTPUT", "TRACE"),
    "export to JSON lines": ("export", "--format", "jsonl", "-f", "-o", "OUTPUT", "TRACE"),
}


# ru_maxrss of a child includes the memory of the process that forked it, so a small process starts the reader.
_LAUNCHER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss, code)
"""


@dataclass(frozen=True)
class Cost:
    """The cost of a run: CPU and wall-clock time in seconds, resident memory in bytes."""

    cpu: float
    wall: float
    memory: int


def make_trace(path: Path, events: int) -> None:
    """Write a stream of `events` calls."""
    with TraceReader(RECORDING) as trace:
        reading = trace.counted()
        counted = list(reading)
        snapshot, recording, totals = trace.snapshot, trace.recording, reading.finish().totals
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
                StreamColumns(
                    time=times,
                    cpu=(task % 2).astype(np.uint32),
                    pid=task + 1000,
                    tid=task + 1000,
                    comm=pa.DictionaryArray.from_arrays(task, names),
                    stack=None,
                    indices=indices[at, :rows],
                )
            )
        writer.close(replace(totals, opened=events, submitted=events, seconds=float(now) / 1e9))


def run(words: Sequence[str], cores: Collection[int], text: Path = Path(os.devnull)) -> Cost:
    """Run the program on some cores, with a file as its standard input, and return its cost.

    Raises:
        CalledProcessError: the program fails.
    """
    command = [sys.executable, "-m", "kalloctrace", *words]
    begin = time.monotonic()
    launcher = [sys.executable, "-c", _LAUNCHER, *command]
    with (
        text.open("rb") as given,
        subprocess.Popen(launcher, stdin=given, stdout=subprocess.PIPE, text=True) as process,
    ):
        # Set it at once, before the process has further threads.
        os.sched_setaffinity(process.pid, cores)
        output, _ = process.communicate()
    cpu, memory, code = output.split()
    if int(code):
        raise subprocess.CalledProcessError(int(code), command)
    return Cost(float(cpu), time.monotonic() - begin, int(memory) << 10)


def read_large(events: int, folder: str | None = None, only: Collection[str] = ()) -> dict[str, Any]:
    """Write a trace of `events` events and read it with each reader, on one core and on all.

    Args:
        events: the number of allocations.
        folder: the directory of the traces; None for the system's default.
        only: prefixes of the names of the readers to run; empty for all.

    Returns:
        `events`, `size` (bytes of the trace), `cores`, and for each of the `readers`: `cpu` (seconds per event, without
        the start), `one core` and `all cores` (seconds), `memory` and `written` (bytes).
    """
    cores = os.sched_getaffinity(0)
    readers = {}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        trace, empty, output = (Path(name) / file for file in ("trace.arrows", "empty.arrows", "output"))
        make_trace(trace, events)
        make_trace(empty, 0)
        for reader, words in READERS.items():
            if only and not reader.startswith(tuple(only)):
                continue
            on_empty, on_trace = (
                [{"TRACE": str(path), "OUTPUT": str(output)}.get(word, word) for word in words]
                for path in (empty, trace)
            )
            start = min(run(on_empty, cores).cpu for _ in range(STARTS))
            alone, together = (run(on_trace, some) for some in (sorted(cores)[:1], cores))
            readers[reader] = {
                "cpu": (together.cpu - start) / events / words.count("TRACE"),
                "one core": alone.wall,
                "all cores": together.wall,
                "memory": max(alone.memory, together.memory),
                "written": output.stat().st_size if "OUTPUT" in words else 0,
            }
        return {"events": events, "size": trace.stat().st_size, "cores": len(cores), "readers": readers}


def main() -> None:
    """Write the traces, run each reader, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", nargs="?", type=int, default=20_000_000)
    parser.add_argument("--only", help="prefixes of the names of the readers to run, separated by commas")
    parser.add_argument("--folder", help="directory of the traces")
    options = parser.parse_args()
    large = read_large(options.events, options.folder, options.only.split(",") if options.only else ())
    print(f"{large['events']:,} allocations, {large['size'] / large['events']:.1f} bytes each; ", end="")
    print(
        f"{large['cores']} cores, {platform.machine()}, Python {platform.python_version()}, pyarrow {pa.__version__}\n"
    )
    print(
        "| reader | CPU ns/event | events per second and core | s, one core | s, all cores | resident MiB | bytes out |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, cost in large["readers"].items():
        print(f"| {name} | {cost['cpu'] * 1e9:.1f} | {1 / cost['cpu']:,.0f} | {cost['one core']:.1f} ", end="")
        print(f"| {cost['all cores']:.1f} | {cost['memory'] >> 20} | {cost['written'] / large['events']:.1f} |")


if __name__ == "__main__":
    main()
