# SPDX-License-Identifier: MIT
"""Judges the attempts of the slow path: whether each may come at its place, and whether its arguments are right.

The judge follows every path through the model that explains the attempts so far. It compares an attempt with all
attempts that may come next on these paths, and keeps the paths that fit. Paths that a later attempt contradicts are
dropped, so the whole call classifies an attempt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kalloctrace.model.slowpath import state_machine
from kalloctrace.model.slowpath.types import Facts, Failure, Kind, Prediction, SlowAttempt, SlowCall, SlowKernel, State
from kalloctrace.model.types import Step, UnknownFact
from kalloctrace.verify.compare import Difference
from kalloctrace.verify.slowpath.compare import distance, fits_evidence, skips_reclaim, slow_differences

_VOLATILE = ("task_flags", "prio", "oom_victim", "cpusets_enabled", "gfp_allowed_mask", "defrag_mode", "mems_allowed")
CACHED = 1 << 16
"""How many verdicts on distinct calls, or on distinct arguments, are remembered at once."""
_NEEDS_UNOBSERVED_EVENT = "only a change of the cpuset, or a kill during reclaim, that no trace shows explains it"
_NOTHING = Step("slow_sequence", "__alloc_pages_slowpath", "")


@dataclass(frozen=True)
class AttemptVerdict:
    """The verdict on one attempt: matched if it has neither differences nor a reason to be unknown.

    Attributes:
        kinds: why it was made; several if the trace does not decide, none if it could not be classified.
        differences: how it differs from the most similar prediction.
        unknown: why it could not be judged.
    """

    kinds: tuple[Kind, ...] = ()
    differences: tuple[Difference, ...] = ()
    unknown: str = ""

    @property
    def kind(self) -> str:
        """Return the kind; `several` if the trace does not decide, `none` without any."""
        return self.kinds[0] if len(self.kinds) == 1 else "several" if self.kinds else "none"

    @property
    def verdict(self) -> str:
        """Return matched, mismatched or unknown."""
        return "unknown" if self.unknown else "mismatched" if self.differences else "matched"


@dataclass(frozen=True)
class CallVerdict:
    """The verdict on one call of the slow path.

    Attributes:
        attempts: the verdicts on its attempts, in order.
        end: the verdict on its return value.
    """

    attempts: tuple[AttemptVerdict, ...]
    end: AttemptVerdict


@dataclass(frozen=True)
class _Node:
    """The end of the paths that explain the attempts so far with one state and kind.

    Attributes:
        state: the state of the model.
        kind: the kind of the last attempt; None before the first one.
        steps: the rules applied on one of the paths.
        parents: indices of the nodes of the attempt before that lead here.
        needs_unobserved_event: every path to this node assumes an event the trace cannot show; report it rather than
            rely on it silently.
        mems_changed: the trace shows that mems_allowed changed since the slow path started or restarted.
    """

    state: State
    kind: Kind | None = None
    steps: tuple[Step, ...] = ()
    parents: frozenset[int] = frozenset()
    needs_unobserved_event: bool = False
    mems_changed: bool = False


@dataclass(frozen=True)
class _Candidate:
    """An attempt that may come next, the node before it, and whether mems_allowed is known to have changed."""

    parent: int
    node: _Node
    prediction: Prediction
    mems_changed: bool

    @property
    def restarted(self) -> bool:
        """Whether it requires a change of the cpuset."""
        return self.prediction.restarted == "possible"


_Layer = Sequence[_Node]


class SlowpathJudge:
    """Judges calls on one kernel; remembers the verdicts on distinct calls.

    Args:
        kernel: the kernel that was recorded.
    """

    def __init__(self, kernel: SlowKernel) -> None:
        """Start without remembered verdicts."""
        self._kernel = kernel
        self._seen: dict[SlowCall, CallVerdict] = {}

    def __call__(self, call: SlowCall) -> CallVerdict:
        """Judge a call and its attempts."""
        verdict = self._seen.get(call)
        if verdict is None:
            verdict = judge_slowpath(self._kernel, call)
            if len(self._seen) >= CACHED:
                self._seen.clear()
            self._seen[call] = verdict
        return verdict


def judge_slowpath(kernel: SlowKernel, call: SlowCall) -> CallVerdict:
    """Judge a call and its attempts.

    Args:
        kernel: the kernel that was recorded.
        call: the captured call.
    """
    if call.context.unknown:
        reason = f"not captured at the entry: {', '.join(sorted(call.context.unknown))}"
        return _abandoned(call, [], [], reason)
    verdicts: list[AttemptVerdict] = []
    layers: list[_Layer] = [[_Node(state_machine.enter(kernel, call))]]
    before = call.facts
    for index, attempt in enumerate(call.attempts, 1):
        if attempt.number != index:
            return _abandoned(call, verdicts, layers, "an attempt before it was not captured")
        try:
            verdict, layer = _judge_attempt(kernel, call, layers[-1], before, attempt)
        except UnknownFact as error:
            return _abandoned(call, verdicts, layers, str(error))
        verdicts.append(verdict)
        layers.append(layer)
        if not layer:
            return _abandoned(call, verdicts, layers, "it follows an attempt that no rule explains")
        before = attempt.facts
    end, layers[-1] = _judge_end(kernel, call, layers[-1], before)
    return CallVerdict(_classified(verdicts, layers), end)


def _abandoned(
    call: SlowCall, verdicts: Sequence[AttemptVerdict], layers: Sequence[_Layer], reason: str
) -> CallVerdict:
    unknown = AttemptVerdict(unknown=reason)
    left = len(call.attempts) - len(verdicts)
    return CallVerdict((*_classified(verdicts, layers), *(unknown,) * left), unknown)


def _classified(verdicts: Sequence[AttemptVerdict], layers: Sequence[_Layer]) -> tuple[AttemptVerdict, ...]:
    """Return the verdicts with the kinds that the later attempts of the call leave."""
    classified: list[AttemptVerdict] = []
    alive: frozenset[int] | None = None
    for verdict, layer in zip(reversed(verdicts), reversed(layers), strict=False):
        nodes = _seen(layer) if alive is None else [node for index, node in enumerate(layer) if index in alive]
        kinds = tuple(dict.fromkeys(node.kind for node in nodes if node.kind is not None))
        classified.append(replace(verdict, kinds=kinds))
        alive = frozenset().union(*(node.parents for node in nodes)) if nodes else None
    return tuple(reversed(classified))


def _seen(layer: _Layer) -> _Layer:
    """Return the nodes that assume no unobserved event, or all nodes if there is none."""
    return [node for node in layer if not node.needs_unobserved_event] or layer


def _judge_attempt(
    kernel: SlowKernel, call: SlowCall, layer: _Layer, before: Facts | None, attempt: SlowAttempt
) -> tuple[AttemptVerdict, _Layer]:
    """Compare an attempt with what may come next; return the verdict and the nodes after it."""
    candidates, failures = _candidates(kernel, call, layer, before, attempt.facts)
    if not candidates:
        return AttemptVerdict(differences=(_no_more(failures, attempt.number),)), []
    equal = [each for each in candidates if not any(slow_differences(kernel, call, each.prediction, attempt))]
    if not equal:
        return _differing(kernel, call, candidates, before, attempt)
    fitting = [each for each in equal if fits_evidence(each.prediction, attempt)]
    if not fitting:
        return AttemptVerdict(differences=(_other_sequence(equal, attempt),)), _advance(equal)
    unknown = _not_captured(attempt)
    assuming = [each for each in fitting if each.node.needs_unobserved_event or _improbable(each, attempt)]
    if len(assuming) < len(fitting):
        # Later attempts may contradict the paths that need no unobserved event, so the others are kept too.
        return AttemptVerdict(unknown=unknown), _advance(fitting, assuming)
    return AttemptVerdict(unknown=unknown or _NEEDS_UNOBSERVED_EVENT), _advance(fitting)


def _improbable(candidate: _Candidate, attempt: SlowAttempt) -> bool:
    """Return whether a candidate assumes a rare event that the trace cannot show."""
    return (candidate.restarted and not candidate.mems_changed) or skips_reclaim(candidate.prediction, attempt)


def _candidates(
    kernel: SlowKernel, call: SlowCall, layer: _Layer, before: Facts | None, facts: Facts
) -> tuple[list[_Candidate], list[Failure]]:
    """Return what may come next. The kernel reads the facts between two attempts, so those of either may apply."""
    candidates: list[_Candidate] = []
    failures: list[Failure] = []
    changed = before is not None and before.mems_allowed != facts.mems_allowed
    for parent, node in enumerate(layer):
        for read in dict.fromkeys((facts, before or facts)):
            for outcome in state_machine.next_attempts(kernel, call, node.state, read):
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                else:
                    candidates.append(_Candidate(parent, node, outcome, mems_changed=node.mems_changed or changed))
    return candidates, failures


def _advance(candidates: Iterable[_Candidate], assuming: Sequence[_Candidate] = ()) -> _Layer:
    """Return the nodes after an attempt; those that assume an unobserved event are separate nodes."""
    nodes: dict[tuple[State, Kind, bool, bool], _Node] = {}
    for each in candidates:
        state, kind = each.prediction.state, each.prediction.kind
        key = (state, kind, each in assuming, each.mems_changed and not each.restarted)
        node = nodes.get(key)
        if node is None:
            node = _Node(
                state,
                kind,
                (*each.node.steps, *each.prediction.steps),
                needs_unobserved_event=key[2],
                mems_changed=key[3],
            )
        nodes[key] = replace(node, parents=node.parents | {each.parent})
    return list(nodes.values())


def _differing(
    kernel: SlowKernel,
    call: SlowCall,
    candidates: Sequence[_Candidate],
    before: Facts | None,
    attempt: SlowAttempt,
) -> tuple[AttemptVerdict, _Layer]:
    """Return the differences from the most similar candidates, and continue from these."""
    likely = [
        each for each in candidates if fits_evidence(each.prediction, attempt) and not each.restarted
    ] or candidates
    distances = [distance(kernel, call, each.prediction, attempt) for each in likely]
    alike = [each for each, far in zip(likely, distances, strict=True) if far == min(distances)]
    changed = [name for name in _VOLATILE if before and getattr(before, name) != getattr(attempt.facts, name)]
    if changed:
        return AttemptVerdict(unknown=f"{', '.join(changed)} changed during the call"), _advance(alike)
    closest = alike[0]
    differences = slow_differences(kernel, call, closest.prediction, attempt, closest.node.steps)
    return AttemptVerdict(differences=tuple(differences)), _advance(alike)


def _not_captured(attempt: SlowAttempt) -> str:
    missing = attempt.context.unknown
    return f"not captured: {', '.join(sorted(missing))}" if missing else ""


def _no_more(failures: Sequence[Failure], number: int) -> Difference:
    step = next((failure.steps[-1] for failure in failures if failure.steps), _NOTHING)
    return Difference("sequence", "no further attempt", f"attempt {number}", step.rule, step.effect)


def _other_sequence(equal: Sequence[_Candidate], attempt: SlowAttempt) -> Difference:
    events = sorted({event for each in equal for event in each.prediction.events})
    sites = sorted({each.prediction.state.site for each in equal})
    observed = {"events": sorted(attempt.events or ()), "reclaimed": attempt.reclaimed, "caller": attempt.caller}
    effect = "the arguments are those of an attempt that comes after other events, or from elsewhere"
    return Difference("sequence", {"events": events, "sites": sites}, observed, _NOTHING.rule, effect)


def _judge_end(kernel: SlowKernel, call: SlowCall, layer: _Layer, facts: Facts | None) -> tuple[AttemptVerdict, _Layer]:
    """Judge the return value of a call; return the verdict and the nodes that end with it."""
    if call.page is None or not call.complete:
        return AttemptVerdict(unknown="what the call returned, or its last attempts, was not captured"), layer
    if not call.page:
        return _judge_null(kernel, call, layer, facts)
    if call.attempts:
        return AttemptVerdict(), layer
    difference = Difference("sequence", "an attempt", "a page without one", _NOTHING.rule, _NOTHING.effect)
    return AttemptVerdict(differences=(difference,)), layer


def _judge_null(
    kernel: SlowKernel, call: SlowCall, layer: _Layer, facts: Facts | None
) -> tuple[AttemptVerdict, _Layer]:
    """Judge a call that returned NULL; a path must allow it to give up here."""
    if facts is None:
        return AttemptVerdict(unknown="not known: the facts at the entry"), layer
    # The trace has no facts after the last attempt. Try those of the last attempt first, then possible changes.
    meanwhile = {"": facts, "the task became an OOM victim": replace(facts, oom_victim=True)}
    if facts.cpusets_enabled:
        meanwhile["the cpuset changed"] = replace(facts, mems_allowed=0)
    try:
        for change, read in meanwhile.items():
            ended = [node for node in layer if _may_fail(kernel, call, node, read)]
            if ended:
                reason = f"whether {change} meanwhile is not known" if change else ""
                if not reason and _seen(ended)[0].needs_unobserved_event:
                    reason = _NEEDS_UNOBSERVED_EVENT
                return AttemptVerdict(unknown=reason), ended
        step = next(
            (o.steps[-1] for o in state_machine.next_attempts(kernel, call, layer[0].state, facts) if o.steps), _NOTHING
        )
    except UnknownFact as error:
        return AttemptVerdict(unknown=str(error)), layer
    difference = Difference("sequence", "another attempt", "NULL", step.rule, step.effect)
    return AttemptVerdict(differences=(difference,)), layer


def _may_fail(kernel: SlowKernel, call: SlowCall, node: _Node, facts: Facts) -> bool:
    return any(isinstance(outcome, Failure) for outcome in state_machine.next_attempts(kernel, call, node.state, facts))
