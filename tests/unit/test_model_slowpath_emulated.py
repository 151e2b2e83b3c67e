# SPDX-License-Identifier: MIT
"""The slow path against what the compiled kernels did when they were executed in an emulator."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from kalloctrace.model.slowpath.types import SlowKernel
from kalloctrace.verify.slowpath.judge import judge_slowpath
from tests.broken_slow_rules import SLOW_MUTATIONS
from tests.compiled.mask_flags import mask_flags
from tests.compiled.rows import Called, from_row

DATA = Path(__file__).parent / "data" / "slowpath"
KERNELS = tuple(sorted(path.stem for path in DATA.glob("*.json")))


@cache
def _calls(kernel: str) -> tuple[tuple[SlowKernel, Called], ...]:
    called = map(from_row, json.loads((DATA / f"{kernel}.json").read_text()))
    return tuple((each.on(kernel), each) for each in called)


def _differs(kernel: str) -> bool:
    """Return whether a call differs from the model."""
    return any(
        any(each.differences for each in (*verdict.attempts, verdict.end))
        for verdict in (judge_slowpath(slow, called.call) for slow, called in _calls(kernel))
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_a_compiled_kernel_did_is_predicted(kernel: str) -> None:
    """Every attempt of every call has a place and the arguments that the model gives it, and so has every NULL.

    Unknown are attempts alone that follow a change which nothing shows.
    """
    counts: Counter[str] = Counter()
    for slow, called in _calls(kernel):
        verdict = judge_slowpath(slow, called.call)
        assert not any(each.differences for each in (*verdict.attempts, verdict.end)), called
        assert called.unseen or not any(each.unknown for each in verdict.attempts), called
        counts.update(attempt.kinds[0] for attempt in verdict.attempts if len(attempt.kinds) == 1)
    assert sum(counts.values()) > 400
    assert counts.keys() >= {
        "after_waking_kswapd",
        "with_reserves",
        "after_direct_reclaim",
        "before_oom",
        "nofail",
        "restart",
    }


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_mask_alone_shows_what_a_compiled_kernel_did(kernel: str) -> None:
    """The flags of an ordinary task, and those under each condition, are the compiled kernel's."""
    found = [
        flags
        for slow, called in _calls(kernel)
        for flags in mask_flags(slow, called, judge_slowpath(slow, called.call))
    ]
    assert len(found) > 50
    assert [flags for flags in found if flags.expected != flags.actual] == []


@pytest.mark.parametrize(("kernel", "both"), [("6.16", True), ("6.12", False), ("7.3", False)])
def test_highatomic_without_gfp_high(kernel: str, both: bool) -> None:
    """6.16 opens the highatomic reserve to every request that cannot block, as 6a204d4b14c9 came after it."""
    high = {
        bool(called.call.gfp_mask & slow.bits.gfp_high)
        for slow, called in _calls(kernel)
        if any(attempt.alloc_flags & slow.bits.alloc_highatomic for attempt in called.call.attempts)
    }
    assert high == ({False, True} if both else {True})


UNSEEN = {
    **{name: "it permits more than the kernel does" for name in SLOW_MUTATIONS if name.startswith("OOM killer ")},
}
"""Broken rules that these calls cannot show, and why; the scenarios show them."""


@pytest.mark.parametrize("mutation", [name for name in SLOW_MUTATIONS if name not in UNSEEN])
def test_a_broken_rule_contradicts_a_compiled_kernel(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernels did does not fit any of the broken rules."""
    module, name, broken = SLOW_MUTATIONS[mutation]
    monkeypatch.setattr(module, name, broken)
    assert any(_differs(kernel) for kernel in KERNELS)
