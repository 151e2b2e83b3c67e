# SPDX-License-Identifier: MIT
"""Diagnosed failures as text."""

import textwrap
from collections.abc import Callable, Iterable
from typing import TextIO

from rich.console import Capture, Console
from rich.table import Table
from rich.text import Text

from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.sentences import (
    VERDICTS,
    certainty,
    conditions,
    headline,
    kilobytes,
    remedy_sentence,
    zone_name,
    zone_sentence,
)
from kalloctrace.diagnose.zones import ZoneVerdict

WIDTH = 100
"""Columns of the text, if the output is not a terminal."""

_STYLES = {"excluded": "dim", "watermark": "red", "block": "yellow", "passes": "green", "unknown": "magenta"}


def write_failures(failures: Iterable[Failure], stream: TextIO) -> None:
    """Write each failure: its cause, each zone, what would have prevented it, and what is unknown."""
    console = console_of(stream)
    with console.capture() as captured:
        for number, failure in enumerate(failures):
            if number:
                console.print()
            where = f"line {failure.logged.line}, " if failure.logged.line else ""
            print_failure(failure, console, where=where)
    write_captured(captured, stream)


def console_of(stream: TextIO) -> Console:
    """Return a console that writes to a stream, with colour only on a terminal."""
    return Console(file=stream, highlight=False, width=None if stream.isatty() else WIDTH)


def write_captured(captured: Capture, stream: TextIO) -> None:
    """Write what a console captured, without the spaces that tables leave at line ends."""
    stream.writelines(f"{line.rstrip()}\n" for line in captured.get().rstrip("\n").split("\n"))


def print_failure(
    failure: Failure,
    console: Console,
    *,
    where: str = "",
    more: Callable[[], None] | None = None,
) -> None:
    """Print one failure.

    Args:
        failure: the failure.
        console: where to print.
        where: when and where it happened, with the separator before the next words.
        more: prints further facts.
    """
    console.print(Text(headline(failure), "bold"))
    kernel = failure.kernel or "unknown kernel"
    console.print(Text(f"{where}{kernel}; {certainty(failure)}", "dim"))
    if failure.why is not None:
        console.print()
        console.print(_table(failure, failure.why.zones))
    if more is not None:
        more()
    if failure.why is not None:
        remedies = [remedy_sentence(failure, remedy) for remedy in failure.why.remedies]
        _list(console, "any one of these would have let it pass", remedies)
        _list(console, f"what the {failure.source} does not show", list(conditions(failure.why)))
    _list(console, f"what the {failure.source} lacks", list(failure.missing))
    _list(console, f"the {failure.source} contradicts itself", failure.logged.contradictions)


def _table(failure: Failure, verdicts: Iterable[ZoneVerdict]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("zone", no_wrap=True)
    for name in ("free", "min"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("why")
    for verdict in verdicts:
        state = verdict.state
        sure = "" if verdict.certain else " ?"
        table.add_row(
            zone_name(state),
            kilobytes(failure, state.free),
            kilobytes(failure, state.watermarks[0]),
            Text(f"{VERDICTS[verdict.kind]}{sure}", _STYLES[verdict.kind]),
            Text(zone_sentence(failure, verdict)),
        )
    return table


def _list(console: Console, heading: str, items: list[str]) -> None:
    if not items:
        return
    console.print()
    console.print(Text(f"{heading}:"))
    for item in items:
        lines = textwrap.wrap(item, console.width, initial_indent="  - ", subsequent_indent="    ")
        console.print(Text("\n".join(lines)))
