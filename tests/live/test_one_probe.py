# SPDX-License-Identifier: MIT
"""One probe on a preemptible kernel: every call is captured, and none is prepared otherwise than the model says."""

import json
import os
import sys
from typing import Any

import pytest

from kalloctrace.lab.needs import lab_available
from kalloctrace.lab.run import run_in_guest

WORKLOAD = f"{sys.executable} -m kalloctrace.lab.workload"
COMMANDS = (f"{WORKLOAD} mixed --pages 1000", *(f"{WORKLOAD} anonymous --pages 2000" for _ in range(3)))


@pytest.mark.live
def test_every_call_is_captured_on_7_3() -> None:
    """Two processors, four busy processes; the kernel's tracepoint counts the same calls."""
    missing = lab_available()
    if missing and os.environ.get("KALLOCTRACE_REQUIRE_LIVE"):
        pytest.fail(f"no guest can be booted: {'; '.join(missing)}")
    if missing:
        pytest.skip(f"NOT TESTED LIVE: no guest can be booted: {'; '.join(missing)}")
    words = [sys.executable, "-m", "tests.live.one_probe", "one", "stream", *COMMANDS]
    done = run_in_guest(words, kernel="7.3", timeout=900)
    assert done.returncode == 0, done.stderr.decode()
    assert b" generated." not in done.stderr, "the compiler warns of the program"
    found: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    verdict, totals = found["verdict"], found["totals"]
    assert found["attach"] == "one:multi"
    assert "scope_bits" not in found["inferred"]
    assert found["captured"] == found["counted"] > 7000
    assert (verdict["mismatched"], verdict["unknown"], verdict["lost"], verdict["missed"]) == (0, 0, 0, 0)
    assert verdict["matched"] == verdict["allocations"] > 0
    assert totals["opened"] == totals["submitted"] + totals["running"]
    assert totals["freelist_alone"] == 0
