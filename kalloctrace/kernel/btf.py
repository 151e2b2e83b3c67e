# SPDX-License-Identifier: MIT
"""A kernel's type information: BTF, read through libbpf.

libbcc links libbpf, so the library is installed wherever bcc is. The layouts follow `include/uapi/linux/btf.h`, which
is a stable interface of the kernel.
"""

import ctypes
import os
from collections.abc import Iterator
from ctypes import c_char_p, c_int32, c_int64, c_uint32, c_void_p
from functools import cache
from pathlib import Path
from struct import iter_unpack, pack, unpack_from
from typing import Any

from kalloctrace.errors import KalloctraceError

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_VOID, _INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = range(9)
_VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _VAR = range(9, 15)
_MAGIC = b"\x9f\xeb"
_HEADER = 24
"""Bytes of `struct btf_header`."""
_DEEPEST = 32
"""Types within types; libbpf's own limit (MAX_RESOLVE_DEPTH)."""
_QUALIFIERS = {_VOLATILE: "volatile", _CONST: "const", _RESTRICT: "restrict"}


class _Type(ctypes.Structure):
    """`struct btf_type`; the data after it in memory depends on its kind."""

    _fields_ = (("name_off", c_uint32), ("info", c_uint32), ("size_or_type", c_uint32))

    @property
    def kind(self) -> int:
        return int(self.info >> 24) & 0x1F

    @property
    def vlen(self) -> int:
        return int(self.info) & 0xFFFF

    @property
    def kind_flag(self) -> bool:
        return bool(self.info >> 31)


class _Member(ctypes.Structure):
    """`struct btf_member`; `struct btf_enum` and `struct btf_param` are its first two words."""

    _fields_ = (("name_off", c_uint32), ("type", c_uint32), ("offset", c_uint32))


class _Pair(ctypes.Structure):
    """`struct btf_enum` (value) or `struct btf_param` (type)."""

    _fields_ = (("name_off", c_uint32), ("value", c_int32))


@cache
def libbpf() -> ctypes.CDLL:
    """Load libbpf and declare its functions.

    Raises:
        KalloctraceError: the library is not installed.
    """
    try:
        lib = ctypes.CDLL("libbpf.so.1")
    except OSError as error:
        raise KalloctraceError(
            "cannot read the kernel's type information", f"libbpf: {error}", "install it: apt install libbpf1"
        ) from error
    # Our errors report what it would print.
    lib.libbpf_set_print.argtypes, lib.libbpf_set_print.restype = [c_void_p], c_void_p
    lib.libbpf_set_print(None)
    lib.btf__parse.argtypes, lib.btf__parse.restype = [c_char_p, c_void_p], c_void_p
    lib.btf__free.argtypes, lib.btf__free.restype = [c_void_p], None
    lib.btf__raw_data.argtypes, lib.btf__raw_data.restype = [c_void_p, c_void_p], c_void_p
    lib.btf__type_by_id.argtypes, lib.btf__type_by_id.restype = [c_void_p, c_uint32], c_void_p
    lib.btf__name_by_offset.argtypes, lib.btf__name_by_offset.restype = [c_void_p, c_uint32], c_char_p
    lib.btf__find_by_name_kind.argtypes = [c_void_p, c_char_p, c_uint32]
    lib.btf__find_by_name_kind.restype = c_int32
    lib.btf__resolve_size.argtypes, lib.btf__resolve_size.restype = [c_void_p, c_uint32], c_int64
    return lib


class Btf:
    """The types of one kernel image.

    Args:
        path: a file with BTF: the running kernel's, a raw dump, or an ELF image with a `.BTF` section.

    Raises:
        KalloctraceError: the file does not exist, or has no BTF.
    """

    def __init__(self, path: Path = VMLINUX) -> None:
        self._btf = None
        self._found: dict[tuple[str, int], int] = {}
        self._lib = libbpf()
        self._btf = self._lib.btf__parse(os.fsencode(path), None)
        if not self._btf:
            why = "the file has no BTF" if path.exists() else "there is no such file"
            raise KalloctraceError(
                f"cannot read the kernel's type information from {path}",
                why,
                "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian's are)",
            )

    def __del__(self) -> None:
        """Free the library's memory."""
        if self._btf:
            self._lib.btf__free(self._btf)

    def has_function(self, name: str) -> bool:
        """Return whether BTF describes a function; fentry and fexit programs can attach to no other."""
        return self._find(name, _FUNC) is not None

    def function_id(self, name: str) -> int:
        """Return the number of a function's type; BPF names functions of the kernel by it.

        Raises:
            KalloctraceError: BTF describes no such function.
        """
        return self._need(name, _FUNC)

    def struct_id(self, name: str) -> int:
        """Return the number of a structure's type.

        Raises:
            KalloctraceError: BTF describes no such structure.
        """
        return self._need(name, _STRUCT)

    def size(self, struct: str) -> int:
        """Return `sizeof(struct name)` in bytes."""
        return self._size(self._need(struct, _STRUCT))

    def offset(self, struct: str, member: str) -> int:
        """Return `offsetof(struct name, member)` in bytes; members of anonymous members are found too."""
        found = self._member(self._need(struct, _STRUCT), member)
        if found is None:
            raise _missing(f"struct {struct} has no member {member}")
        return found[0] // 8

    def has_struct(self, name: str) -> bool:
        """Return whether there is a structure of that name."""
        return self._find(name, _STRUCT) is not None

    def has_member(self, struct: str, *path: str) -> bool:
        """Return whether a structure has a member; members of anonymous members are found too.

        Args:
            struct: the structure.
            path: the name of the member; further names are of a member of the one before.
        """
        at = self._need(struct, _STRUCT)
        for name in path:
            found = self._member(at, name)
            if found is None:
                return False
            at = found[1]
        return True

    def member_size(self, struct: str, member: str) -> int:
        """Return the size of a structure's member in bytes."""
        found = self._member(self._need(struct, _STRUCT), member)
        if found is None:
            raise _missing(f"struct {struct} has no member {member}")
        return self._size(found[1])

    def variable_size(self, name: str) -> int | None:
        """Return the size of a per-CPU variable in bytes; None if BTF does not describe it."""
        found = self._find(name, _VAR)
        return None if found is None else self._size(found)

    def enum(self, name: str) -> tuple[tuple[str, int], ...] | None:
        """Return the enumerators of `enum name` in order; None if there is no such enum."""
        found = self._find(name, _ENUM)
        return None if found is None else self._enumerators(found)

    def anonymous_enum(self, enumerator: str) -> tuple[tuple[str, int], ...] | None:
        """Return the enumerators of the anonymous enum whose first enumerator has this name; None if there is none.

        libbpf cannot look up an anonymous type, and a kernel has about 100,000 types, so this searches the raw bytes.
        """
        size = c_uint32()
        address = self._lib.btf__raw_data(self._btf, ctypes.byref(size))
        raw = ctypes.string_at(address, size.value) if address else b""
        if not raw.startswith(_MAGIC) or len(raw) < _HEADER:
            raise _damaged("its header is not that of a little-endian kernel")
        header, type_off, type_len, str_off, str_len = unpack_from("<IIIII", raw, 4)
        strings = raw[header + str_off : header + str_off + str_len]
        name_off = strings.find(b"\0" + enumerator.encode() + b"\0") + 1
        if not name_off:
            return None
        types = raw[header + type_off : header + type_off + type_len]
        at = -1
        while (at := types.find(pack("<I", name_off), at + 1)) >= 0:
            start = at - ctypes.sizeof(_Type)
            if start < 0 or start % 4:
                continue
            kind = _Type.from_buffer_copy(types, start)
            length = kind.vlen * ctypes.sizeof(_Pair)
            if kind.kind == _ENUM and kind.name_off == 0 and 0 < length <= len(types) - at:
                pairs = iter_unpack("<Ii", types[at : at + length])
                return tuple((self._name(offset), value) for offset, value in pairs)
        return None

    def parameters(self, function: str) -> tuple[str, ...] | None:
        """Return the C types of a function's parameters in order; None if BTF does not describe the function."""
        found = self._find(function, _FUNC)
        if found is None:
            return None
        return tuple(self._c_type(param.value & 0xFFFFFFFF) for param in self._trailing(self._proto(found), _Pair))

    def return_type(self, function: str) -> str | None:
        """Return the C type of a function's return value; None if BTF does not describe the function."""
        found = self._find(function, _FUNC)
        return None if found is None else self._c_type(self._type(self._proto(found)).size_or_type)

    def _find(self, name: str, kind: int) -> int | None:
        found = self._found.get((name, kind))
        if found is None:
            # The library compares the name with those of all types.
            found = self._found[name, kind] = self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind)
        return found if found > 0 else None

    def _need(self, name: str, kind: int) -> int:
        found = self._find(name, kind)
        if found is None:
            kinds = {_STRUCT: "struct", _FUNC: "function"}
            raise _missing(f"the kernel's BTF has no {kinds[kind]} {name}")
        return found

    def _size(self, type_id: int) -> int:
        size = int(self._lib.btf__resolve_size(self._btf, type_id))
        if size < 0:
            raise _damaged(f"type {type_id} has no size")
        return size

    def _proto(self, function: int) -> int:
        proto = int(self._type(function).size_or_type)
        if self._type(proto).kind != _FUNC_PROTO:
            raise _damaged(f"function {function} has no prototype")
        return proto

    def _address(self, type_id: int) -> int:
        address = self._lib.btf__type_by_id(self._btf, type_id)
        if not address:
            raise _damaged(f"there is no type {type_id}")
        return int(address)

    def _type(self, type_id: int) -> _Type:
        return _Type.from_address(self._address(type_id))

    def _name(self, offset: int) -> str:
        name: bytes | None = self._lib.btf__name_by_offset(self._btf, offset)
        if name is None:
            raise _damaged(f"there is no name at {offset}")
        return name.decode("ascii", errors="backslashreplace")

    def _trailing(self, type_id: int, item: type[Any]) -> Iterator[Any]:
        """Yield the elements of a type whose kind has them; libbpf has checked that they are there."""
        start = self._address(type_id) + ctypes.sizeof(_Type)
        for i in range(self._type(type_id).vlen):
            yield item.from_address(start + i * ctypes.sizeof(item))

    def _enumerators(self, type_id: int) -> tuple[tuple[str, int], ...]:
        return tuple((self._name(item.name_off), item.value) for item in self._trailing(type_id, _Pair))

    def _member(
        self, type_id: int, name: str, searched: set[int] | None = None, depth: int = 0
    ) -> tuple[int, int] | None:
        """Return a member's offset in bits and its type id; None if there is no such member.

        Args:
            type_id: a structure or union.
            name: the member.
            searched: the types that do not have it; a type may contain another one many times.
            depth: how many anonymous members surround this one.
        """
        if depth > _DEEPEST:
            raise _damaged(f"type {type_id} contains itself")
        searched = {type_id} if searched is None else searched
        bitfields = self._type(type_id).kind_flag
        for member in self._trailing(type_id, _Member):
            offset = member.offset & 0xFFFFFF if bitfields else member.offset
            if self._name(member.name_off) == name:
                return offset, member.type
            anonymous = member.name_off == 0 and self._type(member.type).kind in (_STRUCT, _UNION)
            if anonymous and member.type not in searched:
                searched.add(member.type)
                inner = self._member(member.type, name, searched, depth + 1)
                if inner is not None:
                    return offset + inner[0], inner[1]
        return None

    def _c_type(self, type_id: int, depth: int = 0) -> str:
        if type_id == 0:
            return "void"
        if depth > _DEEPEST:
            raise _damaged(f"type {type_id} refers to itself")
        kind = self._type(type_id)
        if kind.kind == _PTR:
            return f"{self._c_type(kind.size_or_type, depth + 1)} *"
        if kind.kind in _QUALIFIERS:
            return f"{_QUALIFIERS[kind.kind]} {self._c_type(kind.size_or_type, depth + 1)}"
        prefix = {_STRUCT: "struct ", _UNION: "union ", _ENUM: "enum "}.get(kind.kind, "")
        return f"{prefix}{self._name(kind.name_off)}"


def _damaged(why: str) -> KalloctraceError:
    return KalloctraceError(
        "cannot read the kernel's type information",
        f"its BTF is damaged: {why}",
        "use the kernel's own file, /sys/kernel/btf/vmlinux, or its image",
    )


def _missing(why: str) -> KalloctraceError:
    return KalloctraceError(
        "cannot trace this kernel", why, "report the kernel's release and where its package comes from"
    )
