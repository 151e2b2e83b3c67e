# SPDX-License-Identifier: MIT
"""Has the slow path do everything that it can: `python -m tests.kmod.pressure --module MODULE`, as root in a guest.

The guest has two nodes. Node 1 is filled, and what is asked for must come from there, so that the programs themselves
live on node 0 undisturbed. Watermarks are moved rather than memory: with `min_free_kbytes` and `watermark_scale_factor`
the same free pages are too few for the fast path, or below the reserves. The stimulus module makes the requests.
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
# khugepaged raises it to more than that.
MIN_FREE_KBYTES = 4096
ROUNDS = 15
# Now and then one gets what it asks for without being killed.
VICTIMS = 5
FRAGMENTED = 3
# So many allocations are made at once; then the recorder gets time to follow, which an emulated machine has little of.
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
# What is free as a part of the min watermark: too little for it, enough for whoever may go to half or three quarters.
SHORT = (0.95, 0.9, 0.85, 0.8)
# A request that must not fail waits for ever otherwise.
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
    """Return a gfp mask; what the kernel does not have is left out."""
    value = 0
    for name in names:
        value |= tables.gfp(name) if tables.has_gfp(name) else 0
    return value


def node_kib(name: str) -> int:
    """Return a number of the node's meminfo."""
    return next(int(line.split()[-2]) for line in MEMINFO.read_text("ascii").splitlines() if f" {name}:" in line)


def free_bytes() -> int:
    """Return how much memory of the node is free."""
    return node_kib("MemFree") << 10


def policy(mode: int, nodes: int = 0) -> None:
    """Set where this process's memory comes from."""
    mask = ctypes.c_ulong(nodes)
    if ctypes.CDLL(None, use_errno=True).syscall(SYS_SET_MEMPOLICY, mode, ctypes.byref(mask), 64):
        raise OSError(ctypes.get_errno(), "set_mempolicy")


def fill() -> list[mmap.mmap]:
    """Take all memory of the node that the fast path gives."""
    held: list[mmap.mmap] = []
    policy(MPOL_PREFERRED, 1 << NODE)
    elsewhere = 0
    # Until it comes from elsewhere; it may seem to, while what was given back before is still on its way.
    while elsewhere < ELSEWHERE:
        time.sleep(SETTLES if elsewhere else 0)
        before = free_bytes()
        held.append(mmap.mmap(-1, CHUNK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        held[-1].madvise(mmap.MADV_NOHUGEPAGE)
        held[-1].write(bytes(CHUNK))
        elsewhere = 0 if free_bytes() < before - CHUNK // 2 else elsewhere + 1
    policy(MPOL_DEFAULT)
    # Some of the last ones came from the reserves.
    return held[:-ELSEWHERE]


@contextmanager
def raised(**settings: int) -> Iterator[None]:
    """Change sysctls of vm for a while."""
    before: dict[str, str] = {name: (VM / name).read_text(encoding="ascii") for name in settings}
    try:
        for name, value in settings.items():
            (VM / name).write_text(str(value), encoding="ascii")
        yield
    finally:
        for name, old in before.items():
            (VM / name).write_text(old, encoding="ascii")


def atomic(gfp: int, tables: FlagTables) -> bool:
    """Tell whether a mask may be used where nothing sleeps."""
    return not gfp & tables.gfp("__GFP_DIRECT_RECLAIM")


def requests(tables: FlagTables, extra: Iterable[str], orders: Iterable[int], count: int) -> Iterator[Request]:
    """Yield requests of every kind for pages of the node, from wherever each may be made."""
    for base, more, order in product(BASES.values(), MORE, orders):
        gfp = mask(tables, *base, *more, *extra)
        there = gfp | tables.gfp("__GFP_THISNODE")
        yield Request(there, order, NODE, count=count)
        yield Request(there, order, NODE, scopes=Scope.NORECLAIM, count=count)
        yield Request(gfp, order, NODE, nodemask=1 << NODE, count=count)
        if atomic(gfp, tables):
            for context in (Context.BH_DISABLED, Context.SOFTIRQ, Context.HARDIRQ):
                yield Request(there, order, NODE, context=context, count=count)


def send(stimulus: Stimulus, asked: Iterable[Request]) -> None:
    """Have requests made, with pauses."""
    made = 0
    for request in asked:
        stimulus.send([request])
        made += request.count
        if made >= BURST:
            time.sleep(PAUSE)
            made = 0


def fragment() -> list[mmap.mmap]:
    """Leave free memory in single pages: every other page of what was taken is given back."""
    held = fill()
    for memory in held:
        for page in range(0, len(memory), 2 * mmap.PAGESIZE):
            memory.madvise(mmap.MADV_DONTNEED, page, mmap.PAGESIZE)
    return held


@contextmanager
def locked() -> Iterator[None]:
    """Keep all memory of this process where it is: neither reclaim nor compaction can do anything with it."""
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
    """Have requests made that must not fail, of what the min watermark keeps back."""
    gfp = mask(tables, *BASES["GFP_KERNEL"], "__GFP_NOFAIL", "__GFP_THISNODE")
    total = os.sysconf("SC_PHYS_PAGES") * (mmap.PAGESIZE >> 10)
    for part in SHORT:
        # The zones have shares of it by their size.
        wanted = int(node_kib("MemFree") / part * total / node_kib("MemTotal"))
        with raised(min_free_kbytes=wanted), Stimulus(DEVICE) as stimulus:
            relief = threading.Timer(RELIEF, (VM / "min_free_kbytes").write_text, (str(MIN_FREE_KBYTES),))
            relief.start()
            stimulus.send([Request(gfp, 0, NODE, count=3)])
            relief.cancel()
            relief.join()


def logged(tables: FlagTables) -> Iterator[Request]:
    """Yield requests that fail and that the kernel says so of: with a nodemask, which it shows."""
    for base, order in (("GFP_KERNEL", 2), ("GFP_ATOMIC", 0), ("movable", 4), ("GFP_NOWAIT", 3), ("GFP_NOFS", 1)):
        yield Request(mask(tables, *BASES[base], "__GFP_NORETRY"), order, NODE, nodemask=1 << NODE)


def hog(first: str = "true") -> None:
    """Have a process take memory until it is killed, after a command of a shell."""
    script = f"{first}; echo 1000 >/proc/self/oom_score_adj; exec {sys.executable} -c '{HOG}'"
    subprocess.run(["sh", "-c", script], check=False, stderr=subprocess.DEVNULL)


def victim(tables: FlagTables, min_free_kbytes: int, *more: str) -> None:
    """Have a process ask for what there is not, and be killed for it: it gets a share of the reserves meanwhile.

    Args:
        tables: the kernel's flags.
        min_free_kbytes: what is kept back.
        more: flags of its request.
    """
    with raised(min_free_kbytes=MIN_FREE_KBYTES):
        pid = os.fork()
        if pid == 0:
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
            # What kswapd could give up for it.
            (VM / "drop_caches").write_text("1", encoding="ascii")
            held = fill()
            (VM / "min_free_kbytes").write_text(str(min_free_kbytes), encoding="ascii")
            with Stimulus(DEVICE) as stimulus:
                stimulus.send([Request(mask(tables, *BASES["GFP_KERNEL"], *more), 0, NODE, nodemask=1 << NODE)])
            os._exit(len(held) == 0)
        os.waitpid(pid, 0)


def confined() -> None:
    """Have one do so in a memory cgroup."""
    (GROUP.parent / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    GROUP.mkdir(exist_ok=True)
    (GROUP / "memory.max").write_text(str(GROUP_BYTES), encoding="ascii")
    hog(f"echo $$ >{GROUP}/cgroup.procs")


def spare(pid: int) -> None:
    """Keep a process, and all that wait for it, from being killed for their memory."""
    while pid > 1:
        folder = Path(f"/proc/{pid}")
        (folder / "oom_score_adj").write_text("-1000", encoding="ascii")
        pid = int((folder / "stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[1])


def say(text: str) -> None:
    """Print what comes next."""
    sys.stderr.write(f"pressure: {text}; free {free_bytes() >> 10} KiB\n")
    sys.stderr.flush()


def main() -> int:
    """Put the guest under pressure."""
    parser = argparse.ArgumentParser(description="Has the page allocator's slow path do everything that it can.")
    parser.add_argument("--module", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    load(options.module)
    tables = live_tables()
    # Whatever is killed, it is neither this nor the recorder.
    spare(os.getpid())
    (VM / "min_free_kbytes").write_text(str(MIN_FREE_KBYTES), encoding="ascii")
    total = os.sysconf("SC_PHYS_PAGES") * (mmap.PAGESIZE >> 10)
    mayfail = ("__GFP_RETRY_MAYFAIL", "__GFP_NOWARN")
    with Stimulus(DEVICE) as stimulus:
        held = fill()
        say("between low and min")
        with raised(watermark_scale_factor=1000):
            send(stimulus, requests(tables, GIVES_UP, range(4), options.rounds))
            say("in a memory cgroup, until it is full")
            confined()
            say("as a real-time task")
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            send(stimulus, requests(tables, GIVES_UP, range(2), 1))
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        with raised(min_free_kbytes=total // 10):
            say("below min")
            send(stimulus, requests(tables, GIVES_UP, range(5), 1))
            say("failures that the kernel logs")
            for request in logged(tables):
                stimulus.send([request])
                time.sleep(LOGGED_EVERY)
            say("much reclaim, in vain")
            send(stimulus, _each(tables, mayfail, (0, 2), nodemask=1 << NODE))
        say("what must not fail")
        must_not_fail(tables)
        held.clear()
        # Compaction that had no success is put off: each time there is something new for it to do.
        for _ in range(FRAGMENTED):
            say("fragmented")
            held += fragment()
            send(stimulus, requests(tables, GIVES_UP, (4, 9), 1))
            send(stimulus, _each(tables, (*mayfail, "__GFP_THISNODE"), (4, 9)))
            with locked():
                say("fragmented for good")
                send(stimulus, requests(tables, GIVES_UP, (4, 9), 1))
            held.clear()
    for more in ((), ("__GFP_NOFAIL",)) * VICTIMS:
        say(f"a process that is killed for what it asks for {' '.join(more)}")
        victim(tables, total // 10, *more)
    say("out of memory")
    hog()
    return 0


if __name__ == "__main__":
    sys.exit(main())
