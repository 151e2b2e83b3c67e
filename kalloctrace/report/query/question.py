# SPDX-License-Identifier: MIT
"""A question to a trace, and the fields that a trace does not have."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.trace.reader import TraceReader
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


@dataclass(frozen=True)
class Question:
    """What is asked of a trace.

    Attributes:
        by: the fields to group by, each once.
        comms: only calls of tasks with one of these names; empty for all.
        orders: only calls of these orders; None for all.
        gfp: only calls whose mask has all of these bits, in the recorded kernel's values.
        failed: only calls that returned no page.
        slower_than: only calls that were longer than this in the slow path, ns; None for all.
    """

    by: tuple[Field, ...]
    comms: frozenset[str] = frozenset()
    orders: range | None = None
    gfp: int = 0
    failed: bool = False
    slower_than: int | None = None

    @property
    def only_slow(self) -> bool:
        """Return whether only calls of the slow path are counted: the others have no duration."""
        return self.slower_than is not None

    def check(self, trace: TraceReader) -> None:
        """Refuse a question about something that the trace does not have.

        Raises:
            KalloctraceError: it does not have a field, or no calls of the slow path (exit code 2).
        """
        slow = bool(trace.recording.get("slow"))
        if self.only_slow and not slow:
            raise _refused("select slow calls", trace, *no_slow_path(trace))
        for field in self.by:
            for why, fix in _missing(field, trace, only_slow=self.only_slow):
                raise _refused(f"group by {field}", trace, why, fix)
        if self.comms and not trace.has("comm") and not self.only_slow:
            why, fix = _no_tasks("comm", slow=slow)
            raise _refused("select by --comm", trace, why, fix)


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


def no_slow_path(trace: TraceReader) -> tuple[str, str]:
    """Return why a trace has no calls of the slow path, and how to get them."""
    if trace.recording.get("imported"):
        return "the events of another tool do not show the slow path", "record it with kalloctrace record"
    return "its slow path was not recorded", "record it without --no-slow"


def _no_tasks(field: str, *, slow: bool) -> tuple[str, str]:
    how = f"--by {field}, or with --mode stream" if field in COUNTED_BY else "--mode stream"
    fix = f"record it with {how}{', ' + _SLOW_CALLS if slow else ''}"
    return "it is an aggregate, which counts calls without their tasks", fix


def _refused(what: str, trace: TraceReader, why: str, fix: str) -> KalloctraceError:
    return KalloctraceError(f"cannot {what} in {trace.path}", why, fix, Exit.USAGE)


def no_outcome(trace: TraceReader) -> KalloctraceError:
    """Return the error for a trace whose calls were not followed to their return."""
    return _refused(
        "group by outcome",
        trace,
        "what its calls returned was not recorded",
        "record it with --mode stream --returns, or add --failed or --slower-than 0",
    )
