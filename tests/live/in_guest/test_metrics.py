# SPDX-License-Identifier: MIT
"""`kalloctrace serve-metrics` on the running kernel."""

import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from tests.live.capabilities import require_unprivileged

WORKLOAD = [sys.executable, "-m", "kalloctrace.lab.workload"]
PAGES = 5_000


def scraped(url: str) -> dict[str, float]:
    """Return the sum of the samples of each metric."""
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310  (our own address)
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {family.name: sum(sample.value for sample in family.samples) for family in families}


def test_metrics_grow_during_capture(attached: Callable[[], list[str]]) -> None:
    """Allocations and verdicts are served, and nothing stays attached."""
    before = attached()
    command = [sys.executable, "-m", "kalloctrace", "serve-metrics", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            url = next(line.split()[1] for line in process.stderr if line.startswith("serving"))
            assert len(attached()) > len(before)
            require_unprivileged(process.pid)
            first = scraped(url)
            subprocess.run([*WORKLOAD, "anonymous", "--pages", str(PAGES)], check=True)
            second = scraped(url)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert attached() == before
    grown = second["kalloctrace_allocations"] - first["kalloctrace_allocations"]
    assert grown >= PAGES
    assert second["kalloctrace_verdict_allocations"] >= grown
