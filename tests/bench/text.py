# SPDX-License-Identifier: MIT
"""Measures how long reading a text takes, from 10 KB to 100 MB: `make bench-text`, with LARGEST=1000000 only to 1 MB.

Each reader is the real program in a process of its own. It prints seconds of CPU time, of the start (measured on the
shortest such text) and without it, MB/s without the start, and resident memory. Growth is the exponent between this
size and the one before: 1 is linear, 2 quadratic. Of a small text the start is nearly everything, so the least of
several runs counts.
"""

import itertools
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click

from tests.bench.reading import ROOT, run

SIZES = tuple(10**power for power in range(4, 9))
FAILURES = ROOT / "tests" / "unit" / "data" / "failures"
REPORT = FAILURES / "6.19-lowmem-reserve.log"
OTHER = "[{:12.6f}] usb 1-1: new high-speed USB device number {} using xhci_hcd\n"
EACH = 10_000
RUNS = {10_000: 5, 100_000: 3}
"""How often a text of that size is read; once if it is larger."""
EVENT = (
    "  cc1-{} [{:03}] ..... {:.6f}: mm_page_alloc: page=00000000d2be5665 pfn=0x{:x} order=0 migratetype=1 "
    "gfp_flags=GFP_HIGHUSER_MOVABLE|__GFP_COMP\n"
)


def reports() -> Iterator[str]:
    """Yield reports without end, each of another state: all amounts and all numbers of free blocks are others."""
    text = REPORT.read_text()
    for number in itertools.count(1):
        amounts = _AMOUNT.sub(partial(_larger, number % 9973), text)
        yield _LIST.sub(partial(_longer_list, number % 61), amounts)


def equal_reports() -> Iterator[str]:
    """Yield the same report without end."""
    return itertools.repeat(REPORT.read_text())


_AMOUNT = re.compile(r"(?<=[a-z]:)\d+(?=kB| |$)", re.MULTILINE)
_LIST = re.compile(r"(?P<blocks>(?:\d+\*\d+kB (?:\(\w+\) )?)+)= \d+kB")


def _larger(more: int, number: re.Match[str]) -> str:
    return str(int(number[0]) + more)


def _longer_list(more: int, listed: re.Match[str]) -> str:
    blocks = re.sub(r"[1-9]\d*(?=\*)", partial(_larger, more), listed["blocks"])
    total = sum(int(count) * int(size) for count, size in re.findall(r"(\d+)\*(\d+)kB", blocks))
    return f"{blocks}= {total}kB"


def mostly_other(size: int) -> Iterator[str]:
    """Yield a log of other lines, with a report in each 10,000 lines."""
    report, done, number = reports(), 0, 0
    while done < size or number == 0:
        text = OTHER.format(number / 1000, number % 128)
        if number % EACH == 0:
            text = next(report) + text
        yield text
        done += len(text)
        number += 1


def newest_first() -> Iterator[str]:
    """Yield equal reports without end, each with its last line first, as log servers show them."""
    return itertools.repeat("".join(reversed(REPORT.read_text().splitlines(keepends=True))))


def only(made: Callable[[], Iterator[str]], size: int) -> Iterator[str]:
    """Yield a log of nothing but reports."""
    done = 0
    for report in made():
        yield report
        done += len(report)
        if done >= size:
            return


def events(size: int) -> Iterator[str]:
    """Yield what a tracefs file `trace` has."""
    done, number = 0, 0
    while done < size:
        line = EVENT.format(1000 + number % 12, number % 8, number / 10_000, number)
        yield line
        done += len(line)
        number += 1


TEXTS: dict[str, tuple[Callable[[int], Iterator[str]], tuple[str, ...]]] = {
    "explain, a report in 10,000 lines": (mostly_other, ("explain", "--json", "TEXT")),
    "explain, nothing but equal reports": (partial(only, equal_reports), ("explain", "--json", "TEXT")),
    "explain, nothing but equal reports, newest first": (partial(only, newest_first), ("explain", "--json", "TEXT")),
    "explain, nothing but mixed reports": (partial(only, reports), ("explain", "--json", "TEXT")),
    "import, events": (events, ("import", "--kernel", "6.1", "-f", "-o", "OUTPUT", "TEXT")),
    "decode -, events": (events, ("decode", "--json", "-")),
    "decode -, a log": (mostly_other, ("decode", "--json", "-")),
}


def _write(path: Path, text: Iterator[str]) -> int:
    with path.open("w") as file:
        file.writelines(text)
    return path.stat().st_size


@click.command()
@click.option("--largest", default=SIZES[-1], show_default=True, help="Bytes of the largest text.")
@click.option("--only", default="", help="The beginning of the names of the readers to measure.")
def main(largest: int, only: str) -> None:
    """Print a Markdown table."""
    cores = os.sched_getaffinity(0)
    click.echo("| reader | bytes | start s | CPU s | MB/s | resident MiB | growth |")
    click.echo("|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder) / "text", Path(folder) / "output"
        for name, (text, words) in TEXTS.items():
            if not name.startswith(only):
                continue
            command = [{"TEXT": str(path), "OUTPUT": str(output)}.get(word, word) for word in words]
            _write(path, text(1))
            start = min(run(command, cores, path).cpu for _ in range(5))
            before: tuple[int, float] | None = None
            for size in (size for size in SIZES if size <= largest):
                written = _write(path, text(size))
                cost = min((run(command, cores, path) for _ in range(RUNS.get(size, 1))), key=lambda each: each.cpu)
                took = max(cost.cpu - start, 0.001)
                growth = f"{math.log(took / before[1]) / math.log(written / before[0]):.2f}" if before else ""
                speed = written / took / 1e6
                columns = (
                    name,
                    f"{written:,}",
                    f"{start:.2f}",
                    f"{took:.2f}",
                    f"{speed:.1f}",
                    cost.memory >> 20,
                    growth,
                )
                click.echo(f"| {' | '.join(map(str, columns))} |")
                before = written, took


if __name__ == "__main__":
    main()
