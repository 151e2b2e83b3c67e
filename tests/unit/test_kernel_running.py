# SPDX-License-Identifier: MIT
"""The running kernel, read from made-up files: memory, types, symbols, tracefs and /sys of two nodes."""

import os
import struct
from pathlib import Path
from typing import ClassVar, Self

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.kernel import live, preemption
from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.kernel.kallsyms import Symbols
from kalloctrace.kernel.live import LiveKernel, has_tracepoint, live_snapshot, live_tables, nr_node_ids, online_nodes
from kalloctrace.kernel.machine import Machine, Node, Topology, Zone, ZoneRef
from kalloctrace.kernel.memory_layout import page_flags_of, read_memory_layout, read_page_flags

BASE = 0xFFFF888000000000
ZONES = ("ZONE_DMA", "ZONE_DMA32", "ZONE_NORMAL", "ZONE_MOVABLE", "ZONE_DEVICE", "__MAX_NR_ZONES")
ZONE, ZONEREF, ZONELIST_ENTRIES = 32, 16, 11
PAGE, PAGE_FLAGS = 64, 8
PRESENT, START_PFN, ZONEREF_ZONE = 8, 16, 0
ZONELISTS = 5 * ZONE
PGDAT = 0x1000
VMEMMAP = BASE + 0x100000


class Memory:
    """Kernel memory with two nodes: node 0 has DMA and Normal, node 1 has Normal."""

    nodes: ClassVar = {0: {0: 100, 2: 5000}, 1: {2: 7000}}
    start_pfn: ClassVar = {(0, 0): 1, (0, 2): 16, (1, 2): 32}

    def __init__(self) -> None:
        """Write everything that the kernel would have written."""
        self.data = bytearray(0x101000)
        self.variables = {
            "node_data": 0,
            "nr_online_nodes": 0x40,
            "gfp_allowed_mask": 0x44,
            "page_group_by_mobility_disabled": 0x48,
            "cpusets_enabled_key": 0x4C,
            "defrag_mode": 0x50,
            "numa_distance": 0x58,
            "numa_distance_cnt": 0x60,
            "zonelist_update_seq": 0x64,
            "vmemmap_base": 0x68,
        }
        for nid in self.nodes:
            self.write(8 * nid, "Q", self.pgdat(nid))
        for name, value in (("nr_online_nodes", 2), ("gfp_allowed_mask", 0x1FFFFFF), ("zonelist_update_seq", 2)):
            self.set(name, value)
        self.write(self.variables["vmemmap_base"], "Q", VMEMMAP)
        self._write_zones()
        self._write_zonelists()

    def pgdat(self, nid: int) -> int:
        """Return the address of a node's `struct pglist_data`."""
        return BASE + PGDAT * (nid + 1)

    def zone(self, nid: int, index: int) -> int:
        """Return the address of a zone."""
        return self.pgdat(nid) + ZONE * index

    def write(self, offset: int, kind: str, value: int) -> None:
        """Write a number at an offset from `BASE`."""
        struct.pack_into(f"<{kind}", self.data, offset, value)

    def set(self, name: str, value: int) -> None:
        """Set a variable of 32 bits."""
        self.write(self.variables[name], "i", value)

    def _write_zones(self) -> None:
        flags = page_flags_of(nodes=1024, zones=5)
        for nid, zones in self.nodes.items():
            for index, present in zones.items():
                self.write(self.zone(nid, index) - BASE + PRESENT, "Q", present)
                pfn = self.start_pfn[nid, index]
                self.write(self.zone(nid, index) - BASE + START_PFN, "Q", pfn)
                place = nid << flags.nodes_pgshift | index << flags.zones_pgshift | 0x7FF
                self.write(VMEMMAP - BASE + PAGE * pfn + PAGE_FLAGS, "Q", place)

    def _write_zonelists(self) -> None:
        lists = {
            (0, 0): [(0, 2), (0, 0), (1, 2)],
            (0, 1): [(0, 2), (0, 0)],
            (1, 0): [(1, 2), (0, 2), (0, 0)],
            (1, 1): [(1, 2)],
        }
        for (nid, kind), refs in lists.items():
            for at, (node, zone) in enumerate(refs):
                start = self.pgdat(nid) - BASE + ZONELISTS + ZONEREF * (ZONELIST_ENTRIES * kind + at)
                self.write(start + ZONEREF_ZONE, "Q", self.zone(node, zone))

    def read(self, address: int, size: int) -> bytes:
        """Read bytes."""
        assert address >= BASE
        assert address + size <= BASE + len(self.data)
        return bytes(self.data[address - BASE : address - BASE + size])

    def u64(self, address: int) -> int:
        """Read 64 bits."""
        return int.from_bytes(self.read(address, 8), "little")

    def u32(self, address: int) -> int:
        """Read 32 bits."""
        return int.from_bytes(self.read(address, 4), "little")

    def s32(self, address: int) -> int:
        """Read 32 bits with a sign."""
        return int.from_bytes(self.read(address, 4), "little", signed=True)

    def __enter__(self) -> Self:
        """Return the memory."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close nothing."""


class Types:
    """The types of a kernel like Debian's 6.12, with small structures.

    Args:
        numa: whether there are NOFALLBACK zonelists.
        gfp: the members of the anonymous enum of gfp bits.
    """

    def __init__(self, *, numa: bool = True, gfp: tuple[tuple[str, int], ...] | None = None) -> None:
        """Build the tables of sizes and offsets."""
        self.sizes = {
            "zone": ZONE,
            "zoneref": ZONEREF,
            "zonelist": ZONEREF * ZONELIST_ENTRIES,
            "page": PAGE,
            "free_area": 88,
            "list_head": 16,
        }
        self.offsets = {
            ("pglist_data", "node_zones"): 0,
            ("pglist_data", "node_zonelists"): ZONELISTS,
            ("zone", "present_pages"): PRESENT,
            ("zone", "zone_start_pfn"): START_PFN,
            ("zoneref", "zone"): ZONEREF_ZONE,
            ("page", "flags"): PAGE_FLAGS,
        }
        self.member_sizes = {
            ("pglist_data", "node_zones"): 5 * ZONE,
            ("pglist_data", "node_zonelists"): ZONEREF * ZONELIST_ENTRIES * (2 if numa else 1),
            ("task_struct", "mems_allowed"): 128,
            ("zone", "free_area"): 11 * 88,
        }
        self.enums: dict[str, tuple[tuple[str, int], ...]] = {
            "zone_type": tuple((name, value) for value, name in enumerate(ZONES)),
            "migratetype": (("MIGRATE_UNMOVABLE", 0), ("MIGRATE_PCPTYPES", 3)),
        }
        self.gfp = gfp

    def size(self, name: str) -> int:
        """Return the size of a structure."""
        return self.sizes[name]

    def offset(self, name: str, member: str) -> int:
        """Return the offset of a member."""
        return self.offsets[name, member]

    def member_size(self, name: str, member: str) -> int:
        """Return the size of a member."""
        return self.member_sizes[name, member]

    def enum(self, name: str) -> tuple[tuple[str, int], ...] | None:
        """Return an enum."""
        return self.enums.get(name)

    def anonymous_enum(self, enumerator: str) -> tuple[tuple[str, int], ...] | None:
        """Return the enum of gfp bits."""
        assert enumerator == "___GFP_DMA_BIT"
        return self.gfp

    def parameters(self, _: str) -> tuple[str, ...]:
        """Return the parameters of the entry."""
        return ("gfp_t", "unsigned int", "int", "nodemask_t *")

    def has_function(self, _: str) -> bool:
        """Return that there is no entry without locks."""
        return False

    def has_member(self, *_: str) -> bool:
        """Return that the kernel is not PREEMPT_RT."""
        return False

    def variable_size(self, _: str) -> int:
        """Return the size of the preemption counter."""
        return 4


def symbols_of(folder: Path, memory: Memory, *, entry: str = "__alloc_pages_noprof", without: str = "") -> Symbols:
    """Return the symbols of a kernel with this memory."""
    lines = [f"{BASE + at:x} d {name}\n" for name, at in memory.variables.items() if name != without]
    file = folder / "kallsyms"
    file.write_text("".join([*lines, f"{BASE + 0x900:x} T {entry}\n"]))
    return Symbols(file)


@pytest.fixture
def memory() -> Memory:
    """Return the memory of two nodes."""
    return Memory()


@pytest.fixture
def types() -> Types:
    """Return the types."""
    return Types()


@pytest.fixture
def folder(tmp_path: Path, memory: Memory, types: Types, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let `LiveKernel` see the made-up kernel, a Debian 6.12 on two nodes with CPUs on node 0."""
    running(monkeypatch, "6.12.117+deb13-amd64")
    for state, nodes in (("online", "0-1"), ("possible", "0-1"), ("has_cpu", "0")):
        (tmp_path / state).write_text(f"{nodes}\n")
    monkeypatch.setattr(live, "_NODES", tmp_path)
    monkeypatch.setattr(live, "TRACEFS", (tmp_path / "tracing", tmp_path / "debug"))
    monkeypatch.setattr(live, "Kcore", lambda: memory)
    monkeypatch.setattr(live, "Btf", lambda: types)
    monkeypatch.setattr(live, "Symbols", lambda: symbols_of(tmp_path, memory))
    return tmp_path


def running(monkeypatch: pytest.MonkeyPatch, release: str, version: str = "#1 SMP PREEMPT_DYNAMIC Debian") -> None:
    """Set the release that `uname` returns."""
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", release, version, "x86_64")))


EXPECTED_NODES = (
    Node(0, (Zone(0, 100), Zone(1, 0), Zone(2, 5000), Zone(3, 0), Zone(4, 0))),
    Node(1, (Zone(0, 0), Zone(1, 0), Zone(2, 7000), Zone(3, 0), Zone(4, 0))),
)
FALLBACK = {
    0: (ZoneRef(0, 2), ZoneRef(0, 0), ZoneRef(1, 2)),
    1: (ZoneRef(1, 2), ZoneRef(0, 2), ZoneRef(0, 0)),
}
NOFALLBACK = {0: (ZoneRef(0, 2), ZoneRef(0, 0)), 1: (ZoneRef(1, 2),)}


def test_layout_has_nodes_zonelists_and_addresses(memory: Memory, types: Types) -> None:
    """Zones with their pages, lists up to the terminating entry, and the owner of each address."""
    layout = read_memory_layout(memory, types, BASE, (0, 1))  # type: ignore[arg-type] # what it calls
    assert layout.nodes == EXPECTED_NODES
    assert layout.zonelists == {"FALLBACK": FALLBACK, "NOFALLBACK": NOFALLBACK}
    assert layout.zone_addresses[memory.zone(1, 2)] == ZoneRef(1, 2)
    assert len(layout.zone_addresses) == 10
    first = memory.pgdat(1) + ZONELISTS
    assert layout.zonelist_addresses[first] == ("FALLBACK", 1)
    assert layout.zonelist_addresses[first + ZONEREF * ZONELIST_ENTRIES] == ("NOFALLBACK", 1)
    assert len(layout.zonelist_addresses) == 4


def test_layout_without_numa_has_one_kind_of_zonelist(memory: Memory) -> None:
    """Without CONFIG_NUMA there is no NOFALLBACK list."""
    layout = read_memory_layout(memory, Types(numa=False), BASE, (0, 1))  # type: ignore[arg-type] # what it calls
    assert layout.zonelists == {"FALLBACK": FALLBACK, "NOFALLBACK": {}}
    assert {kind for kind, _ in layout.zonelist_addresses.values()} == {"FALLBACK"}


def test_full_zonelist_ends_at_its_size(memory: Memory, types: Types) -> None:
    """A damaged list without a terminating entry is not read beyond its end."""
    for at in range(ZONELIST_ENTRIES):
        memory.write(memory.pgdat(0) - BASE + ZONELISTS + ZONEREF * at, "Q", memory.zone(0, 2))
    layout = read_memory_layout(memory, types, BASE, (0, 1))  # type: ignore[arg-type] # what it calls
    assert layout.zonelists["FALLBACK"][0] == (ZoneRef(0, 2),) * ZONELIST_ENTRIES


def test_page_flags_are_confirmed_by_the_first_page_of_each_zone(tmp_path: Path, memory: Memory, types: Types) -> None:
    """The layout is that of 1024 nodes and five zones."""
    layout = read_memory_layout(memory, types, BASE, (0, 1))  # type: ignore[arg-type] # what it calls
    symbols = symbols_of(tmp_path, memory)
    found = read_page_flags(memory, types, symbols, layout)  # type: ignore[arg-type] # what it calls
    assert found == page_flags_of(nodes=1024, zones=5)


@pytest.mark.parametrize("zone", [(0, 0), (0, 2), (1, 2)])
def test_page_flags_of_another_place_are_refused(
    tmp_path: Path, memory: Memory, types: Types, zone: tuple[int, int]
) -> None:
    """One populated zone whose first page names another place is enough."""
    layout = read_memory_layout(memory, types, BASE, (0, 1))  # type: ignore[arg-type] # what it calls
    memory.write(VMEMMAP - BASE + PAGE * memory.start_pfn[zone] + PAGE_FLAGS, "Q", 5 << 54)
    symbols = symbols_of(tmp_path, memory)
    assert read_page_flags(memory, types, symbols, layout) is None  # type: ignore[arg-type] # what it calls


def test_page_flags_need_the_page_array_and_the_zones(tmp_path: Path, memory: Memory, types: Types) -> None:
    """Without vmemmap_base or `enum zone_type` nothing is guessed."""
    layout = read_memory_layout(memory, types, BASE, (0, 1))  # type: ignore[arg-type] # what it calls
    without = symbols_of(tmp_path, memory, without="vmemmap_base")
    assert read_page_flags(memory, types, without, layout) is None  # type: ignore[arg-type] # what it calls
    del types.enums["zone_type"]
    symbols = symbols_of(tmp_path, memory)
    assert read_page_flags(memory, types, symbols, layout) is None  # type: ignore[arg-type] # what it calls


@pytest.mark.usefixtures("folder")
def test_snapshot_of_the_running_kernel() -> None:
    """Release, features, tables and machine are what the kernel shows."""
    snapshot = live_snapshot()
    assert (snapshot.release, snapshot.version) == ("6.12.117+deb13-amd64", "#1 SMP PREEMPT_DYNAMIC Debian")
    # The made-up kernel has the symbol defrag_mode, which Debian's 6.12 does not have.
    assert snapshot.features.defrag_mode
    assert snapshot.features.entry == "__alloc_pages_noprof"
    assert snapshot.evidence["context_test"] == "built-in row of the release"
    assert snapshot.tables.kernel == "6.12.117+deb13-amd64"
    assert snapshot.machine == Machine(
        nodes=EXPECTED_NODES,
        fallback=FALLBACK,
        nofallback=NOFALLBACK,
        nr_online_nodes=2,
        gfp_allowed_mask=0x1FFFFFF,
        topology=Topology((0, 1), ((10, 20), (20, 10)), (0,), 2, 1),
    )


@pytest.mark.usefixtures("folder")
def test_switches_of_the_machine(memory: Memory) -> None:
    """Each call reads the switches; a counter is on above 0, a boolean is on if it is not 0."""
    kernel = LiveKernel()
    assert switches(kernel) == (False, False, False)
    for value, expected in ((1, (True, True, True)), (-1, (False, True, True)), (0, (False, False, False))):
        for name in ("cpusets_enabled_key", "defrag_mode", "page_group_by_mobility_disabled"):
            memory.set(name, value)
        assert switches(kernel) == expected


def switches(kernel: LiveKernel) -> tuple[bool, bool, bool]:
    """Return the three switches of the machine in its current state."""
    machine = kernel.machine_now()
    return machine.cpusets_enabled, machine.defrag_mode, machine.page_group_by_mobility_disabled


@pytest.mark.usefixtures("folder")
def test_switches_without_a_feature_are_off(tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without the symbol is not read at its address."""
    monkeypatch.setattr(live, "Symbols", lambda: symbols_of(tmp_path, memory, without="defrag_mode"))
    assert not LiveKernel().snapshot.machine.defrag_mode
    monkeypatch.setattr(live, "Symbols", lambda: symbols_of(tmp_path, memory, without="cpusets_enabled_key"))
    memory.set("cpusets_enabled_key", 1)
    assert not LiveKernel().snapshot.machine.cpusets_enabled


@pytest.mark.usefixtures("folder")
def test_page_flags_of_the_running_kernel() -> None:
    """They are found through the same memory."""
    assert LiveKernel().page_flags == page_flags_of(nodes=1024, zones=5)


@pytest.mark.usefixtures("folder")
def test_missing_symbol_is_an_error() -> None:
    """The error names the symbol and the build options."""
    kernel = LiveKernel()
    assert kernel.address("nr_online_nodes") == BASE + 0x40
    with pytest.raises(KalloctraceError) as caught:
        kernel.address("nr_moons")
    assert "nr_moons" in caught.value.why


@pytest.mark.parametrize(
    ("entry", "base"), [("__alloc_pages_nodemask", "5.10"), ("__alloc_frozen_pages_noprof", "7.3")]
)
def test_unknown_release_starts_with_the_rules_of_a_known_one(
    folder: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch, entry: str, base: str
) -> None:
    """The name of the entry decides which; the evidence names it."""
    running(monkeypatch, "9.9.1")
    monkeypatch.setattr(live, "Symbols", lambda: symbols_of(folder, memory, entry=entry))
    kernel = LiveKernel()
    assert kernel.features.context_test == builtin_features(base).context_test
    assert kernel.observed[1]["context_test"] == f"built-in row of {base}, because this release is unknown"
    assert dict(kernel.tables.pf) == dict(builtin_tables(base).pf)
    assert kernel.tables.kernel == "9.9.1"


@pytest.mark.usefixtures("folder")
def test_tables_without_tracefs_come_from_btf_and_rows() -> None:
    """Without the format file the built-in print table stays."""
    tables = live_tables()
    assert tables.source == "builtin+btf"
    assert tables.gfp_print == builtin_tables("6.12").gfp_print
    assert tables.migratetype == (("MIGRATE_UNMOVABLE", 0), ("MIGRATE_PCPTYPES", 3))


@pytest.mark.parametrize("mount", ["tracing", "debug"])
def test_tables_from_tracefs(folder: Path, types: Types, mount: str) -> None:
    """The print table is the published one; names of enumerators in it are looked up in BTF."""
    event = folder / mount / "events/kmem/mm_page_alloc"
    event.mkdir(parents=True)
    types.gfp = (("___GFP_DMA_BIT", 0), ("___GFP_ZERO_BIT", 9), ("___GFP_LAST_BIT", 10))
    (event / "format").write_text(
        'print fmt: "%s", __print_flags(REC->gfp_flags, "|", '
        '{(unsigned long)((( gfp_t)((((1UL))) << (___GFP_ZERO_BIT)))), "__GFP_ZERO"})\n'
    )
    tables = live_tables()
    assert tables.source == "tracefs+builtin+btf"
    assert tables.gfp_print == (("__GFP_ZERO", 0x200),)
    assert tables.gfp_bits == (("__GFP_DMA", 0x1), ("__GFP_ZERO", 0x200))
    assert has_tracepoint("kmem/mm_page_alloc")
    assert not has_tracepoint("kmem/mm_page_free")


@pytest.mark.usefixtures("folder")
def test_nodes_of_the_machine(tmp_path: Path) -> None:
    """The online nodes as a bit mask; one more than the largest possible id."""
    (tmp_path / "online").write_text("0,2\n")
    (tmp_path / "possible").write_text("0-6\n")
    assert online_nodes() == 0b101
    assert nr_node_ids() == 7


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("mode", "preemptible"), [("none voluntary (full)\n", True), ("none (voluntary) full\n", False)]
)
def test_preemption_of_the_running_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, *, preemptible: bool
) -> None:
    """The active mode is read from debugfs."""
    file = tmp_path / "preempt"
    file.write_text(mode)
    monkeypatch.setattr(preemption, "MODE", file)
    assert LiveKernel().preemption.preemptible is preemptible


@pytest.mark.usefixtures("folder")
def test_preemption_without_debugfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode that cannot be read leaves what the version names."""
    monkeypatch.setattr(preemption, "MODE", tmp_path / "none")
    found = LiveKernel().preemption
    assert found.preemptible
    assert "cannot be read" in found.evidence
