# SPDX-License-Identifier: MIT
"""The summary that a command prints after it wrote a trace."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kalloctrace.console import stderr, stdout
from kalloctrace.flags.tables import FlagTables
from kalloctrace.text import file_name, shell_word
from kalloctrace.trace.audited import audit_json, audit_lines
from kalloctrace.trace.filter_text import inferred_filters
from kalloctrace.trace.missed_text import missed_causes
from kalloctrace.trace.totals import Totals, missed_json


def print_totals(totals: Totals, recording: Mapping[str, Any]) -> None:
    """Print how much was captured, what is missing and why, and what was left out.

    Args:
        totals: the counts of the recording.
        recording: how it was made, as its trace describes it.
    """
    stderr().line(
        f"{totals.submitted:,} allocations in {totals.seconds:.1f} s ({totals.reason}); "
        f"lost {totals.lost}, missed {totals.missed}, still running {totals.running}",
    )
    stderr().lines(f"audit: {line}" for line in audit_lines(totals.audit))
    stderr().lines(f"missed: {cause}" for cause in missed_causes(totals, recording))
    if totals.own:
        stderr().line(f"left out: {totals.own:,} calls of the recorder itself")
    if totals.slow:
        stderr().line(
            f"slow path: {totals.slow:,} calls, failed {totals.slow_failed or 0:,}, "
            f"still running {totals.slow_running}; events lost {totals.slow_lost}, missed {totals.slow_missed}",
        )


def print_inferred_filters(recording: Mapping[str, Any], tables: FlagTables) -> None:
    """Print which filters select by a fact that the recording infers.

    Args:
        recording: how it is made, as its trace describes it.
        tables: of the recorded kernel.
    """
    for name, about in inferred_filters(recording, tables).items():
        option = f"--{'node' if name == 'nid' else name.replace('_', '-')}"
        stderr().line(f"note: {option} is inferred: {about}; --attach pair captures it")


def print_strangers(threads: Sequence[str]) -> None:
    """Print which threads could not be made to give up their privileges, if there are any."""
    if threads:
        stderr().line(f"note: threads that a library started keep their capabilities: {', '.join(threads)}")


def print_next_step(path: Path) -> None:
    """Print where the trace is, and the next command to run."""
    stderr().lines([f"wrote {path}", f"next: kalloctrace verify {shell_word(path)}"])


def print_recording_json(path: Path, kernel: str, source: str, totals: Totals, exit_status: int | None = None) -> None:
    """Print the summary as a JSON object, see schemas/recording.schema.json.

    Args:
        path: the trace.
        kernel: the release of the recorded kernel.
        source: the program that recorded it.
        totals: the counts of the recording.
        exit_status: the exit status of the recorded command; None without one.
    """
    summary = {
        "type": "recording",
        "trace": file_name(path),
        "kernel": kernel,
        "source": source,
        "allocations": totals.submitted,
        "lost": totals.lost,
        "missed": totals.missed,
        **missed_json(totals),
        "audit": audit_json(totals.audit),
        "own": totals.own,
        "filtered": totals.filtered,
        "running": totals.running,
        "slow": totals.slow,
        "slow_failed": totals.slow_failed,
        "slow_lost": totals.slow_lost,
        "slow_missed": totals.slow_missed,
        "machine_changed": list(totals.machine_changed),
        "seconds": totals.seconds,
        "reason": totals.reason,
        "exit_status": exit_status,
    }
    stdout().json(summary)
