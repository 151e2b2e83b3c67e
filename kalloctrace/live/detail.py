# SPDX-License-Identifier: MIT
"""The details of one row of a live table, down to the steps of its preparation."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from kalloctrace.explain.request import Answer
from kalloctrace.explain.text import explanation, step_lines
from kalloctrace.live.table import JudgedAllocations, LiveRow
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.page_alloc import alloc_pages
from kalloctrace.model.types import ImpossibleRequestError, UnknownFact
from kalloctrace.trace.inferred import Inferred
from kalloctrace.trace.schema import TRACEPOINT, frames_of
from kalloctrace.verify.compare import RowVerdict, compared, predict, row_as_taken
from kalloctrace.verify.field_text import value_text
from kalloctrace.verify.rows import DamagedRowError, Row, context_of, request_of

Tone = Literal["heading", "plain", "good", "bad", "doubt", "faint"]
_FIELD, _VALUE = 20, 27
_MAX_FRAMES = 40


class Line(NamedTuple):
    """A line of text and its tone."""

    text: str
    tone: Tone = "plain"


def detail(
    allocations: JudgedAllocations, release: str, row: LiveRow, chosen: Sequence[tuple[int, int]], position: int
) -> list[Line]:
    """Return the details of one allocation in a row, in lines of about 80 characters.

    Args:
        allocations: the distinct allocations of the recording.
        release: of the recorded kernel.
        row: the row.
        chosen: index and count of each allocation in the row.
        position: which of these to show.
    """
    index, count = chosen[position]
    allocation = allocations.row(index)
    # For another tool's event the verdict says all that is known.
    captured = allocation["entry"] != TRACEPOINT
    return [
        *_task(row),
        Line(f"allocation {position + 1} of {len(chosen)} in this row: {count:,} call{'s' * (count != 1)}", "heading"),
        *_verdict(allocations.judged(index)),
        *(_comparison(allocations.kernel, allocation, allocations.inferred) if captured else ()),
        Line(""),
        *(_explanation(allocations, release, allocation) if captured else ()),
    ]


def _task(row: LiveRow) -> Iterator[Line]:
    task = row.task
    if task.comm is None and task.pid is None:
        yield Line("rows are not grouped by caller", "faint")
    else:
        pid = "" if task.pid is None else f" (pid {task.pid})"
        yield Line(f"called by {task.comm or '?'}{pid}", "heading")
    if task.stack is not None:
        frames = frames_of(task.stack)
        yield from (Line(f"  {frame}") for frame in frames[:_MAX_FRAMES])
        if len(frames) > _MAX_FRAMES:
            yield Line(f"  … and {len(frames) - _MAX_FRAMES} more functions", "faint")
    yield Line("")


def _verdict(judged: RowVerdict) -> Iterator[Line]:
    if judged.unknown:
        yield Line(f"unknown: {judged.unknown}", "doubt")
    elif not judged.differences:
        yield Line("the kernel prepared it as the model predicts", "good")
    if judged.not_judged:
        yield Line(f"not judged, as facts are inferred: {', '.join(judged.not_judged)}", "faint")
    for difference in judged.differences:
        yield Line(f"MISMATCH in {difference.field}, rule {difference.rule}: {difference.effect}", "bad")


def _comparison(kernel: Kernel, row: Row, inferred: frozenset[Inferred]) -> Iterator[Line]:
    try:
        fields = list(compared(kernel, row, inferred))
    except (UnknownFact, ImpossibleRequestError, DamagedRowError, TypeError):
        # The verdict names the missing fact.
        return
    yield Line(f"  {'field':<{_FIELD}} {'predicted':<{_VALUE}} observed", "faint")
    for field, expected, observed in fields:
        texts = [_value(kernel, field, value) for value in (expected, observed)]
        columns = [textwrap.wrap(text, _VALUE, break_on_hyphens=False) or [""] for text in texts]
        for line in range(max(map(len, columns))):
            left, right = ("".join(column[line : line + 1]) for column in columns)
            name = "" if line else field
            text = f"  {name:<{_FIELD}} {left:<{_VALUE}} {right}".rstrip()
            yield Line(text, "bad" if expected != observed else "plain")


def _value(kernel: Kernel, field: str, value: object) -> str:
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    if field == "zonelist" and isinstance(value, tuple):
        return f"{value[0]} of node {value[1]}"
    if field == "migratetype" and isinstance(value, int):
        return f"{value} {kernel.tables.migratetype_name(value)}"
    if field == "highest_zoneidx" and isinstance(value, int):
        return f"{value} {kernel.tables.zone_name(value)}"
    # A long mask may break after a "|".
    return value_text(field, value, kernel.tables).replace("|", "| ")


def _explanation(allocations: JudgedAllocations, release: str, row: Row) -> Iterator[Line]:
    kernel = allocations.kernel
    try:
        if row["entry"] == "bulk":
            done = predict(kernel, row)
            yield Line(f"steps of the bulk allocator on Linux {release}", "heading")
            yield from map(Line, step_lines(done.steps))
            if done.reason:
                yield Line(f"  {done.reason}")
            return
        context = context_of(kernel, row)
        request = request_of(row_as_taken(kernel, row, context, allocations.inferred))
        answer = Answer(kernel, request, context, alloc_pages(kernel, request, context))
    except (UnknownFact, ImpossibleRequestError, DamagedRowError) as error:
        yield Line(f"cannot be explained: {error}", "doubt")
        return
    for heading, lines in explanation(release, answer):
        yield Line(heading, "heading")
        yield from map(Line, lines)
