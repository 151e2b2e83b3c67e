# SPDX-License-Identifier: MIT
"""BTF read through libbpf, from a small file with one type of each kind in use."""

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.btf import Btf, libbpf

INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF, VOLATILE, CONST = 1, 2, 3, 4, 5, 6, 8, 9, 10
FUNC, FUNC_PROTO, VAR = 12, 13, 14


class BtfFile:
    """A raw BTF file; `include/uapi/linux/btf.h` defines the format."""

    def __init__(self) -> None:
        """Begin without types; type id 0 is void."""
        self._types: list[bytes] = []
        self._strings = b"\0"

    def _name(self, name: str) -> int:
        if not name:
            return 0
        offset = len(self._strings)
        self._strings += name.encode() + b"\0"
        return offset

    def add(
        self,
        kind: int,
        name: str = "",
        size_or_type: int = 0,
        *,
        tail: Sequence[int] = (),
        members: Sequence[tuple[str, int, int]] | None = None,
        pairs: Sequence[tuple[str, int]] | None = None,
        kind_flag: bool = False,
        vlen: int = 0,
    ) -> int:
        """Add a type and return its id.

        Args:
            kind: its BTF_KIND_*.
            name: its name.
            size_or_type: its size in bytes, or the id of the type that it refers to.
            tail: the numbers after `struct btf_type`.
            members: name, type id and offset in bits of each member.
            pairs: name and value of each enumerator, or name and type id of each parameter.
            kind_flag: the offsets of the members hold bit-field sizes.
            vlen: the number of elements, or the linkage of a function.
        """
        data = b"".join(struct.pack("<I", number) for number in tail)
        for member, type_id, offset in members or ():
            data += struct.pack("<III", self._name(member), type_id, offset)
        for element, value in pairs or ():
            data += struct.pack("<Ii", self._name(element), value)
        count = len(members or pairs or ()) or vlen
        info = kind << 24 | count | kind_flag << 31
        self._types.append(struct.pack("<III", self._name(name), info, size_or_type) + data)
        return len(self._types)

    def write(self, path: Path) -> Path:
        """Write the file and return its path."""
        types = b"".join(self._types)
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self._strings))
        path.write_bytes(header + types + self._strings)
        return path


@pytest.fixture
def btf(tmp_path: Path) -> Btf:
    """Return types modelled on those of the page allocator."""
    file = BtfFile()
    unsigned = file.add(INT, "unsigned int", 4, tail=[32])
    unsigned_long = file.add(INT, "unsigned long", 8, tail=[64])
    gfp = file.add(TYPEDEF, "gfp_t", unsigned)
    pages = file.add(ARRAY, tail=[unsigned_long, unsigned, 3])
    inner = file.add(UNION, size_or_type=8, members=[("flags", unsigned_long, 0), ("raw", unsigned, 32)])
    page = file.add(STRUCT, "page", 40, members=[("head", unsigned_long, 0), ("", inner, 64), ("lists", pages, 128)])
    file.add(
        STRUCT, "packed", 4, members=[("low", unsigned, 3 << 24), ("high", unsigned, 8 << 24 | 16)], kind_flag=True
    )
    file.add(ENUM, "zone_type", 4, pairs=[("ZONE_DMA", 0), ("ZONE_NORMAL", 2), ("ZONE_BROKEN", -1)])
    file.add(ENUM, "named", 4, pairs=[("___GFP_DMA_BIT", 7)])
    file.add(ENUM, size_or_type=4, pairs=[("OTHER", 0)])
    file.add(ENUM, size_or_type=4, pairs=[("___GFP_IO_BIT", 0), ("___GFP_FS_BIT", 1)])
    page_pointer = file.add(PTR, size_or_type=page)
    constant = file.add(CONST, size_or_type=page)
    constant_pointer = file.add(PTR, size_or_type=constant)
    volatile = file.add(VOLATILE, size_or_type=unsigned)
    proto = file.add(
        FUNC_PROTO, size_or_type=page_pointer, pairs=[("gfp", gfp), ("p", constant_pointer), ("v", volatile)]
    )
    file.add(FUNC, "alloc", proto, vlen=1)
    nothing = file.add(FUNC_PROTO)
    file.add(FUNC, "idle", nothing, vlen=1)
    file.add(VAR, "__preempt_count", unsigned, tail=[1])
    return Btf(file.write(tmp_path / "btf"))


def test_sizes_and_offsets_are_bytes(btf: Btf) -> None:
    """Members of an anonymous union are found at the sum of both offsets."""
    assert btf.size("page") == 40
    assert [btf.offset("page", member) for member in ("head", "flags", "raw", "lists")] == [0, 8, 12, 16]
    assert [btf.member_size("page", member) for member in ("flags", "raw", "lists")] == [8, 4, 24]


def test_bit_field_offsets_leave_out_the_field_size(btf: Btf) -> None:
    """With the kind flag the upper eight bits of an offset are the size of the bit field."""
    assert btf.offset("packed", "low") == 0
    assert btf.offset("packed", "high") == 2


def test_members_are_found_by_name(btf: Btf) -> None:
    """Anonymous members are searched, the structure's own name is not a member."""
    assert btf.has_member("page", "raw")
    assert not btf.has_member("page", "page")


@pytest.mark.parametrize(
    ("struct_name", "member", "why"),
    [("folio", "flags", "no struct folio"), ("page", "lru", "struct page has no member lru")],
)
def test_missing_type_is_an_error(btf: Btf, struct_name: str, member: str, why: str) -> None:
    """Offsets and sizes are not guessed."""
    with pytest.raises(KalloctraceError) as offset:
        btf.offset(struct_name, member)
    with pytest.raises(KalloctraceError) as size:
        btf.member_size(struct_name, member)
    assert why in offset.value.why
    assert why in size.value.why


def test_enumerators_keep_order_and_sign(btf: Btf) -> None:
    """A missing enum is None."""
    assert btf.enum("zone_type") == (("ZONE_DMA", 0), ("ZONE_NORMAL", 2), ("ZONE_BROKEN", -1))
    assert btf.enum("migratetype") is None


def test_anonymous_enum_is_found_by_its_first_enumerator(btf: Btf) -> None:
    """A later enumerator, a named enum and a name that is no enumerator do not match."""
    assert btf.anonymous_enum("___GFP_IO_BIT") == (("___GFP_IO_BIT", 0), ("___GFP_FS_BIT", 1))
    assert btf.anonymous_enum("OTHER") == (("OTHER", 0),)
    for name in ("___GFP_FS_BIT", "___GFP_DMA_BIT", "page", "___GFP_WRITE_BIT"):
        assert btf.anonymous_enum(name) is None


def test_anonymous_enum_is_not_confused_with_other_uses_of_the_number(tmp_path: Path) -> None:
    """The number of the name's offset may occur elsewhere: in the first type, and across two numbers."""
    file = BtfFile()
    file.add(INT, "x", 4, tail=[32])
    # The name below has offset 3, and the bytes 3, 0, 0, 0 also begin in the middle of this array's numbers.
    file.add(ARRAY, tail=[1, 1, 3 << 8])
    file.add(ARRAY, tail=[1, 1, 3])
    file.add(ENUM, size_or_type=4, pairs=[("FIRST", 5)])
    assert Btf(file.write(tmp_path / "btf")).anonymous_enum("FIRST") == (("FIRST", 5),)


def test_prototype_is_given_as_c_types(btf: Btf) -> None:
    """Typedefs keep their name; pointers and qualifiers are written out."""
    assert btf.parameters("alloc") == ("gfp_t", "const struct page *", "volatile unsigned int")
    assert btf.return_type("alloc") == "struct page *"
    assert btf.parameters("idle") == ()
    assert btf.return_type("idle") == "void"


def test_unknown_function_has_no_prototype(btf: Btf) -> None:
    """A structure of the same name is not a function."""
    for name in ("missing", "page"):
        assert not btf.has_function(name)
        assert btf.parameters(name) is None
        assert btf.return_type(name) is None
    assert btf.has_function("alloc")


def test_variable_size(btf: Btf) -> None:
    """Only variables count, not types of that name."""
    assert btf.variable_size("__preempt_count") == 4
    assert btf.variable_size("page") is None


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    """The error names the file, the cause and the build option."""
    with pytest.raises(KalloctraceError, match="none") as caught:
        Btf(tmp_path / "none")
    assert caught.value.why == "there is no such file"


@pytest.mark.parametrize("data", [b"", b"\x9f\xeb", b"not BTF at all, but long enough for a header"])
def test_damaged_file_is_an_error(tmp_path: Path, data: bytes) -> None:
    """Truncated and foreign files are refused."""
    file = tmp_path / "btf"
    file.write_bytes(data)
    with pytest.raises(KalloctraceError) as caught:
        Btf(file)
    assert caught.value.why == "the file has no BTF"


def test_missing_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the package to install."""

    def no_library(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    libbpf.cache_clear()
    monkeypatch.setattr("ctypes.CDLL", no_library)
    with pytest.raises(KalloctraceError) as caught:
        Btf()
    assert "libbpf.so.1: cannot open" in caught.value.why
    monkeypatch.undo()
    assert libbpf() is libbpf()
