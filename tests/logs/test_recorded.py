# SPDX-License-Identifier: MIT
"""Real failures of real kernels: what is said of them as a log agrees with what is said of them as a trace."""

from pathlib import Path

import pytest

from kalloctrace.diagnose.from_trace import slow_failure
from kalloctrace.trace.reader import TraceReader
from tests.logs.answers import answers_to, certain_zones, verdicts
from tests.logs.recorded import printed

FIXTURES = Path(__file__).parents[2] / "fixtures"
TRACES = sorted(FIXTURES.glob("*/slow.arrows"))


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.parent.name)
def test_a_log_s_verdict_is_the_trace_s(path: Path) -> None:
    """A log shows less: a verdict may be unknown, or not certain, but no certain one differs.

    It does not show that a task is real-time or frees memory itself (PF_MEMALLOC): such a task was refused as well, but
    perhaps for the other reason.
    """
    agreed = 0
    with TraceReader(path) as trace:
        snapshot = trace.snapshot
        calls = [
            call
            for call in trace.slow_calls()
            if call["page"] is False and any(zone["at"] == "returns" for zone in call["zones"])
        ]
        for call in calls[:: max(1, len(calls) // 60)]:
            why = slow_failure(snapshot, call).why
            assert why is not None
            decisive = call["attempts"][-1]["alloc_flags"] if call["attempts"] else None
            truth = {(zone.state.node, zone.state.zone): zone.kind for zone in why.zones}
            [answer] = answers_to("\n".join(printed(snapshot, call)).encode())
            said = verdicts(answer)
            assert said.keys() == truth.keys()
            for zone, verdict in certain_zones(answer).items():
                ordinary = answer["alloc_flags"] == decisive
                assert verdict == truth[zone] or (not ordinary and {verdict, truth[zone]} == {"watermark", "block"})
            if answer["certainty"] == "certain" and answer["alloc_flags"] == decisive:
                agreed += 1
                assert answer["conclusion"] == why.conclusion
    assert agreed > 20
