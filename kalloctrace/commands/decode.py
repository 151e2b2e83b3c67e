# SPDX-License-Identifier: MIT
"""`kalloctrace decode`: the names of the bits in a mask."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from kalloctrace.commands import complete
from kalloctrace.console import stdout
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.flags.builtin import default_tables
from kalloctrace.flags.decode import Decoded, decode_text
from kalloctrace.flags.tables import FlagTables

if TYPE_CHECKING:
    from kalloctrace.flags.textsearch import Found

_STDIN = "-"
_KINDS = ("gfp", "alloc")


@click.command()
@click.argument("values", metavar="VALUE... | -", nargs=-1, required=True, shell_complete=complete.any_masks)
@click.option(
    "--kernel",
    metavar="K",
    shell_complete=complete.kernels,
    help="The kernel whose flags to use: 5.10, 6.1, ..., 'live', or a trace file.",
)
@click.option("--kind", type=click.Choice(_KINDS), default="gfp", show_default=True, help="The kind of mask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each mask.")
def command(values: tuple[str, ...], kernel: str | None, kind: str, as_json: bool) -> None:
    """Explain what the bits of gfp masks and alloc_flags mean.

    VALUE is decimal, 0x hex, names, or any of them joined by |. With -, search the text on standard input
    for masks: dmesg, a trace, a page_owner dump. If the text names a kernel release, the flags of that release are
    used.

    \b
    Examples:
      kalloctrace decode 0x100cca --kernel 5.10
      kalloctrace decode 'GFP_ATOMIC|__GFP_COMP'
      kalloctrace decode --kind alloc 0x901
      dmesg | kalloctrace decode -
    """
    if _STDIN not in values:
        tables = _named_tables(kernel) or default_tables()
        decoded = [_decode(value, tables, kind) for value in values]
        _print_values(decoded, tables, as_json)
        return
    if len(values) > 1 or kind != "gfp":
        raise KalloctraceError(
            "- cannot be combined with values or with --kind alloc",
            "- searches the text on standard input for gfp masks",
            "run decode once for the text and once for the values",
            Exit.USAGE,
        )
    _search_stdin(_named_tables(kernel), as_json)


def _decode(value: str, tables: FlagTables, kind: str) -> Decoded:
    if not value.strip():
        raise KalloctraceError("an empty VALUE", "there is nothing to decode", "give a number or names", Exit.USAGE)
    return decode_text(value, tables, kind)


def _named_tables(kernel: str | None) -> FlagTables | None:
    if kernel is None:
        return None
    from kalloctrace.commands.kernel_source import kernel_tables

    return kernel_tables(kernel)


def _print_values(decoded: list[Decoded], tables: FlagTables, as_json: bool) -> None:
    from kalloctrace.flags import describe

    if as_json:
        for one in decoded:
            stdout().json(describe.decoded_json(one, tables), compact=True)
        return
    for number, one in enumerate(decoded):
        stdout().lines(["", *describe.block(one, tables)] if number else describe.block(one, tables))


def _masks_of(lines: Iterable[str], tables: FlagTables | None) -> "Iterator[Found]":
    """Yield the masks of a log, each with its place in the text."""
    from kalloctrace.flags.textsearch import find_masks
    from kalloctrace.logs.messages import Message, read_messages

    pending: deque[tuple[int, Message]] = deque()

    def texts() -> Iterator[str]:
        for number, message in enumerate(read_messages(lines), 1):
            pending.append((number, message))
            yield message.text

    for found in find_masks(texts(), tables):
        while pending[0][0] < found.line:
            pending.popleft()
        message = pending[0][1]
        yield replace(found, line=message.line, column=found.column + (message.indent or 0))


def _search_stdin(tables: FlagTables | None, as_json: bool) -> None:
    from kalloctrace.commands.input_lines import log_lines
    from kalloctrace.flags import describe

    count = 0
    with log_lines(_STDIN) as lines:
        for found in _masks_of(lines, tables):
            count += 1
            if as_json:
                stdout().json(describe.found_json(found), compact=True)
            else:
                stdout().line(describe.found_line(found))
    if count == 0:
        raise KalloctraceError(
            "no masks found",
            "the text has no line with gfp_mask=, mode:, gfp_flags= or the like",
            "use dmesg, a trace or a page_owner dump; give a single mask on the command line",
        )
