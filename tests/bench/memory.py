# SPDX-License-Identifier: MIT
"""Measures memory and time of the commands that read a trace: `python -m tests.bench.memory` prints a Markdown table.

Four kinds of traces, each in two sizes, one ten times the other: a long stream with few distinct allocations, a stream
of distinct allocations only, one of which no kernel made any, and calls of the slow path in many compressed batches.
Memory is the peak of the resident memory of the command and of the processes that it starts; it must stay below 1 GiB.
The time must not grow much faster than the trace. Exits with 1 if either does.
"""

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import ALLOCATION, COLUMNS
from kalloctrace.trace.writer import StreamColumns, TraceWriter
from tests.bench.reading import make_trace
from tests.traces import RECORDED, UNDER_PRESSURE, slow_calls, source

MOST_MEMORY = 1 << 30
SHRINK = 10
"""How much smaller the small traces are."""
MOST_GROWTH = 2 * SHRINK
"""How much longer a command may take on a trace that is SHRINK times as large; the start is in both."""
SHORT = 2.0
"""Seconds; a shorter time is mostly that of the start, and says nothing about growth."""
_EVERY, _MOST_EVERY = 0.02, 0.2
_SCRAPES = 10
_BATCH_ROWS = 4096
_DISTINCT_NS = 5_000_000_000
_SPREAD = 7919
_FINE = {0, 1, 3}
"""Exit codes of a command that ended by itself: 1 where it refuses a trace, 3 because made-up calls are mismatches."""

COMMANDS: Mapping[str, Sequence[str]] = {
    **{
        f"export {form}": ("export", "--format", form, "-f", "-o", "OUTPUT", "TRACE")
        for form in ("csv", "jsonl", "parquet", "perfetto", "folded", "speedscope", "tables", "duckdb")
    },
    "export --pseudonymous": ("export", "--format", "csv", "--pseudonymous", "-f", "-o", "OUTPUT", "TRACE"),
    "report": ("report", "TRACE"),
    "report --by": ("report", "--by", "comm,gfp", "TRACE"),
    "report --failures": ("report", "--failures", "--slower-than", "0", "TRACE"),
    "report --failures --json": ("report", "--failures", "--slower-than", "0", "--json", "TRACE"),
    "report --html": ("report", "--html", "OUTPUT", "-f", "TRACE"),
    "verify": ("verify", "TRACE"),
    "diff": ("diff", "TRACE", "TRACE"),
    "live --replay --json": ("live", "--replay", "TRACE", "--json"),
    "serve-metrics": ("serve-metrics", "--port", "0", "TRACE"),
}


def make_distinct(path: Path, number: int, *, wrong: bool = False) -> None:
    """Write a stream of that many distinct allocations, each made once, in small batches as a recorder writes them.

    Args:
        path: the file to make.
        number: of calls.
        wrong: no kernel prepared them so, and each has another mask, other flags and another process.
    """
    snapshot, totals, call = source()
    with TraceReader(RECORDED) as trace:
        recorded = pa.array([row for row, _ in trace.counted() if row["freelist_calls"]], ALLOCATION)
    names = pa.array([f"task-{i}" for i in range(50)])
    stacks = pa.array([f"outermost;caller_{i % 7};caller_{i};{snapshot.features.entry}" for i in range(500)])
    with TraceWriter(path, snapshot, {"mode": "stream", "stacks": True}) as writer:
        for begin in range(0, number, _BATCH_ROWS):
            rows = np.arange(begin, min(begin + _BATCH_ROWS, number))
            columns = dict(
                zip(
                    [field.name for field in ALLOCATION],
                    recorded.take(pa.array(rows % len(recorded))).flatten(),
                    strict=True,
                )
            )
            columns["freelist_calls"] = pa.array(1 + rows // len(recorded), pa.uint32())
            if wrong:
                columns["gfp_mask"] = pa.array(rows * _SPREAD % (1 << 25), pa.uint32())
                columns["gfp_allowed_mask"] = pa.array((1 << 25) - 1 - rows, pa.uint32())
                columns["alloc_flags"] = pa.array(rows % (1 << 14), pa.uint32())
            first = writer.add(pa.StructArray.from_arrays(list(columns.values()), fields=list(ALLOCATION)))
            writer.write_stream(
                StreamColumns(
                    time=call["time"] + (rows * _DISTINCT_NS // number).astype(np.uint64),
                    cpu=np.zeros(len(rows), np.uint32),
                    pid=1000 + wrong * rows.astype(np.int32),
                    tid=1000 + wrong * rows.astype(np.int32),
                    comm=pa.DictionaryArray.from_arrays(pa.array(rows % len(names), pa.int32()), names),
                    stack=pa.DictionaryArray.from_arrays(pa.array(rows % len(stacks), pa.int32()), stacks),
                    indices=np.arange(first, first + len(rows), dtype=np.int32),
                )
            )
        writer.close(replace(totals, opened=number, submitted=number, seconds=_DISTINCT_NS / 1e9))


def make_slow(path: Path, number: int) -> None:
    """Write so many calls of the slow path, and one row."""
    recorded = slow_calls()
    longest = max(call["time"] for call in recorded)
    with TraceReader(UNDER_PRESSURE) as trace:
        snapshot, totals = trace.snapshot, trace.ending().totals
        row = next(row for batch in trace.batches() for row in batch.to_pylist())
    assert totals is not None
    who = {"time": 1, "cpu": 0, "pid": 1, "tid": 1, "comm": "a"}
    with TraceWriter(path, snapshot, {"mode": "stream", "slow": True}) as writer:
        writer.write(pa.RecordBatch.from_pylist([{**row, **who}], COLUMNS))
        for begin in range(0, number, len(recorded)):
            part = recorded[: number - begin]
            writer.write_slow([{**call, "time": call["time"] + begin // len(recorded) * longest} for call in part])
        writer.close(replace(totals, opened=1, submitted=1, slow=number, slow_lost=0))


KINDS: Mapping[str, tuple[Callable[[Path, int], None], int]] = {
    "calls": (make_trace, 2_000_000),
    "distinct": (make_distinct, 200_000),
    "wrong": (partial(make_distinct, wrong=True), 200_000),
    "slow": (make_slow, 500_000),
}
"""How a trace is made, and its size."""


@dataclass(frozen=True)
class Cost:
    """What a command took: resident memory (bytes) and CPU time (s) of its processes, and how it ended."""

    memory: int
    seconds: float
    code: int


def cost(words: Sequence[str], most: int = 2 * MOST_MEMORY, module: str = "kalloctrace") -> Cost:
    """Run the program, and end it where it takes much more memory than it may.

    Args:
        words: its arguments.
        most: bytes of memory at which it is killed.
        module: another program of ours.
    """
    peak, spent = 0, dict[int, float]()
    begin = time.monotonic()
    serves = words[0] == "serve-metrics"
    with psutil.Popen(
        [sys.executable, "-m", module, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if serves else subprocess.DEVNULL,
        text=True,
    ) as process:
        scraped = threading.Thread(target=_scrape, args=[process]) if serves else None
        if scraped is not None:
            scraped.start()
        while process.poll() is None:
            peak = max(peak, _resident(process, spent))
            if peak > most:
                process.kill()
            # To look at all processes takes time too.
            time.sleep(min(_MOST_EVERY, max(_EVERY, (time.monotonic() - begin) / 100)))
        if scraped is not None:
            scraped.join()
        return Cost(peak, sum(spent.values()), process.wait())


def _resident(process: psutil.Process, spent: dict[int, float]) -> int:
    """Return the memory of a process and those that it started, and set the CPU time of each."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
                times = one.cpu_times()
                spent[one.pid] = times.user + times.system
    return total


def _scrape(process: psutil.Popen) -> None:
    """Read the metrics once from a server that starts, and end it."""
    for line in process.stderr:
        if found := re.search(r"http://[^ ,]+", line):
            # The server ends a connection while a large trace takes longer, and has the answer afterwards.
            for _ in range(_SCRAPES):
                with contextlib.suppress(OSError), urllib.request.urlopen(found[0]) as answer:  # noqa: S310 it is http
                    answer.read()
                    break
            break
    process.terminate()
    process.stderr.read()


def measured(kinds: Sequence[str], commands: Sequence[str], share: float) -> Iterator[tuple[str, str, Cost, Cost]]:
    """Yield the costs of each command on a small and a large trace of each kind.

    Args:
        kinds: of KINDS.
        commands: of COMMANDS.
        share: of the sizes, for a quick run.
    """
    with tempfile.TemporaryDirectory() as name:
        output = Path(name) / "output"
        for kind in kinds:
            make, full = KINDS[kind]
            large = int(full * share)
            traces = [Path(name) / f"{kind}-{size}.arrows" for size in (large // SHRINK, large)]
            for path, size in zip(traces, (large // SHRINK, large), strict=True):
                make(path, size)
            for command in commands:
                costs = []
                for path in traces:
                    place = {"TRACE": str(path), "OUTPUT": str(output)}
                    costs.append(cost([place.get(word, word) for word in COMMANDS[command]]))
                    if output.is_dir():
                        shutil.rmtree(output)
                    output.unlink(missing_ok=True)
                yield kind, command, costs[0], costs[1]
            for path in traces:
                path.unlink()


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind of trace")
    parser.add_argument("--only", action="append", help="only commands whose name begins so")
    parser.add_argument("--share", type=float, default=1.0, help="of the full sizes")
    options = parser.parse_args()
    commands = [name for name in COMMANDS if any(map(name.startswith, options.only or [""]))]
    print("| trace | command | MiB, a tenth | MiB | s, a tenth | s | |")
    print("|---|---|---:|---:|---:|---:|---|")
    bad = 0
    for kind, command, small, large in measured(options.kind or list(KINDS), commands, options.share):
        faults = [
            *(["memory"] if large.memory > MOST_MEMORY else []),
            *(["time"] if large.seconds > max(SHORT, MOST_GROWTH * small.seconds) else []),
            *([f"exit code {large.code}"] if large.code not in _FINE else []),
        ]
        bad += bool(faults)
        print(f"| {kind} | {command} | {small.memory >> 20} | {large.memory >> 20} ", end="")
        print(f"| {small.seconds:.1f} | {large.seconds:.1f} | {', '.join(faults)} |", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
