# SPDX-License-Identifier: MIT
"""What a kernel publishes about itself: BTF, /proc/kallsyms and /proc/modules."""

from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.kallsyms import Symbols
from tests.fuzz.surface import MemoryFile, answers, surface

_BTF, _KALLSYMS, _MODULES = MemoryFile(), MemoryFile(), MemoryFile()


@surface(
    max_len=1024,
    covers=("kernel/btf.py",),
    words=(b"\x9f\xeb\x01\x00\x18\x00\x00\x00", b"\x00zone\x00", b"\x00page\x00", b"\x00flags\x00", b"\x00alloc\x00"),
)
def fuzz_btf(data: bytes) -> None:
    """Every file is a kernel's types, or is refused."""
    with answers():
        btf = Btf(_BTF.fill(data))
        for struct, member in (("page", "flags"), ("zone", "x"), ("packed", "high")):
            for ask in (btf.has_member, btf.offset, btf.member_size):
                with answers():
                    assert ask(struct, member) >= 0
            with answers():
                assert btf.size(struct) >= 0
        for variable in ("__preempt_count", "v"):
            with answers():
                assert (btf.variable_size(variable) or 0) >= 0
        for function in ("alloc", "f"):
            btf.has_function(function)
            with answers():
                btf.parameters(function)
            with answers():
                btf.return_type(function)
        for find, name in ((btf.enum, "zone_type"), (btf.anonymous_enum, "___GFP_IO_BIT"), (btf.anonymous_enum, "A")):
            with answers():
                find(name)


@surface(
    max_len=1024,
    covers=("kernel/kallsyms.py",),
    words=(
        *("ffffffff81000000 T _stext\n", "ffffffff81a00000 T _etext\n", " t get_page_from_freelist\n", "\t[module]\n"),
        *(".constprop.0", ".isra.1", ".cold", "module 196608 1 later, Live 0xffffffffc0000000\n", "\n---\n", "\t[bpf]"),
    ),
)
def fuzz_kallsyms(data: bytes) -> None:
    """Every pair of files is a kernel's symbols, or is refused; a line of --- separates the two."""
    symbols, _, modules = data.partition(b"\n---\n")
    with answers():
        read = Symbols(_KALLSYMS.fill(symbols), _MODULES.fill(modules))
        read.addresses_hidden()
        for name in ("_stext", "get_page_from_freelist"):
            with answers():
                assert (read.address(name) or 0) >= 0
            with answers():
                read.compiled_name(name)
            with answers():
                read.end_of(name)
        for address in (0, 0xFFFFFFFF81000010, 0xFFFFFFFFC0000010, (1 << 64) - 1):
            with answers():
                read.function_at(address)
