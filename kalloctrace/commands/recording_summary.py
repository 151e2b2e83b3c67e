# SPDX-License-Identifier: MIT
"""The summary that a command prints after it wrote a trace."""

from collections.abc import Sequence
from pathlib import Path

from kalloctrace.console import stderr, stdout
from kalloctrace.text import file_name, shell_word
from kalloctrace.trace.totals import Totals


def print_totals(totals: Totals) -> None:
    """Print how much was captured, and what is missing."""
    stderr().line(
        f"{totals.submitted:,} allocations in {totals.seconds:.1f} s ({totals.reason}); "
        f"lost {totals.lost}, missed {totals.missed}, still running {totals.running}",
    )
    if totals.slow:
        stderr().line(
            f"slow path: {totals.slow:,} calls, failed {totals.slow_failed or 0:,}, "
            f"still running {totals.slow_running}; events lost {totals.slow_lost}, missed {totals.slow_missed}",
        )


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
