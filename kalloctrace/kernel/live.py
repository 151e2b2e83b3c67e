# SPDX-License-Identifier: MIT
"""The running kernel: its features, flag tables and machine, read from what it shows."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.flags.published import from_btf_enums, from_tracefs_format
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.kernel.features import Features, Nolock
from kalloctrace.kernel.kallsyms import Symbols
from kalloctrace.kernel.kcore import Kcore
from kalloctrace.kernel.machine import Machine
from kalloctrace.kernel.memory_layout import MemoryLayout, read_memory_layout
from kalloctrace.kernel.nodelist import node_ids, parse_nodelist
from kalloctrace.kernel.snapshot import Snapshot

TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_NODES = Path("/sys/devices/system/node")

ENTRIES = ("__alloc_frozen_pages_noprof", "__alloc_pages_noprof", "__alloc_pages", "__alloc_pages_nodemask")
"""Functions that carry the stage, newest first: where a newer one exists the older are wrappers around it.

Linux kernel commit 84172f4bb752 ("mm/page_alloc: combine __alloc_pages and __alloc_pages_nodemask") (in v5.13),
b951aaff5035 ("mm: enable page allocation tagging") (in v6.10),
49249a2a5eeb ("mm/page_alloc: add __alloc_frozen_pages()") (in v6.14).
"""

_INTERRUPT_MASK_NESTED = 0xFF000100
"""in_task() where preempt_count has a count of nested irq disabling in bits 16 to 23 (Debian 7.3.4)."""


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
        uname = os.uname()
        return observed_features(self.btf, self.symbols, builtin_features(uname.release, uname.version))

    @property
    def features(self) -> Features:
        """The rules in force."""
        return self.observed[0]

    @cached_property
    def layout(self) -> MemoryLayout:
        """The machine's nodes and zones, and where they lie: what gives captured pointers their names."""
        return self._read_layout()

    @cached_property
    def tables(self) -> FlagTables:
        """The flag tables: what the kernel publishes itself, and built-in rows for the rest."""
        return _tables(self.btf)

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


def observed_features(btf: Btf, symbols: Symbols, expected: Features) -> tuple[Features, dict[str, str]]:
    """Replace what a release leads to expect by what the kernel shows, wherever it leaves a trace.

    Returns:
        The features, and for each observed one where it was seen.
    """
    entry = find_entry(symbols)
    evidence = {"entry": f"symbol {entry}"}
    migratetypes = dict(btf.enum("migratetype") or ())
    seen: dict[str, object] = {"entry": entry}
    seen["entry_alloc_flags"] = len(btf.parameters(entry) or ()) == 5
    evidence["entry_alloc_flags"] = f"BTF prototype of {entry}"
    seen["config_cma"] = "MIGRATE_CMA" in migratetypes
    evidence["config_cma"] = "BTF enum migratetype"
    for feature, symbol in (
        ("config_cpusets", "cpusets_enabled_key"),
        ("config_numa", "node_data"),
        ("defrag_mode", "defrag_mode"),
    ):
        seen[feature] = symbols.address(symbol) is not None
        evidence[feature] = f"symbol {symbol}"
    seen["nolock"] = _nolock(btf, seen["entry_alloc_flags"] is True)
    evidence["nolock"] = "BTF prototypes of the nolock entries"
    if btf.variable_size("__preempt_count") == 8:
        seen["interrupt_mask"] = _INTERRUPT_MASK_NESTED
        evidence["interrupt_mask"] = "BTF variable __preempt_count of 8 bytes"
    for feature in set(expected.to_json()) - set(evidence):
        evidence[feature] = "built-in row of the release"
    return replace(expected, **seen), evidence  # type: ignore[arg-type] # each value has its field's type


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


def _nolock(btf: Btf, folded: bool) -> Nolock:
    if folded:
        return "alloc_flags"
    if btf.has_function("alloc_frozen_pages_nolock_noprof"):
        return "gfp_flags"
    if btf.has_function("alloc_pages_nolock_noprof"):
        return "fixed"
    return "none"


def online_nodes() -> int:
    """Return the set of online nodes."""
    return parse_nodelist((_NODES / "online").read_text())


def nr_node_ids() -> int:
    """Return one more than the largest node id that the machine may ever have."""
    return parse_nodelist((_NODES / "possible").read_text()).bit_length()


def _tables(btf: Btf) -> FlagTables:
    uname = os.uname()
    tables = builtin_tables(uname.release, uname.version)
    enums: dict[str, Sequence[tuple[str, int]]] = {}
    for name in ("migratetype", "zone_type", "zone_watermarks"):
        found = btf.enum(name)
        if found:
            enums[name] = found
    gfp = btf.enum_with("___GFP_DMA_BIT")
    if gfp:
        enums["gfp"] = gfp
    tables = replace(from_btf_enums(tables, enums), kernel=uname.release)
    for folder in TRACEFS:
        file = folder / "events/kmem/mm_page_alloc/format"
        if file.is_file():
            return replace(tables, gfp_print=from_tracefs_format(file.read_text()), source=f"tracefs+{tables.source}")
    return tables
