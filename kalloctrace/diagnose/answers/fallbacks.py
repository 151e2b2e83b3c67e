# SPDX-License-Identifier: MIT
"""A table: what callers do when they get no memory. Each row cites the source that was read for it."""

import re
from typing import NamedTuple

from kalloctrace.diagnose.answers.types import Certainty, HarmKind


class Fallback(NamedTuple):
    """What a caller does without the memory.

    Attributes:
        functions: names of the function that does it.
        harm: what that leads to.
        why: in words.
        source: where the kernel does it.
        certainty: "certain" if it does so whatever else happens.
        orders: the orders that it holds for.
        names: flags that the mask must have, all of them.
        atomic: whether it holds only for requests that cannot wait (True), or that can (False); None for both.
    """

    functions: re.Pattern[str]
    harm: HarmKind
    why: str
    source: str
    certainty: Certainty = "certain"
    orders: range = range(64)
    names: frozenset[str] = frozenset()
    atomic: bool | None = None


_HIGH = range(1, 64)
_NORETRY = frozenset(("__GFP_NORETRY",))


def _row(functions: str, *rest: object, **more: object) -> Fallback:
    return Fallback(re.compile(functions), *rest, **more)  # type: ignore[arg-type]


FALLBACKS = (
    _row(
        r"do_huge_pmd_(?:anonymous|wp)_page\w*|__do_huge_pmd_anonymous_page|vma_alloc_anon_folio_pmd",
        "fallback",
        "a page fault that gets no huge page maps small pages instead (VM_FAULT_FALLBACK)",
        "mm/huge_memory.c, do_huge_pmd_anonymous_page",
        orders=_HIGH,
    ),
    _row(
        r"khugepaged\w*|collapse_huge_page|collapse_file|alloc_charge_(?:hpage|folio)",
        "retried",
        "khugepaged leaves the small pages as they are, sleeps and tries again later",
        "mm/khugepaged.c, khugepaged_do_scan",
        orders=_HIGH,
    ),
    _row(
        r"alloc_anon_folio|page_cache_ra_order|ra_alloc_folio",
        "fallback",
        "a large folio is only tried first; single pages serve instead",
        "mm/memory.c, alloc_anon_folio; mm/readahead.c, page_cache_ra_order",
        orders=_HIGH,
    ),
    _row(
        r"hugetlb_(?:no_page|fault|wp|cow)",
        "failed",
        "the process had no huge page reserved: it gets SIGBUS, which ends it unless it handles that",
        "mm/hugetlb.c, alloc_hugetlb_folio (-ENOSPC) and hugetlb_no_page",
        "likely",
        orders=_HIGH,
    ),
    _row(
        r"gather_surplus_pages|hugetlb_acct_memory|hugetlb_reserve_pages",
        "failed",
        "the program cannot reserve its huge pages: mmap, shmget or fallocate returns ENOMEM",
        "mm/hugetlb.c, hugetlb_acct_memory",
        orders=_HIGH,
    ),
    _row(
        r"alloc_migrate_hug\w+|alloc_h\w+_nodemask|isolate_or_dissolve_hug\w+|alloc_and_dissolve_hug\w+",
        "fallback",
        "the huge page stays where it is: only its migration fails",
        "mm/hugetlb.c, alloc_hugetlb_folio_nodemask and isolate_or_dissolve_huge_page",
        "likely",
        orders=_HIGH,
    ),
    _row(
        r"set_max_huge_pages|(?:__)?nr_hugepages_store_common|hugetlb_sysctl_handler\w*",
        "failed",
        "there are fewer huge pages than were asked for; the write to nr_hugepages reports no error, so read it again",
        "mm/hugetlb.c, set_max_huge_pages",
        orders=_HIGH,
    ),
    _row(
        r"hugetlb_hstate_alloc_pages\w*|hugetlb_pages_alloc_boot\w*",
        "failed",
        "there are fewer huge pages than the boot parameter asks for",
        "mm/hugetlb.c, hugetlb_hstate_alloc_pages",
        orders=_HIGH,
    ),
    _row(
        r"hugetlb_vmemmap_(?:restore\w*|alloc)|alloc_huge_page_vmemmap",
        "failed",
        "the huge page cannot be given back: it stays in the pool, as a surplus page",
        "mm/hugetlb.c, __update_and_free_hugetlb_folio",
        "likely",
    ),
    _row(
        r"hugetlb_vmemmap_optimize\w*",
        "fallback",
        "the huge page keeps all of its page structures",
        "mm/hugetlb_vmemmap.c, hugetlb_vmemmap_optimize_folio",
        "likely",
    ),
    _row(
        r"swiotlb_dyn_alloc",
        "retried",
        "the bounce buffers grow in the background; as long as they do not, mappings of devices may fail",
        "kernel/dma/swiotlb.c, swiotlb_dyn_alloc",
        "likely",
    ),
    _row(
        r"allocate_slab|new_slab\w*",
        "fallback",
        "SLUB tries its preferred order first, and then the smallest order that holds one object",
        "mm/slub.c, allocate_slab",
        orders=_HIGH,
        names=_NORETRY,
    ),
    _row(
        r"_{0,2}kvmalloc_node|kvmalloc",
        "fallback",
        "kvmalloc tries contiguous pages first, and vmalloc after them",
        "mm/util.c, kvmalloc_node",
        orders=_HIGH,
        names=_NORETRY,
    ),
    _row(
        r"vm_area_alloc_pages|__vmalloc_(?:node_range|area_node)",
        "fallback",
        "vmalloc tries large pages first, and single pages after them",
        "mm/vmalloc.c, __vmalloc_node_range",
        "likely",
        orders=_HIGH,
    ),
    _row(
        r"mempool_alloc\w*",
        "fallback",
        "a memory pool has elements in reserve for this case",
        "mm/mempool.c, mempool_alloc",
        names=_NORETRY,
    ),
    _row(
        r"sk_page_frag_refill|skb_page_frag_refill|alloc_skb_with_frags",
        "fallback",
        "the network tries 32 kB at once, and single pages after that",
        "net/core/sock.c, skb_page_frag_refill; net/core/skbuff.c, alloc_skb_with_frags",
        orders=_HIGH,
    ),
    _row(
        r"_{0,2}tcp_send_ack",
        "retried",
        "TCP sets the timer of the delayed acknowledgement and sends it then",
        "net/ipv4/tcp_output.c, tcp_send_ack",
    ),
    _row(
        r"try_fill_recv|add_recvbuf_\w+|virtnet_\w+",
        "retried",
        "virtio_net fills its receive ring again later (refill_work); packets may be lost meanwhile",
        "drivers/net/virtio_net.c, try_fill_recv",
        "likely",
    ),
    _row(
        r"iwl_pcie_rx\w*alloc\w*",
        "retried",
        "iwlwifi fills its receive ring again later, also from a work that may wait (iwl_pcie_rx_allocator)",
        "drivers/net/wireless/intel/iwlwifi/pcie/rx.c, iwl_pcie_rxq_alloc_rbs",
        "likely",
    ),
    _row(
        r"nvme_(?:alloc|setup)_host_mem\w*",
        "fallback",
        "the drive works without memory of the host, only slower",
        "drivers/nvme/host/pci.c, nvme_setup_host_mem",
        "likely",
    ),
    _row(
        r"svc_alloc_arg",
        "retried",
        "the NFS server waits half a second and asks again",
        "net/sunrpc/svc_xprt.c, svc_alloc_arg",
    ),
    _row(
        r"pcpu_balance_\w+",
        "retried",
        "the per-CPU allocator fills its reserve in the background and tries again later",
        "mm/percpu.c, pcpu_balance_populated",
        "likely",
    ),
    _row(
        r"atomic_pool_expand|(?:__)?dma_atomic_pool_init",
        "fallback",
        "the pool for DMA without waiting is filled with half as much, until it fits",
        "kernel/dma/pool.c, atomic_pool_expand",
        orders=_HIGH,
    ),
    _row(
        r"uvc_alloc_urb_buffers",
        "fallback",
        "uvcvideo tries again with half as many packets, until it fits",
        "drivers/media/usb/uvc/uvc_video.c, uvc_alloc_urb_buffers",
        "likely",
    ),
    _row(
        r"alloc_largest_available|(?:__)?ttm_pool_alloc\w*",
        "fallback",
        "graphics buffers are made of smaller blocks if there are no large ones",
        "drivers/dma-buf/heaps/system_heap.c, alloc_largest_available; drivers/gpu/drm/ttm/ttm_pool.c",
        orders=_HIGH,
    ),
    _row(
        r"shmem_(?:get_pages|sg_alloc_table)|i915_gem_object_get_pages\w*",
        "retried",
        "i915 shrinks its own buffers and asks again",
        "drivers/gpu/drm/i915/gem/i915_gem_shmem.c, shmem_sg_alloc_table",
        names=_NORETRY,
    ),
    _row(
        r"shmem_sg_alloc_table|i915_gem_object_get_pages\w*",
        "failed",
        "i915 has shrunk its own buffers already; the program gets ENOMEM",
        "drivers/gpu/drm/i915/gem/i915_gem_shmem.c, shmem_sg_alloc_table",
        names=frozenset(("__GFP_RETRY_MAYFAIL",)),
    ),
    _row(
        r"btrfs_lookup_bio_sums",
        "failed",
        "the read fails with ENOMEM; Btrfs handles that, and no data is damaged",
        "fs/btrfs/file-item.c, btrfs_lookup_bio_sums; commit cfc7fe2b0f18",
    ),
    _row(
        r"\w*(?:netdev|napi)_alloc_(?:skb|frag)\w*|dev_alloc_skb|\w*alloc_rx_\w+|\w+_rx_refill\w*|\w*refill_rx\w*",
        "dropped",
        "a network driver that gets no buffer for a received packet drops the packet; TCP sends it again",
        "net/core/skbuff.c, __netdev_alloc_skb",
        "likely",
        atomic=True,
    ),
    _row(
        r"\w+_rx_(?:int|irq|poll|ring|skb|packet|pkt|frame|handler|complete|work|napi)\w*"
        r"|\w+_(?:clean|process|handle|receive|poll)_rx\w*",
        "dropped",
        "a network driver that gets no buffer for a received packet drops the packet; TCP sends it again",
        "drivers/net/ethernet/broadcom/bnx2x/bnx2x_cmn.c, bnx2x_rx_int",
        "likely",
        atomic=True,
    ),
    _row(
        r"_{0,2}pskb_\w+|skb_(?:copy|cow|segment|ensure_writable|make_writable)\w*|_{0,2}skb_linearize",
        "dropped",
        "a packet that gets no room for a copy or for its headers is dropped; TCP sends it again",
        "net/core/skbuff.c, pskb_expand_head and __pskb_pull_tail",
        "likely",
        atomic=True,
    ),
)
"""The first row holds that matches a frame between the allocator and its caller, and the request."""
