# SPDX-License-Identifier: MIT
"""Tables: which functions ask on behalf of others, and what a function or module belongs to.

Functions and folders are those of Linux 2.6 to 7.0 (torvalds/linux).
"""

import re
from typing import NamedTuple

ALLOCATORS = re.compile(
    # lib/dump_stack.c, kernel/panic.c, and how each architecture prints a stack and enters a WARN
    r"_{0,2}dump_stack(?:_lvl|_print_info)?|show_(?:stack|trace|regs).*|dump_backtrace.*|unwind_backtrace"
    r"|v?panic|check_panic_on_warn|fixup_bug|__warn(?:_printk)?|warn_slowpath_\w+|report_bug|handle_bug|(?:asm_)?exc_invalid_op|do_invalid_op|invalid_op"
    r"|do_error_trap|bug_handler|c?fi_handler|call_break_hook|brk_handler|(?:do_)?el1_(?:dbg|brk64)|el1h_64_sync\w*"
    r"|el1_sync|do_debug_exception|debug_exception_enter"
    # mm/page_alloc.c, mm/mempolicy.c, mm/oom_kill.c, mm/show_mem.c, mm/compaction.c, mm/vmscan.c
    r"|warn_alloc(?:_failed|_show_mem)?|dump_header.*|_{0,2}show_mem.*|show_free_areas|_{0,2}out_of_memory"
    r"|(?:__)?oom_kill_process|pagefault_out_of_memory|check_panic_on_oom|moom_callback|find_lock_task_mm|oom_badness"
    r"|_{0,3}alloc_(?:frozen_|kmem_)?pages?(?:_.*)?|_{0,2}get_free_pages?|get_zeroed_page|get_page_from_freelist"
    r"|_{0,2}folio_alloc(?:_.*)?|vma_alloc_\w+|alloc_zeroed_user_highpage\w*|filemap_alloc_folio|__page_cache_alloc"
    r"|alloc_contig_\w+|_{0,2}alloc_contig_frozen\w*|page_frag_alloc\w*|_{0,2}page_frag_(?:cache_)?(?:refill|alloc)\w*"
    r"|try_to_free_pages|do_try_to_free_pages|__perform_reclaim|try_to_compact_pages"
    # mm/memcontrol.c
    r"|(?:__)?mem_cgroup_\w+|try_charge\w*|(?:__)?memcg_\w+|charge_memcg|obj_cgroup_\w+|add_to_page_cache\w*"
    r"|__add_to_page_cache_locked|__filemap_add_folio|filemap_add_folio"
    # mm/slub.c, mm/slab.c, mm/slab_common.c, mm/slob.c, mm/util.c
    r"|allocate_slab|new_slab\w*|alloc_slab_page|_{0,4}slab_alloc\w*|slab_out_of_memory|_{0,3}kmem_cache_(?:alloc|create)\w*"
    r"|_{0,4}cache_alloc\w*|cache_grow\w*|cache_alloc_refill|fallback_alloc|alternate_node_alloc|kmem_getpages"
    r"|__pcs_\w+|refill_\w*(?:sheaf|objects)\w*|alloc_(?:full|empty)_sheaf|_{0,4}(?:do_)?k[mz]alloc\w*|kcalloc\w*"
    r"|_{0,2}kv[mzc]alloc\w*|_{0,2}kvrealloc\w*|_{0,2}krealloc\w*|kmemdup\w*|kvmemdup\w*|v?memdup_(?:user|array_user)\w*"
    r"|kstrn?dup\w*|kv?asprintf"
    # mm/vmalloc.c
    r"|_{0,2}v[mz]alloc\w*|vmap|vm_area_alloc_pages|alloc_vmap_area|_{0,2}get_vm_area\w*|__vmalloc\w*"
    # drivers/base/devres.c, lib/kfifo.c, include/linux/ptr_ring.h
    r"|alloc_dr|_{0,2}devres_alloc\w*|devm_k\w+|devm_get_free_pages|_{0,2}kfifo_alloc\w*|_{0,2}ptr_ring_(?:init|resize)\w*"
    # kernel/dma, drivers/iommu, arch/*/mm/dma-mapping.c, mm/dmapool.c, mm/cma.c
    r"|_{0,2}dmam?_(?:direct_|common_|generic_)?alloc\w*|_{0,2}dma_pool_alloc|pool_alloc_page|_{0,2}cma_alloc\w*"
    r"|_{0,2}iommu_dma_alloc\w*|iommu_alloc_coherent|intel_alloc_coherent|alloc_coherent|alloc_single_sgt"
    r"|(?:arm|x86|(?:xen_)?swiotlb)_(?!dyn_)\w*alloc\w*"
    r"|pci_z?alloc_consistent|remap_allocator_alloc|cma_allocator_alloc|simple_allocator_alloc|__alloc_(?:from_|remap_)\w+"
)
"""Functions of the allocators and of what prints the report: they never ask for themselves."""

LIBRARIES = re.compile(
    # mm/shmem.c
    r"shmem_alloc_\w+|shmem_get(?:page|_folio)\w*|shmem_read_(?:mapping_page|folio)\w*|"
    # net/core, include/linux/skbuff.h
    r"_{0,3}(?:alloc_skb|netdev_alloc|napi_alloc|dev_alloc_skb|build_skb|pskb_|skb_|sock_alloc_send|sk_page_frag)\w*"
    r"|page_pool_\w+|__page_pool_\w+|napi_\w*build_skb|sock_[ow]malloc|sock_kmalloc"
    # lib, mm/mempool.c, mm/percpu.c, block/bio.c, drivers/usb/core
    r"|_{0,2}mempool_\w+|_{0,2}sg_alloc_(?:append_)?table\w*|sg_kmalloc|sg_pool_alloc|sgl_alloc\w*|_{0,2}radix_tree_\w+|_{0,2}xas?_\w+|_{0,2}idr_\w+"
    r"|ida_\w+|mas_\w+|pcpu_(?:alloc\w*|create_chunk|populate_\w+|mem_\w+)|__alloc_percpu\w*|alloc_percpu\w*"
    r"|_{0,2}bio_alloc\w*|bvec_alloc\w*|bio_(?:kmalloc|copy)\w*|usb_alloc_\w+|hcd_buffer_alloc|alloc_large_system_hash"
    # kernel/module/main.c, mm/execmem.c, kernel/bpf/core.c
    r"|module_alloc\w*|execmem_\w*alloc\w*|bpf_(?:jit_binary|prog)_(?:pack_)?alloc"
    r"|bpf_prog_alloc_no_stats|iovec_from_user|_{0,2}import_iovec|bucket_table_alloc|rhashtable_\w+|alloc_(?:netdev|etherdev)_mqs"
    r"|seq_buf_alloc|simple_xattr_alloc|_{0,2}alloc_workqueue\w*|alloc_workqueue_attrs"
    # drivers/media/common/videobuf2: the operation "alloc" of each kind of memory, and the loop over a buffer's planes
    r"|(?:__)?vb2_(?:dc|dma_sg|dma_contig|vmalloc|queue|buf_mem)_alloc\w*"
    # drivers/dma-buf/heaps, drivers/gpu/drm, drivers/gpu/drm/ttm
    r"|alloc_largest_available|drm_gem_(?:get_pages|object_init|(?:shmem|dma|cma|vram)_\w+)|(?:__)?ttm_(?:pool|tt|bo)_\w+"
    # mm/hugetlb.c, mm/hugetlb_vmemmap.c
    r"|(?:only_)?alloc_(?:buddy|fresh|pool|surplus|migrate)_(?:huge|frozen)\w*|alloc_gigantic_\w+"
    r"|alloc_huge_page(?:_no\w+|_vma)?|alloc_hugetlb_folio\w*"
    r"|alloc_vmemmap_page_list|vmemmap_remap_\w+"
    # fs/xfs/kmem.c up to 6.8; module/os/linux/spl of OpenZFS
    r"|kmem_z?alloc(?:_large|_io)?|kmem_realloc|kmem_zone_z?alloc|spl_k?v?mem_\w*alloc\w*|spl_kvmalloc"
)
"""Functions that ask on behalf of their caller. They are named only if the trace shows no caller."""

ENTRIES = re.compile(
    # arch/x86/mm/fault.c, arch/arm64/mm/fault.c and kernel/entry-common.c, arch/arm/mm/fault.c, arch/powerpc
    r"(?:asm_)?exc_page_fault|(?:__|trace_)?do_page_fault|do_user_addr_fault|(?:async_)?page_fault|_{0,2}do_kernel_fault"
    r"|mm_fault_error|do_mem_abort|do_translation_fault|el0_(?:da|ia)|el0t?_.*|el0_svc\w*|do_DataAbort|do_PrefetchAbort|__dabt_\w+"
    r"|__pabt_\w+|ret_from_exception|data_access_common_virt|instruction_access_common\w*|handle_page_fault"
    # arch/*/entry and kernel/entry*
    r"|entry_SYSCALL_.*|entry_(?:INT|SYSENTER|SYSCALL)\w*|do_syscall_\w+|do_int80\w*|do_fast_syscall_32|system_call\w*"
    r"|sysenter\w*|syscall_\w+|ret_fast_syscall|invoke_syscall\w*|do_el0_svc\w*|x64_sys_call|ia32_sys_call|tracesys\w*"
    # kernel/kthread.c, kernel/workqueue.c, init/main.c, kernel/sched/idle.c, arch/x86/kernel/head64.c
    r"|ret_from_(?:fork|kernel_thread)\w*|kernel_thread_(?:helper|starter)|kthread|worker_thread|process_(?:one_work|scheduled_works)"
    r"|kernel_init(?:_freeable)?|start_kernel|rest_init|cpu_startup_entry|start_secondary|secondary_startup_.*|do_idle"
    # kernel/softirq.c, arch/*/kernel/irq*.c, kernel/irq/irqdesc.c, drivers/irqchip/irq-gic*.c
    r"|(?:asm_)?(?:sysvec|common_interrupt|call_function|fred)_?\w*|_{0,2}do_softirq\w*|(?:__)?irq_exit\w*|handle_softirqs"
    r"|invoke_softirq|__irq_svc|el1h?_(?:64_)?irq\w*|do_IRQ|ret_from_intr|apic_timer_interrupt|smp_\w*interrupt|run_ksoftirqd"
    r"|tasklet_action\w*|call_on_stack|__handle_domain_irq|handle_IRQ|generic_handle_\w*irq\w*|gic_handle_irq"
    r"|x86_64_start_\w+|_start|child_rip|call_usermodehelper_exec_async"
)
"""The outermost functions, which say only that a system call, a page fault or a kernel thread is under way."""


class Subsystem(NamedTuple):
    """What a function belongs to.

    Attributes:
        functions: their names.
        name: for people.
        folder: of the kernel's source.
    """

    functions: re.Pattern[str]
    name: str
    folder: str


def _row(functions: str, name: str, folder: str) -> Subsystem:
    return Subsystem(re.compile(functions), name, folder)


SUBSYSTEMS = (
    _row(r"do_huge_pmd_\w+|hugepage_vma_\w+|__do_huge_pmd_\w+", "transparent huge pages", "mm/huge_memory.c"),
    _row(
        r"khugepaged\w*|collapse_huge_page|collapse_file|alloc_charge_(?:hpage|folio)", "khugepaged", "mm/khugepaged.c"
    ),
    _row(
        r"\w*hugetlb\w*|alloc_(?:fresh|pool|surplus|buddy)_huge\w*|set_max_huge_pages|adjust_pool_surplus"
        r"|gather_surplus_pages|(?:__)?nr_(?:hugepages|overcommit)_\w+|hugepages_(?:store|treat)\w*|isolate_or_dissolve_huge\w*",
        "hugetlb",
        "mm/hugetlb.c",
    ),
    _row(
        r"do_anonymous_page|alloc_anon_folio|do_cow_(?:page|fault)|do_wp_page|wp_page_copy|folio_prealloc"
        r"|(?:__)?handle_mm_fault|handle_pte_fault|do_pte_missing|do_no_page|(?:__)?do_fault|do_read_fault"
        r"|do_shared_fault|faultin_page|_{0,2}get_user_pages\w*|populate_vma_page_range|__mm_populate"
        r"|_{0,2}p[mu4]d_alloc\w*|__pte_alloc\w*|pte_alloc_one\w*",
        "page fault of a process",
        "mm/memory.c",
    ),
    _row(
        r"do_swap_page|swapin_\w+|swap_cluster_readahead|swap_vma_readahead|_{0,2}read_swap_cache\w*|alloc_swap_folio"
        r"|swap_cache_\w+",
        "swapping in",
        "mm/swap_state.c",
    ),
    _row(r"shmem_sg_alloc_table|shmem_get_pages|_{0,4}i915_\w+", "Intel graphics (i915)", "drivers/gpu/drm/i915"),
    _row(r"shmem_\w+|__shmem_\w+", "shared memory and tmpfs", "mm/shmem.c"),
    _row(
        r"page_cache_\w+|_{0,2}do_page_cache_\w+|filemap_\w+|read_pages|ondemand_readahead|force_page_cache_\w+"
        r"|grab_cache_page\w*|pagecache_get_page|find_or_create_page|__filemap_get_folio\w*|generic_file_\w*read\w*"
        r"|generic_perform_write|read_cache_page\w*|do_read_cache_\w+|ra_alloc_folio",
        "page cache",
        "mm/filemap.c",
    ),
    _row(
        r"alloc_thread_stack_node|dup_task_struct|copy_process|kernel_clone|_?do_fork|alloc_thread_info\w*|copy_\w+_mm"
        r"|dup_mm(?:ap)?|mm_init|pgd_alloc",
        "creating a process",
        "kernel/fork.c",
    ),
    _row(
        r"migrate_pages?\w*|alloc_migration_target|alloc_misplaced_dst_\w+|new_node_page|compaction_alloc",
        "page migration",
        "mm/migrate.c",
    ),
    _row(
        r"vmemmap_\w+|sparse_\w+|arch_add_memory|add_memory\w*|__add_pages|online_pages|populate_section_memmap",
        "memory hotplug",
        "mm/memory_hotplug.c",
    ),
    _row(r"atomic_pool_\w+|(?:__)?dma_atomic_pool_\w+", "pool for DMA without waiting", "kernel/dma/pool.c"),
    _row(r"zswap_\w+", "zswap", "mm/zswap.c"),
    _row(r"zs_\w+", "zsmalloc", "mm/zsmalloc.c"),
    _row(r"swiotlb_\w+", "bounce buffers for DMA (swiotlb)", "kernel/dma/swiotlb.c"),
    _row(r"pcpu_balance_\w+", "refill of the per-CPU allocator", "mm/percpu.c"),
    _row(r"btrfs_\w+|__btrfs_\w+", "Btrfs", "fs/btrfs"),
    _row(r"ext4_\w+|__ext4_\w+|ext3_\w+", "ext4", "fs/ext4"),
    _row(r"jbd2_\w+|__jbd2_\w+|journal_\w+", "journal of ext4", "fs/jbd2"),
    _row(r"xfs_\w+|kmem_(?:zone_)?z?alloc\w*|xlog_\w+", "XFS", "fs/xfs"),
    _row(r"f2fs_\w+|__f2fs_\w+", "F2FS", "fs/f2fs"),
    _row(r"nfsd_?\w*|nfsd4_\w+", "NFS server", "fs/nfsd"),
    _row(r"nfs_?\w*|nfs[34]_\w+|_nfs\w+", "NFS client", "fs/nfs"),
    _row(r"cifs_\w+|smb2_\w+|SMB2_\w+|smb3_\w+", "SMB client", "fs/smb/client"),
    _row(r"ceph_\w+|__ceph_\w+", "Ceph", "fs/ceph"),
    _row(r"fuse_\w+", "FUSE", "fs/fuse"),
    _row(r"ovl_\w+", "overlayfs", "fs/overlayfs"),
    _row(r"iomap_\w+", "reading and writing of files (iomap)", "fs/iomap"),
    _row(r"squashfs_\w+", "SquashFS", "fs/squashfs"),
    _row(r"blk_\w+|__blk_\w+|blkdev_\w+|submit_bio\w*", "block layer", "block"),
    _row(
        r"alloc_page_buffers|create_(?:page_buffers|empty_buffers)|folio_alloc_buffers|grow_(?:buffers|dev_page|dev_folio)"
        r"|__getblk\w*|bdev_getblk|__bread\w*",
        "buffer cache",
        "fs/buffer.c",
    ),
    _row(r"alloc_fdtable|expand_f(?:iles|dtable)|dup_fd", "table of open files", "fs/file.c"),
    _row(r"usb_\w+|usbdev_\w+|proc_(?:bulk|submiturb|do_submiturb)\w*|xhci_\w+|usbfs_\w+", "USB", "drivers/usb"),
    _row(r"traverse|(?:single_|seq_)\w+|proc_\w+|kernfs_\w+|sysfs_\w+", "proc and sysfs", "fs/seq_file.c"),
    _row(r"(?:do_)?pipe_\w+|alloc_pipe_info|splice_\w+|do_splice\w*", "pipes", "fs/pipe.c"),
    _row(r"(?:do_|sys_|__)?(?:e?poll|select)\w*|core_sys_select", "poll and select", "fs/select.c"),
    _row(r"load_elf_\w+|elf_\w+|do_execveat_common\w*|(?:bprm|exec)_\w+", "starting a program", "fs/exec.c"),
    _row(r"load_module|layout_and_allocate|move_module|module_alloc|execmem_\w+", "loading a module", "kernel/module"),
    _row(r"bpf_\w+|__bpf_\w+|htab_map_\w+|array_map_\w+", "BPF", "kernel/bpf"),
    _row(r"perf_\w+|rb_alloc|__perf_\w+", "perf events", "kernel/events"),
    _row(r"ring_buffer_\w+|rb_allocate_\w+|__rb_allocate_\w+|trace_\w+|tracing_\w+", "tracing", "kernel/trace"),
    _row(r"io_\w*uring\w*|io_(?:sqe|alloc|mem_alloc|allocate)\w*", "io_uring", "io_uring"),
    _row(r"tcp_\w+|__tcp_\w+|inet\w*_\w+", "TCP/IP", "net/ipv4"),
    _row(r"udp\w*_\w+|ip6?_\w+|ipv6_\w+|__ip6?_\w+|icmp\w*_\w+", "IP", "net/ipv4"),
    _row(r"unix_\w+", "Unix sockets", "net/unix"),
    _row(r"nl?_?netlink_\w+|netlink_\w+|rtnl_\w+|rtnetlink_\w+|genl_\w+", "netlink", "net/netlink"),
    _row(r"packet_\w+|tpacket_\w+|alloc_one_pg_vec_page|alloc_pg_vec", "packet sockets", "net/packet"),
    _row(r"qdisc_\w+|tcf?_\w+|__tcf_\w+|fq(?:_codel|_pie)?_(?:resize|init|change)", "traffic control", "net/sched"),
    _row(r"nf_\w+|nft_\w+|nf_tables_\w+|xt_\w+|ipt_\w+|__nf_\w+", "netfilter", "net/netfilter"),
    _row(r"svc_\w+|xprt_\w+|rpc_\w+|svcauth_\w+", "SunRPC", "net/sunrpc"),
    _row(r"ieee80211_\w+|__ieee80211_\w+", "mac80211 (Wi-Fi)", "net/mac80211"),
    _row(
        r"netif_\w+|net_rx_action|process_backlog|__netif_\w+|dev_gro_receive|napi_gro_\w+|dev_\w*xmit\w*",
        "network core",
        "net/core",
    ),
    _row(r"amdgpu_\w+", "AMD graphics (amdgpu)", "drivers/gpu/drm/amd"),
    _row(r"radeon_\w+", "AMD graphics (radeon)", "drivers/gpu/drm/radeon"),
    _row(r"nouveau_\w+|nvkm_\w+", "nouveau", "drivers/gpu/drm/nouveau"),
    _row(r"ttm_\w+|__ttm_\w+", "TTM (graphics memory)", "drivers/gpu/drm/ttm"),
    _row(r"drm_\w+", "DRM (graphics)", "drivers/gpu/drm"),
    _row(r"uvc_\w+", "USB video (uvcvideo)", "drivers/media/usb/uvc"),
    _row(r"vb2_\w+|__vb2_\w+|videobuf\w*|v4l2?_\w+", "video buffers", "drivers/media/common/videobuf2"),
    _row(r"snd_\w+", "sound (ALSA)", "sound"),
    _row(r"rx_submit|rx_alloc_submit|usbnet_\w+", "network over USB (usbnet)", "drivers/net/usb"),
    _row(r"binder_\w+|_binder_\w+", "binder", "drivers/android"),
    _row(r"zram_\w+", "zram", "drivers/block/zram"),
    _row(r"nvme_\w+", "NVMe", "drivers/nvme"),
    _row(r"scsi_\w+|sd_\w+|sg_(?:build|ioctl|write|read|common|start)\w*", "SCSI", "drivers/scsi"),
    _row(r"virtnet_\w+|try_fill_recv|add_recvbuf_\w+|refill_work", "virtio network (virtio_net)", "drivers/net"),
    _row(
        r"vmballoon_\w+|vmw_balloon\w*|virtballoon_\w+|fill_balloon|hv_\w*balloon\w*|balloon_\w+",
        "memory balloon",
        "drivers/virtio",
    ),
    _row(r"kvm_\w+|__kvm_\w+|mmu_topup_memory_caches|vmx_\w+|svm_\w+", "KVM", "virt/kvm"),
    _row(r"vhost_\w+", "vhost", "drivers/vhost"),
    _row(r"md_\w+|raid\d+_\w+|r5\w+", "MD RAID", "drivers/md"),
    _row(r"dm_\w+|crypt_\w+|__dm_\w+", "device mapper", "drivers/md"),
    _row(
        r"(?:system|cma|carveout)_heap_\w+|dma_heap_\w+|alloc_largest_available|ion_\w+",
        "DMA-BUF heaps",
        "drivers/dma-buf/heaps",
    ),
    _row(r"firmware_\w+|_?request_firmware\w*|fw_\w+", "firmware loader", "drivers/base/firmware_loader"),
    _row(r"keyctl_\w+|key_\w+|keyring_\w+", "keys", "security/keys"),
    _row(r"apparmor_\w+|aa_\w+", "AppArmor", "security/apparmor"),
    _row(r"selinux_\w+|avc_\w+", "SELinux", "security/selinux"),
    _row(r"setup_swap_\w+|swapon\w*|(?:__)?(?:do|se|sys|x64)_sys_swapon", "swapon", "mm/swapfile.c"),
    _row(r"ipc_\w+|sem_\w+|newary|newque|msg_\w+|do_msg\w*|load_msg|alloc_msg", "System V IPC", "ipc"),
)
"""In this order: the first row that matches the function holds. A function of a module is named by its module first."""

MODULES = {
    "uvcvideo": "USB video (uvcvideo)",
    "videodev": "video buffers",
    "videobuf2_common": "video buffers",
    "videobuf2_v4l2": "video buffers",
    "videobuf2_memops": "video buffers",
    "videobuf2_dma_contig": "video buffers",
    "videobuf2_dma_sg": "video buffers",
    "videobuf2_vmalloc": "video buffers",
    "drm_shmem_helper": "DRM (graphics)",
    "drm_dma_helper": "DRM (graphics)",
    "drm_vram_helper": "DRM (graphics)",
    "drm_kms_helper": "DRM (graphics)",
    "i915": "Intel graphics (i915)",
    "xe": "Intel graphics (xe)",
    "amdgpu": "AMD graphics (amdgpu)",
    "radeon": "AMD graphics (radeon)",
    "nouveau": "nouveau",
    "nvidia": "NVIDIA's driver, outside the kernel's tree",
    "nvidia_uvm": "NVIDIA's driver, outside the kernel's tree",
    "nvidia_drm": "NVIDIA's driver, outside the kernel's tree",
    "zfs": "OpenZFS, outside the kernel's tree",
    "spl": "OpenZFS, outside the kernel's tree",
    "vboxdrv": "VirtualBox, outside the kernel's tree",
    "vmmon": "VMware Workstation, outside the kernel's tree",
    "btrfs": "Btrfs",
    "xfs": "XFS",
    "ext4": "ext4",
    "nfs": "NFS client",
    "nfsd": "NFS server",
    "sunrpc": "SunRPC",
    "cifs": "SMB client",
    "ceph": "Ceph",
    "fuse": "FUSE",
    "overlay": "overlayfs",
    "kvm": "KVM",
    "kvm_intel": "KVM",
    "kvm_amd": "KVM",
    "vhost_net": "vhost",
    "zram": "zram",
    "binder_linux": "binder",
    "vmw_balloon": "memory balloon",
    "virtio_balloon": "memory balloon",
    "hv_balloon": "memory balloon",
    "virtio_net": "virtio network (virtio_net)",
    "mac80211": "mac80211 (Wi-Fi)",
    "ttm": "TTM (graphics memory)",
    "drm": "DRM (graphics)",
}
"""By the module's name, which is obj-m of the folder's Makefile: those of `SUBSYSTEMS`, drivers/gpu/drm/xe, fs/xfs,
fs/smb/client, fs/overlayfs, arch/x86/kvm, drivers/vhost, drivers/misc/vmw_balloon.c, drivers/hv and net/mac80211;
outside the kernel's tree NVIDIA's open-gpu-kernel-modules, openzfs/zfs, VirtualBox's vboxdrv and VMware's vmmon. A
module that is not here is named as it is."""
