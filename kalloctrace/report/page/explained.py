# SPDX-License-Identifier: MIT
"""What `explain` shows for a recorded allocation, in sections of labels and texts."""

from collections.abc import Iterator, Mapping
from typing import Any

from kalloctrace.explain.request import Answer
from kalloctrace.explain.text import Field, argument_fields, entry_name, rejection_fields, request_fields
from kalloctrace.explain.walkthrough import walkthrough_of, walkthrough_sections
from kalloctrace.flags.decode import decode_gfp
from kalloctrace.model.bulk import FUNCTION
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import ImpossibleRequestError, Preparation, UnknownFact
from kalloctrace.trace.inferred import Inferred
from kalloctrace.trace.schema import TRACEPOINT
from kalloctrace.verify.compare import expected_of, row_as_taken
from kalloctrace.verify.events import NOT_SHOWN
from kalloctrace.verify.rows import DAMAGED, DamagedRowError, context_of, request_of

Section = tuple[str, list[Field]]
"""A heading and the fields below it."""


def explained(
    kernel: Kernel, row: Mapping[str, Any], inferred: frozenset[Inferred], *, walkthrough: bool = False
) -> list[Section]:
    """Return the request, the steps of the model, and the outcome.

    Args:
        kernel: the recorded kernel on its machine.
        row: a distinct allocation of the trace.
        inferred: the facts that the trace infers.
        walkthrough: add its walkthrough, which takes some milliseconds and kilobytes; a call of the bulk allocator has
            none.
    """
    if row["entry"] == TRACEPOINT:
        return [("not explained", [("why", NOT_SHOWN)])]
    try:
        context = context_of(kernel, row)
        row = row_as_taken(kernel, row, context, inferred)
        done = expected_of(kernel, row, context)
        answer = Answer(kernel, request_of(row), context, done)
    except UnknownFact as error:
        return [("not explained", [("why", str(error))])]
    except (DamagedRowError, ImpossibleRequestError):
        return [("not explained", [("why", DAMAGED)])]
    bulk = row["entry"] == "bulk"
    request = _bulk_request(answer, row) if bulk else request_fields(answer)
    return [
        (f"request to {FUNCTION if bulk else entry_name(answer)}", list(request)),
        ("steps", [(step.function, step.effect) for step in done.steps]),
        _outcome(answer, done, bulk=bulk),
        *(walkthrough_sections(walkthrough_of(answer)) if walkthrough and not bulk else ()),
    ]


def _bulk_request(answer: Answer, row: Mapping[str, Any]) -> Iterator[Field]:
    yield "gfp", f"{row['gfp_mask']:#x} {decode_gfp(row['gfp_mask'], answer.kernel.tables).text}"
    yield "preferred_nid", str(row["preferred_nid"])
    yield "nodemask", "NULL" if row["nodemask"] is None else f"nodes {row['nodemask']}"
    yield "nr_pages", f"{row['nr_pages']}, {row['nr_populated']} already populated"


def _outcome(answer: Answer, done: Preparation, *, bulk: bool) -> Section:
    if done.outcome == "prepared":
        heading = "prepared: the pages come from this context" if bulk else "get_page_from_freelist receives"
        return heading, list(argument_fields(answer))
    if bulk:
        return "outcome", [("nothing prepared", done.reason or "")]
    return "outcome", list(rejection_fields(answer))
