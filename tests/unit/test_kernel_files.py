# SPDX-License-Identifier: MIT
"""Reading what the kernel shows in files, on small files of the same form."""

import struct
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.kallsyms import Symbols
from kalloctrace.kernel.kcore import Kcore
from kalloctrace.kernel.nodelist import format_nodelist, node_ids, parse_nodelist

KALLSYMS = """\
ffffffff81000000 T _stext
ffffffff81200000 t get_page_from_freelist
ffffffff81200400 t get_page_from_freelist.cold
ffffffff81201000 T __alloc_pages_nodemask
000000000001fb80 A __preempt_count
ffffffff81a00000 T _etext
ffffffffc0000000 t helper\t[module]
ffffffffc0090000 t bpf_prog_6deef7357e7b4530\t[bpf]
"""
MODULES = """\
later 16384 0 - Live 0xffffffffc0020000 (OE)
module 196608 1 later, Live 0xffffffffc0000000
"""


@pytest.fixture
def symbols(tmp_path: Path) -> Symbols:
    """Return the symbols of a small file."""
    file, modules = tmp_path / "kallsyms", tmp_path / "modules"
    file.write_text(KALLSYMS)
    modules.write_text(MODULES)
    return Symbols(file, modules)


def test_symbol_is_found_by_its_whole_name(symbols: Symbols) -> None:
    """A name is not mistaken for one that only begins with it."""
    assert symbols.address("get_page_from_freelist") == 0xFFFFFFFF81200000
    assert symbols.address("get_page") is None
    assert symbols.address("__preempt_count") == 0x1FB80


def test_symbols_of_modules_are_not_the_kernels(symbols: Symbols) -> None:
    """A module's symbol of the same name would have another address at each boot."""
    assert symbols.address("helper") is None


def test_address_gets_the_name_of_its_function(symbols: Symbols) -> None:
    """Any address within a function names it, a module's too."""
    assert symbols.function_at(0xFFFFFFFF81201234) == "__alloc_pages_nodemask"
    assert symbols.function_at(0xFFFFFFFFC0000010) == "helper"
    assert symbols.function_at(0xFFFFFFFFC0090010) == "bpf_prog_6deef7357e7b4530"


def test_address_gets_no_name_that_is_not_its_own(symbols: Symbols) -> None:
    """Of a module that came later the module is known; behind the end of what is known there is an address."""
    assert symbols.function_at(0xFFFFFFFFC0020010) == "[later]"
    for unknown in (0x10, 0xFFFFFFFF81A00010, 0xFFFFFFFFC0080010, 0xFFFFFFFFC00A0010):
        assert symbols.function_at(unknown) == f"{unknown:#x}"


def test_zeroes_are_recognised_as_hidden(tmp_path: Path, symbols: Symbols) -> None:
    """kptr_restrict shows zeroes to those without CAP_SYSLOG."""
    file = tmp_path / "hidden"
    file.write_text("0000000000000000 T _stext\n0000000000000000 t get_page_from_freelist\n")
    assert Symbols(file).addresses_hidden()
    assert not symbols.addresses_hidden()


@pytest.mark.parametrize(
    ("text", "nodes"), [("", 0), ("0", 0b1), ("0-1", 0b11), ("0-1,3", 0b1011), ("5,0\n", 0b100001), ("2-4", 0b11100)]
)
def test_nodelist_is_a_set(text: str, nodes: int) -> None:
    """The kernel's list text becomes one bit a node."""
    assert parse_nodelist(text) == nodes


@pytest.mark.parametrize("nodes", [0, 1, 0b1011, 0b11100, 1 << 63, (1 << 128) - 1])
def test_nodelist_survives_the_round_trip(nodes: int) -> None:
    """What is printed parses to the same set."""
    assert parse_nodelist(format_nodelist(nodes)) == nodes


@pytest.mark.parametrize("text", ["x", "1-0", "-1", "0,,a", "0-99999999999"])
def test_other_text_is_no_nodelist(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match=r".+"):
        parse_nodelist(text)


def test_node_ids_ascend() -> None:
    """Ids come in the order in which the kernel walks them."""
    assert node_ids(0b1011) == (0, 1, 3)


def core_file(path: Path, address: int, data: bytes) -> Path:
    """Write an ELF core with one segment."""
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    note = struct.pack("<IIQQQQQQ", 4, 0, 0, 0, 0, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, 176, address, 0, len(data), len(data), 4096)
    path.write_bytes(header + note + load + data)
    return path


def test_kernel_memory_is_read_by_address(tmp_path: Path) -> None:
    """An address is found in its segment, wherever that lies in the file."""
    base = 0xFFFF888000000000
    with Kcore(core_file(tmp_path / "kcore", base, bytes(8) + struct.pack("<Qi", 0x1122334455667788, -1))) as kcore:
        assert kcore.u64(base + 8) == 0x1122334455667788
        assert kcore.s32(base + 16) == -1
        assert kcore.u32(base + 16) == 0xFFFFFFFF


@pytest.mark.parametrize("offset", [-8, 16, 12])
def test_memory_outside_the_segments_is_refused(tmp_path: Path, offset: int) -> None:
    """A read before, behind or across the end of a segment is an error, not zeroes."""
    base = 0xFFFF888000000000
    with (
        Kcore(core_file(tmp_path / "kcore", base, bytes(16))) as kcore,
        pytest.raises(KalloctraceError, match="cannot read the kernel's memory"),
    ):
        kcore.u64(base + offset)


def test_absent_core_file_names_its_mend(tmp_path: Path) -> None:
    """A kernel without /proc/kcore is told apart from other failures."""
    with pytest.raises(KalloctraceError) as caught:
        Kcore(tmp_path / "none")
    assert "CONFIG_PROC_KCORE" in caught.value.fix
