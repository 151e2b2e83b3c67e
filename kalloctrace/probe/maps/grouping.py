# SPDX-License-Identifier: MIT
"""Numbers distinct records, with operations on whole arrays."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kalloctrace.probe.maps.structs import Words

_MULTIPLIER = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: odd, with well-mixed bits."""
_LEAST_ROWS = 1024
_MERGED_SHARE = 8

Numbers = npt.NDArray[np.int32]


class Grouper:
    """Numbers distinct records in the order of their first occurrence; those of equal hashes come last in one call.

    Args:
        dtype: the type of the records, whose size is a multiple of 8 bytes, without padding.
    """

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._dtype = dtype
        self._width = dtype.itemsize // 8
        self._powers: Words = np.full(self._width, _MULTIPLIER, np.uint64).cumprod(dtype=np.uint64)
        self._rows: Words = np.zeros((_LEAST_ROWS, self._width), np.uint64)
        self._count = 0
        self._index = _Index.empty()
        self._recent = _Index.empty()
        self._collided: dict[bytes, int] = {}

    def numbers(self, rows: Words, first: int = 0) -> tuple[Numbers, npt.NDArray[np.void]]:
        """Return the number of each record, and the records that are new, in the order of their numbers.

        Args:
            rows: one row of words for each record, contiguous; fastest if the row length is a multiple of 8.
            first: the column where the record begins; words outside the record are ignored.
        """
        before = self._count
        # Only the first of consecutive equal records is looked up.
        starts = self._starts(rows, first)
        numbers = self._look_up_known(rows[starts, first : first + self._width])[np.cumsum(starts) - 1]
        return numbers, self._rows[before : self._count].copy().view(self._dtype).ravel()

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
        hashes = self._hash(words)
        numbers = self._look_up(hashes)
        new = np.flatnonzero(numbers < 0)
        if len(new):
            _, first = np.unique(hashes[new], return_index=True)
            self._add(words, hashes, new[np.sort(first)])
            numbers[new] = self._look_up(hashes[new])
        for row in np.flatnonzero((self._rows[numbers] != words).any(axis=1)):
            numbers[row] = self._number_of_collided(words[row])
        return numbers

    def _hash(self, words: Words) -> Words:
        hashes: Words = words @ self._powers
        return hashes

    def _look_up(self, hashes: Words) -> Numbers:
        """Return the number of the first record with each hash; -1 if there is none."""
        return np.maximum(self._index.numbers_of(hashes), self._recent.numbers_of(hashes))

    def _add(self, words: Words, hashes: Words, rows: npt.NDArray[np.int64]) -> None:
        """Give the next numbers to records, all with hashes that no other record has."""
        first = self._append(words[rows])
        self._recent = self._recent.merged(hashes[rows], np.arange(first, self._count, dtype=np.int32))
        # Merging takes time for the whole index, so it waits for a fixed share of it: the sum stays linear.
        if len(self._recent.hashes) * _MERGED_SHARE > len(self._index.hashes):
            self._index = self._index.merged(*self._recent)
            self._recent = _Index.empty()

    def _append(self, words: Words) -> int:
        """Keep records; return the number of the first."""
        first = self._count
        self._count += len(words)
        if self._count > len(self._rows):
            rows = np.zeros((max(self._count, 2 * len(self._rows)), self._width), np.uint64)
            rows[:first] = self._rows[:first]
            self._rows = rows
        self._rows[first : self._count] = words
        return first

    def _number_of_collided(self, record: Words) -> int:
        """Return the number of a record whose hash belongs to another one."""
        key = record.tobytes()
        number = self._collided.get(key)
        if number is None:
            number = self._collided[key] = self._append(record.reshape(1, -1))
        return number


class _Index(NamedTuple):
    """Hashes in order, and the number of the record that has each."""

    hashes: Words
    numbers: Numbers

    @classmethod
    def empty(cls) -> "_Index":
        """Return an index without hashes."""
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.int32))

    def numbers_of(self, hashes: Words) -> Numbers:
        """Return the number of each hash; -1 if it is not there."""
        if not len(self.hashes):
            return np.full(len(hashes), -1, np.int32)
        at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        numbers: Numbers = np.where(self.hashes[at] == hashes, self.numbers[at], np.int32(-1))
        return numbers

    def merged(self, hashes: Words, numbers: Numbers) -> "_Index":
        """Return an index that also has these hashes, in any order."""
        order = np.argsort(hashes)
        at = np.searchsorted(self.hashes, hashes[order])
        return _Index(np.insert(self.hashes, at, hashes[order]), np.insert(self.numbers, at, numbers[order]))
