# SPDX-License-Identifier: MIT
"""The model against written expectations, rule tables and properties; and each rule broken on purpose."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.explain.request import WhatIf, answer_json
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import Machine, ZoneRef, machine_of
from kalloctrace.model import gfp, page_alloc, sched_mm
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.page_alloc import alloc_pages
from kalloctrace.model.types import (
    ALL_NODES,
    Context,
    ImpossibleRequestError,
    Preparation,
    Request,
    UnknownFact,
)
from tests.broken_rules import MUTATIONS, NOFS, NOIO, NORECLAIM, NOWARN, PIN

DATA = Path(__file__).parent / "data" / "model" / "expectations.json"

RELEASES = (
    *(f"5.{minor}" for minor in range(8, 20)),
    *(f"6.{minor}" for minor in range(20)),
    *(f"7.{minor}" for minor in range(4)),
)
DMA, DMA32, NORMAL, MOVABLE = range(4)


def _numbers(value: Any) -> Any:  # noqa: ANN401  (whatever JSON holds)
    """Replace hex texts, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: _numbers(member) for key, member in value.items()}
    return int(value, 16) if isinstance(value, str) and value.startswith("0x") else value


EXPECTATIONS = [
    (f"{kernel}: {entry['what']}", {"kernel": kernel, **_numbers(entry["request"])}, _numbers(entry["expect"]))
    for entry in json.loads(DATA.read_text())
    for kernel in entry["kernels"].split()
]


def _differences(request: dict[str, Any], expected: dict[str, Any]) -> dict[str, tuple[object, object]]:
    """Return the members that are not as expected: (expected, answered)."""
    answered = answer_json(request["kernel"], WhatIf().answer(request))
    return {key: (value, answered[key]) for key, value in expected.items() if answered[key] != value}


def _kernel(release: str, machine: Machine | None = None) -> Kernel:
    return Kernel.of(builtin_snapshot(release, machine))


def _machine(*nodes: tuple[int, ...]) -> Machine:
    return machine_of(dict(enumerate(nodes)), gfp_allowed_mask=0x7FFFFF)


@pytest.mark.parametrize(
    ("request_", "expected"), [case[1:] for case in EXPECTATIONS], ids=[case[0] for case in EXPECTATIONS]
)
def test_written_expectation(request_: dict[str, Any], expected: dict[str, Any]) -> None:
    """The model prepares the request as the kernel was seen to."""
    assert _differences(request_, expected) == {}


def test_expectations_reach_every_kernel() -> None:
    """Each kernel whose compiled code was executed has expectations of its own."""
    kernels = {request["kernel"] for _, request, _ in EXPECTATIONS}
    assert kernels >= {"5.10", "6.1", "6.12", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3"}


GFP_ZONE = {
    0x0: NORMAL,
    0x1: DMA,
    0x2: NORMAL,
    0x3: DMA,
    0x4: DMA32,
    0x5: DMA,
    0x6: DMA,
    0x7: DMA,
    0x8: NORMAL,
    0x9: DMA,
    0xA: MOVABLE,
    0xB: DMA,
    0xC: DMA32,
    0xD: DMA,
    0xE: DMA,
    0xF: DMA,
}


@pytest.mark.parametrize("release", RELEASES)
def test_gfp_zone_table(release: str) -> None:
    """Sixteen modifiers give the zones of the constant 0x1320122, which every image holds."""
    kernel = _kernel(release)
    assert {modifiers: gfp.gfp_zone(kernel, modifiers)[0] for modifiers in range(16)} == GFP_ZONE
    assert sum(zone << 2 * modifiers for modifiers, zone in enumerate(kernel.gfp_zone_table)) == 0x1320122


@pytest.mark.parametrize(
    ("disabled", "mask", "migratetype"),
    [
        (False, 0x0, 0),
        (False, 0x8, 1),
        (False, 0x10, 2),
        (False, 0x18, 3),
        (True, 0x8, 0),
        (True, 0x18, 0),
    ],
)
def test_gfp_migratetype(disabled: bool, mask: int, migratetype: int) -> None:
    """Bits 3 and 4 are the migratetype, unless grouping is off."""
    kernel = _kernel("6.12")
    context = replace(kernel.context(), page_group_by_mobility_disabled=disabled)
    assert gfp.gfp_migratetype(kernel, mask, context)[0] == migratetype


@pytest.mark.parametrize(
    ("release", "flags", "mask"),
    [
        ("5.13", 0, 0xCCA),
        ("5.13", NOIO, 0xC0A),
        ("5.13", NOFS, 0xC4A),
        ("5.13", NOIO | NOFS, 0xC0A),
        ("5.13", PIN, 0xCC2),
        ("6.1", PIN | NOFS, 0xC42),
        ("6.8", NORECLAIM | NOWARN, 0xCCA),
        ("6.9", NORECLAIM, 0x8CA),
        ("6.9", NORECLAIM | NOIO, 0x8CA),
        ("6.9", NOWARN, 0x2CCA),
        ("6.11", NOWARN | NOIO | PIN, 0x2C02),
        ("6.12", NORECLAIM | NOWARN, 0xCCA),
        ("7.3", NOIO | PIN, 0xC02),
    ],
)
def test_current_gfp_context(release: str, flags: int, mask: int) -> None:
    """The task's scopes take out what they forbid, as the release has them."""
    kernel = _kernel(release)
    assert sched_mm.current_gfp_context(kernel, 0xCCA, kernel.context(task_flags=flags))[0] == mask


NOFRAGMENT, KSWAPD = 0x100, 0x800


@pytest.mark.parametrize(
    ("nodes", "preferred", "flags"),
    [
        ([(DMA, DMA32, NORMAL)], ZoneRef(0, NORMAL), NOFRAGMENT),
        ([(NORMAL,)], ZoneRef(0, NORMAL), NOFRAGMENT),
        ([(DMA, DMA32, NORMAL)], ZoneRef(0, DMA32), 0),
        ([(DMA, DMA32, NORMAL)], ZoneRef(0, DMA), 0),
        ([(DMA32, NORMAL, MOVABLE)], ZoneRef(0, MOVABLE), 0),
        ([(DMA, DMA32, NORMAL)], None, 0),
        ([(DMA32, NORMAL), (NORMAL,)], ZoneRef(0, NORMAL), NOFRAGMENT),
        ([(DMA32, NORMAL), (NORMAL,)], ZoneRef(1, NORMAL), 0),
    ],
)
@pytest.mark.parametrize("release", ["5.8", "5.10", "6.1", "6.12", "6.16", "7.2", "7.3"])
def test_alloc_flags_nofragment(
    release: str, nodes: list[tuple[int, ...]], preferred: ZoneRef | None, flags: int
) -> None:
    """ALLOC_NOFRAGMENT is for ZONE_NORMAL with ZONE_DMA32 below it; vm.defrag_mode makes it unconditional."""
    kernel = _kernel(release, _machine(*nodes))
    context = kernel.context()
    assert page_alloc.alloc_flags_nofragment(kernel, preferred, 0x400, context)[0] == flags
    assert page_alloc.alloc_flags_nofragment(kernel, preferred, 0x800, context)[0] == flags | KSWAPD
    defrag = page_alloc.alloc_flags_nofragment(kernel, preferred, 0x400, replace(context, defrag_mode=True))[0]
    assert defrag == (NOFRAGMENT if release in ("6.16", "7.2", "7.3") else flags)


def test_nofragment_without_zone_dma32() -> None:
    """Without CONFIG_ZONE_DMA32 ALLOC_NOFRAGMENT is never set."""
    kernel = replace(_kernel("6.12"), zone_dma32=None)
    assert page_alloc.alloc_flags_nofragment(kernel, ZoneRef(0, NORMAL), 0, kernel.context())[0] == 0


def _random_request(pick: random.Random, kernel: Kernel, *, nolock: bool) -> tuple[Request, Context]:
    nids = sorted(kernel.machine.fallback)
    request = Request(
        gfp_mask=pick.choice((0, 0x400000)) if nolock else pick.getrandbits(32),
        order=pick.choice((0, 1, 2, 3, 9) if nolock else range(11)),
        preferred_nid=pick.choice(nids),
        nodemask=None if pick.random() < 0.6 else pick.getrandbits(4),
        alloc_flags=pick.choice((0, 0, 0x1000)) if kernel.features.entry_alloc_flags else 0,
        entry="nolock" if nolock else "normal",
    )
    context = Context(
        cpusets_enabled=pick.random() < 0.5,
        gfp_allowed_mask=pick.choice((kernel.machine.gfp_allowed_mask, pick.getrandbits(27))),
        task_flags=pick.getrandbits(32),
        preempt_count=pick.getrandbits(32) if pick.random() < 0.5 else 0,
        mems_allowed=pick.choice((ALL_NODES, pick.getrandbits(4))),
        defrag_mode=pick.random() < 0.2,
        page_group_by_mobility_disabled=pick.random() < 0.1,
    )
    return request, context


def _random_preparations(release: str, *, nolock: bool) -> Iterator[Preparation]:
    pick = random.Random(release)  # noqa: S311  (the same cases on every run)
    for _ in range(40):
        nodes = [tuple(zone for zone in range(4) if pick.random() < 0.7) for _ in range(pick.randint(1, 4))]
        kernel = _kernel(release, _machine(*nodes))
        for _ in range(25):
            yield alloc_pages(kernel, *_random_request(pick, kernel, nolock=nolock))


@pytest.mark.parametrize("release", RELEASES)
def test_possible_alloc_flags(release: str) -> None:
    """For every request the fast path gets only flags that compiled kernels pass."""
    possible = {0x1, 0x41, 0x101, 0x141, 0x801, 0x841, 0x901, 0x941}
    if release in ("7.2", "7.3"):
        possible |= {flags | 0x80 for flags in possible}
    if release == "7.3":
        possible |= {flags | 0x200 for flags in possible}
        possible |= {flags | 0x1000 for flags in possible}
    assert {done.alloc_flags for done in _random_preparations(release, nolock=False)} <= possible


@pytest.mark.parametrize(
    ("release", "possible"),
    [(release, {0x400, 0x440}) for release in ("6.15", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2")]
    + [("7.3", {0x400, 0x440, 0x1400, 0x1440})],
)
def test_possible_alloc_flags_without_locks(release: str, possible: set[int]) -> None:
    """Without locks the watermark is MIN, and only ALLOC_CPUSET (and the profiler's bit) can join."""
    assert {done.alloc_flags for done in _random_preparations(release, nolock=True)} == possible


@pytest.mark.parametrize("release", RELEASES)
def test_what_never_happens(release: str) -> None:
    """For every request the preferred zone is within bounds and nodemask, and there are steps."""
    for done in _random_preparations(release, nolock=False):
        assert done.outcome == "prepared"
        assert done.steps
        if done.preferred_zone is not None:
            assert done.preferred_zone.zone <= (done.highest_zoneidx or 0)
            if done.nodemask_value is not None:
                assert done.nodemask_value >> done.preferred_zone.node & 1


def test_registers_hold_32_bits() -> None:
    """The upper half of a register means nothing, and a node id is signed."""
    kernel = _kernel("6.12")
    plain = alloc_pages(kernel, Request(0xCC0, 0, 0), kernel.context())
    assert alloc_pages(kernel, Request(0xFFFF_0000_0CC0, 1 << 32, 1 << 32), kernel.context()) == plain
    with pytest.raises(UnknownFact, match="zonelist FALLBACK of node -1"):
        alloc_pages(kernel, Request(0xCC0, 0, 0xFFFF_FFFF), kernel.context())


def test_unknown_zonelist() -> None:
    """A node without a known zonelist is not guessed at."""
    kernel = _kernel("6.12")
    with pytest.raises(UnknownFact) as caught:
        alloc_pages(kernel, Request(0xCC0, 0, 3), kernel.context())
    assert caught.value.name == "zonelist FALLBACK of node 3"


def test_unknown_zones_of_the_preferred_node() -> None:
    """ALLOC_NOFRAGMENT on two nodes needs the preferred one's zones."""
    machine = _machine((DMA32, NORMAL), (NORMAL,))
    kernel = _kernel("6.12", replace(machine, nodes=machine.nodes[1:]))
    with pytest.raises(UnknownFact, match="zones of node 0"):
        alloc_pages(kernel, Request(0xCC0, 0, 0), kernel.context())


def test_unknown_node_of_the_cpu() -> None:
    """NUMA_NO_NODE on several nodes needs the node of the CPU, on one it does not."""
    request = Request(0, 0, -1, entry="nolock")
    two = _kernel("7.2", _machine((DMA32, NORMAL), (NORMAL,)))
    with pytest.raises(UnknownFact, match="numa_node_id"):
        alloc_pages(two, request, two.context())
    assert alloc_pages(two, request, two.context(numa_node_id=1)).zonelist_nid == 1
    one = _kernel("7.2")
    assert alloc_pages(one, request, one.context()).zonelist_nid == 0


@pytest.mark.parametrize(
    ("release", "request_"),
    [
        ("7.2", Request(0xCC0, 0, 0, alloc_flags=0x400)),
        ("5.10", Request(0xCC0, 0, 0, alloc_flags=0x1000)),
        ("6.14", Request(0, 0, 0, entry="nolock")),
    ],
)
def test_impossible_request(release: str, request_: Request) -> None:
    """A request with an argument or entry that the kernel lacks is an error."""
    kernel = _kernel(release)
    with pytest.raises(ImpossibleRequestError):
        alloc_pages(kernel, request_, kernel.context())


def test_a_nodemask_does_not_reach_an_entry_without_one() -> None:
    """The entries of their own take no nodemask; a step says that it was left out."""
    kernel = _kernel("7.2")
    done = alloc_pages(kernel, Request(0, 0, 0, nodemask=0, entry="nolock"), kernel.context())
    assert (done.nodemask, done.preferred_zone) == ("null", ZoneRef(0, NORMAL))
    assert "nolock_nodemask" in [step.rule for step in done.steps]


def test_without_config_numa_there_is_one_zonelist() -> None:
    """__GFP_THISNODE selects nothing where CONFIG_NUMA is off."""
    kernel = _kernel("6.12")
    flat = kernel.on(kernel.machine, replace(kernel.features, config_numa=False))
    assert alloc_pages(flat, Request(0x200CC0, 0, 0), flat.context()).zonelist_kind == "FALLBACK"


def test_without_config_cpusets_nothing_is_confined() -> None:
    """The key of cpusets means nothing where CONFIG_CPUSETS is off."""
    kernel = _kernel("6.12")
    free = kernel.on(kernel.machine, replace(kernel.features, config_cpusets=False))
    context = replace(free.context(), cpusets_enabled=True)
    assert alloc_pages(free, Request(0xCC0, 0, 0), context).gfp == 0xCC0


def test_steps_follow_the_kernel_s_order() -> None:
    """The steps list the rules in the order in which 7.3 applies them."""
    kernel = _kernel("7.3")
    done = alloc_pages(kernel, Request(0xCC0, 0, 0), kernel.context())
    assert [step.rule for step in done.steps] == [
        *("alloc_flags_check", "order", "gfp_allowed_mask", "gfp_context", "gfp_zone", "zonelist"),
        *("gfp_migratetype", "cpuset", "cma", "spread_dirty_pages", "preferred_zone", "nofragment", "highatomic"),
    ]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_rule_is_noticed(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rule can be broken in this way without an expectation that fails."""
    module, name, broken = MUTATIONS[mutation]
    monkeypatch.setattr(module, name, broken)
    assert any(_differences(request, expected) for _, request, expected in EXPECTATIONS)


@pytest.mark.parametrize(
    "feature",
    [
        *("entry_alloc_flags", "nolock", "gfp_context_on_fast_path", "pf_memalloc_pin", "pf_memalloc_noreclaim"),
        *("pf_memalloc_nocma", "context_test", "interrupt_mask", "config_cma", "defrag_mode"),
        *("highatomic_on_fast_path", "nolock_orders"),
    ],
)
def test_a_feature_of_another_release_is_noticed(feature: str) -> None:
    """A kernel that is given a feature's value of another release fails an expectation."""

    def differs(request: dict[str, Any], expected: dict[str, Any], donor: str) -> bool:
        snapshot = builtin_snapshot(request["kernel"])
        other = getattr(builtin_snapshot(donor).features, feature)
        changed = replace(snapshot, features=replace(snapshot.features, **{feature: other}))
        try:
            answer = answer_json(request["kernel"], WhatIf(lambda _: changed).answer(request))
        except ValueError:
            return True
        return any(answer[key] != value for key, value in expected.items())

    assert any(
        differs(request, expected, donor)
        for donor in ("5.8", "5.10", "6.1", "6.9", "7.3")
        for _, request, expected in EXPECTATIONS
    )
