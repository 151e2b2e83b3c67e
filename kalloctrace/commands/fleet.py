# SPDX-License-Identifier: MIT
"""The `fleet` commands: one dataset of the traces of many machines, and questions about it."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

import click

from kalloctrace.console import stderr, stdout
from kalloctrace.errors import Exit, KalloctraceError

if TYPE_CHECKING:
    from kalloctrace.fleet.add import Adding
    from kalloctrace.fleet.dataset import Dataset
    from kalloctrace.fleet.engines import EngineName
    from kalloctrace.fleet.frames import Engine

_F = TypeVar("_F", bound=Callable[..., Any])

_DATASET = click.argument("dataset", metavar="DATASET", type=click.Path(path_type=str, readable=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_ENGINE = (
    click.option(
        "--engine",
        type=click.Choice(["duckdb", "spark"]),
        default="duckdb",
        show_default=True,
        help="What answers: DuckDB in this process (extra [fleet]), or Spark (extra [spark], Java 17 or 21).",
    ),
    click.option(
        "--master",
        metavar="URL",
        help="Where Spark runs, such as spark://HOST:7077, or sc://HOST:15002 for Spark Connect.  "
        "[default: local[*], in this machine's processors]",
    ),
    click.option(
        "--memory",
        metavar="SIZE",
        default="2g",
        show_default=True,
        help="Memory that DuckDB or Spark's driver may use.",
    ),
)


_PAGE = (
    click.option(
        "--html",
        type=click.Path(path_type=Path, readable=False),
        metavar="FILE",
        help="Write a page that opens offline.",
    ),
    click.option("-f", "--force", is_flag=True, help="Replace the page if it exists."),
)


class EngineOptions(TypedDict):
    """Values of the options that choose an engine."""

    engine: "EngineName"
    master: str | None
    memory: str


def _with_engine(function: _F) -> _F:
    """Add the options that choose an engine."""
    return reduce(lambda inner, option: option(inner), reversed(_ENGINE), function)


def _with_page(function: _F) -> _F:
    """Add the options that name a page to write."""
    return reduce(lambda inner, option: option(inner), reversed(_PAGE), function)


@contextmanager
def _page(html: Path | None, *, force: bool, as_json: bool) -> "Iterator[IO[bytes] | None]":
    """Yield the file of a page, which is refused before the work; None without one."""
    if html is None:
        yield None
        return
    if as_json:
        why, fix = "one writes a page, the other prints", "use one of them"
        raise KalloctraceError("--html does not go with --json", why, fix, Exit.USAGE)
    from kalloctrace.output.files import page_output
    from kalloctrace.output.place import STANDARD_OUTPUT

    with page_output(html, overwrite=force) as file:
        yield file
    if html != STANDARD_OUTPUT:
        stderr().line(f"wrote {html}; open it in a browser")


def _write_answer(
    page: "IO[bytes] | None",
    data: "Callable[[], Mapping[str, Any]]",
    objects: "Iterable[object]",
    lines: Iterable[str],
    *,
    as_json: bool,
) -> None:
    """Write an answer as a page, or print it: as JSON, an object a line, or as text."""
    if page is not None:
        from kalloctrace.report.page.document import fleet_html

        page.writelines(part.encode(errors="backslashreplace") for part in fleet_html(data()))
    elif as_json:
        stdout().json_lines(objects)
    else:
        stdout().wrapped_lines(lines)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[float], None]]:
    """Show how far something is, on a terminal; yield what takes the share that is done."""
    from kalloctrace.commands.progress import show_progress

    done = [0.0]
    with show_progress(what, lambda: done[-1]):
        yield done.append


@contextmanager
def _asked(dataset: str, options: EngineOptions) -> "Iterator[tuple[Dataset, Engine]]":
    """Yield a dataset, and an engine that is running."""
    from kalloctrace.fleet.dataset import Dataset
    from kalloctrace.fleet.engines import MASTER, engine

    name, master = options["engine"], options["master"]
    if master is not None and name != "spark":
        fix = "add --engine spark, or leave out --master"
        raise KalloctraceError("--master has no effect", "only Spark has a master", fix, Exit.USAGE)
    with (
        Dataset.opened(dataset) as opened,
        engine(name, master=master or MASTER, memory=options["memory"]) as running,
    ):
        yield opened, running


@contextmanager
def _judged(dataset: str, options: EngineOptions) -> "Iterator[tuple[Dataset, Engine]]":
    """Yield a dataset in which everything has a verdict, and an engine that is running."""
    with _asked(dataset, options) as (opened, running):
        from kalloctrace.fleet.verify import judge_fleet

        with _progress("judging requests") as tell:
            judge_fleet(opened, running, tell)
        yield opened, running


@click.group(name="fleet")
def command() -> None:
    """Ask one question over the traces of many machines.

    A dataset is a folder of Parquet files, which DuckDB, Spark and other programs can read as well. DATASET may be a
    URL that fsspec knows, such as s3://BUCKET/FOLDER.

    \b
      kalloctrace fleet add my-fleet traces/*.arrows
      kalloctrace fleet verify my-fleet
      kalloctrace fleet report my-fleet
      kalloctrace fleet diff my-fleet --kernel 6.1 --kernel 6.12
      kalloctrace fleet outliers my-fleet
      kalloctrace fleet sql my-fleet 'SELECT host, sum(calls) FROM recordings GROUP BY host'
    """


@command.command(name="add")
@_JSON
@click.option("--host", metavar="NAME", help="The host of all these traces.  [default: the name that each has]")
@click.option(
    "--pseudonymous",
    is_flag=True,
    help="Hash the names of hosts, tasks, commands and cgroups, with a key that stays in the dataset.",
)
@_DATASET
@click.argument("traces", nargs=-1, required=True, metavar="TRACE...", type=click.Path(path_type=Path, readable=False))
def add_command(as_json: bool, host: str | None, pseudonymous: bool, dataset: str, traces: tuple[Path, ...]) -> int:
    """Add traces to a dataset, which is made if it is not there.

    TRACE may be a folder: all files below it whose name ends in .arrows are added. A recording counts once: adding it
    again changes nothing, and a longer version of it takes its place. A file that is no trace is named, the others are
    added, and the exit code is 1. After an interruption, run the same command again.

    \b
    Examples:
      kalloctrace fleet add my-fleet traces/*.arrows
      kalloctrace fleet add --host web-17 my-fleet web-17.arrows
      kalloctrace fleet add --pseudonymous my-fleet traces
    """
    from kalloctrace.fleet.add import Adding, pseudonyms, traces_of
    from kalloctrace.fleet.dataset import Dataset

    with Dataset.opened(dataset, create=True) as opened:
        adding = Adding(opened, host=host, hidden=pseudonyms(opened) if pseudonymous else None)
        for path in traces_of(traces):
            _add(adding, path)
        adding.commit()
    done = adding.done
    if as_json:
        stdout().json(done.to_json())
    else:
        stdout().line(
            f"added {done.added:,} recordings with {done.calls:,} calls"
            f"; {done.replaced:,} took the place of a shorter one, {done.unchanged:,} were there already"
            f", {len(done.refused):,} files were refused"
        )
    return Exit.FAILED if done.refused else Exit.OK


def _add(adding: "Adding", path: Path) -> None:
    from kalloctrace.commands.progress import reading

    try:
        with reading(path) as trace:
            if adding.is_there(trace):
                return
            read = adding.read(trace)
    except KalloctraceError as error:
        adding.done.refused.append(error)
        stderr().error(error)
        return
    adding.add(read)


@command.command(name="compact")
@_JSON
@_DATASET
def compact_command(as_json: bool, dataset: str) -> int:
    """Merge the small files of a dataset into one for each table, day and kernel.

    It also removes what killed commands left there. Others may add and ask meanwhile; while they do, the old files stay
    until the next time.

    \b
    Examples:
      kalloctrace fleet compact my-fleet
    """
    from kalloctrace.fleet.compact import compact

    done = compact(dataset)
    if as_json:
        stdout().json(done.to_json())
        return Exit.OK
    removed = (
        "no file was removed, as somebody may be reading them"
        if done.removed is None
        else f"removed {done.removed:,} files"
    )
    stdout().line(f"{done.before:,} files became {done.after:,}; {removed}")
    return Exit.OK


@command.command(name="verify")
@_JSON
@_with_engine
@_with_page
@click.option("--strict", is_flag=True, help="Exit with 4 if anything was lost, missed, unknown or truncated.")
@_DATASET
def verify_command(
    as_json: bool, html: Path | None, force: bool, strict: bool, dataset: str, **options: Unpack[EngineOptions]
) -> int:
    """Compare every call of a fleet with the model.

    The model runs once for each request on machines with the same facts, on all processors. Its verdicts stay in the
    dataset, so that the next time only new requests are judged. The slow path and the zonelists are judged by
    `kalloctrace verify` alone. Exit code 3 means that a kernel did not do what the model predicts.

    --json prints an object for each mismatch, and the sums at last. --html writes a page with tables.

    \b
    Examples:
      kalloctrace fleet verify my-fleet
      kalloctrace fleet verify --strict --json my-fleet
      kalloctrace fleet verify --html fleet.html my-fleet
      kalloctrace fleet verify --engine spark --master spark://HOST:7077 my-fleet
    """
    with _page(html, force=force, as_json=as_json) as page:
        with _asked(dataset, options) as (opened, running):
            from kalloctrace.fleet.page import verification_page
            from kalloctrace.fleet.text import verification_lines
            from kalloctrace.fleet.verify import verify_fleet

            with _progress("judging requests") as tell:
                found = verify_fleet(opened, running, tell)
        _write_answer(
            page,
            lambda: verification_page(found, opened.name),
            found.json_lines(),
            verification_lines(found),
            as_json=as_json,
        )
    return found.exit_code(strict=strict)


@command.command(name="report")
@_JSON
@_with_engine
@_with_page
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="How many groups to print.")
@_DATASET
def report_command(
    as_json: bool, html: Path | None, force: bool, top: int, dataset: str, **options: Unpack[EngineOptions]
) -> int:
    """Show where allocations of a fleet fail or stall, and who asks.

    Failures are grouped by kernel, task and cgroup; calls of the slow path by kernel, caller and cgroup, with
    percentiles of their times. What a recording does not have is null: callers need `record --stack`.

    --json prints one group a line; --top selects how many of each kind. --html writes a page with up to 1,000 of each.

    \b
    Examples:
      kalloctrace fleet report my-fleet
      kalloctrace fleet report --json --top 100 my-fleet
      kalloctrace fleet report --html fleet.html my-fleet
    """
    with _page(html, force=force, as_json=as_json) as page:
        with _asked(dataset, options) as (opened, running):
            from kalloctrace.commands.progress import show_progress
            from kalloctrace.fleet import questions
            from kalloctrace.fleet.page import ROWS, report_page
            from kalloctrace.fleet.text import report_lines

            tables = running.tables(opened)
            most = top if page is None else ROWS + 1
            asked = [
                *(ask(tables) for ask in (questions.totals, questions.failed_calls, questions.slow_totals)),
                *(ask(tables).head(most) for ask in (questions.failures, questions.stalls)),
            ]
            answers: list[list[dict[str, Any]]] = []
            with show_progress("asking the fleet", lambda: len(answers) / len(asked)):
                answers.extend(map(running.rows, asked))
            *sums, failures, stalls = answers
            totals = {name: value for rows in sums for row in rows for name, value in row.items()}
        kinds = {"fleet_failures": failures, "fleet_stalls": stalls}
        _write_answer(
            page,
            lambda: report_page(totals, failures, stalls, opened.name),
            ({"type": kind, **row} for kind, rows in kinds.items() for row in rows),
            report_lines(totals, failures, stalls),
            as_json=as_json,
        )
    return Exit.OK


@command.command(name="diff")
@_JSON
@_with_engine
@_with_page
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    metavar="RELEASE",
    help="Give it twice: the kernel before and the one after. A beginning such as 6.12 stands for all such releases.",
)
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="How many to print.")
@_DATASET
def diff_command(
    as_json: bool,
    html: Path | None,
    force: bool,
    kernels: tuple[str, ...],
    top: int,
    dataset: str,
    **options: Unpack[EngineOptions],
) -> int:
    """Show what changed with an upgrade.

    Hosts with one kernel are compared with hosts with the other one, on the same kind of machine: the shares of their
    calls with each request, flag, outcome and verdict, and the times of their slow calls. Where enough hosts have had
    both, each is compared with itself. A difference is printed if it is certain: in 99 of 100 upgrades that change
    nothing none is. Its interval has the true value in 95 of 100 cases.

    --json prints all differences, one a line, and the sums at last. --html writes a page with those that are certain.

    \b
    Examples:
      kalloctrace fleet diff my-fleet --kernel 6.12.117 --kernel 6.12.118
      kalloctrace fleet diff my-fleet --kernel 6.1 --kernel 6.12 --json
    """
    if len(kernels) != len(("before", "after")):
        fix = "add --kernel twice: first the kernel before the upgrade, then the one after it"
        raise KalloctraceError("cannot compare kernels", f"{len(kernels)} are given in place of 2", fix, Exit.USAGE)
    before, after = kernels
    with _page(html, force=force, as_json=as_json) as page:
        with _judged(dataset, options) as (opened, running):
            from kalloctrace.fleet.diff import diff_fleet
            from kalloctrace.fleet.page import diff_page
            from kalloctrace.fleet.text import diff_lines

            with _progress("comparing hosts") as tell:
                found = diff_fleet(opened, running, before, after, tell)
        _write_answer(
            page, lambda: diff_page(found, opened.name), found.json_lines(), diff_lines(found, top), as_json=as_json
        )
    return Exit.OK


@command.command(name="outliers")
@_JSON
@_with_engine
@_with_page
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="How many hosts to print.")
@_DATASET
def outliers_command(
    as_json: bool, html: Path | None, force: bool, top: int, dataset: str, **options: Unpack[EngineOptions]
) -> int:
    """Find the hosts that are unlike their peers, and in which fields.

    The peers of a host have the same kernel and the same kind of machine, and are at least ten. It is unlike them if
    the share of its calls with some request, flag, outcome or verdict, or the time of its slow calls, is further out
    than the spread of its peers explains: in 99 of 100 fleets without outliers none is found.

    --json prints an object for each host and field, and the sums at last. --html writes a page with tables.

    \b
    Examples:
      kalloctrace fleet outliers my-fleet
      kalloctrace fleet outliers --json my-fleet
    """
    with _page(html, force=force, as_json=as_json) as page:
        with _judged(dataset, options) as (opened, running):
            from kalloctrace.fleet.outliers import find_outliers
            from kalloctrace.fleet.page import outliers_page
            from kalloctrace.fleet.text import outlier_lines

            with _progress("comparing hosts") as tell:
                found = find_outliers(opened, running, tell)
        _write_answer(
            page,
            lambda: outliers_page(found, opened.name),
            found.json_lines(),
            outlier_lines(found, top),
            as_json=as_json,
        )
    return Exit.OK


@command.command(name="sql")
@_JSON
@_with_engine
@_DATASET
@click.argument("query", required=False)
def sql_command(as_json: bool, dataset: str, query: str | None, **options: Unpack[EngineOptions]) -> int:
    """Ask a fleet in SQL.

    The tables have the rows that count, each once. The table flags has the names that each kernel has for its bits, and
    has_flag(mask, value) is true if all bits of the value are set. The dialect is that of the engine. Without QUERY,
    standard input has one on each line; an error ends only its own query.

    \b
    Examples:
      kalloctrace fleet sql my-fleet 'SELECT host, sum(calls) FROM recordings GROUP BY host'
      kalloctrace fleet sql --json my-fleet < queries.sql
    """
    code = Exit.OK
    with _asked(dataset, options) as (opened, running):
        from kalloctrace.commands.progress import show_progress
        from kalloctrace.fleet.sql import Shell
        from kalloctrace.fleet.text import row_lines

        shell = Shell(opened, running)
        for line in _queries(query):
            try:
                with show_progress("answering", running.share):
                    rows = shell.answer(line)
                if as_json:
                    stdout().json_lines({"type": "fleet_row", "row": row} for row in rows)
                else:
                    stdout().lines(row_lines(rows))
            except KalloctraceError as error:
                stderr().error(error)
                code = Exit.FAILED
    return code


def _queries(query: str | None) -> Iterator[str]:
    """Yield the query, or without one the lines of standard input that are not blank."""
    if query is not None:
        yield query
    elif sys.stdin is not None:
        lines = (line.decode(errors="replace") for line in sys.stdin.buffer)
        yield from (line for line in lines if line.strip())
