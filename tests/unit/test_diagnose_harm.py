# SPDX-License-Identifier: MIT
"""Whether a failure does harm, for each event and each row of the table of fallbacks."""

from typing import Any

import pytest

from kalloctrace.diagnose.answers.answers import answer
from kalloctrace.diagnose.answers.types import Harm
from kalloctrace.diagnose.reports.model import Cache, Frame, Killed, LoggedZone
from tests.diagnosed import MARKS, judged, zone

LOW = zone(100)
ATOMIC, KERNEL = ("GFP_ATOMIC",), ("GFP_KERNEL",)
NORETRY, MAYFAIL = ("GFP_KERNEL", "__GFP_NORETRY"), ("GFP_KERNEL", "__GFP_RETRY_MAYFAIL")


def harm(*functions: str, **more: Any) -> Harm:  # noqa: ANN401
    """Return the harm of a failure that these functions led to, innermost first; the trace begins in line 20."""
    trace = tuple(Frame(function, None, reliable=True) for function in functions)
    lines = tuple(range(20, 20 + len(trace)))
    return answer(judged(LOW, **{"trace": trace, "trace_lines": lines, **more})).harm


KILLED = Killed(5, 9, "web", 90_000, 4000, None, 8)


def test_a_process_was_killed() -> None:
    """Its resident memory is said, as far as it is printed."""
    found = harm(event="oom", killed=KILLED)
    assert (found.kind, found.certainty, found.line) == ("killed", "certain", 5)
    assert found.why.endswith("killed web (pid 9), which held 4,008 kB")
    found = harm(event="oom", killed=KILLED._replace(anon_rss_kb=1, file_rss_kb=2, shmem_rss_kb=None))
    assert found.why.endswith("held 3 kB")
    none = KILLED._replace(anon_rss_kb=None, file_rss_kb=None, shmem_rss_kb=None)
    assert harm(event="oom", killed=none).why.endswith("killed web (pid 9)")
    group = harm(event="oom", killed=none, kills_group=True)
    assert group.why.endswith("killed web (pid 9), and every other process of its cgroup (memory.oom.group)")


def test_no_process_could_be_killed() -> None:
    """The request gets nothing; SysRq f has none."""
    found = harm(event="oom", no_victim=8)
    assert (found.kind, found.certainty, found.line) == ("failed", "likely", 8)
    assert found.why.startswith("no process could be killed: ")
    found = harm(event="oom", no_victim=8, order=-1)
    assert (found.kind, found.certainty, found.line) == ("unknown", "unknown", 8)
    assert harm(event="oom", no_victim=8, panic=(9, "why")).line == 9


def test_a_state_of_memory() -> None:
    """No request failed; one that the options name is only asked about."""
    assert harm(event="memory", gfp=None).why.endswith("no request that failed")
    assert harm(event="memory").why.endswith("the request is the one that the options name")


@pytest.mark.parametrize(
    ("event", "more", "kind", "certainty"),
    [
        ("oom", {}, "unknown", "unknown"),
        ("stall", {}, "retried", "certain"),
        ("memory", {}, "unknown", "unknown"),
        # Struct pages are mapped with small pages instead of huge ones.
        ("vmemmap", {"order": 9}, "fallback", "certain"),
        ("vmemmap", {"order": 1}, "fallback", "certain"),
        ("vmemmap", {"order": 0}, "failed", "likely"),
        ("vmap", {}, "failed", "likely"),
        # Up to order 3 ordinary pages are easily had, beyond order 10 never.
        ("cma", {}, "unknown", "unknown"),
        ("cma", {"pages": 8}, "fallback", "likely"),
        ("cma", {"pages": 9}, "unknown", "unknown"),
        ("cma", {"pages": 1024}, "unknown", "unknown"),
        ("cma", {"pages": 1025}, "failed", "likely"),
        ("contig", {}, "retried", "likely"),
        ("hugetlb", {}, "failed", "certain"),
        ("warning", {"warning_text": "mm/page_alloc.c:1 __alloc_pages+0x1/0x2"}, "failed", "likely"),
        ("warning", {"warning_text": "mm/page_alloc.c:1 rmqueue+0x1/0x2"}, "unknown", "unknown"),
        ("vmalloc", {"order": 1}, "fallback", "likely"),
        ("vmalloc", {"order": 0}, "unknown", "unknown"),
        ("failure", {"order": 1}, "unknown", "unknown"),
        ("failure", {"gfp": NORETRY}, "fallback", "likely"),
    ],
)
def test_events(event: str, more: dict[str, Any], kind: str, certainty: str) -> None:
    """The event alone decides, where its source shows what follows; the report's line says so."""
    found = harm(event=event, **more)
    assert (found.kind, found.certainty, found.line) == (kind, certainty, 1)


def test_a_warning_about_pages_given_back() -> None:
    """No request is part of it."""
    assert "no request failed" in harm(event="warning", warning_text="mm/page_alloc.c:1 __free_pages_ok+0x1/0x2").why
    assert "got its pages" in harm(event="warning", warning_text="mm/page_alloc.c:1 rmqueue+0x1/0x2").why


@pytest.mark.parametrize(
    ("cache", "gfp", "dropped"),
    [
        ("skbuff_head_cache", ATOMIC, True),
        ("skbuff_fclone_cache", ATOMIC, True),
        ("skbuff_head_cache", KERNEL, False),
        ("kmalloc-64", ATOMIC, False),
        ("my_skbuff_cache", ATOMIC, False),
    ],
)
def test_caches_of_packets(cache: str, gfp: tuple[str, ...], dropped: bool) -> None:
    """Of a request that cannot wait; whether one may wait whose mask is not known is open."""
    found = harm(event="slub", cache=Cache(cache, None, None, 0, 0), gfp=gfp)
    assert (found.kind, found.certainty, found.line) == (
        ("dropped", "likely", 1) if dropped else ("unknown", "unknown", 1)
    )
    assert harm(event="slub", gfp=gfp).kind == "unknown"
    assert harm(event="slub", cache=Cache(cache, None, None, 0, 0), gfp=None).kind == "unknown"


ROWS = [
    (
        "do_huge_pmd_anonymous_page do_huge_pmd_wp_page __do_huge_pmd_anonymous_page vma_alloc_anon_folio_pmd",
        (1, KERNEL),
        ("fallback", "certain"),
    ),
    (
        "khugepaged khugepaged_do_scan collapse_huge_page collapse_file alloc_charge_hpage alloc_charge_folio",
        (1, KERNEL),
        ("retried", "certain"),
    ),
    ("alloc_anon_folio page_cache_ra_order ra_alloc_folio", (1, KERNEL), ("fallback", "certain")),
    ("allocate_slab new_slab new_slab_objects", (1, NORETRY), ("fallback", "certain")),
    ("__kvmalloc_node kvmalloc_node kvmalloc", (1, NORETRY), ("fallback", "certain")),
    ("vm_area_alloc_pages __vmalloc_node_range __vmalloc_area_node", (1, KERNEL), ("fallback", "likely")),
    ("mempool_alloc mempool_alloc_slab", (0, NORETRY), ("fallback", "certain")),
    ("sk_page_frag_refill skb_page_frag_refill alloc_skb_with_frags", (1, KERNEL), ("fallback", "certain")),
    ("tcp_send_ack __tcp_send_ack", (0, ATOMIC), ("retried", "certain")),
    ("try_fill_recv add_recvbuf_mergeable virtnet_poll", (0, KERNEL), ("retried", "likely")),
    ("svc_alloc_arg", (0, KERNEL), ("retried", "certain")),
    ("pcpu_balance_workfn", (0, KERNEL), ("retried", "likely")),
    ("atomic_pool_expand dma_atomic_pool_init __dma_atomic_pool_init", (1, KERNEL), ("fallback", "certain")),
    ("uvc_alloc_urb_buffers", (0, KERNEL), ("fallback", "likely")),
    ("iwl_pcie_rx_alloc_page iwl_pcie_rxq_alloc_rbs", (1, ATOMIC), ("retried", "likely")),
    ("nvme_alloc_host_mem nvme_setup_host_mem", (4, KERNEL), ("fallback", "likely")),
    ("alloc_largest_available ttm_pool_alloc __ttm_pool_alloc_page", (1, KERNEL), ("fallback", "certain")),
    (
        "shmem_get_pages shmem_sg_alloc_table i915_gem_object_get_pages_gtt i915_gem_object_get_pages",
        (0, NORETRY),
        ("retried", "certain"),
    ),
    ("shmem_sg_alloc_table i915_gem_object_get_pages_gtt", (0, MAYFAIL), ("failed", "certain")),
    ("hugetlb_no_page hugetlb_fault hugetlb_wp hugetlb_cow", (9, KERNEL), ("failed", "likely")),
    ("gather_surplus_pages hugetlb_acct_memory hugetlb_reserve_pages", (9, KERNEL), ("failed", "certain")),
    (
        "alloc_migrate_huge_page alloc_migrate_hugetlb_folio alloc_huge_page_nodemask",
        (9, KERNEL),
        ("fallback", "likely"),
    ),
    ("alloc_hugetlb_folio_nodemask isolate_or_dissolve_huge_page", (9, KERNEL), ("fallback", "likely")),
    ("alloc_and_dissolve_hugetlb_folio", (9, KERNEL), ("fallback", "likely")),
    ("set_max_huge_pages __nr_hugepages_store_common", (9, KERNEL), ("failed", "certain")),
    ("hugetlb_sysctl_handler_common", (9, KERNEL), ("failed", "certain")),
    ("hugetlb_hstate_alloc_pages hugetlb_pages_alloc_boot_node", (9, KERNEL), ("failed", "certain")),
    (
        "hugetlb_vmemmap_restore hugetlb_vmemmap_restore_folio hugetlb_vmemmap_alloc alloc_huge_page_vmemmap",
        (0, KERNEL),
        ("failed", "likely"),
    ),
    ("hugetlb_vmemmap_optimize hugetlb_vmemmap_optimize_folio", (0, KERNEL), ("fallback", "likely")),
    ("swiotlb_dyn_alloc", (1, KERNEL), ("retried", "likely")),
    ("btrfs_lookup_bio_sums", (0, KERNEL), ("failed", "certain")),
    ("__netdev_alloc_skb netdev_alloc_frag napi_alloc_skb dev_alloc_skb", (0, ATOMIC), ("dropped", "likely")),
    ("bnx2x_rx_int foo_rx_poll ixgbe_clean_rx_irq foo_process_rx", (0, ATOMIC), ("dropped", "likely")),
    ("e1000_alloc_rx_buffers alloc_rx_slot bnxt_rx_refill b44_refill_rx", (0, ATOMIC), ("dropped", "likely")),
]
"""Functions, the order and mask that they ask with, and what follows; each read in the kernel's source."""


@pytest.mark.parametrize(
    ("function", "order", "gfp", "expected"),
    [(function, *asked, expected) for names, asked, expected in ROWS for function in names.split()],
)
def test_fallbacks(function: str, order: int, gfp: tuple[str, ...], expected: tuple[str, str]) -> None:
    """Also by the name that allocation profiling gives it, behind an allocator; the caller's line says so."""
    for name in (function, f"{function}_noprof"):
        found = harm("alloc_pages", name, "somebody", order=order, gfp=gfp)
        assert (found.kind, found.certainty) == expected


@pytest.mark.parametrize(
    ("function", "order", "gfp"),
    [
        *((name, 0, KERNEL) for name in ("do_huge_pmd_wp_page", "collapse_file", "alloc_anon_folio")),
        *((name, 0, KERNEL) for name in ("vm_area_alloc_pages", "sk_page_frag_refill", "atomic_pool_expand")),
        ("ttm_pool_alloc", 0, KERNEL),
        *((name, 1, KERNEL) for name in ("allocate_slab", "kvmalloc_node", "mempool_alloc", "shmem_get_pages")),
        ("netdev_alloc_frag", 0, KERNEL),
    ],
)
def test_other_requests_of_these_functions(function: str, order: int, gfp: tuple[str, ...]) -> None:
    """A single page, a mask without __GFP_NORETRY, or one that may wait has no such fallback."""
    assert harm(function, "somebody", order=order, gfp=gfp).kind == "unknown"


def test_the_line_of_a_fallback() -> None:
    """That of who asked, behind the allocators."""
    assert harm("alloc_pages", "btrfs_lookup_bio_sums").line == 21
    assert harm("alloc_pages", "btrfs_lookup_bio_sums", trace_lines=()).line is None


def test_who_asked_decides() -> None:
    """What is behind who asked does not."""
    assert harm("some_ioctl", "uvc_alloc_urb_buffers").kind == "unknown"
    assert harm("__alloc_skb", "uvc_alloc_urb_buffers").kind == "fallback"


@pytest.mark.parametrize(
    "function",
    [
        *("__x64_sys_ioctl", "__ia32_sys_ioctl", "__arm64_sys_ioctl", "__s390x_sys_ioctl", "__s390_sys_ioctl"),
        *("__se_sys_ioctl", "__do_sys_ioctl", "__riscv_sys_ioctl", "__powerpc_sys_ioctl"),
        *("__ia32_compat_sys_ioctl", "compat_sys_ioctl", "sys_ioctl", "SyS_ioctl", "SYSC_ioctl", "ksys_ioctl"),
    ],
)
def test_system_calls(function: str) -> None:
    """As each architecture names them."""
    found = harm("alloc_pages", "some_ioctl", function, "do_syscall_64")
    assert (found.kind, found.certainty, found.line) == ("unknown", "unknown", 21)
    assert found.why.startswith("some_ioctl got no memory")
    assert found.why.endswith("the system call ioctl returns an error")


def test_the_outermost_system_call() -> None:
    """A function on the stack by chance is none."""
    found = harm("some_open", "ksys_read", "__x64_sys_write")
    assert "the system call write returns" in found.why
    frames = (Frame("some_open", None, reliable=True), Frame("ksys_read", None, reliable=False))
    found = harm(trace=frames, trace_lines=(20, 21))
    assert found.why == "some_open got no memory; whether it has another way is not known"
    assert harm("some_open", "my_sys_ioctl_x").why.endswith("not known")


def test_nothing_is_known() -> None:
    """Without a trace, of a request that cannot wait, and early in boot."""
    assert harm() == Harm("unknown", "the log does not show who got no memory", "unknown", 1)
    found = harm("some_open", "__x64_sys_ioctl", gfp=ATOMIC)
    assert "cannot wait" in found.why
    assert (found.kind, found.certainty, found.line) == ("unknown", "unknown", 1)
    empty = LoggedZone(0, "Normal", {**dict.fromkeys(("free", *MARKS), 0), "managed": 8000}, (0,) * 5)
    trace = (Frame("some_open", None, reliable=True),)
    boot = answer(judged(empty, trace=trace, trace_lines=(20,))).harm
    assert (boot.kind, boot.certainty, boot.line) == ("unknown", "unknown", 20)
    assert "early in boot" in boot.why
    assert answer(judged(empty)).harm.line == 1
    boot = harm(gfp=0x100, pid=0, comm="swapper")
    assert "early in boot" in boot.why
