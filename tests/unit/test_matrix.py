# SPDX-License-Identifier: MIT
"""What the matrix asks for, and what its guests are told to do."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from kalloctrace.kernel.builtin import builtin_features  # noqa: E402
from tests.kmod.request import PACKED, Entry, Request  # noqa: E402  (scripts' neighbours, and no package's)
from tests.matrix.guest import WITHOUT_CPUSETS, Guest  # noqa: E402
from tests.matrix.machines import MACHINES  # noqa: E402

MODULE = Path("/cache/stimulus.ko")
BY_NAME = {machine.name: machine for machine in MACHINES}


def guest(kernel: str, machine: str = "two-nodes") -> Guest:
    """Return one kernel on one machine."""
    return Guest(kernel, builtin_features(kernel), BY_NAME[machine])


def requests(file: Path) -> list[Request]:
    """Read what the module will be asked for."""
    data = file.read_bytes()
    return [Request.unpack(data[at : at + PACKED.size]) for at in range(0, len(data), PACKED.size)]


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "7.3"])
def test_requests_come_to_the_number_asked_for(tmp_path: Path, kernel: str) -> None:
    """All phases together, each with every mask."""
    guest(kernel).job(MODULE, 100_000, tmp_path)
    files = sorted(tmp_path.glob("*.requests"))
    made = [requests(file) for file in files]
    assert len(files) == (4 if kernel == "7.3" else 3)
    assert sum(request.count for phase in made for request in phase) >= 100_000
    for phase in made:
        assert {request.gfp & 0x1F for request in phase} == set(range(32))


@pytest.mark.parametrize(
    ("kernel", "entries"),
    [("5.10", {Entry.NORMAL}), ("6.1", {Entry.NORMAL, Entry.BULK}), ("7.2", set(Entry)), ("7.3", set(Entry))],
)
def test_every_entry_that_a_kernel_has_is_asked(tmp_path: Path, kernel: str, entries: set[Entry]) -> None:
    """And none that it has not."""
    guest(kernel).job(MODULE, 1000, tmp_path)
    assert {request.entry for request in requests(tmp_path / "cpusets-off.requests")} == entries


def test_phases_follow_the_kernel() -> None:
    """vm.defrag_mode where it exists; cgroup v1 on one machine of 5.10."""
    assert [phase.name for phase in guest("6.12").phases()] == ["cpusets-on", "in-a-cpuset"]
    assert [phase.name for phase in guest("6.16").phases()] == ["cpusets-on", "in-a-cpuset", "defrag-mode"]
    assert guest("5.10", "four-nodes").phases()[0].options == ("--cpuset-v1", "")
    assert guest("5.10", "one-node").phases()[0].options == ("--cpuset", "")


def test_cpusets_are_switched_on_between_the_recordings(tmp_path: Path) -> None:
    """Not in one: nobody can say which way a request goes meanwhile."""
    job = guest("6.16").job(None, 1000, tmp_path)
    lines = job.script.read_text().splitlines()
    recording = [number for number, line in enumerate(lines) if " record " in line]
    switch = next(number for number, line in enumerate(lines) if "+cpuset" in line)
    assert len(recording) == len(job.traces) == 2
    assert recording[0] < switch < recording[1]
    assert job.conditions == ("cpusets_enabled", "defrag_mode")


def test_without_cpusets_nodes_that_are_not_there_are_allowed() -> None:
    """With them the module would refuse such a request for both mobilities."""
    without = guest("6.1", "memoryless-movable")
    made = list(without.requests(WITHOUT_CPUSETS, 1000, 0))
    inside = list(without.requests(without.phases()[0], 1000, 0))
    prepared = [request for request in made if request.gfp & 0x18 == 0x18 and request.order <= 10]
    assert any((request.nodemask or 0) & ~0b111 for request in prepared)
    assert not any(r.gfp & 0x418 == 0x418 and r.order <= 10 and r.entry is Entry.NORMAL for r in inside)


def test_machines_are_those_of_the_support_matrix() -> None:
    """One node, two, four with uneven distances, a memoryless one, none with DMA32, ZONE_MOVABLE, little memory."""
    assert [machine.name for machine in MACHINES] == [
        "one-node",
        "two-nodes",
        "four-nodes",
        "memoryless-movable",
        "no-dma32",
        "low-memory",
    ]
    assert len({distance.split("=")[1] for distance in BY_NAME["four-nodes"].numa_distance}) == 6
