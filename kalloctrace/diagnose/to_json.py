# SPDX-License-Identifier: MIT
"""A diagnosed failure as one JSON object, for scripts."""

from typing import Any

from kalloctrace.diagnose.answers.answers import answer as answer_failure
from kalloctrace.diagnose.answers.to_json import answers_json
from kalloctrace.diagnose.findings import findings_of
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.sentences import CLAUSES, headline, remedy_sentence, zone_sentence
from kalloctrace.model.watermark import ZoneState


def failure_json(failure: Failure) -> dict[str, Any]:
    """Return the object that `explain --json` prints for a failure; amounts of memory are kB."""
    logged, answer, answers = failure.logged, failure.why, answer_failure(failure)
    mask = logged.mask
    return {
        "type": "failure",
        "line": logged.line,
        "event": logged.event,
        "comm": logged.comm,
        "kernel": failure.kernel or None,
        "rules": failure.rules.known,
        "order": logged.order,
        "gfp": mask.value if mask is not None else None,
        "gfp_text": failure.gfp_text or None,
        "nodemask": logged.nodemask,
        "mems_allowed": logged.mems_allowed,
        "highest_zone": failure.highest_zone,
        "alloc_flags": failure.attempt.alloc_flags if failure.tables is not None else None,
        "conclusion": failure.conclusion,
        "certainty": failure.certainty,
        "summary": headline(failure),
        **_findings(failure),
        "zones": [
            {
                "node": verdict.state.node,
                "zone": verdict.state.zone,
                "verdict": verdict.kind,
                "excluded_by": verdict.excluded_by,
                "certainty": "certain" if verdict.certain else "unknown",
                "unless": [CLAUSES[doubt] for doubt in verdict.unless],
                "passes_if": [CLAUSES[doubt] for doubt in verdict.passes_if],
                "why": zone_sentence(failure, verdict),
                **_numbers(failure, verdict.state),
            }
            for verdict in (answer.zones if answer is not None else ())
        ],
        "remedies": [
            {
                "change": remedy.change,
                "node": remedy.node,
                "zone": remedy.zone,
                "value": remedy.value,
                "text": remedy_sentence(failure, remedy),
            }
            for remedy in answers.what_if
        ],
        "missing": list(failure.missing),
        "contradictions": logged.contradictions,
        **answers_json(answers),
    }


def _findings(failure: Failure) -> dict[str, Any]:
    """Return what only a log shows."""
    if failure.source == "trace":
        return {}
    return {
        "order_shown": failure.logged.order_shown,
        "findings": [finding._asdict() for finding in findings_of(failure)],
    }


def _numbers(failure: Failure, state: ZoneState) -> dict[str, int | list[int] | None]:
    size = failure.page_kb
    return {
        "free_kb": state.free * size if state.counted else None,
        "min_kb": state.watermarks[0] * size if state.counted else None,
        "boost_kb": None if state.boost is None else state.boost * size,
        "lowmem_reserve": None if state.lowmem_reserve is None else list(state.lowmem_reserve),
        "free_blocks": None if state.blocks is None else [blocks.count for blocks in state.blocks],
    }
