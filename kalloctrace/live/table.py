# SPDX-License-Identifier: MIT
"""From two moments of a recording to the rows of a table: rates, counts, and the model's verdict."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.kernel import Kernel
from kalloctrace.trace.observation import Observation
from kalloctrace.trace.schema import TRACEPOINT
from kalloctrace.trace.tally import counts_of
from kalloctrace.trace.totals import Totals
from kalloctrace.verify.compare import Row, RowVerdict
from kalloctrace.verify.verification import Judge

By = Literal["request", "task", "stack"]
"""What a row stands for: a request and its preparation; the same of one task; the same from one kernel stack."""

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


class Asked(NamedTuple):
    """A request and what it was prepared with, as far as a row shows them.

    Attributes:
        entry: as in the trace.
        gfp_mask: the entry's argument.
        order: likewise.
        node: the preferred zone's; None where nothing was prepared, or no zone is eligible.
        zone: its index; -1 where the zone is not known.
        migratetype: None where nothing was prepared.
        alloc_flags: likewise.
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
        """Tell whether get_page_from_freelist() was not called, though it was not the bulk allocator that asked.

        Another tool's event does not tell.
        """
        return self.alloc_flags is None and self.entry not in {"bulk", TRACEPOINT}


class Who(NamedTuple):
    """Who asked; None for what is not known, or not told apart."""

    comm: str | None = None
    pid: int | None = None
    stack: str | None = None


@dataclass(frozen=True)
class LiveRow:
    """Calls that have all in common that the table tells apart.

    Attributes:
        asked: the request.
        who: who asked.
        count: calls since the beginning.
        new: those of them in the interval.
        rate: calls a second in the interval.
        share: of all calls of the interval.
        matched: calls since the beginning that were prepared as the model says.
        mismatched: those that differ.
        unknown: those that cannot be judged.
    """

    asked: Asked
    who: Who
    count: int
    new: int
    rate: float
    share: float
    matched: int
    mismatched: int
    unknown: int

    @property
    def verdict(self) -> Verdict:
        """Return the worst that is true of some of the calls."""
        return "MISMATCH" if self.mismatched else "unknown" if self.unknown else "ok"

    @property
    def key(self) -> tuple[Asked, Who]:
        """Return what tells the row from all others, at any time."""
        return self.asked, self.who


@dataclass(frozen=True)
class LiveTable:
    """All rows of one moment.

    Attributes:
        seconds: since the beginning.
        interval: seconds since the moment before.
        count: calls since the beginning.
        rate: calls a second in the interval.
        distinct: different allocations, also by what the rows do not show.
        matched: calls since the beginning, as in a row; so the next two.
        mismatched: likewise.
        unknown: likewise.
        totals: what is missing.
        rows: in no order.
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


class Known:
    """What is known of each allocation of a recording: each is described and judged once, whoever makes it.

    Attributes:
        kernel: the kernel that is recorded.
        rows: the allocations, as mappings from column to Python value.

    Args:
        snapshot: of the recording.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.kernel = Kernel.of(snapshot)
        self.rows: list[Row] = []
        self._asked: dict[Asked, int] = {}
        self._codes: list[int] = []
        self._judge: Judge | None = None
        self._judged: list[RowVerdict] = []

    def learn(self, seen: Observation) -> None:
        """Take in the allocations that are new. All are judged anew where what a verdict depends on has changed."""
        new: list[Row] = seen.rows.allocations[len(self.rows) :].to_pylist()
        self.rows += new
        self._codes += [self._asked.setdefault(asked_of(row), len(self._asked)) for row in new]
        judge = Judge.of(self.kernel, self.rows, seen.totals)
        if judge != self._judge:
            self._judge = judge
            self._judged = []
        self._judged += map(judge, self.rows[len(self._judged) :])

    def judged(self, index: int) -> RowVerdict:
        """Return the verdict on an allocation."""
        return self._judged[index]

    def code(self, asked: Asked) -> int:
        """Return which of `all_asked` this is."""
        return self._asked[asked]

    def all_asked(self) -> list[Asked]:
        """Return what the table shows, each once."""
        return list(self._asked)

    def codes(self) -> npt.NDArray[np.int32]:
        """Return which of these each allocation is."""
        return np.array(self._codes, np.int32)

    def verdicts(self) -> npt.NDArray[np.int8]:
        """Return the verdict on each allocation, as a number."""
        numbers = (_UNKNOWN if j.unknown else _MISMATCHED if j.differences else _MATCHED for j in self._judged)
        return np.fromiter(numbers, np.int8, len(self._judged))


def asked_of(row: Row) -> Asked:
    """Return what a table shows of an allocation."""
    names = ("gfp_mask", "order", "preferred_node", "preferred_zone", "migratetype", "alloc_flags")
    return Asked(row["entry"], *(row[name] for name in names))


def live_table(known: Known, before: Observation | None, now: Observation, by: By) -> LiveTable:
    """Return the table of a moment.

    Args:
        known: has learned the allocations of `now`.
        before: an earlier moment of the same recording; None for its beginning, as which one counts that is too old.
        now: the moment.
        by: what a row stands for. Where the recording does not know tasks, it is a request in any case.
    """
    if before is not None and not now.follows(before):
        before = None
    counts = now.counts
    new = counts if before is None else counts - now.counts_at(before)
    interval = now.seconds - (0.0 if before is None else before.seconds)
    verdicts = known.verdicts()[now.rows.indices]
    columns = {
        "code": pa.array(known.codes()[now.rows.indices]),
        **_who_columns(now, by),
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
        rows=tuple(_rows(known, pa.table(columns), int(new.sum()), interval)),
    )


def _rows(known: Known, table: pa.Table, all_new: int, interval: float) -> list[LiveRow]:
    keys = [name for name in table.column_names if name not in _SUMS]
    groups = table.group_by(keys, use_threads=False).aggregate([(name, "sum") for name in _SUMS])
    asked = known.all_asked()
    empty = [None] * groups.num_rows
    who = [groups[name].to_pylist() if name in keys else empty for name in Who._fields]
    sums = [groups[f"{name}_sum"].to_pylist() for name in _SUMS]
    return [
        LiveRow(
            asked[code],
            Who(comm, pid, stack),
            count,
            new,
            _rate(new, interval),
            new / all_new if all_new else 0.0,
            *verdicts,
        )
        for code, comm, pid, stack, count, new, *verdicts in zip(groups["code"].to_pylist(), *who, *sums, strict=True)
    ]


def members(known: Known, now: Observation, row: LiveRow, by: By) -> list[tuple[int, int]]:
    """Return the allocations that a row of the table is made of, and their counts: what differs first, then by count.

    Args:
        known: has learned the allocations of `now`.
        now: the moment that the table was made of, or a later one.
        row: a row of it.
        by: what the row stands for.
    """
    chosen = known.codes()[now.rows.indices] == known.code(row.asked)
    for name, column in _who_columns(now, by).items():
        wanted = getattr(row.who, name)
        chosen &= np.array([value == wanted for value in column.to_pylist()], np.bool_)
    sums: dict[int, int] = {}
    for index, count in zip(now.rows.indices[chosen].tolist(), now.counts[chosen].tolist(), strict=True):
        sums[index] = sums.get(index, 0) + count
    return sorted(sums.items(), key=lambda item: (not known.judged(item[0]).differences, -item[1]))


def sort_names(by: By) -> tuple[SortName, ...]:
    """Return the columns that there are to sort by."""
    absent = {"request": {"comm", "pid", "stack"}, "task": {"stack"}, "stack": set()}[by]
    return tuple(name for name in get_args(SortName) if name not in absent)


def descends(name: SortName) -> bool:
    """Tell whether the largest is wanted first, as of numbers of calls."""
    return name in {"rate", "count", "share", "order", "verdict"}


def arranged(rows: Sequence[LiveRow], name: SortName, tables: FlagTables, *, descending: bool) -> list[LiveRow]:
    """Return rows in the order of a column; what has no value comes last, and of equals the busiest first."""
    value = _SORT_VALUES[name]
    busiest = sorted(rows, key=lambda row: (row.rate, row.count), reverse=True)
    valued = [(value(row, tables), row) for row in busiest]
    present = [pair for pair in valued if pair[0] is not None]
    present.sort(key=lambda pair: pair[0], reverse=descending)
    return [row for _, row in present] + [row for found, row in valued if found is None]


def zone_name(row: LiveRow, tables: FlagTables) -> str | None:
    """Return the name of the preferred zone; None where there is none, and "?" where it is not known."""
    zone = row.asked.zone
    return None if zone is None else "?" if zone < 0 else tables.zone_name(zone)


def migratetype_name(row: LiveRow, tables: FlagTables) -> str | None:
    """Return the name of the migratetype; None where nothing was prepared."""
    value = row.asked.migratetype
    return None if value is None else tables.migratetype_name(value)


def gfp_text(row: LiveRow, tables: FlagTables) -> str:
    """Return the gfp mask as that kernel prints it."""
    return decode_gfp(row.asked.gfp_mask, tables).text or "0"


def alloc_text(row: LiveRow, tables: FlagTables) -> str | None:
    """Return alloc_flags in names; None where nothing was prepared, or it cannot be seen."""
    value = row.asked.alloc_flags
    return None if value is None else decode_alloc(value, tables).text


_VERDICT_ORDER = {"ok": 0, "unknown": 1, "MISMATCH": 2}

_SORT_VALUES: dict[str, Callable[[LiveRow, FlagTables], Any]] = {
    "rate": lambda row, _: row.rate,
    "count": lambda row, _: row.count,
    "share": lambda row, _: row.share,
    "comm": lambda row, _: row.who.comm,
    "pid": lambda row, _: row.who.pid,
    "stack": lambda row, _: row.who.stack,
    "gfp": gfp_text,
    "order": lambda row, _: row.asked.order,
    "node": lambda row, _: row.asked.node,
    "zone": lambda row, _: row.asked.zone,
    "migratetype": lambda row, _: row.asked.migratetype,
    "alloc_flags": alloc_text,
    "verdict": lambda row, _: _VERDICT_ORDER[row.verdict],
}


def _rate(calls: int, seconds: float) -> float:
    return calls / seconds if seconds > 0 else 0.0


def _who_columns(now: Observation, by: By) -> dict[str, pa.Array]:
    names = {"request": (), "task": ("comm", "pid"), "stack": Who._fields}[by]
    return {name: now.rows.task_columns[name] for name in names if name in now.rows.task_columns}
