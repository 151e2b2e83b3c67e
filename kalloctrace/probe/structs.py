# SPDX-License-Identifier: MIT
"""Copies structures as bytes. numpy would copy them member by member, which takes more than ten times as long."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Structs = npt.NDArray[np.void]


def opaque(dtype: np.dtype[np.void]) -> np.dtype[np.void]:
    """Return the type of as many bytes without members."""
    return np.dtype((np.void, dtype.itemsize))


def joined(parts: Sequence[Structs]) -> Structs:
    """Return arrays of one type, of which each lies in one piece in memory, one after the other."""
    dtype = parts[0].dtype
    return np.concatenate([part.view(opaque(dtype)) for part in parts]).view(dtype)


def member(structs: Structs, name: str) -> Structs:
    """Return a copy of a member that is a structure itself, of structures that lie in one piece in memory."""
    if structs.dtype.fields is None:
        raise TypeError(f"{structs.dtype} has no members")
    dtype, offset = structs.dtype.fields[name][:2]
    rows = structs.view(np.uint8).reshape(len(structs), structs.dtype.itemsize)
    copied: Structs = np.ascontiguousarray(rows[:, offset : offset + dtype.itemsize]).view(dtype).ravel()
    return copied
