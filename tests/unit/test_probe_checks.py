# SPDX-License-Identifier: MIT
"""What `doctor` and `record` say about a machine that cannot be traced."""

import os
import pty
import struct
import termios
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path

import pytest

from kalloctrace.console import Console
from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.kcore import Kcore
from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.checks import Check, require_live

WIDTH = 80


def on_a_terminal(error: KalloctraceError) -> list[str]:
    """Return the lines that a terminal of 80 columns gets of an error."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
    with os.fdopen(slave, "w") as stream:
        Console(stream).error(error)
    printed = b""
    with suppress(OSError):  # EIO: the terminal is closed, and everything was read
        while part := os.read(master, 1 << 16):
            printed += part
    os.close(master)
    return printed.decode().splitlines()


def test_every_failing_check_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error names each failed check, what was found, each fix once, and what works instead."""
    checks = [
        Check("kernel", "pass", "6.12"),
        Check("kcore", "fail", "/proc/kcore is missing: CONFIG_PROC_KCORE is off", "use another kernel"),
        Check("tracefs", "warn", "not mounted", "mount it"),
        Check("program", "fail", "/proc/kallsyms has no symbol __preempt_count", "use another kernel"),
    ]
    monkeypatch.setattr("kalloctrace.probe.checks.run_checks", lambda _: iter(checks))
    monkeypatch.delenv("COLUMNS", raising=False)
    with pytest.raises(KalloctraceError) as raised:
        require_live(LiveKernel())
    error = raised.value
    assert error.what == "cannot trace this machine (kcore, program)"
    assert error.why == "; ".join(check.detail for check in checks if check.status == "fail")
    assert error.fix.count("use another kernel") == 1
    assert "kalloctrace lab run" in error.fix
    assert "mount it" not in error.fix

    lines = on_a_terminal(error)
    assert max(map(len, lines)) <= WIDTH
    assert " ".join(" ".join(lines).split()) == " ".join(" ".join(error.lines()).split())


def test_a_machine_that_can_be_traced_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning does not keep anybody from recording."""
    monkeypatch.setattr("kalloctrace.probe.checks.run_checks", lambda _: [Check("tracefs", "warn", "no", "mount it")])
    require_live(LiveKernel())


def test_a_missing_kcore_names_the_file_and_the_option(tmp_path: Path) -> None:
    """The kernel makes /proc/kcore where CONFIG_PROC_KCORE is on (fs/proc/Kconfig), and only there."""
    path = tmp_path / "kcore"
    with pytest.raises(KalloctraceError) as raised:
        Kcore(path)
    assert raised.value.why == f"{path} is missing: CONFIG_PROC_KCORE is off"
