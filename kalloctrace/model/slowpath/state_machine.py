# SPDX-License-Identifier: MIT
"""The slow path as a machine whose states are its attempts.

The result of reclaim and compaction cannot be predicted, so several attempts may follow one. Each function here is a
part of `__alloc_pages_slowpath` between two labels or calls. It yields every attempt that may come next, and `Failure`
if the call may return NULL. Every attempt but the last has failed.

Not modelled: a rebuild of the zonelists (memory hotplug) restarts the slow path; it is a change of the machine. Fatal
signals and watermarks decide between paths that are all predicted.
Sources: mm/page_alloc.c of linux-source-5.10 5.10.262-1:4643, 6.1 6.1.192-2:5097, 6.12 6.12.118-1, 7.2
7.2.12-1~bpo13+1, 7.3 7.3.4-1~bpo13+1:4786.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from kalloctrace.flags.decode import U32_MAX
from kalloctrace.model import page_alloc, sched_mm
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.slowpath import attempts as slowattempts
from kalloctrace.model.slowpath import flags as slowflags
from kalloctrace.model.slowpath.attempts import SLOWPATH
from kalloctrace.model.slowpath.types import (
    Facts,
    Failure,
    Kind,
    Outcome,
    Path,
    Prediction,
    Site,
    SlowCall,
    SlowContext,
    SlowKernel,
    State,
    require,
)
from kalloctrace.model.types import Context, ImpossibleRequestError, Request

_COMPACT = "__alloc_pages_direct_compact"
_OOM = "__alloc_pages_may_oom"

Outcomes = Iterator[Outcome]


def slowpath_call(kernel: Kernel, request: Request, context: Context) -> SlowCall:
    """Predict the arguments of the slow path for a request.

    Here every kernel has applied the task's scopes and undone what cpusets added, and `ac->spread_dirty_pages` is
    false. The preferred zone is still that of the fast path.
    Source: mm/page_alloc.c of linux-source-5.10 5.10.262-1:5039, 6.1.192-2:5662, 7.3.4-1~bpo13+1:5463.

    Args:
        kernel: the kernel and its machine.
        request: the arguments of the entry.
        context: what else the preparation stage reads.

    Returns:
        The call, without attempts.

    Raises:
        ImpossibleRequestError: such a request never enters the slow path.
        UnknownFact: the machine's description lacks a fact that the answer depends on.
    """
    done = page_alloc.alloc_pages(kernel, request, context)
    flags = request.alloc_flags & U32_MAX
    if done.outcome != "prepared" or request.entry == "nolock" or flags & kernel.bits.alloc_nolock:
        raise ImpossibleRequestError("a request that is rejected, or made without locks, never enters the slow path")
    gfp_mask, _ = page_alloc.apply_gfp_allowed_mask(kernel, request.gfp_mask & U32_MAX, context)
    gfp_mask, _ = sched_mm.current_gfp_context(kernel, gfp_mask, context)
    return SlowCall(
        gfp_mask=gfp_mask,
        order=request.order & U32_MAX,
        context=SlowContext(
            zonelist_kind=done.zonelist_kind,
            zonelist_nid=done.zonelist_nid,
            nodemask=request.nodemask,
            preferred_zone=done.preferred_zone,
            highest_zoneidx=done.highest_zoneidx or 0,
            migratetype=done.migratetype or 0,
            alloc_flags=flags,
        ),
    )


def enter(kernel: SlowKernel, call: SlowCall) -> State:
    """Return the state before the first attempt.

    Args:
        kernel: the kernel.
        call: its arguments.
    """
    gfp_mask = slowflags.slowpath_gfp_mask(kernel, call.gfp_mask)
    return State("entry", gfp_mask, 0, call.context.nodemask, call.context.preferred_zone)


def next_attempts(kernel: SlowKernel, call: SlowCall, state: State, facts: Facts) -> tuple[Outcome, ...]:
    """Return what may follow a failed attempt.

    Args:
        kernel: the kernel and its machine.
        call: the call, for its arguments.
        state: the attempt, or `enter`.
        facts: what the slow path reads on the way to the next attempt.

    Returns:
        Every attempt that may come next, and `Failure` if the call may return NULL.

    Raises:
        UnknownFact: a fact that decides was not captured.
    """
    return tuple(_AFTER[state.site](Path(kernel, call, facts, state)))


def restart(path: Path) -> Outcomes:
    """Start, or restart after the cpuset changed: compute the flags and the preferred zone."""
    kernel, call = path.kernel, path.call
    flags, steps = slowflags.gfp_to_alloc_flags(kernel, path.state.gfp_mask, call.order, path.facts)
    preferred, step = slowattempts.first_zone(path, path.state.nodemask)
    path = replace(path, steps=(*path.steps, *steps, step)).with_state(
        alloc_flags=flags | slowattempts.ac_alloc_flags(path),
        preferred_zone=preferred,
        compact_first=path.state.compact_first or (kernel.rules.compact_first and slowattempts.compacts_early(path)),
    )
    if preferred is None:
        yield from nopage(path.with_step("slow_no_zone", SLOWPATH, "no zone is eligible: no attempt is made"))
        return
    if slowattempts.insane_config(path):
        yield from nopage(path.with_step("slow_insane", SLOWPATH, "the cpuset has no suitable zone: no attempt"))
    kind: Kind = "after_waking_kswapd" if flags & kernel.bits.alloc_kswapd else "first_try"
    site: Site = "retry" if kernel.rules.compact_first else "initial"
    yield slowattempts.attempt(path, site, kind if path.restarted == "no" else "restart")


def after_initial(path: Path) -> Outcomes:
    """Compact first if `compacts_early` holds and the reserves are closed; up to 6.19.

    Source: mm/page_alloc.c of 5.10.262-1:4727, 6.1.192-2:5181.
    """
    reserves, step = slowflags.gfp_pfmemalloc_flags(path.kernel, path.state.gfp_mask, path.facts)
    if not slowattempts.compacts_early(path) or reserves:
        yield from retry(path)
        return
    path = replace(path, steps=(*path.steps, step)).with_event("compaction")
    yield slowattempts.attempt(path, "initial_compact", "after_compaction")
    if path.kernel.rules.compact_skipped_returns:
        yield from after_initial_compact_skipped(path)


def after_initial_compact(path: Path) -> Outcomes:
    """Continue after early compaction. An attempt follows deferred compaction as well."""
    if slowattempts.costly_noretry(path):
        yield from nopage(path.with_step("slow_noretry", SLOWPATH, "compaction is deferred for a costly __GFP_NORETRY"))
        if path.kernel.rules.thisnode_compacts_only and path.gfp(path.kernel.bits.gfp_thisnode):
            return
    yield from retry(path)


def after_initial_compact_skipped(path: Path) -> Outcomes:
    """Continue after early compaction that was skipped; no attempt follows it."""
    if slowattempts.costly_noretry(path):
        yield from nopage(path.with_step("slow_noretry", SLOWPATH, "compaction was skipped for a costly __GFP_NORETRY"))
    else:
        yield from retry(path)


def retry(path: Path) -> Outcomes:
    """Try again; up to 6.19 after opening the reserves and dropping the memory policy."""
    if path.kernel.rules.compact_first:
        yield slowattempts.retry_attempt(path)
        return
    same, restarts = check_retry_cpuset(path)
    yield from restarts
    if same is not None:
        adjusted, _ = slowattempts.apply_reserves(same)
        yield slowattempts.retry_attempt(adjusted)


def after_retry(path: Path) -> Outcomes:
    """Continue after the attempt of a round; since 7.0 the reserves are opened here."""
    kernel = path.kernel
    if kernel.rules.compact_first:
        path, adjusted = slowattempts.apply_reserves(path)
        if adjusted and path.state.can_retry_reserves:
            yield slowattempts.retry_attempt(path.with_state(can_retry_reserves=False))
            return
    if not path.gfp(kernel.bits.gfp_direct_reclaim):
        if (
            kernel.rules.defrag_falls_back_at_once
            and path.gfp(kernel.bits.gfp_kswapd_reclaim)
            and slowattempts.nofragment(path)
        ):
            yield slowattempts.without_nofragment(path)
            return
        yield from nopage(path.with_step("slow_no_reclaim", SLOWPATH, "no __GFP_DIRECT_RECLAIM: the slow path ends"))
        return
    if require(path.facts.task_flags, "task_flags") & kernel.bits.pf_memalloc:
        yield from nopage(path.with_step("slow_memalloc", SLOWPATH, "PF_MEMALLOC: reclaim does not recurse"))
        return
    if path.state.compact_first:
        yield from compact(path)
    else:
        yield from direct_reclaim(path)


def direct_reclaim(path: Path) -> Outcomes:
    """Reclaim; an attempt follows if that made progress.

    Source: `__alloc_pages_direct_reclaim`, mm/page_alloc.c of 5.10.262-1:4379, 6.1.192-2:4838.
    """
    path = path.with_step("slow_reclaim", "__alloc_pages_direct_reclaim", "the task reclaims").with_event(
        "direct_reclaim"
    )
    yield slowattempts.attempt(path, "reclaim", "after_direct_reclaim")
    yield from compact(path)


def after_reclaim(path: Path) -> Outcomes:
    """Drain the per-CPU lists and try once more."""
    effect = "the highatomic reserve is given up and the per-CPU lists are drained"
    yield slowattempts.attempt(
        path.with_step("slow_drain", "__alloc_pages_direct_reclaim", effect), "drained", "after_draining"
    )


def compact(path: Path) -> Outcomes:
    """Compact; an attempt follows unless compaction was skipped.

    Source: `__alloc_pages_direct_compact`, mm/page_alloc.c of 5.10.262-1:4105, 6.1.192-2:4551, 7.2.12-1:4144.
    """
    if not path.call.order and not slowattempts.promoted(path):
        yield from after_compact(path.with_step("slow_compact", _COMPACT, "order 0 needs no compaction"))
        return
    skips = path.kernel.rules.compact_skipped_returns
    if path.gfp(path.kernel.bits.gfp_io) or not skips:
        compacted = path.with_step("slow_compact", _COMPACT, "the task compacts").with_event("compaction")
        yield slowattempts.attempt(compacted, "compact", "after_compaction")
    if skips:
        yield from after_compact(path.with_event("compaction"))


def after_compact(path: Path) -> Outcomes:
    """Decide whether another round may help; if not, whether to call the OOM killer.

    Source: mm/page_alloc.c of 5.10.262-1:4841, 6.1.192-2:5296, 6.12.118-1, 7.2.12-1, 7.3.4-1~bpo13+1:4969.
    """
    bits = path.kernel.bits
    if path.state.compact_first:
        if path.gfp(bits.gfp_noretry) and path.gfp(bits.gfp_thisnode):
            yield from nopage(
                path.with_step("slow_noretry", SLOWPATH, "__GFP_NORETRY and __GFP_THISNODE: compaction only")
            )
            return
        yield from retry(path.with_state(compact_first=False))
        return
    if path.gfp(bits.gfp_noretry):
        yield from nopage(path.with_step("slow_noretry", SLOWPATH, "__GFP_NORETRY: one round is all"))
        return
    if slowattempts.costly(path) and not (slowattempts.can_compact(path) and path.gfp(bits.gfp_retry_mayfail)):
        yield from nopage(path.with_step("slow_costly", SLOWPATH, "a costly order without __GFP_RETRY_MAYFAIL"))
        return
    same, restarts = check_retry_cpuset(path)
    yield from restarts
    if same is None:
        return
    yield from retry(path.with_step("slow_retry", SLOWPATH, "another round may help"))
    if slowattempts.nofragment(path):
        yield from fall_back(path)
    else:
        yield from may_oom(path)


def fall_back(path: Path) -> Outcomes:
    """Drop ALLOC_NOFRAGMENT and try again.

    Source: mm/page_alloc.c of 7.2.12-1:5009, 7.3.4-1~bpo13+1:5034.
    """
    dropped = path.with_state(alloc_flags=path.state.alloc_flags & ~path.kernel.bits.alloc_nofragment)
    dropped = dropped.with_step("slow_defrag", SLOWPATH, "vm.defrag_mode gives up: ALLOC_NOFRAGMENT is dropped")
    for outcome in retry(dropped):
        if isinstance(outcome, Prediction) and outcome.kind == "retry":
            yield replace(outcome, kind="without_nofragment")
        else:
            yield outcome


def may_oom(path: Path) -> Outcomes:
    """Try once more at the high watermark, then call the OOM killer; another task may hold its lock.

    Source: `__alloc_pages_may_oom`, mm/page_alloc.c of 5.10.262-1:4011, 6.1.192-2:4456, 7.3.4-1~bpo13+1:4054.
    """
    bits = path.kernel.bits
    busy = path.with_step("slow_oom", _OOM, "another task holds oom_lock: it makes progress")
    yield from after_oom(busy, progress=True)
    effect = "the last attempt before the OOM killer: ALLOC_WMARK_HIGH and ALLOC_CPUSET, without __GFP_DIRECT_RECLAIM"
    looking = path.with_step("slow_before_oom", _OOM, effect)
    gfp_mask = (path.state.gfp_mask | bits.gfp_hardwall) & ~bits.gfp_direct_reclaim
    flags = slowattempts.ac_alloc_flags(path) | path.kernel.bits.alloc_wmark_high | bits.alloc_cpuset
    yield replace(slowattempts.attempt(looking, "oom", "before_oom"), gfp_mask=gfp_mask, alloc_flags=flags)


def after_before_oom(path: Path) -> Outcomes:
    """Kill a task unless that cannot help; then a __GFP_NOFAIL request gets all reserves."""
    reason = slowattempts.oom_cannot_help(path)
    if reason:
        yield from after_oom(path.with_step("slow_oom", _OOM, f"{reason}: nothing is killed"), progress=False)
        return
    path = path.with_event("oom")
    if path.gfp(path.kernel.bits.gfp_nofail):
        path = path.with_step("slow_oom_nofail", _OOM, "__GFP_NOFAIL after the OOM killer: ALLOC_NO_WATERMARKS")
        yield slowattempts.nofail_attempt(path, "oom_nofail_cpuset")
        return
    yield from after_oom(path.with_step("slow_oom", _OOM, "the OOM killer makes progress"), progress=True)
    yield from after_oom(path.with_step("slow_oom", _OOM, "the OOM killer finds nobody"), progress=False)


def after_oom(path: Path, *, progress: bool) -> Outcomes:
    """Try again after progress; an OOM victim that has used its reserves gives up.

    Source: mm/page_alloc.c of 5.10.262-1:4882, 6.1.192-2:5337, 7.3.4-1~bpo13+1:5057.
    """
    exhausted = path.state.alloc_flags & path.kernel.bits.alloc_oom or path.gfp(path.kernel.bits.gfp_nomemalloc)
    if exhausted and require(path.facts.oom_victim, "oom_victim"):
        yield from nopage(path.with_step("slow_victim", SLOWPATH, "an OOM victim that has used its reserves"))
    elif progress:
        yield from retry(path)
    else:
        yield from nopage(path)


def nopage(path: Path) -> Outcomes:
    """Give up, unless the request has __GFP_NOFAIL and may reclaim.

    Source: mm/page_alloc.c of 5.10.262-1:4894, 6.1.192-2:5349, 7.3.4-1~bpo13+1:5069.
    """
    same, restarts = check_retry_cpuset(path)
    yield from restarts
    if same is None:
        return
    if path.gfp(path.kernel.bits.gfp_nofail) and path.gfp(path.kernel.bits.gfp_direct_reclaim):
        flags = slowflags.nofail_flags(path.kernel)
        yield slowattempts.nofail_attempt(
            path.with_step("slow_nofail", SLOWPATH, f"__GFP_NOFAIL: some reserves, {flags:#x}"), "nofail_cpuset"
        )
        return
    yield Failure(path.steps)


def check_retry_cpuset(path: Path) -> tuple[Path | None, tuple[Outcome, ...]]:
    """Restart if the cpuset changed, or if it has no node of the caller's nodemask, which is then dropped.

    The kernel sees a change by a counter that no trace has. With cpusets on, a change is always possible.
    Source: mm/page_alloc.c of 5.10.262-1:4610, 6.1.192-2:5064, the same in 7.3.4-1~bpo13+1.

    Returns:
        The path, or None if it ends here; and what may follow a restart.

    Raises:
        UnknownFact: a fact that decides was not captured.
    """
    if path.restarted != "no" or not require(path.facts.cpusets_enabled, "cpusets_enabled"):
        return path, ()
    nodemask = path.state.nodemask
    if nodemask is not None and not nodemask & require(path.facts.mems_allowed, "mems_allowed"):
        effect = "the cpuset has no node of the nodemask: it is dropped, and the slow path restarts"
        restarted = replace(path, restarted="forced").with_state(nodemask=None)
        return None, tuple(restart(restarted.with_step("slow_cpuset", "check_retry_cpuset", effect)))
    effect = "the cpuset may have changed: the slow path restarts"
    restarted = replace(path, restarted="possible").with_step("slow_cpuset", "check_retry_cpuset", effect)
    return path, tuple(restart(restarted))


def _once_more(site: Site) -> Callable[[Path], Outcomes]:
    def follow(path: Path) -> Outcomes:
        yield slowattempts.nofail_attempt(path, site)

    return follow


def _after_oom_nofail(path: Path) -> Outcomes:
    yield from after_oom(path, progress=True)


_AFTER: Mapping[Site, Callable[[Path], Outcomes]] = {
    "entry": restart,
    "initial": after_initial,
    "initial_compact": after_initial_compact,
    "retry": after_retry,
    "reclaim": after_reclaim,
    "drained": compact,
    "compact": after_compact,
    "oom": after_before_oom,
    "oom_nofail_cpuset": _once_more("oom_nofail"),
    "oom_nofail": _after_oom_nofail,
    "nofail_cpuset": _once_more("nofail"),
    "nofail": retry,
}
