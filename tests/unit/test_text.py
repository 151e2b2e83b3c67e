# SPDX-License-Identifier: MIT
"""Text for people: lines fit, names stay whole, and nothing controls the terminal."""

from io import StringIO

import pytest

from kalloctrace.text import heading, printable, wrap_names


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("0xcc0 GFP_KERNEL", ["0xcc0 GFP_KERNEL"]),
        ("0x1 GFP_KERNEL|__GFP_COMP", ["0x1 GFP_KERNEL|", "  __GFP_COMP"]),
        ("0x1 GFP_KERNEL|A|B|C|D|E", ["0x1 GFP_KERNEL|A|B|", "  C|D|E"]),
        ("x" * 25, ["x" * 20, "  xxxxx"]),
    ],
)
def test_masks_break_between_names(text: str, lines: list[str]) -> None:
    """A long mask continues on the next line after a bar; only a name longer than a line is cut."""
    assert wrap_names(text, 20) == lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("kworker/0:1", "kworker/0:1"),
        ("näme", "näme"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb", "a\\nb"),
        ("[bold]", "[bold]"),
        ("\x9b31mred", "\\x9b31mred"),
        ("a\x7fb", "a\\x7fb"),
        ("txt.\u202eexe", "txt.\\u202eexe"),
        ("a\u2066b\u200f", "a\\u2066b\\u200f"),
        ("a\u2028b", "a\\u2028b"),
        ("\ud800", "\\ud800"),
    ],
)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    """C0 and C1 controls, bidirectional marks, line separators and surrogates are escaped."""
    assert printable(text) == shown


def test_control_characters_are_replaced() -> None:
    """A parser that needs one column for each character replaces them."""
    assert printable("a\x1bb\u202ec", instead=" ") == "a b c"


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_headings_are_bold_on_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file gets plain text, and so does a terminal with NO_COLOR."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert heading("steps", _Terminal()) == "\x1b[1msteps\x1b[0m"
    assert heading("steps", StringIO()) == "steps"
    monkeypatch.setenv("NO_COLOR", "1")
    assert heading("steps", _Terminal()) == "steps"
