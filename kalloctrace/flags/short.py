# SPDX-License-Identifier: MIT
"""Short names of flags, for tables that have no room for the kernel's."""

from collections.abc import Mapping
from types import MappingProxyType

GFP: Mapping[str, str] = MappingProxyType(
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
"""As `perf kmem` has them (tools/perf/builtin-kmem.c, gfp_compact_table), but where two would be one: NF is there
GFP_NOFS and __GFP_NOFAIL, NW both GFP_NOWAIT and a warning's, R both __GFP_RECLAIM and __GFP_RETRY_MAYFAIL."""

ALLOC: Mapping[str, str] = MappingProxyType(
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

MIGRATETYPE: Mapping[str, str] = MappingProxyType(
    {
        "MIGRATE_UNMOVABLE": "U",
        "MIGRATE_MOVABLE": "M",
        "MIGRATE_RECLAIMABLE": "E",
        "MIGRATE_HIGHATOMIC": "H",
        "MIGRATE_CMA": "C",
        "MIGRATE_ISOLATE": "I",
    }
)
"""As the kernel has them in its reports on free memory (mm/show_mem.c, show_migration_types())."""


def short(name: str, names: Mapping[str, str]) -> str:
    """Return the short name of a flag; one that has none is shown without what all have in front."""
    if name in names:
        return names[name]
    for prefix in ("__GFP_", "GFP_", "ALLOC_", "MIGRATE_"):
        if name.startswith(prefix):
            return name.removeprefix(prefix).lower()
    return name
