# SPDX-License-Identifier: MIT
"""Each flag in a few words for people, and its short name for narrow tables."""

from collections.abc import Mapping
from types import MappingProxyType

_GFP = {
    "__GFP_DMA": "must come from ZONE_DMA, for devices that reach only the lowest memory",
    "__GFP_HIGHMEM": "may come from high memory, which the kernel does not map permanently",
    "__GFP_DMA32": "must come from the first 4 GiB (ZONE_DMA32 or below)",
    "__GFP_MOVABLE": "the page can be migrated or reclaimed later; with HIGHMEM it may use ZONE_MOVABLE",
    "__GFP_RECLAIMABLE": "slab pages that a shrinker can free; grouped with others of their kind",
    "__GFP_HIGH": "high priority: may use part of the reserve below the min watermark",
    "__GFP_IO": "reclaim may start disk I/O",
    "__GFP_FS": "reclaim may call into file systems",
    "__GFP_ZERO": "return the page filled with zeros",
    "__GFP_ATOMIC": "the caller cannot sleep and has high priority",
    "__GFP_DIRECT_RECLAIM": "the caller may sleep and reclaim memory itself",
    "__GFP_KSWAPD_RECLAIM": "wake kswapd when free memory runs low",
    "__GFP_WRITE": "the page will be dirtied soon: spread such pages over the nodes",
    "__GFP_NOWARN": "print no warning when the allocation fails",
    "__GFP_RETRY_MAYFAIL": "retry as long as that may help, but fail rather than kill a process",
    "__GFP_NOFAIL": "never fail: retry forever",
    "__GFP_NORETRY": "give up early, after one light attempt to reclaim or compact",
    "__GFP_MEMALLOC": "may use all reserves, because the request helps to free memory",
    "__GFP_COMP": "make pages of order 1 and more one compound page",
    "__GFP_NOMEMALLOC": "never use the emergency reserves, whatever else allows it",
    "__GFP_HARDWALL": "stay strictly within the nodes of the task's cpuset",
    "__GFP_THISNODE": "only from the given node, without falling back to others",
    "__GFP_ACCOUNT": "charge the memory to the task's memory cgroup",
    "__GFP_ZEROTAGS": "also clear the page's memory tags when it is zeroed (arm64 MTE)",
    "__GFP_SKIP_ZERO": "do not zero the page on allocation, the caller does (KASAN_HW_TAGS)",
    "__GFP_SKIP_KASAN_UNPOISON": "do not unpoison the page on allocation (KASAN_HW_TAGS)",
    "__GFP_SKIP_KASAN_POISON": "do not poison the page when it is freed (KASAN)",
    "__GFP_SKIP_KASAN": "no KASAN checks of the page on allocation and free (KASAN_HW_TAGS)",
    "__GFP_NOLOCKDEP": "hide the request from lockdep's checks (kernels with LOCKDEP)",
    "__GFP_NO_OBJ_EXT": "create no extension data for slab objects; guards against recursion",
    "__GFP_RECLAIM": "both direct reclaim and kswapd are allowed",
    "GFP_KERNEL": "ordinary kernel memory; may sleep, do I/O and enter file systems",
    "GFP_KERNEL_ACCOUNT": "like GFP_KERNEL, charged to the memory cgroup",
    "GFP_USER": "memory for user space that the kernel and devices address directly",
    "GFP_HIGHUSER": "memory for user space that may lie in high memory",
    "GFP_HIGHUSER_MOVABLE": "movable memory for user space that may lie anywhere, as in page faults",
    "GFP_TRANSHUGE": "a huge page for user space, with reclaim by the caller",
    "GFP_TRANSHUGE_LIGHT": "a huge page for user space, without any reclaim",
    "GFP_NOFS": "may sleep and do I/O, but not enter file systems",
    "GFP_NOIO": "may sleep, but start no I/O",
    "GFP_ATOMIC": "cannot sleep; may use part of the reserves, as in interrupts",
    "GFP_NOWAIT": "cannot sleep, wakes kswapd, uses no reserves",
    "GFP_DMA": "must come from ZONE_DMA",
    "GFP_DMA32": "must come from the first 4 GiB",
}

_ALLOC = {
    "ALLOC_WMARK_MIN": "compare free memory with the min watermark",
    "ALLOC_WMARK_LOW": "compare free memory with the low watermark, as each first attempt does",
    "ALLOC_WMARK_HIGH": "compare free memory with the high watermark: the last attempt before the OOM killer",
    "ALLOC_NO_WATERMARKS": "ignore the watermarks and use all reserves",
    "ALLOC_OOM": "a victim of the OOM killer: may use part of the reserves to exit",
    "ALLOC_HARDER": "try harder: may go partly below the watermark",
    "ALLOC_NON_BLOCK": "the caller cannot sleep: with ALLOC_MIN_RESERVE it may go further below",
    "ALLOC_HIGH": "__GFP_HIGH was given: may use half of the min reserve",
    "ALLOC_MIN_RESERVE": "__GFP_HIGH was given: may use half of the min reserve",
    "ALLOC_CPUSET": "check each zone's node against the task's cpuset",
    "ALLOC_CMA": "may use areas reserved for contiguous allocations (CMA)",
    "ALLOC_NOFRAGMENT": "fall back to another migratetype only by taking a whole pageblock",
    "ALLOC_HIGHATOMIC": "may use the pageblocks reserved for high-order atomic requests",
    "ALLOC_TRYLOCK": "only try locks, never wait for them; callable from any context",
    "ALLOC_NOLOCK": "only try locks, never wait for them; callable from any context",
    "ALLOC_KSWAPD": "may wake kswapd",
    "ALLOC_NO_CODETAG": "leave the page out of allocation profiling",
}

_PF = {
    "PF_MEMALLOC": "the task reclaims memory and may use all reserves",
    "PF_MEMALLOC_NOFS": "all allocations of the task are GFP_NOFS",
    "PF_MEMALLOC_NOIO": "all allocations of the task are GFP_NOIO",
    "PF_MEMALLOC_NORECLAIM": "no allocation of the task may enter direct reclaim",
    "PF_MEMALLOC_NOWARN": "all allocations of the task have __GFP_NOWARN",
    "PF_MEMALLOC_NOCMA": "no allocation of the task comes from CMA areas",
    "PF_MEMALLOC_PIN": "the task pins its pages: no allocation comes from movable zones or CMA areas",
}

_OTHER = {
    "MIGRATE_UNMOVABLE": "pages that cannot be moved",
    "MIGRATE_MOVABLE": "pages that can be migrated",
    "MIGRATE_RECLAIMABLE": "pages that can be freed on demand",
    "MIGRATE_HIGHATOMIC": "pageblocks reserved for high-order atomic requests",
    "MIGRATE_CMA": "pageblocks reserved for contiguous allocations; movable pages may use them meanwhile",
    "MIGRATE_ISOLATE": "isolated pageblocks: nothing is allocated from them",
    "ZONE_DMA": "the first 16 MiB on x86",
    "ZONE_DMA32": "below 4 GiB",
    "ZONE_NORMAL": "memory that the kernel maps permanently",
    "ZONE_HIGHMEM": "memory that a 32-bit kernel maps only while it uses it",
    "ZONE_MOVABLE": "memory for movable pages only",
    "ZONE_DEVICE": "memory of devices; the page allocator never allocates it",
    "WMARK_MIN": "below it only privileged requests succeed",
    "WMARK_LOW": "below it, kswapd is woken",
    "WMARK_HIGH": "above it, kswapd goes back to sleep",
    "WMARK_PROMO": "kswapd's target if memory tiering promotes pages",
}

_MEANINGS = {**_GFP, **_ALLOC, **_PF, **_OTHER}


def meaning(name: str) -> str:
    """Return the meaning of a flag, "" for an unknown name."""
    return _MEANINGS.get(name, "")


SHORT_GFP: Mapping[str, str] = MappingProxyType(
    {
        "GFP_TRANSHUGE": "THP",
        "GFP_TRANSHUGE_LIGHT": "THL",
        "GFP_HIGHUSER_MOVABLE": "HUM",
        "GFP_HIGHUSER": "HU",
        "GFP_USER": "U",
        "GFP_KERNEL_ACCOUNT": "KAC",
        "GFP_KERNEL": "K",
        "GFP_NOFS": "NOFS",
        "GFP_ATOMIC": "A",
        "GFP_NOIO": "NOIO",
        "GFP_NOWAIT": "NOW",
        "GFP_DMA": "D",
        "GFP_DMA32": "D32",
        "__GFP_DMA": "DM",
        "__GFP_DMA32": "DM32",
        "__GFP_HIGHMEM": "HM",
        "__GFP_ATOMIC": "AT",
        "__GFP_HIGH": "H",
        "__GFP_IO": "I",
        "__GFP_FS": "F",
        "__GFP_NOWARN": "NWR",
        "__GFP_RETRY_MAYFAIL": "RM",
        "__GFP_NOFAIL": "NF",
        "__GFP_NORETRY": "NR",
        "__GFP_COMP": "C",
        "__GFP_ZERO": "Z",
        "__GFP_NOMEMALLOC": "NMA",
        "__GFP_MEMALLOC": "MA",
        "__GFP_HARDWALL": "HW",
        "__GFP_THISNODE": "TN",
        "__GFP_RECLAIMABLE": "RC",
        "__GFP_MOVABLE": "M",
        "__GFP_ACCOUNT": "AC",
        "__GFP_WRITE": "WR",
        "__GFP_RECLAIM": "R",
        "__GFP_DIRECT_RECLAIM": "DR",
        "__GFP_KSWAPD_RECLAIM": "KR",
        "__GFP_ZEROTAGS": "ZT",
        "__GFP_NO_OBJ_EXT": "NOE",
    }
)
"""The names of `perf kmem` (tools/perf/builtin-kmem.c, gfp_compact_table) with five exceptions. It gives NF to GFP_NOFS
and __GFP_NOFAIL, and R to __GFP_RETRY_MAYFAIL and __GFP_RECLAIM: the first of each pair has a name of its own here. Its
NI, NW and _A are NOIO, NOW and AT. The last two flags, __GFP_DMA and __GFP_DMA32 are not in its table."""

SHORT_ALLOC: Mapping[str, str] = MappingProxyType(
    {
        "ALLOC_WMARK_MIN": "MIN",
        "ALLOC_WMARK_LOW": "LOW",
        "ALLOC_WMARK_HIGH": "HIGH",
        "ALLOC_NO_WATERMARKS": "NOWM",
        "ALLOC_OOM": "OOM",
        "ALLOC_HARDER": "HD",
        "ALLOC_NON_BLOCK": "NB",
        "ALLOC_HIGH": "HI",
        "ALLOC_MIN_RESERVE": "MR",
        "ALLOC_CPUSET": "CS",
        "ALLOC_CMA": "CMA",
        "ALLOC_NOFRAGMENT": "NFR",
        "ALLOC_HIGHATOMIC": "HA",
        "ALLOC_TRYLOCK": "TL",
        "ALLOC_NOLOCK": "NL",
        "ALLOC_KSWAPD": "KS",
        "ALLOC_NO_CODETAG": "NCT",
    }
)

SHORT_MIGRATETYPE: Mapping[str, str] = MappingProxyType(
    {
        "MIGRATE_UNMOVABLE": "U",
        "MIGRATE_MOVABLE": "M",
        "MIGRATE_RECLAIMABLE": "E",
        "MIGRATE_HIGHATOMIC": "H",
        "MIGRATE_CMA": "C",
        "MIGRATE_ISOLATE": "I",
    }
)
"""The letters of the kernel's own reports on free memory (mm/show_mem.c, show_migration_types())."""


def short_name(name: str, names: Mapping[str, str]) -> str:
    """Return the short name of a flag.

    Args:
        name: the kernel's name.
        names: `SHORT_GFP`, `SHORT_ALLOC` or `SHORT_MIGRATETYPE`.

    Returns:
        The short name; for a flag without one, its name in lower case without the common prefix.
    """
    if name in names:
        return names[name]
    for prefix in ("__GFP_", "GFP_", "ALLOC_", "MIGRATE_"):
        if name.startswith(prefix):
            return name.removeprefix(prefix).lower()
    return name
