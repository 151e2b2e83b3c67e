# SPDX-License-Identifier: MIT
"""Sections of pages between two markers."""

from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from tests.section import write_section

BEGIN, END = "<!-- begin -->", "<!-- end -->"


def test_only_the_text_between_the_markers_changes(tmp_path: Path) -> None:
    """Writing it twice changes nothing more."""
    path = tmp_path / "README.md"
    path.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    for _ in range(2):
        write_section(path, BEGIN, END, "new")
        assert path.read_text() == f"before\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}"])
def test_page_without_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    """A page without markers is an error, and does not change."""
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(KalloctraceError, match="cannot write the table"):
        write_section(path, BEGIN, END, "new")
    assert path.read_text() == text
