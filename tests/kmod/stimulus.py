# SPDX-License-Identifier: MIT
"""Has the module `kalloctrace_stimulus` make page allocations, one by one or in a sweep over the kernel's rules.

Run as root in a guest that has the module:

    python stimulus.py --module PATH --sweep 10000 --seed 1
    python stimulus.py --module PATH --exact 997 --order 3 --gfp 0xcc0

It prints the module's counters, as far as they moved, as one JSON object, and needs nothing but Python.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Self

DEVICE = Path("/dev/kalloctrace_stimulus")
CGROUPS = Path("/sys/fs/cgroup")

DMA = 0x1
DMA32 = 0x4
MOBILITY = 0x18
DIRECT_RECLAIM = 0x400
KSWAPD_RECLAIM = 0x800
NOWARN = 0x2000
NOFAIL = 0x8000
THISNODE = 0x200000
RECLAIM = DIRECT_RECLAIM | KSWAPD_RECLAIM
LARGEST_ORDER = 10
COSTLY_ORDER = 3

_PACKED = struct.Struct("=IIiIQIIII")
_BATCH = 1000


class Context(IntEnum):
    """Where a request is made from; see stimulus.h."""

    TASK = 0
    BH_DISABLED = 1
    SOFTIRQ = 2
    HARDIRQ = 3
    NO_PREEMPT = 4
    NO_IRQS = 5


class Scope(IntFlag):
    """Allocation scopes of the requesting task; `PIN` is `NOCMA` before 5.13."""

    NOFS = 1
    NOIO = 2
    PIN = 4
    NORECLAIM = 8


NO_SCOPES = Scope(0)


@dataclass(frozen=True)
class Request:
    """A page allocation, made `count` times.

    Attributes:
        gfp: the flags, as the kernel at hand numbers them.
        order: the order.
        nid: the preferred node, which must be online.
        context: where it is made from.
        nodemask: a mask of nodes 0 to 63, or None for no nodemask.
        scopes: the scopes of the task.
        count: how many times.
    """

    gfp: int
    order: int = 0
    nid: int = 0
    context: Context = Context.TASK
    nodemask: int | None = None
    scopes: Scope = NO_SCOPES
    count: int = 1

    def pack(self) -> bytes:
        """Return the module's `struct stimulus_request`."""
        return _PACKED.pack(
            self.gfp,
            self.order,
            self.nid,
            self.context,
            self.nodemask or 0,
            self.nodemask is not None,
            self.scopes,
            self.count,
            0,
        )


class RefusedError(Exception):
    """The module refused a request."""

    def __init__(self, request: Request) -> None:
        super().__init__(f"the module refuses {request}")
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
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the device."""
        os.close(self._device)

    def request(
        self,
        gfp: int,
        order: int = 0,
        *,
        nid: int = 0,
        context: Context = Context.TASK,
        nodemask: int | None = None,
        scopes: Scope = NO_SCOPES,
        count: int = 1,
    ) -> None:
        """Have one request made; the arguments are those of `Request`."""
        self.send([Request(gfp, order, nid, context, nodemask, scopes, count)])

    def send(self, requests: Iterable[Request]) -> int:
        """Have requests made in their order, and return how many allocations that were.

        Raises:
            RefusedError: the module refused one; those before it were made.
        """
        asked = 0
        remaining = iter(requests)
        while batch := list(itertools.islice(remaining, _BATCH)):
            data = b"".join(request.pack() for request in batch)
            done = 0
            while done < len(data):
                try:
                    done += os.write(self._device, data[done:])
                except OSError as error:
                    raise RefusedError(batch[done // _PACKED.size]) from error
            asked += sum(request.count for request in batch)
        return asked

    def counters(self) -> dict[str, int]:
        """Return the module's counters since it was loaded."""
        lines = os.pread(self._device, 4096, 0).decode("ascii").splitlines()
        return {name: int(value) for name, value in (line.split() for line in lines)}


def load(module: Path) -> None:
    """Load the module unless it is loaded."""
    if not DEVICE.exists():
        insmod = shutil.which("insmod", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") or "insmod"
        subprocess.run([insmod, str(module)], check=True)


def online_nodes() -> list[int]:
    """Return the online nodes."""
    return parse_nodes(Path("/sys/devices/system/node/online").read_text(encoding="ascii"))


def allowed_nodes() -> list[int]:
    """Return the nodes that this process may have pages of, with many that are not there."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(parse_nodes(line.split()[1]) for line in lines if line.startswith("Mems_allowed_list:"))


def parse_nodes(text: str) -> list[int]:
    """Return the nodes of a list as the kernel writes it, such as `0-1,3`."""
    nodes: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        nodes.extend(range(int(first), int(last or first) + 1))
    return nodes


def use_cpuset(mems: str) -> None:
    """Turn the kernel's cpusets on, with a group of cgroup v2 for this process.

    Args:
        mems: the nodes of the group, such as `0`; empty to make the group but stay outside.
    """
    (CGROUPS / "cgroup.subtree_control").write_text("+cpuset", encoding="ascii")
    group = CGROUPS / "kalloctrace-stimulus"
    group.mkdir(exist_ok=True)
    if mems:
        (group / "cpuset.mems").write_text(mems, encoding="ascii")
        (group / "cgroup.procs").write_text("0", encoding="ascii")


def sweep(
    nodes: Sequence[int],
    size: int,
    seed: int = 0,
    *,
    orders: Sequence[int] = range(12),
    allowed: Sequence[int] | None = None,
) -> Iterator[Request]:
    """Yield requests that together meet every rule of the preparation.

    First, in an order of chance, each context with each of the 32 combinations of zone and mobility bits and each
    further gfp bit, on nodes, orders, nodemasks and scopes of chance; then all of it of chance. The same arguments
    give the same requests. All of them are ones that the module accepts, and few make the kernel print a warning.

    Args:
        nodes: the online nodes.
        size: how many requests.
        seed: which chance.
        orders: the orders to ask for.
        allowed: the nodes that the process may have pages of, there or not; all by default.
    """
    reachable = frozenset(range(64) if allowed is None else allowed)
    chance = random.Random(seed)  # noqa: S311  (it must be repeatable)
    systematic = [
        (zone | bit, context)
        for zone, bit, context in itertools.product(range(32), [0, *(1 << n for n in range(5, 24))], Context)
    ]
    chance.shuffle(systematic)
    for number in range(size):
        if number < len(systematic):
            gfp, context = systematic[number]
        else:
            gfp = chance.getrandbits(32) & chance.choice((0xFFFFFF, 0xFFFFFFFF)) & chance.getrandbits(32)
            context = chance.choice(list(Context))
        # Most of what a kernel asks for has one of these.
        gfp |= chance.choice((0, KSWAPD_RECLAIM, KSWAPD_RECLAIM, RECLAIM))
        request = Request(
            gfp,
            _order(chance, orders),
            chance.choice(nodes),
            context,
            _nodemask(chance, nodes),
            _scopes(chance),
        )
        yield harmless(request, nodes, reachable)


def _order(chance: random.Random, orders: Sequence[int]) -> int:
    """Return an order, half of the time one of the smallest."""
    return chance.choice(orders if chance.random() < 0.5 else orders[:4])


def _nodemask(chance: random.Random, nodes: Sequence[int]) -> int | None:
    everything = sum(1 << node for node in nodes)
    return chance.choice((None, None, None, everything, 1 << chance.choice(nodes), _elsewhere(chance, nodes)))


def _elsewhere(chance: random.Random, nodes: Sequence[int]) -> int:
    """Return a nodemask without any node that is there."""
    return chance.choice((0, 1 << (max(nodes) + 1), 1 << 63))


def _scopes(chance: random.Random) -> Scope:
    return Scope(chance.choice((0, 0, *range(16))))


def harmless(request: Request, nodes: Sequence[int], allowed: frozenset[int]) -> Request:
    """Return a request changed so far that the module accepts it and the kernel's log is not flooded.

    Args:
        request: the request.
        nodes: the online nodes.
        allowed: the nodes that the process may have pages of, there or not.
    """
    gfp = request.gfp
    if request.context is not Context.TASK:
        gfp &= ~DIRECT_RECLAIM
    request = replace(request, gfp=gfp)
    if request.order <= LARGEST_ORDER and gfp & MOBILITY == MOBILITY:
        request = _without_zone(request, nodes, allowed)
    elif request.order <= LARGEST_ORDER and gfp & DIRECT_RECLAIM:
        request = _with_zone(request, nodes, allowed)
    if request.order > LARGEST_ORDER:
        return request
    if request.nodemask is not None or request.gfp & THISNODE or request.order > COSTLY_ORDER:
        # What finds no page has a page of text printed.
        request = replace(request, gfp=request.gfp | NOWARN)
    return request


def _without_zone(request: Request, nodes: Sequence[int], allowed: frozenset[int]) -> Request:
    """Return a request that finds no zone: its migratetype is none, and with a page of it the kernel would crash.

    Its nodemask has a node that the process may use, as the kernel could drop it otherwise.
    """
    # The kernel would try for ever to find one.
    gfp = request.gfp & ~NOFAIL if request.gfp & DIRECT_RECLAIM else request.gfp
    absent = [node for node in (max(nodes) + 1, 63) if node in allowed and node not in nodes]
    if absent:
        # Which of them follows from the request, so that chance goes the same way with and without.
        return replace(request, gfp=gfp, nodemask=1 << absent[request.gfp % len(absent)])
    others = [node for node in nodes if node in allowed and node != request.nid]
    if others:
        return replace(request, gfp=(gfp | THISNODE) & ~DIRECT_RECLAIM, nodemask=1 << others[0])
    return replace(request, order=LARGEST_ORDER + 1)


def _with_zone(request: Request, nodes: Sequence[int], allowed: frozenset[int]) -> Request:
    """Return a request that may reclaim, unless that could go on for ever."""
    if request.gfp & NOFAIL:
        order = min(request.order, COSTLY_ORDER)
        request = replace(request, gfp=request.gfp & ~THISNODE, order=order, nodemask=None)
    narrow = request.nodemask is not None or request.gfp & (THISNODE | DMA | DMA32)
    if narrow and not allowed.issuperset(nodes):
        # The nodes of the cpuset may have no such zone.
        request = replace(request, gfp=request.gfp & ~DIRECT_RECLAIM)
    return request


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return 1 if the module did something else than it was asked for."""
    options = _parser().parse_args(arguments)
    if options.module is not None:
        load(options.module)
    if options.cpuset is not None:
        use_cpuset(options.cpuset)
    nodes = online_nodes()
    requests: Iterable[Request]
    if options.sweep is not None:
        requests = sweep(nodes, options.sweep, options.seed, allowed=allowed_nodes())
    else:
        nid = nodes[0] if options.nid is None else options.nid
        context, scopes = Context[options.context.upper()], Scope(options.scopes)
        requests = [Request(options.gfp, options.order, nid, context, options.nodemask, scopes, options.exact)]
    with Stimulus() as stimulus:
        before = stimulus.counters()
        start = time.monotonic()
        try:
            asked = stimulus.send(requests)
        except RefusedError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
        seconds = time.monotonic() - start
        moved = {name: value - before[name] for name, value in stimulus.counters().items()}
    sys.stdout.write(json.dumps({"asked": asked, **moved, "seconds": round(seconds, 3)}) + "\n")
    return 0 if moved["requested"] == asked and moved["strayed"] == 0 else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Has the kernel make page allocations.", allow_abbrev=False)
    parser.add_argument("--module", type=Path, metavar="PATH", help="load it, unless it is loaded")
    parser.add_argument(
        "--cpuset",
        metavar="MEMS",
        help="turn cpusets on; with nodes such as 0, in a group of these; with '', outside of the group",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--sweep", type=_natural, metavar="N", help="make N different requests")
    what.add_argument("--exact", type=_natural, metavar="N", help="make one request N times")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which sweep (default: 0)")
    parser.add_argument("--gfp", type=_number, default=0xCC0, metavar="MASK", help="default: 0xcc0")
    parser.add_argument("--order", type=_number, default=0, metavar="N", help="default: 0")
    parser.add_argument("--nid", type=_number, metavar="N", help="default: the first online node")
    parser.add_argument("--nodemask", type=_number, metavar="MASK", help="default: none")
    parser.add_argument("--scopes", type=_number, default=0, metavar="BITS", help="1 nofs, 2 noio, 4 pin, 8 noreclaim")
    parser.add_argument("--context", choices=[context.name.lower() for context in Context], default="task")
    return parser


def _number(text: str) -> int:
    return int(text, 0)


def _natural(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
