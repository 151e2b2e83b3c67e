# SPDX-License-Identifier: MIT
"""Single decisions and attempts of the slow path, which `state_machine` puts together."""

from dataclasses import replace

from kalloctrace.flags.bits import PF_DUMPCORE
from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.model import mmzone
from kalloctrace.model.slowpath import flags as slowflags
from kalloctrace.model.slowpath.types import Kind, Path, Prediction, Site, require
from kalloctrace.model.types import Step, UnknownFact

SLOWPATH = "__alloc_pages_slowpath"
PAGE_ALLOC_COSTLY_ORDER = 3
"""include/linux/mmzone.h:39 of 5.10.262-1, :63 of 7.3.4-1~bpo13+1."""

MIGRATE_MOVABLE = 1


def oom_cannot_help(path: Path) -> str:
    """Return why the OOM killer is not called; empty if it is.

    Source: mm/page_alloc.c of 5.10.262-1:4048, 6.1.192-2:4493, 7.3.4-1~bpo13+1:4091.

    Raises:
        UnknownFact: a fact that decides was not captured.
    """
    bits = path.kernel.bits
    if require(path.facts.task_flags, "task_flags") & PF_DUMPCORE:
        return "PF_DUMPCORE"
    if costly(path):
        return f"order {path.call.order} is costly"
    if path.gfp(bits.gfp_retry_mayfail | bits.gfp_thisnode):
        return "__GFP_RETRY_MAYFAIL or __GFP_THISNODE"
    if path.call.context.highest_zoneidx < path.kernel.kernel.zone_normal:
        return "the request is for low memory"
    if ~require(path.facts.gfp_allowed_mask, "gfp_allowed_mask") & (bits.gfp_io | bits.gfp_fs):
        return "the machine is being suspended"
    return ""


def nofail_attempt(path: Path, site: Site) -> Prediction:
    """Return an attempt with some reserves for a __GFP_NOFAIL request: first within the cpuset, then without it.

    Source: `__alloc_pages_cpuset_fallback`, mm/page_alloc.c of 5.10.262-1:3991, 6.1.192-2:4436, 7.3.4-1~bpo13+1:4035.
    """
    oom = site in {"oom_nofail_cpuset", "oom_nofail"}
    flags = path.kernel.bits.alloc_no_watermarks if oom else slowflags.nofail_flags(path.kernel)
    if site in {"oom_nofail_cpuset", "nofail_cpuset"}:
        flags |= path.kernel.bits.alloc_cpuset
        effect = "first within the cpuset"
    else:
        effect = "then without ALLOC_CPUSET"
    path = path.with_step("slow_cpuset_fallback", "__alloc_pages_cpuset_fallback", effect)
    prediction = attempt(path, site, "oom_nofail" if oom else "nofail")
    return replace(prediction, alloc_flags=flags | ac_alloc_flags(path))


def apply_reserves(path: Path) -> tuple[Path, bool]:
    """Open the reserves to tasks that may use them.

    With reserves, or without ALLOC_CPUSET, memory policies are ignored as well.

    Source: mm/page_alloc.c of 5.10.262-1:4800, 6.1.192-2:5254, 7.3.4-1~bpo13+1:4890.

    Returns:
        The path, and whether memory policies are ignored now.
    """
    kernel, state = path.kernel, path.state
    reserves, step = slowflags.gfp_pfmemalloc_flags(kernel, state.gfp_mask, path.facts)
    path = replace(path, steps=(*path.steps, step))
    if reserves:
        flags, step = slowflags.reserve_flags(
            kernel, state.gfp_mask, reserves | ac_alloc_flags(path), state.alloc_flags, path.facts
        )
        path = replace(path, steps=(*path.steps, step)).with_state(alloc_flags=flags)
    if path.state.alloc_flags & kernel.bits.alloc_cpuset and not reserves:
        return path, False
    preferred, step = first_zone(path, None)
    path = path.with_step("slow_policy", SLOWPATH, "memory policies are ignored: ac->nodemask becomes NULL")
    return replace(path, steps=(*path.steps, step)).with_state(nodemask=None, preferred_zone=preferred), True


def attempt(path: Path, site: Site, kind: Kind) -> Prediction:
    """Return an attempt with the current mask and flags."""
    state = replace(path.state, site=site)
    return Prediction(kind, state.gfp_mask, state.alloc_flags, state, path.steps, path.events, path.restarted)


def retry_attempt(path: Path) -> Prediction:
    """Return the attempt at the start of a round."""
    reserves = path.kernel.bits.alloc_no_watermarks | path.kernel.bits.alloc_oom
    return attempt(path, "retry", "with_reserves" if path.state.alloc_flags & reserves else "retry")


def first_zone(path: Path, nodemask: int | None) -> tuple[ZoneRef | None, Step]:
    """Return the preferred zone under a nodemask, and the step.

    Raises:
        UnknownFact: the zonelist is not known.
    """
    context = path.call.context
    if context.zonelist_kind is None or context.zonelist_nid is None:
        raise UnknownFact("zonelist")
    return mmzone.first_zones_zonelist(
        path.kernel.kernel, context.zonelist_kind, context.zonelist_nid, context.highest_zoneidx, nodemask
    )


def insane_config(path: Path) -> bool:
    """Return whether the request ends because the cpuset has no suitable zone, if the static key is on.

    Source: `cpusets_insane_config()`, mm/page_alloc.c of 5.10.262-1:4699, 6.1.192-2:5153, 7.3.4-1~bpo13+1:4869.
    """
    if not path.gfp(path.kernel.bits.gfp_hardwall) or not require(path.facts.cpusets_enabled, "cpusets_enabled"):
        return False
    return first_zone(path, require(path.facts.mems_allowed, "mems_allowed"))[0] is None


def ac_alloc_flags(path: Path) -> int:
    """Return `ac->alloc_flags`; 0 if the kernel has no such member."""
    return path.call.context.alloc_flags if path.kernel.kernel.features.entry_alloc_flags else 0


def costly(path: Path) -> bool:
    """Return whether the order is above PAGE_ALLOC_COSTLY_ORDER."""
    return path.call.order > PAGE_ALLOC_COSTLY_ORDER


def can_compact(path: Path) -> bool:
    """Return whether the mask allows compaction, which needs __GFP_IO."""
    return path.gfp(path.kernel.bits.gfp_io)


def compacts_early(path: Path) -> bool:
    """Return whether compaction comes before reclaim: for costly orders, and for order > 0 if not movable."""
    if not path.gfp(path.kernel.bits.gfp_direct_reclaim) or not can_compact(path):
        return False
    return costly(path) or (path.call.order > 0 and path.call.context.migratetype != MIGRATE_MOVABLE)


def costly_noretry(path: Path) -> bool:
    """Return whether a costly request has __GFP_NORETRY."""
    return costly(path) and path.gfp(path.kernel.bits.gfp_noretry)


def nofragment(path: Path) -> bool:
    """Return whether ALLOC_NOFRAGMENT of vm.defrag_mode is still set."""
    return slowflags.defrag_mode(path.kernel, path.facts) and bool(
        path.state.alloc_flags & path.kernel.bits.alloc_nofragment
    )


def promoted(path: Path) -> bool:
    """Return whether reclaim and compaction work for a whole pageblock: ALLOC_NOFRAGMENT, not movable.

    Source: mm/page_alloc.c of 7.2.12-1:4171, 7.3.4-1~bpo13+1:4951.
    """
    return (
        path.kernel.rules.defrag_promotes
        and bool(path.state.alloc_flags & path.kernel.bits.alloc_nofragment)
        and path.call.context.migratetype != MIGRATE_MOVABLE
    )


def without_nofragment(path: Path) -> Prediction:
    """Return the attempt of a request that cannot reclaim, without ALLOC_NOFRAGMENT."""
    path = path.with_state(alloc_flags=path.state.alloc_flags & ~path.kernel.bits.alloc_nofragment)
    path = path.with_step("slow_defrag", SLOWPATH, "nothing can be reclaimed: ALLOC_NOFRAGMENT is dropped")
    return attempt(path, "retry", "without_nofragment")
