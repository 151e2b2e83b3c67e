# SPDX-License-Identifier: MIT
"""One row of a live table down to the steps of its preparation."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from kalloctrace.explain.request import Answer
from kalloctrace.explain.text import explanation, step_lines
from kalloctrace.live.table import Known, LiveRow
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.page_alloc import alloc_pages
from kalloctrace.model.types import ImpossibleRequestError, UnknownFact
from kalloctrace.text import printable
from kalloctrace.trace.schema import TRACEPOINT, frames_of
from kalloctrace.verify.compare import Row, RowVerdict, compared, context_of, predict, request_of
from kalloctrace.verify.field_text import value_text

Tone = Literal["heading", "plain", "good", "bad", "doubt", "faint"]
_FIELD, _VALUE = 20, 27
_MOST_FRAMES = 40


class Line(NamedTuple):
    """A line of text and how it is meant."""

    text: str
    tone: Tone = "plain"


def detail(known: Known, release: str, row: LiveRow, chosen: Sequence[tuple[int, int]], position: int) -> list[Line]:
    """Return all that is known of one allocation of a row, in lines of some 80 characters.

    Args:
        known: the recording's allocations.
        release: the kernel's name.
        row: the row.
        chosen: the allocations that it is made of, with their counts.
        position: which of them to show.
    """
    index, count = chosen[position]
    allocation = known.rows[index]
    # Of another tool's event the verdict says what is known.
    captured = allocation["entry"] != TRACEPOINT
    return [
        *_who(row),
        Line(f"allocation {position + 1} of {len(chosen)} in this row: {count:,} call{'s' * (count != 1)}", "heading"),
        *_verdict(known.judged(index)),
        *(_comparison(known.kernel, allocation) if captured else ()),
        Line(""),
        *(_explanation(known.kernel, release, allocation) if captured else ()),
    ]


def _who(row: LiveRow) -> Iterator[Line]:
    who = row.who
    if who.comm is None and who.pid is None:
        yield Line("who asked is not told apart here", "faint")
    else:
        pid = "" if who.pid is None else f" (pid {who.pid})"
        yield Line(f"asked by {printable(who.comm or '?')}{pid}", "heading")
    if who.stack is not None:
        frames = frames_of(who.stack)
        yield from (Line(f"  {printable(frame)}") for frame in frames[:_MOST_FRAMES])
        if len(frames) > _MOST_FRAMES:
            yield Line(f"  … and {len(frames) - _MOST_FRAMES} functions more", "faint")
    yield Line("")


def _verdict(judged: RowVerdict) -> Iterator[Line]:
    if judged.unknown:
        yield Line(f"unknown: {judged.unknown}", "doubt")
    elif not judged.differences:
        yield Line("the kernel prepared it as the model says", "good")
    for difference in judged.differences:
        yield Line(f"MISMATCH in {difference.field}, by the rule {difference.rule}: {difference.effect}", "bad")


def _comparison(kernel: Kernel, row: Row) -> Iterator[Line]:
    try:
        fields = list(compared(kernel, row))
    except (UnknownFact, ValueError, TypeError):
        # What lacks is named by the verdict.
        return
    yield Line(f"  {'field':<{_FIELD}} {'predicted':<{_VALUE}} observed", "faint")
    for field, want, got in fields:
        texts = [_value(kernel, field, value) for value in (want, got)]
        wanted, observed = (textwrap.wrap(text, _VALUE, break_on_hyphens=False) or [""] for text in texts)
        for line in range(max(len(wanted), len(observed))):
            left, right = ("".join(part[line : line + 1]) for part in (wanted, observed))
            name = "" if line else field
            text = f"  {name:<{_FIELD}} {left:<{_VALUE}} {right}".rstrip()
            yield Line(text, "bad" if want != got else "plain")


def _value(kernel: Kernel, field: str, value: object) -> str:
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    if field == "zonelist" and isinstance(value, tuple):
        return f"{value[0]} of node {value[1]}"
    if field == "migratetype" and isinstance(value, int):
        return f"{value} {kernel.tables.migratetype_name(value)}"
    if field == "highest_zoneidx" and isinstance(value, int):
        return f"{value} {kernel.tables.zone_name(value)}"
    # A space behind each sign lets long masks be broken there.
    return value_text(field, value, kernel.tables).replace("|", "| ")


def _explanation(kernel: Kernel, release: str, row: Row) -> Iterator[Line]:
    try:
        if row["entry"] == "bulk":
            done = predict(kernel, row)
            yield Line(f"steps of the bulk allocator on Linux {release}", "heading")
            yield from map(Line, step_lines(done.steps))
            if done.reason:
                yield Line(f"  {done.reason}")
            return
        request, context = request_of(row), context_of(kernel, row)
        answer = Answer(kernel, request, context, alloc_pages(kernel, request, context))
    except (UnknownFact, ImpossibleRequestError, ValueError) as error:
        yield Line(f"it cannot be explained: {error}", "doubt")
        return
    for heading, lines in explanation(release, answer):
        yield Line(heading, "heading")
        yield from map(Line, lines)
