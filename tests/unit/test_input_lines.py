# SPDX-License-Identifier: MIT
"""Lines of any length and encoding, read in pieces."""

import io

import pytest

from kalloctrace.commands.input_lines import LONGEST, InputLines


def test_long_line_is_cut_and_counted() -> None:
    """The first bytes of a long line are read, the next line is a line of its own, and memory holds a piece at most."""
    text = b"first\n" + b"x" * (5 << 20) + b"\nlast\n" + b"y" * (LONGEST + 1)
    lines = InputLines(io.BytesIO(text))
    cut = LONGEST + 1
    assert [(line[:5], len(line)) for line in lines] == [("first", 6), ("xxxxx", cut), ("last\n", 5), ("yyyyy", cut)]
    assert lines.cut == 2


def test_line_of_just_the_length_is_whole() -> None:
    """The line's end does not count."""
    lines = InputLines(io.BytesIO(b"x" * LONGEST + b"\n" + b"y" * LONGEST))
    assert [len(line) for line in lines] == [LONGEST + 1, LONGEST]
    assert lines.cut == 0


def test_cut_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    """A person learns that something was left out, and nothing if nothing was."""
    for text, said in (
        (b"123456\n", "1 line is longer"),
        (b"123456\n" * 2, "2 lines are"),
        (b"12345\n", ""),
    ):
        lines = InputLines(io.BytesIO(text), 5)
        list(lines)
        lines.say_cut()
        assert (said in capfd.readouterr().err) if said else not capfd.readouterr().err


def test_bytes_of_any_encoding_are_text() -> None:
    """A task's name may hold anything."""
    assert list(InputLines(io.BytesIO(b"\xff\xfe\n"))) == ["\ufffd\ufffd\n"]
