# SPDX-License-Identifier: MIT
"""What-if requests: what is refused, what is assumed when left out, what the answer holds."""

from typing import Any

import pytest

from kalloctrace.explain import request as whatif
from kalloctrace.explain.request import BadRequestError, WhatIf, answer_json
from kalloctrace.kernel.builtin import builtin_features, builtin_snapshot
from kalloctrace.model import preempt
from kalloctrace.model.types import ALL_NODES, Context

PLAIN = {"kernel": "7.3", "gfp": 0xCC0, "order": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": None}, "kernel is not a string"),
        ({"kernel": 7.3}, "kernel is not a string"),
        ({"kernel": "4.19"}, "kernel '4.19' is not built in"),
        ({"kernel": "live"}, "kernel 'live' is not built in"),
        ({"gfp": True}, "gfp is not an integer"),
        ({"gfp": "0xcc0"}, "gfp is not an integer"),
        ({"gfp": 3264.0}, "gfp is not an integer"),
        ({"gfp": None}, "gfp is not an integer"),
        ({"gfp": -1}, "gfp is out of range"),
        ({"gfp": 1 << 32}, "gfp is out of range"),
        ({"order": False}, "order is not an integer"),
        ({"order": -1}, "order is out of range"),
        ({"order": 1 << 32}, "order is out of range"),
        ({"entry": "bulk"}, "entry is 'bulk', not one of normal, nolock"),
        ({"entry": ["normal"]}, "entry is"),
        ({"kernel": "6.12", "entry": "nolock"}, "no entry without locks"),
        ({"kernel": "7.2", "alloc_flags": 0x400}, "no argument alloc_flags"),
        ({"alloc_flags": True}, "alloc_flags is not an integer"),
        ({"preferred_nid": 1}, "preferred_nid 1 is not a node of the machine"),
        ({"preferred_nid": -1}, "preferred_nid -1 is not a node of the machine"),
        ({"preferred_nid": "0"}, "preferred_nid is not an integer"),
        ({"nodemask": 1}, "nodemask is not a list"),
        ({"nodemask": [0, -1]}, "nodemask holds -1"),
        ({"nodemask": [True]}, "nodemask holds True"),
        ({"nodemask": [1024]}, "nodemask holds 1024"),
        ({"nodemask": ["0"]}, "nodemask holds '0'"),
        ({"task_flags": 1 << 32}, "task_flags is out of range"),
        ({"context": "irq"}, "context is 'irq'"),
        ({"context": "hardirq", "preempt_count": 0}, "give one of them"),
        ({"preempt_count": -1}, "preempt_count is out of range"),
        ({"preempt_count": 1 << 64}, "preempt_count is out of range"),
        ({"kernel": "7.2", "preempt_count": 1 << 32}, "preempt_count is out of range"),
        ({"colour": 1}, "unknown key colour"),
        ({"nid": 0, "Order": 1}, "unknown key Order, nid"),
        ({"machine": []}, "machine is not an object"),
        ({"machine": None}, "machine is not an object"),
        ({"machine": {"nr_nodes": 1}}, "unknown key machine.nr_nodes"),
        ({"machine": {"cpusets_enabled": 1}}, "cpusets_enabled is not true or false"),
        ({"machine": {"config_cma": 0}}, "config_cma is not true or false"),
        ({"machine": {"defrag_mode": "on"}}, "defrag_mode is not true or false"),
        ({"machine": {"page_group_by_mobility_disabled": None}}, "page_group_by_mobility_disabled is not"),
        ({"machine": {"gfp_allowed_mask": -1}}, "gfp_allowed_mask is out of range"),
        ({"machine": {"mems_allowed": None}}, "mems_allowed is not a list"),
        ({"machine": {"nodes": {}}}, "machine.nodes is empty"),
        ({"machine": {"nodes": []}}, "machine.nodes is not an object"),
        ({"machine": {"nodes": {"0": "Normal"}}}, "list of zone names"),
        ({"machine": {"nodes": {"0": ["normal"]}}}, "'normal' is not a zone"),
        ({"machine": {"nodes": {"0": [2]}}}, "2 is not a zone"),
        ({"machine": {"nodes": {"-1": ["Normal"]}}}, "'-1', which is not a node id"),
        ({"machine": {"nodes": {"1024": ["Normal"]}}}, "'1024', which is not a node id"),
        ({"machine": {"nodes": {"²": ["Normal"]}}}, "which is not a node id"),
        ({"machine": {"fallback_order": {"0": [0, 1]}}}, "names [1], which machine.nodes lacks"),
        ({"machine": {"fallback_order": {"1": [0]}}}, "names [1], which machine.nodes lacks"),
        ({"machine": {"fallback_order": {"0": [0, 0]}}}, "visits a node twice"),
        ({"machine": {"fallback_order": {"0": [False]}}}, "holds False"),
    ],
)
def test_refused(change: dict[str, Any], message: str) -> None:
    """A request that is not valid is refused with the reason and the member's name."""
    with pytest.raises(BadRequestError) as caught:
        WhatIf().answer({**PLAIN, **change})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["kernel", "gfp", "order"])
def test_missing(missing: str) -> None:
    """Kernel, mask and order have no usual value."""
    with pytest.raises(BadRequestError, match=f"^{missing} is missing$"):
        WhatIf().answer({key: value for key, value in PLAIN.items() if key != missing})


@pytest.mark.parametrize("data", [None, [], "x", 3, True])
def test_not_an_object(data: object) -> None:
    """A request is an object."""
    with pytest.raises(BadRequestError, match="not an object"):
        WhatIf().answer(data)


def test_usual_values() -> None:
    """What is left out has the value of a task on a booted machine without cpusets."""
    answer = WhatIf().answer(PLAIN)
    assert answer.context == builtin_context("7.3")
    assert answer.request.preferred_nid == 0
    assert answer.request.nodemask is None


def builtin_context(release: str) -> Context:
    """Return the usual context, written out."""
    mask = builtin_snapshot(release).machine.gfp_allowed_mask
    return Context(cpusets_enabled=False, gfp_allowed_mask=mask, mems_allowed=ALL_NODES)


def test_the_first_node_is_preferred() -> None:
    """A machine without node 0 prefers its first."""
    answer = WhatIf().answer({**PLAIN, "machine": {"nodes": {"3": ["Normal"], "2": ["Normal"]}}})
    assert answer.preparation.zonelist_nid == 2


@pytest.mark.parametrize(("order", "first"), [(None, 2), ({"1": [1, 0, 2]}, 0)])
def test_fallback_order(order: dict[str, list[int]] | None, first: int) -> None:
    """Nodes equally far are visited from the list's owner upwards and around, unless an order is given."""
    machine: dict[str, Any] = {"nodes": {"0": ["Normal"], "1": [], "2": ["Normal"]}}
    if order is not None:
        machine["fallback_order"] = order
    preferred = WhatIf().answer({**PLAIN, "preferred_nid": 1, "machine": machine}).preparation.preferred_zone
    assert preferred is not None
    assert preferred.node == first


def test_machines_are_kept_apart() -> None:
    """Answers on alternating machines and configurations do not mix, though kernels are kept."""
    what_if = WhatIf()
    small = {**PLAIN, "gfp": 0x100CCA, "machine": {"nodes": {"0": ["DMA32"]}, "config_cma": False}}
    large = {**PLAIN, "gfp": 0x100CCA, "machine": {"nodes": {"0": ["DMA32", "Normal"]}}}
    for _ in range(2):
        assert what_if.answer(small).preparation.alloc_flags == 0x801
        assert what_if.answer(large).preparation.alloc_flags == 0x981
        assert what_if.answer(PLAIN).preparation.alloc_flags == 0x901


def test_true_is_not_taken_for_a_kept_1() -> None:
    """A machine that was kept does not let a wrong type through."""
    what_if = WhatIf()
    nodes = {"0": ["Normal"], "1": ["Normal"]}
    what_if.answer({**PLAIN, "machine": {"nodes": nodes, "fallback_order": {"0": [0, 1]}}})
    with pytest.raises(BadRequestError, match="holds True"):
        what_if.answer({**PLAIN, "machine": {"nodes": nodes, "fallback_order": {"0": [0, True]}}})


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines without end do not fill the memory."""
    monkeypatch.setattr(whatif, "_CACHED", 3)
    what_if = WhatIf()
    for nid in range(20):
        machine = {"nodes": {str(nid): ["Normal"]}}
        assert what_if.answer({**PLAIN, "machine": machine}).preparation.zonelist_nid == nid
    assert len(what_if._machines) <= 3  # noqa: SLF001  (the bound is not seen from outside)


@pytest.mark.parametrize(
    ("release", "context", "raw"),
    [
        ("5.8", "hardirq", 0x10000),
        ("5.10", "task", 0),
        ("5.10", "bh_disabled", 0x200),
        ("5.10", "softirq", 0x100),
        ("5.10", "hardirq", 0x10000),
        ("5.10", "nmi", 0x100000),
        ("6.12", "bh_disabled", 0x200),
        ("6.12", "softirq", 0x100),
        ("6.12", "hardirq", 0x10000),
        ("7.2", "nmi", 0x100000),
        ("7.3", "bh_disabled", 0x200),
        ("7.3", "softirq", 0x100),
        ("7.3", "hardirq", 0x1000000),
        ("7.3", "nmi", 0x10000000),
    ],
)
def test_named_context(release: str, context: preempt.ContextName, raw: int) -> None:
    """A context's name becomes the kernel's own layout of preempt_count."""
    assert preempt.preempt_count(builtin_features(release), context) == raw


def test_answer_json() -> None:
    """The answer has the members that scripts rely on, in plain values."""
    answer = answer_json("7.2", WhatIf().answer({**PLAIN, "kernel": "7.2"}))
    steps = answer.pop("steps")
    assert answer == {
        "type": "preparation",
        "kernel": "7.2",
        "outcome": "prepared",
        "reason": None,
        "warns": False,
        "gfp": 0xCC0,
        "alloc_flags": 0x901,
        "alloc_flags_names": ("ALLOC_WMARK_LOW", "ALLOC_NOFRAGMENT", "ALLOC_KSWAPD"),
        "highest_zoneidx": 2,
        "zone": "Normal",
        "migratetype": 0,
        "migratetype_name": "MIGRATE_UNMOVABLE",
        "zonelist": {"kind": "FALLBACK", "nid": 0},
        "nodemask": "null",
        "preferred_zone": {"node": 0, "zone": "Normal"},
        "spread_dirty_pages": False,
    }
    assert [set(step) for step in steps] == [{"rule", "function", "effect"}] * len(steps)


def test_rejected_answer_json() -> None:
    """A rejected request has a reason, and null for everything that was not computed."""
    answer = answer_json("7.2", WhatIf().answer({**PLAIN, "kernel": "7.2", "order": 11}))
    assert answer["reason"] == "order 11 exceeds the largest, 10"
    made = {"type", "kernel", "outcome", "reason", "warns", "steps"}
    assert all(value is None for key, value in answer.items() if key not in made)
