# SPDX-License-Identifier: MIT
"""The report's text: lines that fit, names that stay whole, nothing that takes over the terminal."""

import pytest

from kalloctrace.report.summary_text import printable, wrap_names


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
    """A long mask goes on in the next line behind a bar; only a name longer than a line is cut."""
    assert wrap_names(text, 20) == lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("kworker/0:1", "kworker/0:1"),
        ("näme", "näme"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb", "a\\nb"),
        ("[bold]", "[bold]"),
    ],
)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    """A process that calls itself by a terminal's control codes cannot use them."""
    assert printable(text) == shown
