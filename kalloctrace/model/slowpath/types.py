# SPDX-License-Identifier: MIT
"""One call of the slow path: what was captured, and what the model predicts."""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from kalloctrace.flags.bits import FlagBits
from kalloctrace.kernel.machine import ZonelistKind, ZoneRef
from kalloctrace.kernel.slowpath_rules import SlowpathRules
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import ALL_NODES, Step, UnknownFact

T = TypeVar("T")

Kind = Literal[
    "first_try",
    "after_waking_kswapd",
    "restart",
    "retry",
    "with_reserves",
    "without_nofragment",
    "after_direct_reclaim",
    "after_draining",
    "after_compaction",
    "before_oom",
    "oom_nofail",
    "nofail",
]
"""Why an attempt is made.

`first_try` is the first attempt of a request that does not wake kswapd, `after_waking_kswapd` of one that does.
`restart` is the first attempt again, because the cpuset changed. `retry` repeats the flags of an earlier attempt.
`with_reserves` has those of PF_MEMALLOC, __GFP_MEMALLOC or an OOM victim. `without_nofragment` drops the
ALLOC_NOFRAGMENT of vm.defrag_mode. `after_draining` follows `after_direct_reclaim` once the per-CPU lists are drained.
`before_oom` looks for a parallel OOM kill. `oom_nofail` and `nofail` are for a __GFP_NOFAIL request, after the OOM
killer and at the end of a round.
"""

Site = Literal[
    "entry",
    "initial",
    "initial_compact",
    "retry",
    "reclaim",
    "drained",
    "compact",
    "oom",
    "oom_nofail_cpuset",
    "oom_nofail",
    "nofail_cpuset",
    "nofail",
]
"""Where in `__alloc_pages_slowpath` an attempt is made; `entry` is before the first one."""

Event = Literal["direct_reclaim", "compaction", "oom"]

Restarted = Literal["no", "possible", "forced"]
"""Whether the slow path restarted: because the cpuset may have changed, or because it has no node of the nodemask."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the slow path reads of the task and the machine; None if it was not captured.

    Attributes:
        task_flags: `current->flags`, `unsigned int`.
        preempt_count: raw, low 32 bits, in that kernel's layout.
        softirq_disable_cnt: `current->softirq_disable_cnt`; only PREEMPT_RT has it.
        prio: `current->prio`, `int`: below 100 for real-time tasks, below 0 for those of SCHED_DEADLINE.
        oom_victim: `tsk_is_oom_victim(current)`: `current->signal->oom_mm` is not NULL.
        cpusets_enabled: `cpusets_enabled()`.
        gfp_allowed_mask: `gfp_t`.
        defrag_mode: the sysctl vm.defrag_mode is not 0; False on kernels without it.
        mems_allowed: `current->mems_allowed`; bit n is node n.
    """

    task_flags: int | None = 0
    preempt_count: int | None = 0
    softirq_disable_cnt: int | None = 0
    prio: int | None = 120
    oom_victim: bool | None = False
    cpusets_enabled: bool | None = False
    gfp_allowed_mask: int | None = 0xFFFFFF
    defrag_mode: bool | None = False
    mems_allowed: int | None = ALL_NODES


@dataclass(frozen=True, slots=True)
class SlowContext:
    """`struct alloc_context` at an attempt or at the entry of the slow path.

    Attributes:
        zonelist_kind: which zonelist; None if the snapshot does not have it.
        zonelist_nid: whose zonelist.
        nodemask: content of `ac->nodemask`; bit n is node n; None for the NULL pointer.
        preferred_zone: `ac->preferred_zoneref`; None for the terminating entry.
        highest_zoneidx: `enum zone_type`.
        migratetype: `enum migratetype`.
        spread_dirty_pages: `ac->spread_dirty_pages`.
        alloc_flags: `ac->alloc_flags`, `unsigned int`, where the kernel has it; 0 elsewhere.
        unknown: names of these members that were not captured; their values are meaningless.
    """

    zonelist_kind: ZonelistKind | None
    zonelist_nid: int | None
    nodemask: int | None
    preferred_zone: ZoneRef | None
    highest_zoneidx: int
    migratetype: int
    spread_dirty_pages: bool = False
    alloc_flags: int = 0
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SlowAttempt:
    """One call of `get_page_from_freelist` by the slow path.

    Attributes:
        number: its position in the call, from 1.
        gfp_mask: `gfp_t`, its argument.
        order: `unsigned int`, its argument.
        alloc_flags: `int`, ALLOC_* bits, its argument.
        context: `*ac` at its entry.
        facts: what else the slow path reads at that time.
        caller: the kernel function that made the call; empty if it was not captured.
        events: what happened since the previous attempt; None if that was not captured.
        reclaimed: pages that direct reclaim freed since then; None if that was not captured.
    """

    number: int
    gfp_mask: int
    order: int
    alloc_flags: int
    context: SlowContext
    facts: Facts
    caller: str = ""
    events: frozenset[Event] | None = None
    reclaimed: int | None = None


@dataclass(frozen=True, slots=True)
class SlowCall:
    """One call of `__alloc_pages_slowpath` and its attempts.

    Attributes:
        gfp_mask: `gfp_t`, its argument.
        order: `unsigned int`, its argument.
        context: `*ac` at its entry.
        attempts: the captured attempts, in order.
        page: whether it returned one; None if the return was not captured.
        complete: whether the last attempt was captured.
        facts: what else the slow path reads at its entry; None if that was not captured.
    """

    gfp_mask: int
    order: int
    context: SlowContext
    attempts: tuple[SlowAttempt, ...] = ()
    page: bool | None = None
    complete: bool = True
    facts: Facts | None = None


@dataclass(frozen=True, slots=True)
class SlowKernel:
    """A kernel with the rules of its slow path."""

    kernel: Kernel
    rules: SlowpathRules

    @property
    def bits(self) -> FlagBits:
        """The flags' values."""
        return self.kernel.bits


@dataclass(frozen=True, slots=True)
class State:
    """The variables of `__alloc_pages_slowpath` during an attempt.

    Attributes:
        site: where the attempt is made.
        gfp_mask: the function's argument, without __GFP_ATOMIC if the function clears it.
        alloc_flags: the variable of that name; some sites do not use it.
        nodemask: `ac->nodemask`.
        preferred_zone: `ac->preferred_zoneref`.
        can_retry_reserves: the variable of that name, since 7.0.
        compact_first: the variable of that name, since 7.0.
    """

    site: Site
    gfp_mask: int
    alloc_flags: int
    nodemask: int | None
    preferred_zone: ZoneRef | None
    can_retry_reserves: bool = True
    compact_first: bool = False


@dataclass(frozen=True, slots=True)
class Prediction:
    """An attempt that may follow.

    Attributes:
        kind: why it is made.
        gfp_mask: `gfp_t`, its argument.
        alloc_flags: `int`, ALLOC_* bits, its argument.
        state: the variables during the attempt.
        steps: the rules applied since the previous attempt, in order.
        events: what must or may have happened since the previous attempt.
        restarted: whether the slow path restarted.
    """

    kind: Kind
    gfp_mask: int
    alloc_flags: int
    state: State
    steps: tuple[Step, ...]
    events: frozenset[Event]
    restarted: Restarted


@dataclass(frozen=True, slots=True)
class Failure:
    """The slow path may return NULL without another attempt.

    Attributes:
        steps: the rules that lead there.
    """

    steps: tuple[Step, ...]


Outcome = Prediction | Failure


@dataclass(frozen=True, slots=True)
class Path:
    """A path through the slow path, from one attempt towards the next."""

    kernel: SlowKernel
    call: SlowCall
    facts: Facts
    state: State
    steps: tuple[Step, ...] = ()
    events: frozenset[Event] = frozenset()
    restarted: Restarted = "no"

    def with_state(self, **changes: Any) -> "Path":  # noqa: ANN401  (the members of State)
        """Return the path with other values of the function's variables."""
        return replace(self, state=replace(self.state, **changes))

    def with_step(self, rule: str, function: str, effect: str) -> "Path":
        """Return the path with one more rule applied."""
        return replace(self, steps=(*self.steps, Step(rule, function, effect)))

    def with_event(self, event: Event) -> "Path":
        """Return the path after an event that a trace records."""
        return replace(self, events=self.events | {event})

    def gfp(self, mask: int) -> bool:
        """Return whether the gfp mask has any of these bits."""
        return bool(self.state.gfp_mask & mask)


def require(value: T | None, name: str) -> T:
    """Return a fact that decides.

    Raises:
        UnknownFact: it was not captured.
    """
    if value is None:
        raise UnknownFact(name)
    return value
