# SPDX-License-Identifier: MIT
"""The summary of a trace: totals, and the allocations broken down by request, preparation and caller."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.preempt import context_name
from kalloctrace.report.amount import Amount
from kalloctrace.report.callers import Callers
from kalloctrace.report.slow_time import SlowTime
from kalloctrace.text import file_name
from kalloctrace.trace.audited import audit_json
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import Tally
from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.trace.results import PAGE_SIZE, pages_of
from kalloctrace.trace.schema import COUNT, TRACEPOINT, frames_of
from kalloctrace.trace.totals import Totals, missed_json
from kalloctrace.verify.verification import Verification, verify_counted


@dataclass(frozen=True)
class Part:
    """Allocations with the same value of a property.

    Attributes:
        label: the value, for people.
        key: the value, for scripts.
        amount: of the allocations.
    """

    label: str
    key: dict[str, Any]
    amount: Amount


@dataclass(frozen=True)
class Breakdown:
    """All allocations of a trace, by one property.

    Attributes:
        name: of the property, such as "gfp".
        parts: largest count first.
    """

    name: str
    parts: tuple[Part, ...]

    def rest(self, top: int) -> Amount:
        """Return the sum of all parts after the first `top`."""
        rest = Amount()
        for part in self.parts[top:]:
            rest.add(part.amount)
        return rest

    def to_json(self, allocations: int, top: int) -> dict[str, Any]:
        """Return the first `top` parts, and the sum of the others or null, as JSON values."""
        hidden = len(self.parts) - top
        return {
            "rows": [{**part.key, **part.amount.to_json(allocations)} for part in self.parts[:top]],
            "other": {"rows": hidden, **self.rest(top).to_json(allocations)} if hidden > 0 else None,
        }


@dataclass
class Summary:
    """The contents of a trace. For a sample all numbers except the recorder's own are scaled up: estimates.

    Attributes:
        trace: the file's name.
        snapshot: the kernel and machine that were recorded.
        recording: how the trace was made, as the recorder wrote it.
        aggregate: the trace has no times and no callers.
        sample: one call in this many was recorded.
        totals: the recorder's counts; None where the end of the recording is missing.
        damage: what stopped the reading before the end; empty where the file simply ended.
        rows: recorded calls, not scaled up.
        all: all allocations.
        failed: allocations known to have returned no page.
        rejected: allocations without a call of get_page_from_freelist(), except those of the bulk allocator.
        slow_path: allocations known to have called get_page_from_freelist() more than once.
        not_followed: allocations whose return was not traced; whether they failed or were slow is not known.
        events: events of another tool; whether they were slow or rejected is not known.
        first: time of the first allocation in ns; None without times.
        last: time of the last allocation in ns.
        slow: the time in the slow path; None if it was not recorded.
        by: the breakdowns.
    """

    trace: str
    snapshot: Snapshot
    recording: Mapping[str, Any]
    aggregate: bool = False
    sample: int = 1
    totals: Totals | None = None
    damage: str = ""
    rows: int = 0
    all: Amount = field(default_factory=Amount)
    failed: int = 0
    rejected: int = 0
    slow_path: int = 0
    not_followed: int = 0
    events: int = 0
    first: int | None = None
    last: int = 0
    slow: SlowTime | None = None
    by: tuple[Breakdown, ...] = ()

    @property
    def seconds(self) -> float:
        """Return how long the recording lasted; for a truncated one the time from its first to its last allocation."""
        if self.totals is not None:
            return self.totals.seconds
        return 0.0 if self.first is None else (self.last - self.first) / 1e9

    @property
    def lost(self) -> int | None:
        """Return how many captured allocations are not in the trace; None where the end of the recording is missing."""
        if self.totals is None:
            return None
        return self.totals.lost + max(0, self.totals.submitted - self.rows)

    def to_json(self, verdict: Verification, top: int) -> dict[str, Any]:
        """Return the summary as JSON values; the schema is `report`.

        Args:
            verdict: on the same trace.
            top: number of rows in each breakdown.
        """
        count, totals = self.all.count, self.totals
        return {
            "type": "report",
            "trace": self.trace,
            "kernel": self.snapshot.release,
            "version": self.snapshot.version,
            "nodes": [{"nid": nid, "zones": zones} for nid, zones in populated_zones(self.snapshot)],
            "recording": dict(self.recording),
            "seconds": round(self.seconds, 6),
            "ended": totals.reason if totals else None,
            "allocations": count,
            "pages": self.all.pages,
            "bytes": self.all.pages * PAGE_SIZE,
            "per_second": round(count / self.seconds, 3) if self.seconds > 0 else None,
            "estimated": self.sample > 1,
            "sample": self.sample,
            "failed": self.failed,
            "rejected": self.rejected,
            "slow_path": self.slow_path,
            "not_followed": self.not_followed,
            "events": self.events,
            "slow_calls": totals.slow if totals else None,
            "slow_failed": totals.slow_failed if totals else None,
            "slow_lost": totals.slow_lost + totals.slow_missed if totals and totals.slow is not None else None,
            **({"slow_ns": None, "slow_parts": None, "slowest": None} if self.slow is None else self.slow.to_json()),
            "lost": self.lost,
            "missed": totals.missed if totals else None,
            **missed_json(totals),
            "audit": audit_json(totals.audit if totals else None),
            "own": totals.own if totals else None,
            "filtered": totals.filtered if totals else None,
            "running": totals.running if totals else None,
            "truncated": totals is None,
            "damage": self.damage,
            "by": {
                **dict.fromkeys(prop.name for prop in _PROPERTIES),
                **{breakdown.name: breakdown.to_json(count, top) for breakdown in self.by},
            },
            "verification": {
                "matched": verdict.matched,
                "mismatched": verdict.mismatched,
                "unknown": verdict.unknown,
                "not_judged": dict(verdict.not_judged),
            },
        }


class SummaryCounter:
    """Counts the contents of a trace batch by batch; memory grows with the distinct values, not with the rows.

    Attributes:
        tally: how often each distinct allocation occurred.
        slow: the time in the slow path, whose calls are added to it; None if it was not recorded.

    Args:
        trace: the trace.
    """

    def __init__(self, trace: TraceReader) -> None:
        self.tally = Tally()
        self._trace = trace
        self._callers = Callers()
        self.slow = SlowTime() if trace.recording.get("slow") else None

    def add(self, rows: RowBatch) -> None:
        """Count a batch."""
        self.tally.add(rows.allocations, rows.indices, rows.counts)
        if not self._trace.aggregate:
            self._callers.add(rows)
        elif self._trace.by == "comm":
            self._callers.add_counts(rows)

    def summary(self, ending: Ending, *, breakdowns: bool = True) -> Summary:
        """Return the summary, once all batches are counted.

        Args:
            ending: how the trace ends.
            breakdowns: with the breakdowns, which take a kilobyte for each value.
        """
        trace, callers = self._trace, self._callers
        summary = Summary(
            trace=file_name(trace.path),
            snapshot=trace.snapshot,
            recording=trace.recording,
            aggregate=trace.aggregate,
            sample=trace.sample,
            totals=ending.totals,
            damage=ending.damage,
            first=callers.first,
            last=callers.last,
            slow=self.slow,
        )
        table = _weighted(self.tally.table())
        _count_totals(summary, table)
        if not breakdowns:
            return summary
        groups = {prop.name: _groups(table, prop.columns) for prop in _PROPERTIES if prop.columns}
        if trace.has("comm"):
            groups["comm"] = callers.tasks
        if trace.has("stack"):
            groups["stack"] = callers.stacks
        summary.by = tuple(
            _breakdown(prop, groups[prop.name], trace.snapshot, summary.sample)
            for prop in _PROPERTIES
            if prop.name in groups
        )
        return summary


def summarize(trace: TraceReader) -> tuple[Summary, Verification]:
    """Read a trace once, and return its summary and the model's verdict on its rows.

    Raises:
        KalloctraceError: the trace's snapshot lacks something that every kernel has.
    """
    counter = SummaryCounter(trace)
    ending = trace.read(rows=counter.add, slow_call=None if counter.slow is None else counter.slow.add)
    return counter.summary(ending), verify_counted(trace, counter.tally.rows(), ending)


def slow_path_totals(summary: Summary) -> Totals | None:
    """Return the totals where the slow path's recording knows more about failures: not every return was traced."""
    totals = summary.totals
    known = totals is not None and totals.slow is not None and summary.sample == 1
    return totals if known and summary.not_followed else None


def only_events(summary: Summary) -> bool:
    """Return whether all rows are events of another tool, which do not show get_page_from_freelist()."""
    return 0 < summary.events == summary.all.count


def populated_zones(snapshot: Snapshot) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield each online node's id and its zones that have memory: name and present pages."""
    for node in snapshot.machine.nodes:
        yield (
            node.nid,
            [
                {"zone": snapshot.tables.zone_name(zone.index), "present_pages": zone.present_pages}
                for zone in node.zones
                if zone.present_pages
            ],
        )


def frames_from_entry(snapshot: Snapshot, stack: str) -> list[str]:
    """Return the functions of a stack, innermost first, from the page allocator's entry outward."""
    frames = frames_of(stack)
    # Functions further in belong to the probe.
    entry = snapshot.features.entry
    return frames[frames.index(entry) :] if entry in frames else frames


def _weighted(table: pa.Table) -> pa.Table:
    """Add the pages of all calls of each distinct allocation."""
    pages = pc.multiply(pages_of(table), table[COUNT.name].cast(pa.int64()))
    return table.append_column("pages", pages)


def _count_totals(summary: Summary, table: pa.Table) -> None:
    def calls(condition: pa.ChunkedArray) -> int:
        return _sum(table.filter(condition)[COUNT.name]) * summary.sample

    bulk = pc.equal(table["entry"], "bulk")
    summary.rows = _sum(table[COUNT.name])
    summary.all = Amount(summary.rows, _sum(table["pages"])).scaled(summary.sample)
    summary.failed = calls(pc.invert(table["page"]))
    # The bulk allocator never calls get_page_from_freelist().
    summary.rejected = calls(pc.and_(pc.equal(table["freelist_calls"], 0), pc.invert(bulk)))
    summary.slow_path = calls(pc.greater(table["freelist_calls"], 1))
    summary.not_followed = calls(pc.is_null(table["page"]))
    summary.events = calls(pc.equal(table["entry"], TRACEPOINT))


def _sum(column: pa.ChunkedArray) -> int:
    return pc.sum(column).as_py() or 0


def _groups(table: pa.Table, columns: tuple[str, ...]) -> dict[tuple[Any, ...], Amount]:
    grouped = table.group_by(list(columns), use_threads=False).aggregate([(COUNT.name, "sum"), ("pages", "sum")])
    names = (*columns, f"{COUNT.name}_sum", "pages_sum")
    rows = zip(*(grouped.column(name).to_pylist() for name in names), strict=True)
    return {tuple(key): Amount(count, pages) for *key, count, pages in rows}


class _Described(NamedTuple):
    """The meaning of a group's columns; groups with the same label are one part."""

    label: str
    key: dict[str, Any]


class _Property(NamedTuple):
    """A property to break allocations down by: the columns to group by, and the meaning of their values.

    Properties without columns are of the caller, not of the allocation; `Callers` counts them.
    """

    name: str
    columns: tuple[str, ...]
    describe: Callable[..., _Described]


def _breakdown(prop: _Property, counts: Mapping[tuple[Any, ...], Amount], snapshot: Snapshot, factor: int) -> Breakdown:
    parts: dict[str, Part] = {}
    for values, unscaled in counts.items():
        amount = unscaled.scaled(factor)
        label, key = prop.describe(snapshot, *values)
        if label not in parts:
            parts[label] = Part(label, key, amount)
            continue
        parts[label].amount.add(amount)
        if "pids" in key:
            parts[label].key["pids"].extend(key["pids"])
    return Breakdown(prop.name, tuple(sorted(parts.values(), key=lambda part: (-part.amount.count, part.label))))


def _gfp(snapshot: Snapshot, value: int) -> _Described:
    names = decode_gfp(value, snapshot.tables).text
    return _Described(f"{value:#x} {names}".rstrip(), {"gfp_mask": value, "text": names})


def _order(_: Snapshot, value: int) -> _Described:
    return _Described(str(value), {"order": value})


def _migratetype(snapshot: Snapshot, value: int | None) -> _Described:
    name = None if value is None else snapshot.tables.migratetype_name(value)
    return _Described(name or "none", {"migratetype": value, "name": name})


def _preferred_zone(snapshot: Snapshot, node: int | None, index: int | None) -> _Described:
    if node is None or index is None:
        return _Described("none", {"node": None, "zone": None})
    zone = snapshot.tables.zone_name(index) if index >= 0 else None
    return _Described(f"node {node} {zone or 'unknown'}", {"node": node, "zone": zone})


def _alloc_flags(snapshot: Snapshot, value: int | None) -> _Described:
    if value is None:
        return _Described("none", {"alloc_flags": None, "text": None})
    names = decode_alloc(value, snapshot.tables).text
    return _Described(f"{value:#x} {names}", {"alloc_flags": value, "text": names})


def _zonelist(_: Snapshot, kind: str | None, nodemask: str | None, nodes: str | None) -> _Described:
    key = {"kind": kind, "nodemask": nodemask, "nodes": nodes}
    if nodemask is None:
        return _Described("none", key)
    mask = "NULL" if nodemask == "null" else f"{nodemask} {nodes}"
    return _Described(f"{kind or 'unknown'}, nodemask {mask}", key)


def _context(snapshot: Snapshot, count: int | None, softirq_disable_cnt: int | None) -> _Described:
    name = None if count is None else context_name(snapshot.features, count, softirq_disable_cnt)
    return _Described(name or "not captured", {"context": name})


def _entry(_: Snapshot, name: str) -> _Described:
    return _Described(name, {"entry": name})


def _comm(_: Snapshot, comm: str, pid: int | None) -> _Described:
    return _Described(comm, {"comm": comm, "pids": [] if pid is None else [pid]})


def _stack(snapshot: Snapshot, stack: str | None) -> _Described:
    if stack is None:
        return _Described("not recorded", {"frames": None})
    frames = frames_from_entry(snapshot, stack)
    return _Described("\n".join(frames), {"frames": frames})


_PROPERTIES = (
    _Property("gfp", ("gfp_mask",), _gfp),
    _Property("order", ("order",), _order),
    _Property("migratetype", ("migratetype",), _migratetype),
    _Property("preferred_zone", ("preferred_node", "preferred_zone"), _preferred_zone),
    _Property("alloc_flags", ("alloc_flags",), _alloc_flags),
    _Property("comm", (), _comm),
    _Property("zonelist", ("zonelist_kind", "ac_nodemask", "ac_nodemask_nodes"), _zonelist),
    _Property("context", ("preempt_count", "softirq_disable_cnt"), _context),
    _Property("entry", ("entry",), _entry),
    _Property("stack", (), _stack),
)
