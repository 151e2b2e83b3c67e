# SPDX-License-Identifier: MIT
"""Runs in a guest under the instruction clock: what each tool adds to the instructions of an allocation.

usage: python guest.py JOB.json RESULT.json

JOB.json holds `touch` (the work's program), `processes`, `pages`, `warm` and `rounds` (of the work, see touch.c),
`rows` (see rows.py), and `own` (the rows whose start and consumer are measured too). The standard library is all it
needs, so that it starts quickly.
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

SCRATCH = Path("/dev/shm/kalloctrace-bench")  # noqa: S108  a guest's own
HERE = Path(__file__).parent
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# Newest first; see kalloctrace/probe/attach/plan.py.
_ENTRIES = ("__alloc_frozen_pages_noprof", "__alloc_pages_noprof", "__alloc_pages", "__alloc_pages_nodemask")
_SETTLED = 2.0
_LONGER = 10
# The guest's clock runs ahead while it waits for its files.
_START_TIMEOUT = 36000.0
_BTF = Path("/sys/kernel/btf/vmlinux")
_STANDINS = HERE.parents[1] / "bpf"


@dataclass(frozen=True)
class Work:
    """The benchmark's work, see touch.c.

    Attributes:
        touch: its program.
        processes: that do it, one after the other.
        pages: pages a round.
        warm: rounds of each process that do not count.
        rounds: rounds of each that do.
    """

    touch: str
    processes: int
    pages: int
    warm: int
    rounds: int

    @property
    def times(self) -> Path:
        """Where it leaves its times."""
        return SCRATCH / "times"

    def words(self) -> list[str]:
        """Return its command."""
        numbers = (self.processes, self.pages, self.warm, self.rounds)
        return [self.touch, *map(str, numbers), str(self.times)]

    def measured(self) -> dict[str, float]:
        """Return the instructions of an allocation, the least and the mean of all rounds, and remove the times."""
        *rounds, micro = map(int, self.times.read_text(encoding="ascii").split())
        self.times.unlink()
        return {
            "min": min(rounds) / self.pages,
            "mean": sum(rounds) / len(rounds) / self.pages,
            "cpu": micro * 1000,
            "allocations": self.pages * self.processes * (self.warm + self.rounds),
        }


class Gap(Exception):  # noqa: N818  no failure of ours
    """A tool that is not here, refuses, or captured nothing."""


def fitted(program: str) -> str:
    """Return the path of a bpftrace program with this kernel's names in it."""
    names = {line.split()[2] for line in Path("/proc/kallsyms").read_text(encoding="ascii").splitlines()}
    entry = next(name for name in _ENTRIES if name in names)
    # Linux kernel commit 84172f4bb752 ("mm/page_alloc: combine __alloc_pages and __alloc_pages_nodemask") (in v5.13)
    gfp = "gfp_mask" if entry == "__alloc_pages_nodemask" else "gfp"
    text = (HERE / program).read_text(encoding="utf-8").replace("ENTRY\n", f"{entry}\n").replace("->GFP", f"->{gfp}")
    path = SCRATCH / program
    path.write_text(text, encoding="utf-8")
    return str(path)


def command_of(row: dict[str, Any], work: Work) -> list[str]:
    """Return a row's command with its words filled in."""
    words = []
    for word in row["command"]:
        if word == "{work}":
            words += work.words()
        elif word.endswith(".bt"):
            words.append(fitted(word))
        else:
            words.append(filled(word, work))
    return words


def filled(word: str, work: Work) -> str:
    """Return a word with what stands for something else replaced."""
    return word.replace("{work-text}", " ".join(work.words())).replace("{out}", str(SCRATCH / "out"))


def run(words: Sequence[str], env: Mapping[str, str]) -> tuple[str, dict[str, float]]:
    """Run a command, with more in its environment; return what it printed and the CPU time (ns) of it and its children.

    Raises:
        Gap: it is not here or failed.
    """
    with (SCRATCH / "printed").open("wb") as printed:
        process = started(words, printed.fileno(), env)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    text = (SCRATCH / "printed").read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        raise Gap(f"{words[0]} ended with {process.returncode}: {reason(text)}")
    return text, {"user": usage.ru_utime * 1e9, "system": usage.ru_stime * 1e9}


def started(words: Sequence[str], printed: int, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a tool.

    Raises:
        Gap: it is not here.
    """
    env = {**os.environ, **more}
    if words[0].endswith("-bpfcc"):
        # No kernel's headers are installed; some of these tools need no others than this program.
        env |= {"BCC_KERNEL_SOURCE": str(_STANDINS), "PYTHONUNBUFFERED": "1"}
    try:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT, env=env)
    except FileNotFoundError:
        raise Gap(f"{words[0]} is not installed") from None


def reason(text: str) -> str:
    """Return the line of a tool's output that says what is wrong: the first about an error, or the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it said nothing"]
    return next((line for line in lines if re.search(r"error|fatal|cannot|does not", line, re.IGNORECASE)), lines[-1])


def run_beside(words: Sequence[str], begins: str, work: Work, env: Mapping[str, str]) -> str:
    """Run the work while a tool runs that starts none itself; return what the tool printed.

    Args:
        words: its command.
        begins: matches what it prints when it has begun.
        work: the work.
        env: more in its environment.

    Raises:
        Gap: it is not here, did not start, or failed.
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
            # Some print at intervals, and nothing at the end.
            time.sleep(_SETTLED)
            process.send_signal(signal.SIGINT)
        code = process.wait()
    text = path.read_text(encoding="utf-8", errors="replace")
    if not work.times.exists():
        raise Gap(f"{words[0]} ended with {code} before the work began: {reason(text)}")
    return text


def numbers(pattern: str | None, text: str) -> int:
    """Return the sum of a pattern's numbers in a text; a match without one counts as one."""
    found = re.findall(pattern, text, re.MULTILINE) if pattern else []
    return sum(int(number.replace(",", "")) if number else 1 for number in found)


def measure(row: dict[str, Any], work: Work) -> dict[str, float]:
    """Return the figures of the work under one tool.

    Raises:
        Gap: there are none, as the tool did not do its part.
    """
    try:
        return _measure(row, work, {})
    except Gap:
        if row["command"][0] != "bpftrace":
            raise
    # Told where the types are it finds them on 5.10 too, but takes no kernel for one with fentry any more.
    work.times.unlink(missing_ok=True)
    return _measure(row, work, {"BPFTRACE_BTF": str(_BTF)})


def _measure(row: dict[str, Any], work: Work, env: Mapping[str, str]) -> dict[str, float]:
    words = command_of(row, work)
    text, usage = run(words, env) if row["runs_work"] else (run_beside(words, row["begins"], work, env), {})
    figures = work.measured()
    if row["counter"]:
        text, _ = run([filled(word, work) for word in row["counter"]], {})
    captured = numbers(row["captured"], text)
    if not captured:
        raise Gap(f"it captured nothing: {reason(text)}")
    # Other programs allocate too, so that a tool may have lost some and still have more than the work made.
    lost = max(numbers(row["lost"], text), figures["allocations"] - captured, 0)
    if usage:
        usage["tool"] = usage["user"] + usage["system"] - figures["cpu"]
    return {**figures, **usage, "captured": captured, "lost": lost}


def consumer(row: dict[str, Any], work: Work) -> dict[str, float]:
    """Return the CPU time (ns) that a recorder takes an event, and what it lost, when the work becomes longer.

    The difference of two runs leaves out what it takes to start and to end, once all that it needs was read before.
    To start takes as much as millions of events, and never quite the same, so that one run is much longer.
    """
    measure(row, work)
    short = measure(row, work)
    long = measure(row, replace(work, rounds=work.rounds * _LONGER))
    events = long["captured"] - short["captured"]
    return {"an event": (long["tool"] - short["tool"]) / events, "events": events, "lost": long["lost"]}


def start(row: dict[str, Any]) -> dict[str, float]:
    """Return CPU time (ns) until capture begins, the compiler's part of it, and the memory (KiB) of a running recorder.

    It is the command that it records that looks at its parent, as soon as capture has begun.
    """
    look = f"cat /proc/$PPID/schedstat /proc/$PPID/status >{SCRATCH / 'looked'}"
    words = [word for word in row["command"][1:] if word != "{work}"]
    words = [filled(word, Work("", 0, 0, 0, 0)) for word in words]
    timer = SCRATCH / "compiled"
    run([sys.executable, str(HERE / "timed.py"), str(timer), *words, "sh", "-c", look], {})
    looked = (SCRATCH / "looked").read_text(encoding="ascii")
    memory = dict(re.findall(r"^(VmHWM|VmRSS|RssAnon|RssFile):\s+(\d+) kB$", looked, re.MULTILINE))
    return {
        "begins": int(looked.split()[0]),
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
    untraced = []
    rows: dict[str, dict[str, Any]] = {}
    own: dict[str, dict[str, Any]] = {}

    def bare() -> None:
        subprocess.run(work.words(), check=True)
        untraced.append(work.measured())

    def save() -> None:
        content = {"release": os.uname().release, "work": asdict(work), "untraced": untraced, "rows": rows, "own": own}
        result.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    bare()
    untraced.clear()  # that was to warm up
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
        keep(rows, row["name"], partial(measure, row, work))
    bare()
    save()
    for row in given["own"]:
        keep(own, f"{row['name']}: consumer", partial(consumer, row, work))
        keep(own, f"{row['name']}: start", partial(start, row))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
