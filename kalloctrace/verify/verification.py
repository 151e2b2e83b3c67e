# SPDX-License-Identifier: MIT
"""Holds the model against a whole trace."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.kernel.proven import ProofStatus, load, proof_status
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.kernel import Kernel
from kalloctrace.trace.reader import Ending, Pass, TraceReader
from kalloctrace.trace.schema import CONTEXT, REQUEST, TRACEPOINT
from kalloctrace.trace.totals import Totals
from kalloctrace.verify.compare import Difference, FieldCount, RowVerdict, Switches, judge
from kalloctrace.verify.events import EventJudge
from kalloctrace.verify.rows import Row, missing_facts
from kalloctrace.verify.slowpath.trace import SlowJudge, SlowVerification, verify_slow
from kalloctrace.verify.zonelists import ZonelistVerdict, verify_zonelists

_REQUEST = [column.name for column in (*REQUEST, *CONTEXT)]


@dataclass(frozen=True)
class Mismatch:
    """A field that differs for one distinct request.

    Attributes:
        count: allocations it concerns. One that differs in two fields is in two mismatches, so that these counts
            may add up to more than `Verification.mismatched`.
        request: the request and its context, as columns of the trace.
        difference: the field, both values and the rule.
    """

    count: int
    request: dict[str, Any]
    difference: Difference

    def to_json(self) -> dict[str, Any]:
        """Return the mismatch as JSON values."""
        return {
            "count": self.count,
            "request": self.request,
            **self.difference.to_json(),
        }


@dataclass
class Verification:
    """The verdict on a trace: allocations = matched + mismatched + unknown.

    Attributes:
        trace: the file's name.
        kernel: the recorded kernel's release.
        allocations: calls that the trace's rows stand for.
        distinct: different combinations of request, context and observation.
        judged: the verdict on each of them, in the order in which they came.
        matched: allocations that the kernel prepared as the model says.
        mismatched: allocations that differ in a field or more.
        unknown: allocations that could not be judged; never a pass.
        bulk: how many of the allocations are calls of the bulk allocator. Their prepared context cannot be seen: those
            among the matched are judged by the pages that they returned, which proves less.
        events: how many of them are another tool's events. What shows of one is in `fields`; it is mismatched, or
            unknown all the same.
        sample: one call in so many was recorded; all counts here are of those alone.
        lost: captured calls that are not in the trace for want of room.
        missed: probe hits that the kernel skipped.
        truncated: the end of the recording is missing.
        damage: what stopped the reading before its end, empty where the file just ends.
        mismatches: what differs, most frequent first.
        unknown_reasons: why allocations could not be judged, with counts.
        fields: how many allocations were judged by each field, and how.
        zonelists: the verdict on the machine's zonelists.
        proven: how far the rules for that kernel are proven.
        slow: the verdict on the slow path; None where it was not recorded.
        slow_lost: events of the slow path that were lost or missed.
    """

    trace: str
    kernel: str
    allocations: int = 0
    distinct: int = 0
    judged: list[RowVerdict] = field(default_factory=list)
    matched: int = 0
    mismatched: int = 0
    unknown: int = 0
    bulk: int = 0
    events: int = 0
    sample: int = 1
    lost: int = 0
    missed: int = 0
    truncated: bool = False
    damage: str = ""
    mismatches: list[Mismatch] = field(default_factory=list)
    unknown_reasons: dict[str, int] = field(default_factory=dict)
    fields: dict[str, FieldCount] = field(default_factory=dict)
    zonelists: ZonelistVerdict = field(default_factory=lambda: ZonelistVerdict("nothing was compared"))
    proven: ProofStatus = field(default_factory=ProofStatus)
    slow: SlowVerification | None = None
    slow_lost: int = 0

    @property
    def incomplete(self) -> bool:
        """Tell whether allocations are missing from the verdict."""
        slow = self.slow is not None and (self.slow.unknown > 0 or self.slow.calls_unknown > 0)
        return self.truncated or slow or any((self.lost, self.missed, self.unknown, self.slow_lost))

    def exit_code(self, *, strict: bool) -> Exit:
        """Return the exit code: a mismatch tells more than a gap."""
        if self.mismatched or self.zonelists.mismatches or (self.slow is not None and self.slow.mismatches):
            return Exit.MISMATCH
        return Exit.INCOMPLETE if strict and self.incomplete else Exit.OK

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as the command line promises it."""
        return {
            "type": "verification",
            "trace": self.trace,
            "kernel": self.kernel,
            "allocations": self.allocations,
            "distinct": self.distinct,
            "matched": self.matched,
            "mismatched": self.mismatched,
            "unknown": self.unknown,
            "bulk": self.bulk,
            "events": self.events,
            "sample": self.sample,
            "lost": self.lost,
            "missed": self.missed,
            "truncated": self.truncated,
            "damage": self.damage,
            "mismatches": [mismatch.to_json() for mismatch in self.mismatches],
            "unknown_reasons": self.unknown_reasons,
            "fields": {name: counts.to_json() for name, counts in self.fields.items()},
            "zonelists": self.zonelists.to_json(),
            "proven": self.proven.to_json(),
            "slow": None if self.slow is None else self.slow.to_json(),
            "slow_lost": self.slow_lost,
        }


class Recorded(Protocol):
    """What must be known of a recording besides its rows and its end: a trace, or a capture under way."""

    @property
    def path(self) -> Path:
        """Return what it is called."""

    @property
    def snapshot(self) -> Snapshot:
        """Return the kernel and machine."""

    @property
    def sample(self) -> int:
        """Return of how many calls one was recorded."""


def verify_trace(trace: TraceReader) -> Verification:
    """Predict every allocation of a trace and compare.

    Args:
        trace: the trace.

    Raises:
        KalloctraceError: the trace's snapshot lacks something that every kernel has.
    """
    counted = trace.counted()
    rows = list(counted)
    ending = counted.finish()
    verdict = verify_counted(trace, rows, ending)
    add_slow_verdict(verdict, trace, ending)
    return verdict


def add_slow_verdict(verdict: Verification, trace: TraceReader, ending: Ending) -> None:
    """Add the verdict on the slow path, where it was recorded.

    Args:
        verdict: of the same trace.
        trace: the trace.
        ending: how it ends, by a pass over its rows.
    """
    recorded = slow_path_of(trace, ending)
    if recorded is None:
        return
    verdict.slow = verify_slow(recorded.judge, recorded.calls)
    verdict.slow_lost = recorded.lost or 0
    # Rows are read without them, so that damage may show here alone.
    ending = recorded.calls.finish()
    verdict.truncated, verdict.damage = verdict.truncated or ending.truncated, verdict.damage or ending.damage


@dataclass(frozen=True)
class SlowPathOfTrace:
    """What a trace has of the slow path.

    Attributes:
        judge: judges its calls.
        calls: the calls, once.
        lost: events that were lost or missed; None where the end of the recording is missing.
    """

    judge: SlowJudge
    calls: Pass[dict[str, Any]]
    lost: int | None


def slow_path_of(trace: TraceReader, ending: Ending) -> SlowPathOfTrace | None:
    """Return what a trace has of the slow path; None where that was not recorded.

    Args:
        trace: the trace.
        ending: how it ends, by a pass over its rows.

    Raises:
        KalloctraceError: its snapshot lacks something that every kernel has.
    """
    if not trace.recording.get("slow"):
        return None
    totals = ending.totals
    with _snapshot_of(trace):
        judge = SlowJudge.of(trace.snapshot, Kernel.of(trace.snapshot), totals)
    return SlowPathOfTrace(
        judge=judge,
        # A trace may be long: it is read once more only where there is something to find.
        calls=trace.slow_calls() if totals is None or totals.slow else Pass.empty(ending),
        lost=None if totals is None else totals.slow_lost + totals.slow_missed,
    )


def verify_counted(trace: Recorded, rows: Sequence[tuple[Row, int]], ending: Ending) -> Verification:
    """Do the same for a recording whose rows are at hand.

    Args:
        trace: the recording.
        rows: each distinct allocation and its count, as `TraceReader.counted` gives them.
        ending: how the recording ends, or stands.

    Raises:
        KalloctraceError: the trace's snapshot lacks something that every kernel has.
    """
    snapshot = trace.snapshot
    with _snapshot_of(trace):
        kernel, zonelists = Kernel.of(snapshot), verify_zonelists(snapshot)
    verdict = Verification(
        trace=str(trace.path),
        kernel=snapshot.release,
        sample=trace.sample,
        zonelists=zonelists,
        proven=proof_status(snapshot.features, snapshot.release, snapshot.version, load()),
    )
    verdict.allocations = sum(count for _, count in rows)
    verdict.distinct = len(rows)
    verdict.truncated, verdict.damage = ending.truncated, ending.damage
    totals = ending.totals
    if totals is not None:
        verdict.missed = totals.missed
        # A row that was submitted and is not here is as lost as one that was dropped.
        verdict.lost = totals.lost + max(0, totals.submitted - verdict.allocations)
    judge_row = Judge.of(kernel, [row for row, _ in rows], totals)
    for row, count in rows:
        judged = judge_row(row)
        verdict.judged.append(judged)
        _enter(verdict, row, count, judged)
    verdict.mismatches.sort(key=lambda mismatch: -mismatch.count)
    return verdict


@contextmanager
def _snapshot_of(trace: Recorded) -> Iterator[None]:
    """Name the trace where its snapshot does not make a kernel."""
    try:
        yield
    except (KalloctraceError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise KalloctraceError(
            f"cannot verify {trace.path}", f"its snapshot is damaged: {error!r}", "record it again"
        ) from error


@dataclass(frozen=True)
class Judge:
    """Judges the rows of one trace.

    Attributes:
        kernel: the kernel that was recorded.
        switches: the values that the machine's switches had anywhere in the trace.
        may_miss: the kernel skipped probe hits.
        may_miss_freelist: those of get_page_from_freelist() among them.
        machine_changed: names of the machine's facts that are not those of the snapshot any more.
        events: judges the rows that are another tool's events.
    """

    kernel: Kernel
    switches: Switches
    may_miss: bool
    may_miss_freelist: bool
    machine_changed: tuple[str, ...]
    events: EventJudge

    @classmethod
    def of(cls, kernel: Kernel, rows: Sequence[Row], totals: Totals | None) -> Self:
        """Return the judge of a recording.

        Args:
            kernel: the kernel that was recorded.
            rows: all its distinct rows: they show which values the machine's switches had.
            totals: what it counted; None where the end of the trace is missing.
        """
        missed = 0 if totals is None else totals.missed
        missed_freelist = None if totals is None else totals.missed_freelist
        return cls(
            kernel,
            switches_of(rows),
            may_miss=missed > 0,
            may_miss_freelist=(missed if missed_freelist is None else missed_freelist) > 0,
            machine_changed=() if totals is None else totals.machine_changed,
            events=EventJudge.of(kernel, rows),
        )

    def __call__(self, row: Row) -> RowVerdict:
        """Return the verdict on one distinct row."""
        if row["entry"] == TRACEPOINT:
            return self.events(row)
        if self.machine_changed:
            return RowVerdict(unknown=f"the machine changed during the recording: {', '.join(self.machine_changed)}")
        # What the bulk allocator shows is its call of the normal entry, which is a hit of another program.
        may_miss = self.may_miss if row["entry"] == "bulk" else self.may_miss_freelist
        return judge(self.kernel, row, self.switches, may_miss=may_miss)


def _enter(verdict: Verification, row: Row, count: int, judged: RowVerdict) -> None:
    if row["entry"] == "bulk":
        verdict.bulk += count
    if row["entry"] == TRACEPOINT:
        verdict.events += count
    for name, found in judged.fields.items():
        verdict.fields.setdefault(name, FieldCount()).add(found, count)
    if judged.unknown:
        verdict.unknown += count
        verdict.unknown_reasons[judged.unknown] = verdict.unknown_reasons.get(judged.unknown, 0) + count
    elif judged.differences:
        verdict.mismatched += count
        request = {name: row[name] for name in _REQUEST}
        verdict.mismatches.extend(Mismatch(count, request, difference) for difference in judged.differences)
    else:
        verdict.matched += count


def switches_of(rows: Iterable[Row]) -> Switches:
    """Return the values that the machine's switches had anywhere in a trace; another tool's events do not tell."""
    captured = [row for row in rows if row["entry"] != TRACEPOINT and not missing_facts(row)]
    return Switches(
        cpusets_enabled=frozenset(row["cpusets_enabled"] > 0 for row in captured),
        gfp_allowed_mask=frozenset(row["gfp_allowed_mask"] for row in captured),
        defrag_mode=frozenset(row["defrag_mode"] for row in captured),
    )
