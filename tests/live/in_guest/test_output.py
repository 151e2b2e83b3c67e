# SPDX-License-Identifier: MIT
"""A recording whose disk fills up: detached, and readable to the last whole batch."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

KALLOCTRACE = [sys.executable, "-m", "kalloctrace"]
WORK = "import mmap\nwhile True:\n    with mmap.mmap(-1, 1 << 22) as m:\n        m.write(bytes(1 << 22))"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 384 KiB."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=384k", "none", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def test_full_disk_ends_the_recording(small_disk: Path, attached: Callable[[], list[str]]) -> None:
    """It is an error that names the file, nothing stays attached, and the trace has what came before."""
    before = attached()
    path = small_disk / "t.arrows"
    command = [*KALLOCTRACE, "record", "--mode", "stream", "-o", str(path), "--", sys.executable, "-c", WORK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    what, why, fix = done.stderr.splitlines()[-3:]
    assert (done.returncode, what) == (1, f"error: cannot write {path}")
    assert why == "  why: No space left on device; what was written before can be read"
    assert "space" in fix
    assert attached() == before
    shown = subprocess.run([*KALLOCTRACE, "verify", "--json", path], capture_output=True, text=True, check=True)
    verdict = json.loads(shown.stdout)
    assert verdict["truncated"] is True
    assert verdict["allocations"]
    assert verdict["mismatched"] == 0
