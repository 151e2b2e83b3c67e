# SPDX-License-Identifier: MIT
"""The client of the module that makes allocations: what it packs, and what it asks for."""

import os
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KMOD = ROOT / "tests/kmod"
sys.path.insert(0, str(ROOT))

from tests.kmod import stimulus  # noqa: E402  (it is a script beside its module, and no package's)
from tests.kmod.stimulus import Context, Request, Scope  # noqa: E402

NODES = (0, 1)


def test_request_is_packed_as_the_module_reads_it() -> None:
    """The 40 bytes of `struct stimulus_request`."""
    request = Request(0xCC0, 3, 1, Context.HARDIRQ, 1 << 40, Scope.NOIO | Scope.PIN, 997)
    packed = request.pack()
    fields = [int.from_bytes(packed[at : at + 4], sys.byteorder) for at in (0, 4, 8, 12, 24, 28, 32, 36)]
    assert len(packed) == 40
    assert fields == [0xCC0, 3, 1, 3, 1, 6, 997, 0]
    assert int.from_bytes(packed[16:24], sys.byteorder) == 1 << 40


def test_empty_nodemask_is_not_no_nodemask() -> None:
    """The one has no zone at all, the other all of them."""
    assert Request(0, nodemask=0).pack() != Request(0, nodemask=None).pack()


def test_names_are_those_of_the_modules_header() -> None:
    """Each context and scope has the header's number."""
    header = (KMOD / "stimulus.h").read_text(encoding="utf-8")
    contexts = [line.split(",")[0].strip() for line in header.splitlines() if line.strip().startswith("STIMULUS_")]
    assert contexts[: len(Context)] == [f"STIMULUS_{context.name}" for context in Context]
    for scope in Scope:
        assert f"STIMULUS_{scope.name}\t" in header
        assert f"= {scope.value}" in next(line for line in header.splitlines() if f"STIMULUS_{scope.name}\t" in line)


@pytest.mark.parametrize(("text", "nodes"), [("0\n", [0]), ("0-1\n", [0, 1]), ("0,2-4,7\n", [0, 2, 3, 4, 7])])
def test_lists_of_nodes_are_read(text: str, nodes: list[int]) -> None:
    """As the kernel writes lists of nodes."""
    assert stimulus.parse_nodes(text) == nodes


def test_sweep_is_repeatable() -> None:
    """The same seed gives the same requests, another one others, and a longer one begins the same."""
    first = list(stimulus.sweep(NODES, 5000, seed=1))
    assert first == list(stimulus.sweep(NODES, 5000, seed=1))
    assert first != list(stimulus.sweep(NODES, 5000, seed=2))
    assert first == list(islice(stimulus.sweep(NODES, 9000, seed=1), 5000))


@pytest.fixture(scope="module")
def swept() -> list[Request]:
    """Return the smallest sweep that is said to meet every rule."""
    return list(stimulus.sweep(NODES, 5000, seed=0))


def test_sweep_meets_zones_and_mobilities_in_each_context(swept: list[Request]) -> None:
    """All 32 combinations, the illegal ones too."""
    assert {(request.gfp & 0x1F, request.context) for request in swept} == {
        (bits, context) for bits in range(32) for context in Context
    }


def test_sweep_meets_each_bit_with_each_zone(swept: list[Request]) -> None:
    """Each bit that the kernels share, set and clear."""
    met = {(request.gfp & 0x1F, bit, request.gfp >> bit & 1) for request in swept for bit in range(5, 24)}
    both = {(zone, bit, value) for zone in range(32) for bit in range(5, 24) for value in (0, 1)}
    # An illegal mobility is met without __GFP_NOWARN where the order is too large as well.
    assert both - {(zone, 13, 0) for zone in range(0x18, 32)} <= met


def test_sweep_meets_orders_nodes_nodemasks_and_scopes(swept: list[Request]) -> None:
    """In each context, and too large orders with and without __GFP_NOWARN."""
    for context in Context:
        there = [request for request in swept if request.context is context]
        assert {request.order for request in there} == set(range(12))
        assert {request.nid for request in there} == set(NODES)
        assert {request.nodemask for request in there} >= {None, 0b01, 0b10, 0b11, 0b100, 0, 1 << 63}
        assert {int(request.scopes) for request in there} == set(range(16))
    assert {request.gfp & stimulus.NOWARN for request in swept if request.order == 11} == {0, stimulus.NOWARN}


@pytest.mark.parametrize("allowed", [None, [0], [1], [0, 1]])
def test_sweep_asks_for_nothing_dangerous(allowed: list[int] | None) -> None:
    """No sleeping in atomic contexts, no endless attempts, no migratetype that is none."""
    for request in stimulus.sweep(NODES, 20000, seed=3, allowed=allowed):
        direct = bool(request.gfp & stimulus.DIRECT_RECLAIM)
        assert not direct or request.context is Context.TASK
        if request.order > stimulus.LARGEST_ORDER:
            continue
        if request.gfp & stimulus.MOBILITY == stimulus.MOBILITY:
            assert finds_no_zone(request, allowed)
        if direct and request.gfp & stimulus.NOFAIL:
            assert request.nodemask is None
            assert not request.gfp & stimulus.THISNODE
            assert request.order <= stimulus.COSTLY_ORDER


def finds_no_zone(request: Request, allowed: list[int] | None) -> bool:
    """Whether a request's nodemask has no zone for it, and one of the process' nodes, so that it is not dropped."""
    if request.nodemask is None:
        return False
    reachable = [request.nid] if request.gfp & stimulus.THISNODE else NODES
    kept = allowed is None or any(request.nodemask >> node & 1 for node in allowed)
    return kept and bool(request.nodemask) and not any(request.nodemask >> node & 1 for node in reachable)


def test_sweep_in_a_cpuset_lets_reclaim_have_a_node() -> None:
    """What could only be had outside of it might be tried for ever, or end with a task killed."""
    reclaiming = 0
    for request in stimulus.sweep(NODES, 20000, seed=3, allowed=[0]):
        if request.gfp & stimulus.DIRECT_RECLAIM and request.order <= stimulus.LARGEST_ORDER:
            reclaiming += 1
            assert request.nodemask is None
            assert not request.gfp & (stimulus.THISNODE | stimulus.DMA | stimulus.DMA32)
    assert reclaiming > 100


def test_sweep_in_the_cpuset_of_a_single_node_still_has_both_mobilities() -> None:
    """With too large an order, as no nodemask is safe."""
    both = [r for r in stimulus.sweep([0], 5000, allowed=[0]) if r.gfp & stimulus.MOBILITY == stimulus.MOBILITY]
    assert {request.order for request in both} == {11}


def test_sweep_of_one_node_needs_no_other() -> None:
    """Every node asked for is there."""
    assert {request.nid for request in stimulus.sweep([3], 1000)} == {3}


def device(tmp_path: Path) -> Path:
    """Return a file in the device's place."""
    path = tmp_path / "device"
    path.write_text("requested 5\nsucceeded 3\nfailed 2\nrefused 0\nstrayed 0\n", encoding="ascii")
    return path


def test_counters_are_read(tmp_path: Path) -> None:
    """By name."""
    with stimulus.Stimulus(device(tmp_path)) as there:
        assert there.counters() == {"requested": 5, "succeeded": 3, "failed": 2, "refused": 0, "strayed": 0}


def test_all_requests_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the module takes a part of them at a time."""
    written: list[bytes] = []

    def take_three(_: int, data: bytes) -> int:
        written.append(data[:120])
        return len(written[-1])

    requests = list(stimulus.sweep(NODES, 2500))
    with stimulus.Stimulus(device(tmp_path)) as there:
        monkeypatch.setattr(os, "write", take_three)
        assert there.send(iter(requests)) == 2500
    assert b"".join(written) == b"".join(request.pack() for request in requests)


def test_refused_request_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was refused, after those that were made."""
    answers = iter([80])

    def refuse_third(_: int, data: bytes) -> int:
        del data
        try:
            return next(answers)
        except StopIteration:
            raise OSError(22, "Invalid argument") from None

    requests = [Request(0xCC0, order) for order in range(4)]
    with stimulus.Stimulus(device(tmp_path)) as there:
        monkeypatch.setattr(os, "write", refuse_third)
        with pytest.raises(stimulus.RefusedError) as raised:
            there.send(requests)
    assert raised.value.request == requests[2]


def test_sweep_spends_most_on_small_orders(swept: list[Request]) -> None:
    """Large ones are rare in kernels and slow everywhere."""
    orders = Counter(request.order for request in swept)
    assert sum(orders[order] for order in range(4)) > len(swept) / 2
