# SPDX-License-Identifier: MIT
"""The memory layout of one captured record, taken from the header that the BPF program is compiled with."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

_SOURCES = Path(__file__).resolve().parent.parent

_STRUCT = re.compile(r"^struct (?P<name>\w+) \{\n(?P<body>.*?)^\};", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(
    r"^\t(?P<type>[us]\d+|char|struct (?P<struct>\w+)) (?P<name>\w+)(?:\[(?P<count>\w+)\])?;", re.MULTILINE
)
_LENGTH = re.compile(r"^#define (?P<name>\w+) (?P<value>\d+)$", re.MULTILINE)
_DTYPES = {
    "u32": "<u4",
    "u64": "<u8",
    "s32": "<i4",
}

_Field = tuple[str, npt.DTypeLike] | tuple[str, npt.DTypeLike, tuple[int, ...]]


@cache
def bpf_folder() -> Path:
    """Return the folder with the BPF programs: inside the installed package, or beside it in a checkout."""
    installed = _SOURCES / "_bpf"
    return installed if installed.is_dir() else _SOURCES.parent / "bpf"


def record_dtype(struct: str, lengths: Mapping[str, int]) -> np.dtype[np.void]:
    """Return numpy's description of a structure of the header, with the compiler's alignment.

    Args:
        struct: its name; the members of a structure that it begins with are listed as its own, any other structure
            in it is one member.
        lengths: the values of the constants that the header uses as lengths of arrays.
    """
    header = (bpf_folder() / "record.h").read_text()
    bodies = {found["name"]: found["body"] for found in _STRUCT.finditer(header)}
    own = {found["name"]: int(found["value"]) for found in _LENGTH.finditer(header)}
    return np.dtype(_fields(struct, bodies, own | dict(lengths)), align=True)


def _fields(struct: str, bodies: Mapping[str, str], lengths: Mapping[str, int]) -> list[_Field]:
    fields: list[_Field] = []
    for found in _FIELD.finditer(bodies[struct]):
        name, count = found["name"], found["count"]
        if found["struct"] is not None:
            members = _fields(found["struct"], bodies, lengths)
            fields += [(name, np.dtype(members, align=True))] if fields else members
        elif found["type"] == "char":
            fields.append((name, f"S{count}"))
        elif count is None:
            fields.append((name, _DTYPES[found["type"]]))
        else:
            fields.append((name, _DTYPES[found["type"]], (lengths[count],)))
    return fields
