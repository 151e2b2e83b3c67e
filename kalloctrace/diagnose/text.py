# SPDX-License-Identifier: MIT
"""Diagnosed failures as text."""

from collections.abc import Callable, Iterable

from kalloctrace.diagnose.answers.answers import answer
from kalloctrace.diagnose.answers.text import add_answers
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.sentences import (
    VERDICTS,
    certainty,
    conditions,
    further_findings,
    headline,
    kilobytes,
    remedy_sentence,
    request_sentence,
    zone_name,
    zone_sentence,
)
from kalloctrace.diagnose.zones import ZoneVerdict
from kalloctrace.styled import Sheet, Table
from kalloctrace.text import COLUMNS, wrap_names, wrap_words

_STYLES = {"excluded": "dim", "watermark": "red", "block": "yellow", "passes": "green", "unknown": "magenta"}


def add_failure(
    failure: Failure,
    sheet: Sheet,
    *,
    before: str = "",
    where: str = "",
    more: Callable[[], None] | None = None,
) -> None:
    """Add one failure to a sheet.

    Args:
        failure: the failure.
        sheet: the sheet.
        before: a line about it; empty for none.
        where: when and where it happened, with the separator before the next words.
        more: adds further facts.
    """
    answers = answer(failure) if failure.source == "log" else None
    if answers is None:
        sheet.line(headline(failure), "bold")
    else:
        for line in wrap_names(request_sentence(failure), COLUMNS):
            sheet.line(line, "bold")
    kernel = failure.kernel or "unknown kernel"
    if before:
        sheet.line(before, "dim")
    for line in wrap_words(f"{where}{kernel}; {certainty(failure)}", COLUMNS if answers else sheet.width):
        sheet.line(line, "dim")
    if answers is not None:
        sheet.blank()
        add_answers(failure, answers, sheet)
    if failure.why is not None:
        sheet.blank()
        sheet.table(_table(failure, failure.why.zones))
    if more is not None:
        more()
    further = further_findings(failure)
    certain = [finding.text for finding in further if finding.certainty == "certain"]
    _list(sheet, f"what the {failure.source} shows besides", certain)
    _list(sheet, "likely", [finding.text for finding in further if finding.certainty != "certain"])
    if failure.why is not None:
        changes = failure.why.remedies if answers is None else answers.what_if
        remedies = [remedy_sentence(failure, remedy) for remedy in changes]
        _list(
            sheet, "any one of these would have let it pass", remedies, "this shows what decided it, and is not advice"
        )
        _list(sheet, f"what the {failure.source} does not show", list(conditions(failure.why)))
    _list(sheet, f"what the {failure.source} lacks", list(failure.missing))
    _list(sheet, f"the {failure.source} contradicts itself", failure.logged.contradictions)


def _table(failure: Failure, verdicts: Iterable[ZoneVerdict]) -> Table:
    table = Table("dim")
    table.column("zone")
    for name in ("free", "min"):
        table.column(name, right=True)
    table.column("verdict")
    table.column("why", wraps="words")
    for verdict in verdicts:
        state = verdict.state
        sure = "" if verdict.certain else " ?"
        table.row(
            zone_name(state),
            kilobytes(failure, state.free) if state.counted else "",
            kilobytes(failure, state.watermarks[0]) if state.counted else "",
            (f"{VERDICTS[verdict.kind]}{sure}", _STYLES[verdict.kind]),
            zone_sentence(failure, verdict),
        )
    return table


def _list(sheet: Sheet, heading: str, items: list[str], note: str = "") -> None:
    if not items:
        return
    sheet.blank()
    sheet.line(f"{heading}:")
    if note:
        sheet.line(f"  ({note})", "dim")
    for item in items:
        sheet.line(f"  - {item}")
