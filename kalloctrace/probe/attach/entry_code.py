# SPDX-License-Identifier: MIT
"""What the machine code of the entry shows, or why one probe is not possible here."""

from collections.abc import Mapping
from dataclasses import dataclass

from kalloctrace.errors import KalloctraceError
from kalloctrace.probe.attach.optprobe import CALL_BYTES

PF_MEMALLOC_NOFS, PF_MEMALLOC_NOIO = 0x40000, 0x80000
"""From 5.10 to 7.3: include/linux/sched.h."""


class OneRefusedError(KalloctraceError):
    """One probe is not possible here; the pair is."""


def refused(why: str) -> OneRefusedError:
    """Return the error that says why one probe is not possible."""
    return OneRefusedError("cannot use one probe", why, "leave out --attach, or use --attach pair")


@dataclass(frozen=True)
class ScopeBlock:
    """Where the scopes of a task are applied.

    Attributes:
        offset: of the block in the entry, in bytes.
        gfp_mask: the register, as `struct pt_regs` names it, that has the mask before they are.
        flags: the bits of the task's flags that lead there.
    """

    offset: int
    gfp_mask: str
    flags: int


@dataclass(frozen=True)
class RejectBlock:
    """Where requests of too large an order end.

    Attributes:
        offset: of the block in the entry, in bytes.
        registers: which register, as `struct pt_regs` names it, has each argument of the entry there.
    """

    offset: int
    registers: Mapping[str, str]


@dataclass(frozen=True)
class EntryCode:
    """What the code of the entry shows.

    Attributes:
        freelist: the offset of its call of get_page_from_freelist().
        scope: where scopes are applied; None if it was not found.
        reject: where requests are rejected; None if it was not found.
    """

    freelist: int
    scope: ScopeBlock | None
    reject: RejectBlock | None = None

    @property
    def returns_to(self) -> int:
        """Return the offset where the call of get_page_from_freelist() returns to."""
        return self.freelist + CALL_BYTES


@dataclass(frozen=True)
class Addresses:
    """Where the entry and what it uses lie in the kernel's memory.

    Attributes:
        entry: the entry.
        freelist: get_page_from_freelist().
        gfp_allowed_mask: that variable.
    """

    entry: int
    freelist: int
    gfp_allowed_mask: int
