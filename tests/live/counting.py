# SPDX-License-Identifier: MIT
"""Records a process while `perf stat` counts its allocations: both cover the same calls."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KALLOCTRACE = [sys.executable, "-m", "kalloctrace"]


@contextmanager
def start(trace: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a recording without an end, and wait until it captures; it is ended with the context."""
    with subprocess.Popen(
        [*KALLOCTRACE, "record", *options, "-o", trace], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert any(line.startswith("recording") for line in process.stderr), "the recording did not begin"
            yield process
        finally:
            process.kill()


@contextmanager
def paused(program: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program that stops itself before and after its work, so that all counters cover the same calls."""
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

    def send(word: bytes) -> None:
        os.write(control[1], word + b"\n")
        assert os.read(acknowledged[0], 16).startswith(b"ack\n")

    with subprocess.Popen(command, pass_fds=(control[0], acknowledged[1])) as perf:
        os.close(acknowledged[1])
        try:
            send(b"enable")
            yield
            send(b"disable")
        finally:
            perf.send_signal(signal.SIGINT)
    os.close(acknowledged[0])
    for end in control:
        os.close(end)


def count_of(output: Path) -> int:
    """Return the count in the output of `perf stat`."""
    return int(next(line for line in output.read_text().splitlines() if "mm_page_alloc" in line).split(",")[0])
