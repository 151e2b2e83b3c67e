# SPDX-License-Identifier: MIT
"""What the module `kalloctrace_stimulus` can be asked for: the other side of stimulus.h."""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

PACKED = struct.Struct("=IIiHHQIIII")
"""The module's `struct stimulus_request`."""

NUMA_NO_NODE = -1
LARGEST_ORDER = 10
COSTLY_ORDER = 3
LARGEST_BULK = 32


class Context(IntEnum):
    """Where a request is made from; see stimulus.h."""

    TASK = 0
    BH_DISABLED = 1
    SOFTIRQ = 2
    HARDIRQ = 3
    NO_PREEMPT = 4
    NO_IRQS = 5


class Entry(IntEnum):
    """Which of the kernel's functions is called; see stimulus.h."""

    NORMAL = 0
    BULK = 1
    NOLOCK = 2


class Scope(IntFlag):
    """Allocation scopes of the requesting task; `PIN` is `NOCMA` before 5.13."""

    NOFS = 1
    NOIO = 2
    PIN = 4
    NORECLAIM = 8


NO_SCOPES = Scope(0)


@dataclass(frozen=True, slots=True)
class Request:
    """A page allocation, made `count` times.

    Attributes:
        gfp: the flags, as the kernel at hand numbers them.
        order: the order; of `Entry.BULK` the number of pages.
        nid: the preferred node, which must be online; of `Entry.NOLOCK` also `NUMA_NO_NODE`.
        context: where it is made from.
        nodemask: a mask of nodes 0 to 63, or None for no nodemask.
        scopes: the scopes of the task.
        count: how many times.
        entry: which function is called.
        alloc_flags: the fifth argument of `Entry.NORMAL` since 7.3, elsewhere 0.
    """

    gfp: int
    order: int = 0
    nid: int = 0
    context: Context = Context.TASK
    nodemask: int | None = None
    scopes: Scope = NO_SCOPES
    count: int = 1
    entry: Entry = Entry.NORMAL
    alloc_flags: int = 0

    def pack(self) -> bytes:
        """Return the module's `struct stimulus_request`."""
        return PACKED.pack(
            self.gfp,
            self.order,
            self.nid,
            self.context,
            self.entry,
            self.nodemask or 0,
            self.nodemask is not None,
            self.scopes,
            self.count,
            self.alloc_flags,
        )

    @classmethod
    def unpack(cls, packed: bytes) -> "Request":
        """Read what `pack` returned."""
        gfp, order, nid, context, entry, nodes, has_nodemask, scopes, count, alloc_flags = PACKED.unpack(packed)
        nodemask = nodes if has_nodemask else None
        return cls(gfp, order, nid, Context(context), nodemask, Scope(scopes), count, Entry(entry), alloc_flags)
