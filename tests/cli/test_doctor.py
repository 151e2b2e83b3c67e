# SPDX-License-Identifier: MIT
"""`doctor`, and `record` on a machine that cannot be traced; both run on any machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def kalloctrace(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the program as an unprivileged user, in a folder."""
    unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    command = [*unprivileged, sys.executable, "-m", "kalloctrace", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture
def readable() -> None:
    """Skip where an unprivileged user cannot even read the interpreter."""
    probe = kalloctrace("--version", cwd=Path("/"))
    if probe.returncode:
        pytest.skip(f"the interpreter is not readable for others here: {probe.stderr.strip()[-100:]}")


def test_doctor_prints_the_promised_object(tmp_path: Path) -> None:
    """Type, verdict and checks with status, detail and fix; the exit code agrees with the verdict."""
    done = subprocess.run(
        [sys.executable, "-m", "kalloctrace", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    found = json.loads(done.stdout)
    assert found["type"] == "doctor"
    assert {check["status"] for check in found["checks"]} <= {"pass", "warn", "fail"}
    assert all(check["name"] and check["detail"] for check in found["checks"])
    assert all(check["mend"] for check in found["checks"] if check["status"] != "pass")
    assert found["live"] == all(check["status"] != "fail" for check in found["checks"])
    assert done.returncode == (0 if found["live"] else 1)


@pytest.mark.usefixtures("readable")
def test_doctor_reports_missing_root(tmp_path: Path) -> None:
    """The fix is to become root."""
    tmp_path.chmod(0o755)
    done = kalloctrace("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    privilege = next(check for check in json.loads(done.stdout)["checks"] if check["name"] == "privilege")
    assert privilege["status"] == "fail"
    assert "root" in privilege["mend"]


@pytest.mark.usefixtures("readable")
def test_record_without_root_is_three_lines_and_no_file(tmp_path: Path) -> None:
    """It fails before it starts anything."""
    tmp_path.chmod(0o777)
    done = kalloctrace("record", "-o", "new.arrows", "--", "true", cwd=tmp_path)
    assert done.returncode == 1
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()] == ["error", "why", "fix"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("--pid", "0"),
        ("-d", "0"),
        ("-d", "x"),
        ("--mode", "guess"),
        ("--frobnicate",),
        ("--returns",),
        ("--stack",),
        ("--max-rate", "5"),
        ("--children",),
        ("--children", "--pid", "1", "--", "true"),
        ("--mode", "stream", "--failed"),
        ("--sample", "1"),
    ],
)
def test_wrong_usage_of_record_exits_with_2(tmp_path: Path, words: tuple[str, ...]) -> None:
    """It is reported before any other check."""
    done = subprocess.run(
        [sys.executable, "-m", "kalloctrace", "record", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_record_does_not_overwrite(tmp_path: Path) -> None:
    """An existing file is refused before the machine is checked."""
    file = tmp_path / "mine.arrows"
    file.write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "kalloctrace", "record", "-o", str(file), "--", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "will not overwrite" in done.stderr
    assert file.read_text() == "mine"


def test_process_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A process id that does not exist cannot be recorded."""
    done = subprocess.run(
        [sys.executable, "-m", "kalloctrace", "record", "--pid", "4194304"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "there is no such process" in done.stderr
