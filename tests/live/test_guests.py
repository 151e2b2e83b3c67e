# SPDX-License-Identifier: MIT
"""Boots guests and runs the tests of `in_guest/` inside."""

import os
import re
import sys
from pathlib import Path

import pytest

from kalloctrace.lab.needs import lab_available
from kalloctrace.lab.run import run_in_guest

IN_GUEST = Path(__file__).parent / "in_guest"


@pytest.fixture(autouse=True)
def _lab() -> None:
    missing = lab_available()
    if missing and os.environ.get("KALLOCTRACE_REQUIRE_LIVE"):
        pytest.fail(f"no guest can be booted: {'; '.join(missing)}")
    if missing:
        pytest.skip(f"NOT TESTED LIVE: no guest can be booted: {'; '.join(missing)}")


@pytest.mark.live
@pytest.mark.parametrize("numa", [pytest.param(("1G,cpus=0", "3G,cpus=1"), id="two nodes of different size")])
def test_capture_in_a_5_10_guest(numa: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything of `in_guest/` passes, and nothing is skipped."""
    tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA", "--durations=0", str(IN_GUEST)]
    result = run_in_guest(
        tests,
        kernel="5.10",
        numa=numa,
        writable=[tmp_path],
        env={"KALLOCTRACE_REQUIRE_LIVE": "1", "KALLOCTRACE_IN_GUEST": "1", "TMPDIR": "/tmp"},  # noqa: S108 the guest's
        timeout=3300,
        stdout=sys.stdout.buffer,
        stderr=sys.stderr.buffer,
    )
    lines = result.stdout.decode().splitlines()
    figures = [line for line in lines if line.startswith("perf stat:")]
    with capsys.disabled():
        print("", *figures, sep="\n")
    summary = lines[-1]
    assert result.returncode == 0, summary
    assert re.search(r"\d+ passed", summary)
    assert "skipped" not in summary
