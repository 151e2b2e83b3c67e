# SPDX-License-Identifier: MIT
"""The machines of the matrix: each memory layout that the preparation stage distinguishes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A virtual machine of the matrix; the attributes are those of `kalloctrace lab run`.

    Attributes:
        name: its name in the matrix.
        about: its nodes and zones.
        memory: the memory size, for a machine without `numa`.
        numa: one entry per node.
        numa_distance: the nodes' distances.
        append: kernel arguments.
        cpuset: the nodes of the cpuset for part of the requests.
    """

    name: str
    about: str
    memory: str | None = None
    numa: tuple[str, ...] = ()
    numa_distance: tuple[str, ...] = ()
    append: tuple[str, ...] = ()
    cpuset: str = "0"


MACHINES = (
    Machine("one-node", "DMA, DMA32, Normal", memory="4G"),
    Machine(
        "two-nodes",
        "node 0: DMA, DMA32, Normal; node 1: Normal, without ZONE_DMA32",
        numa=("3G,cpus=0", "1G,cpus=1"),
        cpuset="1",
    ),
    Machine(
        "four-nodes",
        "uneven distances, CPUs on two of them",
        numa=("1G,cpus=0", "1536M", "1G,cpus=1", "1G"),
        numa_distance=("0,1=20", "0,2=40", "0,3=30", "1,2=25", "1,3=45", "2,3=15"),
        cpuset="1,3",
    ),
    Machine(
        "memoryless-movable",
        "node 1 has a CPU and no memory, the others also have ZONE_MOVABLE",
        numa=("3G,cpus=0", "0,cpus=1", "1G"),
        numa_distance=("0,1=20", "0,2=30", "1,2=15"),
        append=("movablecore=1G",),
        cpuset="2",
    ),
    Machine("no-dma32", "one node: DMA, Normal", memory="4G", append=("memmap=0x7f000000$0x1000000",)),
    Machine("low-memory", "under 3 GiB: DMA, DMA32", memory="2G"),
)
