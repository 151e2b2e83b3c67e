# SPDX-License-Identifier: MIT
"""What a walkthrough adds to each rule of the model: its condition, its history, and its terms.

The differences between kernels come from `kalloctrace.kernel.history`, which cites the sources.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from kalloctrace.kernel.features import Features
from kalloctrace.kernel.history import REWRITES, Rewrite, order_test
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Step


class Rule(NamedTuple):
    """What a walkthrough adds to one rule of the model.

    Attributes:
        condition: the expression that the kernel evaluates.
        features: the attributes of `Features` that decide what the rule does.
        terms: the documentation pages about it.
        rewrites: changes of its source that leave the result as it was.
    """

    condition: Callable[[Kernel], str]
    features: tuple[str, ...]
    terms: tuple[str, ...]
    rewrites: tuple[Rewrite, ...] = ()


def _order(kernel: Kernel) -> str:
    return order_test(kernel.tables)


def _gfp_context(kernel: Kernel) -> str:
    features = kernel.features
    scopes = ["PF_MEMALLOC_NOIO", "PF_MEMALLOC_NOFS"]
    if features.pf_memalloc_noreclaim:
        scopes = ["PF_MEMALLOC_NORECLAIM", *scopes, "PF_MEMALLOC_NOWARN"]
    if features.pf_memalloc_pin:
        scopes.append("PF_MEMALLOC_PIN")
    return f"current->flags & ({' | '.join(scopes)})"


def _cpuset(kernel: Kernel) -> str:
    tests: Mapping[str, str] = {"none": "", "in_interrupt": "!in_interrupt() && ", "in_task": "in_task() && "}
    return f"cpusets_enabled(), then {tests[kernel.features.context_test]}!ac->nodemask"


def _cma(kernel: Kernel) -> str:
    movable = "gfp_migratetype(gfp_mask) == MIGRATE_MOVABLE"
    nocma = kernel.features.pf_memalloc_nocma
    return f"!(current->flags & PF_MEMALLOC_NOCMA) && {movable}" if nocma else movable


def _nofragment(kernel: Kernel) -> str:
    rule = "zone_idx(zone) == ZONE_NORMAL && !(nr_online_nodes > 1 && !populated_zone(ZONE_DMA32 of that node))"
    return f"defrag_mode || ({rule})" if kernel.features.defrag_mode else rule


def _nolock_gfp(kernel: Kernel) -> str:
    if kernel.features.nolock == "fixed":
        return "__GFP_NOWARN | __GFP_ZERO | __GFP_NOMEMALLOC | __GFP_ACCOUNT"
    return "gfp | __GFP_NOWARN | __GFP_ZERO | __GFP_NOMEMALLOC | __GFP_COMP"


def _always(text: str) -> Callable[[Kernel], str]:
    return lambda _: text


RULES: Mapping[str, Rule] = {
    "alloc_flags_check": Rule(
        _always("alloc_flags & ~(ALLOC_NOLOCK | ALLOC_NO_CODETAG)"),
        ("entry_alloc_flags",),
        ("alloc_flags", "ALLOC_NOLOCK", "ALLOC_NO_CODETAG"),
    ),
    "order": Rule(
        _order,
        ("entry",),
        ("order",),
        REWRITES["order"],
    ),
    "trylock": Rule(
        _always("IS_ENABLED(CONFIG_PREEMPT_RT) && (in_nmi() || in_hardirq())"),
        ("nolock",),
        ("ALLOC_NOLOCK",),
    ),
    "nolock_gfp": Rule(_nolock_gfp, ("nolock",), ("ALLOC_NOLOCK",)),
    "nolock_nodemask": Rule(_always("the entry has no such argument"), ("nolock",), ("nodemask",)),
    "gfp_allowed_mask": Rule(
        _always("gfp & gfp_allowed_mask"), (), ("gfp_allowed_mask",), REWRITES["gfp_allowed_mask"]
    ),
    "gfp_context": Rule(
        _gfp_context,
        ("gfp_context_on_fast_path", "pf_memalloc_pin", "pf_memalloc_noreclaim"),
        ("task-scopes",),
    ),
    "gfp_zone": Rule(
        _always("GFP_ZONE_TABLE >> ((flags & GFP_ZONEMASK) * GFP_ZONES_SHIFT)"),
        (),
        ("highest_zoneidx", "gfp-zone-modifiers"),
    ),
    "zonelist": Rule(_always("flags & __GFP_THISNODE"), (), ("zonelist",)),
    "gfp_migratetype": Rule(
        _always("page_group_by_mobility_disabled, else (gfp_flags & GFP_MOVABLE_MASK) >> GFP_MOVABLE_SHIFT"),
        (),
        ("migratetype",),
    ),
    "cpuset": Rule(
        _cpuset,
        ("context_test", "interrupt_mask"),
        ("ALLOC_CPUSET", "nodemask", "cpuset"),
        REWRITES["cpuset"],
    ),
    "cma": Rule(_cma, ("config_cma", "pf_memalloc_nocma"), ("ALLOC_CMA", "migratetype")),
    "spread_dirty_pages": Rule(
        _always("gfp_mask & __GFP_WRITE"), (), ("spread_dirty_pages",), REWRITES["spread_dirty_pages"]
    ),
    "preferred_zone": Rule(
        _always("zonelist_zone_idx(z) <= highest_zoneidx && (!nodes || zref_in_nodemask(z, nodes))"),
        (),
        ("preferred_zoneref", "zoneref", "zonelist"),
        REWRITES["preferred_zone"],
    ),
    "nofragment": Rule(
        _nofragment,
        ("defrag_mode",),
        ("ALLOC_NOFRAGMENT", "ALLOC_KSWAPD", "fragmentation-avoidance", "kswapd"),
    ),
    "highatomic": Rule(
        _always("!(gfp & (__GFP_DIRECT_RECLAIM | __GFP_NOMEMALLOC)) && order > 0 && gfp & __GFP_HIGH"),
        ("highatomic_on_fast_path",),
        ("ALLOC_HIGHATOMIC",),
    ),
}

_NOLOCK_ORDER = Rule(_always("pcp_allowed_order(order)"), ("nolock_orders",), ("order", "ALLOC_NOLOCK"))


def rule_of(step: Step) -> Rule:
    """Return the rule of a step; the nolock entry checks the order in another function."""
    return _NOLOCK_ORDER if step.function == "pcp_allowed_order" else RULES[step.rule]


_WORDS: Mapping[tuple[str, object], str] = {
    ("entry_alloc_flags", False): "the entry has no argument alloc_flags",
    ("entry_alloc_flags", True): "the entry has a fifth argument, alloc_flags",
    ("nolock", "none"): "no nolock entry",
    ("nolock", "fixed"): "a nolock entry with (nid, order) and a fixed mask",
    ("nolock", "gfp_flags"): "the nolock entry takes gfp_flags",
    ("nolock", "alloc_flags"): "the nolock entry is the normal one with a flag",
    ("gfp_context_on_fast_path", False): "the task's scopes are applied after the first attempt has failed",
    ("gfp_context_on_fast_path", True): "the task's scopes are applied before prepare_alloc_pages",
    ("pf_memalloc_pin", False): "no PF_MEMALLOC_PIN",
    ("pf_memalloc_pin", True): "PF_MEMALLOC_PIN clears __GFP_MOVABLE",
    ("pf_memalloc_noreclaim", False): "neither PF_MEMALLOC_NORECLAIM nor PF_MEMALLOC_NOWARN",
    ("pf_memalloc_noreclaim", True): "PF_MEMALLOC_NORECLAIM and PF_MEMALLOC_NOWARN",
    ("pf_memalloc_nocma", False): "no task flag withholds ALLOC_CMA",
    ("pf_memalloc_nocma", True): "PF_MEMALLOC_NOCMA withholds ALLOC_CMA",
    ("context_test", "none"): "the context is not checked; the nodemask alone decides",
    ("context_test", "in_interrupt"): "in_interrupt(): disabled bottom halves count as interrupt",
    ("context_test", "in_task"): "in_task(): disabled bottom halves are still a task's",
    ("config_cma", False): "built without CONFIG_CMA (Debian)",
    ("config_cma", True): "built with CONFIG_CMA (Debian)",
    ("defrag_mode", False): "no sysctl vm.defrag_mode",
    ("defrag_mode", True): "vm.defrag_mode sets ALLOC_NOFRAGMENT before any zone is checked",
    ("highatomic_on_fast_path", False): "only the slow path sets ALLOC_HIGHATOMIC",
    ("highatomic_on_fast_path", True): "the first attempt may have ALLOC_HIGHATOMIC",
}


def words(feature: str, value: object) -> str:
    """Return the meaning of a feature's value."""
    if feature == "entry":
        return f"the stage is in {value}"
    if feature == "nolock_orders":
        return f"orders {', '.join(map(str, value))}" if isinstance(value, tuple) and value else "no nolock entry"
    if feature == "interrupt_mask":
        return f"preempt_count & {value:#010x} is not 0 outside task context" if value else "preempt_count is not read"
    return _WORDS[feature, value]


def absent(features: Features) -> tuple[tuple[str, str], ...]:
    """Return the rules of other kernels that this one lacks, each with the feature that shows it."""
    return tuple(
        (rule, feature)
        for rule, feature, is_there in (
            ("gfp_context", "gfp_context_on_fast_path", features.gfp_context_on_fast_path),
            ("cma", "config_cma", features.config_cma),
            ("highatomic", "highatomic_on_fast_path", features.highatomic_on_fast_path),
            ("alloc_flags_check", "entry_alloc_flags", features.entry_alloc_flags),
        )
        if not is_there
    )
