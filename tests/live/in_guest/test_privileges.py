# SPDX-License-Identifier: MIT
"""What a recording may still do on the running kernel, and which capabilities suffice to start one."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kalloctrace.probe.privileges import landlock
from kalloctrace.trace.reader import TraceReader
from tests.live.capabilities import as_user

KALLOCTRACE = [sys.executable, "-m", "kalloctrace"]
CAP_BPF = 1 << 39
COMMANDS = {
    "record": (["record", "-f", "-o", "trace.arrows"], "recording"),
    "live": (["live", "--plain"], "watching"),
    "serve-metrics": (["serve-metrics", "--port", "0"], "serving"),
}


@contextmanager
def capturing(name: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a command, and wait until it captures."""
    words, begun = COMMANDS[name]
    with subprocess.Popen([*KALLOCTRACE, *words], stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            assert process.stderr is not None
            assert any(line.startswith(begun) for line in process.stderr)
            yield process
        finally:
            process.terminate()


def held(status: str) -> dict[str, int]:
    """Return the lines of a thread's status whose value is a hexadecimal number."""
    pairs = (line.split(":\t") for line in status.splitlines() if line.startswith(("Cap", "NoNewPrivs", "Seccomp:")))
    return {name: int(value, 16) for name, value in pairs}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_thread_has_given_up_its_privileges(name: str, tmp_path: Path) -> None:
    """At most CAP_BPF is left, and only where the kernel wants it to read maps; it captures all the same."""
    with capturing(name, tmp_path) as process:
        threads = [held((task / "status").read_text()) for task in Path(f"/proc/{process.pid}/task").iterdir()]
        process.terminate()
        assert process.wait(60) == 0
    for found in threads:
        assert found["CapEff"] in {0, CAP_BPF} if os.uname().release.startswith("5.10") else {0}
        assert found["CapPrm"] == found["CapEff"]
        assert (found["CapBnd"], found["CapInh"], found["CapAmb"]) == (0, 0, 0)
        assert (found["NoNewPrivs"], found["Seccomp"]) == (1, 2)
    if name == "record":
        with TraceReader(tmp_path / "trace.arrows") as trace:
            expected = {"no_new_privs", "seccomp"} | (
                {f"Landlock {landlock.version()}"} if landlock.version() else set()
            )
            assert expected <= set(trace.recording["protections"])


def test_command_of_a_user_is_recorded_and_ended(tmp_path: Path, attached: Callable[[], list[str]]) -> None:
    """Another user's command runs while it is recorded, and is ended at the time limit by the helper."""
    before = attached()
    trace = tmp_path / "trace.arrows"
    trace.write_text("replaced")
    command = [
        *KALLOCTRACE,
        "record",
        "-f",
        "--stack",
        "--mode",
        "stream",
        "-o",
        str(trace),
        "-d",
        "3",
        "--user",
        "nobody",
    ]
    script = "id -un; grep CapEff /proc/self/status; exec sleep 600"
    begun = time.monotonic()
    done = subprocess.run(
        [*command, "--", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.split() == ["nobody", "CapEff:", f"{0:016x}"], done.stderr
    assert "exit status 143" in done.stderr
    assert time.monotonic() - begun < 110
    assert attached() == before
    verified = subprocess.run([*KALLOCTRACE, "verify", "--json", trace], capture_output=True, text=True, check=False)
    verdict = json.loads(verified.stdout)
    assert verdict["matched"] == verdict["allocations"] > 0
    assert not verdict["truncated"]


def test_capabilities_that_doctor_names_suffice(tmp_path: Path, attached: Callable[[], list[str]]) -> None:
    """A user with exactly these records; with one less the missing one is named, by record and by doctor."""
    before = attached()
    tmp_path.chmod(0o777)
    for folder in list(tmp_path.parents)[:2]:
        folder.chmod(0o755)
    found = subprocess.run([*KALLOCTRACE, "doctor", "--json"], capture_output=True, text=True, check=False)
    check = next(one for one in json.loads(found.stdout)["checks"] if one["name"] == "privilege")
    sufficient = set(re.findall(r"cap_\w+", check["detail"]))
    assert {"cap_syslog", "cap_sys_rawio", "cap_dac_override"} < sufficient
    trace = tmp_path / "trace.arrows"
    done = as_user([*KALLOCTRACE, "record", "-o", str(trace), "--", "true"], sufficient)
    assert done.returncode == 0, done.stderr
    assert trace.stat().st_uid == 65534
    verified = subprocess.run([*KALLOCTRACE, "verify", "--json", trace], capture_output=True, text=True, check=False)
    verdict = json.loads(verified.stdout)
    assert verdict["matched"] == verdict["allocations"] > 0
    less = as_user(
        [*KALLOCTRACE, "record", "-o", str(tmp_path / "no.arrows"), "--", "true"], sufficient - {"cap_syslog"}
    )
    assert less.returncode == 1
    assert "without cap_syslog" in less.stderr
    assert [line.split(":")[0].strip() for line in less.stderr.splitlines()] == ["error", "why", "fix"]
    assert attached() == before
