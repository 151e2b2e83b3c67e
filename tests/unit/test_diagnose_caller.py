# SPDX-License-Identifier: MIT
"""Who asked for the memory: functions of Linux 2.6 to 7.x, and what each of them belongs to."""

import pytest

from kalloctrace.diagnose.answers.caller import find_caller, frames_to_caller, name_of, reliable_frames
from kalloctrace.diagnose.answers.subsystems import ALLOCATORS, ENTRIES, LIBRARIES, MODULES, SUBSYSTEMS
from kalloctrace.diagnose.answers.types import Caller
from kalloctrace.diagnose.reports.model import Frame, LoggedFailure


def trace(*frames: str | Frame) -> LoggedFailure:
    """Return a report with a trace, innermost function first, that begins in line 20."""
    found = tuple(frame if isinstance(frame, Frame) else Frame(frame, None, reliable=True) for frame in frames)
    lines = tuple(range(20, 20 + len(found)))
    return LoggedFailure("failure", 1, "task", 0, trace=found, trace_lines=lines)


def caller(*frames: str | Frame) -> tuple[str, str | None, str | None, int | None] | None:
    """Return who asked: function, module, subsystem and line."""
    found = find_caller(trace(*frames))
    return None if found is None else tuple(found)  # type: ignore[return-value]


def test_the_innermost_function() -> None:
    """That is neither of an allocator nor of a library, before the way into the kernel."""
    assert caller("alloc_pages", "__alloc_skb", "tcp_sendmsg", "do_syscall_64") == (
        "tcp_sendmsg",
        None,
        "TCP/IP",
        22,
    )
    assert caller("alloc_pages", "__alloc_skb", "do_syscall_64", "tcp_sendmsg") == ("__alloc_skb", None, None, 21)
    assert caller("alloc_pages", "do_syscall_64", "tcp_sendmsg") == ("do_syscall_64", None, None, 21)
    assert caller("alloc_pages", "kmalloc") is None
    assert caller() is None
    assert caller("tcp_sendmsg_noprof") == ("tcp_sendmsg_noprof", None, "TCP/IP", 20)


@pytest.mark.parametrize(
    ("function", "asked"),
    [("__free_pages_ok", False), ("free_unref_page", False), ("rmqueue", True), ("__alloc_pages", True)],
)
def test_nobody_asked(function: str, *, asked: bool) -> None:
    """A WARNING where pages are given back."""
    logged = trace("foo_stop", "do_syscall_64")
    logged.event, logged.warning_text = "warning", f"mm/page_alloc.c:1 {function}+0x1/0x2"
    assert (find_caller(logged) is not None) == asked


def test_modules() -> None:
    """A module's name comes first; one that the table lacks is named as it is."""
    assert caller(Frame("ext4_writepages", "btrfs", reliable=True)) == ("ext4_writepages", "btrfs", "Btrfs", 20)
    assert caller(Frame("ext4_writepages", "mine", reliable=True)) == ("ext4_writepages", "mine", "mine", 20)
    assert caller("my_function") == ("my_function", None, None, 20)


def test_frames_that_were_found_on_the_stack() -> None:
    """Only where there are no others."""
    maybe = Frame("ext4_writepages", None, reliable=False)
    assert caller(maybe, "tcp_sendmsg") == ("tcp_sendmsg", None, "TCP/IP", 21)
    assert caller(maybe) == ("ext4_writepages", None, "ext4", 20)
    assert reliable_frames([maybe]) == [maybe]


def test_a_trace_without_lines() -> None:
    """The line is not known then."""
    logged = trace("tcp_sendmsg")
    logged.trace_lines = ()
    assert find_caller(logged) == Caller("tcp_sendmsg", None, "TCP/IP", None)


def test_frames_up_to_who_asked() -> None:
    """Those of allocators and libraries, and the first one behind them."""
    names = [name_of(frame) for frame in frames_to_caller(trace("alloc_pages_noprof", "__alloc_skb", "a", "b"))]
    assert names == ["alloc_pages", "__alloc_skb", "a"]
    assert list(frames_to_caller(trace())) == []


PAGE_FAULTS = (
    "exc_page_fault asm_exc_page_fault __do_page_fault do_page_fault do_user_addr_fault page_fault do_mem_abort"
)


@pytest.mark.parametrize("name", PAGE_FAULTS.split())
def test_page_faults(name: str) -> None:
    """A process touched its own memory."""
    assert caller("alloc_pages", name) == (name, None, "page fault of a process", 21)


@pytest.mark.parametrize("name", ["do_DataAbort", "do_PrefetchAbort", "do_translation_fault"])
def test_aborts_of_arm(name: str) -> None:
    """They are its page faults."""
    assert caller("alloc_pages", name) == (name, None, "page fault of a process", 21)


ALLOCATING = """
dump_stack dump_stack_lvl __dump_stack dump_stack_print_info show_stack show_trace show_regs dump_backtrace
unwind_backtrace panic vpanic check_panic_on_warn fixup_bug __warn __warn_printk warn_slowpath_fmt report_bug handle_bug
exc_invalid_op asm_exc_invalid_op do_invalid_op invalid_op do_error_trap bug_handler cfi_handler call_break_hook
brk_handler do_el1_brk64 el1_dbg el1h_64_sync_handler el1_sync do_debug_exception debug_exception_enter
warn_alloc warn_alloc_failed warn_alloc_show_mem dump_header show_mem __show_mem show_free_areas out_of_memory
__out_of_memory oom_kill_process __oom_kill_process pagefault_out_of_memory check_panic_on_oom moom_callback
alloc_pages __alloc_pages __alloc_pages_nodemask ___alloc_pages alloc_page __alloc_frozen_pages alloc_frozen_pages
__get_free_pages get_free_page get_zeroed_page get_page_from_freelist folio_alloc __folio_alloc __folio_alloc_node
vma_alloc_folio alloc_zeroed_user_highpage_movable filemap_alloc_folio __page_cache_alloc alloc_contig_range
alloc_contig_pages __alloc_contig_frozen_range page_frag_alloc page_frag_alloc_align page_frag_refill
__page_frag_cache_refill try_to_free_pages do_try_to_free_pages __perform_reclaim try_to_compact_pages
mem_cgroup_charge __mem_cgroup_charge try_charge try_charge_memcg memcg_kmem_charge __memcg_kmem_charge_page
charge_memcg obj_cgroup_charge add_to_page_cache_lru __add_to_page_cache_locked __filemap_add_folio filemap_add_folio
allocate_slab new_slab new_slab_objects alloc_slab_page slab_alloc __slab_alloc ___slab_alloc slab_alloc_node
slab_out_of_memory kmem_cache_alloc __kmem_cache_alloc_node kmem_cache_create cache_alloc ____cache_alloc_node
cache_grow cache_grow_begin cache_alloc_refill fallback_alloc alternate_node_alloc kmem_getpages __pcs_refill
refill_objects refill_sheaf alloc_full_sheaf alloc_empty_sheaf kmalloc __kmalloc kzalloc __do_kmalloc_node kcalloc
kmalloc_array kvmalloc kvmalloc_node __kvmalloc_node kvzalloc kvcalloc kvrealloc __kvrealloc krealloc __krealloc kmemdup
kmemdup_nul kvmemdup memdup_user vmemdup_user memdup_user_nul memdup_array_user kstrdup kstrndup kasprintf kvasprintf
vmalloc __vmalloc vzalloc __vmalloc_node_range vmap vm_area_alloc_pages alloc_vmap_area get_vm_area __get_vm_area_node
dma_alloc_attrs __dma_alloc dmam_alloc_coherent dma_direct_alloc dma_common_alloc_pages dma_generic_alloc_coherent
dma_pool_alloc __dma_pool_alloc pool_alloc_page cma_alloc __cma_alloc iommu_dma_alloc __iommu_dma_alloc_pages
iommu_alloc_coherent intel_alloc_coherent alloc_coherent arm_dma_alloc x86_swiotlb_alloc_coherent swiotlb_alloc
pci_alloc_consistent pci_zalloc_consistent remap_allocator_alloc cma_allocator_alloc simple_allocator_alloc
__alloc_from_contiguous __alloc_remap_buffer alloc_single_sgt dma_alloc_noncontiguous iommu_dma_alloc_noncontiguous
swiotlb_alloc_pool alloc_dr devres_alloc_node __devres_alloc_node devm_kmalloc devm_kzalloc devm_get_free_pages
__kfifo_alloc ptr_ring_init __ptr_ring_init_queue_alloc ptr_ring_resize_multiple
"""

WORKING_FOR_OTHERS = """
__alloc_skb alloc_skb alloc_skb_with_frags __netdev_alloc_skb netdev_alloc_frag napi_alloc_skb __napi_alloc_skb
dev_alloc_skb build_skb __build_skb pskb_expand_head __pskb_copy skb_copy skb_clone sock_alloc_send_pskb
sk_page_frag_refill page_pool_alloc_pages __page_pool_alloc_pages_slow napi_build_skb napi_get_build_skb sock_wmalloc
sock_omalloc sock_kmalloc mempool_alloc mempool_alloc_slab sg_alloc_table __sg_alloc_table sg_kmalloc sgl_alloc
sgl_alloc_order radix_tree_insert __radix_tree_create xa_store xas_create __xa_insert idr_alloc idr_get_free
ida_alloc_range
mas_alloc_nodes pcpu_alloc pcpu_alloc_area pcpu_create_chunk pcpu_populate_chunk pcpu_mem_zalloc __alloc_percpu
__alloc_percpu_gfp alloc_percpu bio_alloc bio_alloc_bioset __bio_alloc bvec_alloc bio_kmalloc bio_copy_user_iov
usb_alloc_coherent hcd_buffer_alloc alloc_large_system_hash seq_buf_alloc simple_xattr_alloc alloc_workqueue
__alloc_workqueue alloc_workqueue_attrs sg_pool_alloc sg_alloc_append_table_from_pages bpf_prog_alloc_no_stats
iovec_from_user __import_iovec import_iovec bucket_table_alloc rhashtable_init rhashtable_insert_slow alloc_netdev_mqs
alloc_etherdev_mqs vb2_dc_alloc vb2_dc_alloc_coherent vb2_dma_sg_alloc vb2_dma_sg_alloc_compacted vb2_vmalloc_alloc
__vb2_queue_alloc __vb2_buf_mem_alloc alloc_largest_available drm_gem_get_pages drm_gem_shmem_get_pages
drm_gem_dma_create drm_gem_cma_create drm_gem_vram_create drm_gem_object_init ttm_pool_alloc __ttm_pool_alloc
ttm_tt_populate ttm_bo_validate alloc_buddy_huge_page alloc_fresh_huge_page alloc_pool_huge_page
alloc_surplus_huge_page alloc_buddy_hugetlb_folio alloc_buddy_frozen_folio alloc_fresh_hugetlb_folio
only_alloc_fresh_hugetlb_folio alloc_pool_huge_folio alloc_surplus_hugetlb_folio alloc_migrate_hugetlb_folio
alloc_gigantic_folio alloc_huge_page alloc_huge_page_nodemask alloc_hugetlb_folio alloc_hugetlb_folio_nodemask
alloc_vmemmap_page_list vmemmap_remap_alloc
"""

LEADING_IN = """
exc_page_fault do_page_fault trace_do_page_fault do_user_addr_fault async_page_fault page_fault do_kernel_fault
__do_kernel_fault do_mem_abort do_translation_fault el0_da el0_ia el0t_64_sync el0_svc el0_svc_common do_DataAbort
do_PrefetchAbort __dabt_usr __pabt_usr ret_from_exception data_access_common_virt instruction_access_common
instruction_access_common_virt handle_page_fault entry_SYSCALL_64_after_hwframe entry_INT80_32 entry_SYSENTER_32
do_syscall_64 do_int80_syscall_32 do_fast_syscall_32 system_call system_call_fastpath sysenter_do_call syscall_call
syscall_exit ret_fast_syscall invoke_syscall do_el0_svc x64_sys_call ia32_sys_call tracesys tracesys_phase2
ret_from_fork
ret_from_fork_asm ret_from_kernel_thread kernel_thread_helper kernel_thread_starter kthread worker_thread
process_one_work process_scheduled_works kernel_init kernel_init_freeable start_kernel rest_init cpu_startup_entry
start_secondary secondary_startup_64 do_idle sysvec_apic_timer_interrupt asm_sysvec_call_function common_interrupt
asm_common_interrupt call_function_interrupt fred_entry do_softirq __do_softirq do_softirq_own_stack irq_exit
__irq_exit_rcu irq_exit_rcu
handle_softirqs invoke_softirq __irq_svc el1_irq el1h_64_irq do_IRQ ret_from_intr apic_timer_interrupt
smp_apic_timer_interrupt run_ksoftirqd tasklet_action tasklet_action_common call_on_stack __handle_domain_irq handle_IRQ
generic_handle_irq generic_handle_domain_irq gic_handle_irq x86_64_start_kernel x86_64_start_reservations _start
child_rip call_usermodehelper_exec_async
"""


@pytest.mark.parametrize(
    ("pattern", "names"),
    [(ALLOCATORS, ALLOCATING), (LIBRARIES, WORKING_FOR_OTHERS), (ENTRIES, LEADING_IN)],
    ids=["allocators", "libraries", "entries"],
)
def test_functions_that_are_no_callers(pattern: object, names: str) -> None:
    """They ask on behalf of others, print the report, or are the way into the kernel."""
    missing = [name for name in names.split() if not pattern.fullmatch(name)]  # type: ignore[attr-defined]
    assert missing == []


CALLERS = "ext4_writepages tcp_sendmsg do_anonymous_page my_alloc_page usb_stor_probe kthread_probe xalloc skb_probe_x"


def test_who_asks_for_itself_is_no_allocator() -> None:
    """A part of a name is no name."""
    assert not [name for name in CALLERS.split() if ALLOCATORS.fullmatch(name) or ENTRIES.fullmatch(name)]


BELONGS = """
transparent huge pages|mm/huge_memory.c|do_huge_pmd_anonymous_page hugepage_vma_check __do_huge_pmd_anonymous_page
khugepaged|mm/khugepaged.c|khugepaged khugepaged_scan_mm_slot collapse_huge_page collapse_file alloc_charge_hpage
khugepaged|mm/khugepaged.c|alloc_charge_folio
hugetlb|mm/hugetlb.c|gather_surplus_pages __nr_hugepages_store_common hugepages_treat_as_x hugetlb_vmemmap_restore
hugetlb|mm/hugetlb.c|isolate_or_dissolve_huge_page
bounce buffers for DMA (swiotlb)|kernel/dma/swiotlb.c|swiotlb_dyn_alloc
reading and writing of files (iomap)|fs/iomap|iomap_writepage_map
traffic control|net/sched|qdisc_create tcf_proto_create __tcf_chain tc_new_tfilter fq_resize fq_codel_init
hugetlb|mm/hugetlb.c|hugetlb_fault alloc_fresh_huge_page alloc_pool_huge_folio set_max_huge_pages adjust_pool_surplus
page fault of a process|mm/memory.c|do_anonymous_page alloc_anon_folio do_cow_fault do_wp_page folio_prealloc
page fault of a process|mm/memory.c|handle_mm_fault __handle_mm_fault do_fault do_read_fault do_shared_fault
page fault of a process|mm/memory.c|faultin_page
page fault of a process|mm/memory.c|get_user_pages __get_user_pages __mm_populate pmd_alloc __pud_alloc __pte_alloc
page fault of a process|mm/memory.c|pte_alloc_one
swapping in|mm/swap_state.c|do_swap_page swapin_readahead swap_vma_readahead read_swap_cache_async alloc_swap_folio
swapping in|mm/swap_state.c|swap_cache_get_folio
shared memory and tmpfs|mm/shmem.c|shmem_alloc_folio __shmem_file_setup
page cache|mm/filemap.c|page_cache_ra_unbounded __do_page_cache_readahead filemap_fault read_pages
page cache|mm/filemap.c|grab_cache_page_write_begin
page cache|mm/filemap.c|pagecache_get_page __filemap_get_folio generic_file_read_iter generic_perform_write
page cache|mm/filemap.c|do_read_cache_page ra_alloc_folio
creating a process|kernel/fork.c|alloc_thread_stack_node dup_task_struct copy_process kernel_clone _do_fork do_fork
creating a process|kernel/fork.c|copy_page_mm dup_mm
creating a process|kernel/fork.c|dup_mmap mm_init pgd_alloc alloc_thread_info_node
page migration|mm/migrate.c|migrate_pages alloc_migration_target alloc_misplaced_dst_page new_node_page compaction_alloc
memory hotplug|mm/memory_hotplug.c|vmemmap_populate sparse_add_section arch_add_memory add_memory_resource online_pages
memory hotplug|mm/memory_hotplug.c|populate_section_memmap
pool for DMA without waiting|kernel/dma/pool.c|atomic_pool_expand dma_atomic_pool_init __dma_atomic_pool_init
zswap|mm/zswap.c|zswap_store
zsmalloc|mm/zsmalloc.c|zs_malloc
refill of the per-CPU allocator|mm/percpu.c|pcpu_balance_workfn
Btrfs|fs/btrfs|btrfs_lookup_bio_sums __btrfs_alloc
ext4|fs/ext4|ext4_mb_init __ext4_get_inode_loc ext3_readpage
journal of ext4|fs/jbd2|jbd2_journal_start __jbd2_log_wait journal_start
XFS|fs/xfs|xfs_buf_alloc kmem_zalloc kmem_zone_alloc xlog_write
F2FS|fs/f2fs|f2fs_write __f2fs_commit
NFS server|fs/nfsd|nfsd nfsd_read nfsd4_open
NFS client|fs/nfs|nfs_readpage nfs4_open nfs3_create _nfs4_do_open
SMB client|fs/smb/client|cifs_readv smb2_read SMB2_open smb3_init
Ceph|fs/ceph|ceph_alloc __ceph_open
FUSE|fs/fuse|fuse_dev_read
overlayfs|fs/overlayfs|ovl_open
SquashFS|fs/squashfs|squashfs_read
block layer|block|blk_mq_alloc __blk_alloc blkdev_read submit_bio_noacct
buffer cache|fs/buffer.c|alloc_page_buffers create_empty_buffers folio_alloc_buffers grow_dev_folio __getblk_gfp
buffer cache|fs/buffer.c|bdev_getblk __bread_gfp
table of open files|fs/file.c|alloc_fdtable expand_files dup_fd
USB|drivers/usb|usb_submit_urb usbdev_ioctl proc_bulk proc_do_submiturb xhci_ring_alloc usbfs_alloc
proc and sysfs|fs/seq_file.c|traverse single_open seq_read proc_reg_read kernfs_fop_open sysfs_open
pipes|fs/pipe.c|pipe_write do_pipe_flags alloc_pipe_info splice_read do_splice
poll and select|fs/select.c|poll_schedule do_select __pollwait sys_epoll_wait core_sys_select
starting a program|fs/exec.c|load_elf_binary elf_map do_execveat_common bprm_execve exec_binprm
loading a module|kernel/module|load_module layout_and_allocate move_module module_alloc execmem_vmap
BPF|kernel/bpf|bpf_prog_alloc __bpf_alloc htab_map_alloc array_map_alloc
perf events|kernel/events|perf_mmap rb_alloc __perf_open
tracing|kernel/trace|ring_buffer_resize rb_allocate_pages __rb_allocate_pages trace_open tracing_open
io_uring|io_uring|io_uring_setup io_sqe_alloc io_alloc_req io_mem_alloc io_allocate_scq
TCP/IP|net/ipv4|tcp_sendmsg __tcp_push inet_create inet6_create
IP|net/ipv4|udp_sendmsg udpv6_sendmsg ip_append ip6_output ipv6_rcv __ip_append __ip6_append icmp_send icmpv6_send
Unix sockets|net/unix|unix_stream_sendmsg
netlink|net/netlink|netlink_dump rtnl_dump rtnetlink_rcv genl_rcv
packet sockets|net/packet|packet_set_ring tpacket_rcv alloc_one_pg_vec_page alloc_pg_vec
netfilter|net/netfilter|nf_conntrack_in nft_do_chain nf_tables_newrule xt_alloc_table ipt_register __nf_conntrack_alloc
SunRPC|net/sunrpc|svc_recv xprt_alloc rpc_malloc svcauth_gss
mac80211 (Wi-Fi)|net/mac80211|ieee80211_tx __ieee80211_tx
network core|net/core|netif_receive_skb net_rx_action process_backlog __netif_receive dev_gro_receive napi_gro_receive
network core|net/core|dev_queue_xmit
Intel graphics (i915)|drivers/gpu/drm/i915|i915_gem_create __i915_vma ____i915_gem_object_get_pages shmem_get_pages
AMD graphics (amdgpu)|drivers/gpu/drm/amd|amdgpu_cs_ioctl
AMD graphics (radeon)|drivers/gpu/drm/radeon|radeon_cs_ioctl
nouveau|drivers/gpu/drm/nouveau|nouveau_bo_new nvkm_object_new
TTM (graphics memory)|drivers/gpu/drm/ttm|ttm_pool_alloc __ttm_pool_alloc
DRM (graphics)|drivers/gpu/drm|drm_ioctl
USB video (uvcvideo)|drivers/media/usb/uvc|uvc_ioctl
video buffers|drivers/media/common/videobuf2|vb2_ioctl __vb2_queue videobuf_alloc v4l2_ioctl v4l_reqbufs
sound (ALSA)|sound|snd_pcm_open
network over USB (usbnet)|drivers/net/usb|rx_submit rx_alloc_submit usbnet_bh
binder|drivers/android|binder_ioctl _binder_alloc
zram|drivers/block/zram|zram_write
NVMe|drivers/nvme|nvme_queue_rq
SCSI|drivers/scsi|scsi_init sd_probe sg_build_indirect sg_ioctl sg_write sg_read sg_common_write sg_start_req
virtio network (virtio_net)|drivers/net|virtnet_poll try_fill_recv add_recvbuf_small refill_work
memory balloon|drivers/virtio|vmballoon_work vmw_balloon_x virtballoon_probe fill_balloon hv_alloc_balloon
memory balloon|drivers/virtio|balloon_page_alloc
KVM|virt/kvm|kvm_arch_init __kvm_set mmu_topup_memory_caches vmx_create svm_create
vhost|drivers/vhost|vhost_dev_ioctl
MD RAID|drivers/md|md_write raid5_make_request r5c_cache
device mapper|drivers/md|dm_table_create crypt_map __dm_alloc
DMA-BUF heaps|drivers/dma-buf/heaps|system_heap_allocate dma_heap_ioctl alloc_largest_available ion_alloc
DMA-BUF heaps|drivers/dma-buf/heaps|cma_heap_allocate
firmware loader|drivers/base/firmware_loader|firmware_request _request_firmware request_firmware fw_get
keys|security/keys|keyctl_read key_alloc keyring_search
AppArmor|security/apparmor|apparmor_file_open aa_alloc
SELinux|security/selinux|selinux_inode_init avc_alloc
swapon|mm/swapfile.c|setup_swap_map swapon swapon_x __do_sys_swapon __se_sys_swapon __x64_sys_swapon
System V IPC|ipc|ipc_addid sem_lock newary newque msg_insert do_msgsnd load_msg alloc_msg
"""


@pytest.mark.parametrize(
    ("subsystem", "folder", "function"),
    [
        (subsystem, folder, function)
        for subsystem, folder, functions in (line.split("|") for line in BELONGS.strip().split("\n"))
        for function in functions.split()
    ],
)
def test_subsystems(subsystem: str, folder: str, function: str) -> None:
    """Each by functions of its folder, whose whole name decides."""
    row = next(row for row in SUBSYSTEMS if row.functions.fullmatch(function))
    assert (row.name, row.folder) == (subsystem, folder)


def test_every_row_is_tested() -> None:
    """So that a new one gets its functions here."""
    assert {line.split("|")[0] for line in BELONGS.strip().split("\n")} == {row.name for row in SUBSYSTEMS}


IN_MODULES = """
uvcvideo=USB video (uvcvideo)|i915=Intel graphics (i915)|xe=Intel graphics (xe)|amdgpu=AMD graphics (amdgpu)
radeon=AMD graphics (radeon)|nouveau=nouveau|btrfs=Btrfs|xfs=XFS|ext4=ext4|nfs=NFS client|nfsd=NFS server
sunrpc=SunRPC|cifs=SMB client|ceph=Ceph|fuse=FUSE|overlay=overlayfs|kvm=KVM|kvm_intel=KVM|kvm_amd=KVM|vhost_net=vhost
zram=zram|binder_linux=binder|vmw_balloon=memory balloon|virtio_balloon=memory balloon|hv_balloon=memory balloon
drm_shmem_helper=DRM (graphics)|drm_dma_helper=DRM (graphics)|drm_vram_helper=DRM (graphics)
drm_kms_helper=DRM (graphics)|videodev=video buffers|videobuf2_common=video buffers|videobuf2_v4l2=video buffers
videobuf2_memops=video buffers|videobuf2_dma_contig=video buffers|videobuf2_dma_sg=video buffers
videobuf2_vmalloc=video buffers
virtio_net=virtio network (virtio_net)|mac80211=mac80211 (Wi-Fi)|ttm=TTM (graphics memory)|drm=DRM (graphics)
"""
OUTSIDE = "nvidia nvidia_uvm nvidia_drm zfs spl vboxdrv vmmon"


def test_names_of_modules() -> None:
    """Those of the tree belong to the folder that builds them; others are said to be outside."""
    known = dict(pair.split("=") for pair in IN_MODULES.replace("\n", "|").strip("|").split("|"))
    assert known == {name: text for name, text in MODULES.items() if name not in OUTSIDE.split()}
    assert all("outside the kernel's tree" in MODULES[name] for name in OUTSIDE.split())


ASKING = """
vb2_core_reqbufs|video buffers|dma_alloc_attrs vb2_dc_alloc_coherent vb2_dc_alloc __vb2_queue_alloc vb2_core_reqbufs
system_heap_allocate|DMA-BUF heaps|alloc_pages alloc_largest_available system_heap_allocate dma_heap_ioctl
uvc_alloc_transfer|USB video (uvcvideo)|alloc_single_sgt dma_alloc_noncontiguous uvc_alloc_transfer
lima_gem_pin||shmem_read_folio_gfp drm_gem_get_pages drm_gem_shmem_get_pages_locked lima_gem_pin
drm_mode_create_dumb|DRM (graphics)|drm_gem_dma_create drm_gem_dma_dumb_create drm_mode_create_dumb drm_ioctl
radeon_bo_create|AMD graphics (radeon)|ttm_pool_alloc ttm_tt_populate ttm_bo_validate radeon_bo_create
xt_alloc_table_info|netfilter|__kmalloc_large_node __kvmalloc_node_noprof xt_alloc_table_info do_replace
scsi_alloc_sgtables|SCSI|mempool_alloc sg_pool_alloc __sg_alloc_table sg_alloc_table_chained scsi_alloc_sgtables
unix_stream_sendmsg|Unix sockets|alloc_skb_with_frags sock_alloc_send_pskb unix_stream_sendmsg
my_probe||kmalloc_trace __devres_alloc_node devm_kmalloc my_probe
shmem_sg_alloc_table|Intel graphics (i915)|shmem_read_folio_gfp shmem_sg_alloc_table i915_gem_object_pin_map
set_max_huge_pages|hugetlb|alloc_buddy_huge_page alloc_fresh_huge_page alloc_pool_huge_page set_max_huge_pages
hugetlb_no_page|hugetlb|alloc_buddy_hugetlb_folio_with_mpol alloc_hugetlb_folio hugetlb_no_page
gather_surplus_pages|hugetlb|alloc_fresh_hugetlb_folio alloc_surplus_hugetlb_folio gather_surplus_pages
hugetlb_vmemmap_restore|hugetlb|alloc_vmemmap_page_list vmemmap_remap_alloc hugetlb_vmemmap_restore
swiotlb_dyn_alloc|bounce buffers for DMA (swiotlb)|alloc_pages swiotlb_alloc_tlb swiotlb_alloc_pool swiotlb_dyn_alloc
"""


@pytest.mark.parametrize("line", ASKING.strip().split("\n"))
def test_who_asked_through_helpers(line: str) -> None:
    """Drivers share functions that get memory for them: videobuf2, heaps, DRM, TTM, the DMA layer, devres, hugetlb."""
    function, subsystem, functions = line.split("|")
    found = caller(*functions.split(), "do_syscall_64")
    assert found is not None
    assert found[:3] == (function, None, subsystem or None)
