# SPDX-License-Identifier: MIT
"""Reports of slow-path calls: the task, why the call failed or was slow, and each attempt with its verdict."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kalloctrace.diagnose.alike import caller_name
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.from_trace import slow_failure, slow_start
from kalloctrace.diagnose.to_json import failure_json
from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.kernel import Kernel
from kalloctrace.verify.slowpath.judge import AttemptVerdict
from kalloctrace.verify.slowpath.trace import SlowJudge

Row = Mapping[str, Any]
"""A call with the columns of trace/slowpath.py."""
MOST_GROUPS = 2_000
"""How many causes are reported separately; each keeps a call, of about 20 KB."""
_MOST_CALLERS = 50
_OTHERS = "(others)"
"""Replaces the callers of a group that exceed the limit."""


@dataclass(frozen=True)
class AttemptReport:
    """One call of get_page_from_freelist().

    Attributes:
        row: as it was recorded.
        gfp: the names in its mask.
        alloc_flags: the names in its flags.
        judged: the model's verdict.
    """

    row: Row
    gfp: str
    alloc_flags: str
    judged: AttemptVerdict

    @property
    def kind(self) -> str:
        """Why the kernel made it; several kinds if the trace does not show which."""
        return " or ".join(self.judged.kinds) or "not classified"


@dataclass(frozen=True)
class SlowCallReport:
    """One call of the slow path.

    Attributes:
        call: as it was recorded.
        why: why it found no page; if it found one, why the fast path did not.
        attempts: in order.
    """

    call: Row
    why: Failure
    attempts: tuple[AttemptReport, ...]

    @property
    def ended(self) -> str:
        """What it returned."""
        page = {True: "a page", False: "NULL", None: "nothing yet, or its return was not seen"}[self.call["page"]]
        lost = "" if self.call["complete"] else "; events were lost"
        return page + lost


class SlowCallDescriber:
    """Describes calls of one recording.

    Args:
        snapshot: the kernel and machine that were recorded.
        kernel: the same, compiled.
        judge: of the same recording.
    """

    def __init__(self, snapshot: Snapshot, kernel: Kernel, judge: SlowJudge) -> None:
        self._snapshot = snapshot
        self._kernel = kernel
        self._judge = judge

    def describe(self, call: Row) -> SlowCallReport:
        """Return the report of one call."""
        tables = self._snapshot.tables
        failed = call["page"] is False
        judged = self._judge(call).attempts
        return SlowCallReport(
            call,
            slow_failure(self._snapshot, call) if failed else slow_start(self._snapshot, self._kernel, call),
            tuple(
                AttemptReport(
                    row,
                    decode_gfp(row["gfp_mask"], tables).text or "no flags",
                    decode_alloc(row["alloc_flags"], tables).text,
                    verdict,
                )
                for row, verdict in zip(call["attempts"], judged, strict=True)
            ),
        )


@dataclass
class SlowGroup:
    """Calls with the same cause.

    Attributes:
        slowest: the first of those that took longest.
        calls: how many there are.
        first: time of the earliest in ns.
        last: time of the latest in ns.
        callers: who asked, with the number of calls; empty without stacks.
    """

    slowest: SlowCallReport
    calls: int
    first: int
    last: int
    callers: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, report: SlowCallReport) -> "SlowGroup":
        """Return the group of one call."""
        time = report.call["time"]
        group = cls(report, 1, time, time)
        group._count_caller(report)
        return group

    def add(self, report: SlowCallReport) -> None:
        """Add a call."""
        time = report.call["time"]
        self.calls += 1
        self._count_caller(report)
        self.first, self.last = min(self.first, time), max(self.last, time)
        if (report.call["duration"] or 0) > (self.slowest.call["duration"] or 0):
            self.slowest = report

    def _count_caller(self, report: SlowCallReport) -> None:
        caller = caller_name(report.why)
        if caller is not None:
            known = caller in self.callers or len(self.callers) < _MOST_CALLERS
            self.callers[caller if known else _OTHERS] += 1


@dataclass(frozen=True)
class SlowGroups:
    """Calls by cause.

    Attributes:
        groups: largest first.
        beyond: calls of further causes.
    """

    groups: Sequence[SlowGroup]
    beyond: int = 0


def grouped(reports: Iterable[SlowCallReport], most: int = MOST_GROUPS) -> SlowGroups:
    """Return the calls grouped by cause; memory grows with the groups, not with the calls.

    Args:
        reports: the calls.
        most: how many groups to keep: those whose first call comes first.
    """
    groups: dict[tuple[object, ...], SlowGroup] = {}
    beyond = 0
    for report in reports:
        cause = report.why.cause
        if cause in groups:
            groups[cause].add(report)
        elif len(groups) < most:
            groups[cause] = SlowGroup.of(report)
        else:
            beyond += 1
    return SlowGroups(sorted(groups.values(), key=lambda group: -group.calls), beyond)


def slow_call_json(report: SlowCallReport) -> dict[str, Any]:
    """Return what `report --failures --json` prints for a call: the diagnosis, the task, and the attempts."""
    call = report.call
    return {
        **failure_json(report.why),
        "gfp": call["given"]["gfp_mask"],
        **{name: call[name] for name in ("time", "cpu", "pid", "tid", "stack", "page", "duration", "complete")},
        "attempts": [_attempt_json(number, one) for number, one in enumerate(report.attempts, 1)],
    }


def _attempt_json(number: int, attempt: AttemptReport) -> dict[str, Any]:
    row = attempt.row
    return {
        "number": number,
        "kinds": list(attempt.judged.kinds),
        "after": row["after"],
        "between": row["between"],
        "gfp": row["gfp_mask"],
        "gfp_text": attempt.gfp,
        "alloc_flags": row["alloc_flags"],
        "alloc_flags_text": attempt.alloc_flags,
        "verdict": attempt.judged.verdict,
        "unknown": attempt.judged.unknown or None,
        "differences": [difference.to_json() for difference in attempt.judged.differences],
    }
