# SPDX-License-Identifier: MIT
"""Runs in a guest with the instruction clock: measures the instructions that each tool adds to an allocation.

usage: python guest.py JOB.json RESULT.json

JOB.json holds `touch` (the program of the work, see touch.c), its parameters `processes`, `pages`, `warm` and `rounds`,
`rows` (see rows.py), and `own` (the rows whose start and consumer are measured too). It imports no library but the
standard one, so that it starts quickly.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from kalloctrace.bench.tools import Gap, numbers, reason

SCRATCH = Path("/dev/shm/kalloctrace-bench")  # noqa: S108  (in a guest)
HERE = Path(__file__).parent
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# Newest first; see kalloctrace/probe/attach/plan.py.
_ENTRIES = ("__alloc_frozen_pages_noprof", "__alloc_pages_noprof", "__alloc_pages", "__alloc_pages_nodemask")
_SETTLED = 2.0
_LONGER = 10
# The guest's clock jumps ahead while it waits for files.
_START_TIMEOUT = 36000.0
_BTF = Path("/sys/kernel/btf/vmlinux")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_STANDINS = HERE.parents[1] / "bpf"


@dataclass(frozen=True)
class Work:
    """The work of the benchmark; see touch.c.

    Attributes:
        touch: the path of the program.
        processes: the number of processes, one after another.
        pages: pages per round.
        warm: warm-up rounds of each process, which are not measured.
        rounds: measured rounds of each process.
    """

    touch: str
    processes: int
    pages: int
    warm: int
    rounds: int

    @property
    def times(self) -> Path:
        """The file of its times."""
        return SCRATCH / "times"

    def words(self) -> list[str]:
        """Return the command."""
        numbers = (self.processes, self.pages, self.warm, self.rounds)
        return [self.touch, *map(str, numbers), str(self.times)]

    def measured(self) -> dict[str, float]:
        """Return the instructions per allocation, minimum and mean of all rounds, and remove the times."""
        *rounds, micro = map(int, self.times.read_text(encoding="ascii").split())
        self.times.unlink()
        return {
            "min": min(rounds) / self.pages,
            "mean": sum(rounds) / len(rounds) / self.pages,
            "cpu": micro * 1000,
            "allocations": self.pages * self.processes * (self.warm + self.rounds),
        }


def adapt(program: str) -> str:
    """Return the path of a bpftrace program with this kernel's function and parameter names filled in."""
    names = {line.split()[2] for line in Path("/proc/kallsyms").read_text(encoding="ascii").splitlines()}
    entry = next(name for name in _ENTRIES if name in names)
    # Linux kernel commit 84172f4bb752 ("mm/page_alloc: combine __alloc_pages and __alloc_pages_nodemask") (in v5.13)
    gfp = "gfp_mask" if entry == "__alloc_pages_nodemask" else "gfp"
    text = (HERE / program).read_text(encoding="utf-8").replace("ENTRY\n", f"{entry}\n").replace("->GFP", f"->{gfp}")
    path = SCRATCH / program
    path.write_text(text, encoding="utf-8")
    return str(path)


def command_of(row: dict[str, Any], work: Work) -> list[str]:
    """Return a row's command with its placeholders filled in."""
    words = []
    for word in row["command"]:
        if word == "{work}":
            words += work.words()
        elif word.endswith(".bt"):
            words.append(adapt(word))
        elif word.endswith(".py"):
            words += [sys.executable, str(HERE / word)]
        else:
            words.append(fill(word, work))
    return words


def fill(word: str, work: Work) -> str:
    """Return a word with its placeholders filled in."""
    return word.replace("{work-text}", " ".join(work.words())).replace("{out}", str(SCRATCH / "out"))


def run(words: Sequence[str], env: Mapping[str, str]) -> tuple[str, dict[str, float]]:
    """Run a command with additional variables; return its output and the CPU time (ns) of it and its children.

    Raises:
        Gap: it is not installed, or fails.
    """
    with (SCRATCH / "printed").open("wb") as printed:
        process = started(words, printed.fileno(), env)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    text = (SCRATCH / "printed").read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        raise Gap(refusal(words, text))
    return text, {"user": usage.ru_utime * 1e9, "system": usage.ru_stime * 1e9}


def refusal(words: Sequence[str], text: str) -> str:
    """Return why an installed tool did not run: the kernel lacks what it needs, or the tool broke.

    Args:
        words: its command.
        text: what it printed.
    """
    broke = "Traceback (most recent call last)" in text
    return f"{'failed' if broke else 'not on this kernel'}: {named(words)}{reason(text)}"


def named(words: Sequence[str]) -> str:
    """Return the tool's name before what it says; a program of this folder has none."""
    return "" if words[0] == sys.executable else f"{words[0]}: "


def started(words: Sequence[str], printed: int, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a tool.

    Raises:
        Gap: it is not installed.
    """
    env = {**os.environ, **more}
    if words[0].endswith("-bpfcc"):
        # No kernel headers are installed. Some of these tools work with this program's stand-ins.
        env |= {"BCC_KERNEL_SOURCE": str(_STANDINS), "PYTHONUNBUFFERED": "1"}
    try:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT, env=env)
    except FileNotFoundError:
        raise Gap(f"{words[0]} is not installed") from None


def run_beside(words: Sequence[str], begins: str, work: Work, env: Mapping[str, str]) -> str:
    """Run the work beside a tool that does not start commands; return the tool's output.

    Args:
        words: the tool's command.
        begins: pattern of the line that it prints when it has started.
        work: the work.
        env: additional variables.

    Raises:
        Gap: it is not installed, does not start, or fails.
    """
    path = SCRATCH / "printed"
    with path.open("wb") as printed:
        process = started(words, printed.fileno(), env)
        deadline = time.monotonic() + _START_TIMEOUT
        while process.poll() is None and time.monotonic() < deadline:
            if re.search(begins, path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE):
                break
            time.sleep(_SETTLED)
        time.sleep(_SETTLED)
        if process.poll() is None:
            subprocess.run(work.words(), check=True)
            # Some tools print at intervals, and not at the end.
            time.sleep(_SETTLED)
            process.send_signal(signal.SIGINT)
        process.wait()
    text = path.read_text(encoding="utf-8", errors="replace")
    if not work.times.exists():
        raise Gap(refusal(words, text))
    return text


def measure(row: dict[str, Any], work: Work) -> dict[str, float]:
    """Return the figures of the work under one tool.

    Raises:
        Gap: the tool did not capture the work.
    """
    try:
        return _measure(row, work, {})
    except Gap:
        if row["command"][0] != "bpftrace":
            raise
    # With BPFTRACE_BTF bpftrace finds the types on 5.10 too, but then it does not detect fentry on any kernel.
    work.times.unlink(missing_ok=True)
    return _measure(row, work, {"BPFTRACE_BTF": str(_BTF)})


def _measure(row: dict[str, Any], work: Work, env: Mapping[str, str]) -> dict[str, float]:
    words = command_of(row, work)
    text, usage = run(words, env) if row["runs_work"] else (run_beside(words, row["begins"], work, env), {})
    figures = work.measured()
    if row["counter"]:
        text, _ = run([fill(word, work) for word in row["counter"]], {})
    captured = numbers(row["captured"], text)
    if not captured:
        raise Gap(f"{named(words)}captured nothing: {reason(text)}")
    # Other programs allocate too, so a tool may capture more than the work allocates and still have lost some.
    lost = max(numbers(row["lost"], text), figures["allocations"] - captured, 0) if row["kind"] != "floor" else 0
    if usage:
        usage["tool"] = usage["user"] + usage["system"] - figures["cpu"]
    return {**figures, **usage, "captured": captured, "lost": lost}


def consumer(row: dict[str, Any], work: Work) -> dict[str, float]:
    """Return the CPU time (ns) of a recorder per event, and the lost events, from a short and a long run.

    The difference of the runs excludes start and end, once all files are cached. Starting costs as much as millions of
    events and varies, so the long run is much longer.
    """
    measure(row, work)
    short = measure(row, work)
    long = measure(row, replace(work, rounds=work.rounds * _LONGER))
    events = long["captured"] - short["captured"]
    return {"an event": (long["tool"] - short["tool"]) / events, "events": events, "lost": long["lost"]}


def start(row: dict[str, Any]) -> dict[str, float]:
    """Return the CPU time (ns) until capture starts, the compiler's part of it, and the recorder's memory (KiB).

    The recorded command reads these values of its parent as soon as capture has started.
    """
    look = f"cat /proc/$PPID/schedstat /proc/$PPID/status >{SCRATCH / 'parent'}"
    words = [word for word in row["command"][1:] if word != "{work}"]
    words = [fill(word, Work("", 0, 0, 0, 0)) for word in words]
    timer = SCRATCH / "compiled"
    run([sys.executable, str(HERE / "timed.py"), str(timer), *words, "sh", "-c", look], {})
    parent = (SCRATCH / "parent").read_text(encoding="ascii")
    memory = dict(re.findall(r"^(VmHWM|VmRSS|RssAnon|RssFile):\s+(\d+) kB$", parent, re.MULTILINE))
    return {
        "begins": int(parent.split()[0]),
        "compiles": int(timer.read_text(encoding="ascii")),
        **{name: int(kib) for name, kib in memory.items()},
    }


def main(job: Path, result: Path) -> int:
    """Measure all rows and write the result after each."""
    given = json.loads(job.read_text(encoding="utf-8"))
    work = Work(**{field.name: given[field.name] for field in fields(Work)})
    SCRATCH.mkdir(exist_ok=True)
    if HUGE_PAGES.exists():
        HUGE_PAGES.write_text("never", encoding="ascii")
    untraced: list[dict[str, float]] = []
    rows: dict[str, dict[str, Any]] = {}
    own: dict[str, dict[str, Any]] = {}

    def bare() -> dict[str, float]:
        subprocess.run(work.words(), check=True)
        untraced.append(work.measured())
        return untraced[-1]

    def between(row: dict[str, Any]) -> dict[str, Any]:
        before, figures = untraced[-1], measure(row, work)
        return {**figures, "before": before, "after": bare()}

    def save() -> None:
        content = {
            "release": os.uname().release,
            "boot": _BOOT.read_text(encoding="ascii").strip(),
            "work": asdict(work),
            "untraced": untraced,
            "rows": rows,
            "own": own,
        }
        result.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    bare()
    untraced.clear()  # the first run is a warm-up
    bare()

    def keep(kept: dict[str, dict[str, Any]], name: str, figures: Callable[[], dict[str, float]]) -> None:
        try:
            kept[name] = figures()
        except Gap as gap:
            kept[name] = {"gap": str(gap)}
            work.times.unlink(missing_ok=True)
        (SCRATCH / "out").unlink(missing_ok=True)
        sys.stderr.write(f"{name}: {kept[name]}\n")
        save()

    for row in given["rows"]:
        keep(rows, row["name"], partial(between, row))
    for row in given["own"]:
        keep(own, f"{row['name']}: consumer", partial(consumer, row, work))
        keep(own, f"{row['name']}: start", partial(start, row))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
