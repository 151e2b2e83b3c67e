# SPDX-License-Identifier: MIT
"""The slow path against what the compiled kernels did when they were executed in an emulator."""

import json
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.kernel.machine import ZoneRef, machine_of
from kalloctrace.model.slowtypes import Facts, SlowAttempt, SlowCall, SlowContext, SlowKernel
from kalloctrace.verify.slowpath import judge_slowpath
from tests.broken_slow_rules import SLOW_MUTATIONS
from tests.slow_scenarios import slow_kernel

DATA = Path(__file__).parent / "data" / "slowpath"
KERNELS = tuple(sorted(path.stem for path in DATA.glob("*.json")))


def _call(kernel: str, row: dict[str, Any]) -> tuple[SlowKernel, SlowCall]:
    nodes = {int(nid): zones for nid, zones in row["nodes"].items()}
    machine = machine_of(nodes, gfp_allowed_mask=0xFFFFFF)
    zonelist = machine.fallback[row["nid"]]
    context = SlowContext(
        "FALLBACK",
        row["nid"],
        row["nodemask"],
        zonelist[0] if zonelist else None,
        row["zone"],
        row["migratetype"],
        alloc_flags=row["ac_alloc_flags"],
    )
    facts = Facts(**row["facts"])
    attempts = tuple(
        SlowAttempt(
            number,
            gfp,
            row["order"],
            flags,
            replace(context, nodemask=nodemask, preferred_zone=None if zone is None else ZoneRef(*zone)),
            replace(facts, oom_victim=victim),
            caller,
            frozenset(events),
            reclaimed,
        )
        for number, (gfp, flags, nodemask, zone, events, reclaimed, caller, victim) in enumerate(row["attempts"], 1)
    )
    whole = row["null"]
    call = SlowCall(row["gfp"], row["order"], context, attempts, False if whole else None, whole, facts)
    return slow_kernel(kernel, machine), call


@cache
def _calls(kernel: str) -> tuple[tuple[SlowKernel, SlowCall], ...]:
    return tuple(_call(kernel, row) for row in json.loads((DATA / f"{kernel}.json").read_text()))


def _differing(kernel: str) -> int:
    """Return how many calls differ from the model."""
    return sum(
        any(each.differences for each in (*verdict.attempts, verdict.end))
        for verdict in (judge_slowpath(*known) for known in _calls(kernel))
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_a_compiled_kernel_did_is_predicted(kernel: str) -> None:
    """Every attempt of every call has a place and the arguments that the model gives it, and so has every NULL."""
    counts: Counter[str] = Counter()
    for known in _calls(kernel):
        verdict = judge_slowpath(*known)
        assert not any(each.differences for each in (*verdict.attempts, verdict.end)), known[1]
        assert not any(each.unknown for each in verdict.attempts), known[1]
        counts.update(kind for each in verdict.attempts for kind in each.kinds)
    assert sum(counts.values()) > 400
    assert counts.keys() >= {"after_waking_kswapd", "with_reserves", "after_direct_reclaim", "before_oom", "nofail"}


UNSEEN = {
    "the cpuset is never checked": "cpusets were off",
    "HIGHATOMIC for HIGH alone": "no kernel between 6.3 and 6.17 was executed",
    **{name: "it permits more than the kernel does" for name in SLOW_MUTATIONS if name.startswith("OOM killer ")},
}
"""Broken rules that these calls cannot show, and why; the scenarios show them."""


@pytest.mark.parametrize("mutation", [name for name in SLOW_MUTATIONS if name not in UNSEEN])
def test_a_broken_rule_contradicts_a_compiled_kernel(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernels did does not fit any of the broken rules."""
    module, name, broken = SLOW_MUTATIONS[mutation]
    monkeypatch.setattr(module, name, broken)
    assert any(_differing(kernel) for kernel in KERNELS)
