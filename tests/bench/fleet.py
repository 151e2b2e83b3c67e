# SPDX-License-Identifier: MIT
"""Measures a fleet: `python -m tests.bench.fleet` prints Markdown tables; exits with 1 if a limit is not met.

Fleets of several sizes are made from a fixture's requests. Time and memory of each command are those of its process,
as is the time of what a user would do instead. A line through the smallest and the largest fleet gives the time of any
other one; where there are three sizes or more, the others check it. Then come fleets of twenty seeds, five of them
without injections: what is found, at which size, and the false alarms.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.diff import diff_fleet
from kalloctrace.fleet.engines import engine
from kalloctrace.fleet.outliers import find_outliers
from kalloctrace.fleet.verify import verify_fleet
from tests.bench.fleet_data import AFTER, BEFORE, MISMATCH, OUTLIER, SMALL, Fleet, make_fleet
from tests.bench.memory import Cost, cost
from tests.bench.tables import table

ROWS = (100_000, 1_000_000)
SEEDS, PLAIN = 20, 5
MOST_MEMORY = 4 << 30
MOST_BYTES = 100 * 10**9
HOSTS, DAYS = 10_000, 30
"""The fleet that the line is asked about."""
COMMANDS = {
    "fleet verify": ("fleet", "verify", "DATASET"),
    "fleet verify, judged before": ("fleet", "verify", "DATASET"),
    "fleet report": ("fleet", "report", "DATASET"),
    "fleet diff": ("fleet", "diff", "DATASET", "--kernel", BEFORE, "--kernel", AFTER),
    "fleet outliers": ("fleet", "outliers", "DATASET"),
}
PEERS = {"pandas over the same files": "pandas", "SQL written by hand": "sql"}
_FINE = {0, 3}


@dataclass(frozen=True)
class Measured:
    """What a command took on a fleet: seconds from begin to end, and the rest as of `cost`."""

    wall: float
    cost: Cost


def measured(words: Sequence[str], module: str = "kalloctrace") -> Measured:
    """Run a program and measure it."""
    begin = time.monotonic()
    found = cost(words, 2 * MOST_MEMORY, module)
    return Measured(time.monotonic() - begin, found)


def sizes_of(rows: Sequence[int]) -> list[Fleet]:
    """Return fleets of about so many rows: two days of hosts that make 200 distinct requests a day."""
    return [replace(Fleet(1), hosts=max(2, number // Fleet(1).rows), mismatched=3) for number in rows]


def bytes_of(path: Path) -> int:
    """Return the size of a dataset."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def measure_sizes(fleets: Sequence[Fleet], folder: Path) -> Iterator[str]:
    """Yield lines about time and size; the last one is empty, or names what is not met."""
    found: dict[str, list[Measured]] = {}
    sizes = []
    faults = []
    for fleet in fleets:
        path = folder / f"{fleet.rows}"
        make_fleet(path, fleet)
        sizes.append(bytes_of(path))
        for name, words in COMMANDS.items():
            found.setdefault(name, []).append(measured([str(path) if word == "DATASET" else word for word in words]))
        for name, peer in PEERS.items():
            found.setdefault(name, []).append(measured([peer, str(path)], "tests.bench.fleet_peers"))
    for name, values in found.items():
        faults += [f"{name}: exit code {one.cost.code}" for one in values if one.cost.code not in _FINE]
        if name in COMMANDS:
            faults += [f"{name}: {one.cost.memory:,} bytes" for one in values if one.cost.memory > MOST_MEMORY]
    names = [f"{fleet.rows:,} rows, {fleet.hosts * fleet.days * fleet.calls:.0e} calls" for fleet in fleets]
    yield table(
        ["s / CPU s / MiB", *names, f"{HOSTS:,} hosts, {DAYS} days, by the line"],
        ([name, *map(_cell, values), _line(fleets, values)] for name, values in found.items()),
    )
    yield ""
    each = [size / (fleet.hosts * fleet.days) for size, fleet in zip(sizes, fleets, strict=True)]
    day = each[-1] * HOSTS
    what = f"{fleets[-1].requests} requests and {fleets[-1].slow} slow calls a day"
    yield f"Bytes = hosts × days × {each[-1]:,.0f}, with {what}."
    yield f"By the smallest fleet it would be × {each[0]:,.0f}."
    yield f"{HOSTS:,} hosts × 1 day: {day / 1e9:,.2f} GB; {DAYS} days: {DAYS * day / 1e9:,.1f} GB."
    faults += [f"{day:,.0f} bytes a day"] if day > MOST_BYTES else []
    yield "; ".join(faults)


def _cell(one: Measured) -> str:
    return f"{one.wall:.1f} / {one.cost.seconds:.1f} / {one.cost.memory >> 20}"


def _line(fleets: Sequence[Fleet], values: Sequence[Measured]) -> str:
    """Return the CPU time of the large fleet by a line, and how far it is off in between."""
    first, last = fleets[0].rows, fleets[-1].rows
    slope = (values[-1].cost.seconds - values[0].cost.seconds) / max(1, last - first)

    def at(rows: int) -> float:
        return values[0].cost.seconds + slope * (rows - first)

    between = "".join(
        f"; at {fleet.rows:,} {value.cost.seconds:.1f} for {at(fleet.rows):.1f}"
        for fleet, value in zip(fleets[1:-1], values[1:-1], strict=True)
    )
    return f"{at(HOSTS * DAYS * fleets[0].requests):,.0f} CPU s{between}"


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
    parser.add_argument("--rows", type=int, action="append", help="rows of allocations of a fleet; give two or more")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="fleets that are searched")
    parser.add_argument("--hosts", type=int, default=100, help="hosts of each of these")
    options = parser.parse_args()
    faults = []
    with tempfile.TemporaryDirectory() as name:
        fleets = sizes_of(options.rows or ROWS)
        plain = options.seeds * PLAIN // SEEDS
        for lines in (
            measure_sizes(fleets, Path(name)) if len(fleets) > 1 else iter([""]),
            measure_seeds(options.seeds, plain, options.hosts, Path(name)) if options.seeds else iter([""]),
        ):
            *shown, fault = lines
            print("\n".join((*shown, "")), flush=True)
            faults += [fault] if fault else []
    print("\n".join(f"not met: {fault}" for fault in faults) or "All limits are met.")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
