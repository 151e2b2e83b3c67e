# SPDX-License-Identifier: MIT
"""The facts: the value of each flag by kernel release, with sources.

The rows hold for x86_64 kernels with Debian's configuration: no LOCKDEP and no KASAN_HW_TAGS (each adds gfp bits),
zones DMA, DMA32 and DEVICE, NUMA. Kernels with another configuration publish theirs in BTF and tracefs, see
`kalloctrace.flags.published`.

A source is a kernel commit with its subject, or the source package and line where the value was read. Rows without a
source of their own were read in the Debian packages linux-source-5.10 5.10.262-1
(include/linux/gfp.h:19), -6.1 6.1.192-2 (include/linux/gfp_types.h:27), -6.12 6.12.117-1, -7.2 7.2.13-1 and
-7.3 7.3.4-1, and agree with the name tables compiled into Debian's kernel images of these releases.
"""

from typing import NamedTuple

from kalloctrace.flags.releases import Release

FIRST = Release(5, 8, 0)
LAST = Release(7, 3)
_NEVER = Release(1 << 16, 0, 0)


def _since(major: int, minor: int, patch: int = 0) -> Release:
    return Release(major, minor, patch)


class Row(NamedTuple):
    """A name with its value, and the releases that have it.

    Attributes:
        name: the kernel's name.
        value: an unsigned number of up to 32 bits; for enums the index.
        since: the first release with it.
        until: the first release without it.
        source: where the value was read; "" for the packages in the module's docstring.
    """

    name: str
    value: int
    since: Release = FIRST
    until: Release = _NEVER
    source: str = ""

    def is_in(self, release: Release) -> bool:
        """Return whether a release has this name with this value."""
        return self.since <= release < self.until


_ZEROTAGS = '013bb59dbb7c ("arm64: mte: handle tags zeroing at page allocation time") (in v5.14)'
_SKIP_POISON = 'c275c5c6d50a ("kasan: disable freed user page poisoning with HW tags") (in v5.14)'
_SKIP_POISON_OPTIONAL = "bit only with KASAN_HW_TAGS from v5.18: include/linux/gfp.h of 5.17 and 5.19"
# LOCKDEP, KASAN_HW_TAGS and SLAB_OBJ_EXT move the highest bits: the release alone does not determine the meaning of a
# bit outside these masks.
GFP_CERTAIN_MASK = (
    Row("bits that no option moves", 0x7FFFFF, until=_since(5, 14)),
    Row("bits that no option moves", 0x1FFFFFF, _since(5, 14), _since(5, 18), _SKIP_POISON),
    Row("bits that no option moves", 0xFFFFFF, _since(5, 18), source=_SKIP_POISON_OPTIONAL),
)

# Facts about releases older than FIRST, for logs. The zone modifiers are the four lowest gfp bits, and __GFP_WAIT is
# the bit above them, since b70d94ee438b ("page-allocator: use integer fields lookup for gfp_zone and check for errors
# in flags passed to the page allocator") (in v2.6.31).
ZONE_MODIFIERS_LOWEST_SINCE = _since(2, 6, 31)
GFP_WAIT = Row(
    "__GFP_WAIT",
    0x10,
    ZONE_MODIFIERS_LOWEST_SINCE,
    _since(4, 4),
    'd0164adc89f6 ("mm, page_alloc: distinguish between being unable to sleep, unwilling to sleep and avoiding '
    'waking kswapd") (in v4.4)',
)

GFP_MOVABLE_HIGH = Row(
    "__GFP_MOVABLE",
    0x100000,
    _since(2, 6, 23),
    ZONE_MODIFIERS_LOWEST_SINCE,
    "include/linux/gfp.h of 2.6.24 and 2.6.29, before b70d94ee438b",
)
# The bits that no release between moved, and the compounds, which are tried first: include/linux/gfp.h of 2.6.32,
# 3.0.8, 3.10 and 4.1.
GFP_BEFORE_4_4 = (
    ("GFP_HIGHUSER_MOVABLE", 0x200DA),
    ("GFP_HIGHUSER", 0x200D2),
    ("GFP_USER", 0x200D0),
    ("GFP_TEMPORARY", 0x800D0),
    ("GFP_KERNEL", 0xD0),
    ("GFP_NOFS", 0x50),
    ("GFP_NOIO", 0x10),
    ("GFP_ATOMIC", 0x20),
    ("__GFP_DMA", 0x1),
    ("__GFP_HIGHMEM", 0x2),
    ("__GFP_DMA32", 0x4),
    ("__GFP_MOVABLE", 0x8),
    ("__GFP_HIGH", 0x20),
    ("__GFP_IO", 0x40),
    ("__GFP_FS", 0x80),
    ("__GFP_COLD", 0x100),
    ("__GFP_NOWARN", 0x200),
    ("__GFP_REPEAT", 0x400),
    ("__GFP_NOFAIL", 0x800),
    ("__GFP_NORETRY", 0x1000),
    ("__GFP_COMP", 0x4000),
    ("__GFP_ZERO", 0x8000),
    ("__GFP_NOMEMALLOC", 0x10000),
    ("__GFP_HARDWALL", 0x20000),
    ("__GFP_THISNODE", 0x40000),
    ("__GFP_RECLAIMABLE", 0x80000),
)

_NO_ATOMIC = '2973d8229b78 ("mm: discard __GFP_ATOMIC") (in v6.3)'
GFP_BITS = (
    Row("__GFP_DMA", 0x1),
    Row("__GFP_HIGHMEM", 0x2),
    Row("__GFP_DMA32", 0x4),
    Row("__GFP_MOVABLE", 0x8),
    Row("__GFP_RECLAIMABLE", 0x10),
    Row("__GFP_HIGH", 0x20),
    Row("__GFP_IO", 0x40),
    Row("__GFP_FS", 0x80),
    Row("__GFP_ZERO", 0x100),
    Row("__GFP_ATOMIC", 0x200, until=_since(6, 3), source=_NO_ATOMIC),
    Row("__GFP_DIRECT_RECLAIM", 0x400),
    Row("__GFP_KSWAPD_RECLAIM", 0x800),
    Row("__GFP_WRITE", 0x1000),
    Row("__GFP_NOWARN", 0x2000),
    Row("__GFP_RETRY_MAYFAIL", 0x4000),
    Row("__GFP_NOFAIL", 0x8000),
    Row("__GFP_NORETRY", 0x10000),
    Row("__GFP_MEMALLOC", 0x20000),
    Row("__GFP_COMP", 0x40000),
    Row("__GFP_NOMEMALLOC", 0x80000),
    Row("__GFP_HARDWALL", 0x100000),
    Row("__GFP_THISNODE", 0x200000),
    Row("__GFP_ACCOUNT", 0x400000),
    Row("__GFP_ZEROTAGS", 0x800000, _since(5, 14), source=_ZEROTAGS),
    Row("__GFP_SKIP_KASAN_POISON", 0x1000000, _since(5, 14), _since(5, 18), _SKIP_POISON),
    Row(
        "__GFP_NO_OBJ_EXT",
        0x1000000,
        _since(6, 10),
        _since(7, 3),
        '"mm: introduce __GFP_NO_OBJ_EXT flag to selectively prevent slabobj_ext creation" (in v6.10); '
        "gone from include/linux/gfp_types.h of 7.3.4",
    ),
)

_NOWAIT = '16f5dfbc851b ("gfp: include __GFP_NOWARN in GFP_NOWAIT") (in v6.8)'
GFP_COMPOUNDS = (
    Row("GFP_TRANSHUGE", 0x1C24CA, until=_since(5, 14)),
    Row("GFP_TRANSHUGE", 0x11C24CA, _since(5, 14), _since(5, 18), _SKIP_POISON),
    Row("GFP_TRANSHUGE", 0x1C24CA, _since(5, 18), source=_SKIP_POISON_OPTIONAL),
    Row("GFP_TRANSHUGE_LIGHT", 0x1C20CA, until=_since(5, 14)),
    Row("GFP_TRANSHUGE_LIGHT", 0x11C20CA, _since(5, 14), _since(5, 18), _SKIP_POISON),
    Row("GFP_TRANSHUGE_LIGHT", 0x1C20CA, _since(5, 18), source=_SKIP_POISON_OPTIONAL),
    Row("GFP_HIGHUSER_MOVABLE", 0x100CCA, until=_since(5, 14)),
    Row("GFP_HIGHUSER_MOVABLE", 0x1100CCA, _since(5, 14), _since(5, 18), _SKIP_POISON),
    Row("GFP_HIGHUSER_MOVABLE", 0x100CCA, _since(5, 18), source=_SKIP_POISON_OPTIONAL),
    Row("GFP_HIGHUSER", 0x100CC2),
    Row("GFP_USER", 0x100CC0),
    Row("GFP_KERNEL_ACCOUNT", 0x400CC0),
    Row("GFP_KERNEL", 0xCC0),
    Row("GFP_NOFS", 0xC40),
    Row("GFP_ATOMIC", 0xA20, until=_since(6, 3), source=_NO_ATOMIC),
    Row("GFP_ATOMIC", 0x820, _since(6, 3), source=_NO_ATOMIC),
    Row("GFP_NOIO", 0xC00),
    Row("GFP_NOWAIT", 0x800, until=_since(6, 8), source=_NOWAIT),
    Row("GFP_NOWAIT", 0x2800, _since(6, 8), source=_NOWAIT),
    Row("GFP_DMA", 0x1),
    Row("GFP_DMA32", 0x4),
    Row("__GFP_RECLAIM", 0xC00),
)

# The order in which `%pGg` tries the names: include/trace/events/mmflags.h:16 of 5.10, :18 of 6.1, :81 of
# 6.12. b16ee0f9ed79 ("mmflags.h: add missing __GFP_ZEROTAGS and __GFP_SKIP_KASAN_POISON names") (in v5.14) added the
# two last names. Names that a release does not have are skipped; __GFP_NO_OBJ_EXT was never in this list.
GFP_PRINT_ORDER_BY_HAND = (
    "GFP_TRANSHUGE",
    "GFP_TRANSHUGE_LIGHT",
    "GFP_HIGHUSER_MOVABLE",
    "GFP_HIGHUSER",
    "GFP_USER",
    "GFP_KERNEL_ACCOUNT",
    "GFP_KERNEL",
    "GFP_NOFS",
    "GFP_ATOMIC",
    "GFP_NOIO",
    "GFP_NOWAIT",
    "GFP_DMA",
    "__GFP_HIGHMEM",
    "GFP_DMA32",
    "__GFP_HIGH",
    "__GFP_ATOMIC",
    "__GFP_IO",
    "__GFP_FS",
    "__GFP_NOWARN",
    "__GFP_RETRY_MAYFAIL",
    "__GFP_NOFAIL",
    "__GFP_NORETRY",
    "__GFP_COMP",
    "__GFP_ZERO",
    "__GFP_NOMEMALLOC",
    "__GFP_MEMALLOC",
    "__GFP_HARDWALL",
    "__GFP_THISNODE",
    "__GFP_RECLAIMABLE",
    "__GFP_MOVABLE",
    "__GFP_ACCOUNT",
    "__GFP_WRITE",
    "__GFP_RECLAIM",
    "__GFP_DIRECT_RECLAIM",
    "__GFP_KSWAPD_RECLAIM",
    "__GFP_ZEROTAGS",
    "__GFP_SKIP_KASAN_POISON",
)
# Since "tracing: gfp: Remove duplication of recording GFP flags" (in v6.15): the compounds in the order of
# GFP_COMPOUNDS, then all single bits in ascending order (mmflags.h:88 of 7.2.13, :80 of 7.3.4).
GFP_PRINT_BY_BIT_SINCE = _since(6, 15)

_HIGH_RENAMED = '524c48072e56 ("mm/page_alloc: rename ALLOC_HIGH to ALLOC_MIN_RESERVE") (in v6.3)'
_HARDER_RENAMED = 'series "Discard __GFP_ATOMIC" (in v6.3): ALLOC_HARDER becomes ALLOC_NON_BLOCK'
_HIGHATOMIC = 'series "Discard __GFP_ATOMIC" (in v6.3): high-order atomic requests get a flag of their own'
_STABLE_6_1 = "the same in stable 6.1.116, Debian 6.1.119-1 (changelog; mm/internal.h:761 of 6.1.192-2)"
_IN_7_3 = "mm/page_alloc.h:14 of 7.3.4"
ALLOC = (
    Row("ALLOC_WMARK_MIN", 0x0),
    Row("ALLOC_WMARK_LOW", 0x1),
    Row("ALLOC_WMARK_HIGH", 0x2),
    Row("ALLOC_NO_WATERMARKS", 0x4),
    Row("ALLOC_OOM", 0x8),
    Row("ALLOC_HARDER", 0x10, until=_since(6, 1, 116), source=_STABLE_6_1),
    Row("ALLOC_HARDER", 0x10, _since(6, 2), _since(6, 3), _HARDER_RENAMED),
    Row("ALLOC_NON_BLOCK", 0x10, _since(6, 1, 116), _since(6, 2), _STABLE_6_1),
    Row("ALLOC_NON_BLOCK", 0x10, _since(6, 3), source=_HARDER_RENAMED),
    Row("ALLOC_HIGH", 0x20, until=_since(6, 1, 116), source=_STABLE_6_1),
    Row("ALLOC_HIGH", 0x20, _since(6, 2), _since(6, 3), _HIGH_RENAMED),
    Row("ALLOC_MIN_RESERVE", 0x20, _since(6, 1, 116), _since(6, 2), _STABLE_6_1),
    Row("ALLOC_MIN_RESERVE", 0x20, _since(6, 3), source=_HIGH_RENAMED),
    Row("ALLOC_CPUSET", 0x40),
    Row("ALLOC_CMA", 0x80),
    Row("ALLOC_NOFRAGMENT", 0x100),
    Row("ALLOC_HIGHATOMIC", 0x200, _since(6, 1, 116), _since(6, 2), _STABLE_6_1),
    Row("ALLOC_HIGHATOMIC", 0x200, _since(6, 3), source=_HIGHATOMIC),
    Row(
        "ALLOC_TRYLOCK",
        0x400,
        _since(6, 15),
        _since(7, 3),
        '97769a53f117 ("mm, bpf: Introduce try_alloc_pages() for opportunistic page allocation") (in v6.15)',
    ),
    Row("ALLOC_NOLOCK", 0x400, _since(7, 3), source=_IN_7_3),
    Row("ALLOC_KSWAPD", 0x800),
    Row("ALLOC_NO_CODETAG", 0x1000, _since(7, 3), source=_IN_7_3),
)

# Debian enables CMA from 7.2 on. The enum is that of BTF in Debian's images, 5.10.262 to 7.3.4.
_CMA = "CONFIG_CMA=y in Debian 7.2.13, off in 7.1.13"
_TYPE_END = "in BTF of Debian 6.17.13, not of 6.16.12"
MIGRATETYPE = (
    Row("MIGRATE_UNMOVABLE", 0),
    Row("MIGRATE_MOVABLE", 1),
    Row("MIGRATE_RECLAIMABLE", 2),
    Row("MIGRATE_PCPTYPES", 3),
    Row("MIGRATE_HIGHATOMIC", 3),
    Row("MIGRATE_CMA", 4, _since(7, 2), source=_CMA),
    Row("__MIGRATE_TYPE_END", 3, _since(6, 17), _since(7, 2), _TYPE_END),
    Row("__MIGRATE_TYPE_END", 4, _since(7, 2), source=_CMA),
    Row("MIGRATE_ISOLATE", 4, until=_since(7, 2), source=_CMA),
    Row("MIGRATE_ISOLATE", 5, _since(7, 2), source=_CMA),
    Row("MIGRATE_TYPES", 5, until=_since(7, 2), source=_CMA),
    Row("MIGRATE_TYPES", 6, _since(7, 2), source=_CMA),
)

ZONE_TYPE = (
    Row("ZONE_DMA", 0),
    Row("ZONE_DMA32", 1),
    Row("ZONE_NORMAL", 2),
    Row("ZONE_MOVABLE", 3),
    Row("ZONE_DEVICE", 4),
    Row("__MAX_NR_ZONES", 5),
)

_PROMO = 'c574bbe91703 ("NUMA balancing: optimize page placement for memory tiering system") (in v5.18)'
ZONE_WATERMARKS = (
    Row("WMARK_MIN", 0),
    Row("WMARK_LOW", 1),
    Row("WMARK_HIGH", 2),
    Row("WMARK_PROMO", 3, _since(5, 18), source=_PROMO),
    Row("NR_WMARK", 3, until=_since(5, 18), source=_PROMO),
    Row("NR_WMARK", 4, _since(5, 18), source=_PROMO),
)

_PIN = '1a08ae36cf8b ("mm cma: rename PF_MEMALLOC_NOCMA to PF_MEMALLOC_PIN") (in v5.13)'
_NORECLAIM = (
    'eab0af905bfc ("mm: introduce PF_MEMALLOC_NORECLAIM, PF_MEMALLOC_NOWARN") (in v6.9), reverted by '
    "9a8da05d7ad6 (in v6.12)"
)
PF = (
    Row("PF_MEMALLOC", 0x800),
    Row("PF_MEMALLOC_NOFS", 0x40000),
    Row("PF_MEMALLOC_NOIO", 0x80000),
    Row("PF_MEMALLOC_NORECLAIM", 0x800000, _since(6, 9), _since(6, 12), _NORECLAIM),
    Row("PF_MEMALLOC_NOWARN", 0x1000000, _since(6, 9), _since(6, 12), _NORECLAIM),
    Row("PF_MEMALLOC_NOCMA", 0x10000000, until=_since(5, 13), source=_PIN),
    Row("PF_MEMALLOC_PIN", 0x10000000, _since(5, 13), source=_PIN),
)
