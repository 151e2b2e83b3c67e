# SPDX-License-Identifier: MIT
"""Answers a question: reads a trace batch by batch and adds up its groups."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.kernel import Kernel
from kalloctrace.report.query.fields import OF_ALLOCATION, OF_TASK, SlowCallValues, Value, as_json
from kalloctrace.report.query.question import Question, Sort, no_outcomes
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import KEYS, Tally, begins_with
from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.trace.results import (
    PAGE_SIZE,
    failed_of,
    followed,
    outcomes_of,
    pages_of,
    slow_call_bytes,
    slow_call_failed,
    slow_call_ns,
)
from kalloctrace.trace.schema import ALLOCATION
from kalloctrace.verify.slowpath.fast_path import CallerMasks, from_entry

MOST_GROUPS = 200_000
"""Groups that are kept: each takes half a kilobyte, and a recording of days has millions of processes."""

_SUMS = ("calls", "pages", "failed")


@dataclass
class Sums:
    """What is added up of the calls of a group. A sample's calls, bytes and failures are scaled up: estimates.

    Attributes:
        calls: calls.
        bytes: of the pages that they got; of the requested pages where it is not known whether they got them.
        failed: calls that returned no page.
        slow_ns: time in the slow path.
    """

    calls: int = 0
    bytes: int = 0
    failed: int = 0
    slow_ns: int = 0

    def add(self, other: "Sums") -> None:
        """Add other sums to these."""
        self.calls += other.calls
        self.bytes += other.bytes
        self.failed += other.failed
        self.slow_ns += other.slow_ns


@dataclass(frozen=True)
class Group:
    """Calls with the same values of all fields of a question."""

    key: tuple[Value, ...]
    sums: Sums


@dataclass
class Answer:
    """The groups of a question.

    Attributes:
        question: the question.
        snapshot: the kernel and machine that were recorded.
        ending: how the trace ends.
        timed: the slow path was recorded; without it `Sums.slow_ns` means nothing.
        sample: one call in this many was recorded.
        all: the sums of all groups.
    """

    question: Question
    snapshot: Snapshot
    ending: Ending
    timed: bool
    sample: int
    groups: list[Group]
    all: Sums = field(default_factory=Sums)

    def sorted(self, sort: Sort) -> list[Group]:
        """Return the groups, largest first; equal ones by their values, null first."""

        def rank(group: Group) -> tuple[Any, ...]:
            sums = group.sums
            amount = {"calls": sums.calls, "bytes": sums.bytes, "failed": sums.failed, "time": sums.slow_ns}[sort]
            return -amount, -sums.calls, *((value is not None, value) for value in group.key)

        return sorted(self.groups, key=rank)

    def to_json(self, group: Group) -> dict[str, Any]:
        """Return a group as JSON values; the schema is `group`."""
        sums = group.sums
        return {
            "type": "group",
            "by": as_json(self.question.by, group.key, self.snapshot, self.ending.containers),
            "calls": sums.calls,
            "bytes": sums.bytes,
            "failed": sums.failed,
            "slow_ns": sums.slow_ns if self.timed else None,
        }


def answer(trace: TraceReader, question: Question) -> Answer:
    """Answer a question; memory grows with the groups and the distinct allocations, not with the calls.

    Calls that failed come from the recording of the slow path where the calls themselves were not followed to their
    return.

    Raises:
        KalloctraceError: the trace does not have what the question is about (exit code 2), or it has too many groups.
    """
    question.check(trace)
    groups = _Groups(question)
    counter = _RowCounter(trace, question, groups)
    ending = trace.read(rows=counter.add)
    followed = counter.followed
    if "outcome" in question.by and not (followed or question.failed or question.only_slow):
        raise no_outcomes(trace)
    timed = bool(trace.recording.get("slow"))
    if timed:
        kernel = Kernel.of(trace.snapshot)
        masks = CallerMasks(kernel, counter.tally.rows())
        calls = trace.slow_calls()
        for call in calls:
            groups.add_slow_call(SlowCallValues(call, masks.of(call["given"]), kernel), followed=followed)
        if not ending.truncated:
            ending = replace(ending, slow_damage=calls.finish().damage)
    found = Answer(
        question, trace.snapshot, ending, timed, trace.sample, [Group(*item) for item in groups.sums.items()]
    )
    for group in found.groups:
        found.all.add(group.sums)
    return found


def check_groups(question: Question, groups: int) -> None:
    """Refuse one more group than these, where they are too many.

    Raises:
        KalloctraceError: they are.
    """
    if groups >= MOST_GROUPS:
        raise KalloctraceError(
            f"cannot group by {', '.join(question.by)}",
            f"there are more than {MOST_GROUPS:,} groups",
            "group by fewer fields, or select calls with --comm, --order, --gfp, --failed or --slower-than",
        )


class _Groups:
    """The groups so far."""

    def __init__(self, question: Question) -> None:
        self.sums: dict[tuple[Value, ...], Sums] = {}
        self._question = question

    def add(self, key: tuple[Value, ...], sums: Sums) -> None:
        if key not in self.sums:
            check_groups(self._question, len(self.sums))
        self.sums.setdefault(key, Sums()).add(sums)

    def add_slow_call(self, values: SlowCallValues, *, followed: bool) -> None:
        """Add what the rows do not show of a call of the slow path: its time, and whether it failed."""
        question, call = self._question, values.call
        order, duration, failed = call["given"]["order"], slow_call_ns(call), slow_call_failed(call)
        if not question.selects(call, values.gfp_mask):
            return
        sums = Sums(slow_ns=duration, failed=0 if followed and not question.only_slow else int(failed))
        if question.counts_slow_calls(followed=followed):
            # No row counts it.
            sums.calls, sums.bytes = 1, slow_call_bytes(order, failed=failed)
        self.add(tuple(map(values.of, question.by)), sums)


class _RowCounter:
    """Counts the rows of a trace.

    Attributes:
        tally: how often each distinct allocation occurred, of all calls.
        followed: every call shows what it returned.
    """

    def __init__(self, trace: TraceReader, question: Question, groups: _Groups) -> None:
        self.tally = Tally()
        self.followed = True
        self._entry = trace.snapshot.features.entry
        self._question = question
        self._groups = groups
        self._sample = trace.sample
        self._dictionary = pa.array([], ALLOCATION)
        self._keys: dict[tuple[Value, ...], int] = {}
        self._codes = np.zeros(0, np.int64)
        self._pages = np.zeros(0, np.int64)
        self._failed = np.zeros(0, np.bool_)

    def add(self, rows: RowBatch) -> None:
        """Count a batch."""
        self.tally.add(rows.allocations, rows.indices, rows.counts)
        self._use(rows.allocations)
        if self._question.only_slow:
            return
        selected = self._codes[rows.indices] >= 0
        if self._question.comms:
            comm = rows.task_columns["comm"]
            chosen = np.array([name.as_py() in self._question.comms for name in comm.dictionary], np.bool_)
            selected &= chosen[comm.indices.to_numpy()]
        at = np.flatnonzero(selected)
        if len(at):
            self._add(rows, at)

    def _add(self, rows: RowBatch, at: npt.NDArray[np.intp]) -> None:
        indices = rows.indices[at]
        counts = np.ones(len(at), np.int64) if rows.counts is None else rows.counts[at].astype(np.int64)
        columns: dict[str, Any] = {"code": self._codes[indices]}
        texts: dict[str, list[str | None]] = {}
        for name in self._question.by:
            if name not in OF_TASK:
                continue
            column = rows.task_columns[name].take(pa.array(at))
            if isinstance(column, pa.DictionaryArray):
                texts[name] = column.dictionary.to_pylist()
                column = column.indices
            columns[name] = column
        columns |= {"calls": counts, "pages": counts * self._pages[indices], "failed": counts * self._failed[indices]}
        names = [name for name in columns if name not in _SUMS]
        grouped = pa.table(columns).group_by(names, use_threads=False).aggregate([(name, "sum") for name in _SUMS])
        of_allocation = list(self._keys)
        values = {name: grouped[name].to_pylist() for name in names}
        for column, stored in texts.items():
            known = [from_entry(self._entry, text) for text in stored] if column == "stack" else stored
            values[column] = [None if code is None else known[code] for code in values[column]]
        sums = zip(*(grouped[f"{name}_sum"].to_pylist() for name in _SUMS), strict=True)
        for position, (calls, pages, failed) in enumerate(sums):
            shared = iter(of_allocation[values["code"][position]])
            key = tuple(values[name][position] if name in OF_TASK else next(shared) for name in self._question.by)
            scaled = Sums(calls * self._sample, pages * self._sample * PAGE_SIZE, failed * self._sample)
            self._groups.add(key, scaled)

    def _use(self, dictionary: pa.StructArray) -> None:
        """Find the group, pages and failure of each new allocation."""
        if dictionary is self._dictionary:
            return
        have = len(self._dictionary) if begins_with(dictionary, self._dictionary) else 0
        self._dictionary = dictionary
        table = pa.Table.from_arrays(dictionary.slice(have).flatten(), names=KEYS)
        outcomes = outcomes_of(table)
        self.followed = self.followed and followed(table, outcomes)
        failed = failed_of(outcomes)
        selected = self._selected(table, failed)
        columns = [
            (outcomes if name == "outcome" else table[OF_ALLOCATION[name]]).to_pylist()
            for name in self._question.by
            if name not in OF_TASK
        ]
        keys = zip(*columns, strict=True) if columns else iter([()] * table.num_rows)
        codes = [self._keys.setdefault(key, len(self._keys)) for key in keys]
        new = np.where(selected, np.array(codes, np.int64), -1)
        self._codes = np.concatenate([self._codes[:have], new])
        self._pages = np.concatenate([self._pages[:have], pages_of(table).to_numpy()])
        self._failed = np.concatenate([self._failed[:have], failed.to_numpy()])

    def _selected(self, table: pa.Table, failed: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        question = self._question
        selected = np.ones(table.num_rows, np.bool_)
        if question.orders is not None:
            orders = table["order"].to_numpy()
            selected &= (orders >= question.orders.start) & (orders < question.orders.stop)
        if question.gfp:
            selected &= (table["gfp_mask"].to_numpy() & question.gfp) == question.gfp
        if question.failed:
            selected &= failed.to_numpy()
        return selected
