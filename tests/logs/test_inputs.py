# SPDX-License-Identifier: MIT
"""Logs as people paste them, each with the right answer.

The answers come from the numbers in the logs and the kernel's rules, not from the program. Those of the files in
tests/unit/data are also in the tests of the parts that read and judge them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.logs.answers import answers_to, verdicts

TESTS = Path(__file__).parents[1]
DATA = TESTS / "logs" / "data"
READING = TESTS / "unit" / "data" / "logs"
JUDGING = TESTS / "unit" / "data" / "judging"
FIRST = TESTS / "unit" / "data" / "failures"

Zones = dict[tuple[int, str], str]


@dataclass(frozen=True)
class Right:
    """What is right to say about one report.

    Attributes:
        facts: values of keys.
        zones: the verdicts; None if there is nothing to say about zones.
        holds: texts that occur in the answer.
        never: texts that do not.
    """

    facts: dict[str, Any]
    zones: Zones | None = None
    holds: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


def _failure(comm: str, order: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401 values of JSON
    return {"event": "failure", "comm": comm, "order": order} | more


NORMAL = (0, "Normal")
_PLAIN = Right(
    _failure("task", 4, gfp_text="GFP_NOFS|__GFP_COMP", conclusion="block", certainty="certain", contradictions=[]),
    # 126872 kB and 60 kB less are above 63960 kB; the largest block has 32 kB.
    {NORMAL: "block"},
)

RIGHT: dict[str, list[Right]] = {
    # 0 of 5044 kB, in two wrapped lines.
    "m01-wrapped-no-trailing-blank.txt": [
        Right(_failure("task", 0, gfp_text="GFP_KERNEL|__GFP_COMP", contradictions=[]), {NORMAL: "watermark"})
    ],
    "m01c-oom-wrapped.txt": [Right({"event": "oom", "comm": "dd", "order": 0, "gfp": 0x101CCA}, {})],
    "m01e-oom-wrapped-prefix.txt": [Right({"event": "oom", "comm": "mkfs.ext4", "order": 0, "gfp": 0x101CC0}, {})],
    "m01f-oom-wrapped-prefix.txt": [Right({"event": "oom", "comm": "dd", "order": 0, "gfp": 0x101CCA}, {})],
    **{
        f"m02-{name}.txt": [_PLAIN]
        for name in (
            *("0-plain", "a-kmsg", "b-docker-json", "c-journalctl-json", "d-cri", "e-samsung", "h-lastkmsg-cpu"),
            "j-ansi-colour",
        )
    },
    # Pages are not the cause: no range of addresses was free.
    "vmalloc-error.log": [
        Right({"event": "vmap", "comm": "task"}, never=("no free block", "too few free pages")),
    ],
    # 31718 - 511 of 15990 pages; the largest block has order 3.
    "vmemmap-alloc-failure.log": [
        Right({"event": "vmemmap", "order": 9, "conclusion": "block"}, {NORMAL: "block"}),
    ],
    # (26596 - 7 - 1024 highatomic - 138 CMA) pages of 10216: above; no block of order 3 but C and H.
    "movable-gfp-kernel.log": [
        Right(
            _failure("task", 3, highest_zone="Normal"),
            {NORMAL: "block", (0, "Movable"): "excluded"},
            never=("node 0 Movable would", "node 0 Movable had such", "node 0 Movable: "),
        ),
    ],
    "boot-no-pages.log": [
        Right(_failure("swapper", 0), {NORMAL: "watermark"}, never=("compaction would", "would be enough")),
    ],
    "m06-release-not-read.txt": [Right(_failure("xxxx", 10, kernel="4.9.56"), {})],
    # Both dumps show DMA 1562 of 119 + 1443 pages and DMA32 11136 of 11144: too few, in both.
    "m07-interleaved-full.txt": [
        Right(
            {"event": "stall", "comm": "kworker/1:1", "order": 0, "line": 1, "contradictions": []},
            {(0, "DMA"): "watermark", (0, "DMA32"): "watermark"},
        ),
        Right(
            {"event": "oom", "comm": "kthreadd", "order": 2, "line": 2, "contradictions": []},
            {(0, "DMA"): "watermark", (0, "DMA32"): "watermark"},
        ),
    ],
    "memcg-by-trace.log": [
        Right({"event": "oom", "conclusion": "memcg", "certainty": "certain", "constraint": "memcg"}, {})
    ],
    # 0 of 695 pages.
    "free0-list-full.log": [
        Right({"event": "oom", "conclusion": "watermark", "certainty": "certain"}, {NORMAL: "watermark"})
    ],
    "mempolicy.log": [
        Right({"event": "oom", "constraint": "mempolicy", "nodemask": "3"}, holds=("node 3 Normal",)),
    ],
    # 250 of 695 pages; a reclaiming task or an OOM victim does not get as far as the OOM killer.
    "oom-hedge.log": [
        Right({"event": "oom"}, {NORMAL: "watermark"}, never=("PF_MEMALLOC", "being killed by the OOM killer")),
    ],
    "16k-pages-no-list.log": [Right(_failure("task", 5), {}, never=("128 kB",))],
    # The state is older than the failure.
    "state-older-than-failure.log": [
        Right(_failure("task", 0, certainty="unknown", conclusion="unknown"), never=("would have served",))
    ],
    # DMA 3328 of 16 + 15659 pages, Normal 15475 of 15487; swap is full.
    "true-oom-remedies.log": [
        Right(
            {"event": "oom", "conclusion": "watermark", "out_of_memory": True, "remedies": []},
            {(0, "DMA"): "watermark", NORMAL: "watermark"},
        )
    ],
    # Three CPUs; which lines are whose cannot be told.
    "m18-three-failures-one-read.txt": [
        Right({"event": "failure", "order": 0, "gfp": 0x2080020, "count": 3, "certainty": "unknown"}, {})
    ],
    "m20-five-alike.txt": [
        Right(_failure("task", 4, count=5, lines=[1, 7, 13, 19, 25]), {NORMAL: "block"}),
    ],
    # 250 of 695 pages.
    "reserve-all-zero.log": [
        Right(_failure("task", 0, conclusion="watermark", certainty="certain"), {NORMAL: "watermark"})
    ],
    # 750 of 695 pages, in 3 blocks.
    "reserve-of-the-own-zone.log": [
        Right(_failure("task", 0, conclusion="passes"), {NORMAL: "passes"}),
    ],
    # 62086 - 61834 pages are 1008 kB, of 2444 kB.
    "global-free-cma.log": [
        Right(_failure("task", 0), {NORMAL: "watermark"}, holds=("1,008 kB",)),
    ],
    "order-above-max.log": [
        Right({"event": "cma", "conclusion": "contiguous_range"}, {}),
        Right({"event": "warning", "comm": "task", "conclusion": "order_too_large", "certainty": "likely"}, {}),
    ],
    "no-reclaim-bits.log": [Right(_failure("z", 0, gfp=0x400D0), {}, holds=("0xd0",))],
    # 3600 of 5632 pages.
    "vmalloc-no-pages.log": [
        Right(
            {"event": "vmalloc", "comm": "kvm", "conclusion": "watermark"},
            {(0, "DMA32"): "watermark"},
        )
    ],
    "vmalloc-before-5.13.log": [Right({"event": "vmalloc", "comm": "systemd-udevd"}, {})],
    "slub-node.log": [Right({"event": "slub", "gfp": 0xA20}, {})],
    # A cache of a cgroup: its limit.
    "slub-cgroup.log": [Right({"event": "slub", "constraint": "memcg"}, {})],
    "memcg-5.15.log": [
        Right(
            {
                "event": "oom",
                "comm": "node",
                "conclusion": "memcg",
                "certainty": "certain",
                "constraint": "memcg",
                "harm": "killed",
            },
            {},
            holds=("/kubepods.slice/pod1.slice",),
        )
    ],
    "memcg-3.10.log": [
        Right({"event": "oom", "comm": "java", "conclusion": "memcg", "constraint": "memcg", "harm": "killed"}, {})
    ],
    "cma-busy.log": [Right({"event": "cma"}, {})],
    "sysrq-f.log": [
        Right({"event": "oom", "order": -1}, holds=("SysRq",), never=("would have served",)),
    ],
    "sysrq-m.log": [Right({"event": "memory"})],
    "page-fault-oom.log": [Right({"event": "oom", "comm": "python3", "order": 0}, {})],
    "warning-order-6.6.log": [Right({"event": "warning"}, {})],
    "vmap-arm.log": [Right({"event": "vmap"}, {})],
    # 9750 of 10000 pages.
    "stall-7.x.log": [
        Right({"event": "stall", "comm": "postgres", "order": 0}, {NORMAL: "watermark"}),
    ],
    # 9500 of 10000 pages of node 1.
    "cpuset-oom.log": [
        Right({"event": "oom", "constraint": "cpuset", "mems_allowed": "1"}, {(1, "Normal"): "watermark"})
    ],
    # 5000 - 7 of 750 pages, the largest block has order 1; HighMem is above what GFP_KERNEL may use.
    "highmem-arm.log": [
        Right(
            _failure("kworker/0:2", 3, conclusion="block", certainty="certain", highest_zone="Normal"),
            {NORMAL: "block", (0, "HighMem"): "excluded"},
        )
    ],
    # 15000 - 7 - 4096 of 5000 pages; the only blocks of order 3 are for high-order atomic requests.
    "highatomic-only.log": [
        Right(_failure("tun", 3, conclusion="block"), {NORMAL: "block"}, holds=("high-order atomic",))
    ],
    # 2250 of 10000 / 2 * 3 / 4 pages; a packet is dropped, or its buffer is tried again.
    "suppressed.log": [
        Right(
            _failure("ksoftirqd/1", 0, conclusion="watermark", suppressed=1250, harm="dropped"), {NORMAL: "watermark"}
        )
    ],
    # 4900 of 5000 pages; 1.4 GB are the slab's, and no swap or file page is left.
    "profile-6.12.log": [
        Right(
            {"event": "oom", "comm": "stress", "conclusion": "watermark", "out_of_memory": True, "harm": "killed"},
            {(0, "DMA32"): "watermark"},
            holds=("leaky",),
        )
    ],
    # 10000 - 3 of 704 pages of 64 kB; the largest block has order 1.
    "ppc64-64k.log": [
        Right(_failure("kworker/5:1", 2, conclusion="block", certainty="certain"), {(8, "Normal"): "block"})
    ],
    # 2250 - 31 pages of 15 + 0: a DMA request may use its own zone whatever its reserve; the largest block has order 1.
    "dma-order5.log": [
        Right(
            _failure("modprobe", 5, conclusion="block", certainty="certain", highest_zone="DMA"),
            {(0, "DMA"): "block", NORMAL: "excluded"},
        )
    ],
    # 2000 of 2250 pages.
    "stall-4.12.log": [Right({"event": "stall", "comm": "cc1", "order": 0}, {(0, "DMA32"): "watermark"})],
    "kswapd-nomemalloc.log": [Right(_failure("kswapd0", 0, kernel="6.6.30"), {})],
    # 250 of 10000 pages on alpha; 22500 of 5000 on beta, without a block of order 2.
    "two-hosts.log": [
        Right(_failure("httpd", 1, kernel="6.6.30"), {NORMAL: "watermark"}),
        Right(_failure("httpd", 2, kernel="6.1.90"), {NORMAL: "block"}),
    ],
    # Both at once, line by line, as a log server writes them: each line names its host. 125000 - 15 of 10000 pages
    # on a1; 2500 of 10000 on b2.
    "two-hosts-at-once.log": [
        Right(_failure("rsync", 4, kernel="6.1.0-18-amd64", certainty="certain", contradictions=[]), {NORMAL: "block"}),
        Right(
            _failure("rsync", 4, kernel="5.10.0-28-amd64", certainty="certain", contradictions=[]),
            {NORMAL: "watermark"},
        ),
    ],
    # 7500 - 7 of 2000 pages, the largest block has order 1; 750 of 2000 / 2 * 3 / 4 pages, which is not more.
    "two-callers.log": [
        Right(
            _failure("kworker/u16:3", 3, conclusion="block", certainty="certain", contradictions=[]),
            {(0, "DMA32"): "block"},
            holds=('"function": "ath11k_ce_alloc_pipe"',),
        ),
        Right(
            _failure("napi/eth0-8193", 0, conclusion="watermark", certainty="certain", contradictions=[]),
            {(0, "DMA32"): "watermark"},
            holds=('"function": "page_pool_alloc_pages"',),
        ),
    ],
    # (10000 - 31) of 3125 pages of 64 kB on each node, above the high watermark too; no block is larger than one page.
    "arm64-64k.log": [
        Right(
            _failure("ksmd", 5, conclusion="block", certainty="certain", out_of_memory=False),
            {NORMAL: "block", (1, "Normal"): "block"},
            holds=("2,048 kB",),
        )
    ],
    # 2250 - 1 - 750 highatomic pages that GFP_ATOMIC may use, of 750; no block of two pages, highatomic or not.
    "highatomic-6.14.log": [
        Right(_failure("irq/130-eth0", 1, conclusion="block", certainty="certain"), {(0, "DMA32"): "block"})
    ],
    # The limit stands above all else that is left of the report. 520,093,696 bytes.
    "memcg-v2-tail.log": [
        Right(
            {"event": "oom", "conclusion": "memcg", "certainty": "certain", "harm": "killed"},
            {},
            holds=("524,288 kB of 524,288 kB", '"kb": 507904'),
        )
    ],
    # 175 of 178 pages; nobody can be killed.
    "deadlocked.log": [
        Right(
            {"event": "oom", "comm": "init", "conclusion": "watermark", "harm": "failed"},
            {NORMAL: "watermark"},
            holds=("the kernel panicked (System is deadlocked on memory)",),
        )
    ],
    "nothing.log": [],
    "zoneinfo.txt": [Right({"event": "memory"})],
    "buddyinfo.txt": [Right({"event": "memory"})],
    "oom-6.1-kubelet-cat.log": [Right({"event": "oom", "harm": "killed", "constraint": "none"}, {})],
    # 0xd0 has no zone modifier on any kernel; DMA 2791 of 2 + 8052 pages, DMA32 3117 of 819 + 4797. 2.6.18 has no
    # Movable, and prints HighMem on x86_64. 1,940,221 pages are mapped and anonymous.
    "rhel5-oom.log": [
        Right(
            {"event": "oom", "comm": "oracle", "highest_zone": "Normal", "harm": "killed"},
            {(0, "DMA"): "watermark", (0, "DMA32"): "watermark", NORMAL: "unknown"},
            holds=('"kb": 7760884',),
        )
    ],
    # 122 of 232 pages; 5 GB of HighMem are closed to GFP_KERNEL, and 206,511 pages are the slab's.
    "rhel4-highmem.log": [
        Right(
            {"event": "oom", "highest_zone": "Normal", "out_of_memory": False, "harm": "killed"},
            {(0, "DMA"): "unknown", NORMAL: "watermark", (0, "HighMem"): "excluded"},
            holds=('"kb": 826044',),
        )
    ],
    # GFP_ATOMIC lowers 15323 to 5747 pages: Normal has 7030, but the kernels before 4.4 compare the blocks too.
    "rhel6-atomic.log": [
        Right(
            _failure("swapper", 1, gfp_text="GFP_ATOMIC", harm="dropped", out_of_memory=False),
            {(0, "DMA"): "watermark", (0, "DMA32"): "unknown", NORMAL: "unknown"},
            holds=('"vm.min_free_kbytes"',),
        )
    ],
    "memcg-stats-5.4.log": [
        Right(
            {"event": "oom", "comm": "node", "conclusion": "memcg"},
            # 526,016,512 bytes; "pause" holds one page, which is not worth a line.
            holds=('"kb": 513688', "anonymous memory of the cgroup"),
            never=("pause",),
        )
    ],
    # Other sizes and other errors are no alike failures.
    "cma-two-reasons.log": [
        Right({"event": "cma", "count": 1}, {}, holds=("EBUSY", "2,025")),
        Right({"event": "cma", "count": 1}, {}, holds=("ENOMEM", "4,096")),
    ],
    "hugetlb-too-few.log": [
        Right(
            {"event": "hugetlb", "missing": [], "harm": "failed"},
            holds=("2,048 huge pages of 2,048 kB", "only allocated 1311 hugepages"),
        ),
        Right(_failure("khugepaged", 9, harm="retried")),
    ],
    # 4.15 prints no constraint, but a nodemask that differs from the cpuset's nodes. 11228 of 11253 pages.
    "mempolicy-4.15.log": [
        Right(
            {"event": "oom", "comm": "postgres", "constraint": "mempolicy", "out_of_memory": False},
            {(1, "Normal"): "watermark"},
            holds=("its memory policy binds it to node 1", '"setting": "mempolicy"'),
        )
    ],
    # 11002 of 11603 pages; the first kernel with such reports misspells them.
    "stall-4.9.log": [
        Right(
            {"event": "stall", "comm": "kworker/u24:2", "order": 0, "conclusion": "watermark"},
            {(0, "DMA"): "watermark", (0, "DMA32"): "watermark", NORMAL: "watermark"},
            holds=("12312ms", "XFS"),
        )
    ],
    # 10675 - 512 of 10753 pages; swap is full. tmpfs asks on behalf of i915, whose last try this mask is.
    "i915-second-try.log": [
        Right(
            _failure("chrome", 0, harm="failed", out_of_memory=True, conclusion="watermark"),
            {(0, "DMA"): "watermark", (0, "DMA32"): "watermark", NORMAL: "watermark"},
            holds=('"function": "shmem_sg_alloc_table"',),
        )
    ],
    # The idle task is no OOM victim and not real-time; a packet that cannot be copied is dropped.
    "atomic-softirq.log": [
        Right(
            _failure("swapper/11", 4, harm="dropped"),
            never=("killed by the OOM killer", "real-time"),
        )
    ],
    # (154304 - 147456) / 64 - 3 of 1408 pages: with __GFP_NORETRY too, a machine without memory needs more of it.
    "noretry-out-of-memory.log": [
        Right(
            _failure("systemd-udevd", 2, out_of_memory=True, conclusion="watermark"),
            {NORMAL: "watermark"},
            never=("nothing has to change",),
        )
    ],
    # Another program's line ends within a word of the report's first line.
    "cut-by-systemd.log": [
        Right(
            _failure("kworker/u64:7", 5, gfp=0x40DC0, conclusion="mixed"),
            {(0, "DMA"): "watermark", (0, "DMA32"): "watermark", NORMAL: "block"},
        )
    ],
    # The first line is missing: one report all the same.
    "oom-without-head.log": [
        Right({"event": "oom", "gfp": None, "harm": "killed", "constraint": "none", "out_of_memory": False})
    ],
    # 11653 - 1024 - 1 of 9532 pages, and blocks of order 1: the state is later. 2.8 GB are HighMem.
    "highmem-pae-oom.log": [
        Right(
            {"event": "oom", "comm": "apache2", "order": 1, "conclusion": "passes", "out_of_memory": False},
            {(0, "DMA"): "watermark", NORMAL: "passes", (0, "HighMem"): "excluded"},
            holds=("use a 64-bit kernel",),
        )
    ],
    # 34501 - 15 of 1953 pages; the largest block has order 3. The only zone is called DMA there.
    "android-huawei-4.19.log": [
        Right(
            _failure("CameraServer", 4, gfp_text="GFP_KERNEL|__GFP_COMP", kernel="4.19.95", certainty="certain"),
            {(0, "DMA"): "block"},
            holds=('"function": "hisp_alloc_cpu_map"',),
        )
    ],
    # 14785 - 3 - 11008 CMA pages of a part of 1536; all blocks of order 2 are CMA's. lmkd is not the OOM killer.
    "android-lmkd-5.10.log": [
        Right(
            _failure("NetdEvents", 2, gfp_text="GFP_ATOMIC|__GFP_COMP", conclusion="block", certainty="certain"),
            {(0, "DMA32"): "block"},
        )
    ],
    # DMA 409 - 31 of 22 + 462 pages; DMA32 8576 - 31 of 685, and the largest block has order 3.
    "xen-balloon-4.9.log": [
        Right(
            _failure("xenwatch", 5, conclusion="mixed", certainty="certain", out_of_memory=False),
            {(0, "DMA"): "watermark", (0, "DMA32"): "block"},
            holds=('"function": "talk_to_blkback"', '"module": "xen_blkfront"'),
        )
    ],
    # DMA 2881 - 63 of 8 + 2912 pages; DMA32 20897 - 63 of 1403, and the largest block has order 4.
    "xen-swiotlb-5.10.log": [
        Right(
            _failure("kworker/u8:1", 6, highest_zone="DMA32", conclusion="mixed", certainty="certain"),
            {(0, "DMA"): "watermark", (0, "DMA32"): "block"},
            holds=('"function": "megasas_alloc_cmds_fusion"', '"module": "megaraid_sas"'),
        )
    ],
    # 894 - 7 of a part of 256 pages; the largest block has order 2. No node is printed.
    "mips-ath10k-5.15.log": [
        Right(
            _failure("ksoftirqd/0", 3, conclusion="block", certainty="certain"),
            {NORMAL: "block"},
            holds=('"module": "ath10k_core"',),
        )
    ],
    # 881 - 15 of a part of 255 pages; the largest block has order 3.
    "arm-ath9k-logread.log": [
        Right(
            _failure("kworker/0:3", 4, conclusion="block", certainty="certain", kernel="4.14.221"),
            {NORMAL: "block"},
            holds=('"function": "ath9k_hif_usb_alloc_urbs"', '"module": "ath9k_htc"'),
        )
    ],
    # 121 of 176 pages of 64 kB; no swap, and one page of files.
    "ppc64-oom-64k-4.18.log": [
        Right(
            {"event": "oom", "comm": "mysqld", "conclusion": "watermark", "out_of_memory": True, "harm": "killed"},
            {NORMAL: "watermark"},
            holds=('"kb": 3840768',),
        )
    ],
    # 937 - 31 of 774 pages; the largest block has order 3. 944 MB are above the zone that the request may use.
    "s390x-dma-5.14.log": [
        Right(
            _failure("kworker/3:1", 5, highest_zone="DMA", conclusion="block", certainty="certain"),
            {(0, "DMA"): "block", NORMAL: "excluded"},
            holds=('"module": "qeth"',),
        )
    ],
    # DMA32 4572 - 15 of 1280 + 4012 pages, Normal 1257 - 15 of 1790.
    "riscv-6.6.log": [
        Right(
            _failure("stmmac-tx", 4, conclusion="watermark", certainty="certain"),
            {(0, "DMA32"): "watermark", NORMAL: "watermark"},
            holds=('"function": "stmmac_open"',),
        )
    ],
    # 6116 - 7 of a part of 880 pages; the largest block has order 2, which is in a line that another CPU began.
    "serial-two-cpus.log": [
        Right(
            _failure("ksoftirqd/1", 3, conclusion="block", certainty="certain", contradictions=[]),
            {(0, "DMA32"): "block"},
            holds=('"function": "bcmgenet_rx_refill"',),
        )
    ],
    # Lines of kubelet and containerd stand between those of the kernel.
    "kubelet-memcg-6.8.log": [
        Right(
            {"event": "oom", "comm": "java", "conclusion": "memcg", "certainty": "certain", "harm": "killed"},
            {},
            holds=("kubepods-burstable-pod12.slice", "1,048,576 kB"),
        )
    ],
    # 24,288 of 524,288 kB are left, so it is memory with swap that is full.
    "memcg-swap-limit-5.4.log": [
        Right(
            {"event": "oom", "conclusion": "memcg", "certainty": "certain", "harm": "killed"},
            {},
            holds=("1,048,576 kB of 1,048,576 kB memory with swap", "memory.memsw.limit_in_bytes", "now 1.0 GB"),
            never=("524,288",),
        )
    ],
    # 2048 of 2048 kB kernel memory; of memory itself 3,000 of 524,288 kB.
    "memcg-kmem-limit-4.15.log": [
        Right(
            {"event": "oom", "conclusion": "memcg", "certainty": "certain", "harm": "killed"},
            {},
            holds=("2,048 kB of 2,048 kB kernel memory", "memory.kmem.limit_in_bytes"),
            never=("524,288",),
        )
    ],
    "memcg-no-victim-4.19.log": [
        Right(
            {"event": "oom", "conclusion": "memcg", "harm": "failed", "harm_line": 13},
            {},
            holds=("no process could be killed", "10,240 kB of 10,240 kB"),
        )
    ],
    # Three lines "Killed process" of one kill.
    "memcg-oom-group-6.8.log": [
        Right(
            {"event": "oom", "conclusion": "memcg", "harm": "killed"}, {}, holds=("every other process of its cgroup",)
        )
    ],
    # 1048576 - 23576 pages, less 12000 free, 9550 on the lists, 25000 slab, 5000 tables, 1000 stacks, 20: 3.7 GB.
    "profile-driver-6.14.log": [
        Right(
            {"event": "oom", "conclusion": "watermark", "certainty": "certain"},
            {NORMAL: "watermark"},
            holds=("3.2 GB of it are allocated at drivers/gpu/drm/ttm/ttm_pool.c:137",),
            never=("page_owner",),
        )
    ],
    # One request: vmalloc adds a guard page to its 32,768 bytes.
    "vmap-then-vmalloc-5.4.log": [
        Right(
            {
                "event": "vmap",
                "comm": "tracebox",
                "conclusion": "address_range",
                "certainty": "certain",
                "suppressed": 3,
            },
            holds=("vmalloc of 32 kB", "bpf_int_jit_compile"),
        )
    ],
    "vmap-old-3.2.log": [
        Right(
            {"event": "vmap", "comm": "insmod", "conclusion": "address_range", "certainty": "certain", "gfp": 0xD2},
            holds=("load_module",),
        )
    ],
    # 12000 of 12500 pages. Swap is full, and 50000 pages are on their way there: no file pages are dirty.
    "stall-swap-full-4.10.log": [
        Right(
            {"event": "stall", "conclusion": "watermark", "certainty": "certain", "harm": "retried"},
            {NORMAL: "watermark"},
            never=("vm.dirty_bytes", "vm.min_free_kbytes", "vm.watermark_scale_factor"),
        )
    ],
    # 25000 of 10000 + 15 pages; the zone's line has another one's loss before it. No block of order 4.
    "dropped-4.8.log": [
        Right(
            _failure("task", 4, certainty="certain", conclusion="block"), {NORMAL: "block"}, holds=("7 messages that",)
        )
    ],
    # 2500 of 2750 pages; eight of 20000 pages each.
    "oom-many-workers-4.19.log": [
        Right(
            {"event": "oom", "conclusion": "watermark", "certainty": "certain", "out_of_memory": True},
            {(0, "DMA32"): "watermark"},
            holds=("php-fpm, 8 processes hold 625 MB, 64 %",),
        )
    ],
    # 750 - 3 of 875 pages; Normal has room, and is above what the mask allows.
    "s390x-dma-5.10.log": [
        Right(
            _failure("modprobe", 2, conclusion="watermark", certainty="certain"),
            {(0, "DMA"): "watermark", NORMAL: "excluded"},
            holds=("let dasd_alloc_device use the DMA API", "1.5 GB are free in node 0 Normal"),
        )
    ],
    "missed-6.12.log": [
        Right({"event": "oom", "conclusion": "unknown", "harm": "killed"}, {}, holds=("120 messages",))
    ],
    # 120,000 kB are 1875 pages of 64 kB; 8060 of these are 504 MB.
    "memcg-64k-6.12.log": [
        Right(
            {"event": "oom", "conclusion": "memcg", "harm": "killed"},
            {},
            holds=("order 0 (64 kB)", "python3, 3 processes hold 504 MB", "524,200 kB of 524,288 kB"),
        )
    ],
    "docker-memcg-v1-4.18.log": [
        Right(
            {"event": "oom", "comm": "python3", "conclusion": "memcg", "constraint": "memcg", "harm": "killed"},
            {},
            holds=("/docker/4f1b", "524,288 kB"),
        )
    ],
    # DMA 2821 of 3 + 31512 pages, DMA32 9995 of 1453 + 28700, Normal 10831 of 16703. What systemd-oomd killed is none.
    "systemd-oomd-6.12.log": [
        Right(
            {"event": "oom", "comm": "ld.lld", "conclusion": "watermark", "certainty": "certain", "harm": "killed"},
            {(0, "DMA"): "watermark", (0, "DMA32"): "watermark", NORMAL: "watermark"},
            never=("firefox",),
        )
    ],
    # No page at all, for a task that no watermark stops.
    "zram-6.1.log": [
        Right(_failure("kswapd0", 0, conclusion="watermark", certainty="certain"), {(0, "DMA"): "watermark"}),
    ],
    # 207881 - 31 of 11203 pages; the largest block has order 3. What XFS says before is no report of the allocator.
    "xfs-deadlock-4.4.log": [
        Right(
            _failure("rsync", 5, conclusion="block", certainty="certain", kernel="4.4.0-210-generic"),
            {NORMAL: "block"},
            holds=('"function": "xfs_iext_realloc_indirect"', '"subsystem": "XFS"'),
        )
    ],
    # DMA32 has 40 blocks of order 8, Normal 3 of order 7.
    "nvidia-order10-6.5.log": [
        Right(
            _failure("Xorg", 10, conclusion="block", certainty="certain", out_of_memory=False),
            {(0, "DMA32"): "block", NORMAL: "block"},
            holds=('"module": "nvidia"',),
        )
    ],
    # The largest block has order 7; TTM then asks for smaller ones.
    "amdgpu-order9-6.17.log": [
        Right(
            _failure("kwin_wayland", 9, conclusion="block", certainty="certain", harm="fallback"),
            {NORMAL: "block"},
            holds=('"function": "amdgpu_bo_create"',),
        )
    ],
    # 1469 of 1753 pages.
    "stall-4.14.log": [
        Right(
            {"event": "stall", "comm": "mysqld", "order": 0, "conclusion": "watermark", "certainty": "certain"},
            {(0, "DMA32"): "watermark"},
            holds=("21012ms",),
        )
    ],
    # Two ranges of 262,144 pages, and the two huge pages of 1 GB that there are.
    "hugetlb-contig-5.10.log": [
        Right({"event": "contig", "conclusion": "contiguous_range", "count": 2}, {}),
        Right({"event": "hugetlb", "harm": "failed"}, {}),
    ],
    "slub-6.12.log": [Right({"event": "slub", "order": 0, "gfp_text": "GFP_ATOMIC|__GFP_ZERO"}, {})],
    # 166873 - 31 of 11253 pages; the largest block has order 4.
    "zfs-5.15.log": [
        Right(
            _failure("z_wr_iss", 5, conclusion="block", certainty="certain"),
            {NORMAL: "block"},
            holds=('"function": "abd_alloc_chunks"', '"module": "zfs"'),
        )
    ],
    # 274 of 2030 pages, in a quoted mail.
    "btrfs-quoted-6.6.log": [
        Right(
            _failure("btrfs-transacti", 0, conclusion="watermark", certainty="certain"),
            {NORMAL: "watermark"},
            holds=('"function": "alloc_extent_buffer"',),
        )
    ],
    # 5000 - 3 of 4000 pages, the largest block has order 1, both times. The first boot's kernel is named after its
    # first report; the second boot's clock begins anew, and nothing names its kernel.
    "release-named-later.log": [
        Right(
            _failure("early", 2, kernel="6.1.100", conclusion="block", certainty="certain"),
            {NORMAL: "block"},
            holds=("only later (line 12), within the same boot",),
        ),
        Right(_failure("early", 2, kernel="6.1.100", conclusion="unknown"), {}, never=("only later",)),
        Right(_failure("late", 2, kernel=None, conclusion="block"), {NORMAL: "block"}, never=("6.1.100",)),
    ],
    # 5000 - 511 of 2000 pages, the largest block has order 1.
    "hugetlb-surplus-6.6.log": [
        Right(
            _failure("db", 9, conclusion="block", certainty="certain", harm="failed"),
            {NORMAL: "block"},
            holds=('"function": "hugetlb_no_page"', "SIGBUS", '"hugepages="'),
            never=("kvmalloc",),
        )
    ],
    # 5000 - 1023 of 2000 pages, likewise.
    "videobuf2-6.6.log": [
        Right(
            _failure("cam", 10, conclusion="block", certainty="certain"),
            {NORMAL: "block"},
            holds=('"function": "vb2_core_reqbufs"', '"subsystem": "video buffers"'),
        )
    ],
    "page-fault-3.16.log": [Right({"event": "oom", "comm": "Xorg", "conclusion": "no_request"}, never=("find_lock",))],
}
"""By the name of the file."""


def _path(name: str) -> Path:
    return next(folder / name for folder in (DATA, READING, JUDGING) if (folder / name).exists())


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers(name: str) -> None:
    """Each report is there, and what the log shows is said of it."""
    answers = sorted(answers_to(_path(name).read_bytes()), key=lambda answer: answer["line"])
    assert len(answers) == len(RIGHT[name])
    for answer, right in zip(answers, RIGHT[name], strict=True):
        assert {key: answer.get(key) for key in right.facts} == right.facts
        if right.zones is not None:
            assert verdicts(answer) == right.zones
        text = json.dumps(answer, ensure_ascii=False)
        assert [each for each in right.holds if each not in text] == []
        assert [each for each in right.never if each in text] == []


def test_there_are_many_logs_each_with_an_answer() -> None:
    """At least sixty, none without a test."""
    logs = [path for folder in (DATA, READING, JUDGING, FIRST) for path in folder.iterdir() if path.is_file()]
    tests = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    assert len(logs) >= 60
    assert [path.name for path in logs if path.name not in tests and path.name not in RIGHT] == []
