# SPDX-License-Identifier: MIT
"""The answers as text; the answer comes first."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from kalloctrace.fleet.diff import Difference, FleetDiff
from kalloctrace.fleet.outliers import FleetOutliers, Outlier
from kalloctrace.fleet.statistics import LEAST_HOSTS, LEAST_PEERS
from kalloctrace.fleet.verify import FleetVerification
from kalloctrace.text import many

Row: TypeAlias = Mapping[str, Any]

_MOST = 20
_MOST_FIELDS = 5


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


def diff_lines(found: FleetDiff, top: int) -> Iterator[str]:
    """Yield what changed with an upgrade, the surest first.

    Args:
        found: the differences.
        top: how many to print.
    """
    certain = [one for one in found.differences if one.is_certain]
    kernels = f"{', '.join(found.kernels[0])} and {', '.join(found.kernels[1])}"
    if not found.kinds:
        yield f"nothing to compare: no kind of machine has {LEAST_HOSTS} hosts with each of {kernels}"
    elif not certain:
        yield f"no certain difference of {kernels}; {len(found.differences):,} values were compared"
    else:
        yield f"{len(certain):,} of {len(found.differences):,} compared values differ between {kernels}"
    for kind in found.kinds:
        (one,) = [one for one in found.differences if one.kind == kind][:1] or (None,)
        hosts = "" if one is None else f": {one.hosts[0]:,} hosts before, {one.hosts[1]:,} after"
        yield f"  on {kind}{hosts}{', the same ones' if one is not None and one.same_hosts else ''}"
    for one in certain[:top]:
        yield f"  {_named(one.field, one.value)}: {_change(one)}{f' ({one.kind})' if len(found.kinds) > 1 else ''}"
    if (more := len(certain) - top) > 0:
        yield f"  and {more:,} more, which --top and --json have"
    if found.left_out:
        yield f"too few hosts on one side: {many(len(found.left_out), 'kind')} of machine"


def _change(one: Difference) -> str:
    change = one.change
    if one.is_time:
        times = f"{_milliseconds(round(one.before))} before, {_milliseconds(round(one.after))} after"
        return f"{times}; {change.value:.2f} times, 95 % {change.low:.2f} to {change.high:.2f}"
    shares = f"{_share(one.before)} before, {_share(one.after)} after"
    return f"{shares}; {_points(change.value)} points, 95 % {_points(change.low)} to {_points(change.high)}"


def outlier_lines(found: FleetOutliers, top: int) -> Iterator[str]:
    """Yield the hosts that are unlike their peers, and in which fields.

    Args:
        found: the outliers.
        top: how many hosts to print.
    """
    hosts: dict[tuple[str, str, str], list[Outlier]] = {}
    for one in found.found:
        hosts.setdefault((one.host, one.kernel, one.kind), []).append(one)
    compared = f"{many(found.hosts, 'host')} that {'was' if found.hosts == 1 else 'were'} compared"
    if not found.hosts:
        yield f"nothing to compare: no kernel and kind of machine has {LEAST_PEERS} hosts"
    else:
        yield f"{len(hosts):,} of {compared} with peers {'is' if len(hosts) == 1 else 'are'} unlike them"
    for (host, kernel, kind), fields in list(hosts.items())[:top]:
        yield f"  {host}, {kernel}, {kind}, among {fields[0].peers:,}:"
        for one in fields[:_MOST_FIELDS]:
            own, median = (
                (_milliseconds(round(one.own)), _milliseconds(round(one.median)))
                if one.is_time
                else (_share(one.own), _share(one.median))
            )
            yield f"    {_named(one.field, one.value)}: {own}, its peers {median}"
        if (more := len(fields) - _MOST_FIELDS) > 0:
            yield f"    and {more:,} more, which --json has"
    if (more := len(hosts) - top) > 0:
        yield f"  and {more:,} more, which --top and --json have"
    if found.alone:
        yield f"{many(found.alone, 'host')} without {LEAST_PEERS - 1} peers"


def _named(field: str, value: str | None) -> str:
    return field if value is None else f"{field} {value}"


def _share(share: float) -> str:
    return f"{share * 100:.3g} %"


def _points(difference: float) -> str:
    return f"{difference * 100:+.3g}"


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
