# SPDX-License-Identifier: MIT
"""Compares an attempt of the slow path with one prediction."""

from collections.abc import Iterator, Sequence
from typing import Any

from kalloctrace.kernel.nodelist import format_nodelist
from kalloctrace.model.slowpath.types import Prediction, SlowAttempt, SlowCall, SlowKernel
from kalloctrace.model.types import Step
from kalloctrace.verify.compare import Difference

_CALLERS = {
    "compact": frozenset({"initial_compact", "compact"}),
    "reclaim": frozenset({"reclaim", "drained"}),
    "may_oom": frozenset({"oom", "oom_nofail_cpuset", "oom_nofail"}),
    "cpuset_fallback": frozenset({"oom_nofail_cpuset", "oom_nofail", "nofail_cpuset", "nofail"}),
}
"""Sites by a part of the caller's name; a function that the compiler inlined does not show."""


def fits_evidence(prediction: Prediction, attempt: SlowAttempt) -> bool:
    """Return whether the events and the caller that the trace has of an attempt agree with a prediction."""
    site, events = prediction.state.site, attempt.events
    if events is not None:
        if not events <= prediction.events:
            return False
        began = "direct_reclaim" in events
        if not began and site != "reclaim" and "direct_reclaim" in prediction.events:
            return False
        if began and attempt.reclaimed is not None and (site == "reclaim") != (attempt.reclaimed > 0):
            return False
    sites = next((sites for part, sites in _CALLERS.items() if part in attempt.caller), None)
    return sites is None or site in sites


def skips_reclaim(prediction: Prediction, attempt: SlowAttempt) -> bool:
    """Return whether reclaim made progress without its tracepoint, as it does for a task that is being killed.

    Source: `throttle_direct_reclaim`, mm/vmscan.c of linux-source-5.10 5.10.262-1 to 7.3.4-1~bpo13+1.
    """
    seen = attempt.events is None or "direct_reclaim" in attempt.events
    return prediction.state.site == "reclaim" and not seen


def distance(kernel: SlowKernel, call: SlowCall, prediction: Prediction, attempt: SlowAttempt) -> tuple[int, int]:
    """Return how far an attempt is from a prediction: differing fields, then differing bits of mask and flags."""
    bits = (prediction.alloc_flags ^ attempt.alloc_flags).bit_count()
    bits += (prediction.gfp_mask ^ attempt.gfp_mask).bit_count()
    return len(list(slow_differences(kernel, call, prediction, attempt))), bits


def slow_differences(
    kernel: SlowKernel, call: SlowCall, prediction: Prediction, attempt: SlowAttempt, steps: Sequence[Step] = ()
) -> Iterator[Difference]:
    """Yield the captured fields in which an attempt differs from a prediction.

    Args:
        kernel: the kernel that was recorded.
        call: the call, for the values that do not change during it.
        prediction: an attempt that may come next.
        attempt: the captured attempt.
        steps: the rules applied before it, for their effects.
    """
    effects = {step.rule: step.effect for step in (*steps, *prediction.steps)}
    for field, want, got, rule in _comparisons(kernel, call, prediction, attempt):
        if want != got:
            yield Difference(field, want, got, rule, effects.get(rule, ""))


def _comparisons(
    kernel: SlowKernel, call: SlowCall, prediction: Prediction, attempt: SlowAttempt
) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield each captured field with the model's value, the kernel's value, and the rule that sets it."""
    entered, state, seen = call.context, prediction.state, attempt.context
    gfp, flags = prediction.gfp_mask, prediction.alloc_flags
    yield "freelist_gfp_mask", gfp, attempt.gfp_mask, "slow_before_oom" if state.site == "oom" else "slow_gfp"
    yield "freelist_order", call.order, attempt.order, "order"
    yield "alloc_flags", flags, attempt.alloc_flags, _alloc_flags_rule(kernel, flags ^ attempt.alloc_flags)
    unknown = seen.unknown
    if not unknown & {"zonelist_kind", "zonelist_nid"}:
        zonelist = (entered.zonelist_kind, entered.zonelist_nid)
        yield "zonelist", zonelist, (seen.zonelist_kind, seen.zonelist_nid), "zonelist"
    if "nodemask" not in unknown:
        yield "ac_nodemask_nodes", _nodes(state.nodemask), _nodes(seen.nodemask), "slow_policy"
    if "preferred_zone" not in unknown:
        yield "preferred_zone", state.preferred_zone, seen.preferred_zone, "preferred_zone"
    for name, want in (
        ("highest_zoneidx", entered.highest_zoneidx),
        ("migratetype", entered.migratetype),
        ("spread_dirty_pages", False),
        ("alloc_flags", entered.alloc_flags),
    ):
        if name not in unknown:
            field = "ac_alloc_flags" if name == "alloc_flags" else name
            yield field, want, getattr(seen, name), field


def entry_differences(expected: SlowCall, call: SlowCall) -> Iterator[Difference]:
    """Yield the captured arguments in which a call of the slow path differs from a prediction.

    Args:
        expected: what `kalloctrace.model.slowpath.state_machine.slowpath_call` returned.
        call: what was captured.
    """
    want, seen = expected.context, call.context
    fields: list[tuple[str, Any, Any, frozenset[str]]] = [
        ("slow_gfp_mask", expected.gfp_mask, call.gfp_mask, frozenset()),
        ("slow_order", expected.order, call.order, frozenset()),
        (
            "zonelist",
            (want.zonelist_kind, want.zonelist_nid),
            (seen.zonelist_kind, seen.zonelist_nid),
            frozenset({"zonelist_kind", "zonelist_nid"}),
        ),
        ("ac_nodemask_nodes", _nodes(want.nodemask), _nodes(seen.nodemask), frozenset({"nodemask"})),
    ]
    for name in ("preferred_zone", "highest_zoneidx", "migratetype", "spread_dirty_pages", "alloc_flags"):
        field = "ac_alloc_flags" if name == "alloc_flags" else name
        fields.append((field, getattr(want, name), getattr(seen, name), frozenset({name})))
    for field, expected_value, got, members in fields:
        if expected_value != got and not members & seen.unknown:
            effect = "as the fast path leaves it, with the caller's nodemask and the task's scopes"
            yield Difference(field, expected_value, got, "slow_entry", effect)


def _nodes(mask: int | None) -> str | None:
    return None if mask is None else format_nodelist(mask)


def _alloc_flags_rule(kernel: SlowKernel, bits: int) -> str:
    known = kernel.bits
    for mask, rule in (
        (known.alloc_no_watermarks | known.alloc_oom, "slow_reserves"),
        (known.alloc_wmark_high | known.alloc_wmark_low, "slow_watermark"),
        (known.alloc_harder, "slow_atomic"),
        (known.alloc_non_block | known.alloc_highatomic, "slow_non_block"),
        (known.alloc_high | known.alloc_min_reserve, "slow_high"),
        (known.alloc_cpuset, "slow_watermark"),
        (known.alloc_cma, "slow_cma"),
        (known.alloc_nofragment, "slow_defrag"),
        (known.alloc_kswapd, "slow_kswapd"),
    ):
        if bits & mask:
            return rule
    return "alloc_flags"
