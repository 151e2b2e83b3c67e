# SPDX-License-Identifier: MIT
"""The requests of the matrix, and the scripts of its guests."""

import shlex
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from kalloctrace.kernel.builtin import builtin_features
from tests.kmod.request import PACKED, Context, Entry, Request
from tests.kmod.sweep import exact_masks
from tests.matrix.guest import PIN_CPU, SESSION, WITHOUT_CPUSETS, Guest
from tests.matrix.machines import MACHINES

ROOT = Path(__file__).parents[2]
MODULE = Path("/cache/stimulus.ko")
BY_NAME = {machine.name: machine for machine in MACHINES}


def guest(kernel: str, machine: str = "two-nodes") -> Guest:
    """Return one kernel on one machine."""
    return Guest(kernel, builtin_features(kernel), BY_NAME[machine])


def requests(file: Path) -> list[Request]:
    """Return the requests in a file."""
    data = file.read_bytes()
    return [Request.unpack(data[at : at + PACKED.size]) for at in range(0, len(data), PACKED.size)]


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "7.3"])
def test_requests_reach_the_requested_number(tmp_path: Path, kernel: str) -> None:
    """All phases together reach it, and each contains every zone and mobility mask."""
    guest(kernel).job(MODULE, 100_000, tmp_path)
    files = sorted(tmp_path.glob("*.requests"))
    made = [requests(file) for file in files]
    assert len(files) == (4 if kernel == "7.3" else 3)
    assert 100_000 <= sum(request.count for phase in made for request in phase) < 100_004
    for phase in made:
        assert {request.gfp & 0x1F for request in phase} == set(range(32))


@pytest.mark.parametrize(
    ("kernel", "entries"),
    [("5.10", {Entry.NORMAL}), ("6.1", {Entry.NORMAL, Entry.BULK}), ("7.2", set(Entry)), ("7.3", set(Entry))],
)
def test_every_entry_of_a_kernel_is_called(tmp_path: Path, kernel: str, entries: set[Entry]) -> None:
    """The entries are exactly those of the kernel."""
    guest(kernel).job(MODULE, 1000, tmp_path)
    assert {request.entry for request in requests(tmp_path / "cpusets-off.requests")} == entries


def test_phases_follow_the_kernel() -> None:
    """vm.defrag_mode is set if it exists; cgroup v1 is used on one machine of 5.10."""
    assert [phase.name for phase in guest("6.12").phases()] == ["cpusets-on", "in-a-cpuset"]
    assert [phase.name for phase in guest("6.16").phases()] == ["cpusets-on", "in-a-cpuset", "defrag-mode"]
    assert guest("5.10", "four-nodes").phases()[0].options == ("--cpuset-v1", "")
    assert guest("5.10", "one-node").phases()[0].options == ("--cpuset", "")


def test_cpusets_are_enabled_between_the_recordings(tmp_path: Path) -> None:
    """The path of a request is undefined while the kernel enables them."""
    job = guest("6.16").job(None, 1000, tmp_path)
    lines = job.script.read_text().splitlines()
    recording = [number for number, line in enumerate(lines) if " record " in line]
    switch = next(number for number, line in enumerate(lines) if "+cpuset" in line)
    assert len(recording) == len(job.traces) == 2
    assert recording[0] < switch < recording[1]
    assert job.conditions == ("cpusets_enabled", "defrag_mode")


@pytest.mark.parametrize(
    ("kernel", "conditions"),
    [
        ("5.10", {"cpusets_enabled"}),
        ("6.12", {"cpusets_enabled", "memcg_kmem_online"}),
        ("7.2", {"cpusets_enabled", "memcg_kmem_online", "defrag_mode"}),
        ("7.3", {"cpusets_enabled", "memcg_kmem_online", "defrag_mode", "entry_alloc_flags"}),
    ],
)
def test_each_condition_must_occur(tmp_path: Path, kernel: str, conditions: set[str]) -> None:
    """A machine without a request that meets a condition fails."""
    assert set(guest(kernel).job(MODULE, 1000, tmp_path).conditions) == conditions


def test_recorder_and_requests_have_separate_cpus(tmp_path: Path) -> None:
    """One process on one CPU records, and the requests run on the other."""
    job = guest("6.1").job(MODULE, 1000, tmp_path)
    assert job.command[:4] == ("python", str(PIN_CPU), "0", "python")
    lines = [shlex.split(line) for line in job.script.read_text().splitlines()]
    recordings = [line for line in lines if line[0] == "kalloctrace"]
    assert [line[:2] for line in recordings] == [["kalloctrace", "record"]] * 2
    assert [line[line.index("--") + 1 :][:4] for line in recordings] == [["python", str(PIN_CPU), "1", "--fifo"]] * 2


def test_session_stops_at_the_first_line_that_fails(tmp_path: Path) -> None:
    """It stops for shell commands and for the program itself."""
    script = tmp_path / "script"
    script.write_text(f"echo one >{tmp_path}/said\nkalloctrace decode 0xcc0\nkalloctrace verify none\necho two\n")
    done = subprocess.run([sys.executable, str(SESSION), str(script)], capture_output=True, text=True, check=False)
    assert (tmp_path / "said").read_text() == "one\n"
    assert "GFP_KERNEL" in done.stdout
    assert "two" not in done.stdout
    assert done.returncode == 1
    assert "kalloctrace verify none ended with exit code" in done.stderr


@pytest.mark.parametrize(
    ("kernel", "machine"),
    [("5.10", "four-nodes"), ("6.1", "memoryless-movable"), *(("7.3", machine) for machine in BY_NAME)],
)
def test_each_phase_covers_everything(kernel: str, machine: str) -> None:
    """Each phase has every order, node, context, scope and entry, nodemasks of every kind, and masks of all 32 bits."""
    there = guest(kernel, machine)
    nodes = set(range(len(there.machine.numa) or 1))
    for number, phase in enumerate((WITHOUT_CPUSETS, *there.phases())):
        made = list(there.requests(phase, 50_000, number))
        normal = [request for request in made if request.entry is Entry.NORMAL]
        assert {request.order for request in normal} == set(range(12))
        assert {request.nid for request in normal} == nodes
        assert {request.context for request in normal} == set(Context)
        assert {int(request.scopes) for request in normal} == set(range(16))
        assert {request.entry for request in made} == set(there.entries())
        masks = {request.nodemask for request in normal}
        pairs = {1 << one | 1 << other for one, other in combinations(nodes, 2)}
        assert masks >= {None, 0, 1 << 63, sum(1 << nid for nid in nodes), *(1 << nid for nid in nodes), *pairs}
        full = [request for request in normal if request.gfp.bit_count() > 10]
        assert {bit for bit in range(32) for request in full if request.gfp >> bit & 1} == set(range(32))
        assert set(exact_masks(there.bits)) <= {request.gfp for request in made}
        if kernel == "7.3":
            assert {request.alloc_flags for request in made} >= {0, 0x400, 0x1000, 0x1400, 1}


def test_absent_nodes_are_allowed_without_cpusets() -> None:
    """With cpusets the module would refuse such a request for both mobilities."""
    without = guest("6.1", "memoryless-movable")
    made = list(without.requests(WITHOUT_CPUSETS, 1000, 0))
    inside = list(without.requests(without.phases()[0], 1000, 0))
    prepared = [request for request in made if request.gfp & 0x18 == 0x18 and request.order <= 10]
    assert any((request.nodemask or 0) & ~0b111 for request in prepared)
    assert not any(r.gfp & 0x418 == 0x418 and r.order <= 10 and r.entry is Entry.NORMAL for r in inside)


def test_machines_are_those_of_the_support_matrix() -> None:
    """One node, two, four with uneven distances, a memoryless node, no DMA32, ZONE_MOVABLE, and little memory."""
    assert [machine.name for machine in MACHINES] == [
        "one-node",
        "two-nodes",
        "four-nodes",
        "memoryless-movable",
        "no-dma32",
        "low-memory",
    ]
    assert len({distance.split("=")[1] for distance in BY_NAME["four-nodes"].numa_distance}) == 6


def test_each_kernel_runs_each_mode() -> None:
    """Over all machines each capture mode occurs."""
    modes = {guest("6.12", machine.name).mode(name) for machine in MACHINES for name in ("cpusets-off", "cpusets-on")}
    assert modes == {("--mode", "aggregate"), ("--mode", "stream"), ("--mode", "stream", "--returns")}
