# SPDX-License-Identifier: MIT
"""The script of a guest in the matrix: two recordings, of phases with different requests.

Cpusets are enabled between the recordings, because the path of a request is undefined while the kernel enables them. So
is memory accounting, on which the bulk allocator depends.
"""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.features import Features
from tests.kmod.request import COSTLY_ORDER, Entry, Request
from tests.kmod.stimulus import parse_nodes
from tests.kmod.sweep import Target, exact_masks, sweep
from tests.matrix.machines import Machine

PIN_CPU = Path(__file__).resolve().with_name("pin_cpu.py")
SESSION = Path(__file__).resolve().with_name("session.py")
STIMULUS = Path(__file__).resolve().parents[1] / "kmod" / "stimulus.py"
_RANDOM_REQUESTS = 4000
_MACHINE_OF_V1 = "four-nodes"
_WORKLOAD = ("python", "-m", "kalloctrace.lab.workload")
_ENABLE_CPUSETS = "echo +cpuset >/sys/fs/cgroup/cgroup.subtree_control; mkdir -p /sys/fs/cgroup/kalloctrace"
# The first group with memory accounting enables memcg_kmem_online().
_ENABLE_ACCOUNTING = (
    "echo +memory >/sys/fs/cgroup/cgroup.subtree_control; mkdir -p /sys/fs/cgroup/kalloctrace-accounted"
)


@dataclass(frozen=True)
class Phase:
    """A part of the requests and its setup.

    Attributes:
        name: its name.
        options: options of stimulus.py, if there is a module.
        work: options of the workload, if there is no module.
        before: a shell command to run first.
        restricted: whether the requesting task is in a cpuset without some of the nodes.
    """

    name: str
    options: tuple[str, ...] = ()
    work: tuple[str, ...] = ()
    before: str = ""
    restricted: bool = False


WITHOUT_CPUSETS = Phase("cpusets-off")

_MODES = {"cpusets-off": ("--mode", "aggregate"), "cpusets-on": ("--mode", "stream", "--returns")}
"""The mode of each recording. With --returns the machine's switches, which it changes, are read at each call."""
_MACHINE_OF_STREAM = "one-node"
"""The machine whose first recording has one row per call."""


@dataclass(frozen=True)
class Job:
    """The work of a guest.

    Attributes:
        command: the command to run.
        script: its script, for `session.py`.
        traces: the files of its recordings.
        allocations: the minimum number of allocations.
        conditions: trace columns that must be nonzero in some rows.
    """

    command: tuple[str, ...]
    script: Path
    traces: tuple[Path, ...]
    allocations: int
    conditions: tuple[str, ...]


@dataclass(frozen=True)
class Guest:
    """One kernel on one machine.

    Attributes:
        kernel: the kernel's name.
        features: its expected rules; they only select requests.
        machine: the machine.
    """

    kernel: str
    features: Features
    machine: Machine

    def phases(self) -> tuple[Phase, ...]:
        """Return the phases with cpusets enabled: outside a cpuset, in one, and with vm.defrag_mode if it exists."""
        option, mems = self._cpuset_option(), self.machine.cpuset
        phases = [
            Phase("cpusets-on", (option, ""), ("--cpuset-mems", "")),
            Phase("in-a-cpuset", (option, mems), ("--cpuset-mems", mems), restricted=True),
        ]
        if self.features.defrag_mode:
            phases.append(Phase("defrag-mode", before="echo 1 >/proc/sys/vm/defrag_mode"))
        return tuple(phases)

    def _cpuset_option(self) -> str:
        # cgroup v1 is still common with 5.10. A controller can be in one hierarchy only.
        old = self.kernel == "5.10" and self.machine.name == _MACHINE_OF_V1
        return "--cpuset-v1" if old else "--cpuset"

    def entries(self) -> tuple[Entry, ...]:
        """Return the kernel's entries."""
        # Linux kernel commits 387ba26fb1cb (the bulk allocator) and 84172f4bb752 (the entry's new name), both in v5.13.
        bulk = self.features.entry != "__alloc_pages_nodemask"
        nolock = self.features.nolock != "none"
        return (Entry.NORMAL, *([Entry.BULK] if bulk else []), *([Entry.NOLOCK] if nolock else []))

    def mode(self, recording: str) -> tuple[str, ...]:
        """Return the capture options of a recording; each kernel runs every mode on some machine."""
        if recording == WITHOUT_CPUSETS.name and self.machine.name == _MACHINE_OF_STREAM:
            return ("--mode", "stream")
        return _MODES[recording]

    @property
    def bits(self) -> int:
        """The gfp bits that the kernel knows."""
        return builtin_snapshot(self.kernel).machine.gfp_allowed_mask

    def requests(self, phase: Phase, allocations: int, seed: int) -> Iterable[Request]:
        """Return a phase's requests; cheap ones are repeated to reach the number of allocations."""
        nodes = tuple(range(len(self.machine.numa) or 1))
        allowed = self._allowed(phase, nodes)
        size = len(exact_masks(self.bits)) + _RANDOM_REQUESTS
        target = Target(nodes, frozenset(allowed), self.bits, self.entries(), self.features.entry_alloc_flags)
        requests = list(sweep(target, size, seed))
        cheap = [request.order <= COSTLY_ORDER and request.entry is Entry.NORMAL for request in requests]
        times, more = divmod(max(0, allocations - size), sum(cheap))
        counts = (
            1 + times + (seen <= more) if often else 1 for seen, often in zip(accumulate(cheap), cheap, strict=True)
        )
        return (replace(request, count=count) for request, count in zip(requests, counts, strict=True))

    def _allowed(self, phase: Phase, nodes: Iterable[int]) -> Iterable[int]:
        """Return the nodes that a phase's task may allocate from; without cpusets the kernel does not check them."""
        if phase.restricted:
            return parse_nodes(self.machine.cpuset)
        if phase == WITHOUT_CPUSETS:
            return range(64)
        return [nid for nid in nodes if not self.machine.numa or self.machine.numa[nid].split(",")[0] != "0"]

    def job(self, module: Path | None, allocations: int, folder: Path) -> Job:
        """Write the guest's script and requests.

        Args:
            module: the stimulus module; None to use ordinary programs.
            allocations: the total number of allocations.
            folder: the directory of the files, which the guest can write to.
        """
        recordings = {"cpusets-off": (WITHOUT_CPUSETS,), "cpusets-on": self.phases()}
        share = -(-allocations // sum(map(len, recordings.values())))
        lines = []
        for name, phases in recordings.items():
            if name == "cpusets-on":
                enable = (self._cpuset_option(), "", "--exact", "1")
                lines.append(_ENABLE_CPUSETS if module is None else self._stimulus(module, *enable))
                lines.append(_ENABLE_ACCOUNTING)
            work_script = folder / f"{name}.sh"
            work_script.write_text("\n".join(self._work(phases, module, share, folder)), encoding="utf-8")
            # The slow path has its own test. Its BPF programs run long on an emulated machine, and the kernel skips
            # kprobes that an interrupt hits meanwhile.
            record = [
                "kalloctrace",
                "record",
                *self.mode(name),
                # All arguments are captured.
                *("--attach", "pair"),
                "--no-slow",
                "-f",
                "-o",
                str(folder / f"{name}.arrows"),
            ]
            work = ["python", str(PIN_CPU), "1", "--fifo", "sh", str(work_script)]
            lines.append(shlex.join([*record, "--", *work]))
        script = folder / "guest.sh"
        script.write_text("\n".join(lines) + "\n", encoding="utf-8")
        traces = tuple(folder / f"{name}.arrows" for name in recordings)
        command = ("python", str(PIN_CPU), "0", "python", str(SESSION), str(script))
        return Job(command, script, traces, allocations, self._conditions(module))

    def _conditions(self, module: Path | None) -> tuple[str, ...]:
        bulk = module is not None and Entry.BULK in self.entries()
        alloc_flags = module is not None and self.features.entry_alloc_flags
        conditions = {
            "cpusets_enabled": True,
            "defrag_mode": self.features.defrag_mode,
            "memcg_kmem_online": bulk,
            "entry_alloc_flags": alloc_flags,
        }
        return tuple(name for name, applies in conditions.items() if applies)

    def _work(self, phases: Iterable[Phase], module: Path | None, share: int, folder: Path) -> Iterator[str]:
        """Yield the lines of the script that makes a recording's requests; write the files of requests."""
        yield "set -e"
        for number, phase in enumerate(phases):
            if phase.before:
                yield phase.before
            if module is None:
                yield shlex.join([*_WORKLOAD, "mixed", "--pages", str(share), *phase.work])
                continue
            file = folder / f"{phase.name}.requests"
            file.write_bytes(b"".join(request.pack() for request in self.requests(phase, share, seed=number)))
            yield self._stimulus(module, *phase.options, "--requests", str(file))

    def _stimulus(self, module: Path, *options: str) -> str:
        return shlex.join(["python", str(STIMULUS), "--module", str(module), *options])
