# SPDX-License-Identifier: MIT
"""One kernel on one machine, with every bit and table that the rules use looked up once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.features import Features
from kalloctrace.kernel.machine import Machine
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.types import ALL_NODES, Context

GFP_ZONE_TABLE: Mapping[int, str] = {
    0x0: "Normal",
    0x1: "DMA",
    0x2: "HighMem",
    0x4: "DMA32",
    0x8: "Normal",
    0x9: "DMA",
    0xA: "Movable",
    0xC: "DMA32",
}
"""The zone that each value of the four zone modifiers selects; a kernel without that zone uses Normal instead.

Source: GFP_ZONE_TABLE in include/linux/gfp.h. The values that are missing here are bad combinations.
"""


@dataclass(frozen=True, slots=True)
class Bits:
    """Values of the flags that the rules test or set, all `unsigned int`; 0 where the kernel lacks the flag.

    Attributes:
        alloc_nolock: ALLOC_NOLOCK, which is ALLOC_TRYLOCK before 7.3.
        pf_memalloc_pin: PF_MEMALLOC_PIN, which is PF_MEMALLOC_NOCMA before 5.13.
        nolock_fixed: the mask that an entry of (nid, order) asks with.
        nolock_added: the bits that any other entry without locks adds to its caller's.
    """

    gfp_movable: int
    gfp_high: int
    gfp_io: int
    gfp_fs: int
    gfp_zero: int
    gfp_direct_reclaim: int
    gfp_kswapd_reclaim: int
    gfp_write: int
    gfp_nowarn: int
    gfp_comp: int
    gfp_nomemalloc: int
    gfp_hardwall: int
    gfp_thisnode: int
    gfp_account: int
    alloc_wmark_min: int
    alloc_wmark_low: int
    alloc_cpuset: int
    alloc_cma: int
    alloc_nofragment: int
    alloc_highatomic: int
    alloc_nolock: int
    alloc_kswapd: int
    alloc_no_codetag: int
    pf_memalloc_nofs: int
    pf_memalloc_noio: int
    pf_memalloc_pin: int
    pf_memalloc_noreclaim: int
    pf_memalloc_nowarn: int
    nolock_fixed: int
    nolock_added: int

    @classmethod
    def of(cls, tables: FlagTables) -> Self:
        """Look the flags up in a kernel's tables."""
        gfp = {
            f"gfp_{name.lower()}": tables.gfp(f"__GFP_{name}")
            for name in (
                *("MOVABLE", "HIGH", "IO", "FS", "ZERO", "DIRECT_RECLAIM", "KSWAPD_RECLAIM", "WRITE"),
                *("NOWARN", "COMP", "NOMEMALLOC", "HARDWALL", "THISNODE", "ACCOUNT"),
            )
        }
        alloc, pf = dict(tables.alloc), dict(tables.pf)
        common = gfp["gfp_nowarn"] | gfp["gfp_zero"] | gfp["gfp_nomemalloc"]
        return cls(
            **gfp,
            alloc_wmark_min=alloc["ALLOC_WMARK_MIN"],
            alloc_wmark_low=alloc["ALLOC_WMARK_LOW"],
            alloc_cpuset=alloc["ALLOC_CPUSET"],
            alloc_cma=alloc["ALLOC_CMA"],
            alloc_nofragment=alloc.get("ALLOC_NOFRAGMENT", 0),
            alloc_highatomic=alloc.get("ALLOC_HIGHATOMIC", 0),
            alloc_nolock=alloc.get("ALLOC_NOLOCK", alloc.get("ALLOC_TRYLOCK", 0)),
            alloc_kswapd=alloc["ALLOC_KSWAPD"],
            alloc_no_codetag=alloc.get("ALLOC_NO_CODETAG", 0),
            pf_memalloc_nofs=pf["PF_MEMALLOC_NOFS"],
            pf_memalloc_noio=pf["PF_MEMALLOC_NOIO"],
            pf_memalloc_pin=pf.get("PF_MEMALLOC_PIN", pf.get("PF_MEMALLOC_NOCMA", 0)),
            pf_memalloc_noreclaim=pf.get("PF_MEMALLOC_NORECLAIM", 0),
            pf_memalloc_nowarn=pf.get("PF_MEMALLOC_NOWARN", 0),
            nolock_fixed=common | gfp["gfp_account"],
            nolock_added=common | gfp["gfp_comp"],
        )


@dataclass(frozen=True, slots=True)
class Kernel:
    """The compiled view of one kernel on one machine.

    Attributes:
        features: the rules in force.
        tables: the flags' names, for people.
        machine: nodes and zonelists.
        bits: the flags' values.
        gfp_zone_table: zone index for each value of the four zone modifiers of a gfp mask.
        zone_normal: index of ZONE_NORMAL.
        zone_dma32: index of ZONE_DMA32; None without CONFIG_ZONE_DMA32.
    """

    features: Features
    tables: FlagTables
    machine: Machine
    bits: Bits
    gfp_zone_table: tuple[int, ...]
    zone_normal: int
    zone_dma32: int | None

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """Compile a snapshot."""
        tables = snapshot.tables
        return cls(
            features=snapshot.features,
            tables=tables,
            machine=snapshot.machine,
            bits=Bits.of(tables),
            gfp_zone_table=_gfp_zone_table(tables),
            zone_normal=_zone_normal(tables),
            zone_dma32=tables.zone_index("DMA32"),
        )

    def on(self, machine: Machine, features: Features | None = None) -> "Kernel":
        """Return this kernel on another machine, or with other features; the tables are shared."""
        return Kernel(
            features or self.features,
            self.tables,
            machine,
            self.bits,
            self.gfp_zone_table,
            self.zone_normal,
            self.zone_dma32,
        )

    def context(
        self,
        *,
        task_flags: int = 0,
        preempt_count: int = 0,
        softirq_disable_cnt: int = 0,
        mems_allowed: int = ALL_NODES,
        numa_node_id: int | None = None,
    ) -> Context:
        """Return the context of a request on this machine: its switches, and what varies per request.

        Args:
            task_flags: as in `Context`.
            preempt_count: as in `Context`.
            softirq_disable_cnt: as in `Context`.
            mems_allowed: as in `Context`.
            numa_node_id: as in `Context`.
        """
        return Context(
            cpusets_enabled=self.machine.cpusets_enabled,
            gfp_allowed_mask=self.machine.gfp_allowed_mask,
            task_flags=task_flags,
            preempt_count=preempt_count,
            softirq_disable_cnt=softirq_disable_cnt,
            mems_allowed=mems_allowed,
            defrag_mode=self.machine.defrag_mode,
            page_group_by_mobility_disabled=self.machine.page_group_by_mobility_disabled,
            numa_node_id=numa_node_id,
        )


def _zone_normal(tables: FlagTables) -> int:
    normal = tables.zone_index("Normal")
    if normal is None:
        raise ValueError(f"the tables of {tables.kernel} have no ZONE_NORMAL, which every kernel has")
    return normal


def _gfp_zone_table(tables: FlagTables) -> tuple[int, ...]:
    """Return the zone index for each value of the zone modifiers.

    Bad combinations keep 0: without CONFIG_DEBUG_VM the kernel looks them up like any other.
    """
    normal = _zone_normal(tables)

    table = [0] * 16
    for modifiers, name in GFP_ZONE_TABLE.items():
        index = tables.zone_index(name)
        table[modifiers] = normal if index is None else index
    return tuple(table)
