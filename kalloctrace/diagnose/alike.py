# SPDX-License-Identifier: MIT
"""Groups of alike failures: a machine short of memory logs the same failure hundreds of times."""

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kalloctrace.diagnose.answers.caller import find_caller
from kalloctrace.diagnose.findings import leaves_out_nodes
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.reports.model import Constraint, LoggedFailure
from kalloctrace.diagnose.to_json import failure_json
from kalloctrace.errors import KalloctraceError
from kalloctrace.logs.batches import in_batches

_BATCH = 32
"""Reports that are read before the first of them is judged."""
MOST_GROUPS = 2_000
"""How many groups of a log are reported separately; each keeps a failure, of about 20 KB."""


class Moment(NamedTuple):
    """When a failure was logged.

    Attributes:
        time: seconds since boot, or a time of day as seconds that can be compared within the log; None if not printed.
        text: the time of day as printed; "" if it is not.
    """

    time: float | None
    text: str


@dataclass(slots=True)
class Alike:
    """Failures of one log with the same event, order, gfp mask, caller, constraint, conclusion and kernel.

    Of contiguous ranges, the number of pages and the error are the same too.

    Attributes:
        failure: the first of them.
        first: when it was logged.
        last: when the last of them was logged.
        lines: the numbers of the first lines of their reports, ascending.
        suppressed: reports before them that the kernel's rate limit kept back, so that nothing else is known of them.
    """

    failure: Failure
    first: Moment
    last: Moment
    lines: "array[int]" = field(default_factory=lambda: array("q"))
    suppressed: int = 0

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.lines)


@dataclass
class AlikeFailures:
    """The failures of one log, in groups.

    Attributes:
        groups: in the order of their first lines.
        beyond: how many failures are in further groups, which are not kept.
        error: why the end of the log was not read; None if it was.
    """

    groups: list[Alike]
    beyond: int = 0
    error: KalloctraceError | None = None


def group_alike(
    reports: Iterable[LoggedFailure], judge: Callable[[LoggedFailure], Failure], most: int = MOST_GROUPS
) -> AlikeFailures:
    """Judge the reports of a log, and keep the first failure of each group.

    Args:
        reports: of one log.
        judge: diagnoses one.
        most: how many groups to keep.
    """
    groups: dict[tuple[object, ...], Alike] = {}
    latest: dict[tuple[object, ...], int] = {}
    beyond = 0
    for logged in in_batches(reports, _BATCH):
        failure = judge(logged)
        key, moment = _key(failure), _moment(logged)
        group = groups.get(key)
        if group is None and len(groups) == most:
            beyond += 1
            continue
        if group is None:
            group, latest[key] = groups.setdefault(key, Alike(failure, moment, moment)), logged.line
        elif logged.line < group.failure.logged.line:
            # The newest report may be the first of the log, and a report that is complete may be before an older one.
            group.failure, group.first = failure, moment
        elif logged.line > latest[key]:
            group.last, latest[key] = moment, logged.line
        group.lines.append(logged.line)
        group.suppressed += logged.suppressed
    for group in groups.values():
        group.lines = array("q", sorted(group.lines))
    return AlikeFailures(sorted(groups.values(), key=lambda group: group.lines[0]), beyond)


def _key(failure: Failure) -> tuple[object, ...]:
    logged = failure.logged
    return (
        logged.event,
        logged.order,
        failure.gfp_text,
        caller_name(failure),
        constraint(failure),
        failure.conclusion,
        failure.kernel,
        logged.errno,
        logged.pages,
    )


def _moment(logged: LoggedFailure) -> Moment:
    return Moment(logged.time, logged.wall or "")


def caller_name(failure: Failure) -> str | None:
    """Return the function that asked for the pages; None if the log does not show it."""
    caller = find_caller(failure.logged)
    return caller.function if caller is not None else None


def constraint(failure: Failure) -> Constraint:
    """Return what bound the request to a part of the memory; "none" if the log does not show that anything did.

    Only the OOM killer prints it. For another report it is what the OOM killer would print of the same request:
    `constrained_alloc`, mm/oom_kill.c of Linux 2.6.32 to 7.3, which takes each nodemask that leaves out memory for a
    memory policy.
    """
    if failure.logged.constraint is not None:
        return failure.logged.constraint
    if failure.conclusion == "memcg":
        return "memcg"
    if failure.attempt.nodemask is not None and leaves_out_nodes(failure):
        return "mempolicy"
    kept_out = failure.why is not None and any(zone.excluded_by == "cpuset" for zone in failure.why.zones)
    return "cpuset" if kept_out else "none"


def alike_json(group: Alike, log: str) -> dict[str, Any]:
    """Return the object that `explain --json` prints for a group.

    Args:
        group: alike failures.
        log: the name of their log.
    """
    first, last = group.first, group.last
    return {
        **failure_json(group.failure),
        "log": log,
        "count": group.count,
        "lines": group.lines.tolist(),
        "first": first.time,
        "last": last.time,
        "first_text": first.text or None,
        "last_text": last.text or None,
        "constraint": constraint(group.failure),
        "suppressed": group.suppressed,
    }
