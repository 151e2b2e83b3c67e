# SPDX-License-Identifier: MIT
"""The answers about a failure; each expected value was worked out by hand from the lines of the log."""

import re
from pathlib import Path

import pytest

from kalloctrace.diagnose.answers.answers import Answers, answer
from kalloctrace.diagnose.from_log import Failure, explain_failure
from kalloctrace.diagnose.reports.pairing import find_failures
from kalloctrace.logs.messages import read_messages
from tests.failure_text import failure_text

DATA = Path(__file__).parent / "data" / "failures"
ATOMIC = "web: page allocation failure: order:0, mode:0x820(GFP_ATOMIC), nodemask=(null),cpuset=/,mems_allowed=0"
KERNEL = "web: page allocation failure: order:4, mode:0x40c40(GFP_NOFS|__GFP_COMP), nodemask=(null)"
TASK = "CPU: 3 PID: 1108 Comm: web Not tainted {release} #1"
ALLOCATOR = " dump_stack_lvl+0x5c/0x7c\n warn_alloc+0xec/0x184\n __alloc_pages_slowpath.constprop.0+0x21c/0x730\n"
FRAGMENTED = """Mem-Info:
Node 0 Normal free:126872kB boost:0kB min:63960kB low:79948kB high:95936kB reserved_highatomic:0KB free_cma:0kB
lowmem_reserve[]: 0 0 0 0 0
Node 0 Normal: 10995*4kB (UME) 3433*8kB (UME) 3233*16kB (UME) 124*32kB (UME) 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB \
0*2048kB 0*4096kB = 127140kB"""
LOW = """Mem-Info:
active_anon:100000 inactive_anon:50000 isolated_anon:0
 active_file:300000 inactive_file:400000 isolated_file:0
 unevictable:0 dirty:1000 writeback:0
 slab_reclaimable:20000 slab_unreclaimable:30000
 mapped:1000 shmem:5000 pagetables:4000
 free:3000 free_pcp:0 free_cma:0
Node 0 Normal free:12000kB boost:0kB min:45056kB low:56320kB high:67584kB reserved_highatomic:0KB free_cma:0kB \
present:4194304kB managed:4096000kB
lowmem_reserve[]: 0 0 0 0 0
Node 0 Normal: 3000*4kB (UME) 0*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB 0*2048kB 0*4096kB = 12000kB
Free swap  = 1000000kB
Total swap = 2000000kB
1048576 pages RAM
24576 pages reserved"""


def log(first: str, *frames: str, state: str = FRAGMENTED, release: str = "6.5.0") -> str:
    """Return a log of one failure with a call trace."""
    trace = "Call Trace:\n" + ALLOCATOR + "".join(f" {frame}\n" for frame in frames) if frames else ""
    return f"{first}\n{TASK.format(release=release)}\n{trace}{state}\n"


def judged(text: str) -> tuple[Failure, Answers]:
    """Return the only failure of a log, and its answers."""
    [logged] = find_failures(read_messages(text.split("\n")))
    failure = explain_failure(logged)
    return failure, answer(failure)


def answers_of(text: str) -> Answers:
    """Return the answers of a log with one failure."""
    return judged(text)[1]


def settings(answers: Answers) -> dict[str | None, int | str | None]:
    """Return the values of the advice, by setting."""
    return {advice.setting: advice.value for advice in answers.advice}


BTRFS = (
    "__alloc_frozen_pages_noprof+0x230/0x260",
    "___kmalloc_large_node+0xd4/0xf0",
    "__kmalloc_noprof+0x1c8/0x260",
    "btrfs_lookup_bio_sums+0x214/0x278 [btrfs]",
    "btrfs_submit_chunk+0xf0/0x3c0 [btrfs]",
    "filemap_read+0xc4/0x3bc",
    "__arm64_sys_read+0x18/0x24",
)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (BTRFS, ("btrfs_lookup_bio_sums", "btrfs", "Btrfs")),
        (
            ("usb_alloc_coherent+0x1/0x2 [usbcore]", "uvc_alloc_urb_buffers+0x9/0x20 [uvcvideo]", "uvc_ioctl+0x1/0x2"),
            ("uvc_alloc_urb_buffers", "uvcvideo", "USB video (uvcvideo)"),
        ),
        (
            ("alloc_pages+0x1/0x2", "binder_install_single_page+0x5/0x10", "binder_ioctl+0x1/0x2"),
            ("binder_install_single_page", None, "binder"),
        ),
        (
            ("page_frag_alloc+0x1/0x2", "__netdev_alloc_skb+0x1/0x2", "rtl_rx+0x9/0x10 [rtl8180]", "el1_irq+0x1/0x2"),
            ("rtl_rx", "rtl8180", "rtl8180"),
        ),
        (
            (
                "vma_alloc_folio+0x1/0x2",
                "do_anonymous_page+0x1/0x2",
                "handle_mm_fault+0x1/0x2",
                "exc_page_fault+0x1/0x2",
            ),
            ("do_anonymous_page", None, "page fault of a process"),
        ),
        # A stale entry of the stack is no caller.
        (("kmalloc_order+0x1/0x2", "? xfs_log_done+0x1/0x2", "ext4_mb_init+0x1/0x2"), ("ext4_mb_init", None, "ext4")),
        # The page fault itself is named where nothing else is left.
        (("alloc_pages_vma+0x1/0x2", "exc_page_fault+0x1/0x2"), ("exc_page_fault", None, "page fault of a process")),
        (("__alloc_skb+0x1/0x2", "entry_SYSCALL_64_after_hwframe+0x1/0x2"), ("__alloc_skb", None, None)),
    ],
)
def test_caller(frames: tuple[str, ...], expected: tuple[str, str | None, str | None]) -> None:
    """The caller is the innermost function that is neither of an allocator nor of a library."""
    caller = answers_of(log(KERNEL, *frames)).caller
    assert caller is not None
    assert (caller.function, caller.module, caller.subsystem) == expected
    assert caller.line is not None


def test_no_caller() -> None:
    """Without a call trace, or with one of allocators alone, nobody is named."""
    assert answers_of(log(KERNEL)).caller is None
    assert answers_of(log(KERNEL, "__alloc_pages+0x230/0x260")).caller is None


HUGE = (
    "web: page allocation failure: order:9, "
    "mode:0x3d24ca(GFP_TRANSHUGE|__GFP_NORETRY|__GFP_THISNODE), nodemask=(null),cpuset=/,mems_allowed=0"
)


@pytest.mark.parametrize(
    ("first", "frames", "harm", "certainty"),
    [
        (HUGE, ("do_huge_pmd_anonymous_page+0x1/0x2", "handle_mm_fault+0x1/0x2"), "fallback", "certain"),
        (HUGE, ("alloc_charge_folio+0x1/0x2", "khugepaged+0x1/0x2"), "retried", "certain"),
        (KERNEL, BTRFS, "failed", "certain"),
        (KERNEL, ("usb_alloc_coherent+0x1/0x2", "uvc_alloc_urb_buffers+0x9/0x20 [uvcvideo]"), "fallback", "likely"),
        (ATOMIC, ("__netdev_alloc_skb+0x1/0x2", "rtl_rx+0x9/0x10 [rtl8180]"), "dropped", "likely"),
        # The same functions of a request that may wait: nothing is received there.
        (KERNEL, ("__netdev_alloc_skb+0x1/0x2", "rtl_open+0x9/0x10 [rtl8180]"), "unknown", "unknown"),
        (ATOMIC, ("__alloc_skb+0x1/0x2", "__tcp_send_ack+0x1/0x2"), "retried", "certain"),
        (ATOMIC, (), "unknown", "unknown"),
        # A single page is what the fallback of a large folio asks for.
        (KERNEL.replace("order:4", "order:0"), ("alloc_anon_folio+0x1/0x2", "do_fault+0x1/0x2"), "unknown", "unknown"),
        (
            KERNEL,
            ("alloc_pages+0x1/0x2", "atomic_pool_expand+0x1/0x2", "do_one_initcall+0x1/0x2"),
            "fallback",
            "certain",
        ),
        (KERNEL, ("kmalloc_order+0x1/0x2", "some_driver_open+0x1/0x2 [some]"), "unknown", "unknown"),
        # A fallback below who asked is not who asked's.
        (KERNEL, ("some_ioctl+0x1/0x2 [some]", "uvc_alloc_urb_buffers+0x1/0x2 [uvcvideo]"), "unknown", "unknown"),
        (
            KERNEL.replace("__GFP_COMP", "__GFP_COMP|__GFP_NORETRY").replace("0x40c40", "0x50c40"),
            (),
            "fallback",
            "likely",
        ),
    ],
)
def test_harm(first: str, frames: tuple[str, ...], harm: str, certainty: str) -> None:
    """What a caller does without the memory decides whether it does harm; who is not in the table is unknown."""
    found = answers_of(log(first, *frames)).harm
    assert (found.kind, found.certainty) == (harm, certainty)


def test_harm_of_a_system_call() -> None:
    """A caller that is not in the table may hand the error to the system call that the trace shows."""
    frames = ("__kmalloc+0x1/0x2", "some_ioctl+0x1/0x2 [some]", "__x64_sys_ioctl+0x1/0x2", "do_syscall_64+0x1/0x2")
    harm = answers_of(log(KERNEL, *frames)).harm
    assert harm.kind == "unknown"
    assert "the system call ioctl" in harm.why


def test_harmless_needs_no_change() -> None:
    """Where the caller has another way, nothing else is advised."""
    [only] = answers_of(log(HUGE, "do_huge_pmd_anonymous_page+0x1/0x2")).advice
    assert only.text.startswith("nothing has to change")
    assert (only.setting, only.value, only.certainty) == (None, None, "certain")


@pytest.mark.parametrize(
    ("line", "harm", "setting", "value"),
    [
        ("cma: cma_alloc: alloc failed, req-size: 19200 pages, ret: -12", "failed", "cma=", None),
        ("cma: cma_alloc: alloc failed, req-size: 8 pages, ret: -12", "fallback", None, None),
        ("cma: cma_alloc: alloc failed, req-size: 9 pages, ret: -12", "unknown", "cma=", None),
        (
            "vmap allocation for size 16781312 failed: use vmalloc=<size> to increase size.",
            "failed",
            "vmalloc=",
            None,
        ),
    ],
)
def test_other_reports(line: str, harm: str, setting: str | None, value: int | None) -> None:
    """CMA, unless it asked for more than a block, has ordinary pages as another way; addresses have none."""
    answers = answers_of(f"{line}\n")
    assert answers.harm.kind == harm
    assert settings(answers) == {setting: value}


def test_cma_size() -> None:
    """19,200 pages of 4 kB are 75 MB, so 76 in steps of 4; twice that, or on top of the 64 MB that the area has."""
    text = "cma: cma_alloc: reserved: alloc failed, req-size: 19200 pages, ret: -12\n"
    shown = "cma: number of available pages: 3@125+20@236+1024@512=> 1047 free of 16384 total pages\n"
    for lines, size in ((text, "152M"), (text + shown, "140M")):
        [logged] = find_failures(read_messages(lines.split("\n")))
        assert settings(answer(explain_failure(logged, page_kb=4))) == {"cma=": size}


def test_slub() -> None:
    """A cache of the network is of a packet, and one of a cgroup has that cgroup's limit."""
    first = (
        "SLUB: Unable to allocate memory on node -1, gfp={mask}\n  cache: {cache}, object size: 232, buffer size: 256, "
    )
    first += "default order: 2, min order: 0\n"
    packet = answers_of(first.format(mask="0x820(GFP_ATOMIC)", cache="skbuff_head_cache"))
    assert packet.harm.kind == "dropped"
    [only] = answers_of(first.format(mask="0xcc0(GFP_KERNEL)", cache="kmalloc-64(17:service)")).advice
    assert only.setting == "memory.max"
    assert "service" in only.text


def test_fragmentation_is_no_lack_of_memory() -> None:
    """Enough pages in small blocks: the machine has memory, and a smaller order would do."""
    answers = answers_of(log(KERNEL, *BTRFS))
    assert answers.memory.verdict is False
    assert settings(answers) == {"order": 3, "vm.compact_memory": 1}
    assert "btrfs_lookup_bio_sums" in answers.advice[0].text


def test_atomic_request() -> None:
    """Twice min, 45,056 kB; low is 11,264 kB above it, and 22,528 of 4,096,000 kB are 55 ten-thousandths."""
    answers = answers_of(log(ATOMIC, state=LOW))
    assert settings(answers) == {"vm.min_free_kbytes": 90112, "vm.watermark_scale_factor": 55}
    assert answers.memory.verdict is False


def test_old_kernel_has_no_scale_factor() -> None:
    """watermark_scale_factor is of 4.6."""
    assert set(settings(answers_of(log(ATOMIC, state=LOW, release="4.5.0")))) == {"vm.min_free_kbytes"}


def test_atomic_request_of_many_pages() -> None:
    """Nothing frees or compacts for it, so no setting makes it reliable."""
    first = ATOMIC.replace("order:0", "order:5")
    [only] = answers_of(log(first, "some_irq+0x1/0x2 [some]", state=LOW)).advice
    assert only.setting is None
    assert "some_irq" in only.text
    assert "GFP_ATOMIC" in only.text


def test_boost() -> None:
    """A zone that only its boost keeps below the watermark: vm.watermark_boost_factor=0."""
    state = LOW.replace("free:12000kB boost:0kB", "free:40000kB boost:20000kB").replace("3000*4kB", "10000*4kB")
    state = state.replace("= 12000kB", "= 40000kB")
    kernel = KERNEL.replace("order:4", "order:0")
    # Higher watermarks would only raise the limit that refused it.
    assert settings(answers_of(log(kernel, state=state))) == {"vm.watermark_boost_factor": 0}


def test_watermarks_are_left_alone_where_lowmem_reserve_refused() -> None:
    """DMA32 has 60,000 kB, above min 45,056; with 4,096 pages of reserve it would need 61,440: a ratio twice as large.

    14,944 kB above min are 3,736 pages, of which 3,735 may be kept: 4,096 / 3,735 is more than 1.
    """
    state = LOW.replace("Normal free:12000kB", "DMA32 free:60000kB").replace("[]: 0 0 0 0 0", "[]: 0 0 4096 4096 4096")
    state = state.replace("Normal: 3000*4kB", "DMA32: 15000*4kB").replace("= 12000kB", "= 60000kB")
    answers = answers_of(log(ATOMIC.replace("0x820(GFP_ATOMIC)", "0xcc0(GFP_KERNEL)"), state=state))
    assert settings(answers) == {"vm.lowmem_reserve_ratio": None}
    assert "DMA32" in answers.advice[0].text
    assert "2 times" in answers.advice[0].text


def test_watermarks_are_raised_for_the_zone_that_they_refused() -> None:
    """DMA, which its reserve refused, has no part in it: min and managed are Normal's."""
    dma = """Node 0 DMA free:15360kB boost:0kB min:64kB low:80kB high:96kB reserved_highatomic:0KB free_cma:0kB \
present:15992kB managed:15360kB
lowmem_reserve[]: 0 0 4000 4000 4000
"""
    state = LOW.replace("Node 0 Normal free", f"{dma}Node 0 Normal free")
    # (45,056 + 64) kB twice, in whole MB; 22,528 of 4,096,000 kB.
    assert settings(answers_of(log(ATOMIC, state=state))) == {
        "vm.min_free_kbytes": 91136,
        "vm.watermark_scale_factor": 55,
    }


OOM = """cc1 invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO), order=0, oom_score_adj=0
CPU: 3 PID: 4 Comm: cc1 Not tainted 6.1.1 #1
Mem-Info:
active_anon:600000 inactive_anon:300000 isolated_anon:0
 active_file:100 inactive_file:200 isolated_file:0
 unevictable:0 dirty:0 writeback:0
 slab_reclaimable:5000 slab_unreclaimable:9000
 mapped:1000 shmem:150000 pagetables:6000
 free:11000 free_pcp:0 free_cma:0
Node 0 active_anon:2400000kB inactive_anon:1200000kB active_file:400kB inactive_file:800kB unevictable:0kB \
kernel_stack:8000kB all_unreclaimable? yes
Node 0 Normal free:44000kB boost:0kB min:45056kB low:56320kB high:67584kB reserved_highatomic:0KB free_cma:0kB \
present:4194304kB managed:4096000kB
lowmem_reserve[]: 0 0 0 0 0
Node 0 Normal: 11000*4kB (UME) 0*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB 0*2048kB 0*4096kB = 44000kB
Node 0 hugepages_total=10 hugepages_free=6 hugepages_surp=0 hugepages_size=2048kB
Free swap  = 84kB
Total swap = 2000000kB
1048576 pages RAM
24576 pages reserved
Tasks state (memory values in pages):
[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name
[     77]     0    77     9000     1000    45056        0             0 sshd
[    900]  1000   900  1000000   700000  5000000     2000             0 cc1
oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/,task=cc1,pid=900,\
uid=1000
Out of memory: Killed process 900 (cc1) total-vm:4000000kB, anon-rss:2800000kB, file-rss:0kB, shmem-rss:0kB, UID:1000
"""


def test_true_oom() -> None:
    """No swap, nothing to free, given up: it is out of memory, so no watermark helps, and no what-if is told."""
    answers = answers_of(OOM)
    assert answers.memory.verdict is True
    assert answers.harm.kind == "killed"
    assert answers.what_if == ()
    assert settings(answers) == {"memory.max": None, "size=": None, "vm.nr_hugepages": 4}
    assert all(advice.line for advice in answers.advice)


def test_holders() -> None:
    """The largest task has 700,000 pages. Of 4,096,000 kB counters have 3,725,200, stacks 8,000, huge pages 20,480."""
    answers = answers_of(OOM)
    tasks = [(holder.what, holder.pid, holder.kilobytes) for holder in answers.holders if holder.kind == "task"]
    assert tasks == [("cc1", 900, 2_800_000)]
    *_, last = answers.holders
    assert (last.kind, last.kilobytes) == ("unaccounted", 4_096_000 - 3_725_200 - 8_000 - 20_480)
    sizes = [holder.kilobytes for holder in answers.holders[:-1]]
    assert sizes == sorted(sizes, reverse=True)
    assert ("shmem", 600_000) in [(holder.kind, holder.kilobytes) for holder in answers.holders]


def test_unaccounted_needs_every_counter() -> None:
    """Without one of the counters nothing can be said of what nobody accounts for."""
    for name in ("slab_unreclaimable:9000", "unevictable:0 dirty", "free:11000 ", "pages RAM"):
        kinds = [holder.kind for holder in answers_of(OOM.replace(name, "x:1 ")).holders]
        assert "unaccounted" not in kinds, name


def test_fewer_lines_are_never_more_certain() -> None:
    """Without any one line the answer to "is it out of memory" is the same, or unknown."""
    real = [(DATA / name).read_text() for name in ("3.13-order4.log", "4.14-oom.log")]
    for text in (OOM, log(ATOMIC, state=LOW), log(KERNEL), *real):
        verdict = answers_of(text).memory.verdict
        lines = text.split("\n")
        for at in range(1, len(lines)):
            shorter = "\n".join([*lines[:at], *lines[at + 1 :]])
            found = find_failures(read_messages(shorter.split("\n")))
            cut = {answer(explain_failure(logged)).memory.verdict for logged in found}
            assert cut <= {verdict, None}, lines[at]


def test_no_swap() -> None:
    """Processes hold 3,600,000 of 4,096,000 kB, and there is no swap: add some."""
    text = OOM.replace("Free swap  = 84kB", "Free swap  = 0kB").replace("Total swap = 2000000kB", "Total swap = 0kB")
    answers = answers_of(text)
    assert answers.memory.verdict is True
    assert "swap" in settings(answers)
    assert "there is no swap" in [reason.text for reason in answers.memory.reasons]


def test_reclaimable_memory() -> None:
    """Without swap, 600,000 kB of file pages are more than a tenth of 4,096,000 kB; 200,000 kB decide nothing.

    Where kswapd has given up the machine is out of memory, and where the log does not say so no number decides.
    """
    text = log(ATOMIC, state=LOW).replace("= 1000000kB", "= 0kB").replace("= 2000000kB", "= 0kB")
    reclaims = "Node 0 active_anon:400000kB inactive_anon:200000kB all_unreclaimable? no\n"
    for active, node, verdict in (
        (50_000, reclaims, False),
        (50_000, reclaims.replace("? no", "? yes"), True),
        (50_000, "", None),
        (0, reclaims, None),
    ):
        files = f"active_file:{active} inactive_file:{active + 50_000}"
        shown = text.replace("active_file:300000 inactive_file:400000", files)
        shown = shown.replace("Node 0 Normal free:", f"{node}Node 0 Normal free:")
        assert answers_of(shown).memory.verdict is verdict


def test_slab_in_use() -> None:
    """All of the reclaimable slab may be in use, as that of open files is: it proves no room."""
    text = log(ATOMIC, state=LOW).replace("= 1000000kB", "= 0kB").replace("= 2000000kB", "= 0kB")
    text = text.replace("active_file:300000 inactive_file:400000", "active_file:0 inactive_file:0")
    slab = re.sub(r"slab_reclaimable:\d+", "slab_reclaimable:400000", text)
    assert slab != text
    memory = answers_of(slab).memory
    assert memory.verdict is None
    assert "0 kB of file pages and up to 1.5 GB of slab caches can be freed" in [each.text for each in memory.reasons]


def test_room_in_small_blocks() -> None:
    """80,000 kB are above min, and below the 95,936 kB that kswapd would keep free, so they show no room."""
    state = FRAGMENTED.replace("free:126872kB", "free:80000kB").replace("10995*4kB", "0*4kB").replace("127140", "83160")
    assert answers_of(log(KERNEL, state=state)).memory.verdict is None


def test_free_pages_that_no_zone_shows() -> None:
    """The machine counts 2,000,000 kB of free pages, of which the zones have 44,000: some zones are missing."""
    assert answers_of(OOM.replace(" free:11000 ", " free:500000 ")).memory.verdict is None


def test_this_node() -> None:
    """No policy or cpuset gives another node to __GFP_THISNODE."""
    text = (DATA / "made-two-nodes.log").read_text()
    first, second = (answer(explain_failure(logged)) for logged in find_failures(read_messages(text.split("\n"))))
    assert not {"mempolicy", "cpuset.mems"} & set(settings(first))
    assert settings(second) == {"cpuset.mems": "0"}


def test_dirty_pages() -> None:
    """100,000 of 150,000 file pages must be written before they can be freed: half of them, 200,000 kB, are 195 MB."""
    text = OOM.replace("active_file:100 inactive_file:200", "active_file:50000 inactive_file:100000", 1)
    text = text.replace(" unevictable:0 dirty:0 writeback:0", " unevictable:0 dirty:90000 writeback:10000")
    assert settings(answers_of(text))["vm.dirty_bytes"] == 195 << 20
    less = text.replace("dirty:90000 writeback:10000", "dirty:60000 writeback:10000")
    assert "vm.dirty_bytes" not in settings(answers_of(less))


def test_swap_left_is_no_lack_of_memory() -> None:
    """Half of the swap is free, and processes have much that could go there."""
    text = OOM.replace("Free swap  = 84kB", "Free swap  = 1000000kB")
    assert answers_of(text).memory.verdict is False


def test_memory_policy() -> None:
    """What the policy forbids is free: let it prefer the node."""
    text = OOM.replace("CONSTRAINT_NONE,nodemask=(null)", "CONSTRAINT_MEMORY_POLICY,nodemask=0")
    text = text.replace(" free:11000 ", " free:500000 ")
    answers = answers_of(text)
    assert answers.memory.verdict is False
    assert settings(answers) == {"mempolicy": "preferred"}


def test_free_memory_that_is_closed() -> None:
    """A CMA area of 512 MB has nearly all free low memory, and HighMem is closed to the kernel: half of it."""
    state = """Mem-Info:
active_anon:239 inactive_anon:6756 isolated_anon:0
 free:919956 free_pcp:23 free_cma:128398
DMA free:515724kB boost:0kB min:3212kB low:4012kB high:4812kB reserved_highatomic:0KB managed:666228kB \
free_cma:513592kB
lowmem_reserve[]: 0 0 7220 7220
HighMem free:3164100kB boost:0kB min:512kB low:9316kB high:18120kB reserved_highatomic:0KB managed:7393280kB \
free_cma:0kB
lowmem_reserve[]: 0 0 0 0
DMA: 0*4kB 0*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 1*1024kB (U) 2*2048kB (C) 125*4096kB (C) = 517120kB
Free swap  = 0kB
Total swap = 0kB
131072 pages cma reserved"""
    first = "web invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    answers = answers_of(log(first, "__get_free_pages+0x1/0x2", "proc_pid_cmdline_read+0x1/0x2", state=state))
    assert answers.memory.verdict is False
    assert settings(answers) == {"cma=": "256M", None: None}
    assert "64-bit" in answers.advice[1].text
    assert answers.caller is not None
    assert answers.caller.line == 8


def test_memory_cgroup() -> None:
    """The limit is named with its cgroup; the machine's memory is unknown."""
    text = """web invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
CPU: 4 PID: 635 Comm: web Not tainted 6.1.0-49-amd64 #1
memory: usage 204800kB, limit 204800kB, failcnt 2012
Tasks state (memory values in pages):
[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name
[    635]     0   635     9000    10000    45056        0             0 web
[    640]     0   640    90000    40960    45056        0             0 worker
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/web,task_memcg=/web,task=web,\
pid=635,uid=0
"""
    answers = answers_of(text)
    assert answers.memory.verdict is None
    [only] = answers.advice
    assert (only.setting, only.certainty, only.line) == ("memory.max", "certain", 3)
    assert "/web" in only.text
    assert "worker (pid 640) holds 160 MB" in only.text
    assert "200 MB" in only.text


RESERVED = """Mem-Info:
Node 0 Normal free:60000kB boost:0kB min:45056kB low:56320kB high:67584kB reserved_highatomic:{reserved}KB \
free_cma:0kB managed:4096000kB
lowmem_reserve[]: 0 0 0 0 0
Node 0 Normal: 14488*4kB (UME) 0*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 2*1024kB (H) 0*2048kB \
0*4096kB = 60000kB"""


@pytest.mark.parametrize(
    ("release", "reserved", "found"),
    [
        ("6.5.0", 20480, True),
        # 60,000 - 14,944 kB are exactly min: refused. One page less would pass, and then it is no refusal.
        ("6.5.0", 14944, True),
        ("6.5.0", 14940, False),
        # All of the reserve is free: the number is right.
        ("6.5.0", 2048, False),
        ("6.13.0", 20480, False),
        ("5.14.0-362.el9.x86_64", 20480, False),
    ],
)
def test_highatomic_bug(release: str, reserved: int, found: bool) -> None:
    """The reserve is counted in whole blocks, of which 2,048 kB are free: c928807f6f6b in 6.13."""
    kernel = KERNEL.replace("order:4", "order:0")
    answers = answers_of(log(kernel, state=RESERVED.format(reserved=reserved), release=release))
    assert [bug.commit for bug in answers.known_bugs] == (["c928807f6f6b"] if found else [])


def test_btrfs_bug() -> None:
    """The trace shows kmalloc, so this kernel lacks the change, whatever its release is; with it kvmalloc is shown."""
    for release in ("6.1.0", "5.14.0-362.el9.x86_64", "6.18.1"):
        bugs = answers_of(log(KERNEL, *BTRFS, release=release)).known_bugs
        expected = [] if "el9" in release else ["cfc7fe2b0f18"]
        assert [bug.commit for bug in bugs] == expected
    changed = (*BTRFS[:3], "__kvmalloc_node_noprof+0x1/0x2", *BTRFS[3:])
    assert answers_of(log(KERNEL, *changed)).known_bugs == ()
    assert answers_of(log(KERNEL.replace("order:4", "order:0"), *BTRFS)).known_bugs == ()


def test_stall_bug() -> None:
    """4.9 to 4.14 print stalls."""
    stall = "web: page allocation stalls for 10079ms, order:0, mode:0x14000c0(GFP_KERNEL), nodemask=(null)"
    answers = answers_of(log(stall, release="4.12.0"))
    assert [bug.fixed_in for bug in answers.known_bugs] == ["4.15"]
    assert answers.harm.kind == "retried"


def test_early_oom_bug() -> None:
    """4.7.0 kills for order 2 although there are enough pages; 4.8 does not have the bug."""
    first = "cc1 invoked oom-killer: gfp_mask=0x24040c0(GFP_KERNEL|__GFP_COMP), order={order}, oom_score_adj=0"
    state = FRAGMENTED.replace("3233*16kB (UME) 124*32kB (UME)", "0*16kB 0*32kB").replace("127140", "71444")
    for order, release, found in ((2, "4.7.0", True), (2, "4.8.0", False), (2, "4.6.7", False)):
        answers = answers_of(log(first.format(order=order), state=state, release=release))
        assert bool(answers.known_bugs) is found


def printed(text: str) -> list[str]:
    """Return the lines that are printed about a log."""
    return failure_text([judged(text)[0]]).split("\n")


@pytest.mark.parametrize("text", [OOM, log(KERNEL, *BTRFS), log(ATOMIC, "__netdev_alloc_skb+0x1/0x2", state=LOW)])
def test_text(text: str) -> None:
    """The answers come first: at most 24 lines of 80 columns before the zones, each with the line that supports it."""
    lines = printed(text)
    before = lines[: next(at for at, line in enumerate(lines) if line.startswith("zone "))]
    assert len(before) <= 24
    assert max(map(len, before)) <= 80
    words = " ".join(" ".join(before).split())
    for heading in ("harmful?", "why", "out of memory?", "what to change"):
        assert heading in words
    assert words.count("(line ") >= 6
    details = lines[len(before) :]
    assert not any("harmful?" in line for line in details)


def test_text_of_what_if() -> None:
    """The what-if list says that it is no advice, and a true OOM has none."""
    assert any("is not advice" in line for line in printed(log(KERNEL)))
    assert not any("let it pass" in line for line in printed(OOM))
