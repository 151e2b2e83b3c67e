# SPDX-License-Identifier: MIT
"""Captured allocations are decoded: pointers get names, and facts that were not captured stay absent."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.kernel.memory_layout import MemoryLayout
from kalloctrace.probe.decode.allocations import AllocationMaker
from kalloctrace.probe.layout import struct_dtype
from kalloctrace.trace.inferred import Inferred

# As the program has them.
NODEMASK, TASK_CONTEXT, PREPARED, CALLER, MEMS_ALLOWED, OTHER, BULK_SINGLE = 1, 2, 4, 8, 16, 32, 64
CPUSETS_ENABLED, CPUSETS_SWITCHING, DEFRAG_MODE = 1, 2, 4

ALLOCATION = struct_dtype("allocation", {"NODEMASK_WORDS": 1, "BY_WORDS": 0})
LAYOUT = MemoryLayout(
    nodes=(),
    zonelists={"FALLBACK": {0: (ZoneRef(0, 2), ZoneRef(0, 1))}, "NOFALLBACK": {1: ()}},
    zone_addresses={},
    zonelist_addresses={0x7000: ("FALLBACK", 0), 0x8000: ("NOFALLBACK", 1)},
)


class FakeBtf:
    """The one size that is read."""

    def size(self, struct: str) -> int:
        """Return the size of a structure in bytes."""
        return {"zoneref": 16}[struct]


def made(
    kernel: str = "5.10",
    *,
    rt: bool = False,
    inferred: tuple[Inferred, ...] = (),
    **changes: Any,  # noqa: ANN401 fields have types of their own
) -> dict[str, Any]:
    """Return the allocation of a usual capture, with some fields changed."""
    captured = np.zeros(1, ALLOCATION)
    usual = {
        "gfp_mask": 0xCC0,
        "freelist_gfp_mask": 0xCC0,
        "alloc_flags": 0x901,
        "zonelist": 0x7000,
        "preferred_zoneref": 0x7000,
        "highest_zoneidx": 2,
        "present": PREPARED,
        "gfp_allowed_mask": 0x7FFFFF,
    }
    for name, value in {**usual, **changes}.items():
        captured[name][0] = value
    features = replace(builtin_features(kernel), config_preempt_rt=rt)
    maker = AllocationMaker(LAYOUT, FakeBtf(), features, 0b11, inferred)  # type: ignore[arg-type] # the method it calls
    (found,) = maker.make(captured).to_pylist()
    return found  # type: ignore[no-any-return] # Arrow has no types


@pytest.mark.parametrize(
    ("address", "zone"),
    [(0x7000, (0, 2)), (0x7010, (0, 1)), (0x7020, (None, None)), (0x8000, (None, None)), (0x7030, (-1, -1))],
)
def test_preferred_zone_is_known_by_its_entry(address: int, zone: tuple[int | None, int | None]) -> None:
    """It is an entry, the terminating entry (the first one of an empty list), or no entry at all."""
    found = made(preferred_zoneref=address)
    assert (found["preferred_node"], found["preferred_zone"]) == zone


def test_unknown_zonelist_has_no_name() -> None:
    """Rather than a wrong one."""
    assert made(zonelist=0x9000)["zonelist_kind"] is None
    found = made(zonelist=0x8000)
    assert (found["zonelist_kind"], found["zonelist_nid"]) == ("NOFALLBACK", 1)


@pytest.mark.parametrize(
    ("bit", "name"), [(0, "null"), (CALLER, "caller"), (MEMS_ALLOWED, "mems_allowed"), (OTHER, "other")]
)
def test_nodemask_of_the_context_is_named(bit: int, name: str) -> None:
    """With its nodes, limited to those that may exist."""
    found = made(present=PREPARED | bit, ac_nodemask_nodes=[0xFFFFFFFFFFFFFFFE])
    assert found["ac_nodemask"] == name
    assert found["ac_nodemask_nodes"] == ("1" if bit else None)


def test_facts_that_were_not_captured_are_null() -> None:
    """They are not 0: with cpusets disabled the stage does not read them either."""
    found = made()
    assert [found[name] for name in ("preempt_count", "mems_allowed", "nodemask", "page")] == [None] * 4
    found = made(present=PREPARED | TASK_CONTEXT | NODEMASK, preempt_count=0x100, mems_allowed=[1], nodemask_nodes=[2])
    assert [found[name] for name in ("preempt_count", "mems_allowed", "nodemask")] == [0x100, "0", "1"]


@pytest.mark.parametrize(
    ("switches", "cpusets", "defrag"),
    [(0, 0, False), (CPUSETS_ENABLED, 1, False), (CPUSETS_SWITCHING, -1, False), (DEFRAG_MODE, 0, True)],
)
def test_switches_of_the_machine(switches: int, cpusets: int, defrag: bool) -> None:
    """Cpusets enabled, disabled or switching; vm.defrag_mode."""
    found = made(switches=switches)
    assert (found["cpusets_enabled"], found["defrag_mode"]) == (cpusets, defrag)


def test_call_without_freelist_has_no_context() -> None:
    """The request was rejected."""
    found = made(present=0)
    assert found["freelist_calls"] == 0
    assert all(found[name] is None for name in ("alloc_flags", "zonelist_kind", "ac_nodemask", "preferred_zone"))
    assert made()["freelist_calls"] == 1


def test_entry_shows_the_caller() -> None:
    """The bulk allocator, or any other."""
    assert made()["entry"] == "normal"
    assert made(present=PREPARED | BULK_SINGLE)["entry"] == "bulk_single"


def test_facts_that_only_some_kernels_have() -> None:
    """The fifth argument of 7.3, the softirq part of PREEMPT_RT."""
    assert made()["entry_alloc_flags"] is None
    assert made("7.3", entry_alloc_flags=0x400)["entry_alloc_flags"] == 0x400
    assert made(softirq_disable_cnt=0x200, present=PREPARED | TASK_CONTEXT)["softirq_disable_cnt"] is None
    assert made(softirq_disable_cnt=0x200, present=PREPARED | TASK_CONTEXT, rt=True)["softirq_disable_cnt"] == 0x200


def test_each_member_has_its_column() -> None:
    """All of them, on a kernel that has every one."""
    found = made(
        "7.3",
        rt=True,
        gfp_mask=0x1,
        order=2,
        preferred_nid=3,
        entry_alloc_flags=0x4,
        task_flags=0x5,
        preempt_count=0x6,
        freelist_gfp_mask=0x7,
        alloc_flags=0x8,
        preferred_zoneref=0x7010,
        migratetype=9,
        highest_zoneidx=10,
        spread_dirty_pages=1,
        present=PREPARED | TASK_CONTEXT | NODEMASK | OTHER | BULK_SINGLE,
        gfp_allowed_mask=0xB,
        switches=CPUSETS_ENABLED | DEFRAG_MODE,
        mems_allowed=[0b01],
        nodemask_nodes=[0b10],
        ac_nodemask_nodes=[0b11],
        softirq_disable_cnt=0xC,
    )
    assert {name: value for name, value in found.items() if value is not None} == {
        "entry": "bulk_single",
        "gfp_mask": 0x1,
        "order": 2,
        "preferred_nid": 3,
        "task_flags": 0x5,
        "nodemask": "1",
        "entry_alloc_flags": 0x4,
        "preempt_count": 0x6,
        "mems_allowed": "0",
        "cpusets_enabled": 1,
        "gfp_allowed_mask": 0xB,
        "defrag_mode": True,
        "softirq_disable_cnt": 0xC,
        "freelist_calls": 1,
        "freelist_gfp_mask": 0x7,
        "freelist_order": 2,
        "alloc_flags": 0x8,
        "zonelist_kind": "FALLBACK",
        "zonelist_nid": 0,
        "ac_nodemask": "other",
        "ac_nodemask_nodes": "0-1",
        "preferred_node": 0,
        "preferred_zone": 1,
        "migratetype": 9,
        "highest_zoneidx": 10,
        "spread_dirty_pages": True,
    }


def test_softirq_count_needs_the_context() -> None:
    """On PREEMPT_RT too it is captured only together with preempt_count."""
    assert made(rt=True, softirq_disable_cnt=0x200)["softirq_disable_cnt"] is None
    assert made()["spread_dirty_pages"] is False


@pytest.mark.parametrize(("zonelist", "nid"), [(0x7000, 0), (0x8000, 1), (0x9000, None)])
def test_inferred_node_is_the_owner_of_the_zonelist(zonelist: int, nid: int | None) -> None:
    """What the program left in its place is no node; an unknown zonelist has no owner."""
    found = made(inferred=("preferred_nid",), preferred_nid=-1, zonelist=zonelist)
    assert found["preferred_nid"] == nid
    assert made(preferred_nid=1, zonelist=zonelist)["preferred_nid"] == 1
