# SPDX-License-Identifier: MIT
"""Runs in a guest: records a program that forks all the time, and samples the memory of the recorder.

usage: python forking.py PROGRAM MODE FORKS SECONDS

PROGRAM is that of forks.c. It prints a JSON object: the forks, samples of the memory with the number of forks at that
time, the recording's totals, the calls in the trace, and in a stream how many of the children have a row with their
name.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from kalloctrace.trace.schema import TOTALS_KEY

_SCRATCH = Path("/dev/shm/kalloctrace-long")  # noqa: S108  (in a guest)
_INTERVAL = 0.5
_FIELDS = ("VmRSS", "VmData")


def sample(process: int) -> list[int]:
    """Return the sizes of a process, KiB."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    return [int(found[1]) if (found := re.search(rf"{field}:\s+(\d+)", text)) else 0 for field in _FIELDS]


def forks_so_far(count: Path) -> int:
    """Return how many forks there were, 0 before the first."""
    try:
        return int(count.read_text(encoding="ascii") or 0)
    except FileNotFoundError:
        return 0


def read(trace: Path) -> tuple[dict[str, Any], int, int]:
    """Return the totals of a recording, its calls, and how many different children have a row with their name."""
    found: set[str] = set()
    totals: dict[str, Any] = {}
    calls = 0
    with pa.ipc.open_stream(pa.OSFile(str(trace))) as reader:
        while not totals:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
            if metadata is not None and TOTALS_KEY in metadata:
                totals = json.loads(metadata[TOTALS_KEY])
            aggregate = "count" in reader.schema.names
            calls += sum(batch.column("count").to_pylist()) if aggregate else batch.num_rows
            if not aggregate:
                names = batch.column("comm")
                used = names.dictionary.take(names.indices.unique().drop_null()).to_pylist()
                found.update(name for name in used if re.fullmatch(r"t\d+", name))
    return totals, calls, len(found)


def main() -> None:
    """Record, and print what was measured."""
    program, mode, forks, seconds = sys.argv[1:]
    _SCRATCH.mkdir(exist_ok=True)
    count, trace = (_SCRATCH / name for name in ("count", "trace.arrows"))
    count.unlink(missing_ok=True)
    words = [sys.executable, "-m", "kalloctrace", "record", "-f", "-o", str(trace), "--mode", mode]
    samples = []
    # Standard output is for the measurements.
    with subprocess.Popen([*words, "--", program, forks, seconds, str(count)], stdout=sys.stderr) as recorder:
        while recorder.poll() is None:
            time.sleep(_INTERVAL)
            done = forks_so_far(count)
            if done:
                samples.append([done, *sample(recorder.pid)])
    totals, calls, named = read(trace)
    measured = {
        "mode": mode,
        "status": recorder.returncode,
        "forks": forks_so_far(count),
        "samples": [each for each in samples if each[1]],
        "totals": totals,
        "calls": calls,
        "bytes": trace.stat().st_size,
        "named": named if mode == "stream" else None,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
