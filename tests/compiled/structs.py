# SPDX-License-Identifier: MIT
"""The structures that the slow path reads, laid out in the emulated memory as the image's BTF says."""

from kalloctrace.kernel.machine import ZonelistKind, ZoneRef
from kalloctrace.model.slowpath.types import Facts, SlowContext
from tests.compiled.image import Image
from tests.compiled.machine import DATA, Machine
from tests.compiled.requests import ZONES, Entry

TASK, SIGNAL, CONTEXT, NODEMASK, VICTIM_MM = (DATA + index * 0x1_0000 for index in range(5))
"""`current`, its `signal`, `*ac`, the caller's nodemask, the `oom_mm` of a victim."""

_NODES = DATA + 0x80_0000
_KINDS: tuple[ZonelistKind, ...] = ("FALLBACK", "NOFALLBACK")
"""The zonelists of a node: `enum` in include/linux/mmzone.h."""

_NODEMASK_SIZE = 0x100
"""`sizeof(nodemask_t)` at most: MAX_NUMNODES bits."""

_POINTER = 8

_CONTEXT = ("zonelist", "nodemask", "preferred_zoneref", "migratetype", "highest_zoneidx", "spread_dirty_pages")
_LAYOUTS = {"zonelist": "Q", "nodemask": "Q", "preferred_zoneref": "Q", "spread_dirty_pages": "B", "alloc_flags": "I"}


class Structs:
    """Where the members are.

    Args:
        image: whose BTF is read.
    """

    def __init__(self, image: Image) -> None:
        """Look the members up."""
        btf = image.btf
        self._symbols = image.symbols.addresses
        self._sizes = {
            name: btf.size(name)
            for name in ("task_struct", "signal_struct", "alloc_context", "zone", "zonelist", "zoneref", "pglist_data")
        }
        self._task = {
            name: btf.offset("task_struct", name)
            for name in ("flags", "prio", "signal", "mems_allowed", "mems_allowed_seq")
        }
        self._oom_mm = btf.offset("signal_struct", "oom_mm")
        self._zone_pgdat, self._zone_node = btf.offset("zone", "zone_pgdat"), btf.offset("zone", "node")
        self._present_pages = btf.offset("zone", "present_pages")
        self._node_id = btf.offset("pglist_data", "node_id")
        self._node_zones = btf.offset("pglist_data", "node_zones")
        self._node_zonelists = btf.offset("pglist_data", "node_zonelists")
        self._has_alloc_flags = btf.has_member("alloc_context", "alloc_flags")
        members = (*_CONTEXT, "alloc_flags") if self._has_alloc_flags else _CONTEXT
        self._context = {name: btf.offset("alloc_context", name) for name in members}
        # 6.12 has both in one per-CPU structure.
        self._hot_count = btf.offset("pcpu_hot", "preempt_count") if "pcpu_hot" in self._symbols else None

    @property
    def has_defrag_mode(self) -> bool:
        """Whether the kernel has the sysctl vm.defrag_mode."""
        return "defrag_mode" in self._symbols

    def write(self, machine: Machine, entry: Entry, sequence: int) -> None:
        """Write all that a call reads."""
        facts = entry.facts
        machine.clear(TASK, self._sizes["task_struct"])
        machine.clear(SIGNAL, self._sizes["signal_struct"])
        machine.write(TASK + self._task["flags"], "I", facts.task_flags or 0)
        machine.write(TASK + self._task["prio"], "i", facts.prio or 0)
        machine.write(TASK + self._task["signal"], "Q", SIGNAL)
        self.write_volatile(machine, facts, sequence)
        if self._hot_count is None:
            current, count = machine.percpu("current_task"), machine.percpu("__preempt_count")
        else:
            current = machine.percpu("pcpu_hot")
            count = current + self._hot_count
        machine.write(current, "Q", TASK)
        machine.write(count, "I", facts.preempt_count or 0)
        machine.write(self._symbols["gfp_allowed_mask"], "I", facts.gfp_allowed_mask or 0)
        if self.has_defrag_mode:
            machine.write(self._symbols["defrag_mode"], "I", int(bool(facts.defrag_mode)))
        self._write_nodes(machine, entry)
        self._write_context(machine, entry.call.context)

    def write_volatile(self, machine: Machine, facts: Facts, sequence: int) -> None:
        """Write what may change during a call.

        Args:
            machine: where.
            facts: the victim and the cpuset.
            sequence: `current->mems_allowed_seq`.
        """
        machine.write(SIGNAL + self._oom_mm, "Q", VICTIM_MM if facts.oom_victim else 0)
        machine.write(TASK + self._task["mems_allowed"], "Q", facts.mems_allowed or 0)
        machine.write(TASK + self._task["mems_allowed_seq"], "I", sequence)

    def read_context(self, machine: Machine, address: int, entry: Entry) -> SlowContext:
        """Return the `struct alloc_context` at an address as it is now."""
        values = {
            name: machine.read(address + offset, _LAYOUTS.get(name, "i"))[0] for name, offset in self._context.items()
        }
        kind, nid = next(
            ((kind, nid) for kind in _KINDS for nid in entry.nodes if values["zonelist"] == self._zonelist(kind, nid)),
            (None, None),
        )
        refs = entry.machine.zonelist(kind, nid) if kind is not None and nid is not None else ()
        index = (values["preferred_zoneref"] - values["zonelist"]) // self._sizes["zoneref"]
        return SlowContext(
            zonelist_kind=kind,
            zonelist_nid=nid,
            nodemask=machine.read(values["nodemask"], "Q")[0] if values["nodemask"] else None,
            preferred_zone=refs[index] if refs and 0 <= index < len(refs) else None,
            highest_zoneidx=values["highest_zoneidx"],
            migratetype=values["migratetype"],
            spread_dirty_pages=bool(values["spread_dirty_pages"]),
            alloc_flags=values.get("alloc_flags", 0),
        )

    def _write_context(self, machine: Machine, context: SlowContext) -> None:
        machine.clear(NODEMASK, _NODEMASK_SIZE)
        machine.write(NODEMASK, "Q", context.nodemask or 0)
        zonelist = self._zonelist(context.zonelist_kind or "FALLBACK", context.zonelist_nid or 0)
        values = {
            "zonelist": zonelist,
            "nodemask": 0 if context.nodemask is None else NODEMASK,
            "preferred_zoneref": zonelist,
            "migratetype": context.migratetype,
            "highest_zoneidx": context.highest_zoneidx,
            "spread_dirty_pages": int(context.spread_dirty_pages),
            "alloc_flags": context.alloc_flags,
        }
        machine.clear(CONTEXT, self._sizes["alloc_context"])
        for name, offset in self._context.items():
            machine.write(CONTEXT + offset, _LAYOUTS.get(name, "i"), values[name])

    def _node(self, nid: int) -> int:
        return _NODES + nid * self._sizes["pglist_data"]

    def _zone(self, ref: ZoneRef) -> int:
        return self._node(ref.node) + self._node_zones + ref.zone * self._sizes["zone"]

    def _zonelist(self, kind: ZonelistKind, nid: int) -> int:
        return self._node(nid) + self._node_zonelists + _KINDS.index(kind) * self._sizes["zonelist"]

    def _write_nodes(self, machine: Machine, entry: Entry) -> None:
        """Write the nodes, their zones and zonelists."""
        machine.write(self._symbols["nr_online_nodes"], "I", len(entry.nodes))
        for nid, zones in entry.nodes.items():
            machine.write(self._node(nid) + self._node_id, "i", nid)
            machine.write(self._symbols["node_data"] + nid * _POINTER, "Q", self._node(nid))
            for index in ZONES:
                zone = self._zone(ZoneRef(nid, index))
                machine.write(zone + self._zone_pgdat, "Q", self._node(nid))
                machine.write(zone + self._zone_node, "i", nid)
                machine.write(zone + self._present_pages, "Q", int(index in zones))
            for kind in _KINDS:
                refs, address = entry.machine.zonelist(kind, nid) or (), self._zonelist(kind, nid)
                for ref in refs:
                    machine.write(address, "Qi", self._zone(ref), ref.zone)
                    address += self._sizes["zoneref"]
                machine.clear(address, self._sizes["zoneref"])
