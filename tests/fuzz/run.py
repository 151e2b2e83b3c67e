# SPDX-License-Identifier: MIT
"""Attacks every place where foreign bytes come in: `make fuzz`, with SURFACE, SECONDS or RUNS.

Each surface is attacked in a process of its own. New inputs and findings are kept in `build/fuzz/SURFACE`: `new/` holds
inputs that reach something new, `finding-*` inputs that raised something else than the program's own error (with the
traceback beside them), `crash-*`, `timeout-*`, `oom-*` and `killed-*` inputs that ended the process.
"""

import hashlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tests.fuzz.surface import FOUND, LENGTH, ROOT, RUNNING, Surface, all_surfaces

_ATTEMPTS = 20
"""How often a surface is started again after an input killed the process."""
_ENDED = ("finding-", "crash-", "timeout-", "oom-", "slow-unit-", "killed-")

_HEADING = (
    f"{'surface':<12} {'executions':>12} {'seconds':>8} {'per sec.':>9} {'lines':>15} {'branches':>15} {'findings':>9}"
)


@dataclass(frozen=True)
class Result:
    """The result of one surface.

    Attributes:
        executions: how many inputs were run.
        seconds: how long that took.
        reached: coverage.py's totals over the modules that the surface covers.
        findings: the files with inputs that broke the contract.
    """

    executions: int
    seconds: float
    reached: dict[str, Any]
    findings: tuple[Path, ...]


def _quoted(word: str | bytes) -> str:
    data = word.encode() if isinstance(word, str) else word
    return '"' + "".join(f"\\x{byte:02x}" for byte in data) + '"'


def attack(target: Surface, runs: int, seconds: float) -> Result:
    """Attack one surface until so many inputs or seconds; 0 for no limit."""
    begin = time.monotonic()
    done = execute(target, runs, seconds)
    return Result(done, time.monotonic() - begin, _reached(target), tuple(found(target)))


def execute(target: Surface, runs: int, seconds: float) -> int:
    """Run inputs of a surface, and keep those that break the contract in its folder.

    Returns:
        The number of inputs that were run; after a process was killed, without its last thousand.

    Raises:
        click.ClickException: the attack does not start.
    """
    folder = FOUND / target.name
    (folder / "new").mkdir(parents=True, exist_ok=True)
    (folder / "words").write_text("".join(f"{_quoted(word)}\n" for word in target.words))
    done, begin = 0, time.monotonic()
    counts, running = folder / "done.json", folder / RUNNING
    with (folder / "log").open("wb") as log:
        for _ in range(_ATTEMPTS):
            counts.unlink(missing_ok=True)
            running.unlink(missing_ok=True)
            left = seconds - (time.monotonic() - begin) if seconds else 0
            command = [sys.executable, "-m", "tests.fuzz.attack", target.run.__module__, target.name]
            subprocess.run(
                [*command, str(max(runs - done, 0)), str(left)], cwd=ROOT, stdout=log, stderr=log, check=False
            )
            result = json.loads(counts.read_text()) if counts.exists() else {"executions": 0, "over": False}
            done += result["executions"]
            if not result["over"]:
                _keep_running(target)
            if result["over"] or (seconds and time.monotonic() - begin >= seconds) or (runs and done >= runs):
                break
    return done


def found(target: Surface) -> list[Path]:
    """Return the inputs of a surface that broke the contract."""
    files = (FOUND / target.name).iterdir()
    return sorted(file for file in files if file.name.startswith(_ENDED) and file.suffix != ".txt")


def _keep_running(target: Surface) -> None:
    """Keep the input that a process was running when it ended, unless libFuzzer has."""
    running = FOUND / target.name / RUNNING
    content = running.read_bytes() if running.exists() else b""
    length = int.from_bytes(content[:LENGTH], "little") - 1
    if length < 0:
        raise click.ClickException(f"the attack on {target.name} does not start: see {running.with_name('log')}")
    data = content[LENGTH : LENGTH + length]
    name = hashlib.sha1(data, usedforsecurity=False).hexdigest()  # as libFuzzer calls it
    if not any(running.parent.glob(f"*-{name}")):
        running.with_name(f"killed-{name}").write_bytes(data)


def _reached(target: Surface) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.fuzz.reached", target.name]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    totals: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return totals


def _row(target: Surface, result: Result) -> str:
    reached = result.reached
    lines, branches = (
        f"{100 * reached[done] / max(reached[of], 1):.0f} %"
        for done, of in (("covered_lines", "num_statements"), ("covered_branches", "num_branches"))
    )
    speed = result.executions / result.seconds
    return (
        f"{target.name:<12} {result.executions:>12,} {result.seconds:>8.0f} {speed:>9,.0f} "
        f"{lines:>6} of {reached['num_statements']:>5,} {branches:>6} of {reached['num_branches']:>5,} "
        f"{len(result.findings):>9}"
    )


@click.command()
@click.argument("names", metavar="[SURFACE]...", nargs=-1)
@click.option("--seconds", default=0.0, help="For all surfaces together; 600 if no number of runs is given.")
@click.option("--runs", default=0, help="Executions of each surface.")
def main(names: tuple[str, ...], seconds: float, runs: int) -> None:
    """Attack each SURFACE, or all of them; the exit code is 1 if something was found."""
    known = all_surfaces()
    unknown = set(names) - known.keys()
    if unknown:
        raise click.UsageError(f"no surface {', '.join(sorted(unknown))}: there are {', '.join(known)}")
    chosen = [known[name] for name in names or known]
    share = (seconds or (0.0 if runs else 600.0)) / len(chosen)
    click.echo(_HEADING)
    findings: list[Path] = []
    for target in chosen:
        result = attack(target, runs, share)
        click.echo(_row(target, result))
        findings += result.findings
    for file in findings:
        why = file.with_suffix(".txt")
        click.echo(f"{file.relative_to(ROOT)}: {why.read_text().splitlines()[0] if why.exists() else 'see the log'}")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
