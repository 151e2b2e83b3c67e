# SPDX-License-Identifier: MIT
"""The gfp mask of a report, as far as its kernel and its names show what it means.

The numbers are those of include/linux/gfp.h and gfp_types.h of the kernels named.
"""

from dataclasses import replace

import pytest

from kalloctrace.diagnose.given import Given
from kalloctrace.diagnose.mask import Mask, mask_of
from kalloctrace.diagnose.reports.model import LoggedFailure
from kalloctrace.kernel.logged import logged_kernel


def mask(release: str, value: int | None, *names: str) -> Mask:
    """Return the mask of a report that prints a number and names."""
    logged = LoggedFailure("failure", 1, "task", 0)
    Given(gfp=names if value is None else value).complete(logged)
    assert logged.mask is not None
    logged.mask = replace(logged.mask, printed=names)
    return mask_of(logged, logged_kernel(release, ""))


def test_a_known_kernel() -> None:
    """GFP_KERNEL|__GFP_ZERO|__GFP_DMA32 of 6.12."""
    found = mask("6.12", 0xDC4, "GFP_KERNEL", "__GFP_DMA32", "__GFP_ZERO")
    assert found.bits is not None
    assert (found.tables and found.tables.kernel, found.value, found.modifiers) == ("6.12", 0xDC4, 0x4)
    assert found.names == frozenset(found.text.split("|"))
    assert found.as_printed is None
    assert found.waits is None
    assert found.direct_reclaim is True
    assert found.has("__GFP_ZERO")
    assert found.has("__GFP_COMP", "__GFP_DIRECT_RECLAIM")
    assert not found.has("__GFP_COMP", "__GFP_HIGH")
    assert mask("6.12", 0xDC4).value == 0xDC4
    assert mask("6.12", 0x820).direct_reclaim is False


def test_no_flags_and_no_mask() -> None:
    """0 has a name of its own; without a readable mask nothing is known."""
    assert (mask("6.12", 0).text, mask("6.12", 0).direct_reclaim) == ("no flags", False)
    logged = LoggedFailure("failure", 1, "task", 0)
    for release in ("6.12", "3.10", ""):
        found = mask_of(logged, logged_kernel(release, ""))
        assert (found.value, found.names, found.text, found.modifiers, found.waits) == (None, None, "", None, None)
        assert (found.direct_reclaim, found.has("__GFP_HIGH"), found.bits) == (None, False, None)


def test_names_of_another_configuration() -> None:
    """The names hold: their bits of the tables are taken, and what the number would be by them is told."""
    found = mask("6.12", 0x1000CC0, "GFP_KERNEL", "__GFP_ZERO")
    assert (found.value, found.text) == (0xDC0, "GFP_KERNEL|__GFP_ZERO")
    assert found.as_printed is not None
    assert found.as_printed.startswith("GFP_KERNEL|")
    assert "__GFP_ZERO" not in found.as_printed
    # A cut line has some of the names only, and one that is not known is not read.
    assert mask("6.12", 0xDC0, "GFP_KERNEL").value == 0xDC0
    assert mask("6.12", 0xDC0, "GFP_KERNEL").as_printed is None
    assert mask("6.12", 0xDC0, "GFP_KERNEL", "__GFP_NO_SUCH").value == 0xDC0


@pytest.mark.parametrize("release", ["6.12", ""])
def test_names_without_a_number(release: str) -> None:
    """As a person gives them, or a line whose number is damaged."""
    for found in (mask(release, None, "GFP_KERNEL", "__GFP_DMA"), mask(release, 1 << 32, "GFP_KERNEL", "__GFP_DMA")):
        assert (found.value, found.text, found.modifiers) == (None, "GFP_KERNEL|__GFP_DMA", 0x1)
        assert found.names == frozenset(("GFP_KERNEL", "__GFP_DMA"))
        assert (found.bits, found.direct_reclaim, found.waits, found.as_printed) == (None, True, None, None)
        # GFP_KERNEL has __GFP_DIRECT_RECLAIM in it.
        assert found.has("__GFP_DIRECT_RECLAIM")
        assert not found.has("__GFP_HIGH")
    assert mask("6.12", (1 << 32) - 1).value == (1 << 32) - 1


@pytest.mark.parametrize(
    ("name", "reclaims"),
    [
        *((name, True) for name in ("GFP_KERNEL", "GFP_KERNEL_ACCOUNT", "GFP_USER", "GFP_HIGHUSER", "GFP_NOFS")),
        *((name, True) for name in ("GFP_HIGHUSER_MOVABLE", "GFP_TRANSHUGE", "GFP_NOIO", "GFP_TEMPORARY")),
        *((name, True) for name in ("__GFP_RECLAIM", "__GFP_DIRECT_RECLAIM")),
        *((name, False) for name in ("GFP_ATOMIC", "GFP_NOWAIT", "GFP_TRANSHUGE_LIGHT")),
        *((name, None) for name in ("__GFP_ZERO", "GFP_DMA")),
    ],
)
def test_names_of_kernels_whose_numbers_are_not_known(name: str, reclaims: bool | None) -> None:
    """Their names have meant the same since 4.6, which prints them."""
    found = mask("5.4", 0xABC000, name)
    assert (found.value, found.bits, found.direct_reclaim) == (0xABC000, None, reclaims)


@pytest.mark.parametrize(
    ("release", "value", "modifiers", "waits"),
    [
        ("4.4", 0xD2, 0x2, None),
        ("2.6.30", 0xD2, 0x2, None),
        ("", 0xD2, 0x2, None),
        ("", 0x1000D2, None, None),
        ("2.6.30", 0x1000D2, 0xA, None),
        ("2.6.30", 0x100008, 0x8, None),
        ("2.6.22", 0x1000D2, 0x2, None),
        ("2.6.31", 0x1000D2, 0x2, True),
        ("3.10", 0x4000D2, 0x2, True),
        ("3.10", 0x200, 0x0, False),
        ("4.3", 0x1, 0x1, False),
    ],
)
def test_a_number_without_names(release: str, value: int, modifiers: int | None, waits: bool | None) -> None:
    """The low bits are the zone modifiers; 2.6.23 to 2.6.30 have another __GFP_MOVABLE, 2.6.31 to 4.3 __GFP_WAIT."""
    found = mask(release, value)
    assert (found.tables, found.value, found.names, found.text) == (None, value, None, f"{value:#x}")
    assert (found.modifiers, found.waits, found.direct_reclaim) == (modifiers, waits, waits)
    assert not found.has("__GFP_HIGHMEM")


@pytest.mark.parametrize(
    ("value", "text", "reclaims"),
    [
        (0x201DA, "GFP_HIGHUSER_MOVABLE|__GFP_COLD", True),
        (0x200D2, "GFP_HIGHUSER", True),
        (0x200D0, "GFP_USER", True),
        (0x800D0, "GFP_TEMPORARY", True),
        (0xD0, "GFP_KERNEL", True),
        (0x50, "GFP_NOFS", True),
        (0x10, "GFP_NOIO", True),
        (0x4020, "GFP_ATOMIC|__GFP_COMP", False),
        (0xF0, "GFP_KERNEL|__GFP_HIGH", True),
        (0x24, "GFP_ATOMIC|__GFP_DMA32", False),
        (0x60, "GFP_ATOMIC|__GFP_IO", False),
        (0x9ED1, "GFP_KERNEL|__GFP_DMA|__GFP_NOWARN|__GFP_REPEAT|__GFP_NOFAIL|__GFP_NORETRY|__GFP_ZERO", True),
        (0x500D0, "GFP_KERNEL|__GFP_NOMEMALLOC|__GFP_THISNODE", True),
    ],
)
def test_names_of_kernels_with_gfp_wait(value: int, text: str, reclaims: bool) -> None:
    """They print numbers only; include/linux/gfp.h of 3.10."""
    for release in ("2.6.31", "2.6.32-220.el6.x86_64", "3.10.0-957.el7.x86_64", "4.3.6"):
        found = mask(release, value)
        assert (found.tables, found.value, found.text) == (None, value, text)
        assert found.names == frozenset(text.split("|"))
        assert (found.modifiers, found.direct_reclaim) == (value & 0xF, reclaims)
    assert mask("4.4", value).names is None


def test_nothing_asked_for() -> None:
    """0 means the same everywhere: no modifier, no reclaim."""
    found = mask("3.10", 0)
    assert (found.value, found.names, found.text, found.modifiers) == (0, frozenset(), "0x0", 0)
    assert found.direct_reclaim is None
