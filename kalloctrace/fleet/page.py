# SPDX-License-Identifier: MIT
"""The data of the pages about a fleet, as JSON values."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from kalloctrace.fleet.diff import FleetDiff
from kalloctrace.fleet.outliers import FleetOutliers
from kalloctrace.fleet.text import diff_lines, outlier_lines, report_lines, verification_lines
from kalloctrace.fleet.verify import FleetVerification
from kalloctrace.report.page.texts import printable_json
from kalloctrace.version import __version__

Row: TypeAlias = Mapping[str, Any]
Page: TypeAlias = dict[str, Any]

ROWS = 1000
"""Rows of a table on a page, so that a browser stays responsive."""

_WORDS, _NUMBER, _TIME, _SHARE, _RATIO = "words", "number", "milliseconds", "percent", "ratio"
_MISMATCHES = {
    "calls": ("calls", _NUMBER),
    "requests": ("requests", _NUMBER),
    "hosts": ("hosts", _NUMBER),
    "kernel_release": ("kernel", _WORDS),
    "machine_kind": ("machine", _WORDS),
    "field": ("field", _WORDS),
    "expected": ("expected", _WORDS),
    "observed": ("observed", _WORDS),
    "rule": ("rule", _WORDS),
    "a_host": ("a host", _WORDS),
    "first_seen": ("first seen", _WORDS),
}
_REASONS = {"calls": ("calls", _NUMBER), "reason": ("why they could not be judged", _WORDS)}
_FAILURES = {
    "failed": ("failed", _NUMBER),
    "calls": ("calls", _NUMBER),
    "hosts": ("hosts", _NUMBER),
    "kernel_release": ("kernel", _WORDS),
    "comm": ("task", _WORDS),
    "cgroup": ("cgroup", _WORDS),
}
_STALLS = {
    "total_ns": ("total, ms", _TIME),
    "slow_calls": ("slow calls", _NUMBER),
    "failed": ("failed", _NUMBER),
    "hosts": ("hosts", _NUMBER),
    **{f"{name}_ns": (f"{name}, ms", _TIME) for name in ("p50", "p90", "p99", "max")},
    "kernel_release": ("kernel", _WORDS),
    "caller": ("caller", _WORDS),
    "cgroup": ("cgroup", _WORDS),
}

_UNITS = {"share": ("Shares", _SHARE, _SHARE, "%"), "ns": ("Times", "precise milliseconds", _RATIO, "ms")}
"""Of each unit: the heading of its table, how its values and their changes are shown, and the unit's name."""


def verification_page(found: FleetVerification, name: str) -> Page:
    """Return the page of `fleet verify`.

    Args:
        found: the verdict.
        name: of the dataset.
    """
    kind = "bad" if found.mismatched else "doubt" if found.unknown or not found.matched else "good"
    headline = [[kind, next(iter(verification_lines(found)))]]
    numbers = ("matched", "mismatched", "unknown", "lost", "missed", "truncated", "distinct")
    reasons = [{"calls": calls, "reason": reason} for reason, calls in found.unknown_reasons.items()]
    tables = [
        _table("What differs", "By kernel, kind of machine, rule and values.", _MISMATCHES, found.mismatches),
        _table("What could not be judged", "An unknown call is never a pass.", _REASONS, reasons),
    ]
    about = _about(name, recordings=found.recordings, hosts=found.hosts)
    return _page("A fleet against the model", about, headline, {n: getattr(found, n) for n in numbers}, tables)


def report_page(totals: Row, failures: Sequence[Row], stalls: Sequence[Row], name: str) -> Page:
    """Return the page of `fleet report`.

    Args:
        totals: of the dataset, as of `report_lines`.
        failures: up to one more than ROWS.
        stalls: likewise.
        name: of the dataset.
    """
    headline = [["bad" if totals["failed"] else "good", next(iter(report_lines(totals, (), ())))]]
    tables = [
        _table("Failures", "By kernel, task and cgroup.", _FAILURES, failures),
        _table("The slow path", "By kernel, caller and cgroup; a percentile is a time that occurred.", _STALLS, stalls),
    ]
    about = _about(name, recordings=totals["recordings"], hosts=totals["hosts"])
    numbers = {"allocations": totals["allocations"], "failed": totals["failed"], "slow calls": totals["slow_calls"]}
    return _page("Failures and stalls of a fleet", about, headline, numbers, tables)


def diff_page(found: FleetDiff, name: str) -> Page:
    """Return the page of `fleet diff`: what is certain.

    Args:
        found: the differences.
        name: of the dataset.
    """
    rows = [one.to_json() for one in found.differences if one.is_certain]
    tables = []
    for unit, (heading, kind, change, sign) in _UNITS.items():
        what = "after less before, in points" if unit == "share" else "after divided by before"
        lead = f"The change is {what}; its 95 % interval has the true value in 95 of 100 cases."
        shown = {
            "field": ("field", _WORDS),
            "value": ("value", _WORDS),
            "before": (f"before, {sign}", kind),
            "after": (f"after, {sign}", kind),
            "change": ("change", change),
            "change_low": ("at least", change),
            "change_high": ("at most", change),
            "hosts_before": ("hosts before", _NUMBER),
            "hosts_after": ("hosts after", _NUMBER),
            "machine_kind": ("machine", _WORDS),
        }
        tables.append(_table(heading, lead, shown, [row for row in rows if row["unit"] == unit]))
    headline = [["doubt" if rows or not found.kinds else "good", next(iter(diff_lines(found, 0)))]]
    numbers = {
        "compared": len(found.differences),
        "certain": len(rows),
        "kinds of machine left out": len(found.left_out),
    }
    about = f"{name}: {', '.join(found.kernels[0])} and {', '.join(found.kernels[1])}"
    return _page("What changed with an upgrade", about, headline, numbers, tables)


def outliers_page(found: FleetOutliers, name: str) -> Page:
    """Return the page of `fleet outliers`.

    Args:
        found: the outliers.
        name: of the dataset.
    """
    rows = [one.to_json() for one in found.found]
    tables = []
    for unit, (heading, kind, _, sign) in _UNITS.items():
        shown = {
            "host": ("host", _WORDS),
            "field": ("field", _WORDS),
            "value": ("value", _WORDS),
            "own": (f"its own, {sign}", kind),
            "median": (f"its peers, {sign}", kind),
            "peers": ("hosts compared", _NUMBER),
            "kernel_release": ("kernel", _WORDS),
            "machine_kind": ("machine", _WORDS),
        }
        lead = "What is further out than the spread of the peers explains; its peers have the median."
        tables.append(_table(heading, lead, shown, [row for row in rows if row["unit"] == unit]))
    headline = [["doubt" if rows or not found.hosts else "good", next(iter(outlier_lines(found, 0)))]]
    numbers = {"hosts compared": found.hosts, "hosts without peers": found.alone, "fields of outliers": len(rows)}
    return _page("Hosts unlike their peers", name, headline, numbers, tables)


def _about(name: str, *, recordings: int, hosts: int) -> str:
    return f"{name}: {recordings:,} recordings, {hosts:,} hosts"


def _page(heading: str, about: str, headline: list[list[str]], numbers: dict[str, int], tables: list[Page]) -> Page:
    made: Page = printable_json(
        {
            "type": "fleet",
            "kalloctrace": __version__,
            "heading": heading,
            "about": about,
            "headline": headline,
            "numbers": [[name, number] for name, number in numbers.items()],
            "tables": tables,
        }
    )
    return made


def _table(heading: str, lead: str, columns: Mapping[str, tuple[str, str]], rows: Sequence[Row]) -> Page:
    more = f"The first {ROWS:,} rows; --json has more." if len(rows) > ROWS else ""
    return {
        "heading": heading,
        "lead": lead,
        "columns": [list(column) for column in columns.values()],
        "rows": [[row[name] for name in columns] for row in rows[:ROWS]],
        "sorted": 0,
        "beyond": more,
    }
