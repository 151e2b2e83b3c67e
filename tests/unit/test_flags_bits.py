# SPDX-License-Identifier: MIT
"""The values of a kernel's flags as attributes."""

import functools
from dataclasses import replace

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags import rows
from kalloctrace.flags.bits import PF_DUMPCORE
from kalloctrace.flags.builtin import all_releases, builtin_tables, tables_of
from kalloctrace.flags.releases import Release
from kalloctrace.flags.rows import Row


def test_values_are_those_of_the_tables() -> None:
    """A member has its flag's value, and 0 where the kernel lacks the flag."""
    old, new = builtin_tables("5.10").bits, builtin_tables("7.3").bits
    assert (old.gfp_atomic, old.gfp_high, old.gfp_direct_reclaim, old.pf_memalloc) == (0x200, 0x20, 0x400, 0x800)
    assert (new.gfp_atomic, new.gfp_high, new.alloc_no_codetag, old.alloc_no_codetag) == (0, 0x20, 0x1000, 0)


def test_flags_that_changed_their_meaning_are_two_members() -> None:
    """A kernel has ALLOC_HIGH and ALLOC_HARDER, or ALLOC_MIN_RESERVE and ALLOC_NON_BLOCK."""
    old, new = builtin_tables("5.10").bits, builtin_tables("6.12").bits
    assert (old.alloc_high, old.alloc_harder, old.alloc_min_reserve, old.alloc_non_block) == (0x20, 0x10, 0, 0)
    assert (new.alloc_high, new.alloc_harder, new.alloc_min_reserve, new.alloc_non_block) == (0, 0, 0x20, 0x10)
    assert (old.pf_memalloc_nocma, old.pf_memalloc_pin) == (new.pf_memalloc_pin, new.pf_memalloc_nocma)


def test_a_renamed_flag_is_one_member() -> None:
    """ALLOC_TRYLOCK means what ALLOC_NOLOCK means."""
    assert [builtin_tables(release).bits.alloc_nolock for release in ("6.12", "6.16", "7.3")] == [0, 0x400, 0x400]


@pytest.mark.parametrize("flag", ["__GFP_IO", "ALLOC_CPUSET", "PF_MEMALLOC"])
def test_a_flag_that_every_kernel_has_must_be_there(flag: str) -> None:
    """Incomplete tables are an error: 0 would mean that the kernel lacks the flag."""
    tables = builtin_tables("6.12")
    lacking = replace(
        tables,
        gfp_bits=tuple(entry for entry in tables.gfp_bits if entry[0] != flag),
        alloc=tuple(entry for entry in tables.alloc if entry[0] != flag),
        pf=tuple(entry for entry in tables.pf if entry[0] != flag),
    )
    with pytest.raises(KalloctraceError, match=f"lack {flag}"):
        _ = lacking.bits


def test_the_flag_of_dumped_tasks() -> None:
    """include/linux/sched.h:1544 of 5.10.262-1: #define PF_DUMPCORE 0x00000200."""
    assert PF_DUMPCORE == 0x00000200


@functools.cache
def _all_tables() -> tuple[tuple[str, dict[str, tuple[tuple[str, int], ...]]], ...]:
    """Each series' first and newest patch level, and both sides of the backport to 6.1, oldest first."""
    series = all_releases()
    releases = [*series, *(Release(one.major, one.minor, 0) for one in series), Release(6, 1, 115), Release(6, 1, 116)]
    named = [(one, tables_of(one)) for one in sorted(releases)]
    kinds = ("gfp_bits", "gfp_print", "alloc", "migratetype", "zone_watermarks", "pf")
    return tuple(
        (f"{one.series}.{one.patch}" if one.patch <= 116 else one.series, {kind: getattr(of, kind) for kind in kinds})
        for one, of in named
    )


@pytest.mark.parametrize(
    ("kind", "name", "value", "first", "last"),
    [
        # 2973d8229b78 ("mm: discard __GFP_ATOMIC") is in v6.3.
        ("gfp_bits", "__GFP_ATOMIC", 0x200, "5.8.0", "6.2"),
        ("gfp_print", "GFP_ATOMIC", 0xA20, "5.8.0", "6.2"),
        ("gfp_print", "GFP_ATOMIC", 0x820, "6.3.0", "7.3"),
        # 013bb59dbb7c and c275c5c6d50a are in v5.14; from v5.18 on the latter's bit needs KASAN_HW_TAGS.
        ("gfp_bits", "__GFP_ZEROTAGS", 0x800000, "5.14.0", "7.3"),
        ("gfp_bits", "__GFP_SKIP_KASAN_POISON", 0x1000000, "5.14.0", "5.17"),
        ("gfp_print", "GFP_TRANSHUGE", 0x11C24CA, "5.14.0", "5.17"),
        ("gfp_print", "GFP_TRANSHUGE_LIGHT", 0x11C20CA, "5.14.0", "5.17"),
        ("gfp_print", "GFP_HIGHUSER_MOVABLE", 0x1100CCA, "5.14.0", "5.17"),
        # __GFP_NO_OBJ_EXT came in v6.10 and is not in include/linux/gfp_types.h of 7.3.4.
        ("gfp_bits", "__GFP_NO_OBJ_EXT", 0x1000000, "6.10.0", "7.2"),
        # 16f5dfbc851b ("gfp: include __GFP_NOWARN in GFP_NOWAIT") is in v6.8.
        ("gfp_print", "GFP_NOWAIT", 0x800, "5.8.0", "6.7"),
        ("gfp_print", "GFP_NOWAIT", 0x2800, "6.8.0", "7.3"),
        # The print table lists single zone bits under their own names since v6.15.
        ("gfp_print", "__GFP_DMA", 0x1, "6.15.0", "7.3"),
        # 97769a53f117 is in v6.15; mm/page_alloc.h:14 of 7.3.4 has the new name.
        ("alloc", "ALLOC_TRYLOCK", 0x400, "6.15.0", "7.2"),
        ("alloc", "ALLOC_NOLOCK", 0x400, "7.3.0", "7.3"),
        ("alloc", "ALLOC_NO_CODETAG", 0x1000, "7.3.0", "7.3"),
        # BTF of Debian's kernels: 6.17.13 has the mark; 7.2.13 has CONFIG_CMA=y.
        ("migratetype", "__MIGRATE_TYPE_END", 3, "6.17.0", "7.1"),
        ("migratetype", "__MIGRATE_TYPE_END", 4, "7.2.0", "7.3"),
        ("migratetype", "MIGRATE_CMA", 4, "7.2.0", "7.3"),
        ("migratetype", "MIGRATE_ISOLATE", 4, "5.8.0", "7.1"),
        ("migratetype", "MIGRATE_ISOLATE", 5, "7.2.0", "7.3"),
        ("migratetype", "MIGRATE_TYPES", 5, "5.8.0", "7.1"),
        ("migratetype", "MIGRATE_TYPES", 6, "7.2.0", "7.3"),
        # c574bbe91703 (WMARK_PROMO) is in v5.18.
        ("zone_watermarks", "WMARK_PROMO", 3, "5.18.0", "7.3"),
        ("zone_watermarks", "NR_WMARK", 3, "5.8.0", "5.17"),
        ("zone_watermarks", "NR_WMARK", 4, "5.18.0", "7.3"),
        # eab0af905bfc is in v6.9, reverted in v6.12; 1a08ae36cf8b is in v5.13.
        ("pf", "PF_MEMALLOC_NORECLAIM", 0x800000, "6.9.0", "6.11"),
        ("pf", "PF_MEMALLOC_NOWARN", 0x1000000, "6.9.0", "6.11"),
        ("pf", "PF_MEMALLOC_NOCMA", 0x10000000, "5.8.0", "5.12"),
        ("pf", "PF_MEMALLOC_PIN", 0x10000000, "5.13.0", "7.3"),
    ],
)
def test_a_value_holds_from_the_release_that_set_it(kind: str, name: str, value: int, first: str, last: str) -> None:
    """It is there in each release from the first to the last one, and in no other."""
    having = [release for release, tables in _all_tables() if (name, value) in tables[kind]]
    releases = [release for release, _ in _all_tables()]
    assert having == releases[releases.index(first) : releases.index(last) + 1]


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("ALLOC_HARDER", "ALLOC_NON_BLOCK", 0x10),
        ("ALLOC_HIGH", "ALLOC_MIN_RESERVE", 0x20),
        ("", "ALLOC_HIGHATOMIC", 0x200),
    ],
)
def test_the_backport_to_6_1_ends_with_the_series(old: str, new: str, value: int) -> None:
    """Stable 6.1.116 has the new names of 6.3; 6.2 never got them."""
    for release, tables in _all_tables():
        major, minor, patch = (int(part) for part in (*release.split("."), "999")[:3])
        is_new = (major, minor) >= (6, 3) or ((major, minor) == (6, 1) and patch >= 116)
        names = [name for name, bit in tables["alloc"] if bit == value]
        assert names == [name for name in [new if is_new else old] if name], release


@pytest.mark.parametrize(
    "table",
    ["GFP_CERTAIN_MASK", "GFP_BITS", "GFP_COMPOUNDS", "ALLOC", "MIGRATETYPE", "ZONE_TYPE", "ZONE_WATERMARKS", "PF"],
)
def test_a_row_that_begins_in_a_later_release_cites_its_source(table: str) -> None:
    """CONTRIBUTING.md, "Facts over versions": the row cites the kernel commit or the package that made the change."""
    found: tuple[Row, ...] = getattr(rows, table)
    assert all(isinstance(row.source, str) for row in found)
    assert [row.name for row in found if row.since != rows.FIRST and not row.source] == []
