# SPDX-License-Identifier: MIT
"""Requests to the module `kalloctrace_stimulus`, as stimulus.h defines them."""

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
    """The context of a request; see stimulus.h."""

    TASK = 0
    BH_DISABLED = 1
    SOFTIRQ = 2
    HARDIRQ = 3
    NO_PREEMPT = 4
    NO_IRQS = 5


class Entry(IntEnum):
    """The kernel function to call; see stimulus.h."""

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
        gfp: the flags, in the running kernel's numbering.
        order: the order; the number of pages for `Entry.BULK`.
        nid: the preferred node, which must be online; `Entry.NOLOCK` also accepts `NUMA_NO_NODE`.
        context: the context of the request.
        nodemask: a mask of nodes 0 to 63, or None for no nodemask.
        scopes: the scopes of the task.
        count: the number of allocations.
        entry: the function to call.
        alloc_flags: the fifth argument of `Entry.NORMAL` since 7.3, otherwise 0.
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
        """Return the request that `pack` packed."""
        gfp, order, nid, context, entry, nodes, has_nodemask, scopes, count, alloc_flags = PACKED.unpack(packed)
        nodemask = nodes if has_nodemask else None
        return cls(gfp, order, nid, Context(context), nodemask, Scope(scopes), count, Entry(entry), alloc_flags)
