# SPDX-License-Identifier: MIT
"""Requests that cover every rule of the preparation stage, and that the module accepts.

A sweep starts with the exhaustive part: each combination of the five zone and mobility bits, alone, with each other bit
that the kernel knows, and with each pair of these. The masks are exact; the other arguments are random, within what the
kernel survives. The kernel survives a few masks only if it rejects the request before the preparation, so these get too
large an order; `obstacle` returns which and why:

- both mobilities with __GFP_DIRECT_RECLAIM and __GFP_NOFAIL: no such migratetype exists, so no zone may be eligible,
  and then the kernel would retry forever;
- both mobilities in a cpuset: the kernel would drop a nodemask of absent nodes. Without that, no zone is eligible only
  with __GFP_THISNODE and another node's nodemask, which requires a cpuset with two nodes;
- __GFP_DIRECT_RECLAIM in a cpuset without the first node: with __GFP_DMA or __GFP_DMA32, for which the other nodes may
  have no zone, or with __GFP_THISNODE and __GFP_NOFAIL.

The rest is random: masks over all 32 bits and sparse masks, entries, contexts, scopes, and since 7.3 alloc_flags, both
with bits that callers may set and with others.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from tests.kmod.request import (
    COSTLY_ORDER,
    LARGEST_BULK,
    LARGEST_ORDER,
    NUMA_NO_NODE,
    Context,
    Entry,
    Request,
    Scope,
)

DMA = 0x1
DMA32 = 0x4
RECLAIMABLE = 0x10
MOBILITY = 0x18
ZERO = 0x100
DIRECT_RECLAIM = 0x400
KSWAPD_RECLAIM = 0x800
NOWARN = 0x2000
NOFAIL = 0x8000
THISNODE = 0x200000
ACCOUNT = 0x400000
RECLAIM = DIRECT_RECLAIM | KSWAPD_RECLAIM
ALLOC_NOLOCK = 0x400
ALLOC_NO_CODETAG = 0x1000
TOO_LARGE = LARGEST_ORDER + 1

_ZONES_AND_MOBILITIES = 32
_OTHER_BITS = 5
_CONTEXTS = tuple(Context)
# Large orders are rare in kernels and slow everywhere.
_VALID_ORDERS = (*range(TOO_LARGE), *(order for order in range(4) for _ in range(5)))
_ORDERS = (*_VALID_ORDERS, TOO_LARGE)
_SCOPES = tuple(Scope(bits) for bits in (*range(16), *(0 for _ in range(8))))
_RARELY = 1 / 16
_SOMETIMES = 1 / 4
_ALLOC_FLAGS = (ALLOC_NOLOCK, ALLOC_NO_CODETAG, ALLOC_NOLOCK | ALLOC_NO_CODETAG)
_FOREIGN_ALLOC_FLAGS = tuple(1 << bit for bit in range(32) if not 1 << bit & (ALLOC_NOLOCK | ALLOC_NO_CODETAG))
_QUICK_TO_ZERO = 6


@dataclass(frozen=True)
class Target:
    """The kernel and machine that a sweep is for.

    Attributes:
        nodes: the online nodes, ascending; the first has memory for ZONE_DMA, as on every x86_64 machine.
        allowed: the nodes of the process's cpuset, including absent ones; all nodes without cpusets.
        bits: the gfp bits that the kernel knows, __GFP_BITS_MASK.
        entries: the functions to call.
        alloc_flags: whether the normal entry takes alloc_flags, as since 7.3.
    """

    nodes: tuple[int, ...]
    allowed: frozenset[int] = frozenset(range(64))
    bits: int = 0x7FFFFF
    entries: tuple[Entry, ...] = (Entry.NORMAL,)
    alloc_flags: bool = False

    @cached_property
    def own(self) -> tuple[int, ...]:
        """The online nodes that the process may allocate from."""
        return tuple(node for node in self.nodes if node in self.allowed)

    @cached_property
    def restricted(self) -> bool:
        """Whether some online node is not allowed."""
        return self.own != self.nodes

    @cached_property
    def absent(self) -> tuple[int, ...]:
        """Nodemasks of absent nodes that are in the cpuset; the kernel does not drop these."""
        return tuple(1 << node for node in (self.nodes[-1] + 1, 63) if node in self.allowed and node not in self.nodes)

    @cached_property
    def nodemasks(self) -> tuple[int | None, ...]:
        """Nodemasks of every kind; half of the values are None."""
        pairs = [1 << one | 1 << other for one, other in itertools.combinations(self.nodes, 2)]
        everywhere = sum(1 << node for node in self.nodes)
        some = [everywhere, *(1 << node for node in self.nodes), *pairs, 0, 1 << self.nodes[-1] + 1, 1 << 63]
        return (*some, *(None for _ in some))


class Obstacle(NamedTuple):
    """The reason why a mask is used only with too large an order.

    Attributes:
        bits: the bits that cause it.
        why: the reason.
    """

    bits: int
    why: str


def exact_masks(bits: int) -> list[int]:
    """Return the masks of the exhaustive part.

    Args:
        bits: the gfp bits that the kernel knows, __GFP_BITS_MASK.
    """
    others = [1 << bit for bit in range(_OTHER_BITS, bits.bit_length()) if bits >> bit & 1]
    pairs = [one | other for one, other in itertools.combinations(others, 2)]
    return [zone | more for zone in range(_ZONES_AND_MOBILITIES) for more in (0, *others, *pairs)]


def obstacle(gfp: int, target: Target) -> Obstacle | None:
    """Return why a mask requires too large an order; None if it does not."""
    direct = bool(gfp & DIRECT_RECLAIM)
    if gfp & MOBILITY == MOBILITY:
        if direct and gfp & NOFAIL:
            return Obstacle(NOFAIL, "without an eligible zone the kernel would retry forever")
        if not target.absent and (direct or not gfp & THISNODE or len(target.own) == 1):
            return Obstacle(RECLAIMABLE, "no nodemask keeps every zone from being eligible")
    elif direct and target.nodes[0] not in target.allowed:
        if gfp & (DMA | DMA32):
            return Obstacle(DIRECT_RECLAIM, "the nodes of the cpuset may have no such zone")
        if gfp & THISNODE and gfp & NOFAIL:
            return Obstacle(NOFAIL, "the node may have no zone, and the kernel would retry forever")
    return None


def sweep(target: Target, size: int, seed: int = 0, *, part: tuple[int, int] = (0, 1)) -> Iterator[Request]:
    """Yield requests: the exhaustive part in random order, then random requests.

    The same arguments give the same requests.

    Args:
        target: the kernel and machine.
        size: the number of requests.
        seed: the random seed; each of several machines should have its own.
        part: (k, n) for share k, from 0, of the exhaustive part, split among n machines.
    """
    rng = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    number, of = part
    masks = exact_masks(target.bits)[number::of]
    rng.shuffle(masks)
    for gfp in masks[:size]:
        yield request_with(rng, gfp, rng.choice(_VALID_ORDERS), target)
    for _ in range(size - len(masks)):
        yield random_request(rng, target)


def random_request(rng: random.Random, target: Target) -> Request:
    """Return a random request."""
    entry = rng.choice(target.entries) if rng.random() < _RARELY else Entry.NORMAL
    if entry is Entry.NOLOCK:
        return _without_locks(rng, target)
    gfp = rng.getrandbits(32)
    kind = rng.getrandbits(3)
    if kind:
        # Half of 32 random bits are set, which no kernel code does.
        gfp &= rng.getrandbits(32) & target.bits
    if kind > 1:
        gfp |= RECLAIM if kind & 1 else KSWAPD_RECLAIM
    if kind & 4:
        # A failed request prints a page of text.
        gfp |= NOWARN
    if gfp & DIRECT_RECLAIM and kind < 4:
        # Direct reclaim is limited to task context; drop it, so that the other contexts see such masks too.
        gfp &= ~DIRECT_RECLAIM
    while rng.random() >= _RARELY and (found := obstacle(gfp, target)):
        gfp &= ~found.bits
    request = request_with(rng, gfp, rng.choice(_ORDERS), target, entry)
    if target.alloc_flags and request.entry is Entry.NORMAL and rng.random() < _SOMETIMES:
        return replace(request, alloc_flags=_alloc_flags(rng))
    return request


def _alloc_flags(rng: random.Random) -> int:
    """Return a nonzero argument; two of five have a bit that callers may not set."""
    allowed, foreign = rng.choice(_ALLOC_FLAGS), rng.choice(_FOREIGN_ALLOC_FLAGS)
    return rng.choice((allowed, allowed, allowed, foreign, allowed | foreign))


def request_with(rng: random.Random, gfp: int, order: int, target: Target, entry: Entry = Entry.NORMAL) -> Request:
    """Return a request with exactly this mask that the module accepts, with too large an order if necessary.

    Args:
        rng: the source of the other arguments.
        gfp: the mask.
        order: the order; it is reduced if the request would take too long or forever.
        target: the kernel and machine.
        entry: the function to call; the normal one if the order must be too large.
    """
    direct = bool(gfp & DIRECT_RECLAIM)
    if gfp & ZERO and order > _QUICK_TO_ZERO and rng.random() >= _RARELY:
        # Zeroing 4 MiB in an emulated machine takes as long as hundreds of other requests.
        order -= _QUICK_TO_ZERO
    nid = rng.choice(target.nodes)
    context = Context.TASK if direct else rng.choice(_CONTEXTS)
    nodemask = rng.choice(target.nodemasks)
    scopes = rng.choice(_SCOPES)
    if obstacle(gfp, target):
        return Request(gfp, TOO_LARGE, nid, context, nodemask, scopes)
    if gfp & MOBILITY == MOBILITY:
        nodemask = rng.choice(target.absent or [1 << node for node in target.own if node != nid])
    elif direct:
        if target.restricted or gfp & NOFAIL:
            nodemask = None
        if gfp & NOFAIL:
            order = min(order, COSTLY_ORDER)
        if gfp & THISNODE and (target.restricted or gfp & NOFAIL):
            nid = target.own[0]
    if entry is Entry.BULK:
        order = rng.randint(1, LARGEST_BULK)
    return Request(gfp, order, nid, context, nodemask, scopes, entry=entry)


def _without_locks(rng: random.Random, target: Target) -> Request:
    return Request(
        rng.choice((0, ACCOUNT)),
        rng.choice(_ORDERS),
        rng.choice((NUMA_NO_NODE, *target.nodes)),
        rng.choice(_CONTEXTS),
        scopes=rng.choice(_SCOPES),
        entry=Entry.NOLOCK,
    )
