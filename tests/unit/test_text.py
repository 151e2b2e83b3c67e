# SPDX-License-Identifier: MIT
"""Text for people: lines fit, names stay whole, and nothing controls the terminal."""

import os
import shlex
import subprocess

import pytest

from kalloctrace.text import file_name, printable, shell_word, wrap_command, wrap_message, wrap_names, wrap_words


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


def test_a_mask_longer_than_a_line_is_cut_between_names() -> None:
    """Also among words, where only spaces end a line otherwise."""
    assert wrap_words("order 0, GFP_KERNEL|__GFP_COMP|__GFP_ZERO, cc1", 24) == [
        "order 0,",
        "  GFP_KERNEL|__GFP_COMP|",
        "  __GFP_ZERO, cc1",
    ]


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


@pytest.mark.parametrize(
    "text",
    ["\ufe0f", "\u3164", "\u2800", "\U000e0041", "\U000e0101", "\u115f"],
)
def test_invisible_characters_are_shown(text: str) -> None:
    """Python calls some of them printable."""
    assert printable(f"a{text}b") == "a" + text.encode("unicode_escape").decode() + "b"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("one two", ["one two"]),
        ("one two three", ["one two", "  three"]),
        ("  - one two three", ["  - one", "    two", "    three"]),
        ("    ninechars", ["    ninech", "      ars"]),
        ("漢字漢字漢字", ["漢字漢字漢", "  字"]),
    ],
)
def test_only_the_first_line_begins_at_the_margin(text: str, lines: list[str]) -> None:
    """Words stay whole if they fit, wide characters count twice, and the other lines are indented."""
    assert wrap_words(text, 10) == lines


def test_wide_names_are_cut_in_time() -> None:
    """A terminal never has to break a line of its own, which would begin at the margin."""
    assert wrap_names("漢字漢字漢字", 10) == ["漢字漢字漢", "  字"]


@pytest.mark.parametrize(
    "name", [b"plain.arrows", b"a b", b"it's", b"n\xff\xe9'\\", b"\xe2\x80\xae1", b"a\nb\x1b[31m", "näme".encode()]
)
def test_name_of_a_file(name: bytes) -> None:
    """A name of any bytes is valid Unicode, and a shell gets it back from its word, which a terminal can show."""
    path = os.fsdecode(name)
    assert file_name(path).encode().decode() == name.decode(errors="backslashreplace")
    word = shell_word(path)
    assert word.isprintable()
    assert subprocess.run(["bash", "-c", f"printf %s {word}"], check=True, stdout=subprocess.PIPE).stdout == name


def test_byte_of_no_character_is_shown_as_a_byte() -> None:
    """Python represents it by half of a surrogate pair, which no terminal shows."""
    assert printable("a\udcffb") == r"a\xffb"


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_command_that_is_broken_is_still_one(width: int) -> None:
    """A shell finds the same words, those in quotes whole, and no line is too long that can be broken."""
    command = "printf '%s,' --gfp \"GFP_KERNEL  x\" --filter 'order>0  zone=Normal' --set context=bh"
    lines = wrap_command(command, width)
    assert len(lines) == {20: 6, 40: 3, 80: 2}[width]
    # Of those that are too long, each has only one word, which is.
    assert all(len(shlex.split(line.removesuffix(" \\"))) == 1 for line in lines if len(line) > width)
    texts = (command, "\n".join(lines))
    shown = [subprocess.run(["sh", "-c", text], capture_output=True, check=True).stdout for text in texts]
    assert shown[0] == shown[1]


def test_a_command_at_the_end_of_a_message_can_be_copied() -> None:
    """It begins on a line of its own, and goes on after a backslash; what fits, and what is prose, stays."""
    text = "record in a virtual machine: kalloctrace lab run --kernel 6.12 -- kalloctrace record -- ls"
    assert wrap_message(text, 50) == [
        "record in a virtual machine:",
        "  kalloctrace lab run --kernel 6.12 -- \\",
        "      kalloctrace record -- ls",
    ]
    assert wrap_message(text, 200) == [text]
    prose = "  fix: kalloctrace doctor says why, and what to do instead of that"
    assert wrap_message(prose, 40) == wrap_names(prose, 40)
