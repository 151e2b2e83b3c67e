# SPDX-License-Identifier: MIT
"""What `make run` prints last: a page, and commands that work as they are printed."""

import subprocess
from pathlib import Path

import pytest

from kalloctrace.lab import demo

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Run the demonstration on a recorded trace, in an empty folder; return its lines."""
    (tmp_path / "fixtures").symlink_to(CHECKOUT / "fixtures")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "_live", lambda: None)
    monkeypatch.setattr(demo, "_guest", lambda: None)
    assert demo.main() == 0
    return capfd.readouterr().out.splitlines()


@pytest.mark.timeout(600)  # seven programs, one after the other
def test_it_writes_a_page_and_prints_commands_that_work(printed: list[str], tmp_path: Path) -> None:
    """A shell in the same folder runs each command as it stands, without a PATH to this environment."""
    page = tmp_path / "demo.html"
    assert f"=> the page is {page}: open it in a browser" in printed
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    commands = printed[printed.index("=> what to try next:") + 1 :]
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, env={"PATH": "/usr/bin:/bin"})
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout, command
