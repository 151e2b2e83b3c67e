# SPDX-License-Identifier: MIT
"""Messages of `doctor`, `record` and `live` about obstacles; each test creates one in a mount namespace."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

KALLOCTRACE = f"{sys.executable} -m kalloctrace"

OBSTACLES = {
    "not root": ("setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all {}", "privilege", "root"),
    "no BTF": ("mount -t tmpfs none /sys/kernel/btf && {}", "BTF", "CONFIG_DEBUG_INFO_BTF"),
    "no bcc": (
        "mount -t tmpfs none /usr/lib/python3/dist-packages && KALLOCTRACE_PROGRAMS= {}",
        "bcc",
        "python3-bpfcc",
    ),
    "wrong bcc": ("PYTHONPATH={tmp} KALLOCTRACE_PROGRAMS= {}", "bcc", "pip uninstall bcc"),
    "no kallsyms": ("mount --bind /dev/null /proc/kallsyms && {}", "kallsyms", "kptr_restrict"),
}


def behind(obstacle: str, command: str, tmp: Path) -> subprocess.CompletedProcess[str]:
    """Run a kalloctrace command with an obstacle."""
    (tmp / "bcc").mkdir(exist_ok=True)
    (tmp / "bcc" / "__init__.py").write_text('"""Blockchain something."""\n')
    script = OBSTACLES[obstacle][0].format(f"{KALLOCTRACE} {command}", tmp=tmp)
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False, cwd=tmp
    )


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_doctor_names_the_obstacle_and_its_fix(obstacle: str, tmp_path: Path) -> None:
    """The check of the obstacle fails, whatever else fails too."""
    _, name, fix = OBSTACLES[obstacle]
    tmp_path.chmod(0o755)
    done = behind(obstacle, "doctor --json", tmp_path)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["live"] is False
    check = next(check for check in found["checks"] if check["name"] == name)
    assert check["status"] == "fail"
    assert fix in check["fix"]


@pytest.mark.parametrize(
    "command",
    ["record -o new.arrows -- true", pytest.param("live -o new.arrows --count 1", marks=pytest.mark.long)],
)
@pytest.mark.parametrize(
    "obstacle",
    [pytest.param(one, marks=() if one in ("not root", "no bcc") else pytest.mark.long) for one in OBSTACLES],
)
def test_capture_is_refused_before_it_attaches_or_writes(
    obstacle: str, command: str, tmp_path: Path, attached: Callable[[], list[str]]
) -> None:
    """Three lines, exit code 1, no file, no probe."""
    before = attached()
    tmp_path.chmod(0o777)
    done = behind(obstacle, command, tmp_path)
    assert done.returncode == 1
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()] == ["error", "why", "fix"]
    assert not (tmp_path / "new.arrows").exists()
    assert attached() == before


def test_missing_tracefs_is_a_warning(tmp_path: Path) -> None:
    """Capture works without tracefs, with flag names from built-in tables."""
    script = (
        "umount -l /sys/kernel/tracing; umount -l /sys/kernel/debug/tracing; umount -l /sys/kernel/debug; "
        f"{KALLOCTRACE} doctor --json"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["live"] is True
    assert next(check for check in found["checks"] if check["name"] == "tracefs")["status"] == "warn"


def test_no_compiler_is_needed_for_a_program_that_is_kept(tmp_path: Path) -> None:
    """Where bcc is gone, what was recorded before can be recorded; anything else names bcc."""
    record = f"{KALLOCTRACE} record -f -o {{}} {{}} -- true"
    script = (
        f"export KALLOCTRACE_PROGRAMS=programs; {record.format('with.arrows', '')} && "
        "mount -t tmpfs none /usr/lib/python3/dist-packages && "
        f"{record.format('without.arrows', '')} && {record.format('other.arrows', '--mode stream')}"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-3] == "error: cannot use bcc"
    assert [path.name for path in sorted(tmp_path.glob("*.arrows"))] == ["with.arrows", "without.arrows"]
