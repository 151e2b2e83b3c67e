# SPDX-License-Identifier: MIT
"""The facts about one kernel that select the rules of its preparation stage."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, Self

ContextTest = Literal["none", "in_interrupt", "in_task"]
"""Which contexts keep the task's own mems_allowed out of the cpuset branch."""

Nolock = Literal["none", "fixed", "gfp_flags", "alloc_flags"]
"""How allocation without locks comes in: not at all, by an entry of (nid, order) with a fixed mask, by an entry
of (gfp_flags, nid, order), or by a bit in the fifth argument of the normal entry."""


@dataclass(frozen=True)
class Features:
    """What the preparation stage of one kernel looks like, rule by rule.

    Attributes:
        entry: symbol of the function that carries the stage.
        entry_alloc_flags: the entry has a fifth argument, `unsigned int alloc_flags`.
        nolock: how allocation without locks comes in.
        gfp_context_on_fast_path: `current_gfp_context()` is applied before `prepare_alloc_pages`.
        pf_memalloc_pin: `current_gfp_context()` knows PF_MEMALLOC_PIN.
        pf_memalloc_noreclaim: `current_gfp_context()` knows PF_MEMALLOC_NORECLAIM and PF_MEMALLOC_NOWARN.
        pf_memalloc_nocma: ALLOC_CMA is withheld from tasks with PF_MEMALLOC_NOCMA.
        context_test: how the cpuset branch tells task context.
        interrupt_mask: bits of preempt_count that make this test say "not a task".
        config_cma: built with CONFIG_CMA.
        config_cpusets: built with CONFIG_CPUSETS.
        config_numa: built with CONFIG_NUMA: there is a NOFALLBACK zonelist.
        defrag_mode: the sysctl vm.defrag_mode exists.
        highatomic_on_fast_path: ALLOC_HIGHATOMIC may be set by the stage.
        max_order: largest order that the entry accepts.
        nolock_orders: orders that an allocation without locks may have.
        config_preempt_rt: built with CONFIG_PREEMPT_RT: `current->softirq_disable_cnt` holds the softirq part of
            preempt_count.
    """

    entry: str
    entry_alloc_flags: bool
    nolock: Nolock
    gfp_context_on_fast_path: bool
    pf_memalloc_pin: bool
    pf_memalloc_noreclaim: bool
    pf_memalloc_nocma: bool
    context_test: ContextTest
    interrupt_mask: int
    config_cma: bool
    config_cpusets: bool
    config_numa: bool
    defrag_mode: bool
    highatomic_on_fast_path: bool
    max_order: int
    nolock_orders: tuple[int, ...]
    config_preempt_rt: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the features as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the features from what `to_json` returned.

        Unknown keys of a newer writer are ignored; an older one knew no feature that has a default.
        """
        values = {
            field.name: data[field.name] for field in fields(cls) if field.name in data or field.default is MISSING
        }
        values["nolock_orders"] = tuple(values["nolock_orders"])
        return cls(**values)
