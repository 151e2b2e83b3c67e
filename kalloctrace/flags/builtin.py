# SPDX-License-Identifier: MIT
"""The flag tables of a release, built from the rows of `kalloctrace.flags.rows`."""

import os
from functools import lru_cache

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.flags import rows
from kalloctrace.flags.releases import (
    RELEASES_PER_MAJOR,
    Release,
    is_backporting_vendor,
    parse_release,
    upstream_release,
)
from kalloctrace.flags.rows import Row
from kalloctrace.flags.tables import FlagTables, Named

# Kernels whose tables were compared with their compiled images, name by name.
_PROVEN = ("5.10", "6.1", "6.12", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3")


KNOWN_RELEASES = f"{rows.FIRST.series} to {rows.LAST.series}"
"""The releases whose tables are built in, for messages."""


def builtin_kernels() -> tuple[str, ...]:
    """Return the kernels whose tables were compared with their images, oldest first."""
    return _PROVEN


def builtin_tables(kernel: str, version: str = "") -> FlagTables:
    """Return the tables of an x86_64 kernel with Debian's configuration.

    Args:
        kernel: "5.10", "v6.12", "5.10.262", or `uname -r` such as "6.1.0-49-amd64"; any release from 5.8 to
            7.3. Without a patch level it means the newest release of that series.
        version: `uname -v`, which holds Debian's package version.

    Raises:
        KalloctraceError: there are no tables for this kernel (exit code 2).
    """
    release = known_release(kernel, version)
    if release is None:
        raise KalloctraceError(
            f"no flag tables for kernel {kernel!r}",
            _why_unknown(kernel),
            f"use one of {', '.join(_PROVEN)}, or any release between",
            Exit.USAGE,
        )
    return tables_of(release)


def known_release(kernel: str, version: str = "") -> Release | None:
    """Return the release if its tables are built in, else None; arguments as of `builtin_tables`."""
    release = upstream_release(kernel, version)
    return release if release is not None and _is_covered(release) else None


def is_older_release(kernel: str) -> bool:
    """Return whether a text names a release older than all built-in tables."""
    release = parse_release(kernel)
    return release is not None and release < rows.FIRST


def _is_covered(release: Release) -> bool:
    exists = release.minor < RELEASES_PER_MAJOR
    return exists and rows.FIRST <= release <= rows.LAST


def _why_unknown(kernel: str) -> str:
    release = parse_release(kernel)
    if release is None:
        return "it is not a kernel release"
    if is_backporting_vendor(kernel):
        return "its vendor moves code between releases, so the release does not determine the bit layout"
    if release < rows.FIRST:
        return f"kernels before {rows.FIRST.series} have other bits under these names"
    return f"the newest known kernel is {rows.LAST.series}"


@lru_cache(maxsize=64)
def tables_of(release: Release) -> FlagTables:
    """Return the tables of a release returned by `known_release`."""
    return FlagTables(
        kernel=release.series,
        source="builtin",
        gfp_print=_gfp_print(release),
        gfp_bits=_in_force(rows.GFP_BITS, release),
        alloc=_in_force(rows.ALLOC, release),
        migratetype=_in_force(rows.MIGRATETYPE, release),
        zone_type=_in_force(rows.ZONE_TYPE, release),
        zone_watermarks=_in_force(rows.ZONE_WATERMARKS, release),
        pf=_in_force(rows.PF, release),
    )


def certain_mask(release: Release) -> int:
    """Return the gfp bits (`gfp_t`) whose meaning depends on the release alone, not on the configuration."""
    return _in_force(rows.GFP_CERTAIN_MASK, release)[0][1]


def all_releases() -> tuple[Release, ...]:
    """Return every release whose tables are built in, oldest first, each with its newest patch level."""
    ordinals = range(rows.FIRST.ordinal, rows.LAST.ordinal + 1)
    return tuple(Release(*divmod(ordinal, RELEASES_PER_MAJOR)) for ordinal in ordinals)


def has_low_zone_modifiers(release: Release | None) -> bool:
    """Return whether the four lowest gfp bits are the zone modifiers, also on releases without built-in tables."""
    return release is not None and release >= rows.ZONE_MODIFIERS_LOWEST_SINCE


def gfp_wait_bit(release: Release | None) -> int | None:
    """Return __GFP_WAIT (`gfp_t`), None on a release without it or with an unknown place for it."""
    wait = rows.GFP_WAIT
    return wait.value if release is not None and wait.is_in(release) else None


def zone_modifiers(value: int, release: Release | None) -> int | None:
    """Return the zone modifiers of a gfp mask as the four lowest bits of today; None if the release must be known.

    Args:
        value: `gfp_t`.
        release: of the kernel; None if it is not known.
    """
    movable = rows.GFP_MOVABLE_HIGH
    if has_low_zone_modifiers(release) or not value & movable.value:
        return value & 0xF
    if release is None:
        return None
    return value & 0x7 | (0x8 if movable.is_in(release) else 0)


def names_before_4_4(value: int, release: Release | None) -> tuple[str, ...] | None:
    """Return the names in a gfp mask of a kernel with __GFP_WAIT.

    A mask without __GFP_WAIT and __GFP_HIGH has no name of today: GFP_NOWAIT had access to reserves.

    Returns:
        None if the kernel is another one, or a bit of the mask has no certain name.
    """
    wait = gfp_wait_bit(release)
    if wait is None or not value & (wait | _HIGH_BEFORE_4_4):
        return None
    names, rest = list[str](), value
    for name, bits in rows.GFP_BEFORE_4_4:
        compound, waits = not name.startswith("__"), bool(value & wait)
        if rest & bits == bits and (not compound or (not names and waits == bool(bits & wait))):
            names.append(name)
            rest &= ~bits
    return None if rest else tuple(names)


_HIGH_BEFORE_4_4 = dict(rows.GFP_BEFORE_4_4)["__GFP_HIGH"]


def releases_with(name: str) -> tuple[str, ...]:
    """Return the kernels of `builtin_kernels` that have a gfp flag or ALLOC_* bit of this name, oldest first."""
    named = [row for row in rows.GFP_BITS + rows.GFP_COMPOUNDS + rows.ALLOC if row.name == name]
    releases = [(kernel, parse_release(kernel)) for kernel in _PROVEN]
    return tuple(
        kernel for kernel, release in releases if release is not None and any(row.is_in(release) for row in named)
    )


def _in_force(table: tuple[Row, ...], release: Release) -> Named:
    return tuple((row.name, row.value) for row in table if row.is_in(release))


def _gfp_print(release: Release) -> Named:
    bits = _in_force(rows.GFP_BITS, release)
    compounds = _in_force(rows.GFP_COMPOUNDS, release)
    if release >= rows.GFP_PRINT_BY_BIT_SINCE:
        return compounds + bits
    values = dict(compounds + bits)
    return tuple((name, values[name]) for name in rows.GFP_PRINT_ORDER_BY_HAND if name in values)


def default_tables() -> FlagTables:
    """Return the running kernel's tables if they are built in, else the newest built-in tables."""
    running = os.uname()
    if known_release(running.release, running.version) is not None:
        return builtin_tables(running.release, running.version)
    return builtin_tables(builtin_kernels()[-1])
