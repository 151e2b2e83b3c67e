# SPDX-License-Identifier: MIT
"""The values of a kernel's flags as attributes."""

from dataclasses import replace

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.bits import PF_DUMPCORE
from kalloctrace.flags.builtin import builtin_tables


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
