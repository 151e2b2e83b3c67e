# SPDX-License-Identifier: MIT
"""Tests that trace the running kernel: in a guest, or on a machine that `doctor` approves."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.checks import require_live


@pytest.fixture(scope="session", autouse=True)
def _traceable() -> None:
    try:
        require_live(LiveKernel())
    except KalloctraceError as error:
        if os.environ.get("KALLOCTRACE_REQUIRE_LIVE") and os.environ.get("KALLOCTRACE_IN_GUEST"):
            pytest.fail(f"this guest cannot be traced: {error}")
        pytest.skip(f"NOT TESTED LIVE here: {error.why}; tests/live/test_guests.py runs this in a guest")


@pytest.fixture
def attached() -> Callable[[], list[str]]:
    """Return a function that lists the kernel functions with attached programs or probes."""

    def read() -> list[str]:
        return Path("/sys/kernel/tracing/enabled_functions").read_text().splitlines()

    return read
