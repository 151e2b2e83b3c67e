# SPDX-License-Identifier: MIT
"""A demonstration from recording to verdict, as far as this machine allows.

It records on this machine's kernel, or else on a 5.10 kernel in a guest, or else it uses a recorded trace.
"""

import logging
import shlex
import subprocess
import sys
from pathlib import Path

from kalloctrace.console import stderr, stderr_bytes, stdout, stdout_bytes
from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.live import LiveKernel
from kalloctrace.lab.guest_console import LogOnConsole
from kalloctrace.lab.kernels import obtain
from kalloctrace.lab.needs import lab_available, require_fetch
from kalloctrace.lab.run import run_in_guest
from kalloctrace.probe.checks import require_live

KERNEL = "5.10"
TRACE = Path("demo.arrows")
FIXTURE = Path("fixtures/5.10/two-nodes.arrows")
_RECORD = ["record", "-f", "-o", str(TRACE), "--", "python", "-m", "kalloctrace.lab.workload", "mixed"]


def main() -> int:
    """Run the demonstration; return the exit code of `verify`."""
    lab = logging.getLogger("kalloctrace.lab")
    lab.addHandler(LogOnConsole())
    lab.setLevel(logging.INFO)
    log("looking for a kernel to record: this machine's, or one in a guest")
    trace = _live() or _guest() or _fixture()
    run("decode", "0x100cca", "--kernel", str(trace))
    run("report", "--top", "5", str(trace))
    return run("verify", "--strict", str(trace))


def _live() -> Path | None:
    try:
        require_live(LiveKernel())
    except KalloctraceError as error:
        log(f"not live on this machine: {error.why}")
        return None
    log("live on this machine: doctor finds no obstacle")
    return TRACE if run(*_RECORD) == 0 else None


def _guest() -> Path | None:
    missing = lab_available()
    if missing:
        log(f"not in a guest: {'; '.join(missing)}")
        return None
    try:
        require_fetch()
        kernel = obtain(KERNEL)
    except KalloctraceError as error:
        log(f"not in a guest: {error.what}: {error.why}")
        return None
    log(f"on {kernel.release} in a guest: QEMU and the kernel are available")
    show("lab", "run", "--kernel", KERNEL, "--", "kalloctrace", *_RECORD)
    try:
        result = run_in_guest(
            ["kalloctrace", *_RECORD],
            kernel=kernel,
            stdout=stdout_bytes(),
            stderr=stderr_bytes(),
            progress=stderr(),
        )
    except KalloctraceError as error:
        log(f"not in a guest: {error.what}: {error.why}")
        return None
    if result.returncode != 0:
        log(f"not in a guest: the recording ended with {result.returncode}")
        return None
    return TRACE


def _fixture() -> Path:
    log(f"with a trace recorded on a real 5.10 kernel: {FIXTURE}")
    return FIXTURE


def run(*words: str) -> int:
    """Run a kalloctrace command as a user would; return its exit code."""
    show(*words)
    return subprocess.run([sys.executable, "-m", "kalloctrace", *words], check=False).returncode


def show(*words: str) -> None:
    """Print a kalloctrace command as a user would type it."""
    stdout().lines(["", f"$ kalloctrace {shlex.join(words)}"])


def log(text: str) -> None:
    """Print a line about the demonstration itself."""
    stdout().line(f"=> {text}")


if __name__ == "__main__":
    sys.exit(main())
