# SPDX-License-Identifier: MIT
"""A question to a trace, and the fields that a trace does not have."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.results import Selection
from kalloctrace.trace.schema import COUNTED_BY

Field = Literal[
    "comm", "pid", "cgroup", "gfp", "order", "node", "zone", "migratetype", "alloc_flags", "stack", "cpu", "outcome"
]
Sort = Literal["calls", "bytes", "failed", "time"]
FIELDS: tuple[Field, ...] = get_args(Field)
SORTS: tuple[Sort, ...] = get_args(Sort)

_OF_TASKS = frozenset(("comm", "pid", "cgroup", "cpu", "stack"))
_NOT_IN_EVENTS = frozenset(("node", "zone", "alloc_flags"))
_SLOW_CALLS = "or add --slower-than 0 for the calls of the slow path"


@dataclass(frozen=True, kw_only=True)
class Question(Selection):
    """What is asked of a trace.

    Attributes:
        by: the fields to group by, each once.
        comms: only calls of tasks with one of these names; empty for all.
        orders: only calls of these orders; None for all.
        gfp: only calls whose mask has all of these bits, in the recorded kernel's values.
    """

    by: tuple[Field, ...]
    comms: frozenset[str] = frozenset()
    orders: range | None = None
    gfp: int = 0

    def selects(self, call: Mapping[str, Any], gfp_mask: int) -> bool:
        """Return whether a call of the slow path is one of those that the question is about.

        Args:
            call: with the columns of SLOW.
            gfp_mask: the mask that the page allocator's caller passed.
        """
        return (
            (not self.comms or call["comm"] in self.comms)
            and (self.orders is None or call["given"]["order"] in self.orders)
            and gfp_mask & self.gfp == self.gfp
            and not (self.failed and call["page"] is not False)
            and (self.slower_than is None or (call["duration"] or 0) > self.slower_than)
        )

    def check(self, trace: TraceReader) -> None:
        """Refuse a question about something that the trace does not have.

        Raises:
            KalloctraceError: it does not have a field, or no calls of the slow path (exit code 2).
        """
        slow = bool(trace.recording.get("slow"))
        if (missing := self.missing(trace.recording)) is not None:
            raise refused(trace, *missing)
        for field in self.by:
            for why, fix in _missing(field, trace, only_slow=self.only_slow):
                raise refused(trace, f"group by {field}", why, fix)
        if self.comms and not trace.has("comm") and not self.only_slow:
            why, fix = _no_tasks("comm", slow=slow)
            raise refused(trace, "select by --comm", why, fix)


def _missing(field: Field, trace: TraceReader, *, only_slow: bool) -> Iterator[tuple[str, str]]:
    """Yield why a trace does not have a field, and how to get it."""
    slow = bool(trace.recording.get("slow"))
    if field == "cgroup" and not trace.recording.get("cgroups"):
        yield "its calls were recorded without their cgroups", "group by comm or pid"
    elif only_slow:
        return
    elif field in _OF_TASKS and not trace.has(field):
        yield _no_tasks(field, slow=slow)
    elif field == "stack" and not trace.recording.get("stacks"):
        if trace.recording.get("imported"):
            yield "its events were recorded without call chains", "record them with perf record -g"
        yield "it was recorded without --stack", f"record it with --stack{', ' + _SLOW_CALLS if slow else ''}"
    elif field in _NOT_IN_EVENTS and trace.recording.get("imported"):
        yield "the events of another tool do not show it", "record it with kalloctrace record"


def _no_tasks(field: str, *, slow: bool) -> tuple[str, str]:
    how = f"--by {field}, or with --mode stream" if field in COUNTED_BY else "--mode stream"
    fix = f"record it with {how}{', ' + _SLOW_CALLS if slow else ''}"
    return "it is an aggregate, which counts calls without their tasks", fix


def refused(trace: TraceReader, what: str, why: str, fix: str) -> KalloctraceError:
    """Return the error for something that cannot be done with a trace."""
    return KalloctraceError(f"cannot {what} in {trace.path}", why, fix, Exit.USAGE)


def no_outcomes(trace: TraceReader) -> KalloctraceError:
    """Return the error for a trace whose calls were not followed to their return."""
    return refused(
        trace,
        "group by outcome",
        "what its calls returned was not recorded",
        "record it with --mode stream --returns, or add --failed or --slower-than 0",
    )
