# SPDX-License-Identifier: MIT
"""One kernel on one machine: every bit and table that the rules use, looked up once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from kalloctrace.flags.bits import FlagBits
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
class Kernel:
    """One kernel on one machine, as the rules use it.

    Attributes:
        features: the rules in force.
        tables: the flags' names, for messages.
        machine: nodes and zonelists.
        bits: the flags' values.
        gfp_zone_table: zone index for each value of the four zone modifiers of a gfp mask.
        zone_normal: index of ZONE_NORMAL.
        zone_dma32: index of ZONE_DMA32; None without CONFIG_ZONE_DMA32.
    """

    features: Features
    tables: FlagTables
    machine: Machine
    bits: FlagBits
    gfp_zone_table: tuple[int, ...]
    zone_normal: int
    zone_dma32: int | None

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """Look up what the rules use in a snapshot."""
        tables = snapshot.tables
        return cls(
            features=snapshot.features,
            tables=tables,
            machine=snapshot.machine,
            bits=tables.bits,
            gfp_zone_table=_gfp_zone_table(tables),
            zone_normal=_zone_normal(tables),
            zone_dma32=tables.zone_index("DMA32"),
        )

    def on(self, machine: Machine, features: Features | None = None) -> "Kernel":
        """Return this kernel on another machine, or with other features; it shares the tables."""
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
