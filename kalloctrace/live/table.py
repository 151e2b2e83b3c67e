# SPDX-License-Identifier: MIT
"""The rows of a live table, from two observations of a recording: rates, counts, and the model's verdicts."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.live.keys import RequestKey, TaskKey
from kalloctrace.live.slow_rows import SlowRequests
from kalloctrace.model.kernel import Kernel
from kalloctrace.trace.dedup import KEYS, python_rows
from kalloctrace.trace.inferred import NOTHING_INFERRED
from kalloctrace.trace.observation import Observation
from kalloctrace.trace.results import (
    EVERY_CALL,
    PAGE_SIZE,
    Selection,
    failed_of,
    followed,
    outcomes_of,
    pages_of,
    slow_call_bytes,
)
from kalloctrace.trace.schema import ALLOCATION
from kalloctrace.trace.slow_tally import SlowKey
from kalloctrace.trace.tally import counts_of
from kalloctrace.trace.totals import Totals
from kalloctrace.verify.compare import RowVerdict
from kalloctrace.verify.rows import Row
from kalloctrace.verify.slowpath.fast_path import from_entry
from kalloctrace.verify.verification import Judge, SharedVerdicts, Shown

By = Literal["request", "task", "stack"]
"""What a row groups calls by: the request and its preparation; these and the task; these, the task and the stack."""

SortName = Literal[
    "rate",
    "count",
    "share",
    "bytes",
    "failed",
    "time",
    "comm",
    "pid",
    "gfp",
    "order",
    "node",
    "zone",
    "migratetype",
    "alloc_flags",
    "verdict",
    "stack",
]
Verdict = Literal["ok", "MISMATCH", "unknown"]

_MATCHED, _MISMATCHED, _UNKNOWN = range(3)
_SUMS = ("count", "new", "matched", "mismatched", "unknown", "bytes", "failed")


@dataclass(frozen=True)
class LiveRow:
    """Calls with the same request, and the same task and stack where rows include them.

    Attributes:
        request: the request and its preparation.
        task: the task and stack.
        count: calls since the start.
        new: calls in the interval.
        rate: calls per second in the interval.
        share: fraction of all calls in the interval, 0 to 1.
        matched: calls since the start that the kernel prepared as the model predicts.
        mismatched: calls since the start that differ from the model.
        unknown: calls since the start that cannot be judged.
        bytes: of the pages that the calls got; of the requested pages where it is not known whether they got them.
        failed: calls since the start that returned no page; None where that is not known.
        slow_ns: time of the calls in the slow path, in ns; None where the slow path is not recorded.
        shown: the fields that the calls of the row share; None for all. The others have no meaning.
    """

    request: RequestKey
    task: TaskKey
    count: int
    new: int
    rate: float
    share: float
    matched: int
    mismatched: int
    unknown: int
    bytes: int
    failed: int | None
    slow_ns: int | None
    shown: frozenset[SortName] | None = None

    def shows(self, name: SortName) -> bool:
        """Return whether a field has a meaning."""
        return self.shown is None or name in self.shown

    @property
    def verdict(self) -> Verdict:
        """Return the worst verdict on any of the calls; of calls that only the slow path shows there is none."""
        return "MISMATCH" if self.mismatched else "unknown" if self.unknown or not self.matched else "ok"

    @property
    def key(self) -> tuple[RequestKey, TaskKey]:
        """Return what identifies the row in every table of the recording."""
        return self.request, self.task


@dataclass
class _Sums:
    """What is added up of the calls of a row; as in `LiveRow`."""

    count: int = 0
    new: int = 0
    matched: int = 0
    mismatched: int = 0
    unknown: int = 0
    bytes: int = 0
    failed: int = 0
    slow_ns: int = 0

    def add(self, other: "_Sums") -> None:
        for name in (part.name for part in fields(self)):
            setattr(self, name, getattr(self, name) + getattr(other, name))


_SumsByKey = dict[tuple[RequestKey, TaskKey], _Sums]


@dataclass(frozen=True)
class LiveTable:
    """All rows at one time.

    Attributes:
        seconds: since the start.
        interval: seconds since the previous table.
        count: calls since the start.
        rate: calls per second in the interval.
        distinct: distinct allocations, including columns that rows do not show.
        matched: calls since the start, as in a row.
        mismatched: calls since the start, as in a row.
        unknown: calls since the start, as in a row.
        totals: the recorder's counts, such as lost and missed.
        rows: in no order.
        slow_rate: calls of the slow path per second in the interval; None where it is not recorded.
        failed_rate: the same for those that got no page; None where they are not counted.
        slow_ns: time of all calls in the slow path, in ns; None where it is not recorded.
        slowest_ns: of the call that took longest there; None likewise.
    """

    seconds: float
    interval: float
    count: int
    rate: float
    distinct: int
    matched: int
    mismatched: int
    unknown: int
    totals: Totals
    rows: tuple[LiveRow, ...]
    slow_rate: float | None = None
    failed_rate: float | None = None
    slow_ns: int | None = None
    slowest_ns: int | None = None


class JudgedAllocations:
    """The distinct allocations of a recording with their verdicts; each is judged once, whichever task makes it.

    Attributes:
        kernel: the recorded kernel.
        inferred: the facts that the recording infers, which are known once it is attached.
        slow_requests: the requests of the calls of the slow path.

    Args:
        snapshot: of the recording.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.kernel = Kernel.of(snapshot)
        self.inferred = NOTHING_INFERRED
        self._allocations = pa.array([], ALLOCATION)
        self._request_codes: dict[RequestKey, int] = {}
        self._codes: list[int] = []
        self._shown = Shown()
        self._judge: Judge | None = None
        self._judged: list[RowVerdict] = []
        self._shared = SharedVerdicts()
        self._followed = True
        self._failed = np.zeros(0, np.bool_)
        self._pages = np.zeros(0, np.int64)
        self.slow_requests = SlowRequests(self.kernel)

    def update(self, seen: Observation) -> None:
        """Judge the new allocations, or all again where something that verdicts depend on has changed."""
        have = len(self._allocations)
        self._allocations = seen.rows.allocations
        for row in python_rows(self._allocations, have):
            self._codes.append(self._request_codes.setdefault(request_key(row), len(self._request_codes)))
            self._shown.add(row)
        judge = Judge.of(self.kernel, self._shown, seen.totals, self.inferred)
        if judge != self._judge:
            self._judge = judge
            self._judged = []
        self._use_results(have)
        self._judged += (self._shared(judge(row)) for row in python_rows(self._allocations, len(self._judged)))

    def _use_results(self, have: int) -> None:
        """Find what the new allocations returned."""
        table = pa.Table.from_arrays(self._allocations.slice(have).flatten(), names=KEYS)
        outcomes = outcomes_of(table)
        self._followed = self._followed and followed(table, outcomes)
        self._failed = np.concatenate([self._failed, failed_of(outcomes).to_numpy()])
        self._pages = np.concatenate([self._pages, pages_of(table).to_numpy()])

    @property
    def followed(self) -> bool:
        """Return whether every call shows what it returned."""
        return self._followed

    def failed(self) -> npt.NDArray[np.bool_]:
        """Return for each allocation whether its calls are known to have returned no page."""
        return self._failed

    def pages(self) -> npt.NDArray[np.int64]:
        """Return for each allocation the pages that one of its calls got."""
        return self._pages

    def row(self, index: int) -> Row:
        """Return an allocation as a mapping from column to Python value."""
        row: Row = self._allocations[index].as_py()
        return row

    def judged(self, index: int) -> RowVerdict:
        """Return the verdict on an allocation."""
        return self._judged[index]

    def code(self, request: RequestKey) -> int | None:
        """Return the index of a request in `request_keys`; None if no allocation has it."""
        return self._request_codes.get(request)

    def request_keys(self) -> list[RequestKey]:
        """Return the distinct requests that a table shows."""
        return list(self._request_codes)

    def codes(self) -> npt.NDArray[np.int32]:
        """Return for each allocation the index of its request in `request_keys`."""
        return np.array(self._codes, np.int32)

    def verdicts(self) -> npt.NDArray[np.int8]:
        """Return the verdict on each allocation as a number."""
        numbers = (_UNKNOWN if j.unknown else _MISMATCHED if j.differences else _MATCHED for j in self._judged)
        return np.fromiter(numbers, np.int8, len(self._judged))


def request_key(row: Row) -> RequestKey:
    """Return the part of an allocation that a table shows."""
    names = ("gfp_mask", "order", "preferred_node", "preferred_zone", "migratetype", "alloc_flags")
    return RequestKey(row["entry"], *(row[name] for name in names))


def live_table(
    allocations: JudgedAllocations,
    before: Observation | None,
    now: Observation,
    by: By,
    selection: Selection = EVERY_CALL,
) -> LiveTable:
    """Return the table of an observation.

    Args:
        allocations: updated with `now`.
        before: an earlier observation of the same recording; None for its start. One that `now` does not follow counts
            as None.
        now: the observation.
        by: what a row groups calls by. Without tasks in the recording it is always the request.
        selection: the calls that rows count; the counts of the table itself are of all calls.
    """
    if before is not None and not now.follows(before):
        before = None
    counts = now.counts
    new = counts if before is None else counts - now.counts_at(before)
    interval = now.seconds - (0.0 if before is None else before.seconds)
    indices = now.rows.indices
    verdicts, failed = allocations.verdicts()[indices], allocations.failed()[indices]
    columns = {
        "code": pa.array(allocations.codes()[indices]),
        **_task_columns(now, by),
        "count": pa.array(counts),
        "new": pa.array(new),
        **{
            name: pa.array(np.where(verdicts == number, counts, 0))
            for number, name in ((_MATCHED, "matched"), (_MISMATCHED, "mismatched"), (_UNKNOWN, "unknown"))
        },
        "bytes": pa.array(counts.astype(np.int64) * allocations.pages()[indices] * PAGE_SIZE),
        "failed": pa.array(np.where(failed, counts, 0)),
    }
    matched, mismatched, unknown = (
        int(columns[name].sum().as_py() or 0) for name in ("matched", "mismatched", "unknown")
    )
    sums: _SumsByKey = {}
    if not selection.only_slow:
        chosen = pa.table(columns)
        _add_calls(sums, allocations, chosen.filter(pa.array(failed)) if selection.failed else chosen)
    if now.totals.slow is not None:
        _add_slow_calls(sums, allocations, before, now, by=by, selection=selection)
    return LiveTable(
        seconds=now.seconds,
        interval=interval,
        count=int(counts.sum()),
        rate=_rate(int(new.sum()), interval),
        distinct=int(np.count_nonzero(counts_of(now.rows))),
        matched=matched,
        mismatched=mismatched,
        unknown=unknown,
        totals=now.totals,
        rows=tuple(_rows(sums, allocations, now.totals, interval)),
        slow_rate=_total_rate("slow", before, now),
        failed_rate=_total_rate("slow_failed", before, now),
        slow_ns=None if now.totals.slow is None else int(now.slow.ns.sum()),
        slowest_ns=None if now.totals.slow is None else now.slow.longest,
    )


def _total_rate(name: Literal["slow", "slow_failed"], before: Observation | None, now: Observation) -> float | None:
    count = getattr(now.totals, name)
    if count is None:
        return None
    had, begin = (0, 0.0) if before is None else (getattr(before.totals, name) or 0, before.seconds)
    return _rate(max(0, count - had), now.seconds - begin)


def _add_calls(sums: _SumsByKey, allocations: JudgedAllocations, table: pa.Table) -> None:
    """Add up calls by the columns of a table that are no sums."""
    keys = [name for name in table.column_names if name not in _SUMS]
    groups = table.group_by(keys, use_threads=False).aggregate([(name, "sum") for name in _SUMS])
    requests = allocations.request_keys()
    empty = [None] * groups.num_rows
    tasks = [groups[name].to_pylist() if name in keys else empty for name in TaskKey._fields]
    numbers = [groups[f"{name}_sum"].to_pylist() for name in _SUMS]
    for code, comm, pid, stack, *added in zip(groups["code"].to_pylist(), *tasks, *numbers, strict=True):
        sums[requests[code], TaskKey(comm, pid, stack)] = _Sums(*added)


def _add_slow_calls(
    sums: _SumsByKey,
    allocations: JudgedAllocations,
    before: Observation | None,
    now: Observation,
    *,
    by: By,
    selection: Selection,
) -> None:
    """Add what the rows do not show of calls of the slow path: their time, failures and, where only they do, calls."""
    had = np.zeros(0, np.uint64) if before is None else before.slow.calls
    new = (now.slow.calls - np.pad(had, (0, len(now.slow.calls) - len(had)))).tolist()
    requests, verdicts = allocations.slow_requests.of(now), _verdicts_of_requests(allocations, now)
    columns = set(_task_columns(now, by))
    counted = selection.counts_slow_calls(followed=allocations.followed)
    numbers = zip(now.slow.calls.tolist(), new, now.slow.ns.tolist(), strict=True)
    for key, (calls, added, ns) in zip(now.slow.keys, numbers, strict=False):
        if not calls or (selection.failed and not key.failed) or (selection.only_slow and not key.longer):
            continue
        request = requests[key.given]
        stack = from_entry(allocations.kernel.features.entry, key.stack)
        task = TaskKey(*(value if name in columns else None for name, value in _named(key, stack)))
        part = _Sums(slow_ns=ns)
        if counted:
            part.count, part.new, part.bytes = calls, added, calls * slow_call_bytes(request.order, failed=key.failed)
            setattr(part, verdicts.get(request, "unknown"), calls)
        if key.failed and (counted or not allocations.followed):
            part.failed = calls
        sums.setdefault((request, task), _Sums()).add(part)


def _named(key: SlowKey, stack: str | None) -> tuple[tuple[str, Any], ...]:
    return ("comm", key.comm), ("pid", key.pid), ("stack", stack)


def _verdicts_of_requests(allocations: JudgedAllocations, now: Observation) -> dict[RequestKey, str]:
    """Return the verdict of each request whose calls all have the same one: the name of its sum."""
    present = np.flatnonzero(counts_of(now.rows))
    codes, verdicts = allocations.codes()[present].tolist(), allocations.verdicts()[present].tolist()
    found: dict[int, int] = {}
    for code, verdict in zip(codes, verdicts, strict=True):
        found[code] = verdict if found.get(code, verdict) == verdict else _UNKNOWN
    names, requests = {_MATCHED: "matched", _MISMATCHED: "mismatched", _UNKNOWN: "unknown"}, allocations.request_keys()
    return {requests[code]: names[verdict] for code, verdict in found.items()}


def _rows(sums: _SumsByKey, allocations: JudgedAllocations, totals: Totals, interval: float) -> Iterator[LiveRow]:
    slow = totals.slow is not None
    all_new = sum(row.new for row in sums.values())
    for (request, task), row in sums.items():
        yield LiveRow(
            request=request,
            task=task,
            count=row.count,
            new=row.new,
            rate=_rate(row.new, interval),
            share=row.new / all_new if all_new else 0.0,
            matched=row.matched,
            mismatched=row.mismatched,
            unknown=row.unknown,
            bytes=row.bytes,
            failed=row.failed if slow or allocations.followed else None,
            slow_ns=row.slow_ns if slow else None,
        )


def members(allocations: JudgedAllocations, now: Observation, row: LiveRow, by: By) -> list[tuple[int, int]]:
    """Return the index and count of each allocation in a row: mismatches first, then by count.

    Args:
        allocations: updated with `now`.
        now: the observation that the table shows, or a later one.
        row: a row of the table.
        by: what the row groups calls by.
    """
    code = allocations.code(row.request)
    chosen = allocations.codes()[now.rows.indices] == (-1 if code is None else code)
    for name, column in _task_columns(now, by).items():
        selected = getattr(row.task, name)
        chosen &= np.array([value == selected for value in column.to_pylist()], np.bool_)
    sums: dict[int, int] = {}
    for index, count in zip(now.rows.indices[chosen].tolist(), now.counts[chosen].tolist(), strict=True):
        sums[index] = sums.get(index, 0) + count
    return sorted(sums.items(), key=lambda item: (not allocations.judged(item[0]).differences, -item[1]))


def sort_names(by: By, fields: Collection[SortName] | None = None) -> tuple[SortName, ...]:
    """Return the columns that a table has.

    Args:
        by: what a row groups calls by.
        fields: the only fields that rows show; None for all.
    """
    if fields is not None:
        return tuple(name for name in get_args(SortName) if name in {*_NUMBERS, *fields})
    absent = {"request": {"comm", "pid", "stack"}, "task": {"stack"}, "stack": set()}[by]
    return tuple(name for name in get_args(SortName) if name not in absent)


def sorts_descending(name: SortName) -> bool:
    """Return whether the largest value comes first by default."""
    return name in {*_NUMBERS, "order"}


def sorted_rows(rows: Sequence[LiveRow], name: SortName, tables: FlagTables, *, descending: bool) -> list[LiveRow]:
    """Return rows in the order of a column: rows without a value last, equal ones by rate."""
    value = _SORT_VALUES[name]
    busiest = sorted(rows, key=lambda row: (row.rate, row.count), reverse=True)
    valued = [(value(row, tables), row) for row in busiest]
    present = [pair for pair in valued if pair[0] is not None]
    present.sort(key=lambda pair: pair[0], reverse=descending)
    return [row for _, row in present] + [row for found, row in valued if found is None]


def zone_name(row: LiveRow, tables: FlagTables) -> str | None:
    """Return the name of the preferred zone: None without one, "?" where it is not known."""
    zone = row.request.zone
    return None if zone is None else "?" if zone < 0 else tables.zone_name(zone)


def migratetype_name(row: LiveRow, tables: FlagTables) -> str | None:
    """Return the name of the migratetype; None where the request was rejected."""
    value = row.request.migratetype
    return None if value is None else tables.migratetype_name(value)


def gfp_text(row: LiveRow, tables: FlagTables) -> str:
    """Return the gfp mask as the recorded kernel prints it."""
    return decode_gfp(row.request.gfp_mask, tables).text or "0"


def alloc_text(row: LiveRow, tables: FlagTables) -> str | None:
    """Return the names of alloc_flags; None where the request was rejected or they were not captured."""
    value = row.request.alloc_flags
    return None if value is None else decode_alloc(value, tables).text


_NUMBERS: tuple[SortName, ...] = ("rate", "count", "share", "bytes", "failed", "time", "verdict")
"""The columns of every table."""
_VERDICT_ORDER = {"ok": 0, "unknown": 1, "MISMATCH": 2}

_SORT_VALUES: dict[str, Callable[[LiveRow, FlagTables], Any]] = {
    "rate": lambda row, _: row.rate,
    "count": lambda row, _: row.count,
    "share": lambda row, _: row.share,
    "bytes": lambda row, _: row.bytes,
    "failed": lambda row, _: row.failed,
    "time": lambda row, _: row.slow_ns,
    "comm": lambda row, _: row.task.comm,
    "pid": lambda row, _: row.task.pid,
    "stack": lambda row, _: row.task.stack,
    "gfp": gfp_text,
    "order": lambda row, _: row.request.order,
    "node": lambda row, _: row.request.node,
    "zone": lambda row, _: row.request.zone,
    "migratetype": lambda row, _: row.request.migratetype,
    "alloc_flags": alloc_text,
    "verdict": lambda row, _: _VERDICT_ORDER[row.verdict],
}


def _rate(calls: int, seconds: float) -> float:
    return calls / seconds if seconds > 0 else 0.0


def _task_columns(now: Observation, by: By) -> dict[str, pa.Array]:
    names = {"request": (), "task": ("comm", "pid"), "stack": TaskKey._fields}[by]
    return {name: now.rows.task_columns[name] for name in names if name in now.rows.task_columns}
