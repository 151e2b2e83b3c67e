# SPDX-License-Identifier: MIT
"""Runs in a guest: records work on all processors beside `perf stat`, and looks at the recorder's memory.

usage: python -m tests.bench.processors_guest RESULT.json
"""

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

from kalloctrace.trace.reader import TraceReader
from tests.live.counting import count_of, counted_by_perf, paused, start, wait_until_stopped

PAGES = 512
SCRATCH = Path("/dev/shm")  # noqa: S108  (in a guest)

# One thread for each CPU, which stays there.
WORK = f"""
import mmap, os, signal, threading
def touch(cpu):
    os.sched_setaffinity(0, {{cpu}})
    with mmap.mmap(-1, {PAGES} * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range({PAGES}):
            memory[page * mmap.PAGESIZE] = 1
os.kill(os.getpid(), signal.SIGSTOP)
threads = [threading.Thread(target=touch, args=(cpu,)) for cpu in sorted(os.sched_getaffinity(0))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
os.kill(os.getpid(), signal.SIGSTOP)
"""


def maps_of(pid: int) -> int:
    """Return the memory (bytes) of a process's BPF maps."""
    total = 0
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        text = path.read_text(encoding="ascii")
        found = re.search(r"^map_id:", text, re.MULTILINE) and re.search(r"^memlock:\s+(\d+)$", text, re.MULTILINE)
        total += int(found[1]) if found else 0
    return total


def resident(pid: int) -> dict[str, int]:
    """Return the resident memory of a process (KiB): VmRSS, and RssAnon, the anonymous part of it."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return {name: int(kib) for name, kib in re.findall(r"^(VmRSS|RssAnon):\s+(\d+) kB$", text, re.MULTILINE)}


def measure(mode: str) -> dict[str, int]:
    """Record in a mode; return the counts and the memory."""
    trace, counted = SCRATCH / f"{mode}.arrows", SCRATCH / "perf.csv"
    trace.unlink(missing_ok=True)
    with paused(WORK) as work, start(trace, "--mode", mode, "--pid", str(work.pid)) as recording:
        with counted_by_perf(work.pid, counted):
            work.send_signal(signal.SIGCONT)
            wait_until_stopped(work)
        memory = {"maps": maps_of(recording.pid), **resident(recording.pid)}
        recording.send_signal(signal.SIGINT)
        if recording.wait(600):
            raise SystemExit(f"the recorder ended with {recording.returncode}")
    with TraceReader(trace) as reader:
        rows = [row for batch in reader.batches() for row in batch.to_pylist()]
        totals = reader.ending().totals
    if totals is None:
        raise SystemExit("the trace is truncated")
    return {
        "counted": count_of(counted),
        "captured": sum(row["count"] for row in rows if row["freelist_calls"]),
        "rejected": sum(row["count"] for row in rows if not row["freelist_calls"]),
        "lost": totals.lost,
        "missed": totals.missed,
        "seen_cpus": len({row["cpu"] for row in rows}) if mode == "stream" else 0,
        **memory,
    }


def main(result: Path) -> None:
    """Measure both modes."""
    figures: dict[str, Any] = {"cpus": os.cpu_count(), "release": os.uname().release}
    figures |= {mode: measure(mode) for mode in ("aggregate", "stream")}
    result.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
