# SPDX-License-Identifier: MIT
"""The progress of long work, shown on terminals only."""

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from kalloctrace.trace.reader import TraceReader

TRACE = Path(__file__).parents[2] / "fixtures/5.10/two-nodes.arrows"
# Half of the work is done when it takes its time.
_SLOW = """
import sys, time
from kalloctrace.commands.progress import show_progress
with show_progress("a piece of work", lambda: 0.5):
    time.sleep(float(sys.argv[1]))
print("done")
"""


def stderr_of(seconds: float, *, terminal: bool, **environment: str) -> tuple[str, str]:
    """Run a task, and return its standard output, and its standard error from a terminal or a pipe."""
    main, other = pty.openpty() if terminal else os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", _SLOW, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=other,
        text=True,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environment},
    ) as process:
        os.close(other)
        shown = b""
        # Linux ends a terminal whose other end is closed with an error.
        with contextlib.suppress(OSError):
            while part := os.read(main, 1 << 16):
                shown += part
        assert process.stdout is not None
        out = process.stdout.read()
    os.close(main)
    assert process.returncode == 0
    return out, shown.decode()


def test_long_work_is_shown_on_a_terminal() -> None:
    """After a second a terminal shows the task and its progress; standard output has only the result."""
    out, err = stderr_of(2.5, terminal=True)
    assert out == "done\n"
    assert "a piece of work" in err
    assert "50%" in err


def test_short_work_is_not() -> None:
    """Work that ends within a second shows no bar."""
    assert stderr_of(0.1, terminal=True) == ("done\n", "")


def test_a_pipe_gets_nothing() -> None:
    """A pipe or a file never gets a progress bar."""
    assert stderr_of(1.6, terminal=False) == ("done\n", "")


def test_no_color_holds_here_too() -> None:
    """With NO_COLOR the bar has no colour."""
    _, err = stderr_of(2.0, terminal=True, NO_COLOR="1")
    assert "a piece of work" in err
    assert "\x1b[3" not in err.replace("\x1b[3A", "")


def test_a_reader_reports_its_progress() -> None:
    """The fraction grows from 0 to 1."""
    seen: list[float] = []
    with TraceReader(TRACE, seen.append) as reader:
        batches = len(list(reader.batches()))
    assert seen == sorted(seen)
    assert len(seen) > batches
    assert seen[-1] == pytest.approx(1.0, abs=0.01)
