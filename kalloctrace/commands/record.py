# SPDX-License-Identifier: MIT
"""The `record` command."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Unpack

import click

from kalloctrace.commands.capture_options import (
    CaptureOptions,
    attach_option,
    filters_of,
    require,
    with_capture_options,
)
from kalloctrace.console import stderr
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.probe.attach.choice import ASKED


class AuditTimes(click.ParamType[tuple[float, float | None]]):
    """SECONDS[/EVERY]: how long to audit, and the seconds from one beginning to the next, which are more."""

    name = "SECONDS[/EVERY]"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float | None]:
        """Return both numbers; the second one is None if it is not given."""
        words = str(value).split("/")
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            numbers = []
        if not 1 <= len(numbers) <= 2 or not all(0 < number < _LONGEST for number in numbers):
            self.fail(f"{value!r} is not SECONDS or SECONDS/EVERY: positive numbers, such as 1 or 1/60", param, ctx)
        seconds, *every = numbers
        if every and every[0] <= seconds:
            self.fail(f"{value!r}: EVERY is not more than SECONDS", param, ctx)
        return seconds, every[0] if every else None


_LONGEST = 1e9
"""Seconds."""


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, readable=False), help="The trace to write.  [default: a new name]"
)
@click.option("-f", "--force", is_flag=True, help="Replace the file if it exists.")
@click.option("-d", "--duration", type=click.FloatRange(min=0, min_open=True), help="Stop after this many seconds.")
@click.option(
    "--mode",
    type=click.Choice(["aggregate", "stream"]),
    default="aggregate",
    show_default=True,
    help="aggregate counts equal calls, with the lowest overhead; stream has a row for each call, with time and task.",
)
@click.option(
    "--by",
    type=click.Choice(["comm", "cgroup"]),
    help="With aggregate: also count calls by the name (comm) or the control group of their task.",
)
@click.option(
    "--returns",
    is_flag=True,
    help="With stream: also record what each call returned. Needs a third probe; highest overhead.",
)
@attach_option
@click.option(
    "--audit",
    type=AuditTimes(),
    help="Attach the pair too for SECONDS, again every EVERY seconds, and compare; not only shortly before and after.",
)
@with_capture_options
@click.option("--children", is_flag=True, help="Only calls of COMMAND and its descendants.")
@click.option("--failed", is_flag=True, help="Only calls that returned no page; needs --returns.")
@click.option("--slow/--no-slow", default=True, show_default=True, help="Also record each attempt of the slow path.")
@click.option("--stack", is_flag=True, help="Record the kernel stack of each call.")
@click.option("--self", "own", is_flag=True, help="Also record the recorder's own calls, which are left out otherwise.")
@click.option(
    "--pseudonymous", is_flag=True, help="Hash the names of tasks and of COMMAND, with a key that is thrown away."
)
@click.option("--user", metavar="NAME", help="Run COMMAND as this user, without privileges.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, after COMMAND's output.")
@click.argument("command_line", nargs=-1, metavar="[-- COMMAND...]", type=click.UNPROCESSED)
def command(
    output: Path | None,
    force: bool,
    duration: float | None,
    mode: Literal["aggregate", "stream"],
    by: Literal["comm", "cgroup"] | None,
    returns: bool,
    attach: str,
    audit: tuple[float, float | None] | None,
    children: bool,
    failed: bool,
    slow: bool,
    stack: bool,
    own: bool,
    pseudonymous: bool,
    user: str | None,
    as_json: bool,
    command_line: tuple[str, ...],
    **options: Unpack[CaptureOptions],
) -> int:
    """Capture page allocations live, as root, into a trace.

    Records while COMMAND runs, for a time, or until Ctrl-C. All processes are recorded, unless --children
    or a filter says otherwise; the first line of output says which.

    COMMAND has the caller's privileges, or with --user those of that user: its groups, no capabilities, and the
    environment of the caller with the user's HOME, SHELL, USER and LOGNAME, as su does. The recorder itself gives up
    what it does not need once it is attached; doctor says what is left.

    \b
    Examples:
      kalloctrace record -- make -j8
      kalloctrace record --children --user alice -- make -j8
      kalloctrace record -d 10 -o ten-seconds.arrows
      kalloctrace record --by comm -d 10
      kalloctrace record --audit 1/60 -d 600
      kalloctrace record --mode stream --stack --pid 1234
    """
    from kalloctrace.probe.privileges.threads import import_libraries_without_threads

    import_libraries_without_threads()
    import psutil

    from kalloctrace.commands.recording_summary import (
        print_inferred_filters,
        print_next_step,
        print_recording_json,
        print_strangers,
        print_totals,
    )
    from kalloctrace.kernel.live import LiveKernel
    from kalloctrace.output.files import require_output
    from kalloctrace.probe.audit import Times
    from kalloctrace.probe.checks import require_live
    from kalloctrace.probe.child import find_user
    from kalloctrace.probe.recorder import Options, no_such_process, record
    from kalloctrace.trace.writer import default_name

    require("record", "--returns", {"--failed": failed and not returns})
    streamed = {"--returns": returns, "--stack": stack, "--max-rate": options["max_rate"]}
    require("record", "--mode stream", streamed if mode != "stream" else {})
    require("record", "--mode aggregate", {"--by": by is not None and mode != "aggregate"})
    of_command = {"--user": user is not None, "--children": children}
    require("record", "a command after --", of_command if not command_line else {})
    path = output or default_name(os.uname().release)
    pid = options["pid"]
    if children and pid is not None:
        raise KalloctraceError(
            "--children does not go with --pid", "each says whose calls to record", "leave out one of them", Exit.USAGE
        )
    if audit is not None and ASKED[attach].probes == "pair":
        raise KalloctraceError(
            f"--audit does not go with --attach {attach}",
            "it compares one probe with the pair, and the pair alone was asked for",
            "leave out one of them",
            Exit.USAGE,
        )
    require_output(path, overwrite=force)
    if pid is not None and not psutil.pid_exists(pid):
        raise no_such_process(pid)
    command_user = None if user is None else find_user(user)
    kernel = LiveKernel()
    require_live(kernel)

    def started(recording: Mapping[str, Any]) -> None:
        stderr().line(
            f"recording {_whose(options, children=children)} on {kernel.snapshot.release}",
            f" while {shlex.join(command_line)} runs" if command_line else "",
            "" if command_line or duration else "; Ctrl-C ends it",
        )
        print_inferred_filters(recording, kernel.tables)

    result = record(
        kernel,
        Options(
            path,
            force,
            command_line,
            duration,
            filters_of(options, kernel.tables, failed=failed),
            stack,
            "returns" if returns else mode,
            ASKED[attach],
            slow,
            command_user,
            pseudonymous,
            own,
            children,
            by,
            None if audit is None else Times(*audit),
        ),
        started=started,
    )
    print_strangers(result.strangers)
    print_totals(result.totals, result.recording)
    print_next_step(path)
    if as_json:
        print_recording_json(path, kernel.snapshot.release, "kalloctrace record", result.totals, result.exit_status)
    # A signal that ends the recording ends the command too.
    if result.exit_status not in (None, 0) and not result.totals.reason.startswith("signal "):
        raise KalloctraceError(
            f"the command {shlex.join(command_line)} failed",
            f"it ended with exit status {result.exit_status}",
            "the trace is complete; fix the command if it should not fail",
        )
    audited = result.totals.audit
    if audited is not None and audited.differs:
        raise KalloctraceError(
            "one probe and the pair beside it did not see the same calls",
            f"{audited.differing:,} differ, and at most {audited.explained:,} can be explained",
            "do not rely on this trace; record with --attach pair, and report the kernel's release",
            Exit.MISMATCH,
        )
    return Exit.OK


def _whose(options: CaptureOptions, *, children: bool) -> str:
    """Return whose calls are recorded, for people."""
    if children:
        return "the command and its descendants"
    pid, comm = options["pid"], options["comm"]
    whose = "all processes" if pid is None else f"process {pid}"
    return whose if comm is None else f"tasks named {comm} of {whose}"
