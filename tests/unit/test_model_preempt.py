# SPDX-License-Identifier: MIT
"""The context that a preempt_count stands for."""

import pytest

from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.model.preempt import ContextName, context_name, preempt_count


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.3"])
@pytest.mark.parametrize("context", ["task", "bh_disabled", "softirq", "hardirq", "nmi"])
def test_context_by_the_kernels_layout(kernel: str, context: ContextName) -> None:
    """A preempt_count is read in that kernel's layout, also with preemption disabled."""
    features = builtin_snapshot(kernel).features
    preempt_disabled = 2
    assert context_name(features, preempt_count(features, context) | preempt_disabled) == context


@pytest.mark.parametrize(
    ("outer", "inner"), [("bh_disabled", "softirq"), ("softirq", "hardirq"), ("bh_disabled", "hardirq")]
)
def test_innermost_context_counts(outer: ContextName, inner: ContextName) -> None:
    """An interrupt that interrupted another context is the one that allocates."""
    features = builtin_snapshot("5.10").features
    assert context_name(features, preempt_count(features, outer) + preempt_count(features, inner)) == inner
