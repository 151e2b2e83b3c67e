# SPDX-License-Identifier: MIT
"""A recording that is told to end, ends, even if its main thread does not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

START = """
import sys, time
from pathlib import Path
from kalloctrace import signals
signals.GRACE, signals._GRACE_CPU, signals._LONGEST_GRACE = 0.2, 0.1, float(sys.argv[1])
with signals.Ending(lambda: print("cleaned up", flush=True)) as ending:
    ending.running(*map(Path, sys.argv[2:]))
    print("ready", flush=True)
"""
HANGS = "    time.sleep(60)\n"
BUSY = "    while True: pass\n"
# Runnable without a processor, as on a machine that is too busy.
STARVED = """
    signals._main_thread_runnable = lambda: True
    time.sleep(1.0)
    ending.noticed()
print("complete", flush=True)
"""


def ended(script: str, *words: str) -> tuple[int, str, str]:
    """Run a script, signal it when it is ready, and return its exit code and what it printed."""
    process = subprocess.Popen(
        [sys.executable, "-c", START + script, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=50)
    return process.returncode, stdout, stderr


STUCK = pytest.mark.parametrize("stuck", [HANGS, BUSY], ids=["hangs", "busy"])


@STUCK
def test_recorder_that_does_not_react_is_ended(stuck: str) -> None:
    """It cleans up, and its exit code is that of an ended recording."""
    assert ended(stuck, "0.2") == (0, "cleaned up\n", "")


@STUCK
def test_recorder_that_loses_calls_says_so(stuck: str) -> None:
    """What was captured is not in the trace: that is no success."""
    code, stdout, stderr = ended(stuck, "0.2", "new.arrows")
    assert (code, stdout) == (1, "cleaned up\n")
    assert stderr.splitlines() == [
        "error: new.arrows is not complete",
        "  why: the program was told to end, and did not react within 0.2 s",
        "  fix: what is in the file can be read; record again for the rest",
    ]


def test_recorder_that_gets_no_processor_is_given_time() -> None:
    """It ends in order, later; without a limit it would not be stuck at all."""
    assert ended(STARVED, "30", "new.arrows") == (0, "complete\n", "")


def test_recorder_that_never_gets_a_processor_is_ended() -> None:
    """There is a limit."""
    code, stdout, _ = ended(STARVED.replace("1.0", "60"), "0.4", "new.arrows")
    assert (code, stdout) == (1, "cleaned up\n")
