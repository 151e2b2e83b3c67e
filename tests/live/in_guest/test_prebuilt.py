# SPDX-License-Identifier: MIT
"""A machine without a compiler records with programs that were compiled elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kalloctrace.probe.attach.program_cache import CACHE_VARIABLE

_WITHOUT_BCC = 'mount -t tmpfs none /usr/lib/python3/dist-packages && exec "$@"'


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_prebuilt_programs_need_no_compiler(tmp_path: Path) -> None:
    """Neither bcc nor LLVM is there. Another program is refused, and so is a damaged one: both would be compiled."""
    folder = tmp_path / "programs"
    folder.mkdir(mode=0o700)
    environment = {**os.environ, CACHE_VARIABLE: str(folder)}
    words = [sys.executable, "-m", "kalloctrace.probe.prebuild", str(os.sysconf("SC_NPROCESSORS_CONF"))]
    made = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    paths = [Path(line) for line in made.stdout.splitlines()]
    assert len(paths) >= 5
    assert {path.parent.parent for path in paths} == {folder}

    def record(*options: str) -> "subprocess.CompletedProcess[str]":
        program = [sys.executable, "-m", "kalloctrace", "record", "-f", "-o", str(tmp_path / "t.arrows"), *options]
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", _WITHOUT_BCC, "sh", *program, "--", "true"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    for options in ((), ("--mode", "stream"), ("--mode", "stream", "--stack"), ("--by", "comm"), ("--by", "cgroup")):
        done = record(*options)
        assert done.returncode == 0, (options, done.stderr)
    assert "bcc" in record("--order", "3").stderr
    for path in paths:
        path.write_bytes(path.read_bytes()[:-1])
    damaged = record()
    assert damaged.returncode == 1
    assert "bcc" in damaged.stderr
