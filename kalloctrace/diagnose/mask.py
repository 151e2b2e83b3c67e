# SPDX-License-Identifier: MIT
"""The gfp mask of a logged request, as far as its kernel and its printed names show what it means."""

from dataclasses import dataclass
from functools import lru_cache

from kalloctrace.diagnose.reports.model import LoggedFailure
from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.builtin import builtin_tables, gfp_wait_bit, names_before_4_4, zone_modifiers
from kalloctrace.flags.decode import U32_MAX, decode_gfp, parse_flags
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.builtin import OLD_STAND_IN
from kalloctrace.kernel.logged import LoggedKernel
from kalloctrace.model.gfp import GFP_ZONEMASK

_DIRECT = "__GFP_DIRECT_RECLAIM"
_RECLAIMS = frozenset(
    (
        *("GFP_KERNEL", "GFP_KERNEL_ACCOUNT", "GFP_USER", "GFP_HIGHUSER", "GFP_HIGHUSER_MOVABLE", "GFP_TRANSHUGE"),
        *("GFP_NOFS", "GFP_NOIO", "GFP_TEMPORARY", "__GFP_RECLAIM", _DIRECT),
    )
)
_DOES_NOT = frozenset(("GFP_ATOMIC", "GFP_NOWAIT", "GFP_TRANSHUGE_LIGHT"))

# Kernels before 5.8 have other numbers under these names. What the names from 4.6 on stand for is the same.
OLD_TABLES = builtin_tables(OLD_STAND_IN)


@dataclass(frozen=True, slots=True)
class Mask:
    """The gfp mask, as far as it can be read.

    Attributes:
        tables: the kernel's flags; None if unknown.
        value: `gfp_t`; None if unknown.
        names: the names in it; None if unknown.
        text: what is known of it, for people.
        modifiers: its zone modifiers; None if unknown.
        waits: __GFP_WAIT of old kernels is set; None if unknown.
        as_printed: the names of the printed number, if the printed names are other bits of the tables.
    """

    tables: FlagTables | None
    value: int | None
    names: frozenset[str] | None
    text: str
    modifiers: int | None = None
    waits: bool | None = None
    as_printed: str | None = None

    @property
    def bits(self) -> tuple[FlagTables, int] | None:
        """The tables and the value, if both are known."""
        return (self.tables, self.value) if self.tables is not None and self.value is not None else None

    @property
    def direct_reclaim(self) -> bool | None:
        """Whether the request may reclaim; None if unknown."""
        if self.names is None:
            return self.waits
        if self.bits is not None:
            return self.has(_DIRECT)
        return True if self.names & _RECLAIMS else False if self.names & _DOES_NOT else None

    def has(self, *flags: str) -> bool:
        """Return whether one of the flags is certainly set, by itself or as a part of a name."""
        if self.names is None:
            return False
        tables, value = self.bits or (OLD_TABLES, OLD_TABLES.gfp_of(self.names))
        return bool(value & tables.gfp_of(flags))


def mask_of(logged: LoggedFailure, kernel: LoggedKernel) -> Mask:
    """Return the mask of a report.

    Args:
        logged: the report.
        kernel: the kernel to judge by.
    """
    value = logged.mask.value if logged.mask is not None else None
    if value is not None and value > U32_MAX:
        # A damaged line.
        value = None
    return _read(value, logged.mask.printed if logged.mask is not None else (), kernel)


@lru_cache(maxsize=256)
def _read(value: int | None, printed: tuple[str, ...], kernel: LoggedKernel) -> Mask:
    tables = kernel.tables
    if tables is not None and value is not None:
        named = _as_named(value, printed, tables)
        decoded = decode_gfp(named, tables)
        return Mask(
            tables,
            named,
            frozenset(decoded.names),
            decoded.text or "no flags",
            named & GFP_ZONEMASK,
            as_printed=None if named == value else decode_gfp(value, tables).text,
        )
    text = "|".join(printed) or ("" if value is None else f"{value:#x}")
    if printed or value == 0:
        return Mask(tables, value, frozenset(printed), text, OLD_TABLES.gfp_of(printed) & GFP_ZONEMASK)
    if value is None:
        return Mask(tables, value, None, text)
    modifiers, wait = zone_modifiers(value, kernel.parsed), gfp_wait_bit(kernel.parsed)
    names = names_before_4_4(value, kernel.parsed)
    if names is not None:
        return Mask(tables, value, frozenset(names), "|".join(names), modifiers)
    return Mask(tables, value, None, text, modifiers, None if wait is None else bool(value & wait))


def _as_named(value: int, printed: tuple[str, ...], tables: FlagTables) -> int:
    """Return the mask in the bits of the tables: another configuration may have other bits under these names."""
    try:
        named = parse_flags("|".join(printed), tables) if printed else value
    except KalloctraceError:
        return value
    # A truncated line has only some of the names.
    return named if named & ~value else value
