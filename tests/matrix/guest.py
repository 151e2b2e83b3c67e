# SPDX-License-Identifier: MIT
"""What runs in a guest of the matrix: phases with requests or work of their own, under two recordings.

Cpusets are switched on between the recordings: while the kernel does that nobody can tell which way a request goes.
So is the accounting of memory, on which the bulk allocator depends.
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

ALONE = Path(__file__).resolve().with_name("alone.py")
SESSION = Path(__file__).resolve().with_name("session.py")
STIMULUS = Path(__file__).resolve().parents[1] / "kmod" / "stimulus.py"
_CHANCE = 4000
_MACHINE_OF_V1 = "four-nodes"
_WORKLOAD = ("python", "-m", "kalloctrace.lab.workload")
_SWITCH_ON = "echo +cpuset >/sys/fs/cgroup/cgroup.subtree_control; mkdir -p /sys/fs/cgroup/kalloctrace"
# The first group that accounts for memory switches memcg_kmem_online() on.
_ACCOUNT = "echo +memory >/sys/fs/cgroup/cgroup.subtree_control; mkdir -p /sys/fs/cgroup/kalloctrace-accounted"


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


WITHOUT_CPUSETS = Phase("cpusets-off")

_MODES = {"cpusets-off": ("--mode", "aggregate"), "cpusets-on": ("--mode", "stream", "--returns")}
"""How each recording captures; with --returns the machine's switches are read at each call, as it throws them."""
_MACHINE_OF_STREAM = "one-node"
"""The machine on which the first recording has a row for each call."""


@dataclass(frozen=True)
class Job:
    """What a guest does.

    Attributes:
        command: what to run.
        script: the lines of it, for `session.py`.
        traces: where its recordings are.
        allocations: how many are asked for in all, at least.
        conditions: columns of the traces that must be above 0 in some rows.
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
        features: the rules that it is expected to have; they only decide what is asked for.
        machine: the machine.
    """

    kernel: str
    features: Features
    machine: Machine

    def phases(self) -> tuple[Phase, ...]:
        """Return what is tried once cpusets are on: outside of one, in one, with vm.defrag_mode where that exists."""
        option, mems = self._cpuset_option(), self.machine.cpuset
        phases = [
            Phase("cpusets-on", (option, ""), ("--cpuset-mems", "")),
            Phase("in-a-cpuset", (option, mems), ("--cpuset-mems", mems), restricted=True),
        ]
        if self.features.defrag_mode:
            phases.append(Phase("defrag-mode", before="echo 1 >/proc/sys/vm/defrag_mode"))
        return tuple(phases)

    def _cpuset_option(self) -> str:
        # 5.10 is what runs where people still have cgroup v1; the controller is free for one hierarchy only.
        old = self.kernel == "5.10" and self.machine.name == _MACHINE_OF_V1
        return "--cpuset-v1" if old else "--cpuset"

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries that the kernel has."""
        # Linux kernel commits 387ba26fb1cb (the bulk allocator) and 84172f4bb752 (the entry's new name), both in v5.13.
        bulk = self.features.entry != "__alloc_pages_nodemask"
        nolock = self.features.nolock != "none"
        return (Entry.NORMAL, *([Entry.BULK] if bulk else []), *([Entry.NOLOCK] if nolock else []))

    def mode(self, recording: str) -> tuple[str, ...]:
        """Return the options that say how a recording captures: each kernel sees each of them."""
        if recording == WITHOUT_CPUSETS.name and self.machine.name == _MACHINE_OF_STREAM:
            return ("--mode", "stream")
        return _MODES[recording]

    @property
    def bits(self) -> int:
        """The gfp bits that the kernel knows."""
        return builtin_snapshot(self.kernel).machine.gfp_allowed_mask

    def requests(self, phase: Phase, allocations: int, seed: int) -> Iterable[Request]:
        """Return a phase's requests; the cheap ones are repeated so that they come to a number of allocations."""
        nodes = tuple(range(len(self.machine.numa) or 1))
        allowed = self._allowed(phase, nodes)
        size = len(exact_masks(self.bits)) + _CHANCE
        target = Target(nodes, frozenset(allowed), self.bits, self.entries(), self.features.entry_alloc_flags)
        requests = list(sweep(target, size, seed))
        cheap = [request.order <= COSTLY_ORDER and request.entry is Entry.NORMAL for request in requests]
        times, more = divmod(max(0, allocations - size), sum(cheap))
        counts = (
            1 + times + (seen <= more) if often else 1 for seen, often in zip(accumulate(cheap), cheap, strict=True)
        )
        return (replace(request, count=count) for request, count in zip(requests, counts, strict=True))

    def _allowed(self, phase: Phase, nodes: Iterable[int]) -> Iterable[int]:
        """Return the nodes that a phase's task may have pages of; without cpusets the kernel asks for none of them."""
        if phase.restricted:
            return parse_nodes(self.machine.cpuset)
        if phase == WITHOUT_CPUSETS:
            return range(64)
        return [nid for nid in nodes if not self.machine.numa or self.machine.numa[nid].split(",")[0] != "0"]

    def job(self, module: Path | None, allocations: int, folder: Path) -> Job:
        """Write the script and the requests of the guest.

        Args:
            module: the stimulus module; None for ordinary programs.
            allocations: how many in all.
            folder: where the files go, which the guest can write to.
        """
        recordings = {"cpusets-off": (WITHOUT_CPUSETS,), "cpusets-on": self.phases()}
        share = -(-allocations // sum(map(len, recordings.values())))
        lines = []
        for name, phases in recordings.items():
            if name == "cpusets-on":
                switch_on = (self._cpuset_option(), "", "--exact", "1")
                lines.append(_SWITCH_ON if module is None else self._stimulus(module, *switch_on))
                lines.append(_ACCOUNT)
            work_script = folder / f"{name}.sh"
            work_script.write_text("\n".join(self._work(phases, module, share, folder)), encoding="utf-8")
            # The slow path has a test of its own. Its programs run long on an emulated machine, and the kernel skips
            # kprobes that an interrupt hits meanwhile.
            record = [
                "kalloctrace",
                "record",
                *self.mode(name),
                "--no-slow",
                "-f",
                "-o",
                str(folder / f"{name}.arrows"),
            ]
            work = ["python", str(ALONE), "1", "--first", "sh", str(work_script)]
            lines.append(shlex.join([*record, "--", *work]))
        script = folder / "guest.sh"
        script.write_text("\n".join(lines) + "\n", encoding="utf-8")
        traces = tuple(folder / f"{name}.arrows" for name in recordings)
        command = ("python", str(ALONE), "0", "python", str(SESSION), str(script))
        return Job(command, script, traces, allocations, self._conditions(module))

    def _conditions(self, module: Path | None) -> tuple[str, ...]:
        bulk = module is not None and Entry.BULK in self.entries()
        alloc_flags = module is not None and self.features.entry_alloc_flags
        wanted = {
            "cpusets_enabled": True,
            "defrag_mode": self.features.defrag_mode,
            "memcg_kmem_online": bulk,
            "entry_alloc_flags": alloc_flags,
        }
        return tuple(name for name, applies in wanted.items() if applies)

    def _work(self, phases: Iterable[Phase], module: Path | None, share: int, folder: Path) -> Iterator[str]:
        """Yield the lines of a script that makes a recording's requests, and write down what they are made from."""
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
