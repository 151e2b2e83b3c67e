# SPDX-License-Identifier: MIT
"""The cost of reading a recording: this program compared with the readers of perf and trace-cmd.

One guest records the same work with each recorder. Each reader reads its recording on this machine, natively. The
comparison uses CPU time.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab.run import run_in_guest
from kalloctrace.trace.reader import TraceReader
from tests.bench.cost import BUILD, ROOT, WORK, compiled

ROUNDS = 1000
FEW = 4
REPEATS = 3
# One command verifies the same trace this many times, because starting costs more than reading it once.
TRACES = 100
TIMEOUT = 1800

_EVENT = "kmem:mm_page_alloc"
_SCRATCH = "/dev/shm"  # noqa: S108  (in a guest)
_PROGRAM = (sys.executable, "-m", "kalloctrace")


@dataclass(frozen=True)
class Reading:
    """The cost of reading events with one command.

    Attributes:
        command: the command without its file.
        events: the number of events.
        nanoseconds: CPU time per event, without the start of the command.
        start: CPU time (s) of reading a nearly empty recording.
        gap: why there is no figure.
    """

    command: str
    events: int = 0
    nanoseconds: float = 0
    start: float = 0
    gap: str = ""


@dataclass(frozen=True)
class _Peer:
    """A reader and its recorder.

    Attributes:
        record: the recorder's command up to that of the work, with `{out}` for the file.
        read: the reader's command, with `{out}` likewise.
        count: a command that prints the number of events in the file.
        counted: pattern of their number, or of each event, with an empty group.
    """

    record: str
    read: str
    count: str
    counted: str


_PERF_COUNT, _PERF_COUNTED = "perf report -i {out} --stats", rf"^{_EVENT} stats:\n +SAMPLE events: +(\d+)"
_PEERS = (
    _Peer(f"perf record -q -B -m 16M -o {{out}} -e {_EVENT} -a --", "perf script -i {out}", _PERF_COUNT, _PERF_COUNTED),
    _Peer(
        "perf kmem --page record -q -B -m 16M -o {out} --", "perf kmem -i {out} --page stat", _PERF_COUNT, _PERF_COUNTED
    ),
    _Peer(
        f"trace-cmd record -q -b 40000 -o {{out}} -e {_EVENT}",
        "trace-cmd report -i {out}",
        "trace-cmd report -i {out}",
        r" mm_page_alloc: +()",
    ),
)
_VERIFY = "kalloctrace verify"
_OURS = "kalloctrace record -f -o {out} --mode stream --"


def readings(kernel: str) -> list[Reading]:
    """Record in one guest and read here; this program is first. If the guest fails, every reading is a gap."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as name:
        folder = Path(name)
        try:
            output = _recorded(kernel, folder)
        except KalloctraceError as error:
            return [Reading(command, gap=f"{error.what}: {error.why}") for command in (_VERIFY, *map(_name, _PEERS))]
        peers = [
            _peer(peer, folder / f"few-{number}", folder / f"many-{number}", output)
            for number, peer in enumerate(_PEERS)
        ]
        return [_own(folder, output), *peers]


def _recorded(kernel: str, folder: Path) -> str:
    """Run each recorder in one guest, with few events and with many; return their output.

    Raises:
        KalloctraceError: the guest failed.
    """
    touch = str(compiled(folder))
    lines = [f"echo never >/sys/kernel/mm/transparent_hugepage/enabled; cd {_SCRATCH}"]
    for name, rounds in (("few", FEW), ("many", ROUNDS)):
        for number, record in enumerate((*(peer.record for peer in _PEERS), _OURS)):
            out = f"{name}-{number}" if number < len(_PEERS) else f"{name}.arrows"
            words = f"{record.format(out=out)} {shlex.quote(touch)} 1 {WORK['pages']} 0 {rounds} times"
            lines.append(f"echo '{out}:'; {words} 2>&1; mv {out} {shlex.quote(str(folder))}")
    done = run_in_guest(["sh", "-c", "\n".join(lines)], kernel=kernel, icount=True, writable=[ROOT], timeout=TIMEOUT)
    return done.stdout.decode("utf-8", "replace")


def _name(peer: _Peer) -> str:
    return shlex.join(word for word in shlex.split(peer.read) if word not in {"-i", "{out}"})


def _first_line(out: str, text: str) -> str:
    lines = text.partition(f"{out}:\n")[2].strip().splitlines()
    return lines[0] if lines else "it printed nothing"


def _peer(peer: _Peer, few: Path, many: Path, output: str) -> Reading:
    command = _name(peer)
    if not few.exists() or not many.exists():
        return Reading(command, gap=f"nothing was recorded: {_first_line(many.name, output)}")
    counts = [_count(peer, path) for path in (few, many)]
    if not counts[0] or counts[1] <= counts[0]:
        return Reading(command, gap=f"{counts[1]} events were recorded")
    start, whole = (_cpu(shlex.split(peer.read.format(out=shlex.quote(str(path))))) for path in (few, many))
    return Reading(command, counts[1], (whole - start) / (counts[1] - counts[0]) * 1e9, start)


def _own(folder: Path, output: str) -> Reading:
    trace = folder / "many.arrows"
    if not trace.exists():
        return Reading(_VERIFY, gap=f"nothing was recorded: {_first_line(trace.name, output)}")
    few = folder / "few.arrows"
    events, next_to_none = rows_of(trace), rows_of(few)
    start, whole = (_cpu([*_PROGRAM, "verify", *[str(path)] * TRACES]) for path in (few, trace))
    return Reading(
        _VERIFY,
        events,
        (whole - start) / (TRACES * (events - next_to_none)) * 1e9,
        _cpu([*_PROGRAM, "verify", str(few)]),
    )


def rows_of(trace: Path) -> int:
    """Return the allocations in a trace."""
    with TraceReader(trace) as reader:
        return sum(batch.num_rows for batch in reader.batches())


def _count(peer: _Peer, path: Path) -> int:
    words = shlex.split(peer.count.format(out=shlex.quote(str(path))))
    done = subprocess.run(words, check=False, capture_output=True, encoding="utf-8", errors="replace")
    return sum(int(number) if number else 1 for number in re.findall(peer.counted, done.stdout, re.MULTILINE))


def _cpu(words: Sequence[str]) -> float:
    """Return the minimum CPU time (s) of several runs of a command without output."""
    return min(_cpu_once(words) for _ in range(REPEATS))


def _cpu_once(words: Sequence[str]) -> float:
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # Exit codes 3 and 4 are verdicts of `verify`, not failures.
    if process.returncode not in {0, 3, 4}:
        raise subprocess.CalledProcessError(process.returncode, list(words))
    return usage.ru_utime + usage.ru_stime
