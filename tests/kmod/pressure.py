# SPDX-License-Identifier: MIT
"""Has the slow path do everything that it can: `python -m tests.kmod.pressure --module MODULE`, as root in a guest.

Watermarks are moved, not memory: with `min_free_kbytes` and `watermark_scale_factor` the same free pages are too few
for the fast path, or below the reserves, for as long as some requests take. The stimulus module makes the requests.
"""

import argparse
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice, product
from pathlib import Path

from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.live import live_tables
from tests.kmod.request import Context, Request, Scope
from tests.kmod.stimulus import DEVICE, Stimulus, load

VM = Path("/proc/sys/vm")
CHUNK = 4 << 20
# Enough for the guest's programs to go on with.
LEFT = 32 << 20
# khugepaged raises it to more than that.
MIN_FREE_KBYTES = 4096
ROUNDS = 10
# So many allocations are made at once; then the recorder gets time to follow, which an emulated machine has little of.
BURST = 100
PAUSE = 0.4
MOMENT = 20
VICTIMS = 40
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
MORE = ((), ("__GFP_HIGH",), ("__GFP_NOMEMALLOC",), ("__GFP_MEMALLOC",), ("__GFP_THISNODE",), ("__GFP_DMA32",))
GIVES_UP = ("__GFP_NORETRY", "__GFP_NOWARN")


def mask(tables: FlagTables, *names: str) -> int:
    """Return a gfp mask; what the kernel does not have is left out."""
    value = 0
    for name in names:
        value |= tables.gfp(name) if tables.has_gfp(name) else 0
    return value


def free_bytes() -> int:
    """Return how much memory is free."""
    line = next(line for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines() if "MemFree" in line)
    return int(line.split()[1]) << 10


def hold(left: int) -> list[mmap.mmap]:
    """Take memory until so many bytes are free."""
    held = []
    while free_bytes() > left:
        held.append(mmap.mmap(-1, CHUNK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        held[-1].madvise(mmap.MADV_NOHUGEPAGE)
        held[-1].write(bytes(CHUNK))
    return held


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
    """Yield requests of every kind, from wherever each may be made."""
    for base, more, order in product(BASES.values(), MORE, orders):
        gfp = mask(tables, *base, *more, *extra)
        yield Request(gfp, order, count=count)
        yield Request(gfp, order, scopes=Scope.NORECLAIM, count=count)
        yield Request(gfp, order, nodemask=1, count=count)
        if atomic(gfp, tables):
            for context in (Context.BH_DISABLED, Context.SOFTIRQ, Context.HARDIRQ):
                yield Request(gfp, order, context=context, count=count)


def send(stimulus: Stimulus, asked: Iterable[Request]) -> None:
    """Have requests made, with pauses."""
    made = 0
    for request in asked:
        stimulus.send([request])
        made += request.count
        if made >= BURST:
            time.sleep(PAUSE)
            made = 0


def send_below_min(stimulus: Stimulus, asked: Iterable[Request]) -> None:
    """Have requests made while less is free than the min watermark: for moments, as every program needs memory."""
    for some in batched(asked, MOMENT):
        with raised(min_free_kbytes=2 * free_bytes() >> 10):
            stimulus.send(some)
        time.sleep(PAUSE)


def batched(requests: Iterable[Request], size: int) -> Iterator[list[Request]]:
    """Yield so many at a time."""
    remaining = iter(requests)
    while some := list(islice(remaining, size)):
        yield some


@contextmanager
def victims() -> Iterator[None]:
    """Have processes that the OOM killer takes first: with none left the kernel gives up."""
    processes = [subprocess.Popen(["sleep", "10000"]) for _ in range(VICTIMS)]
    try:
        for process in processes:
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000", encoding="ascii")
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def fragment() -> list[mmap.mmap]:
    """Leave free memory in single pages: every other page of a large range is given back."""
    held = hold(LEFT)
    for memory in held:
        for page in range(0, len(memory), 2 * mmap.PAGESIZE):
            memory.madvise(mmap.MADV_DONTNEED, page, mmap.PAGESIZE)
    return held


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
    # Its first number is of ZONE_DMA, which otherwise serves when the others do not.
    (VM / "lowmem_reserve_ratio").write_text("32", encoding="ascii")
    held: list[mmap.mmap] = []

    def scarce() -> int:
        """Take what has become free, and return what is left, in KiB."""
        (VM / "drop_caches").write_text("3", encoding="ascii")
        held.extend(hold(2 * LEFT))
        return free_bytes() >> 10

    with Stimulus(DEVICE) as stimulus:
        free = scarce()
        say("between low and min")
        # The low watermark lies above what is free, the min watermark far below.
        with raised(watermark_scale_factor=1000, min_free_kbytes=free // 8):
            send(stimulus, requests(tables, GIVES_UP, range(4), options.rounds))
        free = scarce()
        say("the same as a real-time task")
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        with raised(watermark_scale_factor=1000, min_free_kbytes=free // 8):
            send(stimulus, requests(tables, GIVES_UP, range(2), 1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        scarce()
        say("below min")
        with victims():
            send_below_min(stimulus, requests(tables, GIVES_UP, range(5), 1))
        scarce()
        say("failures that the kernel logs")
        logged = [
            Request(mask(tables, *base, "__GFP_NORETRY"), order) for base in BASES.values() for order in (0, 2, 4)
        ]
        with victims():
            send_below_min(stimulus, logged)
        held.clear()
        say("fragmented")
        held += fragment()
        send(stimulus, requests(tables, GIVES_UP, (4, 9), 1))
        mayfail = [
            Request(mask(tables, *base, "__GFP_RETRY_MAYFAIL", "__GFP_NOWARN"), order)
            for base in BASES.values()
            for order in (4, 9)
        ]
        send(stimulus, mayfail)
        held.clear()
    say("out of memory")
    hog = f"echo 1000 >/proc/self/oom_score_adj; exec {sys.executable} -c '{HOG}'"
    subprocess.run(["sh", "-c", hog], check=False, stderr=subprocess.DEVNULL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
