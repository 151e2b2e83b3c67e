# SPDX-License-Identifier: MIT
"""One explained request on one screen: the answer, and the rules that decided it."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from kalloctrace.console import Console
from kalloctrace.explain.inputs import decides
from kalloctrace.explain.received import nodes_text, zone_text
from kalloctrace.explain.request import Answer
from kalloctrace.explain.rules import rule_of
from kalloctrace.explain.text import (
    RECEIVES,
    Field,
    argument_fields,
    entry_name,
    field_lines,
    rejection_fields,
    request_fields,
)
from kalloctrace.explain.walkthrough import own_terms
from kalloctrace.model.types import ALL_NODES, Step
from kalloctrace.text import COLUMNS

LINES = 24
"""Of a terminal of the usual size: what is printed fits on it."""

_LABEL = 9
_MORE = "more: --full shows every step, other kernels and what would change the answer"
_HALF = COLUMNS // 2
_SHORT = {
    "order",
    "ac.zonelist",
    "ac.preferred_zoneref",
    "ac.migratetype",
    "ac.highest_zoneidx",
    "ac.spread_dirty_pages",
}
"""Arguments that can share a line with another."""

Line = tuple[str, bool]
"""A line, and whether it is a heading."""


class _Form(NamedTuple):
    """How short the text is.

    Attributes:
        of_field: lines that an argument may take.
        of_rule: lines that a rule may take.
        pairs: short arguments share lines.
        terms: the terms to read about are listed.
    """

    of_field: int = 3
    of_rule: int = 3
    pairs: bool = True
    terms: bool = True


_FORMS = (_Form(pairs=False), _Form(), _Form(1), _Form(1, terms=False), _Form(1, 1, terms=False))
"""Each shorter than the one before it: two dozen names of a mask, or all rules deciding, are rare."""


def write_answer(name: str, answer: Answer, console: Console) -> None:
    """Print the answer, in at most LINES lines of COLUMNS columns.

    Args:
        name: the kernel's name in the request.
        answer: the request and its preparation.
        console: where to print; headings are bold on a terminal.
    """
    for form in _FORMS:
        lines = list(_lines(name, answer, form))
        if len(lines) <= LINES:
            break
    for text, heading in lines:
        console.line((text, "bold") if heading else text)


def _lines(name: str, answer: Answer, form: _Form) -> Iterator[Line]:
    yield _headline(answer), True
    for field in _request_fields(name, answer):
        yield from _plain(_capped(list(field_lines([field], label_width=_LABEL)), form.of_field))
    if answer.preparation.outcome == "rejected":
        result = [("result", text) for label, text in rejection_fields(answer) if not label]
        yield from _plain(field_lines(result, label_width=_LABEL))
    else:
        yield RECEIVES, True
        yield from _plain(_arguments(answer, form))
    deciding = [step for step in answer.preparation.steps if decides(answer, step.rule)]
    yield "decided by", True
    for step in deciding:
        yield from _plain(_capped(_rule(step), form.of_rule))
    yield _MORE, False
    if form.terms:
        yield _terms(answer, deciding), False


def _plain(lines: Iterable[str]) -> Iterator[Line]:
    return ((line, False) for line in lines)


def _headline(answer: Answer) -> str:
    done = answer.preparation
    if done.outcome == "rejected":
        return f"rejected: {done.reason}"
    if done.preferred_zone is None:
        return "prepared, but no zone is eligible: get_page_from_freelist cannot find a page"
    return f"prepared: the search for pages starts in {zone_text(answer.kernel, done.preferred_zone)}"


def _request_fields(name: str, answer: Answer) -> Iterator[Field]:
    fields = {label: text.strip() for label, text in request_fields(answer)}
    yield "request", f"{entry_name(answer)} on Linux {name}"
    yield "gfp", fields["gfp"]
    nodemask = fields["nodemask"].removeprefix("nodes ")
    arguments = f"order {fields['order']}, node {fields['preferred_nid']}, nodemask {nodemask}"
    if answer.request.alloc_flags:
        arguments += f", alloc_flags {fields['alloc_flags argument']}"
    yield "with", arguments
    count = "" if answer.context.preempt_count is None else f", preempt_count {fields['preempt_count']}"
    cpusets = fields["cpusets"].removesuffix(f", mems_allowed {nodes_text(ALL_NODES)}")
    yield "in", f"cpusets {cpusets}{count}, current->flags {fields['current->flags']}"


def _arguments(answer: Answer, form: _Form) -> Iterator[str]:
    fields = list(argument_fields(answer))
    halves = [f"{name} {text}" for name, text in fields if form.pairs and name in _SHORT]
    halves = [half for half in halves if len(half) <= _HALF - 2]
    for name, text in fields:
        if f"{name} {text}" not in halves:
            yield from _capped(list(field_lines([(name, text)])), form.of_field)
    for left, right in zip_longest(halves[::2], halves[1::2], fillvalue=""):
        yield f"  {left:<{_HALF}}{right}".rstrip()


def _rule(step: Step) -> list[str]:
    return textwrap.wrap(f"{step.function}: {step.effect}", COLUMNS, initial_indent="  ", subsequent_indent="    ")


def _capped(lines: list[str], most: int) -> list[str]:
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    if len(last) > COLUMNS - 2:
        last = last[: max(last.rfind(" ", 0, COLUMNS - 2), last.rfind("|", 0, COLUMNS - 2) + 1)]
    return [*lines[: most - 1], f"{last} …"]


def _terms(answer: Answer, steps: Sequence[Step]) -> str:
    terms = list(dict.fromkeys(own_terms(answer, (rule_of(step).terms[0] for step in steps))))
    while len(line := f"      --term NAME explains {', '.join(terms)}") > COLUMNS:
        terms.pop()
    return line
