# SPDX-License-Identifier: MIT
"""Reads the types that the BPF program and user space share, from the header that the program is compiled with.

`bpf/record.h` is the only place where they are declared. Here it is read as C: constants, enums and structures. A line
that this reader does not understand is an error, because to skip one would shift every member after it.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

_SOURCES = Path(__file__).resolve().parent.parent

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_DEFINE = re.compile(r"#define (?P<name>\w+)[ \t]+(?P<value>[^\n]+)")
_BLOCK = re.compile(r"(?P<kind>enum|struct) (?P<name>\w+) \{(?P<body>[^{}]*)\};")
_ENUMERATOR = re.compile(r"(?P<name>\w+)(?:\s*=\s*(?P<value>.+))?", re.DOTALL)
_MEMBER = re.compile(r"(?:struct (?P<struct>\w+)|(?P<type>\w+))\s+(?P<name>\w+)(?:\[(?P<count>[^\]]+)\])?")
_DTYPES = {
    **{f"u{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"s{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
}
_OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.LShift: operator.lshift,
    ast.BitOr: operator.or_,
}

DType = np.dtype[np.void]


class HeaderError(Exception):
    """The header has something that this reader does not understand, or lacks something that user space needs."""


@dataclass(frozen=True)
class Member:
    """One member of a structure.

    Attributes:
        name: its name.
        type: `u32`, `char`, … , or the name of a structure.
        count: the length of an array as C text; None where the member is no array.
        is_struct: the type is a structure.
    """

    name: str
    type: str
    count: str | None
    is_struct: bool


@dataclass(frozen=True)
class Header:
    """The declarations of a header.

    Attributes:
        constants: the text of each `#define`.
        enums: the members of each enum with their values, in the order of the header.
        structs: the members of each structure, in the order of the header.
    """

    constants: dict[str, str] = field(default_factory=dict)
    enums: dict[str, dict[str, int]] = field(default_factory=dict)
    structs: dict[str, list[Member]] = field(default_factory=dict)

    def evaluate(self, text: str, constants: Mapping[str, int]) -> int:
        """Return the value of a C expression of integers.

        Args:
            text: the expression; it may use the header's constants and enumerators.
            constants: what is defined on the compiler's command line.

        Raises:
            HeaderError: a name is not defined, or an operator is not known.
        """
        try:
            return self._value(ast.parse(text.strip(), mode="eval").body, constants)
        except (SyntaxError, KeyError) as error:
            raise HeaderError(f"the value {text!r} is not understood: {error}") from error

    def _value(self, node: ast.expr, constants: Mapping[str, int]) -> int:
        match node:
            case ast.Constant(value=int(value)):
                return value
            case ast.Name(id=name) if name in constants:
                return constants[name]
            case ast.Name(id=name) if name in self.constants:
                return self.evaluate(self.constants[name], constants)
            case ast.Name(id=name) if (enum := next((e for e in self.enums.values() if name in e), None)) is not None:
                return enum[name]
            case ast.BinOp(left=left, op=op, right=right):
                return _OPERATORS[type(op)](self._value(left, constants), self._value(right, constants))
        raise KeyError(ast.unparse(node))

    def dtype(self, struct: str, constants: Mapping[str, int]) -> DType:
        """Return numpy's description of a structure, laid out as the x86-64 compiler does.

        Args:
            struct: its name. The members of a structure that it begins with are listed as its own; any other structure
                in it is one member.
            constants: what is defined on the compiler's command line, such as lengths of arrays.

        Raises:
            HeaderError: the structure or a type in it is not known.
        """
        if struct not in self.structs:
            raise HeaderError(f"there is no struct {struct}")
        first = self.structs[struct][0]
        whole = np.dtype([(m.name, *self._type(m, constants)) for m in self.structs[struct]], align=True)
        return _without_wrapper(whole, first.name) if first.is_struct and first.count is None else whole

    def _type(self, member: Member, constants: Mapping[str, int]) -> tuple[npt.DTypeLike] | tuple[npt.DTypeLike, int]:
        length = None if member.count is None else self.evaluate(member.count, constants)
        if member.type == "char" and length is not None:
            return (f"S{length}",)
        if member.is_struct:
            kind = self.dtype(member.type, constants)
        elif member.type in _DTYPES:
            kind = _DTYPES[member.type]
        else:
            raise HeaderError(f"the type of `{member.type} {member.name}` is not known")
        return (kind,) if length is None else (kind, length)


def read_header(text: str) -> Header:
    """Read a header that contains only `#define`, `enum` and `struct` declarations.

    Raises:
        HeaderError: a line or a member is anything else. The message names it.
    """
    header = Header()
    # Comments become spaces and newlines, so that line numbers stay.
    text = _COMMENT.sub(lambda comment: re.sub(r"[^\n]", " ", comment[0]), text)
    position = 0
    while remainder := text[position:].strip():
        position = len(text) - len(text[position:].lstrip())
        found = _DEFINE.match(text, position) or _BLOCK.match(text, position)
        if found is None:
            line = text.count("\n", 0, position) + 1
            raise HeaderError(f"line {line} is not understood: {remainder.splitlines()[0]}")
        _declare(header, found)
        position = found.end()
    return header


def _declare(header: Header, found: re.Match[str]) -> None:
    name = found["name"]
    if found.re is _DEFINE:
        header.constants[name] = found["value"]
        return
    known = header.enums if found["kind"] == "enum" else header.structs
    if name in known:
        raise HeaderError(f"{found['kind']} {name} is declared twice")
    if found["kind"] == "struct":
        header.structs[name] = list(_members(name, found["body"]))
        return
    values = header.enums[name] = {}
    following = 0
    for part in _parts(f"enum {name}", found["body"], ","):
        member = _ENUMERATOR.fullmatch(part)
        if member is None:
            raise HeaderError(f"a member of enum {name} is not understood: {part}")
        following = values[member["name"]] = (
            following if member["value"] is None else header.evaluate(member["value"], values)
        )
        following += 1


def _members(struct: str, body: str) -> Iterator[Member]:
    for part in _parts(f"struct {struct}", body, ";"):
        member = _MEMBER.fullmatch(part)
        if member is None or (member["struct"] is None and member["type"] not in (*_DTYPES, "char")):
            raise HeaderError(f"a member of struct {struct} is not understood: {part}")
        is_struct = member["struct"] is not None
        yield Member(member["name"], member["struct"] or member["type"], member["count"], is_struct)


def _parts(owner: str, body: str, separator: str) -> list[str]:
    """Split a body at its separators; a last one may end it."""
    *parts, last = (part.strip() for part in body.split(separator))
    parts += [last] if last else []
    if not parts or not all(parts):
        raise HeaderError(f"{owner} has an empty member")
    return parts


def _without_wrapper(dtype: DType, first: str) -> DType:
    """Return a structure whose first member, itself a structure, is replaced by that one's members."""
    inner = dtype[first]
    fields = {**dict(inner.fields or {}), **{name: f for name, f in (dtype.fields or {}).items() if name != first}}
    return np.dtype(
        {
            "names": list(fields),
            "formats": [f[0] for f in fields.values()],
            "offsets": [f[1] for f in fields.values()],
            "itemsize": dtype.itemsize,
        },
        align=True,
    )


@cache
def bpf_folder() -> Path:
    """Return the folder with the BPF programs: in the installed package, or next to the package in a checkout."""
    installed = _SOURCES / "_bpf"
    return installed if installed.is_dir() else _SOURCES.parent / "bpf"


@cache
def shared_header() -> Header:
    """Return the header that the program and user space share."""
    return read_header((bpf_folder() / "record.h").read_text())


def struct_dtype(struct: str, constants: Mapping[str, int] | None = None) -> DType:
    """Return numpy's description of a structure of the shared header; see `Header.dtype`."""
    return shared_header().dtype(struct, constants or {})


def constant(name: str) -> int:
    """Return the value of a constant of the shared header."""
    return shared_header().evaluate(name, {})


def enum_values(enum: str, *members: str) -> tuple[int, ...]:
    """Return the values of all members of an enum of the shared header, in the order in which they are named here.

    Raises:
        HeaderError: the enum has other members than those named.
    """
    values = shared_header().enums.get(enum, {})
    if set(values) != set(members):
        raise HeaderError(f"enum {enum} has the members {sorted(values)}, expected {sorted(members)}")
    return tuple(values[name] for name in members)


def enum_texts(enum: str, texts: Mapping[str, str]) -> list[str]:
    """Return the text of each member of an enum whose values count from 0, in the order of the values.

    Args:
        enum: its name in the shared header.
        texts: the text of every member.

    Raises:
        HeaderError: the enum has other members, or its values do not count from 0.
    """
    by_value = dict(zip(enum_values(enum, *texts), texts.values(), strict=True))
    if sorted(by_value) != list(range(len(texts))):
        raise HeaderError(f"the values of enum {enum} do not count from 0: {sorted(by_value)}")
    return [by_value[value] for value in range(len(texts))]
