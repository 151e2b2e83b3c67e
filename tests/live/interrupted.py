# SPDX-License-Identifier: MIT
"""Signals commands at random moments from their start to their first line, as root, and says how they ended.

In a guest:

    kalloctrace lab run --kernel 5.10 -- python3 -m tests.live.interrupted --times 20
"""

import argparse
import importlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.trace.reader import TraceReader
from tests.vanish.run import attached
from tests.vanish.ways import kalloctrace

COMMANDS = {
    "record": "record -o new.arrows",
    "record with kprobes": "record --mode stream --attach pair:jump -o new.arrows -- sleep 600",
    "live": "live --plain -o new.arrows",
    "serve-metrics": "serve-metrics --port 0",
    "doctor": "doctor",
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FIRST_LINE = (b"recording", b"watching", b"serving", b"PASS")
_START = 120.0
_SHARED = (
    *("kalloctrace.cli", "kalloctrace.commands.record", "kalloctrace.commands.live", "kalloctrace.commands.doctor"),
    *("kalloctrace.commands.serve_metrics", "kalloctrace.kernel.live", "kalloctrace.trace.writer", "psutil"),
)


@dataclass(frozen=True)
class End:
    """How a command ended.

    Attributes:
        code: its exit code; a negative signal; None if it had to be killed.
        seconds: from the signal to the end.
        printed: what it printed.
        left: what is still there and must not be.
    """

    code: int | None
    seconds: float
    printed: str
    left: tuple[str, ...]

    def faults(self, command: str, number: signal.Signals) -> list[str]:
        """Return what is wrong with it."""
        expected = 0
        if command == "doctor":
            expected = 130 if number == signal.SIGINT else -number
        lines = self.printed.splitlines()
        return [
            *self.left,
            *([f"exit code {self.code}, not {expected}"] if self.code != expected else []),
            *(["a traceback"] if any("Traceback" in line or "Exception" in line for line in lines) else []),
            *(["an error"] if any(line.startswith("error:") for line in lines) else []),
        ]


@contextmanager
def _started(words: Sequence[str], folder: Path, output: Path) -> Iterator[int]:
    """Run a command in a forked process: what all share is imported once."""
    output.write_bytes(b"")
    pid = os.fork()
    if pid == 0:
        os.chdir(folder)
        fd = os.open(output, os.O_WRONLY | os.O_APPEND)
        for standard in (1, 2):
            os.dup2(fd, standard)
        kalloctrace(words)()
        os._exit(99)
    try:
        yield pid
    finally:
        os.waitpid(pid, 0)


def _ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def interrupted(
    words: Sequence[str], number: signal.Signals, after: float | None, folder: Path, limit: float
) -> tuple[End, float]:
    """Run a command, send it a signal, and return how it ended and how long it ran until the signal.

    Args:
        words: its arguments.
        number: the signal.
        after: seconds after the start; None waits for the command's first line.
        folder: an empty one.
        limit: the seconds within which it must end.
    """
    before = attached()
    output = folder.parent / "printed"
    begin = time.monotonic()
    code: int | None = None
    with _started(words, folder, output) as pid:
        until = begin + (_START if after is None else after)
        while time.monotonic() < until and not _ended(pid):
            if after is None and _began(output):
                break
            time.sleep(0.01)
        sent = time.monotonic()
        os.kill(pid, number)
        while not _ended(pid):
            if time.monotonic() > sent + limit:
                os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.01)
        else:
            info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert info is not None
            code = info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
        lasted = time.monotonic() - sent
    return End(code, lasted, output.read_text(errors="replace"), tuple(_left(before, folder))), sent - begin


def _began(output: Path) -> bool:
    return any(line.startswith(_FIRST_LINE) for line in output.read_bytes().splitlines())


def _left(before: str, folder: Path) -> Iterator[str]:
    if (now := attached()) != before:
        yield f"attached: {now!r}"
    for path in folder.iterdir():
        try:
            with TraceReader(path) as trace:
                if trace.ending().truncated:
                    yield f"{path.name} is truncated"
        except KalloctraceError as error:
            yield f"{path.name}: {error.what}, {error.why}"
        path.unlink()
    sleeping = [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if _is_command(path)]
    if sleeping:
        yield f"processes {sleeping}"


def _is_command(path: Path) -> bool:
    try:
        return path.read_bytes() == b"sleep\x00600\x00"
    except OSError:
        return False


def main() -> int:
    """Print how each command ended; return 1 if one did not end as it must."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1, help="moments for each command and signal")
    parser.add_argument("--only", choices=COMMANDS, action="append", help="only this command")
    parser.add_argument(
        "--minutes", type=float, default=60, help="begin nothing more after this time, but each command once"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="the limit of real time for one end")
    given = parser.parse_args()
    for name in _SHARED:
        importlib.import_module(name)
    until = time.monotonic() + given.minutes * 60
    wrong = done = 0
    # Not removed at the end: each command leaves this function too, by SystemExit.
    folder = Path(tempfile.mkdtemp()) / "here"
    folder.mkdir()
    lasts: dict[str, float] = {}
    for turn in range(given.times * len(SIGNALS)):
        number = SIGNALS[turn % len(SIGNALS)]
        for command in given.only or COMMANDS:
            if turn and time.monotonic() > until:
                break
            after = lasts[command] * random.random() if command in lasts else None  # noqa: S311 - no secret
            end, seconds = interrupted(COMMANDS[command].split(), number, after, folder, given.seconds)
            lasts.setdefault(command, seconds)
            faults = end.faults(command, number)
            wrong += bool(faults)
            done += 1
            when = f"{number.name} after {seconds:.2f} of {lasts[command]:.2f} s"
            print(f"{command}, {when}: {end.seconds:.2f} s {'; '.join(faults) or 'as it must'}", flush=True)
            if faults:
                print(end.printed, flush=True)
    print(f"{done - wrong} of {done} as they must")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
