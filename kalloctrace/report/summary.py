# SPDX-License-Identifier: MIT
"""What a trace holds, counted: totals, and the allocations broken down by whatever prepares them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.preempt import SOFTIRQ_OFFSET, ContextName, preempt_count
from kalloctrace.trace.gather import gathered
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.totals import Totals
from kalloctrace.verify.verification import Verification

PAGE_SIZE = 4096
_SOFTIRQ_MASK = 0xFF00
_COUNTER = 0xF
"""The hardirq and the NMI count are four bits each."""
_LARGEST_ORDER = 31
"""Only a damaged file holds a page of a larger order; its number of pages must still fit."""


@dataclass
class Amount:
    """How much there is of something.

    Attributes:
        count: allocations.
        pages: pages of 4 KiB that they got: 2^order each, 0 for one that failed; for a call of the bulk allocator the
            pages that were seen.
    """

    count: int = 0
    pages: int = 0

    def add(self, other: "Amount") -> None:
        """Add another amount to this one."""
        self.count += other.count
        self.pages += other.pages

    def to_json(self, allocations: int) -> dict[str, Any]:
        """Return the amount, and its share of all allocations, as JSON values."""
        share = round(self.count / allocations, 6) if allocations else 0.0
        return {"count": self.count, "share": share, "pages": self.pages}


@dataclass(frozen=True)
class Part:
    """Allocations that have something in common.

    Attributes:
        label: what they have in common, for people.
        key: the same for scripts.
        amount: how many they are.
    """

    label: str
    key: dict[str, Any]
    amount: Amount


@dataclass(frozen=True)
class Breakdown:
    """All allocations of a trace, divided by one property.

    Attributes:
        name: of the property, such as "gfp".
        parts: most allocations first.
    """

    name: str
    parts: tuple[Part, ...]

    def rest(self, top: int) -> Amount:
        """Return the sum of all but the first parts."""
        rest = Amount()
        for part in self.parts[top:]:
            rest.add(part.amount)
        return rest

    def to_json(self, allocations: int, top: int) -> dict[str, Any]:
        """Return the first parts, and the sum of the others or null, as JSON values."""
        hidden = len(self.parts) - top
        return {
            "rows": [{**part.key, **part.amount.to_json(allocations)} for part in self.parts[:top]],
            "other": {"rows": hidden, **self.rest(top).to_json(allocations)} if hidden > 0 else None,
        }


@dataclass
class Summary:
    """The contents of a trace.

    Attributes:
        trace: the file's name.
        snapshot: the kernel and machine that were recorded.
        recording: how it was made, as the recorder wrote it.
        totals: what was counted; None where the end of the recording is missing.
        damage: what stopped the reading before its end, empty where the file just ends.
        all: all allocations.
        failed: those that returned no page.
        rejected: those for which get_page_from_freelist() was not called, but for the bulk allocator's.
        slow_path: those for which it was called more than once.
        first: time of the first allocation, ns.
        last: time of the last one, ns.
        by: the breakdowns.
    """

    trace: str
    snapshot: Snapshot
    recording: Mapping[str, Any]
    totals: Totals | None = None
    damage: str = ""
    all: Amount = field(default_factory=Amount)
    failed: int = 0
    rejected: int = 0
    slow_path: int = 0
    first: int | None = None
    last: int = 0
    by: tuple[Breakdown, ...] = ()

    @property
    def seconds(self) -> float:
        """Return how long the recording lasted; from its first to its last allocation where it was cut off."""
        if self.totals is not None:
            return self.totals.seconds
        return 0.0 if self.first is None else (self.last - self.first) / 1e9

    @property
    def lost(self) -> int | None:
        """Return how many captured allocations are not in the trace; None where the recorder's count is missing."""
        if self.totals is None:
            return None
        return self.totals.lost + max(0, self.totals.submitted - self.all.count)

    def to_json(self, verdict: Verification, top: int) -> dict[str, Any]:
        """Return the summary as the command line promises it.

        Args:
            verdict: of the model on the same trace.
            top: rows of each breakdown.
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
            "failed": self.failed,
            "rejected": self.rejected,
            "slow_path": self.slow_path,
            "lost": self.lost,
            "missed": totals.missed if totals else None,
            "running": totals.running if totals else None,
            "truncated": totals is None,
            "damage": self.damage,
            "by": {breakdown.name: breakdown.to_json(count, top) for breakdown in self.by},
            "verification": {
                "matched": verdict.matched,
                "mismatched": verdict.mismatched,
                "unknown": verdict.unknown,
            },
        }


def summarize(trace: TraceReader) -> Summary:
    """Count what a trace holds, batch by batch: memory grows with the distinct values, not with the rows.

    Args:
        trace: a trace that has not been read yet.
    """
    summary = Summary(str(trace.path), trace.snapshot, trace.recording)
    counts: dict[str, dict[tuple[Any, ...], Amount]] = {prop.name: {} for prop in _PROPERTIES}
    for table in map(_with_pages, gathered(trace.batches())):
        _count_totals(summary, table)
        for prop in _PROPERTIES:
            _count_groups(counts[prop.name], table, prop.columns)
    summary.totals, summary.damage = trace.totals, trace.damage
    summary.by = tuple(_breakdown(prop, counts[prop.name], trace.snapshot) for prop in _PROPERTIES)
    return summary


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


def context_name(snapshot: Snapshot, count: int) -> ContextName:
    """Return the context that a raw preempt_count stands for on a kernel, the innermost first.

    An odd softirq count means that a softirq runs; disabling bottom halves counts by two.
    """
    hardirq = preempt_count(snapshot.features, "hardirq")
    if count & _COUNTER * preempt_count(snapshot.features, "nmi"):
        return "nmi"
    if count & _COUNTER * hardirq:
        return "hardirq"
    if count & SOFTIRQ_OFFSET:
        return "softirq"
    return "bh_disabled" if count & _SOFTIRQ_MASK else "task"


def _with_pages(table: pa.Table) -> pa.Table:
    """Add the pages that each row got; of a bulk call those that it took itself and that were looked at."""
    order = pc.min_element_wise(table["order"], pa.scalar(_LARGEST_ORDER, pa.uint32())).cast(pa.int64())
    pages = pc.if_else(table["page"], pc.shift_left(pa.scalar(1, pa.int64()), order), pa.scalar(0, pa.int64()))
    pages = pc.if_else(_bulk(table), pc.fill_null(table["bulk_seen"], 0).cast(pa.int64()), pages)
    return table.append_column("pages", pages)


def _count_totals(summary: Summary, table: pa.Table) -> None:
    calls = table["freelist_calls"]
    summary.all.add(Amount(table.num_rows, _sum(table["pages"])))
    summary.failed += _sum(pc.invert(table["page"]))
    summary.rejected += _sum(pc.and_(pc.equal(calls, 0), pc.invert(_bulk(table))))
    summary.slow_path += _sum(pc.greater(calls, 1))
    # Each CPU's rows are in order of time, those of all CPUs together need not be.
    times = pc.min_max(table["time"]).as_py()
    summary.first = times["min"] if summary.first is None else min(summary.first, times["min"])
    summary.last = max(summary.last, times["max"])


def _bulk(table: pa.Table) -> pa.ChunkedArray:
    """Return which rows are calls of the bulk allocator, none of which calls get_page_from_freelist()."""
    return pc.equal(table["entry"].cast(pa.utf8()), "bulk")


def _sum(column: pa.ChunkedArray) -> int:
    return pc.sum(column).as_py() or 0


def _count_groups(counts: dict[tuple[Any, ...], Amount], table: pa.Table, columns: tuple[str, ...]) -> None:
    grouped = table.group_by(list(columns), use_threads=False).aggregate([([], "count_all"), ("pages", "sum")])
    names = (*columns, "count_all", "pages_sum")
    for *key, count, pages in zip(*(grouped.column(name).to_pylist() for name in names), strict=True):
        counts.setdefault(tuple(key), Amount()).add(Amount(count, pages))


class _Described(NamedTuple):
    """What a group's columns mean: groups of the same label are one part."""

    label: str
    key: dict[str, Any]


class _Property(NamedTuple):
    """A way to divide allocations: the columns to group by, and what their values mean on a kernel."""

    name: str
    columns: tuple[str, ...]
    describe: Callable[..., _Described]


def _breakdown(prop: _Property, counts: Mapping[tuple[Any, ...], Amount], snapshot: Snapshot) -> Breakdown:
    parts: dict[str, Part] = {}
    for values, amount in counts.items():
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


def _context(snapshot: Snapshot, count: int, softirq_disable_cnt: int | None) -> _Described:
    # On PREEMPT_RT, where it is captured, it is the softirq part, and preempt_count has none.
    name = context_name(snapshot, count | (softirq_disable_cnt or 0) & _SOFTIRQ_MASK)
    return _Described(name, {"context": name})


def _entry(_: Snapshot, name: str) -> _Described:
    return _Described(name, {"entry": name})


def _comm(_: Snapshot, comm: str, pid: int) -> _Described:
    return _Described(comm, {"comm": comm, "pids": [pid]})


def _stack(snapshot: Snapshot, stack: str | None) -> _Described:
    if stack is None:
        return _Described("not recorded", {"frames": None})
    frames = stack.split(";")[::-1]
    # What lies inside the entry is the probe's own.
    entry = snapshot.features.entry
    frames = frames[frames.index(entry) :] if entry in frames else frames
    return _Described("\n".join(frames), {"frames": frames})


_PROPERTIES = (
    _Property("gfp", ("gfp_mask",), _gfp),
    _Property("order", ("order",), _order),
    _Property("migratetype", ("migratetype",), _migratetype),
    _Property("preferred_zone", ("preferred_node", "preferred_zone"), _preferred_zone),
    _Property("alloc_flags", ("alloc_flags",), _alloc_flags),
    _Property("comm", ("comm", "pid"), _comm),
    _Property("zonelist", ("zonelist_kind", "ac_nodemask", "ac_nodemask_nodes"), _zonelist),
    _Property("context", ("preempt_count", "softirq_disable_cnt"), _context),
    _Property("entry", ("entry",), _entry),
    _Property("stack", ("stack",), _stack),
)
