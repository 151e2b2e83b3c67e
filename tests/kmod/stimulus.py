# SPDX-License-Identifier: MIT
"""Makes page allocations through the module `kalloctrace_stimulus`: one request, or a sweep over the kernel's rules.

Run as root in a guest that has the module:

    python stimulus.py --module PATH --sweep 10000 --seed 1
    python stimulus.py --module PATH --exact 997 --order 3 --gfp 0xcc0

It prints the changes of the module's counters as one JSON object, and imports the standard library only. Python is
slow in an emulated guest, so generate a large sweep on the host and send it in the guest:

    python stimulus.py --sweep 200000 --write FILE --nodes 0-1 --bits 0xffffff     (on the host)
    python stimulus.py --module PATH --requests FILE                               (in the guest)
"""

import argparse
import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.kmod.request import PACKED, Context, Entry, Request, Scope
from tests.kmod.sweep import Target, sweep

DEVICE = Path("/dev/kalloctrace_stimulus")
VALUES = Path("/dev/kalloctrace_values")
CGROUPS = Path("/sys/fs/cgroup")
DEFRAG_MODE = Path("/proc/sys/vm/defrag_mode")

_BATCH = 1000
_GROUP = "kalloctrace-stimulus"
_CPUSET_V1 = Path("/tmp/kalloctrace-cpuset")  # noqa: S108  (a mount point in a guest)


class RefusedError(Exception):
    """The module refused a request."""

    def __init__(self, request: Request, number: int) -> None:
        what = "argument alloc_flags" if request.alloc_flags else f"{request.entry.name.lower()} entry"
        why = f"the kernel has no {what}" if number == errno.EOPNOTSUPP else "the module refuses"
        super().__init__(f"{why}: {request}")
        self.request = request


class Stimulus:
    """The module's device."""

    def __init__(self, device: Path = DEVICE) -> None:
        """Open the device.

        Args:
            device: its path.
        """
        self._device = os.open(device, os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        """Return the device."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the device."""
        self.close()

    def close(self) -> None:
        """Close the device."""
        os.close(self._device)

    def send(self, requests: Iterable[Request]) -> int:
        """Make requests in order, and return the number of allocations.

        Raises:
            RefusedError: the module refused a request, after it made those before.
        """
        made = 0
        remaining = iter(requests)
        while batch := list(itertools.islice(remaining, _BATCH)):
            made += self.send_packed(b"".join(request.pack() for request in batch))
        return made

    def send_packed(self, data: bytes) -> int:
        """Make packed requests, and return the number of allocations.

        Raises:
            RefusedError: the module refused a request, after it made those before.
        """
        done = 0
        while done < len(data):
            try:
                done += os.write(self._device, data[done : done + _BATCH * PACKED.size])
            except OSError as error:
                refused = Request.unpack(data[done : done + PACKED.size])
                raise RefusedError(refused, error.errno or 0) from error
        return sum(fields[8] for fields in PACKED.iter_unpack(data))

    def counters(self) -> dict[str, int]:
        """Return the module's counters since it was loaded."""
        return parse_values(os.pread(self._device, 4096, 0).decode("ascii"))


def parse_values(text: str) -> dict[str, int]:
    """Parse lines of a name, which may contain spaces, and a value."""
    return {name: int(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines())}


def load(module: Path) -> None:
    """Load the module unless it is loaded."""
    if not DEVICE.exists():
        insmod = shutil.which("insmod", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") or "insmod"
        subprocess.run([insmod, str(module), f"cpusets_key={_address('cpusets_enabled_key'):#x}"], check=True)


def _address(symbol: str) -> int:
    """Return a symbol's address."""
    with Path("/proc/kallsyms").open(encoding="ascii") as lines:
        return next(int(address, 16) for address, _, name, *_ in map(str.split, lines) if name == symbol)


def kernel_values() -> dict[str, int]:
    """Return the kernel's own values from the loaded module."""
    return parse_values(VALUES.read_text(encoding="ascii"))


def online_nodes() -> list[int]:
    """Return the online nodes."""
    return parse_nodes(Path("/sys/devices/system/node/online").read_text(encoding="ascii"))


def allowed_nodes() -> list[int]:
    """Return the nodes that this process may allocate from, including many that do not exist."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(parse_nodes(line.split()[1]) for line in lines if line.startswith("Mems_allowed_list:"))


def parse_nodes(text: str) -> list[int]:
    """Parse a list of nodes in the kernel's format, such as `0-1,3`."""
    nodes: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        nodes.extend(range(int(first), int(last or first) + 1))
    return nodes


def use_cpuset(mems: str) -> None:
    """Enable cpusets with a cgroup v2 group for this process.

    Args:
        mems: the nodes of the group, such as `0`; empty to create the group without joining it.
    """
    (CGROUPS / "cgroup.subtree_control").write_text("+cpuset", encoding="ascii")
    group = CGROUPS / _GROUP
    group.mkdir(exist_ok=True)
    if mems:
        (group / "cpuset.mems").write_text(mems, encoding="ascii")
        (group / "cgroup.procs").write_text("0", encoding="ascii")


def use_cpuset_v1(mems: str) -> None:
    """Enable cpusets with a cgroup v1 group for this process; no v2 group may use the controller.

    Args:
        mems: see `use_cpuset`.
    """
    _CPUSET_V1.mkdir(exist_ok=True)
    if not os.path.ismount(_CPUSET_V1):
        subprocess.run(["mount", "-t", "cgroup", "-o", "cpuset", "cpuset", str(_CPUSET_V1)], check=True)
    group = _CPUSET_V1 / _GROUP
    group.mkdir(exist_ok=True)
    if mems:
        # A v1 group accepts processes only after it has CPUs.
        cpus = (_CPUSET_V1 / "cpuset.cpus").read_text(encoding="ascii")
        (group / "cpuset.cpus").write_text(cpus, encoding="ascii")
        (group / "cpuset.mems").write_text(mems, encoding="ascii")
        (group / "cgroup.procs").write_text("0", encoding="ascii")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 if the module did not make exactly the requested allocations."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.write is not None and options.sweep is None:
        parser.error("--write needs --sweep")
    if options.write is not None:
        target = _target(options, options.nodes, options.allowed, options.bits)
        requests = sweep(target, options.sweep, options.seed, part=options.part)
        options.write.write_bytes(b"".join(request.pack() for request in requests))
        return 0
    if options.module is not None:
        load(options.module)
    if options.cpuset is not None:
        use_cpuset(options.cpuset)
    if options.cpuset_v1 is not None:
        use_cpuset_v1(options.cpuset_v1)
    if options.defrag_mode:
        DEFRAG_MODE.write_text("1", encoding="ascii")
    if options.values:
        sys.stdout.write(json.dumps(kernel_values(), indent=1) + "\n")
        return 0
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    with Stimulus(DEVICE) as stimulus:
        before = stimulus.counters()
        start = time.monotonic()
        try:
            made = _send(stimulus, options)
        except RefusedError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
        seconds = time.monotonic() - start
        moved = {name: value - before[name] for name, value in stimulus.counters().items()}
    sys.stdout.write(json.dumps({"asked": made, **moved, "seconds": round(seconds, 3)}) + "\n")
    return 0 if moved["requested"] == made and moved["strayed"] == 0 else 1


def _send(stimulus: Stimulus, options: argparse.Namespace) -> int:
    """Make the requests of the command line, and return the number of allocations."""
    if options.requests is not None:
        return stimulus.send_packed(options.requests.read_bytes())
    nodes = online_nodes()
    if options.sweep is not None:
        values = kernel_values()
        # Without cpusets the kernel does not read mems_allowed.
        allowed = allowed_nodes() if values["cpusets"] else range(64)
        target = _target(options, nodes, allowed, values["__GFP_BITS_MASK"])
        return stimulus.send(sweep(target, options.sweep, options.seed, part=options.part))
    nid = nodes[0] if options.nid is None else options.nid
    context, scopes, entry = Context[options.context.upper()], Scope(options.scopes), options.entries[0]
    request = Request(options.gfp, options.order, nid, context, options.nodemask, scopes, options.exact, entry)
    return stimulus.send([replace(request, alloc_flags=options.alloc_flags)])


def _target(options: argparse.Namespace, nodes: Iterable[int], allowed: Iterable[int], bits: int) -> Target:
    return Target(tuple(nodes), frozenset(allowed), bits, tuple(options.entries), options.every_alloc_flags)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Makes page allocations in the kernel.", allow_abbrev=False)
    parser.add_argument("--module", type=Path, metavar="PATH", help="load the module unless it is loaded")
    cpusets = parser.add_mutually_exclusive_group()
    cpusets.add_argument(
        "--cpuset",
        metavar="MEMS",
        help="enable cpusets, and join a group with these nodes, such as 0; '' joins none",
    )
    cpusets.add_argument("--cpuset-v1", metavar="MEMS", help="the same with cgroup v1")
    parser.add_argument("--defrag-mode", action="store_true", help="set vm.defrag_mode")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--sweep", type=_natural, metavar="N", help="make N different requests")
    what.add_argument("--exact", type=_natural, metavar="N", help="make one request N times")
    what.add_argument("--requests", type=Path, metavar="FILE", help="make the requests in a file of --write")
    what.add_argument("--values", action="store_true", help="print the kernel's own values as JSON")
    parser.add_argument(
        "--entries",
        type=_entries,
        default=[Entry.NORMAL],
        metavar="NAMES",
        help="from normal,bulk,nolock; --exact uses the first (default: normal)",
    )
    swept = parser.add_argument_group("sweeps")
    swept.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the sweep (default: 0)")
    swept.add_argument(
        "--part", type=_part, default=(0, 1), metavar="K/N", help="part K (from 1) of N of the exhaustive masks"
    )
    swept.add_argument(
        "--every-alloc-flags", action="store_true", help="also use nonzero values of the argument alloc_flags of 7.3"
    )
    swept.add_argument("--write", type=Path, metavar="FILE", help="write the requests for --requests, and make none")
    swept.add_argument("--nodes", type=parse_nodes, default=[0], metavar="LIST", help="for --write: online nodes")
    swept.add_argument(
        "--allowed", type=parse_nodes, default=range(64), metavar="LIST", help="for --write: nodes of the cpuset"
    )
    swept.add_argument("--bits", type=_number, default=0x7FFFFF, metavar="MASK", help="for --write: known gfp bits")
    exact = parser.add_argument_group("--exact")
    exact.add_argument("--gfp", type=_number, default=0xCC0, metavar="MASK", help="default: 0xcc0")
    exact.add_argument("--order", type=_number, default=0, metavar="N", help="default: 0; the number of pages for bulk")
    exact.add_argument("--nid", type=_number, metavar="N", help="default: the first online node")
    exact.add_argument("--nodemask", type=_number, metavar="MASK", help="default: none")
    exact.add_argument("--alloc-flags", type=_number, default=0, metavar="BITS", help="default: 0; nonzero since 7.3")
    exact.add_argument("--scopes", type=_number, default=0, metavar="BITS", help="1 nofs, 2 noio, 4 pin, 8 noreclaim")
    exact.add_argument("--context", choices=[context.name.lower() for context in Context], default="task")
    return parser


def _number(text: str) -> int:
    return int(text, 0)


def _natural(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _part(text: str) -> tuple[int, int]:
    part, _, of = text.partition("/")
    if not 1 <= int(part) <= int(of):
        raise argparse.ArgumentTypeError(f"{text} is not a part K/N with K from 1 to N")
    return int(part) - 1, int(of)


def _entries(text: str) -> list[Entry]:
    try:
        return [Entry[name.upper()] for name in text.split(",")]
    except KeyError as error:
        raise argparse.ArgumentTypeError(f"{error} is not normal, bulk or nolock") from None


if __name__ == "__main__":
    sys.exit(main())
