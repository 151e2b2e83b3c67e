# SPDX-License-Identifier: MIT
"""The tests of `in_guest/`, run in a guest."""

import os
import re
import sys

import pytest

from kalloctrace.lab.needs import lab_available
from tests.live.conftest import TIMEOUT, GuestRun


@pytest.mark.live
def test_capture_in_a_5_10_guest(guest_run: GuestRun | None, capsys: pytest.CaptureFixture[str]) -> None:
    """On two nodes of different size, each test of `in_guest/` but the long ones passes, and none is skipped."""
    missing = lab_available()
    if missing and os.environ.get("KALLOCTRACE_REQUIRE_LIVE"):
        pytest.fail(f"no guest can be booted: {'; '.join(missing)}")
    if missing:
        pytest.skip(f"NOT TESTED LIVE: no guest can be booted: {'; '.join(missing)}")
    assert guest_run is not None
    code = guest_run.process.wait(TIMEOUT + 60)
    lines = guest_run.stdout.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = guest_run.stderr.read_text(encoding="utf-8", errors="replace")
    print(*lines, sep="\n")
    print(errors, file=sys.stderr)
    figures = [line for line in lines if line.startswith("perf stat:")]
    with capsys.disabled():
        print("", *figures, sep="\n")
    summary = lines[-1] if lines else errors
    assert code == 0, summary
    assert re.search(r"\d+ passed", summary)
    assert "skipped" not in summary
