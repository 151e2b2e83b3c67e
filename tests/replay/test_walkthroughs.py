# SPDX-License-Identifier: MIT
"""The walkthroughs of recorded requests: every one has one."""

from pathlib import Path

import pytest

from kalloctrace.explain.glossary import term_names
from kalloctrace.explain.request import Answer
from kalloctrace.explain.walkthrough import walkthrough_of
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.page_alloc import alloc_pages
from kalloctrace.trace.reader import TraceReader
from kalloctrace.verify.rows import context_of, request_of

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
# Of some hundred thousand distinct requests, enough of each trace to meet every rule.
REQUESTS = 20


@pytest.mark.parametrize(
    "path", sorted(FIXTURES.glob("*/*.arrows")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_recorded_requests_have_a_walkthrough(path: Path) -> None:
    """Requests from all over a trace are explained with the trace's own tables, in terms that have a page."""
    with TraceReader(path) as trace:
        kernel = Kernel.of(trace.snapshot)
        rows = [row for row, _ in trace.counted() if row["entry"] != "bulk"]
    names = set(term_names())
    for row in rows[:: max(1, len(rows) // REQUESTS)]:
        request, context = request_of(row), context_of(kernel, row)
        done = alloc_pages(kernel, request, context)
        walkthrough = walkthrough_of(Answer(kernel, request, context, done))
        assert [step.effect for step in walkthrough.steps] == [step.effect for step in done.steps]
        assert walkthrough.alternatives
        assert set(walkthrough.terms) <= names
