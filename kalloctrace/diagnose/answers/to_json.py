# SPDX-License-Identifier: MIT
"""The answers as members of the JSON object of a failure."""

from typing import Any

from kalloctrace.diagnose.answers.answers import Answers


def answers_json(answers: Answers) -> dict[str, Any]:
    """Return the members; amounts of memory are kB, lines are those of the log."""
    caller = answers.caller
    return {
        "caller": None
        if caller is None
        else {"function": caller.function, "module": caller.module, "subsystem": caller.subsystem},
        "harm": answers.harm.kind,
        "harm_why": answers.harm.why,
        "harm_certainty": answers.harm.certainty,
        "harm_line": answers.harm.line or None,
        "out_of_memory": answers.memory.verdict,
        "out_of_memory_why": [{"text": reason.text, "line": reason.line or None} for reason in answers.memory.reasons],
        "holders": [
            {
                "kind": holder.kind,
                "what": holder.what,
                "kb": holder.kilobytes,
                "pid": holder.pid,
                "line": holder.line or None,
            }
            for holder in answers.holders
        ],
        "advice": [{**advice._asdict(), "line": advice.line or None} for advice in answers.advice],
        "known_bugs": [{**bug._asdict(), "line": bug.line or None} for bug in answers.known_bugs],
    }
