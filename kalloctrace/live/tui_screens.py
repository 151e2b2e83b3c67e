# SPDX-License-Identifier: MIT
"""Pages above the table: one row explained, and help."""

from collections.abc import Callable, Sequence
from textwrap import indent
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Static

from kalloctrace.live.detail import Line
from kalloctrace.live.filter import HELP
from kalloctrace.live.widgets import STYLES, Head


class Page(Screen[None]):
    """Lines of text that can be scrolled, below the head."""

    CSS = "VerticalScroll { scrollbar-size-vertical: 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace,q", "dismiss", "Back"),
        Binding("up,k", "scroll(-1)", "Up", show=False),
        Binding("down,j", "scroll(1)", "Down", show=False),
    ]

    def compose(self) -> ComposeResult:
        """Lay the page out."""
        yield Head()
        with VerticalScroll():
            yield Static(id="lines")
        yield Footer()

    def show(self, lines: Sequence[Line]) -> None:
        """Show lines."""
        texts = [Text(line.text, STYLES[line.tone]) for line in lines]
        self.query_one("#lines", Static).update(Text("\n").join(texts))

    def action_scroll(self, lines: int) -> None:
        """Scroll the text."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)


class Detail(Page):
    """One row, down to the steps of its preparation.

    Args:
        count: how many allocations the row is made of.
        lines: returns the lines about one of these.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n,right", "turn(1)", "Next allocation"),
        Binding("p,left", "turn(-1)", "Previous"),
    ]

    def __init__(self, count: int, lines: Callable[[int], list[Line]]) -> None:
        super().__init__()
        self._count = count
        self._lines = lines
        self._position = 0

    def on_mount(self) -> None:
        """Show the first allocation."""
        self.action_turn(0)

    def action_turn(self, step: int) -> None:
        """Show another allocation of the row."""
        self._position = (self._position + step) % self._count
        self.show(self._lines(self._position))
        self.query_one(VerticalScroll).scroll_home(animate=False)


class Help(Page):
    """What the keys do, and what the words mean.

    Args:
        legend: short names of flags and what they stand for.
    """

    def __init__(self, legend: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._legend = legend

    def on_mount(self) -> None:
        """Show the text."""
        self.show(
            [
                *(Line(line, "heading" if line and not line.startswith(" ") else "plain") for line in _TEXT),
                Line(""),
                Line("short names on the screen now", "heading"),
                *(Line(f"  {text:<6} {name}") for text, name in self._legend),
            ]
        )


_TEXT = f"""\
keys
  up down  choose a row                  space  the screen stands still, the
  enter    explain it, step by step             recording goes on
  < >      sort by another column        /      filter the rows; Esc shows all
  r        sort the other way round      b      by request, task, stack
  w        write the session so far      l      hide or show the legend
           as a trace                    q      end

numbers
  calls       allocations since the beginning; calls/s in the last interval
  distinct    different allocations, also by what no column shows
  lost        calls that were seen, but not counted for want of room
  missed      probe hits that the kernel skipped
  running     calls that have not come to an end, or are on their way here
  slow        calls that took the slow path, as the fast one found no page
  failed      those among them that returned no page
  matched     calls that the kernel prepared as the model says
  mismatched  calls that it prepared otherwise: a row says MISMATCH
  unknown     calls that cannot be judged, as a fact was not captured

columns
  pid         -: tasks of this name that were quiet for long, taken together
  order       2 to the power of it pages are asked for
  node, zone  the preferred zone, where the allocator looks first
  alloc_flags those of the first attempt; (bulk): it cannot be seen;
              rejected: no attempt was made

filter
{indent(HELP, "  ")}""".splitlines()
