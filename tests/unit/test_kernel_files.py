# SPDX-License-Identifier: MIT
"""Symbols, node lists and kernel memory, read from small files in the kernel's formats."""

import struct
from collections.abc import Callable
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
    """A longer name with the same beginning does not match."""
    assert symbols.address("get_page_from_freelist") == 0xFFFFFFFF81200000
    assert symbols.address("get_page") is None
    assert symbols.address("__preempt_count") == 0x1FB80


def test_symbols_of_modules_are_not_the_kernels(symbols: Symbols) -> None:
    """A module's symbol of the same name would have another address at each boot."""
    assert symbols.address("helper") is None


def test_address_gets_the_name_of_its_function(symbols: Symbols) -> None:
    """Any address within a function gives its name, also in modules."""
    assert symbols.function_at(0xFFFFFFFF81201234) == "__alloc_pages_nodemask"
    assert symbols.function_at(0xFFFFFFFFC0000010) == "helper"
    assert symbols.function_at(0xFFFFFFFFC0090010) == "bpf_prog_6deef7357e7b4530"


def test_address_outside_known_functions_has_no_name(symbols: Symbols) -> None:
    """A module that was loaded later gives its name; other addresses are shown as numbers."""
    assert symbols.function_at(0xFFFFFFFFC0020010) == "[later]"
    for unknown in (0x10, 0xFFFFFFFF81A00010, 0xFFFFFFFFC0080010, 0xFFFFFFFFC00A0010):
        assert symbols.function_at(unknown) == f"{unknown:#x}"


def test_zeroes_are_recognised_as_hidden(tmp_path: Path, symbols: Symbols) -> None:
    """kptr_restrict hides addresses from users without CAP_SYSLOG."""
    file = tmp_path / "hidden"
    file.write_text("0000000000000000 T _stext\n0000000000000000 t get_page_from_freelist\n")
    assert Symbols(file).addresses_hidden()
    assert not symbols.addresses_hidden()


def test_function_may_be_a_clone_of_the_compiler(tmp_path: Path) -> None:
    """Specialised clones match; `.cold` parts and longer names do not."""
    file = tmp_path / "clones"
    file.write_text(
        "ffffffff81000000 t other_alloc.constprop.0\n"
        "ffffffff81000100 t alloc.cold\n"
        "ffffffff81000200 t alloc.isra.0.constprop.1\n"
        "ffffffff81000300 t reclaim\n"
    )
    found = Symbols(file)
    assert found.compiled_name("alloc") == "alloc.isra.0.constprop.1"
    assert found.compiled_name("reclaim") == "reclaim"
    assert found.compiled_name("claim") is None
    assert found.compiled_name("all.c") is None


def test_end_of_a_function_is_the_start_of_the_next(symbols: Symbols) -> None:
    """Data symbols do not count; the last function has no known end."""
    assert symbols.end_of("get_page_from_freelist") == 0xFFFFFFFF81200400
    assert symbols.end_of("missing") is None


def test_last_function_has_no_known_end(tmp_path: Path) -> None:
    """There is no symbol after it."""
    file = tmp_path / "one"
    file.write_text("ffffffff81000000 T only\n")
    assert Symbols(file).end_of("only") is None


def test_addresses_without_the_list_of_modules(tmp_path: Path) -> None:
    """A kernel without modules has no /proc/modules; its own functions and BPF programs are still named."""
    file = tmp_path / "kallsyms"
    file.write_text(KALLSYMS)
    found = Symbols(file, tmp_path / "none")
    assert found.function_at(0xFFFFFFFF81200010) == "get_page_from_freelist"
    assert found.function_at(0xFFFFFFFFC0090010) == "bpf_prog_6deef7357e7b4530"
    assert found.function_at(0xFFFFFFFFC00A0000) == "0xffffffffc00a0000"


def test_address_is_resolved_once(tmp_path: Path, symbols: Symbols) -> None:
    """A module that is unloaded later does not change the name of an address that was seen."""
    assert symbols.function_at(0xFFFFFFFFC0020010) == "[later]"
    (tmp_path / "modules").write_text("")
    assert symbols.function_at(0xFFFFFFFFC0020010) == "[later]"
    assert symbols.function_at(0xFFFFFFFFC0020020) == "0xffffffffc0020020"


def test_module_with_the_nearest_start_owns_an_address(tmp_path: Path) -> None:
    """The parts of a module may lie elsewhere, so its size may reach into the next module."""
    kallsyms, modules = tmp_path / "kallsyms", tmp_path / "modules"
    kallsyms.write_text("ffffffffc0000000 t one\t[first]\nffffffffc0010000 t two\t[second]\n")
    modules.write_text("first 1048576 0 - Live 0xffffffffc0000000\nsecond 16 0 - Live 0xffffffffc0010000\n")
    found = Symbols(kallsyms, modules)
    assert found.function_at(0xFFFFFFFFC0010008) == "two"
    assert found.function_at(0xFFFFFFFFC000FFFF) == "one"
    assert found.function_at(0xFFFFFFFFC0010010) == "two"


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
def test_other_text_is_not_a_nodelist(text: str) -> None:
    """It is an error, not an empty set."""
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
    """An address is found in its segment, wherever the segment lies in the file."""
    base = 0xFFFF888000000000
    with Kcore(core_file(tmp_path / "kcore", base, bytes(8) + struct.pack("<Qi", 0x1122334455667788, -1))) as kcore:
        assert kcore.u64(base + 8) == 0x1122334455667788
        assert kcore.s32(base + 16) == -1
        assert kcore.u32(base + 16) == 0xFFFFFFFF


@pytest.mark.parametrize("offset", [-8, 16, 12])
def test_memory_outside_the_segments_is_refused(tmp_path: Path, offset: int) -> None:
    """A read before, after or across the end of a segment is an error, not zeroes."""
    base = 0xFFFF888000000000
    with (
        Kcore(core_file(tmp_path / "kcore", base, bytes(16))) as kcore,
        pytest.raises(KalloctraceError, match="cannot read the kernel's memory"),
    ):
        kcore.u64(base + offset)


def test_segments_are_chosen_by_address(tmp_path: Path) -> None:
    """Of two segments the one that contains the whole range is read; notes are not memory."""
    file = core_file(tmp_path / "kcore", 0xFFFF888000000000, bytes(8))
    data = file.read_bytes()
    second = struct.pack("<IIQQQQQQ", 1, 7, 240, 0xFFFFFFFF81000000, 0, 8, 8, 4096)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0)
    note = data[64:120]
    load = struct.pack("<IIQQQQQQ", 1, 7, 232, 0xFFFF888000000000, 0, 8, 8, 4096)
    file.write_bytes(header + note + load + second + struct.pack("<QQ", 1, 2))
    with Kcore(file) as kcore:
        assert kcore.u64(0xFFFF888000000000) == 1
        assert kcore.u64(0xFFFFFFFF81000000) == 2
        with pytest.raises(KalloctraceError):
            kcore.u64(0)


def test_truncated_segment_is_refused(tmp_path: Path) -> None:
    """A segment that the file does not hold completely gives an error, not fewer bytes."""
    base = 0xFFFF888000000000
    file = core_file(tmp_path / "kcore", base, bytes(16))
    file.write_bytes(file.read_bytes()[:-4])
    with Kcore(file) as kcore:
        assert kcore.u64(base) == 0
        with pytest.raises(KalloctraceError, match="cannot read the kernel's memory"):
            kcore.u64(base + 8)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: data[:0], "is empty"),
        (lambda data: data[:63], "requires a buffer of 64 bytes"),
        (lambda data: b"\x7fELF\x01" + data[5:], "it begins with b'\\x7fELF\\x01'"),
        (lambda data: b"MZ" + data[2:], "it begins with b'MZ"),
        (lambda data: data[:170], "its program headers are truncated"),
    ],
)
def test_damaged_core_file_is_an_error(tmp_path: Path, damage: Callable[[bytes], bytes], why: str) -> None:
    """An empty, truncated, 32-bit or foreign file is refused when it is opened, and is closed again."""
    file = core_file(tmp_path / "kcore", 0xFFFF888000000000, bytes(16))
    file.write_bytes(damage(file.read_bytes()))
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(KalloctraceError, match="kcore") as caught:
        Kcore(file)
    assert why in caught.value.why
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_missing_core_file_is_an_error_with_a_fix(tmp_path: Path) -> None:
    """The fix names the build option."""
    with pytest.raises(KalloctraceError) as caught:
        Kcore(tmp_path / "none")
    assert "CONFIG_PROC_KCORE" in caught.value.fix


@pytest.mark.parametrize("masked", ["/dev/null", "empty"])
def test_masked_core_file_is_named(tmp_path: Path, masked: str) -> None:
    """Containers mount the null device or an empty file over /proc/kcore; the error says so."""
    (tmp_path / "empty").touch()
    with pytest.raises(KalloctraceError) as caught:
        Kcore(tmp_path / masked)
    assert "container" in caught.value.why
    assert "outside the container" in caught.value.fix


def test_masked_symbols_are_empty(tmp_path: Path) -> None:
    """A masked /proc/kallsyms is not one whose addresses are hidden."""
    path = tmp_path / "kallsyms"
    path.write_bytes(b"0000000000000000 T _text\n")
    assert Symbols(Path("/dev/null")).empty()
    assert not Symbols(path).empty()
    assert Symbols(path).addresses_hidden()
