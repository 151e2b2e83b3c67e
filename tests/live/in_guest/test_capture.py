# SPDX-License-Identifier: MIT
"""Real recordings of the running kernel, compared with what others count, and ended in every way."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from kalloctrace.trace.reader import TraceReader

KALLOCTRACE = [sys.executable, "-m", "kalloctrace"]
WORKLOAD = [sys.executable, "-m", "kalloctrace.lab.workload"]

# include/linux/gfp.h of 5.10: GFP_KERNEL | __GFP_COMP | __GFP_ZERO | __GFP_NOWARN | __GFP_NORETRY
RING_BLOCK_GFP = 0x52DC0


def record(trace: Path, *command: str) -> None:
    """Record a command."""
    done = subprocess.run(
        [*KALLOCTRACE, "record", "-o", trace, "--", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def verify(trace: Path) -> dict[str, Any]:
    """Return the verdict on a trace."""
    done = subprocess.run([*KALLOCTRACE, "verify", "--json", trace], capture_output=True, text=True, check=False)
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict


def rows(trace: Path) -> pa.Table:
    """Return all rows of a trace."""
    with pa.memory_map(str(trace)) as file:
        return pa.ipc.open_stream(file).read_all().unify_dictionaries()


def test_mixed_workload_is_predicted_and_counted_to_the_last_allocation(tmp_path: Path) -> None:
    """200,000 allocations of one process: no mismatch, nothing unknown, nothing lost, and perf counts the same."""
    trace, counted = tmp_path / "mixed.arrows", tmp_path / "perf.csv"
    subprocess.run(["modprobe", "af_packet"], check=True)
    with paused_workload() as workload, start(trace, "--pid", str(workload.pid)) as recording:
        with counted_by_perf(workload.pid, counted):
            workload.send_signal(signal.SIGCONT)
            wait_until_stopped(workload)
        recording.send_signal(signal.SIGINT)
        assert recording.wait(120) == 0

    verdict = verify(trace)
    assert verdict["allocations"] >= 200_000
    assert verdict["matched"] == verdict["allocations"]
    assert (verdict["mismatched"], verdict["unknown"], verdict["lost"], verdict["missed"]) == (0, 0, 0, 0)
    assert not verdict["truncated"]

    table = rows(trace)
    assert table["pid"].unique().to_pylist() == [workload.pid]
    rejected = table.filter(pc.equal(table["freelist_calls"], 0)).num_rows
    by_perf = int(next(line for line in counted.read_text().splitlines() if "mm_page_alloc" in line).split(",")[0])
    print(f"perf stat: {by_perf:,}; trace: {table.num_rows:,}, {rejected} of them rejected before the tracepoint")
    assert rejected == 1
    assert table.num_rows - rejected == by_perf


@contextmanager
def paused_workload() -> Iterator[subprocess.Popen[bytes]]:
    """Start the mixed workload, which stops itself before and after, so that all count between these two moments."""
    stop = f"os.kill(os.getpid(), {signal.SIGSTOP:d})"
    program = f"import os; from kalloctrace.lab.workload import mixed; {stop}; mixed(200_000); {stop}"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            wait_until_stopped(process)
            yield process
        finally:
            process.kill()


def wait_until_stopped(process: subprocess.Popen[bytes]) -> None:
    """Return when a child has stopped itself."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


@contextmanager
def counted_by_perf(pid: int, output: Path) -> Iterator[None]:
    """Count the allocations of a process, which is stopped at both ends, with `perf stat`."""
    control, acknowledged = os.pipe(), os.pipe()
    command = ["perf", "stat", "-x,", "-o", str(output), "-e", "kmem:mm_page_alloc", "-p", str(pid), "--delay=-1"]
    command += ["--control", f"fd:{control[0]},{acknowledged[1]}"]

    def tell(word: bytes) -> None:
        os.write(control[1], word + b"\n")
        assert os.read(acknowledged[0], 16).startswith(b"ack\n")

    with subprocess.Popen(command, pass_fds=(control[0], acknowledged[1])) as perf:
        os.close(acknowledged[1])
        tell(b"enable")
        yield
        tell(b"disable")
        perf.send_signal(signal.SIGINT)
    os.close(acknowledged[0])
    for end in control:
        os.close(end)


def test_known_number_of_blocks_is_seen_exactly(tmp_path: Path) -> None:
    """A packet socket's ring allocates a prime number of blocks with a mask that nothing else uses."""
    trace = tmp_path / "prime.arrows"
    primes = {0: 499, 3: 1009, 9: 13}
    rings = [
        shlex.join([*WORKLOAD, "blocks", "--blocks", str(n), "--order", str(order)]) for order, n in primes.items()
    ]
    record(trace, "sh", "-c", " && ".join(rings))
    table = rows(trace)
    ring = table.filter(pc.equal(table["gfp_mask"], RING_BLOCK_GFP))
    assert {entry["values"]: entry["counts"] for entry in ring["order"].value_counts().to_pylist()} == primes
    assert verify(trace)["matched"] == table.num_rows


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_recording_whole(tmp_path: Path, number: int, attached: Callable[[], list[str]]) -> None:
    """Ctrl-C and SIGTERM leave a trace with its totals, and nothing attached."""
    trace = tmp_path / "ended.arrows"
    before = attached()
    with start(trace) as process:
        assert len(attached()) > len(before)
        process.send_signal(number)
        assert process.wait(60) == 0
    verdict = verify(trace)
    assert verdict["allocations"] > 0
    assert not verdict["truncated"]
    assert attached() == before


def test_kill_leaves_a_readable_trace_and_no_probe(tmp_path: Path, attached: Callable[[], list[str]]) -> None:
    """What was written before kill -9 is judged; the trace says that its end is missing."""
    trace = tmp_path / "killed.arrows"
    before = attached()
    with start(trace) as process:
        subprocess.run([*WORKLOAD, "anonymous", "--pages", "3000"], check=True)
        time.sleep(2)
        process.kill()
    verdict = verify(trace)
    assert verdict["allocations"] >= 3000
    assert verdict["matched"] == verdict["allocations"]
    assert verdict["truncated"]
    assert attached() == before


def test_what_finds_the_ring_buffer_full_is_counted_to_the_one(tmp_path: Path) -> None:
    """While nobody drains it the buffer fills up; each call that was seen is then a row, dropped, or still running."""
    trace = tmp_path / "full.arrows"
    with start(trace) as process:
        process.send_signal(signal.SIGSTOP)
        subprocess.run([*WORKLOAD, "anonymous", "--pages", "150000"], check=True)
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
    with TraceReader(trace) as reader:
        rows_read = sum(batch.num_rows for batch in reader.batches())
        totals = reader.totals
    assert totals is not None
    assert totals.dropped > 0
    assert rows_read == totals.submitted
    assert totals.opened == totals.submitted + totals.dropped + totals.no_room + totals.replaced + totals.running
    assert totals.opened >= 150_000
    strict = subprocess.run([*KALLOCTRACE, "verify", "--strict", "--json", trace], capture_output=True, check=False)
    assert strict.returncode == 4
    verdict = json.loads(strict.stdout)
    assert (verdict["lost"], verdict["mismatched"]) == (totals.lost, 0)


def start(trace: Path, *options: str) -> subprocess.Popen[str]:
    """Start a recording that has no end of its own; return when it captures."""
    process = subprocess.Popen([*KALLOCTRACE, "record", *options, "-o", trace], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("recording"):
            return process
    raise AssertionError("the recording did not begin")


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
        [*KALLOCTRACE, "record", "--stack", "-o", trace, "--", *WORKLOAD, "anonymous", "--pages", "2000"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    stacks = [text for text in rows(trace)["stack"].to_pylist() if text is not None]
    assert len(stacks) >= 2000
    faults = [text for text in stacks if ";handle_mm_fault;" in text]
    assert len(faults) >= 2000


def test_failing_command_is_said_and_its_trace_kept(tmp_path: Path) -> None:
    """The command's failure is not the recording's."""
    trace = tmp_path / "failed.arrows"
    done = subprocess.run(
        [*KALLOCTRACE, "record", "-o", trace, "--", "sh", "-c", "exit 7"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "exit status 7" in done.stderr
    assert not verify(trace)["truncated"]


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
