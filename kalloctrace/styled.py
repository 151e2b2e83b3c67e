# SPDX-License-Identifier: MIT
"""Text with styles, tables and progress bars, by rich, for consoles and for the live screen.

The only module that makes rich's objects. Every text in them is escaped, and rich's own markup means nothing.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, Protocol

import rich.console
import rich.table
from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from kalloctrace.console import Console
from kalloctrace.text import printable, wrap_names, wrap_words

_GAP = 2
_LONGEST = 32
"""Longer words are broken."""

StyledText = Text

Wraps = Literal["no", "words", "names"]

Cell = str | tuple[str, str] | list[str]
"""A cell of a table: a text, a text and its style, or lines."""


def styled(text: str, style: str = "") -> Text:
    """Return one line of text with a style of rich.

    Args:
        text: any text.
        style: such as "bold" or "white on red".
    """
    return Text(printable(text), style)


def styled_lines(lines: Iterable[tuple[str, str]]) -> Text:
    """Return several lines, each a text and its style."""
    return joined_lines(styled(text, style) for text, style in lines)


def joined_lines(lines: Iterable[Text]) -> Text:
    """Return several lines as one text."""
    return Text("\n").join(lines)


def styled_parts(parts: Iterable[tuple[str, str]], width: int) -> Text:
    """Return one line of words with their styles, two spaces between them, cut to a width."""
    line = Text("  ").join(styled(text, style) for text, style in parts)
    line.truncate(width, overflow="ellipsis")
    line.no_wrap = True
    return line


@dataclass(frozen=True, slots=True)
class _Column:
    heading: str
    right: bool
    wraps: Wraps
    width: int | None
    style: str


class Table:
    """A table without borders. No number is cut, and no word of up to 32 characters is broken.

    Where the columns do not fit, each row is printed as lines of their own.

    Args:
        heads: the style of the headings; empty for none.
        expand: be as wide as the sheet.
    """

    def __init__(self, heads: str = "", *, expand: bool = False) -> None:
        self._heads = heads
        self._expand = expand
        self._columns: list[_Column] = []
        self._rows: list[list[Text]] = []

    def column(
        self,
        heading: str = "",
        *,
        right: bool = False,
        wraps: Wraps = "no",
        width: int | None = None,
        style: str = "",
    ) -> None:
        """Add a column.

        Args:
            heading: its heading.
            right: whether it is aligned to the right.
            wraps: where long cells break: never, between words, or between words and after each "|".
            width: its width, the greatest if it wraps; by default what its cells need and the others leave.
            style: of its cells.
        """
        self._columns.append(_Column(printable(heading), right, wraps, width, style))

    def row(self, *cells: Cell) -> None:
        """Add a row."""
        self._rows.append([_cell(cell) for cell in cells])

    def drawn(self, width: int) -> RenderableType:
        """Return the table for a sheet of a width."""
        widths = self._widths(width)
        return self._stacked(width) if widths is None else self._side_by_side(widths)

    def _widths(self, width: int) -> list[int] | None:
        """Return the widths of the columns; None if they do not fit."""
        least, most = [], []
        for at, column in enumerate(self._columns):
            texts = [column.heading if self._heads else "", *(row[at].plain for row in self._rows)]
            whole = max(cell_len(line) for text in texts for line in text.split("\n"))
            wraps = column.wraps != "no"
            widest = whole if column.width is None else min(whole, column.width) if wraps else column.width
            least.append(min(widest, max(_longest_word(text, column.wraps) for text in texts)) if wraps else widest)
            most.append(widest)
        room = width - _GAP * (len(least) - 1)
        if sum(least) > room:
            return None
        if self._expand:
            most = [room if column.wraps != "no" else width for column, width in zip(self._columns, most, strict=True)]
        # The widest that all wrapping columns may be.
        limit = next(limit for limit in range(room, -1, -1) if sum(_between(limit, least, most)) <= room)
        return list(_between(limit, least, most))

    def _side_by_side(self, widths: list[int]) -> RenderableType:
        # Gaps are columns, as rich would also add one after the last column.
        table = rich.table.Table(
            box=None, pad_edge=False, padding=0, header_style=self._heads, show_header=bool(self._heads)
        )
        for at, (column, width) in enumerate(zip(self._columns, widths, strict=True)):
            if at:
                table.add_column(width=_GAP)
            table.add_column(
                Text(column.heading),
                justify="right" if column.right else "left",
                no_wrap=column.wraps == "no",
                overflow="fold",
                width=width,
                style=column.style,
            )
        for row in self._rows:
            cells: list[Text] = []
            for text, column, width in zip(row, self._columns, widths, strict=True):
                cells += [Text(), _wrapped(text, width) if column.wraps == "names" else text]
            table.add_row(*cells[1:])
        return table

    def _stacked(self, width: int) -> RenderableType:
        """Return a line for each text, and one for neighbouring numbers."""
        if not self._heads:
            return joined_lines(line for row in self._rows for line in _in_one(row, width))
        indent = max((cell_len(column.heading) for column in self._columns if not column.right), default=0)
        lines: list[Text] = []
        for row in self._rows:
            if lines:
                lines.append(Text())
            for right, group in groupby(zip(self._columns, row, strict=True), lambda pair: pair[0].right):
                if right:
                    named = [f"{column.heading} {text.plain}" for column, text in group if text.plain]
                    lines += map(Text, wrap_words("  ".join(named), width) if named else ())
                else:
                    lines += [line for column, text in group for line in self._text(column, text, indent, width)]
        return joined_lines(lines)

    def _text(self, column: _Column, text: Text, indent: int, width: int) -> Iterator[Text]:
        heading = column.heading
        for cell in text.plain.split("\n") if text.plain else ():
            for line in wrap_names(f"{heading:<{indent}}{' ' * _GAP}{cell}", width):
                drawn = Text(line, text.style)
                drawn.stylize(self._heads, 0, len(heading))
                yield drawn
                heading = ""


def _in_one(row: list[Text], width: int) -> Iterator[Text]:
    """Yield the cells of a row without headings as one text; what continues the row before it is indented."""
    text = "  ".join(cell.plain for cell in row if cell.plain)
    return map(Text, wrap_words(text if row[0].plain else f"  {text}", width))


def _between(limit: int, least: list[int], most: list[int]) -> Iterator[int]:
    return (max(low, min(limit, high)) for low, high in zip(least, most, strict=True))


def _longest_word(text: str, wraps: Wraps) -> int:
    """Return the width of the longest part of a text that may not be broken."""
    # `wrap_names` indents what it continues.
    indent = 2 if wraps == "names" else 0
    words = (text.replace("|", "| ") if wraps == "names" else text).split()
    return min(_LONGEST, indent + max(map(cell_len, words), default=0))


def _wrapped(text: Text, width: int) -> Text:
    lines = [part for line in text.plain.split("\n") for part in wrap_names(line, width)]
    return joined_lines(Text(line, text.style) for line in lines)


def _cell(cell: Cell) -> Text:
    match cell:
        case str():
            return styled(cell)
        case (str() as text, str() as style) if isinstance(cell, tuple):
            return styled(text, style)
        case _:
            return styled_lines((text, "") for text in cell)


class Sheet:
    """Lines and tables, in colour on a terminal.

    Args:
        console: where they will be printed, all at once by `show`.
        width: columns.
    """

    def __init__(self, console: Console, width: int) -> None:
        self._target = console
        self._console = rich.console.Console(
            file=console.stream, highlight=False, markup=False, emoji=False, width=width
        )
        self._console.begin_capture()

    @property
    def width(self) -> int:
        """Columns."""
        return self._console.width

    def blank(self) -> None:
        """Add an empty line."""
        self._console.print()

    def line(self, text: str, style: str = "", *, wrap: bool = True) -> None:
        """Add a line.

        Args:
            text: any text.
            style: of rich.
            wrap: break the text where it is too long. Only its first part begins at the margin, so that no part of a
                foreign text looks like a line of ours.
        """
        escaped = printable(text)
        for part in wrap_words(escaped, self.width) if wrap else [escaped]:
            self._console.print(Text(part, style), soft_wrap=True)

    def table(self, table: Table) -> None:
        """Add a table."""
        self._console.print(table.drawn(self.width))

    def markdown(self, text: str) -> None:
        """Add a document of ours."""
        from rich.markdown import Markdown  # noqa: PLC0415 - slow to import

        self._console.print(Markdown(text, hyperlinks=False))

    def show(self) -> None:
        """Print everything, without the spaces that tables leave at line ends."""
        lines = self._console.end_capture().rstrip("\n").split("\n")
        self._target.styled_lines(line.rstrip() for line in lines)


def sheet_of(console: Console) -> Sheet:
    """Return a sheet as wide as the console."""
    return Sheet(console, console.columns)


class _Advance(Protocol):
    def __call__(self, share: float) -> None:
        """Show which share is done, from 0 to 1."""


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[_Advance]:
    """Show a progress bar; it disappears at the end.

    Args:
        console: a terminal.
        what: the work, for people.
    """
    from rich.progress import (  # noqa: PLC0415 - likewise
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    bars = Progress(*columns, console=rich.console.Console(file=console.stream), transient=True)
    with bars:
        task = bars.add_task(printable(what), total=1.0)
        yield lambda share: bars.update(task, completed=share)
