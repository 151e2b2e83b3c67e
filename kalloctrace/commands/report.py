# SPDX-License-Identifier: MIT
"""The `report` command."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click
from click.core import ParameterSource

from kalloctrace.commands.newest import trace_or_newest
from kalloctrace.commands.pager import paged
from kalloctrace.commands.report_query import (
    QueryOptions,
    check_query,
    with_query_options,
    write_answer,
    write_slow_answer,
)
from kalloctrace.console import stderr, stdout
from kalloctrace.errors import Exit, KalloctraceError

if TYPE_CHECKING:
    from kalloctrace.diagnose.slow_calls import SlowGroups
    from kalloctrace.trace.clock import Clock
    from kalloctrace.trace.reader import Ending


@click.command()
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object; with --by, --slow or --failures one a line."
)
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Rows of each table.")
@click.option(
    "--failures",
    is_flag=True,
    help="List why the slow path refused allocations, then explain some, attempt by attempt: five, or --top. With "
    "--json explain each, or the first --top.",
)
@click.option(
    "--slower-than",
    type=click.FloatRange(min=0),
    metavar="MS",
    help="With --failures: also explain why the fast path did not serve the calls whose slow path took longer. "
    "With --by or --slow: only these calls.",
)
@click.option(
    "--slow",
    is_flag=True,
    help="Show what the calls of the slow path spent their time with, by how long they took, and by --by.  [gfp,order]",
)
@with_query_options
@click.option(
    "--html", type=click.Path(path_type=Path, readable=False), metavar="FILE", help="Write a page that opens offline."
)
@click.option("-f", "--force", is_flag=True, help="Replace the page if it exists.")
@click.argument("named", metavar="[TRACE]", required=False, type=click.Path(path_type=Path, readable=False))
def command(
    as_json: bool,
    top: int,
    failures: bool,
    slower_than: float | None,
    slow: bool,
    html: Path | None,
    force: bool,
    named: Path | None,
    **query: Unpack[QueryOptions],
) -> int:
    """Summarise a trace: who allocated what, from where, and whether the model agrees.

    Needs no root and no bcc. On a terminal, the newest trace of this folder is read if none is named. Names are the
    recorded kernel's. The text shows half as many kernel stacks as rows, if the trace has stacks. --html writes
    everything into one file: charts, filters, how each request is prepared, and the slow path attempt by attempt.

    --by answers questions: it adds up the calls, their bytes, the failed ones and their time in the slow path. With
    --slower-than only calls of the slow path count; these have a task and a stack in every trace. Of a slow call the
    alloc_flags are those of its fast path, as the model predicts them.

    --slow answers in what calls of the slow path stalled: direct reclaim, compaction, the OOM killer, throttling, waits
    for locks, and the rest. The parts of a call add up to its time.

    \b
    Examples:
      kalloctrace report my.arrows
      kalloctrace report --top 30 my.arrows | less
      kalloctrace report --json my.arrows | jq '.by.gfp.rows[0]'
      kalloctrace report --by gfp,order --sort bytes my.arrows
      kalloctrace report --by comm,stack --slower-than 10 --sort time my.arrows
      kalloctrace report --by comm --order 3- --gfp GFP_ATOMIC --json my.arrows
      kalloctrace report --failures --slower-than 10 my.arrows
      kalloctrace report --slow my.arrows
      kalloctrace report --html my.html my.arrows
    """
    check_query(query, {"--failures": failures, "--html": html}, slow=slow)
    if slower_than is not None and not (failures or slow or query["by"]):
        raise KalloctraceError(
            "--slower-than has no effect alone",
            "it selects calls for --by and --slow, and adds slow calls to --failures",
            "add --by, --slow or --failures",
            Exit.USAGE,
        )
    chosen = click.get_current_context().get_parameter_source("top") is not ParameterSource.DEFAULT
    if failures and html is not None:
        raise KalloctraceError(
            "--failures does not go with --html",
            "a page always shows the failures",
            "leave out one of them",
            Exit.USAGE,
        )
    trace = trace_or_newest(named)
    if slow:
        write_slow_answer(trace, query, slower_than, top if chosen else None, as_json=as_json)
        return Exit.OK
    if query["by"]:
        write_answer(trace, query, slower_than, top if chosen else None, as_json=as_json)
        return Exit.OK
    if failures:
        _write_failures(trace, slower_than, top if chosen else None, as_json=as_json)
        return Exit.OK
    if html is not None:
        _write_page(trace, html, force=force, as_json=as_json)
        return Exit.OK
    from kalloctrace.commands.progress import reading
    from kalloctrace.report.summary import summarize

    with reading(trace) as reader:
        summary, verdict = summarize(reader)
    if as_json:
        stdout().json(summary.to_json(verdict, top))
    else:
        from kalloctrace.report.summary_text import write_summary

        with paged() as console:
            write_summary(summary, verdict, console, top=top)
    return Exit.OK


def _write_failures(trace: Path, slower_than: float | None, top: int | None, *, as_json: bool) -> None:
    from kalloctrace.commands.progress import reading
    from kalloctrace.diagnose.slow_calls import SlowCallDescriber, grouped, slow_call_json
    from kalloctrace.model.kernel import Kernel
    from kalloctrace.trace.clock import clock_of
    from kalloctrace.trace.results import no_slow_path
    from kalloctrace.verify.slowpath.trace import SlowJudge

    with reading(trace) as reader:
        if not reader.recording.get("slow"):
            raise KalloctraceError(f"cannot show the failures of {trace}", *no_slow_path(reader.recording))
        kernel = Kernel.of(reader.snapshot)
        judge = SlowJudge.of(reader.snapshot, kernel, reader.ending().totals)
        describer = SlowCallDescriber(reader.snapshot, kernel, judge)
        calls = reader.slow_calls()
        first: int | None = None

        def selected() -> Iterator[Mapping[str, Any]]:
            nonlocal first
            for call in calls:
                first = call["time"] if first is None else min(first, call["time"])
                if _is_selected(call, slower_than):
                    yield call

        reports = map(describer.describe, selected())
        if as_json:
            stdout().json_lines(map(slow_call_json, islice(reports, top)))
        else:
            found = grouped(reports)
        ending = calls.finish()
        recording = reader.recording
    if not as_json:
        _write_groups(found, clock_of(recording, first, "the first call of the slow path"), top)
    _print_missing(ending)


def _write_groups(found: "SlowGroups", clock: "Clock", top: int | None) -> None:
    from kalloctrace.diagnose.slow_calls_text import write_slow_calls

    if not found.groups:
        stdout().line("none")
        return
    with paged() as console:
        write_slow_calls(found, console, clock, top)


def _is_selected(call: Mapping[str, Any], slower_than: float | None) -> bool:
    """Return whether a call failed, or took longer than `slower_than` (ms)."""
    from kalloctrace.trace.results import slow_call_failed, slow_call_ns

    if slow_call_failed(call):
        return True
    return slower_than is not None and slow_call_ns(call) > slower_than * 1e6


def _print_missing(ending: "Ending") -> None:
    """Print what the trace lacks of the slow path."""
    if ending.totals is None:
        why = f": {ending.damage}" if ending.damage else ""
        stderr().line(f"the end of the recording is missing{why}")
    elif lost := ending.totals.slow_lost + ending.totals.slow_missed:
        stderr().line(f"{lost:,} events of the slow path were lost or missed: there may be more calls like these")


def _write_page(trace: Path, html: Path, *, force: bool, as_json: bool) -> None:
    from kalloctrace.commands.progress import reading
    from kalloctrace.output.files import page_output
    from kalloctrace.output.place import STANDARD_OUTPUT
    from kalloctrace.report.page.data import Limits, page_data
    from kalloctrace.report.page.document import page_html

    if as_json:
        raise KalloctraceError(
            "--html does not go with --json", "one writes a page, the other prints", "use one of them", Exit.USAGE
        )
    with page_output(html, overwrite=force, inputs=[trace]) as file:
        with reading(trace) as reader:
            data = page_data(reader, Limits())
        file.writelines(part.encode(errors="backslashreplace") for part in page_html(data))
    if html != STANDARD_OUTPUT:
        stderr().line(f"wrote {html}; open it in a browser")
