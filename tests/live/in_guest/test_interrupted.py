# SPDX-License-Identifier: MIT
"""Signals while a recorder attaches."""

import subprocess
import sys

import pytest

COMMANDS = ("record", "live")
"""Of `tests.live.interrupted`, which has more: each takes a minute to start here."""


@pytest.mark.timeout(1200)
def test_signal_while_attaching_leaves_nothing() -> None:
    """At some moments of two commands: exit code, nothing attached, no traceback, no file that is not whole."""
    words = [sys.executable, "-m", "tests.live.interrupted", "--minutes", "1", "--seconds", "60"]
    words += [word for command in COMMANDS for word in ("--only", command)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    # What it does first, it does once with each command.
    assert done.stdout.count("as it must") >= len(COMMANDS)
