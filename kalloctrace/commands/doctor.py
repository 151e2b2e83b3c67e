# SPDX-License-Identifier: MIT
"""The `doctor` command."""

import click

from kalloctrace.console import Style, stdout
from kalloctrace.errors import Exit

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
    from kalloctrace.probe.checks import run_checks

    checks = []
    for check in run_checks(LiveKernel()):
        checks.append(check)
        if not as_json:
            stdout().line((check.status.upper(), _COLOURS[check.status]), f"  {check.name}: {check.detail}")
            if check.fix:
                stdout().line(f"      fix: {check.fix}")
    live = all(check.status != "fail" for check in checks)
    if as_json:
        stdout().json({"type": "doctor", "live": live, "checks": [check.to_json() for check in checks]})
    else:
        stdout().line(
            "live tracing works here" if live else "live tracing is impossible here; try: kalloctrace lab run --help"
        )
    return Exit.OK if live else Exit.FAILED
