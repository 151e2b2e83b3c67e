# SPDX-License-Identifier: MIT
"""Each rule of the slow path broken on purpose, as tests/broken_rules.py does with the preparation stage.

A scenario of tests/slow_scenarios.py must notice each one.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kalloctrace.model.slowpath import attempts, state_machine
from kalloctrace.model.slowpath import flags as slowflags
from kalloctrace.model.slowpath.types import Facts, Path, Prediction, Site, SlowCall, SlowKernel, State
from kalloctrace.model.types import Step

STEP = Step("broken", "broken", "broken")
CPUSET, CMA, NOFRAGMENT, HIGHATOMIC, KSWAPD = 0x40, 0x80, 0x100, 0x200, 0x800
HARDER, MIN_RESERVE = 0x10, 0x20


def _start(change: Callable[[int, int], int]) -> Callable[..., tuple[int, tuple[Step, ...]]]:
    """Change the flags that the slow path starts with, from the right flags and the mask."""
    real = slowflags.gfp_to_alloc_flags

    def broken(kernel: SlowKernel, gfp_mask: int, order: int, facts: Facts) -> tuple[int, tuple[Step, ...]]:
        flags, steps = real(kernel, gfp_mask, order, facts)
        return change(flags, gfp_mask), steps

    return broken


def _reserves(change: Callable[[int, int, Facts], int]) -> Callable[..., tuple[int, Step]]:
    real = slowflags.gfp_pfmemalloc_flags

    def broken(kernel: SlowKernel, gfp_mask: int, facts: Facts) -> tuple[int, Step]:
        return change(real(kernel, gfp_mask, facts)[0], gfp_mask, facts), STEP

    return broken


def _blind(**told: object) -> Callable[..., tuple[int, Step]]:
    """Compute the reserves of a task in another state."""
    real = slowflags.gfp_pfmemalloc_flags

    def broken(kernel: SlowKernel, gfp_mask: int, facts: Facts) -> tuple[int, Step]:
        changed: dict[str, Any] = told
        return real(kernel, gfp_mask, replace(facts, **changed))

    return broken


def _rules(function: Callable[..., Any], **changes: bool) -> Callable[..., Any]:
    """Have one function follow other rules."""

    def broken(path: Path) -> Any:  # noqa: ANN401  (what the function returns)
        kernel = replace(path.kernel, rules=replace(path.kernel.rules, **changes))
        return function(replace(path, kernel=kernel))

    return broken


_ADJUST = attempts.apply_reserves
_ATTEMPT = attempts.nofail_attempt
_RESERVE_FLAGS = slowflags.reserve_flags
_NON_BLOCK = slowflags.alloc_non_block
_OOM = attempts.oom_cannot_help


def _adjust_keeps_the_policy(path: Path) -> tuple[Path, bool]:
    adjusted, changed = _ADJUST(path)
    return adjusted.with_state(nodemask=path.state.nodemask, preferred_zone=path.state.preferred_zone), changed


def _adjust_keeps_the_preferred_zone(path: Path) -> tuple[Path, bool]:
    adjusted, changed = _ADJUST(path)
    return adjusted.with_state(preferred_zone=path.state.preferred_zone), changed


def _adjust_for_reserves_alone(path: Path) -> tuple[Path, bool]:
    if slowflags.gfp_pfmemalloc_flags(path.kernel, path.state.gfp_mask, path.facts)[0]:
        return _ADJUST(path)
    return path, False


def _reserves_with(
    change: Callable[[int, int], int],
) -> Callable[..., tuple[int, Step]]:
    def broken(kernel: SlowKernel, gfp_mask: int, reserves: int, alloc_flags: int, facts: Facts) -> tuple[int, Step]:
        return change(_RESERVE_FLAGS(kernel, gfp_mask, reserves, alloc_flags, facts)[0], alloc_flags), STEP

    return broken


def _non_block(**changes: bool) -> Callable[..., tuple[int, Step]]:
    def broken(kernel: SlowKernel, gfp_mask: int, order: int, flags: int, facts: Facts) -> tuple[int, Step]:
        other = replace(kernel, rules=replace(kernel.rules, **changes))
        return _NON_BLOCK(other, gfp_mask, order, flags, facts)

    return broken


def _highatomic_of_order_0(kernel: SlowKernel, gfp_mask: int, order: int, flags: int, facts: Facts) -> tuple[int, Step]:
    return _NON_BLOCK(kernel, gfp_mask, order or 1, flags, facts)


def _nofail_attempt(change: Callable[[int, Site], int]) -> Callable[[Path, Site], Prediction]:
    def broken(path: Path, site: Site) -> Prediction:
        prediction = _ATTEMPT(path, site)
        return replace(prediction, alloc_flags=change(prediction.alloc_flags, site))

    return broken


def _oom_ignores(*reasons: str) -> Callable[[Path], str]:
    def broken(path: Path) -> str:
        reason = _OOM(path)
        return "" if any(word in reason for word in reasons) else reason

    return broken


def _enter_keeps_atomic(_kernel: SlowKernel, call: SlowCall) -> State:
    return State("entry", call.gfp_mask, 0, call.context.nodemask, call.context.preferred_zone)


def _may_oom(change: Callable[[Prediction, Path], Prediction]) -> Callable[[Path], Any]:
    real = state_machine.may_oom

    def broken(path: Path) -> Any:  # noqa: ANN401  (outcomes)
        for outcome in real(path):
            if isinstance(outcome, Prediction) and outcome.kind == "before_oom":
                yield change(outcome, path)
            else:
                yield outcome

    return broken


def _cpuset_never_checked(path: Path) -> tuple[Path, tuple[()]]:
    return path, ()


SLOW_MUTATIONS: dict[str, tuple[object, str, object]] = {
    "watermark LOW": (slowflags, "gfp_to_alloc_flags", _start(lambda flags, _mask: flags | 1)),
    "CPUSET kept for atomic requests": (slowflags, "gfp_to_alloc_flags", _start(lambda flags, _mask: flags | CPUSET)),
    "CPUSET never": (slowflags, "gfp_to_alloc_flags", _start(lambda flags, _mask: flags & ~CPUSET)),
    "CPUSET dropped for __GFP_HIGH": (
        slowflags,
        "gfp_to_alloc_flags",
        _start(lambda flags, mask: flags & ~CPUSET if mask & 0x20 else flags),
    ),
    "no KSWAPD": (slowflags, "gfp_to_alloc_flags", _start(lambda flags, _mask: flags & ~KSWAPD)),
    "no HIGH": (
        slowflags,
        "gfp_to_alloc_flags",
        _start(lambda flags, mask: flags & ~MIN_RESERVE if mask & 0x20 else flags),
    ),
    "no HARDER, no NON_BLOCK": (slowflags, "gfp_to_alloc_flags", _start(lambda flags, _mask: flags & ~HARDER)),
    "NOMEMALLOC ignored at the start": (
        slowflags,
        "gfp_to_alloc_flags",
        _start(lambda flags, mask: flags | HARDER if mask & 0x80000 and not mask & 0x400 else flags),
    ),
    "NOFRAGMENT never": (slowflags, "defrag_mode", lambda _kernel, _facts: False),
    "NOFRAGMENT on every kernel": (slowflags, "defrag_mode", lambda _kernel, facts: bool(facts.defrag_mode)),
    "CMA never": (slowflags, "cma_flags", lambda _kernel, _mask, _facts: (0, STEP)),
    "CMA on every kernel": (slowflags, "cma_flags", lambda _kernel, mask, _facts: (CMA if mask & 8 else 0, STEP)),
    "HIGHATOMIC never": (slowflags, "gfp_to_alloc_flags", _start(lambda flags, _mask: flags & ~HIGHATOMIC)),
    "HIGHATOMIC of order 0": (slowflags, "alloc_non_block", _highatomic_of_order_0),
    "HIGHATOMIC without HIGH": (slowflags, "alloc_non_block", _non_block(highatomic_for_high=False)),
    "HIGHATOMIC for HIGH alone": (slowflags, "alloc_non_block", _non_block(highatomic_for_high=True)),
    "__GFP_ATOMIC on every kernel": (
        slowflags,
        "alloc_non_block",
        lambda kernel, mask, _order, flags, facts: slowflags.alloc_harder(kernel, mask, flags, facts),
    ),
    "no real-time tasks": (slowflags, "realtime", lambda _facts: False),
    "real-time by priority 100": (slowflags, "realtime", lambda facts: facts.prio <= 100),
    "no SCHED_DEADLINE": (slowflags, "realtime", lambda facts: 0 <= facts.prio < 100),
    "real-time in interrupts": (slowflags, "rt_priority_applies", lambda _kernel, _facts: True),
    "in_interrupt for in_task": (
        slowflags,
        "rt_priority_applies",
        lambda kernel, facts: not slowflags.in_interrupt(kernel, facts),
    ),
    "reserves never": (slowflags, "gfp_pfmemalloc_flags", _reserves(lambda _flags, _mask, _facts: 0)),
    "NOMEMALLOC opens the reserves": (
        slowflags,
        "gfp_pfmemalloc_flags",
        _reserves(lambda flags, _mask, facts: flags or (4 if (facts.task_flags or 0) & 0x800 else 0)),
    ),
    "__GFP_MEMALLOC ignored": (
        slowflags,
        "gfp_pfmemalloc_flags",
        _reserves(lambda flags, mask, _facts: 0 if mask & 0x20000 else flags),
    ),
    "victims ignored": (slowflags, "gfp_pfmemalloc_flags", _blind(oom_victim=False)),
    "victims get all reserves": (
        slowflags,
        "gfp_pfmemalloc_flags",
        _reserves(lambda flags, _mask, _facts: 4 if flags else 0),
    ),
    "victims in interrupts": (slowflags, "in_interrupt", lambda _kernel, _facts: False),
    "PF_MEMALLOC ignored": (slowflags, "gfp_pfmemalloc_flags", _blind(task_flags=0)),
    "PF_MEMALLOC not in softirqs": (slowflags, "in_serving_softirq", lambda _kernel, _facts: False),
    "reserves drop KSWAPD": (slowflags, "reserve_flags", _reserves_with(lambda flags, _old: flags & ~KSWAPD)),
    "reserves keep KSWAPD": (slowflags, "reserve_flags", _reserves_with(lambda flags, old: flags | old & KSWAPD)),
    "reserves keep all": (slowflags, "reserve_flags", _reserves_with(lambda flags, old: flags | old)),
    "reserves without CMA": (slowflags, "reserve_flags", _reserves_with(lambda flags, _old: flags & ~CMA)),
    "reserves without ac->alloc_flags": (
        slowflags,
        "reserve_flags",
        _reserves_with(lambda flags, _old: flags & ~0x1000),
    ),
    "the policy is kept": (attempts, "apply_reserves", _adjust_keeps_the_policy),
    "the preferred zone is kept": (attempts, "apply_reserves", _adjust_keeps_the_preferred_zone),
    "the policy is dropped with the reserves alone": (attempts, "apply_reserves", _adjust_for_reserves_alone),
    "the preferred zone is not computed again": (
        attempts,
        "first_zone",
        lambda path, _nodemask: (path.call.context.preferred_zone, STEP),
    ),
    "__GFP_ATOMIC stays with __GFP_DIRECT_RECLAIM": (state_machine, "enter", _enter_keeps_atomic),
    "before OOM without HARDWALL": (
        state_machine,
        "may_oom",
        _may_oom(lambda look, path: replace(look, gfp_mask=path.state.gfp_mask & ~0x400)),
    ),
    "before OOM with reclaim": (
        state_machine,
        "may_oom",
        _may_oom(lambda look, path: replace(look, gfp_mask=path.state.gfp_mask | 0x100000)),
    ),
    "before OOM above MIN": (
        state_machine,
        "may_oom",
        _may_oom(lambda look, _path: replace(look, alloc_flags=look.alloc_flags & ~2)),
    ),
    "before OOM with the flags of the request": (
        state_machine,
        "may_oom",
        _may_oom(lambda look, path: replace(look, alloc_flags=look.alloc_flags | path.state.alloc_flags)),
    ),
    "before OOM without ac->alloc_flags": (
        state_machine,
        "may_oom",
        _may_oom(lambda look, _path: replace(look, alloc_flags=look.alloc_flags & ~0x1000)),
    ),
    "no help within the cpuset": (attempts, "nofail_attempt", _nofail_attempt(lambda flags, _site: flags & ~CPUSET)),
    "no help without the cpuset": (attempts, "nofail_attempt", _nofail_attempt(lambda flags, _site: flags | CPUSET)),
    "help without ac->alloc_flags": (attempts, "nofail_attempt", _nofail_attempt(lambda flags, _site: flags & ~0x1000)),
    "help with all reserves": (slowflags, "nofail_flags", lambda _kernel: 4),
    "help with MIN_RESERVE everywhere": (slowflags, "nofail_flags", lambda _kernel: MIN_RESERVE),
    "help with HARDER everywhere": (slowflags, "nofail_flags", lambda _kernel: HARDER),
    "OOM killer for costly orders": (attempts, "oom_cannot_help", _oom_ignores("costly")),
    "OOM killer for __GFP_RETRY_MAYFAIL and __GFP_THISNODE": (
        attempts,
        "oom_cannot_help",
        _oom_ignores("__GFP_RETRY_MAYFAIL"),
    ),
    "OOM killer for core dumps": (attempts, "oom_cannot_help", _oom_ignores("PF_DUMPCORE")),
    "OOM killer for low memory": (attempts, "oom_cannot_help", _oom_ignores("low memory")),
    "OOM killer while suspending": (attempts, "oom_cannot_help", _oom_ignores("suspended")),
    "no OOM killer": (attempts, "oom_cannot_help", lambda _path: "never"),
    "costly from order 5": (attempts, "costly", lambda path: path.call.order > 4),
    "no early compaction": (attempts, "compacts_early", lambda _path: False),
    "early compaction for movable pages": (
        attempts,
        "compacts_early",
        lambda path: path.call.order > 0 and path.gfp(0x400) and path.gfp(0x40),
    ),
    "compaction without I/O": (state_machine, "compact", _rules(state_machine.compact, compact_skipped_returns=False)),
    "no attempt after compaction that was skipped": (
        state_machine,
        "compact",
        _rules(state_machine.compact, compact_skipped_returns=True),
    ),
    "no promoted order": (attempts, "promoted", lambda _path: False),
    "the cpuset is never checked": (state_machine, "check_retry_cpuset", _cpuset_never_checked),
    "OOM is the end": (state_machine, "after_oom", lambda path, **_progress: state_machine.nopage(path)),
    "retry is the end": (state_machine, "retry", state_machine.nopage),
    "__GFP_NOFAIL may fail": (
        attempts,
        "nofail_attempt",
        lambda path, site: attempts.attempt(path, site, "nofail"),
    ),
}
