# SPDX-License-Identifier: MIT
"""Requests that together meet every rule of the preparation, and that the module accepts.

A sweep begins with the exhaustive part: each combination of the five zone and mobility bits, alone, with each other bit
that the kernel knows, and with each pair of these. It is made of exactly these masks: what is left to chance is all
else about the request, as far as the kernel survives that. A few masks it survives only where it refuses them before
it prepares anything, so they are asked for with too large an order; `obstacle` says which and why:

- both mobilities with __GFP_DIRECT_RECLAIM and __GFP_NOFAIL: there is no such migratetype, so no zone may be eligible,
  and then it would try for ever;
- both mobilities, in a cpuset: a nodemask of nodes that are not there would be dropped. Only with __GFP_THISNODE and
  another node's nodemask there is no zone without that, where the cpuset has two nodes;
- __GFP_DIRECT_RECLAIM in a cpuset without the first node: with __GFP_DMA or __GFP_DMA32, which other nodes may have no
  zone for, or with __GFP_THISNODE and __GFP_NOFAIL.

All that follows is of chance: masks over the full 32 bits and sparse ones, entries, contexts, scopes, and since 7.3
alloc_flags, with bits that callers may set and bits that they may not.
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
_HARDLY = 1 / 16
_SOMETIMES = 1 / 4
_ALLOC_FLAGS = (ALLOC_NOLOCK, ALLOC_NO_CODETAG, ALLOC_NOLOCK | ALLOC_NO_CODETAG)
_FOREIGN_ALLOC_FLAGS = tuple(1 << bit for bit in range(32) if not 1 << bit & (ALLOC_NOLOCK | ALLOC_NO_CODETAG))
_QUICK_TO_ZERO = 6


@dataclass(frozen=True)
class Target:
    """The kernel and machine that a sweep is for.

    Attributes:
        nodes: the online nodes, ascending; the first has memory for ZONE_DMA, as on every x86_64 machine.
        allowed: the nodes of the process' cpuset, there or not; all without cpusets.
        bits: the gfp bits that the kernel knows, __GFP_BITS_MASK.
        entries: the functions to call.
        alloc_flags: whether the normal entry takes these, as since 7.3.
    """

    nodes: tuple[int, ...]
    allowed: frozenset[int] = frozenset(range(64))
    bits: int = 0x7FFFFF
    entries: tuple[Entry, ...] = (Entry.NORMAL,)
    alloc_flags: bool = False

    @cached_property
    def own(self) -> tuple[int, ...]:
        """The online nodes that the process may have pages of."""
        return tuple(node for node in self.nodes if node in self.allowed)

    @cached_property
    def restricted(self) -> bool:
        """Whether the process may not have pages of every online node."""
        return self.own != self.nodes

    @cached_property
    def absent(self) -> tuple[int, ...]:
        """Nodemasks without any node that is there, but with one that the process may use: these are kept."""
        return tuple(1 << node for node in (self.nodes[-1] + 1, 63) if node in self.allowed and node not in self.nodes)

    @cached_property
    def nodemasks(self) -> tuple[int | None, ...]:
        """Nodemasks of every kind, half of them none."""
        pairs = [1 << one | 1 << other for one, other in itertools.combinations(self.nodes, 2)]
        everywhere = sum(1 << node for node in self.nodes)
        some = [everywhere, *(1 << node for node in self.nodes), *pairs, 0, 1 << self.nodes[-1] + 1, 1 << 63]
        return (*some, *(None for _ in some))


class Obstacle(NamedTuple):
    """Why a mask is only asked for with too large an order.

    Attributes:
        bits: without these it would not be.
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
    """Return why a mask can only be asked for with too large an order; None where it need not be."""
    direct = bool(gfp & DIRECT_RECLAIM)
    if gfp & MOBILITY == MOBILITY:
        if direct and gfp & NOFAIL:
            return Obstacle(NOFAIL, "without an eligible zone the kernel would try for ever")
        if not target.absent and (direct or not gfp & THISNODE or len(target.own) == 1):
            return Obstacle(RECLAIMABLE, "no nodemask keeps every zone from being eligible")
    elif direct and target.nodes[0] not in target.allowed:
        if gfp & (DMA | DMA32):
            return Obstacle(DIRECT_RECLAIM, "the nodes of the cpuset may have no such zone")
        if gfp & THISNODE and gfp & NOFAIL:
            return Obstacle(NOFAIL, "the node may have no zone, and the kernel would try for ever")
    return None


def sweep(target: Target, size: int, seed: int = 0, *, part: tuple[int, int] = (0, 1)) -> Iterator[Request]:
    """Yield requests: the exhaustive part, in an order of chance, then what is all of chance.

    The same arguments give the same requests.

    Args:
        target: the kernel and machine.
        size: how many requests.
        seed: which chance; each machine of several should have its own.
        part: (k, n) for the part k, from 0, of the exhaustive part, which n machines share.
    """
    chance = random.Random(seed)  # noqa: S311  (it must be repeatable)
    number, of = part
    masks = exact_masks(target.bits)[number::of]
    chance.shuffle(masks)
    for gfp in masks[:size]:
        yield exactly(chance, gfp, chance.choice(_VALID_ORDERS), target)
    for _ in range(size - len(masks)):
        yield anything(chance, target)


def anything(chance: random.Random, target: Target) -> Request:
    """Return a request of which everything is left to chance."""
    entry = chance.choice(target.entries) if chance.random() < _HARDLY else Entry.NORMAL
    if entry is Entry.NOLOCK:
        return _without_locks(chance, target)
    gfp = chance.getrandbits(32)
    kind = chance.getrandbits(3)
    if kind:
        # Of all 32 bits half are set, which is no mask that a kernel uses.
        gfp &= chance.getrandbits(32) & target.bits
    if kind > 1:
        gfp |= RECLAIM if kind & 1 else KSWAPD_RECLAIM
    if kind & 4:
        # What finds no page has a page of text printed.
        gfp |= NOWARN
    if gfp & DIRECT_RECLAIM and kind < 4:
        # From a task alone; so that the other contexts meet the rest of the mask.
        gfp &= ~DIRECT_RECLAIM
    while chance.random() >= _HARDLY and (found := obstacle(gfp, target)):
        gfp &= ~found.bits
    request = exactly(chance, gfp, chance.choice(_ORDERS), target, entry)
    if target.alloc_flags and request.entry is Entry.NORMAL and chance.random() < _SOMETIMES:
        return replace(request, alloc_flags=_alloc_flags(chance))
    return request


def _alloc_flags(chance: random.Random) -> int:
    """Return an argument other than 0; two of five have a bit that callers may not set."""
    allowed, foreign = chance.choice(_ALLOC_FLAGS), chance.choice(_FOREIGN_ALLOC_FLAGS)
    return chance.choice((allowed, allowed, allowed, foreign, allowed | foreign))


def exactly(chance: random.Random, gfp: int, order: int, target: Target, entry: Entry = Entry.NORMAL) -> Request:
    """Return a request with exactly this mask that the module accepts; where it must be, with too large an order.

    Args:
        chance: decides what the mask leaves open.
        gfp: the mask.
        order: the order, which is smaller where it would take too long, or for ever.
        target: the kernel and machine.
        entry: a function to call that has all the arguments; the normal one where the order must be too large.
    """
    direct = bool(gfp & DIRECT_RECLAIM)
    if gfp & ZERO and order > _QUICK_TO_ZERO and chance.random() >= _HARDLY:
        # Four MiB take an emulated machine as long as hundreds of other requests.
        order -= _QUICK_TO_ZERO
    nid = chance.choice(target.nodes)
    context = Context.TASK if direct else chance.choice(_CONTEXTS)
    nodemask = chance.choice(target.nodemasks)
    scopes = chance.choice(_SCOPES)
    if obstacle(gfp, target):
        return Request(gfp, TOO_LARGE, nid, context, nodemask, scopes)
    if gfp & MOBILITY == MOBILITY:
        nodemask = chance.choice(target.absent or [1 << node for node in target.own if node != nid])
    elif direct:
        if target.restricted or gfp & NOFAIL:
            nodemask = None
        if gfp & NOFAIL:
            order = min(order, COSTLY_ORDER)
        if gfp & THISNODE and (target.restricted or gfp & NOFAIL):
            nid = target.own[0]
    if entry is Entry.BULK:
        order = chance.randint(1, LARGEST_BULK)
    return Request(gfp, order, nid, context, nodemask, scopes, entry=entry)


def _without_locks(chance: random.Random, target: Target) -> Request:
    return Request(
        chance.choice((0, ACCOUNT)),
        chance.choice(_ORDERS),
        chance.choice((NUMA_NO_NODE, *target.nodes)),
        chance.choice(_CONTEXTS),
        scopes=chance.choice(_SCOPES),
        entry=Entry.NOLOCK,
    )
