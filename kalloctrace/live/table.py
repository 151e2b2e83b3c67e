# SPDX-License-Identifier: MIT
"""The rows of a live table, from two observations of a recording: rates, counts, and the model's verdicts."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.kernel import Kernel
from kalloctrace.trace.dedup import python_rows
from kalloctrace.trace.inferred import NOTHING_INFERRED
from kalloctrace.trace.observation import Observation
from kalloctrace.trace.schema import ALLOCATION, TRACEPOINT
from kalloctrace.trace.tally import counts_of
from kalloctrace.trace.totals import Totals
from kalloctrace.verify.compare import RowVerdict
from kalloctrace.verify.rows import Row
from kalloctrace.verify.verification import Judge, SharedVerdicts, Shown

By = Literal["request", "task", "stack"]
"""What a row groups calls by: the request and its preparation; these and the task; these, the task and the stack."""

SortName = Literal[
    "rate",
    "count",
    "share",
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
_SUMS = ("count", "new", "matched", "mismatched", "unknown")


class RequestKey(NamedTuple):
    """A request and its preparation, as far as a row shows them.

    Attributes:
        entry: as in the trace.
        gfp_mask: argument of the entry.
        order: argument of the entry.
        node: of the preferred zone; None where the request was rejected or no zone is eligible.
        zone: index of the preferred zone; -1 where the zone is not known.
        migratetype: None where the request was rejected.
        alloc_flags: of the first attempt; None where the request was rejected.
    """

    entry: str
    gfp_mask: int
    order: int
    node: int | None
    zone: int | None
    migratetype: int | None
    alloc_flags: int | None

    @property
    def rejected(self) -> bool:
        """Return whether get_page_from_freelist() was not called.

        The bulk allocator never calls it, and another tool's event does not show it: False for both.
        """
        return self.alloc_flags is None and self.entry not in {"bulk", TRACEPOINT}


class TaskKey(NamedTuple):
    """The task and stack of a call; None for what is not known, or not part of the row."""

    comm: str | None = None
    pid: int | None = None
    stack: str | None = None


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
    shown: frozenset[SortName] | None = None

    def shows(self, name: SortName) -> bool:
        """Return whether a field has a meaning."""
        return self.shown is None or name in self.shown

    @property
    def verdict(self) -> Verdict:
        """Return the worst verdict on any of the calls."""
        return "MISMATCH" if self.mismatched else "unknown" if self.unknown else "ok"

    @property
    def key(self) -> tuple[RequestKey, TaskKey]:
        """Return what identifies the row in every table of the recording."""
        return self.request, self.task


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


class JudgedAllocations:
    """The distinct allocations of a recording with their verdicts; each is judged once, whichever task makes it.

    Attributes:
        kernel: the recorded kernel.
        inferred: the facts that the recording infers, which are known once it is attached.

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
        self._judged += (self._shared(judge(row)) for row in python_rows(self._allocations, len(self._judged)))

    def row(self, index: int) -> Row:
        """Return an allocation as a mapping from column to Python value."""
        row: Row = self._allocations[index].as_py()
        return row

    def judged(self, index: int) -> RowVerdict:
        """Return the verdict on an allocation."""
        return self._judged[index]

    def code(self, request: RequestKey) -> int:
        """Return the index of a request in `request_keys`."""
        return self._request_codes[request]

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


def live_table(allocations: JudgedAllocations, before: Observation | None, now: Observation, by: By) -> LiveTable:
    """Return the table of an observation.

    Args:
        allocations: updated with `now`.
        before: an earlier observation of the same recording; None for its start. One that `now` does not follow counts
            as None.
        now: the observation.
        by: what a row groups calls by. Without tasks in the recording it is always the request.
    """
    if before is not None and not now.follows(before):
        before = None
    counts = now.counts
    new = counts if before is None else counts - now.counts_at(before)
    interval = now.seconds - (0.0 if before is None else before.seconds)
    verdicts = allocations.verdicts()[now.rows.indices]
    columns = {
        "code": pa.array(allocations.codes()[now.rows.indices]),
        **_task_columns(now, by),
        "count": pa.array(counts),
        "new": pa.array(new),
        **{
            name: pa.array(np.where(verdicts == number, counts, 0))
            for number, name in ((_MATCHED, "matched"), (_MISMATCHED, "mismatched"), (_UNKNOWN, "unknown"))
        },
    }
    matched, mismatched, unknown = (
        int(columns[name].sum().as_py() or 0) for name in ("matched", "mismatched", "unknown")
    )
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
        rows=tuple(_rows(allocations, pa.table(columns), int(new.sum()), interval)),
        slow_rate=_total_rate("slow", before, now),
        failed_rate=_total_rate("slow_failed", before, now),
    )


def _total_rate(name: Literal["slow", "slow_failed"], before: Observation | None, now: Observation) -> float | None:
    count = getattr(now.totals, name)
    if count is None:
        return None
    had, begin = (0, 0.0) if before is None else (getattr(before.totals, name) or 0, before.seconds)
    return _rate(max(0, count - had), now.seconds - begin)


def _rows(allocations: JudgedAllocations, table: pa.Table, all_new: int, interval: float) -> list[LiveRow]:
    keys = [name for name in table.column_names if name not in _SUMS]
    groups = table.group_by(keys, use_threads=False).aggregate([(name, "sum") for name in _SUMS])
    requests = allocations.request_keys()
    empty = [None] * groups.num_rows
    tasks = [groups[name].to_pylist() if name in keys else empty for name in TaskKey._fields]
    sums = [groups[f"{name}_sum"].to_pylist() for name in _SUMS]
    return [
        LiveRow(
            requests[code],
            TaskKey(comm, pid, stack),
            count,
            new,
            _rate(new, interval),
            new / all_new if all_new else 0.0,
            *verdicts,
        )
        for code, comm, pid, stack, count, new, *verdicts in zip(groups["code"].to_pylist(), *tasks, *sums, strict=True)
    ]


def members(allocations: JudgedAllocations, now: Observation, row: LiveRow, by: By) -> list[tuple[int, int]]:
    """Return the index and count of each allocation in a row: mismatches first, then by count.

    Args:
        allocations: updated with `now`.
        now: the observation that the table shows, or a later one.
        row: a row of the table.
        by: what the row groups calls by.
    """
    chosen = allocations.codes()[now.rows.indices] == allocations.code(row.request)
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
    return name in {"rate", "count", "share", "order", "verdict"}


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


_NUMBERS: tuple[SortName, ...] = ("rate", "count", "share", "verdict")
"""The columns of every table."""
_VERDICT_ORDER = {"ok": 0, "unknown": 1, "MISMATCH": 2}

_SORT_VALUES: dict[str, Callable[[LiveRow, FlagTables], Any]] = {
    "rate": lambda row, _: row.rate,
    "count": lambda row, _: row.count,
    "share": lambda row, _: row.share,
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
