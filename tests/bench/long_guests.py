# SPDX-License-Identifier: MIT
"""Records a program in guests that forks all the time; `make long-guests` runs it.

For each kernel and mode it prints the memory of the recorder at one tenth and at the end, and what became of the calls.
It fails if memory grows by more than 5 %, if a call that the BPF program saw is neither in the trace nor counted as
lost, or if more children are missing than calls and names are counted as lost.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kalloctrace.lab.run import run_in_guest

FORKS, SECONDS = 300_000, 900
_HERE = Path(__file__).parent
_BUILD = _HERE.parents[1] / "build" / "long"
_MOST_GROWTH = 1.05
_SLOW_START = 400


def measure(kernel: str, mode: str, forks: int, seconds: int) -> dict[str, Any]:
    """Return what forking.py printed in a guest."""
    words = [sys.executable, str(_HERE / "forking.py"), str(_BUILD / "forks"), mode, str(forks), str(seconds)]
    result = run_in_guest(words, kernel=kernel, timeout=seconds + _SLOW_START, stderr=sys.stderr.buffer)
    measured: dict[str, Any] = json.loads(result.stdout)
    return measured


def judge(measured: Mapping[str, Any]) -> tuple[str, bool]:
    """Return a description of a recording, and whether it is as it should be."""
    forks, totals = measured["forks"], measured["totals"]
    sizes = {True: [0, 0], False: [0, 0]}
    for done, *used in measured["samples"]:
        most = sizes[done <= forks // 10]
        most[:] = map(max, most, used)
    grown = [after / max(1, before) for before, after in zip(sizes[True], sizes[False], strict=True)]
    not_rows = totals["dropped"] + totals["no_room"] + totals["replaced"]
    uncounted = totals["opened"] - totals["running"] - not_rows - measured["calls"]
    seen = measured["calls"] if measured["named"] is None else measured["named"]
    lost = not_rows + totals["missed"]
    unseen = max(0, forks - seen)
    lines = [
        f"{forks:,} forks in {totals['seconds']:.0f} s, {measured['calls']:,} calls; {measured['bytes']:,} bytes",
        f"memory, MiB: {_mebibytes(sizes[True])} in the first tenth, {_mebibytes(sizes[False])} after it",
        f"lost calls: {lost:,}; lost names: {totals['names_dropped']:,}",
        f"calls neither in the trace nor counted: {uncounted:,}; children without a row: {unseen:,}",
    ]
    good = (
        (measured["status"], uncounted) == (0, 0)
        and max(grown) <= _MOST_GROWTH
        and unseen <= lost + totals["names_dropped"]
    )
    return "\n".join(lines), good


def _mebibytes(sizes: list[int]) -> str:
    return f"VmRSS {sizes[0] / 1024:.1f} and VmData {sizes[1] / 1024:.1f}"


def main() -> int:
    """Record, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernels", nargs="+")
    parser.add_argument("--forks", type=int, default=FORKS)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--mode", action="append", choices=("stream", "aggregate"))
    options = parser.parse_args()
    _BUILD.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-O2", "-static", "-o", _BUILD / "forks", _HERE / "forks.c"], check=True)
    good = True
    for kernel in options.kernels:
        for mode in options.mode or ("stream", "aggregate"):
            measured = measure(kernel, mode, options.forks, options.seconds)
            (_BUILD / f"{kernel}-{mode}.json").write_text(json.dumps(measured), encoding="utf-8")
            text, right = judge(measured)
            print(f"{kernel}, {mode}: {'' if right else 'FAILED: '}{text}", flush=True)
            good &= right
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
