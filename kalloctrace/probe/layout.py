# SPDX-License-Identifier: MIT
"""The memory layout of one captured record, taken from the header that the BPF program is compiled with."""

import re
from functools import cache
from pathlib import Path

import numpy as np

_SOURCES = Path(__file__).resolve().parent.parent

_FIELD = re.compile(r"^\t(?P<type>[us]\d+|char) (?P<name>\w+)(?:\[(?P<count>\w+)\])?;", re.MULTILINE)
_DTYPES = {
    "u32": "<u4",
    "u64": "<u8",
    "s32": "<i4",
}


@cache
def bpf_folder() -> Path:
    """Return the folder with the BPF programs: inside the installed package, or beside it in a checkout."""
    installed = _SOURCES / "_bpf"
    return installed if installed.is_dir() else _SOURCES.parent / "bpf"


def record_dtype(**lengths: int) -> np.dtype[np.void]:
    """Return numpy's description of `struct record`.

    Args:
        lengths: the values of the constants that the header uses as lengths of arrays.
    """
    header = (bpf_folder() / "record.h").read_text()
    fields: list[tuple[str, str] | tuple[str, str, tuple[int, ...]]] = []
    for found in _FIELD.finditer(header):
        count = found["count"]
        if found["type"] == "char":
            fields.append((found["name"], f"S{count}"))
        elif count is None:
            fields.append((found["name"], _DTYPES[found["type"]]))
        else:
            fields.append((found["name"], _DTYPES[found["type"]], (lengths[count],)))
    return np.dtype(fields)
