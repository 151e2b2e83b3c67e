# SPDX-License-Identifier: MIT
"""The data of a page, as JSON values: the input of its tables, charts and filters.

Repeated values are stored as numbers: a column of `rows` holds, for each distinct allocation, an index into the list of
that name in `values`; `texts` holds every other text. Mismatches come first, then failures, then the most frequent
allocations. Whatever exceeds a limit is summed in `rest`.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.preempt import context_name
from kalloctrace.report.headline import headline
from kalloctrace.report.page.apart import what_differs
from kalloctrace.report.page.cells import CellCounter, Cells, Counted, Numbers
from kalloctrace.report.page.explained import explained
from kalloctrace.report.page.slowpath import SlowChoice, SlowCounter, SlowLimits
from kalloctrace.report.page.texts import Texts
from kalloctrace.report.summary import Summary, SummaryCounter, frames_from_entry, only_events, slow_path_totals
from kalloctrace.report.summary_text import header_fields, total_fields
from kalloctrace.report.verification_text import zonelist_text
from kalloctrace.text import printable
from kalloctrace.trace.clock import Clock, clock_of
from kalloctrace.trace.containers import Containers, group_text
from kalloctrace.trace.dedup import KEYS, python_rows
from kalloctrace.trace.dedup import Counted as Rows
from kalloctrace.trace.inferred import Inferred
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.results import PAGE_SIZE, pages_of
from kalloctrace.trace.schema import COUNT, TRACEPOINT
from kalloctrace.verify.compare import RowVerdict
from kalloctrace.verify.field_text import value_text
from kalloctrace.verify.inferred import NOT_JUDGED
from kalloctrace.verify.verification import Verification, verify_counted
from kalloctrace.version import __version__

NONE = "none"
NOT_KNOWN = "not known"
OTHER_STACKS = "(other stacks)"
"""Replaces the stacks that exceed the limit of a page."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """Maximum numbers on a page, so that a browser stays responsive.

    Attributes:
        rows: distinct allocations.
        cells: cells over time, and as many by stack.
        explained: distinct allocations with the steps of the model.
        walkthroughs: of these, those with a whole walkthrough: the page's first.
        slow: limits of the slow path.
    """

    rows: int = 100_000
    cells: int = 200_000
    explained: int = 2_000
    walkthroughs: int = 100
    slow: SlowLimits = field(default_factory=SlowLimits)


def page_data(trace: TraceReader, limits: Limits) -> dict[str, Any]:
    """Read a trace twice, judge it, and return what its page shows.

    Args:
        trace: the trace.
        limits: of the page.

    Raises:
        KalloctraceError: the trace's snapshot lacks something that every kernel has.
    """
    # The second pass needs facts about the whole trace from the first: its span of time, the slow-path calls to show,
    # and its end, on which verdicts depend.
    counter, choice = SummaryCounter(trace), SlowChoice(trace.snapshot, limits.slow)
    slow_time = counter.slow

    def count_slow(call: Row) -> None:
        choice.add(call)
        if slow_time is not None:
            slow_time.add(call)

    ending = trace.read(rows=counter.add, slow_call=None if slow_time is None else count_slow)
    summary = counter.summary(ending, breakdowns=False)
    del counter
    clock = _clock(trace, summary.first, choice.first)
    cells = CellCounter(summary.first, summary.last)
    slow = None if slow_time is None else SlowCounter(trace, choice, ending, clock.began)
    trace.read(rows=cells.add, slow_call=None if slow is None else slow.add)
    counted = cells.counted()
    counts = counted.counts()
    table = pa.Table.from_arrays(counted.allocations.flatten(), KEYS).append_column(COUNT.name, pa.array(counts))
    judged: list[RowVerdict] = []
    # Without the verdicts on fields, which take a kilobyte.
    verdict = verify_counted(
        trace, Rows(table), ending, lambda one: judged.append(RowVerdict(one.differences, one.unknown))
    )
    texts = Texts()
    page = _Page(
        *(trace.snapshot, counted, judged, counts, limits),
        inferred=trace.inferred,
        containers=ending.containers,
        text=texts,
    )
    return {
        "type": "page",
        "kalloctrace": __version__,
        "trace": printable(summary.trace),
        "kernel": printable(summary.snapshot.release),
        "header": [[name, printable(text)] for name, text in header_fields(summary)],
        "headline": [[line.tone, printable(line.text)] for line in headline(summary)],
        "totals": [[name, number, printable(about)] for name, number, about in total_fields(summary)],
        "aggregate": summary.aggregate,
        "sample": summary.sample,
        "truncated": summary.totals is None,
        "damage": printable(summary.damage),
        "returns": _returns(summary),
        "events": only_events(summary),
        "page_size": PAGE_SIZE,
        "clock": {
            "began": clock.began,
            "event": clock.event,
            "wall": clock.wall_time(clock.began),
            "first": None if summary.first is None else summary.first - clock.began,
        },
        "seconds": summary.seconds,
        "verification": {
            **_verification(verdict, trace.snapshot),
            "slow": None if slow is None else slow.verdict_json(),
        },
        "slow": None if slow is None else slow.to_json(texts),
        **page.to_json(None if summary.first is None else summary.last - summary.first + 1),
        # Last, because everything above adds texts.
        "texts": texts.to_json(),
    }


def _clock(trace: TraceReader, *first: int | None) -> Clock:
    known = [time for time in first if time is not None]
    return clock_of(trace.recording, min(known, default=None), "the first call that has a time")


def _returns(summary: Summary) -> str:
    """Return for how many calls the return was traced: "all", "some" or "none".

    "slow": not for all, but the slow path was recorded, in which alone a call fails that was not rejected.
    """
    if not summary.not_followed:
        return "all"
    if slow_path_totals(summary) is not None:
        return "slow"
    return "none" if summary.not_followed == summary.all.count else "some"


def _verification(verdict: Verification, snapshot: Snapshot) -> dict[str, Any]:
    names = ("allocations", "distinct", "matched", "mismatched", "unknown", "bulk", "lost", "missed")
    zonelists = verdict.zonelists
    return {
        **{name: getattr(verdict, name) for name in names},
        "not_judged": [[rule, count, NOT_JUDGED[rule]] for rule, count in verdict.not_judged.most_common()],
        "proven": str(verdict.proven),
        "zonelists": {
            "reason": zonelists.reason,
            "nodes": zonelists.nodes,
            "mismatches": [
                {
                    "list": f"{mismatch.kind} of node {mismatch.nid}",
                    "expected": zonelist_text(mismatch.expected, snapshot.tables),
                    "observed": zonelist_text(mismatch.observed, snapshot.tables),
                    "rule": mismatch.rule,
                }
                for mismatch in zonelists.mismatches
            ],
        },
    }


class _Page:
    """The rows of a page, in the order in which it shows them."""

    def __init__(
        self,
        snapshot: Snapshot,
        counted: Counted,
        judged: Sequence[RowVerdict],
        counts: Numbers,
        limits: Limits,
        *,
        inferred: frozenset[Inferred],
        containers: Containers,
        text: Texts,
    ) -> None:
        self._inferred = inferred
        self._containers = containers
        self._snapshot = snapshot
        self._counted = counted
        self._limits = limits
        self._text = text
        outcomes = [_outcome(row) for row in python_rows(counted.allocations)]
        order = sorted(
            range(len(outcomes)),
            key=lambda number: (_urgency(judged[number], outcomes[number]), -int(counts[number])),
        )
        self._kept = order[: limits.rows]
        self._rows = counted.allocations.take(pa.array(self._kept, pa.int64()))
        self._judged = [judged[number] for number in self._kept]
        self._outcomes = [outcomes[number] for number in self._kept]
        self._pages = _pages(counted.allocations)
        self._beyond = np.array(order[limits.rows :], np.int64)
        self._counts = counts
        # What an event lacks is not known; it does not mean that there was nothing.
        first = next(python_rows(self._rows), None)
        self.missing = NOT_KNOWN if first is not None and first["entry"] == TRACEPOINT else NONE

    def to_json(self, span: int | None) -> dict[str, Any]:
        """Return the data to which the filters apply.

        Args:
            span: time from the first to the last call in ns; None where it is not known.
        """
        time, buckets, beyond_cells = self._time()
        callers, not_apart, beyond_callers = self._callers()
        stacks, frames = self._stacks(callers)
        groups, beyond_groups = self._split(self._renumbered(self._counted.groups), self._limits.cells)
        rows, values = self._columns()
        return {
            "rows": {**rows, "pages": self._pages[np.array(self._kept, np.int64)].tolist()},
            "values": {**values, "comm": [printable(name) for name in self._counted.comms]},
            "time": {"buckets": buckets, "span": span, **_columns_of(time)},
            "callers": {"frames": frames, "stacks": stacks, **_columns_of(callers)} if stacks else None,
            "groups": {"names": self._groups(), **_columns_of(groups)} if any(self._counted.paths) else None,
            "unknown": {str(i): self._text(one.unknown) for i, one in enumerate(self._judged) if one.unknown},
            **self._differing(),
            "apart": {str(row): self._text(text) for row, text in what_differs(self._rows, self._snapshot).items()},
            "missing": self.missing,
            "explained": dict(self._explained()),
            "limits": {"rows": self._limits.rows, "cells": self._limits.cells, "explained": self._limits.explained},
            "rest": {
                "rows": {"rows": len(self._beyond), **self._amount(self._beyond, self._counts[self._beyond])},
                "cells": beyond_cells,
                "stacks": not_apart,
                "callers": beyond_callers,
                "groups": self._rest(beyond_groups),
            },
        }

    def _columns(self) -> tuple[dict[str, list[int]], dict[str, list[Any]]]:
        """Return an index for each row and column, and the values by index."""
        rows: dict[str, list[int]] = {}
        values: dict[str, list[Any]] = {}
        keys: dict[str, list[Hashable]] = {name: [] for name in _COLUMNS}
        for row in python_rows(self._rows):
            for name, column in _COLUMNS.items():
                keys[name].append(column.key(row))
        for name, column in _COLUMNS.items():
            numbers, distinct = _numbered(keys.pop(name))
            described = [_with_missing(column.describe(self._snapshot, key), self.missing) for key in distinct]
            # Several keys may have the same meaning.
            places, labels = _numbered([repr(one) for one in described])
            rows[name] = [places[number] for number in numbers]
            meaning = dict(zip(places, described, strict=True))
            values[name] = [meaning[place] for place in range(len(labels))]
        rows["outcome"], values["outcome"] = _numbered(self._outcomes)
        rows["verdict"], values["verdict"] = _numbered([_verdict(judged) for judged in self._judged])
        return rows, values

    def _differing(self) -> dict[str, Any]:
        """Return the distinct lists of differences, and the index of the list of each mismatched row."""
        wrong = [number for number, judged in enumerate(self._judged) if judged.differences]
        kinds, differences = _numbered([self._differences(self._judged[number]) for number in wrong])
        return {"differs": dict(zip(map(str, wrong), kinds, strict=True)), "differences": differences}

    def _differences(self, judged: RowVerdict) -> tuple[tuple[int, ...], ...]:
        """Return the field, both values, the rule and its effect, of each difference."""
        tables = self._snapshot.tables
        return tuple(
            (
                self._text(difference.field),
                self._text(value_text(difference.field, difference.expected, tables)),
                self._text(value_text(difference.field, difference.observed, tables)),
                self._text(difference.rule),
                self._text(difference.effect),
            )
            for difference in judged.differences
        )

    def _explained(self) -> Iterator[tuple[str, list[Any]]]:
        """Yield row numbers with their sections: a heading, and pairs of a label and a text."""
        kernel = Kernel.of(self._snapshot)
        numbers = self._to_explain()
        with_walkthrough = set(self._kept[: self._limits.walkthroughs])
        for number in numbers:
            sections = explained(
                kernel, self._rows[number].as_py(), self._inferred, walkthrough=number in with_walkthrough
            )
            yield (
                str(number),
                [
                    [self._text(heading), [[self._text(label), self._text(text)] for label, text in fields]]
                    for heading, fields in sections
                ],
            )

    def _to_explain(self) -> list[int]:
        """Return the rows to explain: half are the first of the page, half have most calls or pages."""
        limit = self._limits.explained
        kept = np.array(self._kept, np.int64)
        calls, pages = self._counts[kept], self._counts[kept] * self._pages[kept]
        first = range(min(limit // 2, len(kept)))
        most = [number for pair in zip(np.argsort(-calls), np.argsort(-pages), strict=True) for number in pair]
        return sorted(list(dict.fromkeys([*first, *map(int, most)]))[:limit])

    def _time(self) -> tuple[Cells, int, dict[str, int]]:
        """Return the calls over time, at the finest resolution within the limit."""
        cells, buckets = self._renumbered(self._counted.time), self._counted.buckets
        while len(cells) > self._limits.cells and buckets > 1:
            cells, buckets = cells.halved(), (buckets + 1) // 2
        kept, beyond = self._split(cells, self._limits.cells)
        return kept, buckets, self._rest(beyond)

    def _callers(self) -> tuple[Cells, dict[str, int], dict[str, int]]:
        """Return the calls by stack, the amount with merged stacks, and the amount left out, both beyond the limit."""
        cells, limit = self._renumbered(self._counted.callers), self._limits.cells
        kept, beyond = self._split(cells, limit if len(cells) <= limit else limit // 2)
        others, lost = self._split(beyond.at(len(self._counted.stacks)), limit - len(kept))
        return kept.with_all(others), self._rest(beyond), self._rest(lost)

    def _renumbered(self, cells: Cells) -> Cells:
        """Return the cells of the kept rows, with the row numbers of the page."""
        numbers = np.full(len(self._counted.allocations), -1, np.int64)
        numbers[self._kept] = np.arange(len(self._kept))
        row = numbers[cells.row]
        return Cells(row, cells.comm, cells.x, cells.count).where(row >= 0)

    def _split(self, cells: Cells, room: int) -> tuple[Cells, Cells]:
        """Return the cells that fit, and the rest: mismatches and failures first, then the largest."""
        urgent = np.array([_urgency(*pair) for pair in zip(self._judged, self._outcomes, strict=True)], np.int64)
        pages = self._pages[np.array(self._kept, np.int64)]
        order = np.lexsort((-cells.count * (1 + pages[cells.row]), urgent[cells.row]))
        return cells.where(np.sort(order[:room])), cells.where(order[room:])

    def _rest(self, cells: Cells) -> dict[str, int]:
        rows = np.array(self._kept, np.int64)[cells.row]
        return {"cells": len(cells), **self._amount(rows, cells.count)}

    def _amount(self, rows: Numbers, counts: Numbers) -> dict[str, int]:
        return {"count": int(counts.sum()), "pages": int((self._pages[rows] * counts).sum())}

    def _groups(self) -> list[str]:
        """Return the name of each control group: its container's if that is known."""
        return [NONE if path is None else printable(group_text(path, self._containers)) for path in self._counted.paths]

    def _stacks(self, callers: Cells) -> tuple[list[list[int]], list[str]]:
        """Return each stack as indices of functions, innermost first, and the functions; empty without stacks."""
        if not any(self._counted.stacks):
            return [], []
        functions: dict[str, int] = {}
        stacks = [
            [
                functions.setdefault(printable(function), len(functions))
                for function in ([] if stack is None else frames_from_entry(self._snapshot, stack))
            ]
            for stack in self._counted.stacks
        ]
        referenced = set(callers.x.tolist())
        if len(stacks) in referenced:
            stacks.append([functions.setdefault(OTHER_STACKS, len(functions))])
        return [stack if number in referenced else [] for number, stack in enumerate(stacks)], list(functions)


def _columns_of(cells: Cells) -> dict[str, list[int]]:
    return {name: getattr(cells, name).tolist() for name in ("row", "comm", "x", "count")}


def _numbered(keys: Sequence[Hashable]) -> tuple[list[int], list[Any]]:
    known: dict[Hashable, int] = {}
    return [known.setdefault(key, len(known)) for key in keys], list(known)


def _pages(allocations: pa.StructArray) -> Numbers:
    """Return the pages that one call of each allocation got."""
    pages: npt.NDArray[np.int64] = pages_of(pa.Table.from_arrays(allocations.flatten(), KEYS)).to_numpy()
    return pages


def _outcome(row: Row) -> str:
    """Return the outcome of a call, as far as it was traced."""
    if row["page"]:
        return "page"
    if row["freelist_calls"] == 0 and row["entry"] != "bulk":
        return "rejected"
    return "not traced" if row["page"] is None else "failed"


def _verdict(judged: RowVerdict) -> str:
    return "unknown" if judged.unknown else "mismatched" if judged.differences else "matched"


def _urgency(judged: RowVerdict, outcome: str) -> int:
    """Return the rank of a row: mismatches, failures, rejected or unknown ones, the others."""
    if judged.differences and not judged.unknown:
        return 0
    if outcome == "failed":
        return 1
    return 2 if judged.unknown or outcome == "rejected" else 3


@dataclass(frozen=True)
class _Column:
    """A property of an allocation: the key to group by, and its meaning on a kernel, None where it is missing."""

    key: Callable[[Row], Hashable]
    describe: Callable[[Snapshot, Any], Any]


def _gfp(snapshot: Snapshot, value: int) -> dict[str, Any]:
    names = decode_gfp(value, snapshot.tables).text
    bits = [name for name, mask in snapshot.tables.gfp_bits if value & mask]
    return {"value": value, "text": f"{value:#x} {names}".rstrip(), "bits": bits}


def _alloc_flags(snapshot: Snapshot, value: int | None) -> dict[str, Any]:
    if value is None:
        return {"value": None, "text": None, "bits": []}
    decoded = decode_alloc(value, snapshot.tables)
    return {"value": value, "text": f"{value:#x} {decoded.text}", "bits": list(decoded.names)}


def _migratetype(snapshot: Snapshot, value: int | None) -> str | None:
    return None if value is None else snapshot.tables.migratetype_name(value).removeprefix("MIGRATE_")


def _zone(snapshot: Snapshot, index: int | None) -> str | None:
    if index is None:
        return None
    return snapshot.tables.zone_name(index) if index >= 0 else "unknown"


def _context(snapshot: Snapshot, key: tuple[int | None, int | None]) -> str:
    count, softirq_disable_cnt = key
    return "not captured" if count is None else context_name(snapshot.features, count, softirq_disable_cnt)


def _with_missing(described: Any, missing: str) -> Any:  # noqa: ANN401 whatever the column holds
    """Return a described value, or what the page shows for a missing one."""
    if isinstance(described, dict) and described["value"] is None:
        return {**described, "text": missing}
    return missing if described is None else described


def _plain(_: Snapshot, value: Any) -> Any:  # noqa: ANN401 whatever the column holds
    return value


_COLUMNS = {
    "entry": _Column(lambda row: row["entry"], _plain),
    "gfp": _Column(lambda row: row["gfp_mask"], _gfp),
    "order": _Column(lambda row: row["order"], _plain),
    "nid": _Column(lambda row: row["preferred_nid"], _plain),
    "node": _Column(lambda row: row["preferred_node"], _plain),
    "zone": _Column(lambda row: row["preferred_zone"], _zone),
    "migratetype": _Column(lambda row: row["migratetype"], _migratetype),
    "alloc_flags": _Column(lambda row: row["alloc_flags"], _alloc_flags),
    "context": _Column(lambda row: (row["preempt_count"], row["softirq_disable_cnt"]), _context),
}
