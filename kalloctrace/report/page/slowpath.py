# SPDX-License-Identifier: MIT
"""The slow path on a page: its verdict, the failed calls grouped by cause, and the slowest calls.

A trace may hold very many of these calls. A first pass chooses which ones to show and keeps only their numbers; a
second pass judges all and describes the chosen ones.
"""

import heapq
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.from_trace import slow_failure
from kalloctrace.diagnose.sentences import (
    VERDICTS,
    certainty,
    conditions,
    headline,
    headline_alike,
    remedy_sentence,
    request_sentence,
    zone_name,
    zone_sentence,
)
from kalloctrace.diagnose.slow_calls import AttemptReport, Row, SlowCallDescriber, SlowCallReport
from kalloctrace.flags.decode import decode_gfp
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.kernel import Kernel
from kalloctrace.report.page.moments import Moments
from kalloctrace.report.page.texts import Texts
from kalloctrace.report.summary import frames_from_entry
from kalloctrace.text import printable
from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.verify.field_text import value_text
from kalloctrace.verify.slowpath.trace import SlowMismatch, SlowVerification, verify_slow_call
from kalloctrace.verify.verification import slow_path_of

MAX_MISMATCHES = 200
"""Maximum number of slow-path mismatches on a page; filters do not apply to them."""


@dataclass(frozen=True)
class SlowLimits:
    """Maximum numbers for the slow path on a page.

    Attributes:
        groups: groups of failed calls.
        judged: failed calls that are diagnosed and grouped by cause; each takes half a millisecond.
        slowest: slowest calls that got a page.
    """

    groups: int = 200
    judged: int = 10_000
    slowest: int = 50


@dataclass
class _Group:
    """Failed calls with the same cause, or only with the same request.

    Attributes:
        judged: the calls have the same cause; otherwise they only have the same request.
        first: time of the first call in ns.
        last: time of the last call in ns.
        calls: number of calls.
        slowest: duration of the slowest call in ns, and its number among the calls of the trace.
    """

    judged: bool
    first: int
    last: int
    calls: int = 0
    slowest: tuple[int, int] = (-1, 0)


class SlowChoice:
    """Chooses which calls of the slow path a page shows.

    Args:
        snapshot: the kernel and machine that were recorded.
        limits: what the page may hold.

    Attributes:
        unseen: calls whose return was not captured.
        first: time of the first call in ns; None without calls.
        last: time of the last call in ns.
    """

    def __init__(self, snapshot: Snapshot, limits: SlowLimits) -> None:
        self.limits = limits
        self.unseen = 0
        self.first: int | None = None
        self.last = 0
        self._snapshot = snapshot
        self._groups: dict[Hashable, _Group] = {}
        self._slowest: list[tuple[int, int]] = []
        self._calls = 0
        self._failed = 0

    def add(self, call: Row) -> None:
        """Look at the next call of the trace."""
        number = self._calls
        self._calls += 1
        time, duration = call["time"], call["duration"] or 0
        self.first, self.last = min(time, time if self.first is None else self.first), max(time, self.last)
        if call["page"] is None:
            self.unseen += 1
        elif call["page"]:
            # Of calls that took equally long the first stays.
            heapq.heappush(self._slowest, (duration, -number))
            if len(self._slowest) > self.limits.slowest:
                heapq.heappop(self._slowest)
        else:
            self._add_failed(call, duration, number)

    def _add_failed(self, call: Row, duration: int, number: int) -> None:
        judged = self._failed < self.limits.judged
        self._failed += 1
        given, time = call["given"], call["time"]
        key: Hashable = (given["gfp_mask"], given["order"], call["comm"])
        if judged:
            key = slow_failure(self._snapshot, call).cause
        group = self._groups.setdefault(key, _Group(judged, time, time))
        group.calls += 1
        group.first, group.last = min(group.first, time), max(group.last, time)
        if duration > group.slowest[0]:
            group.slowest = duration, number

    def groups(self) -> tuple[list[_Group], list[_Group]]:
        """Return the groups of failed calls that the page shows, largest first, and the others."""
        groups = sorted(self._groups.values(), key=lambda group: -group.calls)
        return groups[: self.limits.groups], groups[self.limits.groups :]

    def slowest(self) -> list[int]:
        """Return the numbers of the calls that took longest and got a page, the slowest first."""
        return [-number for _, number in sorted(self._slowest, reverse=True)]

    @property
    def not_judged(self) -> int:
        """Return how many failed calls are beyond the limit."""
        return max(0, self._failed - self.limits.judged)


class SlowCounter:
    """Judges all calls of the slow path, and describes those that were chosen.

    Args:
        trace: the trace.
        choice: made by an earlier pass over the same calls.
        ending: how the trace ends.
        began: the start of the time axis, in ns.

    Raises:
        KalloctraceError: the trace's snapshot lacks something that every kernel has.
    """

    def __init__(self, trace: TraceReader, choice: SlowChoice, ending: Ending, began: int) -> None:
        recorded = slow_path_of(trace, ending)
        if recorded is None:
            raise ValueError("the slow path was not recorded")
        self._snapshot = trace.snapshot
        self._choice = choice
        self._ending = ending
        self._judge, self._lost = recorded.judge, recorded.lost or 0
        self._describe = SlowCallDescriber(self._snapshot, Kernel.of(self._snapshot), self._judge).describe
        self._groups, self._beyond = choice.groups()
        self._slowest = choice.slowest()
        self._chosen = {*self._slowest, *(group.slowest[1] for group in self._groups)}
        self._described: dict[int, SlowCallReport] = {}
        self._verdict = SlowVerification()
        self._moments = Moments(began, choice.last)

    def add(self, call: Row) -> None:
        """Judge the next call of the trace."""
        number = self._verdict.calls
        verify_slow_call(self._verdict, self._judge, call)
        self._moments.add(call)
        if number in self._chosen:
            self._described[number] = self._describe(call)

    def verdict_json(self) -> dict[str, Any]:
        """Return the numbers of the verdict, and the first mismatches."""
        return slow_verdict(self._verdict, self._lost, self._snapshot.tables)

    def to_json(self, text: Texts) -> dict[str, Any]:
        """Return what the page shows of the chosen calls.

        Args:
            text: gives texts their numbers.
        """
        described, limits = self._described, self._choice.limits
        return {
            "limits": {"judged": limits.judged, "slowest": limits.slowest},
            "unseen": self._choice.unseen,
            "moments": self._moments.to_json(),
            "failed": [
                {
                    "calls": group.calls,
                    "first": group.first,
                    "last": group.last,
                    "judged": group.judged,
                    "line": text(_line(described[group.slowest[1]].why, judged=group.judged)),
                    "slowest": _call_data(described[group.slowest[1]], self._snapshot, text),
                }
                for group in self._groups
            ],
            "not_judged": self._choice.not_judged,
            "rest": {"groups": len(self._beyond), "calls": sum(group.calls for group in self._beyond)},
            "slowest": [_call_data(described[number], self._snapshot, text) for number in self._slowest],
            # Where the end of the trace is missing, the page says so elsewhere.
            "damage": "" if self._ending.totals is None else printable(self._ending.slow_damage),
        }


def _line(why: Failure, *, judged: bool) -> str:
    return headline_alike(why) if judged else f"{request_sentence(why)}: not diagnosed, beyond this page's limit"


def _call_data(report: SlowCallReport, snapshot: Snapshot, text: Texts) -> dict[str, Any]:
    """Return a call: the task, the diagnosis, and each attempt; memory is in kB, times are in ns."""
    call, why, tables = report.call, report.why, snapshot.tables
    answer = why.why
    return {
        **{name: call[name] for name in ("time", "duration", "cpu", "pid", "tid")},
        "comm": text(call["comm"]),
        "gfp": text(_mask_text(call["given"]["gfp_mask"], tables)),
        "order": call["given"]["order"],
        "stack": [text(frame) for frame in (frames_from_entry(snapshot, call["stack"]) if call["stack"] else ())],
        "headline": text(headline(why)),
        "certainty": text(certainty(why)),
        "zones": [
            {
                "zone": text(zone_name(verdict.state)),
                "free": verdict.state.free * why.page_kb,
                "min": verdict.state.watermarks[0] * why.page_kb,
                "verdict": text(VERDICTS[verdict.kind]),
                "certain": verdict.certain,
                "why": text(zone_sentence(why, verdict)),
            }
            for verdict in (answer.zones if answer is not None else ())
        ],
        "remedies": [text(remedy_sentence(why, one)) for one in (answer.remedies if answer is not None else ())],
        "unless": [text(condition) for condition in (conditions(answer) if answer is not None else ())],
        "missing": [text(missing) for missing in why.missing],
        "attempts": [_attempt_data(attempt, tables, text) for attempt in report.attempts],
        "ended": text(report.ended),
    }


def _attempt_data(report: AttemptReport, tables: FlagTables, text: Texts) -> dict[str, Any]:
    row = report.row
    return {
        "kind": text(report.kind),
        "after": row["after"],
        "between": [text(event) for event in row["between"]],
        "gfp": text(_mask_text(row["gfp_mask"], tables)),
        "alloc_flags": text(f"{row['alloc_flags']:#x} {report.alloc_flags}"),
        "verdict": report.judged.verdict,
        "unknown": text(report.judged.unknown) if report.judged.unknown else None,
        "differences": [
            [
                text(difference.field),
                text(value_text(difference.field, difference.expected, tables)),
                text(value_text(difference.field, difference.observed, tables)),
                text(difference.rule),
                text(difference.effect),
            ]
            for difference in report.judged.differences
        ],
    }


def slow_verdict(slow: SlowVerification, lost: int, tables: FlagTables) -> dict[str, Any]:
    """Return the numbers of the slow path's verdict, and the first mismatches."""
    names = ("calls", "failed", "attempts", "matched", "mismatched", "unknown", "calls_mismatched", "calls_unknown")
    return {
        **{name: getattr(slow, name) for name in names},
        "lost": lost,
        "kinds": [[kind, count] for kind, count in slow.kinds.most_common()],
        "reasons": [[printable(reason), count] for reason, count in slow.unknown_reasons.most_common()],
        "mismatches": [_mismatch(mismatch, tables) for mismatch in slow.mismatches[:MAX_MISMATCHES]],
        "hidden": max(0, len(slow.mismatches) + slow.not_shown - MAX_MISMATCHES),
    }


def _mismatch(mismatch: SlowMismatch, tables: FlagTables) -> dict[str, str]:
    difference, given = mismatch.difference, mismatch.call["given"]
    gfp = _mask_text(given["gfp_mask"], tables)
    return {
        "step": f"attempt {mismatch.number}" if mismatch.number else mismatch.step,
        "field": difference.field,
        "expected": printable(value_text(difference.field, difference.expected, tables)),
        "observed": printable(value_text(difference.field, difference.observed, tables)),
        "rule": printable(f"{difference.rule}: {difference.effect}"),
        "request": printable(f"{gfp}, order {given['order']}, of {mismatch.call['comm']}"),
    }


def _mask_text(mask: int, tables: FlagTables) -> str:
    return f"{mask:#x} {decode_gfp(mask, tables).text}".rstrip()
