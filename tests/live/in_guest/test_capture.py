# SPDX-License-Identifier: MIT
"""Real recordings of the running kernel, compared with the counts of perf, and ended in every way."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.totals import Totals
from tests.live.counting import KALLOCTRACE, count_of, counted_by_perf, paused, start, wait_until_stopped
from tests.schemas import hold

WORKLOAD = [sys.executable, "-m", "kalloctrace.lab.workload"]

# include/linux/gfp.h of 5.10: GFP_KERNEL | __GFP_COMP | __GFP_ZERO | __GFP_NOWARN | __GFP_NORETRY
RING_BLOCK_GFP = 0x52DC0


MODES = {"aggregate": ["--mode", "aggregate"], "stream": ["--mode", "stream"]}
MODES["returns"] = [*MODES["stream"], "--returns"]
THREADS = 4
PAGES = 10_000

# All fault pages in at once, and move to another CPU now and then; memset() runs without Python's lock.
THREADED = f"""
import ctypes, mmap, os, signal, threading
libc = ctypes.CDLL(None)
cpus = sorted(os.sched_getaffinity(0))

def touch(number):
    for part in range(20):
        os.sched_setaffinity(0, {{cpus[(number + part) % len(cpus)]}})
        with mmap.mmap(-1, {PAGES} // 20 * mmap.PAGESIZE) as memory:
            memory.madvise(mmap.MADV_NOHUGEPAGE)
            view = ctypes.c_char.from_buffer(memory)
            libc.memset(ctypes.byref(view), 1, len(memory))
            del view

threads = [threading.Thread(target=touch, args=(number,)) for number in range({THREADS})]
os.kill(os.getpid(), signal.SIGSTOP)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
os.kill(os.getpid(), signal.SIGSTOP)
"""
# One thread faults pages in while the other moves it to and fro, also between an entry and what follows.
CHASED = f"""
import ctypes, mmap, os, signal, threading
libc = ctypes.CDLL(None)
cpus = sorted(os.sched_getaffinity(0))
begun, over, left = threading.Event(), threading.Event(), threading.Event()

def touch():
    begun.tid = threading.get_native_id()
    begun.set()
    for part in range(20):
        with mmap.mmap(-1, {PAGES} // 20 * mmap.PAGESIZE) as memory:
            memory.madvise(mmap.MADV_NOHUGEPAGE)
            view = ctypes.c_char.from_buffer(memory)
            libc.memset(ctypes.byref(view), 1, len(memory))
            del view
    over.set()
    left.wait()

os.kill(os.getpid(), signal.SIGSTOP)
thread = threading.Thread(target=touch)
thread.start()
begun.wait()
while not over.is_set():
    for cpu in cpus:
        os.sched_setaffinity(begun.tid, {{cpu}})
left.set()
thread.join()
os.kill(os.getpid(), signal.SIGSTOP)
"""
MIXED = """
import os, signal
from kalloctrace.lab.workload import mixed
os.kill(os.getpid(), signal.SIGSTOP)
mixed({pages})
os.kill(os.getpid(), signal.SIGSTOP)
"""


def record(trace: Path, *command: str, options: Sequence[str] = ()) -> None:
    """Record a command."""
    done = subprocess.run(
        [*KALLOCTRACE, "record", *options, "-o", trace, "--", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def verify(trace: Path) -> dict[str, Any]:
    """Return the verdict on a trace."""
    done = subprocess.run([*KALLOCTRACE, "verify", "--json", trace], capture_output=True, text=True, check=False)
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict


def rows(trace: Path) -> pa.Table:
    """Return all rows of a trace; `count` is the number of calls of each."""
    with TraceReader(trace) as reader:
        return pa.Table.from_batches(list(reader.batches())).unify_dictionaries()


def calls(table: pa.Table) -> int:
    """Return how many calls rows stand for."""
    return int(pc.sum(table["count"]).as_py() or 0)


@pytest.mark.parametrize(("mode", "pages"), [("aggregate", 50_000), ("stream", 10_000), ("returns", 10_000)])
def test_mixed_workload_is_predicted_and_counted_to_the_last_allocation(tmp_path: Path, mode: str, pages: int) -> None:
    """No mismatch, nothing unknown, nothing lost, and perf counts the same."""
    # Kernels that have it built in have no such module.
    subprocess.run(["modprobe", "-q", "af_packet"], check=False)
    counted = checked_against_perf(tmp_path, mode, MIXED.format(pages=pages))
    assert counted.allocations >= pages
    assert counted.rejected == 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("mode", "program", "pages"), [("aggregate", THREADED, THREADS * PAGES), ("stream", CHASED, PAGES)]
)
def test_threads_that_migrate_are_counted_to_the_last_allocation(
    tmp_path: Path, mode: str, program: str, pages: int
) -> None:
    """Threads preempt, interrupt and migrate each other, and each call still counts once."""
    counted = checked_against_perf(tmp_path, mode, program)
    assert counted.allocations >= pages
    assert counted.rejected == 0


class Counted(NamedTuple):
    """The counts on which a recording and perf agree: all calls, and those that have no tracepoint event."""

    allocations: int
    rejected: int


def checked_against_perf(folder: Path, mode: str, program: str) -> Counted:
    """Record a program that stops itself at both ends; compare the trace with the model and with `perf stat`."""
    trace, counted = folder / "counted.arrows", folder / "perf.csv"
    with paused(program) as workload, start(trace, *MODES[mode], "--pid", str(workload.pid)) as recording:
        with counted_by_perf(workload.pid, counted):
            workload.send_signal(signal.SIGCONT)
            wait_until_stopped(workload)
        recording.send_signal(signal.SIGINT)
        assert recording.wait(120) == 0

    verdict = verify(trace)
    assert verdict["matched"] == verdict["allocations"]
    assert (verdict["mismatched"], verdict["unknown"], verdict["lost"], verdict["missed"]) == (0, 0, 0, 0)
    assert not verdict["truncated"]

    with TraceReader(trace) as reader:
        table = pa.Table.from_batches(list(reader.batches())).unify_dictionaries()
        totals = reader.ending().totals
    # The process is stopped, so no call can be active.
    assert totals is not None
    assert (totals.running, totals.freelist_alone) == (0, 0)
    if mode != "aggregate":
        assert table["pid"].unique().to_pylist() == [workload.pid]
    assert calls(table) == verdict["allocations"]
    rejected = calls(table.filter(pc.equal(table["freelist_calls"], 0)))
    by_perf = count_of(counted)
    print(f"perf stat: {by_perf:,}; {mode}: {calls(table):,}, {rejected} of them rejected before the tracepoint")
    assert calls(table) - rejected == by_perf
    return Counted(calls(table), rejected)


def test_known_number_of_blocks_is_seen_exactly(tmp_path: Path) -> None:
    """A packet socket's ring allocates a prime number of blocks with a mask that nothing else uses."""
    trace = tmp_path / "prime.arrows"
    primes = {0: 499, 3: 1009, 9: 13}
    rings = [
        shlex.join([*WORKLOAD, "blocks", "--blocks", str(n), "--order", str(order)]) for order, n in primes.items()
    ]
    record(trace, "sh", "-c", " && ".join(rings), options=MODES["returns"])
    table = rows(trace)
    ring = table.filter(pc.equal(table["gfp_mask"], RING_BLOCK_GFP))
    by_order = ring.group_by("order").aggregate([("count", "sum")])
    assert dict(zip(by_order["order"].to_pylist(), by_order["count_sum"].to_pylist(), strict=True)) == primes
    assert verify(trace)["matched"] == calls(table)


@pytest.mark.parametrize("mode", [pytest.param("aggregate", marks=pytest.mark.long), "stream"])
def test_filters_pass_exactly_the_matching_calls(tmp_path: Path, mode: str) -> None:
    """The blocks of one ring of three, and no calls of other processes or with other masks."""
    trace = tmp_path / "filtered.arrows"
    rings = [shlex.join([*WORKLOAD, "blocks", "--blocks", "53", "--order", str(order)]) for order in (0, 2, 3)]
    filters = ["--gfp-all", hex(RING_BLOCK_GFP), "--order", "2", "--comm", "python"]
    filters += ["--alloc-flags", "ALLOC_WMARK_LOW|ALLOC_KSWAPD", "--gfp-none", "__GFP_DMA32"]
    record(trace, "sh", "-c", " && ".join(rings), options=[*MODES[mode], *filters])
    table = rows(trace)
    assert verify(trace)["matched"] == calls(table) == 53


@pytest.mark.long
def test_sample_is_one_call_in_so_many(tmp_path: Path) -> None:
    """On each CPU; the trace contains the rate."""
    trace = tmp_path / "sampled.arrows"
    ring = [*WORKLOAD, "blocks", "--blocks", "499", "--order", "0"]
    record(trace, *ring, options=["--gfp-all", hex(RING_BLOCK_GFP), "--sample", "4"])
    verdict = verify(trace)
    cpus = os.cpu_count() or 1
    assert 499 // 4 - cpus <= verdict["allocations"] == verdict["matched"] <= 499 // 4
    assert verdict["sample"] == 4


def test_failures_alone_are_recorded(tmp_path: Path) -> None:
    """The mixed workload makes one request that every kernel rejects."""
    trace = tmp_path / "failed.arrows"
    with paused(MIXED.format(pages=1000)) as workload:
        options = [*MODES["returns"], "--failed", "--pid", str(workload.pid)]
        with start(trace, *options) as recording:
            workload.send_signal(signal.SIGCONT)
            wait_until_stopped(workload)
            recording.send_signal(signal.SIGINT)
            assert recording.wait(120) == 0
    (row,) = rows(trace).to_pylist()
    assert not row["page"]


def test_calls_are_counted_by_the_name_of_their_task(tmp_path: Path) -> None:
    """Each in its task's group, still without an event for a call."""
    trace = tmp_path / "names.arrows"
    record(trace, *WORKLOAD, "anonymous", "--pages", str(PAGES), options=["--by", "comm"])
    done = subprocess.run(
        [*KALLOCTRACE, "report", "--by", "comm", "--json", trace], capture_output=True, text=True, check=True
    )
    groups = {group["by"]["comm"]: group["calls"] for group in map(json.loads, done.stdout.splitlines())}
    assert max(calls for comm, calls in groups.items() if comm.startswith("python")) >= PAGES
    verdict = verify(trace)
    assert verdict["allocations"] == verdict["matched"] == sum(groups.values())


def test_a_command_and_its_descendants_are_recorded_alone(tmp_path: Path) -> None:
    """Also the children of its children, but nobody else, however busy."""
    trace = tmp_path / "children.arrows"
    work = shlex.join([*WORKLOAD, "anonymous", "--pages", str(PAGES)])
    busy = "import mmap\nwhile True: mmap.mmap(-1, 64 << 12).write(bytes(64 << 12))"
    with subprocess.Popen([sys.executable, "-c", busy]) as other:
        try:
            record(trace, "sh", "-c", f"sh -c {shlex.quote(work)}; true", options=[*MODES["stream"], "--children"])
        finally:
            other.kill()
    pids = pc.value_counts(rows(trace)["pid"]).to_pylist()
    counts = {one["values"]: one["counts"] for one in pids}
    assert max(counts.values()) >= PAGES
    # The first shell and the workload, which the second one becomes.
    assert len(counts) >= 2
    assert other.pid not in counts
    assert verify(trace)["mismatched"] == 0


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
def test_signal_ends_a_recording_whole(tmp_path: Path, number: int, attached: Callable[[], list[str]]) -> None:
    """Ctrl-C and SIGTERM leave a trace with its totals, and nothing attached."""
    trace = tmp_path / "ended.arrows"
    before = attached()
    with start(trace) as process:
        assert len(attached()) > len(before)
        subprocess.run(["true"], check=True)  # the recorder's own calls are left out
        process.send_signal(number)
        assert process.wait(60) == 0
    verdict = verify(trace)
    assert verdict["allocations"] > 0
    assert not verdict["truncated"]
    assert attached() == before


@pytest.mark.long
@pytest.mark.parametrize("mode", ["aggregate", "stream"])
def test_kill_leaves_a_readable_trace_and_no_probe(
    tmp_path: Path, mode: str, attached: Callable[[], list[str]]
) -> None:
    """Everything written before kill -9 is verified, and the trace counts as truncated."""
    trace = tmp_path / "killed.arrows"
    before = attached()
    with start(trace, *MODES[mode]) as process:
        subprocess.run([*WORKLOAD, "anonymous", "--pages", "3000"], check=True)
        time.sleep(5)
        process.kill()
    verdict = verify(trace)
    assert verdict["allocations"] >= 3000
    assert verdict["matched"] == verdict["allocations"]
    assert verdict["truncated"]
    assert attached() == before


@pytest.mark.long
def test_aggregate_needs_no_reader(tmp_path: Path) -> None:
    """While the recorder is stopped it keeps counting, and loses nothing."""
    trace = tmp_path / "alone.arrows"
    assert record_while_stopped(trace, "aggregate", 30_000).dropped == 0
    verdict = verify(trace)
    assert verdict["allocations"] >= 30_000
    assert verdict["matched"] == verdict["allocations"]


def test_calls_that_find_the_ring_buffer_full_are_counted_exactly(tmp_path: Path) -> None:
    """Without a reader the buffer fills up; each captured call is a row, dropped, or still running."""
    trace = tmp_path / "full.arrows"
    totals = record_while_stopped(trace, "returns", 150_000)
    assert totals.dropped > 0
    strict = subprocess.run([*KALLOCTRACE, "verify", "--strict", "--json", trace], capture_output=True, check=False)
    assert strict.returncode == 4
    verdict = json.loads(strict.stdout)
    assert (verdict["lost"], verdict["mismatched"]) == (totals.lost, 0)


def record_while_stopped(trace: Path, mode: str, pages: int) -> Totals:
    """Record while the recorder is stopped; check that each call is accounted for, and return the totals."""
    with start(trace, *MODES[mode]) as process:
        process.send_signal(signal.SIGSTOP)
        subprocess.run([*WORKLOAD, "anonymous", "--pages", str(pages)], check=True)
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    with TraceReader(trace) as reader:
        rows_read = sum(calls(pa.table(batch)) for batch in reader.batches())
        totals = reader.ending().totals
    assert totals is not None
    assert rows_read == totals.submitted
    assert totals.opened == totals.submitted + totals.dropped + totals.no_room + totals.replaced + totals.running
    assert totals.opened >= pages
    return totals


@pytest.mark.long
def test_two_recordings_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Each has its own program and its own counts."""
    outer, inner = tmp_path / "outer.arrows", tmp_path / "inner.arrows"
    record(outer, *KALLOCTRACE, "record", "-o", str(inner), "--", *WORKLOAD, "anonymous", "--pages", "2000")
    for trace in (outer, inner):
        verdict = verify(trace)
        assert verdict["allocations"] >= 2000
        assert verdict["matched"] == verdict["allocations"]


def test_stacks_lead_to_the_entry(tmp_path: Path) -> None:
    """With --stack each call has its callers, outermost first."""
    trace = tmp_path / "stacks.arrows"
    done = subprocess.run(
        [
            *KALLOCTRACE,
            "record",
            *MODES["stream"],
            "--stack",
            "-o",
            trace,
            "--",
            *WORKLOAD,
            "anonymous",
            "--pages",
            "2000",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    stacks = [text for text in rows(trace)["stack"].to_pylist() if text is not None]
    assert len(stacks) >= 2000
    faults = [text for text in stacks if ";handle_mm_fault;" in text]
    assert len(faults) >= 2000


@pytest.mark.long
def test_failing_command_is_reported_and_its_trace_kept(tmp_path: Path) -> None:
    """The command's failure is not the recording's; --json reports both, after the command's own output."""
    trace = tmp_path / "failed.arrows"
    done = subprocess.run(
        [*KALLOCTRACE, "record", "--json", "-o", trace, "--", "sh", "-c", "echo printed; exit 7"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "exit status 7" in done.stderr
    verdict = verify(trace)
    assert not verdict["truncated"]
    printed, report = done.stdout.splitlines()
    assert printed == "printed"
    recording = json.loads(report)
    hold("recording", recording)
    assert (recording["trace"], recording["kernel"]) == (str(trace), os.uname().release)
    assert (recording["allocations"], recording["exit_status"]) == (verdict["allocations"], 7)
    audit = recording["audit"]
    assert audit == verdict["audit"]
    with TraceReader(trace) as reader:
        audited = reader.recording["audit"]
    assert (audit is None) == (audited is None)
    if audit is not None:
        # Before and after; each is of 512 page faults, at least.
        assert (audit["windows"], audit["failure"], audit["differs"]) == (2, "", False)
        assert audit["pair"] > 1000


@pytest.mark.long
def test_absent_command_is_named(tmp_path: Path, attached: Callable[[], list[str]]) -> None:
    """A mistyped command is one error, and nothing stays attached."""
    before = attached()
    done = subprocess.run(
        [*KALLOCTRACE, "record", "-o", tmp_path / "x.arrows", "--", "/no/such/command"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot run /no/such/command" in done.stderr
    assert not (tmp_path / "x.arrows").exists()
    assert attached() == before
