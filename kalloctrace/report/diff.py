# SPDX-License-Identifier: MIT
"""The differences between two traces, by names because two kernels may number their flags differently."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kalloctrace.flags.decode import Decoded, decode_alloc, decode_gfp
from kalloctrace.flags.tables import FlagTables
from kalloctrace.report.slowpath_counts import SlowCounts, count_slow
from kalloctrace.text import file_name
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import TRACEPOINT
from kalloctrace.verify.verification import Verification, verify_counted

_COLUMNS = ("entry", "gfp_mask", "order", "alloc_flags")
_SMALLEST = 1e-9
"""Shares that differ by less are equal: one call in a billion."""

Key = tuple[Any, ...]
Change = Literal["appeared", "vanished", "changed"]


@dataclass(frozen=True)
class Side:
    """One of the two traces.

    Attributes:
        trace: the file's name.
        kernel: the recorded kernel's release.
        allocations: number of allocations; of a sample the recorded ones.
        sample: one call in this many was recorded.
        aggregate: the trace is an aggregate.
        truncated: the end of the trace is missing.
        lost: captured calls that are not in the trace.
        counts: for each aspect the number of allocations or slow-path attempts of each kind.
        slow: counts of the slow path; None where it was not recorded.
    """

    trace: str
    kernel: str
    allocations: int
    sample: int
    aggregate: bool
    truncated: bool
    lost: int
    counts: Mapping[str, Counter[Key]]
    slow: SlowCounts | None = None

    def share(self, aspect: "Aspect", key: Key) -> float:
        """Return the fraction of the trace's allocations, or slow-path attempts, that are of a kind."""
        total = self.slow.attempts if self.slow is not None and aspect in SLOW_ASPECTS else self.allocations
        return self.counts[aspect.name][key] / total if total else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the facts about the trace as a whole as JSON values."""
        names = ("trace", "kernel", "allocations", "sample", "aggregate", "truncated", "lost")
        facts = {name: getattr(self, name) for name in names}
        return {**facts, "slow": None if self.slow is None else self.slow.to_json()}


@dataclass(frozen=True)
class ShareChange:
    """A kind of allocation or attempt that only one trace has, or that has another share in the other trace.

    Attributes:
        change: what changed.
        key: the kind.
        before: number in the first trace.
        after: number in the second trace.
        share_before: fraction of the first trace, 0 to 1.
        share_after: fraction of the second trace, 0 to 1.
    """

    change: Change
    key: dict[str, Any]
    before: int
    after: int
    share_before: float
    share_after: float

    def to_json(self) -> dict[str, Any]:
        """Return the change as JSON values."""
        return {
            "change": self.change,
            **self.key,
            "before": self.before,
            "after": self.after,
            "share_before": round(self.share_before, 6),
            "share_after": round(self.share_after, 6),
        }


@dataclass(frozen=True)
class TraceDiff:
    """All differences between two traces.

    Attributes:
        before: the first trace.
        after: the second.
        threshold: smallest difference of shares that counts, 0 to 1.
        by: the changes of each aspect, largest first; slow-path aspects only where both traces have the slow path.
        same: for each aspect the number of kinds with about the same share in both traces.
    """

    before: Side
    after: Side
    threshold: float
    by: Mapping[str, tuple[ShareChange, ...]] = field(default_factory=dict)
    same: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the differences as JSON values; the schema is `diff`."""
        return {
            "type": "diff",
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "threshold": self.threshold,
            "by": {
                aspect: {"same": self.same[aspect], "rows": [change.to_json() for change in changes]}
                for aspect, changes in self.by.items()
            },
        }


def side_of(trace: TraceReader) -> Side:
    """Count the kinds of allocations and of slow-path attempts in a trace.

    Args:
        trace: the trace.

    Raises:
        KalloctraceError: its snapshot lacks something that every kernel has.
    """
    rows, ending = trace.distinct()
    verdict = verify_counted(trace, rows, ending)
    slow = count_slow(trace, ending, verdict)
    kinds = list(rows.by(_COLUMNS))
    return Side(
        trace=file_name(trace.path),
        kernel=trace.snapshot.release,
        allocations=verdict.allocations,
        sample=trace.sample,
        aggregate=trace.aggregate,
        # Calls of the slow path may be damaged where the rows are not.
        truncated=verdict.truncated or (slow is not None and slow.truncated),
        lost=verdict.lost,
        counts={
            **{aspect.name: _counts(aspect, kinds, trace.snapshot.tables) for aspect in _OF_ROWS},
            _VERDICTS.name: Counter(dict(_verdicts(verdict))),
            **({} if slow is None else _slow_counts(slow, trace.snapshot.tables)),
        },
        slow=slow,
    )


def compare(before: Side, after: Side, threshold: float) -> TraceDiff:
    """Return the differences between two traces.

    Args:
        before: the first trace.
        after: the second trace.
        threshold: smallest difference of shares that counts, 0 to 1. A kind that only one trace has always counts.
    """
    by, same = {}, {}
    slow = before.slow is not None and after.slow is not None
    for aspect in (*ASPECTS, *(SLOW_ASPECTS if slow else ())):
        keys = before.counts[aspect.name].keys() | after.counts[aspect.name].keys()
        changes = [_share_change(aspect, key, before, after) for key in sorted(keys, key=str)]
        differ = [
            change
            for change in changes
            if change.change != "changed" or abs(change.share_after - change.share_before) >= max(threshold, _SMALLEST)
        ]
        differ.sort(key=lambda change: -abs(change.share_after - change.share_before))
        by[aspect.name], same[aspect.name] = tuple(differ), len(changes) - len(differ)
    return TraceDiff(before, after, threshold, by, same)


@dataclass(frozen=True)
class Aspect:
    """A way to divide allocations or slow-path attempts into kinds.

    Attributes:
        name: stable identifier.
        about: the heading, for people.
        fields: names of the parts of a kind.
    """

    name: str
    about: str
    fields: tuple[str, ...]


@dataclass(frozen=True)
class RowAspect(Aspect):
    """A way to divide allocations by their rows.

    Attributes:
        kind: returns the kind of an allocation by _COLUMNS, with the recorded kernel's tables.
    """

    kind: Callable[[Mapping[str, Any], FlagTables], Key]


def _request(row: Mapping[str, Any], tables: FlagTables) -> Key:
    return (row["entry"], _names(decode_gfp(row["gfp_mask"], tables)), row["order"])


def _alloc_flags(row: Mapping[str, Any], tables: FlagTables) -> Key:
    flags = row["alloc_flags"]
    if row["entry"] == TRACEPOINT:
        return ("not captured",)
    return (None if flags is None else _names(decode_alloc(flags, tables)),)


def _names(decoded: Decoded) -> str:
    """Return the names in one order for all kernels: the watermark first, then by name."""
    names = sorted(decoded.names, key=lambda name: (not name.startswith("ALLOC_WMARK"), name))
    return "|".join([*names, f"{decoded.unknown:#x}"] if decoded.unknown or not names else names)


def _preparation(row: Mapping[str, Any], tables: FlagTables) -> Key:
    return (*_request(row, tables), *_alloc_flags(row, tables))


_OF_ROWS = (
    RowAspect("request", "requests", ("entry", "gfp", "order"), _request),
    RowAspect("alloc_flags", "flags of the first attempt", ("alloc_flags",), _alloc_flags),
    RowAspect("preparation", "flags of each request", ("entry", "gfp", "order", "alloc_flags"), _preparation),
)
_VERDICTS = Aspect("verdict", "verdicts of the model", ("verdict", "about"))
ASPECTS: tuple[Aspect, ...] = (*_OF_ROWS, _VERDICTS)
_SLOW_KINDS = Aspect("slow_kind", "slow path, kinds of attempts", ("kind",))
_SLOW_FLAGS = Aspect("slow_alloc_flags", "slow path, flags of attempts", ("alloc_flags",))
_SLOW_VERDICTS = Aspect("slow_verdict", "slow path, verdicts on attempts", ("verdict", "about"))
SLOW_ASPECTS = (_SLOW_KINDS, _SLOW_FLAGS, _SLOW_VERDICTS)


def _slow_counts(slow: SlowCounts, tables: FlagTables) -> dict[str, Counter[Key]]:
    flags = {(_names(decode_alloc(value, tables)),): count for value, count in slow.alloc_flags.items()}
    return {
        _SLOW_KINDS.name: Counter({(kind,): count for kind, count in slow.kinds.items()}),
        _SLOW_FLAGS.name: Counter(flags),
        _SLOW_VERDICTS.name: Counter(dict(slow.verdicts)),
    }


def _counts(aspect: RowAspect, kinds: Iterable[tuple[Mapping[str, Any], int]], tables: FlagTables) -> Counter[Key]:
    counts: Counter[Key] = Counter()
    for row, count in kinds:
        counts[aspect.kind(row, tables)] += count
    return counts


def _verdicts(verdict: Verification) -> Iterator[tuple[Key, int]]:
    if verdict.matched:
        yield ("matched", None), verdict.matched
    yield from ((("mismatched", name), count) for name, count in verdict.differing.items())
    yield from ((("unknown", reason), count) for reason, count in verdict.unknown_reasons.items())


def _share_change(aspect: Aspect, key: Key, before: Side, after: Side) -> ShareChange:
    old, new = before.counts[aspect.name][key], after.counts[aspect.name][key]
    return ShareChange(
        change="changed" if old and new else "appeared" if new else "vanished",
        key=dict(zip(aspect.fields, key, strict=True)),
        before=old,
        after=new,
        share_before=before.share(aspect, key),
        share_after=after.share(aspect, key),
    )
