# SPDX-License-Identifier: MIT
"""One explained request as text."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from kalloctrace.explain.received import nodes_text, received
from kalloctrace.explain.request import Answer
from kalloctrace.flags.decode import WMARK_MASK, decode_gfp
from kalloctrace.flags.tables import FlagTables
from kalloctrace.model.page_alloc import nolock_function
from kalloctrace.model.types import Context, Request, Step
from kalloctrace.text import COLUMNS

Field = tuple[str, str]
"""A label and its text."""

RECEIVES = "get_page_from_freelist receives"
_LABEL = 24


def explanation(
    name: str, answer: Answer, steps: Iterable[str] | None = None, width: int = COLUMNS
) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield headings and their lines: the request, the steps in order, and what `get_page_from_freelist` receives.

    Args:
        name: the kernel's name in the request.
        answer: the request and its preparation.
        steps: lines about the steps; by default the function and the effect of each.
        width: columns of a line.
    """
    yield f"request to {entry_name(answer)} on Linux {name}", field_lines(request_fields(answer), width)
    yield "steps", step_lines(answer.preparation.steps) if steps is None else steps
    if answer.preparation.outcome == "rejected":
        yield "outcome", field_lines(rejection_fields(answer), width)
    else:
        yield RECEIVES, field_lines(argument_fields(answer), width)


def entry_name(answer: Answer) -> str:
    """Return the name of the kernel function that was called."""
    if answer.request.entry == "nolock":
        return nolock_function(answer.kernel)
    return answer.kernel.features.entry


def request_fields(answer: Answer) -> Iterator[Field]:
    """Yield what the caller passed, and what else the stage reads."""
    request, context, tables = answer.request, answer.context, answer.kernel.tables
    yield "gfp", f"{request.gfp_mask:#x} {decode_gfp(request.gfp_mask, tables).text}"
    yield "order", str(request.order)
    yield "preferred_nid", str(request.preferred_nid)
    yield "nodemask", "NULL" if request.nodemask is None else nodes_text(request.nodemask)
    if answer.kernel.features.entry_alloc_flags:
        yield "alloc_flags argument", _alloc_argument(request, tables)
    yield "current->flags", f"{context.task_flags:#x} {_pf_names(context.task_flags, tables)}"
    count = context.preempt_count
    yield "preempt_count", "not captured: the result does not depend on it" if count is None else f"{count:#x}"
    yield "cpusets", _cpusets(context)


def _alloc_argument(request: Request, tables: FlagTables) -> str:
    # The argument has no watermark yet, so its two low bits name none.
    names = [name for name, value in tables.alloc if value > WMARK_MASK and request.alloc_flags & value]
    without_locks = ", and ALLOC_NOLOCK added by the nolock entry" if request.entry == "nolock" else ""
    return f"{request.alloc_flags:#x} {'|'.join(names)}".rstrip() + without_locks


def _pf_names(task_flags: int, tables: FlagTables) -> str:
    return "|".join(name for name, value in tables.pf if task_flags & value)


def _cpusets(context: Context) -> str:
    if not context.cpusets_enabled:
        return "off"
    allowed = context.mems_allowed
    if allowed is None:
        return "on, mems_allowed unknown"
    return f"on, mems_allowed {nodes_text(allowed)}"


def step_lines(steps: Sequence[Step]) -> Iterator[str]:
    """Yield the lines of the steps, in order."""
    for number, step in enumerate(steps, 1):
        yield f"  {number:2} {step.function}"
        yield from textwrap.wrap(step.effect, COLUMNS, initial_indent=" " * 5, subsequent_indent=" " * 5)


def rejection_fields(answer: Answer) -> Iterator[Field]:
    """Yield why nothing was prepared."""
    done = answer.preparation
    yield "rejected", done.reason or ""
    warning = "the kernel prints a warning, once per boot" if done.warns else "nothing is printed"
    yield "", f"NULL is returned, get_page_from_freelist is never called; {warning}"


def argument_fields(answer: Answer) -> Iterator[Field]:
    """Yield what `get_page_from_freelist` receives."""
    for name, argument in received(answer).items():
        yield name, argument.text
        if name == "gfp_mask":
            yield "order", str(answer.request.order)


def field_lines(fields: Iterable[Field], width: int = COLUMNS, label_width: int = _LABEL) -> Iterator[str]:
    """Yield labels and their texts in two columns.

    Args:
        fields: the labels and texts.
        width: columns of a line.
        label_width: columns of the labels.
    """
    for label, value in fields:
        yield from _wrapped(label, value, width, label_width)


def _wrapped(label: str, value: str, width: int, label_width: int) -> list[str]:
    # A long mask is one word to textwrap; a space after each | would no longer be what the kernel prints.
    indent = " " * (label_width + 2)
    lines: list[str] = []
    rest = value.rstrip()
    room = width - len(indent)
    while len(rest) > room:
        cut = max(rest.rfind("|", 0, room), rest.rfind(" ", 0, room)) + 1 or room
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:]
    lines.append(rest)
    first, *others = lines
    return [f"  {label:<{label_width}}{first}", *(indent + line for line in others)]
