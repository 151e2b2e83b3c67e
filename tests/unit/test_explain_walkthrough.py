# SPDX-License-Identifier: MIT
"""The walkthrough of a request: everything in it is the model's own answer."""

import re
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.explain.request import Answer, BadRequestError, WhatIf
from kalloctrace.explain.rules import RULES, words
from kalloctrace.explain.settings import Setting, parse_setting, with_setting
from kalloctrace.explain.walkthrough import Walkthrough, walkthrough_of, walkthrough_sections
from kalloctrace.explain.what_if import candidates, changes, only_passes_through, other_kernels
from kalloctrace.flags.builtin import builtin_kernels, builtin_tables
from kalloctrace.kernel.builtin import ROWS, default_allowed_mask
from kalloctrace.kernel.history import REWRITES
from kalloctrace.model.page_alloc import alloc_pages

MODEL = Path(__file__).parents[2] / "kalloctrace" / "model"
STAGE = ("page_alloc", "gfp", "mmzone", "cpuset", "sched_mm")
TWO_NODES = {"nodes": {"0": ["DMA", "DMA32", "Normal"], "1": ["Normal", "Movable"]}}
MASKS = (0xCC0, 0x100CCA, 0x820, 0x1CC4)


def ask(kernel: str, gfp: int, **more: Any) -> Answer:  # noqa: ANN401  (whatever a request holds)
    """Answer a request on two nodes."""
    return WhatIf().answer({"kernel": kernel, "gfp": gfp, "order": 0, "machine": TWO_NODES, **more})


def setting_of(walkthrough: Walkthrough, setting: str) -> dict[str, tuple[str, str]]:
    """Return what a setting changes: field to before and after."""
    one = next(one for one in walkthrough.alternatives if one.setting == setting)
    return {change.field: (change.before, change.after) for change in one.changes}


@pytest.mark.parametrize("kernel", builtin_kernels())
@pytest.mark.parametrize("gfp", MASKS)
def test_every_setting_is_read_as_it_is_written(kernel: str, gfp: int) -> None:
    """What a walkthrough proposes can be given to --set."""
    answer = ask(kernel, gfp, nodemask=[0, 1], machine={**TWO_NODES, "cpusets_enabled": True})
    settings = [*candidates(answer), *other_kernels(answer)]
    assert len(settings) > 40
    assert [parse_setting(answer.kernel, setting.text) for setting in settings] == settings


@pytest.mark.parametrize("kernel", builtin_kernels())
@pytest.mark.parametrize("gfp", MASKS)
def test_every_alternative_is_what_the_model_answers(kernel: str, gfp: int) -> None:
    """Each setting that is listed changes the model's answer, each that is not leaves it as it is."""
    answer = ask(kernel, gfp)
    walkthrough = walkthrough_of(answer)
    listed = {one.setting: one.changes for one in walkthrough.alternatives}
    for setting in candidates(answer):
        try:
            after = with_setting(answer, setting)
        except BadRequestError:
            assert setting.text not in listed
            continue
        again = alloc_pages(after.kernel, after.request, after.context)
        assert again == after.preparation
        if setting.text in listed:
            assert listed[setting.text] == changes(answer, after)
            assert listed[setting.text]
        elif setting.text in walkthrough.passed_through:
            assert only_passes_through(answer, after)
        else:
            assert changes(answer, after) == ()


@pytest.mark.parametrize("kernel", builtin_kernels())
@pytest.mark.parametrize("entry", ["normal", "nolock"])
def test_every_step_has_a_walkthrough(kernel: str, entry: str) -> None:
    """Each step of the model has its condition, values and terms; its effect is the model's sentence."""
    try:
        answer = ask(kernel, 0x100CCA, entry=entry, nodemask=[0])
    except BadRequestError:
        assert entry == "nolock"
        return
    walkthrough = walkthrough_of(answer)
    assert [(step.rule, step.function, step.effect) for step in walkthrough.steps] == [
        (step.rule, step.function, step.effect) for step in answer.preparation.steps
    ]
    assert all(step.condition and step.values and step.terms for step in walkthrough.steps)


def test_every_rule_of_the_model_has_a_walkthrough() -> None:
    """What the model's modules can yield is what has words, and each feature's value has them too."""
    text = "".join((MODEL / f"{name}.py").read_text(encoding="utf-8") for name in STAGE)
    yielded = set(re.findall(r'(?:\bStep|_RejectedError)\(\s*"(\w+)"', text))
    assert yielded == set(RULES)
    assert all(words(row.feature, row.value) for rule in RULES.values() for row in ROWS if row.feature in rule.features)


def test_a_scope_changes_what_it_should() -> None:
    """PF_MEMALLOC_NOFS clears __GFP_FS on 6.12, and does nothing on 5.10, whose fast path does not read it."""
    assert setting_of(walkthrough_of(ask("6.12", 0xCC0)), "PF_MEMALLOC_NOFS") == {
        "gfp_mask": ("0xcc0 GFP_KERNEL", "0xc40 GFP_NOFS")
    }
    assert "PF_MEMALLOC_NOFS" not in {one.setting for one in walkthrough_of(ask("5.10", 0xCC0)).alternatives}


def test_bottom_halves_matter_on_5_10_alone() -> None:
    """With cpusets on, disabled bottom halves change the answer where the kernel calls in_interrupt()."""
    on = {"machine": {**TWO_NODES, "cpusets_enabled": True}}
    old = {one.setting for one in walkthrough_of(ask("5.10", 0xCC0, **on)).alternatives}
    new = {one.setting for one in walkthrough_of(ask("6.12", 0xCC0, **on)).alternatives}
    assert ("context=bh_disabled" in old, "context=bh_disabled" in new) == (True, False)
    assert "context=softirq" in old & new


def test_a_setting_belongs_to_the_rule_that_it_changes() -> None:
    """The settings proposed at a step change that step's own result."""
    steps = {step.rule: set(step.would_change) for step in walkthrough_of(ask("7.3", 0x820)).steps}
    assert {"order=1", "order=3"} <= steps["highatomic"]
    assert steps["zonelist"] == {"nid=1", "__GFP_THISNODE"}
    assert steps["spread_dirty_pages"] == {"__GFP_WRITE"}
    assert "order=1" not in steps["order"]
    assert steps["order"] == {"order=11"}


def test_the_history_marks_this_kernel() -> None:
    """Exactly one line of a rule's history is this kernel's way, and each cites where it was read."""
    step = next(step for step in walkthrough_of(ask("6.1", 0xCC0)).steps if step.rule == "cpuset")
    tests = [one for one in step.differs if "in_" in one.what or "not checked" in one.what]
    assert [one.since for one in tests if one.here] == ["5.15"]
    assert all(one.source for one in step.differs)


def test_another_kernel_lays_the_context_out_its_own_way() -> None:
    """kernel=7.3 keeps an interrupt an interrupt, although its preempt_count is another number."""
    on = {"machine": {**TWO_NODES, "cpusets_enabled": True}, "context": "hardirq"}
    there = with_setting(ask("6.12", 0x820, **on), Setting("kernel", "7.3"))
    assert there.context.preempt_count == 0x1000000
    assert there.preparation.alloc_flags == 0x941


def test_other_kernels_are_those_that_differ() -> None:
    """A page fault gets ALLOC_CMA on Debian's kernels that are built with CMA, and is the same on the others."""
    answer = ask("6.12", 0x100CCA)
    assert {one.setting for one in walkthrough_of(answer).kernels} == {"kernel=7.2", "kernel=7.3"}
    assert Setting("kernel", "6.12") not in set(other_kernels(answer))


def test_a_rejection_is_explained() -> None:
    """A rejected request shows a smaller order that passes, at the step that rejects."""
    walkthrough = walkthrough_of(ask("6.12", 0xCC0, order=11))
    assert walkthrough.steps[-1].rule == "order"
    assert "order=0" in walkthrough.steps[-1].would_change
    assert setting_of(walkthrough, "order=0")["outcome"][1] == "prepared"


def test_sections_contain_the_whole_walkthrough() -> None:
    """A page gets each step, and every alternative with both values; no heading is without fields."""
    walkthrough = walkthrough_of(ask("6.1", 0xCC0))
    sections = dict(walkthrough_sections(walkthrough))
    assert all(sections.values())
    assert [heading for heading in sections if heading.startswith("step ")] == [
        f"step {step.number}: {step.function}" for step in walkthrough.steps
    ]
    assert dict(sections["what would change the answer"]).keys() == {one.setting for one in walkthrough.alternatives}
    assert ("then", walkthrough.steps[0].effect) in sections[f"step 1: {walkthrough.steps[0].function}"]
    assert (
        dict(sections["what would change the answer"])["PF_MEMALLOC_NOFS"]
        == "gfp_mask: 0xcc0 GFP_KERNEL -> 0xc40 GFP_NOFS"
    )


def test_without_locks_the_order_has_a_rule_of_its_own() -> None:
    """The nolock entry calls pcp_allowed_order(); a rejection by another order is no change."""
    walkthrough = walkthrough_of(ask("7.3", 0, entry="nolock", order=4))
    assert walkthrough.steps[0].values == (("alloc_flags", "0x400"),)
    step = walkthrough.steps[-1]
    assert (step.function, step.condition) == ("pcp_allowed_order", "pcp_allowed_order(order)")
    assert step.values == (("order", "4"), ("orders that the per-CPU lists keep", "0, 1, 2, 3, 9"))
    assert [one.since for one in step.differs if one.here] == ["6.15"]
    assert {"order=0", "order=9", "entry=normal"} <= set(step.would_change)
    assert "order=11" not in step.would_change


def test_the_argument_alloc_flags_is_tried_where_there_is_one() -> None:
    """A request that is rejected for its flags gets those that pass; before 7.3 there is no such argument."""
    step = walkthrough_of(ask("7.3", 0xCC0, alloc_flags=0x40)).steps[-1]
    assert (step.rule, step.would_change) == (
        "alloc_flags_check",
        ("alloc_flags=0x0", "alloc_flags=0x400", "alloc_flags=0x1000"),
    )
    assert not [one for one in walkthrough_of(ask("7.2", 0xCC0)).alternatives if one.setting.startswith("alloc_flags")]


def test_nowarn_takes_the_warning_from_a_rejection() -> None:
    """A rejection with a warning differs from one without, and __GFP_NOWARN makes the difference."""
    walkthrough = walkthrough_of(ask("6.12", 0xCC0, order=11))
    assert setting_of(walkthrough, "__GFP_NOWARN")["outcome"] == (
        "rejected, with a warning: order 11 exceeds the largest, 10",
        "rejected: order 11 exceeds the largest, 10",
    )
    assert "__GFP_NOWARN" in walkthrough.steps[-1].would_change
    assert "order=12" not in {one.setting for one in walkthrough.alternatives}


def test_the_masks_after_boot_are_the_built_in_ones() -> None:
    """The history of gfp_allowed_mask agrees with the built-in kernels, from each release to the next."""
    masks = {rewrite.since: int(rewrite.what.split()[-1], 16) for rewrite in REWRITES["gfp_allowed_mask"]}
    releases = (
        [(5, minor) for minor in range(8, 20)]
        + [(6, minor) for minor in range(20)]
        + [(7, minor) for minor in range(4)]
    )
    for release in releases:
        since = max(first for first in masks if first <= release)
        tables = builtin_tables(f"{release[0]}.{release[1]}")
        assert (release, default_allowed_mask(tables)) == (release, masks[since])
