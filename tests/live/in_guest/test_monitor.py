# SPDX-License-Identifier: MIT
"""`kalloctrace monitor` on the running kernel: segments, SIGHUP, a killed worker, metrics, and the end."""

import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from kalloctrace.trace.reader import TraceReader
from kalloctrace.verify.verification import verify_trace
from tests.live.capabilities import require_unprivileged

WORKLOAD = [sys.executable, "-m", "kalloctrace.lab.workload", "anonymous", "--pages", "3000"]
PAGES = 3_000
CONFIG = """
[segments]
folder = "{}"
age = "{}"
keep_free = "0 KiB"
[metrics]
listen = "unix:{}"
[bounds]
cpu = 100
"""


def scraped(path: Path) -> dict[str, float]:
    """Return the sum of the samples of each metric."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(1 << 16), b"")).decode()
    families = text_string_to_metric_families(answer.partition("\r\n\r\n")[2])
    return {family.name: sum(sample.value for sample in family.samples) for family in families}


def wait_until(met: Callable[[], bool]) -> None:
    """Wait for something that happens within a minute."""
    until = time.monotonic() + 60
    while not met():
        assert time.monotonic() < until
        time.sleep(0.2)


def added_up(folder: Path) -> tuple[list[str], dict[str, int], dict[str, int]]:
    """Check every segment; return the truncated ones, and calls and segments by recording."""
    truncated, calls, number = [], Counter[str](), Counter[str]()
    for path in sorted(folder.iterdir()):
        with TraceReader(path) as trace:
            verdict = verify_trace(trace)
            totals = trace.ending().totals
            monitor = trace.recording["segment"]["monitor"]
        assert (verdict.mismatched, verdict.matched > 0) == (0, True), path
        truncated += [path.name] if verdict.truncated else []
        if totals is not None:
            assert totals.opened == totals.submitted + totals.lost + totals.replaced + totals.running
            assert totals.submitted == verdict.allocations
        number[monitor] += 1
        calls[monitor] += verdict.allocations
    return truncated, calls, number


def test_segments_add_up(attached: Callable[[], list[str]], tmp_path: Path) -> None:
    """No call is lost between segments; a crash costs the end of one; nothing stays attached."""
    before = attached()
    folder, metrics, config = tmp_path / "segments", tmp_path / "metrics.sock", tmp_path / "monitor.toml"
    config.write_text(CONFIG.format(folder, "1 s", metrics))
    command = [sys.executable, "-m", "kalloctrace", "monitor", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        lines = []
        assert process.stderr is not None

        def line(wanted: str) -> None:
            for text in process.stderr or ():
                lines.append(text)
                if wanted in text:
                    return
            raise AssertionError(lines)

        try:
            line("recording on")
            (worker,) = psutil.Process(process.pid).children()
            require_unprivileged(worker.pid)
            assert len(attached()) > len(before)
            subprocess.run(WORKLOAD, check=True)
            wait_until(lambda: len(list(folder.glob("*.arrows"))) >= 3)
            config.write_text(CONFIG.format(folder, "1 h", metrics))
            process.send_signal(signal.SIGHUP)
            line("read again")
            # The open segment gets its first counts when metrics are read.
            first = scraped(metrics)
            worker.kill()
            line("ended by SIGKILL")
            line("recording on")
            subprocess.run(WORKLOAD, check=True)
            second = scraped(metrics)
            process.send_signal(signal.SIGTERM)
            lines += process.stderr
            assert process.wait(60) == 0, lines
        finally:
            process.kill()
    assert attached() == before
    truncated, calls, monitors = added_up(folder)
    one, two = calls
    assert monitors[one] >= 4
    assert len(truncated) == 1
    assert truncated[0].endswith(".truncated.arrows")
    assert calls[one] >= first["kalloctrace_allocations"] >= PAGES
    assert calls[two] >= second["kalloctrace_allocations"] >= PAGES
    assert (second["kalloctrace_monitor_attached"], second["kalloctrace_monitor_attachments"]) == (1, 2)
    assert second["kalloctrace_monitor_dropped"] == 0
