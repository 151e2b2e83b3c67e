# SPDX-License-Identifier: MIT
"""The answers as text; the answer comes first."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from kalloctrace.fleet.verify import FleetVerification
from kalloctrace.text import many

Row: TypeAlias = Mapping[str, Any]

_MOST = 20


def verification_lines(found: FleetVerification) -> Iterator[str]:
    """Yield the verdict on a fleet, and the most frequent mismatches."""
    where = f"{found.allocations:,} calls of {found.recordings:,} recordings"
    if found.mismatched:
        yield f"MISMATCH: {found.mismatched:,} of {where} are not what the model predicts"
    elif not found.allocations:
        yield "nothing to verify: the dataset has no calls"
    elif found.matched:
        yield f"ok: {found.matched:,} of {where} match the model, and none differs"
    else:
        yield f"unknown: none of {where} could be judged"
    yield (
        f"matched {found.matched:,}, mismatched {found.mismatched:,}, unknown {found.unknown:,}; "
        f"lost {found.lost:,}, missed {found.missed:,}, truncated recordings {found.truncated:,}"
    )
    yield f"distinct requests {found.distinct:,}; the model ran {found.judged:,} times"
    for row in found.mismatches[:_MOST]:
        yield (
            f"  {row['calls']:,} calls, {row['requests']:,} requests, {row['hosts']:,} hosts such as {row['a_host']}, "
            f"since {row['first_seen'] or '?'}: {row['kernel_release']} ({row['machine_kind']})"
        )
        yield f"    {row['field']} is {row['observed']}, the model has {row['expected']} by rule {row['rule']}"
    if more := len(found.mismatches) - _MOST:
        yield from (f"  and {more:,} more, which --json has",) if more > 0 else ()
    for reason, count in sorted(found.unknown_reasons.items(), key=lambda item: -item[1]):
        yield f"  unknown: {count:,} calls: {reason}"


def report_lines(totals: Row, failures: Sequence[Row], stalls: Sequence[Row]) -> Iterator[str]:
    """Yield where calls fail or stall.

    Args:
        totals: of the dataset: the rows of `questions.totals`, `failed_calls` and `slow_totals` together.
        failures: rows of `questions.failures`.
        stalls: rows of `questions.stalls`.
    """
    yield (
        f"{totals['failed']:,} of {many(totals['allocations'], 'call')} failed; "
        f"{totals['slow_calls']:,} took the slow path, {totals['total_ns'] / 1e9:,.2f} s in all"
    )
    yield f"{many(totals['recordings'], 'recording')} of {many(totals['hosts'], 'host')}"
    yield from ("failures by kernel, task and cgroup:",) if failures else ()
    for row in failures:
        of_all = f" of {many(row['calls'], 'call')}" if row["calls"] else ""
        yield f"  {row['failed']:,}{of_all} failed on {many(row['hosts'], 'host')}: {_whose(row, 'comm', 'task')}"
    yield from ("the slow path by kernel, caller and cgroup, most time first:",) if stalls else ()
    for row in stalls:
        times = ", ".join(f"{name} {_milliseconds(row[f'{name}_ns'])}" for name in ("p50", "p90", "p99", "max"))
        yield (
            f"  {many(row['slow_calls'], 'call')}, {row['failed']:,} failed, on {many(row['hosts'], 'host')} "
            f"({times}): {_whose(row, 'caller', 'caller')}"
        )


def _whose(row: Row, column: str, name: str) -> str:
    """Return kernel, task or caller, and control group."""
    found = [row["kernel_release"], row[column] or f"{name} not recorded", row["cgroup"] or "cgroup not recorded"]
    return ", ".join(found)


def row_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yield any rows, with the names of their columns first; indented, as their texts are foreign."""
    for number, row in enumerate(rows):
        if not number:
            yield f"  {' | '.join(row)}"
        yield f"  {' | '.join('null' if value is None else str(value) for value in row.values())}"


def _milliseconds(duration: int | None) -> str:
    return "?" if duration is None else f"{duration / 1e6:,.1f} ms"
