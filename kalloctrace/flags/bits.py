# SPDX-License-Identifier: MIT
"""The values of one kernel's flags, as attributes."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

from kalloctrace.errors import KalloctraceError

if TYPE_CHECKING:
    from kalloctrace.flags.tables import FlagTables

PF_DUMPCORE = 0x200
"""The same in every kernel: include/linux/sched.h:1544 of 5.10.262-1, :1805 of 7.3.4-1~bpo13+1."""

_RENAMED = {"ALLOC_NOLOCK": "ALLOC_TRYLOCK"}
"""Flags that have an older name and the same meaning under it."""

_SOME_KERNELS = frozenset(
    (
        *("__GFP_ATOMIC", "ALLOC_HARDER", "ALLOC_NON_BLOCK", "ALLOC_HIGH", "ALLOC_MIN_RESERVE", "ALLOC_HIGHATOMIC"),
        *("ALLOC_NOLOCK", "ALLOC_NO_CODETAG", "PF_MEMALLOC_PIN", "PF_MEMALLOC_NOCMA", "PF_MEMALLOC_NORECLAIM"),
        "PF_MEMALLOC_NOWARN",
    )
)
"""Flags that not every kernel from 5.8 to 7.3 has."""


@dataclass(frozen=True, slots=True)
class FlagBits:
    """Values of the flags that the model tests or sets, all `unsigned int`; 0 where the kernel lacks the flag.

    An attribute has the name of the kernel's flag in lower case; `gfp_high` is __GFP_HIGH.

    Attributes:
        alloc_nolock: ALLOC_NOLOCK, which is ALLOC_TRYLOCK before 7.3.
        alloc_high: ALLOC_HIGH, before 6.3 and Debian's 6.1.119-1. Half of the watermark is open to it.
        alloc_min_reserve: ALLOC_MIN_RESERVE, which replaced ALLOC_HIGH.
        alloc_harder: ALLOC_HARDER, for __GFP_ATOMIC and real-time tasks; before 6.3 and Debian's 6.1.119-1.
        alloc_non_block: ALLOC_NON_BLOCK, which replaced ALLOC_HARDER. It is for requests without
            __GFP_DIRECT_RECLAIM, and counts only together with ALLOC_MIN_RESERVE.
    """

    gfp_movable: int
    gfp_high: int
    gfp_io: int
    gfp_fs: int
    gfp_zero: int
    gfp_atomic: int
    gfp_direct_reclaim: int
    gfp_kswapd_reclaim: int
    gfp_write: int
    gfp_nowarn: int
    gfp_retry_mayfail: int
    gfp_nofail: int
    gfp_noretry: int
    gfp_memalloc: int
    gfp_comp: int
    gfp_nomemalloc: int
    gfp_hardwall: int
    gfp_thisnode: int
    gfp_account: int
    alloc_wmark_min: int
    alloc_wmark_low: int
    alloc_wmark_high: int
    alloc_no_watermarks: int
    alloc_oom: int
    alloc_harder: int
    alloc_non_block: int
    alloc_high: int
    alloc_min_reserve: int
    alloc_cpuset: int
    alloc_cma: int
    alloc_nofragment: int
    alloc_highatomic: int
    alloc_nolock: int
    alloc_kswapd: int
    alloc_no_codetag: int
    pf_memalloc: int
    pf_memalloc_nofs: int
    pf_memalloc_noio: int
    pf_memalloc_pin: int
    pf_memalloc_nocma: int
    pf_memalloc_noreclaim: int
    pf_memalloc_nowarn: int

    @classmethod
    def of(cls, tables: "FlagTables") -> Self:
        """Look the flags up in a kernel's tables; `FlagTables.bits` keeps the result.

        Raises:
            KalloctraceError: the tables lack a flag that every kernel has.
        """
        named = {**dict(tables.gfp_bits), **dict(tables.alloc), **dict(tables.pf)}
        values = {}
        for member in fields(cls):
            flag = f"__{member.name}".upper() if member.name.startswith("gfp_") else member.name.upper()
            value = named.get(flag, named.get(_RENAMED.get(flag, "")))
            if value is None and flag not in _SOME_KERNELS:
                raise KalloctraceError(
                    f"the flag tables of kernel {tables.kernel} lack {flag}",
                    "every kernel has this flag, so the tables are damaged",
                    "record the trace again",
                )
            values[member.name] = value or 0
        return cls(**values)
