# SPDX-License-Identifier: MIT
"""What runs in a guest of the matrix: the phases, each with requests or work of its own, under one recording."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.features import Features
from tests.kmod.request import COSTLY_ORDER, Entry, Request
from tests.kmod.stimulus import parse_nodes
from tests.kmod.sweep import Target, exact_masks, sweep
from tests.matrix.machines import Machine

ALONE = Path(__file__).resolve().with_name("alone.py")
STIMULUS = Path(__file__).resolve().parents[1] / "kmod" / "stimulus.py"
_CHANCE = 4000
_MACHINE_OF_V1 = "four-nodes"
_WITHOUT_CPUSETS = "cpusets-off"


@dataclass(frozen=True)
class Phase:
    """A part of the requests, and what is switched on before it.

    Attributes:
        name: its name.
        options: what the stimulus is told, for a module.
        work: what the workload is told, where there is no module.
        before: a shell command that comes first.
        restricted: the requesting task is in a cpuset that has not all nodes.
    """

    name: str
    options: tuple[str, ...] = ()
    work: tuple[str, ...] = ()
    before: str = ""
    restricted: bool = False


@dataclass(frozen=True)
class Job:
    """What a guest does.

    Attributes:
        script: the shell script to run.
        trace: where its recording is.
        allocations: how many are asked for, at least.
        conditions: columns of the trace that must be above 0 in some rows.
    """

    script: Path
    trace: Path
    allocations: int
    conditions: tuple[str, ...]


@dataclass(frozen=True)
class Guest:
    """One kernel on one machine.

    Attributes:
        kernel: the kernel's name.
        features: the rules that it is expected to have; they only decide what is asked for.
        machine: the machine.
    """

    kernel: str
    features: Features
    machine: Machine

    def phases(self) -> tuple[Phase, ...]:
        """Return what is tried: cpusets off, on, and restricted; with vm.defrag_mode where there is one."""
        # 5.10 is what runs where people still have cgroup v1; the controller is free for one hierarchy only.
        old = self.kernel == "5.10" and self.machine.name == _MACHINE_OF_V1
        cpuset, mems = "--cpuset-v1" if old else "--cpuset", self.machine.cpuset
        phases = [
            Phase(_WITHOUT_CPUSETS),
            Phase("cpusets-on", (cpuset, ""), ("--cpuset-mems", "")),
            Phase("in-a-cpuset", (cpuset, mems), ("--cpuset-mems", mems), restricted=True),
        ]
        if self.features.defrag_mode:
            phases.append(Phase("defrag-mode", before="echo 1 >/proc/sys/vm/defrag_mode"))
        return tuple(phases)

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries that the kernel has."""
        # Linux kernel commits 387ba26fb1cb (the bulk allocator) and 84172f4bb752 (the entry's new name), both in v5.13.
        bulk = self.features.entry != "__alloc_pages_nodemask"
        nolock = self.features.nolock != "none"
        return (Entry.NORMAL, *([Entry.BULK] if bulk else []), *([Entry.NOLOCK] if nolock else []))

    def requests(self, phase: Phase, allocations: int, seed: int) -> Iterable[Request]:
        """Return a phase's requests; the cheap ones are repeated so that they come to a number of allocations."""
        nodes = tuple(range(len(self.machine.numa) or 1))
        allowed = self._allowed(phase, nodes)
        bits = builtin_snapshot(self.kernel).machine.gfp_allowed_mask
        size = len(exact_masks(bits)) + _CHANCE
        requests = list(sweep(Target(nodes, frozenset(allowed), bits, self.entries()), size, seed))
        cheap = [request.order <= COSTLY_ORDER and request.entry is Entry.NORMAL for request in requests]
        times = 1 + max(0, -(-(allocations - size) // sum(cheap)))
        return (replace(r, count=times) if often else r for r, often in zip(requests, cheap, strict=True))

    def _allowed(self, phase: Phase, nodes: Iterable[int]) -> Iterable[int]:
        """Return the nodes that a phase's task may have pages of; without cpusets the kernel asks for none of them."""
        if phase.restricted:
            return parse_nodes(self.machine.cpuset)
        if phase.name == _WITHOUT_CPUSETS:
            return range(64)
        return [nid for nid in nodes if not self.machine.numa or self.machine.numa[nid].split(",")[0] != "0"]

    def job(self, module: Path | None, allocations: int, folder: Path) -> Job:
        """Write the script and the requests of the guest.

        Args:
            module: the stimulus module; None for ordinary programs.
            allocations: how many in all.
            folder: where the files go, which the guest can write to.
        """
        phases = self.phases()
        share = -(-allocations // len(phases))
        lines = ["set -e"]
        for number, phase in enumerate(phases):
            if phase.before:
                lines.append(phase.before)
            if module is None:
                work = ["python", "-m", "kalloctrace.lab.workload", "mixed", "--pages", str(share), *phase.work]
            else:
                file = folder / f"{phase.name}.requests"
                file.write_bytes(b"".join(request.pack() for request in self.requests(phase, share, seed=number)))
                work = ["python", str(STIMULUS), "--module", str(module), *phase.options, "--requests", str(file)]
            lines.append(shlex.join(work))
        work_script, script, trace = folder / "work.sh", folder / "record.sh", folder / "trace.arrows"
        work_script.write_text("\n".join(lines) + "\n", encoding="utf-8")
        record = ["python", str(ALONE), "0", "kalloctrace", "record", "-f", "-o", str(trace)]
        work = ["python", str(ALONE), "1", "--first", "sh", str(work_script)]
        script.write_text(f"exec {shlex.join([*record, '--', *work])}\n", encoding="utf-8")
        conditions = ("cpusets_enabled", "defrag_mode") if self.features.defrag_mode else ("cpusets_enabled",)
        return Job(script, trace, allocations, conditions)
