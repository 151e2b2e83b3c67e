# SPDX-License-Identifier: MIT
"""`kalloctrace diff LOG LOG`: what changed between the failures of two logs."""

from functools import partial

from kalloctrace.commands.log_reader import LogOptions, LogReader, Results, explained, no_log
from kalloctrace.commands.pager import paged
from kalloctrace.console import stdout


def diff_logs(before: str, after: str, top: int, *, as_json: bool) -> int:
    """Compare the failures of two logs.

    Args:
        before: a file, a folder, or "-" for standard input.
        after: likewise.
        top: how many changes to show as text.
        as_json: print one JSON object instead of text.

    Raises:
        KalloctraceError: a folder has no file, or a log cannot be read.
    """
    from kalloctrace.commands.many_logs import find_logs
    from kalloctrace.diagnose.alike import alike_json
    from kalloctrace.report.log_diff import LogDiff, LogSide, write_log_diff

    named = [(LogSide(name), find_logs([name])) for name in (before, after)]
    for side, logs in named:
        if not logs:
            raise no_log(side.log)
    sides = [side for side, logs in named for _ in logs]
    results = Results(
        [log for _, logs in named for log in logs], partial(explained, LogReader.of(LogOptions()), alike_json)
    )
    for side, groups in zip(sides, results, strict=True):
        if groups is not None:
            side.add(groups)
    code = results.exit_code(may_be_empty=True)
    if not all(side.logs for side, _ in named):
        return code
    diff = LogDiff.of(*(side for side, _ in named))
    if as_json:
        stdout().json(diff.to_json())
    else:
        with paged() as console:
            write_log_diff(diff, console, top)
    return code
