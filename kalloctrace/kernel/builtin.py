# SPDX-License-Identifier: MIT
"""Built-in kernels: every release from 5.8 to 7.3, on x86_64 with Debian's configuration.

They serve when the kernel itself is not available. A running kernel is inspected instead (`kalloctrace.kernel.live`),
because distributions move changes between releases. Each row cites the kernel commit that made the change, or the
Debian source package and line where the value was read.
"""

from functools import lru_cache
from typing import Any, NamedTuple

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.flags import rows
from kalloctrace.flags.builtin import KNOWN_RELEASES, builtin_kernels, builtin_tables, known_release
from kalloctrace.flags.releases import Release, parse_release
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.features import Features
from kalloctrace.kernel.machine import Machine, machine_of
from kalloctrace.kernel.snapshot import Snapshot


class Row(NamedTuple):
    """The value of a feature from a release on, until a later row replaces it.

    Attributes:
        feature: the name of the attribute of `Features`.
        since: the first release with the value, (major, minor).
        value: the value.
        source: where the value was read.
    """

    feature: str
    since: tuple[int, int]
    value: object
    source: str


FIRST: tuple[int, int] = rows.FIRST[:2]
"""The oldest built-in kernel, (major, minor)."""

OLD_STAND_IN, NEW_STAND_IN = "5.10", builtin_kernels()[-1]
"""The built-in kernels whose rules stand in for an unknown kernel: an old one, and a new one."""

_READ_5_8 = "mm/page_alloc.c of Linux 5.8.1"
_DEBIAN_CONFIG = "/boot/config of Debian's 5.10, 6.1, 6.12, 7.2 and 7.3"
_FIXED_ORDERS = (0, 1, 2, 3, 9)

ROWS = (
    Row("entry", FIRST, "__alloc_pages_nodemask", f"{_READ_5_8}; mm/page_alloc.c:5000 of 5.10.262-1"),
    Row(
        "entry",
        (5, 13),
        "__alloc_pages",
        '84172f4bb752 ("mm/page_alloc: combine __alloc_pages and __alloc_pages_nodemask") (in v5.13)',
    ),
    Row(
        "entry",
        (6, 10),
        "__alloc_pages_noprof",
        'b951aaff5035 ("mm: enable page allocation tagging") (in v6.10)',
    ),
    Row(
        "entry",
        (6, 14),
        "__alloc_frozen_pages_noprof",
        '49249a2a5eeb ("mm/page_alloc: add __alloc_frozen_pages()") (in v6.14)',
    ),
    Row("entry_alloc_flags", FIRST, False, _READ_5_8),
    Row("entry_alloc_flags", (7, 3), True, "mm/page_alloc.c:5406 of 7.3.4-1~bpo13+1"),
    Row("nolock", FIRST, "none", _READ_5_8),
    Row(
        "nolock",
        (6, 15),
        "fixed",
        '97769a53f117 ("mm, bpf: Introduce try_alloc_pages() for opportunistic page allocation") (in v6.15)',
    ),
    Row(
        "nolock",
        (6, 18),
        "gfp_flags",
        '99253de51f80 ("mm: Allow GFP_ACCOUNT to be used in alloc_pages_nolock().") and d7242af86434 ("mm: '
        'Introduce alloc_frozen_pages_nolock()") (in v6.18)',
    ),
    Row("nolock", (7, 3), "alloc_flags", "mm/page_alloc.c:8064 and :8088 of 7.3.4-1~bpo13+1"),
    Row("gfp_context_on_fast_path", FIRST, False, f"{_READ_5_8}; mm/page_alloc.c:5039 of 5.10.262-1"),
    Row(
        "gfp_context_on_fast_path",
        (5, 13),
        True,
        'da6df1b0fcfa ("mm: apply per-task gfp constraints in fast path") (in v5.13)',
    ),
    Row("pf_memalloc_pin", FIRST, False, "include/linux/sched/mm.h:163 of 5.10.262-1"),
    Row(
        "pf_memalloc_pin",
        (5, 13),
        True,
        '8e3560d963d2 ("mm: honor PF_MEMALLOC_PIN for all movable pages") (in v5.13)',
    ),
    Row("pf_memalloc_noreclaim", FIRST, False, "include/linux/sched/mm.h:163 of 5.10.262-1"),
    Row(
        "pf_memalloc_noreclaim",
        (6, 9),
        True,
        'eab0af905bfc ("mm: introduce PF_MEMALLOC_NORECLAIM, PF_MEMALLOC_NOWARN") (in v6.9)',
    ),
    Row(
        "pf_memalloc_noreclaim",
        (6, 12),
        False,
        '9a8da05d7ad6 ("Revert "mm: introduce PF_MEMALLOC_NORECLAIM, PF_MEMALLOC_NOWARN"") (in v6.12)',
    ),
    Row("pf_memalloc_nocma", FIRST, False, _READ_5_8),
    Row(
        "pf_memalloc_nocma",
        (5, 9),
        True,
        '8510e69c8efe ("mm/page_alloc: fix memalloc_nocma_{save/restore} APIs") (in v5.9)',
    ),
    Row(
        "pf_memalloc_nocma",
        (5, 13),
        False,
        '8e3560d963d2 ("mm: honor PF_MEMALLOC_PIN for all movable pages") (in v5.13)',
    ),
    Row("context_test", FIRST, "none", _READ_5_8),
    Row(
        "context_test",
        (5, 9),
        "in_interrupt",
        '182f3d7a02fd ("mm/page_alloc.c: skip setting nodemask when we are in interrupt") (in v5.9)',
    ),
    Row("context_test", (5, 15), "in_task", '88dc6f208829 ("mm/page_alloc.c: use in_task()") (in v5.15)'),
    Row("interrupt_mask", FIRST, 0, _READ_5_8),
    Row("interrupt_mask", (5, 9), 0x00FFFF00, "in_interrupt(), include/linux/preempt.h of 5.10.262-1"),
    Row("interrupt_mask", (5, 15), 0x00FF0100, "in_task(), include/linux/preempt.h of 6.1.192-2"),
    Row("interrupt_mask", (7, 3), 0xFF000100, "in_task(), include/linux/preempt.h:33 of 7.3.4-1~bpo13+1"),
    Row("config_cma", FIRST, False, "CONFIG_CMA is off in Debian's kernels up to 7.1.13"),
    Row("config_cma", (7, 2), True, "CONFIG_CMA=y in Debian's 7.2.13 (BTF, enum migratetype)"),
    Row("config_cpusets", FIRST, True, f"CONFIG_CPUSETS=y, {_DEBIAN_CONFIG}"),
    Row("config_numa", FIRST, True, f"CONFIG_NUMA=y, {_DEBIAN_CONFIG}"),
    Row("defrag_mode", FIRST, False, _READ_5_8),
    Row("defrag_mode", (6, 15), True, 'e3aa7df331bc ("mm: page_alloc: defrag_mode") (in v6.15)'),
    Row("highatomic_on_fast_path", FIRST, False, _READ_5_8),
    Row("highatomic_on_fast_path", (7, 3), True, "mm/page_alloc.c:5456 of 7.3.4-1~bpo13+1"),
    Row("max_order", FIRST, 10, "MAX_ORDER up to 6.7, MAX_PAGE_ORDER since: 0 to 10 on x86_64 throughout"),
    Row("nolock_orders", FIRST, (), _READ_5_8),
    Row("nolock_orders", (6, 15), _FIXED_ORDERS, "pcp_allowed_order(), mm/page_alloc.c of Linux 6.17"),
    Row("config_preempt_rt", FIRST, False, "Debian's amd64 flavour: CONFIG_PREEMPT_RT is the rt flavour's"),
)

_GFP_BITS_SHIFT = (
    (FIRST, 23, "include/linux/gfp.h:227 of 5.10.262-1"),
    # The same in include/linux/gfp.h of Linux 5.17-rc5.
    ((5, 14), 25, "include/linux/gfp.h of Linux 5.15.0"),
    # The same in include/linux/gfp.h of Linux 5.19.0.
    ((5, 18), 27, "include/linux/gfp_types.h:261 of 6.1.192-2"),
    # The same in include/linux/gfp_types.h of Linux 6.8.1.
    ((6, 4), 26, "include/linux/gfp_types.h of Linux 6.4.6"),
)
"""__GFP_BITS_SHIFT without CONFIG_LOCKDEP while it was a literal, with gaps for bits of other options."""

_GFP_BITS_ENUM = (
    ((6, 9), "include/linux/gfp_types.h of Linux 6.9.0, as Debian configures it"),
    ((6, 10), "include/linux/gfp_types.h of 6.12.117-1, as Debian configures it"),
    ((7, 3), "include/linux/gfp_types.h of 7.3.4-1, as Debian configures it"),
)
"""Releases on which __GFP_BITS_SHIFT is the last member of an enum and changed: it is above the highest bit."""


def builtin_features(kernel: str, version: str = "") -> Features:
    """Return the features of a release.

    Args:
        kernel: "5.10", "v6.12", "5.10.262" or `uname -r`; any release from 5.8 to 7.3.
        version: `uname -v`, which holds Debian's package version.

    Raises:
        KalloctraceError: this kernel is not built in (exit code 2).
    """
    return _features(_series(kernel, version))


def features_in(release: Release) -> Features:
    """Return the features of a release that is known."""
    return _features((release.major, release.minor))


def builtin_snapshot(kernel: str, machine: Machine | None = None, version: str = "") -> Snapshot:
    """Return a built-in kernel on a machine.

    Args:
        kernel: as in `builtin_features`.
        machine: the machine; by default one node with memory in DMA, DMA32 and Normal, without cpusets.
        version: as in `builtin_features`.

    Raises:
        KalloctraceError: this kernel is not built in (exit code 2).
    """
    series = _series(kernel, version)
    tables = builtin_tables(kernel, version)
    return Snapshot(
        release=kernel,
        version=version,
        features=_features(series),
        tables=tables,
        machine=machine or default_machine(tables),
        evidence={row.feature: row.source for row in ROWS if row.since <= series},
    )


def default_machine(tables: FlagTables) -> Machine:
    """Return a machine of one node with memory in DMA, DMA32 and Normal, as it is after boot."""
    zones = [index for name in ("DMA", "DMA32", "Normal") if (index := tables.zone_index(name)) is not None]
    return machine_of({0: zones}, gfp_allowed_mask=default_allowed_mask(tables))


def default_allowed_mask(tables: FlagTables) -> int:
    """Return __GFP_BITS_MASK (`gfp_t`): the value of gfp_allowed_mask after boot.

    Args:
        tables: the kernel's tables; its release decides how the mask is computed.

    Raises:
        KalloctraceError: the name of the tables' kernel is not a release (exit code 2).
    """
    release = parse_release(tables.kernel)
    if release is None:
        raise _unknown(tables.kernel)
    series = (release.major, release.minor)
    if series >= _GFP_BITS_ENUM[0][0]:
        return (1 << max(value for _, value in tables.gfp_bits).bit_length()) - 1
    shift = next(shift for since, shift, _ in reversed(_GFP_BITS_SHIFT) if since <= series)
    lockdep = tables.has_gfp("__GFP_NOLOCKDEP")
    return (1 << shift + lockdep) - 1


def allowed_mask_changes() -> tuple[tuple[tuple[int, int], int, str], ...]:
    """Return the releases that changed `default_allowed_mask`: (major, minor), the mask (`gfp_t`) and the source."""
    sources = [*((since, source) for since, _, source in _GFP_BITS_SHIFT), *_GFP_BITS_ENUM]
    return tuple(
        (since, default_allowed_mask(builtin_tables(f"{since[0]}.{since[1]}")), source) for since, source in sources
    )


def _series(kernel: str, version: str = "") -> tuple[int, int]:
    release: Release | None = known_release(kernel, version)
    if release is None:
        raise _unknown(kernel)
    return release.major, release.minor


@lru_cache(maxsize=64)
def _features(series: tuple[int, int]) -> Features:
    values: dict[str, Any] = {row.feature: row.value for row in ROWS if row.since <= series}
    return Features(**values)


def _unknown(kernel: str) -> KalloctraceError:
    return KalloctraceError(
        f"kernel {kernel!r} is not built in",
        f"the rules of its page allocator are known for the releases from {KNOWN_RELEASES}",
        f"use one of {', '.join(builtin_kernels())} or a release between, or a trace of that kernel",
        Exit.USAGE,
    )
