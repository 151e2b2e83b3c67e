# SPDX-License-Identifier: MIT
"""Copies of `struct zone` are decoded by the offsets of their members."""

from typing import cast

import numpy as np
import pytest

from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.probe.decode.zones import ZoneCopies

ORDERS, TYPES = 3, 4
AREA = 16 * TYPES + 8
OFFSETS = {
    ("zone", "_watermark"): 0,
    ("zone", "watermark_boost"): 24,
    ("zone", "nr_reserved_highatomic"): 32,
    ("zone", "lowmem_reserve"): 40,
    ("zone", "managed_pages"): 56,
    ("zone", "free_area"): 64,
    ("zone", "vm_stat"): 64 + ORDERS * AREA,
    ("free_area", "free_list"): 8,
    ("free_area", "nr_free"): 0,
}
SIZES = {("zone", "lowmem_reserve"): 16, ("zone", "free_area"): ORDERS * AREA, ("free_area", "free_list"): 16 * TYPES}
ZONE_BYTES = OFFSETS["zone", "vm_stat"] + 16
ADDRESS = 0xFFFF888000001000


class FakeBtf:
    """A small kernel."""

    def offset(self, struct: str, member: str) -> int:
        """Return a member's offset in bytes."""
        return OFFSETS[struct, member]

    def member_size(self, struct: str, member: str) -> int:
        """Return a member's size in bytes."""
        return SIZES[struct, member]

    def size(self, struct: str) -> int:
        """Return a structure's size in bytes."""
        return {"free_area": AREA}[struct]

    def has_member(self, struct: str, member: str) -> bool:
        """Return whether a structure has a member."""
        return (struct, member) in OFFSETS

    def enum(self, name: str) -> tuple[tuple[str, int], ...] | None:
        """Return the names of an enumeration."""
        return {"zone_stat_item": (("NR_FREE_PAGES", 0), ("NR_FREE_CMA_PAGES", 1))}.get(name)


def copy() -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return a zone with free blocks of order 1, of types 0 and 2."""
    words = np.zeros(ZONE_BYTES // 8, np.uint64)
    words[[0, 1, 2, 3, 4, 5, 6, 7]] = [10, 12, 14, 2, 5, 0, 7, 1000]
    for order in range(ORDERS):
        for kind in range(TYPES):
            place = OFFSETS["zone", "free_area"] + order * AREA + 8 + 16 * kind
            # An empty list points to itself.
            words[place // 8] = 0xFFFF888000ABC000 if (order, kind) in {(1, 0), (1, 2)} else ADDRESS + place
    words[(OFFSETS["zone", "free_area"] + AREA) // 8] = 6
    # A counter can be below zero while CPUs hold back their changes.
    words[-2:] = np.array([12, -1], np.int64).view(np.uint64)
    return words


def test_members_are_read_at_their_offsets() -> None:
    """Pages, watermarks, reserves, and for each order the number of free blocks and their types."""
    copies = ZoneCopies(cast("Btf", FakeBtf()), {ADDRESS: ZoneRef(1, 2)})
    found, unknown = copies.zones(np.array([ADDRESS, 0x1234], np.uint64), np.stack([copy(), copy()]))
    assert unknown is None
    assert found == {
        "node": 1,
        "zone": 2,
        "min": 10,
        "low": 12,
        "high": 14,
        "boost": 2,
        "reserved_highatomic": 5,
        "free_highatomic": None,
        "lowmem_reserve": [0, 7],
        "managed": 1000,
        "free": 12,
        "free_cma": -1,
        "free_blocks": [0, 6, 0],
        "free_types": [0, 0b101, 0],
    }


def test_members_that_only_some_kernels_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """nr_free_highatomic, and free CMA pages."""
    monkeypatch.setitem(OFFSETS, ("zone", "nr_free_highatomic"), 24)
    monkeypatch.setattr(FakeBtf, "enum", lambda *_: (("NR_FREE_PAGES", 1),))
    copies = ZoneCopies(cast("Btf", FakeBtf()), {ADDRESS: ZoneRef(1, 2)})
    (found,) = copies.zones(np.array([ADDRESS], np.uint64), np.stack([copy()]))
    assert found is not None
    assert (found["free"], found["free_cma"], found["free_highatomic"]) == (-1, 0, 2)


def test_each_copy_is_decoded_with_its_own_address() -> None:
    """The lists of a copy are empty only if they point to the zone that was copied."""
    other = ADDRESS + 0x800
    copies = ZoneCopies(cast("Btf", FakeBtf()), {ADDRESS: ZoneRef(1, 2), other: ZoneRef(0, 3)})
    moved = copy()
    for order in range(ORDERS):
        for kind in range(TYPES):
            place = OFFSETS["zone", "free_area"] + order * AREA + 8 + 16 * kind
            moved[place // 8] = 0 if (order, kind) == (2, 3) else other + place
    first, second = copies.zones(np.array([ADDRESS, other], np.uint64), np.stack([copy(), moved]))
    assert first is not None
    assert second is not None
    assert (first["node"], first["zone"], first["free_types"]) == (1, 2, [0, 0b101, 0])
    assert (second["node"], second["zone"], second["free_types"]) == (0, 3, [0, 0, 0b1000])
