# SPDX-License-Identifier: MIT
"""Load for a guest's page allocator: page cache, anonymous memory, slab, network, high orders, policies, cpusets.

Run it as root in a guest: `python -m kalloctrace.lab.workload mixed --pages 50000`. It imports the standard library
only, so that it starts quickly under emulation and allocates little itself.
"""

import argparse
import ctypes
import mmap
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from kalloctrace.system_calls import system_call

PAGE = mmap.PAGESIZE
HUGE_PAGE = 2 << 20
CGROUP = Path("/sys/fs/cgroup")

# include/uapi/linux/if_packet.h, include/uapi/linux/mempolicy.h, arch/x86/entry/syscalls/syscall_64.tbl
_SOL_PACKET = 263
_PACKET_RX_RING = 5
_SYS_SET_MEMPOLICY = 238
_MODULES = Path("/lib/modules")
_POLICIES = {"default": 0, "preferred": 1, "bind": 2, "interleave": 3}


class DriverMissingError(Exception):
    """The kernel lacks a driver, and no modules are available to load it from."""


def require_driver(module: str, sign: str) -> None:
    """Load a driver unless the kernel has it.

    Args:
        module: the driver's module.
        sign: a file that exists if the kernel has the driver.

    Raises:
        DriverMissingError: the driver is a module, and no modules are available.
    """
    if Path(sign).exists():
        return
    if not (_MODULES / os.uname().release).exists():
        raise DriverMissingError(f"{module} is not built into this kernel, and no modules are available")
    subprocess.run(["modprobe", module], check=True)


def warn(text: str) -> None:
    """Print a message to standard error."""
    sys.stderr.write(f"kalloctrace.lab.workload: {text}\n")  # noqa: TID251 - standard library only, texts of our own


@contextmanager
def skip_unsupported(part: str) -> Iterator[None]:
    """Skip a part that the kernel does not support, with a message."""
    try:
        yield
    except DriverMissingError as reason:
        warn(f"skipped {part}: {reason}")


def touch(pages: int) -> None:
    """Write to fresh anonymous memory, one page fault per page."""
    with mmap.mmap(-1, pages * PAGE) as memory:
        # PREEMPT_RT has no transparent huge pages and rejects the advice.
        with suppress(OSError):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        for start in range(0, len(memory), PAGE):
            memory[start] = 1


def huge_pages(count: int) -> None:
    """Fault in transparent huge pages (order 9), or single pages on a kernel without them."""
    with mmap.mmap(-1, (count + 1) * HUGE_PAGE) as memory:
        with suppress(OSError):  # as above
            memory.madvise(mmap.MADV_HUGEPAGE)
        for start in range(0, len(memory), HUGE_PAGE):
            memory[start] = 1


def page_cache(mib: int, folder: str | None = None) -> None:
    """Write a file, drop it from the page cache and read it again."""
    with tempfile.TemporaryFile(dir=folder) as file:
        block = bytes(1 << 20)
        for _ in range(mib):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        while file.read(1 << 20):
            pass


def slab(objects: int) -> None:
    """Create kernel objects of many kinds: files, directory entries, pipes, sockets."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(objects):
            (folder / f"{i:0100d}").touch()
        held = [os.pipe() for _ in range(min(objects, 200))]
        sockets = [socket.socketpair() for _ in range(min(objects, 100))]
        for ends in held:
            for end in ends:
                os.close(end)
        for pair in sockets:
            for end_point in pair:
                end_point.close()


def network(mib: int) -> None:
    """Send over loopback; the kernel receives the packets in softirq context."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as peer,
    ):
        reader = threading.Thread(target=_read_all, args=(peer,))
        reader.start()
        block = bytes(1 << 16)
        for _ in range(mib << 4):
            client.sendall(block)
        client.shutdown(socket.SHUT_WR)
        reader.join()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(mib << 4):
                sender.sendto(bytes(32768), receiver.getsockname())


def _read_all(peer: socket.socket) -> None:
    while peer.recv(1 << 16):
        pass


def packet_ring(blocks: int, order: int) -> None:
    """Allocate exactly `blocks` blocks of 2^order pages, through the ring buffer of a packet socket.

    net/packet/af_packet.c allocates each block with one __get_free_pages() of GFP_KERNEL | __GFP_COMP | __GFP_ZERO |
    __GFP_NOWARN | __GFP_NORETRY, and makes no other request with this mask and order.

    Raises:
        DriverMissingError: the kernel has no packet sockets.
    """
    require_driver("af_packet", "/proc/net/packet")
    size = PAGE << order
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.setsockopt(_SOL_PACKET, _PACKET_RX_RING, struct.pack("4I", size, blocks, PAGE, blocks << order))


def high_orders() -> None:
    """Allocate blocks of every order, and request one order above the maximum, which the entry rejects."""
    for order in range(11):
        packet_ring(2, order)
    # The socket falls back to vmalloc or fails. Either way it makes the request.
    with suppress(OSError):
        packet_ring(1, 11)


def set_mempolicy(policy: str, nodes: int) -> None:
    """Set the calling task's memory policy; `nodes` is a bit set."""
    pointer = ctypes.byref(ctypes.c_ulong(nodes)) if nodes else None
    system_call(f"set_mempolicy {policy}", _SYS_SET_MEMPOLICY, _POLICIES[policy], pointer, 64 if nodes else 0)


def policies(pages: int) -> None:
    """Touch memory under each memory policy; `bind` passes a nodemask to the entry."""
    online = sum(1 << int(path.name[4:]) for path in Path("/sys/devices/system/node").glob("node[0-9]*"))
    last = 1 << (online.bit_length() - 1)
    for policy, nodes in (("bind", last), ("bind", online), ("interleave", online), ("preferred", last)):
        set_mempolicy(policy, nodes)
        touch(pages)
    set_mempolicy("default", 0)


@contextmanager
def mounted_ext4(mib: int = 64) -> Iterator[Path]:
    """Create and mount a file system on a loop device; it allocates under PF_MEMALLOC_NOFS and PF_MEMALLOC_NOIO."""
    require_driver("loop", "/dev/loop-control")
    require_driver("ext4", "/sys/fs/ext4")
    with tempfile.TemporaryDirectory() as name:
        image, mount = Path(name) / "image", Path(name) / "mount"
        with image.open("wb") as file:
            file.truncate(mib << 20)
        mount.mkdir()
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, mount], check=True)
        try:
            yield mount
        finally:
            subprocess.run(["umount", mount], check=True)


def file_system(mib: int) -> None:
    """Write to ext4 on a loop device: page cache with __GFP_WRITE, journal and writeback."""
    with mounted_ext4() as folder:
        page_cache(mib, str(folder))
        for i in range(200):
            (folder / f"{i}").write_bytes(bytes(5000))
        os.sync()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cpuset(mems: str) -> Iterator[None]:
    """Run in a cpuset (cgroup v2) with restricted memory nodes; this enables cpusets for every request."""
    group = CGROUP / "kalloctrace"
    (CGROUP / "cgroup.subtree_control").write_text("+cpuset")
    group.mkdir(exist_ok=True)
    (group / "cpuset.mems").write_text(mems)
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (CGROUP / "cgroup.procs").write_text(str(os.getpid()))


def mixed(pages: int) -> None:
    """Run a bit of each part that the kernel supports, then touch anonymous memory for the requested pages."""
    page_cache(16)
    huge_pages(16)
    slab(2000)
    network(8)
    with skip_unsupported("high-orders"):
        high_orders()
    policies(256)
    for _ in range(-(-pages // 10000)):
        touch(10000)


PARTS: dict[str, Callable[[int], None]] = {
    "mixed": mixed,
    "anonymous": touch,
    "huge-pages": lambda pages: huge_pages(-(-pages // 512)),
    "page-cache": lambda pages: page_cache(-(-pages // 256)),
    "file-system": lambda pages: file_system(min(48, -(-pages // 256))),
    "slab": slab,
    "network": lambda pages: network(-(-pages // 256)),
    "high-orders": lambda _: high_orders(),
    "policies": lambda pages: policies(-(-pages // 4)),
}


def main() -> int:
    """Run the parts named on the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="kalloctrace.lab.workload", description=main.__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "blocks"], default=["mixed"])
    parser.add_argument("--pages", type=int, default=10000, help="approximate size of each part in pages")
    parser.add_argument("--blocks", type=int, default=1009, help="number of blocks for the part blocks")
    parser.add_argument("--order", type=int, default=3, help="order of each block for the part blocks")
    parser.add_argument("--cpuset-mems", metavar="LIST", help="run in a cpuset with these memory nodes")
    options = parser.parse_args()

    def run() -> None:
        for part in options.parts:
            if part == "blocks":
                # Callers count these blocks, so a missing driver is a failure.
                packet_ring(options.blocks, options.order)
            else:
                with skip_unsupported(part):
                    PARTS[part](options.pages)

    try:
        with nullcontext() if options.cpuset_mems is None else cpuset(options.cpuset_mems):
            run()
    except DriverMissingError as reason:
        warn(f"cannot allocate the blocks: {reason}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
