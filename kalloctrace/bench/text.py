# SPDX-License-Identifier: MIT
"""A measurement of a machine as a table to send in, and as one JSON object."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from kalloctrace.bench.interval import Interval
from kalloctrace.bench.machine import Machine
from kalloctrace.bench.measure import Added, Result
from kalloctrace.console import Console
from kalloctrace.styled import Table, sheet_of


def write_result(result: Result, machine: Machine, attachment: str, console: Console) -> None:
    """Print the answer, the table, and what the machine is."""
    sheet = sheet_of(console)
    for line in headline(result):
        sheet.line(line, "bold")
    sheet.blank()
    table = Table("dim")
    table.column("tool", wraps="words")
    table.column("gets", wraps="words")
    for name in ("ns", "cycles", "lost"):
        table.column(name, right=True, wraps="words")
    table.row("(the work alone)", "", _figure(result.ns), _figure(result.cycles), "")
    for one in result.added:
        added = [_figure(one.ns, "+"), _figure(one.cycles, "+"), f"{one.lost:,}"]
        figures = [one.gap, "", ""] if one.gap else added
        table.row(one.row.name, one.row.gets, *figures)
    sheet.table(table)
    sheet.blank()
    for line in _facts(result, machine, attachment):
        sheet.line(line, "dim")
    sheet.show()


def headline(result: Result) -> Iterator[str]:
    """Yield what our cheapest mode adds, and what the cheapest peer adds."""
    ours = [one for one in result.added if one.row.command[0] == "kalloctrace" and one.ns is not None]
    peers = [one for one in result.added if one.row.command[0] != "kalloctrace" and one.ns is not None]
    for found in (ours, peers):
        cheapest = min(found, key=_median, default=None)
        if cheapest is not None:
            yield f"{cheapest.row.name} adds {_median(cheapest):,.0f} ns to an allocation ({cheapest.row.gets})"


def _median(added: Added) -> float:
    return added.ns.median if added.ns is not None else float("inf")


def _figure(interval: Interval | None, sign: str = "") -> str:
    return "-" if interval is None else f"{sign}{interval.median:,.0f} [{interval.low:,.0f}, {interval.high:,.0f}]"


def _facts(result: Result, machine: Machine, attachment: str) -> Iterator[str]:
    where = "virtual machine" if machine.virtual else "real hardware"
    yield f"{machine.release}, {machine.processor or 'unknown processor'}, {machine.cpus} CPUs, {where}"
    governor = f"; frequency governor {machine.governor}" if machine.governor is not None else ""
    yield f"attached by {attachment}{governor}"
    yield (
        f"Each figure is the median of {result.repeated} repetitions, and the interval that holds the true one with "
        "95 %: the work with the tool, minus the same work right before and after it."
    )
    if result.cycles is None:
        yield "This machine does not count cycles."


def result_json(result: Result, machine: Machine, attachment: str) -> dict[str, Any]:
    """Return the object that `bench --json` prints; see schemas/bench.schema.json."""

    def figures(interval: Interval | None) -> dict[str, float] | None:
        return None if interval is None else {name: round(value, 2) for name, value in interval._asdict().items()}

    return {
        "type": "bench",
        "machine": asdict(machine),
        "attachment": attachment,
        "repeated": result.repeated,
        "alone": {"ns": figures(result.ns), "cycles": figures(result.cycles)},
        "added": [
            {
                "tool": one.row.name,
                "gets": one.row.gets,
                "ns": figures(one.ns),
                "cycles": figures(one.cycles),
                "captured": one.captured,
                "lost": one.lost,
                "gap": one.gap or None,
            }
            for one in result.added
        ],
    }
