# SPDX-License-Identifier: MIT
"""The head that all screens share, and the screens above the table: details of a row, and help."""

from collections.abc import Callable, Mapping, Sequence
from textwrap import indent
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Static

from kalloctrace.live.detail import Line
from kalloctrace.live.filter import HELP
from kalloctrace.live.text import Part, flow
from kalloctrace.styled import StyledText, joined_lines, styled_lines, styled_parts

STYLES: Mapping[str, str] = {
    "plain": "",
    "good": "green",
    "bad": "bold white on red",
    "doubt": "bold yellow",
    "faint": "dim",
    "strong": "bold",
    "heading": "bold",
}


class Head(Static):
    """The state of the recording and its losses, at the top of every screen."""

    DEFAULT_CSS = """
    Head {
        height: auto;
        background: $panel;
    }
    """

    def show(self, words: Sequence[Sequence[Part]], width: int) -> None:
        """Show groups of words; each group starts a line, and lines break between words.

        Args:
            words: the groups.
            width: characters in a line.
        """
        lines = [line for group in words for line in flow(group, width)]
        self.update(joined_lines(_line(line, width) for line in lines))


def _line(parts: Sequence[Part], width: int) -> StyledText:
    return styled_parts(((text, STYLES[style]) for text, style in parts), width)


class Page(Screen[None]):
    """Scrollable lines of text below the head."""

    CSS = "VerticalScroll { scrollbar-size-vertical: 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace,q", "dismiss", "Back"),
        Binding("up,k", "scroll(-1)", "Up", show=False),
        Binding("down,j", "scroll(1)", "Down", show=False),
    ]

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Head()
        with VerticalScroll():
            yield Static(id="lines")
        yield Footer()

    def show(self, lines: Sequence[Line]) -> None:
        """Show lines."""
        self.query_one("#lines", Static).update(styled_lines((line.text, STYLES[line.tone]) for line in lines))

    def action_scroll(self, lines: int) -> None:
        """Scroll the text."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)


class Detail(Page):
    """The details of one row, one allocation at a time.

    Args:
        count: number of allocations in the row.
        lines: returns the lines about the allocation at a position.
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
    """What the keys do, and what the terms mean.

    Args:
        legend: short names of flags and the kernel's names.
    """

    def __init__(self, legend: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._legend = legend

    def on_mount(self) -> None:
        """Show the text."""
        self.show(
            [
                *(line for heading, text in _SECTIONS for line in _section(heading, text)),
                Line("short names on the screen now", "heading"),
                *(Line(f"  {text:<6} {name}") for text, name in self._legend),
            ]
        )


def _section(heading: str, text: str) -> list[Line]:
    return [Line(heading, "heading"), *map(Line, text.splitlines()), Line("")]


_SECTIONS = (
    (
        "keys",
        """\
  up down  choose a row                  space  freeze the screen; recording
  enter    explain it, step by step             continues
  < >      sort by another column        /      filter the rows; Esc shows all
  C B F T  sort by calls, bytes,         b      by request, task, stack
           failed, time in the slow      l      hide or show the legend
           path                          f      only failed calls, or all
  r        reverse the order             s      only slow calls, or all
  w        write a trace of the          q      quit
           session so far""",
    ),
    (
        "numbers",
        """\
  calls       allocations since the start; per second in the last interval;
              the bars are the intervals before it
  distinct    distinct allocations, including fields that no column shows
  lost        calls that were captured but not counted: a buffer was full
  missed      probe hits that the kernel skipped
  running     calls that have not returned, or are still in a buffer
  slow        calls that took the slow path: the fast path found no page
  failed      slow-path calls that returned no page; a row counts rejected
              calls, too
  matched     calls that the kernel prepared as the model predicts
  mismatched  calls that it prepared differently: their rows say MISMATCH
  unknown     calls that cannot be judged: a fact was not captured""",
    ),
    (
        "columns",
        """\
  dim         a row without calls in the last interval
  pid         -: tasks of this name that were idle for long, merged
  size        of the pages that the calls got; the requested ones where it is
              not known whether they got them
  slow s      seconds in the slow path
  -           not recorded
  order       a request is for 2^order pages
  node, zone  the preferred zone, where the allocator looks first
  alloc_flags of the first attempt; (bulk): not visible to the probe;
              rejected: no attempt was made""",
    ),
    ("filter", indent(HELP, "  ")),
)
"""Headings and the text below each."""
