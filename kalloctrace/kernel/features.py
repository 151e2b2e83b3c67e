# SPDX-License-Identifier: MIT
"""The facts about a kernel that select the rules of its preparation stage."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, Self

ContextTest = Literal["none", "in_interrupt", "in_task"]
"""The test that keeps `current->mems_allowed` out of the cpuset branch outside task context."""

Nolock = Literal["none", "fixed", "gfp_flags", "alloc_flags"]
"""The entry of an allocation without locks: none, a function of (nid, order) with a fixed mask, a function of
(gfp_flags, nid, order), or a bit in the fifth argument of the normal entry."""


@dataclass(frozen=True)
class Features:
    """The preparation stage of one kernel, rule by rule.

    Attributes:
        entry: the function that contains the stage.
        entry_alloc_flags: the entry has a fifth parameter, `unsigned int alloc_flags`.
        nolock: the entry of an allocation without locks.
        gfp_context_on_fast_path: `current_gfp_context()` is applied before `prepare_alloc_pages`.
        pf_memalloc_pin: `current_gfp_context()` tests PF_MEMALLOC_PIN.
        pf_memalloc_noreclaim: `current_gfp_context()` tests PF_MEMALLOC_NORECLAIM and PF_MEMALLOC_NOWARN.
        pf_memalloc_nocma: tasks with PF_MEMALLOC_NOCMA do not get ALLOC_CMA.
        context_test: the test for task context in the cpuset branch.
        interrupt_mask: the bits of preempt_count by which this test recognises interrupt context.
        config_cma: built with CONFIG_CMA.
        config_cpusets: built with CONFIG_CPUSETS.
        config_numa: built with CONFIG_NUMA, so there is a NOFALLBACK zonelist.
        defrag_mode: the sysctl vm.defrag_mode exists.
        highatomic_on_fast_path: the stage may set ALLOC_HIGHATOMIC.
        max_order: the largest order that the entry accepts.
        nolock_orders: the orders that an allocation without locks may have.
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

    @property
    def reads_task_flags(self) -> bool:
        """Return whether the stage reads `current->flags`: before 5.13 only to keep a task out of CMA areas."""
        return self.gfp_context_on_fast_path or (self.config_cma and self.pf_memalloc_nocma)

    def to_json(self) -> dict[str, Any]:
        """Return the features as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the features from the result of `to_json`.

        Unknown keys, from a newer writer, are ignored. Features with a default may be missing, from an older writer.
        """
        values = {
            field.name: data[field.name] for field in fields(cls) if field.name in data or field.default is MISSING
        }
        values["nolock_orders"] = tuple(values["nolock_orders"])
        return cls(**values)
