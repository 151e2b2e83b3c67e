# SPDX-License-Identifier: MIT
"""Measures a fleet: `python -m tests.bench.fleet` prints Markdown tables; exits with 1 if a limit is not met.

Fleets of several sizes are made from a fixture's requests. Time and memory of each command are those of its processes,
as is the time of what a user would do instead. A line through the smallest and the largest fleet gives the time of any
other one; those in between check it. The bytes of a row of each table give the size of any other fleet. Then come
fleets of twenty seeds, five of them without injections: what is found, at which size, and the false alarms.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.diff import diff_fleet
from kalloctrace.fleet.engines import engine
from kalloctrace.fleet.outliers import find_outliers
from kalloctrace.fleet.verify import verify_fleet
from tests.bench.fleet_data import AFTER, BEFORE, MISMATCH, OUTLIER, SMALL, Fleet, export_fleet, make_fleet
from tests.bench.memory import Cost, cost
from tests.bench.tables import table
from tests.section import write_section

PAGE = Path(__file__).parents[2] / "docs" / "fleet.md"
BEGIN, END = "<!-- written by make fleet-bench DOCS=1 -->", "<!-- end -->"
ROWS = (30_000, 100_000, 300_000, 1_000_000)
SEEDS, PLAIN = 20, 5
MOST_MEMORY = 4 << 30
MOST_BYTES = 100 * 10**9
MOST_ROWS = 10**7
MOST_SECONDS: Mapping[str, float] = {"duckdb": 120, "spark": 600}
"""Of `fleet verify`, for up to MOST_ROWS."""
PEER_ROWS = 10**6
"""What a user would do is measured up to this size: it reads two files for each recording."""
HOSTS, DAYS = 10_000, 30
"""The fleet that the line is asked about."""
ENGINES: Mapping[str, Sequence[str]] = {
    "duckdb": (),
    "spark": ("--engine", "spark", "--master", "local[2]"),
}
VERIFY = "fleet verify"
COMMANDS: Mapping[str, Sequence[str]] = {
    VERIFY: ("verify",),
    f"{VERIFY}, judged before": ("verify",),
    "fleet report": ("report",),
    "fleet diff": ("diff", "--kernel", BEFORE, "--kernel", AFTER),
    "fleet outliers": ("outliers",),
}
PEERS = {"pandas over exported Parquet": "pandas", "SQL over exported Parquet": "sql"}
_FINE = {0, 3}
_PARTS = ("recordings", "allocations", "slow_calls")
"""Tables that grow with hosts and days."""


@dataclass(frozen=True)
class Measured:
    """What a command took on a fleet: rows of allocations, seconds from begin to end, and the rest as of `cost`."""

    rows: int
    wall: float
    cost: Cost


def measured(name: str, rows: int, words: Sequence[str], module: str = "kalloctrace") -> Measured:
    """Run a program and measure it; say so at once, as the tables come late."""
    begin = time.monotonic()
    found = cost(words, 2 * MOST_MEMORY, module)
    one = Measured(rows, time.monotonic() - begin, found)
    print(f"{rows:,} rows: {name}: {_cell(one)}", file=sys.stderr, flush=True)
    return one


def sizes_of(rows: Sequence[int]) -> list[Fleet]:
    """Return fleets of so many rows: two days of hosts that make 200 distinct requests a day, each 100 times or so."""
    return [replace(Fleet(1), hosts=max(2, number // Fleet(1).rows), mismatched=3) for number in sorted(rows)]


def bytes_of(path: Path) -> dict[str, tuple[int, int]]:
    """Return the rows and the bytes of each table of a dataset."""
    found: dict[str, tuple[int, int]] = {}
    with Dataset.opened(path) as dataset:
        for data in dataset.files():
            rows, size = found.get(data.table, (0, 0))
            found[data.table] = rows + data.rows, size + data.size
    return found


def measure_sizes(fleets: Sequence[Fleet], engines: Sequence[str], folder: Path) -> Iterator[str]:
    """Yield lines about time and size; the last one is empty, or names what is not met."""
    found: dict[str, list[Measured]] = {}
    sizes = []
    for fleet in fleets:
        path = folder / f"{fleet.rows}"
        make_fleet(path, fleet)
        sizes.append(bytes_of(path))
        for name in engines:
            # Each judges for itself.
            own = shutil.copytree(path, folder / f"{fleet.rows}-{name}")
            for command, words in COMMANDS.items():
                about = f"{command}, {name}"
                asked = ["fleet", *words, *ENGINES[name], str(own)]
                found.setdefault(about, []).append(measured(about, fleet.rows, asked))
            shutil.rmtree(own)
        if fleet.rows <= PEER_ROWS:
            export_fleet(path, exported := folder / "exported")
            for about, peer in PEERS.items():
                asked = [peer, str(exported)]
                found.setdefault(about, []).append(measured(about, fleet.rows, asked, "tests.bench.fleet_peers"))
            shutil.rmtree(exported)
    yield f"{os.cpu_count()} processors; a cell has seconds, CPU seconds, and MiB."
    yield ""
    names = [f"{fleet.rows:,} rows, {fleet.hosts * fleet.days * fleet.calls:.0e} calls" for fleet in fleets]
    yield table(["", *names], ([name, *_cells(fleets, values)] for name, values in found.items()))
    yield ""
    head = ["CPU seconds", "line", "in between: measured, by the line", f"{HOSTS:,} hosts × {DAYS} days"]
    yield table(head, ([name, *_line(values)] for name, values in found.items() if len(values) > 1))
    yield ""
    lines, day = size_lines(fleets, sizes)
    yield from lines
    faults = [fault for name, values in found.items() for fault in _faults(name, values)]
    faults += [f"{day:,.0f} bytes a day"] if day > MOST_BYTES else []
    yield "; ".join(faults)


def _faults(name: str, values: Sequence[Measured]) -> Iterator[str]:
    """Yield which limits a command does not meet."""
    for one in values:
        if one.cost.code not in _FINE:
            yield f"{name}: exit code {one.cost.code}"
        if name not in PEERS and one.cost.memory > MOST_MEMORY:
            yield f"{name}: {one.cost.memory:,} bytes of memory"
        for about, most in MOST_SECONDS.items():
            if name == f"{VERIFY}, {about}" and one.rows <= MOST_ROWS and one.wall > most:
                yield f"{name}: {one.wall:.0f} s"


def size_lines(fleets: Sequence[Fleet], sizes: Sequence[Mapping[str, tuple[int, int]]]) -> tuple[list[str], float]:
    """Return lines about the size of datasets, and the bytes of the large fleet for each day.

    Args:
        fleets: in the order of their sizes.
        sizes: as of `bytes_of`, of each.
    """
    each = {name: size / rows for name, (rows, size) in sizes[-1].items() if name in _PARTS}

    def of(fleet: Fleet) -> float:
        rows = (1, fleet.requests, fleet.slow)
        one = sum(number * each[name] for number, name in zip(rows, _PARTS, strict=True))
        return fleet.hosts * fleet.days * one

    def most(fleet: Fleet) -> float:
        return fleet.requests + (MOST_BYTES / HOSTS - of(replace(fleet, hosts=1, days=1))) / each["allocations"]

    day = of(replace(fleets[-1], hosts=HOSTS, days=1))
    lines = [
        "Bytes = hosts × days × ({:,.0f} + {:.2f} × distinct requests + {:.1f} × slow calls of a day).".format(
            *(each[name] for name in _PARTS)
        ),
        *(
            f"At {fleet.rows:,} rows: {sum(size[name][1] for name in _PARTS):,} bytes, {of(fleet):,.0f} by this."
            for fleet, size in zip(fleets, sizes, strict=True)
        ),
        f"{HOSTS:,} hosts, {fleets[-1].requests} requests and {fleets[-1].slow} slow calls: {day / 1e9:,.2f} GB a day.",
        f"So much in {DAYS} days: {DAYS * day / 1e9:,.1f} GB.",
        f"{MOST_BYTES / 1e9:,.0f} GB a day hold {most(fleets[-1]):,.0f} distinct requests of each of {HOSTS:,} hosts.",
    ]
    return lines, day


def _cell(one: Measured) -> str:
    return f"{one.wall:.1f} s, {one.cost.seconds:.1f}, {one.cost.memory >> 20}"


def _cells(fleets: Sequence[Fleet], values: Sequence[Measured]) -> Iterator[str]:
    by_rows = {one.rows: one for one in values}
    yield from (_cell(by_rows[fleet.rows]) if fleet.rows in by_rows else "-" for fleet in fleets)


def _line(values: Sequence[Measured]) -> list[str]:
    """Return the CPU time by a line through the ends, how far it is off in between, and that of the large fleet."""
    first, *between, last = values
    slope = (last.cost.seconds - first.cost.seconds) / (last.rows - first.rows)

    def at(rows: int) -> float:
        return first.cost.seconds + slope * (rows - first.rows)

    checks = ", ".join(f"{one.cost.seconds:.1f} for {at(one.rows):.1f}" for one in between)
    return [
        f"{at(0):.1f} + {slope * 1e6:.2f} × million rows",
        checks or "-",
        f"{at(HOSTS * DAYS * Fleet(1).requests):,.0f}",
    ]


@dataclass(frozen=True)
class Seed:
    """What was found in a fleet with injections, or without.

    Attributes:
        fleet: with its seed and injections.
        mismatches: calls that differ from the model.
        outlier: whether the outlier was found.
        regression: whether the regression was found.
        alarms: what else was said.
    """

    fleet: Fleet
    mismatches: int
    outlier: bool
    regression: bool
    alarms: list[str]


def fleets_of_seeds(seeds: int, plain: int, hosts: int) -> Iterator[Fleet]:
    """Yield fleets: some without injections, then with ever smaller ones."""
    with_some = seeds - plain
    for seed in range(1, seeds + 1):
        fleet = Fleet(hosts, calls=20_000, requests=100, slow=100, seed=seed, fixture=SMALL)
        if seed > plain:
            share = (seed - plain - 1) / max(1, with_some - 1)
            yield replace(fleet, outlier=0.6 * 0.02**share, regression=1 + 0.5 * 0.02**share, mismatched=1)
        else:
            yield fleet


def look(fleet: Fleet, folder: Path) -> Seed:
    """Make a fleet, and ask all questions."""
    path = folder / f"seed-{fleet.seed}"
    make_fleet(path, fleet)
    with Dataset.opened(path) as dataset, engine() as running:
        verdict = verify_fleet(dataset, running, processes=1)
        certain = [one for one in diff_fleet(dataset, running, BEFORE, AFTER).differences if one.is_certain]
        outliers = find_outliers(dataset, running).found
    slower = [one for one in certain if one.is_time and one.change.value > 1 and fleet.regression > 1]
    right = {OUTLIER} if fleet.outlier else set()
    strange = [one for one in outliers if one.host not in right and not (one.host == MISMATCH and fleet.mismatched)]
    alarms = [f"{one.field} {one.value}" for one in certain if one not in slower]
    alarms += [f"{one.host}: {one.field} {one.value}" for one in strange]
    return Seed(fleet, verdict.mismatched, any(one.host in right for one in outliers), bool(slower), alarms)


def measure_seeds(seeds: int, plain: int, hosts: int, folder: Path) -> Iterator[str]:
    """Yield lines about what was found; the last one is empty, or names what is not met."""
    found = [look(fleet, folder) for fleet in fleets_of_seeds(seeds, plain, hosts)]
    yield table(
        ["seed", "outlier", "regression", "mismatch", "false alarms"],
        (
            [
                str(one.fleet.seed),
                f"{one.fleet.outlier:.1%}: {'found' if one.outlier else '-'}" if one.fleet.outlier else "none",
                f"{one.fleet.regression - 1:.1%}: {'found' if one.regression else '-'}"
                if one.fleet.regression > 1
                else "none",
                f"{one.mismatches} of {one.fleet.mismatched}",
                ", ".join(one.alarms) or "none",
            ]
            for one in found
        ),
    )
    yield ""
    outliers = [one.fleet.outlier for one in found if one.outlier]
    regressions = [one.fleet.regression - 1 for one in found if one.regression]
    yield f"Smallest outlier found: {min(outliers, default=0):.1%} of a host's calls, of {hosts} hosts."
    yield f"Smallest regression found: {min(regressions, default=0):.1%} longer slow calls."
    alarming = sum(bool(one.alarms) for one in found)
    yield f"False alarms in {alarming} of {len(found)} fleets."
    missed = [one for one in found if one.mismatches != one.fleet.mismatched]
    yield "; ".join(
        (*(["false alarms"] if alarming > 1 else []), *(f"mismatch of seed {one.fleet.seed}" for one in missed))
    )


def main() -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, action="append", help="rows of allocations of a fleet; give several")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this engine")
    parser.add_argument("--docs", action="store_true", help="write it into docs/fleet.md too")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="fleets that are searched")
    parser.add_argument("--hosts", type=int, default=100, help="hosts of each of these")
    options = parser.parse_args()
    faults, printed = list[str](), list[str]()
    with tempfile.TemporaryDirectory() as name:
        fleets = sizes_of(options.rows or ROWS)
        plain = options.seeds * PLAIN // SEEDS
        for lines in (
            measure_sizes(fleets, options.engine or list(ENGINES), Path(name)),
            measure_seeds(options.seeds, plain, options.hosts, Path(name)) if options.seeds else iter([""]),
        ):
            *shown, fault = lines
            print("\n".join((*shown, "")), flush=True)
            printed += [*shown, ""]
            faults += [fault] if fault else []
    said = "\n".join(f"not met: {fault}" for fault in faults) or "All limits are met."
    print(said)
    if options.docs:
        write_section(PAGE, BEGIN, END, "\n".join((*printed, said)))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
