# SPDX-License-Identifier: MIT
"""Whether a kernel can be preempted, by its version and active mode."""

import pytest

from kalloctrace.kernel.preemption import preemption

DYNAMIC = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1 (2026-01-01)"


@pytest.mark.parametrize(
    ("version", "mode", "rt", "expected"),
    [
        ("#1 SMP Debian 5.10.262-1 (2026-01-01)", None, False, False),
        ("#1 SMP PREEMPT Debian 5.10.262-1 (2026-01-01)", None, False, True),
        (DYNAMIC, "none (voluntary) full\n", False, False),
        (DYNAMIC, "(none) voluntary full\n", False, False),
        (DYNAMIC, "none voluntary (full) lazy\n", False, True),
        (DYNAMIC, "full (lazy)\n", False, True),
        (DYNAMIC, None, False, True),
        ("#1 SMP PREEMPT_RT Debian", "full (lazy)\n", True, True),
        ("#1 SMP Debian", None, True, True),
    ],
)
def test_preemptible(version: str, mode: str | None, *, rt: bool, expected: bool) -> None:
    """The active mode overrides the build option; an unknown mode counts as preemptible."""
    assert preemption(version, mode, rt=rt).preemptible is expected


def test_evidence_names_the_source() -> None:
    """Doctor and the trace show it."""
    assert "says voluntary" in preemption(DYNAMIC, "none (voluntary) full", rt=False).evidence
    assert "PREEMPT_DYNAMIC" in preemption(DYNAMIC, None, rt=False).evidence
    assert preemption(DYNAMIC, None, rt=True).evidence == "PREEMPT_RT"
