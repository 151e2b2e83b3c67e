# SPDX-License-Identifier: MIT
"""The `report` command."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kalloctrace.console import stderr, stdout
from kalloctrace.errors import Exit, KalloctraceError

if TYPE_CHECKING:
    from kalloctrace.diagnose.slow_calls import SlowGroups
    from kalloctrace.trace.reader import Ending


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Rows of each table.")
@click.option(
    "--failures",
    is_flag=True,
    help="Explain why the slow path refused allocations, attempt by attempt: all of them, or the first --top.",
)
@click.option(
    "--slower-than",
    type=click.FloatRange(min=0),
    metavar="MS",
    help="With --failures: also explain why the fast path did not serve the calls whose slow path took longer.",
)
@click.option(
    "--html", type=click.Path(path_type=Path, readable=False), metavar="FILE", help="Write a page that opens offline."
)
@click.option("-f", "--force", is_flag=True, help="Replace the page if it exists.")
@click.argument("trace", metavar="TRACE", type=click.Path(path_type=Path, readable=False))
def command(
    as_json: bool,
    top: int,
    failures: bool,
    slower_than: float | None,
    html: Path | None,
    force: bool,
    trace: Path,
) -> int:
    """Summarise a trace: who allocated what, from where, and whether the model agrees.

    Needs no root and no bcc. Names are the recorded kernel's. The text shows half as many kernel stacks as rows, if the
    trace has stacks. --html writes everything into one file: charts, filters, how each request is prepared, and the
    slow path attempt by attempt.

    \b
    Examples:
      kalloctrace report my.arrows
      kalloctrace report --top 30 my.arrows | less
      kalloctrace report --json my.arrows | jq '.by.gfp.rows[0]'
      kalloctrace report --failures --slower-than 10 my.arrows
      kalloctrace report --html my.html my.arrows
    """
    if slower_than is not None and not failures:
        raise KalloctraceError(
            "--slower-than has no effect alone", "it adds slow calls to --failures", "add --failures", Exit.USAGE
        )
    if failures and html is not None:
        raise KalloctraceError(
            "--failures does not go with --html",
            "a page always shows the failures",
            "leave out one of them",
            Exit.USAGE,
        )
    if failures:
        chosen = click.get_current_context().get_parameter_source("top") is not ParameterSource.DEFAULT
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

        write_summary(summary, verdict, stdout(), top=top)
    return Exit.OK


def _write_failures(trace: Path, slower_than: float | None, top: int | None, *, as_json: bool) -> None:
    from kalloctrace.commands.progress import reading
    from kalloctrace.diagnose.slow_calls import SlowCallDescriber, grouped, slow_call_json
    from kalloctrace.model.kernel import Kernel
    from kalloctrace.verify.slowpath.trace import SlowJudge

    with reading(trace) as reader:
        if not reader.recording.get("slow"):
            raise KalloctraceError(
                f"cannot show the failures of {trace}", "its slow path was not recorded", "record it without --no-slow"
            )
        kernel = Kernel.of(reader.snapshot)
        judge = SlowJudge.of(reader.snapshot, kernel, reader.ending().totals)
        describer = SlowCallDescriber(reader.snapshot, kernel, judge)
        calls = reader.slow_calls()
        reports = (describer.describe(call) for call in calls if _is_selected(call, slower_than))
        if as_json:
            stdout().json_lines(map(slow_call_json, islice(reports, top)))
        else:
            found = grouped(reports)
        ending = calls.finish()
    if not as_json:
        _write_groups(found, top)
    _print_missing(ending)


def _write_groups(found: "SlowGroups", top: int | None) -> None:
    from kalloctrace.diagnose.slow_calls_text import write_slow_calls

    if not found.groups:
        stdout().line("none")
        return
    write_slow_calls(found.groups[:top], stdout())
    more = [
        *([f"{hidden:,} more groups"] if (hidden := len(found.groups) - len(found.groups[:top])) else []),
        *([f"{found.beyond:,} calls of further causes"] if found.beyond else []),
    ]
    if more:
        stdout().lines(["", f"… and {' and '.join(more)}; --json has each call"])


def _is_selected(call: Mapping[str, Any], slower_than: float | None) -> bool:
    """Return whether a call failed, or took longer than `slower_than` (ms)."""
    if call["page"] is False:
        return True
    return slower_than is not None and (call["duration"] or 0) > slower_than * 1e6


def _print_missing(ending: "Ending") -> None:
    """Print what the trace lacks of the slow path."""
    if ending.totals is None:
        why = f": {ending.damage}" if ending.damage else ""
        stderr().line(f"the end of the recording is missing{why}")
    elif lost := ending.totals.slow_lost + ending.totals.slow_missed:
        stderr().line(f"{lost:,} events of the slow path were lost or missed: there may be more calls like these")


def _write_page(trace: Path, html: Path, *, force: bool, as_json: bool) -> None:
    from kalloctrace.commands.progress import reading
    from kalloctrace.output import complete_output
    from kalloctrace.report.page.data import Limits, page_data
    from kalloctrace.report.page.document import page_html

    if as_json:
        raise KalloctraceError(
            "--html does not go with --json", "one writes a page, the other prints", "use one of them", Exit.USAGE
        )
    with complete_output(html, overwrite=force, inputs=[trace], option="--html") as file:
        with reading(trace) as reader:
            page = page_html(page_data(reader, Limits()))
        file.write(page.encode(errors="backslashreplace"))
    stderr().line(f"wrote {html}; open it in a browser")
