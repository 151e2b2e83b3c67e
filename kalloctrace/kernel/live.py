# SPDX-License-Identifier: MIT
"""The running kernel: its features, flag tables and machine, read from what it shows."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.builtin import builtin_tables, known_release
from kalloctrace.flags.published import from_btf_enums, from_tracefs_format
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.kernel.features import Features, Nolock
from kalloctrace.kernel.kallsyms import Symbols
from kalloctrace.kernel.kcore import Kcore
from kalloctrace.kernel.machine import Machine
from kalloctrace.kernel.memory_layout import MemoryLayout, PageFlags, read_memory_layout, read_page_flags, read_topology
from kalloctrace.kernel.nodelist import node_ids, parse_nodelist
from kalloctrace.kernel.preemption import Preemption, read_preemption
from kalloctrace.kernel.snapshot import Snapshot

TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_NODES = Path("/sys/devices/system/node")

ENTRIES = ("__alloc_frozen_pages_noprof", "__alloc_pages_noprof", "__alloc_pages", "__alloc_pages_nodemask")
"""Functions that carry the stage, newest first: where a newer one exists the older are wrappers around it.

Linux kernel commit 84172f4bb752 ("mm/page_alloc: combine __alloc_pages and __alloc_pages_nodemask") (in v5.13),
b951aaff5035 ("mm: enable page allocation tagging") (in v6.10),
49249a2a5eeb ("mm/page_alloc: add __alloc_frozen_pages()") (in v6.14).
"""

NOLOCKS: Mapping[str, Nolock] = {
    "alloc_frozen_pages_nolock_noprof": "gfp_flags",
    "alloc_pages_nolock_noprof": "fixed",
    "try_alloc_pages_noprof": "fixed",
}
"""Functions that carry the stage of an allocation without locks, newest first; the older is a wrapper again.

Linux kernel commit 97769a53f117 ("mm, bpf: Introduce try_alloc_pages() for opportunistic page allocation") (in v6.15),
d7242af86434 ("mm: Introduce alloc_frozen_pages_nolock()") (in v6.18); named alloc_pages_nolock() in Debian's 6.16.12.
"""

_INTERRUPT_MASK = 0x00FF0100
"""in_task() of a preempt_count of 32 bits: include/linux/preempt.h of 6.1.192-2."""

_INTERRUPT_MASK_NESTED = 0xFF000100
"""in_task() where preempt_count has a count of nested irq disabling in bits 16 to 23 (Debian 7.3.4)."""

_OLD_ENTRY, _OLD_BASE, _NEW_BASE = "__alloc_pages_nodemask", "5.10", "7.3"
"""Which release's rules an unknown one is taken to have, before it is looked at: much changed with the entry's name."""

_HPAGE_PMD_ORDER = 9
"""On x86_64, whatever the configuration: arch/x86/include/asm/pgtable_64_types.h."""


class LiveKernel:
    """The running kernel and machine; each part is read when it is first asked for, and once."""

    @cached_property
    def btf(self) -> Btf:
        """The kernel's types."""
        return Btf()

    @cached_property
    def symbols(self) -> Symbols:
        """The kernel's symbols."""
        return Symbols()

    @cached_property
    def observed(self) -> tuple[Features, dict[str, str]]:
        """The rules in force, and where each was seen."""
        base, version = self._base
        known = base == os.uname().release
        source = "built-in row of the release" if known else f"built-in row of {base}, as this release is not known"
        return observed_features(self.btf, self.symbols, builtin_features(base, version), source)

    @cached_property
    def _base(self) -> tuple[str, str]:
        """The release, as (kernel, version), whose built-in rows stand in for what this kernel does not show."""
        uname = os.uname()
        if known_release(uname.release, uname.version) is not None:
            return uname.release, uname.version
        return (_OLD_BASE if find_entry(self.symbols) == _OLD_ENTRY else _NEW_BASE), ""

    @property
    def features(self) -> Features:
        """The rules in force."""
        return self.observed[0]

    @cached_property
    def preemption(self) -> Preemption:
        """Whether tasks can be preempted inside the kernel."""
        return read_preemption(os.uname().version, rt=self.features.config_preempt_rt)

    @cached_property
    def layout(self) -> MemoryLayout:
        """The machine's nodes and zones, and where they lie: what gives captured pointers their names."""
        return self._read_layout()

    @cached_property
    def tables(self) -> FlagTables:
        """The flag tables: what the kernel publishes itself, and built-in rows for the rest."""
        return _tables(self.btf, *self._base)

    @cached_property
    def page_flags(self) -> PageFlags | None:
        """Where a page's flags hold its node and zone, None where that could not be proven."""
        with Kcore() as kcore:
            return read_page_flags(kcore, self.btf, self.symbols, self.layout)

    @cached_property
    def snapshot(self) -> Snapshot:
        """The record that a trace carries."""
        uname = os.uname()
        features, evidence = self.observed
        machine = self._machine(self.layout)
        return Snapshot(uname.release, uname.version, features, self.tables, machine, evidence)

    def machine_now(self) -> Machine:
        """Return the machine as it is at this moment."""
        return self._machine(self._read_layout())

    def address(self, name: str) -> int:
        """Return a symbol's address.

        Raises:
            KalloctraceError: the kernel has no such symbol.
        """
        found = self.symbols.address(name)
        if found is None:
            raise KalloctraceError(
                "cannot trace this kernel",
                f"/proc/kallsyms has no symbol {name}",
                "use a kernel built with CONFIG_KALLSYMS_ALL=y and CONFIG_NUMA=y (Debian's are)",
            )
        return found

    def _read_layout(self) -> MemoryLayout:
        with Kcore() as kcore:
            return read_memory_layout(kcore, self.btf, self.address("node_data"), node_ids(online_nodes()))

    def _machine(self, layout: MemoryLayout) -> Machine:
        features = self.features
        with Kcore() as kcore:
            return Machine(
                nodes=layout.nodes,
                fallback=layout.zonelists["FALLBACK"],
                nofallback=layout.zonelists["NOFALLBACK"],
                nr_online_nodes=kcore.u32(self.address("nr_online_nodes")),
                gfp_allowed_mask=kcore.u32(self.address("gfp_allowed_mask")),
                page_group_by_mobility_disabled=kcore.s32(self.address("page_group_by_mobility_disabled")) != 0,
                cpusets_enabled=features.config_cpusets and kcore.s32(self.address("cpusets_enabled_key")) > 0,
                defrag_mode=features.defrag_mode and kcore.s32(self.address("defrag_mode")) != 0,
                topology=read_topology(kcore, self.btf, self.symbols, _nodes("possible"), _nodes("has_cpu")),
            )


def live_tables() -> FlagTables:
    """Return the running kernel's flag tables."""
    return LiveKernel().tables


def live_snapshot() -> Snapshot:
    """Return the running kernel and machine.

    Raises:
        KalloctraceError: not root, no BTF, or a kernel without the symbols in need.
    """
    return LiveKernel().snapshot


def observed_features(btf: Btf, symbols: Symbols, expected: Features, source: str) -> tuple[Features, dict[str, str]]:
    """Replace what a release leads to expect by what the kernel shows, wherever it leaves a trace.

    Only these are left to the release: `context_test` (5.13 and 5.14 kept the older one under the newer entry),
    `pf_memalloc_noreclaim` (6.9 to 6.11), and what told 5.8 and 5.9 from 5.10.

    Args:
        btf: the kernel's types.
        symbols: its symbols.
        expected: what the release leads to expect.
        source: where that comes from, for people.

    Returns:
        The features, and for each where it was seen.
    """
    entry = find_entry(symbols)
    entry_alloc_flags = len(btf.parameters(entry) or ()) == 5
    nolock = _nolock(btf, entry_alloc_flags)
    prototype = f"BTF prototype of {entry}"
    named = f"symbol {entry}: the rule changed in 5.13, as {_OLD_ENTRY} went"
    seen: dict[str, tuple[object, str]] = {
        "entry": (entry, f"symbol {entry}"),
        "entry_alloc_flags": (entry_alloc_flags, prototype),
        "highatomic_on_fast_path": (entry_alloc_flags, f"{prototype}: the rule came with its fifth argument"),
        "gfp_context_on_fast_path": (entry != _OLD_ENTRY, named),
        "pf_memalloc_pin": (entry != _OLD_ENTRY, named),
        "nolock": nolock,
        "nolock_orders": (_nolock_orders(btf, nolock[0]), "BTF array per_cpu_pages.lists"),
        "max_order": (_length(btf, "zone", "free_area", "free_area") - 1, "BTF array zone.free_area"),
        "config_cma": ("MIGRATE_CMA" in dict(btf.enum("migratetype") or ()), "BTF enum migratetype"),
        "config_preempt_rt": (
            btf.has_member("task_struct", "softirq_disable_cnt"),
            "BTF member task_struct.softirq_disable_cnt",
        ),
    }
    if entry != _OLD_ENTRY:
        seen["pf_memalloc_nocma"] = (False, named)
    if expected.context_test == "in_task":
        wide = btf.variable_size("__preempt_count") == 8
        width = "of 8 bytes" if wide else "not of 8 bytes"
        mask = _INTERRUPT_MASK_NESTED if wide else _INTERRUPT_MASK
        seen["interrupt_mask"] = (mask, f"BTF variable __preempt_count, {width}")
    for feature, symbol in (
        ("config_cpusets", "cpusets_enabled_key"),
        ("config_numa", "node_data"),
        ("defrag_mode", "defrag_mode"),
    ):
        seen[feature] = (symbols.address(symbol) is not None, f"symbol {symbol}")
    evidence = {feature: seen[feature][1] if feature in seen else source for feature in expected.to_json()}
    values: dict[str, Any] = {feature: value for feature, (value, _) in seen.items()}
    return replace(expected, **values), evidence


def find_entry(symbols: Symbols) -> str:
    """Return the name of the function that carries the preparation stage.

    Raises:
        KalloctraceError: the kernel has none of those known.
    """
    for name in ENTRIES:
        if symbols.address(name) is not None:
            return name
    raise KalloctraceError(
        "cannot find the page allocator's entry",
        f"/proc/kallsyms has none of {', '.join(ENTRIES)}",
        "run as root (addresses are hidden from others), on a kernel from 5.10 on",
    )


def _nolock(btf: Btf, folded: bool) -> tuple[Nolock, str]:
    """Return how allocation without locks comes in, and where that was seen."""
    if folded:
        return "alloc_flags", "BTF: the entry's fifth argument"
    for function, kind in NOLOCKS.items():
        if btf.has_function(function):
            return kind, f"BTF function {function}"
    return "none", "BTF: no such function"


def _nolock_orders(btf: Btf, nolock: Nolock) -> tuple[int, ...]:
    """Return the orders of which the per-CPU lists keep pages.

    There is one list per order and migratetype, for orders 0 to PAGE_ALLOC_COSTLY_ORDER, and after them those of
    transparent huge pages where they are configured: NR_PCP_LISTS, include/linux/mmzone.h of 6.12.117-1.
    """
    if nolock == "none":
        return ()
    lists = _length(btf, "per_cpu_pages", "lists", "list_head")
    costly, huge = divmod(lists, dict(btf.enum("migratetype") or ())["MIGRATE_PCPTYPES"])
    return (*range(costly), *((_HPAGE_PMD_ORDER,) if huge else ()))


def _length(btf: Btf, struct: str, member: str, element: str) -> int:
    """Return how many elements an array has."""
    return btf.member_size(struct, member) // btf.size(element)


def online_nodes() -> int:
    """Return the set of online nodes."""
    return parse_nodelist((_NODES / "online").read_text())


def _nodes(state: str) -> tuple[int, ...]:
    return node_ids(parse_nodelist((_NODES / state).read_text()))


def nr_node_ids() -> int:
    """Return one more than the largest node id that the machine may ever have."""
    return parse_nodelist((_NODES / "possible").read_text()).bit_length()


def _tables(btf: Btf, base: str, version: str) -> FlagTables:
    tables = builtin_tables(base, version)
    enums: dict[str, Sequence[tuple[str, int]]] = {}
    for name in ("migratetype", "zone_type", "zone_watermarks"):
        found = btf.enum(name)
        if found:
            enums[name] = found
    gfp = btf.anonymous_enum("___GFP_DMA_BIT")
    if gfp:
        enums["gfp"] = gfp
    tables = replace(from_btf_enums(tables, enums), kernel=os.uname().release)
    for folder in TRACEFS:
        file = folder / "events/kmem/mm_page_alloc/format"
        if file.is_file():
            return replace(tables, gfp_print=from_tracefs_format(file.read_text()), source=f"tracefs+{tables.source}")
    return tables


def has_tracepoint(event: str) -> bool:
    """Tell whether the kernel has a tracepoint, such as `kmem/mm_page_alloc`."""
    return any((folder / "events" / event).is_dir() for folder in TRACEFS)
