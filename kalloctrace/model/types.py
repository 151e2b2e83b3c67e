# SPDX-License-Identifier: MIT
"""Inputs and outputs of the preparation stage."""

from dataclasses import dataclass
from typing import Literal

from kalloctrace.kernel.machine import ZonelistKind, ZoneRef
from kalloctrace.kernel.nodelist import MAX_NUMNODES

Entry = Literal["normal", "nolock"]
Outcome = Literal["prepared", "rejected", "nothing", "single"]
"""The last two come from the bulk allocator: it has nothing to do, or calls the normal entry for a single page."""

NodemaskOrigin = Literal["null", "caller", "mems_allowed"]

ALL_NODES = (1 << MAX_NUMNODES) - 1
"""A `nodemask_t` with every bit set: `current->mems_allowed` of a task that no cpuset restricts."""

NUMA_NO_NODE = -1


class UnknownFact(Exception):  # noqa: N818  (it names what is missing; the caller decides whether that is an error)
    """The answer depends on a fact that is not known. The model never guesses.

    Args:
        name: the missing fact.
    """

    def __init__(self, name: str) -> None:
        """Name the missing fact."""
        super().__init__(f"not known: {name}")
        self.name = name


class ImpossibleRequestError(ValueError):
    """The request is impossible on this kernel, for example because its entry lacks an argument."""


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of the entry function, as its caller passed them.

    Attributes:
        gfp_mask: `gfp_t`; only the low 32 bits count.
        order: `unsigned int`; only the low 32 bits count.
        preferred_nid: `int`, a node id; only an entry without locks takes NUMA_NO_NODE.
        nodemask: bit n is node n; None is the NULL pointer.
        alloc_flags: the fifth argument, `unsigned int`, where the entry has one; 0 elsewhere.
        entry: which function was called.
    """

    gfp_mask: int
    order: int
    preferred_nid: int
    nodemask: int | None = None
    alloc_flags: int = 0
    entry: Entry = "normal"


@dataclass(frozen=True, slots=True)
class Context:
    """The state that the stage reads in addition to its arguments and the zonelists.

    Attributes:
        cpusets_enabled: `cpusets_enabled()`.
        gfp_allowed_mask: `gfp_t`.
        task_flags: `current->flags`, `unsigned int`, in interrupt context those of the interrupted task.
        preempt_count: raw, low 32 bits, in that kernel's layout; None if it was not captured.
        softirq_disable_cnt: `current->softirq_disable_cnt`, which holds the softirq part on PREEMPT_RT; 0 elsewhere.
        mems_allowed: `current->mems_allowed`; bit n is node n; None where it was not captured.
        defrag_mode: the sysctl vm.defrag_mode is not 0.
        page_group_by_mobility_disabled: the variable of that name.
        numa_node_id: node of the CPU; None where it was not captured.
        memcg_kmem_online: `memcg_kmem_online()`; only the bulk allocator tests it.
        page_owner_inited: the static key of that name; only the bulk allocator tests it.
    """

    cpusets_enabled: bool
    gfp_allowed_mask: int
    task_flags: int = 0
    preempt_count: int | None = 0
    softirq_disable_cnt: int = 0
    mems_allowed: int | None = ALL_NODES
    defrag_mode: bool = False
    page_group_by_mobility_disabled: bool = False
    numa_node_id: int | None = None
    memcg_kmem_online: bool = False
    page_owner_inited: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that was applied.

    Attributes:
        rule: its stable identifier.
        function: the kernel function that contains the rule.
        effect: a sentence with the values, for people.
    """

    rule: str
    function: str
    effect: str


@dataclass(frozen=True, slots=True)
class Preparation:
    """The result of the stage: the arguments of the first `get_page_from_freelist` call.

    Attributes:
        outcome: anything but "prepared" if that call is never made. The bulk allocator does not make it either, but
            takes its pages from the same lists.
        steps: the rules that were applied, in order.
        reason: why nothing was prepared.
        warns: the rejection prints a warning (once per boot).
        gfp: `gfp_t`; this and the members below are None if nothing was prepared.
        alloc_flags: `unsigned int`, ALLOC_* bits.
        highest_zoneidx: `enum zone_type`.
        migratetype: `enum migratetype`.
        zonelist_kind: which of the node's zonelists.
        zonelist_nid: whose zonelist.
        nodemask: which nodemask `ac->nodemask` points to.
        nodemask_value: its content; None for the NULL pointer.
        preferred_zone: `ac->preferred_zoneref`; None also for the terminating entry: no zone is eligible.
        spread_dirty_pages: `ac->spread_dirty_pages`.
        prepare_alloc_flags: `*alloc_flags` when `prepare_alloc_pages` returns.
    """

    outcome: Outcome
    steps: tuple[Step, ...]
    reason: str | None = None
    warns: bool = False
    gfp: int | None = None
    alloc_flags: int | None = None
    highest_zoneidx: int | None = None
    migratetype: int | None = None
    zonelist_kind: ZonelistKind | None = None
    zonelist_nid: int | None = None
    nodemask: NodemaskOrigin | None = None
    nodemask_value: int | None = None
    preferred_zone: ZoneRef | None = None
    spread_dirty_pages: bool | None = None
    prepare_alloc_flags: int | None = None
