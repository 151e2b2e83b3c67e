# SPDX-License-Identifier: MIT
"""Handles structures as bytes or words. numpy would go through them member by member, which takes ten times as long."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Structs = npt.NDArray[np.void]
Words = npt.NDArray[np.uint64]


def opaque(dtype: np.dtype[np.void]) -> np.dtype[np.void]:
    """Return the type of as many bytes without members."""
    return np.dtype((np.void, dtype.itemsize))


def joined(parts: Sequence[Structs]) -> Structs:
    """Return arrays of one type, of which each lies in one piece in memory, one after the other."""
    dtype = parts[0].dtype
    return np.concatenate([part.view(opaque(dtype)) for part in parts]).view(dtype)


def words_of(structs: Structs, member: str | None = None) -> Words:
    """Return structures, or one member of each, as rows of words, where they are.

    Args:
        structs: they lie in one piece in memory, and have a multiple of 8 bytes, as their member has.
        member: its name.
    """
    words = structs.view(np.uint64).reshape(len(structs), structs.dtype.itemsize // 8)
    if member is None:
        return words
    if structs.dtype.fields is None:
        raise TypeError(f"{structs.dtype} has no members")
    dtype, offset = structs.dtype.fields[member][:2]
    return words[:, offset // 8 : (offset + dtype.itemsize) // 8]
