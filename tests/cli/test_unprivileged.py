# SPDX-License-Identifier: MIT
"""Commands that read a trace, as a user without any privilege."""

import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

FIXTURE = Path(__file__).parents[2] / "fixtures" / "5.10" / "one-node.arrows"
NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def user(tmp_path: Path) -> tuple[str, ...]:
    """Return the start of a command that runs as the user nobody; skip where that user cannot run the interpreter."""
    # Every folder above that belongs to this test run.
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o077 == 0:
            folder.chmod(0o755)
    start = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable, "-m", "kalloctrace")
    probe = subprocess.run([*start, "--version"], capture_output=True, check=False, cwd="/")
    if probe.returncode:
        pytest.skip("the interpreter is not readable for others here")
    return start


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Return a copy of a trace, as root's recorder writes it."""
    path = tmp_path / "roots.arrows"
    shutil.copy(FIXTURE, path)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "{}"),
        ("report", "{}"),
        ("diff", "{}", "{}"),
        ("export", "--format", "csv", "{}"),
        ("serve-metrics", "--port", "0", "{}"),
        ("live", "--plain", "--replay", "{}"),
    ],
)
def test_trace_of_another_user_is_explained(words: tuple[str, ...], user: tuple[str, ...], trace: Path) -> None:
    """Its owner and mode are named; it is no wrong usage."""
    command = [word.format(trace) for word in words]
    done = subprocess.run([*user, *command], capture_output=True, text=True, check=False, timeout=60, cwd="/")
    assert done.returncode == 1
    assert done.stdout == ""
    what, why, fix = done.stderr.splitlines()
    assert what == f"error: cannot read {trace}"
    assert "it belongs to root, and its mode is 0600" in why
    assert "run this as root" in fix


def test_trace_is_verified_and_served_without_privileges(user: tuple[str, ...], trace: Path) -> None:
    """As soon as it may be read."""
    trace.chmod(0o644)
    done = subprocess.run([*user, "verify", trace], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    command = [*user, "serve-metrics", "--port", "0", str(trace)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd="/") as process:
        try:
            assert process.stderr is not None
            url = next(line.split()[1] for line in process.stderr if line.startswith("serving"))
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310  (our own address)
                assert b"kalloctrace_up 1.0" in answer.read()
        finally:
            process.terminate()
        assert process.wait(20) == 0
