# SPDX-License-Identifier: MIT
"""The `live` command."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack, cast

import click

from kalloctrace.commands.capture_options import (
    CaptureOptions,
    attach_option,
    filters_of,
    require,
    with_capture_options,
)
from kalloctrace.console import stderr, stdout
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.probe.attach.choice import ASKED, Asked
from kalloctrace.text import file_name

if TYPE_CHECKING:
    from kalloctrace.kernel.snapshot import Snapshot
    from kalloctrace.live.grouped import Fields
    from kalloctrace.live.table import By, SortName
    from kalloctrace.live.view import View
    from kalloctrace.probe.attach.plan import Mode
    from kalloctrace.signals import Ending
    from kalloctrace.trace.observation import Observation, Source
    from kalloctrace.trace.results import Selection

_SORTS = (
    *("rate", "calls", "count", "share", "bytes", "failed", "time", "comm", "pid", "gfp", "order", "node", "zone"),
    *("migratetype", "alloc_flags", "verdict", "stack"),
)
_FIELDS = ("comm", "pid", "gfp", "order", "node", "zone", "migratetype", "alloc_flags", "stack")


def _by(_: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Return the fields that a text names, each once; none for a word for all fields."""
    if value in ("request", "task"):
        return (value,)
    names = tuple(dict.fromkeys(value.split(",")))
    for name in names:
        if name not in _FIELDS:
            words = ", ".join(_FIELDS)
            raise click.BadParameter(f"{name!r} is not one of request, task, nor one of {words}", param=param)
    return names


@click.command()
@click.option(
    "--by",
    default="request",
    show_default=True,
    callback=_by,
    metavar="request|task|FIELD[,FIELD...]",
    help="What a row stands for. task also shows the task, and needs each call, as record --mode stream does. Fields "
    "add up all calls that share them: comm, pid, gfp, order, node, zone, migratetype, alloc_flags, stack. pid and "
    "stack need each call; all others, comm too, are counted in the kernel.",
)
@click.option("--stack", is_flag=True, help="One row for each kernel stack; implies --by task.")
@click.option(
    "-i",
    "--interval",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="Seconds between updates.",
)
@click.option("-c", "--count", type=click.IntRange(min=1), help="Stop after this many intervals.")
@click.option(
    "--sort",
    type=click.Choice(_SORTS),
    default="rate",
    metavar="COLUMN",
    help=f"Sort by {', '.join(_SORTS[:-1])} or {_SORTS[-1]}. calls is another word for count; time is that in the "
    "slow path.",
)
@click.option("--failed", is_flag=True, help="Show only calls that returned no page.")
@click.option(
    "--slower-than",
    type=click.FloatRange(min=0),
    metavar="MS",
    help="Show only calls that were longer than this in the slow path, ms.",
)
@click.option("--filter", "words", default="", metavar="WORDS", help="Show only rows such as 'order>0 zone=Normal'.")
@click.option(
    "--plain", is_flag=True, help="Print text instead of a screen. The default if the output is not a terminal."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each row.")
@click.option("--top", type=click.IntRange(min=1), help="Rows of each interval.  [default: 20 as text, all as JSON]")
@click.option("-o", "--output", type=click.Path(path_type=Path, readable=False), help="Also record into this trace.")
@click.option("-f", "--force", is_flag=True, help="Replace the file if it exists.")
@click.option(
    "--replay", metavar="TRACE", type=click.Path(path_type=Path, readable=False), help="Replay a recorded stream."
)
@attach_option
@with_capture_options
def command(
    by: tuple[str, ...],
    stack: bool,
    interval: float,
    count: int | None,
    sort: str,
    failed: bool,
    slower_than: float | None,
    words: str,
    plain: bool,
    as_json: bool,
    top: int | None,
    output: Path | None,
    force: bool,
    replay: Path | None,
    attach: str,
    **options: Unpack[CaptureOptions],
) -> int:
    """Watch page allocations as they happen, as root: rates, and the model's verdict on each.

    On a terminal this is a full screen; ? shows its keys. In a pipe it prints a block of text per interval. The
    overhead is that of record in the same mode: aggregate, also with --by comm, or stream with --by task, --by pid or
    --stack. Exit code 3 means that the kernel did not do what the model predicts.

    \b
    Examples:
      kalloctrace live
      kalloctrace live --by task --comm python
      kalloctrace live --by comm,order --filter 'order>0'
      kalloctrace live --by comm --failed --sort failed
      kalloctrace live --by gfp,order --slower-than 10 --sort time
      kalloctrace live --interval 5 --count 12 -o minute.arrows | tee log
      kalloctrace live --replay fixtures/5.10/two-nodes.arrows    needs no root
    """
    from kalloctrace.probe.privileges.threads import import_libraries_without_threads

    import_libraries_without_threads()
    from kalloctrace.live.grouped import finest
    from kalloctrace.trace.results import Selection, nanoseconds

    fields = None if by in (("request",), ("task",)) else cast("Fields", by)
    chosen: By = "stack" if stack else cast("By", by[0]) if fields is None else finest(fields)
    if stack and fields is not None:
        fields = (*fields, "stack") if "stack" not in fields else fields
    selection = Selection(failed=failed, slower_than=nanoseconds(slower_than))
    sort = "count" if sort == "calls" else sort
    show = _Show(
        chosen, fields, sort, selection, words, interval, count, top, plain or as_json or not _on_terminal(), as_json
    )
    show.check()
    if replay is not None:
        given: dict[str, object] = {"-o": output, "--attach": attach != "auto"}
        given |= {f"--{name.replace('_', '-')}": value is not None for name, value in options.items()}
        return _replay(replay, show, options, {name: value for name, value in given.items() if name not in _REPLAYED})
    require("watch", "--by task", {"--max-rate": options["max_rate"] if show.mode == "aggregate" else None})
    return _record(show, output, options, force=force, asked=ASKED[attach])


@dataclass(frozen=True)
class _Show:
    """How to show a recording."""

    by: "By"
    fields: "Fields | None"
    sort: str
    selection: "Selection"
    words: str
    interval: float
    count: int | None
    top: int | None
    plain: bool
    as_json: bool

    @property
    def counted_by(self) -> "Literal['comm'] | None":
        """What the kernel counts calls by in addition to the request: the name of their task, or nothing."""
        names = self.fields or ()
        return "comm" if self.by == "task" and "comm" in names and "pid" not in names else None

    @property
    def mode(self) -> "Mode":
        """What is recorded of a call: nothing, where the kernel can count what the rows show."""
        return "aggregate" if self.by == "request" or self.counted_by is not None else "stream"

    @property
    def longer_than(self) -> int:
        """Return from which time in the slow path on calls are counted apart, ns."""
        return self.selection.slower_than or 0

    def check(self) -> None:
        """Refuse a sort column that the table lacks."""
        from kalloctrace.live.table import sort_names

        if self.sort not in sort_names(self.by, self.fields):
            by = self.by if self.fields is None else ",".join(self.fields)
            fix = "add --stack" if self.sort == "stack" else "add --by task"
            raise KalloctraceError(
                f"cannot sort by {self.sort}",
                f"with --by {by} there is no such column",
                fix if self.fields is None else f"add it: --by {by},{self.sort}",
                Exit.USAGE,
            )

    def view(self, snapshot: "Snapshot") -> "View":
        """Return the view of a recording."""
        from kalloctrace.live.view import View

        return View(snapshot, self.by, cast("SortName", self.sort), self.words, self.fields, selection=self.selection)

    def printer(self, view: "View", *, replayed: bool = False) -> "Callable[[], None]":
        """Return what prints the view's last observation."""
        from kalloctrace.live.plain import MAX_ROWS, json_block, text_block

        if self.as_json:
            return lambda: stdout().json_lines(json_block(view, self.top))
        return lambda: stdout().lines(text_block(view, self.top or MAX_ROWS, replayed=replayed))

    def screen(self, source: "Source", view: "View", ending: "Ending", replayed: str = "") -> tuple[str, list[Path]]:
        """Run the screen until it ends; return why, and the traces that were written from it."""
        from kalloctrace.live.tui import LiveApp

        app = LiveApp(source, view, ending, interval=self.interval, count=self.count, replayed=replayed)
        app.run()
        if app.failure is not None:
            raise app.failure
        if app.return_code:
            raise KalloctraceError(
                "the screen failed", "its error is printed above", "use --plain, and report the error"
            )
        return app.reason, app.written


def _on_terminal() -> bool:
    # Textual reads keys from stdin and draws on stderr.
    consoles = (stdout(), stderr())
    keys = sys.stdin is not None and sys.stdin.isatty()
    return os.environ.get("TERM") != "dumb" and keys and all(console.is_terminal for console in consoles)


_REPLAYED = frozenset(("--pid", "--comm", "--order", "--gfp-any", "--gfp-all", "--gfp-none", "--node"))
"""The capture options that select calls of a replay too: the others are about what the program captures."""


def _replay(path: Path, show: _Show, options: CaptureOptions, given: Mapping[str, object]) -> int:
    from kalloctrace.commands.recording_summary import print_next_step
    from kalloctrace.live.plain import replayed_observations
    from kalloctrace.live.replay_filter import ReplayFilter
    from kalloctrace.output.temporary import discard_unfinished
    from kalloctrace.signals import Ending
    from kalloctrace.trace.replay import Replay

    refused = next((option for option, value in given.items() if value), None)
    if refused is not None:
        raise KalloctraceError(
            f"{refused} does not go with --replay",
            "it selects what to capture, and the trace is captured already",
            "leave it out; --filter selects rows",
            Exit.USAGE,
        )
    with Replay(
        path, longer_than=show.longer_than, choice=lambda found: ReplayFilter(filters_of(options, found.tables))
    ) as replay:
        view = show.view(replay.snapshot)
        selected = filters_of(options, replay.snapshot.tables).to_json()
        recorded = replay.recording.get("filters") or {}
        added = {name: value for name, value in selected.items() if value is not None}
        view.describe({**replay.recording, "filters": {**recorded, **added}})
        if show.by == "stack" and not replay.recording.get("stacks"):
            raise KalloctraceError(
                f"cannot show the stacks of {path}", "it was recorded without --stack", "leave out --stack", Exit.USAGE
            )
        written: list[Path] = []
        if show.plain:
            print_last = show.printer(view, replayed=True)
            for seen in replayed_observations(replay, show.interval, show.count):
                view.update(seen)
                print_last()
        else:
            with Ending(discard_unfinished) as ending:
                ending.running()
                _, written = show.screen(replay, view, ending, file_name(path.name))
                ending.noticed()
                ending.code = _exit(view)
    for trace in written:
        print_next_step(trace)
    if replay.cut_off:
        stderr().line(replay.cut_off)
    return _exit(view)


def _record(
    show: _Show,
    output: Path | None,
    options: CaptureOptions,
    *,
    force: bool,
    asked: Asked,
) -> int:
    import psutil

    from kalloctrace.commands.recording_summary import print_next_step, print_strangers, print_totals
    from kalloctrace.kernel.live import LiveKernel
    from kalloctrace.live.plain import watch
    from kalloctrace.live.text import mode_text
    from kalloctrace.output.files import require_output
    from kalloctrace.output.temporary import discard_unfinished
    from kalloctrace.probe.attach.kprobes import detach_all
    from kalloctrace.probe.checks import require_live
    from kalloctrace.probe.observer import Observer
    from kalloctrace.probe.recorder import no_such_process
    from kalloctrace.signals import Ending, Interrupted

    if output is not None:
        require_output(output, overwrite=force)
    if options["pid"] is not None and not psutil.pid_exists(options["pid"]):
        raise no_such_process(options["pid"])
    kernel = LiveKernel()
    require_live(kernel)
    filters = filters_of(options, kernel.tables)
    view = show.view(kernel.snapshot)
    stderr().line(f"attaching to {kernel.snapshot.release}")
    print_last, written = show.printer(view), [] if output is None else [output]
    with (
        Ending(discard_unfinished, detach_all) as ending,
        Observer(
            kernel,
            filters,
            mode=show.mode,
            asked=asked,
            by=show.counted_by,
            stacks=show.by == "stack",
            output=output,
            overwrite=force,
            longer_than=show.longer_than,
        ) as observer,
    ):
        view.describe(observer.recording, capturing=True)
        # The screen writes traces into the current folder.
        print_strangers(observer.confine([] if show.plain else [Path.cwd()], in_other_thread=ending.in_watcher))
        ending.running(output)

        def print_block(seen: "Observation") -> None:
            view.update(seen)
            with ending.blocking():
                print_last()

        if show.plain:
            how = mode_text(kernel.snapshot, observer.recording, show.by, fields=show.fields)
            end = "" if show.count else "; Ctrl-C ends it"
            try:
                with ending.blocking():
                    stderr().line(f"watching {kernel.snapshot.release}, {how}{end}")
                reason = watch(observer, show.interval, show.count, ending, print_block)
            except Interrupted:
                reason = ending.reason
        elif not (reason := ending.wait()):
            reason, written[:0] = show.screen(observer, view, ending)
        ending.noticed()
        view.update(observer.finish(reason))
        totals = observer.observe().totals
        ending.code = _exit(view)
    if show.plain:
        print_last()
    print_totals(totals, view.recording)
    for trace in written:
        print_next_step(trace)
    return _exit(view)


def _exit(view: "View") -> Exit:
    return Exit.MISMATCH if view.table is not None and view.table.mismatched else Exit.OK
