# SPDX-License-Identifier: MIT
"""Lockdown lasts until a reboot, so this file's name sorts last."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LOCKDOWN = Path("/sys/kernel/security/lockdown")


def test_lockdown_is_named() -> None:
    """In confidentiality mode programs cannot read kernel memory, and doctor reports it."""
    if not os.environ.get("KALLOCTRACE_IN_GUEST"):
        pytest.skip("this would lock a real machine down until its next boot")
    if not LOCKDOWN.exists():
        subprocess.run(["mount", "-t", "securityfs", "securityfs", "/sys/kernel/security"], check=True)
    LOCKDOWN.write_text("confidentiality")
    done = subprocess.run(
        [sys.executable, "-m", "kalloctrace", "doctor", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    check = next(check for check in json.loads(done.stdout)["checks"] if check["name"] == "lockdown")
    assert check["status"] == "fail"
    assert "lockdown=" in check["mend"]
