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
PAGE = Path("demo.html")
FIXTURE = Path("fixtures/5.10/two-nodes.arrows")
_RECORD = ["record", "-f", "-o", str(TRACE), "--"]
_WORKLOAD = ["-m", "kalloctrace.lab.workload", "mixed"]
# A guest finds the environment's programs by their names.
_IN_GUEST = [*_RECORD, "python", *_WORKLOAD]


def main() -> int:
    """Run the demonstration; return the exit code of `verify`."""
    lab = logging.getLogger("kalloctrace.lab")
    lab.addHandler(LogOnConsole())
    lab.setLevel(logging.INFO)
    log("looking for a kernel to record: this machine's, or one in a guest")
    trace = _live() or _guest() or _fixture()
    run("decode", "0x100cca", "--kernel", str(trace))
    run("report", "--top", "5", str(trace))
    run("report", "--html", str(PAGE), "-f", str(trace))
    code = run("verify", "--strict", str(trace))
    log(f"the page is {PAGE.resolve()}: open it in a browser")
    log("what to try next:")
    for words in _next_steps(trace):
        stdout().line(f"   {_command(*words)}")
    return code


def _next_steps(trace: Path) -> list[list[str]]:
    """Return commands that work here, without root."""
    return [
        ["report", "--by", "gfp,order", "--sort", "bytes", str(trace)],
        ["explain", "--gfp", "GFP_ATOMIC", "--order", "3", "--machine", str(trace)],
        ["live", "--replay", str(FIXTURE)],
    ]


def _live() -> Path | None:
    try:
        require_live(LiveKernel())
    except KalloctraceError as error:
        log(f"not live on this machine: {error.why}")
        return None
    log("live on this machine: doctor finds no obstacle")
    return TRACE if run(*_RECORD, _program("python"), *_WORKLOAD) == 0 else None


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
    show("lab", "run", "--kernel", KERNEL, "--", "kalloctrace", *_IN_GUEST)
    try:
        result = run_in_guest(
            ["kalloctrace", *_IN_GUEST],
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
    stdout().lines(["", f"$ {_command(*words)}"])


def _command(*words: str) -> str:
    return shlex.join([_program("kalloctrace"), *words])


def _program(name: str) -> str:
    """Return a program of this environment by a path that works in this folder, where no environment is activated."""
    program, here = Path(sys.executable).with_name(name), Path.cwd()
    return str(program.relative_to(here) if program.is_relative_to(here) else program)


def log(text: str) -> None:
    """Print a line about the demonstration itself."""
    stdout().line(f"=> {text}")


if __name__ == "__main__":
    sys.exit(main())
