# SPDX-License-Identifier: MIT
"""A recording as metrics for Prometheus: allocations since its start, losses, and the model's verdicts.

Unknown values are omitted, not exported as 0: failures where no return was traced, losses while the end is unknown.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kalloctrace.diagnose.from_trace import caller_of_call
from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.text import printable
from kalloctrace.trace.reader import Ending
from kalloctrace.trace.schema import TRACEPOINT
from kalloctrace.trace.slow_split import SlowSplit
from kalloctrace.trace.totals import Totals
from kalloctrace.verify.rows import ModelFailure
from kalloctrace.verify.verification import Recorded, Rows, Verification, verify_counted
from kalloctrace.version import __version__

_MAX_LABELS = 200
"""Distinct gfp masks, or alloc_flags, with their own time series; the others share one."""
OTHER = "other"
_SECOND = 1e9
_LEAST_POWER, _MOST_POWER = 12, 36
"""The buckets of the time of slow calls: up to 2^13 ns, 8 us, and so on to 2^37 ns, 137 s."""
_UP = "1 when the recording could be read."
_NONE = "none"
_MISSED_BY = (
    "Probe hits that the kernel skipped, by counter. kprobe: while a kprobe's handler was running on that CPU; "
    "program: while a BPF program was running there, or somebody used bpf(2); memory: there was no memory."
)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RecordingState:
    """The state of a recording, in progress or ended.

    Attributes:
        snapshot: the kernel and machine.
        rows: each distinct allocation since the start and its count; a sample is not scaled up.
        verdict: on these rows.
        totals: the recorder's counts; None while they are not known.
        sample: one call in this many is recorded.
        seconds: duration so far; None where it is not known.
    """

    snapshot: Snapshot
    rows: Rows
    verdict: Verification
    totals: Totals | None = None
    sample: int = 1
    seconds: float | None = None


def recording_state(recorded: Recorded, rows: Rows, ending: Ending, seconds: float | None) -> RecordingState:
    """Judge a recording in its present state.

    Args:
        recorded: a trace, or a capture in progress.
        rows: its distinct allocations and their counts.
        ending: how it ends, or its present state.
        seconds: duration so far; None where it is not known.

    Raises:
        KalloctraceError: the recording cannot be verified.
    """
    verdict = verify_counted(recorded, rows, ending)
    return RecordingState(recorded.snapshot, rows, verdict, ending.totals, recorded.sample, seconds)


class RecordingCollector(Collector):
    """Builds the metrics of a recording for each scrape.

    Args:
        now: returns the present state of the recording.
    """

    def __init__(self, now: Callable[[], RecordingState]) -> None:
        self._now = now
        self._masks, self._flags = _Labels(), _Labels()

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the metrics depend on the recording, and reading it may take a while."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; only `up` where the recording cannot be read."""
        try:
            state = self._now()
        except ModelFailure:
            raise
        except KalloctraceError:
            yield _gauge("up", _UP, 0)
            return
        yield _gauge("up", _UP, 1)
        yield from _about(state)
        yield from self._allocations(state)
        yield from _outcomes(state)
        yield from _verdicts(state.verdict)
        yield from _missing(state.totals)

    def _allocations(self, state: RecordingState) -> Iterator[Metric]:
        tables = state.snapshot.tables
        kinds: Counter[tuple[str, ...]] = Counter()
        masks: Counter[tuple[str, ...]] = Counter()
        flags: Counter[tuple[str, ...]] = Counter()
        for row, count in state.rows:
            kinds[row["entry"], str(row["order"]), _migratetype(row, tables), _zone(row, tables)] += count
            masks[(self._masks.label(decode_gfp(row["gfp_mask"], tables).text or _NONE),)] += count
            if row["alloc_flags"] is not None:
                flags[(self._flags.label(decode_alloc(row["alloc_flags"], tables).text),)] += count
        labels = ("entry", "order", "migratetype", "zone")
        yield _counter("allocations", "Recorded page allocations.", labels, kinds)
        yield _counter("requests", "Recorded page allocations by the gfp mask of the caller.", ("gfp",), masks)
        yield _counter(
            "prepared", "Recorded page allocations by the alloc_flags of the first attempt.", ("alloc_flags",), flags
        )


class _Labels:
    """Gives the first texts their own label, for as long as the program runs."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def label(self, text: str) -> str:
        if text not in self._known and len(self._known) < _MAX_LABELS:
            self._known.add(text)
        return text if text in self._known else OTHER


def _about(state: RecordingState) -> Iterator[Metric]:
    texts = {"kernel": state.snapshot.release, "version": __version__, "trace": state.verdict.trace}
    info = {name: printable(text) for name, text in texts.items()}
    yield InfoMetricFamily("kalloctrace", "The recorded kernel, and the recorder.", info)
    yield _gauge(
        "recording_complete", "1 when the recording has ended and is complete.", int(not state.verdict.truncated)
    )
    yield _gauge(
        "recording_sample", "One call in this many is recorded; counts are of the recorded calls.", state.sample
    )
    if state.seconds is not None:
        yield _gauge("recording_seconds", "Duration of the recording in seconds.", state.seconds)


def _outcomes(state: RecordingState) -> Iterator[Metric]:
    followed, failed, slow, rejected = (Counter[tuple[str, ...]]() for _ in range(4))
    seen = False
    for row, count in state.rows:
        order = (str(row["order"]),)
        if row["page"] is not None:
            followed[order] += count
            failed[order] += 0 if row["page"] else count
        if row["freelist_calls"] is not None and row["entry"] not in {"bulk", TRACEPOINT}:
            seen = True
            rejected[order] += 0 if row["freelist_calls"] else count
            if row["page"] is not None:
                slow[order] += count if row["freelist_calls"] > 1 else 0
    yield _counter("followed", "Allocations whose return was traced.", ("order",), followed)
    if followed:
        yield _counter(
            "failed", "Allocations that returned no page, among those whose return was traced.", ("order",), failed
        )
    if slow:
        yield _counter(
            "slow_path", "Allocations that took the slow path, among those whose return was traced.", ("order",), slow
        )
    if seen:
        yield _counter("rejected", "Requests rejected before any zone was tried.", ("order",), rejected)


def _verdicts(verdict: Verification) -> Iterator[Metric]:
    # Gauges, because a later fact, such as a missed probe hit, can turn an earlier match into unknown.
    by_verdict = {"matched": verdict.matched, "mismatched": verdict.mismatched, "unknown": verdict.unknown}
    yield _gauges("verdict_allocations", "Allocations by the model's verdict.", "verdict", by_verdict)
    fields = {name: counts.different for name, counts in verdict.fields.items()}
    yield _gauges("mismatched_allocations", "Allocations that differ from the model, by field.", "field", fields)
    yield _gauges(
        "unknown_allocations", "Allocations that could not be judged, by reason.", "reason", verdict.unknown_reasons
    )
    yield _gauges(
        "not_judged_allocations",
        "Judged allocations by rule of which a part was not judged, because a fact that it needs is inferred.",
        "rule",
        verdict.not_judged,
    )
    zonelists = verdict.zonelists
    if not zonelists.reason:
        yield _gauge("mismatched_zonelists", "Zonelists that differ from the prediction.", len(zonelists.mismatches))


def _missing(totals: Totals | None) -> Iterator[Metric]:
    if totals is None:
        return
    yield _counter("lost", "Captured calls that were not recorded because a buffer was full.", (), {(): totals.lost})
    yield _counter("missed", "Probe hits that the kernel skipped.", (), {(): totals.missed})
    if totals.missed_by is not None:
        yield _counter("missed_by", _MISSED_BY, ("counter",), {(k,): v for k, v in totals.missed_by.to_json().items()})
    for name, about, count in (
        ("bpf_calls", "bpf(2) calls of all processes, during which kprobe hits are skipped.", totals.bpf_calls),
        ("own", "Calls of the recorder itself, which are left out.", totals.own),
        ("filtered", "Calls that did not match the filters.", totals.filtered),
    ):
        if count is not None:
            yield _counter(name, about, (), {(): count})
    if totals.audit is not None:
        about = "Calls that one probe and the pair beside it saw differently, in an audit."
        yield _counter("audit_differing", about, (), {(): totals.audit.differing})
    if totals.slow is None:
        return
    yield _counter("slow_path_calls", "Calls of the slow path.", (), {(): totals.slow})
    if totals.slow_failed is not None:
        yield _counter(
            "slow_path_failed", "Calls of the slow path that returned no page.", (), {(): totals.slow_failed}
        )
    if totals.slow_split is not None:
        yield from slow_times(totals.slow_split)
    lost = totals.slow_lost + totals.slow_missed
    yield _counter("slow_path_lost", "Events of the slow path that were lost or missed.", (), {(): lost})


def slow_times(split: SlowSplit) -> Iterator[Metric]:
    """Yield what calls of the slow path spent their time with, and how long they took."""
    spent = CounterMetricFamily(
        "kalloctrace_slow_path_part_seconds",
        "Time of calls of the slow path, by what it was spent with.",
        labels=["part"],
    )
    for part, ns in split.parts.items():
        if ns is not None:
            spent.add_metric([part], ns / _SECOND)
    yield spent
    times = HistogramMetricFamily("kalloctrace_slow_path_seconds", "How long calls of the slow path took.")
    times.add_metric([], [*_buckets(split)], split.total / _SECOND)
    yield times


def _buckets(split: SlowSplit) -> Iterator[tuple[str, float] | tuple[str, float, Exemplar]]:
    """Yield upper limits in seconds, each with how many calls took no longer, and an example of its own."""
    for power in range(_LEAST_POWER, _MOST_POWER + 1):
        calls = sum(count for other, count in split.log2.items() if other <= power)
        yield _bucket(str((2 << power) / _SECOND), calls, split.examples.get(power))
    longer = [example for power, example in sorted(split.examples.items()) if power > _MOST_POWER]
    yield _bucket("+Inf", split.calls, longer[-1] if longer else None)


def _bucket(
    limit: str, calls: int, example: Mapping[str, Any] | None
) -> tuple[str, float] | tuple[str, float, Exemplar]:
    return (limit, calls) if example is None else (limit, calls, _exemplar(example))


def _exemplar(call: Mapping[str, Any]) -> Exemplar:
    """Return an example of a bucket; OpenMetrics allows 128 characters for its labels."""
    labels = {"comm": printable(call["comm"])[:32], "order": str(call["order"])}
    caller = caller_of_call(call)
    if caller is not None:
        labels["caller"] = printable(caller)[:64]
    return Exemplar(labels, call["duration"] / _SECOND)


def _escaped(counts: Mapping[tuple[str, ...], int]) -> Counter[tuple[str, ...]]:
    """Return counts by escaped labels; Prometheus refuses a scrape in which a series appears twice."""
    escaped = Counter[tuple[str, ...]]()
    for values, count in counts.items():
        escaped[tuple(map(printable, values))] += count
    return escaped


def _counter(name: str, about: str, labels: Sequence[str], counts: Mapping[tuple[str, ...], int]) -> Metric:
    family = CounterMetricFamily(f"kalloctrace_{name}", about, labels=labels)
    for values, count in _escaped(counts).items():
        family.add_metric(values, count)
    return family


def _gauges(name: str, about: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(f"kalloctrace_{name}", about, labels=[label])
    for labels, value in _escaped({(key,): value for key, value in values.items()}).items():
        family.add_metric(labels, value)
    return family


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"kalloctrace_{name}", about, value=value)


def _migratetype(row: Row, tables: FlagTables) -> str:
    return _NONE if row["migratetype"] is None else tables.migratetype_name(row["migratetype"])


def _zone(row: Row, tables: FlagTables) -> str:
    index = row["preferred_zone"]
    return _NONE if index is None or index < 0 else tables.zone_name(index)
