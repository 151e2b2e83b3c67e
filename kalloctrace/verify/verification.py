# SPDX-License-Identifier: MIT
"""Verifies a whole trace: the verdict on each distinct allocation, and their sums."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from kalloctrace.errors import Exit
from kalloctrace.kernel.proven import ProofStatus, load, proof_status
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.kernel import Kernel
from kalloctrace.text import file_name
from kalloctrace.trace.audited import Audited, audit_json
from kalloctrace.trace.inferred import Inferred, inferred_of
from kalloctrace.trace.missed_text import missed_causes
from kalloctrace.trace.reader import Ending, Pass, TraceReader
from kalloctrace.trace.schema import CONTEXT, REQUEST, TRACEPOINT
from kalloctrace.trace.totals import Totals, missed_json
from kalloctrace.verify.compare import Difference, FieldCount, RowVerdict, Switches, judge
from kalloctrace.verify.events import EventJudge
from kalloctrace.verify.rows import Row, missing_facts
from kalloctrace.verify.slowpath.trace import SlowJudge, SlowVerification, verify_slow
from kalloctrace.verify.zonelists import ZonelistVerdict, verify_zonelists

MOST_MISMATCHES = 10_000
"""How many are kept, each with its request; the others are only counted."""
_MOST_MASKS = 4
"""Different values of gfp_allowed_mask that are tried. A kernel has three: at boot, when suspended, otherwise."""
_REQUEST = [column.name for column in (*REQUEST, *CONTEXT)]


@dataclass(frozen=True)
class Mismatch:
    """A field that differs for one distinct request.

    Attributes:
        count: how many allocations differ in it. An allocation that differs in two fields is in two mismatches, so
            the sum of these counts may exceed `Verification.mismatched`.
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
        allocations: calls that the trace's rows represent.
        distinct: different combinations of request, context and observation.
        matched: allocations that the kernel prepared as the model predicts.
        mismatched: allocations that differ in at least one field.
        unknown: allocations that could not be judged; never a pass.
        bulk: how many of the allocations are calls of the bulk allocator. Their prepared context cannot be captured;
            they are judged by the pages that they returned, which proves less.
        events: how many of them are events of another tool. Such an event is mismatched or unknown; `fields` counts
            what it shows.
        sample: 1 call in this many was recorded; the counts here are not scaled up.
        lost: captured calls that are not in the trace because a buffer was full.
        missed: probe hits that the kernel skipped.
        missed_by: these by the kernel's counters, and the bpf(2) calls meanwhile, as JSON values.
        missed_causes: why they were skipped, in words.
        audit: what the pair saw beside one probe; None if it was not attached.
        truncated: the end of the recording is missing.
        damage: what stopped the reading early; empty if nothing did.
        mismatches: what differs, most frequent first.
        not_shown: how many more mismatches there are.
        differing: how many allocations differ in each field; one that differs in two is counted for both.
        unknown_reasons: why allocations could not be judged, with counts.
        not_judged: by rule, how many of the matched and mismatched allocations it applied to without being judged,
            because a fact that it needs is inferred; see `kalloctrace.verify.inferred`.
        fields: the verdicts by field.
        zonelists: the verdict on the machine's zonelists.
        proven: how far the rules for this kernel are proven.
        slow: the verdict on the slow path; None if it was not recorded.
        slow_lost: events of the slow path that were lost or missed.
    """

    trace: str
    kernel: str
    allocations: int = 0
    distinct: int = 0
    matched: int = 0
    mismatched: int = 0
    unknown: int = 0
    bulk: int = 0
    events: int = 0
    sample: int = 1
    lost: int = 0
    missed: int = 0
    missed_by: dict[str, Any] = field(default_factory=lambda: missed_json(None))
    missed_causes: tuple[str, ...] = ()
    audit: Audited | None = None
    truncated: bool = False
    damage: str = ""
    mismatches: list[Mismatch] = field(default_factory=list)
    not_shown: int = 0
    differing: Counter[str] = field(default_factory=Counter)
    unknown_reasons: dict[str, int] = field(default_factory=dict)
    not_judged: Counter[str] = field(default_factory=Counter)
    fields: dict[str, FieldCount] = field(default_factory=dict)
    zonelists: ZonelistVerdict = field(default_factory=lambda: ZonelistVerdict("nothing was compared"))
    proven: ProofStatus = field(default_factory=ProofStatus)
    slow: SlowVerification | None = None
    slow_lost: int = 0

    @property
    def incomplete(self) -> bool:
        """Return whether the verdict does not cover every allocation."""
        slow = self.slow is not None and (self.slow.unknown > 0 or self.slow.calls_unknown > 0)
        audit = self.audit is not None and self.audit.differs
        return self.truncated or slow or audit or any((self.lost, self.missed, self.unknown, self.slow_lost))

    def exit_code(self, *, strict: bool) -> Exit:
        """Return the exit code: a mismatch outweighs incomplete data."""
        if self.mismatched or self.zonelists.mismatches or (self.slow is not None and self.slow.mismatches):
            return Exit.MISMATCH
        return Exit.INCOMPLETE if strict and self.incomplete else Exit.OK

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as the JSON object of `verify --json`."""
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
            **self.missed_by,
            "audit": audit_json(self.audit),
            "truncated": self.truncated,
            "damage": self.damage,
            "mismatches": [mismatch.to_json() for mismatch in self.mismatches],
            **({"mismatches_not_shown": self.not_shown} if self.not_shown else {}),
            "unknown_reasons": self.unknown_reasons,
            "not_judged": dict(self.not_judged),
            "fields": {name: counts.to_json() for name, counts in self.fields.items()},
            "zonelists": self.zonelists.to_json(),
            "proven": self.proven.to_json(),
            "slow": None if self.slow is None else self.slow.to_json(),
            "slow_lost": self.slow_lost,
        }


class Rows(Protocol):
    """Distinct allocations and their counts, which are iterated several times: a list, or what saves its memory."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __iter__(self) -> Iterator[tuple[Row, int]]:
        """Yield each, always in one order."""


class Recorded(Protocol):
    """What verification reads of a recording, apart from its rows and its ending: a trace, or a running capture."""

    @property
    def path(self) -> Path:
        """Return its name."""

    @property
    def snapshot(self) -> Snapshot:
        """Return the kernel and machine."""

    @property
    def sample(self) -> int:
        """Return N where 1 call in N was recorded; 1 where all were."""

    @property
    def recording(self) -> Mapping[str, Any]:
        """Return how it was made, as a trace describes it."""


def verify_trace(trace: TraceReader) -> Verification:
    """Predict every allocation of a trace and compare it with the kernel's.

    Args:
        trace: the trace.

    Raises:
        ModelFailure: the model failed.
    """
    rows, ending = trace.distinct()
    verdict = verify_counted(trace, rows, ending)
    add_slow_verdict(verdict, trace, ending)
    return verdict


def add_slow_verdict(verdict: Verification, trace: TraceReader, ending: Ending) -> None:
    """Add the verdict on the slow path if it was recorded.

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
    # The pass over the rows skips these calls, so their damage shows only here.
    ending = recorded.calls.finish()
    verdict.truncated, verdict.damage = verdict.truncated or ending.truncated, verdict.damage or ending.damage


@dataclass(frozen=True)
class SlowPathOfTrace:
    """The slow path of a trace.

    Attributes:
        judge: judges the calls.
        calls: one pass over the calls.
        lost: events that were lost or missed; None if the end of the recording is missing.
    """

    judge: SlowJudge
    calls: Pass[dict[str, Any]]
    lost: int | None


def slow_path_of(trace: TraceReader, ending: Ending) -> SlowPathOfTrace | None:
    """Return the slow path of a trace; None if it was not recorded.

    Args:
        trace: the trace.
        ending: how it ends, by a pass over its rows.
    """
    if not trace.recording.get("slow"):
        return None
    totals = ending.totals
    judge = SlowJudge.of(trace.snapshot, Kernel.of(trace.snapshot), totals)
    return SlowPathOfTrace(
        judge=judge,
        # Reading a long trace again takes time, so it is done only if the trace has such calls.
        calls=trace.slow_calls() if totals is None or totals.slow else Pass.empty(ending),
        lost=None if totals is None else totals.slow_lost + totals.slow_missed,
    )


def verify_counted(
    trace: Recorded, rows: Rows, ending: Ending, judged: Callable[[RowVerdict], object] = lambda _: None
) -> Verification:
    """Verify a recording whose rows were read before; without its slow path.

    Args:
        trace: the recording.
        rows: each distinct allocation and its count, as `TraceReader.distinct` returns them.
        ending: how the recording ends, or its current state.
        judged: is called with the verdict on each row, in their order.

    Raises:
        ModelFailure: the model failed.
    """
    snapshot = trace.snapshot
    kernel = Kernel.of(snapshot)
    verdict = Verification(
        trace=file_name(trace.path),
        kernel=snapshot.release,
        sample=trace.sample,
        zonelists=verify_zonelists(snapshot),
        proven=proof_status(snapshot.features, snapshot.release, snapshot.version, load()),
    )
    verdict.distinct = len(rows)
    verdict.truncated, verdict.damage = ending.truncated, ending.damage
    totals = ending.totals
    if totals is not None:
        verdict.missed, verdict.missed_by = totals.missed, missed_json(totals)
        verdict.audit = totals.audit
        verdict.missed_causes = tuple(missed_causes(totals, trace.recording))
    judge_row = Judge.of(kernel, Shown(row for row, _ in rows), totals, inferred_of(trace.recording))
    shared = SharedVerdicts()
    for row, count in rows:
        verdict.allocations += count
        row_verdict = shared(judge_row(row))
        judged(row_verdict)
        _enter(verdict, row, count, row_verdict)
        if len(verdict.mismatches) > 2 * MOST_MISMATCHES:
            _keep_most_frequent(verdict)
    _keep_most_frequent(verdict)
    if totals is not None:
        # A submitted row that is not in the file is lost as well.
        verdict.lost = totals.lost + max(0, totals.submitted - verdict.allocations)
    return verdict


def _keep_most_frequent(verdict: Verification) -> None:
    verdict.mismatches.sort(key=lambda mismatch: -mismatch.count)
    verdict.not_shown += len(verdict.mismatches[MOST_MISMATCHES:])
    del verdict.mismatches[MOST_MISMATCHES:]


@dataclass(frozen=True)
class Judge:
    """Judges the rows of one recording.

    Attributes:
        kernel: the kernel that was recorded.
        switches: the values that the machine's switches had anywhere in the recording.
        may_miss: the kernel skipped probe hits.
        may_miss_freelist: the kernel skipped hits of get_page_from_freelist().
        machine_changed: names of facts about the machine that changed during the recording.
        events: judges the rows that are events of another tool.
        inferred: the facts that the recording infers.
    """

    kernel: Kernel
    switches: Switches
    may_miss: bool
    may_miss_freelist: bool
    machine_changed: tuple[str, ...]
    events: EventJudge
    inferred: frozenset[Inferred]

    @classmethod
    def of(cls, kernel: Kernel, shown: "Shown", totals: Totals | None, inferred: frozenset[Inferred]) -> Self:
        """Return the judge of a recording.

        Args:
            kernel: the kernel that was recorded.
            shown: by all its distinct rows.
            totals: its totals; None if the end of the trace is missing.
            inferred: the facts that it infers.
        """
        missed = 0 if totals is None else totals.missed
        missed_freelist = None if totals is None else totals.missed_freelist
        return cls(
            kernel,
            shown.switches(),
            may_miss=missed > 0,
            may_miss_freelist=(missed if missed_freelist is None else missed_freelist) > 0,
            machine_changed=() if totals is None else totals.machine_changed,
            events=EventJudge.of(kernel, shown.events.values()),
            inferred=inferred,
        )

    def __call__(self, row: Row) -> RowVerdict:
        """Return the verdict on one distinct row."""
        if row["entry"] == TRACEPOINT:
            return self.events(row)
        if self.machine_changed:
            return RowVerdict(unknown=f"the machine changed during the recording: {', '.join(self.machine_changed)}")
        # A bulk call shows by its call of the normal entry, which is a hit of another program.
        may_miss = self.may_miss if row["entry"] == "bulk" else self.may_miss_freelist
        return judge(self.kernel, row, self.switches, may_miss=may_miss, inferred=self.inferred)


class SharedVerdicts:
    """Keeps one verdict for all rows that have the same: most have, and it has a dictionary of a kilobyte."""

    def __init__(self) -> None:
        self._known: dict[Hashable, RowVerdict] = {}

    def __call__(self, verdict: RowVerdict) -> RowVerdict:
        """Return an earlier verdict if it is the same, without differences."""
        if verdict.differences:
            return verdict
        key = (verdict.unknown, verdict.not_judged, tuple(verdict.fields.items()))
        return self._known.setdefault(key, verdict)


def _enter(verdict: Verification, row: Row, count: int, judged: RowVerdict) -> None:
    if row["entry"] == "bulk":
        verdict.bulk += count
    if row["entry"] == TRACEPOINT:
        verdict.events += count
    for name, found in judged.fields.items():
        verdict.fields.setdefault(name, FieldCount()).add(found, count)
    for rule in judged.not_judged:
        verdict.not_judged[rule] += count
    if judged.unknown:
        verdict.unknown += count
        verdict.unknown_reasons[judged.unknown] = verdict.unknown_reasons.get(judged.unknown, 0) + count
    elif judged.differences:
        verdict.mismatched += count
        request = {name: row[name] for name in _REQUEST}
        for difference in judged.differences:
            verdict.mismatches.append(Mismatch(count, request, difference))
            verdict.differing[difference.field] += count
    else:
        verdict.matched += count


class Shown:
    """What the rows of a recording show about its machine; verdicts on all of them depend on it.

    Attributes:
        events: an event of another tool for each migratetype that one has, which is all that matters of them.

    Args:
        rows: of the recording; more can be added.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.events: dict[int | None, Row] = {}
        self._cpusets: set[bool] = set()
        self._masks: set[int] = set()
        self._modes: set[bool] = set()
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Note what a row shows."""
        if row["entry"] == TRACEPOINT:
            self.events.setdefault(row["migratetype"], row)
        elif not missing_facts(row):
            self._cpusets.add(row["cpusets_enabled"] > 0)
            if len(self._masks) < _MOST_MASKS:
                self._masks.add(row["gfp_allowed_mask"])
            self._modes.add(row["defrag_mode"])

    def switches(self) -> Switches:
        """Return the values that the machine's switches had; events of other tools do not have them."""
        return Switches(frozenset(self._cpusets), frozenset(self._masks), frozenset(self._modes))
