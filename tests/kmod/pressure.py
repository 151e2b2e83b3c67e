# SPDX-License-Identifier: MIT
"""Drives the slow path through all its branches: `python -m tests.kmod.pressure --module MODULE`, as root in a guest.

The guest has two nodes. Node 1 is full, and all requests must be served from it, so that programs on node 0 are not
disturbed. The script changes watermarks rather than memory: with `min_free_kbytes` and `watermark_scale_factor` the
same free pages are too few for the fast path, or below the reserves. The stimulus module makes the requests.
"""

import argparse
import ctypes
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.live import live_tables
from tests.kmod.request import Context, Request, Scope
from tests.kmod.stimulus import DEVICE, Stimulus, load

VM = Path("/proc/sys/vm")
NODE = 1
MEMINFO = Path(f"/sys/devices/system/node/node{NODE}/meminfo")
CHUNK = 8 << 20
ELSEWHERE = 3
SETTLES = 0.1
# khugepaged raises it above this.
MIN_FREE_KBYTES = 4096
ROUNDS = 15
# Occasionally one gets its page without being killed.
VICTIMS = 5
FRAGMENTED = 3
# The number of allocations in a row; then a pause lets the recorder catch up on an emulated machine.
BURST = 100
PAUSE = 0.4
# include/uapi/linux/mempolicy.h, arch/x86/entry/syscalls/syscall_64.tbl
MPOL_DEFAULT, MPOL_PREFERRED = range(2)
# include/uapi/asm-generic/mman.h
MCL_CURRENT, MCL_ONFAULT = 1, 4
GROUP = Path("/sys/fs/cgroup/kalloctrace-pressure")
GROUP_BYTES = 16 << 20
SYS_SET_MEMPOLICY = 238
# The kernel logs one failure in 10 seconds: nopage_rs in mm/page_alloc.c.
LOGGED_EVERY = 11
# Free memory as a fraction of the min watermark: below it, but enough for requests that may use half or three quarters.
SHORT = (0.95, 0.9, 0.85, 0.8)
# Seconds until memory is made available; without it a __GFP_NOFAIL request waits forever.
RELIEF = 3
HOG = 'held = []\nwhile True:\n    held.append(bytearray(b"x") * (1 << 20))\n'

BASES = {
    "GFP_KERNEL": ("__GFP_DIRECT_RECLAIM", "__GFP_KSWAPD_RECLAIM", "__GFP_IO", "__GFP_FS"),
    "GFP_NOFS": ("__GFP_DIRECT_RECLAIM", "__GFP_KSWAPD_RECLAIM", "__GFP_IO"),
    "movable": (
        *("__GFP_DIRECT_RECLAIM", "__GFP_KSWAPD_RECLAIM", "__GFP_IO", "__GFP_FS"),
        *("__GFP_HIGHMEM", "__GFP_MOVABLE"),
    ),
    "GFP_NOWAIT": ("__GFP_KSWAPD_RECLAIM",),
    "GFP_ATOMIC": ("__GFP_KSWAPD_RECLAIM", "__GFP_HIGH", "__GFP_ATOMIC"),
    "nothing": (),
}
MORE = ((), ("__GFP_HIGH",), ("__GFP_NOMEMALLOC",), ("__GFP_MEMALLOC",))
GIVES_UP = ("__GFP_NORETRY", "__GFP_NOWARN")


def mask(tables: FlagTables, *names: str) -> int:
    """Return a gfp mask, without flags that the kernel does not have."""
    value = 0
    for name in names:
        value |= tables.gfp(name) if tables.has_gfp(name) else 0
    return value


def node_kib(name: str) -> int:
    """Return a value of the node's meminfo in KiB."""
    return next(int(line.split()[-2]) for line in MEMINFO.read_text("ascii").splitlines() if f" {name}:" in line)


def free_bytes() -> int:
    """Return the free memory of the node in bytes."""
    return node_kib("MemFree") << 10


def policy(mode: int, nodes: int = 0) -> None:
    """Set this process's memory policy."""
    mask = ctypes.c_ulong(nodes)
    if ctypes.CDLL(None, use_errno=True).syscall(SYS_SET_MEMPOLICY, mode, ctypes.byref(mask), 64):
        raise OSError(ctypes.get_errno(), "set_mempolicy")


def fill() -> list[mmap.mmap]:
    """Allocate all memory of the node that the fast path provides."""
    held: list[mmap.mmap] = []
    policy(MPOL_PREFERRED, 1 << NODE)
    elsewhere = 0
    # Continue until pages come from elsewhere several times in a row: freed pages may arrive late.
    while elsewhere < ELSEWHERE:
        time.sleep(SETTLES if elsewhere else 0)
        before = free_bytes()
        held.append(mmap.mmap(-1, CHUNK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        held[-1].madvise(mmap.MADV_NOHUGEPAGE)
        held[-1].write(bytes(CHUNK))
        elsewhere = 0 if free_bytes() < before - CHUNK // 2 else elsewhere + 1
    policy(MPOL_DEFAULT)
    # Some of the last pages came from the reserves.
    return held[:-ELSEWHERE]


@contextmanager
def raised(**settings: int) -> Iterator[None]:
    """Change sysctls of vm temporarily."""
    before: dict[str, str] = {name: (VM / name).read_text(encoding="ascii") for name in settings}
    try:
        for name, value in settings.items():
            (VM / name).write_text(str(value), encoding="ascii")
        yield
    finally:
        for name, old in before.items():
            (VM / name).write_text(old, encoding="ascii")


def atomic(gfp: int, tables: FlagTables) -> bool:
    """Return whether a mask may be used in atomic context."""
    return not gfp & tables.gfp("__GFP_DIRECT_RECLAIM")


def requests(tables: FlagTables, extra: Iterable[str], orders: Iterable[int], count: int) -> Iterator[Request]:
    """Yield requests of every kind for pages of the node, in each context that allows them."""
    for base, more, order in product(BASES.values(), MORE, orders):
        gfp = mask(tables, *base, *more, *extra)
        there = gfp | tables.gfp("__GFP_THISNODE")
        yield Request(there, order, NODE, count=count)
        yield Request(there, order, NODE, scopes=Scope.NORECLAIM, count=count)
        yield Request(gfp, order, NODE, nodemask=1 << NODE, count=count)
        if atomic(gfp, tables):
            for context in (Context.BH_DISABLED, Context.SOFTIRQ, Context.HARDIRQ):
                yield Request(there, order, NODE, context=context, count=count)


def send(stimulus: Stimulus, pending: Iterable[Request]) -> None:
    """Make requests, with pauses."""
    made = 0
    for request in pending:
        stimulus.send([request])
        made += request.count
        if made >= BURST:
            time.sleep(PAUSE)
            made = 0


def fragment() -> list[mmap.mmap]:
    """Fragment free memory: allocate the node's memory, then free every other page."""
    held = fill()
    for memory in held:
        for page in range(0, len(memory), 2 * mmap.PAGESIZE):
            memory.madvise(mmap.MADV_DONTNEED, page, mmap.PAGESIZE)
    return held


@contextmanager
def locked() -> Iterator[None]:
    """Lock all memory of this process, so that reclaim and compaction cannot use it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with raised(compact_unevictable_allowed=0):
        if libc.mlockall(MCL_CURRENT | MCL_ONFAULT):
            raise OSError(ctypes.get_errno(), "mlockall")
        try:
            yield
        finally:
            libc.munlockall()


def _each(
    tables: FlagTables, extra: Iterable[str], orders: Iterable[int], nodemask: int | None = None
) -> Iterator[Request]:
    for base, order in product(BASES.values(), orders):
        yield Request(mask(tables, *base, *extra), order, NODE, nodemask=nodemask)


def must_not_fail(tables: FlagTables) -> None:
    """Make __GFP_NOFAIL requests for memory below the min watermark."""
    gfp = mask(tables, *BASES["GFP_KERNEL"], "__GFP_NOFAIL", "__GFP_THISNODE")
    total = os.sysconf("SC_PHYS_PAGES") * (mmap.PAGESIZE >> 10)
    for part in SHORT:
        # min_free_kbytes is divided among the zones by size.
        min_free = int(node_kib("MemFree") / part * total / node_kib("MemTotal"))
        with raised(min_free_kbytes=min_free), Stimulus(DEVICE) as stimulus:
            relief = threading.Timer(RELIEF, (VM / "min_free_kbytes").write_text, (str(MIN_FREE_KBYTES),))
            relief.start()
            stimulus.send([Request(gfp, 0, NODE, count=3)])
            relief.cancel()
            relief.join()


def logged(tables: FlagTables) -> Iterator[Request]:
    """Yield requests whose failure the kernel logs, with a nodemask, which it prints."""
    for base, order in (("GFP_KERNEL", 2), ("GFP_ATOMIC", 0), ("movable", 4), ("GFP_NOWAIT", 3), ("GFP_NOFS", 1)):
        yield Request(mask(tables, *BASES[base], "__GFP_NORETRY"), order, NODE, nodemask=1 << NODE)


def hog(first: str = "true") -> None:
    """Run a process that allocates memory until it is killed; a shell command precedes it."""
    script = f"{first}; echo 1000 >/proc/self/oom_score_adj; exec {sys.executable} -c '{HOG}'"
    subprocess.run(["sh", "-c", script], check=False, stderr=subprocess.DEVNULL)


def victim(tables: FlagTables, min_free_kbytes: int, *more: str) -> None:
    """Run a process that is killed while its request for memory is retried: it may then use part of the reserves.

    Args:
        tables: the kernel's flags.
        min_free_kbytes: the value of the sysctl.
        more: further flags of its request.
    """
    with raised(min_free_kbytes=MIN_FREE_KBYTES):
        pid = os.fork()
        if pid == 0:
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
            # kswapd could reclaim the page cache for it.
            (VM / "drop_caches").write_text("1", encoding="ascii")
            held = fill()
            (VM / "min_free_kbytes").write_text(str(min_free_kbytes), encoding="ascii")
            with Stimulus(DEVICE) as stimulus:
                stimulus.send([Request(mask(tables, *BASES["GFP_KERNEL"], *more), 0, NODE, nodemask=1 << NODE)])
            os._exit(len(held) == 0)
        os.waitpid(pid, 0)


def confined() -> None:
    """Run `hog` in a memory cgroup."""
    (GROUP.parent / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    GROUP.mkdir(exist_ok=True)
    (GROUP / "memory.max").write_text(str(GROUP_BYTES), encoding="ascii")
    hog(f"echo $$ >{GROUP}/cgroup.procs")


def spare(pid: int) -> None:
    """Protect a process and its ancestors from the OOM killer."""
    while pid > 1:
        folder = Path(f"/proc/{pid}")
        (folder / "oom_score_adj").write_text("-1000", encoding="ascii")
        pid = int((folder / "stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[1])


def log(text: str) -> None:
    """Print the next step."""
    sys.stderr.write(f"pressure: {text}; free {free_bytes() >> 10} KiB\n")
    sys.stderr.flush()


def main() -> int:
    """Put the guest under pressure."""
    parser = argparse.ArgumentParser(description="Drives the page allocator's slow path through all its branches.")
    parser.add_argument("--module", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    load(options.module)
    tables = live_tables()
    # The OOM killer must spare this process and the recorder.
    spare(os.getpid())
    (VM / "min_free_kbytes").write_text(str(MIN_FREE_KBYTES), encoding="ascii")
    total = os.sysconf("SC_PHYS_PAGES") * (mmap.PAGESIZE >> 10)
    mayfail = ("__GFP_RETRY_MAYFAIL", "__GFP_NOWARN")
    with Stimulus(DEVICE) as stimulus:
        held = fill()
        log("between low and min")
        with raised(watermark_scale_factor=1000):
            send(stimulus, requests(tables, GIVES_UP, range(4), options.rounds))
            log("in a memory cgroup, until it is full")
            confined()
            log("as a real-time task")
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            send(stimulus, requests(tables, GIVES_UP, range(2), 1))
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        with raised(min_free_kbytes=total // 10):
            log("below min")
            send(stimulus, requests(tables, GIVES_UP, range(5), 1))
            log("failures that the kernel logs")
            for request in logged(tables):
                stimulus.send([request])
                time.sleep(LOGGED_EVERY)
            log("much reclaim without success")
            send(stimulus, _each(tables, mayfail, (0, 2), nodemask=1 << NODE))
        log("requests that must not fail")
        must_not_fail(tables)
        held.clear()
        # Failed compaction is deferred, so give it new work each time.
        for _ in range(FRAGMENTED):
            log("fragmented")
            held += fragment()
            send(stimulus, requests(tables, GIVES_UP, (4, 9), 1))
            send(stimulus, _each(tables, (*mayfail, "__GFP_THISNODE"), (4, 9)))
            with locked():
                log("fragmented, and locked")
                send(stimulus, requests(tables, GIVES_UP, (4, 9), 1))
            held.clear()
    for more in ((), ("__GFP_NOFAIL",)) * VICTIMS:
        log(f"a process that is killed during its request {' '.join(more)}")
        victim(tables, total // 10, *more)
    log("out of memory")
    hog()
    return 0


if __name__ == "__main__":
    sys.exit(main())
