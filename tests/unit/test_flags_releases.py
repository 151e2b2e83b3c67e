# SPDX-License-Identifier: MIT
"""Releases: what their text means, how they compare, and what is known about releases without built-in tables."""

import os

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags import rows
from kalloctrace.flags.builtin import (
    all_releases,
    builtin_tables,
    certain_mask,
    default_tables,
    gfp_wait_bit,
    has_low_zone_modifiers,
    is_older_release,
    known_release,
    releases_with,
)
from kalloctrace.flags.releases import NEWEST_PATCH, Release, is_backporting_vendor, parse_release, upstream_release
from kalloctrace.kernel.zone_counters import absent_counters


@pytest.mark.parametrize(
    ("kernel", "version", "release"),
    [
        ("5.10", "", (5, 10, NEWEST_PATCH)),
        ("v6.12", "", (6, 12, NEWEST_PATCH)),
        (" 5.10.262\n", "", (5, 10, 262)),
        ("5.10.0", "", (5, 10, 0)),
        ("6.1.0-49-amd64", "", (6, 1, NEWEST_PATCH)),
        ("6.1.0-49-amd64", "#1 SMP Debian 6.1.192-2 (2026-07-31)", (6, 1, 192)),
        ("6.1.0-49-amd64", "#1 SMP Debian 6.12.117-1 (2026-07-31)", (6, 1, NEWEST_PATCH)),
        ("6.1.5-custom", "", (6, 1, 5)),
        ("6.1.0-custom", "", (6, 1, 0)),
        ("5.10-rc3", "", (5, 10, 0)),
        ("5.10.0-rc3-g1234567", "", (5, 10, 0)),
        ("5.10-custom", "", (5, 10, NEWEST_PATCH)),
        ("5.15.0-1041-azure", "#48-Ubuntu", (5, 15, NEWEST_PATCH)),
        ("6.12.117+deb13-amd64", "", (6, 12, 117)),
        ("2.6.38-8-server", "", (2, 6, 38)),
    ],
)
def test_release_text_gives_series_and_patch_level(kernel: str, version: str, release: tuple[int, int, int]) -> None:
    """The patch level comes from Debian's package version, then from the release; an ABI number is not one."""
    assert parse_release(kernel, version) == release


@pytest.mark.parametrize(
    "text", ["", "five", "5", "5.", "5.10x", "1000.1", "5.10.262.1/x", "\N{ARABIC-INDIC DIGIT FIVE}.1"]
)
def test_other_text_is_no_release(text: str) -> None:
    """Only ASCII digits and the separators of a release are accepted."""
    assert parse_release(text) is None


def test_a_series_alone_is_newer_than_each_of_its_patch_levels() -> None:
    """A series means its newest patch level, so it has every backport."""
    assert Release(6, 1, 65535) < Release(6, 1) < Release(6, 2, 0)


def test_ordinals_are_consecutive_across_majors() -> None:
    """5.19 was followed by 6.0, and 6.19 by 7.0."""
    assert Release(6, 0).ordinal - Release(5, 19).ordinal == 1
    assert Release(7, 3).ordinal - Release(6, 19).ordinal == 4


@pytest.mark.parametrize(
    ("kernel", "backports"),
    [
        ("3.10.0-1160.el7.x86_64", True),
        ("4.18.0-553.el8_10.x86_64", True),
        ("5.14.0-427.el9", True),
        ("6.1.50-1.el7.elrepo.x86_64", False),
        ("5.15.0-206.153.7.el8uek.x86_64", False),
        ("6.1.0-49-amd64", False),
        ("6.1.0-model", False),
    ],
)
def test_only_red_hats_own_kernels_move_code_between_releases(kernel: str, *, backports: bool) -> None:
    """Their release names no upstream code; other kernels for the same distribution follow upstream."""
    assert is_backporting_vendor(kernel) is backports
    assert (upstream_release(kernel) is None) is backports
    assert parse_release(kernel) is not None


def test_upstream_release_reads_the_package_version() -> None:
    """The arguments are those of `parse_release`."""
    assert upstream_release("6.1.0-49-amd64", "#1 SMP Debian 6.1.192-2") == (6, 1, 192)
    assert upstream_release("six") is None


def test_all_releases_are_the_ones_with_tables() -> None:
    """Each release from 5.8 to 7.3 once, oldest first."""
    releases = all_releases()
    assert [release.series for release in releases] == [
        *(f"5.{minor}" for minor in range(8, 20)),
        *(f"6.{minor}" for minor in range(20)),
        *(f"7.{minor}" for minor in range(4)),
    ]
    assert list(releases) == sorted(releases)
    assert all(known_release(release.series) == release for release in releases)


@pytest.mark.parametrize(
    ("kernel", "older"),
    [("5.7", True), ("5.7.19", True), ("2.6.38-8-server", True), ("5.8-rc1", False), ("5.8", False), ("7.4", False)],
)
def test_releases_before_the_tables(kernel: str, *, older: bool) -> None:
    """5.8 and everything after it is not older, even where no table exists."""
    assert is_older_release(kernel) is older


def test_text_is_no_older_release() -> None:
    """A text that names no release is not an old one."""
    assert not is_older_release("live")


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        ("linux", "it is not a kernel release"),
        ("5.14.0-427.el9.x86_64", "its vendor moves code between releases"),
        ("5.7.19", "kernels before 5.8 have other bits"),
        ("7.4", "the newest known kernel is 7.3"),
        ("5.20", "the newest known kernel is 7.3"),
    ],
)
def test_the_error_says_why_a_kernel_has_no_tables(kernel: str, why: str) -> None:
    """Each cause has its own sentence."""
    with pytest.raises(KalloctraceError) as caught:
        builtin_tables(kernel)
    assert why in caught.value.why


@pytest.mark.parametrize(
    ("release", "low", "wait"),
    [
        ((2, 6, 30), False, None),
        ((2, 6, 31), True, 0x10),
        ((3, 10, 0), True, 0x10),
        ((4, 3, 9), True, 0x10),
        ((4, 4, 0), True, None),
        ((5, 7, 19), True, None),
    ],
)
def test_bits_of_releases_without_tables(release: tuple[int, int, int], *, low: bool, wait: int | None) -> None:
    """The zone modifiers are the lowest bits since 2.6.31; __GFP_WAIT is above them until 4.4."""
    assert has_low_zone_modifiers(Release(*release)) is low
    assert gfp_wait_bit(Release(*release)) == wait


def test_nothing_is_assumed_about_an_unknown_release() -> None:
    """Neither bits nor counters."""
    assert not has_low_zone_modifiers(None)
    assert gfp_wait_bit(None) is None
    assert absent_counters(None) == frozenset()


@pytest.mark.parametrize(
    ("release", "absent"),
    [
        ((3, 4, 9), {"reserved_highatomic", "free_cma"}),
        ((3, 5, 0), {"reserved_highatomic"}),
        ((4, 3, 9), {"reserved_highatomic"}),
        ((4, 4, 0), set()),
    ],
)
def test_counters_that_old_kernels_lack(release: tuple[int, int, int], absent: set[str]) -> None:
    """CMA came with 3.5, the reserve for high-order atomic requests with 4.4."""
    assert absent_counters(Release(*release)) == absent


@pytest.mark.parametrize(
    ("release", "mask"),
    [
        ((5, 13, NEWEST_PATCH), 0x7FFFFF),
        ((5, 14, 0), 0x1FFFFFF),
        ((5, 17, NEWEST_PATCH), 0x1FFFFFF),
        ((5, 18, 0), 0xFFFFFF),
        ((7, 3, 4), 0xFFFFFF),
    ],
)
def test_bits_that_no_build_option_moves(release: tuple[int, int, int], mask: int) -> None:
    """Their meaning depends on the release alone."""
    assert certain_mask(Release(*release)) == mask


@pytest.mark.parametrize(
    ("name", "releases"),
    [
        ("__GFP_ATOMIC", ("5.10", "6.1")),
        ("ALLOC_HIGHATOMIC", ("6.1", "6.12", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3")),
        ("ALLOC_NOLOCK", ("7.3",)),
        ("__GFP_SKIP_KASAN_POISON", ()),
        ("GFP_MOON", ()),
    ],
)
def test_kernels_that_have_a_flag(name: str, releases: tuple[str, ...]) -> None:
    """Only the kernels whose tables were compared with their images are listed."""
    assert releases_with(name) == releases


@pytest.mark.parametrize(
    ("release", "version", "kernel", "bit"),
    [
        ("6.1.0-21-amd64", "#1 SMP Debian 6.1.90-1", "6.1", "ALLOC_HARDER"),
        ("6.1.0-49-amd64", "#1 SMP Debian 6.1.192-2", "6.1", "ALLOC_NON_BLOCK"),
        ("4.19.0", "#1 SMP", "7.3", "ALLOC_NON_BLOCK"),
        ("5.14.0-427.el9.x86_64", "#1 SMP", "7.3", "ALLOC_NON_BLOCK"),
    ],
)
def test_default_tables(release: str, version: str, kernel: str, bit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those of the running kernel with its patch level, or the newest if it has none."""
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", release, version, "x86_64")))
    tables = default_tables()
    assert tables.kernel == kernel
    assert dict(tables.alloc)[bit] == 0x10


_TABLES = (
    "GFP_CERTAIN_MASK",
    "GFP_BITS",
    "GFP_COMPOUNDS",
    "ALLOC",
    "MIGRATETYPE",
    "ZONE_TYPE",
    "ZONE_WATERMARKS",
    "PF",
)


def test_a_name_has_one_value_in_a_release() -> None:
    """Rows of one name follow each other: a C compiler rejects a second value of an enumerator or macro."""
    every = all_releases()
    releases = [*every, *(Release(one.major, one.minor, 0) for one in every), Release(6, 1, 115), Release(6, 1, 116)]
    for table in (getattr(rows, name) for name in _TABLES):
        for release in releases:
            names = [row.name for row in table if row.is_in(release)]
            assert sorted(names) == sorted(set(names)), release


def test_each_compound_is_in_every_release() -> None:
    """include/linux/gfp.h of 5.8 defines them all, and so does gfp_types.h of 7.3.4: only their values changed."""
    every = all_releases()
    names = {row.name for row in rows.GFP_COMPOUNDS}
    for release in [*every, *(Release(one.major, one.minor, 0) for one in every)]:
        assert {row.name for row in rows.GFP_COMPOUNDS if row.is_in(release)} == names, release
