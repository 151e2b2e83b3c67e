# SPDX-License-Identifier: MIT
"""The sweep: its exhaustive part is complete, and the kernel survives all of it."""

from collections import Counter
from itertools import combinations, islice

import pytest

from tests.kmod.request import (
    COSTLY_ORDER,
    LARGEST_BULK,
    LARGEST_ORDER,
    NUMA_NO_NODE,
    Context,
    Entry,
    Request,
)
from tests.kmod.sweep import (
    ACCOUNT,
    ALLOC_NO_CODETAG,
    ALLOC_NOLOCK,
    DIRECT_RECLAIM,
    DMA,
    DMA32,
    MOBILITY,
    NOFAIL,
    NOWARN,
    THISNODE,
    TOO_LARGE,
    ZERO,
    Target,
    exact_masks,
    obstacle,
    sweep,
)

BITS = {"5.10": 0x7FFFFF, "6.1": 0x7FFFFFF, "6.12": 0x1FFFFFF, "7.3": 0xFFFFFF}
"""__GFP_BITS_MASK of Debian's kernels, as their gfp_allowed_mask is after boot."""

ONE = Target((0,))
TWO = Target((0, 1))
FOUR = Target((0, 1, 2, 3))
CPUSETS = (Target((0,), frozenset({0})), *(Target((0, 1), frozenset(own)) for own in ({0}, {1}, {0, 1})))
TARGETS = (ONE, TWO, FOUR, *CPUSETS, Target((0, 1, 2), frozenset({2})), Target((0, 1, 2, 3), frozenset({1, 3})))
ALL_ENTRIES = tuple(Entry)


def exhaustive(bits: int) -> set[int]:
    """Return the zone and mobility bits combined with no other bit, each other bit, and each pair of others."""
    others = [1 << bit for bit in range(5, 32) if bits >> bit & 1]
    return {zone | sum(some) for zone in range(32) for size in (0, 1, 2) for some in combinations(others, size)}


@pytest.mark.parametrize("bits", BITS.values(), ids=BITS)
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_exhaustive_part_has_each_mask_exactly(target: Target, bits: int) -> None:
    """No bit is added to a mask or removed from it."""
    target = Target(target.nodes, target.allowed, bits)
    whole = exhaustive(bits)
    swept_requests = [request.gfp for request in sweep(target, len(whole), seed=5)]
    assert Counter(swept_requests) == dict.fromkeys(whole, 1)


@pytest.mark.parametrize("bits", BITS.values(), ids=BITS)
def test_machines_share_the_exhaustive_part(bits: int) -> None:
    """Together they have all of it, and none has a mask of another."""
    target = Target((0,), bits=bits)
    sizes = [len(exact_masks(bits)[part::7]) for part in range(7)]
    swept_requests = [r.gfp for part in range(7) for r in sweep(target, sizes[part], seed=part, part=(part, 7))]
    assert Counter(swept_requests) == dict.fromkeys(exhaustive(bits), 1)


def test_masks_that_cannot_be_prepared_without_cpusets() -> None:
    """One pair with both mobilities: the kernel would search for a zone forever."""
    expected = {zone | MOBILITY | DIRECT_RECLAIM | NOFAIL for zone in range(8)}
    for target in (ONE, TWO, FOUR):
        assert {gfp for gfp in exact_masks(target.bits) if obstacle(gfp, target)} == expected


def test_masks_that_cannot_be_prepared_in_a_cpuset() -> None:
    """Both mobilities without another node's nodemask, and zones that are not in the cpuset."""
    whole = exact_masks(TWO.bits)
    both = {gfp for gfp in whole if gfp & MOBILITY == MOBILITY}
    elsewhere = {gfp for gfp in both if gfp & THISNODE and not gfp & DIRECT_RECLAIM}
    low = {gfp for gfp in whole if gfp & DIRECT_RECLAIM and gfp & (DMA | DMA32)}
    found = [{gfp for gfp in whole if obstacle(gfp, target)} for target in CPUSETS]
    assert found == [both, both, both | low, both - elsewhere]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_exhaustive_masks_are_prepared_without_an_obstacle(target: Target) -> None:
    """Only with an obstacle the order is too large."""
    requests = list(sweep(target, len(exact_masks(target.bits)), seed=1))
    rejected = {request.gfp for request in requests if request.order > LARGEST_ORDER}
    assert rejected == {request.gfp for request in requests if obstacle(request.gfp, target)}


def test_obstacle_is_gone_without_its_bits() -> None:
    """Each obstacle names set bits, and removing a few of them makes any mask usable."""
    for target in TARGETS:
        for gfp in exact_masks(target.bits):
            mask, times = gfp, 0
            while found := obstacle(mask, target):
                assert mask & found.bits
                mask, times = mask & ~found.bits, times + 1
            assert times <= 3


def test_sweep_is_repeatable() -> None:
    """The same seed gives the same requests, another seed others, and a longer sweep starts the same."""
    first = list(sweep(TWO, 9000, seed=1))
    assert first == list(sweep(TWO, 9000, seed=1))
    assert first != list(sweep(TWO, 9000, seed=2))
    assert first == list(islice(sweep(TWO, 12000, seed=1), 9000))


@pytest.fixture(scope="module")
def swept() -> list[Request]:
    """Return the random part of a sweep."""
    return list(sweep(Target((0, 1), entries=ALL_ENTRIES), 65504, seed=0))[5504:]


def test_random_part_covers_zones_and_mobilities_in_each_context(swept: list[Request]) -> None:
    """All 32 combinations occur, including invalid ones."""
    assert {(request.gfp & 0x1F, request.context) for request in swept} == {
        (bits, context) for bits in range(32) for context in Context
    }


def test_random_part_covers_all_32_bits(swept: list[Request]) -> None:
    """Unknown bits occur too, set and clear, in each context that allows them."""
    found = {(bit, request.gfp >> bit & 1, request.context) for request in swept for bit in range(32)}
    direct = {(10, 1, context) for context in Context if context is not Context.TASK}
    assert found == {(bit, value, context) for bit in range(32) for value in (0, 1) for context in Context} - direct


def test_random_part_covers_orders_nodes_nodemasks_and_scopes(swept: list[Request]) -> None:
    """They occur in each context, and too large orders with and without __GFP_NOWARN."""
    for context in Context:
        there = [r for r in swept if r.context is context and r.entry is Entry.NORMAL]
        assert {request.order for request in there} == set(range(12))
        assert {request.nid for request in there} == {0, 1}
        assert {request.nodemask for request in there} == {None, 0b01, 0b10, 0b11, 0b100, 0, 1 << 63}
        assert {int(request.scopes) for request in there} == set(range(16))
    assert {request.gfp & NOWARN for request in swept if request.order == TOO_LARGE} == {0, NOWARN}


def test_random_part_covers_pairs_of_nodes() -> None:
    """They occur as nodemasks on four nodes."""
    found = {request.nodemask for request in sweep(FOUR, 20000)}
    assert found >= {1 << one | 1 << other for one, other in combinations(range(4), 2)}


def test_each_entry_is_called_in_each_context(swept: list[Request]) -> None:
    """Each entry gets all the arguments that it has."""
    bulk = [request for request in swept if request.entry is Entry.BULK]
    nolock = [request for request in swept if request.entry is Entry.NOLOCK]
    for requests in (bulk, nolock):
        assert len(requests) > 500
        assert {request.context for request in requests} == set(Context)
    assert {request.order for request in bulk} == set(range(1, LARGEST_BULK + 1))
    assert {request.gfp for request in nolock} == {0, ACCOUNT}
    assert {request.order for request in nolock} == set(range(12))
    assert {request.nid for request in nolock} == {NUMA_NO_NODE, 0, 1}
    assert {request.nodemask for request in nolock} == {None}


def test_missing_entries_are_not_called() -> None:
    """5.10 has neither the other entries nor alloc_flags."""
    assert {(request.entry, request.alloc_flags) for request in sweep(TWO, 9000)} == {(Entry.NORMAL, 0)}


def test_alloc_flags_of_every_kind_occur() -> None:
    """Flags that callers may set, and any other bit, alone and combined; every order, only the normal entry."""
    swept_requests = list(sweep(Target((0, 1), entries=ALL_ENTRIES, alloc_flags=True), 45504))
    allowed = ALLOC_NOLOCK | ALLOC_NO_CODETAG
    for alloc_flags in (0, ALLOC_NOLOCK, ALLOC_NO_CODETAG, allowed):
        there = [request for request in swept_requests if request.alloc_flags == alloc_flags]
        assert {request.order for request in there} >= set(range(12))
        assert {request.context for request in there} == set(Context)
        assert {request.gfp & 0x1F for request in there} == set(range(32))
    foreign = {
        (r.alloc_flags & ~allowed, bool(r.alloc_flags & allowed)) for r in swept_requests if r.alloc_flags & ~allowed
    }
    others = [1 << bit for bit in range(32) if not allowed >> bit & 1]
    assert foreign == {(bit, together) for bit in others for together in (False, True)}
    assert {request.entry for request in swept_requests if request.alloc_flags} == {Entry.NORMAL}


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_sweep_is_survivable(target: Target) -> None:
    """No sleeping in atomic contexts, no endless attempts, no invalid migratetype."""
    target = Target(target.nodes, target.allowed, entries=ALL_ENTRIES, alloc_flags=True)
    for request in sweep(target, 25504, seed=3):
        order = 0 if request.entry is Entry.BULK else request.order
        direct = bool(request.gfp & DIRECT_RECLAIM)
        assert request.context is Context.TASK or not direct
        if order > LARGEST_ORDER or request.entry is Entry.NOLOCK:
            continue
        if request.gfp & MOBILITY == MOBILITY:
            assert not zones_may_serve(request, target)
            assert not direct or not request.gfp & NOFAIL
        elif direct and request.gfp & NOFAIL:
            assert order <= COSTLY_ORDER
            assert request.nodemask is None
            assert not request.gfp & THISNODE or request.nid == target.nodes[0]
        if direct and target.restricted and request.gfp & MOBILITY != MOBILITY:
            assert request.nodemask is None
            assert not request.gfp & THISNODE or request.nid in target.allowed
            assert not request.gfp & (DMA | DMA32) or target.nodes[0] in target.allowed


def zones_may_serve(request: Request, target: Target) -> bool:
    """Return whether a zone may be eligible, also at the second attempt, which drops a nodemask outside the cpuset."""
    if request.nodemask is None or not any(request.nodemask >> node & 1 for node in target.allowed):
        return True
    reachable = [request.nid] if request.gfp & THISNODE else target.nodes
    return any(request.nodemask >> node & 1 for node in reachable)


def test_sweep_of_one_node_needs_no_other() -> None:
    """Every requested node exists."""
    assert {request.nid for request in sweep(Target((3,)), 9000)} == {3}


def test_slow_requests_are_rare(swept: list[Request]) -> None:
    """Large orders are rare, and rarely zeroed."""
    orders = Counter(request.order for request in swept if request.entry is Entry.NORMAL)
    assert sum(orders[order] for order in range(4)) > sum(orders.values()) / 2
    zeroed = [r for r in swept if r.gfp & ZERO and 6 < r.order <= LARGEST_ORDER and r.entry is Entry.NORMAL]
    assert 0 < len(zeroed) < len(swept) / 100
