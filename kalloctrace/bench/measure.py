# SPDX-License-Identifier: MIT
"""Measures what tools add to an allocation: each time against the same work without a tool, right before and after."""

import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from kalloctrace.bench.interval import FEWEST, Interval, interval
from kalloctrace.bench.tools import Gap, Row, numbers, reason
from kalloctrace.bench.work import PAGES, WARM

ROUNDS = 100
"""Rounds of work, each time that they are measured."""

_READY = "kalloctrace-bench-ready"
# `cat` prints what it is given as soon as the tool runs it, and ends with its input.
_WORK = ("cat",)
_POLL = 0.05
_START_POLLS = 12_000
"""How often to look whether a tool has started. Not a time: the instruction clock jumps while a guest waits."""


@dataclass
class Added:
    """What one tool adds to an allocation.

    Attributes:
        row: the tool.
        ns: nanoseconds; None if it was not measured.
        cycles: cycles; None if it was not measured, or the machine does not count them.
        captured: the captured allocations of all repetitions.
        lost: those that the tool reports as lost, or that it has fewer than the work made.
        gap: why there is no figure; empty if there is one.
    """

    row: Row
    ns: Interval | None = None
    cycles: Interval | None = None
    captured: int = 0
    lost: int = 0
    gap: str = ""


@dataclass
class Result:
    """The measurement of a machine.

    Attributes:
        ns: nanoseconds of an allocation without a tool, with the page fault and the free around it.
        cycles: the same in cycles; None if the machine does not count them.
        added: by tool.
        repeated: repetitions.
    """

    ns: Interval
    cycles: Interval | None
    added: list[Added]
    repeated: int


@dataclass
class _Block:
    """The work, measured once: per allocation, the median and the smallest round."""

    ns: tuple[float, float]
    cycles: tuple[float, float] | None

    @classmethod
    def of(cls, answer: dict[str, Any]) -> "_Block":
        def both(rounds: list[int]) -> tuple[float, float]:
            return statistics.median(rounds) / PAGES, min(rounds) / PAGES

        return cls(both(answer["ns"]), both(answer["cycles"]) if answer["cycles"] is not None else None)


@dataclass
class _Differences:
    ns: list[tuple[float, float]] = field(default_factory=list)
    cycles: list[tuple[float, float]] = field(default_factory=list)

    def add(self, before: _Block, during: _Block, after: _Block) -> None:
        def less(one: tuple[float, float], two: tuple[float, float], three: tuple[float, float]) -> tuple[float, float]:
            return two[0] - (one[0] + three[0]) / 2, two[1] - (one[1] + three[1]) / 2

        self.ns.append(less(before.ns, during.ns, after.ns))
        if before.cycles is not None and during.cycles is not None and after.cycles is not None:
            self.cycles.append(less(before.cycles, during.cycles, after.cycles))


def _intervals(pairs: list[tuple[float, float]]) -> Interval | None:
    return interval([one for one, _ in pairs], min(least for _, least in pairs)) if pairs else None


def measure(
    rows: Sequence[Row],
    repeat: int,
    folder: Path,
    progress: Callable[[float], None],
    enough: float | None = None,
) -> Result:
    """Measure tools on this machine, one after another, several times.

    Args:
        rows: the tools.
        repeat: how often, at least `FEWEST`.
        folder: for their output.
        progress: called with the finished share, from 0 to 1.
        enough: seconds after which `FEWEST` repetitions suffice; None for all of them.
    """
    began, repeated = time.monotonic(), 0

    def passed() -> float:
        return time.monotonic() - began

    added = [Added(row) for row in rows]
    differences = [_Differences() for _ in rows]
    bare: list[_Block] = []
    done = 0
    with _worker() as work:
        work()
        while repeated < repeat and not (repeated >= FEWEST and enough is not None and passed() > enough):
            for one, difference in zip(added, differences, strict=True):
                if not one.gap:
                    before = work()
                    try:
                        during = _with_tool(one, folder, work)
                    except Gap as gap:
                        one.gap = str(gap)
                    else:
                        after = work()
                        bare += [before, after]
                        difference.add(before, during, after)
                done += 1
                progress(done / (len(rows) * repeat))
            repeated += 1
        while len(bare) < FEWEST:
            bare.append(work())
    for one, difference in zip(added, differences, strict=True):
        if not one.gap:
            one.ns, one.cycles = _intervals(difference.ns), _intervals(difference.cycles)
    cycles = [block.cycles for block in bare if block.cycles is not None]
    ns = [block.ns for block in bare]
    return Result(
        interval([median for median, _ in ns], min(least for _, least in ns)), _intervals(cycles), added, repeated
    )


@contextmanager
def _worker() -> Iterator[Callable[[], _Block]]:
    cpu = max(os.sched_getaffinity(0))
    words = [sys.executable, "-m", "kalloctrace.bench.work", str(cpu)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        requests, answers = _pipe(process.stdin), _pipe(process.stdout)

        def work() -> _Block:
            requests.write(f"{ROUNDS}\n")
            requests.flush()
            return _Block.of(json.loads(answers.readline()))

        yield work
        requests.close()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise AssertionError("a process was started without a pipe")
    return pipe


def _with_tool(added: Added, folder: Path, work: Callable[[], _Block]) -> _Block:
    """Run the work while a tool traces, and count what the tool captured.

    Raises:
        Gap: the tool is not installed, failed, or captured nothing.
    """
    row, printed = added.row, folder / "printed"
    (folder / "out").unlink(missing_ok=True)
    with printed.open("wb") as file:
        try:
            process = subprocess.Popen(
                _words(row.command, folder), stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, text=True
            )
        except FileNotFoundError:
            raise Gap(f"{row.command[0]} is not installed") from None
        with process:
            requests = _pipe(process.stdin)
            try:
                requests.write(f"{_READY}\n")
                requests.flush()
                _wait_until_ready(process, printed)
                block = work() if process.poll() is None else None
            except BrokenPipeError:
                block = None
            finally:
                process.communicate()
    text = printed.read_text(encoding="utf-8", errors="replace")
    if block is None or process.returncode:
        raise Gap(f"{row.command[0]} ended with {process.returncode}: {reason(text)}")
    if row.counter:
        text = subprocess.run(_words(row.counter, folder), check=False, capture_output=True, text=True).stdout
    captured = numbers(row.captured, text)
    if not captured:
        raise Gap(f"{row.command[0]} captured nothing: {reason(text)}")
    added.captured += captured
    # Other programs allocate too, so a tool may capture more than the work allocates and still have lost some.
    added.lost += max(numbers(row.lost, text), PAGES * (WARM + ROUNDS) - captured, 0)
    return block


def _wait_until_ready(process: subprocess.Popen[str], printed: Path) -> None:
    for _ in range(_START_POLLS):
        if process.poll() is not None or _READY in printed.read_text(encoding="utf-8", errors="replace"):
            return
        time.sleep(_POLL)
    process.kill()
    process.wait()


def _words(command: Sequence[str], folder: Path) -> list[str]:
    words: list[str] = []
    for word in command:
        if word == "{work}":
            words += _WORK
        else:
            words.append(word.replace("{work-text}", shlex.join(_WORK)).replace("{out}", str(folder / "out")))
    if words[0] == "kalloctrace":
        words[:1] = [sys.executable, "-m", "kalloctrace"]
    return words
