# SPDX-License-Identifier: MIT
"""The answers as a few lines of text, each with the number of the line of the log that supports it."""

from collections.abc import Iterator

from kalloctrace.diagnose.answers.answers import Answers
from kalloctrace.diagnose.answers.facts import amount
from kalloctrace.diagnose.answers.types import Advice, Caller, Holder, OutOfMemory
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.sentences import reason_sentence
from kalloctrace.styled import Sheet, Table
from kalloctrace.text import COLUMNS

"""The answers are read in a terminal of any width, and in mail."""

_HEADINGS = 16

_HOLDERS = 4
"""At most as many are printed; the JSON object has all."""

_HARM = {
    "fallback": "no, there is another way",
    "retried": "no, it is tried again",
    "dropped": "a little, a packet is dropped",
    "failed": "yes, its caller got nothing",
    "killed": "yes, a process was killed",
    "unknown": "not known",
}


def add_answers(failure: Failure, answers: Answers, sheet: Sheet) -> None:
    """Add the answers to a sheet, in the order in which people ask."""
    table = Table()
    table.column(width=_HEADINGS - 2, style="dim")
    table.column(wraps="words", width=COLUMNS - _HEADINGS)
    before = ""
    for heading, text in answer_rows(failure, answers):
        table.row("" if heading == before else heading, text)
        before = heading
    sheet.table(table)


def answer_rows(failure: Failure, answers: Answers) -> Iterator[tuple[str, str]]:
    """Yield each question and its answer; a question with several answers comes several times."""
    if answers.caller is not None:
        yield "asked by", _with_line(caller_words(answers.caller), answers.caller.line)
    harm = answers.harm
    likely = " (likely)" if harm.certainty == "likely" else ""
    yield "harmful?", _with_line(f"{_HARM[harm.kind]}{likely}: {harm.why}", harm.line)
    yield "why", _with_line(reason_sentence(failure), failure.logged.state_line)
    yield from (("out of memory?", text) for text in _memory(answers.memory))
    yield from (("who holds it", text) for text in _holders(answers.holders))
    yield from (("what to change", text) for text in map(_advice, answers.advice))
    for bug in answers.known_bugs:
        fixed = f'{bug.text}; fixed in {bug.fixed_in} by {bug.commit} ("{bug.title}")'
        yield "known bug", _with_line(fixed, bug.line)


def caller_words(caller: Caller) -> str:
    """Return the function, its module, and what it belongs to."""
    module = f" [{caller.module}]" if caller.module is not None else ""
    belongs = f", {caller.subsystem}" if caller.subsystem not in (None, caller.module) else ""
    return f"{caller.function}{module}{belongs}"


def _memory(memory: OutOfMemory) -> Iterator[str]:
    if not memory.reasons:
        return
    verdict = {True: "yes", False: "no", None: "not known"}[memory.verdict]
    yield f"{verdict}: {'; '.join(_with_line(reason.text, reason.line) for reason in memory.reasons)}"


def _holders(holders: tuple[Holder, ...]) -> Iterator[str]:
    shown = [*holders[:_HOLDERS], *(each for each in holders[_HOLDERS:] if each.kind == "unaccounted")]
    for holder in shown:
        who = f"{holder.what} (pid {holder.pid})" if holder.pid is not None else holder.what
        yield _with_line(f"{amount(holder.kilobytes)} {who}", holder.line)


def _advice(advice: Advice) -> str:
    setting = f"{advice.setting}: " if advice.setting is not None else ""
    if advice.setting is not None and advice.value is not None:
        between = "" if advice.setting.endswith("=") else " = "
        setting = f"{advice.setting}{between}{advice.value}: "
    return _with_line(f"{setting}{advice.text}", advice.line)


def _with_line(text: str, line: int | None) -> str:
    return text if not line else f"{text} (line {line})"
