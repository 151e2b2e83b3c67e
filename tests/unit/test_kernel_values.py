# SPDX-License-Identifier: MIT
"""The built-in tables, compared with values from each kernel's compiler, and the comparison itself.

The data are the module's output in a guest of each kernel: `stimulus.py --module PATH --values`.
"""

import json
import os
from pathlib import Path

import pytest

from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import Machine, Node, Topology, Zone, ZoneRef
from kalloctrace.kernel.memory_layout import PageFlags
from tests.kmod import values as oracle
from tests.kmod.values import Difference

DATA = Path(__file__).parent / "data/values"
KERNELS = sorted(path.stem for path in DATA.glob("*.json"))


def recorded(kernel: str) -> dict[str, int]:
    """Return the module's output on a kernel."""
    values: dict[str, int] = json.loads((DATA / f"{kernel}.json").read_text(encoding="ascii"))
    return values


def test_every_kernel_with_headers_was_recorded() -> None:
    """No kernel with available headers is missing."""
    assert set(KERNELS) == {"5.10", "6.1", "6.12", "7.2", "7.3"}


@pytest.mark.parametrize("kernel", KERNELS)
def test_built_in_values_are_the_compilers(kernel: str) -> None:
    """Every flag, enumerator, order, mask and zone agrees; only values without a header are not compared."""
    found = oracle.compare_builtin(recorded(kernel), kernel)
    assert found.differences == ()
    assert found.equal > 90
    assert {name for name in found.only_ours if not name.startswith("ALLOC_")} <= {"__MIGRATE_TYPE_END"}


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_flag_of_the_kernel_is_unknown(kernel: str) -> None:
    """The tables have each gfp flag, task flag, migratetype and zone of the kernel."""
    found = oracle.compare_builtin(recorded(kernel), kernel)
    assert not [name for name in found.only_kernel if name.startswith(("GFP_", "PF_", "MIGRATE_", "ZONE_", "WMARK_"))]


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_wrong_value_is_found(kernel: str) -> None:
    """It is reported by name with both values, and nothing else is."""
    values = recorded(kernel)
    right = oracle.compare_builtin(values, kernel)
    # The parts of preempt_count are compared as the tests of the context put them together.
    parts = {"SOFTIRQ_MASK", "HARDIRQ_MASK", "NMI_MASK", "SOFTIRQ_OFFSET"}
    compared = values.keys() - set(right.only_kernel) - parts
    assert len(compared) == right.equal - 2
    for name in compared:
        found = oracle.compare_builtin({**values, name: values[name] + 1}, kernel)
        assert [(one.name, one.kernel) for one in found.differences] == [(name, values[name] + 1)]
        assert found.differences[0].ours in {values[name], None}
        assert found.equal == right.equal - 1


@pytest.mark.parametrize(("kernel", "part"), [("5.10", "SOFTIRQ_MASK"), ("7.3", "NMI_MASK"), ("7.3", "HARDIRQ_MASK")])
def test_wrong_part_of_preempt_count_is_found(kernel: str, part: str) -> None:
    """It shows in the mask of the kernel's context test."""
    values = recorded(kernel)
    found = oracle.compare_builtin({**values, part: values[part] << 1}, kernel)
    assert [one.name for one in found.differences] == ["in_interrupt" if kernel == "5.10" else "in_task"]


def test_another_kernels_values_differ() -> None:
    """6.3 removed __GFP_ATOMIC, 7.3 moved the hardirq count."""
    found = oracle.compare_builtin(recorded("5.10"), "7.3")
    assert Difference("__GFP_ATOMIC", 0x200, None) in found.differences
    assert Difference("HARDIRQ_OFFSET", 0x10000, 0x1000000) in found.differences


def test_unknown_flag_must_be_zero() -> None:
    """A flag that a build option disables has the value 0."""
    absent = oracle.compare({"__GFP_SKIP_KASAN": 0}, {})
    present = oracle.compare({"__GFP_SKIP_KASAN": 0x1000000}, {})
    assert (absent.equal, absent.differences) == (1, ())
    assert present.differences == (Difference("__GFP_SKIP_KASAN", 0x1000000, None),)


def test_values_of_one_side_only_are_listed() -> None:
    """They count neither as equal nor as different."""
    found = oracle.compare({"PREEMPT_MASK": 255}, {"ALLOC_CPUSET": 64})
    assert found == oracle.Comparison(0, (), ("PREEMPT_MASK",), ("ALLOC_CPUSET",))


def machine() -> Machine:
    """Return two nodes, the second without memory."""
    zones = tuple(Zone(index, 10 * index) for index in range(5))
    own = (ZoneRef(0, 2), ZoneRef(0, 1))
    return Machine(
        nodes=(Node(0, zones), Node(1, ())),
        fallback={0: own, 1: own},
        nofallback={0: own, 1: ()},
        nr_online_nodes=2,
        gfp_allowed_mask=0xFFFFFF,
        topology=Topology((0, 1), ((10, 20), (30, 10)), (0,), 1024, 1),
    )


def test_machine_has_the_modules_names() -> None:
    """An entry of a zonelist is one number; distances are in both directions."""
    ours = oracle.values_of_machine(machine(), 5)
    assert ours["num_online_nodes()"] == 2
    assert [ours[f"present_pages[0][{index}]"] for index in range(5)] == [0, 10, 20, 30, 40]
    assert [ours[f"zonelist[1][0][{at}]"] for at in range(2)] == [2, 1]
    assert [ours[f"zonelist[1][{kind}].length"] for kind in (0, 1)] == [2, 0]
    assert (ours["node_distance[0][1]"], ours["node_distance[1][0]"]) == (20, 30)
    assert (ours["MAX_NUMNODES"], ours["NODES_SHIFT"]) == (1024, 10)


def test_page_flags_and_mask_have_the_kernels_names() -> None:
    """The names are those of the macros."""
    flags = {"NODES_PGSHIFT": 54, "ZONES_PGSHIFT": 51, "ZONES_MASK": 7}
    assert oracle.values_of_page_flags(PageFlags(54, 51, 7)) == flags
    assert oracle.values_of_mask(0x7FFFFF) == {"__GFP_BITS_MASK": 0x7FFFFF, "__GFP_BITS_SHIFT": 23}


class FakeBtf(Btf):
    """Types without a kernel."""

    def __init__(self) -> None:
        """Read nothing."""
        self._btf = None

    def size(self, struct: str) -> int:
        """Return a size."""
        return {"zone": 1536}[struct]

    def offset(self, struct: str, member: str) -> int:
        """Return an offset."""
        return {("zone", "present_pages"): 152}[struct, member]

    def member_size(self, struct: str, member: str) -> int:
        """Return a size."""
        return {("task_struct", "mems_allowed"): 128}[struct, member]


def test_sizes_and_offsets_are_looked_up() -> None:
    """Only the names in the module's output are looked up."""
    names = ["sizeof nodemask_t", "sizeof zone", "offsetof zone.present_pages", "ZONE_DMA"]
    assert oracle.values_of_btf(FakeBtf(), names) == dict(zip(names, (128, 1536, 152), strict=False))


def test_snapshot_includes_every_table() -> None:
    """Tables without a header are included, so that they are listed as not compared."""
    ours = oracle.values_of_snapshot(builtin_snapshot("7.3"))
    assert {"GFP_ATOMIC", "__GFP_IO", "ALLOC_CPUSET", "PF_MEMALLOC_PIN", "MIGRATE_CMA", "gfp_zone(15)"} <= ours.keys()


@pytest.mark.parametrize(("release", "wrong", "code"), [("7.3.4", 0, 0), ("7.3.4", 1, 1), ("9.9.0", 1, 0)])
def test_exit_code_shows_whether_anything_differs(
    release: str, wrong: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the release is built in, its tables are compared too."""
    values = recorded("7.3")
    monkeypatch.setattr(oracle, "kernel_values", lambda: {**values, "GFP_KERNEL": values["GFP_KERNEL"] + wrong})
    monkeypatch.setattr(oracle, "compare_live", lambda _: oracle.Comparison(1, (), (), ()))
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "guest", release, "#1 SMP", "x86_64")))
    assert oracle.main([]) == code
    printed = json.loads(capsys.readouterr().out)
    assert printed["live"]["differences"] == []
    assert ("builtin" in printed) is (release == "7.3.4")
    if code:
        assert printed["builtin"]["differences"] == [{"name": "GFP_KERNEL", "kernel": 0xCC1, "ours": 0xCC0}]
