# SPDX-License-Identifier: MIT
"""Random calls of the slow path: requests, tasks and machines, ordinary ones and odd ones."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from kalloctrace.kernel.builtin import default_allowed_mask
from kalloctrace.kernel.machine import Machine, machine_of
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.slowpath.types import Facts, SlowCall, SlowContext

MAX_NODES = 3
ZONES = range(4)
_ORDERS = (0, 0, 0, 1, 2, 3, 4, 9)
_HIGHEST_ZONES = (1, 2, 2, 2, 3)
_PRIORITIES = (120, 120, 120, 100, 99, 50, 0, -1)
_MOVABLE_SHIFT, _MOBILITY = 3, 3
"""GFP_MOVABLE_SHIFT and the mask of a mobility: `gfp_migratetype`, include/linux/gfp.h:317 of 5.10.262-1."""

_MASKS = (
    "GFP_KERNEL",
    "GFP_KERNEL",
    "GFP_ATOMIC",
    "GFP_NOWAIT",
    "GFP_NOFS",
    "GFP_NOIO",
    "GFP_HIGHUSER_MOVABLE",
    "GFP_TRANSHUGE_LIGHT",
    "GFP_DMA32",
)
_BITS = (
    "__GFP_HIGH",
    "__GFP_ATOMIC",
    "__GFP_DIRECT_RECLAIM",
    "__GFP_KSWAPD_RECLAIM",
    "__GFP_IO",
    "__GFP_MOVABLE",
    "__GFP_RETRY_MAYFAIL",
    "__GFP_NOFAIL",
    "__GFP_NORETRY",
    "__GFP_MEMALLOC",
    "__GFP_NOMEMALLOC",
    "__GFP_HARDWALL",
    "__GFP_THISNODE",
)
"""Bits that are sometimes inverted in a mask."""

_PF_DUMPCORE = 0x200
_CONTEXT_COUNTS = 0xFFFF
"""Where preempt_count has the softirq count and, below it, that of disabled preemption."""

_NEED_RESCHED = (0x8000_0000, 0x2_0000)
"""Bits of preempt_count that are no interrupt: PREEMPT_NEED_RESCHED, and where that is one, a count that 7.3 added."""

_KEYS = ("cpusets_pre_enable_key", "cpusets_enabled_key", "cpusets_insane_config_key")

Nodes = dict[int, list[int]]
"""A machine: by node id, the indexes of its zones with memory."""


@dataclass(frozen=True)
class Cpusets:
    """Which static keys of cpusets are on.

    Attributes:
        enabled: `cpusets_enabled()`.
        insane: `cpusets_insane_config()`, which cpusets with nothing but movable memory turn on.
    """

    enabled: bool
    insane: bool

    @property
    def on(self) -> tuple[str, ...]:
        """The names of the keys that are on."""
        return _KEYS[: 2 + self.insane] if self.enabled else ()

    @property
    def off(self) -> tuple[str, ...]:
        """The names of the others."""
        return _KEYS[len(self.on) :]


CPUSETS = (
    Cpusets(enabled=False, insane=False),
    Cpusets(enabled=True, insane=False),
    Cpusets(enabled=True, insane=True),
)


@dataclass(frozen=True)
class Entry:
    """What the slow path is called with.

    Attributes:
        nodes: the machine.
        machine: the same with its zonelists.
        cpusets: the keys.
        call: the arguments and the facts; it has no attempts yet.
        facts: those of `call`.
    """

    nodes: Nodes
    machine: Machine
    cpusets: Cpusets
    call: SlowCall
    facts: Facts


def some_nodes(rnd: random.Random, nodes: Sequence[int]) -> int:
    """Return a mask of some of these nodes, which are never none: the nodes of a cpuset."""
    return sum(1 << nid for nid in rnd.sample(nodes, rnd.randint(1, len(nodes))))


def random_entry(rnd: random.Random, snapshot: Snapshot) -> Entry:
    """Make up a call. Its facts have vm.defrag_mode on every kernel: those without the sysctl must not be affected.

    Args:
        rnd: makes the choices.
        snapshot: the kernel.
    """
    nodes = {nid: [zone for zone in ZONES if rnd.random() < 0.7] for nid in range(rnd.randint(1, MAX_NODES))}
    nid = rnd.choice(list(nodes))
    machine = machine_of(nodes, gfp_allowed_mask=default_allowed_mask(snapshot.tables))
    zonelist = machine.fallback[nid]
    cpusets = rnd.choice(CPUSETS)
    gfp_mask = _gfp_mask(rnd, snapshot)
    context = SlowContext(
        "FALLBACK",
        nid,
        nodemask=None if rnd.random() < 0.5 else rnd.getrandbits(MAX_NODES),
        preferred_zone=zonelist[0] if zonelist else None,
        highest_zoneidx=rnd.choice(_HIGHEST_ZONES),
        migratetype=gfp_mask >> _MOVABLE_SHIFT & _MOBILITY,
        alloc_flags=_entry_flags(rnd, snapshot),
    )
    facts = Facts(
        task_flags=_task_flags(rnd, snapshot),
        preempt_count=_preempt_count(rnd, snapshot),
        prio=rnd.choice(_PRIORITIES),
        oom_victim=rnd.random() < 0.15,
        cpusets_enabled=cpusets.enabled,
        gfp_allowed_mask=_allowed_mask(rnd, snapshot),
        defrag_mode=rnd.random() < 0.3,
        mems_allowed=some_nodes(rnd, list(nodes)),
    )
    call = SlowCall(gfp_mask, rnd.choice(_ORDERS), context, facts=facts)
    return Entry(nodes, machine, cpusets, call, facts)


def _gfp_mask(rnd: random.Random, snapshot: Snapshot) -> int:
    tables = snapshot.tables
    mask = tables.gfp(rnd.choice(_MASKS))
    for name in _BITS:
        if tables.has_gfp(name) and rnd.random() < 0.08:
            mask ^= tables.gfp(name)
    return mask


def _entry_flags(rnd: random.Random, snapshot: Snapshot) -> int:
    """Return the `ac->alloc_flags` of a request, which the fast path hands on where the kernel has the member."""
    if snapshot.features.entry_alloc_flags and rnd.random() < 0.2:
        return dict(snapshot.tables.alloc)["ALLOC_NO_CODETAG"]
    return 0


def _task_flags(rnd: random.Random, snapshot: Snapshot) -> int:
    flags = (_PF_DUMPCORE, *dict(snapshot.tables.pf).values())
    return sum(flag for flag in flags if rnd.random() < 0.12)


def _preempt_count(rnd: random.Random, snapshot: Snapshot) -> int:
    """Return a count of a task, with preemption or bottom halves disabled, of a softirq or of a hardirq."""
    interrupts = snapshot.features.interrupt_mask & ~_CONTEXT_COUNTS
    hardirq = interrupts & -interrupts
    other = next(bit for bit in _NEED_RESCHED if not bit & interrupts)
    return rnd.choice((0, 0, 0, 1, 0x100, 0x200, 0x300, hardirq, other))


def _allowed_mask(rnd: random.Random, snapshot: Snapshot) -> int:
    """Return gfp_allowed_mask, which has no I/O while the machine is suspended."""
    allowed = default_allowed_mask(snapshot.tables)
    io, fs = snapshot.tables.gfp("__GFP_IO"), snapshot.tables.gfp("__GFP_FS")
    return rnd.choice((allowed, allowed, allowed, allowed & ~(io | fs), allowed & ~io))
