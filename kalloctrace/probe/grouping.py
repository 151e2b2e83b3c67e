# SPDX-License-Identifier: MIT
"""Finds equal records at the speed of whole arrays: each distinct one gets a number."""

import numpy as np
import numpy.typing as npt

_MULTIPLIER = 0x9E3779B97F4A7C15
"""Odd, and its bits look random: 2^64 divided by the golden ratio."""

Words = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int32]


class Grouper:
    """Numbers distinct records in the order in which they are first met.

    Args:
        dtype: of the records, a multiple of 8 bytes long and without padding.
    """

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._dtype = dtype
        self._width = dtype.itemsize // 8
        self._powers: Words = np.full(self._width, _MULTIPLIER, np.uint64).cumprod(dtype=np.uint64)
        self._known: Words = np.zeros((0, self._width), np.uint64)
        self._hashes: Words = np.zeros(0, np.uint64)
        self._numbers: Numbers = np.zeros(0, np.int32)

    def numbers(self, records: npt.NDArray[np.void]) -> tuple[Numbers, npt.NDArray[np.void]]:
        """Return the number of each record, and those that were not met before, in the order of their numbers.

        Args:
            records: of the grouper's type, next to each other in memory.
        """
        words = records.view(np.uint64).reshape(len(records), self._width)
        before = len(self._known)
        numbers = self._look_up(words)
        wrong = self._known[numbers] != words if before else np.ones_like(words, np.bool_)
        if wrong.any():
            self._learn(words[wrong.any(axis=1)])
            numbers = self._look_up_exactly(words)
        new = np.ascontiguousarray(self._known[before:])
        return numbers, new.view(self._dtype).ravel()

    def _hash(self, words: Words) -> Words:
        hashes: Words = words @ self._powers
        return hashes

    def _look_up(self, words: Words) -> Numbers:
        """Return the number of a known record with the same hash, or any where there is none."""
        hashes = self._hash(words)
        # Of records in a row that are equal the first one stands for all.
        starts = np.ones(len(hashes), np.bool_)
        starts[1:] = hashes[1:] != hashes[:-1]
        at = np.searchsorted(self._hashes, hashes[starts])
        if not len(self._hashes):
            return np.zeros(len(words), np.int32)
        numbers: Numbers = self._numbers[np.minimum(at, len(self._hashes) - 1)][np.cumsum(starts) - 1]
        return numbers

    def _look_up_exactly(self, words: Words) -> Numbers:
        """Return the number of each record, all of which are known, also where hashes are equal by chance."""
        numbers = self._look_up(words)
        for row in np.flatnonzero((self._known[numbers] != words).any(axis=1)):
            numbers[row] = np.flatnonzero((self._known == words[row]).all(axis=1))[0]
        return numbers

    def _learn(self, words: Words) -> None:
        """Number the records that are not known yet."""
        unique, first = np.unique(words, axis=0, return_index=True)
        unknown = [row for row in unique[np.argsort(first)] if not (self._known == row).all(axis=1).any()]
        self._known = np.concatenate([self._known, np.array(unknown, np.uint64).reshape(-1, self._width)])
        hashes = self._hash(self._known)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._numbers = hashes[order], order.astype(np.int32)
