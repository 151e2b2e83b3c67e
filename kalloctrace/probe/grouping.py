# SPDX-License-Identifier: MIT
"""Finds equal records at the speed of whole arrays: each distinct one gets a number."""

import numpy as np
import numpy.typing as npt

from kalloctrace.probe.structs import Words

_MULTIPLIER = 0x9E3779B97F4A7C15
"""Odd, and its bits look random: 2^64 divided by the golden ratio."""

_AT_ONCE = 1024

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
        # In one piece, a multiple of 8 words a record, and small enough to stay in the processor's cache.
        self._scratch: Words = np.zeros((_AT_ONCE + 1, -(-self._width // 8) * 8), np.uint64)
        self._known: Words = np.zeros((0, self._width), np.uint64)
        self._hashes: Words = np.zeros(0, np.uint64)
        self._numbers: Numbers = np.zeros(0, np.int32)

    def numbers(self, words: Words) -> tuple[Numbers, npt.NDArray[np.void]]:
        """Return the number of each record, and those that were not met before, in the order of their numbers.

        Args:
            words: a row for each record, its words as columns; it may be a part of something wider.
        """
        before = len(self._known)
        # Of records in a row that are equal the first one stands for all.
        starts = self._starts(words)
        numbers = self._look_up_known(words[starts])[np.cumsum(starts) - 1]
        return numbers, self._known[before:].copy().view(self._dtype).ravel()

    def _starts(self, words: Words) -> npt.NDArray[np.bool_]:
        """Tell which records differ from the one before."""
        starts = np.ones(len(words), np.bool_)
        for first in range(1, len(words), _AT_ONCE):
            count = min(_AT_ONCE, len(words) - first)
            self._scratch[: count + 1, : self._width] = words[first - 1 : first + count]
            flat, width = self._scratch[: count + 1].ravel(), self._scratch.shape[1]
            # The answers of one record, a byte each, are whole words again.
            answers = (flat[width:] != flat[:-width]).view(np.uint64).reshape(count, width // 8)
            differs = answers[:, 0] != 0
            for column in answers.T[1:]:
                differs |= column != 0
            starts[first : first + count] = differs
        return starts

    def _look_up_known(self, words: Words) -> Numbers:
        """Return the number of each record, and learn those that have none."""
        numbers = self._look_up(words)
        wrong = (self._known[numbers] != words).any(axis=1) if len(self._known) else np.ones(len(words), np.bool_)
        if wrong.any():
            self._learn(words[wrong])
            numbers = self._look_up(words)
            # Whose hash is another's by chance.
            for row in np.flatnonzero((self._known[numbers] != words).any(axis=1)):
                numbers[row] = np.flatnonzero((self._known == words[row]).all(axis=1))[0]
        return numbers

    def _hash(self, words: Words) -> Words:
        hashes: Words = words @ self._powers
        return hashes

    def _look_up(self, words: Words) -> Numbers:
        """Return the number of a known record with the same hash, or any where there is none."""
        if not len(self._hashes):
            return np.zeros(len(words), np.int32)
        at = np.searchsorted(self._hashes, self._hash(words))
        numbers: Numbers = self._numbers[np.minimum(at, len(self._hashes) - 1)]
        return numbers

    def _learn(self, words: Words) -> None:
        """Number the records that are not known yet."""
        unique, first = np.unique(words, axis=0, return_index=True)
        unknown = [row for row in unique[np.argsort(first)] if not (self._known == row).all(axis=1).any()]
        self._known = np.concatenate([self._known, np.array(unknown, np.uint64).reshape(-1, self._width)])
        hashes = self._hash(self._known)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._numbers = hashes[order], order.astype(np.int32)
