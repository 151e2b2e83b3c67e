# SPDX-License-Identifier: MIT
"""Where `page->flags` holds a page's node and zone: computed from the kernel's types, then proven on its pages."""

from dataclasses import dataclass

from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.kallsyms import Symbols
from kalloctrace.kernel.kcore import Kcore
from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.kernel.memory_layout import MemoryLayout

_FLAGS_BITS = 64


@dataclass(frozen=True)
class PageFlags:
    """The fields of `page->flags` that name a page's place.

    Attributes:
        nodes_pgshift: NODES_PGSHIFT; the node id is all that lies above.
        zones_pgshift: ZONES_PGSHIFT.
        zones_mask: ZONES_MASK.
    """

    nodes_pgshift: int
    zones_pgshift: int
    zones_mask: int

    def place(self, flags: int) -> ZoneRef:
        """Return the node and zone of a page with these flags, `unsigned long`."""
        return ZoneRef(flags >> self.nodes_pgshift, flags >> self.zones_pgshift & self.zones_mask)


def page_flags_of(nodes: int, zones: int) -> PageFlags:
    """Return the layout without a section field, as CONFIG_SPARSEMEM_VMEMMAP makes it: the node on top, then the zone.

    Source: include/linux/page-flags-layout.h and ZONES_SHIFT there, the same from 5.8 to 7.3.

    Args:
        nodes: MAX_NUMNODES.
        zones: MAX_NR_ZONES.
    """
    nodes_pgshift = _FLAGS_BITS - (nodes - 1).bit_length()
    zones_shift = (zones - 1).bit_length()
    return PageFlags(nodes_pgshift, nodes_pgshift - zones_shift, (1 << zones_shift) - 1)


def read_page_flags(kcore: Kcore, btf: Btf, symbols: Symbols, layout: MemoryLayout) -> PageFlags | None:
    """Find out where the running kernel's pages hold their node and zone.

    Args:
        kcore: its memory.
        btf: its types.
        symbols: its symbols.
        layout: its zones.

    Returns:
        The layout, None where the first page of some populated zone contradicts it or cannot be found.
    """
    vmemmap_base = symbols.address("vmemmap_base")
    zone_type = btf.enum("zone_type")
    if vmemmap_base is None or zone_type is None:
        return None
    flags = page_flags_of(8 * btf.member_size("task_struct", "mems_allowed"), zone_type[-1][1])
    vmemmap, size, flags_at = kcore.u64(vmemmap_base), btf.size("page"), btf.offset("page", "flags")
    present = {(node.nid, zone.index) for node in layout.nodes for zone in node.zones if zone.present_pages}
    for address, ref in layout.zone_addresses.items():
        if ref in present:
            first = kcore.u64(address + btf.offset("zone", "zone_start_pfn"))
            if flags.place(kcore.u64(vmemmap + first * size + flags_at)) != ref:
                return None
    return flags
