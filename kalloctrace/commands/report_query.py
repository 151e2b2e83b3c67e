# SPDX-License-Identifier: MIT
"""The options of `report` that ask a question, and its answer."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

import click

from kalloctrace.commands import complete
from kalloctrace.commands.pager import paged
from kalloctrace.console import stderr, stdout
from kalloctrace.errors import Exit, KalloctraceError

if TYPE_CHECKING:
    from kalloctrace.report.query.question import Field, Question, Sort
    from kalloctrace.trace.reader import Ending, TraceReader

_F = TypeVar("_F", bound=Callable[..., Any])

FIELDS = (
    *("comm", "pid", "cgroup", "gfp", "order", "node", "zone", "migratetype", "alloc_flags", "stack", "cpu", "outcome"),
)
SLOW_FIELDS: "tuple[Field, ...]" = ("gfp", "order")
"""What `--slow` groups by as text."""
SORTS = ("calls", "bytes", "failed", "time")
_ORDERS = re.compile(r"(\d{1,9})(-(\d{1,9})?)?", re.ASCII)
_NO_LIMIT = 1 << 32


def _fields(_: click.Context, param: click.Parameter, value: str | None) -> "tuple[Field, ...] | None":
    """Return the fields that a text names, each once."""
    if value is None:
        return None
    names = tuple(dict.fromkeys(value.split(",")))
    for name in names:
        if name not in FIELDS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(FIELDS)}", param=param)
    return cast("tuple[Field, ...]", names)


def _complete_fields(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    before, comma, begun = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in FIELDS if name.startswith(begun) and name not in before.split(",")]


def _orders(_: click.Context, param: click.Parameter, value: str | None) -> range | None:
    """Return the orders that a text such as 3, 3- or 3-10 means."""
    if value is None:
        return None
    found = _ORDERS.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is not an order such as 3, nor a range such as 3- or 3-10", param=param)
    first = int(found[1])
    last = first if found[2] is None else _NO_LIMIT if found[3] is None else int(found[3])
    return range(first, last + 1)


_OPTIONS = (
    click.option(
        "--by",
        callback=_fields,
        shell_complete=_complete_fields,
        metavar="FIELD[,FIELD...]",
        help=f"Add up calls by these fields: {', '.join(FIELDS)}.",
    ),
    click.option("--sort", type=click.Choice(SORTS), help="With --by: what the first groups have most of.  [calls]"),
    click.option(
        "--comm", "comms", multiple=True, metavar="NAME", help="With --by or --slow: only calls of tasks of this name."
    ),
    click.option(
        "--order",
        "orders",
        callback=_orders,
        metavar="N[-[M]]",
        help="With --by or --slow: only calls of order N, or N to M.",
    ),
    click.option(
        "--gfp",
        metavar="MASK",
        shell_complete=complete.gfp_masks,
        help="With --by or --slow: only calls with all of these gfp flags.",
    ),
    click.option("--failed", is_flag=True, help="With --by or --slow: only calls that returned no page."),
)


class QueryOptions(TypedDict):
    """The values of these options, as click passes them to a command."""

    by: "tuple[Field, ...] | None"
    sort: "Sort | None"
    comms: tuple[str, ...]
    orders: range | None
    gfp: str | None
    failed: bool


def with_query_options(command: _F) -> _F:
    """Add these options to a command."""
    return reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)


def check_query(options: QueryOptions, others: Mapping[str, object], *, slow: bool) -> None:
    """Refuse options that do not go together.

    Args:
        options: the values of the options.
        others: options that do not go with a question, with their values.
        slow: the question is what the calls of the slow path spent their time with.

    Raises:
        KalloctraceError: some do not (exit code 2).
    """
    if slow and options["sort"]:
        raise KalloctraceError(
            "--sort does not go with --slow",
            "groups of slow calls are sorted by their time",
            "leave it out",
            Exit.USAGE,
        )
    if options["by"] is None and not slow:
        names = {"--sort": "sort", "--comm": "comms", "--order": "orders", "--gfp": "gfp", "--failed": "failed"}
        given = [option for option, name in names.items() if cast("dict[str, Any]", options)[name]]
        if given:
            raise KalloctraceError(
                f"{given[0]} has no effect alone",
                "it belongs to a question",
                "add --by, such as --by gfp, or --slow",
                Exit.USAGE,
            )
        return
    for option, value in others.items():
        if value:
            raise KalloctraceError(
                f"{'--slow' if slow else '--by'} does not go with {option}",
                "each is a report of its own",
                "leave out one of them",
                Exit.USAGE,
            )


def write_answer(
    path: Path, options: QueryOptions, slower_than: float | None, top: int | None, *, as_json: bool
) -> None:
    """Read a trace, and print the groups that the options describe.

    Args:
        path: the trace.
        options: the values of the options, with `by`.
        slower_than: only calls that were longer than this in the slow path, ms.
        top: how many groups to print; None for 10 as text, and all as JSON.
        as_json: print one JSON object a line.
    """
    from kalloctrace.commands.progress import reading
    from kalloctrace.report.query.groups import answer
    from kalloctrace.report.query.question import refused
    from kalloctrace.trace.results import missing_to_sort

    sort = options["sort"] or "calls"
    with reading(path) as trace:
        if (missing := missing_to_sort(sort, trace.recording)) is not None:
            raise refused(trace, *missing)
        found = answer(trace, _question(options, slower_than, trace))
    if as_json:
        stdout().json_lines(map(found.to_json, found.sorted(sort)[:top]))
    else:
        from kalloctrace.report.query.text import write_groups

        with paged() as console:
            write_groups(found, sort, top or 10, console)
    stderr().lines(_doubts(found.ending, found.sample))


def write_slow_answer(
    path: Path, options: QueryOptions, slower_than: float | None, top: int | None, *, as_json: bool
) -> None:
    """Read a trace, and print what its calls of the slow path spent their time with.

    As JSON, this is one object of all calls, or one a line for each group of `by`. The arguments are those of
    `write_answer`.
    """
    from kalloctrace.commands.progress import reading
    from kalloctrace.report.query.slow import slow_answer

    by = options["by"] or (() if as_json else SLOW_FIELDS)
    with reading(path) as trace:
        found = slow_answer(trace, replace(_question(options, slower_than, trace), by=by))
    if as_json:
        groups = found.sorted()[:top] if by else [((), found.all)]
        stdout().json_lines(found.to_json(*group) for group in groups)
    else:
        from kalloctrace.report.query.slow_text import write_slow

        with paged() as console:
            write_slow(found, top or 10, console)
    stderr().lines(_doubts(found.ending))


def _question(options: QueryOptions, slower_than: float | None, trace: "TraceReader") -> "Question":
    from kalloctrace.flags.decode import parse_flags
    from kalloctrace.report.query.question import Question
    from kalloctrace.trace.results import nanoseconds

    return Question(
        by=options["by"] or (),
        comms=frozenset(options["comms"]),
        orders=options["orders"],
        gfp=0 if options["gfp"] is None else parse_flags(options["gfp"], trace.snapshot.tables, "gfp"),
        failed=options["failed"],
        slower_than=nanoseconds(slower_than),
    )


def _doubts(ending: "Ending", sample: int = 1) -> list[str]:
    """Return what makes the numbers incomplete, or estimates."""
    totals, lines = ending.totals, []
    if totals is None:
        why = f": {ending.damage}" if ending.damage else ""
        lines.append(f"the end of the recording is missing{why}")
    elif totals.lost + totals.missed:
        lines.append(f"{totals.lost:,} calls were lost, and {totals.missed:,} probe hits missed")
    if totals is not None and totals.slow_lost + totals.slow_missed:
        lines.append(f"{totals.slow_lost + totals.slow_missed:,} events of the slow path were lost or missed")
    if ending.slow_damage:
        lines.append(f"{ending.slow_damage}: later ones are not counted")
    if sample > 1:
        lines.append(f"estimates: 1 call in {sample:,} was recorded")
    return lines
