# SPDX-License-Identifier: MIT
"""Records with one probe in a guest while the kernel's own tracepoint counts, and prints both counts as JSON.

usage: python -m tests.live.one_probe WORD MODE COMMAND...

The commands are started and stopped before the recording begins, so that it covers all of their allocations. Those of
this process are not compared: it allocates between the start of one count and that of the other.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.attach.choice import ASKED
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.attach.plan import Mode
from kalloctrace.probe.recorder import Session, attached
from kalloctrace.system_calls import PERF_TYPE_TRACEPOINT, perf_event_open
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.writer import TraceWriter
from tests.live.counting import KALLOCTRACE

EVENT = Path("/sys/kernel/tracing/events/kmem/mm_page_alloc/id")


class Count:
    """The allocations that the tracepoint has counted: of all processes, or of all but this one."""

    def __init__(self) -> None:
        event = int(EVENT.read_text())
        cpus = range(os.cpu_count() or 1)
        self._all = [perf_event_open(PERF_TYPE_TRACEPOINT, event, pid=-1, cpu=cpu) for cpu in cpus]
        self._own = perf_event_open(PERF_TYPE_TRACEPOINT, event, pid=0, cpu=-1)

    def others(self) -> int:
        """Return the count so far of the other processes."""
        return sum(map(_read, self._all)) - _read(self._own)


def _read(file: int) -> int:
    count: int = struct.unpack("<Q", os.read(file, 8))[0]
    return count


@contextmanager
def stopped(commands: Sequence[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the commands so that each waits for SIGCONT, and stops again when it is done."""
    words = [["sh", "-c", f"kill -STOP $$; {command}; kill -STOP $$"] for command in commands]
    processes = [subprocess.Popen(word, stdout=subprocess.DEVNULL) for word in words]
    try:
        for process in processes:
            os.waitpid(process.pid, os.WUNTRACED)
        yield processes
    finally:
        for process in processes:
            process.kill()


def main(word: str, mode: str, commands: Sequence[str]) -> int:
    """Record, and print the counts."""
    kernel, count = LiveKernel(), Count()
    trace = Path(tempfile.mkdtemp()) / "one.arrows"
    chosen: Mode = "stream" if mode == "stream" else "aggregate"
    with (
        attached(kernel, Filters(), mode=chosen, asked=ASKED[word], stacks=False, slow=True) as capture,
        stopped(commands) as processes,
        TraceWriter(trace, kernel.snapshot, capture.description, overwrite=True) as writer,
    ):
        session = Session(capture, writer)
        before = count.others()
        session.begin()
        for process in processes:
            process.send_signal(signal.SIGCONT)
        running = list(processes)
        while running:
            session.drain()
            time.sleep(0.1)
            running = [one for one in running if os.waitpid(one.pid, os.WUNTRACED | os.WNOHANG)[0] == 0]
        session.stop()
        counted = count.others() - before
        session.finish()
        totals = session.totals(capture.machine_changed(), "all commands are done", 0.0)
        writer.close(totals)
    with TraceReader(trace) as reader:
        table = pa.Table.from_batches(list(reader.batches())).unify_dictionaries()
    if chosen == "stream":
        table = table.filter(pc.not_equal(table["pid"], os.getpid()))
    prepared = table.filter(pc.equal(table["freelist_calls"], 1))
    done = subprocess.run([*KALLOCTRACE, "verify", "--json", trace], capture_output=True, text=True, check=False)
    found = {
        "attach": capture.description["attach"],
        "inferred": capture.description["inferred"],
        "counted": counted,
        "captured": int(pc.sum(prepared["count"]).as_py() or 0),
        "entries": sorted(table["entry"].unique().to_pylist()),
        "totals": totals.to_json(),
        "verdict": json.loads(done.stdout),
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
