# SPDX-License-Identifier: MIT
"""Captured stacks as text."""

from pathlib import Path

import pyarrow as pa
import pytest

from kalloctrace.kernel.kallsyms import Symbols
from kalloctrace.probe.decode.stacks import stack_text
from kalloctrace.trace.checks import check_values

ENTRIES = {"__alloc_pages", "alloc_pages_bulk", None}
SYMBOLS = """\
ffffffff81000000 T _stext
ffffffff81001000 T __alloc_pages
ffffffff81002000 T alloc_pages_bulk
ffffffff81003000 T folio_alloc
ffffffff81004000 T do_syscall_64
ffffffff81005000 T _etext
"""
ENTRY, BULK, FOLIO, SYSCALL, TRAMPOLINE = (
    *(0xFFFFFFFF81001010, 0xFFFFFFFF81002010, 0xFFFFFFFF81003010, 0xFFFFFFFF81004010),
    0xFFFFFFFFC01DBAC9,
)


@pytest.mark.parametrize(
    ("addresses", "text"),
    [
        pytest.param((ENTRY, FOLIO, SYSCALL), "do_syscall_64;folio_alloc;__alloc_pages", id="from the entry"),
        pytest.param((TRAMPOLINE, ENTRY, FOLIO), "folio_alloc;__alloc_pages", id="from a trampoline"),
        pytest.param((ENTRY, TRAMPOLINE, ENTRY, FOLIO), "folio_alloc;__alloc_pages", id="called by a trampoline"),
        pytest.param(
            (FOLIO, ENTRY, TRAMPOLINE, ENTRY, FOLIO, SYSCALL),
            "do_syscall_64;folio_alloc;__alloc_pages",
            id="further in",
        ),
        pytest.param((ENTRY, BULK, SYSCALL), "do_syscall_64;alloc_pages_bulk;__alloc_pages", id="called by another"),
        pytest.param((FOLIO, SYSCALL), "do_syscall_64;folio_alloc", id="of no entry"),
        pytest.param((FOLIO, SYSCALL, FOLIO), "folio_alloc;do_syscall_64;folio_alloc", id="of no entry, twice"),
        pytest.param((), "", id="that was not captured"),
    ],
)
def test_stack_ends_at_the_entry(tmp_path: Path, addresses: tuple[int, ...], text: str) -> None:
    """Functions further in belong to the probe."""
    symbols, modules = tmp_path / "kallsyms", tmp_path / "modules"
    symbols.write_text(SYMBOLS)
    modules.write_text("")
    assert stack_text(Symbols(symbols, modules), ENTRIES, addresses) == text


def test_long_stack_is_one_that_a_reader_accepts(tmp_path: Path) -> None:
    """Names have up to 512 characters since 6.1; the outermost functions are left out."""
    symbols, modules = tmp_path / "kallsyms", tmp_path / "modules"
    long = "f" * 500
    symbols.write_text(SYMBOLS.replace("folio_alloc", long))
    modules.write_text("")
    text = stack_text(Symbols(symbols, modules), ENTRIES, (ENTRY, *[FOLIO] * 100, SYSCALL))
    check_values("stack", pa.array([text]), nullable=False)
    *outer, innermost = text.split(";")
    assert (innermost, set(outer)) == ("__alloc_pages", {long})
    assert len(outer) == 32
