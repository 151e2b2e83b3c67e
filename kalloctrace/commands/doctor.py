# SPDX-License-Identifier: MIT
"""The `doctor` command."""

from itertools import chain
from typing import TYPE_CHECKING

import click

from kalloctrace.console import Style, stdout
from kalloctrace.errors import Exit
from kalloctrace.text import printable, wrap_words

if TYPE_CHECKING:
    from kalloctrace.probe.checks import Check

_INDENT = " " * 4
"""As wide as a status."""

_COLOURS: dict[str, Style] = {"pass": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> int:
    """Check whether this machine can be traced, and how to fix it.

    Exit code 1 means that live tracing is impossible here. Reading traces works all the same.

    \b
    Examples:
      kalloctrace doctor
      kalloctrace doctor --json | jq '.checks[] | select(.status == "fail")'
    """
    from kalloctrace.kernel.live import LiveKernel
    from kalloctrace.probe.checks import others, run_checks

    checks = []
    kernel = LiveKernel()
    for check in chain(run_checks(kernel), others(kernel)):
        checks.append(check)
        if not as_json:
            _print(check)
    live = all(check.status != "fail" for check in checks)
    if as_json:
        stdout().json({"type": "doctor", "live": live, "checks": [check.to_json() for check in checks]})
    else:
        stdout().wrapped_lines([_verdict(checks)])
    return Exit.OK if live else Exit.FAILED


def _print(check: "Check") -> None:
    """Print a check with its fix; on a terminal no word is broken."""
    console, status = stdout(), check.status.upper()
    text = printable(f"  {check.name}: {check.detail}")
    if console.is_terminal:
        first, *others = wrap_words(f"{_INDENT}{text}", console.columns)
    else:
        first, *others = [f"{_INDENT}{text}"]
    console.line((status, _COLOURS[check.status]), first.removeprefix(_INDENT))
    console.lines(others)
    if check.fix:
        console.wrapped_lines([f"      fix: {check.fix}"])


def _verdict(checks: list["Check"]) -> str:
    from kalloctrace.probe.checks import INSTEAD

    failed = [check.name for check in checks if check.status == "fail"]
    if not failed:
        return "live tracing works here"
    return f"live tracing is impossible here ({', '.join(failed)}); {INSTEAD}"
