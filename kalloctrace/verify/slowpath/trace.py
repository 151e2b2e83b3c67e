# SPDX-License-Identifier: MIT
"""Verifies the calls of the slow path in a trace."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.kernel.slowpath_rules import slowpath_rules
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.slowpath.state_machine import slowpath_call
from kalloctrace.model.slowpath.types import Facts, SlowAttempt, SlowCall, SlowContext, SlowKernel
from kalloctrace.model.types import Context, ImpossibleRequestError, Request, UnknownFact
from kalloctrace.trace.totals import Totals
from kalloctrace.verify.compare import Difference
from kalloctrace.verify.rows import DamagedRowError, ModelFailure, Row, node_mask, request_text
from kalloctrace.verify.slowpath.compare import entry_differences
from kalloctrace.verify.slowpath.judge import CACHED, AttemptVerdict, CallVerdict, SlowpathJudge

_NO_RULES = "no rules of the slow path are known of this kernel"
_DAMAGED = AttemptVerdict(unknown="the call is damaged")
_NEEDED = ("gfp_mask", "order", "task_flags", "cpusets_enabled")
"""Columns that are set at every step of a call."""
EXAMPLES = 1000
"""How many mismatches are kept, each with its call; the others are only counted."""


@dataclass(frozen=True)
class SlowMismatch:
    """A field that differs, of one step of a call.

    Attributes:
        step: `given` (the arguments), `attempt` or `returned`.
        difference: the field, both values and the rule.
        call: the recorded call.
        number: the attempt's number, from 1; 0 for the other steps.
    """

    step: str
    difference: Difference
    call: Row
    number: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the mismatch as JSON values."""
        return {
            "step": self.step,
            "number": self.number,
            **self.difference.to_json(),
            "gfp_mask": self.call["given"]["gfp_mask"],
            "order": self.call["given"]["order"],
            "comm": self.call["comm"],
            "time": self.call["time"],
        }


@dataclass
class SlowVerification:
    """The verdict on the slow path: attempts = matched + mismatched + unknown.

    Attributes:
        calls: calls of the slow path.
        failed: calls that returned no page.
        attempts: their calls of get_page_from_freelist().
        matched: attempts that the kernel made as the model predicts.
        mismatched: attempts that differ in at least one field, or that the model does not allow.
        unknown: attempts that could not be judged; never a pass.
        calls_mismatched: calls whose arguments or return value differ from the model's.
        calls_unknown: calls whose arguments or return value could not be judged.
        kinds: how many attempts have each kind; `several` if the trace does not decide.
        mismatches: what differs, in the order of time: the first ones.
        not_shown: how many more differences there are.
        unknown_reasons: why steps could not be judged, with counts.
    """

    calls: int = 0
    failed: int = 0
    attempts: int = 0
    matched: int = 0
    mismatched: int = 0
    unknown: int = 0
    calls_mismatched: int = 0
    calls_unknown: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    mismatches: list[SlowMismatch] = field(default_factory=list)
    not_shown: int = 0
    unknown_reasons: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        not_shown = {"mismatches_not_shown": self.not_shown} if self.not_shown else {}
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "kinds": dict(self.kinds.most_common()),
            "mismatches": [mismatch.to_json() for mismatch in self.mismatches],
            **not_shown,
            "unknown_reasons": dict(self.unknown_reasons.most_common()),
        }


_COUNTS = ("calls", "failed", "attempts", "matched", "mismatched", "unknown", "calls_mismatched", "calls_unknown")


class SlowJudge:
    """Judges calls of the slow path of one recording.

    Args:
        snapshot: the kernel and machine that were recorded.
        kernel: the model's form of the same.
        may_miss: hits of the slow path were missed, so a missing event proves nothing.
        machine_changed: names of facts about the machine that changed during the recording.
    """

    def __init__(
        self, snapshot: Snapshot, kernel: Kernel, *, may_miss: bool = False, machine_changed: Sequence[str] = ()
    ) -> None:
        rules = slowpath_rules(snapshot.release, snapshot.version)
        self._kernel = kernel
        self._may_miss = may_miss
        self._args: dict[tuple[Any, ...], AttemptVerdict] = {}
        self._judge = None if rules is None or machine_changed else SlowpathJudge(SlowKernel(kernel, rules))
        changed = f"the machine changed during the recording: {', '.join(machine_changed)}"
        self._cannot = AttemptVerdict(unknown=changed if machine_changed else _NO_RULES)

    @classmethod
    def of(cls, snapshot: Snapshot, kernel: Kernel, totals: Totals | None) -> Self:
        """Return the judge of a trace with these totals; None if the end of the trace is missing."""
        if totals is None:
            return cls(snapshot, kernel, may_miss=True)
        return cls(snapshot, kernel, may_miss=totals.slow_missed > 0, machine_changed=totals.machine_changed)

    def args(self, call: Row) -> AttemptVerdict:
        """Judge the arguments of a call; remembers the verdicts on distinct arguments.

        Raises:
            ModelFailure: the model failed on this call.
        """
        if self._judge is None:
            return self._cannot
        key = tuple(call["given"].items())
        verdict = self._args.get(key)
        if verdict is None:
            if len(self._args) >= CACHED:
                self._args.clear()
            verdict = self._args[key] = self._judge_args(call)
        return verdict

    def _judge_args(self, call: Row) -> AttemptVerdict:
        try:
            return args_verdict(self._kernel, call)
        except DamagedRowError:
            return _DAMAGED
        except Exception as error:
            raise ModelFailure(_call_text(call), error) from error

    def __call__(self, call: Row) -> CallVerdict:
        """Judge the attempts and the return value of a call.

        Raises:
            ModelFailure: the model failed on this call.
        """
        if self._judge is None:
            return CallVerdict((self._cannot,) * len(call["attempts"]), self._cannot)
        try:
            return self._judge(slow_call_of(call, may_miss=self._may_miss))
        except DamagedRowError:
            return CallVerdict((_DAMAGED,) * len(call["attempts"]), _DAMAGED)
        except Exception as error:
            raise ModelFailure(_call_text(call), error) from error


def _call_text(call: Row) -> str:
    return f"{request_text(call['given'])} in the slow path, of {call['comm']} at {call['time']} ns"


def verify_slow(judge: SlowJudge, calls: Iterable[Row]) -> SlowVerification:
    """Predict every attempt and compare."""
    verdict = SlowVerification()
    for call in calls:
        verify_slow_call(verdict, judge, call)
    return verdict


def verify_slow_call(verdict: SlowVerification, judge: SlowJudge, call: Row) -> None:
    """Judge one call and add it to the verdict on its trace."""
    verdict.calls += 1
    verdict.failed += call["page"] is False
    verdict.attempts += len(call["attempts"])
    given, judged = judge.args(call), judge(call)
    for number, attempt in enumerate(judged.attempts, 1):
        verdict.unknown += attempt.verdict == "unknown"
        verdict.mismatched += attempt.verdict == "mismatched"
        verdict.matched += attempt.verdict == "matched"
        verdict.kinds[attempt.kind] += 1
        _note(verdict, "attempt", attempt, call, number)
    others = {"given": given, "returned": judged.end}
    verdict.calls_unknown += any(step.verdict == "unknown" for step in others.values())
    verdict.calls_mismatched += any(step.verdict == "mismatched" for step in others.values())
    for name, step in others.items():
        _note(verdict, name, step, call)


def _note(verdict: SlowVerification, step: str, judged: AttemptVerdict, call: Row, number: int = 0) -> None:
    if judged.unknown:
        verdict.unknown_reasons[f"{step}: {judged.unknown}"] += 1
        return
    shown = judged.differences[: EXAMPLES - len(verdict.mismatches)]
    verdict.mismatches += [SlowMismatch(step, difference, call, number) for difference in shown]
    verdict.not_shown += len(judged.differences) - len(shown)


def args_verdict(kernel: Kernel, call: Row) -> AttemptVerdict:
    """Compare the arguments of the slow path with those that the entry prepares for this gfp mask, order and node.

    The recorded mask already has gfp_allowed_mask and the scopes applied; applying them again changes nothing.
    """
    seen = slow_context(call["given"])
    if seen.unknown:
        return AttemptVerdict(unknown=f"not captured: {', '.join(sorted(seen.unknown))}")
    try:
        expected = slowpath_call(kernel, request_of_call(call), context_of_call(kernel, call))
    except UnknownFact as error:
        return AttemptVerdict(unknown=str(error))
    except ImpossibleRequestError as error:
        return AttemptVerdict(differences=(Difference("sequence", "no slow path", "a slow path", "order", str(error)),))
    captured = SlowCall(call["given"]["gfp_mask"], call["given"]["order"], seen)
    return AttemptVerdict(differences=tuple(entry_differences(expected, captured)))


def slow_call_of(call: Row, *, may_miss: bool = False) -> SlowCall:
    """Return a call of a trace as the model's type.

    Args:
        call: the call.
        may_miss: events between the attempts may be missing.
    """
    given = call["given"]
    return SlowCall(
        gfp_mask=given["gfp_mask"],
        order=given["order"],
        context=slow_context(given),
        attempts=tuple(
            SlowAttempt(
                number=number,
                gfp_mask=attempt["gfp_mask"],
                order=attempt["order"],
                alloc_flags=attempt["alloc_flags"],
                context=slow_context(attempt),
                facts=_facts(attempt),
                events=None if may_miss else frozenset(attempt["between"]),
            )
            for number, attempt in enumerate(call["attempts"], 1)
        ),
        page=call["page"],
        complete=call["complete"] and call["page"] is not None,
        facts=_facts(given),
    )


def slow_context(row: Row) -> SlowContext:
    """Return `struct alloc_context` as it was at a step of a call.

    Raises:
        DamagedRowError: the step holds a value that no recorder writes.
    """
    damaged = [name for name in _NEEDED if row[name] is None]
    if damaged:
        raise DamagedRowError(f"no {', '.join(damaged)}")
    missing = {name for name in ("zonelist_kind", "zonelist_nid") if row[name] is None}
    if row["preferred_zone"] == -1:
        missing.add("preferred_zone")
    node = row["preferred_node"]
    return SlowContext(
        zonelist_kind=row["zonelist_kind"],
        zonelist_nid=row["zonelist_nid"],
        nodemask=node_mask(row, "ac_nodemask_nodes"),
        preferred_zone=None if node is None else ZoneRef(node, row["preferred_zone"]),
        highest_zoneidx=row["highest_zoneidx"],
        migratetype=row["migratetype"],
        spread_dirty_pages=row["spread_dirty_pages"],
        alloc_flags=row["ac_alloc_flags"] or 0,
        unknown=frozenset(missing),
    )


def _facts(row: Row) -> Facts:
    return Facts(
        task_flags=row["task_flags"],
        preempt_count=row["preempt_count"],
        softirq_disable_cnt=row["softirq_disable_cnt"] or 0,
        prio=row["prio"],
        oom_victim=row["oom_victim"],
        cpusets_enabled=row["cpusets_enabled"] > 0,
        gfp_allowed_mask=row["gfp_allowed_mask"],
        defrag_mode=row["defrag_mode"],
        mems_allowed=node_mask(row, "mems_allowed"),
    )


def request_of_call(call: Row) -> Request:
    """Return the request of a call from the arguments of the slow path, with all masks applied.

    Raises:
        UnknownFact: its zonelist was not captured.
    """
    given = call["given"]
    if given["zonelist_nid"] is None:
        raise UnknownFact("zonelist_nid")
    context = slow_context(given)
    return Request(
        gfp_mask=given["gfp_mask"],
        order=given["order"],
        preferred_nid=given["zonelist_nid"],
        nodemask=context.nodemask,
        alloc_flags=context.alloc_flags,
    )


def context_of_call(kernel: Kernel, call: Row) -> Context:
    """Return the context in which a call was prepared."""
    given = call["given"]
    return Context(
        cpusets_enabled=given["cpusets_enabled"] > 0,
        gfp_allowed_mask=given["gfp_allowed_mask"],
        task_flags=given["task_flags"],
        preempt_count=given["preempt_count"],
        softirq_disable_cnt=given["softirq_disable_cnt"] or 0,
        mems_allowed=node_mask(given, "mems_allowed"),
        defrag_mode=given["defrag_mode"],
        page_group_by_mobility_disabled=kernel.machine.page_group_by_mobility_disabled,
    )
