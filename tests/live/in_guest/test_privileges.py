# SPDX-License-Identifier: MIT
"""What a recording may still do on the running kernel, and which capabilities suffice to start one."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kalloctrace.probe.privileges import landlock
from kalloctrace.trace.reader import TraceReader
from tests.live.capabilities import as_user, require_unprivileged

KALLOCTRACE = [sys.executable, "-m", "kalloctrace"]


def test_user_s_command_is_recorded_and_ended_without_privileges(
    tmp_path: Path, attached: Callable[[], list[str]]
) -> None:
    """The recorder replaces a file, reads stacks, counts misses, and ends another user's command at its time limit."""
    before = attached()
    trace = tmp_path / "trace.arrows"
    trace.write_text("replaced")
    words = ["record", "-f", "--stack", "--mode", "stream", "-o", str(trace), "-d", "3", "--user", "nobody"]
    script = "id -un; grep CapEff /proc/self/status; exec sleep 600"
    with subprocess.Popen(
        [*KALLOCTRACE, *words, "--", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert any(line.startswith("recording") for line in process.stderr)
        begun = time.monotonic()
        require_unprivileged(process.pid)
        printed, messages = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "exit status 143" in messages
    assert time.monotonic() - begun < 100
    assert printed.split() == ["nobody", "CapEff:", f"{0:016x}"]
    assert attached() == before
    with TraceReader(trace) as reader:
        in_force = {"no_new_privs", "seccomp"}
        in_force |= {f"Landlock {landlock.version()}"} if landlock.version() else set()
        assert in_force <= set(reader.recording["protections"])
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
