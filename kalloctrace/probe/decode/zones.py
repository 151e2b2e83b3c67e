# SPDX-License-Identifier: MIT
"""Decodes copies of `struct zone`: watermarks, free pages and free blocks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.machine import ZoneRef

_LONG = 8
_LIST_HEAD = 16

Words = npt.NDArray[np.uint64]


class ZoneCopies:
    """Decodes the `struct zone` of one kernel; all members that are read are longs.

    Args:
        btf: the kernel's types.
        addresses: node and index of each zone, by the address of its `struct zone`.
    """

    def __init__(self, btf: Btf, addresses: Mapping[int, ZoneRef]) -> None:
        self._addresses = addresses
        watermark = btf.offset("zone", "_watermark")
        statistics = btf.offset("zone", "vm_stat")
        items = dict(btf.enum("zone_stat_item") or ())
        offsets = {
            "free": statistics + _LONG * items["NR_FREE_PAGES"],
            "min": watermark,
            "low": watermark + _LONG,
            "high": watermark + 2 * _LONG,
            "boost": btf.offset("zone", "watermark_boost"),
            "reserved_highatomic": btf.offset("zone", "nr_reserved_highatomic"),
            "managed": btf.offset("zone", "managed_pages"),
        }
        if "NR_FREE_CMA_PAGES" in items:
            offsets["free_cma"] = statistics + _LONG * items["NR_FREE_CMA_PAGES"]
        if btf.has_member("zone", "nr_free_highatomic"):
            offsets["free_highatomic"] = btf.offset("zone", "nr_free_highatomic")
        self._names = list(offsets)
        self._longs = np.array(list(offsets.values())) // _LONG
        reserve = btf.offset("zone", "lowmem_reserve") // _LONG
        self._reserve = slice(reserve, reserve + btf.member_size("zone", "lowmem_reserve") // _LONG)
        stride = btf.size("free_area")
        areas = btf.offset("zone", "free_area") + stride * np.arange(btf.member_size("zone", "free_area") // stride)
        self._nr_free = (areas + btf.offset("free_area", "nr_free")) // _LONG
        types = np.arange(btf.member_size("free_area", "free_list") // _LIST_HEAD)
        self._lists = areas[:, None] + btf.offset("free_area", "free_list") + _LIST_HEAD * types
        self._bits = 1 << types

    def zones(self, addresses: Words, words: Words) -> list[dict[str, Any] | None]:
        """Return the state of zones, as `zones` of trace/slowpath.py; None if an address is not that of a zone.

        Args:
            addresses: their addresses in the kernel, because an empty list points to itself.
            words: the copies, one per row.
        """
        longs = words[:, self._longs].astype(np.int64).tolist()
        reserves = words[:, self._reserve].astype(np.int64).tolist()
        blocks = words[:, self._nr_free].tolist()
        own = addresses[:, None, None] + self._lists.astype(np.uint64)
        types = ((words[:, self._lists // _LONG] != own) @ self._bits).tolist()
        refs = (self._addresses.get(address) for address in addresses.tolist())
        return [
            None
            if ref is None
            else {
                "node": ref.node,
                "zone": ref.zone,
                "free_cma": 0,
                "free_highatomic": None,
                **dict(zip(self._names, values, strict=True)),
                "lowmem_reserve": reserve,
                "free_blocks": free,
                "free_types": kinds,
            }
            for ref, values, reserve, free, kinds in zip(refs, longs, reserves, blocks, types, strict=True)
        ]
