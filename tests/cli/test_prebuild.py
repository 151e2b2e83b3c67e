# SPDX-License-Identifier: MIT
"""The command `prebuild`, as far as it needs no guest."""

import subprocess
import sys
from pathlib import Path

import pytest


def prebuild(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the real program."""
    return subprocess.run(
        [sys.executable, "-m", "kalloctrace", "prebuild", *words],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("words", [(), ("--kernel", "6.12", "--cpus", "0"), ("--kernel", "6.12", "--cpus", "8193")])
def test_wrong_words(words: tuple[str, ...]) -> None:
    """A kernel is needed, and numbers have a range."""
    assert prebuild(*words).returncode == 2


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A file is there; nothing boots, and the file stays."""
    (tmp_path / "file").write_text("mine")
    done = prebuild("--kernel", "6.12", "-o", str(tmp_path / "file" / "programs"))
    what, why, fix = done.stderr.splitlines()
    assert (done.returncode, what) == (1, f"error: cannot make the folder {tmp_path / 'file' / 'programs'}")
    assert (why, fix) == ("  why: Not a directory", "  fix: name another one with -o")
    assert (tmp_path / "file").read_text() == "mine"
