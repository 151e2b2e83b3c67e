# SPDX-License-Identifier: MIT
"""Reads copies of `struct zone`: what the kernel had free there, and of what kind."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.machine import ZoneRef

_LONG = 8
_LIST_HEAD = 16


class ZoneCopies:
    """Knows where the members of `struct zone` lie on one kernel.

    Args:
        btf: the kernel's types.
        addresses: `struct zone *` to its node and index.
    """

    def __init__(self, btf: Btf, addresses: Mapping[int, ZoneRef]) -> None:
        self._addresses = addresses
        watermark = btf.offset("zone", "_watermark")
        statistics = btf.offset("zone", "vm_stat")
        items = dict(btf.enum("zone_stat_item") or ())
        self._longs = {
            "free": statistics + _LONG * items["NR_FREE_PAGES"],
            "min": watermark,
            "low": watermark + _LONG,
            "high": watermark + 2 * _LONG,
            "boost": btf.offset("zone", "watermark_boost"),
            "reserved_highatomic": btf.offset("zone", "nr_reserved_highatomic"),
            "managed": btf.offset("zone", "managed_pages"),
        }
        if "NR_FREE_CMA_PAGES" in items:
            self._longs["free_cma"] = statistics + _LONG * items["NR_FREE_CMA_PAGES"]
        if btf.has_member("zone", "nr_free_highatomic"):
            self._longs["free_highatomic"] = btf.offset("zone", "nr_free_highatomic")
        self._lowmem_reserve = btf.offset("zone", "lowmem_reserve")
        self._zones = btf.member_size("zone", "lowmem_reserve") // _LONG
        self._area = btf.offset("zone", "free_area")
        self._stride = btf.size("free_area")
        self._orders = btf.member_size("zone", "free_area") // self._stride
        self._lists = btf.offset("free_area", "free_list")
        self._types = btf.member_size("free_area", "free_list") // _LIST_HEAD
        self._nr_free = btf.offset("free_area", "nr_free")

    def zone(self, address: int, words: npt.NDArray[np.uint64]) -> dict[str, Any] | None:
        """Return what a zone was like, as `zones` of trace/slow.py; None where the address is no zone's.

        Args:
            address: where it lies: an empty list points to itself.
            words: the copy.
        """
        ref = self._addresses.get(address)
        if ref is None:
            return None
        data = words.tobytes()
        reserve = np.frombuffer(data, "<i8", self._zones, self._lowmem_reserve)
        orders = range(self._orders)
        return {
            "node": ref.node,
            "zone": ref.zone,
            "free_cma": 0,
            "free_highatomic": None,
            **{name: _long(data, offset) for name, offset in self._longs.items()},
            "lowmem_reserve": reserve.tolist(),
            "free_blocks": [_long(data, self._area + self._stride * order + self._nr_free) for order in orders],
            "free_types": [self._types_with_blocks(data, address, order) for order in orders],
        }

    def _types_with_blocks(self, data: bytes, address: int, order: int) -> int:
        first = self._area + self._stride * order + self._lists
        places = (first + _LIST_HEAD * kind for kind in range(self._types))
        return sum(1 << kind for kind, place in enumerate(places) if _pointer(data, place) != address + place)


def _long(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + _LONG], "little", signed=True)


def _pointer(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + _LONG], "little")
