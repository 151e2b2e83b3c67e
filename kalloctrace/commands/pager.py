# SPDX-License-Identifier: MIT
"""Long results on a terminal go through the pager ($PAGER, or less), as git's do."""

import io
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from kalloctrace.console import Console, stdout


class _Held(io.StringIO):
    """Text for a terminal that is not printed yet; it has the terminal's colours and width."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return stdout_number()


def stdout_number() -> int:
    """Return the number of standard output's open file."""
    stream = stdout().stream
    return 1 if stream is None else stream.fileno()


@contextmanager
def paged() -> Iterator[Console]:
    """Yield a console; what does not fit on the terminal is shown in the pager when the block ends.

    Without a terminal to read keys from, the console is standard output.
    """
    console = stdout()
    if not (console.is_terminal and _has_keys()) or os.environ.get("TERM") == "dumb":
        yield console
        return
    held = _Held()
    yield Console(held)
    lines = held.getvalue().splitlines()
    if len(lines) < os.get_terminal_size(stdout_number()).lines:
        console.styled_lines(lines)
    else:
        with _standard_input_of_the_session():
            # The console has escaped the text, and has added the colours if they are allowed.
            click.echo_via_pager(held.getvalue(), color=_colours())  # noqa: TID251


def _has_keys() -> bool:
    """Return whether a pager can read keys: standard input may be a log, but the session still has a terminal."""
    try:
        with _standard_input_of_the_session():
            return True
    except OSError:
        return False


@contextmanager
def _standard_input_of_the_session() -> Iterator[None]:
    """Make standard input a terminal, for click asks there whether a pager can be used; pagers open it themselves.

    Raises:
        OSError: the session has no terminal.
    """
    usual = sys.stdin
    if usual is not None and usual.isatty():
        yield
        return
    with Path(os.ctermid()).open(encoding="utf-8") as terminal:
        sys.stdin = terminal
        try:
            yield
        finally:
            sys.stdin = usual


def _colours() -> bool | None:
    """Return whether the pager gets the colours; None lets click decide, which knows the options of less."""
    words = shlex.split(os.environ.get("PAGER", ""))
    return None if not words or Path(words[0]).name == "less" else True
