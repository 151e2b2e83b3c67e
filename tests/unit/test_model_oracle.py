# SPDX-License-Identifier: MIT
"""The model against a second one, written from the kernels' sources by release instead of by feature."""

import random
from dataclasses import dataclass
from typing import Any

import pytest

from kalloctrace.explain.request import WhatIf

RUNS = 1500
RELEASES = (
    *(f"5.{minor}" for minor in range(8, 20)),
    *(f"6.{minor}" for minor in range(20)),
    *(f"7.{minor}" for minor in range(4)),
)
ZONES = ("DMA", "DMA32", "Normal", "Movable")


@dataclass
class Oracle:
    """One request, followed with plain numbers.

    Attributes:
        age: the release as a number that grows: 510 is 5.10.
        line: the request, every member that matters given.
    """

    age: int
    line: dict[str, Any]

    def __post_init__(self) -> None:
        """Spread the line."""
        self.machine = self.line["machine"]
        self.nodes = {int(n): [ZONES.index(z) for z in zones] for n, zones in self.machine["nodes"].items()}
        self.flags = self.line.get("alloc_flags", 0) | (0x400 if self.line["entry"] == "nolock" else 0)
        self.nolock = bool(self.flags & 0x400)

    def rejection(self) -> tuple[str, bool] | None:
        """Return whether the rejection warns, None when the request passes."""
        order = self.line["order"]
        if self.age >= 703 and self.flags & ~0x1400:
            return "rejected", True
        if self.nolock:
            return None if order in (0, 1, 2, 3, 9) else ("rejected", False)
        return ("rejected", not self.line["gfp"] & 0x2000) if order > 10 else None

    def gfp(self) -> int:
        """Return the mask that zone, migratetype and nofragment look at."""
        mask: int = self.line["gfp"]
        if self.nolock and self.age < 703:
            return 0x482100 if self.age < 618 else mask | 0xC2100
        if self.nolock:
            mask |= 0xC2100
        mask &= self.machine["gfp_allowed_mask"]
        return mask if self.age < 513 else self.scoped(mask)

    def scoped(self, mask: int) -> int:
        """Apply the scopes of the task."""
        task = self.line["task_flags"]
        if 609 <= self.age < 612 and task & 0x1000000:
            mask |= 0x2000
        if task & 0x10000000:
            mask &= ~0x8
        if 609 <= self.age < 612 and task & 0x800000:
            return mask & ~0x400
        if task & 0x80000:
            return mask & ~0xC0
        return mask & ~0x80 if task & 0x40000 else mask

    def is_task(self) -> bool:
        """Return whether the cpuset branch sees a task."""
        if self.age < 509:
            return True
        not_task = 0x00FFFF00 if self.age < 515 else 0x00FF0100 if self.age < 703 else 0xFF000100
        return not self.line["preempt_count"] & not_task

    def nofragment(self, preferred: tuple[int, int] | None) -> bool:
        """Return whether ALLOC_NOFRAGMENT is set."""
        if self.age >= 615 and self.machine["defrag_mode"]:
            return True
        return preferred is not None and preferred[1] == 2 and (len(self.nodes) == 1 or 1 in self.nodes[preferred[0]])

    def nodemask(self) -> tuple[str, list[int] | None]:
        """Return which nodemask is used, and its nodes."""
        given = None if self.nolock and self.age < 703 else self.line["nodemask"]
        if given is not None:
            return "caller", given
        if self.machine["cpusets_enabled"] and self.is_task():
            return "mems_allowed", self.machine["mems_allowed"]
        return "null", None

    def preferred(self, mask: int, nodes: list[int] | None) -> tuple[int, int] | None:
        """Return the first eligible zone."""
        nid = self.line["preferred_nid"]
        visited = [nid] if mask & 0x200000 else self.machine["fallback_order"][str(nid)]
        highest = 0x1320122 >> 2 * (mask & 15) & 3
        zonelist = [(node, zone) for node in visited for zone in sorted(self.nodes[node], reverse=True)]
        return next((ref for ref in zonelist if ref[1] <= highest and (nodes is None or ref[0] in nodes)), None)

    def result(self) -> tuple[object, ...]:
        """Return what the kernel would be seen to do."""
        rejected = self.rejection()
        if rejected is not None:
            return rejected
        mask = self.gfp()
        which, nodes = self.nodemask()
        preferred = self.preferred(mask, nodes)
        mobility = 0 if self.machine["page_group_by_mobility_disabled"] else mask >> 3 & 3
        flags = self.flags if self.nolock else self.flags | 1
        hardwall = 0
        if self.machine["cpusets_enabled"]:
            hardwall = 0x100000
            flags |= 0 if which == "mems_allowed" else 0x40
        no_cma = 509 <= self.age < 513 and self.line["task_flags"] & 0x10000000
        if self.machine["config_cma"] and mobility == 1 and not no_cma:
            flags |= 0x80
        if not self.nolock:
            flags |= mask & 0x800 | (0x100 if self.nofragment(preferred) else 0)
        if self.age >= 703 and self.line["order"] > 0 and mask & 0x80420 == 0x20:
            flags |= 0x200
        kind = "NOFALLBACK" if mask & 0x200000 else "FALLBACK"
        return mask | hardwall, flags, mobility, kind, which, preferred, bool(mask & 0x1000)


def _line(pick: random.Random, release: str, age: int) -> dict[str, Any]:
    count = pick.randint(1, 4)
    nids = list(range(count))
    line: dict[str, Any] = {
        "kernel": release,
        "entry": "nolock" if age >= 615 and pick.random() < 0.25 else "normal",
        "gfp": pick.choice((0xCC0, 0x820, 0x100CCA, pick.getrandbits(32), pick.getrandbits(27))),
        "order": pick.choice((0, 1, 2, 3, 4, 9, 10, 11, pick.getrandbits(32))),
        "preferred_nid": pick.choice(nids),
        "nodemask": [nid for nid in nids if pick.random() < 0.6] if pick.random() < 0.3 else None,
        "task_flags": pick.choice((0, 0x40000, 0x80000, 0x10000000, pick.getrandbits(32))),
        "preempt_count": pick.choice((0, 0x100, 0x200, 0x10000, 0x20000, 0x1000000, pick.getrandbits(32))),
        "machine": {
            "cpusets_enabled": pick.random() < 0.5,
            "mems_allowed": [nid for nid in nids if pick.random() < 0.7],
            "gfp_allowed_mask": pick.choice((0x7FFFFF, 0xFFFFFF, pick.getrandbits(32))),
            "page_group_by_mobility_disabled": pick.random() < 0.1,
            "defrag_mode": pick.random() < 0.3,
            "config_cma": pick.random() < 0.5,
            "nodes": {str(nid): [zone for zone in ZONES if pick.random() < 0.6] for nid in nids},
            "fallback_order": {str(nid): pick.sample(nids, count) for nid in nids},
        },
    }
    if age >= 703:
        line["alloc_flags"] = pick.choice((0, 0, 0x400, 0x1000, 0x1400, 0x40, pick.getrandbits(13)))
    return line


@pytest.mark.parametrize("release", RELEASES)
def test_both_models_agree(release: str) -> None:
    """The model and the oracle prepare random requests on random machines in the same way."""
    pick = random.Random(release)  # noqa: S311  (the same cases on every run)
    major, minor = release.split(".")
    age = int(major) * 100 + int(minor)
    what_if = WhatIf()
    for _ in range(RUNS):
        line = _line(pick, release, age)
        done = what_if.answer(line).preparation
        answered: tuple[object, ...] = ("rejected", done.warns)
        if done.outcome == "prepared":
            assert done.highest_zoneidx == 0x1320122 >> 2 * ((done.gfp or 0) & 15) & 3
            answered = (
                *(done.gfp, done.alloc_flags, done.migratetype, done.zonelist_kind, done.nodemask),
                *(done.preferred_zone, done.spread_dirty_pages),
            )
        assert answered == Oracle(age, line).result(), line
