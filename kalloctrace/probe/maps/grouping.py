# SPDX-License-Identifier: MIT
"""Numbers distinct records, with operations on whole arrays."""

import numpy as np
import numpy.typing as npt

from kalloctrace.probe.maps.structs import Words

_MULTIPLIER = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: odd, with well-mixed bits."""

Numbers = npt.NDArray[np.int32]


class Grouper:
    """Numbers distinct records in the order of their first occurrence.

    Args:
        dtype: the type of the records, whose size is a multiple of 8 bytes, without padding.
    """

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._dtype = dtype
        self._width = dtype.itemsize // 8
        self._powers: Words = np.full(self._width, _MULTIPLIER, np.uint64).cumprod(dtype=np.uint64)
        self._known: Words = np.zeros((0, self._width), np.uint64)
        self._hashes: Words = np.zeros(0, np.uint64)
        self._numbers: Numbers = np.zeros(0, np.int32)

    def numbers(self, rows: Words, first: int = 0) -> tuple[Numbers, npt.NDArray[np.void]]:
        """Return the number of each record, and the records that are new, in the order of their numbers.

        Args:
            rows: one row of words for each record, contiguous; fastest if the row length is a multiple of 8.
            first: the column where the record begins; words outside the record are ignored.
        """
        before = len(self._known)
        # Only the first of consecutive equal records is looked up.
        starts = self._starts(rows, first)
        numbers = self._look_up_known(rows[starts, first : first + self._width])[np.cumsum(starts) - 1]
        return numbers, self._known[before:].copy().view(self._dtype).ravel()

    def _starts(self, rows: Words, first: int) -> npt.NDArray[np.bool_]:
        """Return which records differ from the one before."""
        if rows.shape[1] % 8:
            rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8)))
        flat, width = rows.ravel(), rows.shape[1]
        # The comparisons of one row, one byte each, are viewed as words again.
        differs = (flat[width:] != flat[:-width]).view(np.uint64).reshape(-1, width // 8)
        compared = np.zeros(width, np.bool_)
        compared[first : first + self._width] = True
        starts = np.zeros(len(rows), np.bool_)
        starts[:1] = True
        for column, mask in zip(differs.T, compared.view(np.uint64), strict=True):
            starts[1:] |= column & mask != 0
        return starts

    def _look_up_known(self, words: Words) -> Numbers:
        """Return the number of each record, after giving new records a number."""
        numbers = self._look_up(words)
        wrong = (self._known[numbers] != words).any(axis=1) if len(self._known) else np.ones(len(words), np.bool_)
        if wrong.any():
            self._add(words[wrong])
            numbers = self._look_up(words)
            # Hash collisions.
            for row in np.flatnonzero((self._known[numbers] != words).any(axis=1)):
                numbers[row] = np.flatnonzero((self._known == words[row]).all(axis=1))[0]
        return numbers

    def _hash(self, words: Words) -> Words:
        hashes: Words = words @ self._powers
        return hashes

    def _look_up(self, words: Words) -> Numbers:
        """Return the number of a known record with the same hash, or any number if there is none."""
        if not len(self._hashes):
            return np.zeros(len(words), np.int32)
        at = np.searchsorted(self._hashes, self._hash(words))
        numbers: Numbers = self._numbers[np.minimum(at, len(self._hashes) - 1)]
        return numbers

    def _add(self, words: Words) -> None:
        """Give a number to each record that has none."""
        unique, first = np.unique(words, axis=0, return_index=True)
        unknown = [row for row in unique[np.argsort(first)] if not (self._known == row).all(axis=1).any()]
        self._known = np.concatenate([self._known, np.array(unknown, np.uint64).reshape(-1, self._width)])
        hashes = self._hash(self._known)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._numbers = hashes[order], order.astype(np.int32)
