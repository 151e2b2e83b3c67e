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


def padded(dtype: np.dtype[np.void], multiple: int) -> np.dtype[np.void]:
    """Return the type of a structure that is followed by unused bytes, up to a multiple of so many."""
    if dtype.fields is None:
        raise TypeError(f"{dtype} has no members")
    members = {name: field[:2] for name, field in dtype.fields.items()}
    return np.dtype(
        {
            "names": list(members),
            "formats": [kind for kind, _ in members.values()],
            "offsets": [offset for _, offset in members.values()],
            "itemsize": -(-dtype.itemsize // multiple) * multiple,
        }
    )


def words_of(structs: Structs) -> Words:
    """Return structures as rows of words, where they are.

    Args:
        structs: they lie in one piece in memory, and have a multiple of 8 bytes.
    """
    return structs.view(np.uint64).reshape(len(structs), structs.dtype.itemsize // 8)


def first_word(dtype: np.dtype[np.void], member: str) -> int:
    """Return which word of a structure is the first of a member."""
    if dtype.fields is None:
        raise TypeError(f"{dtype} has no members")
    return int(dtype.fields[member][1]) // 8
