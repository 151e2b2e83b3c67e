# SPDX-License-Identifier: MIT
"""`__zone_watermark_ok` of an image, executed on random zones."""

import random
from collections.abc import Iterator
from typing import Any

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.btf import Btf
from tests.compiled.image import Image
from tests.compiled.machine import DATA, Machine
from tests.compiled.watermark_rows import TYPES

FUNCTION = "__zone_watermark_ok"

_ZONE = DATA
_BLOCK = DATA + 0x1_0000
"""What a list of free blocks points to that is not empty."""

_ORDERS = 11
"""NR_PAGE_ORDERS: include/linux/mmzone.h."""
_POINTER = 8
_LIST_HEAD = 2 * _POINTER
_FLAGS = (0x4, 0x8, 0x10, 0x20, 0x40, 0x80, 0x100, 0x200, 0x400, 0x800, 0x1000)
"""ALLOC_* flags, all but the watermark's index."""


class WatermarkCheck:
    """The watermark check of an image.

    Args:
        image: the image.
        rnd: makes the choices.
    """

    def __init__(self, image: Image, rnd: random.Random) -> None:
        """Load the image and look the members of `struct zone` up."""
        self._name = image.name
        self._random = rnd
        self._machine = Machine(image, (FUNCTION,), {})
        btf = image.btf
        self._zone_size = btf.size("zone")
        self._reserved = btf.offset("zone", "nr_reserved_highatomic")
        counts = btf.has_member("zone", "nr_free_highatomic")
        self._free_highatomic = btf.offset("zone", "nr_free_highatomic") if counts else None
        self._lowmem_reserve = btf.offset("zone", "lowmem_reserve")
        self._zones = btf.member_size("zone", "lowmem_reserve") // _POINTER
        self._free_area, self._area_size = btf.offset("zone", "free_area"), btf.size("free_area")
        self._nr_free = btf.offset("free_area", "nr_free")
        items = _enum(btf, "zone_stat_item")
        self._free_cma = btf.offset("zone", "vm_stat") + _POINTER * items["NR_FREE_CMA_PAGES"]
        self._migratetypes = _enum(btf, "migratetype")
        self._letters = [letter for letter, name in TYPES.items() if f"MIGRATE_{name}" in self._migratetypes]

    def runs(self, number: int) -> Iterator[dict[str, Any]]:
        """Check random zones; a row is as `tests.compiled.watermark_rows` reads it."""
        for _ in range(number):
            run = self._random_run()
            self._write(run)
            arguments = (run["order"], run["mark"], run["highest_zoneidx"], run["alloc_flags"], run["free"])
            passes = self._machine.call(FUNCTION, _ZONE, *arguments)
            yield {"kernel": self._name, **run, "passes": bool(passes & 0xFF)}

    def _random_run(self) -> dict[str, Any]:
        rnd = self._random
        order = rnd.choice((0, 0, 1, 2, 3, 5, 9, 10))
        mark = rnd.choice((0, 1, rnd.randrange(2000)))
        highest = rnd.randrange(self._zones)
        reserve = [rnd.choice((0, rnd.randrange(1500))) for _ in range(self._zones)]
        reserved = rnd.choice((0, rnd.randrange(800)))
        free_highatomic = rnd.randrange(reserved + 1)
        free_cma = rnd.choice((0, rnd.randrange(600))) if "C" in self._letters else 0
        # As many pages as are require, give or take some, where one of several rules holds.
        needed = mark // rnd.choice((1, 2, 4, 8)) + reserve[highest] + (1 << order) - 1
        edge = needed + rnd.choice((0, reserved, free_highatomic)) + rnd.choice((0, free_cma)) + rnd.randrange(-3, 4)
        return {
            "order": order,
            "mark": mark,
            "alloc_flags": sum(flag for flag in _FLAGS if rnd.random() < 0.3),
            "highest_zoneidx": highest,
            "lowmem_reserve": reserve,
            "reserved_highatomic": reserved,
            "free_highatomic": free_highatomic,
            "free_cma": free_cma,
            "blocks": self._random_blocks(),
            "free": max(0, rnd.choice((rnd.randrange(5000), edge))),
        }

    def _random_blocks(self) -> str:
        if self._random.random() < 0.2:
            return " ".join("-" * _ORDERS)
        words = ("".join(letter for letter in self._letters if self._random.random() < 0.12) for _ in range(_ORDERS))
        return " ".join(word or "-" for word in words)

    def _write(self, run: dict[str, Any]) -> None:
        """Write the zone."""
        machine = self._machine
        machine.clear(_ZONE, self._zone_size)
        machine.write(_ZONE + self._reserved, "q", run["reserved_highatomic"])
        if self._free_highatomic is not None:
            machine.write(_ZONE + self._free_highatomic, "q", run["free_highatomic"])
        machine.write(_ZONE + self._lowmem_reserve, f"{self._zones}q", *run["lowmem_reserve"])
        machine.write(_ZONE + self._free_cma, "q", run["free_cma"])
        for order, word in enumerate(run["blocks"].split()):
            area = _ZONE + self._free_area + order * self._area_size
            types = {self._migratetypes[f"MIGRATE_{TYPES[letter]}"] for letter in word.replace("-", "")}
            for index in range(self._migratetypes["MIGRATE_TYPES"]):
                head = area + index * _LIST_HEAD
                other = _BLOCK if index in types else head
                machine.write(head, "QQ", other, other)
            machine.write(area + self._nr_free, "q", len(types))


def _enum(btf: Btf, name: str) -> dict[str, int]:
    values = btf.enum(name)
    if values is None:
        raise KalloctraceError(
            "cannot lay out struct zone", f"the kernel describes no enum {name}", "report the package's version"
        )
    return dict(values)
