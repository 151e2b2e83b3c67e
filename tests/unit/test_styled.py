# SPDX-License-Identifier: MIT
"""Tables at every width: no number is cut, no name is broken, and what does not fit side by side is stacked."""

import io
import re

import pytest

from kalloctrace.console import Console
from kalloctrace.styled import Sheet, Table

MASK = "0x212820 GFP_ATOMIC|__GFP_NOWARN|__GFP_NORETRY|__GFP_THISNODE"
NAMES = ("__GFP_THISNODE", "do_huge_pmd_anonymous_page", "GFP_ATOMIC", "MIGRATE_UNMOVABLE")


def drawn(table: Table, width: int) -> list[str]:
    """Return the lines of a table on a sheet of a width."""
    stream = io.StringIO()
    sheet = Sheet(Console(stream), width)
    sheet.table(table)
    sheet.show()
    return stream.getvalue().splitlines()


def groups() -> Table:
    """Return a table of groups of calls; the second has no callers."""
    table = Table("bold")
    table.column("gfp", wraps="names")
    table.column("type")
    table.column("calls", right=True)
    table.column("size", right=True)
    table.column("callers", wraps="words")
    table.row(MASK, "MIGRATE_UNMOVABLE", "1,234,567", "160.0 KiB", ["do_huge_pmd_anonymous_page 4", "vfs_write 1"])
    table.row(("other (3)", "red"), "", "9", "", "")
    return table


@pytest.mark.parametrize("width", range(34, 160, 7))
def test_no_number_is_cut_and_no_name_is_broken(width: int) -> None:
    """Each stands whole on one line, and no line is longer than the sheet."""
    lines = drawn(groups(), width)
    for whole in (*NAMES, "1,234,567", "160.0 KiB"):
        assert any(whole in line for line in lines), whole
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)


def test_side_by_side() -> None:
    """The columns that wrap share what the others leave."""
    assert drawn(groups(), 100) == [
        "gfp                            type                   calls       size  callers",
        "0x212820 GFP_ATOMIC|           MIGRATE_UNMOVABLE  1,234,567  160.0 KiB  do_huge_pmd_anonymous_page 4",
        "  __GFP_NOWARN|__GFP_NORETRY|                                           vfs_write 1",
        "  __GFP_THISNODE",
        "other (3)                                                 9",
    ]


def test_stacked() -> None:
    """Texts have a line each, neighbouring numbers share one, and what is empty has none."""
    assert drawn(groups(), 50) == [
        "gfp      0x212820 GFP_ATOMIC|__GFP_NOWARN|",
        "  __GFP_NORETRY|__GFP_THISNODE",
        "type     MIGRATE_UNMOVABLE",
        "calls 1,234,567  size 160.0 KiB",
        "callers  do_huge_pmd_anonymous_page 4",
        "         vfs_write 1",
        "",
        "gfp      other (3)",
        "calls 9",
    ]


def test_no_headings() -> None:
    """A row becomes one text, and one that continues the row before it is indented."""
    table = Table()
    table.column(style="bold")
    table.column(wraps="words")
    table.row("command", "kalloctrace_stimulus_of_tests.ko --rounds 1")
    table.row("", "and more")
    assert drawn(table, 60) == [
        "command  kalloctrace_stimulus_of_tests.ko --rounds 1",
        "         and more",
    ]
    assert drawn(table, 36) == ["command", "  kalloctrace_stimulus_of_tests.ko", "  --rounds 1", "  and more"]


def test_a_column_that_may_be_narrower() -> None:
    """A width limits a column that wraps; where a word does not fit, the row becomes one text."""
    table = Table()
    table.column(width=8)
    table.column(wraps="words", width=30)
    table.row("change", "vm.watermark_scale_factor = 67: wake kswapd earlier")
    assert drawn(table, 80) == ["change    vm.watermark_scale_factor =", "          67: wake kswapd earlier"]
    assert drawn(table, 34) == ["change  vm.watermark_scale_factor", "  = 67: wake kswapd earlier"]


def test_a_table_as_wide_as_its_sheet() -> None:
    """Its first column takes what the numbers leave."""
    table = Table("bold", expand=True)
    table.column("order", wraps="names")
    table.column("count", right=True)
    table.row("0", "12")
    assert [re.sub(" +", " ", line) for line in drawn(table, 40)] == ["order count", "0 12"]
    assert {len(line) for line in drawn(table, 40)} == {40}
