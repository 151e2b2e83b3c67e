# SPDX-License-Identifier: MIT
"""The running kernel: its features, flag tables and machine, read from BTF, symbols, memory and tracefs."""

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
from kalloctrace.kernel.builtin import NEW_STAND_IN, OLD_STAND_IN, builtin_features
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
"""Functions that contain the stage, newest first: if a newer one exists, the older ones are wrappers around it.

Linux kernel commit 84172f4bb752 ("mm/page_alloc: combine __alloc_pages and __alloc_pages_nodemask") (in v5.13),
b951aaff5035 ("mm: enable page allocation tagging") (in v6.10),
49249a2a5eeb ("mm/page_alloc: add __alloc_frozen_pages()") (in v6.14).
"""

NOLOCKS: Mapping[str, Nolock] = {
    "alloc_frozen_pages_nolock_noprof": "gfp_flags",
    "alloc_pages_nolock_noprof": "fixed",
    "try_alloc_pages_noprof": "fixed",
}
"""Functions that contain the stage of an allocation without locks, newest first; the older ones are wrappers.

Linux kernel commit 97769a53f117 ("mm, bpf: Introduce try_alloc_pages() for opportunistic page allocation") (in v6.15),
d7242af86434 ("mm: Introduce alloc_frozen_pages_nolock()") (in v6.18); named alloc_pages_nolock() in Debian's 6.16.12.
"""

_INTERRUPT_MASK = 0x00FF0100
"""in_task() of a preempt_count of 32 bits: include/linux/preempt.h of 6.1.192-2."""

_INTERRUPT_MASK_NESTED = 0xFF000100
"""in_task() if bits 16 to 23 of preempt_count count nested irq disabling (Debian 7.3.4)."""

_OLD_ENTRY = "__alloc_pages_nodemask"
"""The entry up to 5.12. An unknown release with it starts with the rules of `OLD_STAND_IN`, else of `NEW_STAND_IN`."""

_HPAGE_PMD_ORDER = 9
"""HPAGE_PMD_ORDER of x86_64 in every configuration: arch/x86/include/asm/pgtable_64_types.h."""


class LiveKernel:
    """The running kernel and machine; each part is read once, at its first use."""

    @cached_property
    def btf(self) -> Btf:
        """The kernel's types."""
        return Btf()

    @cached_property
    def _kcore(self) -> Kcore:
        """The kernel's memory; open to the end, as the privilege to open it may be given up before."""
        return Kcore()

    @cached_property
    def symbols(self) -> Symbols:
        """The kernel's symbols."""
        symbols = Symbols()
        symbols.hold_modules()
        return symbols

    @cached_property
    def observed(self) -> tuple[Features, dict[str, str]]:
        """The features, and the evidence for each."""
        base, version = self._base
        known = base == os.uname().release
        source = "built-in row of the release" if known else f"built-in row of {base}, because this release is unknown"
        return observed_features(self.btf, self.symbols, builtin_features(base, version), source)

    @cached_property
    def _base(self) -> tuple[str, str]:
        """The release, as (kernel, version), whose built-in rows supply what this kernel does not show."""
        uname = os.uname()
        if known_release(uname.release, uname.version) is not None:
            return uname.release, uname.version
        return (OLD_STAND_IN if find_entry(self.symbols) == _OLD_ENTRY else NEW_STAND_IN), ""

    @property
    def features(self) -> Features:
        """The features of this kernel."""
        return self.observed[0]

    @cached_property
    def preemption(self) -> Preemption:
        """Whether tasks can be preempted in kernel code."""
        return read_preemption(os.uname().version, rt=self.features.config_preempt_rt)

    @cached_property
    def layout(self) -> MemoryLayout:
        """The machine's nodes and zones with their addresses, which resolve captured pointers."""
        return self._read_layout()

    @cached_property
    def tables(self) -> FlagTables:
        """The flag tables: from BTF and tracefs, and from built-in rows for the rest."""
        return _tables(self.btf, *self._base)

    @cached_property
    def page_flags(self) -> PageFlags | None:
        """The position of node and zone in `page->flags`; None if the check against real pages failed."""
        return read_page_flags(self._kcore, self.btf, self.symbols, self.layout)

    @cached_property
    def snapshot(self) -> Snapshot:
        """The snapshot that a trace stores."""
        uname = os.uname()
        features, evidence = self.observed
        machine = self._machine(self.layout)
        return Snapshot(uname.release, uname.version, features, self.tables, machine, evidence)

    def machine_now(self) -> Machine:
        """Return the machine in its current state."""
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
        return read_memory_layout(self._kcore, self.btf, self.address("node_data"), node_ids(online_nodes()))

    def _machine(self, layout: MemoryLayout) -> Machine:
        features = self.features
        kcore = self._kcore
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
    """Return the features with every value that can be read from the kernel replaced by the one read.

    Only these still depend on the release: `context_test` (5.13 and 5.14 have the older test with the newer entry),
    `pf_memalloc_noreclaim` (6.9 to 6.11), and the differences between 5.8, 5.9 and 5.10.

    Args:
        btf: the kernel's types.
        symbols: its symbols.
        expected: the features of its release.
        source: the origin of `expected`, for people.

    Returns:
        The features, and the evidence for each by name.
    """
    entry = find_entry(symbols)
    entry_alloc_flags = len(btf.parameters(entry) or ()) == 5
    nolock = _nolock(btf, entry_alloc_flags)
    prototype = f"BTF prototype of {entry}"
    named = f"symbol {entry}: the rule changed in 5.13, when {_OLD_ENTRY} was removed"
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
    """Return the name of the function that contains the preparation stage.

    Raises:
        KalloctraceError: the kernel has none of `ENTRIES`.
    """
    for name in ENTRIES:
        if symbols.address(name) is not None:
            return name
    raise KalloctraceError(
        "cannot find the page allocator's entry",
        f"/proc/kallsyms has none of {', '.join(ENTRIES)}",
        "run as root (other users do not see addresses), on a kernel from 5.8 on",
    )


def _nolock(btf: Btf, folded: bool) -> tuple[Nolock, str]:
    """Return the feature `nolock` and its evidence."""
    if folded:
        return "alloc_flags", "BTF: the entry's fifth argument"
    for function, kind in NOLOCKS.items():
        if btf.has_function(function):
            return kind, f"BTF function {function}"
    return "none", "BTF: no such function"


def _nolock_orders(btf: Btf, nolock: Nolock) -> tuple[int, ...]:
    """Return the orders of the pages on the per-CPU lists.

    There is one list per order and migratetype for orders 0 to PAGE_ALLOC_COSTLY_ORDER, followed by the lists for
    transparent huge pages if these are configured: NR_PCP_LISTS, include/linux/mmzone.h of 6.12.117-1.
    """
    if nolock == "none":
        return ()
    lists = _length(btf, "per_cpu_pages", "lists", "list_head")
    costly, huge = divmod(lists, dict(btf.enum("migratetype") or ())["MIGRATE_PCPTYPES"])
    return (*range(costly), *((_HPAGE_PMD_ORDER,) if huge else ()))


def _length(btf: Btf, struct: str, member: str, element: str) -> int:
    """Return the number of elements of an array."""
    return btf.member_size(struct, member) // btf.size(element)


def online_nodes() -> int:
    """Return the online nodes as a bit mask."""
    return parse_nodelist((_NODES / "online").read_text())


def _nodes(state: str) -> tuple[int, ...]:
    return node_ids(parse_nodelist((_NODES / state).read_text()))


def nr_node_ids() -> int:
    """Return one more than the largest possible node id of the machine."""
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
            printed = from_tracefs_format(file.read_text(), dict(gfp or ()))
            return replace(tables, gfp_print=printed, source=f"tracefs+{tables.source}")
    return tables


def has_tracepoint(event: str) -> bool:
    """Return whether the kernel has a tracepoint such as `kmem/mm_page_alloc`."""
    return any((folder / "events" / event).is_dir() for folder in TRACEFS)
