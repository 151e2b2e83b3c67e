# SPDX-License-Identifier: MIT
"""What differs between two traces: by names, as two kernels may number their flags differently."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kalloctrace.flags.decode import Decoded, decode_alloc, decode_gfp
from kalloctrace.flags.tables import FlagTables
from kalloctrace.report.slowpath_counts import SlowCounts, count_slow
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import TRACEPOINT
from kalloctrace.verify.verification import Verification, verify_counted

_SMALLEST = 1e-9
"""A share that differs by less is the same: even a trace of a billion calls has no smaller one."""

Key = tuple[Any, ...]
Change = Literal["appeared", "vanished", "changed"]


@dataclass(frozen=True)
class Side:
    """One of the two traces.

    Attributes:
        trace: the file's name.
        kernel: the recorded kernel's release.
        allocations: what its rows stand for; of a sample those that were recorded.
        sample: one call in so many was recorded.
        aggregate: its rows say how often an allocation occurred.
        truncated: its end is missing.
        lost: captured calls that are not in the trace.
        counts: for each aspect, how many allocations, or attempts of the slow path, are of which kind.
        slow: what is said of the slow path; None where it was not recorded.
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
        """Return which part of the trace's allocations, or attempts of the slow path, is of a kind."""
        all_ = self.slow.attempts if self.slow is not None and aspect in SLOW_ASPECTS else self.allocations
        return self.counts[aspect.name][key] / all_ if all_ else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return what is said about the trace as a whole as JSON values."""
        names = ("trace", "kernel", "allocations", "sample", "aggregate", "truncated", "lost")
        said = {name: getattr(self, name) for name in names}
        return {**said, "slow": None if self.slow is None else self.slow.to_json()}


@dataclass(frozen=True)
class ShareChange:
    """A kind of allocation or attempt that one trace has and the other has not, or has in another share.

    Attributes:
        change: what it is.
        key: the kind.
        before: how many the first trace has.
        after: how many the second has.
        share_before: their part of all, 0 to 1.
        share_after: likewise.
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
    """All that differs.

    Attributes:
        before: the first trace.
        after: the second.
        threshold: by how much a share must differ to count, 0 to 1.
        by: for each aspect what differs, the largest change first; those of the slow path only where both traces
            have it.
        same: for each aspect how many kinds are in both in about the same share.
    """

    before: Side
    after: Side
    threshold: float
    by: Mapping[str, tuple[ShareChange, ...]] = field(default_factory=dict)
    same: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the diff as the command line promises it."""
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
    """Count the kinds of allocations of a trace, and those of attempts of the slow path.

    Args:
        trace: the trace.

    Raises:
        KalloctraceError: its snapshot lacks something that every kernel has.
    """
    counted = trace.counted()
    rows = list(counted)
    ending = counted.finish()
    verdict = verify_counted(trace, rows, ending)
    slow = count_slow(trace, ending, verdict)
    return Side(
        trace=str(trace.path),
        kernel=trace.snapshot.release,
        allocations=verdict.allocations,
        sample=trace.sample,
        aggregate=trace.aggregate,
        # Calls of the slow path may be damaged where the rows are not.
        truncated=verdict.truncated or (slow is not None and slow.truncated),
        lost=verdict.lost,
        counts={
            **{aspect.name: _counts(aspect, rows, trace.snapshot.tables) for aspect in _OF_ROWS},
            _VERDICTS.name: Counter(dict(_verdicts(verdict))),
            **({} if slow is None else _slow_counts(slow, trace.snapshot.tables)),
        },
        slow=slow,
    )


def compare(before: Side, after: Side, threshold: float) -> TraceDiff:
    """Return what differs between two traces.

    Args:
        before: the first.
        after: the second.
        threshold: by how much a share must differ to count, 0 to 1. What only one of the two has always counts.
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
    """A way to divide allocations, or attempts of the slow path, into kinds.

    Attributes:
        name: stable identifier.
        about: what its kinds are, for people.
        fields: names of the parts of a kind.
    """

    name: str
    about: str
    fields: tuple[str, ...]


@dataclass(frozen=True)
class RowAspect(Aspect):
    """A way to divide allocations by their rows.

    Attributes:
        kind: returns the kind of a distinct allocation, by the recorded kernel's tables.
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
    """Return the names in an order that does not depend on the kernel, as that in which it prints them does."""
    names = sorted(decoded.names, key=lambda name: (not name.startswith("ALLOC_WMARK"), name))
    return "|".join([*names, f"{decoded.unknown:#x}"] if decoded.unknown or not names else names)


def _preparation(row: Mapping[str, Any], tables: FlagTables) -> Key:
    return (*_request(row, tables), *_alloc_flags(row, tables))


_OF_ROWS = (
    RowAspect("request", "requests", ("entry", "gfp", "order"), _request),
    RowAspect("alloc_flags", "flags of the first attempt", ("alloc_flags",), _alloc_flags),
    RowAspect("preparation", "flags that a request got", ("entry", "gfp", "order", "alloc_flags"), _preparation),
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


def _counts(aspect: RowAspect, rows: Sequence[tuple[Mapping[str, Any], int]], tables: FlagTables) -> Counter[Key]:
    counts: Counter[Key] = Counter()
    for row, count in rows:
        counts[aspect.kind(row, tables)] += count
    return counts


def _verdicts(verdict: Verification) -> Iterator[tuple[Key, int]]:
    if verdict.matched:
        yield ("matched", None), verdict.matched
    fields: Counter[str] = Counter()
    for mismatch in verdict.mismatches:
        fields[mismatch.difference.field] += mismatch.count
    yield from ((("mismatched", name), count) for name, count in fields.items())
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
