# SPDX-License-Identifier: MIT
"""Text with styles, tables and progress bars, by rich, for consoles and for the live screen.

The only module that makes rich's objects. Every text in them is escaped, and rich's own markup means nothing.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

import rich.console
import rich.table
from rich.text import Text

from kalloctrace.console import Console
from kalloctrace.text import printable, wrap_words

_GAP = 2
_WIDTH = 100

StyledText = Text

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


class Table:
    """A table without borders.

    Args:
        heads: the style of the headings.
        expand: be as wide as the sheet.
    """

    def __init__(self, heads: str = "", *, expand: bool = False) -> None:
        self.rows = rich.table.Table(
            box=None,
            pad_edge=False,
            padding=(0, _GAP, 0, 0),
            header_style=heads,
            expand=expand,
            show_header=bool(heads),
        )

    def column(
        self,
        heading: str = "",
        *,
        right: bool = False,
        wraps: Literal["no", "words", "fold"] = "no",
        width: int | None = None,
        ratio: int | None = None,
        style: str = "",
    ) -> None:
        """Add a column.

        Args:
            heading: its heading.
            right: whether it is aligned to the right.
            wraps: how long cells break.
            width: its width; by default that of its cells.
            ratio: its share of the width that is left.
            style: of its cells.
        """
        self.rows.add_column(
            styled(heading),
            justify="right" if right else "left",
            no_wrap=wraps == "no",
            overflow="fold" if wraps == "fold" else "ellipsis",
            width=width,
            ratio=ratio,
            style=style,
        )

    def row(self, *cells: Cell) -> None:
        """Add a row."""
        self.rows.add_row(*map(_cell, cells))


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
        width: columns; None for the width of the terminal.
    """

    def __init__(self, console: Console, width: int | None) -> None:
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
        self._console.print(table.rows)

    def markdown(self, text: str) -> None:
        """Add a document of ours."""
        from rich.markdown import Markdown  # noqa: PLC0415 - slow to import

        self._console.print(Markdown(text, hyperlinks=False))

    def show(self) -> None:
        """Print everything, without the spaces that tables leave at line ends."""
        lines = self._console.end_capture().rstrip("\n").split("\n")
        self._target.styled_lines(line.rstrip() for line in lines)


def sheet_of(console: Console) -> Sheet:
    """Return a sheet as wide as the terminal, or of 100 columns."""
    return Sheet(console, None if console.is_terminal else _WIDTH)


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
