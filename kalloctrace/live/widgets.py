# SPDX-License-Identifier: MIT
"""Parts that the screens share: the head with the numbers, and styles."""

from collections.abc import Mapping, Sequence

from rich.text import Text
from textual.widgets import Static

from kalloctrace.live.text import Part, flow

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
    """What is always in sight: the state of the recording, and what is missing from it."""

    DEFAULT_CSS = """
    Head {
        height: auto;
        background: $panel;
    }
    """

    def show(self, words: Sequence[Sequence[Part]], width: int) -> None:
        """Show groups of words, each group beginning a line.

        Args:
            words: what to show; words stay whole.
            width: characters of a line.
        """
        lines = [line for group in words for line in flow(group, width)]
        self.update(Text("\n").join(_line(line, width) for line in lines))


def _line(parts: Sequence[Part], width: int) -> Text:
    line = Text("  ").join(Text(text, STYLES[style]) for text, style in parts)
    line.truncate(width, overflow="ellipsis")
    line.no_wrap = True
    return line
