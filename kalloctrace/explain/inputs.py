# SPDX-License-Identifier: MIT
"""The inputs of each rule of one request, and the result of the rule alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kalloctrace.explain.received import nodemask_text, nodes_text, zone_text
from kalloctrace.explain.request import Answer
from kalloctrace.flags.decode import decode_gfp
from kalloctrace.model.cpuset import cpusets_enabled
from kalloctrace.model.gfp import GFP_MOVABLE_MASK, GFP_MOVABLE_SHIFT, GFP_ZONEMASK
from kalloctrace.model.page_alloc import MIGRATE_MOVABLE, gfp_nolock
from kalloctrace.model.sched_mm import current_gfp_context


@dataclass(frozen=True, slots=True)
class _Masks:
    """The gfp mask at two points of the stage (`gfp_t`).

    Attributes:
        allowed: after the rule gfp_allowed_mask; if the entry has no such rule, the mask that it uses.
        working: the argument of prepare_alloc_pages, before the cpuset adds __GFP_HARDWALL.
    """

    allowed: int
    working: int


def values(answer: Answer, rule: str) -> dict[str, str]:
    """Return the inputs of a rule: the kernel's names, and the values as text."""
    return _VALUES[rule](answer, _masks(answer))


def result(answer: Answer, rule: str) -> object:
    """Return the result of a rule alone, to compare; its sentence also contains results of earlier rules.

    Returns:
        None if the rule was not reached.
    """
    done = answer.preparation
    taken = next((step for step in done.steps if step.rule == rule), None)
    if taken is None:
        return None
    if done.outcome == "rejected":
        return ("rejected", done.warns) if taken is done.steps[-1] else "passed"
    return _RESULTS[rule](answer, _masks(answer)) if rule in _RESULTS else "passed"


def decides(answer: Answer, rule: str) -> bool:
    """Return whether a step of this request decides something of its outcome, rather than let it pass as it is."""
    done = answer.preparation
    if done.outcome == "rejected":
        return rule == done.steps[-1].rule
    return rule not in _DECIDES or _DECIDES[rule](answer, _masks(answer))


def _masks(answer: Answer) -> _Masks:
    request, bits, features = answer.request, answer.kernel.bits, answer.kernel.features
    own_entry = request.entry == "nolock" and features.nolock != "alloc_flags"
    if own_entry:
        gfp, _ = gfp_nolock(answer.kernel, request.gfp_mask)
        return _Masks(gfp, gfp)
    nolock = request.entry == "nolock" or request.alloc_flags & bits.alloc_nolock
    requested = gfp_nolock(answer.kernel, request.gfp_mask)[0] if nolock else request.gfp_mask
    allowed = requested & answer.context.gfp_allowed_mask
    if not features.gfp_context_on_fast_path:
        return _Masks(allowed, allowed)
    return _Masks(allowed, current_gfp_context(answer.kernel, allowed, answer.context)[0])


def _argument(answer: Answer) -> int:
    """Return alloc_flags as the entry receives them: the nolock function adds its own flag."""
    nolock = answer.request.entry == "nolock" and answer.kernel.features.nolock == "alloc_flags"
    return answer.request.alloc_flags | (answer.kernel.bits.alloc_nolock if nolock else 0)


def _orders(answer: Answer) -> dict[str, str]:
    request, features = answer.request, answer.kernel.features
    if request.entry == "nolock" or request.alloc_flags & answer.kernel.bits.alloc_nolock:
        return {"orders that the per-CPU lists keep": ", ".join(map(str, features.nolock_orders))}
    return {"largest order": str(features.max_order)}


def _gfp(answer: Answer, mask: int) -> str:
    return f"{mask:#x} {decode_gfp(mask, answer.kernel.tables).text}".rstrip()


def _alloc_bits(answer: Answer, bits: int) -> int:
    return (answer.preparation.alloc_flags or 0) & bits


def _cpuset(answer: Answer, _: _Masks) -> dict[str, str]:
    context, nodemask = answer.context, answer.request.nodemask
    allowed = context.mems_allowed
    return {
        "cpusets_enabled()": str(int(context.cpusets_enabled)),
        "preempt_count": _count(answer),
        "nodemask": "NULL" if nodemask is None else nodes_text(nodemask),
        "current->mems_allowed": "not known" if allowed is None else nodes_text(allowed),
    }


def _count(answer: Answer) -> str:
    count, mask = answer.context.preempt_count, answer.kernel.features.interrupt_mask
    return "not known" if count is None else f"{count:#x} (& {mask:#x} is {count & mask:#x})"


def _zonelist(answer: Answer) -> str:
    done = answer.preparation
    refs = answer.kernel.machine.zonelist(done.zonelist_kind or "FALLBACK", done.zonelist_nid or 0) or ()
    return ", ".join(zone_text(answer.kernel, ref) for ref in refs) or "empty"


def _migratetype(answer: Answer) -> str:
    migratetype = answer.preparation.migratetype or 0
    return f"{migratetype} {answer.kernel.tables.migratetype_name(migratetype)}"


def _nofragment(answer: Answer, masks: _Masks) -> dict[str, str]:
    kernel, preferred = answer.kernel, answer.preparation.preferred_zone
    zone = "none" if preferred is None else zone_text(kernel, preferred)
    return {
        "gfp_mask & __GFP_KSWAPD_RECLAIM": f"{masks.working & kernel.bits.gfp_kswapd_reclaim:#x}",
        "preferred zone": zone,
        "nr_online_nodes": str(kernel.machine.nr_online_nodes),
        **({"defrag_mode": str(int(answer.context.defrag_mode))} if kernel.features.defrag_mode else {}),
    }


_VALUES: Mapping[str, Callable[[Answer, _Masks], dict[str, str]]] = {
    "alloc_flags_check": lambda answer, _: {"alloc_flags": f"{_argument(answer):#x}"},
    "order": lambda answer, _: {"order": str(answer.request.order), **_orders(answer)},
    "trylock": lambda answer, _: {"preempt_count": _count(answer)},
    "nolock_gfp": lambda answer, _: {"gfp": _gfp(answer, answer.request.gfp_mask)},
    "nolock_nodemask": lambda answer, _: {"nodemask": nodes_text(answer.request.nodemask or 0)},
    "gfp_allowed_mask": lambda answer, _: {
        "gfp": _gfp(answer, answer.request.gfp_mask),
        "gfp_allowed_mask": f"{answer.context.gfp_allowed_mask:#x}",
    },
    "gfp_context": lambda answer, masks: {
        "gfp": _gfp(answer, masks.allowed),
        "current->flags": f"{answer.context.task_flags:#x}",
    },
    "gfp_zone": lambda _, masks: {"flags & GFP_ZONEMASK": f"{masks.working & GFP_ZONEMASK:#x}"},
    "zonelist": lambda answer, masks: {
        "nid": str(answer.preparation.zonelist_nid),
        "flags & __GFP_THISNODE": f"{masks.working & answer.kernel.bits.gfp_thisnode:#x}",
    },
    "gfp_migratetype": lambda answer, masks: {
        "page_group_by_mobility_disabled": str(int(answer.context.page_group_by_mobility_disabled)),
        "gfp_flags & GFP_MOVABLE_MASK": f"{masks.working & GFP_MOVABLE_MASK << GFP_MOVABLE_SHIFT:#x}",
    },
    "cpuset": _cpuset,
    "cma": lambda answer, _: {
        "migratetype": _migratetype(answer),
        **({"current->flags": f"{answer.context.task_flags:#x}"} if answer.kernel.features.pf_memalloc_nocma else {}),
    },
    "spread_dirty_pages": lambda answer, masks: {
        "gfp_mask & __GFP_WRITE": f"{masks.working & answer.kernel.bits.gfp_write:#x}"
    },
    "preferred_zone": lambda answer, _: {
        "zonelist": _zonelist(answer),
        "highest_zoneidx": str(answer.preparation.highest_zoneidx),
        "nodes": nodemask_text(answer.preparation),
    },
    "nofragment": _nofragment,
    "highatomic": lambda answer, masks: {"gfp": _gfp(answer, masks.working), "order": str(answer.request.order)},
}

_RESULTS: Mapping[str, Callable[[Answer, _Masks], object]] = {
    "gfp_allowed_mask": lambda answer, _: answer.request.gfp_mask & ~answer.context.gfp_allowed_mask,
    "gfp_context": lambda _, masks: masks.allowed ^ masks.working,
    "gfp_zone": lambda answer, _: answer.preparation.highest_zoneidx,
    "zonelist": lambda answer, _: (answer.preparation.zonelist_kind, answer.preparation.zonelist_nid),
    "gfp_migratetype": lambda answer, _: answer.preparation.migratetype,
    "cpuset": lambda answer, masks: (
        (answer.preparation.gfp or 0) ^ masks.working,
        _alloc_bits(answer, answer.kernel.bits.alloc_cpuset),
        answer.preparation.nodemask,
        answer.preparation.nodemask_value,
    ),
    "cma": lambda answer, _: _alloc_bits(answer, answer.kernel.bits.alloc_cma),
    "spread_dirty_pages": lambda answer, _: answer.preparation.spread_dirty_pages,
    "preferred_zone": lambda answer, _: answer.preparation.preferred_zone,
    "nofragment": lambda answer, _: _alloc_bits(
        answer, answer.kernel.bits.alloc_nofragment | answer.kernel.bits.alloc_kswapd
    ),
    "highatomic": lambda answer, _: _alloc_bits(answer, answer.kernel.bits.alloc_highatomic),
}

_DECIDES: Mapping[str, Callable[[Answer, _Masks], bool]] = {
    **dict.fromkeys(("alloc_flags_check", "order", "trylock"), lambda *_: False),
    "gfp_allowed_mask": lambda answer, _: bool(answer.request.gfp_mask & ~answer.context.gfp_allowed_mask),
    "gfp_context": lambda _, masks: masks.allowed != masks.working,
    "zonelist": lambda answer, _: answer.preparation.zonelist_kind == "NOFALLBACK",
    "gfp_migratetype": lambda _, masks: bool(masks.working & GFP_MOVABLE_MASK << GFP_MOVABLE_SHIFT),
    "cpuset": lambda answer, _: cpusets_enabled(answer.kernel, answer.context),
    "cma": lambda answer, _: answer.preparation.migratetype == MIGRATE_MOVABLE,
    "spread_dirty_pages": lambda answer, _: bool(answer.preparation.spread_dirty_pages),
    "highatomic": lambda answer, _: bool(_alloc_bits(answer, answer.kernel.bits.alloc_highatomic)),
}
"""Of rules that let most requests pass as they are: whether one decides. The others decide for every request."""
