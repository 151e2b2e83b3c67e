# SPDX-License-Identifier: MIT
"""The way that a guest boots."""

from pathlib import Path

import pytest

from kalloctrace.lab import boot
from kalloctrace.lab.guest import Machine


@pytest.mark.parametrize(
    ("mounts", "in_memory", "program"),
    [
        (True, False, "virtme-run"),
        (True, True, "qemu-system-x86_64"),
        (False, False, "qemu-system-x86_64"),
        (False, True, "qemu-system-x86_64"),
    ],
)
def test_files_are_in_memory_without_9p_or_on_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, mounts: bool, in_memory: bool, program: str
) -> None:
    """A kernel with 9p mounts this machine's files unless `in_memory` is set."""
    monkeypatch.setattr(boot, "has_9p", lambda _: mounts)
    monkeypatch.setattr(boot, "archive_path", lambda: tmp_path / "files.cpio")
    command = boot.boot_command(tmp_path / "vmlinuz", Machine(), tmp_path, [], in_memory=in_memory)
    assert command[0] == program
    assert (str(tmp_path / "files.cpio") in command) is (program != "virtme-run")
