# SPDX-License-Identifier: MIT
"""True states of machines with a request that failed in them, and what is right to say about each zone.

Every number is in pages of 4 kB. The verdicts follow from the numbers by the rules of `__zone_watermark_ok`
(docs/slow-path.md), worked out in each state's docstring; no line of the program takes part.
"""

from dataclasses import dataclass, field

ORDERS = 11
"""Orders 0 to 10, as on x86_64."""


@dataclass(frozen=True)
class Zone:
    """One zone of a machine.

    Attributes:
        node: its node.
        name: as the kernel prints it.
        free: `NR_FREE_PAGES`.
        marks: min, low and high, without the boost.
        reserve: lowmem_reserve, by zone: DMA, DMA32, Normal, Movable, Device.
        managed: pages of the buddy allocator.
        blocks: free blocks by order: the number and the letters of their types, in the order of 4.4 and later (UMEHCI).
        boost: watermark_boost.
        cma: free CMA pages.
        highatomic: reserved pages for high-order atomic requests.
        file: file pages, half of them active.
    """

    node: int
    name: str
    free: int
    marks: tuple[int, int, int]
    reserve: tuple[int, int, int, int, int]
    managed: int
    blocks: tuple[tuple[int, str], ...]
    boost: int = 0
    cma: int = 0
    highatomic: int = 0
    file: int = 0

    def listed(self) -> tuple[tuple[int, str], ...]:
        """Return the blocks of all orders."""
        return self.blocks + ((0, ""),) * (ORDERS - len(self.blocks))


@dataclass(frozen=True)
class Process:
    """A row of the OOM killer's table, in pages."""

    pid: int
    name: str
    total_vm: int
    anon: int
    file: int = 0
    shmem: int = 0
    pgtables: int = 10
    swapped: int = 0
    adj: int = 0


@dataclass(frozen=True)
class State:
    """One failed request, and the machine at that moment.

    Attributes:
        name: of the state.
        event: "failure" or "oom".
        comm: the task.
        pid: of the task.
        order: of the request.
        gfp: its mask, as names.
        zones: of all nodes.
        verdicts: the right verdict by node and zone, on kernels whose watermark check is known in every detail.
        conclusion: what all zones that were tried have in common.
        nodemask: of the request; None for NULL.
        constraint: what the OOM killer prints, without CONSTRAINT_.
        mems: the task's mems_allowed.
        frames: the call trace, innermost first, after the page allocator's own functions.
        swap: free and total pages.
        slab: reclaimable and unreclaimable pages.
        shmem: pages of shmem.
        unevictable: unevictable pages.
        processes: of the OOM killer's table; the first is the one that is killed.
    """

    name: str
    event: str
    comm: str
    pid: int
    order: int
    gfp: tuple[str, ...]
    zones: tuple[Zone, ...]
    verdicts: dict[tuple[int, str], str]
    conclusion: str
    nodemask: str | None = None
    constraint: str = "NONE"
    mems: str = "0"
    frames: tuple[str, ...] = ()
    swap: tuple[int, int] = (0, 0)
    slab: tuple[int, int] = (9000, 12000)
    shmem: int = 500
    unevictable: int = 0
    processes: tuple[Process, ...] = field(default=())

    @property
    def nodes(self) -> list[int]:
        """The nodes of the machine."""
        return sorted({zone.node for zone in self.zones})


FRAGMENTED = State(
    name="fragmented",
    event="failure",
    comm="kworker/u8:2",
    pid=1108,
    order=4,
    gfp=("GFP_KERNEL", "__GFP_NORETRY", "__GFP_COMP"),
    zones=(
        Zone(0, "DMA", 3840, (67, 83, 99), (0, 2981, 3931, 3931, 3931), 3840, ((0, ""),) * 7 + ((30, "M"),)),
        Zone(
            *(0, "DMA32", 40000, (11000, 13750, 16500), (0, 0, 950, 950, 950), 763136),
            ((20000, "UME"), (6000, "UM"), (2000, "ME")),
            file=200_000,
        ),
        Zone(
            *(0, "Normal", 12000, (4000, 5000, 6000), (0, 0, 0, 0, 0), 243200),
            ((10000, "UME"), (1000, "U")),
            file=60_000,
        ),
    ),
    verdicts={(0, "DMA"): "watermark", (0, "DMA32"): "block", (0, "Normal"): "block"},
    conclusion="mixed",
    frames=("kmalloc_order", "uvc_alloc_urb_buffers [uvcvideo]", "uvc_init_video [uvcvideo]", "process_one_work"),
)
"""DMA: 3840 - 15 of 67 + 3931 pages. DMA32: 40000 - 15 of 11000 + 950, the largest block has order 2. Normal: 12000 -
15 of 4000, the largest block has order 1."""

EXHAUSTED = State(
    name="exhausted",
    event="oom",
    comm="java",
    pid=4321,
    order=0,
    gfp=("GFP_HIGHUSER_MOVABLE", "__GFP_ZERO"),
    zones=(
        Zone(
            *(0, "DMA", 3328, (16, 20, 24), (0, 2981, 3931, 3931, 3931), 3840),
            (*(((0, ""),) * 8), (1, "U"), (2, "UM"), (2, "M")),
        ),
        Zone(
            *(0, "DMA32", 11800, (11000, 13750, 16500), (0, 0, 950, 950, 950), 763136),
            ((5800, "UME"), (3000, "UM")),
            file=40,
        ),
        Zone(0, "Normal", 3990, (4000, 5000, 6000), (0, 0, 0, 0, 0), 243200, ((1990, "UME"), (1000, "U")), file=30),
    ),
    verdicts={(0, "DMA"): "watermark", (0, "DMA32"): "watermark", (0, "Normal"): "watermark"},
    conclusion="watermark",
    frames=("alloc_pages_vma", "do_anonymous_page", "__handle_mm_fault", "handle_mm_fault"),
    swap=(20, 500_000),
    processes=(
        Process(4321, "java", 1_900_000, 820_000, 120, 0, 2100, 350_000),
        Process(812, "mysqld", 400_000, 90_000, 40, 0, 300, 100_000),
        Process(640, "systemd-journal", 9000, 400, 300, 0, 20, 60, -250),
    ),
)
"""DMA: 3328 of 16 + 3931 pages. DMA32: 11800 of 11000 + 950. Normal: 3990 of 4000."""

ATOMIC = State(
    name="atomic",
    event="failure",
    comm="swapper/3",
    pid=0,
    order=0,
    gfp=("GFP_ATOMIC",),
    zones=(
        Zone(0, "DMA", 900, (32, 40, 48), (0, 1950, 1950, 1950, 1950), 3840, ((100, "U"), (400, "UM"))),
        Zone(0, "DMA32", 2000, (8000, 10000, 12000), (0, 0, 0, 0, 0), 500_000, ((2000, "UME"),), file=300_000),
    ),
    verdicts={(0, "DMA"): "watermark", (0, "DMA32"): "watermark"},
    conclusion="watermark",
    frames=("__alloc_skb", "__netdev_alloc_skb", "e1000_alloc_rx_buffers [e1000]", "net_rx_action"),
    processes=(),
)
"""The min watermark is lowered by a half, then by a quarter or a half of that: DMA: 900 of 8 + 1950 pages at least.
DMA32: 2000 of 8000 / 2 / 2, which is 2000, so not above it."""

BOUND = State(
    name="bound",
    event="oom",
    comm="solver",
    pid=2074,
    order=0,
    gfp=("GFP_HIGHUSER_MOVABLE", "__GFP_ZERO"),
    zones=(
        Zone(0, "DMA32", 300_000, (11000, 13750, 16500), (0, 0, 9000, 9000, 9000), 763136, ((300_000, "UME"),)),
        Zone(0, "Normal", 2_000_000, (9000, 11000, 13000), (0, 0, 0, 0, 0), 2_300_000, ((2_000_000, "UME"),)),
        Zone(1, "Normal", 9900, (10000, 12500, 15000), (0, 0, 0, 0, 0), 2_400_000, ((9900, "UME"),), file=50),
    ),
    verdicts={(0, "DMA32"): "excluded", (0, "Normal"): "excluded", (1, "Normal"): "watermark"},
    conclusion="watermark",
    nodemask="1",
    constraint="MEMORY_POLICY",
    mems="0-1",
    frames=("alloc_pages_vma", "do_anonymous_page", "__handle_mm_fault", "handle_mm_fault"),
    swap=(3, 100_000),
    processes=(Process(2074, "solver", 2_600_000, 2_350_000, 20, 0, 4800, 99_000),),
)
"""The policy allows node 1 only, whose Normal has 9900 of 10000 pages."""

CMA = State(
    name="cma",
    event="failure",
    comm="modprobe",
    pid=77,
    order=2,
    gfp=("GFP_KERNEL", "__GFP_NORETRY", "__GFP_COMP"),
    zones=(
        Zone(
            *(0, "DMA32", 59_296, (3000, 3750, 4500), (0, 0, 0, 0, 0), 240_000),
            ((2000, "UME"), (1000, "UM"), *(((0, ""),) * 8), (54, "C")),
            cma=55_296,
            file=90_000,
        ),
    ),
    verdicts={(0, "DMA32"): "block"},
    conclusion="block",
    frames=("kmalloc_order", "brcmf_alloc [brcmfmac]", "do_init_module"),
)
"""59296 - 3 - 55296 CMA pages are 3997, above 3000; but no block of order 2 is free outside CMA."""

BOOSTED = State(
    name="boosted",
    event="oom",
    comm="cc1plus",
    pid=9001,
    order=0,
    gfp=("GFP_HIGHUSER_MOVABLE", "__GFP_ZERO"),
    zones=(
        Zone(
            *(0, "Normal", 9000, (4000, 5000, 6000), (0, 0, 0, 0, 0), 500_000),
            ((6000, "UME"), (1000, "M"), (250, "H")),
            boost=7168,
            highatomic=1024,
            file=200,
        ),
    ),
    verdicts={(0, "Normal"): "watermark"},
    conclusion="watermark",
    frames=("folio_alloc_noprof", "do_anonymous_page", "__handle_mm_fault", "handle_mm_fault"),
    processes=(Process(9001, "cc1plus", 900_000, 380_000, 90, 0, 800),),
)
"""9000 pages, 1000 of them free highatomic ones (7.x) of 1024 reserved: not above 4000 + 7168."""

LATER = State(
    name="later",
    event="failure",
    comm="dd",
    pid=3000,
    order=1,
    gfp=("GFP_KERNEL", "__GFP_NORETRY", "__GFP_COMP"),
    zones=(
        Zone(0, "DMA", 3840, (67, 83, 99), (0, 2981, 3931, 3931, 3931), 3840, ((0, ""),) * 7 + ((30, "M"),)),
        Zone(
            *(0, "DMA32", 40000, (11000, 13750, 16500), (0, 0, 950, 950, 950), 763136),
            ((20000, "UME"), (6000, "UM"), (2000, "ME")),
            file=200_000,
        ),
        Zone(0, "Normal", 3000, (4000, 5000, 6000), (0, 0, 0, 0, 0), 243200, ((3000, "UME"),), file=60_000),
    ),
    verdicts={(0, "DMA"): "watermark", (0, "DMA32"): "passes", (0, "Normal"): "watermark"},
    conclusion="passes",
    frames=("new_slab", "___slab_alloc", "kmem_cache_alloc", "ext4_alloc_inode"),
)
"""DMA: 3840 - 1 of 67 + 3931 pages. DMA32: 40000 - 1 of 11000 + 950, with blocks of order 1: pages were freed after the
failure. Normal: 3000 of 4000."""

STATES = (FRAGMENTED, EXHAUSTED, ATOMIC, BOUND, CMA, BOOSTED, LATER)
