# SPDX-License-Identifier: MIT
"""What it takes to read a recording: this program against those that read perf's and trace-cmd's.

One guest records the same work with each of them, and all read theirs on this machine, where reading takes what it does
in life. CPU time is compared.
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
# So often the same trace is verified in one command, as its own start would outweigh the reading of one.
TRACES = 100
TIMEOUT = 1800

_EVENT = "kmem:mm_page_alloc"
_SCRATCH = "/dev/shm"  # noqa: S108  a guest's own
_PROGRAM = (sys.executable, "-m", "kalloctrace")


@dataclass(frozen=True)
class Reading:
    """What one command took to read events.

    Attributes:
        command: the command, without its file.
        events: how many it read.
        nanoseconds: CPU time an event, without what the command takes to start.
        start: CPU time (s) of reading next to none.
        gap: why there is no figure.
    """

    command: str
    events: int = 0
    nanoseconds: float = 0
    start: float = 0
    gap: str = ""


@dataclass(frozen=True)
class _Peer:
    """A reader, and the recorder of what it reads.

    Attributes:
        record: the recorder's words up to the work's, with `{out}` for the file.
        read: the reader's words, with `{out}` likewise.
        count: words of a command that tells how many events are in the file.
        counted: matches their number, or each of them with an empty group.
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
    """Record in one guest, read here; the first is this program's own. A guest that fails leaves nothing but gaps."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as name:
        folder = Path(name)
        try:
            said = _recorded(kernel, folder)
        except KalloctraceError as error:
            return [Reading(command, gap=f"{error.what}: {error.why}") for command in (_VERIFY, *map(_name, _PEERS))]
        peers = [
            _peer(peer, folder / f"few-{number}", folder / f"many-{number}", said) for number, peer in enumerate(_PEERS)
        ]
        return [_own(folder, said), *peers]


def _recorded(kernel: str, folder: Path) -> str:
    """Have each recorder record the work in one guest, few events and many; return what they said.

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


def _said(out: str, text: str) -> str:
    lines = text.partition(f"{out}:\n")[2].strip().splitlines()
    return lines[0] if lines else "it said nothing"


def _peer(peer: _Peer, few: Path, many: Path, said: str) -> Reading:
    command = _name(peer)
    if not few.exists() or not many.exists():
        return Reading(command, gap=f"nothing was recorded: {_said(many.name, said)}")
    counts = [_count(peer, path) for path in (few, many)]
    if not counts[0] or counts[1] <= counts[0]:
        return Reading(command, gap=f"{counts[1]} events were recorded")
    start, whole = (_cpu(shlex.split(peer.read.format(out=shlex.quote(str(path))))) for path in (few, many))
    return Reading(command, counts[1], (whole - start) / (counts[1] - counts[0]) * 1e9, start)


def _own(folder: Path, said: str) -> Reading:
    trace = folder / "many.arrows"
    if not trace.exists():
        return Reading(_VERIFY, gap=f"nothing was recorded: {_said(trace.name, said)}")
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
    """Return the least CPU time (s) of a few runs of a command, whose output goes nowhere."""
    return min(_cpu_once(words) for _ in range(REPEATS))


def _cpu_once(words: Sequence[str]) -> float:
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # verify's own codes for what it found are answers too.
    if process.returncode not in {0, 3, 4}:
        raise subprocess.CalledProcessError(process.returncode, list(words))
    return usage.ru_utime + usage.ru_stime
